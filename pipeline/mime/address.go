package mime

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// An Address is a mail address in the form all of Sluice compares: lower-cased and in Unicode's NFC, the domain as
// U-labels without a trailing dot. The zero Address is the null sender.
type Address struct {
	Raw    string `json:"raw,omitempty"`    // as written, without angle brackets
	Local  string `json:"local,omitempty"`  // without the subaddress
	Tag    string `json:"tag,omitempty"`    // the subaddress: "lists" of user+lists
	Domain string `json:"domain,omitempty"` // "" for postmaster alone
	Name   string `json:"name,omitempty"`   // display name, of an address in a header field
}

// String returns the address in its normal form, "user+tag@example.org"; "" for the zero Address. A local part that
// needs quotes has them (RFC 5321, 4.1.2), so [ParseAddress] of it gives an equal Local, Tag and Domain.
func (a Address) String() string {
	s := a.Mailbox()
	if !isDotString(s) && s != "" {
		s = quote(s)
	}
	if a.Domain != "" {
		s += "@" + a.Domain
	}
	return s
}

// Mailbox returns the local part with its subaddress, without quotes.
func (a Address) Mailbox() string {
	if a.Tag != "" {
		return a.Local + "+" + a.Tag
	}
	return a.Local
}

// IsZero reports whether a is the null sender, or no address at all.
func (a Address) IsZero() bool { return a.Local == "" && a.Domain == "" && a.Tag == "" }

// How long an address may be in its normal form without quotes, in octets. RFC 5321, 4.5.3.1 allows a local part of 64
// and a path of 256; UTF-8 needs up to four octets for a character.
const (
	maxLocal   = 64 * 4
	maxAddress = 320
)

// ParseAddress reads an address as MAIL FROM and RCPT TO give it, without angle brackets. "" is the null sender, the
// zero Address. A name without "@" is an address without Domain: whether it is postmaster is for the caller to say.
//
// The local part is taken with quotes or without, as go-smtp hands it over; so the last "@" is the one that counts, and
// a space inside a local part is taken. Refused are control characters, what is not UTF-8, an empty local part or
// domain, and what is too long.
func ParseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, nil
	}
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("address %.100q: %w", s, err)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	if len(s) > 4*maxAddress {
		return Address{}, fmt.Errorf("is longer than %d octets", maxAddress)
	}
	if !utf8.ValidString(s) {
		return Address{}, errors.New("is not UTF-8")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return Address{}, fmt.Errorf("has a control character at octet %d", i+1)
	}
	local, domain := s, ""
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		local = s[:at]
		var err error
		if domain, err = normalDomain(s[at+1:]); err != nil {
			return Address{}, err
		}
	}
	local = normal(unquote(local))
	switch {
	case local == "":
		return Address{}, errors.New("has no local part")
	case domain == "" && strings.ContainsAny(local, " <>"):
		return Address{}, errors.New("is not an address")
	case len(local) > maxLocal:
		return Address{}, fmt.Errorf("has a local part of %d octets; %d are allowed", len(local), maxLocal)
	case len(local)+1+len(domain) > maxAddress:
		return Address{}, fmt.Errorf("is %d octets long; %d are allowed", len(local)+1+len(domain), maxAddress)
	}
	a := Address{Raw: s, Local: local, Domain: domain}
	if i := strings.IndexByte(local, '+'); i > 0 {
		a.Local, a.Tag = local[:i], local[i+1:]
	}
	if m := a.Mailbox(); m[0] == ' ' || m[len(m)-1] == ' ' {
		return Address{}, errors.New("has a space at the edge of its local part")
	}
	return a, nil
}

// normal returns s lower-cased and in NFC. Both are done until neither changes anything: lower-casing can undo NFC.
func normal(s string) string {
	if isLowerASCII(s) {
		return s
	}
	for range 4 {
		n := norm.NFC.String(strings.ToLower(s))
		if n == s {
			break
		}
		s = n
	}
	return s
}

func isLowerASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// normalDomain returns a domain as U-labels in lower case and NFC, without its trailing dot. What IDNA does not accept is
// only lower-cased.
func normalDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") { // RFC 5321, 4.1.3: an address literal
		if inner := s[1 : len(s)-1]; inner == "" || strings.ContainsAny(inner, `[]\"<>()@ ,;`) {
			return "", errors.New("has a malformed address literal")
		}
		return normal(s), nil
	}
	s = normal(s)
	if !isLowerASCII(s) || strings.Contains(s, "xn--") {
		profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))
		for range 4 {
			u, err := profile.ToUnicode(s)
			if u = normal(u); err != nil || u == s {
				break
			}
			s = u
		}
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "", errors.New("has no domain")
	}
	if s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return "", errors.New("has a domain with an empty label")
	}
	for i, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(`()<>[]:;@\,"/`, r) {
			return "", fmt.Errorf("has %q at octet %d of its domain", r, i+1)
		}
	}
	return s, nil
}

// unquote takes the quotes off a local part (RFC 5321, 4.1.2: Quoted-string). What is not a well-formed quoted string is
// a local part whose quotes are gone already, and returned as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		switch s[i] {
		case '"':
			return s
		case '\\':
			if i++; i == len(s)-1 {
				return s
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString: RFC 5321, 4.1.2, with the characters beyond ASCII of RFC 6531, 3.3.
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>[]:;@\,"`, c) >= 0 {
			return false
		}
	}
	return true
}
