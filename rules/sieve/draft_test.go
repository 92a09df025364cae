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

func TestEditFields(t *testing.T) {
	m := parsed(t, "From: a@example.net\nSubject: one\nSubject: two\n\nbody\n")
	added, err := withField(m, "X-Ours", "Grüße\r\nBcc: v@example.net", false)
	if err != nil {
		t.Fatal(err)
	}
	last, err := withField(added, "X-Last", "", true)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := withoutFields(last, func(_ int, f mime.Field) bool { return f.Name == "Subject" && f.Value() == "two" })
	if err != nil {
		t.Fatal(err)
	}
	want := "X-Ours: =?utf-8?B?R3LDvMOfZSBCY2M6IHZAZXhhbXBsZS5uZXQ=?=\r\nFrom: a@example.net\r\nSubject: one\r\nX-Last:\r\n\r\nbody\r\n"
	if got := wholeText(t, gone); got != want {
		t.Errorf("%q", got)
	}
	if got := wholeText(t, m); got != "From: a@example.net\r\nSubject: one\r\nSubject: two\r\n\r\nbody\r\n" {
		t.Errorf("the message itself has changed: %q", got)
	}
	if err := iotest.TestReader(gone.Raw(), []byte(want)); err != nil {
		t.Error(err)
	}
	for _, odd := range []string{"", "Subject: x", "Subject: x\n", "\nbody", "body alone"} {
		for _, below := range []bool{false, true} {
			m, err := mime.Parse(strings.NewReader(odd), int64(len(odd)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			e, err := withField(m, "X-A", "1", below)
			if err != nil || !e.Header().Has("X-A") || !strings.Contains(wholeText(t, e), strings.TrimSpace(odd)) {
				t.Errorf("%q: %v %q", odd, err, wholeText(t, e))
			}
			if m.Subject() != e.Subject() {
				t.Errorf("%q: the subject is %q", odd, e.Subject())
			}
		}
	}
}

func TestReplacePart(t *testing.T) {
	m := parsed(t, draftMail)
	for i, want := range []string{"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\ngone\r\n--b", ""} {
		s, ok := stretchOf(m, m.Root().Parts[i])
		if !ok {
			t.Fatalf("part %d is nowhere", i+1)
		}
		e, err := withPart(m, s, "gone", false)
		if err != nil {
			t.Fatal(err)
		}
		text := wholeText(t, e)
		if !strings.Contains(text, want) || len(e.Root().Parts) != 2 || !strings.HasPrefix(text, wholeText(t, m)[:150]) {
			t.Errorf("%s", text)
		}
		if got := e.Root().Parts[i]; got.Type != "text/plain" {
			t.Errorf("part %d is %s", i+1, got.Type)
		}
		if got := e.Root().Parts[1-i]; got.Type != m.Root().Parts[1-i].Type {
			t.Errorf("the other part is %s", got.Type)
		}
		if i == 1 && len(e.Attachments()) != 0 {
			t.Error("it is still there")
		}
	}
	if _, ok := stretchOf(m, m.Root()); ok {
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
	m := parsed(t, draftMail)
	subject, from := "new\nBcc: x", "other@example.org"
	e, err := replaced(m, replacement{subject: &subject, from: &from, text: "nothing to see"})
	if err != nil {
		t.Fatal(err)
	}
	want := "Received: from a\nOriginal-From: Zoë <a@example.net>\nOriginal-Subject: one\nOriginal-Subject: two\nTo: me@example.org\n" +
		"Subject: new Bcc: x\nFrom: other@example.org\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\nnothing to see\n"
	if got := wholeText(t, e); got != strings.ReplaceAll(want, "\n", "\r\n") {
		t.Errorf("%s", got)
	}
	e, err = enclosed(m, "", [][2]string{{"X-Warned", "yes\r\nBcc: x"}}, "Careful: Grüße")
	if err != nil {
		t.Fatal(err)
	}
	parts := e.Root().Parts
	if len(parts) != 2 || parts[0].Type != "text/plain" || parts[1].Type != "message/rfc822" || e.Subject() != "one" || e.Header().Has("Bcc") {
		t.Fatalf("%s", wholeText(t, e))
	}
	if got := e.Text(); got != "Careful: Grüße" {
		t.Errorf("%q", got)
	}
	if !strings.Contains(wholeText(t, e), wholeText(t, m)) {
		t.Error("the mail is not whole in it")
	}
	twice, err := enclosed(e, "again", nil, "more")
	if err != nil || len(twice.Root().Parts) != 2 || !strings.Contains(wholeText(t, twice), wholeText(t, e)) {
		t.Errorf("%v\n%s", err, wholeText(t, twice))
	}
}
