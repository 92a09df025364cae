package smtp

import (
	"bytes"
	"fmt"
	"io"

	"sluice/pipeline"
)

// BareNewlines says what becomes of a message in which a CR or LF stands that is not half of a CRLF (RFC 5321, 2.3.8).
// Servers read it differently, so that one server's message can be another's two.
type BareNewlines string

// The words for BareNewlines.
const (
	// RefuseStrangers refuses it, but takes it from trusted clients as Mend does. The default at SMTP.
	RefuseStrangers BareNewlines = "refuse_strangers"
	// Refuse refuses it, whoever brings it.
	Refuse BareNewlines = "refuse"
	// Mend makes an LF that stands alone a CRLF and a CR that stands alone a space, before anybody looks at the message.
	// The default at LMTP, where the MTA before us would make a bounce of a refusal.
	Mend BareNewlines = "mend"
)

// UnmarshalText reads a word; "" is the default.
func (b *BareNewlines) UnmarshalText(text []byte) error {
	switch x := BareNewlines(text); x {
	case "", RefuseStrangers, Refuse, Mend:
		*b = x
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s, %s", text, RefuseStrangers, Refuse, Mend)
}

// refuses reports whether a message with bare newlines is refused.
func (b BareNewlines) refuses(trusted bool) bool {
	return b == Refuse || b == RefuseStrangers && !trusted
}

// lineEnds looks after the line ends of one message on its way in: what comes out of it has CRLF and no other CR or LF.
type lineEnds struct {
	bare string // what was found first where it must not be: "CR" or "LF"
	cr   bool   // the last octet was a CR, and is held back until its LF comes
	out  []byte // to use again
}

// take returns p with its line ends mended, p itself where there is nothing to mend. The result counts until the next call.
func (l *lineEnds) take(p []byte) []byte {
	if !l.cr && clean(p) {
		return p
	}
	out := l.out[:0]
	for _, c := range p {
		if l.cr {
			l.cr = false
			if c == '\n' {
				out = append(out, '\r', '\n')
				continue
			}
			out = append(out, l.found("CR", " ")...)
		}
		switch c {
		case '\r':
			l.cr = true
		case '\n':
			out = append(out, l.found("LF", "\r\n")...)
		default:
			out = append(out, c)
		}
	}
	l.out = out
	return out
}

// end returns what is left at the end of the message.
func (l *lineEnds) end() string {
	if !l.cr {
		return ""
	}
	l.cr = false
	return l.found("CR", " ")
}

func (l *lineEnds) found(what, instead string) string {
	if l.bare == "" {
		l.bare = what
	}
	return instead
}

// clean reports whether each CR of p stands before an LF of p, and each LF after a CR.
func clean(p []byte) bool {
	n := 0
	for rest := p; ; n++ {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i == 0 || rest[i-1] != '\r' {
			return false
		}
		rest = rest[i+1:]
	}
	return bytes.Count(p, []byte{'\r'}) == n
}

// refusal is the answer to a message in which a bare newline was found; no reply without one.
func (l *lineEnds) refusal() pipeline.Reply {
	if l.bare == "" {
		return pipeline.Reply{}
	}
	return pipeline.Reply{
		Code: 550, Enhanced: "5.5.2", Text: "bare " + l.bare + " received: lines end with CR LF (RFC 5321, 2.3.8)",
	}
}

// mended writes a message in chunks through lineEnds.
type mended struct {
	w    io.Writer
	ends *lineEnds
}

func (m mended) Write(p []byte) (int, error) {
	if _, err := m.w.Write(m.ends.take(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A mender is a message on its way in through lineEnds.
type mender struct {
	*lineEnds
	r    io.Reader
	left []byte
	err  error
}

func (m *mender) Read(p []byte) (int, error) {
	for len(m.left) == 0 && m.err == nil {
		var n int
		n, m.err = m.r.Read(p)
		if m.left = m.take(p[:n]); n > 0 && len(m.left) == n && &m.left[0] == &p[0] {
			m.left = nil
			return n, m.err
		}
		if m.err == io.EOF {
			m.left = append(m.left, m.end()...)
		}
	}
	n := copy(p, m.left)
	if m.left = m.left[n:]; len(m.left) > 0 {
		return n, nil
	}
	return n, m.err
}
