package imap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// maxCommand bounds a command as it is handed to the library, which reads no more than 50 KiB of one and takes what
	// follows for the next.
	maxCommand = 48 << 10
	// maxSwallow bounds what is read over of a refused command before the connection is closed instead.
	maxSwallow = 1 << 20
	maxTag     = 64
)

// A command is one command of a client, as a single line: literals have become quoted strings.
type command struct {
	tag  string
	name string // in upper case: "SELECT", "UID FETCH"
	args string // what follows the name, without the space between
	// message is the message of an APPEND, still to be read. The line ends before it.
	message *literal
}

// line returns the command as the library reads it.
func (c *command) line() string {
	if c.args == "" {
		return c.tag + " " + c.name + "\r\n"
	}
	return c.tag + " " + c.name + " " + c.args + "\r\n"
}

// A literal is a string of known length that follows its line (RFC 9051, 4.3).
type literal struct {
	size  int64
	wait  bool // synchronising: the client waits for our leave before it sends it
	eight bool // literal8
	start int  // where in the line its marker begins
}

// A refusal answers a command that has no other effect. The connection goes on.
type refusal struct {
	tag    string // "" if there was none
	status string // "BAD", "NO [TOOBIG]"
	text   string
}

func (r *refusal) Error() string { return r.status + " " + r.text }

// line returns the answer; an untagged one if the tag could not be read.
func (r *refusal) line() string {
	tag := r.tag
	if tag == "" {
		tag = "*"
	}
	return tag + " " + r.status + " " + r.text + "\r\n"
}

func bad(tag, format string, args ...any) *refusal {
	return &refusal{tag: tag, status: "BAD", text: fmt.Sprintf(format, args...)}
}

// A farewell ends the connection: a limit was reached, or where the next command begins can not be told.
type farewell struct{ text string }

func (f *farewell) Error() string { return f.text }

// commandLimits bound a command while it is read.
type commandLimits struct {
	line     int   // octets of the command without its literals
	literal  int64 // octets of one literal, an APPEND's message excepted
	literals int   // their number
	nesting  int   // parentheses, NOT and OR in one command; 0: not looked at
	message  bool  // an APPEND's message may follow
	swallow  bool  // refused literals are read over; otherwise they end the connection
}

// most bounds what is read of one line.
func (l commandLimits) most() int {
	if l.swallow {
		return maxSwallow
	}
	return 2 * l.line
}

// A commandReader reads the commands of one connection.
type commandReader struct {
	br *bufio.Reader
	// leave tells the client to send a synchronising literal. It is called only for one within the limits.
	leave func() error
}

// read reads a command. A *refusal says what to answer; the next command begins after it, for whatever belongs to a
// refused command has been read over. A *farewell, like any other error, ends the connection.
func (r commandReader) read(lim commandLimits) (*command, error) {
	var (
		text []byte
		used int
		tag  string
	)
	for count := 0; ; count++ {
		line, lit, err := r.readLine(lim.line-used, lim.most())
		if count == 0 {
			tag = tagOf(line)
		}
		if errors.Is(err, errLong) {
			return nil, r.refuse(lim, lit, false, bad(tag, "the command line is too long; at most %d octets", lim.line))
		}
		if err != nil {
			return nil, err
		}
		used += len(line)
		if msg := inspect(line, lit); msg != "" {
			return nil, r.refuse(lim, lit, false, bad(tag, "%s", msg))
		}
		if lit == nil {
			return finish(tag, append(text, line...), lim)
		}
		text = append(text, line[:lit.start]...)
		if cmd := split(tag, string(text)); lim.message && cmd != nil && cmd.name == "APPEND" && cmd.args != "" {
			if cmd.message = lit; lit.eight {
				return nil, r.refuse(lim, lit, true, bad(tag, "binary literals are not supported"))
			}
			return cmd, nil
		}
		switch {
		case lit.eight:
			return nil, r.refuse(lim, lit, true, bad(tag, "binary literals are not supported"))
		case lit.size > lim.literal:
			why := fmt.Sprintf("a string is at most %d octets long here", lim.literal)
			return nil, r.refuse(lim, lit, true, &refusal{tag, "NO [TOOBIG]", why})
		case count >= lim.literals:
			return nil, r.refuse(lim, lit, true, bad(tag, "too many literals; at most %d", lim.literals))
		}
		if lit.wait {
			if err := r.leave(); err != nil {
				return nil, err
			}
		}
		value := make([]byte, lit.size)
		if _, err := io.ReadFull(r.br, value); err != nil {
			return nil, err
		}
		if bytes.ContainsAny(value, "\x00\r\n") {
			return nil, r.skip(lim, bad(tag, "a string here holds neither NUL nor line ends"))
		}
		if text = appendQuoted(text, value); len(text) > maxCommand {
			return nil, r.skip(lim, bad(tag, "the command is too long; at most %d octets", maxCommand))
		}
	}
}

// refuse returns why once all of the command has been read over, or a farewell if that can not be done. lit is the
// literal at the end of the last line; sure is false if the line is so broken that it may be none.
func (r commandReader) refuse(lim commandLimits, lit *literal, sure bool, why *refusal) error {
	switch {
	case lit == nil || lit.wait:
		return why // nothing follows: RFC 9051, 4.3: a client waits for leave
	case !sure || !lim.swallow || lit.size > maxSwallow:
		return &farewell{why.text}
	}
	if _, err := io.CopyN(io.Discard, r.br, lit.size); err != nil {
		return err
	}
	return r.skip(lim, why)
}

// skip reads over what is left of a command after a literal.
func (r commandReader) skip(lim commandLimits, why *refusal) error {
	line, lit, err := r.readLine(maxCommand, lim.most())
	if errors.Is(err, errLong) {
		return r.refuse(lim, lit, false, why)
	}
	if err != nil {
		return err
	}
	lim.literals-- // so that this ends
	return r.refuse(lim, lit, inspect(line, lit) == "" && lim.literals > 0, why)
}

var errLong = errors.New("line too long")

// readLine reads a line and returns it without its end, with the literal that it announces, if any. A line longer than
// limit is read over: errLong, with the first octets of the line, and the literal that it announces. A line longer than
// most is a farewell.
func (r commandReader) readLine(limit, most int) ([]byte, *literal, error) {
	var (
		line, tail []byte
		read       int
	)
	for {
		chunk, err := r.br.ReadSlice('\n')
		read += len(chunk)
		if room := limit + 2 - len(line); room > 0 {
			line = append(line, chunk[:min(room, len(chunk))]...)
		}
		if tail = append(tail, chunk...); len(tail) > maxMarker {
			tail = append(tail[:0], tail[len(tail)-maxMarker:]...)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF && read > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, err
		}
		if read > most {
			return nil, nil, &farewell{"the command line is far too long"}
		}
	}
	end := func(b []byte) []byte { return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")) }
	if tail = end(tail); read > limit+2 || len(end(line)) > limit {
		return line[:min(len(line), max(limit, 0))], markerOf(tail), errLong
	}
	line = end(line)
	return line, markerOf(line), nil
}

// maxMarker is the length of "~{9223372036854775807+}\r\n".
const maxMarker = 25

// markerOf returns the literal that a line announces at its end.
func markerOf(line []byte) *literal {
	if !bytes.HasSuffix(line, []byte("}")) {
		return nil
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return nil
	}
	number, plus := strings.CutSuffix(string(line[i+1:len(line)-1]), "+")
	size, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		if number == "" || strings.Trim(number, "0123456789") != "" {
			return nil
		}
		size = 1<<63 - 1 // more than anybody takes
	}
	lit := &literal{size: int64(size), wait: !plus, start: i}
	if i > 0 && line[i-1] == '~' {
		lit.eight, lit.start = true, i-1
	}
	return lit
}

// inspect says what is wrong with a line, or a part of one between literals. It sees quoted strings as the library does,
// so that the library never reads beyond the line.
func inspect(line []byte, lit *literal) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == 0 || c == '\r':
			return "NUL and bare CR are not allowed"
		case quoted && c == '\\':
			if i++; i < len(line) && (line[i] == 0 || line[i] == '\r') {
				return "NUL and bare CR are not allowed"
			}
		case c == '"':
			quoted = !quoted
		case !quoted && (c < ' ' || c == 0x7f):
			return "control characters are not allowed"
		case !quoted && c == '{' && (lit == nil || i < lit.start || i > lit.start+1):
			return "a literal stands at the end of a line"
		}
	}
	switch {
	case quoted:
		return "a quoted string does not end"
	case lit != nil && lit.start > 0 && !strings.ContainsRune(" (", rune(line[lit.start-1])):
		return "a space is missing before a literal"
	}
	return ""
}

func tagOf(line []byte) string {
	tag, _, _ := strings.Cut(string(line[:min(len(line), maxTag+1)]), " ")
	if !isTag(tag) {
		return ""
	}
	return tag
}

// RFC 9051, 9: tag = 1*<any ASTRING-CHAR except "+">. The library takes an atom, without "]", and hangs up at others.
func isTag(s string) bool {
	return s != "" && len(s) <= maxTag && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`(){%*"\+]`, c)
	})
}

// split takes a command apart; nil if it is none.
func split(tag, text string) *command {
	_, rest, ok := strings.Cut(text, " ")
	if tag == "" || !ok {
		return nil
	}
	name, args, _ := strings.Cut(rest, " ")
	if name = strings.ToUpper(name); name == "UID" {
		var sub string
		sub, args, _ = strings.Cut(args, " ")
		name += " " + strings.ToUpper(sub)
	}
	if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789- ") != "" {
		return nil
	}
	return &command{tag: tag, name: strings.TrimSpace(name), args: args}
}

func finish(tag string, text []byte, lim commandLimits) (*command, error) {
	cmd := split(tag, string(text))
	switch {
	case tag == "":
		return nil, bad("", "a command begins with a tag")
	case cmd == nil || cmd.name == "" || cmd.name == "UID":
		return nil, bad(tag, "a command is missing")
	case len(cmd.line()) > maxCommand:
		return nil, bad(tag, "the command is too long; at most %d octets", maxCommand)
	case lim.nesting > 0 && nesting(cmd) > lim.nesting:
		return nil, bad(tag, "too many parentheses, NOT and OR; at most %d", lim.nesting)
	}
	return cmd, nil
}

// nesting bounds from above how deep a command nests: open parentheses, and for a search all NOT and OR.
func nesting(cmd *command) int {
	depth, most, keys := 0, 0, 0
	quoted := false
	word := func(s string) bool { return strings.EqualFold(s, "NOT") || strings.EqualFold(s, "OR") }
	start := 0
	for i := 0; i <= len(cmd.args); i++ {
		var c byte = ' '
		if i < len(cmd.args) {
			c = cmd.args[i]
		}
		if quoted {
			switch c {
			case '\\':
				i++
			case '"':
				quoted, start = false, i+1
			}
			continue
		}
		if c != ' ' && c != '(' && c != ')' && c != '"' {
			continue
		}
		if start < i && word(cmd.args[start:i]) {
			keys++
		}
		start = i + 1
		switch c {
		case '(':
			depth++
			most = max(most, depth)
		case ')':
			depth--
		case '"':
			quoted = true
		}
	}
	if strings.HasSuffix(cmd.name, "SEARCH") {
		most += keys
	}
	return most
}

// appendQuoted appends value as a quoted string. It holds neither NUL nor line ends.
func appendQuoted(text, value []byte) []byte {
	text = append(text, '"')
	for _, c := range value {
		if c == '"' || c == '\\' {
			text = append(text, '\\')
		}
		text = append(text, c)
	}
	return append(text, '"')
}

// A scanner reads the arguments of the commands that we answer ourselves.
type scanner struct{ rest string }

func (s *scanner) end() bool { return s.rest == "" }

func (s *scanner) accept(prefix string) bool {
	rest, ok := strings.CutPrefix(s.rest, prefix)
	s.rest = rest
	return ok
}

// astring reads an atom or a quoted string.
func (s *scanner) astring() (string, bool) {
	if s.accept(`"`) {
		var b strings.Builder
		for i := 0; i < len(s.rest); i++ {
			switch c := s.rest[i]; {
			case c == '"':
				s.rest = s.rest[i+1:]
				return b.String(), true
			case c == '\\' && i+1 < len(s.rest):
				i++
				b.WriteByte(s.rest[i])
			default:
				b.WriteByte(c)
			}
		}
		return "", false
	}
	i := strings.IndexAny(s.rest, " (){%*\"\\")
	if i < 0 {
		i = len(s.rest)
	}
	value := s.rest[:i]
	s.rest = s.rest[i:]
	return value, value != ""
}
