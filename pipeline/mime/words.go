package mime

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"
)

// decodeWords decodes the encoded words of a field (RFC 2047). Adjacent words of one charset are decoded together, as
// many writers cut characters in two. What cannot be decoded stays as it is; the result is valid UTF-8.
func decodeWords(s string) string {
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
		text, _ := toUTF8(label, pending)
		out.WriteString(text)
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
			w, ok = parseWord(s[at:])
		}
		if !ok && at < len(s) {
			at += 2
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
	w.charset = strings.ToLower(label)
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

// validUTF8 returns text of no declared charset: as it is if it is UTF-8, else as Windows-1252, which is what most
// writers of such text mean.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return out
}

// toUTF8 converts text of a declared charset. For a charset that nobody knows, known is false and the text is taken as
// one without a declaration.
func toUTF8(label string, p []byte) (text string, known bool) {
	switch label = strings.ToLower(strings.TrimSpace(label)); label {
	case "":
		return validUTF8(string(p)), true
	case "utf-8", "utf8":
		return strings.ToValidUTF8(string(p), "\ufffd"), true
	case "us-ascii", "ascii", "iso-8859-1", "latin1":
		// Declared out of habit more often than meant; Windows-1252 has what they have.
		return validUTF8(string(p)), true
	}
	r, err := charset.Reader(label, strings.NewReader(string(p)))
	if err != nil {
		return validUTF8(string(p)), false
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return validUTF8(string(p)), false
	}
	return strings.ToValidUTF8(string(out), "\ufffd"), true
}
