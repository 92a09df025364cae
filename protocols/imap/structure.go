package imap

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	goimap "github.com/emersion/go-imap/v2"
)

// maxHeader bounds what is kept of the header of a part, in octets. Longer ones are read over.
const maxHeader = 256 << 10

// A part is a message, or a part of one: where its header and its body are, and what is in them.
type part struct {
	header   span
	body     span
	lines    int64   // line ends in the body
	raw      []byte  // its header section, or the beginning of it
	typ      string  // "text", in lower case
	sub      string  // "plain"
	params   []param // of Content-Type
	parts    []*part // of a multipart
	message  *part   // of a message/rfc822
	boundary string  // "" if it is no multipart that could have parts
	digest   bool    // it stands in a multipart/digest
}

type span struct{ from, to int64 }

func (s span) len() int64 { return s.to - s.from }

type param struct{ name, value string }

// field returns the value of the first field of a name, unfolded; "" if there is none.
func (p *part) field(name string) string {
	for raw := range fields(p.raw) {
		if n, v, ok := splitField(raw); ok && isNamed(n, name) {
			return unfold(v)
		}
	}
	return ""
}

// fields yields the fields of a header section as they are, with their line ends.
func fields(raw []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(raw) > 0 {
			n := 0
			for {
				i := bytes.IndexByte(raw[n:], '\n')
				if i < 0 {
					n = len(raw)
					break
				}
				if n += i + 1; n == len(raw) || raw[n] != ' ' && raw[n] != '\t' {
					break
				}
			}
			if (raw[0] == '\r' || raw[0] == '\n') && len(bytes.TrimRight(raw[:n], "\r\n")) == 0 || !yield(raw[:n]) {
				return
			}
			raw = raw[n:]
		}
	}
}

// splitField returns the name of a field and its value, still folded. What has no colon is no field.
func splitField(raw []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(raw, []byte(":"))
	return bytes.TrimRight(name, " \t"), value, ok
}

// isNamed reports whether a field's name is name, in any case.
func isNamed(field []byte, name string) bool {
	return len(field) == len(name) && strings.EqualFold(string(field), name)
}

// unfold returns a value without line ends, NULs and the space around it.
func unfold(value []byte) string {
	value = bytes.TrimSpace(value)
	if !bytes.ContainsAny(value, "\r\n\x00") {
		return string(value)
	}
	out := make([]byte, 0, len(value))
	for _, c := range value {
		if c != '\r' && c != '\n' && c != 0 {
			out = append(out, c)
		}
	}
	return string(bytes.TrimSpace(out))
}

// parseStructure reads a message once, from its beginning to its end, and tells its parts. It fails only if r does:
// whatever is wrong with the message has some structure. Work is bounded by size, depth and count.
func parseStructure(r io.ReaderAt, size int64, lim Limits) (*part, error) {
	w := walker{br: reader(r, size, 32<<10), left: lim.Parts, depth: lim.Depth, room: 4 * maxHeader}
	root := &part{}
	w.begin(root)
	for {
		line, err := w.br.ReadSlice('\n')
		if len(line) > 0 {
			w.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
	w.closeTo(0, w.at, w.newlines)
	return root, nil
}

// reader returns a reader of a message whose buffer is no larger than the message: most are small, and in a large
// mailbox there are many.
func reader(r io.ReaderAt, size, most int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(r, 0, size), int(min(size+1, most)))
}

// parseHeader reads the header of a message alone.
func parseHeader(r io.ReaderAt, size int64) (*part, error) {
	p := &part{body: span{size, size}}
	br := reader(r, size, 4<<10)
	fresh := true
	for at := int64(0); ; {
		line, err := br.ReadSlice('\n')
		at += int64(len(line))
		if room := maxHeader - len(p.raw); room > 0 {
			p.raw = append(p.raw, line[:min(room, len(line))]...)
		}
		p.header.to = at
		if fresh && len(bytes.TrimRight(line, "\r\n")) == 0 && len(line) > 0 {
			p.body.from = at
			return p, nil
		}
		fresh = bytes.HasSuffix(line, []byte("\n"))
		if err == io.EOF {
			return p, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// A walker reads a message line by line, and keeps the parts that are open: each lies within the one before.
type walker struct {
	br       *bufio.Reader
	open     []*part
	header   bool  // in the header of the innermost part
	at       int64 // octets read
	newlines int64 // line ends read
	ending   int64 // length of the last line end
	partial  bool  // the last chunk did not end its line
	left     int   // parts there may still be
	room     int   // octets of header that may still be kept
	depth    int
	starts   []int64 // newlines when the body of the open part began
}

// begin opens a part, whose header begins here.
func (w *walker) begin(p *part) {
	p.header = span{w.at, w.at}
	p.body = span{w.at, w.at}
	w.open = append(w.open, p)
	w.starts = append(w.starts, w.newlines)
	w.header = true
	w.left--
}

// line takes in a line, or a chunk of a very long one.
func (w *walker) line(line []byte) {
	fresh := !w.partial
	w.partial = line[len(line)-1] != '\n'
	if fresh && len(line) > 2 && line[0] == '-' && line[1] == '-' && w.delimiter(line) {
		return
	}
	if w.header {
		w.headerLine(line, fresh)
	} else {
		w.advance(line)
	}
}

func (w *walker) advance(line []byte) {
	w.at += int64(len(line))
	if w.partial {
		return
	}
	w.newlines++
	w.ending = 1
	if len(line) > 1 && line[len(line)-2] == '\r' {
		w.ending = 2
	}
}

func (w *walker) headerLine(line []byte, fresh bool) {
	p := w.open[len(w.open)-1]
	if room := min(maxHeader-len(p.raw), w.room); room > 0 {
		kept := line[:min(room, len(line))]
		p.raw = append(p.raw, kept...)
		w.room -= len(kept)
	}
	w.advance(line)
	p.header.to = w.at
	p.body = span{w.at, w.at}
	w.starts[len(w.starts)-1] = w.newlines
	if fresh && len(bytes.TrimRight(line, "\r\n")) == 0 {
		w.header = false
		w.body(p)
	}
}

// body decides what is in a part whose header has ended.
func (w *walker) body(p *part) {
	p.classify()
	deeper := len(w.open) < w.depth && w.left > 0
	switch {
	case p.typ == "multipart" && deeper:
		p.boundary = lookup(p.params, "boundary")
	case p.isMessage() && deeper:
		p.message = &part{}
		w.begin(p.message)
	case p.typ == "multipart" || p.isMessage():
		p.typ, p.sub, p.params = "application", "octet-stream", nil // not taken apart
	}
}

// delimiter takes in a line that may be the boundary of an open multipart, and reports whether it was.
func (w *walker) delimiter(line []byte) bool {
	text := bytes.TrimRight(line, " \t\r\n")[2:]
	for k, p := range slices.Backward(w.open) {
		if p.boundary == "" {
			continue
		}
		rest, ok := bytes.CutPrefix(text, []byte(p.boundary))
		if !ok || len(rest) > 0 && string(rest) != "--" {
			continue
		}
		// The line end before a delimiter belongs to it (RFC 2046, 5.1.1).
		w.closeTo(k+1, w.at-w.ending, w.newlines-1)
		w.header = false
		w.advance(line)
		switch {
		case len(rest) > 0:
			p.boundary = "" // what follows is the epilogue
		case w.left > 0:
			child := &part{digest: p.sub == "digest"}
			p.parts = append(p.parts, child)
			w.begin(child)
		}
		return true
	}
	return false
}

// closeTo ends the open parts from index k on, at an offset. The line end before it may be that of a header, which
// keeps it.
func (w *walker) closeTo(k int, at, newlines int64) {
	if k < len(w.open) {
		at = max(at, w.open[k].body.from)
	}
	for i := len(w.open) - 1; i >= k; i-- {
		p := w.open[i]
		if p.typ == "" {
			p.classify() // its header did not end
		}
		p.header = span{min(p.header.from, at), min(p.header.to, at)}
		p.body = span{min(p.body.from, at), at}
		p.lines = max(0, newlines-w.starts[i])
		p.settle()
	}
	w.open, w.starts = w.open[:k], w.starts[:k]
}

// settle makes one of a multipart without parts what can be shown: with one part, which is all of its body.
func (p *part) settle() {
	if p.typ == "multipart" && len(p.parts) == 0 {
		p.parts = []*part{{header: span{p.body.from, p.body.from}, body: p.body, lines: p.lines, typ: "text", sub: "plain"}}
	}
}

// classify reads Content-Type.
func (p *part) classify() {
	value := p.field("Content-Type")
	typ, params := parseParams(value)
	main, sub, ok := strings.Cut(strings.ToLower(typ), "/")
	main, sub = strings.TrimSpace(main), strings.TrimSpace(sub)
	switch {
	case ok && isToken(main) && isToken(sub):
		p.typ, p.sub, p.params = main, sub, params
	case value == "" && p.digest:
		p.typ, p.sub = "message", "rfc822"
	default: // RFC 2045, 5.2
		p.typ, p.sub, p.params = "text", "plain", []param{{"charset", "us-ascii"}}
	}
}

func (p *part) isMessage() bool {
	return p.typ == "message" && (p.sub == "rfc822" || p.sub == "global")
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`()<>@,;:\"/[]?=`, c)
	})
}

const maxParams = 100

// parseParams reads a value with parameters (RFC 2045, 5.1), and makes of broken ones what it can.
func parseParams(s string) (value string, params []param) {
	value, rest, more := cutUnquoted(s, ';')
	value = strings.TrimSpace(stripComments(value))
	for more && len(params) < maxParams {
		var one string
		one, rest, more = cutUnquoted(rest, ';')
		name, v, ok := strings.Cut(one, "=")
		name = strings.ToLower(strings.TrimSpace(stripComments(name)))
		if !ok || name == "" || lookup(params, name) != "" {
			continue
		}
		params = append(params, param{name, unquote(strings.TrimSpace(v))})
	}
	return value, params
}

func lookup(params []param, name string) string {
	for _, p := range params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// cutUnquoted cuts s around the first sep outside quoted strings.
func cutUnquoted(s string, sep byte) (before, after string, found bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// unquote returns what a quoted string stands for; a token without a comment behind it as it is.
func unquote(s string) string {
	if !strings.HasPrefix(s, `"`) {
		return strings.TrimSpace(stripComments(s))
	}
	var b strings.Builder
	for i := 1; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// stripComments takes out (comments), which may nest.
func stripComments(s string) string {
	if !strings.Contains(s, "(") {
		return s
	}
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && (quoted || depth > 0) && i+1 < len(s) {
			if depth == 0 {
				b.WriteString(s[i : i+2])
			}
			i++
			continue
		}
		switch {
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
			continue
		case c == ')' && !quoted && depth > 0:
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// bodyStructure returns p as FETCH BODYSTRUCTURE shows it. Every part of it has what the library needs.
func (p *part) bodyStructure() goimap.BodyStructure {
	disposition := p.disposition()
	language := languages(p.field("Content-Language"))
	location := p.field("Content-Location")
	if len(p.parts) > 0 {
		bs := &goimap.BodyStructureMultiPart{Subtype: p.sub, Extended: &goimap.BodyStructureMultiPartExt{
			Params: paramMap(p.params), Disposition: disposition, Language: language, Location: location,
		}}
		for _, child := range p.parts {
			bs.Children = append(bs.Children, child.bodyStructure())
		}
		return bs
	}
	bs := &goimap.BodyStructureSinglePart{
		Type: p.typ, Subtype: p.sub, Params: paramMap(p.params),
		ID: p.field("Content-Id"), Description: p.field("Content-Description"),
		Encoding: strings.TrimSpace(stripComments(p.field("Content-Transfer-Encoding"))),
		Size:     uint32(min(p.body.len(), 1<<32-1)),
		Extended: &goimap.BodyStructureSinglePartExt{Disposition: disposition, Language: language, Location: location},
	}
	switch {
	case p.message != nil:
		bs.MessageRFC822 = &goimap.BodyStructureMessageRFC822{
			Envelope: p.message.envelope(), BodyStructure: p.message.bodyStructure(), NumLines: p.lines,
		}
	case p.typ == "multipart" || p.isMessage(): // its header did not end: it has no body
		bs.Type, bs.Subtype, bs.Params = "application", "octet-stream", nil
	case p.typ == "text":
		bs.Text = &goimap.BodyStructureText{NumLines: p.lines}
	}
	return bs
}

func (p *part) disposition() *goimap.BodyStructureDisposition {
	value, params := parseParams(p.field("Content-Disposition"))
	if value == "" {
		return nil
	}
	return &goimap.BodyStructureDisposition{Value: value, Params: paramMap(params)}
}

func paramMap(params []param) map[string]string {
	m := map[string]string{}
	for _, p := range params {
		m[p.name] = p.value
	}
	return m
}

func languages(s string) []string {
	var out []string
	for l := range strings.SplitSeq(stripComments(s), ",") {
		if l = strings.TrimSpace(l); l != "" && len(out) < maxParams {
			out = append(out, l)
		}
	}
	return out
}

// find returns the part that a section names (RFC 9051, 6.4.5.1); nil if there is none. p is a message.
func (p *part) find(path []int) *part {
	message := true // p is a message whose body has not been entered
	for _, n := range path {
		if !message && p.message != nil {
			p, message = p.message, true
		}
		switch {
		case n >= 1 && n <= len(p.parts):
			p, message = p.parts[n-1], false
		case len(p.parts) == 0 && message && n == 1: // the body of a message that is no multipart
			message = false
		default:
			return nil
		}
	}
	return p
}
