package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// RFC 5321, 4.1.1.4 and 4.5.2.
func TestDotReader(t *testing.T) {
	for _, tt := range []struct{ name, sent, want, left string }{
		{"nothing", ".\r\n", "", ""},
		{"a line", "x\r\n.\r\nQUIT\r\n", "x\r\n", "QUIT\r\n"},
		{"an empty line", "\r\n.\r\n", "\r\n", ""},
		{"stuffed", "..\r\n..x\r\n.\r\n", ".\r\n.x\r\n", ""},
		{"not stuffed", ".x\r\n.\r\n", "x\r\n", ""},
		{"a dot within a line", "x.\r\n.\r\n", "x.\r\n", ""},
		{"LF.LF", "x\n.\ny\r\n.\r\n", "x\n.\ny\r\n", ""},
		{"LF.CRLF", "x\n.\r\ny\r\n.\r\n", "x\n.\r\ny\r\n", ""},
		{"CRLF.LF", "x\r\n.\ny\r\n.\r\n", "x\r\n\ny\r\n", ""},
		{"CRLF.CR", "x\r\n.\ry\r\n.\r\n", "x\r\n\ry\r\n", ""},
		{"CR.CR", "x\r.\ry\r\n.\r\n", "x\r.\ry\r\n", ""},
		{"CRLF.CRCRLF", "x\r\n.\r\r\ny\r\n.\r\n", "x\r\n\r\r\ny\r\n", ""},
		{"CRCRLF.CRLF", "x\r\r\n.\r\nQUIT\r\n", "x\r\r\n", "QUIT\r\n"}, // Postfix ends a mail so whose last line has a CR
		{"CRLF.CRCRLF.CRLF", "x\r\n.\r\r\n.\r\nQUIT\r\n", "x\r\n\r\r\n", "QUIT\r\n"},
		{"NUL", "x\r\n.\x00\r\ny\r\n.\r\n", "x\r\n\x00\r\ny\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "octets": iotest.OneByteReader, "halves": iotest.HalfReader,
			} {
				r := bufio.NewReaderSize(wrap(strings.NewReader(tt.sent)), 16)
				for _, room := range []int{1, 3, 100} {
					r.Reset(wrap(strings.NewReader(tt.sent)))
					got := readAll(t, &dotReader{r: r}, room)
					left, err := io.ReadAll(r)
					if err != nil || got != tt.want || string(left) != tt.left {
						t.Errorf("%s, room for %d: got %q, left %q (%v), want %q and %q", name, room, got, left, err, tt.want, tt.left)
					}
				}
			}
		})
	}
}

func readAll(t *testing.T, r io.Reader, room int) string {
	t.Helper()
	var all []byte
	p := make([]byte, room)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return string(all)
		}
		if err != nil || n == 0 {
			t.Fatalf("%d octets and %v after %q", n, err, all)
		}
	}
}

func TestDotReaderWithoutEnd(t *testing.T) {
	whole := "Subject: x\r\n\r\n..x\r\n.\r\n"
	broken := errors.New("broken")
	for n := range whole {
		for _, want := range []error{io.ErrUnexpectedEOF, broken} {
			var r io.Reader = strings.NewReader(whole[:n])
			if want == broken {
				r = io.MultiReader(r, iotest.ErrReader(broken))
			}
			if _, err := io.ReadAll(&dotReader{r: bufio.NewReader(r)}); err != want {
				t.Errorf("after %q: %v, want %v", whole[:n], err, want)
			}
		}
	}
}

// octetwise is what a dotReader does, slowly.
func octetwise(sent []byte) (message []byte, used int, ended bool) {
	state := lineBegins
	for i, c := range sent {
		switch {
		case state == lineBegins && c == '.':
			state = dot
			continue
		case state == dot && c == '\r':
			state = dotCR
			continue
		case state == dotCR && c == '\n':
			return message, i + 1, true
		case state == dotCR || state == cr && c == '\r':
			if state == dotCR {
				message = append(message, '\r')
			}
			state = inLine
			if c == '\r' {
				state = cr
			}
		case state == cr && c == '\n':
			state = lineBegins
		case (state == lineBegins || state == inLine) && c == '\r':
			state = cr
		default:
			state = inLine
		}
		message = append(message, c)
	}
	return message, len(sent), false
}

func FuzzDotReader(f *testing.F) {
	f.Add([]byte("a\r\n..b\r\n.\r\nQUIT\r\n"), 7)
	f.Add([]byte(".\r\r\n.\r.\r\n\r\r\n.\r\n\n.\n\r\n.\r\n"), 1)
	f.Fuzz(func(t *testing.T, sent []byte, room int) {
		want, used, ended := octetwise(sent)
		r := bufio.NewReaderSize(bytes.NewReader(sent), 16)
		var got []byte
		p := make([]byte, 1+(room&63))
		var err error
		d := &dotReader{r: r}
		for err == nil {
			var n int
			n, err = d.Read(p)
			got = append(got, p[:n]...)
		}
		left, _ := io.ReadAll(r) // of memory
		if ended != (err == io.EOF) || !bytes.Equal(got, want) || len(sent)-len(left) != used {
			t.Fatalf("%q: got %q, %v, %d used; want %q, %d used, ended %v", sent, got, err, len(sent)-len(left), want, used, ended)
		}
	})
}
