package sieve

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/pipeline/mime"
)

// A letter is a short message that a script has us write: the answer of a vacation, a notification.
type letter struct {
	from       string // an address, or a name and an address: `"Me" <me@example.org>`
	to         []string
	cc         []string
	subject    string
	date       time.Time
	id         string // Message-ID, without angle brackets
	inReplyTo  string // of what it answers, without angle brackets
	references []string
	auto       string // Auto-Submitted: "auto-replied"
	more       [][2]string
	text       string // the body, of UTF-8
	entity     bool   // text is a MIME entity with its fields (RFC 5230, 4.3: :mime)
}

// Bounds of what a letter says about the mail that it answers.
const (
	letterSubject    = 500 // octets of a subject
	letterReferences = 20  // message ids
	letterID         = 250 // octets of a message id
)

// bytes returns the letter as a message with line ends CRLF: what it is given can add no field of its own.
func (l *letter) bytes() []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		if value != "" {
			b.Write(foldField(name, value))
		}
	}
	field("Date", l.date.Format(time.RFC1123Z))
	field("Message-ID", "<"+l.id+">")
	field("From", addressField([]string{l.from}))
	field("To", addressField(l.to))
	field("Cc", addressField(l.cc))
	field("Subject", encodeWords(cutText(oneLine(l.subject), letterSubject)))
	if id := cleanID(l.inReplyTo); id != "" {
		field("In-Reply-To", "<"+id+">")
	}
	field("References", referencesField(l.references))
	field("Auto-Submitted", l.auto)
	for _, f := range l.more {
		field(f[0], encodeWords(oneLine(f[1])))
	}
	field("MIME-Version", "1.0")
	if l.entity {
		writeEntity(&b, l.text)
	} else {
		writeText(&b, l.text)
	}
	return b.Bytes()
}

// writeText writes text as a part of plain text: fields, an empty line, the body.
func writeText(b *bytes.Buffer, text string) {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
	text = crlf(text)
	if text != "" && !strings.HasSuffix(text, "\r\n") {
		text += "\r\n"
	}
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\n")
	if plain(text) {
		b.WriteString("Content-Transfer-Encoding: 7bit\r\n\r\n")
		b.WriteString(text)
		return
	}
	b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(b)
	_, _ = w.Write([]byte(text)) // into memory: it cannot fail
	_ = w.Close()
}

// writeEntity writes a MIME entity that a script brings: of its fields only those that describe content, so that it
// cannot add a recipient or a sender.
func writeEntity(b *bytes.Buffer, entity string) {
	entity = crlf(strings.ReplaceAll(entity, "\x00", ""))
	header, body, found := strings.Cut(entity, "\r\n\r\n")
	if rest, none := strings.CutPrefix(entity, "\r\n"); none {
		header, body = "", rest
	} else if !found {
		header = strings.TrimSuffix(header, "\r\n")
	}
	encoded, wanted := false, false
	for line := range strings.SplitSeq(header, "\r\n") {
		name, _, ok := strings.Cut(line, ":")
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			name = strings.ToLower(strings.TrimRight(name, " \t"))
			wanted = ok && strings.HasPrefix(name, "content-") && writableField(name)
			encoded = encoded || wanted && name == "content-transfer-encoding"
		}
		if wanted && strings.TrimSpace(line) != "" {
			b.WriteString(cutText(line, 998))
			b.WriteString("\r\n")
		}
	}
	if !encoded && !ascii(body) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	b.WriteString(body)
	if !strings.HasSuffix(body, "\r\n") {
		b.WriteString("\r\n")
	}
}

// foldField returns a header field, folded where it has spaces (RFC 5322, 2.2.3). The value has no line ends but those
// of folds.
func foldField(name, value string) []byte {
	var b bytes.Buffer
	b.WriteString(name)
	b.WriteByte(':')
	column := b.Len()
	for word := range strings.SplitSeq(strings.ReplaceAll(value, "\r\n ", " "), " ") {
		if column+1+len(word) > 78 && column > len(name)+1 && word != "" {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteByte(' ')
		b.WriteString(word)
		column += 1 + len(word)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// oneLine makes control characters, line ends too, single spaces: nothing in s can begin a field of its own.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	control := func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' }
	if strings.ContainsFunc(s, control) {
		s = strings.Join(strings.FieldsFunc(s, control), " ")
	}
	return strings.TrimSpace(s)
}

// cutText cuts s to at most so many octets, between characters.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// encodeWords writes a text of one line as RFC 2047 has it, where it is not ASCII, could not be folded, or would be
// read as encoded already.
func encodeWords(s string) string {
	if ascii(s) && !strings.Contains(s, "=?") && !longWord(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		part := cutText(s, 42)
		if s = s[len(part):]; b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(part)) + "?=")
	}
	return b.String()
}

// addressField writes addresses, each alone or with a name, for a field. What cannot be read as one is left out.
func addressField(list []string) string {
	var all []string
	for _, s := range list {
		if a, err := parseFrom(s); err == nil {
			a.Name = oneLine(a.Name)
			if s = a.String(); a.Name == "" {
				s = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
			}
			all = append(all, s)
		}
	}
	return strings.Join(all, ", ")
}

// parseFrom reads an address with or without a name.
func parseFrom(s string) (*mail.Address, error) { return mail.ParseAddress(oneLine(s)) }

// cleanID returns a message id without its angle brackets, "" for what is none: no spaces, nothing but ASCII.
func cleanID(id string) string {
	id = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(id), "<"), ">")
	if len(id) > letterID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > 0x7e || r == '<' || r == '>' }) {
		return ""
	}
	return id
}

// referencesField writes the last of a chain of message ids, and the first, as RFC 5322, 3.6.4 has it.
func referencesField(ids []string) string {
	var all []string
	for _, id := range ids {
		if id = cleanID(id); id != "" && !slices.Contains(all[max(0, len(all)-letterReferences):], "<"+id+">") {
			all = append(all, "<"+id+">")
		}
	}
	if len(all) > letterReferences {
		all = append(all[:1:1], all[len(all)-letterReferences+1:]...)
	}
	return strings.Join(all, " ")
}

// thread returns what a letter that answers m refers to: In-Reply-To and References (RFC 5322, 3.6.4).
func thread(h mime.Header) (inReplyTo string, references []string) {
	if f, ok := h.First("Message-ID"); ok {
		inReplyTo = cleanID(f.Value())
	}
	f, ok := h.First("References")
	if !ok {
		// Of several ids there it is not known which is the parent.
		if f, ok = h.First("In-Reply-To"); ok && strings.Count(f.Value(), "<") != 1 {
			ok = false
		}
	}
	if ok {
		value := f.Value()
		value = value[max(0, len(value)-64<<10):]
		references = strings.Fields(strings.ReplaceAll(strings.ReplaceAll(value, ">", "> "), "<", " <"))
	}
	if inReplyTo != "" {
		references = append(references, inReplyTo)
	}
	return inReplyTo, references
}

// letterMessageID makes the id of a letter from what it is about, so that the same mail for the same owner, tried
// again, has the same answer.
func letterMessageID(domain string, about ...string) string {
	h := sha256.New()
	for _, s := range about {
		_, _ = fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	if domain == "" || !ascii(domain) {
		domain = "localhost.localdomain"
	}
	return "sieve." + hex.EncodeToString(h.Sum(nil)[:16]) + "@" + domain
}

// longWord reports whether s has a word that cannot be folded into a line.
func longWord(s string) bool {
	for w := range strings.SplitSeq(s, " ") {
		if len(w) > 900 {
			return true
		}
	}
	return false
}

// plain reports whether text can go as it is: ASCII, in lines that SMTP takes (RFC 5321, 4.5.3.1.6).
func plain(text string) bool {
	if !ascii(text) {
		return false
	}
	for line := range strings.Lines(text) {
		if len(line) > 998 {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] > 0x7e {
			return false
		}
	}
	return true
}

// crlf turns every line end, also a bare CR or LF, into CRLF.
func crlf(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	return strings.ReplaceAll(s, "\n", "\r\n")
}
