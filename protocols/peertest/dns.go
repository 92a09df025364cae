package peertest

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// A DNSServer answers from the records it was given, over UDP and TCP.
type DNSServer struct {
	Address string

	records map[string][]dns.RR // by lower-cased name
	asked   atomic.Int64
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

// ServeDNS implements dns.Handler.
func (d *DNSServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	d.asked.Add(1)
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	if len(q.Question) == 1 {
		rrs, ok := d.records[strings.ToLower(q.Question[0].Name)]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(m) // whoever asked may have gone
}
