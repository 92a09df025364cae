// Package orgdomain says to whom a domain belongs, by the public suffix list.
package orgdomain

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Of returns the organisational domain of a domain, in lower case and A-labels without a trailing dot: "example.co.uk"
// for "Mail.Example.CO.UK.". A public suffix, a single label and an address literal are their own. ok is false for what
// is no domain name.
func Of(domain string) (org string, ok bool) {
	name, ok := Canonical(domain)
	if !ok {
		return "", false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return name, true
	}
	org, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil { // it is a public suffix itself
		return name, true
	}
	return org, true
}

// Canonical returns a domain as names are compared: in lower case and A-labels, without a trailing dot. ok is false for
// what is no domain name.
func Canonical(domain string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(domain, "."))
	if strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 }) >= 0 {
		// The list is of A-labels; what the mapping for look-ups does to letters, full-width ones too, browsers do as well.
		a, err := idna.Lookup.ToASCII(name)
		if err != nil { // they do not mind underscores, nor hyphens anywhere
			a, err = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.CheckHyphens(false), idna.BidiRule()).ToASCII(name)
		}
		if err != nil {
			return "", false
		}
		name = strings.TrimSuffix(a, ".") // there are other dots
	}
	if len(name) > 253 || strings.ContainsAny(name, " \t\r\n\x00@/") {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
	}
	return name, true
}
