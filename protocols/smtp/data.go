package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/emersion/go-smtp"

	"sluice/pipeline"
	"sluice/pipeline/spool"
)

// data receives a message and has it decided: RFC 5321, 4.1.1.4. The pipeline has its say before the client sends it.
// Nothing of it passes through go-smtp, which takes it octet by octet and, at LMTP, in a goroutine of its own.
func (w *wire) data(arg string) []byte {
	switch {
	case arg != "":
		return w.wrong(501, "5.5.4", "DATA takes no argument")
	case !w.c.ready():
		return w.wrong(503, "5.5.1", "MAIL and RCPT first")
	}
	if no := w.c.beforeData(); no != nil {
		w.sayAll([]pipeline.Reply{*no})
		w.refused = no.String()
		return w.forget()
	}
	if !w.conn.SetBusy(true) {
		return nil // next says goodbye
	}
	if _, err := io.WriteString(w.conn, "354 Go ahead. End your data with <CR><LF>.<CR><LF>\r\n"); err != nil {
		w.over.Store(true)
		return nil
	}
	src := &source{r: &dotReader{r: w.r}}
	ends := &lineEnds{}
	m, err := spool.Receive(&mender{lineEnds: ends, r: src}, w.c.spooling())
	switch {
	case src.err != nil:
		if err == nil {
			_ = m.Close() // nothing in it is wanted
		}
		w.fail(src.err)
		return nil
	case err != nil:
		return w.refuseData(w.c.untaken(err))
	}
	w.c.unheard = nil
	if !w.sayAll(w.c.finish(session{w.c, w}, m, ends)) && w.c.unheard != nil {
		w.c.unheard()
	}
	return w.forget()
}

// refuseData answers a message that could not be kept: at LMTP for each recipient (RFC 2033, 4.2).
func (w *wire) refuseData(no error) []byte {
	var e *smtp.SMTPError
	if !errors.As(no, &e) {
		return nil // it always is one
	}
	r := pipeline.Reply{Code: e.Code, Enhanced: enhanced(e), Text: e.Message}
	n := 1
	if w.c.s.cfg.LMTP {
		n = len(w.c.places())
	}
	w.sayAll(w.c.addressed(slices.Repeat([]pipeline.Reply{r}, n), w.c.places()))
	w.c.abort("DATA: " + r.String())
	return w.forget()
}

// sayAll writes replies of ours, all at once, and reports whether somebody is there to read them.
func (w *wire) sayAll(all []pipeline.Reply) bool {
	var b bytes.Buffer
	for _, r := range all {
		w.note(r.Code)
		b.WriteString(r.Wire(w.c.utf8) + "\r\n")
		if r.Code == 421 {
			w.over.Store(true)
		}
	}
	if _, err := w.conn.Write(b.Bytes()); err != nil {
		w.over.Store(true)
		return false
	}
	return true
}

// A dotReader reads a message that DATA has announced, and nothing beyond it. RFC 5321, 4.1.1.4: only CRLF.CRLF ends it;
// 4.5.2: of a dot that begins a line, the first is not part of it. Its io.EOF is that end: that of the connection is
// io.ErrUnexpectedEOF.
type dotReader struct {
	r     *bufio.Reader
	state dotState
}

// dotState is where in a line a message is.
type dotState uint8

const (
	lineBegins dotState = iota
	dot                 // a dot that has begun a line is held back
	dotCR               // and the CR behind it
	cr
	inLine
	ended
)

func (d *dotReader) Read(p []byte) (int, error) {
	for d.state != ended {
		if _, err := d.r.Peek(1); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		b, _ := d.r.Peek(d.r.Buffered())
		n, used := d.take(p, b)
		_, _ = d.r.Discard(used) // it is there
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// take copies what it can of b, which has been received, to p, and returns how much of both it has used.
func (d *dotReader) take(p, b []byte) (n, used int) {
	for used < len(b) && n < len(p) && d.state != ended {
		switch c := b[used]; d.state {
		case lineBegins:
			d.state = inLine
			if c == '.' {
				d.state = dot
				used++
			}
		case dot:
			d.state = inLine
			if c == '\r' {
				d.state = dotCR
				used++
			}
		case dotCR:
			if c == '\n' {
				d.state = ended
				used++
				break
			}
			p[n] = '\r'
			n++
			d.state = cr
		case cr:
			switch c {
			case '\n':
				d.state = lineBegins
			case '\r': // the CR before it stood alone; this one may be half of a CRLF
			default:
				d.state = inLine
			}
			p[n] = c
			n++
			used++
		case inLine:
			line := b[used:]
			if i := bytes.IndexByte(line, '\r'); i >= 0 {
				line = line[:i+1]
			}
			k := copy(p[n:], line)
			n += k
			if used += k; line[k-1] == '\r' {
				d.state = cr
			}
		}
	}
	return n, used
}
