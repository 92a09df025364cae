package lookalike

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// lookalikes are characters that look like a Latin letter, or nearly so (after Unicode TS 39, confusables; only those
// that are seen in names).
var lookalikes = map[rune]string{
	// Cyrillic
	'а': "a", 'в': "b", 'с': "c", 'ԁ': "d", 'е': "e", 'ё': "e", 'ѐ': "e", 'є': "e", 'һ': "h", 'н': "h", 'і': "i", 'ї': "i", 'ј': "j",
	'к': "k", 'ӏ': "l", 'м': "m", 'п': "n", 'о': "o", 'р': "p", 'ԛ': "q", 'г': "r", 'ѕ': "s", 'т': "t", 'у': "y", 'ѵ': "v", 'ԝ': "w",
	'ш': "w", 'х': "x", 'ү': "y", 'ҝ': "k", 'ғ': "f", 'ь': "b", 'б': "6", 'з': "3", 'и': "n", 'ц': "u", 'ә': "e", 'ӧ': "o", 'ө': "o",
	// Greek
	'α': "a", 'β': "b", 'ϲ': "c", 'δ': "d", 'ε': "e", 'η': "n", 'ι': "i", 'κ': "k", 'ν': "v", 'ο': "o", 'π': "n", 'ρ': "p", 'ς': "s",
	'τ': "t", 'υ': "u", 'χ': "x", 'γ': "y", 'ω': "w", 'ϳ': "j", 'μ': "u",
	// Armenian, Hebrew, Arabic and others
	'ա': "w", 'գ': "q", 'զ': "q", 'հ': "h", 'ո': "n", 'ս': "u", 'օ': "o", 'ք': "p", 'ց': "g", 'ס': "o", 'ו': "l", '٥': "o",
	'ه': "o", '၀': "o", '੦': "o", '०': "o", 'ഠ': "o", 'ᴏ': "o", 'ⲟ': "o", 'ꓳ': "o", 'ჿ': "y",
	// Latin that is not of the alphabet
	'ı': "i", 'ɩ': "i", 'ɪ': "i", 'ł': "l", 'ɫ': "l", 'ƚ': "l", 'ø': "o", 'đ': "d", 'ɗ': "d", 'ħ': "h", 'ŧ': "t", 'ƫ': "t", 'ɡ': "g",
	'ɑ': "a", 'ƅ': "b", 'ɓ': "b", 'ƈ': "c", 'ɢ': "g", 'ʜ': "h", 'ĸ': "k", 'ʟ': "l", 'ɴ': "n", 'ʀ': "r", 'ꜱ': "s", 'ʏ': "y", 'ᴀ': "a",
	'ʙ': "b", 'ᴄ': "c", 'ᴅ': "d", 'ᴇ': "e", 'ᴊ': "j", 'ᴋ': "k", 'ᴍ': "m", 'ᴘ': "p", 'ᴛ': "t", 'ᴜ': "u", 'ᴠ': "v", 'ᴡ': "w", 'ᴢ': "z",
	'ƒ': "f", 'ß': "b", 'þ': "p", 'ſ': "f", 'ʋ': "u", 'ƴ': "y", 'ʐ': "z", 'ɵ': "o", 'ǝ': "e", 'ə': "e", 'æ': "ae", 'œ': "oe",
	// Digits and signs
	'0': "o", '1': "l", 'i': "l", '|': "l", '!': "l", '5': "s", '$': "s", '8': "b",
}

// Skeleton returns what a word looks like: two words that look alike have one skeleton. It is no word to be shown.
func Skeleton(s string) string {
	if !isASCII(s) {
		s = norm.NFKD.String(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range strings.ToLower(s) {
		if r >= utf8.RuneSelf && (unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r)) {
			continue
		}
		if to, ok := lookalikes[r]; ok {
			if to == "i" {
				to = "l"
			}
			b.WriteString(to)
			continue
		}
		b.WriteRune(r)
	}
	out := b.String()
	for _, pair := range [...][2]string{{"rn", "m"}, {"vv", "w"}, {"cl", "d"}, {"nn", "m"}} {
		out = strings.ReplaceAll(out, pair[0], pair[1])
	}
	return out
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// The scripts whose letters look like each other's.
func alike() [4]*unicode.RangeTable {
	return [...]*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian}
}

// Mixed reports whether a word of a text has letters of two scripts that look alike, as Latin and Cyrillic do. Words of
// fewer than least letters do not count: μm and Δx deceive nobody.
func Mixed(text string, least int) bool {
	if isASCII(text) {
		return false
	}
	tables := alike()
	letters, has := 0, 0
	mixed := func() bool { return letters >= least && has&(has-1) != 0 }
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf:
			c := r | 0x20
			if c < 'a' || c > 'z' {
				if r != '\'' && mixed() {
					return true
				}
				letters, has = 0, 0
				continue
			}
			has |= 1
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r):
			continue
		case !unicode.IsLetter(r):
			if mixed() {
				return true
			}
			letters, has = 0, 0
			continue
		default:
			for i, t := range tables {
				if unicode.Is(t, r) {
					has |= 1 << i
					break
				}
			}
		}
		letters++
	}
	return mixed()
}

// MixedLabels reports whether a label of a domain has letters of two scripts that look alike.
func MixedLabels(domain string) bool {
	if isASCII(domain) {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if Mixed(strings.Map(letter, label), 1) {
			return true
		}
	}
	return false
}

// letter drops what is no letter.
func letter(r rune) rune {
	if !unicode.IsLetter(r) {
		return -1
	}
	return r
}
