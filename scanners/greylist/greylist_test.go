package greylist

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

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

// A site is a greylist and its clock.
type site struct {
	t     *testing.T
	stage pipeline.Stage
	now   time.Time
}

type spfFact struct {
	Pool string `json:"pool" expr:"pool"`
}

func (f spfFact) SPFPool() string { return f.Pool }

func open(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, now: pipelinetest.Epoch}
	env := pipelinetest.Env(t)
	env.Name, env.State = "greylist", &pipelinetest.State{Now: func() time.Time { return s.now }}
	env.Before = []pipeline.Before{{Name: "spf", Fact: spfFact{}}, {Name: "greylist", Fact: Fact{}}}
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

// try offers a mail, with the verdict that a rule on greylist.new gives, and returns the state.
func (s *site) try(client, pool, from, to string) string {
	s.t.Helper()
	return s.verdict(client, pool, from, to, func(f Fact) pipeline.Action {
		if f.New {
			return pipeline.TempFail
		}
		return pipeline.Pass
	})
}

func (s *site) verdict(client, pool, from, to string, rule func(Fact) pipeline.Action) string {
	s.t.Helper()
	return s.outcome(client, pool, from, to, "", func(f Fact) pipeline.Outcome {
		action := rule(f)
		return pipeline.Outcome{Counted: true, Taken: !action.Refuses(), Verdict: pipeline.Verdict{Action: action}}
	})
}

// outcome offers a mail for a recipient that is said to stand for original.
func (s *site) outcome(client, pool, from, to, original string, becomes func(Fact) pipeline.Outcome) string {
	s.t.Helper()
	var v pipeline.View
	v.Client.Addr, v.Received = netip.MustParseAddr(client), s.now
	v.Sender = pipelinetest.Address(s.t, from)
	v.Rcpt.Address, v.Rcpt.Original = pipelinetest.Address(s.t, to), pipelinetest.Address(s.t, original)
	v.Facts = pipeline.Facts{"spf": {Fact: spfFact{pool}}}
	if pool == "unknown" {
		v.Facts = pipeline.Facts{"spf": {Unknown: errors.New("timeout")}}
	}
	r, err := s.stage.Check(s.t.Context(), v)
	if err != nil {
		s.t.Fatal(err)
	}
	f := r.Fact.(Fact)
	if f.New != (f.State == "first" || f.State == "early") || f.New != (f.Wait > 0) {
		s.t.Errorf("%+v contradicts itself", f)
	}
	r.After(context.Background(), becomes(f))
	return f.State
}

func (s *site) is(got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s, want %s", got, want)
	}
}

func TestGreylist(t *testing.T) {
	s := open(t, nil)
	const me, a = "me@example.org", "a@sender.example"
	s.is(s.try("192.0.2.1", "", a, me), "first")
	s.now = s.now.Add(4 * time.Minute)
	s.is(s.try("192.0.2.1", "", a, me), "early")
	s.is(s.try("192.0.2.1", "", a, "you@example.org"), "first") // another recipient
	s.is(s.try("192.0.3.1", "", a, me), "first")                // another network
	s.is(s.try("192.0.2.1", "", "b@sender.example", me), "first")
	s.now = s.now.Add(time.Minute)
	s.is(s.try("192.0.2.77", "", a, me), "passed") // the same network
	s.is(s.try("192.0.2.1", "", a, me), "known")
	s.now = s.now.Add(35 * 24 * time.Hour)
	s.is(s.try("192.0.2.1", "", a, me), "known") // each mail keeps it known
	s.now = s.now.Add(35 * 24 * time.Hour)
	s.is(s.try("192.0.2.1", "", a, me), "known")
	s.now = s.now.Add(36 * 24 * time.Hour)
	s.is(s.try("192.0.2.1", "", a, me), "first")
	s.now = s.now.Add(24*time.Hour + time.Second) // came back too late
	s.is(s.try("192.0.2.1", "", a, me), "first")
}

func TestNetworks(t *testing.T) {
	s := open(t, nil)
	const me, a = "me@example.org", "a@sender.example"
	s.is(s.try("2001:db8::1", "", a, me), "first")
	s.is(s.try("::ffff:192.0.2.1", "", a, me), "first")
	s.now = s.now.Add(5 * time.Minute)
	s.is(s.try("2001:db8::ffff:1", "", a, me), "passed")
	s.is(s.try("2001:db8:0:1::1", "", a, me), "first")
	s.is(s.try("192.0.2.2", "", a, me), "passed")
}

// Big senders try again from other networks of their pool; one that cannot be asked for is the network.
func TestPools(t *testing.T) {
	s := open(t, nil)
	const me, a = "me@example.org", "a@big.example"
	s.is(s.try("192.0.2.1", "big.example", a, me), "first")
	s.now = s.now.Add(5 * time.Minute)
	s.is(s.try("198.51.100.1", "unknown", a, me), "first")
	s.is(s.try("198.51.100.1", "big.example", a, me), "passed")
}

func TestAutoAllow(t *testing.T) {
	s := open(t, func(c *Config) { c.Allow = 2 })
	const me = "me@example.org"
	for _, from := range []string{"a@x.example", "b@x.example"} {
		s.is(s.try("192.0.2.1", "", from, me), "first")
		s.now = s.now.Add(5 * time.Minute)
		s.is(s.try("192.0.2.1", "", from, me), "passed")
	}
	s.is(s.try("192.0.2.9", "", "new@y.example", me), "allowed")
	s.is(s.try("192.0.3.9", "", "new@y.example", me), "first")
	s.now = s.now.Add(36 * 24 * time.Hour)
	s.is(s.try("192.0.2.9", "", "new@y.example", me), "first") // nothing came from there for long
}

// Who is refused for good has not shown that he comes again.
func TestRefusedTeachesNothing(t *testing.T) {
	s := open(t, nil)
	refuse := func(Fact) pipeline.Action { return pipeline.Reject }
	s.is(s.verdict("192.0.2.1", "", "a@x.example", "me@example.org", refuse), "first")
	s.now = s.now.Add(6 * time.Minute)
	s.is(s.verdict("192.0.2.1", "", "a@x.example", "me@example.org", refuse), "first")
}

// A mail that nobody postponed makes its sender known: so it can be tried without acting.
func TestWithoutARule(t *testing.T) {
	s := open(t, nil)
	take := func(Fact) pipeline.Action { return pipeline.Pass }
	s.is(s.verdict("192.0.2.1", "", "a@x.example", "me@example.org", take), "first")
	s.is(s.verdict("192.0.2.1", "", "a@x.example", "me@example.org", take), "known")
}

// A client that goes away after RCPT has shown nothing: it neither passes nor becomes known, but it was there.
func TestWentAway(t *testing.T) {
	s := open(t, nil)
	const me, a = "me@example.org", "a@x.example"
	away := func() string {
		return s.outcome("192.0.2.1", "", a, me, "", func(Fact) pipeline.Outcome { return pipeline.Outcome{Counted: true} })
	}
	s.is(away(), "first")
	s.is(away(), "early")
	s.now = s.now.Add(6 * time.Minute)
	s.is(away(), "passed")
	s.is(away(), "passed")
	s.is(s.try("192.0.2.1", "", a, me), "passed")
	s.is(away(), "known")
}

// What was held or thrown away makes nobody known.
func TestHeldTeachesNothing(t *testing.T) {
	s := open(t, nil)
	for _, action := range []pipeline.Action{pipeline.Quarantine, pipeline.Discard} {
		from := action.String() + "@x.example"
		s.is(s.verdict("192.0.2.1", "", from, "me@example.org", func(Fact) pipeline.Action { return action }), "first")
		s.is(s.try("192.0.2.1", "", from, "me@example.org"), "early")
	}
}

// A stranger says himself for whom a recipient stands (ORCPT): that makes not two recipients one.
func TestOriginalRecipient(t *testing.T) {
	s := open(t, nil)
	postpone := func(f Fact) pipeline.Outcome {
		return pipeline.Outcome{Counted: true, Taken: !f.New}
	}
	s.is(s.outcome("192.0.2.1", "", "a@x.example", "me@example.org", "same@x.example", postpone), "first")
	s.now = s.now.Add(6 * time.Minute)
	s.is(s.outcome("192.0.2.1", "", "a@x.example", "you@example.org", "same@x.example", postpone), "first")
	s.is(s.outcome("192.0.2.1", "", "a@x.example", "me@example.org", "other@x.example", postpone), "passed")
}

// One sender that writes to many is one sender, and bounces are.
func TestAutoAllowCountsSenders(t *testing.T) {
	s := open(t, func(c *Config) { c.Allow = 3 })
	for range 2 {
		for _, to := range []string{"a@example.org", "b@example.org", "c@example.org", "d@example.org"} {
			s.try("192.0.2.1", "", "one@x.example", to)
			s.try("192.0.2.1", "", "", to)
		}
		s.now = s.now.Add(6 * time.Minute)
	}
	s.is(s.try("192.0.2.1", "", "two@x.example", "a@example.org"), "first")
	s.now = s.now.Add(6 * time.Minute)
	s.is(s.try("192.0.2.1", "", "two@x.example", "a@example.org"), "passed")
	s.is(s.try("192.0.2.1", "", "three@x.example", "a@example.org"), "allowed")
}

// Two attempts at once are one, and each is told the same.
func TestAtOnce(t *testing.T) {
	s := open(t, func(c *Config) { c.Allow = 2 })
	at := s.now
	for _, want := range []string{"first", "passed"} {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := s.try("192.0.2.1", "", "a@x.example", "me@example.org"); got != want && !(want == "first" && got == "early" || want == "passed" && got == "known") {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
		wg.Wait()
		at = at.Add(6 * time.Minute)
		s.now = at
	}
	s.is(s.try("192.0.2.1", "", "b@x.example", "me@example.org"), "first") // 20 times one sender
}

// A clock that goes back makes a first try of one that lies ahead, and nobody unknown.
func TestClockGoesBack(t *testing.T) {
	s := open(t, nil)
	s.is(s.try("192.0.2.1", "", "a@x.example", "me@example.org"), "first")
	s.now = s.now.Add(-time.Hour)
	s.is(s.try("192.0.2.1", "", "a@x.example", "me@example.org"), "first")
	s.now = s.now.Add(5 * time.Minute)
	s.is(s.try("192.0.2.1", "", "a@x.example", "me@example.org"), "passed")
	s.now = s.now.Add(-24 * time.Hour)
	s.is(s.try("192.0.2.1", "", "a@x.example", "me@example.org"), "known")
}

// The pool is known under whatever name its step has, of the last one, and where its step comes later there is none.
func TestWhichPool(t *testing.T) {
	self := pipeline.Before{Name: "greylist", Fact: Fact{}}
	for _, tt := range []struct {
		before []pipeline.Before
		want   string
	}{
		{[]pipeline.Before{self}, ""},
		{[]pipeline.Before{{Name: "policy", Kind: "spf", Fact: spfFact{}}, {Name: "rdns", Fact: struct{}{}}, {Name: "rules"}, self}, "policy"},
		{[]pipeline.Before{{Name: "spf", Fact: spfFact{}}, {Name: "other", Fact: spfFact{}}, self}, "other"},
	} {
		env := pipelinetest.Env(t)
		env.Before = tt.before
		stages, err := Kind().New(Kind().Config(), env)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(stages[0].Reads().Facts, " "); got != tt.want {
			t.Errorf("reads %q, want %q", got, tt.want)
		}
	}
}

// Senders that differ for each mail are the same one.
func TestSender(t *testing.T) {
	for _, same := range [][]string{
		{"bounce-12345-678@lists.example.com", "bounce-999-1@mx7.example.com"},
		{"news+me=example.org@example.com", "news+you=example.org@example.com"},
		{"prvs=1234=a@example.com", "prvs=4321=a@example.com"},
		{"msg-deadbeefcafe@example.com", "msg-0123456789abcdef@example.com"},
		{"A@example.com", "a@EXAMPLE.com"},
	} {
		a, b := sender(pipelinetest.Address(t, same[0])), sender(pipelinetest.Address(t, same[1]))
		if a != b {
			t.Errorf("%s is %s, %s is %s", same[0], a, same[1], b)
		}
	}
	if a, b := sender(pipelinetest.Address(t, "a@example.com")), sender(pipelinetest.Address(t, "b@example.com")); a == b {
		t.Errorf("two people are one: %s", a)
	}
	if got := sender(pipeline.Address{}); got != "" {
		t.Errorf("the null sender is %q", got)
	}
}

// Without its memory it says nothing, rather than that everybody is new.
func TestNoState(t *testing.T) {
	s := open(t, nil)
	s.stage.(*stage).state = broken{}
	var v pipeline.View
	v.Client.Addr = netip.MustParseAddr("192.0.2.1")
	if _, err := s.stage.Check(t.Context(), v); err == nil || !strings.Contains(err.Error(), "disk I/O error") {
		t.Error(err)
	}
}

type broken struct{ pipeline.State }

func (broken) Load(context.Context, string) ([]byte, bool, error) {
	return nil, false, errors.New("disk I/O error")
}

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"so nobody would pass":           func(c *Config) { c.Window = c.Wait },
		"is no time to know anybody for": func(c *Config) { c.Keep = 0 },
		"is no number of senders":        func(c *Config) { c.Allow = -1 },
		"ipv4 is from 8 to 32":           func(c *Config) { c.IPv4 = 33 },
		"ipv6 from 16 to 128":            func(c *Config) { c.IPv6 = 0 },
	} {
		c := Kind().Config().(*Config)
		change(c)
		if _, err := Kind().New(c, pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
