package mime

import (
	"io"
	"strings"
	"time"
)

// Text returns at most most octets of what a text part holds, decoded, as UTF-8: HTML as it stands. Of a part that is no
// text it returns "".
func (p *Part) Text(most int) string {
	if !strings.HasPrefix(p.Type, "text/") && !p.plain {
		return ""
	}
	src, _ := p.decode()
	raw, err := io.ReadAll(io.LimitReader(src, int64(most)))
	if err != nil && len(raw) == 0 {
		return ""
	}
	return cut(strings.TrimPrefix(toUTF8(p.Params["charset"], raw).text, "\ufeff"), most)
}

// ReadableText is Text, of HTML what a reader would see.
func (p *Part) ReadableText(most int) string {
	t := p.Text(most)
	if p.Type == "text/html" && !p.plain {
		return htmlText(t)
	}
	return t
}

// ParseDate reads a date as [Message.Date] does, from the value of a field.
func ParseDate(s string) (t time.Time, ok bool) { return parseDate(s) }

// ParseValue reads the value of a structured field such as Content-Type, tolerantly: the word it begins with, in lower
// case, and its parameters, decoded, with names in lower case.
func ParseValue(s string) (word string, params map[string]string) {
	const most = 100
	v := parseStructured(s, most)
	return v.word, v.params
}
