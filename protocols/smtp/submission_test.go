package smtp_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
	"sluice/protocols/smtp"
)

// ourUsers are a directory with passwords: "secret" is everybody's.
type ourUsers struct{ directory }

func (d ourUsers) Authenticate(_ context.Context, login, password string) (string, error) {
	switch {
	case login == "offline":
		return "", errors.New("database is locked: /secret/path")
	case password != "secret" || d.directory[strings.TrimSuffix(login, "@example.org")] == nil:
		return "", mailstore.ErrPassword
	}
	return strings.TrimSuffix(login, "@example.org") + "@example.org", nil
}

// submitters know what accounts may send.
type submitters struct {
	mu      sync.Mutex
	sent    []mailstore.Sending
	failed  []string
	blocked string // an account
	pace    mailstore.Pace
	err     error
}

func (s *submitters) Owns(_ context.Context, account, local, domain string) (bool, error) {
	if local == "offline" {
		return false, errors.New("database is locked: /secret/path")
	}
	name, _, _ := strings.Cut(local, "+")
	return name+"@"+domain == account || account == "me@example.org" && local+"@"+domain == "info@example.org", nil
}

func (s *submitters) Addresses(_ context.Context, account string) ([]string, error) {
	return []string{account, "info@example.org"}, nil
}

func (s *submitters) Blocked(_ context.Context, account string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if account == s.blocked {
		return "stolen", nil
	}
	return "", nil
}

func (s *submitters) Reserve(_ context.Context, m mailstore.Sending) (mailstore.Pace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return mailstore.Pace{}, s.err
	}
	s.sent = append(s.sent, m)
	return s.pace, nil
}

func (s *submitters) Cancel(_ context.Context, m mailstore.Sending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = slices.DeleteFunc(s.sent, func(x mailstore.Sending) bool { return x.ID == m.ID })
	return nil
}

func (s *submitters) Failed(_ context.Context, m mailstore.Sending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, m.Recipients...)
	return nil
}

// counted returns the ids of what was counted.
func (s *submitters) counted() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sent {
		ids = append(ids, x.ID)
	}
	return ids
}

// A sentOutbox keeps what was released.
type sentOutbox struct {
	mu           sync.Mutex
	left         []mailstore.Outgoing
	texts        []string
	stage        error
	release      error
	staged, gone int
}

type sentStaged struct {
	o     *sentOutbox
	list  []mailstore.Outgoing
	texts []string
}

func (o *sentOutbox) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stage != nil {
		return nil, o.stage
	}
	s := &sentStaged{o: o, list: list}
	for _, x := range list {
		text, err := io.ReadAll(x.Content)
		if err != nil {
			return nil, err
		}
		s.texts = append(s.texts, string(text))
	}
	o.staged++
	return s, nil
}

func (s *sentStaged) IDs() (ids []string) {
	for i := range s.list {
		ids = append(ids, fmt.Sprintf("q%d", i+1))
	}
	return ids
}

func (s *sentStaged) Release(context.Context) error {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	if s.o.release != nil {
		return s.o.release
	}
	s.o.left, s.o.texts = append(s.o.left, s.list...), append(s.o.texts, s.texts...)
	return nil
}

func (s *sentStaged) Withdraw() error {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	s.o.gone++
	return nil
}

// An office is a submission door and what is behind it.
type office struct {
	*door
	submitters *submitters
	outbox     *sentOutbox
}

func openOffice(t *testing.T, change func(*door)) *office {
	t.Helper()
	o := &office{submitters: &submitters{}, outbox: &sentOutbox{}}
	o.door = open(t, func(d *door) {
		d.steps = nil
		d.cfg.Directory, d.cfg.Outbox = ourUsers{everybody}, o.outbox
		d.cfg.Submission = &smtp.Submission{
			Submitters: o.submitters, HideClient: true,
			Logins: &listen.Logins{First: time.Nanosecond, Most: time.Nanosecond, Log: d.cfg.Log},
		}
		if change != nil {
			change(d)
		}
	})
	return o
}

func plain(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const officeGreeting = `
	S: 220 mx.example.org ESMTP Service Ready
	C: EHLO laptop
	S: 250-Hello laptop
	S: 250-PIPELINING
	S: 250-8BITMIME
	S: 250-ENHANCEDSTATUSCODES
	S: 250-CHUNKING
	S: 250-SMTPUTF8
	S: 250-DSN
	S: 250-AUTH PLAIN LOGIN
	S: 250-SIZE 52428800
	S: 250 LIMITS RCPTMAX=100
`

// loggedIn is the beginning of a dialogue of me@example.org.
func loggedIn() string {
	return officeGreeting + "C: AUTH PLAIN " + plain("me", "secret") + "\nS: 235 2.7.0 you are logged in\n"
}

func TestSubmission(t *testing.T) {
	o := openOffice(t, nil)
	o.dial().talk(loggedIn() + `
		C: MAIL FROM:<Me@Example.org> RET=HDRS ENVID=a+2Bb BODY=8BITMIME
		S: 250 2.1.0 sender ok
		C: RCPT TO:<friend@elsewhere.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Friend+2Bx@elsewhere.example
		S: 250 2.1.5 recipient ok
		C: RCPT TO:<you@example.org>
		S: 250 2.1.5 recipient ok
		C: RCPT TO:<YOU@example.org>
		S: 250 2.1.5 recipient ok
		C: RCPT TO:<nobody@example.org>
		S: 550 5.1.1 no such user here
		C: RCPT TO:<postmaster>
		S: 250 2.1.5 recipient ok
		C: RCPT TO:<friend>
		S: 553 5.1.3 the recipient's address needs a domain
		C: DATA
		S: 354 *
		C: Return-Path: <ceo@bank.example>
		C: Authentication-Results: mx.example.org; dkim=pass
		C: X-Sluice-Id: id7 forged
		C: From: Me <me@example.org>
		C: To: friend@elsewhere.example
		C: Bcc: you@example.org,
		C:  postmaster@example.org
		C: Subject: hello
		C:
		C: ..dot
		C: .
		S: 250 2.0.0 accepted as id1
		C: QUIT
		S: 221 *
		S: EOF
	`)
	if len(o.outbox.left) != 1 {
		t.Fatalf("%d messages have left", len(o.outbox.left))
	}
	x := o.outbox.left[0]
	want := "Received: by mx.example.org with ESMTPA id id1; Sun, 22 Nov 2026 12:00:00\r\n +0000\r\n" +
		"From: Me <me@example.org>\r\nTo: friend@elsewhere.example\r\nSubject: hello\r\n" +
		"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <id1@mx.example.org>\r\n\r\n.dot\r\n"
	if o.outbox.texts[0] != want {
		t.Errorf("left\n%s\nwant\n%s", o.outbox.texts[0], want)
	}
	if x.ID != "id1" || x.Account != "me@example.org" || x.Why != "submission" || x.Sender != "Me@Example.org" || x.EnvelopeID != "a+b" ||
		x.Return != "hdrs" || x.EightBit || x.UTF8 || x.Forwarded || x.Hold != "" || !x.NotBefore.IsZero() {
		t.Errorf("left %+v", x)
	}
	var to []string
	for _, r := range x.Recipients {
		to = append(to, fmt.Sprint(r))
	}
	if got := strings.Join(to, " "); got !=
		"{friend@elsewhere.example [success delay] rfc822;Friend+x@elsewhere.example} {you@example.org [] } {me@example.org [] }" {
		t.Errorf("to %s", got)
	}
	r, _ := o.journal.Last()
	if r.Door != pipeline.Submission || r.Client.Login != "me@example.org" || r.Reply.Code != 250 || len(r.Recipients) != 5 {
		t.Fatalf("record %+v", r)
	}
	for i, want := range []pipeline.Disposition{"queued", "queued", "refused", "queued", "refused"} {
		if r.Recipients[i].Disposition != want {
			t.Errorf("recipient %d: %s", i, r.Recipients[i].Disposition)
		}
	}
	if got := o.submitters.sent; len(got) != 1 || got[0].Account != "me@example.org" || len(got[0].Recipients) != 3 || !got[0].Client.IsLoopback() {
		t.Errorf("counted %+v", got)
	}
	if got := strings.Join(o.submitters.failed, " "); got != "nobody@example.org" {
		t.Errorf("failed %q", got)
	}
}

func TestLogin(t *testing.T) {
	tests := []struct {
		name, dialogue string
		change         func(*door)
	}{
		{name: "nothing without it", dialogue: officeGreeting + `
			C: MAIL FROM:<me@example.org>
			S: 530 5.7.0 authentication required
			C: RCPT TO:<you@example.org>
			S: 503 *
			C: DATA
			S: 503 *
			R: "BDAT 4 LAST\r\nabcd"
			S: 503 *
			C: VRFY me
			S: 252 *
			C: EXPN team
			S: 502 *
		`},
		{name: "PLAIN in two steps", dialogue: officeGreeting + `
			C: auth plain
			S: 334 *
			C: ` + plain("me@example.org", "secret") + `
			S: 235 2.7.0 *
			C: AUTH PLAIN ` + plain("me", "secret") + `
			S: 503 5.5.1 *
			C: MAIL FROM:<me@example.org>
			S: 250 *
			C: EHLO again
			S: 250-Hello again
		`},
		{name: "LOGIN", dialogue: officeGreeting + `
			C: AUTH LOGIN
			S: 334 ` + b64("Username:") + `
			C: ` + b64("me") + `
			S: 334 ` + b64("Password:") + `
			C: ` + b64("secret") + `
			S: 235 2.7.0 *
		`},
		{name: "LOGIN with an initial response", dialogue: officeGreeting + `
			C: AUTH LOGIN ` + b64("me") + `
			S: 334 ` + b64("Password:") + `
			C: ` + b64("secret") + `
			S: 235 2.7.0 *
		`},
		{name: "what is wrong", dialogue: officeGreeting + `
			C: AUTH
			S: 504 5.5.4 the mechanisms are PLAIN LOGIN
			C: AUTH CRAM-MD5
			S: 504 5.5.4 *
			C: AUTH PLAIN ????
			S: 501 5.5.2 *
			C: AUTH PLAIN =
			S: 501 5.5.2 *
			C: AUTH PLAIN ` + b64("me\x00secret") + `
			S: 501 5.5.2 *
			C: AUTH PLAIN
			S: 334 *
			C: *
			S: 501 5.7.0 *
			C: AUTH LOGIN
			S: 334 *
			C: *
			S: 501 5.7.0 *
			C: AUTH LOGIN ????
			S: 501 5.5.2 *
			C: MAIL FROM:<me@example.org>
			S: 530 *
		`},
		{name: "wrong passwords end the connection", dialogue: officeGreeting + `
			C: AUTH PLAIN ` + plain("me", "wrong") + `
			S: 535 5.7.8 wrong name or password
			C: AUTH PLAIN ` + plain("nobody", "secret") + `
			S: 535 5.7.8 wrong name or password
			C: AUTH PLAIN ` + b64("you\x00me\x00secret") + `
			S: 535 5.7.8 nobody acts for somebody else here
			S: 421 4.7.0 too many failed logins
			S: EOF
		`},
		{name: "a database that is locked", dialogue: officeGreeting + `
			C: AUTH PLAIN ` + plain("offline", "secret") + `
			S: 454 4.7.0 *
		`},
		{name: "before the greeting", dialogue: `
			S: 220 *
			C: AUTH PLAIN ` + plain("me", "secret") + `
			S: 503 5.5.1 EHLO first
		`},
		{name: "a line without end", dialogue: officeGreeting + `
			C: AUTH PLAIN
			S: 334 *
			C: ` + strings.Repeat("a", 3000) + `
			S: 500 5.5.2 *
			S: EOF
		`},
		{name: "in cleartext from elsewhere", change: func(d *door) { d.from = "192.0.2.1:25" }, dialogue: `
			S: 220 *
			C: EHLO laptop
			S: 250-Hello laptop
			S: 250-PIPELINING
			S: 250-8BITMIME
			S: 250-ENHANCEDSTATUSCODES
			S: 250-CHUNKING
			S: 250-SMTPUTF8
			S: 250-DSN
			S: 250-SIZE 52428800
			S: 250 LIMITS RCPTMAX=100
			C: AUTH PLAIN ` + plain("me", "secret") + `
			S: 538 5.7.11 begin TLS first
		`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := openOffice(t, tt.change)
			o.dial().talk(tt.dialogue)
			if strings.Contains(o.log.String(), "secret ") || len(o.outbox.left) > 0 {
				t.Errorf("log: %s", o.log)
			}
		})
	}
}

// TLS begins a new life (RFC 3207, 4.2), and so does XCLIENT: who had logged in before has not now. A trusted peer may
// say where its client is, but not that it has logged in.
func TestLoginIsForgotten(t *testing.T) {
	o := openOffice(t, func(d *door) {
		trust(d)
		d.opts.TLS = certificate(t)
	})
	c := o.dial()
	c.talk(`
		S: 220 *
		C: HELO laptop
		S: 250 *
		C: AUTH PLAIN ` + plain("me", "secret") + `
		S: 235 *
		C: STARTTLS
		S: 220 *
	`)
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	c = newClient(t, secure)
	c.talk(`
		C: HELO laptop
		S: 250 *
		C: MAIL FROM:<me@example.org>
		S: 530 5.7.0 *
		C: AUTH PLAIN ` + plain("me", "secret") + `
		S: 235 *
		C: XCLIENT ADDR=192.0.2.7 LOGIN=you@example.org HELO=phone PROTO=ESMTP
		S: 220 *
		C: MAIL FROM:<me@example.org>
		S: 530 5.7.0 *
		C: HELO phone
		S: 250 *
		C: MAIL FROM:<you@example.org>
		S: 530 5.7.0 *
		C: AUTH PLAIN ` + plain("me", "secret") + `
		S: 235 *
		C: MAIL FROM:<me@example.org>
		S: 250 *
		C: RCPT TO:<friend@elsewhere.example>
		S: 250 *
		C: DATA
		S: 354 *
		C: From: me@example.org
		C:
		C: .
		S: 250 *
	`)
	if got := o.submitters.sent; len(got) != 1 || got[0].Client != netip.MustParseAddr("192.0.2.7") || got[0].Account != "me@example.org" {
		t.Errorf("counted %+v", got)
	}
}

func TestSenderBelongsToLogin(t *testing.T) {
	const no = "; you may be me@example.org, info@example.org"
	tests := []struct{ name, from, header, reply string }{
		{"own", "me@example.org", "From: me@example.org", "250"},
		{"subaddress and alias", "me+x@example.org", "From: Info <info@example.org>\nSender: ME@example.org", "250"},
		{"somebody else in MAIL", "you@example.org", "", "550 5.7.1 you cannot be the sender you@example.org" + no},
		{"elsewhere in MAIL", "me@elsewhere.example", "", "550 5.7.1 you cannot be the sender me@elsewhere.example" + no},
		{"no domain", "me", "", "550 5.7.1 you cannot be the sender me" + no},
		{"nobody knows", "offline@example.org", "", "451 4.3.0 *"},
		{"somebody else in From", "me@example.org", "From: ceo@bank.example", "550 5.7.1 you cannot be the author ceo@bank.example" + no},
		{"two authors", "me@example.org", "From: me@example.org, ceo@bank.example", "550 5.7.1 *ceo@bank.example*"},
		{"hidden in a comment's shadow", "me@example.org", "From: me@example.org (x) <ceo@bank.example>", "550 5.7.1 *"},
		{"hidden in the name", "me@example.org", "From: \"ceo@bank.example\" <me@example.org>", "250"},
		{"hidden in a group", "me@example.org", "From: all: me@example.org, ceo@bank.example;", "550 5.7.1 *"},
		{"two fields", "me@example.org", "From: me@example.org\nFrom: ceo@bank.example", "550 5.6.0 the message has more than one From field"},
		{"none", "me@example.org", "To: you@example.org", "550 5.6.0 the message has no From field"},
		{"empty", "me@example.org", "From:", "550 5.6.0 there is no address in the From field"},
		{"a name only", "me@example.org", "From: me", "550 5.7.1 *"},
		{"somebody else in Sender", "me@example.org", "From: me@example.org\nSender: ceo@bank.example", "550 5.7.1 you cannot be the sender ceo@bank.example" + no},
		{"no header", "me@example.org", "", "550 5.6.0 *"},
		{"a receipt", "", "From: me@example.org\nContent-Type: multipart/report; boundary=x;\n report-type=\"disposition-notification\"", "250"},
		{"a receipt of somebody else", "", "From: ceo@bank.example\nContent-Type: multipart/report; report-type=disposition-notification", "550 5.7.1 *"},
		{"no sender", "", "From: me@example.org\nContent-Type: multipart/report; report-type=delivery-status", "550 5.7.1 only a receipt *"},
		{"in circles", "me@example.org", "From: me@example.org" + strings.Repeat("\nReceived: x", 50), "554 5.4.6 *"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := openOffice(t, nil)
			c := o.dial()
			c.talk(loggedIn())
			reply := tt.reply
			if reply == "250" {
				reply = "250 2.0.0 accepted as id1"
			}
			early := strings.Contains(tt.name, "in MAIL") || tt.from == "me" || strings.Contains(reply, "451")
			if early {
				c.talk("C: MAIL FROM:<" + tt.from + ">\nS: " + reply + "\nC: RCPT TO:<you@example.org>\nS: 503 *\n")
				if log := o.log.String(); !strings.Contains(log, `msg="sender refused" door=submission`) || !strings.Contains(log, "from="+tt.from) {
					t.Errorf("the operator has not heard of it: %s", log)
				}
				return
			}
			c.talk("C: MAIL FROM:<" + tt.from + ">\nS: 250 *\nC: RCPT TO:<you@example.org>\nS: 250 *\nC: DATA\nS: 354 *\n")
			for line := range strings.SplitSeq(tt.header, "\n") {
				c.talk("C: " + line + "\n")
			}
			c.talk("C:\nC: body\nC: .\nS: " + reply + "\nC: NOOP\nS: 250 *\n")
			if got := len(o.outbox.left); (got == 1) != (tt.reply == "250") {
				t.Errorf("%d have left", got)
			}
			r, _ := o.journal.Last()
			if r == nil {
				t.Fatal("no record")
			}
			if tt.reply == "250" {
				return
			}
			to, said := r.Recipients[0], strings.Split(reply, "*")[0]
			if r.End != "refused" || r.Note == "" || r.Reply != to.Reply || !strings.HasPrefix(r.Reply.String(), said) ||
				to.Disposition != pipeline.Refused || !to.ByDoor || r.SHA256 == "" || r.Size == 0 {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// An account that is blocked sends nothing more, also where it has logged in before.
func TestBlocked(t *testing.T) {
	o := openOffice(t, nil)
	c := o.dial()
	c.talk(loggedIn())
	o.submitters.mu.Lock()
	o.submitters.blocked = "me@example.org"
	o.submitters.mu.Unlock()
	c.talk("C: MAIL FROM:<me@example.org>\nS: 525 5.7.13 *\n")
	o.dial().talk(officeGreeting + "C: AUTH PLAIN " + plain("me", "secret") + "\nS: 525 5.7.13 *\nC: MAIL FROM:<me@example.org>\nS: 530 *\n")
	if !strings.Contains(o.log.String(), "why=stolen") {
		t.Error("the operator has not heard of it")
	}
}

// letter is a message of me@example.org to some recipients.
func letter(reply string, to ...string) string {
	s := "C: MAIL FROM:<me@example.org>\nS: 250 *\n"
	for _, x := range to {
		s += "C: RCPT TO:<" + x + ">\nS: 250 *\n"
	}
	return s + "C: DATA\nS: 354 *\nC: From: me@example.org\nC: Bcc: you@example.org\nC: Subject: x\nC:\nC: body\nC: .\nS: " + reply + "\nC: NOOP\nS: 250 *\n"
}

// What steps for outgoing mail say counts for a login, also what looks at the envelope only.
func TestOutgoingVerdicts(t *testing.T) {
	byAddress := pipelinetest.Step("rules", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Can: []pipeline.Final{
			{Action: pipeline.Discard}, {Action: pipeline.Quarantine}, {Action: pipeline.TempFail}, {Action: pipeline.Reject},
		}},
		Says: func(_ context.Context, v pipeline.View) (r pipeline.Result, err error) {
			switch v.Rcpt.Address.Local {
			case "hold":
				r.Verdict = pipeline.Verdict{Action: pipeline.Quarantine, By: "suspicious"}
			case "discard":
				r.Verdict.Action = pipeline.Discard
			case "reject":
				r.Verdict = pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "no"}}
			case "later":
				r.Verdict = pipeline.Verdict{Action: pipeline.TempFail, Reply: pipeline.Reply{Code: 451, Enhanced: "4.7.1", Text: "later"}}
			case "marked":
				r.Hits = []pipeline.Hit{{Name: "viagra", Score: 7.5}}
				r.Edits = []pipeline.Edit{{Name: "X-Footer", Value: "yes"}, {Name: "Subject", Delete: true}}
			}
			return r, nil
		},
	})
	tests := []struct{ to, reply, left, record string }{
		{"a b", "250 *", "a,b", "queued queued"},
		{"a hold", "250 *", "a hold!rules/suspicious", "queued quarantined"},
		{"discard", "250 *", "", "discarded"},
		{"discard a", "250 *", "a", "discarded queued"},
		{"a reject", "550 5.7.1 no", "", "refused refused"},
		{"hold later", "451 4.7.1 later", "", "postponed postponed"},
		{"a marked", "250 *", "a marked", "queued queued"},
	}
	for _, tt := range tests {
		t.Run(tt.to, func(t *testing.T) {
			o := openOffice(t, func(d *door) { d.steps = []pipeline.Step{byAddress} })
			var to []string
			for _, x := range strings.Fields(tt.to) {
				to = append(to, x+"@elsewhere.example")
			}
			o.dial().talk(loggedIn() + letter(tt.reply, to...))
			var left []string
			for _, x := range o.outbox.left {
				var names []string
				for _, r := range x.Recipients {
					name, _, _ := strings.Cut(r.Address, "@")
					names = append(names, name)
				}
				s := strings.Join(names, ",")
				if x.Hold != "" {
					s += "!" + x.Hold
				}
				left = append(left, s)
			}
			if got := strings.Join(left, " "); got != tt.left {
				t.Errorf("left %q, want %q", got, tt.left)
			}
			for i, text := range o.outbox.texts {
				marked := strings.Contains(left[i], "marked")
				if strings.Contains(text, "Bcc") || strings.Contains(text, "X-Spam") || strings.Contains(text, "X-Sluice") ||
					strings.Contains(text, "X-Footer: yes\r\n") != marked || strings.Contains(text, "Subject") == marked {
					t.Errorf("left\n%s", text)
				}
			}
			r, _ := o.journal.Last()
			var got []string
			for _, x := range r.Recipients {
				got = append(got, string(x.Disposition))
				if (x.Disposition == pipeline.Held) != (x.Held != "") {
					t.Errorf("%s is held as %q", x.Address, x.Held)
				}
			}
			if got := strings.Join(got, " "); got != tt.record {
				t.Errorf("recorded %q, want %q", got, tt.record)
			}
			if counted := len(o.submitters.counted()) == 1; counted != (tt.left != "") {
				t.Errorf("counted: %v", counted)
			}
		})
	}
}

func TestEnvelopeRefusalsCountForLogins(t *testing.T) {
	o := openOffice(t, func(d *door) {
		d.steps = []pipeline.Step{pipelinetest.Step("limit", pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputRecipient, Can: []pipeline.Final{{Action: pipeline.Reject}}},
			Says:  says(pipeline.Result{Verdict: pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "enough"}}}),
		})}
	})
	o.dial().talk(loggedIn() + "C: MAIL FROM:<me@example.org>\nS: 250 *\nC: RCPT TO:<a@elsewhere.example>\nS: 550 5.7.1 enough\n")
}

// Nothing is taken that would not survive, and what was not taken is not counted.
func TestQueueFails(t *testing.T) {
	broken := errors.New("write /secret/path: disk on fire")
	tests := []struct {
		name, reply string
		change      func(*office)
		gone        int
	}{
		{"counting", "451 4.3.0 *", func(o *office) { o.submitters.err = broken }, 0},
		{"staging", "451 4.3.0 *", func(o *office) { o.outbox.stage = broken }, 0},
		{"a full queue", "452 4.3.1 *", func(o *office) { o.outbox.stage = fmt.Errorf("q: %w", mailstore.ErrQueueFull) }, 0},
		{"a full disk", "452 4.3.1 insufficient system storage, *", func(o *office) { o.outbox.stage = fmt.Errorf("q: %w", syscall.ENOSPC) }, 0},
		{"letting go", "451 4.3.0 *", func(o *office) { o.outbox.release = broken }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := openOffice(t, nil)
			tt.change(o)
			c := o.dial()
			c.talk(loggedIn() + letter(tt.reply, "a@elsewhere.example"))
			r, _ := o.journal.Last()
			if len(o.outbox.left) > 0 || len(o.submitters.counted()) > 0 || o.outbox.gone != tt.gone || r.Recipients[0].Disposition != pipeline.Postponed {
				t.Errorf("left %d, counted %d, withdrawn %d, recorded %s", len(o.outbox.left), len(o.submitters.counted()), o.outbox.gone,
					r.Recipients[0].Disposition)
			}
			o.submitters.err, o.outbox.stage, o.outbox.release = nil, nil, nil
			c.talk(letter("250 *", "a@elsewhere.example"))
			if len(o.outbox.left) != 1 {
				t.Error("it does not recover")
			}
		})
	}
}

func TestPace(t *testing.T) {
	later := noon.Add(time.Hour)
	o := openOffice(t, nil)
	o.submitters.pace = mailstore.Pace{NotBefore: later, Why: "201 recipients in an hour"}
	c := o.dial()
	c.talk(loggedIn() + letter("250 *", "a@elsewhere.example"))
	r, _ := o.journal.Last()
	if x := r.Recipients[0]; !o.outbox.left[0].NotBefore.Equal(later) || x.Disposition != pipeline.Queued ||
		x.Note != "slowed, leaves at 2026-11-22 13:00:00 UTC at the earliest: 201 recipients in an hour" {
		t.Errorf("left %v, recorded %+v", o.outbox.left[0].NotBefore, x)
	}
	o.submitters.pace = mailstore.Pace{Hold: "601 recipients in an hour"}
	c.talk(letter("250 *", "a@elsewhere.example"))
	r, _ = o.journal.Last()
	if x := r.Recipients[0]; o.outbox.left[1].Hold != "601 recipients in an hour" || x.Note != "held in the queue: 601 recipients in an hour" {
		t.Errorf("left %+v, recorded %+v", o.outbox.left[1], x)
	}
}

// The copy of what was sent has what only its sender knows. Whether it can be filed is no matter of the mail.
func TestSavedCopy(t *testing.T) {
	for _, fails := range []bool{false, true} {
		o := openOffice(t, func(d *door) {
			d.cfg.Store = sentStore{d.store}
			d.cfg.Submission.SaveSent = func(account string) bool { return account == "me@example.org" }
			if fails {
				d.store.err = errors.New("disk on fire")
			}
		})
		o.dial().talk(loggedIn() + letter("250 *", "a@elsewhere.example"))
		got := o.store.got("me@example.org")
		switch {
		case fails && (len(got) > 0 || len(o.outbox.left) != 1 || !strings.Contains(o.log.String(), "no copy among the sent mail")):
			t.Errorf("filed %v, left %d, log %s", got, len(o.outbox.left), o.log)
		case !fails && (len(got) != 1 || got[0].folder != "Gesendet" || got[0].flags[0] != `\Seen` || !strings.Contains(got[0].text, "\r\nBcc: you@example.org\r\n\r\nbody")):
			t.Errorf("filed %+v", got)
		}
	}
}

// sentStore has a folder for sent mail.
type sentStore struct{ *store }

func (s sentStore) Account(context.Context, string) (mailstore.Account, error) {
	return sentAccount{}, nil
}

type sentAccount struct{ mailstore.Account }

func (sentAccount) Folders(context.Context) ([]mailstore.FolderInfo, error) {
	return []mailstore.FolderInfo{{Name: "INBOX"}, {Name: "Gesendet", Use: `\Sent`}}, nil
}

func (sentAccount) Close() error { return nil }

// Where the site wants it the trace says who sent the mail and from where.
func TestShownClient(t *testing.T) {
	o := openOffice(t, func(d *door) { d.cfg.Submission.HideClient = false })
	o.dial().talk(loggedIn() + letter("250 *", "a@elsewhere.example"))
	want := "Received: from laptop ([127.0.0.1]) (authenticated as me@example.org) by\r\n mx.example.org with ESMTPA id id1;"
	if !strings.HasPrefix(o.outbox.texts[0], want) {
		t.Errorf("left\n%s", o.outbox.texts[0])
	}
}

func TestEightBitIsSeen(t *testing.T) {
	o := openOffice(t, nil)
	o.dial().talk(loggedIn() + `
		C: MAIL FROM:<me@example.org>
		S: 250 *
		C: RCPT TO:<a@elsewhere.example>
		S: 250 *
		R: "BDAT 36 LAST\r\nFrom: me@example.org\r\n\r\nhell\xc3\xb6 ...\r\n"
		S: 250 *
	`)
	o.dial().talk(loggedIn() + letter("250 *", "a@elsewhere.example"))
	for _, x := range o.outbox.left {
		if (x.ID == "id1") != x.EightBit {
			t.Errorf("%s: %v", x.ID, x.EightBit)
		}
	}
}

// Many clients at once do not get into each other's mail.
func TestManySenders(t *testing.T) {
	o := openOffice(t, nil)
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			c := o.dial()
			c.talk(loggedIn())
			for n := range 3 {
				c.talk(letter("250 *", fmt.Sprintf("r%d.%d@elsewhere.example", i, n)))
			}
		})
	}
	wait.Wait()
	seen := map[string]bool{}
	for _, x := range o.outbox.left {
		seen[x.Recipients[0].Address] = len(x.Recipients) == 1
	}
	if ids := o.submitters.counted(); len(seen) != 30 || len(ids) != 30 {
		t.Errorf("%d have left, %d are counted", len(seen), len(ids))
	}
}
