package managesieve

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// mostQuoted is how long a quoted string may be, in octets (RFC 5804, 4).
const mostQuoted = 1024

// str writes s as a string: quoted if it can be, else as a literal.
func str(s string) string {
	if len(s) > mostQuoted || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00") {
		return literal(s)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func literal(s string) string { return fmt.Sprintf("{%d}\r\n%s", len(s), s) }

// A reply is an answer that is not OK. The session goes on.
type reply struct{ code, text string }

func (r reply) Error() string { return r.text }

func (r reply) line() string { return answer("NO", r.code, r.text) }

// answer makes the last line of an answer. code may be "".
func answer(status, code, text string) string {
	if code != "" {
		status += " (" + code + ")"
	}
	return status + " " + str(text) + "\r\n"
}

// mostReport bounds what is said of one script.
const (
	mostLines  = 100
	mostReport = 16 << 10 // octets
)

// report makes one text of lines, no longer than a client can be expected to show.
func report(lines []string) string {
	var b strings.Builder
	for i, line := range lines {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(line, "\ufffd"))
		if i == mostLines || b.Len()+len(line) > mostReport {
			fmt.Fprintf(&b, "\r\nand %d more", len(lines)-i)
			break
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line)
	}
	return b.String()
}
