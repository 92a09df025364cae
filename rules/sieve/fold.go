package sieve

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A comparator is how strings are compared (RFC 4790).
type comparator uint8

const (
	asciiCasemap comparator = iota // the default (RFC 5228, 2.7.3)
	octet
	asciiNumeric
	unicodeCasemap
)

var comparatorNames = [...]string{"i;ascii-casemap", "i;octet", "i;ascii-numeric", "i;unicode-casemap"}

func (c comparator) String() string { return comparatorNames[c] }

// fold makes of s what the comparator compares. [asciiNumeric] compares otherwise.
func (c comparator) fold(s string) string {
	switch c {
	case asciiCasemap:
		return lowerASCII(s)
	case unicodeCasemap:
		return foldUnicode(s, nil)
	}
	return s
}

// lowerASCII is s with A to Z in lower case; all else stays, and so does the length.
func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; 'A' <= c && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// foldUnicode: RFC 5051, 2: each character in title case and decomposed, here with A to Z in lower case again. offsets, if
// any, is told for each octet of the result which octet of s it comes from.
func foldUnicode(s string, offsets *[]int) string {
	ascii := true
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			ascii = false
			break
		}
	}
	if ascii {
		return lowerASCII(s)
	}
	var b strings.Builder
	b.Grow(len(s) + len(s)/2)
	for i, r := range s {
		before := b.Len()
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(unicode.ToLower(r))
		case r == utf8.RuneError:
			b.WriteRune(r)
		default:
			b.WriteString(lowerASCII(norm.NFKD.String(string(unicode.ToTitle(r)))))
		}
		if offsets != nil {
			for range b.Len() - before {
				*offsets = append(*offsets, i)
			}
		}
	}
	if offsets != nil {
		*offsets = append(*offsets, len(s))
	}
	return b.String()
}

// digits is the number that s begins with, without leading zeros; ok is false where it begins with none, which
// i;ascii-numeric takes for infinity (RFC 4790, 9.1.1).
func digits(s string) (n string, ok bool) {
	end := 0
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	return strings.TrimLeft(s[:end], "0"), end > 0
}

// compare orders two folded strings.
func (c comparator) compare(a, b string) int {
	if c != asciiNumeric {
		return strings.Compare(a, b)
	}
	x, isX := digits(a)
	y, isY := digits(b)
	switch {
	case !isX && !isY:
		return 0
	case !isX:
		return 1
	case !isY:
		return -1
	case len(x) != len(y):
		return len(x) - len(y)
	}
	return strings.Compare(x, y)
}
