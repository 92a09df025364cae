package resolve

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What there may be instead of an answer are different things, and callers can tell.
func TestNoAnswers(t *testing.T) {
	z := serve(t, &zone{records: map[string][]string{
		"has.example. TXT":   {`has.example. 60 TXT "x"`},
		"fail.example. A":    {"!SERVFAIL"},
		"refused.example. A": {"!REFUSED"},
	}})
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	dead := resolver(t, Config{Servers: []string{silent(t)}, Attempts: 1, Timeout: 30 * time.Millisecond}, nil)
	all := []error{ErrNoSuchName, ErrNoRecords, ErrServerFailure, ErrRefused, ErrTimeout}
	for _, tt := range []struct {
		r    *Resolver
		name string
		want error
	}{
		{r, "none.example", ErrNoSuchName},
		{r, "has.example", ErrNoRecords},
		{r, "fail.example", ErrServerFailure},
		{r, "fail.example", ErrServerFailure}, // from the cache
		{r, "refused.example", ErrRefused},
		{dead, "any.example", ErrTimeout},
		{r, "no domain", ErrNoSuchName},
	} {
		_, err := tt.r.LookupA(t.Context(), tt.name)
		for _, e := range all {
			if errors.Is(err, e) != (e == tt.want) {
				t.Errorf("%s: %v; is it %q: %t", tt.name, err, e, errors.Is(err, e))
			}
		}
	}
}

func TestStale(t *testing.T) {
	var broken atomic.Bool
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		if broken.Load() {
			m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
			w.WriteMsg(m)
		}
		return broken.Load()
	}
	serve(t, z)
	now := &clock{}
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1, StaleFor: time.Hour}, now.now)
	look := func(stale bool, questions int) {
		t.Helper()
		a, err := r.Lookup(t.Context(), "a.example", dns.TypeA)
		if err != nil || a.Stale != stale || len(a.Records) != 1 {
			t.Errorf("%+v, %v; want stale %t", a, err, stale)
		}
		if got := len(z.questions()); got != questions {
			t.Errorf("%d questions, want %d", got, questions)
		}
	}
	look(false, 1)
	now.advance(61 * time.Second)
	broken.Store(true)
	look(true, 1)
	look(true, 0) // it serves for a while
	now.advance(3 * time.Second)
	look(true, 1)
	_, err := r.LookupA(t.Context(), "none.example") // of which nothing was known
	dnsError(t, err, "temporary", "server failure")
	z.questions()
	broken.Store(false)
	now.advance(3 * time.Second)
	look(false, 1)
	broken.Store(true)
	now.advance(time.Hour + 61*time.Second)
	_, err = r.LookupA(t.Context(), "a.example")
	dnsError(t, err, "temporary", "server failure")
	if s := r.Stats(); s.Stale != 2 || s.Cached != 1 || s.Failed != 4 || s.Asked != 6 {
		t.Errorf("counted %+v", s)
	}
}

// Who has an old answer does not wait for a dead server as long as the server may take.
func TestStaleIsNotLate(t *testing.T) {
	var dead atomic.Bool
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}}
	z.handle = func(dns.ResponseWriter, *dns.Msg) bool { return dead.Load() }
	serve(t, z)
	now := &clock{}
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1, Timeout: time.Minute, StaleFor: time.Hour}, now.now)
	if _, err := r.LookupA(t.Context(), "a.example"); err != nil {
		t.Fatal(err)
	}
	now.advance(time.Minute)
	dead.Store(true)
	a, err := r.Lookup(t.Context(), "a.example", dns.TypeA)
	if err != nil || !a.Stale {
		t.Errorf("%+v, %v", a, err)
	}
}

// Without trust in the servers their word about DNSSEC is nothing.
func TestAuthentic(t *testing.T) {
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}}
	var asked atomic.Bool
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := z.answer(q)
		m.AuthenticatedData = true
		asked.Store(q.AuthenticatedData)
		w.WriteMsg(m)
		return true
	}
	serve(t, z)
	for _, trust := range []bool{true, false} {
		r := resolver(t, Config{Servers: []string{z.address}, TrustAD: trust}, nil)
		for range 2 { // the second time from the cache
			a, err := r.Lookup(t.Context(), "a.example", dns.TypeA)
			if err != nil || a.Authentic != trust || asked.Load() != trust {
				t.Errorf("trust %t: %+v, %v, AD asked for %t", trust, a, err, asked.Load())
			}
		}
	}
}

// Each limit of the configuration is one.
func TestClampsAndLimits(t *testing.T) {
	z := &zone{records: map[string][]string{
		"zero.example. A":   {"zero.example. 0 A 192.0.2.1"},
		"c1.example. CNAME": {"c1.example. 60 CNAME c2.example."}, "c2.example. CNAME": {"c2.example. 60 CNAME c3.example."},
		"c3.example. A": {"c3.example. 60 A 192.0.2.3"},
	}}
	for i := range 11 {
		z.records["many.example. A"] = append(z.records["many.example. A"], fmt.Sprintf("many.example. 60 A 192.0.2.%d", i))
	}
	serve(t, z)
	now := &clock{}
	c := Config{Servers: []string{z.address}, Attempts: 1, CacheAtLeast: 5 * time.Second, CacheNothingFor: 10 * time.Second, Records: 10, Aliases: 1}
	r := resolver(t, c, now.now)
	asks := func(name string, want int) {
		t.Helper()
		r.LookupA(t.Context(), name)
		if got := len(z.questions()); got != want {
			t.Errorf("%s: %d questions, want %d", name, got, want)
		}
	}
	asks("zero.example", 1)
	now.advance(4 * time.Second)
	asks("zero.example", 0)
	now.advance(time.Second)
	asks("zero.example", 1)
	asks("none.example", 1)
	now.advance(9 * time.Second)
	asks("none.example", 0)
	now.advance(time.Second)
	asks("none.example", 1)
	_, err := r.LookupA(t.Context(), "many.example")
	dnsError(t, err, "temporary", "more than 10 records")
	_, err = r.LookupA(t.Context(), "c1.example")
	dnsError(t, err, "temporary", "more than 1 aliases")
	if got, err := r.LookupA(t.Context(), "c2.example"); err != nil || len(got) != 1 {
		t.Errorf("one alias: %v, %v", got, err)
	}
	for _, c := range []Config{{StaleFor: -1}, {Records: -1}, {Aliases: -1}, {CacheAtLeast: -1}, {CacheFailureFor: -1}} {
		c.Servers = []string{"192.0.2.1"}
		if _, err := New(c, nil, nil); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// A name that comes into being is found once "there is none" has had its time; and one that goes is gone for all types.
func TestNamesComeAndGo(t *testing.T) {
	z := serve(t, &zone{records: map[string][]string{"a.example. A": {"a.example. 600 A 192.0.2.1"}}})
	now := &clock{}
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, now.now)
	if _, err := r.LookupA(t.Context(), "a.example"); err != nil {
		t.Fatal(err)
	}
	z.mu.Lock()
	z.records = map[string][]string{}
	z.mu.Unlock()
	var d *net.DNSError
	if _, err := r.LookupTXT(t.Context(), "a.example"); !errors.As(err, &d) || !errors.Is(err, ErrNoSuchName) {
		t.Fatal(err)
	}
	now.advance(61 * time.Second)
	z.mu.Lock()
	z.records = map[string][]string{"a.example. TXT": {`a.example. 60 TXT "x"`}}
	z.mu.Unlock()
	if got, err := r.LookupTXT(t.Context(), "a.example"); err != nil || strings.Join(got, "") != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// What mail needs of the DNS: where a host is and its aliases end, who takes mail, and certificates, with what vouches for them.
func TestMailLookups(t *testing.T) {
	z := &zone{records: map[string][]string{
		"mx.example. A":              {"mx.example. 60 A 192.0.2.1"},
		"both.example. A":            {"both.example. 60 A 192.0.2.2"},
		"both.example. AAAA":         {"both.example. 60 AAAA 2001:db8::2"},
		"alias.example. CNAME":       {"alias.example. 60 CNAME MX.example.", "mx.example. 60 A 192.0.2.1"},
		"half.example. A":            {"half.example. 60 A 192.0.2.3"},
		"half.example. AAAA":         {"!SERVFAIL"},
		"broken.example. A":          {"!SERVFAIL"},
		"broken.example. AAAA":       {"!SERVFAIL"},
		"example.org. MX":            {"example.org. 60 MX 20 b.example.", "example.org. 60 MX 10 mx.example."},
		"_25._tcp.mx.example. TLSA":  {"_25._tcp.mx.example. 60 TLSA 3 1 1 00ff", "_25._tcp.mx.example. 60 TLSA 2 0 2 AB"},
		"insecure.example. A":        {"insecure.example. 60 A 192.0.2.4"},
		"_25._tcp.in.secure.ex. TXT": {`_25._tcp.in.secure.ex. 60 TXT "x"`},
	}}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := z.answer(q)
		m.AuthenticatedData = q.Question[0].Name != "insecure.example." || q.Question[0].Qtype != dns.TypeA
		w.WriteMsg(m)
		return true
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, TrustAD: true, Attempts: 1}, nil)
	for name, want := range map[string]string{
		"mx.example":       "[192.0.2.1] [] mx.example true <nil>",
		"both.example":     "[192.0.2.2] [2001:db8::2] both.example true <nil>",
		"ALIAS.example":    "[192.0.2.1] [] mx.example true <nil>",
		"half.example":     "[192.0.2.3] [] half.example false server failure",
		"insecure.example": "[192.0.2.4] [] insecure.example false <nil>",
		"broken.example":   "[] [] broken.example false server failure",
		"gone.example":     "[] [] gone.example false no such name",
	} {
		h, err := r.LookupHost(t.Context(), name)
		got := fmt.Sprint(h.IPv4, " ", h.IPv6, " ", h.Name, " ", h.Authentic, " ", errors.Unwrap(err))
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	list, authentic, err := r.LookupMXAuthentic(t.Context(), "example.org")
	if err != nil || !authentic || len(list) != 2 || *list[0] != (net.MX{Host: "mx.example", Pref: 10}) {
		t.Errorf("MX: %v %t %v", list, authentic, err)
	}
	tlsa, authentic, err := r.LookupTLSA(t.Context(), "_25._tcp.mx.example")
	if got := fmt.Sprint(tlsa); err != nil || !authentic || got != "[{3 1 1 [0 255]} {2 0 2 [171]}]" {
		t.Errorf("TLSA: %s %t %v", got, authentic, err)
	}
	if _, authentic, err := r.LookupTLSA(t.Context(), "_25._tcp.in.secure.ex"); !errors.Is(err, ErrNoRecords) || authentic {
		t.Errorf("no TLSA: %t %v", authentic, err)
	}
	if list, authentic, err := r.LookupMXAuthentic(t.Context(), "broken.example"); !errors.Is(err, ErrNoRecords) || authentic || list != nil {
		t.Errorf("no MX: %v %t %v", list, authentic, err)
	}
}
