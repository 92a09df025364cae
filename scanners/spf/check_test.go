package spf

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func ask4(z *zone, domain string) Answer {
	return Check(context.Background(), z, Limits{}, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: "user", Domain: domain, Helo: "mail.example.com", Receiver: "mx.example.org"})
}

// What is not in the suite.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		zone   []string
		query  Query // the zero one is 192.0.2.1, user@a.example, HELO mail.a.example
		result string
		why    string // in Err
		mech   string
		via    string
	}{
		{"by include", []string{"a.example TXT v=spf1 include:b.example -all", "b.example TXT v=spf1 redirect=c.example", "c.example TXT v=spf1 IP4:192.0.2.0/24 -all"},
			Query{}, Pass, "", "ip4:192.0.2.0/24", "b.example c.example"},
		{"not by include", []string{"a.example TXT v=spf1 include:b.example -all", "b.example TXT v=spf1 -all"}, Query{}, Fail, "", "all", ""},
		{"against include", []string{"a.example TXT v=spf1 -include:b.example +all", "b.example TXT v=spf1 ip4:192.0.2.1"}, Query{}, Fail, "", "ip4:192.0.2.1", "b.example"},
		{"by nothing", []string{"a.example TXT v=spf1 ip4:192.0.2.2"}, Query{}, Neutral, "", "default", ""},
		{"no record", nil, Query{}, None, "a.example has no record", "", ""},
		{"several records", []string{"a.example TXT v=spf1 -all", "a.example TXT v=spf1 +all"}, Query{}, PermError, "a.example has 2 records", "", ""},
		{"include of nothing", []string{"a.example TXT v=spf1 include:b.example -all"}, Query{}, PermError, "include: b.example has no record", "include:b.example", "b.example"},
		{"redirect to nothing", []string{"a.example TXT v=spf1 redirect=b.example"}, Query{}, PermError, "redirect: b.example has no record", "", "b.example"},
		{"include of a redirect to nothing", []string{"a.example TXT v=spf1 include:b.example", "b.example TXT v=spf1 redirect=c.example"}, Query{}, PermError, "c.example has no record", "include:b.example", "b.example c.example"},
		{"no answer", []string{"a.example FAIL"}, Query{}, TempError, "look up the record of a.example: lookup a.example: no answer in time", "", ""},
		{"no answer, not needed", []string{"a.example TXT v=spf1 ip4:192.0.2.1 include:b.example", "b.example FAIL"}, Query{}, Pass, "", "ip4:192.0.2.1", ""},
		{"no answer, asked ahead", []string{"a.example TXT v=spf1 a:c.example include:b.example", "b.example FAIL", "c.example A 192.0.2.1"}, Query{}, Pass, "", "a:c.example", ""},
		{"an exchanger is silent, another matches", []string{"a.example TXT v=spf1 mx -all", "a.example MX b.example", "a.example MX c.example", "b.example FAIL", "c.example A 192.0.2.1"},
			Query{}, Pass, "", "mx", ""},
		{"an exchanger is silent, no other matches", []string{"a.example TXT v=spf1 mx -all", "a.example MX b.example", "a.example MX c.example", "b.example FAIL", "c.example A 192.0.2.2"},
			Query{}, TempError, "look up the addresses of b.example", "mx", ""},
		{"null MX", []string{"a.example TXT v=spf1 mx -all", "a.example MX ."}, Query{}, Fail, "", "all", ""},
		{"a sender beyond ASCII", []string{"xn--bcher-kva.example TXT v=spf1 ip4:192.0.2.1 -all"}, Query{Domain: "Bücher.example", Local: "x"}, Pass, "", "ip4:192.0.2.1", ""},
		{"a local part beyond ASCII matches nothing", []string{"a.example TXT v=spf1 exists:%{l}.b.example -all", "üser.b.example A 127.0.0.2"}, Query{Local: "üser", Domain: "a.example"}, Fail, "", "all", ""},
		{"nor does one with a backslash", []string{"a.example TXT v=spf1 exists:%{l}.b.example -all", `u\046b.b.example A 127.0.0.2`}, Query{Local: `u\046b`, Domain: "a.example"}, Fail, "", "all", ""},
		{"empty parts are parts", []string{"a.example TXT v=spf1 exists:x%{l2r-}.b.example -all", "x.us.b.example A 127.0.0.2"}, Query{Local: "us--er", Domain: "a.example"}, Pass, "", "exists:x%{l2r-}.b.example", ""},
		{"the null sender", []string{"mail.a.example TXT v=spf1 exists:%{s}.example -all", "postmaster@mail.a.example.example A 127.0.0.2"}, Query{Helo: "mail.a.example"}, Pass, "", "exists:%{s}.example", ""},
		{"HELO is an address", nil, Query{Helo: "192.0.2.1"}, None, `"192.0.2.1" is no domain name`, "", ""},
		{"HELO is nothing", nil, Query{Helo: " "}, None, `" " is no domain name`, "", ""},
		{"no client", nil, Query{Client: netip.Addr{}, Domain: "none.example", Local: "-"}, None, "client", "", ""},
		{"one term may ask for the client's name", []string{"a.example TXT v=spf1 exists:%{p}.b.example -all", "192.0.2.1 PTR mail.a.example", "mail.a.example A 192.0.2.1", "mail.a.example.b.example A 127.0.0.2"},
			Query{}, Pass, "", "exists:%{p}.b.example", ""},
		{"the client's zone is silent", []string{"a.example TXT v=spf1 ptr -all", "192.0.2.1 FAIL"}, Query{}, Fail, "", "all", ""},
		{"a name that is only similar", []string{"a.example TXT v=spf1 ptr -all", "192.0.2.1 PTR mail.xa.example", "mail.xa.example A 192.0.2.1"}, Query{}, Fail, "", "all", ""},
		{"an alias in a loop", []string{"a.example TXT v=spf1 a:b.example -all", "b.example CNAME c.example", "c.example CNAME b.example"}, Query{}, TempError, "aliases", "a:b.example", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := tt.query
			if q.Domain == "" && q.Helo == "" {
				q.Local, q.Domain, q.Helo = "user", "a.example", "mail.a.example"
			}
			if q.Local != "-" {
				q.Client = netip.MustParseAddr("192.0.2.1")
			}
			got := Check(t.Context(), newZone().add(tt.zone...), Limits{}, q)
			why := ""
			if got.Err != nil {
				why = got.Err.Error()
			}
			if got.Result != tt.result || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
				t.Errorf("%s (%s)", got.Result, why)
			}
			if got.Mechanism != tt.mech || strings.Join(got.Via, " ") != tt.via {
				t.Errorf("by %q via %q", got.Mechanism, got.Via)
			}
		})
	}
}

func names(format string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// Each limit, reached and passed by one.
func TestLimits(t *testing.T) {
	lookups := func(n int) *zone {
		z := newZone().add("a.example TXT v=spf1 " + strings.Join(names("a:h%d.example", n), " ") + " ip4:192.0.2.1")
		return z.add(names("h%d.example A 192.0.2.9", n)...)
	}
	voids := func(n int) *zone {
		return newZone().add("a.example TXT v=spf1 " + strings.Join(names("a:h%d.example", n), " ") + " ip4:192.0.2.1")
	}
	hosts := func(n int) *zone {
		z := newZone().add("a.example TXT v=spf1 mx").add(names("a.example MX h%d.example", n)...)
		return z.add(names("h%d.example A 192.0.2.9", n-1)...).add(fmt.Sprintf("h%d.example A 192.0.2.1", n-1))
	}
	client := func(n int) *zone {
		z := newZone().add("a.example TXT v=spf1 ptr -all").add(names("192.0.2.1 PTR h%d.example", n-1)...)
		return z.add("192.0.2.1 PTR good.a.example", "good.a.example A 192.0.2.1")
	}
	for _, tt := range []struct {
		name   string
		zone   *zone
		limits Limits
		result string
		why    string
	}{
		{"10 terms", lookups(10), Limits{}, Pass, ""},
		{"11 terms", lookups(11), Limits{}, PermError, "more than 10 terms that ask the DNS"},
		{"11 of 12 terms", lookups(11), Limits{Lookups: 12}, Pass, ""},
		{"2 void terms", voids(2), Limits{}, Pass, ""},
		{"3 void terms", voids(3), Limits{}, PermError, "more than 2 terms for which there is nothing in the DNS"},
		{"3 of 3 void terms", voids(3), Limits{Voids: 3}, Pass, ""},
		{"10 exchangers", hosts(10), Limits{}, Pass, ""},
		{"11 exchangers", hosts(11), Limits{}, PermError, "a.example has more than 10 mail exchangers"},
		{"11 of 11 exchangers", hosts(11), Limits{Names: 11}, Pass, ""},
		{"10 names", client(10), Limits{}, Pass, ""},
		{"11 names", client(11), Limits{}, Fail, ""},
		{"21 answers", hosts(10), Limits{Answers: 21}, Pass, ""}, // a policy, ten hosts, ten addresses
		{"20 answers", hosts(10), Limits{Answers: 20}, PermError, "more than 20 records in the DNS"},
		{"void exchangers are one term", newZone().add("a.example TXT v=spf1 mx ip4:192.0.2.1").add(names("a.example MX h%d.example", 9)...), Limits{}, Pass, ""},
		{"a client without a name is void once", newZone().add("a.example TXT v=spf1 ptr ptr ptr ip4:192.0.2.1"), Limits{}, Pass, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Check(t.Context(), tt.zone, tt.limits, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: "u", Domain: "a.example"})
			why := ""
			if got.Err != nil {
				why = got.Err.Error()
			}
			if got.Result != tt.result || !strings.HasSuffix(why, tt.why) || (why == "") != (tt.why == "") {
				t.Errorf("%s (%s)", got.Result, why)
			}
		})
	}
}

// What %{p} asks counts as a term, once, and not in an explanation.
func TestClientNameCounts(t *testing.T) {
	z := newZone().add("a.example TXT v=spf1 exists:%{p}.x.example exists:%{p}.y.example ip4:192.0.2.1",
		"f.example TXT v=spf1 -exists:%{p}.z.example +all exp=e.example", "unknown.z.example A 127.0.0.2", "e.example TXT %{p} may not")
	got := ask4(z, "a.example")
	if got.Result != Pass || got.Lookups != 3 || got.Voids != 2 {
		t.Errorf("%+v", got)
	}
	if got := ask4(z, "f.example"); got.Result != Fail || got.Explanation != "unknown may not" || got.Lookups != 2 {
		t.Errorf("%+v", got)
	}
	got = Check(t.Context(), z, Limits{Lookups: 2}, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: "u", Domain: "a.example"})
	if got.Result != PermError {
		t.Errorf("%+v", got)
	}
}

// Look-ups that do not depend on each other are under way at once: the time is that of the longest chain.
func TestLatency(t *testing.T) {
	const rtt = 50 * time.Millisecond
	z := newZone().add(
		"a.example TXT v=spf1 include:b.example include:c.example a:h.example mx ptr:nowhere.example -all", // 1
		"b.example TXT v=spf1 include:b1.example include:b2.example ~all",                                  // 2
		"c.example TXT v=spf1 include:c1.example ~all",
		"b1.example TXT v=spf1 ip4:198.51.100.0/24 ~all", "b2.example TXT v=spf1 ip4:198.51.100.0/24 ~all", "c1.example TXT v=spf1 a:h.example ~all", // 3
		"h.example A 198.51.100.1", // 4, of c1
		"a.example MX h.example", "a.example MX h2.example", "h2.example A 198.51.100.2", "192.0.2.1 PTR p.example", "p.example A 192.0.2.1",
	)
	synctest.Test(t, func(t *testing.T) {
		z.latency = rtt
		began := time.Now()
		got := ask4(z, "a.example")
		if got.Result != Fail || got.Lookups != 9 {
			t.Errorf("%+v", got)
		}
		// h.example is asked once for both terms, while the record of c1 is on its way.
		if took := time.Since(began); took != 3*rtt {
			t.Errorf("took %s", took)
		}
		if n, most := z.questions(); most > 2 || n > 13 {
			t.Errorf("%d questions, up to %d times: %v", n, most, z.asked)
		}
	})
}

// A policy within the limits never costs more terms than they allow, whatever is asked ahead; one that breaks them costs
// at most twice as many. What an earlier match makes needless does not change the result.
func TestAheadIsBounded(t *testing.T) {
	wide := "v=spf1 " + strings.Join(names("include:w%d.example", 10), " ") + " -all"
	z := newZone().add("a.example TXT "+wide, "ok.example TXT v=spf1 include:w10.example include:w11.example ip4:192.0.2.1 include:w12.example")
	for i := range 10 {
		z.add(fmt.Sprintf("w%d.example TXT %s", i, strings.ReplaceAll(wide, ":w", fmt.Sprintf(":w%d-", i))))
		for j := range 10 {
			z.add(fmt.Sprintf("w%d-%d.example TXT v=spf1 -all", i, j))
		}
	}
	for i := 10; i < 13; i++ {
		z.add(fmt.Sprintf("w%d.example TXT v=spf1 -all", i))
	}
	if got := ask4(z, "a.example"); got.Result != PermError || got.Lookups != 10 {
		t.Errorf("%+v", got)
	}
	if n, most := z.questions(); n > 1+2*10 || most > 1 {
		t.Errorf("%d questions, up to %d times", n, most)
	}
	z.asked = map[string]int{}
	if got := ask4(z, "ok.example"); got.Result != Pass || got.Lookups != 2 {
		t.Errorf("%+v", got)
	}
	if n, _ := z.questions(); n != 3 { // nothing behind the term that surely matches
		t.Errorf("%d questions: %v", n, z.asked)
	}
}

// An end of the context is a temporary error, wherever it comes, and nothing goes on behind it.
func TestGivesUp(t *testing.T) {
	z := newZone().add("a.example TXT v=spf1 include:b.example ptr exists:%{p}.x.example mx -all", "b.example TXT v=spf1 a:h.example mx:a.example",
		"h.example A 198.51.100.1", "a.example MX h.example", "192.0.2.1 PTR p.example", "p.example A 192.0.2.1")
	z.latency = 50 * time.Millisecond
	for steps := range 4 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(steps)*z.latency+time.Millisecond)
			defer cancel()
			began := time.Now()
			got := Check(ctx, z, Limits{}, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: "u", Domain: "a.example"})
			if got.Result != TempError || got.Err == nil {
				t.Errorf("after %d answers: %+v", steps, got)
			}
			if took := time.Since(began); took != time.Duration(steps)*z.latency+time.Millisecond {
				t.Errorf("took %s", took)
			}
		})
	}
}

// Texts that a domain or a sender has made large do not become larger.
func TestLargeExpansions(t *testing.T) {
	local := strings.Repeat("x.", 120) + "x"
	z := newZone().add("a.example TXT v=spf1 a:" + strings.Repeat("%{lr}.", 20000) + "b.example -all exp=e.example")
	z.put("e.example", "TXT", strings.Repeat("%{s}", 20000))
	got := Check(t.Context(), z, Limits{}, Query{Client: netip.MustParseAddr("192.0.2.1"), Local: local, Domain: "a.example", Helo: "h.example"})
	if got.Result != Fail || len(got.Explanation) != keptText {
		t.Errorf("%s, %d octets of explanation (%v)", got.Result, len(got.Explanation), got.Err)
	}
	for asked := range z.asked {
		if len(asked) > 260 {
			t.Errorf("asked for %q", asked)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(z.asked)), func(s string) bool { return strings.HasSuffix(s, ".x.x.b.example") && len(s) > 240 }) {
		t.Errorf("the name was not cut on the left: %v", z.asked)
	}
}
