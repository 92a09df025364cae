package smtp_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/protocols/smtp"
)

// post is an outbox that keeps what has been released.
type post struct {
	mu     sync.Mutex
	err    error
	left   []mailstore.Outgoing
	bodies []string
}

type posted struct {
	to     *post
	list   []mailstore.Outgoing
	bodies []string
}

func (p *post) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	s := posted{to: p, list: slices.Clone(list)}
	for _, x := range list {
		b, err := io.ReadAll(x.Content)
		if err != nil {
			return nil, err
		}
		s.bodies = append(s.bodies, string(b))
	}
	return s, nil
}

func (p posted) IDs() []string { return slices.Repeat([]string{"q1"}, len(p.list)) }
func (posted) Withdraw() error { return nil }
func (p posted) Release(context.Context) error {
	p.to.mu.Lock()
	defer p.to.mu.Unlock()
	p.to.left, p.to.bodies = append(p.to.left, p.list...), append(p.to.bodies, p.bodies...)
	return nil
}

func (p *post) all() (list []mailstore.Outgoing, bodies []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left, p.bodies
}

// back takes any address that begins with srs0= for one of ours; the rest of it is the sender.
func back(_ context.Context, to pipeline.Address) (string, bool, error) {
	sender, ok := strings.CutPrefix(to.Mailbox(), "srs0=")
	if !ok || to.Domain != "example.org" {
		return "", false, nil
	}
	if sender == "old" {
		return "", true, errors.New("an address that we made long ago")
	}
	return sender + "@example.com", true, nil
}

const bounce = "C: DATA\nS: 354 *\nC: Subject: failed\nC:\nC: sorry\nC: .\n"

func TestBack(t *testing.T) {
	const report = "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<SRS0=you@example.org>\nS: 250 *\n"
	for _, tt := range []struct {
		name, dialogue string
		change         func(*door, *post)
		lmtp           bool
		to             string // whom a report goes to; "" is nobody
		delivered      string
	}{
		{name: "a report", dialogue: report + bounce + "S: 250 *\n", to: "you@example.com"},
		{name: "a report at LMTP", lmtp: true, dialogue: report + bounce + "S: 250 *\n", to: "you@example.com"},
		{
			name:     "named twice and beside somebody",
			dialogue: report + "C: RCPT TO:<srs0=YOU@example.org>\nS: 250 *\nC: RCPT TO:<me@example.org>\nS: 250 *\n" + bounce + "S: 250 *\n",
			to:       "you@example.com", delivered: "me",
		},
		{name: "two at a time", dialogue: report + "C: RCPT TO:<srs0=she@example.org>\nS: 452 4.5.3 *\n" + bounce + "S: 250 *\n", to: "you@example.com"},
		{
			name:     "no report",
			dialogue: "C: MAIL FROM:<s@client.example>\nS: 250 *\nC: RCPT TO:<srs0=you@example.org>\nS: 550 5.1.1 this address is for reports about mail that we have handed on\n",
		},
		{name: "too late", dialogue: "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<srs0=old@example.org>\nS: 550 5.1.1 *\n"},
		{name: "not of ours", dialogue: "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<srs0=you@example.net>\nS: 550 5.7.1 *\n"},
		{
			name: "a door that does not know them", change: func(d *door, _ *post) { d.cfg.Back = nil },
			dialogue: "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<srs0=you@example.org>\nS: 550 5.1.1 *\n",
		},
		{name: "the queue is full", change: func(_ *door, p *post) { p.err = mailstore.ErrQueueFull }, dialogue: report + bounce + "S: 452 *\n"},
		{name: "the queue is full, at LMTP", lmtp: true, change: func(_ *door, p *post) { p.err = mailstore.ErrQueueFull }, dialogue: report + bounce + "S: 452 *\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p post
			d := open(t, func(d *door) {
				if tt.lmtp {
					lmtp(d)
				}
				d.cfg.Back, d.cfg.Outbox = back, &p
				if tt.change != nil {
					tt.change(d, &p)
				}
			})
			c := d.dial()
			if tt.lmtp {
				c.talk(lmtpGreeting)
			} else {
				c.talk(greeting)
			}
			c.talk(tt.dialogue + "C: NOOP\nS: 250 *\n")
			left, bodies := p.all()
			if (len(left) > 0) != (tt.to != "") || len(left) > 1 {
				t.Fatalf("%d reports have left", len(left))
			}
			if got := d.store.all(); got != tt.delivered {
				t.Errorf("delivered to %q, want %q", got, tt.delivered)
			}
			if tt.to == "" {
				return
			}
			x := left[0]
			if !x.Forwarded || x.Sender != "" || x.Account != "" || len(x.Recipients) != 1 || x.Recipients[0].Address != tt.to || !strings.HasSuffix(bodies[0], "Subject: failed\r\n\r\nsorry\r\n") {
				t.Errorf("%+v\n%s", x, bodies[0])
			}
			records := d.journal.Records()
			r := records[len(records)-1].Recipients[0]
			if r.Disposition != pipeline.Delivered || r.Handling == nil || len(r.Handling.Copies) != 0 || r.Handling.Leaving[0].Queued != "q1" ||
				r.Handling.Leaving[0].Kind != pipeline.Return {
				t.Errorf("%+v %+v", r, r.Handling)
			}
		})
	}
}

var _ smtp.Back = back
