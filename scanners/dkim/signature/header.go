package signature

import (
	"bytes"
	"io"
	"strings"

	"sluice/pipeline/mime"
)

// A Form is a canonical form: what is hashed of a header field, or of a body (RFC 6376, 3.4).
type Form string

// The forms there are.
const (
	Simple  Form = "simple"
	Relaxed Form = "relaxed"
)

// AppendField appends the form of a header field, which is given without its last line end, and a CRLF.
func (f Form) AppendField(dst, raw []byte) []byte {
	if f == Relaxed {
		return appendRelaxed(dst, raw)
	}
	for { // RFC 6376, 3.4.1: as it is; 5.3: with CRLF
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			break
		}
		dst = append(append(dst, bytes.TrimSuffix(raw[:i], []byte("\r"))...), "\r\n"...)
		raw = raw[i+1:]
	}
	return append(append(dst, raw...), "\r\n"...)
}

// appendRelaxed: RFC 6376, 3.4.2: the name in lower case, unfolded, white space reduced to one space inside and to
// nothing around the colon and at the end.
func appendRelaxed(dst, raw []byte) []byte {
	colon := bytes.IndexByte(raw, ':')
	name := bytes.TrimRight(raw[:max(colon, 0)], " \t")
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	space, begun := false, false
	value := raw[colon+1:]
	for i, c := range value {
		switch {
		case c == '\n', c == '\r' && i+1 < len(value) && value[i+1] == '\n':
		case c == ' ' || c == '\t':
			space = begun
		default:
			if space {
				dst = append(dst, ' ')
			}
			dst, space, begun = append(dst, c), false, true
		}
	}
	return append(dst, "\r\n"...)
}

// A Header is a header section prepared for the question what h= names.
type Header struct {
	fields []mime.Field
	byName map[string][]int // by name in lower case, from the top
}

// NewHeader prepares the fields of a message, which are in their order.
func NewHeader(fields []mime.Field) *Header {
	h := &Header{fields: fields, byName: make(map[string][]int, len(fields))}
	for i, f := range fields {
		name := strings.ToLower(f.Name)
		h.byName[name] = append(h.byName[name], i)
	}
	return h
}

// Count returns how many fields have a name, which is in lower case.
func (h *Header) Count(name string) int { return len(h.byName[name]) }

// Write writes the form of the fields that names, in lower case, choose: the lowest of a name first, then the next above
// it; one that is not there is nothing (RFC 6376, 5.4.2). The field at own is the signature itself, which is never chosen
// (3.5, h=); -1 is none.
func (h *Header) Write(w io.Writer, names []string, form Form, own int) {
	taken := make(map[string]int, len(names))
	var buf []byte
	for _, name := range names {
		all := h.byName[name]
		n := taken[name]
		if n < len(all) && all[len(all)-1-n] == own {
			n++
		}
		taken[name] = n + 1
		if n < len(all) {
			buf = form.AppendField(buf[:0], h.fields[all[len(all)-1-n]].Raw)
			_, _ = w.Write(buf) // a hash takes everything
		}
	}
}

// AppendUnsigned appends the form of a signature's own field: with an empty b= and without the last line end
// (RFC 6376, 3.7).
func (f Form) AppendUnsigned(dst, raw []byte, tags Tags) []byte {
	if b, ok := tags.tag("b"); ok {
		value := bytes.IndexByte(raw, ':') + 1
		raw = append(append(make([]byte, 0, len(raw)), raw[:value+b.from]...), raw[value+b.to:]...)
	}
	dst = f.AppendField(dst, raw)
	return dst[:len(dst)-2]
}
