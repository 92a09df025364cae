package ratelimit

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) {
	for _, count := range []string{"messages", "recipients", "bytes"} {
		t.Run(count, func(t *testing.T) {
			pipelinetest.Conform(t, Kind(), func(c any) { c.(*Config).Limit, c.(*Config).Count = 10, count })
		})
	}
}

type site struct {
	t     *testing.T
	stage pipeline.Stage
	now   time.Time
	state *pipelinetest.State
}

func open(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, now: pipelinetest.Epoch}
	s.state = &pipelinetest.State{Now: func() time.Time { return s.now }}
	env := pipelinetest.Env(t)
	env.Name, env.State = "ratelimit", s.state
	c := Kind().Config().(*Config)
	c.Limit = 3
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

type mail struct {
	client, login, from, to string
	size                    int
	verdict                 pipeline.Action
	away                    bool // the client goes away after it was asked for
}

func (s *site) send(m mail) Fact {
	s.t.Helper()
	var v pipeline.View
	if m.client != "" {
		v.Client.Addr = netip.MustParseAddr(m.client)
	}
	v.Client.Login, v.Received = m.login, s.now
	v.Sender = pipelinetest.Address(s.t, m.from)
	v.Rcpt.Address = pipelinetest.Address(s.t, m.to)
	v.Message = pipelinetest.Parse(s.t, strings.Repeat("x", m.size))
	r, err := s.stage.Check(s.t.Context(), v)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.After != nil {
		r.After(context.Background(), pipeline.Outcome{
			Counted: true, Taken: !m.away && !m.verdict.Refuses(), Verdict: pipeline.Verdict{Action: m.verdict},
		})
	}
	return r.Fact.(Fact)
}

func (s *site) counts(m mail, want ...int) {
	s.t.Helper()
	for _, n := range want {
		f := s.send(m)
		if f.Count != n || f.Exceeded != (n > f.Limit) {
			s.t.Errorf("%+v: %+v, want %d", m, f, n)
		}
	}
}

func TestMessages(t *testing.T) {
	s := open(t, nil)
	m := mail{client: "192.0.2.1", from: "a@x.example", to: "me@example.org"}
	s.counts(m, 1, 2, 3, 4, 5)
	m.client = "192.0.2.2"
	s.counts(m, 1)
	m.client = "192.0.2.1"
	s.now = s.now.Add(90 * time.Minute) // half of the hour before still counts: the epoch begins one
	s.counts(m, 1+2)
	s.now = s.now.Add(3 * time.Hour)
	s.counts(m, 1)
}

// What is not taken does not count, unless it shall.
func TestRefused(t *testing.T) {
	for refused, want := range map[bool][]int{false: {1, 1, 1}, true: {1, 2, 3}} {
		s := open(t, func(c *Config) { c.Refused = refused })
		s.counts(mail{client: "192.0.2.1", from: "a@x.example", to: "me@example.org", verdict: pipeline.Reject}, want...)
		s.counts(mail{client: "192.0.2.3", from: "a@x.example", to: "me@example.org", verdict: pipeline.TempFail}, want...)
		s.counts(mail{client: "192.0.2.4", from: "a@x.example", to: "me@example.org", away: true}, want...)
	}
}

func TestBy(t *testing.T) {
	a := mail{client: "192.0.2.1", login: "me@example.org", from: "a+1@x.example", to: "u@example.org"}
	for _, tt := range []struct {
		by   []string
		b    mail
		same bool
		key  string
	}{
		{[]string{"network"}, mail{"192.0.2.9", "", "b@y.example", "v@example.org", 0, 0, false}, true, "network 192.0.2.0/24"},
		{[]string{"client"}, mail{"192.0.2.9", "me@example.org", "a@x.example", "u@example.org", 0, 0, false}, false, "client 192.0.2.1"},
		{[]string{"login"}, mail{"198.51.100.1", "Me@Example.org", "b@y.example", "v@example.org", 0, 0, false}, true, "login me@example.org"},
		{[]string{"login"}, mail{"192.0.2.1", "you@example.org", "a@x.example", "u@example.org", 0, 0, false}, false, "login me@example.org"},
		{[]string{"sender"}, mail{"198.51.100.1", "", "A+2@X.example", "v@example.org", 0, 0, false}, true, "sender a@x.example"},
		{[]string{"sender_domain"}, mail{"198.51.100.1", "", "b@x.example", "v@example.org", 0, 0, false}, true, "sender_domain x.example"},
		{[]string{"recipient"}, mail{"198.51.100.1", "", "b@y.example", "u@example.org", 0, 0, false}, true, "recipient u@example.org"},
		{[]string{"recipient_domain"}, mail{"198.51.100.1", "", "b@y.example", "v@example.org", 0, 0, false}, true, "recipient_domain example.org"},
		{[]string{"sender", "recipient"}, mail{"198.51.100.1", "", "a@x.example", "v@example.org", 0, 0, false}, false, "sender a@x.example, recipient u@example.org"},
	} {
		s := open(t, func(c *Config) { c.By, c.Of = tt.by, "all" })
		if f := s.send(a); f.Key != tt.key {
			t.Errorf("%v: counted for %q", tt.by, f.Key)
		}
		if f := s.send(tt.b); (f.Count == 2) != tt.same {
			t.Errorf("%v: %+v", tt.by, f)
		}
	}
	// IPv6: a machine has a network of its own.
	s := open(t, nil)
	s.counts(mail{client: "2001:db8::1", from: "a@x.example", to: "u@example.org"}, 1)
	s.counts(mail{client: "2001:db8::2", from: "a@x.example", to: "u@example.org"}, 2)
	s.counts(mail{client: "2001:db8:0:1::2", from: "a@x.example", to: "u@example.org"}, 1)
}

// What is not known is not counted, and what is not meant neither.
func TestNotCounted(t *testing.T) {
	s := open(t, func(c *Config) { c.Of, c.By = "out", []string{"login"} })
	for range 5 {
		if f := s.send(mail{client: "192.0.2.1", from: "a@x.example", to: "u@example.org"}); f.Exceeded || f.Key != "" {
			t.Errorf("%+v for mail that comes in", f)
		}
	}
	s = open(t, func(c *Config) { c.By = []string{"sender_domain"} })
	if f := s.send(mail{client: "192.0.2.1", from: "", to: "u@example.org"}); f.Key != "" {
		t.Errorf("a bounce has the domain %q", f.Key)
	}
	if r := open(t, nil).stage.Reads(); !r.Strangers {
		t.Error("mail of trusted clients is counted as coming in")
	}
}

func TestBytes(t *testing.T) {
	s := open(t, func(c *Config) { c.Count, c.Limit = "bytes", 1000 })
	m := mail{client: "192.0.2.1", from: "a@x.example", to: "u@example.org", size: 400}
	s.counts(m, 400, 800, 1200)
}

// The counters outlive a restart, and a clock that goes back finds those of its time.
func TestRestartAndClock(t *testing.T) {
	s := open(t, nil)
	m := mail{client: "192.0.2.1", from: "a@x.example", to: "me@example.org"}
	s.counts(m, 1, 2)
	again := open(t, nil)
	again.state = s.state
	again.stage.(*stage).state = s.state
	again.counts(m, 3, 4)
	s.now = s.now.Add(-10 * time.Minute) // the hour before
	s.counts(m, 1)
	s.now = s.now.Add(20 * time.Minute)
	s.counts(m, 5+0) // 10 minutes into the hour: 5/6 of that one
	s.counts(m, 6+0)
}

// Whose limits count for logins.
func TestLogins(t *testing.T) {
	for of, want := range map[string]bool{"in": false, "out": true, "all": true} {
		if got := open(t, func(c *Config) { c.Of = of }).stage.Reads().Logins; got != want {
			t.Errorf("of %s: %t", of, got)
		}
	}
}

// Many at once are all counted.
func TestAtOnce(t *testing.T) {
	s := open(t, func(c *Config) { c.Limit = 50 })
	var mu sync.Mutex
	var exceeded int
	var wg sync.WaitGroup
	for range 80 {
		wg.Go(func() {
			if f := s.send(mail{client: "192.0.2.1", from: "a@x.example", to: "u@example.org"}); f.Exceeded {
				mu.Lock()
				exceeded++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if exceeded != 30 {
		t.Errorf("%d of 80 go over 50", exceeded)
	}
}

type broken struct{ pipeline.State }

func (broken) Add(context.Context, string, int64, time.Duration) (int64, error) {
	return 0, errors.New("disk I/O error")
}

func TestNoState(t *testing.T) {
	s := open(t, nil)
	s.stage.(*stage).state = broken{}
	var v pipeline.View
	v.Client.Addr = netip.MustParseAddr("192.0.2.1")
	if _, err := s.stage.Check(t.Context(), v); err == nil || err.Error() != "count client 192.0.2.1: disk I/O error" {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"by: names nothing":         func(c *Config) { c.By = nil },
		`by: "helo" is not among`:   func(c *Config) { c.By = []string{"helo"} },
		`of: "x" is not in`:         func(c *Config) { c.Of = "x" },
		"mail that comes in has no": func(c *Config) { c.By = []string{"login"} },
		`count: "x" is not`:         func(c *Config) { c.Count = "x" },
		"limit: is missing":         func(c *Config) { c.Limit = 0 },
		"per: 1ms is too short":     func(c *Config) { c.Per = time.Millisecond },
		"ipv4 is from 8 to 32":      func(c *Config) { c.IPv4 = 7 },
	} {
		c := Kind().Config().(*Config)
		c.Limit = 1
		change(c)
		if _, err := Kind().New(c, pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
