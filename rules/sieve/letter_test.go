package sieve

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"
	"time"

	"sluice/pipeline/mime"
)

func parsed(t *testing.T, text string) *mime.Message {
	t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wholeText(t *testing.T, m *mime.Message) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(m.Raw()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var letterDate = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func TestLetter(t *testing.T) {
	l := letter{
		from: `"Zoë, me" <me@example.org>`, to: []string{"friend@example.net"}, subject: "Auto: Grüße aus dem Süden, und noch viel mehr davon als in eine Zeile geht",
		date: letterDate, id: "sieve.1@example.org", inReplyTo: "<a@example.net>", references: []string{"<0@example.net>", "a@example.net"},
		auto: "auto-replied", text: "I am away.\nBack on Monday: schönen Gruß\n",
	}
	want := strings.ReplaceAll(`Date: Sun, 22 Nov 2026 09:30:00 +0000
Message-ID: <sieve.1@example.org>
From: =?utf-8?b?Wm/DqywgbWU=?= <me@example.org>
To: friend@example.net
Subject: =?utf-8?B?QXV0bzogR3LDvMOfZSBhdXMgZGVtIFPDvGRlbiwgdW5kIG5vY2ggdmll?=
 =?utf-8?B?bCBtZWhyIGRhdm9uIGFscyBpbiBlaW5lIFplaWxlIGdlaHQ=?=
In-Reply-To: <a@example.net>
References: <0@example.net> <a@example.net>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

I am away.
Back on Monday: sch=C3=B6nen Gru=C3=9F
`, "\n", "\r\n")
	if got := string(l.bytes()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	m := parsed(t, string(l.bytes()))
	if m.Subject() != l.subject {
		t.Errorf("the subject is read as %q", m.Subject())
	}
}

// Nothing that a script or a mail says becomes a field of its own, whatever it is put into.
func TestLetterInjection(t *testing.T) {
	for _, evil := range []string{
		"x\r\nBcc: victim@example.net", "x\nBcc: victim@example.net", "x\rBcc: victim@example.net", "x\x00\r\n\r\nBcc: victim@example.net",
		"x\u2028Bcc: victim@example.net", "=?utf-8?q?x=0D=0ABcc:_victim@example.net?=", strings.Repeat("y", 3000), strings.Repeat("a b ", 1000),
		"\xff\xfe\r\nBcc: v@example.net", "me@example.org>\r\nBcc: <v@example.net", "",
	} {
		l := letter{
			from: evil, to: []string{"a@example.net", evil}, cc: []string{evil}, subject: evil, date: letterDate, id: "1@example.org",
			inReplyTo: evil, references: []string{evil, "ok@example.net", evil}, auto: "auto-notified", more: [][2]string{{"X-More", evil}}, text: evil,
		}
		for _, l.entity = range []bool{false, true} {
			text := string(l.bytes())
			header, _, _ := strings.Cut(text, "\r\n\r\n")
			if strings.Contains(header, "\nBcc:") || strings.Contains(strings.ReplaceAll(header, "\r\n", ""), "\n") {
				t.Errorf("%q:\n%s", evil, header)
			}
			for line := range strings.SplitSeq(header, "\r\n") {
				if len(line) > 998 {
					t.Errorf("%.20q: a line of %d octets", evil, len(line))
				}
			}
			if _, err := mail.ReadMessage(strings.NewReader(text)); err != nil {
				t.Errorf("%q: %v", evil, err)
			}
			if m := parsed(t, text); m.Header().Has("Bcc") {
				t.Errorf("%q: %s", evil, header)
			}
		}
	}
}

func TestLetterEntity(t *testing.T) {
	for _, tt := range []struct{ name, entity, want string }{
		{"fields of content", "Content-Type: multipart/alternative;\n boundary=x\n\n--x\n\nhi\n--x--\n", "Content-Type: multipart/alternative;\r\n boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n"},
		{"others go, with their folds", "To: victim@example.net,\n other@example.net\nContent-Type: text/html\nSubject: x\n\n<p>", "Content-Type: text/html\r\n\r\n<p>\r\n"},
		{"eight bits say so", "Content-Type: text/plain; charset=utf-8\n\nGrüße", "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"},
		{"no fields", "\nhello\n", "\r\nhello\r\n"},
		{"fields alone", "Content-Type: text/plain\n", "Content-Type: text/plain\r\n\r\n\r\n"},
	} {
		var b bytes.Buffer
		writeEntity(&b, tt.entity)
		if b.String() != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, b.String(), tt.want)
		}
	}
}

func TestThread(t *testing.T) {
	var huge strings.Builder
	for range 100000 {
		huge.WriteString("<a@example.net>")
		huge.WriteString("<" + strings.Repeat("b", 20) + "@example.net>\r\n ")
	}
	for _, tt := range []struct{ name, header, reply, references string }{
		{"nothing", "From: a@example.net\n", "", ""},
		{"an id", "Message-ID: <1@x>\n", "<1@x>", "<1@x>"},
		{"a thread", "Message-ID: <3@x>\nReferences: <1@x> <2@x>\n", "<3@x>", "<1@x> <2@x> <3@x>"},
		{"the parent alone", "Message-ID: <2@x>\nIn-Reply-To: <1@x>\n", "<2@x>", "<1@x> <2@x>"},
		{"two parents", "Message-ID: <3@x>\nIn-Reply-To: <1@x> <2@x>\n", "<3@x>", "<3@x>"},
		{"no id can be read", "Message-ID: <a b>\nReferences: x y\n", "", "<x> <y>"},
	} {
		reply, references := thread(parsed(t, tt.header+"\n").Header())
		if reply != "" {
			reply = "<" + reply + ">"
		}
		if got := referencesField(references); reply != tt.reply || got != tt.references {
			t.Errorf("%s: %q %q", tt.name, reply, got)
		}
	}
	m := parsed(t, "Message-ID: <1@x>\nReferences: "+huge.String()[:200000]+"\n\n")
	if _, references := thread(m.Header()); len(referencesField(references)) > 1000 {
		t.Errorf("%d octets of references", len(referencesField(references)))
	}
	var many []string
	for i := range 100 {
		many = append(many, strings.Repeat("i", i+1)+"@x")
	}
	got := strings.Fields(referencesField(many))
	if len(got) != letterReferences || got[0] != "<i@x>" || got[letterReferences-1] != "<"+many[99]+">" {
		t.Errorf("%q", got)
	}
}
