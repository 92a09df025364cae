package sieve

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"sluice/pipeline/mime"
)

// A draft is a message as a script has made it. It never changes itself: what is edited is another draft, which shares
// with this one whatever was not edited.
type draft struct {
	message *mime.Message
	from    *draft  // what it was made from; nil: it is the mail as it came
	list    []chunk // of which stretches of from
	flat    *chunks // the same, of stretches of the mail as it came
}

// A chunk is a piece of a draft: octets of our own, or a stretch of the draft it was made from.
type chunk struct {
	data []byte
	off  int64 // where data is nil
	size int64
}

// chunks read as one.
type chunks struct {
	base io.ReaderAt
	list []chunk
	ends []int64 // where each chunk ends
	hold func() (release func())
}

// ReadAt implements [io.ReaderAt].
func (p *chunks) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	for i := p.at(off); i < len(p.list) && n < len(b); i++ {
		c := p.list[i]
		in := off + int64(n) - (p.ends[i] - c.size)
		want := b[n:min(int64(len(b)), int64(n)+c.size-in)]
		if c.data != nil {
			n += copy(want, c.data[in:])
			continue
		}
		got, err := p.base.ReadAt(want, c.off+in)
		if n += got; got < len(want) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// at returns which chunk the octet at off is in.
func (p *chunks) at(off int64) int {
	return sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > off })
}

func (p *chunks) add(c chunk) {
	if c.size > 0 {
		end := c.size
		if len(p.ends) > 0 {
			end += p.ends[len(p.ends)-1]
		}
		p.list, p.ends = append(p.list, c), append(p.ends, end)
	}
}

// cut adds to p a stretch of what others read as.
func (p *chunks) cut(other *chunks, off, size int64) {
	for i := other.at(off); size > 0 && i < len(other.list); i++ {
		c := other.list[i]
		in := off - (other.ends[i] - c.size)
		n := min(size, c.size-in)
		if c.data != nil {
			p.add(chunk{data: c.data[in : in+n], size: n})
		} else {
			p.add(chunk{off: c.off + in, size: n})
		}
		off, size = off+n, size-n
	}
}

// Hold keeps the message that this one was made from readable, see [mime.Message.Hold].
func (p *chunks) Hold() (release func()) { return p.hold() }

// assemble makes a draft of chunks of another. However many come one after the other, reading costs the same.
func (d *draft) assemble(list ...chunk) (*draft, error) {
	next := &draft{from: d, flat: &chunks{}}
	if d.flat == nil {
		next.flat.base, next.flat.hold = d.message.Raw(), d.message.Hold
	} else {
		next.flat.base, next.flat.hold = d.flat.base, d.flat.hold
	}
	var size int64
	for _, c := range list {
		if c.data != nil {
			c.size = int64(len(c.data))
		}
		if c.size <= 0 {
			continue
		}
		size += c.size
		next.list = append(next.list, c)
		if c.data != nil || d.flat == nil {
			next.flat.add(c)
		} else {
			next.flat.cut(d.flat, c.off, c.size)
		}
	}
	var err error
	next.message, err = mime.Parse(next.flat, size, mime.Limits{})
	return next, err
}

// lineEnd returns how the lines of a message end: one from a file may have it as LF.
func lineEnd(m *mime.Message) string {
	var first [1000]byte
	n, _ := m.Raw().ReadAt(first[:], 0)
	line, _, ends := bytes.Cut(first[:n], []byte("\n"))
	if ends && !bytes.HasSuffix(line, []byte("\r")) {
		return "\n"
	}
	return "\r\n"
}

// withField returns a draft with a field more, above all others or below them. The value is one line of any text.
func (d *draft) withField(name, value string, last bool) (*draft, error) {
	m := d.message
	end := lineEnd(m)
	field := []byte(name + ":" + end)
	if value = encodeWords(oneLine(value)); value != "" {
		field = bytes.ReplaceAll(foldField(name, value), []byte("\r\n"), []byte(end))
	}
	if !last {
		return d.assemble(chunk{data: field}, chunk{size: m.Size()})
	}
	at := int64(m.Header().Len())
	if at == m.Size() && at > 0 { // a header and nothing else, perhaps without a line end
		var b [1]byte
		if _, _ = m.Raw().ReadAt(b[:], at-1); b[0] != '\n' {
			field = append([]byte(end), field...)
		}
	}
	return d.assemble(chunk{size: at}, chunk{data: field}, chunk{off: at, size: m.Size() - at})
}

// withoutFields returns a draft without the fields that drop says, by their place in the header.
func (d *draft) withoutFields(drop func(i int, f mime.Field) bool) (*draft, error) {
	m := d.message
	end := lineEnd(m)
	var b bytes.Buffer
	for i, f := range m.Header().Fields() {
		if !drop(i, f) {
			b.Write(f.Raw)
			b.WriteString(end)
		}
	}
	b.WriteString(end)
	body := m.RawBody()
	return d.assemble(chunk{data: b.Bytes()}, chunk{off: m.Size() - body.Size(), size: body.Size()})
}

// A stretch is where a part of a message stands in it, its header with it.
type stretch struct{ from, to int64 }

// stretchOf returns where a part stands in a message; false for one inside an encoded message, which stands nowhere, and
// for the message itself.
func stretchOf(m *mime.Message, p *mime.Part) (stretch, bool) {
	whole, _, _ := m.Raw().Outer()
	r, start, size := p.Raw().Outer()
	if r != whole || p == m.Root() {
		return stretch{}, false
	}
	var before [4]byte
	from := max(0, start-4)
	n, _ := r.ReadAt(before[:start-from], from)
	blank := int64(0) // length of the empty line between header and content
	switch b := before[:n]; {
	case bytes.HasSuffix(b, []byte("\n\r\n")):
		blank = 2
	case bytes.HasSuffix(b, []byte("\n\n")):
		blank = 1
	}
	head := start - blank - int64(p.Header.Len())
	if head < 0 {
		return stretch{}, false
	}
	if fields := p.Header.Fields(); len(fields) > 0 {
		first := fields[0].Raw
		b := make([]byte, min(len(first), 100))
		if n, _ := r.ReadAt(b, head); n < len(b) || !bytes.Equal(b, first[:len(b)]) {
			return stretch{}, false
		}
	}
	return stretch{head, start + size}, true
}

// find returns where a part of this draft, or of one that it was made from, stands now; false where it is gone.
func (d *draft) find(p *mime.Part) (stretch, bool) {
	if s, ok := stretchOf(d.message, p); ok || d.from == nil {
		return s, ok
	}
	s, ok := d.from.find(p)
	if !ok {
		return s, false
	}
	at := int64(0)
	for _, c := range d.list {
		if c.data == nil && c.off <= s.from && s.to <= c.off+c.size {
			return stretch{at + s.from - c.off, at + s.to - c.off}, true
		}
		at += c.size
	}
	return stretch{}, false
}

// withPart returns a draft in which another entity stands in place of a part (RFC 5703, 6): text/plain, or, where it
// is an entity with fields, as it is.
func (d *draft) withPart(s stretch, text string, entity bool) (*draft, error) {
	m := d.message
	var b bytes.Buffer
	if entity {
		writeEntity(&b, text)
	} else {
		writeText(&b, text)
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\r\n")) // the line end before a boundary is the boundary's
	if lineEnd(m) == "\n" {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	return d.assemble(chunk{size: s.from}, chunk{data: data}, chunk{off: s.to, size: m.Size() - s.to})
}

// A replacement is what stands in place of a whole message.
type replacement struct {
	subject, from *string // in place of those of the message; nil: they stay
	text          string
	entity        bool
}

// replaced returns a draft that says something else than m: its fields stay but for those that describe its content,
// Subject and From; what they were stands in Original-Subject and Original-From (RFC 5703, 6.1).
func (d *draft) replaced(r replacement) (*draft, error) {
	m := d.message
	var b bytes.Buffer
	for _, f := range m.Header().Fields() {
		switch low := strings.ToLower(f.Name); {
		case low == "mime-version", strings.HasPrefix(low, "content-"):
			continue
		case low == "subject" && r.subject != nil, low == "from" && r.from != nil:
			b.WriteString("Original-")
		case low == "original-subject" && r.subject != nil, low == "original-from" && r.from != nil:
			continue
		}
		b.Write(bytes.ReplaceAll(bytes.ReplaceAll(f.Raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n")))
		b.WriteString("\r\n")
	}
	if r.subject != nil {
		b.Write(foldField("Subject", encodeWords(cutText(oneLine(*r.subject), letterSubject))))
	}
	if r.from != nil {
		b.Write(foldField("From", addressField([]string{*r.from})))
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	if r.entity {
		writeEntity(&b, r.text)
	} else {
		writeText(&b, r.text)
	}
	return d.assemble(chunk{data: b.Bytes()})
}

// enclosed returns a draft of a text and, attached, m itself (RFC 5703, 7): to, date and trace of m stand in its
// header too; fields are those that the script adds, "Name: value" each.
func (d *draft) enclosed(subject string, fields [][2]string, text string) (*draft, error) {
	m := d.message
	var b bytes.Buffer
	if subject == "" {
		subject = m.Subject()
	}
	kept := map[string]bool{"received": true, "return-path": true, "delivered-to": true, "from": true, "to": true, "cc": true,
		"date": true, "message-id": true, "auto-submitted": true, "list-id": true, "precedence": true}
	for _, f := range fields {
		delete(kept, strings.ToLower(f[0]))
	}
	for _, f := range m.Header().Fields() {
		if kept[strings.ToLower(f.Name)] {
			b.Write(bytes.ReplaceAll(bytes.ReplaceAll(f.Raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n")))
			b.WriteString("\r\n")
		}
	}
	b.Write(foldField("Subject", encodeWords(cutText(oneLine(subject), letterSubject))))
	for _, f := range fields {
		b.Write(foldField(f[0], encodeWords(oneLine(f[1]))))
	}
	boundary := ""
	for i := 0; boundary == "" || clashes(m, boundary); i++ {
		boundary, _, _ = strings.Cut(letterMessageID("", "enclose", text, m.MessageID(), strconv.Itoa(i)), "@")
	}
	fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=%q\r\n\r\n--%[1]s\r\n", boundary)
	writeText(&b, text)
	b.Truncate(len(bytes.TrimSuffix(b.Bytes(), []byte("\r\n")))) // that line end is the boundary's
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment\r\n", boundary)
	if eightBit(m) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	return d.assemble(chunk{data: b.Bytes()}, chunk{size: m.Size()}, chunk{data: []byte("\r\n--" + boundary + "--\r\n")})
}

// clashes reports whether a boundary stands in m.
func clashes(m *mime.Message, boundary string) bool {
	return scan(m, func(b []byte) bool { return bytes.Contains(b, []byte("--"+boundary)) }, len(boundary)+2)
}

// eightBit reports whether a message has octets that are not ASCII.
func eightBit(m *mime.Message) bool {
	return scan(m, func(b []byte) bool {
		for _, c := range b {
			if c > 0x7f {
				return true
			}
		}
		return false
	}, 0)
}

// scan reads a message in stretches, each with so many octets of the one before it, until found says so.
func scan(m *mime.Message, found func([]byte) bool, overlap int) bool {
	buf := make([]byte, 32<<10)
	for off := int64(0); off < m.Size(); off += int64(len(buf) - overlap) {
		n, _ := m.Raw().ReadAt(buf, off)
		if found(buf[:n]) {
			return true
		}
	}
	return false
}

// isWhole reports whether a part is this draft, or one that it was made from, as a whole.
func (d *draft) isWhole(p *mime.Part) bool {
	for ; d != nil; d = d.from {
		if d.message.Root() == p {
			return true
		}
	}
	return false
}
