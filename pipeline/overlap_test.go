package pipeline_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// slow is a stage that takes its time, and counts how often it was asked and how often its results were settled.
type slow struct {
	reads          pipeline.Reads
	takes          time.Duration
	says           pipeline.Verdict
	asked, settled atomic.Int32
	counted        atomic.Int32
}

func (s *slow) Reads() pipeline.Reads {
	s.reads.Waits = true
	if s.says.Action != pipeline.Pass {
		s.reads.Can = []pipeline.Final{{At: s.says.At, Action: s.says.Action}}
	}
	return s.reads
}

func (s *slow) Check(ctx context.Context, _ pipeline.View) (pipeline.Result, error) {
	s.asked.Add(1)
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return pipeline.Result{}, ctx.Err()
	}
	return pipeline.Result{Verdict: s.says, After: func(_ context.Context, o pipeline.Outcome) {
		s.settled.Add(1)
		if o.Counted {
			s.counted.Add(1)
		}
	}}, nil
}

func site(t *testing.T, o pipeline.Options, stages ...*slow) (*pipeline.Plan, *pipelinetest.Journal) {
	t.Helper()
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal = journal
	var steps []pipeline.Step
	for i, s := range stages {
		steps = append(steps, pipelinetest.Step(string(rune('a'+i)), s))
	}
	p, err := pipeline.NewPlan(steps, env, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, journal
}

// What is asked about the client, the greeting and the sender does not hold up the conversation where nothing can be
// said before the content: all of it together takes as long as the slowest.
func TestPhasesOverlap(t *testing.T) {
	for _, door := range []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter} {
		synctest.Test(t, func(t *testing.T) {
			a := &slow{reads: pipeline.Reads{Input: pipeline.InputClient}, takes: 3 * time.Second}
			b := &slow{reads: pipeline.Reads{Input: pipeline.InputGreeting}, takes: 2 * time.Second}
			c := &slow{reads: pipeline.Reads{Input: pipeline.InputSender}, takes: 3 * time.Second}
			d := &slow{reads: pipeline.Reads{Input: pipeline.InputBody}, takes: 3 * time.Second}
			e := &slow{reads: pipeline.Reads{Input: pipeline.InputBody, Facts: []string{"b"}}, takes: time.Second}
			p, journal := site(t, pipeline.Options{}, a, b, c, d, e)
			began := time.Now()
			ran := pipelinetest.Run(t, p, door, journal, pipelinetest.Mail{From: "a@example.com", Text: "Subject: x\n\nx\n"})
			if took := time.Since(began); took != 3*time.Second {
				t.Errorf("%s: %s, want 3s", door, took)
			}
			for i, s := range []*slow{a, b, c, d, e} {
				counted := int32(1)
				if i < 2 { // what is about the connection is no message's
					counted = 0
				}
				if s.asked.Load() != 1 || s.settled.Load() != 1 || s.counted.Load() != counted {
					t.Errorf("%s: stage %d was asked %d times, settled %d times, counted %d times", door, i, s.asked.Load(), s.settled.Load(), s.counted.Load())
				}
			}
			for _, step := range ran.Record.Steps {
				if step.Stages[0].State != "answered" {
					t.Errorf("%s: %s is %q", door, step.Name, step.Stages[0].State)
				}
			}
		})
	}
}

// Where a recipient can be refused, what was asked before is waited for, all of it at once, and decides.
func TestRefusalsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slow{reads: pipeline.Reads{Input: pipeline.InputClient}, takes: 3 * time.Second}
		b := &slow{reads: pipeline.Reads{Input: pipeline.InputSender}, takes: 2 * time.Second,
			says: pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "no"}}}
		p, _ := site(t, pipeline.Options{}, a, b)
		s := p.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
		began := time.Now()
		s.Connect(t.Context())
		s.Helo(t.Context(), "x.example")
		s.Mail(t.Context(), pipelinetest.Address(t, "a@example.com"))
		if took := time.Since(began); took != 0 {
			t.Errorf("the client waits %s before there is a recipient", took)
		}
		r := s.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")})
		if took := time.Since(began); r == nil || r.Text != "no" || took != 3*time.Second {
			t.Errorf("%v after %s", r, took)
		}
		s.Close()
		if a.settled.Load() != 1 || b.settled.Load() != 1 {
			t.Error("not settled once")
		}
	})
}

// What is under way when the client says something else, or goes, is told that it does not count, and nothing stays.
func TestUnderWayIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slow{reads: pipeline.Reads{Input: pipeline.InputClient}, takes: 3 * time.Second}
		b := &slow{reads: pipeline.Reads{Input: pipeline.InputSender}, takes: 3 * time.Second}
		c := &slow{reads: pipeline.Reads{Input: pipeline.InputRecipient}, takes: 3 * time.Second}
		p, _ := site(t, pipeline.Options{}, a, b, c)
		s := p.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
		s.Connect(t.Context())
		s.SetClient(pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), TLS: "TLSv1.3"})
		s.Helo(t.Context(), "x.example")
		s.Mail(t.Context(), pipelinetest.Address(t, "a@example.com"))
		s.Mail(t.Context(), pipelinetest.Address(t, "b@example.com"))
		s.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")})
		time.Sleep(2 * time.Second)
		s.Reset("RSET")
		time.Sleep(2 * time.Second) // the answer about the client has come
		s.Mail(t.Context(), pipelinetest.Address(t, "c@example.com"))
		time.Sleep(time.Second)
		s.Close()
		synctest.Wait()
		if a.asked.Load() != 2 || a.settled.Load() != 1 {
			t.Errorf("about the client: asked %d times, settled %d", a.asked.Load(), a.settled.Load())
		}
		if b.asked.Load() != 3 || b.settled.Load() != 0 || c.asked.Load() != 1 || c.settled.Load() != 0 {
			t.Errorf("about the message: asked %d and %d times, settled %d and %d", b.asked.Load(), c.asked.Load(), b.settled.Load(), c.settled.Load())
		}
	})
}

// A peer that hangs costs each phase its limit at most, also where it was asked long before.
func TestHangingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slow{reads: pipeline.Reads{Input: pipeline.InputClient}, takes: time.Hour}
		p, journal := site(t, pipeline.Options{ContentTimeout: 4 * time.Second}, a)
		began := time.Now()
		ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "a@example.com", Text: "Subject: x\n\nx\n"})
		if took := time.Since(began); took != 4*time.Second || ran.Record.Steps[0].Stages[0].State != "error" {
			t.Errorf("%s, %+v", took, ran.Record.Steps[0].Stages[0])
		}
	})
}
