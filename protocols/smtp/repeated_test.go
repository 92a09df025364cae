package smtp_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
)

// burning is a state that cannot be read or written.
type burning struct{ *pipelinetest.State }

func (burning) Load(context.Context, string) ([]byte, bool, error) {
	return nil, false, errors.New("disk on fire")
}

func (burning) Store(context.Context, string, []byte, time.Duration) error {
	return errors.New("disk on fire")
}

// An attempt is one call of sluice deliver.
type attempt struct {
	from, rcpts string // s@client.example
	mail        string // the lasting one
	replies     string // after DATA: % is the recipient
	delivered   string // by all attempts so far
}

func TestRepeatedCall(t *testing.T) {
	const (
		ok     = "250 2.0.0 <%> accepted as id*"
		before = "250 2.0.0 <%> accepted before as id1"
		later  = "451 4.7.1 <%> come again"
		first  = "Message-ID: <1@client.example>\nSubject: x\n\nbody\n"
		again  = "Received: by fetchmail; later\nDelivered-To: x\n" + first
		none   = "Subject: x\n\nbody\n"
	)
	tests := []struct {
		name     string
		attempts []attempt
		mended   int // tempfail@ is served from this attempt on
		held     string
	}{
		{"until all are served, and then it is another mail", []attempt{
			{"", "me tempfail", first, ok + "|" + later, "me"},
			{"", "tempfail me", again, later + "|" + before, "me"},
			{"", "me tempfail", again, before + "|" + ok, "me tempfail"},
			{"", "me tempfail", first, ok + "|" + ok, "me me tempfail tempfail"},
			{"", "me tempfail", first, ok + "|" + ok, "me me me tempfail tempfail tempfail"},
		}, 2, ""},
		{"nobody was postponed", []attempt{{"", "me you", first, ok + "|" + ok, "me you"}, {"", "me you", first, ok + "|" + ok, "me me you you"}}, 9, ""},
		{"postponed at RCPT", []attempt{{"", "me full", first, ok, "me"}, {"", "me full", first, before, "me"}}, 9, ""},
		{"refused at RCPT", []attempt{{"", "me nobody", first, ok, "me"}, {"", "me nobody", first, ok, "me me"}}, 9, ""},
		{"another body", []attempt{{"", "me tempfail", first, ok + "|" + later, "me"}, {"", "me tempfail", first + "x\n", ok + "|" + later, "me me"}}, 9, ""},
		{"another field", []attempt{{"", "me tempfail", first, ok + "|" + later, "me"}, {"", "me tempfail", "X: y\n" + first, ok + "|" + later, "me me"}}, 9, ""},
		{"another Message-ID", []attempt{
			{"", "me tempfail", first, ok + "|" + later, "me"},
			{"", "me tempfail", strings.Replace(first, "<1@", "<2@", 1), ok + "|" + later, "me me"},
		}, 9, ""},
		{"another sender", []attempt{{"", "me tempfail", first, ok + "|" + later, "me"}, {"t@client.example", "me tempfail", first, ok + "|" + later, "me me"}}, 9, ""},
		{"other recipients", []attempt{{"", "me tempfail", first, ok + "|" + later, "me"}, {"", "me", first, ok, "me me"}}, 9, ""},
		{"without Message-ID it is the same", []attempt{{"", "me tempfail", none, ok + "|" + later, "me"}, {"", "me tempfail", none, before + "|" + later, "me"}}, 9, ""},
		{"without Message-ID the trace counts", []attempt{
			{"", "me tempfail", none, ok + "|" + later, "me"},
			{"", "me tempfail", "Received: x\n" + none, ok + "|" + later, "me me"},
		}, 9, ""},
		{"held and discarded", []attempt{
			{"", "hold discard reject tempfail", first, ok + "|" + ok + "|" + ok + "|" + later, ""},
			{"", "hold discard reject tempfail", again, before + "|" + before + "|" + before + "|" + later, ""},
		}, 9, "hold reject"},
		{"an alias of which one is postponed", []attempt{
			{"", "mixed you", first, later + "|" + ok, "you"},
			{"", "mixed you", again, ok + "|" + before, "me tempfail you"},
		}, 1, ""},
		{"two addresses of one account", []attempt{
			{"", "me info tempfail", first, ok + "|" + ok + "|" + later, "me"},
			{"", "me info tempfail", again, before + "|" + before + "|" + ok, "me tempfail"},
		}, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mended := false
			d := open(t, func(d *door) {
				lmtp(d)
				d.cfg.Believe = func(*listen.Conn) bool { return true }
				d.cfg.State = &pipelinetest.State{Now: func() time.Time { return noon }}
				step := byName()
				stages, err := step.Kind.New(step.Config, pipeline.Env{})
				if err != nil {
					t.Fatal(err)
				}
				for i, x := range stages {
					stages[i] = unless{x, &mended}
				}
				step.Kind.New = func(any, pipeline.Env) ([]pipeline.Stage, error) { return stages, nil }
				d.steps = []pipeline.Step{step}
			})
			for n, a := range tt.attempts {
				mended = n >= tt.mended
				if a.from == "" {
					a.from = "s@client.example"
				}
				c := d.dial()
				c.talk(lmtpGreeting + "C: MAIL FROM:<" + a.from + ">\nS: 250 *\n")
				var taken []string
				for _, r := range strings.Fields(a.rcpts) {
					switch r {
					case "full":
						c.talk("C: RCPT TO:<full@example.org>\nS: 452 *\n")
						continue
					case "nobody":
						c.talk("C: RCPT TO:<nobody@example.org>\nS: 550 *\n")
						continue
					}
					c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
					taken = append(taken, r)
				}
				c.talk("C: DATA\nS: 354 *\nC: " + strings.ReplaceAll(strings.TrimSuffix(a.mail, "\n"), "\n", "\nC: ") + "\nC: .\n")
				for i, reply := range strings.Split(a.replies, "|") {
					c.talk("S: " + strings.ReplaceAll(reply, "%", taken[i]+"@example.org") + "\n")
				}
				c.talk("C: QUIT\nS: 221 *\n")
				if got := d.store.all(); got != a.delivered {
					t.Errorf("attempt %d: delivered %q, want %q", n+1, got, a.delivered)
				}
				r, _ := d.journal.Last()
				for i, x := range r.Recipients {
					if repeated := strings.Contains(x.Reply.Text, "accepted before as"); repeated != (x.Disposition == pipeline.Repeated) || repeated != (x.Note == "served by id1") {
						t.Errorf("attempt %d: recipient %d: recorded %q, %q, %q", n+1, i, x.Disposition, x.Reply, x.Note)
					}
				}
			}
			if got := d.held.held(); got != tt.held {
				t.Errorf("held %q, want %q", got, tt.held)
			}
			if log := d.log.String(); strings.Contains(log, "twice") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// unless is a stage that says nothing about tempfail@ once that is mended.
type unless struct {
	pipeline.Stage
	mended *bool
}

func (u unless) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if *u.mended && v.Rcpt.Account == "tempfail@example.org" {
		return pipeline.Result{}, nil
	}
	return u.Stage.Check(ctx, v)
}

const partly = "C: MAIL FROM:<s@client.example>\nS: 250 *\nC: RCPT TO:<me@example.org>\nS: 250 *\nC: RCPT TO:<tempfail@example.org>\nS: 250 *\n" +
	"C: DATA\nS: 354 *\nC: Message-ID: <1@client.example>\nC:\nC: .\n"

// At LMTP every recipient is answered, and nobody comes again for those served.
func TestNothingIsRepeatedAtLMTP(t *testing.T) {
	d := open(t, func(d *door) { lmtp(d); d.cfg.State = burning{} })
	for range 2 {
		d.dial().talk(lmtpGreeting + partly + "S: 250 *\nS: 451 *\n")
	}
	if got := d.store.all(); got != "me me" || strings.Contains(d.log.String(), "fire") {
		t.Errorf("delivered %q; log:\n%s", got, d.log)
	}
}

// A state that fails costs a copy too many, never a mail.
func TestStateFailsAtDeliver(t *testing.T) {
	d := open(t, func(d *door) {
		lmtp(d)
		d.cfg.Believe, d.cfg.State = func(*listen.Conn) bool { return true }, burning{}
	})
	for range 2 {
		d.dial().talk(lmtpGreeting + partly + "S: 250 *\nS: 451 *\n")
	}
	log := d.log.String()
	if got := d.store.all(); got != "me me" || strings.Count(log, "is not known; whom it has served") != 2 || strings.Count(log, "is not remembered") != 2 {
		t.Errorf("delivered %q; log:\n%s", got, log)
	}
}

// What could not be recorded is answered 451 for all: who has the mail by then is not served again.
func TestRepeatedAfterAnUnkeptRecord(t *testing.T) {
	d := open(t, func(d *door) {
		lmtp(d)
		d.cfg.Believe = func(*listen.Conn) bool { return true }
		d.cfg.State = &pipelinetest.State{Now: func() time.Time { return noon }}
	})
	call := func(replies string) {
		t.Helper()
		d.dial().talk(lmtpGreeting + strings.Replace(partly, "tempfail", "discard", 1) + replies)
	}
	d.journal.Err = errors.New("disk full")
	call("S: 451 *\nS: 451 *\n")
	d.journal.Err = nil
	call("S: 250 2.0.0 <me@example.org> accepted before as id1\nS: 250 2.0.0 <discard@example.org> accepted as id2\n")
	if got := d.store.all(); got != "me" {
		t.Errorf("delivered %q", got)
	}
}

// noting is a state that says when something is stored.
type noting struct {
	*pipelinetest.State
	stored chan struct{}
}

func (n noting) Store(ctx context.Context, key string, value []byte, keep time.Duration) error {
	err := n.State.Store(ctx, key, value, keep)
	n.stored <- struct{}{}
	return err
}

// A caller that is gone when the mail is filed has not heard of it and comes again.
func TestRepeatedAfterTheCallerHasGone(t *testing.T) {
	entered, hold := make(chan struct{}), make(chan struct{})
	state := noting{&pipelinetest.State{Now: func() time.Time { return noon }}, make(chan struct{}, 2)}
	d := open(t, func(d *door) {
		lmtp(d)
		d.cfg.Believe = func(*listen.Conn) bool { return true }
		d.cfg.State = state
		d.listen.Address = "unix:" + filepath.Join(t.TempDir(), "deliver.sock") // by TCP the first octets for nobody go well
		d.store.entered, d.store.hold = entered, hold
	})
	c := d.dial()
	c.talk(lmtpGreeting + strings.Replace(partly, "tempfail", "you", 1))
	<-entered
	_ = c.Close()
	close(hold)
	<-state.stored
	d.store.entered = nil
	d.dial().talk(lmtpGreeting + strings.Replace(partly, "tempfail", "you", 1) + "S: 250 2.0.0 <me@example.org> accepted *\nS: 250 *\n")
	if got := d.store.all(); got != "me you" {
		t.Errorf("delivered %q", got)
	}
}
