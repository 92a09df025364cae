package mime

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	htmlcharset "golang.org/x/net/html/charset"
)

// texts is what there is to read in a message.
type texts struct {
	text   string
	html   string
	pieces []textPiece // all of it, in order, also what Text leaves out because another form says the same
	odd    anomalies
}

// A textPiece is the text of one part.
type textPiece struct {
	text string
	html bool
}

// A reading collects the text of a message within its limits.
type reading struct {
	texts
	left     int // octets of plain text that may still be kept
	leftHTML int
	limits   Limits
}

func (m *Message) readTexts() texts {
	r := &reading{left: m.limits.Text, leftHTML: m.limits.Text, limits: m.limits}
	var text, html []string
	left := m.limits.Text
	for _, p := range r.read(m.tree().root) {
		t := p.text
		if p.html {
			t = htmlText(t)
		}
		if len(t) > left {
			t = cut(t, left)
			r.odd.add(KindTextCut, "", fmt.Sprintf("more than %d octets", m.limits.Text))
		}
		if left -= len(t); t != "" {
			text = append(text, t)
		}
	}
	for _, p := range r.pieces {
		if p.html {
			html = append(html, p.text)
		}
	}
	r.text, r.html = cut(strings.Join(text, "\n"), m.limits.Text), cut(strings.Join(html, "\n"), m.limits.Text)
	return r.texts
}

// read returns the pieces that belong to the text of p.
func (r *reading) read(p *Part) (pieces []textPiece) {
	if p.Disposition == "attachment" && strings.HasPrefix(p.Type, "message/") {
		return nil
	}
	for _, c := range p.Parts {
		pieces = append(pieces, r.read(c)...)
	}
	if len(p.Parts) > 0 {
		if p.Type == "multipart/alternative" {
			return alternative(pieces)
		}
		return pieces
	}
	if !p.isText() {
		return nil
	}
	html := p.Type == "text/html" && !p.plain
	left := &r.left
	if html {
		left = &r.leftHTML
	}
	if *left == 0 {
		r.odd.add(KindTextCut, p.Path, fmt.Sprintf("more than %d octets", r.limits.Text))
		return nil
	}
	t := r.content(p, *left, html)
	*left -= min(len(t), *left)
	r.pieces = append(r.pieces, textPiece{t, html})
	return []textPiece{{t, html}}
}

// alternative returns the plain forms, if they say anything, else what there is.
func alternative(pieces []textPiece) []textPiece {
	var plain []textPiece
	blank := true
	for _, p := range pieces {
		if !p.html {
			plain = append(plain, p)
			blank = blank && strings.TrimSpace(p.text) == ""
		}
	}
	if blank {
		return pieces
	}
	return plain
}

// isText reports whether p is text that a mail client shows.
func (p *Part) isText() bool {
	return p.plain || p.Disposition != "attachment" && (p.Type == "text/plain" || p.Type == "text/html")
}

// content decodes a text part, at most so many octets of it.
func (r *reading) content(p *Part, most int, html bool) string {
	src, wrong := p.decode()
	raw, err := io.ReadAll(io.LimitReader(src, int64(most)+1))
	r.odd.unreadable(p.Path, err)
	if kind := wrong(); kind != "" {
		r.odd.add(kind, p.Path, p.Encoding)
	}
	whole := len(raw) <= most
	if !whole {
		raw = raw[:most]
		r.odd.add(KindTextCut, p.Path, fmt.Sprintf("more than %d octets", r.limits.Text))
	}
	if (p.Encoding == "" || p.Encoding == "7bit") && !isASCII(raw) {
		r.odd.add(KindEightBit, p.Path, p.Encoding)
	}
	label := p.Params["charset"]
	if html && label == "" {
		// Where nothing is said the name is a guess, one of these two; ours is better, as it sees the whole text.
		_, name, _ := htmlcharset.DetermineEncoding(raw[:min(len(raw), 1024)], "text/html")
		if name != "utf-8" && name != "windows-1252" {
			label = name
		}
	}
	c := toUTF8(label, raw)
	switch {
	case !c.known:
		r.odd.add(KindUnknownCharset, p.Path, clip(label))
	case c.wrong && whole: // what was cut may be cut in the midst of a character
		r.odd.add(KindWrongCharset, p.Path, clip(label))
	}
	if c.utf7 {
		r.odd.add(KindUTF7, p.Path, clip(label))
	}
	text := strings.TrimPrefix(c.text, "\ufeff")
	if !html {
		text = withoutUU(text)
		if equalFold(strings.TrimSpace(p.Params["format"]), "flowed") {
			text = unflow(text, equalFold(strings.TrimSpace(p.Params["delsp"]), "yes"))
		}
	}
	return cut(text, most)
}

// files is what Attachments returns.
type files struct {
	list []Attachment
	odd  anomalies
	to   func(i int) io.Writer // where the content goes that is not to be hashed; nil: it is
}

// A sink takes the content of one file.
type sink struct {
	hash hash.Hash // nil where the content goes elsewhere
	to   io.Writer
	n    int64
}

// sink returns one for the i-th file.
func newSink(to func(i int) io.Writer, i int) *sink {
	if to == nil {
		h := sha256.New()
		return &sink{hash: h, to: h}
	}
	if w := to(i); w != nil {
		return &sink{to: w}
	}
	return &sink{to: io.Discard}
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.to.Write(p)
	s.n += int64(n)
	return n, err
}

// sum returns the SHA-256 of what was written, in hex.
func (s *sink) sum() string {
	if s.hash == nil {
		return ""
	}
	return hex.EncodeToString(s.hash.Sum(nil))
}

func (m *Message) readFiles() files { return m.walkFiles(nil) }

// walkFiles lists the files, and hashes them; or with to it hands their content to what to returns for each of them.
func (m *Message) walkFiles(to func(i int) io.Writer) (f files) {
	f.to = to
	// Files in messages inside messages are hashed with each message around them. Depth alone does not bound that well.
	left := 4 * m.size
	m.tree().root.All(func(p *Part) {
		switch {
		case len(f.list) >= 2*m.limits.Parts:
			f.odd.add(KindManyFiles, p.Path, fmt.Sprintf("more than %d", 2*m.limits.Parts))
			return
		case !p.isFile():
			if p.isText() && (p.Type != "text/html" || p.plain) {
				f.inText(p, 2*m.limits.Parts)
			}
			return
		}
		a := Attachment{Name: p.Name, Type: p.Type}
		if left -= p.Size; left < 0 {
			f.odd.add(KindTooMuchContent, p.Path, "")
			f.list = append(f.list, a)
			return
		}
		src, wrong := p.decode()
		s := newSink(to, len(f.list))
		_, err := io.Copy(s, src)
		f.odd.unreadable(p.Path, err)
		if kind := wrong(); kind != "" {
			f.odd.add(kind, p.Path, p.Encoding)
		}
		a.Size, a.SHA256 = s.n, s.sum()
		f.list = append(f.list, a)
		if p.isTNEF() {
			f.inTNEF(p, 2*m.limits.Parts)
		}
	})
	return f
}

// inText lists the uuencoded files in a text, and notes those in yEnc.
func (f *files) inText(p *Part, most int) {
	src, _ := p.decode()
	var s *sink // of the file we are in
	var failed error
	begin := func() {
		if s == nil && len(f.list) < most {
			s = newSink(f.to, len(f.list))
		}
	}
	err := uuFiles(src, func(data []byte) {
		if begin(); s != nil && failed == nil {
			_, failed = s.Write(data)
		}
	}, func(u uuFile) {
		name := validUTF8(u.name)
		switch {
		case u.yEnc:
			f.odd.add(KindYEnc, p.Path, clip(name))
			return
		case !u.whole:
			f.odd.add(KindBadUU, p.Path, clip(name))
		}
		f.odd.add(KindUUEncode, p.Path, clip(name))
		if what := oddName(name); what != "" {
			f.odd.add(KindBadName, p.Path, what)
		}
		if begin(); s != nil {
			f.list = append(f.list, Attachment{Name: name, Type: "application/octet-stream", Size: s.n, SHA256: s.sum()})
		} else {
			f.odd.add(KindManyFiles, p.Path, fmt.Sprintf("more than %d", most))
		}
		s = nil
	})
	f.odd.unreadable(p.Path, cmp.Or(err, failed))
}

// inTNEF lists the files in Outlook's envelope.
func (f *files) inTNEF(p *Part, most int) {
	src, _ := p.decode()
	t := &tnefReader{in: bufio.NewReader(src), most: max(most-len(f.list), 0), to: f.to, before: len(f.list)}
	f.odd.add(KindTNEF, p.Path, "")
	if err := t.read(); err != nil {
		f.odd.add(KindBadTNEF, p.Path, err.Error())
	}
	for _, a := range t.files {
		if what := oddName(a.Name); what != "" {
			f.odd.add(KindBadName, p.Path, what)
		}
		f.list = append(f.list, a)
	}
}

// isTNEF reports whether p says that it is Outlook's envelope.
func (p *Part) isTNEF() bool {
	return p.Type == "application/ms-tnef" || p.Type == "application/vnd.ms-tnef" || equalFold(p.Name, "winmail.dat")
}

// isFile reports whether p is a file rather than something to read.
func (p *Part) isFile() bool {
	switch {
	case strings.HasPrefix(p.Type, "multipart/"):
		return p.Disposition == "attachment" && len(p.Parts) == 0
	case p.Disposition == "attachment" || p.Name != "":
		return true
	}
	return p.Type != "text/plain" && p.Type != "text/html" && !p.plain
}
