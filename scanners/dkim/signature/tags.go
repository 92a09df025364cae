// Package signature has what DKIM (RFC 6376) and ARC (RFC 8617) have in common: tag lists, keys, canonical forms, and the
// verification of one signature. A signer finds the canonical forms here too.
//
// It verifies itself, although there are libraries: what it costs is linear in the mail whatever is in it, the body is
// read once for all signatures, the clock and the resolver are given, and a signature over part of the body is told apart.
package signature

import (
	"fmt"
	"strings"
)

// Tags is a tag list (RFC 6376, 3.2).
type Tags []Tag

// A Tag is one "name=value".
type Tag struct {
	Name  string
	Value string // without white space around it; folds inside are as written
	from  int    // where the value stands in the list, white space around it included
	to    int
}

const maxTags = 100

// ParseTags reads a tag list. Names count as they are written; one that stands twice is an error (RFC 6376, 3.2).
func ParseTags(s string) (Tags, error) {
	var list Tags
	seen := map[string]bool{}
	for at := 0; at < len(s); {
		end := strings.IndexByte(s[at:], ';')
		if end < 0 {
			if strings.Trim(s[at:], white) == "" && len(list) > 0 {
				break
			}
			end = len(s) - at
		}
		end += at
		name, _, ok := strings.Cut(s[at:end], "=")
		from := at + len(name) + 1
		name = strings.Trim(name, white)
		switch {
		case !ok || !isTagName(name):
			return list, fmt.Errorf("%q is no tag", clip(s[at:end], 40))
		case seen[name]:
			return list, fmt.Errorf("the tag %s= stands twice", clip(name, 40))
		case len(list) == maxTags:
			return list, fmt.Errorf("there are more than %d tags", maxTags)
		}
		seen[name] = true
		list = append(list, Tag{Name: name, Value: strings.Trim(s[from:end], white), from: from, to: end})
		at = end + 1
	}
	return list, nil
}

// white is the white space that tag lists allow anywhere.
const white = " \t\r\n"

// isTagName: RFC 6376, 3.2: a letter, then letters, digits and "_".
func isTagName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || s[i] != '_' && (s[i] < '0' || s[i] > '9')) {
			return false
		}
	}
	return s != ""
}

func (t Tags) tag(name string) (Tag, bool) {
	for _, x := range t {
		if x.Name == name {
			return x, true
		}
	}
	return Tag{}, false
}

// Value returns the value of a tag and whether it is there.
func (t Tags) Value(name string) (string, bool) {
	x, ok := t.tag(name)
	return x.Value, ok
}

// unspaced is s without any white space.
func unspaced(s string) string {
	if !strings.ContainsAny(s, white) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(white, r) {
			return -1
		}
		return r
	}, s)
}

// clip makes foreign text fit for a fact: at most n octets of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
