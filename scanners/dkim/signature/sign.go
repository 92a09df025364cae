package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"time"
)

// An Identity is who signs: a domain, and the key that the DNS has under one of its selectors.
type Identity struct {
	Domain   string // in lower case and A-labels
	Selector string // the same
	Key      *PrivateKey
}

// Algorithm is a=.
func (i Identity) Algorithm() string { return i.Key.algorithm + "-sha256" }

// KeyName is where the DNS has the key.
func (i Identity) KeyName() string { return i.Selector + "._domainkey." + i.Domain }

// always are the fields that are signed once more than they are there, so that nobody can put another on top
// (RFC 6376, 8.15): all that a reader is shown or that says how the body is to be read.
func always() []string {
	return []string{
		"from", "to", "cc", "subject", "date", "message-id", "reply-to", "in-reply-to", "references", "sender",
		"mime-version", "content-type", "content-transfer-encoding", "content-disposition",
	}
}

// lists are signed once more than they are there only where they are: a list that hands mail on as it is adds its own,
// and the signature is to survive that.
func lists() []string {
	return []string{
		"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive",
		"auto-submitted", "feedback-id",
	}
}

// Names returns what h= of a signature over a message names, in lower case: each field as often as it has to be. more
// are signed as often as they are there.
func Names(h *Header, more ...string) []string {
	var names []string
	for _, name := range always() {
		names = append(names, slices.Repeat([]string{name}, h.Count(name)+1)...)
	}
	for _, name := range lists() {
		if n := h.Count(name); n > 0 {
			names = append(names, slices.Repeat([]string{name}, n+1)...)
		}
	}
	for _, name := range more {
		names = append(names, slices.Repeat([]string{name}, h.Count(name))...)
	}
	return names
}

// WholeBody is the form and the part of a body that [Sign] and the seals of ARC are about.
func WholeBody() BodyPart { return BodyPart{Form: Relaxed, Length: -1} }

// HashBody reads a body once and returns what [Sign] needs of it, however many sign it.
func HashBody(r io.Reader) ([]byte, error) {
	sums, err := SumBody(r, []BodyPart{WholeBody()})
	return sums[WholeBody()].Hash, err
}

// Sign returns a DKIM-Signature field for each of by, without its last line end, to be put on top of the message. bodyHash is of
// [HashBody]. The signatures say that they were made now, and where lasts is more than 0, that they expire.
func Sign(h *Header, bodyHash []byte, by []Identity, now time.Time, lasts time.Duration) ([]string, error) {
	var fields []string
	for _, i := range by {
		var times []string
		times = append(times, "t="+strconv.FormatInt(now.Unix(), 10))
		if lasts > 0 {
			times = append(times, "x="+strconv.FormatInt(now.Add(lasts).Unix(), 10))
		}
		field, err := i.SignMessage("DKIM-Signature", "v=1", times, h, Names(h), bodyHash)
		if err != nil {
			return nil, fmt.Errorf("sign for %s: %w", i.Domain, err)
		}
		fields = append(fields, field)
	}
	return fields, nil
}

// SignMessage returns a field with a signature over the fields of a message that names chooses, which are in lower case, and over
// its body. first is its first tag, further ones follow what says who signs.
func (i Identity) SignMessage(name, first string, further []string, h *Header, names []string, bodyHash []byte) (string, error) {
	f := newFolded(name)
	f.tag(first)
	f.tag("a=" + i.Algorithm())
	f.tag("c=relaxed/relaxed")
	f.tag("d=" + i.Domain)
	f.tag("s=" + i.Selector)
	for _, t := range further {
		f.tag(t)
	}
	f.list("h=", names)
	f.tag("bh=" + base64.StdEncoding.EncodeToString(bodyHash))
	hash := sha256.New()
	h.Write(hash, names, Relaxed, -1)
	return i.finish(f, hash)
}

// SignSeal returns a field whose signature is over what was written to before, and over the field itself (RFC 8617, 5.1.1).
func (i Identity) SignSeal(name string, tags []string, before []byte) (string, error) {
	f := newFolded(name)
	for _, t := range tags {
		f.tag(t)
	}
	f.tag("a=" + i.Algorithm())
	f.tag("d=" + i.Domain)
	f.tag("s=" + i.Selector)
	hash := sha256.New()
	hash.Write(before)
	return i.finish(f, hash)
}

// finish signs what was hashed so far, and the field with an empty b= (RFC 6376, 3.7).
func (i Identity) finish(f *folded, hash hash.Hash) (string, error) {
	f.open("b=")
	_, _ = hash.Write(Relaxed.AppendUnsigned(nil, f.text.Bytes(), nil)) // a hash takes everything
	b, err := i.Key.sign(hash.Sum(nil))
	if err != nil {
		return "", err
	}
	f.long(base64.StdEncoding.EncodeToString(b))
	return f.text.String(), nil
}

// folded writes a field with a tag list in lines of at most 76 characters, where it can be broken.
type folded struct {
	text bytes.Buffer
	line int // characters in the line so far
	any  bool
}

const mostLine = 76

func newFolded(name string) *folded {
	f := new(folded)
	f.put(name + ":")
	return f
}

func (f *folded) put(s string) {
	f.text.WriteString(s)
	f.line += len(s)
}

func (f *folded) fold() {
	f.text.WriteString("\r\n\t")
	f.line = 8
}

// tag writes a tag with its value, in one piece.
func (f *folded) tag(s string) {
	if f.any {
		f.put(";")
	}
	f.any = true
	if f.line+1+len(s) > mostLine {
		f.fold()
	} else {
		f.put(" ")
	}
	f.put(s)
}

// open begins a tag in a line of its own.
func (f *folded) open(s string) {
	f.put(";")
	f.fold()
	f.put(s)
}

// list writes a tag whose value is a list with colons between its members: it may be broken before one.
func (f *folded) list(tag string, members []string) {
	f.put(";")
	f.fold()
	f.put(tag)
	for n, m := range members {
		if n > 0 {
			f.put(":")
		}
		if f.line+len(m)+1 > mostLine {
			f.fold()
		}
		f.put(m)
	}
}

// long writes what may be broken anywhere.
func (f *folded) long(s string) {
	for s != "" {
		n := min(len(s), mostLine-f.line)
		f.put(s[:n])
		if s = s[n:]; s != "" {
			f.fold()
		}
	}
}
