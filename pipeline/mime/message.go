// Package mime reads messages: one tolerant parse that survives whatever the net sends, within limits.
package mime

import (
	"io"
	"iter"
)

// Limits bound what Parse looks at.
type Limits struct {
	HeaderSize   int // octets of the header section of the message; 0 is 256 KiB
	HeaderFields int // fields in it; 0 is 1000
	Depth        int // nested multiparts and messages; 0 is 32
	Parts        int // 0 is 1000
	Parameters   int // of one header field; 0 is 100
	Text         int // octets of decoded text kept for Text and HTML, each; 0 is 2 MiB
}

// A Message is a parsed message. It is immutable and safe for concurrent use; what is expensive is worked out once, when
// first asked for.
type Message struct{}

// Parse reads a message of size octets. It fails only if r does or a limit on the header section is reached
// (*LimitError); everything else that is wrong with the mail is data.
func Parse(r io.ReaderAt, size int64, l Limits) (*Message, error) { return &Message{}, nil }

// Size returns the size of the message in octets.
func (m *Message) Size() int64 { return 0 }

// Raw returns the whole message as it came.
func (m *Message) Raw() *io.SectionReader { return nil }

// RawBody returns the body as it came: everything after the empty line.
func (m *Message) RawBody() *io.SectionReader { return nil }

// Header returns the header section.
func (m *Message) Header() Header { return Header{} }

// Subject returns the first Subject field, decoded.
func (m *Message) Subject() string { return "" }

// From returns the addresses of all From fields, tolerantly parsed.
func (m *Message) From() []Address { return nil }

// MessageID returns the first Message-ID without angle brackets.
func (m *Message) MessageID() string { return "" }

// Text returns the text of the message, decoded; where there is only HTML, what a reader would see of it.
func (m *Message) Text() string { return "" }

// LowerText returns Text in lower case.
func (m *Message) LowerText() string { return "" }

// HTML returns the decoded HTML parts.
func (m *Message) HTML() string { return "" }

// Attachments lists the parts that are files.
func (m *Message) Attachments() []Attachment { return nil }

// Links lists the distinct URLs of the text and the HTML, in order.
func (m *Message) Links() []string { return nil }

// Anomalies lists what is wrong with the mail.
func (m *Message) Anomalies() []Anomaly { return nil }

// Root returns the message as a part.
func (m *Message) Root() *Part { return nil }

// An Attachment is a part that is a file.
type Attachment struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Size   int64  `json:"size"`   // decoded
	SHA256 string `json:"sha256"` // of the decoded content, in hex
}

// An Anomaly is something wrong with a mail.
type Anomaly struct {
	Kind string `json:"kind"` // "no-boundary", "too-deep", "bad-header-line" …
	Part string `json:"part"` // "1.2"
	What string `json:"what"`
}

// A Part is one part of the message.
type Part struct{}

// A Header is a header section: its fields in order, duplicates kept, nothing copied.
type Header struct{}

// A Field is one header field.
type Field struct {
	Name string // as written
	Raw  []byte // the whole field as written, without the last line end; must not be changed
}

// Value returns the value unfolded, without leading and trailing space, not decoded.
func (f Field) Value() string { return "" }

// Text returns the value unfolded with encoded words decoded.
func (f Field) Text() string { return "" }

// Fields returns all fields in order.
func (h Header) Fields() []Field { return nil }

// Len returns the size of the header section in octets, without the empty line.
func (h Header) Len() int { return 0 }

// Has reports whether there is a field of this name; case does not matter.
func (h Header) Has(name string) bool { return false }

// First returns the first field of this name.
func (h Header) First(name string) (Field, bool) { return Field{}, false }

// All yields the fields of this name in order.
func (h Header) All(name string) iter.Seq[Field] { return func(func(Field) bool) {} }
