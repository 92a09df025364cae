package sieve

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// bodyExtension: RFC 5173.
func bodyExtension() []extension {
	return []extension{{
		name: "body",
		tests: []form{{
			name: "body", matches: true, silent: true, holds: bodyTest,
			tags: append(matchTags(), tag{name: "raw", group: "body"}, tag{name: "text", group: "body"},
				tag{name: "content", takes: texts, group: "body"}),
			args: []positional{{name: "keys", shape: texts}},
		}},
	}}
}

func bodyTest(r *run, n *call) bool {
	x := r.matcher(n)
	x.where = "body"
	switch content := n.tag("content"); {
	case n.has("raw"):
		x.each(r.bodies(n, "raw", r.rawBody))
	case content != nil:
		types := r.texts(content)
		for i, t := range types {
			types[i] = lowerASCII(t)
		}
		x.each(r.bodies(n, "content\x00"+strings.Join(types, "\x00"), func(y *bodyReader) []subject { return r.contents(y, types) }))
	default:
		x.each(r.bodies(n, "text", r.readable))
	}
	return x.held()
}

// each compares values until the test is decided.
func (x *matcher) each(values []subject) {
	for i := range values {
		if x.subject(&values[i]) {
			return
		}
	}
}

// bodies returns what was made of the body before, or makes it.
func (r *run) bodies(n *call, what string, read func(*bodyReader) []subject) []subject {
	if all, ok := r.mail.bodies[what]; ok {
		return all
	}
	if !r.spend(n, 1+int(r.mail.size())/octetsPerInstruction) {
		return nil
	}
	x := &bodyReader{left: r.limits.Body}
	all := read(x)
	if x.cut {
		r.note(n, "body: only the first %d octets were looked at", r.limits.Body)
	}
	const most = 16 // different questions that are kept
	if r.mail.bodies == nil || len(r.mail.bodies) == most {
		r.mail.bodies = map[string][]subject{}
	}
	r.mail.bodies[what] = all
	return all
}

// A bodyReader collects what is looked at of a body, up to a limit.
type bodyReader struct {
	left int
	cut  bool // there was more
	all  []subject
}

// want is how much is to be read so that it can be seen whether there is more.
func (x *bodyReader) want() int { return x.left + 1 }

// add adds what was read.
func (x *bodyReader) add(s string) {
	if len(s) > x.left {
		s, x.cut = clipOctets(s, x.left), true
	}
	x.left -= len(s)
	x.all = append(x.all, subject{text: s})
}

// read adds what is in r.
func (x *bodyReader) read(r io.Reader) {
	b, _ := io.ReadAll(io.LimitReader(r, int64(x.want())))
	x.add(string(b))
}

func (r *run) rawBody(x *bodyReader) []subject {
	x.read(r.mail.src.RawBody())
	return x.all
}

// readable is the text of all text parts, as a reader sees it.
func (r *run) readable(x *bodyReader) []subject {
	r.mail.src.Root().All(func(p *mime.Part) {
		if len(p.Parts) == 0 && ofType("text", declared(p)) && !x.cut {
			// What a reader sees of HTML is less than was read for it.
			cut := p.Raw().Size() > int64(x.left) && len(p.Text(x.want())) > x.left
			x.add(p.ReadableText(x.want()))
			x.cut = x.cut || cut
		}
	})
	return x.all
}

// contents are the decoded contents of the parts of some types (RFC 5173, 5.2): of a multipart what is around its parts,
// of a message its header.
func (r *run) contents(x *bodyReader, types []string) []subject {
	r.mail.src.Root().All(func(p *mime.Part) {
		wanted := false
		for _, t := range types {
			wanted = wanted || ofType(t, declared(p))
		}
		if !wanted || x.cut {
			return
		}
		switch {
		case strings.HasPrefix(p.Type, "multipart/"):
			before, after := around(p, x.want())
			x.add(before)
			x.add(after)
		case p.Type == "message/rfc822" && len(p.Parts) == 1:
			var b strings.Builder
			for _, f := range p.Parts[0].Header.Fields() {
				b.Write(f.Raw)
				b.WriteString("\r\n")
			}
			x.add(b.String())
		case strings.HasPrefix(p.Type, "text/"):
			x.add(p.Text(x.want()))
		default:
			x.read(p.Open())
		}
	})
	return x.all
}

// declared is the type of a part as it says itself where nobody can make sense of that: "text/plain/odd" is no text.
func declared(p *mime.Part) string {
	if f, ok := p.Header.First("Content-Type"); ok {
		if word, _ := mime.ParseValue(f.Value()); strings.Count(word, "/") > 1 {
			return word
		}
	}
	return p.Type
}

// ofType reports whether a part is of a type as RFC 5173, 5.2 means it: "" is all, "text" and "text/plain".
func ofType(want, is string) bool {
	if want == "" {
		return true
	}
	main, sub, ok := strings.Cut(is, "/")
	if !ok || sub == "" || strings.Contains(sub, "/") {
		return false
	}
	return want == is || want == main
}

// around is what a multipart has before its first part and behind its last.
func around(p *mime.Part, most int) (before, after string) {
	raw, _ := io.ReadAll(io.LimitReader(p.Raw(), int64(most)))
	boundary := []byte("--" + p.Params["boundary"])
	at := delimiter(raw, boundary, 0)
	if at < 0 {
		return string(raw), ""
	}
	end := append(slices.Clip(boundary), "--"...)
	if last := delimiter(raw, end, at); last >= 0 {
		after = string(raw[last+len(end):])
	}
	return string(raw[:at]), after
}

// delimiter returns where a line begins with a boundary, -1 if none does.
func delimiter(raw, boundary []byte, from int) int {
	for at := from; ; {
		i := bytes.Index(raw[at:], boundary)
		if i < 0 {
			return -1
		}
		if at += i; at == 0 || raw[at-1] == '\n' {
			return at
		}
		at++
	}
}
