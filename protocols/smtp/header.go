package smtp

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	stdmime "mime"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// maxField is how long a field of ours may be when it is unfolded. RFC 5322, 2.1.1 allows 998 octets a line; some clients
// lose mail whose fields unfold to more.
const maxField = 990

// lineLength is where fields of ours are folded (RFC 5322, 2.1.1).
const lineLength = 78

// field returns a header field that is one field whatever is in value: line ends and control characters become spaces,
// what is too long is cut. It is folded at spaces, so that unfolding gives the value back.
func field(name, value string) []byte {
	value = strings.Map(func(r rune) rune {
		if isControl(r) || r == '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(value, "?"))
	value = strings.TrimSpace(value)
	if most := maxField - len(name) - len(": "); len(value) > most {
		value = strings.TrimSpace(strings.ToValidUTF8(value[:most], "")) // no line of spaces alone: RFC 5322, 3.2.2
	}
	var b bytes.Buffer
	b.WriteString(name + ":")
	column := b.Len()
	// A word keeps the spaces before it: they are what a folded line begins with.
	for word := range words(value) {
		if column+len(word) > lineLength && column > len(name)+1 {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// words yields the words of s, each with the spaces before it, the first with one.
func words(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for s = " " + s; s != ""; {
			n := len(s) - len(strings.TrimLeft(s, " "))
			if i := strings.IndexByte(s[n:], ' '); i >= 0 {
				n += i
			} else {
				n = len(s)
			}
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
	}
}

// added returns a field that a rule or the pipeline adds; nothing if its name is none. What is not ASCII is encoded
// (RFC 2047).
func added(e pipeline.Edit) []byte {
	if e.Name == "" || strings.ContainsFunc(e.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
		return nil
	}
	value := e.Value
	if !ascii(value) {
		value = stdmime.QEncoding.Encode("utf-8", strings.ToValidUTF8(value, "?"))
	}
	return field(e.Name, value)
}

// content returns the copy of the message that is kept for a decision, nil for the one in quarantine: our trace, what
// rules add, and the message without what they delete and without fields that only the last server writes.
func (f *filing) content(d *pipeline.Decision) io.Reader { return f.contentOf(d, f.stored) }

// contentOf is content for a message that was changed for the recipient.
func (f *filing) contentOf(d *pipeline.Decision, m *mime.Message) io.Reader {
	var head bytes.Buffer
	// RFC 5321, 4.4: whoever makes the final delivery puts the sender into Return-Path, as it was written.
	head.Write(field("Return-Path", "<"+f.tx.from.Raw+">"))
	if d != nil {
		head.Write(field("Delivered-To", f.deliveredTo(d.Recipient)))
	}
	head.Write(field(pipeline.IDField, f.id))
	head.Write(f.trace())
	if d != nil {
		edits := d.Edits
		if !d.Recalled {
			edits = append(d.Fields(f.s.door), edits...)
		}
		for _, e := range edits {
			if !e.Delete && !has(m, e) { // the milter door may have added it already
				head.Write(added(e))
			}
		}
	}
	section, raw, err := split(m)
	if err != nil {
		return failing{err}
	}
	head.Write(safeStart(strip(section, f.unwanted(d).has), m))
	return io.MultiReader(&head, raw)
}

// has reports whether m has the very field that e adds.
func has(m *mime.Message, e pipeline.Edit) bool {
	for x := range m.Header().All(e.Name) {
		if x.Value() == strings.TrimSpace(e.Value) {
			return true
		}
	}
	return false
}

// A failing reader is what is left of a message that cannot be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (f *filing) deliveredTo(r pipeline.Recipient) string {
	a := r.Address
	switch at := strings.LastIndexByte(a.Raw, '@'); {
	case a.Domain == "":
		return r.Account // postmaster
	case !ascii(a.Domain) && !f.tx.wants.UTF8 && at >= 0:
		a.Domain = strings.ToLower(a.Raw[at+1:]) // as it was written, in A-labels: the header is ASCII
	}
	return a.String()
}

// safeStart returns a header section that can follow ours. A first line that begins with a space would continue our
// last field. A message without any field has no header: all of it is text.
func safeStart(section []byte, m *mime.Message) []byte {
	switch {
	case len(section) == 0:
		return nil
	case len(m.Header().Fields()) == 0:
		return append([]byte("\r\n"), section...)
	case section[0] == ' ' || section[0] == '\t':
		return append([]byte("X-Sluice-Stray:"), section...)
	case section[len(section)-1] != '\n':
		return append(section, "\r\n"...)
	}
	return section
}

// trace returns our Received field. RFC 5321, 4.4.
func (f *filing) trace() []byte {
	var b strings.Builder
	b.WriteString("from " + word(f.greeting))
	peer, local := f.conn.Peer(), f.conn.Local()
	if f.stated != nil {
		peer, local = f.stated.client.Addr, false
	}
	if peer.IsValid() {
		literal := peer.String()
		if peer.Is6() {
			literal = "IPv6:" + literal
		}
		b.WriteString(" ([" + literal + "])")
	} else if local {
		b.WriteString(" (unix socket)")
	}
	fmt.Fprintf(&b, " by %s with %s id %s", word(cmp.Or(f.conn.Hostname(), f.s.cfg.Hostname)), f.protocol(), f.id)
	if len(f.tx.rcpts) == 1 && len(f.tx.taken) == 1 { // with more it would tell each about the others
		fmt.Fprintf(&b, " for <%s>", f.deliveredTo(f.tx.taken[0]))
	}
	b.WriteString("; " + f.received.Format(time.RFC1123Z))
	return field("Received", b.String())
}

// protocol: RFC 3848, and RFC 6531, 4.3.
func (f *filing) protocol() string {
	s := "SMTP"
	switch {
	case f.s.cfg.LMTP:
		s = "LMTP"
	case f.extended && !f.tx.wants.UTF8:
		s = "ESMTP"
	}
	if f.tx.wants.UTF8 {
		s = "UTF8" + s
	}
	if f.conn.TLSVersion() != "" {
		s += "S"
	}
	if f.client().Login != "" && s != "SMTP" {
		s += "A"
	}
	return s
}

// word makes a greeting fit to stand in a Received field: it can be no comment and no other clause.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>";,\`, r) {
			return '?'
		}
		return r
	}, s)
	if s == "" {
		return "unknown"
	}
	return s[:min(len(s), 255)]
}

// strip returns a header section without the fields for which gone is true: of a name in lower case, the nth of that
// name, from 1. What is no field stays.
func strip(section []byte, gone func(name string, nth int) bool) []byte {
	out := make([]byte, 0, len(section)+2)
	eachField(section, func(name string, nth int, text []byte) {
		if name == "" || !gone(name, nth) {
			out = append(out, text...)
		}
	})
	return out
}

// eachField calls visit for each field of a header section: its name in lower case, the how manieth of that name it is, from
// 1, and its text. What is no field has no name.
func eachField(section []byte, visit func(name string, nth int, text []byte)) {
	seen := map[string]int{}
	for len(section) > 0 {
		n := fieldLength(section)
		name, _, ok := bytes.Cut(section[:n], []byte(":"))
		if ok && len(name) > 0 && name[0] != ' ' && name[0] != '\t' {
			name := strings.ToLower(string(bytes.TrimRight(name, " \t")))
			seen[name]++
			visit(name, seen[name], section[:n])
		} else {
			visit("", 0, section[:n])
		}
		section = section[n:]
	}
}

// fieldLength returns the length of the field at the beginning of a section, with the lines that continue it.
func fieldLength(section []byte) int {
	for n := 0; ; {
		i := bytes.IndexByte(section[n:], '\n')
		if i < 0 {
			return len(section)
		}
		n += i + 1
		if n == len(section) || section[n] != ' ' && section[n] != '\t' {
			return n
		}
	}
}

// without returns the message without the header fields for which ours is true: what is forged must not be seen.
func (s session) without(m *message, ours func(name string) bool) (*mime.Message, error) {
	if !slices.ContainsFunc(m.parsed.Header().Fields(), func(f mime.Field) bool { return ours(f.Name) }) {
		return m.parsed, nil
	}
	old := int64(m.parsed.Header().Len())
	section := make([]byte, old)
	if _, err := io.ReadFull(m.parsed.Raw(), section); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	section = strip(section, func(name string, _ int) bool { return ours(name) })
	j := joined{head: section, tail: m.Spool, skip: old}
	return mime.Parse(j, m.Size()-old+int64(len(section)), s.s.cfg.MIME)
}

// joined is a new header section before the rest of a message.
type joined struct {
	head []byte
	tail io.ReaderAt
	skip int64 // octets of tail that head stands for
}

// Hold keeps the rest readable; see [mime.Message.Hold].
func (j joined) Hold() (release func()) {
	if h, ok := j.tail.(interface{ Hold() (release func()) }); ok {
		return h.Hold()
	}
	return func() {}
}

func (j joined) ReadAt(p []byte, off int64) (n int, err error) {
	if off < int64(len(j.head)) {
		n = copy(p, j.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	m, err := j.tail.ReadAt(p[n:], off+int64(n)-int64(len(j.head))+j.skip)
	return n + m, err
}
