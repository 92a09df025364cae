package mime

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/transform"
)

// A Part is one part of the message. It must not be changed.
type Part struct {
	// Path is the number that IMAP gives it (RFC 9051, 6.4.5): "1.2". It is "" for a message that is a multipart; a
	// multipart that is the body of a message inside the message has the path of the part that holds that message.
	Path        string
	Header      Header
	Type        string            // "text/plain", in lower case; the default where there is none (RFC 2045, 5.2)
	Params      map[string]string // of Content-Type, decoded, names in lower case
	Disposition string            // "attachment", "inline", in lower case; "" where it says nothing
	Name        string            // its file name, decoded
	Encoding    string            // Content-Transfer-Encoding in lower case; "" is none; "x-uuencode" is "uuencode"
	Parts       []*Part           // of a multipart; the one message of a message/rfc822, also of an encoded one
	Size        int64             // octets of the content as it stands in the message

	r     io.ReaderAt
	start int64
	// plain marks what could not be split or goes over a limit: it is text as it stands.
	plain bool
}

// Raw returns the content as it stands in the message, not decoded.
func (p *Part) Raw() *io.SectionReader { return io.NewSectionReader(p.r, p.start, p.Size) }

// Open returns a reader of the content with its transfer encoding decoded, tolerantly; characters are not converted.
func (p *Part) Open() io.Reader {
	r, _ := p.decode()
	return r
}

// decode returns a reader of the decoded content and a function that says, at its end, what was wrong with it.
func (p *Part) decode() (io.Reader, func() string) {
	raw := p.Raw()
	if p.plain || strings.HasPrefix(p.Type, "multipart/") {
		return raw, func() string { return "" }
	}
	switch p.Encoding {
	case "uuencode":
		r, whole := uuReader(func() io.Reader { return p.Raw() })
		return r, func() string {
			if !whole() {
				return KindBadUU
			}
			return ""
		}
	case "base64":
		d := &base64Decoder{}
		return transform.NewReader(raw, d), func() string {
			if d.bad > 0 {
				return KindBadBase64
			}
			return ""
		}
	case "quoted-printable":
		d := &quotedDecoder{}
		return transform.NewReader(raw, d), func() string {
			if d.bad > 0 {
				return KindBadQuoted
			}
			return ""
		}
	}
	return raw, func() string { return "" }
}

// All calls visit for p and all parts below it, in the order of the message.
func (p *Part) All(visit func(*Part)) {
	visit(p)
	for _, c := range p.Parts {
		c.All(visit)
	}
}

type tree struct {
	root *Part
	odd  anomalies
}

// An openPart is a part whose end has not been seen.
type openPart struct {
	*Part
	boundary string // of a multipart that has not been closed
	prefix   string // of the paths of its parts
	digest   bool   // its parts are messages where they say nothing (RFC 2046, 5.1.5)
	closed   bool   // its last boundary has been seen
	trailing bool   // something was behind it
	encoded  bool   // it is a message in base64 or the like
	message  bool   // it is a message, not a part of a multipart
	inner    string // path of the part that holds this message
	standard string // type it has where it says nothing
}

// A splitter goes through the body once, line by line, and holds nothing but the stack of open parts.
type splitter struct {
	m      *Message
	tree   tree
	open   []*openPart
	parts  int
	header []byte // of the innermost part, while it is read
	kept   int    // octets of the headers of all parts but the message's own
	depth  int    // of the message that is split, where it was encoded inside another
	left   int64  // octets of encoded messages that may still be decoded
	inside bool   // we are in that header
	large  bool   // that header is over the limit: the rest is skipped
	rest   bool   // the limit on parts is reached: what follows is one piece of text
}

func (m *Message) readTree() tree {
	s := &splitter{m: m, parts: 1, left: int64(m.limits.Text)}
	s.run(&openPart{Part: &Part{r: m.r, Header: m.header}, message: true, standard: "text/plain"})
	return s.tree
}

// run splits the message of s, of which root has the header.
func (s *splitter) run(root *openPart) {
	s.tree.root = root.Part
	s.open = []*openPart{root}
	s.begin(root, s.m.begin, false)
	if len(s.open) > 1 || root.boundary != "" {
		s.split()
	}
	s.close(0, s.m.size)
}

func (s *splitter) odd(kind string, p *openPart, what string) { s.tree.odd.add(kind, p.Path, what) }

// split reads the body up to its end.
func (s *splitter) split() {
	const longest = 32 << 10 // a line that matters is not longer
	r := bufio.NewReaderSize(io.NewSectionReader(s.m.r, s.m.begin, s.m.size-s.m.begin), longest)
	at := s.m.begin
	lineEnd := 0  // octets of the line end before at
	fresh := true // at is the beginning of a line
	for !s.rest {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			s.tree.odd.unreadable("", err)
			return
		}
		if len(line) == 0 {
			return
		}
		whole := err != bufio.ErrBufferFull
		next := at + int64(len(line))
		switch {
		case fresh && whole && len(line) > 2 && line[0] == '-' && line[1] == '-' && s.delimiter(line, at-int64(lineEnd), next):
		case s.inside:
			s.headerLine(line, fresh, at, next)
		default:
			s.epilogue(line)
		}
		lineEnd = 0
		if fresh = line[len(line)-1] == '\n'; fresh {
			lineEnd = 1
			if len(line) > 1 && line[len(line)-2] == '\r' {
				lineEnd = 2
			}
		}
		at = next
	}
}

// delimiter handles a line that begins with two hyphens: before is where the line before it ends, next where the one
// after it begins. It reports whether it is a boundary.
func (s *splitter) delimiter(line []byte, before, next int64) bool {
	line = bytes.TrimRight(line[2:], " \t\r\n")
	for i := len(s.open) - 1; i >= 0; i-- {
		p := s.open[i]
		if p.boundary == "" || !bytes.HasPrefix(line, []byte(p.boundary)) {
			continue
		}
		switch string(line[len(p.boundary):]) {
		case "":
			s.close(i+1, before)
			s.part(p, next)
			return true
		case "--":
			s.close(i+1, before)
			p.boundary, p.closed = "", true
			return true
		}
	}
	return false
}

// epilogue notes the first line with something on it behind the last boundary of a multipart.
func (s *splitter) epilogue(line []byte) {
	p := s.open[len(s.open)-1]
	if p.closed && !p.trailing && len(bytes.TrimSpace(line)) > 0 {
		p.trailing = true
		s.odd(KindEpilogue, p, clip(string(line)))
	}
}

// part begins the next part of a multipart.
func (s *splitter) part(parent *openPart, at int64) {
	child := &openPart{Part: &Part{r: s.m.r, Path: parent.prefix + strconv.Itoa(len(parent.Parts)+1), start: at}, standard: "text/plain"}
	if parent.digest {
		child.standard = "message/rfc822"
	}
	parent.Parts = append(parent.Parts, child.Part)
	s.open = append(s.open, child)
	if s.parts++; s.parts > s.m.limits.Parts {
		s.odd(KindManyParts, child, fmt.Sprintf("more than %d", s.m.limits.Parts))
		child.Type, child.plain, s.rest = "text/plain", true, true
		return
	}
	s.startHeader()
}

func (s *splitter) startHeader() { s.header, s.inside, s.large = nil, true, false }

// headerLine takes a line, or a piece of a long one, of the header of the innermost part.
func (s *splitter) headerLine(line []byte, fresh bool, at, next int64) {
	p := s.open[len(s.open)-1]
	if fresh && len(bytes.Trim(line, "\r\n")) == 0 {
		s.endHeader(p, next, false)
		return
	}
	if fresh && len(s.header) == 0 && !s.large {
		// A part that begins with something else than a field has no header at all for most readers.
		if _, ok := fieldName(string(line)); !ok && !p.message {
			s.odd(KindNoHeader, p, clip(string(line)))
			s.endHeader(p, at, false)
			return
		}
	}
	if s.kept+len(line) > 4*s.m.limits.HeaderSize || len(s.header)+len(line) > s.m.limits.HeaderSize {
		s.large = true
	}
	if !s.large {
		s.header = append(s.header, line...)
		s.kept += len(line)
	}
}

// endHeader takes the collected header of p, whose content begins at body. last says that the part ends here.
func (s *splitter) endHeader(p *openPart, body int64, last bool) {
	s.inside = false
	if s.large {
		s.odd(KindLargeHeader, p, fmt.Sprintf("more than %d octets, or four times that in all parts", s.m.limits.HeaderSize))
	}
	var more bool
	p.Header, more = parseHeader(slices.Clip(s.header), s.m.limits.HeaderFields, func(line string) { s.odd(KindBadHeaderLine, p, clip(line)) })
	if more {
		s.odd(KindLargeHeader, p, fmt.Sprintf("more than %d fields", s.m.limits.HeaderFields))
	}
	s.header = nil
	if p.Header.tail < p.Header.size && !s.large && p.takesTail() {
		if f, _ := p.Header.First("Content-Type"); !strings.Contains(strings.ToLower(f.Value()), "multipart/") {
			body = p.start + int64(p.Header.tail)
		}
	}
	s.begin(p, body, last)
}

// takesTail reports whether lines at the end of the header of p may be content: not before what is encoded.
func (p *Part) takesTail() bool {
	f, _ := p.Header.First("Content-Transfer-Encoding")
	switch strings.ToLower(parseStructured(f.Value(), 1).word) {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}

// begin works out what p is from its header, and opens what is inside it.
func (s *splitter) begin(p *openPart, body int64, last bool) {
	p.start = body
	boundary, odd := s.describe(p)
	multipart := strings.HasPrefix(p.Type, "multipart/")
	nested := p.Type == "message/rfc822" || p.Type == "message/global"
	if p.message {
		p.prefix = p.inner
		if p.inner != "" {
			p.prefix += "."
		}
		p.Path = p.inner
		if !multipart {
			p.Path = p.prefix + "1"
		}
	}
	if !p.message || !multipart {
		p.prefix = p.Path + "."
	}
	for _, a := range odd { // they had to wait for the path, which needs the type
		s.tree.odd.add(a.Kind, p.Path, a.What)
	}
	switch p.Type {
	case "message/partial":
		s.odd(KindPartialMessage, p, clip(p.Params["id"]))
	case "message/external-body":
		s.odd(KindExternalBody, p, clip(p.Params["access-type"]))
	}
	identity := p.Encoding == "" || p.Encoding == "7bit" || p.Encoding == "8bit" || p.Encoding == "binary"
	switch {
	case !multipart && !nested || last:
	case s.depth+len(s.open) > s.m.limits.Depth:
		s.odd(KindTooDeep, p, fmt.Sprintf("more than %d levels", s.m.limits.Depth))
		p.plain = true
	case nested && !identity:
		if p.Type == "message/rfc822" { // RFC 6532, 3.7 allows it for message/global
			s.odd(KindEncodedMessage, p, p.Encoding)
		}
		p.encoded = true // its end must be known first
	case nested && s.parts >= s.m.limits.Parts:
		s.odd(KindManyParts, p, fmt.Sprintf("more than %d", s.m.limits.Parts))
		p.plain = true
	case nested:
		s.parts++
		child := &openPart{Part: &Part{r: s.m.r, start: body, Path: p.Path}, message: true, inner: p.Path, standard: "text/plain"}
		p.Parts = []*Part{child.Part}
		s.open = append(s.open, child)
		s.startHeader()
	case boundary == "":
		s.odd(KindNoBoundary, p, p.Type)
		p.plain = true
	default:
		if !identity {
			s.odd(KindEncodedMultipart, p, p.Encoding) // RFC 2045, 6.4 forbids it, and readers ignore it
		}
		for _, outer := range s.open {
			if outer != p && outer.boundary == boundary {
				s.odd(KindRepeatedBoundary, p, clip(boundary))
			}
		}
		p.boundary = boundary
		p.digest = p.Type == "multipart/digest"
	}
}

// describe reads the fields about the content and returns the boundary of a multipart.
func (s *splitter) describe(p *openPart) (boundary string, odd anomalies) {
	field := func(name string) (value string, ok bool) {
		f, ok := p.Header.First(name)
		n := 0
		for range p.Header.All(name) {
			n++
		}
		if n > 1 {
			odd.add(KindDuplicateField, "", name)
		}
		return f.Value(), ok
	}
	params := func(name, value string) structured {
		v := parseStructured(value, s.m.limits.Parameters)
		if v.more {
			odd.add(KindManyParameters, "", fmt.Sprintf("%s: more than %d", name, s.m.limits.Parameters))
		}
		if v.odd {
			odd.add(KindBadParameters, "", name+": "+clip(value))
		}
		return v
	}
	p.Type = p.standard
	if value, ok := field("Content-Type"); ok {
		v := params("Content-Type", value)
		p.Params = v.params
		major, minor, slash := strings.Cut(v.word, "/")
		switch {
		case slash && major != "" && minor != "" && !strings.ContainsAny(v.word, " \t\"<>@,:\\[]?=") && strings.Count(v.word, "/") == 1:
			p.Type = v.word
		case strings.HasPrefix(v.word, "multipart") && v.params["boundary"] != "":
			p.Type = "multipart/mixed"
			odd.add(KindBadContentType, "", clip(value))
		default:
			odd.add(KindBadContentType, "", clip(value))
		}
	}
	if value, ok := field("Content-Disposition"); ok {
		v := params("Content-Disposition", value)
		p.Disposition, p.Name = v.word, v.params["filename"]
	}
	if name := p.Params["name"]; p.Name == "" {
		p.Name = name
	} else if name != "" && name != p.Name {
		odd.add(KindTwoNames, "", clip(name))
	}
	if what := oddName(p.Name); what != "" {
		odd.add(KindBadName, "", what)
	}
	if value, ok := field("Content-Transfer-Encoding"); ok {
		v := parseStructured(value, 1)
		switch p.Encoding = strings.Trim(v.word, "\"' .,"); p.Encoding {
		case "", "7bit", "8bit", "binary", "base64", "quoted-printable":
		case "7-bit", "8-bit", "7bits", "8bits":
			p.Encoding = p.Encoding[:1] + "bit"
		case "base-64", "x-base64":
			p.Encoding = "base64"
		case "quoted/printable", "quotedprintable", "quoted_printable":
			p.Encoding = "quoted-printable"
		case "uuencode", "x-uuencode", "uue", "x-uue":
			p.Encoding = "uuencode"
		default:
			odd.add(KindUnknownEncoding, "", clip(value))
		}
	}
	boundary = strings.TrimRight(p.Params["boundary"], " \t")
	if len(boundary) > 1000 {
		odd.add(KindBadBoundary, "", fmt.Sprintf("%d octets", len(boundary)))
		return "", odd
	}
	return boundary, odd
}

// close ends all open parts from the i-th on at an offset.
func (s *splitter) close(i int, end int64) {
	for len(s.open) > i {
		p := s.open[len(s.open)-1]
		if s.inside {
			s.endHeader(p, end, true)
		}
		s.open = s.open[:len(s.open)-1]
		p.start = min(p.start, end)
		p.Size = max(end-p.start, 0)
		if p.encoded {
			s.look(p)
		}
		if !strings.HasPrefix(p.Type, "multipart/") || p.plain {
			continue
		}
		switch {
		case len(p.Parts) == 0:
			s.odd(KindNoParts, p, "")
			p.plain = true
		case !p.closed:
			s.odd(KindUnterminated, p, "")
		}
	}
}

// look splits the message inside p, which is encoded, and whose end is known now.
func (s *splitter) look(p *openPart) {
	src, wrong := p.decode()
	raw, err := io.ReadAll(io.LimitReader(src, s.left+1))
	if err != nil {
		s.tree.odd.unreadable(p.Path, err)
		return
	}
	if int64(len(raw)) > s.left {
		s.odd(KindUnreadableMessage, p, fmt.Sprintf("encoded messages of more than %d octets", s.m.limits.Text))
		return
	}
	s.left -= int64(len(raw))
	if kind := wrong(); kind != "" {
		s.odd(kind, p, p.Encoding)
	}
	if s.parts >= s.m.limits.Parts {
		s.odd(KindManyParts, p, fmt.Sprintf("more than %d", s.m.limits.Parts))
		return
	}
	m := &Message{r: &watchedReader{ReaderAt: bytes.NewReader(raw)}, size: int64(len(raw)), limits: s.m.limits}
	header, body, err := readHeader(m.r, m.size, m.limits.HeaderSize)
	if err != nil {
		s.odd(KindUnreadableMessage, p, err.Error())
		return
	}
	m.body = body
	var more bool
	m.header, more = parseHeader(header, m.limits.HeaderFields, func(line string) { s.odd(KindBadHeaderLine, p, clip(line)) })
	if more {
		s.odd(KindLargeHeader, p, fmt.Sprintf("more than %d fields", m.limits.HeaderFields))
	}
	m.begin = m.contentBegin()
	inner := &splitter{m: m, parts: s.parts + 1, left: s.left, kept: s.kept + len(header), depth: s.depth + len(s.open) + 1}
	inner.run(&openPart{Part: &Part{r: m.r, Header: m.header}, message: true, inner: p.Path, standard: "text/plain"})
	s.parts, s.left, s.kept = inner.parts, inner.left, inner.kept
	for _, a := range inner.tree.odd {
		s.tree.odd.add(a.Kind, a.Part, a.What)
	}
	p.Parts = []*Part{inner.tree.root}
}
