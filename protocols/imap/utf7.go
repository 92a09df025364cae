package imap

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

var errUTF7 = errors.New("not valid modified UTF-7")

// decodeUTF7 decodes the name of a mailbox from modified UTF-7 (RFC 3501, 5.1.3). Only the one right encoding of a name
// is accepted, so that two spellings never name one mailbox.
func decodeUTF7(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		c := s[0]
		if c < ' ' || c > '~' {
			return "", errUTF7
		}
		if c != '&' {
			b.WriteByte(c)
			s = s[1:]
			continue
		}
		code, rest, ok := strings.Cut(s[1:], "-")
		if !ok {
			return "", errUTF7
		}
		if s = rest; code == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := base64UTF7().DecodeString(code)
		// The decoder passes over line ends.
		if err != nil || len(raw)%2 != 0 || strings.ContainsAny(code, "\r\n") {
			return "", errUTF7
		}
		units := make([]uint16, 0, len(raw)/2)
		for i := 0; i < len(raw); i += 2 {
			units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
		}
		for _, r := range utf16.Decode(units) {
			if r == utf8.RuneError || r >= ' ' && r <= '~' {
				return "", errUTF7
			}
			b.WriteRune(r)
		}
		if strings.HasPrefix(s, "&") && !strings.HasPrefix(s, "&-") {
			return "", errUTF7
		}
	}
	return b.String(), nil
}

func base64UTF7() *base64.Encoding {
	return base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
		WithPadding(base64.NoPadding).Strict()
}
