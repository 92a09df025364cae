package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestOneMail(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<Sender@Client.example>
		S: 250 2.1.0 sender ok
		C: RCPT TO:<Me+Tag@Example.ORG>
		S: 250 2.1.5 recipient ok
		C: DATA
		S: 354 Go ahead. End your data with <CR><LF>.<CR><LF>
		C: Subject: hello
		C:
		C: ..dot
		C: .
		S: 250 2.0.0 accepted as id1
		C: QUIT
		S: 221 2.0.0 Bye
		S: EOF
	`)
	mail := d.store.got("me@example.org")
	if len(mail) != 1 {
		t.Fatalf("%d mails", len(mail))
	}
	want := "Return-Path: <Sender@Client.example>\r\n" +
		"Delivered-To: me+tag@example.org\r\n" +
		"X-Sluice-Id: id1\r\n" +
		"Received: from client.example ([127.0.0.1]) by mx.example.org with SMTP id id1\r\n" +
		" for <me+tag@example.org>; Sun, 22 Nov 2026 12:00:00 +0000\r\n" +
		"Subject: hello\r\n\r\n.dot\r\n"
	if mail[0].text != want {
		t.Errorf("got\n%s\nwant\n%s", mail[0].text, want)
	}
	r, _ := d.journal.Last()
	if r.ID != "id1" || r.End != "done" || r.Reply.Code != 250 || r.Recipients[0].File != "file-id1" || r.Greeting != "client.example" ||
		r.Client.Addr.String() != "127.0.0.1" || r.Recipients[0].Account != "me@example.org" || r.Size == 0 {
		t.Errorf("record %+v", r)
	}
}

func TestGreetings(t *testing.T) {
	tests := []struct {
		name, dialogue string
		change         func(*door)
	}{
		{name: "EHLO", dialogue: `
			S: 220 mx.example.org ESMTP Service Ready
			C: EHLO client.example
			S: 250-Hello client.example
			S: 250-PIPELINING
			S: 250-8BITMIME
			S: 250-ENHANCEDSTATUSCODES
			S: 250-CHUNKING
			S: 250-SMTPUTF8
			S: 250-SIZE 52428800
			S: 250 LIMITS RCPTMAX=100
		`},
		{name: "LHLO", change: lmtp, dialogue: lmtpGreeting},
		{name: "LHLO at SMTP", dialogue: `
			S: 220 *
			C: LHLO x
			S: 500 5.5.1 *
		`},
		{name: "EHLO at LMTP", change: lmtp, dialogue: `
			S: 220 *
			C: EHLO x
			S: 500 5.5.1 *
		`},
		{name: "nothing said", dialogue: `
			S: 220 *
			C: EHLO
			S: 501 5.5.2 *
			C: MAIL FROM:<>
			S: 503 5.5.1 *
		`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { open(t, tt.change).dial().talk(tt.dialogue) })
	}
}

// The doors table, for SMTP.
func TestVerdictsAtSMTP(t *testing.T) {
	tests := []struct {
		rcpts, reply, delivered, held, dropped string
	}{
		{rcpts: "me", reply: "250 2.0.0 accepted as id1", delivered: "me"},
		{rcpts: "me keep", reply: "250 2.0.0 accepted as id1", delivered: "keep me"},
		{rcpts: "discard", reply: "250 2.0.0 accepted as id1", dropped: "discard"},
		{rcpts: "hold", reply: "250 2.0.0 accepted as id1", held: "hold"},
		{rcpts: "me discard hold", reply: "250 2.0.0 accepted as id1", delivered: "me", held: "hold", dropped: "discard"},
		{rcpts: "reject", reply: "550 5.7.1 no, says reject"},
		{rcpts: "reject2 reject", reply: "550 5.7.1 no, says reject2"},
		{rcpts: "me reject", reply: "250 2.0.0 accepted as id1", delivered: "me", held: "reject"},
		{rcpts: "me reject hold", reply: "250 2.0.0 accepted as id1", delivered: "me", held: "hold reject"},
		{rcpts: "tempfail", reply: "451 4.7.1 come again"},
		{rcpts: "me hold discard tempfail", reply: "451 4.7.1 come again"},
		{rcpts: "reject tempfail", reply: "451 4.7.1 come again"},
	}
	for _, tt := range tests {
		t.Run(tt.rcpts, func(t *testing.T) {
			d := open(t, nil)
			c := d.dial()
			c.talk(greeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\n")
			for _, r := range strings.Fields(tt.rcpts) {
				c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
			}
			c.talk("C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: body\nC: .\nS: " + tt.reply + "\nC: NOOP\nS: 250 *\n")
			if got := d.store.all(); got != tt.delivered {
				t.Errorf("delivered %q, want %q", got, tt.delivered)
			}
			if got := d.held.held(); got != tt.held {
				t.Errorf("held %q, want %q", got, tt.held)
			}
			r, _ := d.journal.Last()
			if r == nil || r.Reply.String() != tt.reply {
				t.Fatalf("record %+v", r)
			}
			for _, x := range r.Recipients {
				name, _, _ := strings.Cut(x.Account, "@")
				want := pipeline.Refused
				switch {
				case strings.HasPrefix(tt.reply, "451"):
					want = pipeline.Postponed
				case strings.Contains(tt.delivered, name):
					want = pipeline.Delivered
				case tt.held != "" && strings.Contains(tt.held, name):
					want = pipeline.Held
				case tt.dropped == name:
					want = pipeline.Dropped
				}
				if x.Disposition != want || want == pipeline.Held && x.Held == "" || want == pipeline.Delivered && x.File == "" {
					t.Errorf("%s: recorded %q (held %q, file %q), want %q", name, x.Disposition, x.Held, x.File, want)
				}
			}
		})
	}
}

func TestRecipients(t *testing.T) {
	tests := []struct{ rcpt, reply, delivered string }{
		{"<me@example.org>", "250 2.1.5 recipient ok", "me"},
		{"me@example.org", "250 2.1.5 recipient ok", "me"},
		{"<@relay.example,@b.example:me@example.org>", "250 2.1.5 recipient ok", "me"},
		{`<"me"@example.org>`, "250 2.1.5 recipient ok", "me"},
		{"<postmaster>", "250 2.1.5 recipient ok", "me"},
		{"<PostMaster>", "250 2.1.5 recipient ok", "me"},
		{"<info@example.org>", "250 2.1.5 recipient ok", "me"},
		{"<team@example.org>", "250 2.1.5 recipient ok", "me you"},
		{"<some@example.org>", "452 4.2.2 mailbox full", ""},
		{"<me>", "250 2.1.5 recipient ok", "me"}, // this directory knows
		{"<nobody>", "550 5.1.1 no such user here", ""},
		{"<nobody@example.org>", "550 5.1.1 no such user here", ""},
		{"<deleted@example.org>", "550 5.1.1 no such user here", ""},
		{"<me@elsewhere.example>", "550 5.7.1 relaying denied", ""},
		{`<"me@elsewhere.example"@example.org>`, "550 5.1.1 no such user here", ""},
		{"<offline@example.org>", "451 4.3.0 temporary failure, please try again later", ""},
		{"<panic@example.org>", "451 4.3.0 temporary failure, please try again later", ""},
		{"<full@example.org>", "452 4.2.2 mailbox full", ""},
		{"<early@example.org>", "550 5.7.1 early", ""},
		{"<a/b@example.org>", "550 5.1.1 no such user here", ""},
		{"<../me@example.org>", "550 5.1.1 no such user here", ""},
		{"<m..e@example.org>", "550 5.1.1 no such user here", ""},
		{"<.me@example.org>", "550 5.1.1 no such user here", ""},
		{"<>", "501 5.1.3 *", ""},
		{"<me@example.org", "501 5.1.3 *", ""},
		{"<me@example.org> NOTIFY=NEVER", "555 5.5.4 *", ""},
		{"<ümlaut@example.org>", "553 5.6.7 that address needs SMTPUTF8", ""},
		{"<me@>", "553 5.1.3 that is no address", ""},
		{"<me@a@example.org>", "553 5.1.3 that is no address", ""},
		{`<m"e"@example.org>`, "553 5.1.3 that is no address", ""},
		{"<me,you@example.org>", "553 5.1.3 that is no address", ""},
		{`<"me\"@x"@example.org>`, "550 5.1.1 no such user here", ""},
	}
	for _, tt := range tests {
		t.Run(tt.rcpt, func(t *testing.T) {
			d := open(t, nil)
			c := d.dial()
			c.talk(greeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\nC: RCPT TO:" + tt.rcpt + "\nS: " + tt.reply + "\n")
			if tt.delivered == "" {
				c.talk("C: DATA\nS: 503 5.5.1 *\nC: RSET\nS: 250 *\n")
			} else {
				c.talk("C: DATA\nS: 354 *\nC: .\nS: 250 2.0.0 accepted as id1\n")
			}
			if got := d.store.all(); got != tt.delivered {
				t.Errorf("delivered %q, want %q", got, tt.delivered)
			}
			if strings.Contains(tt.reply, "temporary") && !strings.Contains(d.log.String(), "level=ERROR") {
				t.Error("the operator has not heard of it")
			}
		})
	}
}

// An alias is answered once: 250 says that all of its accounts have the mail. Where one of them cannot have it now the
// client has to keep it for all of them.
func TestAliasOfWhichOneIsPostponed(t *testing.T) {
	tests := []struct {
		name, rcpts, delivered string
		change                 func(*door)
	}{
		{name: "a full mailbox", rcpts: "<you@example.org> 250|<some@example.org> 452", delivered: "you"},
		{name: "a full mailbox at LMTP", rcpts: "<some@example.org> 452|<me@example.org> 250", delivered: "me", change: lmtp},
		{name: "asked to come again", rcpts: "<later@example.org> 451|<you@example.org> 250", delivered: "you"},
		{name: "one is named by itself too", rcpts: "<later@example.org> 451|<me@example.org> 250", delivered: "me"},
		{name: "one was named before", rcpts: "<me@example.org> 250|<later@example.org> 451", delivered: "me"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, tt.change)
			c, hello := d.dial(), greeting
			if tt.change != nil {
				hello = lmtpGreeting
			}
			c.talk(hello + "C: MAIL FROM:<s@client.example>\nS: 250 *\n")
			for r := range strings.SplitSeq(tt.rcpts, "|") {
				to, code, _ := strings.Cut(r, " ")
				c.talk("C: RCPT TO:" + to + "\nS: " + code + " *\n")
			}
			c.talk("C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: body\nC: .\nS: 250 *\nC: NOOP\nS: 250 *\n")
			if got := d.store.all(); got != tt.delivered {
				t.Errorf("delivered %q, want %q", got, tt.delivered)
			}
			r, _ := d.journal.Last()
			for _, x := range r.Recipients {
				named := x.Address.Local == tt.delivered
				if got := x.Disposition == pipeline.Delivered; got != named || !got && x.Reply.Code/100 != 4 {
					t.Errorf("%s for %s: recorded %q, told %v", x.Address, x.Account, x.Disposition, x.Reply)
				}
			}
		})
	}
}

// Each address is decided about, also where several lead to one account: what is refused for one is none of the other's
// business. The account gets one copy.
func TestAddressesOfOneAccount(t *testing.T) {
	for _, tt := range []struct{ rcpts, delivered, record string }{
		{"me info", "me", "me:delivered info:delivered"},
		{"me me ME", "me", "me:delivered"},
		{"private info", "me", "private:quarantined info:delivered"},
		{"info private", "me", "info:delivered private:quarantined"},
		{"private postmaster", "me", "private:quarantined postmaster:delivered"},
		{"team me", "me you", "team:delivered team:delivered me:delivered"},
	} {
		t.Run(tt.rcpts, func(t *testing.T) {
			d := open(t, func(d *door) {
				d.steps = []pipeline.Step{pipelinetest.Step("rules", pipelinetest.Stage{
					Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Can: []pipeline.Final{{Action: pipeline.Reject}}},
					Says: func(_ context.Context, v pipeline.View) (r pipeline.Result, err error) {
						if v.Rcpt.Address.Local == "private" {
							r.Verdict.Action = pipeline.Reject
						}
						return r, nil
					},
				})}
			})
			c := d.dial()
			c.talk(greeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\n")
			for _, r := range strings.Fields(tt.rcpts) {
				c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
			}
			c.talk("C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: body\nC: .\nS: 250 *\nC: NOOP\nS: 250 *\n")
			if got := d.store.all(); got != tt.delivered {
				t.Errorf("delivered %q, want %q", got, tt.delivered)
			}
			r, _ := d.journal.Last()
			var got []string
			for _, x := range r.Recipients {
				got = append(got, x.Address.Local+":"+string(x.Disposition))
				if x.Disposition == pipeline.Delivered && x.File == "" {
					t.Errorf("%s: no file", x.Address)
				}
			}
			if got := strings.Join(got, " "); got != tt.record {
				t.Errorf("recorded %q, want %q", got, tt.record)
			}
		})
	}
}

func TestRefusedRecipientsAreRecorded(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example> SIZE=1000
		S: 250 *
		C: RCPT TO:<nobody@example.org>
		S: 550 5.1.1 *
		C: RCPT TO:<full@example.org>
		S: 452 4.2.2 *
		C: RCPT TO:<x@elsewhere.example>
		S: 550 5.7.1 *
		C: QUIT
		S: 221 *
		S: EOF
	`)
	_ = d.l.Close()
	<-d.served // the connection has ended
	d.served <- nil
	r, _ := d.journal.Last()
	if r == nil || len(r.Recipients) != 3 || r.End != "refused" {
		t.Fatalf("record %+v", r)
	}
	for i, want := range []string{"550 5.1.1", "452 4.2.2", "550 5.7.1"} {
		if got := r.Recipients[i]; !strings.HasPrefix(got.Reply.String(), want) || got.Note == "" {
			t.Errorf("recorded %s (%s), want %s", got.Reply, got.Note, want)
		}
	}
}

func TestSizeDecidesAboutRoom(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example> SIZE=100
		S: 250 *
		C: RCPT TO:<full@example.org>
		S: 250 *
	`)
}

func TestTheSameAccountGetsOneCopy(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<team@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
		S: 250 *
	`)
	if got := d.store.all(); got != "me you" {
		t.Errorf("delivered %q", got)
	}
}

func TestJunkIsFiledFlaggedAndMarked(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<junk@example.org>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: X-Loud: yes
		C: X-Spam-Flag: NO
		C: Subject: a
		C:
		C: b
		C: .
		S: 250 *
	`)
	junk, me := d.store.got("junk@example.org")[0], d.store.got("me@example.org")[0]
	if junk.folder != "Junk" || len(junk.flags) != 1 || junk.flags[0] != "$Junk" || me.folder != "" {
		t.Errorf("filed %q %q and %q", junk.folder, junk.flags, me.folder)
	}
	for _, want := range []string{"\r\nX-Spam-Flag: YES\r\n", "\r\nX-Spam-Score: 7.5\r\n", "\r\nX-Sluice-Hits: viagra=7.5\r\n",
		"\r\nX-Rule: =?utf-8?q?h=C3=A4m=0D=0ABcc:_all?=\r\n"} {
		if !strings.Contains(junk.text, want) {
			t.Errorf("no %q in\n%s", want, junk.text)
		}
		if strings.Contains(me.text, want) {
			t.Errorf("somebody else's %q in\n%s", want, me.text)
		}
	}
	if strings.Contains(junk.text, "X-Loud") || !strings.Contains(me.text, "X-Loud: yes\r\n") {
		t.Errorf("the deleted field:\n%s\n%s", junk.text, me.text)
	}
	if strings.Contains(junk.text+me.text, "X-Spam-Flag: NO") {
		t.Error("a forged field of ours is left")
	}
	if strings.Contains(me.text, " for <") {
		t.Errorf("one recipient is told of the other:\n%s", me.text)
	}
}

func TestForgedFieldsAreNotSeenAndNotKept(t *testing.T) {
	var seen string
	d := open(t, func(d *door) {
		d.steps = []pipeline.Step{pipelinetest.Step("look", pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputHeader | pipeline.InputBody},
			Says:  sees(&seen),
		})}
	})
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: X-Sluice-Id: id1 forged
		C: Subject: a
		C: x-sluice-anything : b
		C:  folded
		C: X-Spam-Score: -100
		C: Return-Path: <ceo@bank.example>
		C: Delivered-To: you@example.org
		C: To: me
		C:
		C: X-Sluice-Id: in the body
		C: .
		S: 250 *
	`)
	if want := "Subject: a\r\nReturn-Path: <ceo@bank.example>\r\nDelivered-To: you@example.org\r\nTo: me\r\n\r\nX-Sluice-Id: in the body\r\n"; seen != want {
		t.Errorf("stages saw\n%s", seen)
	}
	got := d.store.got("me@example.org")[0].text
	if _, rest, _ := strings.Cut(got, "+0000\r\n"); rest != "Subject: a\r\nTo: me\r\n\r\nX-Sluice-Id: in the body\r\n" {
		t.Errorf("stored\n%s", got)
	}
	if strings.Count(got, "Return-Path") != 1 || strings.Count(got, "Delivered-To") != 1 || strings.Count(got, "X-Sluice-Id: id1\r\n") != 1 {
		t.Errorf("stored\n%s", got)
	}
	// The record can tell what came: the fields with what stood behind them.
	const behind = int64(len("To: me\r\n\r\nX-Sluice-Id: in the body\r\n"))
	var fields []string
	r, _ := d.journal.Last()
	for _, x := range r.Recipients[0].Removed {
		fields = append(fields, fmt.Sprintf("%s%d", x.Field, x.Behind-behind))
	}
	want := []string{
		"X-Sluice-Id: id1 forged\r\n128", "x-sluice-anything : b\r\n folded\r\n84", "X-Spam-Score: -100\r\n64",
		"Return-Path: <ceo@bank.example>\r\n31", "Delivered-To: you@example.org\r\n0",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("removed %q", fields)
	}
}

// Each copy has its own, and what several lack stands in the record once; what was held has it too.
func TestRemovedFieldsOfSeveral(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<junk@example.org>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<hold@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: Delivered-To: list@example.net
		C: X-Loud: yes
		C: Subject: a
		C:
		C: b
		C: .
		S: 250 *
	`)
	r, _ := d.journal.Last()
	var got []string
	for _, x := range r.Recipients {
		var names []string
		for _, f := range x.Removed {
			names = append(names, f.Name())
		}
		got = append(got, x.Address.Local+": "+strings.Join(names, " "))
	}
	if want := []string{"junk: Delivered-To X-Loud", "me: Delivered-To", "hold: "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailures(t *testing.T) {
	const temporary = "451 4.3.0 temporary failure, please try again later"
	tests := []struct {
		name   string
		change func(*door)
		reply  string
		logged string
	}{
		{"the store", func(d *door) { d.store.err = errors.New("disk on fire") }, temporary, "disk on fire"},
		{"over quota", func(d *door) { d.store.err = mailstore.ErrQuota }, "452 4.2.2 mailbox full", "over quota"},
		{"quarantine", func(d *door) { d.held.err = errors.New("no space") }, temporary, "no space"},
		{"the journal", func(d *door) { d.journal.Err = errors.New("no journal") }, temporary, "no journal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, tt.change)
			d.dial().talk(greeting + `
				C: MAIL FROM:<s@client.example>
				S: 250 *
				C: RCPT TO:<me@example.org>
				S: 250 *
				C: RCPT TO:<hold@example.org>
				S: 250 *
				C: DATA
				S: 354 *
				C: .
				S: ` + tt.reply + `
				C: NOOP
				S: 250 *
			`)
			if log := d.log.String(); strings.Count(log, tt.logged) != 1 || !strings.Contains(log, "id=id1") {
				t.Errorf("log:\n%s", log)
			}
			if tt.name == "the store" {
				r, _ := d.journal.Last()
				if r.End != "refused" || r.Recipients[0].Disposition != pipeline.Postponed || !strings.Contains(r.Recipients[0].Note, "disk on fire") {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

func TestAMailOfferedAgainIsHeldOnce(t *testing.T) {
	d := open(t, func(d *door) { d.store.err = errors.New("disk full") })
	dialogue := greeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<hold@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: Subject: x
		C: .
	`
	d.dial().talk(dialogue + "S: 451 *\n")
	d.store.mu.Lock()
	d.store.err = nil
	d.store.mu.Unlock()
	d.dial().talk(dialogue + "S: 250 *\n")
	if len(d.held.rows) != 1 || d.store.all() != "me" {
		t.Errorf("held %q, delivered %q", d.held.rows, d.store.all())
	}
	if !strings.HasPrefix(d.held.text, "Return-Path: <s@client.example>\r\nX-Sluice-Id: id2\r\nReceived: ") || !strings.HasSuffix(d.held.text, "Subject: x\r\n") {
		t.Errorf("held\n%s", d.held.text)
	}
}

func TestTransactionsFollowEachOther(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: MAIL FROM:<a@client.example>
		S: 250 *
		C: MAIL FROM:<b@client.example>
		S: 503 5.5.1 one MAIL at a time
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RSET
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 503 *
		C: MAIL FROM:<c@client.example>
		S: 250 *
		C: RCPT TO:<you@example.org>
		S: 250 *
		C: EHLO other.example
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250 *
		C: MAIL FROM:<d@client.example>
		S: 250 *
		C: RCPT TO:<she@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
		S: 250 2.0.0 accepted as id3
		C: MAIL FROM:<e@client.example>
		C: RCPT TO:<she@example.org>
		C: DATA
		S: 250 *
		S: 250 *
		S: 354 *
		C: .
		C: MAIL FROM:<f@client.example>
		C: RCPT TO:<she@example.org>
		C: DATA
		S: 250 2.0.0 accepted as id4
		S: 250 *
		S: 250 *
		S: 354 *
		C: .
		C: QUIT
		S: 250 2.0.0 accepted as id5
		S: 221 *
		S: EOF
	`)
	if got := d.store.all(); got != "she she she" {
		t.Errorf("delivered %q", got)
	}
	var ends []string
	for _, r := range d.journal.Records() {
		ends = append(ends, r.ID+" "+r.End+" "+r.Greeting+" "+r.Note)
	}
	want := "id1 aborted client.example RSET|id2 aborted client.example a new EHLO|id3 done other.example |id4 done other.example |id5 done other.example "
	if got := strings.Join(ends, "|"); got != want {
		t.Errorf("records\n%s\nwant\n%s", got, want)
	}
	if text := d.store.got("she@example.org")[0].text; !strings.Contains(text, "from other.example ([127.0.0.1]) by mx.example.org with ESMTP id id3") {
		t.Errorf("stored\n%s", text)
	}
}

func TestSpeakEarliest(t *testing.T) {
	refuse := func(input pipeline.Input) func(*door) {
		return func(d *door) {
			d.options.SpeakEarliest = true
			d.steps = []pipeline.Step{pipelinetest.Step("no", pipelinetest.Stage{
				Looks: pipeline.Reads{Input: input, Can: []pipeline.Final{{At: 0, Action: pipeline.Reject}}},
				Says:  says(pipeline.Result{Verdict: pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "go away"}}}),
			})}
		}
	}
	t.Run("at the greeting", func(t *testing.T) {
		open(t, refuse(pipeline.InputClient)).dial().talk(`
			S: 220 *
			C: EHLO client.example
			S: 550 5.7.1 go away
			C: MAIL FROM:<a@client.example>
			S: 503 *
		`)
	})
	t.Run("at MAIL", func(t *testing.T) {
		open(t, refuse(pipeline.InputSender)).dial().talk(greeting + `
			C: MAIL FROM:<a@client.example>
			S: 550 5.7.1 go away
			C: RCPT TO:<me@example.org>
			S: 503 *
		`)
	})
	t.Run("at DATA, before the message", func(t *testing.T) {
		d := open(t, refuse(pipeline.InputRecipients))
		d.dial().talk(greeting + `
			C: MAIL FROM:<a@client.example>
			S: 250 *
			C: RCPT TO:<me@example.org>
			S: 250 *
			C: DATA
			S: 550 5.7.1 go away
			C: RCPT TO:<me@example.org>
			S: 503 *
			C: MAIL FROM:<a@client.example>
			S: 250 *
			C: RCPT TO:<me@example.org>
			S: 250 *
			C: BDAT 3 LAST
			R: "a\r\n"
			S: 550 5.7.1 go away
			C: NOOP
			S: 250 *
		`)
		if d.store.all() != "" {
			t.Error("delivered")
		}
		if r := d.journal.Records(); len(r) != 2 || r[0].Note != "DATA: 550 5.7.1 go away" {
			t.Errorf("records %+v", r)
		}
	})
}

func TestSMTPUTF8(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(`
		S: 220 *
		C: EHLO client.example
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250-*
		S: 250 *
		C: MAIL FROM:<jörg@bücher.example>
		S: 553 5.6.7 *
		C: MAIL FROM:<jörg@bücher.example> SMTPUTF8 BODY=8BITMIME
		S: 250 *
		C: RCPT TO:<Ümlaut@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
		S: 250 *
	`)
	text := d.store.got("me@example.org")[0].text
	for _, want := range []string{"Return-Path: <jörg@bücher.example>\r\n", "Delivered-To: ümlaut@example.org\r\n", "with UTF8SMTP id"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// What cannot be held is not delivered to others either: the client, who comes again, would have them get it twice.
func TestNothingIsDeliveredWhatCannotBeHeld(t *testing.T) {
	d := open(t, nil)
	d.held.err = errors.New("no space left on device")
	d.dial().talk(greeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<hold@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: Subject: x
		C:
		C: .
		S: 451 4.3.0 *
	`)
	if got := d.store.all(); got != "" {
		t.Errorf("delivered %q", got)
	}
	r, _ := d.journal.Last()
	for _, x := range r.Recipients {
		if x.Disposition != pipeline.Postponed {
			t.Errorf("%s: recorded %q", x.Address, x.Disposition)
		}
	}
}

func TestNothingOfAnAliasIsDeliveredAtLMTPWhatCannotBeHeld(t *testing.T) {
	d := open(t, lmtp)
	d.held.err = errors.New("no space left on device")
	d.dial().talk(lmtpGreeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<held@example.org>
		S: 250 *
		C: RCPT TO:<you@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: Subject: x
		C:
		C: .
		S: 451 4.3.0 *
		S: 250 *
	`)
	if got := d.store.all(); got != "you" {
		t.Errorf("delivered %q", got)
	}
}
