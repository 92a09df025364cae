package spf

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	oracle "blitiri.com.ar/go/spf"
)

// forOracle is a zone as the other evaluator asks it. That one asks for both families and compares whatever comes; RFC
// 7208, 5.3 asks for the client's, and exists for A, which its targets here are known by.
type forOracle struct {
	*zone
	client netip.Addr
	both   bool // answer with both families, whoever asks
	// forgiving hides the mail exchangers that do not answer.
	forgiving bool
}

func (o forOracle) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	look := o.LookupAAAA
	if o.both {
		look = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return find(ctx, o.zone, "ANY", name, o.addr)
		}
	}
	if !o.both && (o.client.Is4() || strings.HasSuffix(host, ".exists.example")) {
		look = o.LookupA
	}
	found, err := look(ctx, host)
	var out []net.IPAddr
	for _, a := range found {
		out = append(out, net.IPAddr{IP: a.AsSlice()})
	}
	return out, err
}

func (o forOracle) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return o.LookupPTR(ctx, netip.MustParseAddr(addr))
}

func (o forOracle) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	list, err := o.zone.LookupMX(ctx, name)
	if o.forgiving {
		list = slices.DeleteFunc(list, func(mx *net.MX) bool { return o.fail[mx.Host] })
	}
	return list, err
}

func (o forOracle) ask(t testing.TB, q Query) string {
	t.Helper()
	from := ""
	if q.Domain != "" {
		from = q.Local + "@" + q.Domain
	}
	got, _ := oracle.CheckHostWithSender(o.client.AsSlice(), q.Helo, from, oracle.WithResolver(o), oracle.WithContext(t.Context()))
	return string(got)
}

// Cases of the suite that the other evaluator answers otherwise than the suite wants. Ours does as the suite wants.
var oracleDiffers = map[string]string{
	"detect-errors-anywhere":       "stops reading at the term that decides; RFC 7208, 4.6: errors anywhere",
	"redirect-is-modifier":         "stops reading at the term that decides; RFC 7208, 4.6: errors anywhere",
	"bare-ip6":                     "stops reading at the term that decides; RFC 7208, 4.6: errors anywhere",
	"unknown-modifier-syntax":      "stops reading at the term that decides; RFC 7208, 4.6: errors anywhere",
	"exp-empty-domain":             "reads exp= not at all",
	"exp-syntax-error":             "reads exp= not at all",
	"exp-twice":                    "reads exp= not at all",
	"exp-only-macro-char":          "reads exp= not at all",
	"invalid-domain":               "takes anything for a domain",
	"a-bad-domain":                 "takes anything for a domain",
	"a-bad-toplabel":               "takes anything for a domain",
	"a-numeric":                    "takes anything for a domain",
	"a-numeric-toplabel":           "takes anything for a domain",
	"a-only-toplabel":              "takes anything for a domain",
	"a-only-toplabel-trailing-dot": "takes anything for a domain",
	"mx-bad-domain":                "takes anything for a domain",
	"mx-bad-toplab":                "takes anything for a domain",
	"mx-numeric-top-label":         "takes anything for a domain",
	"redirect-empty-domain":        "takes anything for a domain",
	"redirect-syntax-error":        "takes anything for a domain",
	"control-char-policy":          "takes control characters and what is not ASCII",
	"non-ascii-policy":             "takes control characters and what is not ASCII",
	"a-null":                       "takes control characters and what is not ASCII",
	"mx-null":                      "takes control characters and what is not ASCII",
	"a-colon-domain":               "takes / in a domain for the length of a prefix",
	"a-colon-domain-ip4mapped":     "takes / in a domain for the length of a prefix",
	"mx-colon-domain":              "takes / in a domain for the length of a prefix",
	"mx-colon-domain-ip4mapped":    "takes / in a domain for the length of a prefix",
	"cidr4-032":                    "takes leading zeros",
	"p-macro-multiple":             "takes %{p} for unknown",
}

func TestOracleOnTheSuite(t *testing.T) {
	differ := map[string]bool{}
	for _, s := range readSuite(t) {
		for _, c := range s.cases {
			q := c.query()
			ours := Check(t.Context(), s.zone, Limits{}, q)
			theirs := forOracle{zone: s.zone, client: q.Client.Unmap(), both: true}.ask(t, q)
			if ours.Result == theirs {
				continue
			}
			differ[c.name] = true
			if oracleDiffers[c.name] == "" {
				t.Errorf("%s/%s: ours %s (%v), the oracle's %s, the suite's %v", s.name, c.name, ours.Result, ours.Err, theirs, c.results)
			}
		}
	}
	for name := range oracleDiffers {
		if !differ[name] {
			t.Errorf("%s: no difference any more", name)
		}
	}
}

// A policyMaker makes zones of random policies.
type policyMaker struct {
	*rand.Rand
	zone *zone
	bad  []string // domains whose record is malformed
}

func (m *policyMaker) pick(list ...string) string { return list[m.IntN(len(list))] }

func (m *policyMaker) domain() string { return fmt.Sprintf("d%d.example", m.IntN(6)+m.IntN(30)/29) }
func (m *policyMaker) host() string   { return fmt.Sprintf("h%d.example", m.IntN(9)) } // some do not exist

func (m *policyMaker) client() netip.Addr {
	if m.IntN(3) == 0 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", m.IntN(5)))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", m.IntN(5)))
}

func (m *policyMaker) target() string {
	if m.IntN(4) > 0 {
		return m.host()
	}
	return m.pick("%{l}.example", "%{l1r-}.example", "%{d}", "%{o}", "%{d1r}.%{d1}", "%{h}", "%{H}", "%{L-}.%{d2}", "%{v}.%{o9}", "h%{i1r}.example", "a%%b%_c.%{d}", "h1.example.")
}

func (m *policyMaker) term() string {
	q := m.pick("", "", "+", "-", "~", "?")
	cidr := m.pick("", "", "", "/24", "/31", "//127", "/30//64", "/0", "//0")
	switch m.IntN(11) {
	case 0:
		return q + "ip4:" + m.pick("192.0.2.0", "192.0.2.1", "198.51.100.0") + m.pick("", "/32", "/31", "/24", "/0")
	case 1:
		return q + "ip6:" + m.pick("2001:db8::", "2001:DB8::1", "2001:db8:1::") + m.pick("", "/127", "/64", "/0")
	case 2:
		return q + m.pick("a", "A") + cidr
	case 3:
		return q + "a:" + m.target() + cidr
	case 4:
		return q + "mx" + cidr
	case 5:
		return q + m.pick("mx:", "MX:") + m.target() + cidr
	case 6:
		return q + m.pick("ptr", "ptr:"+m.target(), "ptr:"+m.domain())
	case 7:
		return q + "exists:" + m.pick("%{i}", "%{ir}", "%{l}", "%{lr-}", "%{h}", "x") + ".exists.example"
	case 8, 9:
		return q + "include:" + m.pick(m.domain(), m.domain(), m.domain(), "%{d}", "d%{i1r}.example")
	}
	return m.pick("x=%{c}", "op.tion=1", q+"all")
}

func (m *policyMaker) malformed() string {
	return m.pick("moo", "ip4:192.0.2", "ip4:192.0.2.1/33", "ip4:192.0.2.1/", "ip6:2001:db8::/129", "ip4:2001:db8::", "a:museum", "a:", "a/33",
		"mx//129", "all:x", "all/8", "include", "exists:", "ptr/24", "redirect=", "exp=", "a:%{x}.example", "a:%{d0}.example", "a:%{r}.example",
		"x=%", "-x=1", "1x=y", "a:x.-y", "exists:a.b/24", "a:h1.example\xff", "a:h1.example\t-all", "redirect=d1.example redirect=d1.example", "a:%{d", "a/024")
}

func (m *policyMaker) record(domain string) string {
	b := m.pick("v=spf1", "v=spf1", "V=sPf1")
	for range m.IntN(7) {
		b += m.pick(" ", " ", "  ") + m.term()
	}
	if m.IntN(3) == 0 {
		b += " " + m.pick("redirect", "ReDirect") + "=" + m.domain()
	}
	if m.IntN(4) == 0 {
		b += " " + m.pick("-", "~", "?", "") + "all"
	}
	if m.IntN(4) == 0 {
		b += " exp=" + m.domain()
	}
	if m.IntN(25) == 0 {
		b += " " + m.malformed()
		m.bad = append(m.bad, domain)
	}
	return b
}

func newPolicyMaker(seed uint64) *policyMaker {
	m := &policyMaker{Rand: rand.New(rand.NewPCG(seed, 7208)), zone: newZone()}
	z := m.zone
	for i := range 6 {
		d := fmt.Sprintf("d%d.example", i)
		if m.IntN(25) > 0 {
			z.put(d, "TXT", m.record(d))
		}
		if m.IntN(50) == 0 {
			z.put(d, "TXT", "v=spf1 -all")
		}
		z.put(d, "TXT", "v=spf10 is another")
		for range m.IntN(3) {
			z.put(d, "MX", m.pick(m.host(), m.host(), d, ""))
		}
		if m.IntN(30) == 0 {
			for i := range 11 {
				z.put(d, "MX", fmt.Sprintf("m%d.example", i))
			}
		}
		if m.IntN(2) == 0 {
			z.addAddr(d, m.client())
		}
		if m.IntN(40) == 0 {
			z.put(d, "FAIL", "")
		}
	}
	for i := range 6 {
		h := fmt.Sprintf("h%d.example", i)
		for range m.IntN(4) {
			z.addAddr(h, m.client())
		}
		if m.IntN(3) == 0 {
			z.put(h, "MX", m.host())
		}
		if m.IntN(15) == 0 {
			z.put(h, "FAIL", "")
		}
	}
	for i := range 5 {
		for _, a := range []string{fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("2001:db8::%d", i)} {
			name := arpa(netip.MustParseAddr(a))
			for range m.IntN(3) {
				z.put(name, "PTR", m.pick(m.host(), m.domain()))
			}
			if m.IntN(20) == 0 {
				z.put(name, "FAIL", "")
			}
			if m.IntN(3) == 0 {
				z.put(nibbles(netip.MustParseAddr(a))+".exists.example", "A", "127.0.0.2")
			}
		}
	}
	for _, x := range []string{"x", "user", "first.last", "last.first", "h1.example"} {
		if m.IntN(3) == 0 {
			z.put(x+".exists.example", "A", "127.0.0.2")
		}
	}
	return m
}

func (z *zone) addAddr(name string, a netip.Addr) { z.addr[name] = append(z.addr[name], a) }

// compare evaluates a few identities of a random zone with both evaluators.
func compare(t *testing.T, seed uint64) (results map[string]int) {
	t.Helper()
	results = map[string]int{}
	m := newPolicyMaker(seed)
	for range 8 {
		q := Query{
			Client: m.client(), Helo: m.pick("h1.example", "d1.example"),
			Local: m.pick("user", "first-last", "h2", "a&b"), Domain: m.pick(m.domain(), m.domain(), m.domain(), ""),
		}
		if q.Domain == "" {
			q.Local = "postmaster"
		}
		ours := Check(t.Context(), m.zone, Limits{}, q)
		results[ours.Result]++
		o := forOracle{zone: m.zone, client: q.Client}
		if q.Domain == "" { // the other one makes no postmaster of it
			q.Local, q.Domain = "postmaster", q.Helo
		}
		theirs := o.ask(t, q)
		if ours.Result == theirs {
			continue
		}
		// It reads a record up to the term that decides; RFC 7208, 4.6 has errors anywhere found.
		if ours.Result == PermError && slices.ContainsFunc(m.bad, func(d string) bool {
			return strings.Contains(ours.Err.Error(), "record of "+d+": term ")
		}) {
			results["syntax"]++
			continue
		}
		// It asks all hosts of an mx before it compares one; to us a match is a match.
		o.forgiving = true
		if theirs == TempError && o.ask(t, q) == ours.Result {
			results["exchanger"]++
			continue
		}
		t.Errorf("seed %d: %+v:\nours %s by %s via %q (%v)\ntheirs %s", seed, q, ours.Result, ours.Mechanism, ours.Via, ours.Err, theirs)
		for d, r := range m.zone.txt {
			t.Logf("%s: %q", d, r)
		}
	}
	return results
}

// Random policies come to the same with both evaluators, but for what compare knows.
func TestOracleOnRandomPolicies(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(2000) {
		for r, n := range compare(t, seed) {
			seen[r] += n
		}
		if t.Failed() {
			return
		}
	}
	for _, r := range []string{None, Neutral, Pass, Fail, SoftFail, TempError, PermError, "syntax", "exchanger"} {
		if seen[r] == 0 {
			t.Errorf("%s never came: %v", r, seen)
		}
	}
	t.Log(seen)
}

func FuzzOracle(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { compare(t, seed) })
}
