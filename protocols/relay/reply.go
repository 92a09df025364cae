package relay

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A reply is what a server answers: RFC 5321, 4.2.
type reply struct {
	code  int
	lines []string // without code, printable
}

// String returns it for a record: each line with the code.
func (r reply) String() string {
	var b strings.Builder
	for i, line := range r.lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d", r.code)
		if line != "" {
			b.WriteString(" " + line)
		}
	}
	return b.String()
}

func (r reply) class() int { return r.code / 100 }

// status returns its enhanced code (RFC 3463), "" where the server gives none that fits.
func (r reply) status() string {
	if len(r.lines) == 0 {
		return ""
	}
	word, _, _ := strings.Cut(r.lines[0], " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != r.class() {
		return ""
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return ""
		}
	}
	return word
}

// errGarbage says that what a server sends is no reply.
var errGarbage = errors.New("what it sends is no reply")

// mostReply is how much of the text of a reply is kept; the rest is read and forgotten.
const mostReply = 4 << 10

// readReply reads a reply of at most lines lines of at most the size of r's buffer each.
func readReply(r *bufio.Reader, lines int) (reply, error) {
	var whole reply
	for n, kept := 1, 0; ; n++ {
		p, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return reply{}, fmt.Errorf("%w: a line of more than %d octets", errGarbage, r.Size())
		case err != nil:
			return reply{}, err
		case n > lines:
			return reply{}, fmt.Errorf("%w: more than %d lines", errGarbage, lines)
		}
		line := strings.TrimSuffix(strings.TrimSuffix(string(p), "\n"), "\r")
		code, text, last, ok := parseReply(line)
		if !ok || n > 1 && code != whole.code {
			return reply{}, fmt.Errorf("%w: %q", errGarbage, shortened(line, 80))
		}
		whole.code = code
		if text = printable(text); kept < mostReply {
			text = shortened(text, mostReply-kept)
			kept += len(text) + 1
			whole.lines = append(whole.lines, text)
		}
		if last {
			return whole, nil
		}
	}
}

// parseReply reads one line of a reply.
func parseReply(line string) (code int, text string, last, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, "", false, false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return 0, "", false, false
		}
		code = 10*code + int(line[i]-'0')
	}
	if len(line) == 3 {
		return code, "", true, true
	}
	switch line[3] {
	case ' ':
		return code, line[4:], true, true
	case '-':
		return code, line[4:], false, true
	}
	return 0, "", false, false
}

// printable returns a text of a server's without what could do something to who reads it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// shortened returns at most n octets of s, in whole characters.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
