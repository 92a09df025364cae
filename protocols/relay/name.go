package relay

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// asciiDomain returns a domain as the DNS and servers without SMTPUTF8 know it: in lower case, in A-labels.
func asciiDomain(s string) (string, error) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if !isASCII(s) {
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", errNoDomain
		}
		s = a
	}
	if s == "" || len(s) > 253 {
		return "", errNoDomain
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", errNoDomain
		}
		for i := range len(label) {
			if c := label[i]; c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return "", errNoDomain
			}
		}
	}
	return s, nil
}

// isLiteral reports whether a domain is an address literal (RFC 5321, 4.1.3).
func isLiteral(domain string) bool {
	_, ok := literal(domain)
	return ok
}

// literal returns the address of an address literal.
func literal(domain string) (netip.Addr, bool) {
	inner, ok := strings.CutPrefix(domain, "[")
	if !ok {
		return netip.Addr{}, false
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return netip.Addr{}, false
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		a, err := netip.ParseAddr(inner[5:])
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(inner)
	return a, err == nil && a.Is4()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
