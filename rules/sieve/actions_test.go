package sieve

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/pipeline/mime"
)

func outcome(t *testing.T, script string, in Input, l Limits) Outcome {
	t.Helper()
	s, problems := Compile("x.sieve", []byte(script), Options{Programs: testPrograms, Limits: l})
	if s == nil {
		t.Fatal(problems)
	}
	return s.Run(context.Background(), in)
}

// The reply of somebody who is away, whole.
func TestVacationReply(t *testing.T) {
	in := (&world{}).input(t, extensionMail)
	in.Envelope.To = "info+shop@example.org"
	o := outcome(t, `require "vacation"; vacation text:
I am away until Monday.

Ask Zoë.
.
;`, in, Limits{})
	if len(o.Actions) != 2 || o.Actions[0].Reply == nil {
		t.Fatalf("%+v", o)
	}
	got := string(o.Actions[0].Reply.Content)
	_, id, _ := strings.Cut(got, "Message-ID: <")
	id, _, _ = strings.Cut(id, ">")
	want := strings.ReplaceAll(`Date: Sun, 22 Nov 2026 09:30:00 +0000
Message-ID: <`+id+`>
From: info+shop@example.org
To: friend@example.net
Subject: Auto: Hello
In-Reply-To: <1@example.net>
References: <1@example.net>
Auto-Submitted: auto-replied
X-Auto-Response-Suppress: All
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

I am away until Monday.

Ask Zo=C3=AB.
`, "\n", "\r\n")
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !strings.HasPrefix(id, "sieve.") || !strings.HasSuffix(id, "@example.org") {
		t.Errorf("the id is %q", id)
	}
	again := outcome(t, `require "vacation"; vacation "I am away until Monday.";`, in, Limits{})
	if strings.Contains(string(again.Actions[0].Reply.Content), id) {
		t.Error("two replies have one id")
	}
}

// Once per sender and handle (RFC 5230, 4.2), and no longer or shorter than the site lets scripts say.
func TestVacationOnce(t *testing.T) {
	w := &world{seen: map[string]bool{}}
	in := w.input(t, extensionMail)
	run := func(tags string) Outcome {
		return outcome(t, `require ["vacation", "vacation-seconds"]; vacation `+tags+`;`, in, Limits{})
	}
	first := run(`"away"`)
	if len(first.Marks) != 1 || len(first.Actions) != 2 {
		t.Fatalf("%+v", first)
	}
	w.seen[first.Marks[0].Key] = true
	second := run(`"away"`)
	if len(second.Marks) != 0 || len(second.Actions) != 1 || len(second.Notes) != 1 || second.Notes[0].Text != "no reply: friend@example.net had one less than 7 days ago" {
		t.Errorf("%+v", second)
	}
	for _, other := range []string{`"away again"`, `:subject "x" "away"`, `:mime "away"`, `:from "info@example.org" "away"`, `:handle "h" "away"`} {
		if o := run(other); len(o.Marks) != 1 || o.Marks[0].Key == first.Marks[0].Key {
			t.Errorf("%s is no other reply: %+v", other, o)
		}
	}
	if a, b := run(`:handle "h" "one"`), run(`:handle "h" :days 3 "two"`); a.Marks[0].Key != b.Marks[0].Key {
		t.Error("one handle is one reply")
	}
	for tags, want := range map[string]time.Duration{
		`"a"`: 7 * 24 * time.Hour, `:days 0 "a"`: 24 * time.Hour, `:days 3 "a"`: 72 * time.Hour, `:days 100000000 "a"`: 365 * 24 * time.Hour,
		`:seconds 0 "a"`: time.Minute, `:seconds 1800 "a"`: 30 * time.Minute, `:seconds 4000000000 "a"`: 365 * 24 * time.Hour,
	} {
		if o := run(tags); o.Marks[0].Within != want {
			t.Errorf("%s: %v, want %v", tags, o.Marks[0].Within, want)
		}
	}
	in.Envelope.From = "other@example.net"
	if o := run(`"away"`); len(o.Marks) != 1 {
		t.Error("another sender gets one")
	}
	for name, in := range map[string]Input{
		"no reply: the mail has no sender: it is a report": func() Input { x := in; x.Envelope.From = ""; return x }(),
		"no reply: the mail is from a list: List-Id":       func() Input { x := in; x.Message = parsed(t, "List-Id: <x>\n"+extensionMail); return x }(),
	} {
		o := outcome(t, `require "vacation"; vacation "away";`, in, Limits{})
		if len(o.Actions) != 1 || len(o.Marks) != 0 || len(o.Notes) != 1 || o.Notes[0].Text != name {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// What is asked of the mail is asked of it as it came, whatever a script has made of it (RFC 5293, 3; extprograms, 6.1).
func TestVacationIgnoresEdits(t *testing.T) {
	in := (&world{}).input(t, "List-Id: <x.example.net>\n"+extensionMail)
	o := outcome(t, `require ["vacation", "editheader"]; deleteheader "List-Id"; vacation "away";`, in, Limits{})
	if len(o.Notes) != 1 || !strings.Contains(o.Notes[0].Text, "from a list") {
		t.Errorf("%+v", o)
	}
}

// A mail that comes back is not sent round again, and not lost.
func TestRedirectLoop(t *testing.T) {
	for name, tt := range map[string]struct{ header, note string }{
		"it was here":      {"X-Sieve-Redirected-From: ME@example.org\n", "not redirected to you@example.net: the mail was redirected from here before, and has come back"},
		"too many servers": {strings.Repeat("Received: from x\n", 51), "not redirected to you@example.net: the mail has gone through 53 servers, which looks like a loop"},
		"of somebody else": {"X-Sieve-Redirected-From: you@example.org\n", ""},
	} {
		in := (&world{}).input(t, tt.header+extensionMail)
		o := outcome(t, "redirect \"you@example.net\";", in, Limits{})
		if tt.note == "" {
			if len(o.Actions) != 1 || !reflect.DeepEqual(o.Actions[0].Fields, [][2]string{{"X-Sieve-Redirected-From", "me@example.org"}}) {
				t.Errorf("%s: %+v", name, o)
			}
			continue
		}
		if len(o.Actions) != 1 || o.Actions[0].Kind != Keep || len(o.Notes) != 1 || o.Notes[0].Text != tt.note {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// RFC 5436, 2.7: who notifies whom.
func TestNotification(t *testing.T) {
	in := (&world{}).input(t, extensionMail)
	script := `require ["enotify", "variables"]; set "x" "two lines"; notify :importance "1" :message "${x}" "mailto:a@example.net?body=Hi%0D%0Athere&x-tag=1";`
	o := outcome(t, script, in, Limits{})
	content := string(o.Actions[0].Reply.Content)
	for _, want := range []string{
		"From: me@example.org\r\n", "To: a@example.net\r\n", "Subject: two lines\r\n", "Auto-Submitted: auto-notified; owner-email=\"me@example.org\"\r\n",
		"X-Tag: 1\r\n", "Importance: High\r\n", "References: <1@example.net>\r\n", "\r\n\r\nHi\r\nthere\r\n",
	} {
		if !strings.Contains(content, want) {
			t.Errorf("%q is missing:\n%s", want, content)
		}
	}
	if strings.Contains(content, "In-Reply-To") || o.Actions[0].Reply.From != "me@example.org" {
		t.Errorf("%+v\n%s", o.Actions[0].Reply, content)
	}
	in.Envelope.From = ""
	o = outcome(t, `require "enotify"; notify "mailto:a@example.net";`, in, Limits{})
	if r := o.Actions[0].Reply; r.From != "" || !strings.Contains(string(r.Content), "There is mail for you.\r\nFrom: Friend <friend@example.net>\r\nSubject: Hello\r\n") {
		t.Errorf("%+v\n%s", r, r.Content)
	}
	in.Message = parsed(t, "Auto-Submitted: auto-notified; owner-email=\"x@y\"\n"+extensionMail)
	o = outcome(t, `require "enotify"; notify "mailto:a@example.net";`, in, Limits{})
	if len(o.Actions) != 1 || len(o.Notes) != 1 {
		t.Errorf("a notification about a notification: %+v", o)
	}
}

// RFC 7352.
func TestDuplicate(t *testing.T) {
	w := &world{seen: map[string]bool{}}
	in := w.input(t, extensionMail)
	run := func(tags string) (bool, []Mark) {
		o := outcome(t, `require ["duplicate", "fileinto", "variables"]; set "n" "x"; if duplicate `+tags+` { fileinto "again"; }`, in, Limits{})
		if o.Failure != nil {
			t.Fatal(o.Failure)
		}
		return o.Actions[0].Kind == FileInto, o.Marks
	}
	keys := map[string]string{}
	for _, tags := range []string{"", `:handle "h"`, `:uniqueid "u"`, `:header "X-A"`, `:uniqueid "${n}"`} {
		again, marks := run(tags)
		if again || len(marks) != 1 || marks[0].Last || marks[0].Within != 7*24*time.Hour {
			t.Fatalf("%s: %v %+v", tags, again, marks)
		}
		if other, ok := keys[marks[0].Key]; ok {
			t.Errorf("%q and %q are the same", tags, other)
		}
		keys[marks[0].Key] = tags
	}
	for key, tags := range keys {
		w.seen[key] = true
		if again, marks := run(tags + " :seconds 60"); !again || len(marks) != 0 {
			t.Errorf("%s: %v %+v: the time runs from the first", tags, again, marks)
		}
		if again, marks := run(tags + " :last :seconds 60"); !again || len(marks) != 1 || !marks[0].Last || marks[0].Within != time.Minute {
			t.Errorf("%s: %v %+v: the time begins anew", tags, again, marks)
		}
	}
	for _, nothing := range []string{`:header "X-None"`, `:uniqueid ""`} {
		if again, marks := run(nothing); again || len(marks) != 0 {
			t.Errorf("%s: %v %+v", nothing, again, marks)
		}
	}
	failed := outcome(t, `require ["duplicate", "ihave"]; if duplicate { } error "stop"; `, in, Limits{})
	if failed.Failure == nil || len(failed.Marks) != 0 {
		t.Errorf("a script that failed remembers nothing: %+v", failed)
	}
	both := outcome(t, `require ["duplicate", "fileinto"]; if anyof (duplicate :handle "n", duplicate :handle "n") { fileinto "X"; }`, in, Limits{})
	if both.Kept() && both.Actions[0].Kind == FileInto || len(both.Marks) != 1 {
		t.Errorf("a mail is no duplicate of itself: %+v", both)
	}
}

// RFC 5703, 5: parts are replaced one by one, and what is inside a part that is gone is gone too.
func TestReplaceParts(t *testing.T) {
	in := (&world{}).input(t, draftMail)
	script := `require ["foreverypart", "mime", "replace", "editheader", "variables"];
foreverypart {
	addheader "X-Part" "seen";
	if header :mime :subtype "Content-Type" "x-evil" {
		replace "An attachment was removed.";
		replace "and once more";
	}
}`
	o := outcome(t, script, in, Limits{})
	m := o.Actions[0].Message
	if o.Failure != nil || m == nil || len(o.Notes) != 1 || o.Notes[0].Line != 6 {
		t.Fatalf("%+v %v", o, o.Failure)
	}
	text := wholeText(t, m)
	if strings.Contains(text, "x-evil") || strings.Contains(text, "AAAA") || strings.Contains(text, "once more") || !strings.Contains(text, "An attachment was removed.") ||
		!strings.Contains(text, "hello") || strings.Count(text, "X-Part") != 3 || len(m.Root().Parts) != 2 {
		t.Errorf("%s", text)
	}
}

// Scripts that run because somebody has moved a mail answer nobody (RFC 6785, 3).
func TestEventActions(t *testing.T) {
	in := (&world{}).input(t, extensionMail)
	in.Envelope, in.Flags = Envelope{Unknown: true}, []string{`\Seen`, "$Junk"}
	in.Environment = map[string]string{"imap.cause": "COPY", "imap.mailbox": "Junk", "imap.changedflags": "", "imap.user": "me", "imap.email": "me@example.org"}
	for script, want := range map[string]string{
		`if environment "imap.cause" ["COPY", "APPEND"] { pipe :copy "learn" "spam"; }`: `pipe learn spam` + "\n" + `keep [\Seen $Junk]`,
		`if environment :is "imap.mailbox" "Junk" { addflag "$x"; }`:                    `keep [\Seen $Junk $x]`,
		`reject "no";`:                        "keep\nfailure x.sieve:1: reject: the mail is in a folder already, and cannot be refused any more",
		`vacation "away";`:                    "keep\nfailure x.sieve:1: vacation: nobody has sent the mail just now",
		`notify "mailto:a@example.net";`:      "notify <me@example.org> to a@example.net: Hello\nkeep [\\Seen $Junk]",
		`if not hasflag "$junk" { discard; }`: `keep [\Seen $Junk]`,
	} {
		s := `require ["imapsieve", "vnd.dovecot.pipe", "copy", "imap4flags", "reject", "vacation", "enotify"]; ` + script
		if got := told(t, s, in, Limits{}); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
		}
	}
}

// Each limit is reached, and says so with the line.
func TestActionLimits(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{`require "editheader"; ` + strings.Repeat(`addheader "X-B" "b"; `, 4), "the script changes the header more than 3 times"},
		{`require "enclose"; ` + strings.Repeat(`enclose "x"; `, 4), "the script changes the mail more than 3 times"},
		{`require "replace"; replace "` + strings.Repeat("x", 3000) + `";`, "the mail grows by more than 1000 octets"},
		{`require "enotify"; ` + strings.Repeat(`notify "mailto:a@example.net"; `, 3), "the script notifies more than 2 times"},
		{strings.Repeat(`redirect "a@example.net"; redirect "b@example.net"; redirect "c@example.net";`, 1), "the script redirects more than 2 times"},
		{`require "vnd.dovecot.execute"; ` + strings.Repeat(`execute "fails"; `, 3), "the script runs programs more than 2 times"},
	} {
		o := outcome(t, tt.script, (&world{}).input(t, extensionMail), Limits{EditedFields: 3, EditedSize: 1000, Notifies: 2, Redirects: 2, Programs: 2})
		if o.Failure == nil || o.Failure.Text != tt.want || len(o.Actions) != 1 || o.Actions[0].Kind != Keep || o.Actions[0].Message != nil {
			t.Errorf("%.60s: %+v %v", tt.script, o.Actions, o.Failure)
		}
	}
	var many strings.Builder
	for i := range 2 {
		_, _ = fmt.Fprintf(&many, "Received: from %d\n", i)
	}
	o := outcome(t, `redirect "a@example.net";`, (&world{}).input(t, many.String()+extensionMail), Limits{Hops: 3})
	if len(o.Notes) != 1 {
		t.Errorf("%+v", o)
	}
}

// Whatever a URI says, what comes of it is a letter with one header and recipients that are addresses.
func FuzzMailto(f *testing.F) {
	f.Add("mailto:a@example.net?subject=x&body=y&x-a=b")
	f.Add("mailto:a%40b.example%0d%0aBcc:x@y.example?to=%22a%20b%22@c.example")
	f.Add("mailto:?cc=a@b.example&subject=%ff%0A%0A")
	f.Fuzz(func(t *testing.T, uri string) {
		m, err := parseMailto(uri)
		if err != nil {
			return
		}
		l := letter{from: "me@example.org", to: m.to, cc: m.cc, subject: m.subject, text: m.body, more: m.more, date: letterDate, id: "1@example.org", auto: "auto-notified"}
		text := string(l.bytes())
		msg, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range append(m.to, m.cc...) {
			if strings.ContainsAny(a, "\r\n\x00") || !strings.Contains(a, "@") {
				t.Errorf("recipient %q", a)
			}
		}
		for _, name := range []string{"From", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"} {
			if fieldCount(msg.Header(), name) != 1 {
				t.Errorf("%d fields %s:\n%s", fieldCount(msg.Header(), name), name, text)
			}
		}
		if msg.Header().Has("Bcc") {
			t.Errorf("a field too many:\n%s", text)
		}
	})
}
