package peertest

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// A DNSServer answers from the records it was given, over UDP and TCP, cut short over UDP where they do not fit.
type DNSServer struct {
	Address string

	records map[string][]dns.RR // by lower-cased name
	asked   atomic.Int64
	failing sync.Map // names, lower-cased
}

// DNS starts a server with these records in zone file form ("2.0.0.127.zen.example. A 127.0.0.2"). A name that has
// none does not exist.
func DNS(t testing.TB, records ...string) *DNSServer {
	t.Helper()
	d := &DNSServer{Address: Address(t), records: map[string][]dns.RR{}}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(rr.Header().Name)
		d.records[name] = append(d.records[name], rr)
	}
	pc, err := net.ListenPacket("udp", d.Address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", d.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: d}, {Listener: l, Handler: d}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // ends with Shutdown, after the test
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return d
}

// Asked returns how many questions came.
func (d *DNSServer) Asked() int { return int(d.asked.Load()) }

// Fail makes the server say SERVFAIL about a name from now on.
func (d *DNSServer) Fail(name string) { d.failing.Store(strings.ToLower(dns.Fqdn(name)), true) }

// ServeDNS implements dns.Handler.
func (d *DNSServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	d.asked.Add(1)
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	if len(q.Question) == 1 {
		name := strings.ToLower(q.Question[0].Name)
		rrs, ok := d.records[name]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		if _, fails := d.failing.Load(name); fails {
			m.Rcode, rrs = dns.RcodeServerFailure, nil
		}
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if e := q.IsEdns0(); e != nil {
			size = int(e.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // whoever asked may have gone
}
