package authres

import "strings"

// claims reports whether an Authentication-Results field says that it is of name (RFC 8601, 5). It reads as careful
// readers do, and as careless ones: comments, quotes, escapes and space in the name do not make it another's, nor does
// a version behind it; and where a comment or a quotation has no end, it is also read as if there were none.
func claims(field, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	all, well := words(field, true)
	if same(all, name) {
		return true
	}
	if well {
		return false
	}
	all, _ = words(field, false)
	return same(all, name)
}

// same reports whether words begin with a name, be it in pieces.
func same(words []string, name string) bool {
	whole := ""
	for _, word := range words {
		if whole += word; strings.TrimSuffix(whole, ".") == name {
			return true
		}
		if len(whole) > len(name) {
			return false
		}
	}
	return false
}

// words returns the words before the first semicolon, in lower case, without quotes and, with structure, without
// comments. well is false where a comment or a quotation has no end.
func words(s string, structure bool) (all []string, well bool) {
	const most = 1000 // octets, and so words: no name is longer, in however many pieces
	var word strings.Builder
	size, depth, inQuotes := 0, 0, false
	end := func() {
		if word.Len() > 0 {
			all = append(all, word.String())
			word.Reset()
		}
	}
	put := func(c byte) {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c > ' ' && c != 0x7f {
			word.WriteByte(c)
			size++
		}
	}
	for i := 0; i < len(s) && size < most; i++ {
		c := s[i]
		switch {
		case c == '\\' && (depth > 0 || inQuotes) && i+1 < len(s):
			if i++; depth == 0 {
				put(s[i])
			}
		case c == '"' && depth == 0:
			inQuotes = structure && !inQuotes
		case inQuotes:
			put(c)
		case c == '(':
			end()
			if structure {
				depth++
			}
		case c == ')':
			end()
			depth = max(depth-1, 0)
		case depth > 0:
		case c == ';':
			end()
			return all, true
		case c == ' ', c == '\t':
			end()
		case c != '\\':
			put(c)
		}
	}
	end()
	return all, depth == 0 && !inQuotes
}
