package signature

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"slices"
)

// A BodyPart is what a signature is about: the form of the body, and how much of it.
type BodyPart struct {
	Form   Form
	Length int64 // l=: octets of the form; negative is all of it
}

// A BodySum is what came of a BodyPart.
type BodySum struct {
	Hash []byte // SHA-256; nil where the body is shorter than Length
	Size int64  // octets of the whole form
}

// SumBody reads a body once and hashes all that is asked for.
func SumBody(r io.Reader, parts []BodyPart) (map[BodyPart]BodySum, error) {
	return sumBody(r, parts, sha256.New)
}

func sumBody(r io.Reader, parts []BodyPart, newHash func() hash.Hash) (map[BodyPart]BodySum, error) {
	var forms []*bodyForm
	for _, f := range []Form{Simple, Relaxed} {
		b := &bodyForm{form: f, hash: newHash(), sums: map[int64][]byte{}}
		for _, p := range parts {
			if p.Form == f {
				b.stops = append(b.stops, p.Length)
			}
		}
		if len(b.stops) > 0 {
			slices.Sort(b.stops)
			b.stops = slices.DeleteFunc(slices.Compact(b.stops), func(n int64) bool { return n < 0 })
			forms = append(forms, b)
		}
	}
	if len(forms) == 0 {
		return nil, nil
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		for _, f := range forms {
			f.write(buf[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the body: %w", err)
		}
	}
	for _, f := range forms {
		f.end()
	}
	out := make(map[BodyPart]BodySum, len(parts))
	for _, p := range parts {
		for _, f := range forms {
			if f.form == p.Form {
				out[p] = BodySum{Hash: f.sums[max(p.Length, -1)], Size: f.size}
			}
		}
	}
	return out, nil
}

// A bodyForm brings a body into a form and hashes it on the way. It keeps nothing of the body: empty lines, which count
// only if something follows them, are a number.
type bodyForm struct {
	form  Form
	hash  hash.Hash
	stops []int64          // lengths at which the hash is wanted, ascending
	sums  map[int64][]byte // by length; -1 is the whole
	size  int64            // octets hashed
	buf   [8 << 10]byte    // not hashed yet
	n     int              // octets in buf
	ends  int64            // line ends not written yet
	space bool             // white space not written yet (Relaxed)
	cr    bool             // a CR that may be half a line end
}

// write takes the next piece of the body. A bare LF is a line end, a bare CR is not.
func (b *bodyForm) write(p []byte) {
	for len(p) > 0 {
		if b.cr && p[0] != '\n' {
			b.content([]byte("\r"))
		}
		b.cr = false
		n := b.run(p)
		b.content(p[:n])
		if p = p[n:]; len(p) == 0 {
			return
		}
		switch p[0] {
		case '\r':
			b.cr = true
		case '\n':
			b.ends++
			b.space = false // RFC 6376, 3.4.4: white space at the end of a line
		default:
			b.space = true
		}
		p = p[1:]
	}
}

// run returns how many octets at the beginning of p stay as they are.
func (b *bodyForm) run(p []byte) int {
	if b.form == Relaxed {
		for i, c := range p {
			if c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
				return i
			}
		}
		return len(p)
	}
	for i, c := range p {
		if c == '\n' || c == '\r' {
			return i
		}
	}
	return len(p)
}

func (b *bodyForm) content(p []byte) {
	if len(p) == 0 {
		return
	}
	for ; b.ends > 0; b.ends-- {
		b.put('\r')
		b.put('\n')
	}
	if b.space {
		b.put(' ')
		b.space = false
	}
	for len(p) > 0 {
		if b.n == len(b.buf) {
			b.flush()
		}
		n := copy(b.buf[b.n:], p)
		b.n, p = b.n+n, p[n:]
	}
}

func (b *bodyForm) put(c byte) {
	if b.n == len(b.buf) {
		b.flush()
	}
	b.buf[b.n] = c
	b.n++
}

// end writes the one line end that a body ends with. RFC 6376, 3.4.3: an empty one has it too; 3.4.4: it has not.
func (b *bodyForm) end() {
	if b.cr {
		b.content([]byte("\r"))
	}
	if b.form == Simple || b.size > 0 || b.n > 0 {
		b.put('\r')
		b.put('\n')
	}
	b.flush()
	b.sums[-1] = b.hash.Sum(nil)
}

func (b *bodyForm) flush() {
	p := b.buf[:b.n]
	for len(b.stops) > 0 && b.stops[0] <= b.size+int64(len(p)) {
		n := b.stops[0] - b.size
		b.hash.Write(p[:n])
		b.size, p = b.size+n, p[n:]
		b.sums[b.stops[0]] = b.hash.Sum(nil)
		b.stops = b.stops[1:]
	}
	b.hash.Write(p)
	b.size += int64(len(p))
	b.n = 0
}
