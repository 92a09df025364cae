package program

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
	"sluice/scanners/resolve"
)

// What each scanner that asks the DNS says when the name server is silent, fails, refuses, sends garbage, answers what
// nobody asked, drips, hangs up or is down: the parts of its fact that rest on it are unknown, each with the reason. And
// that it is back to its answers when the server is.
func TestNameServerFails(t *testing.T) {
	mail, key := signed(t, aMail)
	d := peertest.DNS(t, key,
		`mail.sender.example. 600 TXT "v=spf1 a:mx.pool.example -all"`,
		"mx.pool.example. 600 A 192.0.2.1",
		"1.2.0.192.in-addr.arpa. 600 PTR mx.pool.example.",
		`_dmarc.sender.example. 600 TXT "v=DMARC1; p=reject"`,
		"2.0.0.127.zen.example. 600 A 127.0.0.2", "1.2.0.192.zen.example. 600 A 127.0.0.4",
		"2.0.0.127.white.example. 600 A 127.0.0.2",
		"test.uri.example. 600 A 127.0.0.2", "link.example.uri.example. 600 A 127.0.0.2",
		"test.dbl.example. 600 A 127.0.0.2",
	)
	var ahead atomic.Int64 // how far the clock is
	signedAt := time.Now()
	now := func() time.Time { return signedAt.Add(time.Duration(ahead.Load())) }
	wait := func(d time.Duration) { ahead.Add(int64(d)) }
	var haste atomic.Bool
	world := func(t *testing.T) (*pipeline.Plan, *pipelinetest.Journal) {
		asks := func(most time.Duration) pipeline.Resolver {
			r, err := resolve.New(resolve.Config{Servers: []string{d.Address}, Attempts: 1, Timeout: most, CacheSize: -1}, now, nil)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := hurried{hasty: asks(300 * time.Millisecond), patient: asks(time.Minute), haste: &haste}
		env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
		env.Resolver, env.Now, env.Journal = r, now, journal
		env.State = &pipelinetest.State{Now: now}
		return planOf(t, theScanners, env), journal
	}
	said := func(t *testing.T, p *pipeline.Plan, j *pipelinetest.Journal) map[string]pipeline.StepRecord {
		t.Helper()
		ran := pipelinetest.Run(t, p, pipeline.SMTP, j, pipelinetest.Mail{From: "a@mail.sender.example", Helo: "mx.pool.example", Text: mail})
		if v := ran.Decisions[0].Verdict; v.Action != pipeline.Pass {
			t.Errorf("the mail is not let pass: %+v", v) // on_error of all of these is skip
		}
		steps := map[string]pipeline.StepRecord{}
		for _, s := range append(ran.Record.Steps, ran.Record.Recipients[0].Steps...) {
			steps[s.Name] = s
		}
		return steps
	}
	// What is unknown of each step while nobody answers; "" is all of it.
	unknown := map[string]string{
		"spf": "", "dnsbl": "", "rdns": "", "uribl": "", "dkim": "", "dmarc": "result disposition policy", "greeting": "matches resolves",
	}
	healthy := func(t *testing.T, p *pipeline.Plan, j *pipelinetest.Journal) {
		t.Helper()
		steps := said(t, p, j)
		for name := range unknown {
			if s := steps[name]; s.Unknown != "" || len(s.Missing) > 0 || s.Fact == nil {
				t.Errorf("%s: unknown %q, missing %v", name, s.Unknown, s.Missing)
			}
		}
		for name, want := range map[string]string{
			"spf": `"result":"pass"`, "dnsbl": `"listed":true`, "rdns": `"confirmed":true`, "uribl": `"hits":["link.example"]`,
			"dkim": `"result":"pass"`, "dmarc": `"result":"pass"`, "greeting": `"matches":true`,
		} {
			if !strings.Contains(string(steps[name].Fact), want) {
				t.Errorf("%s: %s has no %s", name, steps[name].Fact, want)
			}
		}
	}
	broken := func(t *testing.T, p *pipeline.Plan, j *pipelinetest.Journal) {
		t.Helper()
		haste.Store(true)
		defer haste.Store(false)
		steps := said(t, p, j)
		for name, want := range unknown {
			s := steps[name]
			if want == "" && s.Unknown == "" || want != "" && s.Unknown != "" {
				t.Errorf("%s: fact %s, unknown %q, missing %v", name, s.Fact, s.Unknown, s.Missing)
			}
			for field := range strings.FieldsSeq(want) {
				if s.Missing[field] == "" {
					t.Errorf("%s: %s is not unknown in %s", name, field, s.Fact)
				}
			}
			var left map[string]json.RawMessage
			if s.Fact != nil && json.Unmarshal(s.Fact, &left) == nil {
				for field := range s.Missing {
					if left[field] != nil {
						t.Errorf("%s: %s is unknown and %s", name, field, left[field])
					}
				}
			}
		}
	}
	for _, fault := range peertest.DNSFaults() {
		t.Run(string(fault), func(t *testing.T) {
			defer d.Misbehave(peertest.DNSWell)
			p, j := world(t)
			d.Misbehave(fault)
			began := time.Now()
			broken(t, p, j)
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %s", took)
			}
			d.Misbehave(peertest.DNSWell)
			wait(2 * time.Minute) // test points and breakers are tried again
			healthy(t, p, j)
		})
	}
	t.Run("restart", func(t *testing.T) {
		p, j := world(t)
		healthy(t, p, j)
		d.Stop()
		broken(t, p, j)
		d.Start()
		wait(2 * time.Minute)
		healthy(t, p, j)
	})
	// A dead list is not asked for each mail, and the record says so.
	t.Run("breaker", func(t *testing.T) {
		p, j := world(t)
		healthy(t, p, j)
		d.Misbehave(peertest.DNSFails)
		defer d.Misbehave(peertest.DNSWell)
		for range 5 {
			said(t, p, j)
		}
		steps := said(t, p, j)
		for _, name := range []string{"dnsbl", "uribl"} {
			if why := steps[name].Unknown; !strings.Contains(why, "it failed too often") || !strings.Contains(why, "server failure") {
				t.Errorf("%s: %s", name, why)
			}
		}
	})
}

// hurried is a resolver that waits for answers, or, where none are to come, not for long.
type hurried struct {
	hasty, patient pipeline.Resolver
	haste          *atomic.Bool
}

func (m hurried) now() pipeline.Resolver {
	if m.haste.Load() {
		return m.hasty
	}
	return m.patient
}

func (m hurried) LookupAddr(ctx context.Context, name string) ([]netip.Addr, error) {
	return m.now().LookupAddr(ctx, name)
}

func (m hurried) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return m.now().LookupA(ctx, name)
}

func (m hurried) LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return m.now().LookupAAAA(ctx, name)
}

func (m hurried) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return m.now().LookupTXT(ctx, name)
}

func (m hurried) LookupPTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	return m.now().LookupPTR(ctx, addr)
}

func (m hurried) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return m.now().LookupMX(ctx, name)
}
