package users

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"sluice/mailstore"
)

// CheckAccount returns nil if name can be an account's: "local@domain" in normal form, both parts usable as the name of
// a folder on disk. Its error wraps mailstore.ErrName and says what is wrong and what would be right.
func CheckAccount(name string) error {
	local, domain, ok := cut(name)
	if !ok {
		return badName(name, "an account is called name@domain")
	}
	if err := checkLocal(local); err != nil {
		return badName(name, err.Error())
	}
	if err := checkDomain(domain); err != nil {
		return badName(name, err.Error())
	}
	return nil
}

func badName(name, why string) error {
	return fmt.Errorf("%q is %w: %s", name, mailstore.ErrName, why)
}

func cut(name string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(name, '@')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// normal returns s as Sluice compares names.
func normal(s string) string { return norm.NFC.String(strings.ToLower(s)) }

// RFC 5321, 4.5.3.1.1: a local part has at most 64 octets. "+" begins the subaddress, so it is in no account's name.
func checkLocal(s string) error {
	if len(s) > 64 {
		return fmt.Errorf("the part before @ is %d bytes long; at most 64", len(s))
	}
	if err := checkElement(s, "the part before @"); err != nil {
		return err
	}
	for _, r := range s {
		switch {
		case r == '+':
			return fmt.Errorf("mail to name+anything goes to name already; leave out %q", s[strings.IndexByte(s, '+'):])
		case r < utf8.RuneSelf && !isAtom(byte(r)) && r != '.':
			return fmt.Errorf("the part before @ must not contain %q; use letters, digits, '.', '-' and '_'", r)
		}
	}
	return nil
}

// checkTag checks a subaddress. It names no folder by itself, so it may be longer and have dots anywhere.
func checkTag(s string) error {
	if n := normal(s); n != s {
		return fmt.Errorf("the subaddress must be written in lower case and composed characters: %q", n)
	}
	for _, r := range s {
		if r == '/' || r == '\\' || r == '@' || r == utf8.RuneError || !unicode.IsGraphic(r) {
			return fmt.Errorf("the subaddress must not contain %q", r)
		}
	}
	return nil
}

// RFC 5321, 4.5.3.1.2: a domain has at most 255 octets. One without a dot is a domain too.
func checkDomain(s string) error {
	if len(s) > 255 {
		return fmt.Errorf("the domain is %d bytes long; at most 255", len(s))
	}
	if err := checkElement(s, "the domain"); err != nil {
		return err
	}
	for _, r := range s {
		if r < utf8.RuneSelf && !isAlphanumeric(byte(r)) && r != '.' && r != '-' && r != '_' {
			return fmt.Errorf("the domain must not contain %q; use letters, digits, '.' and '-'", r)
		}
	}
	return nil
}

// checkElement checks that s is one plain element of a path on any file system, in normal form.
func checkElement(s, what string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is missing; an account is called name@domain", what)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not valid UTF-8", what)
	case s[0] == '.' || s[len(s)-1] == '.':
		return fmt.Errorf("%s must not begin or end with a dot", what)
	case strings.Contains(s, ".."):
		return fmt.Errorf("%s must not contain two dots in a row", what)
	}
	for _, r := range s {
		if r == '/' || r == '\\' || r == ':' || r == '@' || unicode.IsSpace(r) || !unicode.IsGraphic(r) {
			return fmt.Errorf("%s must not contain %q; use letters, digits, '.', '-' and '_'", what, r)
		}
	}
	if n := normal(s); n != s {
		return fmt.Errorf("%s must be written in lower case and composed characters: %q", what, n)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// RFC 5322, 3.2.3: atext.
func isAtom(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
