package managesieve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A command is what a client has sent up to the end of a line, with its literals.
type command struct {
	name string // in upper case; "" for what stands alone: the answer to a challenge
	args []argument
}

// An argument is a string or a number.
type argument struct {
	text   string
	number bool // its digits are in text
	large  bool // a literal over the limit: its octets were dropped, and text is how many they were
}

// A syntaxError is a command that is none. What belongs to it has been read.
type syntaxError string

func (e syntaxError) Error() string { return string(e) }

// What ends the connection.
var (
	errLine    = errors.New("the line is too long")
	errLiteral = errors.New("the literal is too large")
)

const mostArguments = 3 // no command takes more

// A reader reads commands (RFC 5804, 4) within limits.
type reader struct {
	br      *bufio.Reader
	line    int   // octets of a command without literals
	literal int64 // octets of a literal that is kept
	drop    int64 // octets of a literal that is read at all
	left    int   // of line
}

// command reads a command. An empty line is none: some clients end a literal with one too many.
func (r *reader) command() (*command, error) {
	for {
		r.left = r.line
		c, err := r.next()
		if err != nil || c.name != "" || len(c.args) > 0 {
			return c, err
		}
	}
}

// answer reads a string on a line of its own: what a client says to a SASL challenge.
func (r *reader) answer() (string, error) {
	c, err := r.command()
	switch {
	case err != nil:
		return "", err
	case c.name != "" || len(c.args) != 1 || c.args[0].number || c.args[0].large:
		return "", syntaxError("a challenge is answered with a string")
	}
	return c.args[0].text, nil
}

// next reads to the end of a line.
func (r *reader) next() (*command, error) {
	c := &command{}
	for {
		b, err := r.byte()
		if err != nil {
			return nil, err
		}
		switch {
		case b == '\n':
			return c, nil
		case b == '\r':
			if b, err = r.byte(); err != nil {
				return nil, err
			}
			if b != '\n' {
				return nil, r.skip(b, "a carriage return stands in the middle of a line")
			}
			return c, nil
		case b == ' ':
			continue
		case len(c.args) == mostArguments:
			return nil, r.skip(b, "too many arguments")
		}
		if isLetter(b) && c.name == "" && len(c.args) == 0 {
			c.name, err = r.word(b, isLetter)
			c.name = strings.ToUpper(c.name)
			if err != nil {
				return nil, err
			}
			continue
		}
		a, err := r.argument(b)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, a)
	}
}

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }
func isDigit(b byte) bool  { return '0' <= b && b <= '9' }

// byte reads an octet of the line.
func (r *reader) byte() (byte, error) {
	if r.left--; r.left < 0 {
		return 0, errLine
	}
	b, err := r.br.ReadByte()
	if err != nil {
		return 0, ended(err)
	}
	return b, nil
}

// ended: a command that ends in the middle is the end of the connection too.
func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// word reads what began with b. The octet after it must end it.
func (r *reader) word(b byte, in func(byte) bool) (string, error) {
	word := []byte{b}
	for {
		b, err := r.byte()
		if err != nil {
			return "", err
		}
		switch {
		case in(b):
			word = append(word, b)
		case b == ' ' || b == '\r' || b == '\n':
			r.unread()
			return string(word), nil
		default:
			return "", r.skip(b, fmt.Sprintf("%q does not belong here", b))
		}
	}
}

func (r *reader) unread() {
	_ = r.br.UnreadByte() // after a byte that was read it cannot fail
	r.left++
}

func (r *reader) argument(b byte) (argument, error) {
	switch {
	case b == '"':
		text, err := r.quoted()
		return argument{text: text}, err
	case b == '{':
		return r.counted()
	case isDigit(b):
		text, err := r.word(b, isDigit)
		if err != nil {
			return argument{}, err
		}
		// RFC 5804, 4: number is at most 4,294,967,295.
		if _, err := strconv.ParseUint(text, 10, 32); err != nil {
			return argument{}, r.skip(' ', "the number is too large")
		}
		return argument{text: text, number: true}, nil
	}
	return argument{}, r.skip(b, fmt.Sprintf("%q does not belong here", b))
}

// quoted reads a quoted string to its end.
func (r *reader) quoted() (string, error) {
	var text []byte
	for {
		b, err := r.byte()
		if err != nil {
			return "", err
		}
		if b == '\\' {
			if b, err = r.byte(); err != nil {
				return "", err
			}
			if b != '"' && b != '\\' {
				return "", r.skip(b, "in a quoted string a backslash stands before a quote or a backslash")
			}
			text = append(text, b)
			continue
		}
		switch b {
		case '"':
			return string(text), nil
		case '\r', '\n', 0:
			return "", r.skip(b, "a quoted string ends on its line and has no NUL; use a literal")
		}
		text = append(text, b)
	}
}

// counted reads a literal, whose brace has been read: "{12+}" and a line end, then 12 octets.
func (r *reader) counted() (argument, error) {
	head := []byte{'{'}
	for {
		b, err := r.byte()
		if err != nil {
			return argument{}, err
		}
		if b == '\n' {
			break
		}
		head = append(head, b)
	}
	size, ok := literalSize(head)
	if !ok {
		return argument{}, syntaxError("this is no literal")
	}
	a, err := r.octets(size)
	if err == nil && bytes.LastIndexByte(head, '{') > 0 { // the end of the line is one
		return argument{}, r.skip(' ', "this is no literal")
	}
	return a, err
}

// literalSize returns the size that a line announces at its end.
func literalSize(line []byte) (size int64, ok bool) {
	s := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
	i := strings.LastIndexByte(s, '{')
	if i < 0 || !strings.HasSuffix(s, "}") {
		return 0, false
	}
	digits := strings.TrimSuffix(s[i+1:len(s)-1], "+")
	if digits == "" || strings.ContainsFunc(digits, func(c rune) bool { return c < '0' || c > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		n = 1<<63 - 1 // so many that it does not matter
	}
	return n, true
}

// octets reads the octets of a literal. Memory grows with what has arrived, not with what was announced.
func (r *reader) octets(size int64) (argument, error) {
	if size > max(r.literal, r.drop) {
		return argument{}, errLiteral
	}
	if size > r.literal {
		if _, err := io.CopyN(io.Discard, r.br, size); err != nil {
			return argument{}, ended(err)
		}
		return argument{text: strconv.FormatInt(size, 10), large: true}, nil
	}
	var text strings.Builder
	if _, err := io.CopyN(&text, r.br, size); err != nil {
		return argument{}, ended(err)
	}
	return argument{text: text.String()}, nil
}

// skip reads the rest of a line that is no command, b being what was read of it last, with the literal that it may
// announce: its octets are no commands either.
func (r *reader) skip(b byte, why string) error {
	for line := []byte{b}; ; line = line[:0] {
		for len(line) == 0 || line[len(line)-1] != '\n' {
			b, err := r.byte()
			if err != nil {
				return err
			}
			line = append(line, b)
		}
		size, ok := literalSize(line)
		if !ok {
			return syntaxError(why)
		}
		if size > max(r.literal, r.drop) {
			return errLiteral
		}
		if _, err := io.CopyN(io.Discard, r.br, size); err != nil {
			return ended(err)
		}
	}
}
