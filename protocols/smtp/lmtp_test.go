package smtp_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

// The doors table, for LMTP.
func TestVerdictsAtLMTP(t *testing.T) {
	const ok = "250 2.0.0 <%> accepted as id1"
	tests := []struct {
		rcpts           string
		refuse          bool
		replies         []string // % is the recipient
		delivered, held string
	}{
		{rcpts: "me", replies: []string{ok}, delivered: "me"},
		{rcpts: "me you discard hold", replies: []string{ok, ok, ok, ok}, delivered: "me you", held: "hold"},
		{rcpts: "reject", replies: []string{ok}, held: "reject"},
		{rcpts: "early me", replies: []string{ok, ok}, delivered: "me", held: "early"},
		{rcpts: "reject me", replies: []string{ok, ok}, delivered: "me", held: "reject"},
		{rcpts: "reject me", refuse: true, replies: []string{"550 5.7.1 <%> no, says reject", ok}, delivered: "me"},
		{rcpts: "me tempfail you", replies: []string{ok, "451 4.7.1 <%> come again", ok}, delivered: "me you"},
		{rcpts: "tempfail reject", refuse: true, replies: []string{"451 4.7.1 <%> come again", "550 5.7.1 <%> no, says reject"}},
		{rcpts: "tempfail", replies: []string{"451 4.7.1 <%> come again"}},
		// One reply is about all accounts of an alias.
		{rcpts: "mixed you", replies: []string{"451 4.7.1 <%> come again", ok}, delivered: "you"},
		{rcpts: "mixed me you", replies: []string{"451 4.7.1 <%> come again", "451 4.7.1 <%> come again", ok}, delivered: "you"},
		{rcpts: "half", refuse: true, replies: []string{ok}, delivered: "me", held: "half"},
		// The same recipient twice gets one copy and two replies.
		{rcpts: "me tempfail me tempfail", replies: []string{ok, "451 4.7.1 <%> come again", ok, "451 4.7.1 <%> come again"}, delivered: "me"},
	}
	for _, tt := range tests {
		for _, by := range []string{"DATA", "BDAT"} {
			t.Run(tt.rcpts+" by "+by, func(t *testing.T) {
				d := open(t, func(d *door) { lmtp(d); d.cfg.Refuse = tt.refuse })
				c := d.dial()
				c.talk(lmtpGreeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\n")
				for _, r := range strings.Fields(tt.rcpts) {
					c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
				}
				if by == "DATA" {
					c.talk("C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: body\nC: .\n")
				} else {
					c.talk(`R: "BDAT 4 LAST\r\nS: x"`)
				}
				for i, r := range strings.Fields(tt.rcpts) {
					c.talk("S: " + strings.ReplaceAll(tt.replies[i], "%", r+"@example.org") + "\n")
				}
				c.talk("C: NOOP\nS: 250 *\n")
				if got := d.store.all(); got != tt.delivered {
					t.Errorf("delivered %q, want %q", got, tt.delivered)
				}
				if got := d.held.held(); got != tt.held {
					t.Errorf("held %q, want %q", got, tt.held)
				}
				r, _ := d.journal.Last()
				if r == nil || r.Door != pipeline.LMTP || r.Client.Known() {
					t.Fatalf("record %+v", r)
				}
				for _, x := range r.Recipients {
					if x.Reply.Code == 0 || (x.Reply.Code == 250) != (x.Disposition != pipeline.Postponed && x.Disposition != pipeline.Refused) {
						t.Errorf("%s: recorded %s, %s", x.Account, x.Disposition, x.Reply)
					}
				}
			})
		}
	}
}

func TestLMTPRecipients(t *testing.T) {
	d := open(t, lmtp)
	d.dial().talk(lmtpGreeting + `
		C: MAIL FROM:<s@client.example> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=x
		S: 250 *
		C: RCPT TO:<me@example.org> ORCPT=rfc822;Team+2Bx@example.org NOTIFY=FAILURE
		S: 250 *
		C: RCPT TO:<postmaster>
		S: 250 *
		C: RCPT TO:<you>
		S: 250 *
		C: RCPT TO:<nobody@example.org>
		S: 550 5.1.1 *
		C: RCPT TO:<full@example.org>
		S: 452 4.2.2 *
		C: RCPT TO:<x@elsewhere.example>
		S: 550 5.7.1 *
		C: DATA
		S: 354 *
		C: .
		S: 250 2.0.0 <me@example.org> accepted as id1
		S: 250 2.0.0 <postmaster> accepted as id1
		S: 250 2.0.0 <you> accepted as id1
	`)
	if got := d.store.all(); got != "me you" {
		t.Errorf("delivered %q", got)
	}
	r, _ := d.journal.Last()
	if len(r.Recipients) != 6 || r.Recipients[0].Original.String() != "team+x@example.org" || r.Recipients[3].Reply.Code != 550 || r.Recipients[4].Reply.Code != 452 {
		t.Errorf("record %+v", r)
	}
}

func TestLMTPWithoutMessage(t *testing.T) {
	d := open(t, lmtp)
	d.dial().talk(lmtpGreeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<nobody@example.org>
		S: 550 *
		C: RSET
		S: 250 *
		C: NOOP
		S: 250 *
	`)
	r, _ := d.journal.Last()
	if r == nil || r.End != "refused" || len(r.Recipients) != 1 || r.Recipients[0].Reply.Code != 550 {
		t.Errorf("record %+v", r)
	}
}

func TestLMTPFailures(t *testing.T) {
	const dialogue = lmtpGreeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: RCPT TO:<hold@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
	`
	const ok, no = "250 2.0.0 * accepted as id1", "451 4.3.0 * temporary failure, please try again later"
	tests := []struct {
		name            string
		change          func(*door)
		me, hold        string
		delivered, held string
	}{
		{"the store", func(d *door) { d.store.err = errors.New("disk on fire") }, no, ok, "", "hold"},
		{"quarantine", func(d *door) { d.held.err = errors.New("disk on fire") }, ok, no, "me", ""},
		{"the journal", func(d *door) { d.journal.Err = errors.New("disk on fire") }, no, no, "me", "hold"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, func(d *door) { lmtp(d); tt.change(d) })
			d.dial().talk(dialogue + "S: " + tt.me + "\nS: " + tt.hold + "\n")
			if d.store.all() != tt.delivered || d.held.held() != tt.held {
				t.Errorf("delivered %q, held %q", d.store.all(), d.held.held())
			}
			if log := d.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "disk on fire") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

func TestLMTPOverUnixSocket(t *testing.T) {
	d := open(t, func(d *door) {
		d.cfg.LMTP = true
		d.listen.Address = "unix:" + filepath.Join(t.TempDir(), "lmtp.sock")
	})
	d.dial().talk(lmtpGreeting + begunMail + "C: DATA\nS: 354 *\nC: .\nS: 250 *\n")
	if text := d.store.got("me@example.org")[0].text; !strings.Contains(text, "Received: from mta.example (unix socket) by mx.example.org with LMTP id id1") {
		t.Errorf("stored\n%s", text)
	}
}

const postfixReceived = `
	C: Received: from client.example (host.client.example [192.0.2.7])
	C: 	by mta.example (Postfix) with ESMTPS id 4XyZ for <me@example.org>;
	C: 	Sun, 22 Nov 2026 11:59:00 +0000 (UTC)
`

// Who brought the mail to the MTA is asked of the MTA, and of nobody else.
func TestClientOfLMTP(t *testing.T) {
	tests := []struct {
		name, from, header, want string
	}{
		{"Postfix in front of us", "", postfixReceived, "192.0.2.7 host.client.example client.example"},
		{"an MTA that is not trusted", "198.51.100.1:25", postfixReceived, "not asked"},
		{"no Received", "", "C: Subject: x\n", "not asked"},
		{"a form we do not know", "", "C: Received: by mta.example (Postfix, from userid 1000)\n" + postfixReceived, "not asked"},
		{"two hosts of ours", "", "C: Received: from edge (edge.example [127.0.0.1]) by mta.example with ESMTP; x\n" + postfixReceived,
			"192.0.2.7 host.client.example client.example"},
		{"one below a stranger's", "", postfixReceived + "C: Received: from bank (bank.example [203.0.113.9]) by forged.example with ESMTP; x\n",
			"192.0.2.7 host.client.example client.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := "not asked"
			d := open(t, func(d *door) {
				lmtp(d)
				d.from = tt.from
				d.steps = []pipeline.Step{pipelinetest.Step("who", pipelinetest.Stage{
					Looks: pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting, Strangers: true},
					Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
						asked = v.Client.Addr.String() + " " + v.Client.Name + " " + v.Greeting
						return pipeline.Result{}, nil
					},
				})}
			})
			d.dial().talk(lmtpGreeting + begunMail + "C: DATA\nS: 354 *\n" + tt.header + "C:\nC: .\nS: 250 *\n")
			if asked != tt.want {
				t.Errorf("asked about %q, want %q", asked, tt.want)
			}
			r, _ := d.journal.Last()
			if want := strings.HasPrefix(tt.header, postfixReceived) && tt.from == ""; want != (r.QueueID == "4XyZ") {
				t.Errorf("queue id %q", r.QueueID)
			}
		})
	}
}

// A mail that our milter has decided about comes back by LMTP.
func TestHandover(t *testing.T) {
	const id = "milterid"
	key := pipeline.Handover{Key: []byte("secret")}
	const text = "Message-ID: <a@client.example>\r\nDelivered-To: before\r\nSubject: x\r\n\r\nbody\r\n"
	parsed, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	value := key.Value(id, parsed)
	tests := []struct {
		name    string
		from    string // the LMTP peer
		value   string
		body    string
		gone    bool
		err     error
		scanned bool
		stored  string
	}{
		{name: "genuine", value: value, body: "body", stored: id},
		{name: "somebody has folded it", value: value[:12] + "\nC: \t" + value[12:], body: "body", stored: "id1", scanned: true},
		{name: "the MTA has broken lines", value: value, body: "bo\nC:  dy", stored: id},
		{name: "a peer not trusted", from: "192.0.2.1:1", value: value, body: "body", scanned: true, stored: "id1"},
		{name: "another body", value: value, body: "evil", scanned: true, stored: "id1"},
		{name: "another id", value: strings.Replace(value, id, "otherid", 1), body: "body", scanned: true, stored: "id1"},
		{name: "no signature", value: id, body: "body", scanned: true, stored: "id1"},
		{name: "the record is gone", value: value, body: "body", gone: true, scanned: true, stored: "id1"},
		{name: "the journal cannot say", value: value, body: "body", err: errors.New("locked"), scanned: true, stored: "id1"},
		{name: "a forged one above", value: "x y\nC: X-Sluice-Id: " + value, body: "body", stored: id},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scanned := 0
			steps := []pipeline.Step{pipelinetest.Step("scan", pipelinetest.Stage{
				Looks: pipeline.Reads{Input: pipeline.InputBody},
				Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
					scanned++
					if v.Message.Header().Has(pipeline.IDField) {
						t.Error("a stage sees our field")
					}
					return pipeline.Result{}, nil
				},
			})}
			record := &pipeline.Record{
				Version: 1, ID: id, Door: pipeline.Milter, Size: int64(len(text)), Recipients: []pipeline.RecipientRecord{{
					Recipient: pipeline.Recipient{Address: pipelinetest.Address(t, "team@example.org")},
					Folder:    "Junk", Flags: []string{"$Junk"},
				}},
			}
			d := open(t, func(d *door) {
				lmtp(d)
				d.from, d.steps = tt.from, steps
				d.cfg.Recall = func(_ context.Context, asked string) (*pipeline.Record, error) {
					if tt.gone || tt.err != nil || asked != id {
						return nil, tt.err
					}
					return record, nil
				}
			})
			d.dial().talk(lmtpGreeting + `
				C: MAIL FROM:<s@client.example>
				S: 250 *
				C: RCPT TO:<me@example.org> ORCPT=rfc822;team@example.org
				S: 250 *
				C: DATA
				S: 354 *
				C: Delivered-To: the MTA
				C: X-Sluice-Id: ` + tt.value + `
				C: X-Spam-Score: 7.5
				C: Message-ID: <a@client.example>
				C: Delivered-To: before
				C: Subject: x
				C:
				C: ` + tt.body + `
				C: .
				S: 250 2.0.0 <me@example.org> accepted as ` + tt.stored + `
			`)
			mail := d.store.got("me@example.org")[0]
			if tt.scanned != (scanned == 1) {
				t.Errorf("scanned %d times", scanned)
			}
			if (mail.folder == "Junk") == tt.scanned {
				t.Errorf("filed in %q", mail.folder)
			}
			if strings.Count(mail.text, "X-Sluice-Id:") != 1 || !strings.HasPrefix(mail.text,
				"Return-Path: <s@client.example>\r\nDelivered-To: me@example.org\r\nX-Sluice-Id: "+tt.stored+"\r\n") {
				t.Errorf("stored\n%s", mail.text)
			}
			if strings.Contains(mail.text, "X-Spam-Score: 7.5\r\n") == tt.scanned {
				t.Errorf("fields of the first door: stored\n%s", mail.text)
			}
			// What a record says was removed was in the message that it is about.
			var removed []string
			r, _ := d.journal.Last()
			for _, x := range r.Recipients[0].Removed {
				removed = append(removed, x.Name())
			}
			want := "Delivered-To"
			if tt.scanned {
				want = "Delivered-To X-Sluice-Id X-Spam-Score Delivered-To"
			}
			if got := strings.Join(removed, " "); got != want {
				t.Errorf("removed %s, want %s", got, want)
			}
		})
	}
}
