package rules

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fold returns one character for all that differ in case only, as regular expressions see it under (?i), lower() and
// upper(): k for K, k and the Kelvin sign; s for S, s and ſ; i for I, i, İ and ı.
func fold(r rune) rune {
	switch {
	case r < utf8.RuneSelf:
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	case 0x2e80 <= r && r < 0xa640 || 0xac00 <= r && r < 0xfb00:
		return r // scripts without case
	case r == 'İ' || r == 'ı': // by themselves for (?i), but i and I for lower() and upper()
		return 'i'
	}
	least := r
	for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
		least = min(least, x)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// folded returns a text in the form of [fold]. Texts in which one holds the other keep doing so.
func folded(s string) string { return strings.Map(fold, s) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// appendWords adds the words of a text to out, in the form of [fold] and each between spaces: " a free prize ". A word
// is letters, digits and the marks on them. Where a script puts no spaces between words each character is one. Forms of
// one character (full-width, ligatures) are the same, and invisible characters are not there.
func appendWords(out []byte, text string) []byte {
	if !isASCII(text) && !norm.NFKC.IsNormalString(text) {
		text = norm.NFKC.String(text)
	}
	out = append(out, ' ')
	inside := false // a word has begun
	lone := false   // the last character is a word by itself
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			i++
			lone = false
			switch {
			case 'A' <= c && c <= 'Z':
				out, inside = append(out, c+'a'-'A'), true
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
				out, inside = append(out, c), true
			case inside:
				out, inside = append(out, ' '), false
			}
			continue
		}
		r, width := utf8.DecodeRuneInString(text[i:])
		i += width
		switch {
		case unicode.Is(unicode.Cf, r):
		case unicode.IsMark(r):
			switch n := len(out); {
			case inside:
				out = utf8.AppendRune(out, r)
			case lone:
				out = append(utf8.AppendRune(out[:n-1], r), ' ')
				continue
			}
		case alone(r):
			if inside {
				out = append(out, ' ')
			}
			out = append(utf8.AppendRune(out, r), ' ')
			inside, lone = false, true
			continue
		case unicode.IsLetter(r), unicode.IsNumber(r):
			out, inside = utf8.AppendRune(out, fold(r)), true
		case inside:
			out, inside = append(out, ' '), false
		}
		lone = false
	}
	if inside {
		out = append(out, ' ')
	}
	return out
}

// alone reports whether a character is of a script that writes words without spaces between them.
func alone(r rune) bool {
	return r >= 0x0e00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}
