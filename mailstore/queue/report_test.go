package queue

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/mailstore"
)

var update = flag.Bool("update", false, "write the golden files")

// A settled report is filed by a goroutine of the queue's: wait for it, and take it.
func (r *rig) report() mailstore.Job {
	r.Helper()
	for {
		for _, j := range r.take() {
			if j.Sender == "" {
				return j
			}
		}
		select {
		case <-r.Wake():
		case <-time.After(time.Minute):
			r.Fatal("no report was filed")
		}
	}
}

// quiet waits until nothing is owed any more, and fails if a report was filed.
func (r *rig) quiet(why string) {
	r.Helper()
	if _, err := r.fileReports(r.Context()); err != nil { // the goroutine does the same, in whatever order
		r.Error(err)
	}
	if s := r.Stats(); s.Reports != 0 {
		r.Errorf("%s: %d reports", why, s.Reports)
	}
}

func TestFailureIsReported(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net", "b@example.net", "c@example.net"))
	r.settle(r.one(), refused(0), done(1), refused(2))
	j := r.report()
	if j.Domain != "example.org" || j.Recipients[0].Address != "me@example.org" || j.ID != "t1" || j.Why != "delivery report" {
		t.Errorf("the report goes %+v", j)
	}
	text := r.content(j.Message)
	if n := strings.Count(text, "Action: failed"); n != 2 || strings.Contains(text, "b@example.net\r\nAction") {
		t.Errorf("%d of 2 recipients in it:\n%s", n, text)
	}
	if m := r.show(id); m.Ended.IsZero() || m.Recipients[0].owed != "" {
		t.Errorf("the mail is over: %+v", m)
	}
	r.settle(j, refused(0))
	if !strings.Contains(r.logged(), "nobody is told: it has no sender") {
		t.Errorf("a report that fails: log %s", r.logged())
	}
	if s := r.Stats(); s.Messages != 0 || s.Reports != 1 || len(r.files()) != 0 {
		t.Errorf("left: %+v, %v", s, r.files())
	}
}

func TestWhoIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*mailstore.Outgoing)
		config func(*Config)
		to     string
	}{
		"a sender of ours":         {nil, nil, "me@example.org"},
		"a stranger":               {func(m *mailstore.Outgoing) { m.Sender = "me@example.com" }, nil, ""},
		"never":                    {func(m *mailstore.Outgoing) { m.Recipients[0].Notify = []string{"never"} }, nil, ""},
		"only of success":          {func(m *mailstore.Outgoing) { m.Recipients[0].Notify = []string{"success"} }, nil, ""},
		"of failure":               {func(m *mailstore.Outgoing) { m.Recipients[0].Notify = []string{"failure"} }, nil, "me@example.org"},
		"null sender":              {func(m *mailstore.Outgoing) { m.Sender = "" }, nil, ""},
		"a redirect, to its owner": {func(m *mailstore.Outgoing) { m.Forwarded, m.Sender = true, "stranger@example.com" }, nil, "me@example.org"},
		"a redirected report":      {func(m *mailstore.Outgoing) { m.Forwarded, m.Sender = true, "" }, nil, "me@example.org"},
		"a redirect, whatever its sender wants": {func(m *mailstore.Outgoing) {
			m.Forwarded, m.Sender, m.Recipients[0].Notify = true, "stranger@example.com", []string{"never"}
		}, nil, "me@example.org"},
		"a bounce that comes back":    {func(m *mailstore.Outgoing) { m.Forwarded, m.Sender, m.Account = true, "", "" }, nil, ""},
		"double bounces":              {func(m *mailstore.Outgoing) { m.Sender = "" }, func(c *Config) { c.DoubleBounces = "root@example.org" }, "root@example.org"},
		"double bounces of the same":  {func(m *mailstore.Outgoing) { m.Sender, m.Why = "", whyDouble }, func(c *Config) { c.DoubleBounces = "root@example.org" }, ""},
		"nobody is known to be local": {nil, func(c *Config) { c.Local = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) {
				if tt.config != nil {
					tt.config(c)
				}
			})
			m := outgoing("a@example.net")
			if tt.change != nil {
				tt.change(&m)
			}
			r.queue(m)
			r.settle(r.one(), refused(0))
			if tt.to == "" {
				r.quiet(name)
				if !strings.Contains(r.logged(), "level=WARN") {
					t.Errorf("the log says nothing: %s", r.logged())
				}
				return
			}
			if j := r.report(); j.Recipients[0].Address != tt.to {
				t.Errorf("told is %s, want %s", j.Recipients[0].Address, tt.to)
			}
		})
	}
}

func TestDelayIsReportedOnce(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net", "b@example.net"))
	r.pass(3 * time.Hour)
	r.settle(r.one(), later(0), later(1))
	r.quiet("after three hours")
	r.pass(2 * time.Hour)
	var j mailstore.Job
	for _, x := range r.take() {
		r.settle(x, later(0), later(1))
	}
	j = r.report()
	text := r.content(j.Message)
	if !strings.Contains(text, "Action: delayed\r\nStatus: 4.2.0") || !strings.Contains(text, "Will-Retry-Until: Wed, 06 May 2026 12:00:00 +0000") {
		t.Errorf("the report says\n%s", text)
	}
	r.settle(j, done(0))
	r.reopen() // it remembers
	r.pass(2 * time.Hour)
	r.settle(r.one(), later(0), later(1))
	r.quiet("a second time")
	if m := r.show(id); m.Recipients[1].Delayed.IsZero() {
		t.Errorf("not noted: %+v", m.Recipients[1])
	}
}

func TestSuccessIsReportedWhereItIsAskedFor(t *testing.T) {
	r := newRig(t)
	m := outgoing("a@example.net", "b@example.net", "c@example.net", "d@example.net")
	for i := range 3 {
		m.Recipients[i].Notify = []string{"success", "failure"}
	}
	r.queue(m)
	relayed, passed, delivered := done(0), done(1), done(2)
	passed.Outcome, delivered.Outcome = mailstore.Passed, mailstore.Delivered
	r.settle(r.one(), relayed, passed, delivered, done(3))
	text := r.content(r.report().Message)
	for _, want := range []string{"rfc822; a@example.net\r\nAction: relayed\r\nStatus: 2.0.0", "rfc822; c@example.net\r\nAction: delivered"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "b@example.net") || strings.Contains(text, "d@example.net") {
		t.Errorf("more than was asked for:\n%s", text)
	}
}

// Whoever wrote a mail has it still. Whose script has handed it on has nothing else of it.
func TestOwnerGetsTheWholeMail(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ReportSize = 100 })
	m := outgoing("a@example.net")
	m.Forwarded, m.Sender, m.Return = true, "stranger@example.com", "hdrs"
	m.Content = strings.NewReader("Subject: x\r\n\r\n" + strings.Repeat("line\r\n", 1000) + "the end\r\n")
	r.queue(m)
	r.settle(r.one(), refused(0))
	if text := r.content(r.report().Message); !strings.Contains(text, "\r\nthe end\r\n") {
		t.Errorf("the report ends with %q", text[len(text)-100:])
	}
}

// A report that is owed when the program ends is filed by the next one, once.
func TestReportsSurviveACrash(t *testing.T) {
	var stuck atomic.Bool
	stuck.Store(true)
	r := newRig(t, func(c *Config) {
		c.Local = func(context.Context, string) (bool, error) {
			if stuck.Load() {
				return false, errors.New("the accounts are locked")
			}
			return true, nil
		}
	})
	id := r.queue(outgoing("a@example.net"))
	r.settle(r.one(), refused(0))
	if _, err := r.fileReports(t.Context()); err == nil || r.Stats().Reports != 0 {
		t.Errorf("filed: %v", err)
	}
	if m := r.show(id); !m.Ended.IsZero() || len(r.files()) != 1 {
		t.Errorf("it is over, and its report is not filed: %+v", m)
	}
	stuck.Store(false)
	r.reopen()
	r.settle(r.report(), done(0))
	r.reopen()
	r.quiet("after another start")
	if len(r.files()) != 0 {
		t.Errorf("files %v", r.files())
	}
}

// However often the disk fails, a report is filed once, and the mail goes with it.
func TestReportOnAFailingDisk(t *testing.T) {
	for n := 1; n < 30; n++ {
		r := newRig(t)
		d := &faultyDisk{}
		r.Queue.disk = d
		r.queue(outgoing("a@example.net"))
		j := r.one()
		d.failAt(n, errors.New("no"))
		r.settle(j, refused(0))
		_, err := r.fileReports(t.Context()) // besides the goroutine
		for err != nil || r.Stats().Reports == 0 {
			_, err = r.fileReports(t.Context())
		}
		if s := r.Stats(); s.Reports != 1 || s.Messages != 1 {
			t.Errorf("call %d: %+v", n, s)
		}
		d.mu.Lock()
		over := d.calls < n
		d.mu.Unlock()
		if over {
			if n < 5 {
				t.Errorf("only %d calls", n)
			}
			break
		}
	}
}

func reportOf(kind string, change func(*Report)) Report {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r := Report{
		Kind: kind, To: "me@example.org", Hostname: "mx.example.org", Date: at.Add(5 * 24 * time.Hour), Until: at.Add(5 * 24 * time.Hour),
		ID: "qrrrrrrrrrr", Original: []byte(mail), Full: kind == "failure",
		Message: Message{ID: "qmmmmmmmmmm", Sender: "me@example.org", Why: "submission", Queued: at, since: at, Size: int64(len(mail))},
		Recipients: []Recipient{{
			OutgoingRecipient: mailstore.OutgoingRecipient{Address: "you@example.net", Original: "rfc822;You@example.net"},
			Domain:            "example.net", State: Failed, Attempts: 1, Tried: at.Add(time.Minute), Host: "mx.example.net [192.0.2.1]:25",
			Reply: "550 5.1.1 no such user\n550 5.1.1 see https://example.net/why", Status: "5.1.1",
		}},
	}
	if !r.Full {
		r.Original = header(r.Original)
	}
	if change != nil {
		change(&r)
	}
	return r
}

func reports() map[string]Report {
	return map[string]Report{
		"failure": reportOf("failure", nil),
		"expired": reportOf("failure", func(r *Report) {
			x := &r.Recipients[0]
			x.State, x.Attempts, x.Host, x.Reply, x.Status, x.Original = Expired, 35, "mx.example.net [192.0.2.1]:25", "no answer within 30s", "4.4.1", ""
			r.Message.EnvelopeID, r.Message.Return, r.Full = "QQ314159", "hdrs", false
			r.Original = header(r.Original)
		}),
		"delay": reportOf("delay", func(r *Report) {
			x := &r.Recipients[0]
			x.State, x.Attempts, x.Reply, x.Status = Waiting, 12, "451 4.7.1 greylisted", "4.7.1"
			r.Date = r.Message.Queued.Add(4 * time.Hour)
		}),
		"success": reportOf("success", func(r *Report) {
			r.Recipients[0].State, r.Recipients[0].Reply, r.Recipients[0].Status = Relayed, "250 2.0.0 ok", "2.0.0"
			r.Recipients = append(r.Recipients, r.Recipients[0])
			r.Recipients[1].State, r.Recipients[1].Address = Delivered, "other@example.org"
		}),
		"utf8": reportOf("failure", func(r *Report) {
			r.Message.UTF8, r.To, r.Message.Sender = true, "jürgen@example.org", "jürgen@example.org"
			x := &r.Recipients[0]
			x.Address, x.Original, x.Status, x.Reply = "用户@example.net", "utf-8;用户@example.net", "5.6.7", "550 5.6.7 ASCII only, s'il vous plaît"
		}),
		"redirect": reportOf("failure", func(r *Report) {
			r.Message.Account = "me@example.org"
			r.Message.Forwarded, r.Message.Why, r.Message.Sender = true, "redirect by line 14 of work.sieve", "stranger@example.com"
		}),
		"gone": reportOf("failure", func(r *Report) {
			r.Original, r.Full = nil, false
			r.Recipients[0].Host, r.Recipients[0].Reply, r.Recipients[0].Status = "", "the message is gone from the queue", "5.3.0"
		}),
		"hostile": reportOf("failure", func(r *Report) {
			x := &r.Recipients[0]
			x.Reply = "550 \x1b[2J--=_qrrrrrrrrrr\r\n\r\n" + strings.Repeat("x", 3000)
			x.Host, x.Status = "evil\r\nSubject: injected", "5.1.1\r\nX: y"
			r.Original = []byte("Subject: a\r\n\tb\x00 =?utf-8?q?=0D=0ABcc:_x?=\r\nMessage-ID: <a\x01@b>\r\n\r\nbody")
		}),
	}
}

func TestCompose(t *testing.T) {
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			got := r.Compose()
			path := filepath.Join("testdata", "report", name+".eml")
			if *update {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			checkReport(t, r, got)
		})
	}
}

// checkReport reads a report as a mail client does.
func checkReport(t *testing.T, r Report, text []byte) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	kind, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || parameters["report-type"] != "delivery-status" {
		t.Fatalf("%s, %v, %v", kind, parameters, err)
	}
	if m.Header.Get("Auto-Submitted") != "auto-replied" || len(m.Header["Subject"]) != 1 || m.Header["Bcc"] != nil {
		t.Errorf("header %v", m.Header)
	}
	var kinds []string
	parts := multipart.NewReader(m.Body, parameters["boundary"])
	for {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, kind)
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasSuffix(kind, "delivery-status"):
			groups := bytes.Split(bytes.TrimSpace(body), []byte("\r\n\r\n"))
			if len(groups) != 1+len(r.Recipients) {
				t.Errorf("%d groups for %d recipients:\n%s", len(groups), len(r.Recipients), body)
			}
			for _, g := range groups {
				if _, err := netmail.ReadMessage(bytes.NewReader(append(g, "\r\n\r\n"...))); err != nil {
					t.Errorf("%v in\n%s", err, g)
				}
			}
		case kind == "text/plain":
			if bytes.ContainsFunc(body, func(c rune) bool { return c == 0x1b || c == 0 }) {
				t.Errorf("control characters in %q", body)
			}
		case r.Full && !bytes.Equal(bytes.TrimRight(body, "\r\n"), bytes.TrimRight(r.Original, "\r\n")):
			t.Errorf("the mail came back as %q", body)
		}
	}
	want := 3
	if len(r.Original) == 0 {
		want = 2
	}
	if len(kinds) != want {
		t.Errorf("parts %v", kinds)
	}
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	for line := range bytes.Lines(head) {
		if len(line) > 1000 {
			t.Errorf("a line of %d octets", len(line))
		}
	}
}

// Whatever servers say and mails hold, a report stays one, with what belongs in it.
func FuzzReport(f *testing.F) {
	f.Add("550 no", "mx.example.net", "5.1.1", "you@example.net", "Subject: x\r\n\r\nbody")
	f.Add("4\r\n--=_qrrrrrrrrrr--\r\n", "\r\n\r\nX: y", "..", "ü@\u2028", "\r\n")
	f.Fuzz(func(t *testing.T, reply, host, status, address, original string) {
		if checkText(address) != nil || strings.Contains(original, "=_qrrrrrrrrrr") { // random, in real life
			return
		}
		r := reportOf("failure", func(r *Report) {
			x := &r.Recipients[0]
			x.Reply, x.Host, x.Status, x.Address = bounded(text(reply)), text(host), text(status), address
			r.Original = []byte(original)
		})
		checkReport(t, r, r.Compose())
	})
}

// What fails at many domains one after the other is one report; what hangs does not keep it for long.
func TestReportsAreCollected(t *testing.T) {
	r := newRig(t)
	r.queue(outgoing("a@one.example", "b@two.example", "c@three.example"))
	jobs := map[string]mailstore.Job{}
	for _, j := range r.take() {
		jobs[j.Domain] = j
	}
	filed := func(when string, want uint64) {
		t.Helper()
		if _, err := r.fileReports(t.Context()); err != nil { // as the goroutine does, in whatever order
			t.Error(err)
		}
		if got := r.Stats().Reports; got != want {
			t.Errorf("%s: %d reports, want %d", when, got, want)
		}
	}
	r.settle(jobs["one.example"], refused(0))
	filed("the others are being tried", 0)
	r.settle(jobs["two.example"], refused(1))
	filed("one hangs", 0)
	r.pass(collect)
	filed("it hangs for long", 1)
	r.settle(jobs["three.example"], refused(2))
	filed("that has failed, too", 2)
	var told []int
	for _, j := range r.take() {
		told = append(told, strings.Count(r.content(j.Message), "Action: failed"))
	}
	slices.Sort(told)
	if !slices.Equal(told, []int{1, 2}) {
		t.Errorf("reports about %v recipients", told)
	}
}
