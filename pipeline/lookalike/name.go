package lookalike

import (
	"strings"
	"unicode"
)

// AddressIn returns the first address in a text, "" for none.
func AddressIn(s string) string {
	for at := 0; at < len(s); {
		i := strings.IndexByte(s[at:], '@')
		if i < 0 {
			return ""
		}
		i += at
		part := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-+", r) }
		begin := len(strings.TrimRightFunc(s[:i], part))
		end := len(s) - len(strings.TrimLeftFunc(s[i+1:], part))
		local, domain := strings.Trim(s[begin:i], "."), strings.Trim(s[i+1:end], ".-")
		if local != "" && strings.Contains(domain, ".") {
			return local + "@" + domain
		}
		at = i + 1
	}
	return ""
}

// Name is a display name as names are compared: letters that look alike are one, case and punctuation do not
// count.
func Name(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Cf, r)
	})
	return Skeleton(strings.Join(words, " "))
}
