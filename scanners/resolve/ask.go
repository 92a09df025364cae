package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Why there is no answer, for errors.Is. The first two are answers themselves; after the others the question stays open.
var (
	ErrNoSuchName    = errors.New("no such name")      // NXDOMAIN
	ErrNoRecords     = errors.New("no such record")    // the name has records of other types
	ErrTimeout       = errors.New("no answer in time") //
	ErrServerFailure = errors.New("server failure")    // SERVFAIL: DNSSEC that does not validate is one, too
	ErrRefused       = errors.New("refused by the server")
	ErrTooMany       = errors.New("more than is taken") // records or aliases; asking again does not help
)

// An answer is what is known about a question. It is shared and must not be changed.
type answer struct {
	missing   error // why there are no records: ErrNoSuchName, ErrNoRecords
	records   []dns.RR
	authentic bool
	stale     bool
	failure   *net.DNSError // instead of all this: nobody could answer
	ttl       time.Duration // 0: not to be kept
	size      int
}

// A call is a question under way, for everybody who asks it meanwhile.
type call struct {
	done    chan struct{}
	answer  answer
	err     *net.DNSError
	waiting int // guarded by Resolver.mu
	cancel  context.CancelFunc
}

// ask answers from the cache, joins a call under way, or begins one.
func (r *Resolver) ask(ctx context.Context, q question) (answer, *net.DNSError) {
	r.mu.Lock()
	// RFC 8020: a name that does not exist has no records of any type.
	for _, known := range []question{q, {q.name, dns.TypeNone}} {
		if a, ok := r.cache.get(known, r.now()); ok {
			r.stats.Cached++
			r.mu.Unlock()
			return a, a.failure
		}
	}
	c := r.calls[q]
	if c == nil {
		// The call belongs to all who wait, so it ends with the last of them and not with the first.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &call{done: make(chan struct{}), cancel: cancel}
		r.calls[q] = c
		go r.run(own, q, c) // ends with the call: time is bounded by timeout, attempts and servers
	}
	c.waiting++
	var late <-chan time.Time
	if r.config.StaleFor > 0 {
		if _, ok := r.pastAnswer(q); ok {
			late = time.After(staleAfter)
		}
	}
	r.mu.Unlock()
	if late == nil {
		return r.wait(ctx, q, c)
	}
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		return r.wait(ctx, q, c)
	case <-late: // the call goes on, for those who ask next
		r.mu.Lock()
		a, ok := r.takeStale(q)
		r.mu.Unlock()
		if ok {
			return a, nil
		}
		return r.wait(ctx, q, c)
	}
}

// wait waits for a call; the last who gives up ends it.
func (r *Resolver) wait(ctx context.Context, q question, c *call) (answer, *net.DNSError) {
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		r.mu.Lock()
		if c.waiting--; c.waiting == 0 {
			c.cancel()
			if r.calls[q] == c {
				delete(r.calls, q)
			}
		}
		r.mu.Unlock()
		return answer{}, ended(ctx)
	}
}

// ended says that ctx is over.
func ended(ctx context.Context) *net.DNSError {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return &net.DNSError{Err: ErrTimeout.Error(), IsTimeout: true, IsTemporary: true, UnwrapErr: errors.Join(ErrTimeout, err)}
	}
	return &net.DNSError{Err: "given up", IsTemporary: true, UnwrapErr: err}
}

func (r *Resolver) run(ctx context.Context, q question, c *call) {
	defer c.cancel()
	c.answer, c.err = r.guarded(ctx, q)
	r.mu.Lock()
	if r.calls[q] == c {
		delete(r.calls, q)
	}
	r.stats.Asked++
	switch {
	case c.err == nil:
		key := q
		if c.answer.missing == ErrNoSuchName {
			key.qtype = dns.TypeNone
			// What the name had while it existed must not outlive it.
			r.cache.drop(q)
		} else {
			r.cache.drop(question{q.name, dns.TypeNone})
		}
		r.cache.put(key, c.answer, r.now())
	case ctx.Err() != nil: // nobody waits any more: that says nothing about the question
	default:
		r.stats.Failed++
		if a, ok := r.takeStale(q); ok {
			c.answer, c.err = a, nil
		} else {
			r.cache.put(q, answer{failure: c.err, ttl: r.config.CacheFailureFor}, r.now())
		}
	}
	r.mu.Unlock()
	close(c.done)
}

// guarded is follow. A panic over what a server sent is no answer, rather than the end of the program.
func (r *Resolver) guarded(ctx context.Context, q question) (a answer, err *net.DNSError) {
	defer func() {
		if x := recover(); x != nil {
			a, err = answer{}, &net.DNSError{Err: fmt.Sprintf("panic: %v", x), IsTemporary: true}
		}
	}()
	return r.follow(ctx, q)
}

// pastAnswer returns what was known of a question until lately, and under which key. mu is held.
func (r *Resolver) pastAnswer(q question) (question, bool) {
	for _, known := range []question{q, {q.name, dns.TypeNone}} {
		if _, ok := r.cache.past(known, r.now()); ok {
			return known, true
		}
	}
	return question{}, false
}

// takeStale returns what was known of a question until lately. RFC 8767, 5: it then serves for a while without asking
// again. mu is held.
func (r *Resolver) takeStale(q question) (answer, bool) {
	known, ok := r.pastAnswer(q)
	if !ok {
		return answer{}, false
	}
	r.stats.Stale++
	a, _ := r.cache.past(known, r.now())
	a.stale, a.ttl = true, r.config.CacheFailureFor
	r.cache.serve(known, a, r.now())
	return a, true
}

// follow asks and goes along CNAME records that the server has not gone along itself.
func (r *Resolver) follow(ctx context.Context, q question) (answer, *net.DNSError) {
	var whole answer
	name := q.name
	for chain := 0; ; {
		m, from, err := r.exchange(ctx, question{name, q.qtype})
		if err != nil {
			return answer{}, err
		}
		a, next, links := r.read(m, name, q.qtype)
		if chain += links; chain > r.config.Aliases {
			return answer{}, &net.DNSError{
				Err: fmt.Sprintf("more than %d aliases in a row", r.config.Aliases), UnwrapErr: ErrTooMany, Server: from, IsTemporary: true,
			}
		}
		a.authentic = m.AuthenticatedData && r.config.TrustAD
		if whole.size > 0 {
			a.ttl = min(a.ttl, whole.ttl)
			a.authentic = a.authentic && whole.authentic
		}
		a.size += whole.size + recordOverhead*len(a.records)
		if next == "" {
			if chain > 0 && a.missing == ErrNoSuchName {
				a.missing = ErrNoRecords // it is the alias' target that does not exist
			}
			if a.ttl = min(a.ttl, r.config.CacheFor); a.missing != nil {
				a.ttl = min(a.ttl, r.config.CacheNothingFor)
			}
			a.ttl = max(a.ttl, r.config.CacheAtLeast)
			return a, nil
		}
		whole, name = a, next
	}
}

// read takes from a message what answers a question. next is the name to ask for where an alias leads out of it, links
// how many aliases there were.
func (r *Resolver) read(m *dns.Msg, name string, qtype uint16) (a answer, next string, links int) {
	a.size = m.Len()
	ttl := uint32(1<<31 - 1)
	for ; links <= r.config.Aliases; links++ {
		target := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, name) {
				continue
			}
			if h.Rrtype == qtype {
				a.records = append(a.records, rr)
				ttl = min(ttl, h.Ttl)
			} else if c, ok := rr.(*dns.CNAME); ok && target == "" {
				target = dns.CanonicalName(c.Target)
				ttl = min(ttl, h.Ttl)
			}
		}
		if len(a.records) > 0 {
			a.ttl = time.Duration(ttl) * time.Second
			return a, "", links
		}
		if target == "" {
			break
		}
		name = target
	}
	soa, known := negative(m)
	if m.Rcode == dns.RcodeSuccess && links > 0 && !known {
		a.ttl = time.Duration(ttl) * time.Second
		return a, name, links
	}
	a.missing = ErrNoRecords
	if m.Rcode == dns.RcodeNameError {
		a.missing = ErrNoSuchName
	}
	if known {
		a.ttl = time.Duration(min(ttl, soa)) * time.Second
	}
	return a, "", links
}

// negative returns for how many seconds "there is none" holds: RFC 2308, 5. Without a SOA record that is not known.
func negative(m *dns.Msg) (seconds uint32, known bool) {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(soa.Hdr.Ttl, soa.Minttl), true
		}
	}
	return 0, false
}

// exchange asks the servers one after the other, those that have just failed to answer last.
func (r *Resolver) exchange(ctx context.Context, q question) (*dns.Msg, string, *net.DNSError) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, "", ended(ctx)
	}
	var last *net.DNSError
	for range r.config.Attempts {
		for _, s := range r.order() {
			m, err := r.askServer(ctx, s, q)
			if ctx.Err() != nil {
				return nil, "", ended(ctx)
			}
			if err == nil {
				return m, s.address, nil
			}
			// What a server says tells more than the silence of another.
			if last == nil || !err.IsTimeout {
				last = err
			}
		}
	}
	return nil, "", last
}

func (r *Resolver) order() []*server {
	now := r.now()
	list := slices.Clone(r.servers)
	dead := func(s *server) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now.Before(s.deadTo) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b *server) int { return dead(a) - dead(b) })
	return list
}

// askServer puts a question to one server: over UDP, and over TCP if the answer does not fit.
func (r *Resolver) askServer(ctx context.Context, s *server, q question) (*dns.Msg, *net.DNSError) {
	edns := true
	m, err := r.transfer(ctx, "udp", s.address, q, edns)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		edns = false // RFC 6891, 6.2.2: it may not know EDNS
		m, err = r.transfer(ctx, "udp", s.address, q, edns)
	}
	if err == nil && m.Truncated {
		m, err = r.transfer(ctx, "tcp", s.address, q, edns)
		if err == nil && m.Truncated {
			err = errors.New("the answer is cut short over TCP too")
		}
	}
	if err != nil && ctx.Err() != nil { // nobody waits any more: that says nothing of the server
		return nil, ended(ctx)
	}
	s.mu.Lock()
	if s.deadTo = (time.Time{}); err != nil {
		s.deadTo = r.now().Add(deadFor)
	}
	s.mu.Unlock()
	fail := func(text string) *net.DNSError {
		return &net.DNSError{Err: text, Server: s.address, IsTemporary: true}
	}
	says := func(err error) *net.DNSError {
		e := fail(err.Error())
		e.UnwrapErr = err
		return e
	}
	switch {
	case err != nil:
		e := fail(err.Error())
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			e.Err, e.IsTimeout, e.UnwrapErr = ErrTimeout.Error(), true, ErrTimeout
		}
		return nil, e
	case m.Rcode == dns.RcodeServerFailure:
		return nil, says(ErrServerFailure)
	case m.Rcode == dns.RcodeRefused:
		return nil, says(ErrRefused)
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, fail("server says " + dns.RcodeToString[m.Rcode])
	case len(m.Answer) > r.config.Records:
		e := fail(fmt.Sprintf("more than %d records", r.config.Records))
		e.UnwrapErr = ErrTooMany
		return nil, e
	case refers(m):
		return nil, fail("it does not resolve for us, but refers to other servers")
	}
	return m, nil
}

// refers reports whether m is no answer but a referral (RFC 2308, 2.2), as servers of zones give that do no recursion.
func refers(m *dns.Msg) bool {
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
		return false
	}
	if _, known := negative(m); known {
		return false
	}
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS })
}

// transfer sends one question from a port of its own and waits for its answer. Packets that are none are passed over:
// somebody may be guessing (RFC 5452, 9.1).
func (r *Resolver) transfer(ctx context.Context, network, address string, q question, edns bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	conn, err := r.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	ask := new(dns.Msg)
	ask.SetQuestion(q.name, q.qtype)         // with a random id
	ask.AuthenticatedData = r.config.TrustAD // RFC 6840, 5.7: tell us, without the signatures
	if edns {
		ask.SetEdns0(udpSize, false)
	}
	if network == "tcp" {
		return overTCP(conn, ask)
	}
	return overUDP(conn, ask)
}

func overTCP(conn net.Conn, ask *dns.Msg) (*dns.Msg, error) {
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(ask); err != nil {
		return nil, err
	}
	m, err := c.ReadMsg()
	if err != nil {
		return nil, err
	}
	if !answers(m, ask) {
		return nil, errGarbage
	}
	return m, nil
}

func overUDP(conn net.Conn, ask *dns.Msg) (*dns.Msg, error) {
	p, err := ask.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(p); err != nil {
		return nil, err
	}
	buf := make([]byte, 4*udpSize)
	for range maxStrays {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if m.Unpack(buf[:n]) == nil && answers(m, ask) {
			return m, nil
		}
	}
	return nil, errGarbage
}

var errGarbage = errors.New("what comes back is no answer")

func answers(m, ask *dns.Msg) bool {
	if !m.Response || m.Id != ask.Id || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return false
	}
	q, want := m.Question[0], ask.Question[0]
	return q.Qtype == want.Qtype && q.Qclass == want.Qclass && strings.EqualFold(q.Name, want.Name)
}
