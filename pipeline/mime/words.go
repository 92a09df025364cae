package mime

import (
	"strings"
	"unicode"

	"golang.org/x/text/transform"
)

// decodeWords decodes the encoded words of a field (RFC 2047). Adjacent words of one charset are decoded together, as
// many writers cut characters in two. What cannot be decoded stays as it is; the result is valid UTF-8.
func decodeWords(s string) string {
	w := wordDecoder{}
	return w.decode(s)
}

// A wordDecoder decodes encoded words and tells what was wrong with them.
type wordDecoder struct {
	bad     bool   // one is cut off, of an unknown encoding, or holds control characters
	unknown string // a charset that nobody knows
}

func (d *wordDecoder) decode(s string) string {
	if !strings.Contains(s, "=?") {
		return validUTF8(s)
	}
	var out strings.Builder
	var pending []byte // content of the encoded words just before, not yet converted
	var label string
	flush := func() {
		if len(pending) == 0 {
			return
		}
		c := toUTF8(label, pending)
		if !c.known {
			d.unknown = label
		}
		out.WriteString(d.line(c.text))
		pending = pending[:0]
	}
	after := false // an encoded word was the last thing
	for s != "" {
		at := strings.Index(s, "=?")
		if at < 0 {
			at = len(s)
		}
		w, ok := encodedWord{}, false
		if at < len(s) {
			if w, ok = parseWord(s[at:]); !ok {
				d.bad = d.bad || looksLikeWord(s[at:])
				at += 2
			}
		}
		// RFC 2047, 6.2: white space between encoded words is not shown.
		if plain := s[:at]; plain != "" && !(ok && after && strings.Trim(plain, " \t") == "") {
			flush()
			out.WriteString(validUTF8(plain))
			after = false
		}
		s = s[at:]
		if !ok {
			continue
		}
		if w.charset != label {
			flush()
			label = w.charset
		}
		pending = append(pending, w.content...)
		after = true
		s = s[w.len:]
	}
	flush()
	return out.String()
}

// line keeps the content of an encoded word in the line: what ends lines becomes a space, as mail clients have it.
func (d *wordDecoder) line(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	d.bad = true
	s = strings.ReplaceAll(s, "\r\n", " ")
	return strings.Map(func(r rune) rune {
		switch r {
		case '\r', '\n', '\v', '\f', '\u0085':
			return ' '
		case 0:
			return -1
		}
		return r
	}, s)
}

// looksLikeWord reports whether s begins like an encoded word.
func looksLikeWord(s string) bool {
	const maxCharset = 64
	label, rest, ok := strings.Cut(s[2:min(len(s), 2+maxCharset)], "?")
	return ok && label != "" && !strings.ContainsAny(label, " \t=<>,;\"&/") && len(rest) > 1 && rest[1] == '?'
}

type encodedWord struct {
	charset string
	content []byte
	len     int
}

// parseWord reads an encoded word at the beginning of s. It never looks further than the beginning of the next one, so
// that reading a field stays linear.
func parseWord(s string) (w encodedWord, ok bool) {
	const maxCharset = 64
	end := strings.IndexByte(s[2:min(len(s), 2+maxCharset)], '?')
	if end < 1 || strings.ContainsAny(s[2:2+end], " \t=<>,;\"") {
		return w, false
	}
	label := s[2 : 2+end]
	label, _, _ = strings.Cut(label, "*") // RFC 2231, 5: a language
	w.charset = cleanLabel(label)
	rest := s[2+end+1:]
	if len(rest) < 4 || rest[1] != '?' {
		return w, false
	}
	how, text := lower(rest[0]), rest[2:]
	for at := 0; ; at++ {
		i := strings.IndexByte(text[at:], '?')
		if i < 0 || at+i+1 == len(text) {
			return w, false
		}
		at += i
		if text[at+1] == '=' {
			w.len = len(s) - len(text) + at + 2
			text = text[:at]
			break
		}
		if at > 0 && text[at-1] == '=' {
			return w, false
		}
	}
	switch how {
	case 'b':
		w.content, _, _ = transform.Bytes(&base64Decoder{}, []byte(text))
	case 'q':
		w.content = decodeQ(text)
	default:
		return w, false
	}
	return w, true
}

// decodeQ: RFC 2047, 4.2.
func decodeQ(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '_':
			out = append(out, ' ')
		case s[i] == '=' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = append(out, hexValue(s[i+1])<<4|hexValue(s[i+2]))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return out
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'f'
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}
