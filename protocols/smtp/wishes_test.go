package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// An outbox keeps what leaves, and says in which order things happen.
type outbox struct {
	mu             sync.Mutex
	events         []string
	stage, release error
	left           []mailstore.Outgoing
	texts          []string
}

func (o *outbox) happened(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, what)
}

func (o *outbox) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	if o.stage != nil {
		return nil, o.stage
	}
	var texts []string
	for _, m := range list {
		b, err := io.ReadAll(m.Content)
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(b))
	}
	o.happened("staged")
	return &parcel{o, list, texts}, nil
}

type parcel struct {
	*outbox
	list  []mailstore.Outgoing
	texts []string
}

func (p *parcel) IDs() (ids []string) {
	for i := range p.list {
		ids = append(ids, fmt.Sprintf("q%d", i+1))
	}
	return ids
}

func (p *parcel) Release(context.Context) error {
	if p.release != nil {
		return p.release
	}
	p.happened("released")
	p.left, p.outbox.texts = append(p.left, p.list...), append(p.outbox.texts, p.texts...)
	return nil
}

func (p *parcel) Withdraw() error {
	p.happened("withdrawn")
	return nil
}

// ordered is a store that says when it delivers.
type ordered struct {
	*store
	out *outbox
}

func (s ordered) Deliver(ctx context.Context, items []mailstore.Item) ([]mailstore.Placed, error) {
	placed, err := s.store.Deliver(ctx, items)
	if err == nil {
		s.out.happened("delivered")
	}
	return placed, err
}

// wishes is a step of what recipients want themselves.
func wishes(h map[string]pipeline.Result) pipeline.Step {
	s := pipelinetest.Step("sieve", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputBody, Can: []pipeline.Final{{Action: pipeline.Reject}}},
		Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
			name, _, _ := strings.Cut(v.Rcpt.Account, "@")
			return h[name], nil
		},
	})
	s.Kind.AtDelivery = true
	return s
}

func handing(h pipeline.Handling) pipeline.Result { return pipeline.Result{Handling: &h} }

var (
	redirect = pipeline.Leaving{Kind: pipeline.Redirect, By: "line 3 of work.sieve", Sender: "s@client.example", To: []string{"b@y.example"},
		Fields: []pipeline.Edit{{Name: "X-Mark", Value: "me"}}}
	reply   = pipeline.Leaving{Kind: pipeline.Vacation, By: "line 4 of work.sieve", To: []string{"s@client.example"}, Content: []byte("Subject: away\r\n\r\näway\r\n")}
	refusal = pipeline.Result{Verdict: pipeline.Verdict{Action: pipeline.Reject, By: "work.sieve line 2", Reply: pipeline.Reply{Text: "not wanted"}}}
)

// send sends a mail to recipients and returns the replies about it, one at SMTP.
func (d *door) send(rcpts string) (replies []string) {
	d.t.Helper()
	c := d.dial()
	n := 1
	if d.cfg.LMTP {
		c.talk(lmtpGreeting)
		n = len(strings.Fields(rcpts))
	} else {
		c.talk(greeting)
	}
	c.talk("C: MAIL FROM:<s@client.example>\nS: 250 *\n")
	for r := range strings.FieldsSeq(rcpts) {
		c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
	}
	c.talk("C: DATA\nS: 354 *\nC: Return-Path: <forged@x.example>\nC: Subject: x\nC: X-Sluice-Id: forged\nC:\nC: body\nC: .\n")
	for range n {
		line, err := c.r.ReadString('\n')
		if err != nil {
			d.t.Fatal(err)
		}
		replies = append(replies, line[:3])
	}
	return replies
}

// Whichever step of carrying out fails, nothing is lost and nothing has left.
func TestWishesAreCarriedOut(t *testing.T) {
	broken := errors.New("broken")
	all := map[string]pipeline.Result{
		"me": handing(pipeline.Handling{
			Copies: []pipeline.Copy{{Folder: "A"}, {Kept: true}, {Folder: "Sent", Content: []byte("Subject: away\r\n\r\n")}}, Leaving: []pipeline.Leaving{redirect, reply},
		}),
		"she":  handing(pipeline.Handling{Leaving: []pipeline.Leaving{redirect}}),
		"keep": handing(pipeline.Handling{Dropped: "line 1 of work.sieve"}),
	}
	for _, tt := range []struct {
		name                    string
		lmtp                    bool
		rcpts                   string
		stage, deliver, release error
		replies, events, filed  string
		left                    int
	}{
		{name: "all", rcpts: "me you", replies: "250", events: "staged delivered released", filed: "me me me you", left: 2},
		{name: "all", lmtp: true, rcpts: "me you", replies: "250 250", events: "staged delivered released", filed: "me me me you", left: 2},
		{name: "only handed on", rcpts: "she", replies: "250", events: "staged released", left: 1},
		{name: "only dropped", rcpts: "keep", replies: "250"},
		{name: "two addresses of one account", rcpts: "me info", replies: "250", events: "staged delivered released", filed: "me me me", left: 2},
		{name: "no queue", rcpts: "me you", stage: broken, replies: "451"},
		{name: "no queue", lmtp: true, rcpts: "me you she", stage: broken, replies: "451 250 451", events: "delivered", filed: "you"},
		{name: "no folder", rcpts: "me you", deliver: broken, replies: "451", events: "staged withdrawn"},
		{name: "no folder", lmtp: true, rcpts: "me you", deliver: broken, replies: "451 451", events: "staged withdrawn"},
		{name: "nothing released", rcpts: "me you", release: broken, replies: "451", events: "staged delivered", filed: "me me me you"},
		{name: "nothing released", lmtp: true, rcpts: "me you", release: broken, replies: "451 250", events: "staged delivered", filed: "me me me you"},
	} {
		name := "SMTP"
		if tt.lmtp {
			name = "LMTP"
		}
		t.Run(tt.name+" at "+name, func(t *testing.T) {
			out := &outbox{stage: tt.stage, release: tt.release}
			d := open(t, func(d *door) {
				if tt.lmtp {
					lmtp(d)
				}
				d.steps = []pipeline.Step{wishes(all)}
				d.store.err = tt.deliver
				d.cfg.Store, d.cfg.Outbox = ordered{d.store, out}, out
				d.cfg.Results = func(r *pipeline.Record) string { return "spf=pass of " + r.Sender.Raw }
			})
			if got := strings.Join(d.send(tt.rcpts), " "); got != tt.replies {
				t.Errorf("replies %s, want %s", got, tt.replies)
			}
			if got := strings.Join(out.events, " "); got != tt.events {
				t.Errorf("%s, want %s", got, tt.events)
			}
			if got := d.store.all(); got != tt.filed {
				t.Errorf("filed for %q, want %q", got, tt.filed)
			}
			if len(out.left) != tt.left {
				t.Errorf("%d mails left, want %d", len(out.left), tt.left)
			}
			// A record of what is dropped is the only trace of it.
			if r, durable := d.journal.Last(); r == nil || durable != (tt.rcpts == "keep") {
				t.Errorf("record %+v, durable %t", r, durable)
			}
		})
	}
}

// What leaves is what was wanted: the mail with our trace and without what is only ours, or the reply as it was written.
func TestWhatLeaves(t *testing.T) {
	out := &outbox{}
	d := open(t, func(d *door) {
		d.steps = []pipeline.Step{wishes(map[string]pipeline.Result{"me": handing(pipeline.Handling{Leaving: []pipeline.Leaving{redirect, reply}})})}
		d.cfg.Outbox, d.cfg.Results = out, func(r *pipeline.Record) string { return "spf=pass of " + r.Sender.Raw }
	})
	d.send("me")
	m := out.left[0]
	if !m.Forwarded || m.Results != "spf=pass of s@client.example" || m.Sender != "s@client.example" || m.Account != "me@example.org" ||
		m.Why != "redirect by line 3 of work.sieve" || m.EightBit || m.ID != "id1" {
		t.Errorf("%+v", m)
	}
	text := out.texts[0]
	for _, want := range []string{"Received: from client.example", "\r\nX-Mark: me\r\nSubject: x\r\n\r\nbody\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, no := range []string{"forged", "Return-Path", "Delivered-To"} {
		if strings.Contains(text, no) {
			t.Errorf("%s is in\n%s", no, text)
		}
	}
	if m := out.left[1]; m.Forwarded || m.Sender != "" || !m.EightBit || m.UTF8 || out.texts[1] != "Subject: away\r\n\r\näway\r\n" {
		t.Errorf("%+v\n%s", m, out.texts[1])
	}
	r, _ := d.journal.Last()
	x := r.Recipients[0]
	if x.Disposition != pipeline.Delivered || x.Handling.Leaving[0].Queued != "q1" || x.Handling.Leaving[1].Queued != "q2" || x.File != "" {
		t.Errorf("recorded as %+v", x)
	}
}

// A refusal of the recipient's own reaches the client while we hold it; else the mail is held and the owner gets a notice.
func TestOwnRefusal(t *testing.T) {
	for _, tt := range []struct {
		name          string
		lmtp          bool
		rcpts         string
		deliver       error
		replies, held string
		filed         string
	}{
		{name: "we hold the client", rcpts: "me", replies: "550"},
		{name: "others get it", rcpts: "me you", replies: "250", held: "me", filed: "me you"},
		{name: "a queue is before us", lmtp: true, rcpts: "me you", replies: "250 250", held: "me", filed: "me you"},
		{name: "no notice", lmtp: true, rcpts: "me", deliver: errors.New("broken"), replies: "451", held: "me"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, func(d *door) {
				if tt.lmtp {
					lmtp(d)
				}
				d.steps = []pipeline.Step{wishes(map[string]pipeline.Result{"me": refusal})}
				d.store.err = tt.deliver
			})
			if got := strings.Join(d.send(tt.rcpts), " "); got != tt.replies {
				t.Errorf("replies %s, want %s", got, tt.replies)
			}
			if got := d.held.held(); got != tt.held {
				t.Errorf("held for %q, want %q", got, tt.held)
			}
			if got := d.store.all(); got != tt.filed {
				t.Errorf("filed for %q, want %q", got, tt.filed)
			}
			if tt.filed == "" {
				return
			}
			notice := d.store.got("me@example.org")[0]
			for _, want := range []string{"Subject: Refused by your script: x\r\n", "Auto-Submitted: auto-generated\r\n", "  Reason:  not wanted\r\n", "as id1."} {
				if notice.folder != "" || !strings.Contains(notice.text, want) {
					t.Errorf("%q is not in\n%s", want, notice.text)
				}
			}
		})
	}
}

// A program that fails leaves the mail in the inbox besides, unless that was said not to matter; and one that was to take the
// mail alone does then, too.
func TestPrograms(t *testing.T) {
	for _, tt := range []struct {
		name      string
		err       error
		try, sole bool
		filed     []string
	}{
		{"it goes well", nil, false, true, nil}, {"it fails", errors.New("exit status 1"), false, true, []string{""}},
		{"it may fail", errors.New("exit status 1"), true, false, nil},
		{"it may fail, and nobody else has the mail", errors.New("exit status 1"), true, true, []string{""}},
		{"it might have failed", nil, true, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			d := open(t, func(d *door) {
				d.steps = []pipeline.Step{wishes(map[string]pipeline.Result{"me": handing(pipeline.Handling{
					Runs: []pipeline.Run{{By: "line 1 of work.sieve", Program: "print", Try: tt.try, Sole: tt.sole}},
				})})}
				d.cfg.Run = func(_ context.Context, account string, r pipeline.Run, mail io.Reader) error {
					b, err := io.ReadAll(mail)
					got = account + " " + r.Program + " " + string(b)
					return errors.Join(err, tt.err)
				}
			})
			if got := d.send("me"); got[0] != "250" {
				t.Fatal(got)
			}
			if !strings.HasPrefix(got, "me@example.org print ") || !strings.HasSuffix(got, "\r\nbody\r\n") {
				t.Errorf("the program got %q", got)
			}
			var filed []string
			for _, x := range d.store.got("me@example.org") {
				filed = append(filed, x.folder)
			}
			if !slices.Equal(filed, tt.filed) {
				t.Errorf("filed in %q, want %q", filed, tt.filed)
			}
			r, _ := d.journal.Last()
			if ended := r.Recipients[0].Handling.Runs[0].Ended; (ended != "") != (tt.err != nil) {
				t.Errorf("recorded as ended %q", ended)
			}
		})
	}
}
