package mime

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

// A LimitError says which limit a message goes over.
type LimitError struct {
	What  string // "header section", "header fields"
	Limit int    // octets, or fields
}

func (e *LimitError) Error() string {
	if e.What == "header section" {
		return fmt.Sprintf("the header section is larger than %d octets", e.Limit)
	}
	return fmt.Sprintf("there are more than %d %s", e.Limit, e.What)
}

// A Header is a header section: its fields in order, duplicates kept, nothing copied.
type Header struct {
	fields []Field
	size   int
	tail   int // where lines at the end begin that are no fields; size if there are none
}

// A Field is one header field.
type Field struct {
	Name string // as written
	Raw  []byte // the whole field as written, without the last line end; must not be changed
	text string // the same as Raw
}

// Value returns the value unfolded, without leading and trailing space, not decoded.
func (f Field) Value() string {
	s := f.text
	if s == "" {
		s = string(f.Raw)
	}
	_, v, _ := strings.Cut(s, ":")
	return strings.Trim(unfold(v), " \t")
}

// Text returns the value unfolded with encoded words decoded. It is valid UTF-8.
func (f Field) Text() string { return decodeWords(f.Value()) }

// Addresses returns the addresses of a field such as To, tolerantly parsed: an address is found wherever a mail client
// might see one. At most 1000 are returned.
func (f Field) Addresses() []Address {
	list, _ := parseAddressList(f.Value(), maxAddresses)
	return list
}

// unfold removes line ends. RFC 5322, 2.2.3: only they go, the white space after them stays.
func unfold(s string) string {
	if strings.IndexByte(s, '\n') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"))
	}
	return b.String()
}

// Fields returns all fields in order. The slice must not be changed.
func (h Header) Fields() []Field { return slices.Clip(h.fields) }

// Len returns the size of the header section in octets, without the empty line.
func (h Header) Len() int { return h.size }

// Has reports whether there is a field of this name; case does not matter.
func (h Header) Has(name string) bool {
	_, ok := h.First(name)
	return ok
}

// First returns the first field of this name.
func (h Header) First(name string) (Field, bool) {
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			return h.fields[i], true
		}
	}
	return Field{}, false
}

// All yields the fields of this name in order.
func (h Header) All(name string) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := range h.fields {
			if equalFold(h.fields[i].Name, name) && !yield(h.fields[i]) {
				return
			}
		}
	}
}

// equalFold compares names of fields. It is called for every field and every question, so length decides first.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if x, y := a[i], b[i]; x != y && (lower(x) != lower(y)) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// parseHeader splits a header section into fields. What is no field is told to odd, with the text of the line, and left
// out. It stops after most fields and reports whether there are more.
func parseHeader(raw []byte, most int, odd func(line string)) (h Header, more bool) {
	h = Header{size: len(raw), tail: len(raw)}
	inside := false // we are beyond the first boundary of the message, where the empty line before it is missing
	boundary, known := "", false
	h.fields = make([]Field, 0, min(bytes.Count(raw, []byte("\n"))+1, most, 256))
	text := string(raw)
	for at := 0; at < len(text); {
		end, next := fieldEnd(text, at)
		name, ok := fieldName(text[at:end])
		switch {
		case !ok:
			odd(text[at:end])
			if h.tail == len(raw) && len(h.fields) > 0 {
				h.tail = at
			}
			if strings.HasPrefix(text[at:end], "--") && !inside {
				if !known { // it is read once, not for each of a thousand such lines
					boundary, known = h.boundary(), true
				}
				line := strings.TrimRight(text[at:end], " \t\r\n")
				inside = boundary != "" && line[2:] == boundary
			}
		case len(h.fields) == most:
			return h, true
		default:
			h.fields = append(h.fields, Field{Name: name, Raw: raw[at:end:end], text: text[at:end]})
			// A URL at the beginning of a line of text looks like a field.
			if !inside && !(h.tail < len(raw) && strings.HasPrefix(text[at+len(name):end], "://")) {
				h.tail = len(raw)
			}
			known = known && !equalFold(name, "Content-Type")
		}
		at = next
	}
	return h, false
}

// boundary returns the boundary that a multipart with this header has.
func (h Header) boundary() string {
	const parameters = 20
	f, _ := h.First("Content-Type")
	return strings.TrimRight(parseStructured(f.Value(), parameters).params["boundary"], " \t")
}

// fieldEnd returns where the field beginning at at ends, without and with its last line end.
func fieldEnd(s string, at int) (end, next int) {
	for next = at; ; {
		i := strings.IndexByte(s[next:], '\n')
		if i < 0 {
			return len(s), len(s)
		}
		end, next = next+i, next+i+1
		if next == len(s) || s[next] != ' ' && s[next] != '\t' {
			break
		}
	}
	if end > at && s[end-1] == '\r' {
		end--
	}
	return end, next
}

// fieldName returns the name of a field. RFC 5322, 2.2: printable ASCII without the colon; 4.5 allows space after it.
func fieldName(s string) (name string, ok bool) {
	name, _, ok = strings.Cut(s, ":")
	if name = strings.TrimRight(name, " \t"); !ok || name == "" {
		return "", false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return "", false
		}
	}
	return name, true
}

// readHeader reads the header section at the beginning of r, without the empty line, and returns where the body begins.
func readHeader(r io.ReaderAt, size int64, limit int) (raw []byte, body int64, err error) {
	const emptyLine = 4
	buf := make([]byte, 0, min(size, 8<<10, int64(limit)+emptyLine))
	for seen := 0; ; {
		room := buf[len(buf):cap(buf)]
		n, err := r.ReadAt(room, int64(len(buf)))
		buf = buf[:len(buf)+n]
		if n < len(room) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, 0, fmt.Errorf("read the header section: %w", err)
		}
		if end, next, ok := headerEnd(buf, seen); ok {
			if end > limit {
				break
			}
			return buf[:end:end], int64(next), nil
		}
		if int64(len(buf)) == size {
			if len(buf) > limit {
				break
			}
			return buf, size, nil
		}
		if len(buf) >= limit+emptyLine {
			break
		}
		seen = max(len(buf)-emptyLine, 0)
		grown := make([]byte, len(buf), min(size, 4*int64(len(buf)), int64(limit)+emptyLine))
		copy(grown, buf)
		buf = grown
	}
	return nil, 0, &LimitError{What: "header section", Limit: limit}
}

// headerEnd looks from from on for the first empty line and returns where it begins and ends.
func headerEnd(b []byte, from int) (end, next int, ok bool) {
	switch { // an empty line right at the beginning
	case len(b) > 0 && b[0] == '\n':
		return 0, 1, true
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		return 0, 2, true
	}
	for at := from; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, 0, false
		}
		at += i + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at, at + 1, true
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at, at + 2, true
		}
	}
}
