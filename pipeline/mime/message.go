// Package mime reads messages: one tolerant parse that survives whatever the net sends, within limits.
//
// It splits headers and bodies itself, because a mail that a strict parser rejects is still shown by somebody's mail
// client. Nothing is worked out before it is asked for: a mail of which only the header is read costs a scan of the
// header.
package mime

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// Limits bound what Parse looks at. The zero Limits are the defaults.
type Limits struct {
	HeaderSize   int // octets of the header section of the message; 0 is 256 KiB
	HeaderFields int // fields in it; 0 is 1000
	Depth        int // nested multiparts and messages; 0 is 32
	Parts        int // 0 is 1000
	Parameters   int // of one header field; 0 is 100
	// Text is how many octets of decoded text are kept for Text and HTML, each, and how many of encoded messages inside
	// the message are looked into; 0 is 2 MiB.
	Text int
}

func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		limit *int
		value int
	}{
		{&l.HeaderSize, 256 << 10}, {&l.HeaderFields, 1000}, {&l.Depth, 32}, {&l.Parts, 1000}, {&l.Parameters, 100}, {&l.Text, 2 << 20},
	} {
		if *x.limit <= 0 {
			*x.limit = x.value
		}
	}
	return l
}

const (
	maxAddresses = 1000 // that From returns
	maxAnomalies = 100  // that are kept; one more says so
)

// A Message is a parsed message. It is immutable and safe for concurrent use; what is expensive is worked out once, when
// first asked for. What was read before its source was closed stays; what is worked out later finds nothing, and says
// so among the anomalies.
type Message struct {
	r      *watchedReader
	size   int64
	body   int64 // where it begins
	begin  int64 // where content begins: before body if there is some at the end of the header section
	limits Limits
	header Header
	odd    anomalies // of the header

	from func() addressList
	tree func() tree
	text func() texts
	low  func() string
	file func() files
	link func() []foundLink
	fine func() anomalies // what is wrong with the header and the lines
}

// Parse reads a message of size octets. It fails only if r does or a limit on the header section is reached
// (*LimitError); everything else that is wrong with the mail is data.
func Parse(r io.ReaderAt, size int64, l Limits) (*Message, error) {
	m := &Message{r: &watchedReader{ReaderAt: r}, size: size, limits: l.withDefaults()}
	raw, body, err := readHeader(r, size, m.limits.HeaderSize)
	if err != nil {
		return nil, err
	}
	m.body = body
	var more bool
	m.header, more = parseHeader(raw, m.limits.HeaderFields, func(line string) { m.odd.add(KindBadHeaderLine, "", clip(line)) })
	if more {
		return nil, &LimitError{What: "header fields", Limit: m.limits.HeaderFields}
	}
	m.begin = m.contentBegin()
	m.from = sync.OnceValue(m.readFrom)
	m.tree = sync.OnceValue(m.readTree)
	m.text = sync.OnceValue(m.readTexts)
	m.low = sync.OnceValue(func() string { return strings.ToLower(m.Text()) })
	m.file = sync.OnceValue(m.readFiles)
	m.link = sync.OnceValue(m.readLinks)
	m.fine = sync.OnceValue(func() anomalies { return append(m.oddHeader(), m.oddLines()...) })
	return m, nil
}

// contentBegin returns where the content begins. Lines at the end of the header section that are no fields, with or
// without an empty line behind them, are text for some readers, and the first boundary of a multipart may be among them.
func (m *Message) contentBegin() int64 {
	p := Part{Header: m.header}
	if m.header.tail < m.header.size && p.takesTail() {
		return int64(m.header.tail)
	}
	return m.body
}

// A watchedReader remembers the first failure of the source.
type watchedReader struct {
	io.ReaderAt
	failed atomic.Pointer[error]
}

// ReadAt implements io.ReaderAt.
func (w *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		w.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// Failed returns why the source of the message could not be read, nil if nothing has failed so far. What was worked out
// from it then is not all there is.
func (m *Message) Failed() error {
	if err := m.r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Size returns the size of the message in octets.
func (m *Message) Size() int64 { return m.size }

// Raw returns the whole message as it came.
func (m *Message) Raw() *io.SectionReader { return io.NewSectionReader(m.r, 0, m.size) }

// Hold keeps what the message is read from until release is called, should its owner close it meanwhile: where that is a
// reader with a method like this one, which then is asked. Any other stays readable by itself.
func (m *Message) Hold() (release func()) {
	if h, ok := m.r.ReaderAt.(interface{ Hold() (release func()) }); ok {
		return h.Hold()
	}
	return func() {}
}

// RawBody returns the body as it came: everything after the empty line.
func (m *Message) RawBody() *io.SectionReader { return io.NewSectionReader(m.r, m.body, m.size-m.body) }

// Header returns the header section.
func (m *Message) Header() Header { return m.header }

// Subject returns the first Subject field, decoded.
func (m *Message) Subject() string {
	f, _ := m.header.First("Subject")
	return f.Text()
}

// From returns the addresses of all From fields, tolerantly parsed, at most 1000. One that cannot be read as an address
// is there with what can be made of it, if only with a Name.
func (m *Message) From() []Address { return clone(m.from().list) }

type addressList struct {
	list []Address
	odd  anomalies
}

func (m *Message) readFrom() (from addressList) {
	for f := range m.header.All("From") {
		list, more := parseAddressList(f.Value(), maxAddresses-len(from.list))
		from.list = append(from.list, list...)
		if more {
			from.odd.add(KindManyAddresses, "", "From")
			break
		}
	}
	return from
}

// MessageID returns the first Message-ID without angle brackets.
func (m *Message) MessageID() string {
	f, _ := m.header.First("Message-ID")
	v := f.Value()
	if i := strings.IndexByte(v, '<'); i >= 0 {
		v = v[i+1:]
		if j := strings.IndexByte(v, '>'); j >= 0 {
			v = v[:j]
		}
	}
	return strings.TrimSpace(v)
}

// Text returns the text of the message, decoded; where there is only HTML, what a reader would see of it. It is valid
// UTF-8. Files are no part of it, messages inside the message are.
func (m *Message) Text() string { return m.text().text }

// LowerText returns Text in lower case.
func (m *Message) LowerText() string { return m.low() }

// HTML returns the decoded HTML parts.
func (m *Message) HTML() string { return m.text().html }

// Attachments lists the parts that are files: neither text nor HTML, or with a file name, or marked as attachments. Files
// inside other content follow it: uuencoded ones in text, and those in Outlook's TNEF.
func (m *Message) Attachments() []Attachment { return clone(m.file().list) }

// CopyAttachments writes the decoded content of Attachments, one after the other and in their order, to what to returns for
// the i-th of them; nil leaves it out. Files that a limit kept from being hashed are not offered.
func (m *Message) CopyAttachments(to func(i int) io.Writer) { m.walkFiles(to) }

// Anomalies lists what is wrong with the mail. Working it out decodes all of it.
func (m *Message) Anomalies() []Anomaly {
	var all anomalies
	for _, list := range []anomalies{m.odd, m.fine(), m.from().odd, m.tree().odd, m.text().odd, m.file().odd} {
		for _, a := range list {
			all.add(a.Kind, a.Part, a.What)
		}
	}
	return all
}

// Root returns the message as a part.
func (m *Message) Root() *Part { return m.tree().root }

// An Attachment is a part that is a file.
type Attachment struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Size   int64  `json:"size"`   // decoded
	SHA256 string `json:"sha256"` // of the decoded content, in hex
}

func clone[T any](s []T) []T { return append([]T(nil), s...) }
