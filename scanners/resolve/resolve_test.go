package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A zone is a name server for a test: records by "name type", and what it was asked.
type zone struct {
	records map[string][]string                         // an entry may be "!SERVFAIL"; no entry for a name is NXDOMAIN
	handle  func(w dns.ResponseWriter, q *dns.Msg) bool // handles a question itself
	address string

	mu    sync.Mutex
	asked []string // "udp example.org. A"
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name, kind := q.Question[0].Name, dns.TypeToString[q.Question[0].Qtype]
	z.mu.Lock()
	z.asked = append(z.asked, w.LocalAddr().Network()+" "+name+" "+kind)
	z.mu.Unlock()
	if z.handle != nil && z.handle(w, q) {
		return
	}
	w.WriteMsg(z.answer(q))
}

func (z *zone) answer(q *dns.Msg) *dns.Msg {
	name, kind := strings.ToLower(q.Question[0].Name), dns.TypeToString[q.Question[0].Qtype]
	m := new(dns.Msg).SetReply(q)
	z.mu.Lock()
	defer z.mu.Unlock()
	exists := false
	for key := range z.records {
		exists = exists || strings.HasPrefix(key, name+" ")
	}
	for _, s := range append(z.records[name+" "+kind], z.records[name+" CNAME"]...) {
		if code, ok := strings.CutPrefix(s, "!"); ok {
			m.Rcode = dns.StringToRcode[code]
			return m
		}
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		soa, _ := dns.NewRR("example.org. 600 IN SOA ns.example.org. root.example.org. 1 2 3 4 60")
		m.Ns = append(m.Ns, soa)
	}
	return m
}

// questions returns what was asked since the last time.
func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	asked := z.asked
	z.asked = nil
	return asked
}

// serve starts z on loopback, over UDP and TCP on one port.
func serve(t *testing.T, z *zone) *zone {
	t.Helper()
	var l net.Listener
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	for range 100 { // the same port may be somebody's over TCP
		if err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
		pc, err = net.ListenPacket("udp", "127.0.0.1:0")
	}
	if l == nil {
		t.Fatal("no port is free over both")
	}
	z.address = l.Addr().String()
	for _, s := range []*dns.Server{{Listener: l, Handler: z}, {PacketConn: pc, Handler: z}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { s.ActivateAndServe(); close(done) }()
		<-started
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return z
}

// silent returns the address of a server that never answers.
func silent(t *testing.T) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(c.at.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d / time.Second)) }

func resolver(t *testing.T, c Config, now func() time.Time) *Resolver {
	t.Helper()
	r, err := New(c, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func check[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// dnsError checks the kind of an error: "not found", "temporary", "timeout".
func dnsError(t *testing.T, err error, kind, text string) {
	t.Helper()
	d, ok := err.(*net.DNSError)
	if !ok {
		t.Fatalf("%T %v is no *net.DNSError", err, err)
	}
	want := net.DNSError{IsNotFound: kind == "not found", IsTemporary: kind != "not found", IsTimeout: kind == "timeout"}
	if d.IsNotFound != want.IsNotFound || d.IsTemporary != want.IsTemporary || d.IsTimeout != want.IsTimeout || !strings.Contains(d.Err, text) {
		t.Errorf("%#v; want %s with %q", d, kind, text)
	}
}

func TestLookups(t *testing.T) {
	const six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
	z := serve(t, &zone{records: map[string][]string{
		"a.example. A":                  {"a.example. 60 A 192.0.2.1", "a.example. 60 A 192.0.2.2"},
		"a.example. AAAA":               {"a.example. 60 AAAA 2001:db8::1"},
		"four.example. A":               {"four.example. 60 A 192.0.2.4"},
		"six.example. AAAA":             {"six.example. 60 AAAA 2001:db8::6"},
		"t.example. TXT":                {`t.example. 60 TXT "v=spf1 " "-all"`, `t.example. 60 TXT "a\"b\\c\009"`},
		six + " PTR":                    {six + " 60 PTR six.example."},
		"1.2.0.192.in-addr.arpa. PTR":   {"1.2.0.192.in-addr.arpa. 60 PTR mx.a.example."},
		"m.example. MX":                 {"m.example. 60 MX 20 b.example.", "m.example. 60 MX 10 a.example."},
		"null.example. MX":              {"null.example. 60 MX 0 ."},
		"xn--bcher-kva.example. A":      {"xn--bcher-kva.example. 60 A 192.0.2.7"},
		"mixed.example. A":              {"Mixed.EXAMPLE. 60 A 192.0.2.8", "other.example. 60 A 203.0.113.1"},
		"broken.example. A":             {"!SERVFAIL"},
		"broken.example. AAAA":          {"broken.example. 60 AAAA 2001:db8::9"},
		"refused.example. TXT":          {"!REFUSED"},
		"odd.example. TXT":              {"!YXDOMAIN"},
		"only-four-broken.example. A":   {"!SERVFAIL"},
		"only-four-broken.example. TXT": {`only-four-broken.example. 60 TXT "x"`},
	}})
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	ctx := t.Context()

	ips := func(name string, want ...string) {
		t.Helper()
		got, err := r.LookupAddr(ctx, name)
		check(t, name, got, err, addrs(want...))
	}
	ips("a.example", "192.0.2.1", "192.0.2.2", "2001:db8::1")
	ips("A.Example.", "192.0.2.1", "192.0.2.2", "2001:db8::1")
	ips("four.example", "192.0.2.4")
	ips("six.example", "2001:db8::6")
	ips("bücher.example", "192.0.2.7")
	ips("BÜCHER。example.", "192.0.2.7")
	ips("xn--BCHER-kva.example", "192.0.2.7")
	ips("mixed.example", "192.0.2.8")
	ips("broken.example", "2001:db8::9")
	four, err := r.LookupA(ctx, "a.example")
	check(t, "A", four, err, addrs("192.0.2.1", "192.0.2.2"))
	txt, err := r.LookupTXT(ctx, "t.example")
	check(t, "TXT", txt, err, []string{"v=spf1 -all", "a\"b\\c\t"})
	ptr, err := r.LookupPTR(ctx, netip.MustParseAddr("192.0.2.1"))
	check(t, "PTR", ptr, err, []string{"mx.a.example"})
	ptr, err = r.LookupPTR(ctx, netip.MustParseAddr("::ffff:192.0.2.1"))
	check(t, "PTR of a mapped address", ptr, err, []string{"mx.a.example"})
	ptr, err = r.LookupPTR(ctx, netip.MustParseAddr("2001:db8::1"))
	check(t, "PTR of IPv6", ptr, err, []string{"six.example"})
	mx, err := r.LookupMX(ctx, "m.example")
	check(t, "MX", mx, err, []*net.MX{{Host: "a.example", Pref: 10}, {Host: "b.example", Pref: 20}})
	mx, err = r.LookupMX(ctx, "null.example")
	check(t, "null MX", mx, err, []*net.MX{{Host: "."}})

	fails := func(name, kind, text string) {
		t.Helper()
		_, err := r.LookupTXT(ctx, name)
		dnsError(t, err, kind, text)
		if d := err.(*net.DNSError); d.Name != name {
			t.Errorf("the error names %q, not %q", d.Name, name)
		}
	}
	fails("none.example", "not found", "no such name")
	fails("a.example", "not found", "no such record")
	fails("refused.example", "temporary", "refused by the server")
	fails("odd.example", "temporary", "YXDOMAIN")
	fails("", "not found", "not a domain name")
	fails(strings.Repeat("x", 64)+".example", "not found", "not a domain name")
	fails("a b.example", "not found", "not a domain name")
	fails("a..example", "not found", "not a domain name")
	_, err = r.LookupAddr(ctx, "none.example")
	dnsError(t, err, "not found", "no such name")
	_, err = r.LookupAddr(ctx, "t.example")
	dnsError(t, err, "not found", "no such record")
	_, err = r.LookupAddr(ctx, "only-four-broken.example")
	dnsError(t, err, "temporary", "server failure")
	_, err = r.LookupPTR(ctx, netip.Addr{})
	dnsError(t, err, "not found", "no address")
}

func TestAliases(t *testing.T) {
	z := &zone{records: map[string][]string{
		"whole.example. CNAME":   {"whole.example. 60 CNAME w2.example.", "w2.example. 60 CNAME w3.example.", "w3.example. 30 TXT \"whole\""},
		"step.example. CNAME":    {"step.example. 60 CNAME s2.example."},
		"s2.example. CNAME":      {"s2.example. 60 CNAME s3.example."},
		"s3.example. TXT":        {`s3.example. 60 TXT "step"`},
		"loop.example. CNAME":    {"loop.example. 60 CNAME loop2.example."},
		"loop2.example. CNAME":   {"loop2.example. 60 CNAME loop.example."},
		"self.example. CNAME":    {"self.example. 60 CNAME self.example."},
		"nowhere.example. CNAME": {"nowhere.example. 60 CNAME gone.example."},
	}}
	for i := range 20 {
		z.records[fmt.Sprintf("c%d.example. CNAME", i)] = []string{fmt.Sprintf("c%d.example. 60 CNAME c%d.example.", i, i+1)}
	}
	z.records["c20.example. TXT"] = []string{`c20.example. 60 TXT "far"`}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	for name, want := range map[string]string{"whole.example": "whole", "step.example": "step", "c12.example": "far"} {
		got, err := r.LookupTXT(t.Context(), name)
		check(t, name, got, err, []string{want})
	}
	for _, name := range []string{"loop.example", "self.example", "c11.example"} {
		z.questions()
		_, err := r.LookupTXT(t.Context(), name)
		if !errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v is not ErrTooMany", name, err)
		}
		dnsError(t, err, "temporary", "more than 8 aliases")
		if n := len(z.questions()); n > 9 {
			t.Errorf("%s: %d questions", name, n)
		}
	}
	_, err := r.LookupTXT(t.Context(), "nowhere.example")
	dnsError(t, err, "not found", "no such record")
}

func TestTruncation(t *testing.T) {
	z := &zone{records: map[string][]string{}}
	var want []string
	for i := range 40 {
		text := fmt.Sprint(i, strings.Repeat("x", 200))
		want = append(want, text)
		z.records["big.example. TXT"] = append(z.records["big.example. TXT"], fmt.Sprintf("big.example. 60 TXT %q", text))
	}
	for range 501 {
		z.records["many.example. A"] = append(z.records["many.example. A"], "many.example. 60 A 192.0.2.1")
	}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := z.answer(q)
		if w.LocalAddr().Network() == "udp" {
			opt := q.IsEdns0()
			if opt == nil || opt.UDPSize() != udpSize {
				t.Errorf("EDNS0 is %v", opt)
			}
			m.Truncate(int(udpSize))
		}
		if strings.HasPrefix(q.Question[0].Name, "cut.") {
			m.Truncated = true
		}
		w.WriteMsg(m)
		return true
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	got, err := r.LookupTXT(t.Context(), "big.example")
	check(t, "TXT", got, err, want)
	if asked := z.questions(); !reflect.DeepEqual(asked, []string{"udp big.example. TXT", "tcp big.example. TXT"}) {
		t.Errorf("asked %v", asked)
	}
	_, err = r.LookupTXT(t.Context(), "cut.example")
	dnsError(t, err, "temporary", "cut short")
	_, err = r.LookupA(t.Context(), "many.example")
	dnsError(t, err, "temporary", "more than 500 records")
}

func TestFailover(t *testing.T) {
	z := serve(t, &zone{records: map[string][]string{
		"a.example. A": {"a.example. 60 A 192.0.2.1"}, "b.example. A": {"b.example. 60 A 192.0.2.2"}, "bad.example. TXT": {"!SERVFAIL"},
	}})
	quiet := silent(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := pc.LocalAddr().String()
	pc.Close()

	for name, first := range map[string]string{"silent": quiet, "closed": refusing} {
		t.Run(name, func(t *testing.T) {
			now := &clock{}
			r := resolver(t, Config{Servers: []string{first, z.address}, Timeout: time.Second}, now.now)
			got, err := r.LookupA(t.Context(), "a.example")
			check(t, "first look-up", got, err, addrs("192.0.2.1"))
			// The second question goes to the server that answered, and so has not to wait.
			r.config.Timeout = time.Hour
			got, err = r.LookupA(t.Context(), "b.example")
			check(t, "second look-up", got, err, addrs("192.0.2.2"))
			if order := r.order(); order[0].address != z.address {
				t.Errorf("asks %s first", order[0].address)
			}
			now.advance(deadFor)
			if order := r.order(); order[0].address != first {
				t.Errorf("asks %s first after a while", order[0].address)
			}
		})
	}
	t.Run("a server's word counts more than silence", func(t *testing.T) {
		r := resolver(t, Config{Servers: []string{z.address, quiet}, Timeout: time.Second, Attempts: 1}, nil)
		_, err := r.LookupTXT(t.Context(), "bad.example")
		dnsError(t, err, "temporary", "server failure")
	})
	t.Run("nobody answers", func(t *testing.T) {
		r := resolver(t, Config{Servers: []string{quiet}, Timeout: 20 * time.Millisecond}, nil)
		_, err := r.LookupA(t.Context(), "a.example")
		dnsError(t, err, "timeout", "no answer in time")
	})
	t.Run("the caller gives up", func(t *testing.T) {
		r := resolver(t, Config{Servers: []string{quiet}, Timeout: time.Hour}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := r.LookupA(ctx, "a.example")
		dnsError(t, err, "timeout", "no answer in time")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not the context's", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		_, err = r.LookupA(ctx, "a.example")
		dnsError(t, err, "temporary", "given up")
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.calls) != 0 {
			t.Errorf("%d calls are left", len(r.calls))
		}
	})
}

// Whoever guesses at answers gets nowhere: wrong id, wrong question, no response, no message.
func TestForgedAnswers(t *testing.T) {
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}}
	var mu sync.Mutex
	ports, ids := map[string]bool{}, map[uint16]bool{}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		if w.LocalAddr().Network() != "udp" {
			return false
		}
		mu.Lock()
		ports[w.RemoteAddr().String()], ids[q.Id] = true, true
		mu.Unlock()
		forged := func(change func(m *dns.Msg)) {
			m := z.answer(q)
			m.Answer = nil
			rr, _ := dns.NewRR(q.Question[0].Name + " 60 A 203.0.113.66")
			m.Answer = []dns.RR{rr}
			m.Rcode = 0
			change(m)
			w.WriteMsg(m)
		}
		w.Write([]byte("garbage"))
		w.Write(nil)
		forged(func(m *dns.Msg) { m.Id++ })
		forged(func(m *dns.Msg) { m.Response = false })
		forged(func(m *dns.Msg) { m.Question[0].Name = "b.example." })
		forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })
		forged(func(m *dns.Msg) { m.Question = nil })
		forged(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })
		if strings.HasPrefix(q.Question[0].Name, "only") {
			for range maxStrays {
				w.Write([]byte("garbage"))
			}
			return true
		}
		return false
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1, CacheSize: -1}, nil)
	for range 8 {
		got, err := r.LookupA(t.Context(), "a.example")
		check(t, "A", got, err, addrs("192.0.2.1"))
	}
	_, err := r.LookupA(t.Context(), "only.example")
	dnsError(t, err, "temporary", "no answer")
	mu.Lock()
	defer mu.Unlock()
	if len(ports) < 7 || len(ids) < 7 {
		t.Errorf("9 questions from %d ports with %d ids", len(ports), len(ids))
	}
}

func TestServerWithoutEDNS(t *testing.T) {
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}, "cut.example. A": {"cut.example. 60 A 192.0.2.2"}}}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		if q.IsEdns0() == nil {
			if m := z.answer(q); q.Question[0].Name == "cut.example." && w.LocalAddr().Network() == "udp" {
				m.Answer, m.Truncated = nil, true
				w.WriteMsg(m)
				return true
			}
			return false
		}
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
		return true
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	got, err := r.LookupA(t.Context(), "a.example")
	check(t, "A", got, err, addrs("192.0.2.1"))
	got, err = r.LookupA(t.Context(), "cut.example") // neither does it over TCP
	check(t, "A", got, err, addrs("192.0.2.2"))
}

// A server that refers to others has not said that there is none; the next one is asked.
func TestReferral(t *testing.T) {
	z := &zone{}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := new(dns.Msg).SetReply(q)
		ns, _ := dns.NewRR("example. 60 NS ns.example.")
		m.Ns = []dns.RR{ns}
		if strings.HasPrefix(q.Question[0].Name, "none") {
			soa, _ := dns.NewRR("example. 60 SOA ns.example. root.example. 1 2 3 4 60")
			m.Ns = append(m.Ns, soa) // RFC 2308, 2.2: with it, this is "no data"
		}
		w.WriteMsg(m)
		return true
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, nil)
	_, err := r.LookupA(t.Context(), "a.example")
	dnsError(t, err, "temporary", "refers to other servers")
	_, err = r.LookupA(t.Context(), "none.example")
	dnsError(t, err, "not found", "no such record")
	good := serve(t, &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}})
	r = resolver(t, Config{Servers: []string{z.address, good.address}, Attempts: 1}, nil)
	got, err := r.LookupA(t.Context(), "a.example")
	check(t, "A", got, err, addrs("192.0.2.1"))
}

// A caller who goes away does not make a server dead.
func TestGivingUpSaysNothingOfTheServer(t *testing.T) {
	quiet := silent(t)
	r := resolver(t, Config{Servers: []string{quiet, "192.0.2.1"}, Timeout: time.Hour}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if m, err := r.askServer(ctx, r.servers[0], question{"a.example.", dns.TypeA}); err == nil || !err.IsTimeout {
		t.Errorf("%v, %v", m, err)
	}
	if order := r.order(); order[0].address != quiet {
		t.Errorf("asks %s first", order[0].address)
	}
}

// What a dialer or the library does in a panic is no answer, and ends nothing else.
func TestPanic(t *testing.T) {
	r, err := New(Config{Servers: []string{"192.0.2.1"}}, nil, func(context.Context, string, string) (net.Conn, error) { panic("oops") })
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.LookupA(t.Context(), "a.example")
	dnsError(t, err, "temporary", "panic: oops")
	if len(r.slots) != 0 {
		t.Error("it is still counted as under way")
	}
}

func TestCache(t *testing.T) {
	z := serve(t, &zone{records: map[string][]string{
		"a.example. A":     {"a.example. 60 A 192.0.2.1", "a.example. 30 A 192.0.2.2"},
		"long.example. A":  {"long.example. 999999 A 192.0.2.3"},
		"never.example. A": {"never.example. 0 A 192.0.2.4"},
		"bad.example. A":   {"!SERVFAIL"},
	}})
	now := &clock{}
	r := resolver(t, Config{Servers: []string{z.address}, Attempts: 1}, now.now)
	asks := func(name string, want int) {
		t.Helper()
		r.LookupA(t.Context(), name)
		if got := len(z.questions()); got != want {
			t.Errorf("%s: %d questions, want %d", name, got, want)
		}
	}
	asks("a.example", 1)
	asks("A.EXAMPLE", 0)
	now.advance(29 * time.Second)
	asks("a.example", 0)
	now.advance(time.Second) // the shortest TTL
	asks("a.example", 1)
	asks("never.example", 1)
	asks("never.example", 1)
	asks("bad.example", 1)
	asks("bad.example", 0) // RFC 9520: failures are kept, shortly
	now.advance(2 * time.Second)
	asks("bad.example", 1)
	asks("long.example", 1)
	now.advance(time.Hour - time.Second)
	asks("long.example", 0)
	now.advance(time.Second)
	asks("long.example", 1)
	asks("none.example", 1)
	if _, err := r.LookupTXT(t.Context(), "none.example"); err == nil || len(z.questions()) != 0 {
		t.Errorf("a name that does not exist was asked for another type: %v", err)
	}
	now.advance(59 * time.Second)
	asks("none.example", 0)
	now.advance(time.Second) // the SOA's minimum
	asks("none.example", 1)
}

func TestCacheIsBounded(t *testing.T) {
	z := &zone{}
	z.handle = func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 A 192.0.2.1")
		m.Answer = []dns.RR{rr}
		w.WriteMsg(m)
		return true
	}
	serve(t, z)
	const most = 4000
	r := resolver(t, Config{Servers: []string{z.address}, CacheSize: most}, nil)
	for i := range 100 {
		if _, err := r.LookupA(t.Context(), fmt.Sprintf("n%d.example", i)); err != nil {
			t.Fatal(err)
		}
		if r.cache.size > most || len(r.cache.entries) > most/entryOverhead || len(r.cache.entries) != r.cache.recent.Len() || i > 20 && len(r.cache.entries) < 6 {
			t.Fatalf("%d octets in %d entries", r.cache.size, len(r.cache.entries))
		}
	}
	z.questions()
	r.LookupA(t.Context(), "n99.example")
	r.LookupA(t.Context(), "n0.example")
	if asked := z.questions(); len(asked) != 1 {
		t.Errorf("asked %v", asked)
	}
}

func TestOneQuestionForAll(t *testing.T) {
	z := &zone{records: map[string][]string{"a.example. A": {"a.example. 60 A 192.0.2.1"}}}
	asked, reply := make(chan struct{}, 1), make(chan struct{})
	z.handle = func(dns.ResponseWriter, *dns.Msg) bool {
		asked <- struct{}{}
		<-reply
		return false
	}
	serve(t, z)
	r := resolver(t, Config{Servers: []string{z.address}, Timeout: time.Minute}, nil)
	first, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := r.LookupA(first, "a.example")
		gone <- err
	}()
	<-asked
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := r.LookupA(t.Context(), "a.example")
			check(t, "A", got, err, addrs("192.0.2.1"))
		})
	}
	for waiting := 0; waiting < 21; {
		r.mu.Lock()
		waiting = r.calls[question{"a.example.", dns.TypeA}].waiting
		r.mu.Unlock()
	}
	giveUp() // the others go on waiting
	dnsError(t, <-gone, "temporary", "given up")
	close(reply)
	all.Wait()
	if asked := z.questions(); len(asked) != 1 {
		t.Errorf("asked %v", asked)
	}
}

func TestConcurrent(t *testing.T) {
	r := resolver(t, Config{Servers: []string{silent(t)}, Timeout: time.Minute, Concurrent: 1}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	r.slots <- struct{}{}
	done := make(chan error)
	go func() {
		_, err := r.LookupA(ctx, "a.example")
		done <- err
	}()
	cancel()
	dnsError(t, <-done, "temporary", "given up")
}

func TestConfig(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]:54": "[2001:db8::1]:54",
	} {
		r := resolver(t, Config{Servers: []string{in}}, nil)
		if r.servers[0].address != want {
			t.Errorf("%s: %s", in, r.servers[0].address)
		}
	}
	if _, err := New(Config{Servers: []string{"ns.example.org"}}, nil, nil); err == nil || !strings.Contains(err.Error(), "write it as") {
		t.Errorf("a name as server: %v", err)
	}
	if _, err := New(Config{Servers: []string{"192.0.2.1"}, Timeout: -1}, nil, nil); err == nil {
		t.Error("a negative timeout is taken")
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	list, err := systemServers(file)
	check(t, "no resolv.conf", list, err, []string{"127.0.0.1"})
	if err := os.WriteFile(file, []byte("search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err = systemServers(file)
	check(t, "resolv.conf", list, err, []string{"192.0.2.1", "2001:db8::1"})
}
