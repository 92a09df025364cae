package spf

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), nil)
	t.Run("with an answer", func(t *testing.T) { // what Conform itself asks about has no policy
		f := factOf(t, newZone().add("a.example TXT v=spf1 include:b.example", "b.example TXT v=spf1 ip4:192.0.2.1"), "user@a.example", "mail.b.example")
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back Fact
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(f, back) {
			t.Errorf("%v: %+v became %+v", err, f, back)
		}
	})
}

func stageOf(t *testing.T, z *zone, change func(c *Config)) pipeline.Stage {
	t.Helper()
	env, k := pipelinetest.Env(t), Kind()
	env.Resolver = z
	c := k.Config().(*Config)
	if change != nil {
		change(c)
	}
	stages, err := k.New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return stages[0]
}

func viewOf(t *testing.T, from, helo string) pipeline.View {
	var v pipeline.View
	v.Client.Addr, v.Greeting, v.Sender, v.Received = netip.MustParseAddr("192.0.2.1"), helo, pipelinetest.Address(t, from), pipelinetest.Epoch
	return v
}

func factOf(t *testing.T, z *zone, from, helo string) Fact {
	t.Helper()
	r, err := stageOf(t, z, nil).Check(t.Context(), viewOf(t, from, helo))
	if err != nil || len(r.Missing) > 0 {
		t.Fatal(err, r.Missing)
	}
	return r.Fact.(Fact)
}

func TestFact(t *testing.T) {
	long := "v=spf1 -all " + strings.Repeat("x=y ", 1000)
	z := newZone().add(
		"a.example TXT v=spf1 include:_spf.mail.b.example -all", "_spf.mail.b.example TXT v=spf1 ip4:192.0.2.0/24",
		"all.example TXT v=spf1 a:nowhere.example +ALL",
		"f.example TXT v=spf1 ip4:198.51.100.1 -all exp=e.example", "e.example TXT %{l} at %{c}, seen by %{r} at %{t}",
		"bad.example TXT v=spf1 \xff", "mail.f.example TXT v=spf1 ~all", "long.example TXT "+long,
	)
	for _, tt := range []struct {
		from, helo string
		want       Fact
	}{
		{"user@a.example", "mail.a.example", Fact{
			Result: "pass", Identity: "mailfrom", Domain: "a.example", Mechanism: "ip4:192.0.2.0/24", Via: []string{"_spf.mail.b.example"},
			Record: "v=spf1 include:_spf.mail.b.example -all", Pool: "b.example", Helo: "none", HeloDomain: "mail.a.example", Lookups: 1,
		}},
		{"user@all.example", "mail", Fact{
			Result: "pass", Identity: "mailfrom", Domain: "all.example", Mechanism: "all", Via: []string{}, Record: "v=spf1 a:nowhere.example +ALL",
			Helo: "none", Lookups: 1, VoidLookups: 1,
		}},
		{"User+\u00fc@F.example", "mail.f.example", Fact{
			Result: "fail", Identity: "mailfrom", Domain: "f.example", Mechanism: "all", Via: []string{}, Record: "v=spf1 ip4:198.51.100.1 -all exp=e.example",
			Explanation: "user+? at 192.0.2.1, seen by mx.example.org at 1772366400", Helo: "softfail", HeloDomain: "mail.f.example",
		}},
		{"", "mail.f.example", Fact{
			Result: "softfail", Identity: "helo", Domain: "mail.f.example", Mechanism: "all", Via: []string{}, Record: "v=spf1 ~all",
			Helo: "softfail", HeloDomain: "mail.f.example",
		}},
		{"", "[192.0.2.1]", Fact{Result: "none", Identity: "helo", Via: []string{}, Reason: `"[192.0.2.1]" is no domain name`, Helo: "none"}},
		{"user@bad.example", "mail", Fact{
			Result: "permerror", Identity: "mailfrom", Domain: "bad.example", Via: []string{}, Record: "v=spf1 ?",
			Reason: `record of bad.example: term "\xff": has the octet 0xff`, Helo: "none",
		}},
		{"user@long.example", "mail", Fact{
			Result: "fail", Identity: "mailfrom", Domain: "long.example", Mechanism: "all", Via: []string{}, Record: long[:1000], Helo: "none",
		}},
	} {
		if got := factOf(t, z, tt.from, tt.helo); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s, %s:\n got %+v\nwant %+v", tt.from, tt.helo, got, tt.want)
		}
	}
}

// A question that stays open is an error, or a field that is unknown: never "none".
func TestNoAnswer(t *testing.T) {
	z := newZone().add("a.example TXT v=spf1 -all", "silent.example FAIL")
	s := stageOf(t, z, nil)
	r, err := s.Check(t.Context(), viewOf(t, "user@silent.example", "mail.a.example"))
	if want := "spf of silent.example: look up the record of silent.example: lookup silent.example: no answer in time"; err == nil || err.Error() != want || r.Fact != nil {
		t.Errorf("%v, %v", r.Fact, err)
	}
	r, err = s.Check(t.Context(), viewOf(t, "user@a.example", "silent.example"))
	if err != nil || r.Fact.(Fact).Result != "fail" || r.Missing["helo"] == nil || len(r.Missing) != 1 {
		t.Errorf("%+v, missing %v, %v", r.Fact, r.Missing, err)
	}
	if _, err = s.Check(t.Context(), viewOf(t, "", "silent.example")); err == nil {
		t.Error("no answer about the null sender, and that is no error")
	}
}

// A fault of ours behind one look-up is no answer, and ends neither the program nor the other identity's check.
func TestPanic(t *testing.T) {
	z := newZone().add("a.example TXT v=spf1 include:c.example include:b.example -all", "b.example TXT v=spf1 -all", "c.example TXT v=spf1 -all",
		"ok.example TXT v=spf1 -all")
	z.panics = "b.example"
	s := stageOf(t, z, nil)
	if _, err := s.Check(t.Context(), viewOf(t, "user@a.example", "ok.example")); err == nil || !strings.Contains(err.Error(), "panic: b.example") {
		t.Errorf("%v", err)
	}
	r, err := s.Check(t.Context(), viewOf(t, "user@ok.example", "a.example"))
	if err != nil || r.Fact.(Fact).Result != "fail" || r.Missing["helo"] == nil {
		t.Errorf("%+v, missing %v, %v", r.Fact, r.Missing, err)
	}
}

// Both identities are asked at once, and what one came to is not lost because the other hangs.
func TestTime(t *testing.T) {
	z := newZone().add("a.example TXT v=spf1 a:h.example -all", "h.example A 192.0.2.1", "mail.a.example TXT v=spf1 include:a.example")
	z.latency = 50 * time.Millisecond
	ran := func(t *testing.T, journal *pipelinetest.Journal, timeout time.Duration) (*pipeline.Record, time.Duration) {
		env := pipelinetest.Env(t)
		env.Resolver, env.Journal = z, journal
		k := Kind()
		p, err := pipeline.NewPlan([]pipeline.Step{{Kind: k, Config: k.Config(), Timeout: timeout}}, env, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "user@a.example", Helo: "mail.a.example", Text: "Subject: x\n\nx\n"})
		return got.Record, time.Since(began)
	}
	synctest.Test(t, func(t *testing.T) {
		r, took := ran(t, &pipelinetest.Journal{}, time.Minute)
		if took != 150*time.Millisecond || !strings.Contains(string(r.Steps[0].Fact), `"helo":"pass"`) {
			t.Errorf("%s in %s", r.Steps[0].Fact, took)
		}
	})
	synctest.Test(t, func(t *testing.T) { // HELO needs three look-ups, the sender two
		r, took := ran(t, &pipelinetest.Journal{}, 120*time.Millisecond)
		if took >= 120*time.Millisecond || !strings.Contains(string(r.Steps[0].Fact), `"result":"pass"`) || r.Steps[0].Missing["helo"] == "" {
			t.Errorf("%s missing %v in %s", r.Steps[0].Fact, r.Steps[0].Missing, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, _ := ran(t, &pipelinetest.Journal{}, 80*time.Millisecond)
		if r.Steps[0].Unknown == "" || r.Steps[0].Fact != nil {
			t.Errorf("%+v", r.Steps[0])
		}
	})
}

// Trusted clients and those who have logged in are not asked about; a refusal can fall before DATA.
func TestWhoIsAsked(t *testing.T) {
	reads := stageOf(t, newZone(), nil).Reads()
	if !reads.Strangers || !reads.Waits || reads.Input.Phase() != pipeline.Mail {
		t.Errorf("%+v", reads)
	}
}

func TestConfig(t *testing.T) {
	k := Kind()
	for _, change := range []func(c *Config){
		func(c *Config) { c.Lookups = 0 }, func(c *Config) { c.VoidLookups = -1 }, func(c *Config) { c.Names = 0 }, func(c *Config) { c.Answers = 0 },
	} {
		c := k.Config().(*Config)
		change(c)
		if _, err := k.New(c, pipelinetest.Env(t)); err == nil || err.Error() != "lookups, void_lookups, names and answers are at least 1" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	z := newZone().add("a.example TXT v=spf1 a:x.example a:y.example -all", "x.example A 198.51.100.1", "y.example A 198.51.100.1")
	s := stageOf(t, z, func(c *Config) { c.Lookups = 1 })
	if r, err := s.Check(t.Context(), viewOf(t, "user@a.example", "x")); err != nil || r.Fact.(Fact).Reason != "more than 1 terms that ask the DNS" {
		t.Errorf("%+v, %v", r.Fact, err)
	}
}
