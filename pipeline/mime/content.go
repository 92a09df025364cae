package mime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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
			r.odd.add("text-cut", "", fmt.Sprintf("more than %d octets", m.limits.Text))
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
		r.odd.add("text-cut", p.Path, fmt.Sprintf("more than %d octets", r.limits.Text))
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
	if len(raw) > most {
		raw = raw[:most]
		r.odd.add("text-cut", p.Path, fmt.Sprintf("more than %d octets", r.limits.Text))
	}
	label := p.Params["charset"]
	if html && label == "" {
		// Where nothing is said the name is a guess, one of these two; ours is better, as it sees the whole text.
		_, name, _ := htmlcharset.DetermineEncoding(raw[:min(len(raw), 1024)], "text/html")
		if name != "utf-8" && name != "windows-1252" {
			label = name
		}
	}
	text, known := toUTF8(label, raw)
	if !known {
		r.odd.add("unknown-charset", p.Path, clip(label))
	}
	return cut(strings.TrimPrefix(text, "\ufeff"), most)
}

// files is what Attachments returns.
type files struct {
	list []Attachment
	odd  anomalies
}

func (m *Message) readFiles() (f files) {
	// Files in messages inside messages are hashed with each message around them. Depth alone does not bound that well.
	left := 4 * m.size
	m.tree().root.All(func(p *Part) {
		if !p.isFile() {
			return
		}
		a := Attachment{Name: p.Name, Type: p.Type}
		if left -= p.Size; left < 0 {
			f.odd.add("too-much-content", p.Path, "")
			f.list = append(f.list, a)
			return
		}
		src, wrong := p.decode()
		h := sha256.New()
		n, err := io.Copy(h, src)
		f.odd.unreadable(p.Path, err)
		if kind := wrong(); kind != "" {
			f.odd.add(kind, p.Path, p.Encoding)
		}
		a.Size, a.SHA256 = n, hex.EncodeToString(h.Sum(nil))
		f.list = append(f.list, a)
	})
	return f
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
