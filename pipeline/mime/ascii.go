package mime

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// spelledOut are letters and signs that come apart into none of ASCII's by themselves.
var spelledOut = strings.NewReplacer("ß", "ss", "æ", "ae", "Æ", "AE", "œ", "oe", "Œ", "OE", "ø", "o", "Ø", "O", "ł", "l", "Ł", "L",
	"đ", "d", "Đ", "D", "ð", "d", "Ð", "D", "þ", "th", "Þ", "Th", "ı", "i", "\u2018", "'", "\u2019", "'", "\u201a", "'", "\u201c", `"`,
	"\u201d", `"`, "\u201e", `"`, "«", `"`, "»", `"`, "\u2013", "-", "\u2014", "-", "\u2011", "-", "€", "EUR")

// InASCII spells a text in ASCII as far as that goes: letters lose their marks, and what has no counterpart is "?". lost is
// how many of those there are.
func InASCII(s string) (text string, lost int) {
	var b strings.Builder
	for _, r := range norm.NFKD.String(spelledOut.Replace(s)) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		default:
			lost++
			b.WriteByte('?')
		}
	}
	return b.String(), lost
}
