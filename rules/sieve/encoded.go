package sieve

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoded reads ${hex:…} and ${unicode:…} (RFC 5228, 2.4.2.4). What is not one of them stays.
func (c *checker) decoded(s string, at span) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			break
		}
		kind, list, _ := strings.Cut(s[i+2:i+end], ":")
		var text string
		ok := false
		switch strings.ToLower(kind) {
		case "hex":
			text, ok = hexOctets(list)
		case "unicode":
			var wrong string
			if text, wrong, ok = unicodeCharacters(list); wrong != "" {
				c.report(at, sprintf("there is no character U+%s", strings.ToUpper(clip(wrong))), "Unicode ends at 10FFFF, without D800 to DFFF")
			}
		}
		if !ok {
			b.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteString(text)
		s = s[i+end+1:]
	}
	b.WriteString(s)
	return b.String()
}

// hexOctets reads pairs of hexadecimal digits with blanks between.
func hexOctets(list string) (string, bool) {
	words := strings.FieldsFunc(list, isBlank)
	out := make([]byte, 0, len(words))
	for _, w := range words {
		n, err := strconv.ParseUint(w, 16, 8)
		if err != nil || len(w) > 2 {
			return "", false
		}
		out = append(out, byte(n))
	}
	return string(out), len(out) > 0
}

// unicodeCharacters reads numbers of characters; wrong is one that is none.
func unicodeCharacters(list string) (out, wrong string, ok bool) {
	words := strings.FieldsFunc(list, isBlank)
	var b strings.Builder
	for _, w := range words {
		if strings.Trim(w, "0123456789abcdefABCDEF") != "" {
			return "", "", false
		}
		n, err := strconv.ParseUint(strings.TrimLeft(w, "0")+"", 16, 32)
		if strings.Trim(w, "0") == "" {
			n, err = 0, nil
		}
		if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
			return "", w, false
		}
		b.WriteRune(rune(n))
	}
	return b.String(), "", len(words) > 0
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }
