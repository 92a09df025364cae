package peertest

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A DNSServer answers from the records it was given, over UDP and TCP, cut short over UDP where they do not fit.
type DNSServer struct {
	Address string

	t       testing.TB
	records map[string][]dns.RR // by lower-cased name
	asked   atomic.Int64
	failing sync.Map // names, lower-cased
	fault   atomic.Value
	running []*dns.Server
}

// A DNSFault is a way in which a name server misbehaves.
type DNSFault string

const (
	DNSWell    DNSFault = ""                // it does not
	DNSSilent  DNSFault = "silent"          // it takes questions and says nothing
	DNSFails   DNSFault = "SERVFAIL"        // it says that it fails
	DNSRefuses DNSFault = "REFUSED"         // it says that it does not serve us
	DNSGarbage DNSFault = "garbage"         // what it says is no DNS
	DNSLies    DNSFault = "other questions" // it answers questions that were not asked
	DNSDrips   DNSFault = "drip"            // it cuts everything short over UDP, and over TCP sends an octet now and then
	DNSHangsUp DNSFault = "hangs up"        // it cuts everything short over UDP, and over TCP closes the connection
)

// DNSFaults are all ways in which a name server misbehaves that answers at all.
func DNSFaults() []DNSFault {
	return []DNSFault{DNSSilent, DNSFails, DNSRefuses, DNSGarbage, DNSLies, DNSDrips, DNSHangsUp}
}

// DNS starts a server with these records in zone file form ("2.0.0.127.zen.example. A 127.0.0.2"). A name that has
// none does not exist.
func DNS(t testing.TB, records ...string) *DNSServer {
	t.Helper()
	d := &DNSServer{Address: Address(t), t: t, records: map[string][]dns.RR{}}
	d.fault.Store(DNSWell)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(rr.Header().Name)
		d.records[name] = append(d.records[name], rr)
	}
	d.Start()
	t.Cleanup(d.Stop)
	return d
}

// Start starts the server, again if it was stopped.
func (d *DNSServer) Start() {
	d.t.Helper()
	pc, err := net.ListenPacket("udp", d.Address)
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := net.Listen("tcp", d.Address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.running = []*dns.Server{{PacketConn: pc, Handler: d}, {Listener: dripping{l, d}, Handler: d}}
	for _, s := range d.running {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // ends with Shutdown
		<-started
	}
}

// Stop ends the server: what is sent to it comes back as refused.
func (d *DNSServer) Stop() {
	for _, s := range d.running {
		_ = s.Shutdown()
	}
	d.running = nil
}

// Asked returns how many questions came.
func (d *DNSServer) Asked() int { return int(d.asked.Load()) }

// Fail makes the server say SERVFAIL about a name from now on.
func (d *DNSServer) Fail(name string) { d.failing.Store(strings.ToLower(dns.Fqdn(name)), true) }

// Misbehave makes the server misbehave from now on, whatever it is asked; DNSWell ends that.
func (d *DNSServer) Misbehave(f DNSFault) { d.fault.Store(f) }

// ServeDNS implements dns.Handler.
func (d *DNSServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	d.asked.Add(1)
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	udp := w.RemoteAddr().Network() == "udp"
	switch f := d.fault.Load().(DNSFault); f {
	case DNSSilent:
		return
	case DNSFails, DNSRefuses:
		m.Rcode = dns.StringToRcode[string(f)]
	case DNSGarbage:
		_, _ = w.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		return
	case DNSLies:
		m.Question[0].Name = "another.example."
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 2),
		}}
	case DNSHangsUp:
		if m.Truncated = udp; !udp {
			_ = w.Close()
			return
		}
	case DNSDrips:
		if m.Truncated = udp; !udp {
			d.answer(m, q)
		}
	default:
		d.answer(m, q)
	}
	if udp {
		size := dns.MinMsgSize
		if e := q.IsEdns0(); e != nil {
			size = int(e.UDPSize())
		}
		cut := m.Truncated
		m.Truncate(size)
		m.Truncated = m.Truncated || cut
	}
	_ = w.WriteMsg(m) // whoever asked may have gone
}

func (d *DNSServer) answer(m, q *dns.Msg) {
	if len(q.Question) != 1 {
		return
	}
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

// dripping makes connections that send slowly while the server drips.
type dripping struct {
	net.Listener
	d *DNSServer
}

func (l dripping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return drip{c, l.d}, nil
}

type drip struct {
	net.Conn
	d *DNSServer
}

func (c drip) Write(p []byte) (int, error) {
	if c.d.fault.Load() != DNSDrips {
		return c.Conn.Write(p)
	}
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err // whoever waited has gone
		}
		time.Sleep(20 * time.Millisecond)
	}
	return len(p), nil
}
