package pipelinetest

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A Mail is one transaction for a test.
type Mail struct {
	Client     pipeline.Client // the zero one is 192.0.2.1
	Helo       string          // "" is client.example
	From       string
	To         []string // none is me@example.org
	Text       string   // the message; bare LF become CRLF
	NoContent  bool     // the client goes away before DATA
	Accounts   bool     // each recipient has an account of its own name
	Deliveries []pipeline.Delivery
}

// Parse returns the text as a message.
func Parse(t testing.TB, text string) *mime.Message {
	t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Address parses a mail address, "" for the null sender.
func Address(t testing.TB, s string) pipeline.Address {
	t.Helper()
	if s == "" {
		return pipeline.Address{}
	}
	a, err := mime.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A Ran is what came of a Mail.
type Ran struct {
	Refused   []*pipeline.Reply // of each recipient at RCPT, nil where it was taken
	Decisions []pipeline.Decision
	Record    *pipeline.Record // nil if the plan's Journal is not a *Journal, or if it kept none
}

// Run takes a mail through a plan as the door d would.
func Run(t testing.TB, p *pipeline.Plan, d pipeline.Door, journal *Journal, m Mail) Ran {
	t.Helper()
	if m.Client == (pipeline.Client{}) {
		m.Client.Addr = netip.MustParseAddr("192.0.2.1")
	}
	if m.Helo == "" {
		m.Helo = "client.example"
	}
	if len(m.To) == 0 {
		m.To = []string{"me@example.org"}
	}
	ctx := t.Context()
	s := p.NewSession(d, m.Client)
	defer s.Close()
	s.Connect(ctx)
	s.Helo(ctx, m.Helo)
	s.Mail(ctx, Address(t, m.From))
	var ran Ran
	for _, to := range m.To {
		r := pipeline.Recipient{Address: Address(t, to)}
		if m.Accounts {
			r.Account = r.Address.String()
		}
		ran.Refused = append(ran.Refused, s.Rcpt(ctx, r))
	}
	if m.NoContent {
		s.Reset("went away")
	} else {
		s.Data(ctx)
		ran.Decisions = s.Content(ctx, Parse(t, m.Text))
		settled := d.Settle(ran.Decisions, false)
		deliveries := m.Deliveries
		if deliveries == nil {
			for i, disposition := range settled.Dispositions {
				deliveries = append(deliveries, pipeline.Delivery{Disposition: disposition, Reply: settled.Replies[i]})
			}
		}
		if err := s.Done(ctx, settled.Reply, deliveries); err != nil {
			t.Fatal(err)
		}
	}
	if journal != nil {
		ran.Record, _ = journal.Last()
	}
	return ran
}

// A Stage is a stage made of a function, for tests of the engine and of doors.
type Stage struct {
	Looks pipeline.Reads
	Says  func(ctx context.Context, v pipeline.View) (pipeline.Result, error)
}

// Reads returns Looks.
func (s Stage) Reads() pipeline.Reads { return s.Looks }

// Check calls Says.
func (s Stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	if s.Says == nil {
		return pipeline.Result{}, nil
	}
	return s.Says(ctx, v)
}

// Step is a step of these stages, with a kind of its own.
func Step(name string, stages ...pipeline.Stage) pipeline.Step {
	return pipeline.Step{Name: name, Config: &struct{}{}, Kind: pipeline.Kind{
		Name:   name,
		Config: func() any { return &struct{}{} },
		New:    func(any, pipeline.Env) ([]pipeline.Stage, error) { return stages, nil },
	}}
}

// Plan makes a plan of steps, in the world env.
func Plan(t testing.TB, env pipeline.Env, steps ...pipeline.Step) *pipeline.Plan {
	t.Helper()
	p, err := pipeline.NewPlan(steps, env, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
