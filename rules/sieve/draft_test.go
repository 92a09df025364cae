package sieve

import (
	"strings"
	"testing"
	"testing/iotest"

	"sluice/pipeline/mime"
)

const draftMail = "Received: from a\nFrom: Zoë <a@example.net>\nSubject: one\nSubject: two\nTo: me@example.org\n" +
	"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nContent-Type: text/plain\n\nhello\n" +
	"--b\nContent-Type: application/x-evil; name=x.exe\nContent-Transfer-Encoding: base64\n\nAAAA\n--b--\n"

func draftOf(t *testing.T, text string) *draft {
	t.Helper()
	return &draft{message: parsed(t, text)}
}

func TestEditFields(t *testing.T) {
	m := draftOf(t, "From: a@example.net\nSubject: one\nSubject: two\n\nbody\n")
	added, err := m.withField("X-Ours", "Grüße\r\nBcc: v@example.net", false)
	if err != nil {
		t.Fatal(err)
	}
	last, err := added.withField("X-Last", "", true)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := last.withoutFields(func(_ int, f mime.Field) bool { return f.Name == "Subject" && f.Value() == "two" })
	if err != nil {
		t.Fatal(err)
	}
	want := "X-Ours: =?utf-8?B?R3LDvMOfZSBCY2M6IHZAZXhhbXBsZS5uZXQ=?=\r\nFrom: a@example.net\r\nSubject: one\r\nX-Last:\r\n\r\nbody\r\n"
	if got := wholeText(t, gone.message); got != want {
		t.Errorf("%q", got)
	}
	if got := wholeText(t, m.message); got != "From: a@example.net\r\nSubject: one\r\nSubject: two\r\n\r\nbody\r\n" {
		t.Errorf("the message itself has changed: %q", got)
	}
	if err := iotest.TestReader(gone.message.Raw(), []byte(want)); err != nil {
		t.Error(err)
	}
	for _, odd := range []string{"", "Subject: x", "Subject: x\n", "\nbody", "body alone"} {
		for _, below := range []bool{false, true} {
			m, err := mime.Parse(strings.NewReader(odd), int64(len(odd)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			e, err := (&draft{message: m}).withField("X-A", "1", below)
			if err != nil || !e.message.Header().Has("X-A") || !strings.Contains(wholeText(t, e.message), strings.TrimSpace(odd)) {
				t.Errorf("%q: %v %q", odd, err, wholeText(t, e.message))
			}
			if m.Subject() != e.message.Subject() {
				t.Errorf("%q: the subject is %q", odd, e.message.Subject())
			}
		}
	}
}

func TestReplacePart(t *testing.T) {
	m := draftOf(t, draftMail)
	for i, want := range []string{"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\ngone\r\n--b", ""} {
		s, ok := stretchOf(m.message, m.message.Root().Parts[i])
		if !ok {
			t.Fatalf("part %d is nowhere", i+1)
		}
		e, err := m.withPart(s, "gone", false)
		if err != nil {
			t.Fatal(err)
		}
		text := wholeText(t, e.message)
		if !strings.Contains(text, want) || len(e.message.Root().Parts) != 2 || !strings.HasPrefix(text, wholeText(t, m.message)[:150]) {
			t.Errorf("%s", text)
		}
		if got := e.message.Root().Parts[i]; got.Type != "text/plain" {
			t.Errorf("part %d is %s", i+1, got.Type)
		}
		if got := e.message.Root().Parts[1-i]; got.Type != m.message.Root().Parts[1-i].Type {
			t.Errorf("the other part is %s", got.Type)
		}
		if i == 1 && len(e.message.Attachments()) != 0 {
			t.Error("it is still there")
		}
	}
	if _, ok := stretchOf(m.message, m.message.Root()); ok {
		t.Error("the message is no part")
	}
	inside := parsed(t, "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKYm9keQo=\n")
	inside.Root().All(func(p *mime.Part) {
		if p != inside.Root() {
			if _, ok := stretchOf(inside, p); ok {
				t.Errorf("%q stands in the message only encoded", p.Path)
			}
		}
	})
}

func TestReplaceAndEnclose(t *testing.T) {
	m := draftOf(t, draftMail)
	subject, from := "new\nBcc: x", "other@example.org"
	e, err := m.replaced(replacement{subject: &subject, from: &from, text: "nothing to see"})
	if err != nil {
		t.Fatal(err)
	}
	want := "Received: from a\nOriginal-From: Zoë <a@example.net>\nOriginal-Subject: one\nOriginal-Subject: two\nTo: me@example.org\n" +
		"Subject: new Bcc: x\nFrom: other@example.org\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\nnothing to see\n"
	if got := wholeText(t, e.message); got != strings.ReplaceAll(want, "\n", "\r\n") {
		t.Errorf("%s", got)
	}
	e, err = m.enclosed("", [][2]string{{"X-Warned", "yes\r\nBcc: x"}}, "Careful: Grüße")
	if err != nil {
		t.Fatal(err)
	}
	parts := e.message.Root().Parts
	if len(parts) != 2 || parts[0].Type != "text/plain" || parts[1].Type != "message/rfc822" || e.message.Subject() != "one" || e.message.Header().Has("Bcc") {
		t.Fatalf("%s", wholeText(t, e.message))
	}
	if got := e.message.Text(); got != "Careful: Grüße" {
		t.Errorf("%q", got)
	}
	if !strings.Contains(wholeText(t, e.message), wholeText(t, m.message)) {
		t.Error("the mail is not whole in it")
	}
	twice, err := e.enclosed("again", nil, "more")
	if err != nil || len(twice.message.Root().Parts) != 2 || !strings.Contains(wholeText(t, twice.message), wholeText(t, e.message)) {
		t.Errorf("%v\n%s", err, wholeText(t, twice.message))
	}
}

// A part is found where it has moved to, also after many edits, and reading costs the same after them.
func TestFindPart(t *testing.T) {
	d := draftOf(t, draftMail)
	parts := d.message.Root().Parts
	for i := range 50 {
		next, err := d.withField("X-N", strings.Repeat("n", i), i%2 == 0)
		if err != nil {
			t.Fatal(err)
		}
		d = next
	}
	s, ok := d.find(parts[1])
	if !ok {
		t.Fatal("it is there")
	}
	d, err := d.withPart(s, "gone", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.find(parts[1]); ok {
		t.Error("it is gone")
	}
	if s, ok = d.find(parts[0]); !ok {
		t.Fatal("the other part is there")
	}
	if d, err = d.withPart(s, "gone too", false); err != nil {
		t.Fatal(err)
	}
	text := wholeText(t, d.message)
	if strings.Count(text, "X-N:") != 50 || !strings.Contains(text, "\r\ngone\r\n--b--") || !strings.Contains(text, "\r\ngone too\r\n--b\r\n") ||
		strings.Contains(text, "hello") || len(d.message.Root().Parts) != 2 {
		t.Errorf("%s", text)
	}
	for _, c := range d.flat.list {
		if c.data == nil && c.off+c.size > int64(len(wholeText(t, draftOf(t, draftMail).message))) {
			t.Errorf("a chunk is not of the mail as it came: %+v", c)
		}
	}
	if err := iotest.TestReader(d.message.Raw(), []byte(text)); err != nil {
		t.Error(err)
	}
}
