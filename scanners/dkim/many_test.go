package dkim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

const tags = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=%s; s=sel; h=from; "

// signed is mail with a signature of each domain, the first on top.
func signed(t testing.TB, domains ...string) string {
	t.Helper()
	text := mail
	for _, d := range slices.Backward(domains) {
		var err error
		if text, err = seal(text, fmt.Sprintf(tags, d), rsa2048(), 0); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// The signatures beyond the limit are named, and nothing is asked about them.
func TestMoreThanTheLimit(t *testing.T) {
	r := &pipelinetest.Resolver{TXT: map[string][]string{}}
	var domains []string
	for i := range 10 {
		d := fmt.Sprintf("d%d.example", i)
		r.TXT["sel._domainkey."+d] = []string{record(rsa2048(), "")}
		domains = append(domains, d)
	}
	text := signed(t, domains...)
	for limit, configure := range map[int]func(*Config){8: nil, 2: func(c *Config) { c.Signatures = 2 }} {
		fact, err := check(t, newStage(t, r, configure), text)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(fact.Domains, domains[:limit]) || !slices.Equal(fact.NotLooked, domains[limit:]) || fact.Found != 10 || len(fact.Signatures) != limit {
			t.Errorf("limit %d: %+v", limit, fact)
		}
	}
	for _, name := range []string{"sel._domainkey.d8.example", "sel._domainkey.d9.example"} {
		if slices.Contains(r.Asked(), name) {
			t.Errorf("%s was asked for", name)
		}
	}
}

// One key is asked for once, however many signatures name it.
func TestOneKey(t *testing.T) {
	r := keys(record(rsa2048(), ""))
	fact, err := check(t, newStage(t, r, nil), signed(t, "example.com", "Example.COM", "example.com"))
	if err != nil || len(fact.Signatures) != 3 || !slices.Equal(fact.Domains, []string{"example.com"}) {
		t.Fatalf("%+v, %v", fact, err)
	}
	if got := r.Asked(); !slices.Equal(got, []string{"sel._domainkey.example.com"}) {
		t.Errorf("asked for %v", got)
	}
}

// What cannot be asked leaves the question open only where nothing else answers it.
func TestUndecided(t *testing.T) {
	good := "sel._domainkey.good.example"
	r := func() *pipelinetest.Resolver {
		return &pipelinetest.Resolver{
			TXT:  map[string][]string{good: {record(rsa2048(), "")}},
			Fail: map[string]string{"sel._domainkey.slow.example": "timeout", "sel._domainkey.broken.example": "server misbehaving"},
		}
	}
	for _, tt := range []struct {
		name    string
		text    string
		results []string
		err     string
	}{
		{"beside a valid one", signed(t, "slow.example", "good.example", "broken.example"), []string{"temperror", "pass", "temperror"}, ""},
		{"alone", signed(t, "slow.example"), nil,
			"no signature is valid so far, and one is undecided: sel._domainkey.slow.example: look up the key: lookup sel._domainkey.slow.example: timeout"},
		{"beside one that fails", strings.Replace(signed(t, "good.example", "broken.example"), "From: A", "From: B", 1), nil,
			"no signature is valid so far, and one is undecided: sel._domainkey.broken.example: look up the key: lookup sel._domainkey.broken.example: server misbehaving"},
		{"beside one without a key", signed(t, "nokey.example", "slow.example"), nil,
			"no signature is valid so far, and one is undecided: sel._domainkey.slow.example: look up the key: lookup sel._domainkey.slow.example: timeout"},
		{"no signature", mail, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fact, err := check(t, newStage(t, r(), nil), tt.text)
			why := ""
			if err != nil {
				why = err.Error()
			}
			var results []string
			for _, x := range fact.Signatures {
				results = append(results, x.Result)
			}
			if why != tt.err || !slices.Equal(results, tt.results) {
				t.Errorf("%q %v, want %q %v", why, results, tt.err, tt.results)
			}
		})
	}
}

// Through a plan the stage's own policy is to go on without.
func TestSkippedByDefault(t *testing.T) {
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal = journal
	env.Resolver = &pipelinetest.Resolver{Fail: map[string]string{"sel._domainkey.slow.example": "timeout"}}
	p := pipelinetest.Plan(t, env, pipeline.Step{Kind: Kind(), Config: Kind().Config()})
	ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "a@example.com", Text: signed(t, "slow.example")})
	step := ran.Record.Steps[0]
	if ran.Decisions[0].Verdict.Action != pipeline.Pass || !strings.Contains(step.Unknown, "undecided: sel._domainkey.slow.example") {
		t.Errorf("%+v, unknown: %q", ran.Decisions[0].Verdict, step.Unknown)
	}
}

// A key that is too weak is not tried, whatever the signature.
func TestWeakKeys(t *testing.T) {
	const bits512 = "k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAIWmlgix/84GJ+dfgjm7LTc9EPdfkftlgiPpCq4/kbDAZmU0VvYKDljjleJ1dfvS+CGy9U/kk1tG3EeEvb82xAcCAwEAAQ=="
	for _, tt := range []struct {
		name, record   string
		bits           int
		least          int
		weak           bool
		result, reason string
	}{
		{"512", bits512, 512, 1024, true, "policy", "a key of 512 bits proves nothing"},
		{"1024", record(rsa1024(), ""), 1024, 1024, true, "pass", ""},
		{"1024 where more is asked for", record(rsa1024(), ""), 1024, 2048, true, "policy", "a key of 1024 bits; at least 2048 are asked for"},
		{"2048", record(rsa2048(), ""), 2048, 2048, false, "pass", ""},
		{"more than is tried", huge(), 8200, 1024, false, "policy", "a key of 8200 bits is not tried"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := rsa2048()
			if tt.bits == 1024 {
				key = rsa1024()
			}
			text, err := seal(mail, fmt.Sprintf(tags, "example.com"), key, 0)
			if err != nil {
				t.Fatal(err)
			}
			fact, err := check(t, newStage(t, keys(tt.record), func(c *Config) { c.MinBits = tt.least }), text)
			if err != nil {
				t.Fatal(err)
			}
			x := fact.Signatures[0]
			if x.Bits != tt.bits || x.WeakKey != tt.weak || x.Result != tt.result || x.Reason != tt.reason {
				t.Errorf("%+v", x)
			}
		})
	}
}

// Of several records one must be the key; others that say what they are do not matter.
func TestSeveralRecords(t *testing.T) {
	good := record(rsa2048(), "")
	for _, tt := range []struct {
		records []string
		reason  string
	}{
		{[]string{"v=spf1 include:example.net -all", good, "v=DMARC1; p=none"}, ""},
		{[]string{good, record(rsa1024(), "")}, "there are 2 records at sel._domainkey.example.com"},
	} {
		r := &pipelinetest.Resolver{TXT: map[string][]string{"sel._domainkey.example.com": tt.records}}
		fact, err := check(t, newStage(t, r, nil), signed(t, "example.com"))
		if err != nil || fact.Signatures[0].Reason != tt.reason {
			t.Errorf("%+v, %v, want %q", fact, err, tt.reason)
		}
	}
}

// A slowResolver answers after a second, about a name that begins with deaf not at all.
type slowResolver struct {
	pipeline.Resolver
	deaf string
}

func (r slowResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	wait := time.After(time.Second)
	if strings.HasPrefix(name, r.deaf) {
		wait = nil
	}
	select {
	case <-wait:
		return r.Resolver.LookupTXT(ctx, name)
	case <-ctx.Done():
		return nil, &net.DNSError{Err: "no answer in time", Name: name, IsTimeout: true, UnwrapErr: ctx.Err()}
	}
}

// All keys are asked for at the same time, and a deadline ends the wait.
func TestAtTheSameTime(t *testing.T) {
	r := &pipelinetest.Resolver{TXT: map[string][]string{}}
	var domains []string
	for i := range 8 {
		domains = append(domains, fmt.Sprintf("d%d.example", i))
		r.TXT["sel._domainkey."+domains[i]] = []string{record(rsa2048(), "")}
	}
	text := signed(t, domains...)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		fact, err := check(t, newStage(t, slowResolver{r, "sel._domainkey.x"}, nil), text)
		if took := time.Since(began); err != nil || len(fact.Domains) != 8 || took != time.Second {
			t.Errorf("%d passed after %s: %v", len(fact.Domains), took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		var v pipeline.View
		v.Message = pipelinetest.Parse(t, text)
		_, err := newStage(t, slowResolver{r, "sel"}, nil).Check(ctx, v)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no answer in time") || took != 3*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// One key that does not answer takes its own time and not the valid signature.
func TestOneDoesNotAnswer(t *testing.T) {
	r := &pipelinetest.Resolver{TXT: map[string][]string{"sel._domainkey.good.example": {record(rsa2048(), "")}}}
	text := signed(t, "silent.example", "good.example")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		fact, err := check(t, newStage(t, slowResolver{r, "sel._domainkey.silent"}, nil), text)
		if took := time.Since(began); err != nil || !fact.Pass || fact.Signatures[0].Result != "temperror" || took != 10*time.Second {
			t.Errorf("%+v after %s: %v", fact, took, err)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.Signatures = 0 }, "signatures: 0: write a number from 1 to 100"},
		{func(c *Config) { c.Signatures = 101 }, "signatures: 101: write a number from 1 to 100"},
		{func(c *Config) { c.MinBits = 512 }, "min_bits: 512: RFC 8301 lets no key below 1024 bits count"},
		{func(c *Config) { c.Skew = -time.Second }, "skew: -1s is no time"},
		{func(c *Config) { c.KeyTimeout = 0 }, "key_timeout: 0s is no time to wait"},
	} {
		c := Kind().Config().(*Config)
		tt.set(c)
		if _, err := Kind().New(c, pipelinetest.Env(t)); err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// A message whose source fails is an error and no failed signature.
func TestUnreadable(t *testing.T) {
	text := signed(t, "example.com")
	s := newStage(t, keys(record(rsa2048(), "")), nil)
	var v pipeline.View
	v.Message = broken(t, text)
	if _, err := s.Check(t.Context(), v); err == nil || err.Error() != "read the body: the disk is gone" {
		t.Error(err)
	}
}

var errDisk = errors.New("the disk is gone")
