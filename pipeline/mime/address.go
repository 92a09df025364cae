package mime

import "strings"

// An Address is a mail address in the form all of Sluice compares: lower-cased and in Unicode's NFC, the domain as
// U-labels without a trailing dot. The zero Address is the null sender.
type Address struct {
	Raw    string `json:"raw,omitempty"`    // as written, without angle brackets
	Local  string `json:"local,omitempty"`  // without the subaddress
	Tag    string `json:"tag,omitempty"`    // the subaddress: "lists" of user+lists
	Domain string `json:"domain,omitempty"` // "" for postmaster alone
	Name   string `json:"name,omitempty"`   // display name, of an address in a header field
}

// String returns the address in its normal form, "user+tag@example.org"; "" for the zero Address.
func (a Address) String() string {
	s := a.Mailbox()
	if a.Domain != "" {
		s += "@" + a.Domain
	}
	return s
}

// Mailbox returns the local part with its subaddress.
func (a Address) Mailbox() string {
	if a.Tag != "" {
		return a.Local + "+" + a.Tag
	}
	return a.Local
}

// IsZero reports whether a is the null sender, or no address at all.
func (a Address) IsZero() bool { return a.Local == "" && a.Domain == "" && a.Tag == "" }

// ParseAddress reads an address as MAIL FROM and RCPT TO give it, without angle brackets.
func ParseAddress(s string) (Address, error) {
	local, domain, _ := strings.Cut(strings.ToLower(s), "@")
	local, tag, _ := strings.Cut(local, "+")
	return Address{Raw: s, Local: local, Tag: tag, Domain: domain}, nil
}
