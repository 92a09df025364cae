package replies

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

type site struct {
	t     *testing.T
	stage pipeline.Stage
	now   time.Time
}

func open(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, now: pipelinetest.Epoch}
	env := pipelinetest.Env(t)
	env.State = &pipelinetest.State{Now: func() time.Time { return s.now }}
	c := Kind().Config().(*Config)
	if change != nil {
		change(c)
	}
	stages, err := Kind().New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	s.stage = stages[0]
	return s
}

// mail hands one mail to the stage; action is what became of it.
func (s *site) mail(client pipeline.Client, to, header string, action pipeline.Action) Fact {
	s.t.Helper()
	var v pipeline.View
	v.Client, v.Received = client, s.now
	v.Sender = pipelinetest.Address(s.t, "envelope@example.net")
	v.Rcpt.Address = pipelinetest.Address(s.t, to)
	v.Message = pipelinetest.Parse(s.t, header+"\n\nx\n")
	r, err := s.stage.Check(s.t.Context(), v)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.After != nil {
		r.After(context.Background(), pipeline.Outcome{Counted: true, Taken: !action.Refuses(), Verdict: pipeline.Verdict{Action: action}})
	}
	return r.Fact.(Fact)
}

func (s *site) gets(to, header string, want Fact) {
	s.t.Helper()
	stranger := pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	if got := s.mail(stranger, to, header, pipeline.Pass); got != want {
		s.t.Errorf("%q to %s: %+v, want %+v", header, to, got, want)
	}
}

func TestReplies(t *testing.T) {
	s := open(t, nil)
	login := pipeline.Client{Login: "me@example.org"}
	if f := s.mail(login, "friend@example.com", "From: Me <me+x@example.org>\nMessage-ID: <1@example.org>", pipeline.Pass); !f.Sent {
		t.Errorf("%+v", f)
	}
	s.mail(login, "friend@example.com", "From: me@example.org\nMessage-ID: <refused@example.org>", pipeline.Reject)
	s.mail(login, "friend@example.com", "From: me@example.org\nMessage-ID: <held@example.org>", pipeline.Quarantine)
	s.mail(login, "friend@example.com", "From: me@example.org", pipeline.Pass)
	s.gets("me@example.org", "From: friend@example.com\nIn-Reply-To: <1@example.org>", Fact{Reply: true, Own: true, To: "1@example.org", Written: true})
	s.gets("me+lists@example.org", "From: Friend+y@Example.com\nReferences: <0@x> <1@example.org>\n <9@x>", Fact{Reply: true, Own: true, To: "1@example.org", Written: true})
	s.gets("you@example.org", "From: friend@example.com\nIn-Reply-To: <1@example.org>", Fact{Reply: true, To: "1@example.org"})
	s.gets("me@example.org", "From: other@example.com\nIn-Reply-To: <1@example.org>", Fact{Reply: true, Own: true, To: "1@example.org"})
	s.gets("me@example.org", "From: friend@example.com\nIn-Reply-To: <2@example.org>", Fact{Written: true})
	s.gets("me@example.org", "From: x@example.com\nIn-Reply-To: <refused@example.org>", Fact{})
	s.gets("me@example.org", "From: x@example.com\nIn-Reply-To: <held@example.org>", Fact{})
	s.gets("me@example.org", "From: x@example.com\nIn-Reply-To: <>\nReferences: <> @", Fact{}) // a mail without an id is answered by nothing
	s.gets("me@example.org", "From: x@example.com", Fact{})
	s.now = s.now.Add(60 * 24 * time.Hour)
	s.gets("me@example.org", "From: friend@example.com\nIn-Reply-To: <1@example.org>", Fact{})
}

// Who sends is a matter of the login; of trusted networks only where the site says so.
func TestTrusted(t *testing.T) {
	trusted := pipeline.Client{Addr: netip.MustParseAddr("127.0.0.1"), Trusted: true}
	for _, yes := range []bool{false, true} {
		s := open(t, func(c *Config) { c.Trusted = yes })
		f := s.mail(trusted, "friend@example.com", "From: me@example.org\nMessage-ID: <1@example.org>", pipeline.Pass)
		if f.Sent != yes {
			t.Errorf("trusted %t: %+v", yes, f)
		}
	}
}

// Of very many references the latest are looked for.
func TestReferences(t *testing.T) {
	s := open(t, func(c *Config) { c.References = 3 })
	s.mail(pipeline.Client{Login: "me"}, "a@example.com", "From: me@example.org\nMessage-ID: <5@x>", pipeline.Pass)
	header := "From: b@example.com\nReferences:"
	for i := range 8 {
		header += fmt.Sprintf(" <%d@x>", i)
	}
	s.gets("me@example.org", header, Fact{Reply: true, Own: true, To: "5@x"})
	s.gets("me@example.org", header+" <8@x>", Fact{})
	s.gets("me@example.org", "From: b@example.com\nReferences: "+strings.Repeat("<no id> ", 10000), Fact{})
}

type broken struct{ pipeline.State }

func (broken) Load(context.Context, string) ([]byte, bool, error) {
	return nil, false, errors.New("disk I/O error")
}

func TestNoState(t *testing.T) {
	s := open(t, nil)
	s.stage.(*stage).state = broken{}
	var v pipeline.View
	v.Rcpt.Address = pipelinetest.Address(t, "me@example.org")
	v.Message = pipelinetest.Parse(t, "From: a@example.com\nIn-Reply-To: <1@x>\n\nx\n")
	if _, err := s.stage.Check(t.Context(), v); err == nil || !strings.Contains(err.Error(), "disk I/O error") {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"is no time to remember": func(c *Config) { c.Keep = 0 },
		"is not from 1 to 1000":  func(c *Config) { c.References = 0 },
	} {
		c := Kind().Config().(*Config)
		change(c)
		if _, err := Kind().New(c, pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
