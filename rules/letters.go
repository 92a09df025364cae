package rules

import (
	"unicode"
	"unicode/utf8"

	"sluice/pipeline/mime"
)

// shownDomain turns A-labels into U-labels, as addresses have them.
func shownDomain(name string) string {
	a, err := mime.ParseAddress("x@" + name)
	if err != nil {
		return name
	}
	return a.Domain
}

// bareAddress is an address without its subaddress, in normal form; "" for what is none.
func bareAddress(s string) string {
	a, err := mime.ParseAddress(s)
	if err != nil || a.Domain == "" {
		return ""
	}
	a.Tag = ""
	return a.String()
}

func isLetter(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r)
}

// letterBefore reports whether the word at text[at:] goes on to the left, where it begins with a letter.
func letterBefore(text string, at int, word string) bool {
	first, _ := utf8.DecodeRuneInString(word)
	before, n := utf8.DecodeLastRuneInString(text[:at])
	return n > 0 && isLetter(first) && isLetter(before)
}

// letterAfter reports whether the word that ends at text[at] goes on, where it ends with a letter.
func letterAfter(text string, at int, word string) bool {
	last, _ := utf8.DecodeLastRuneInString(word)
	after, n := utf8.DecodeRuneInString(text[at:])
	return n > 0 && isLetter(last) && isLetter(after)
}

func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
