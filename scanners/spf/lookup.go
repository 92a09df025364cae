package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"sluice/pipeline"
)

// What a look-up asks.
const (
	askPolicy  = iota // the record of a domain
	askAddr           // addresses of the client's family
	askExists         // A records, whatever the client's family
	askMX             // the hosts that take mail, and their addresses
	askPTR            // the client's names that lead back to it
	askExplain        // an explanation
)

// A question is what one term of a record needs to know.
type question struct {
	ask  int
	name string // "" for askPTR
}

// A lookup is a question under way, or its answer once done is closed.
type lookup struct {
	done    chan struct{}
	text    string  // of a policy or an explanation
	record  *record // of a policy, nil if there is none
	addrs   []netip.Addr
	names   []string
	answers int   // records that came
	void    bool  // none came, and that is no error
	err     error // of type permanent where asking again is no use
}

// permanent is an error in what a domain has published.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// lookups asks the questions of one evaluation, each once. Those that do not depend on each other are under way at the
// same time. A policy that keeps the limits costs no more questions than they allow. With one that breaks them what was
// asked ahead comes on top, so that at most twice as many are asked: that never changes the result.
type lookups struct {
	ctx      context.Context
	resolver pipeline.Resolver
	client   netip.Addr
	limits   Limits
	key      func(r *record, i int, domain string) (question, bool) // of a directive, or of redirect where i is past them

	mu    sync.Mutex
	begun map[question]*lookup
	wg    sync.WaitGroup
}

// need returns the answer to q: one under way is waited for, and what has not been asked is asked now.
func (s *lookups) need(q question) *lookup {
	s.mu.Lock()
	l, ok := s.begun[q]
	if !ok {
		l = &lookup{done: make(chan struct{})}
		s.begun[q] = l
	}
	s.mu.Unlock()
	if !ok {
		s.run(q, l)
		if l.record != nil {
			s.ahead(l.record, q.name, 2)
		}
	}
	select {
	case <-l.done:
		return l
	case <-s.ctx.Done():
		return &lookup{err: fmt.Errorf("no answer in time: %w", s.ctx.Err())}
	}
}

// ahead begins the questions of a record, if there are at least a few.
func (s *lookups) ahead(r *record, domain string, few int) {
	var list [10]question
	n := 0
	for i := range len(r.directives) + 1 {
		if i < len(r.directives) {
			d := &r.directives[i]
			if d.mech == mechAll || d.prefix.Contains(s.client) {
				break
			}
		}
		if q, ok := s.key(r, i, domain); ok && n < len(list) {
			list[n] = q
			n++
		}
	}
	if n < few {
		return
	}
	for _, q := range list[:n] {
		s.begin(q)
	}
}

func (s *lookups) begin(q question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun[q] != nil || len(s.begun) > s.limits.Lookups { // the first record does not count
		return
	}
	l := &lookup{done: make(chan struct{})}
	s.begun[q] = l
	s.wg.Go(func() { // has ended when Check returns
		s.run(q, l)
		if l.record != nil {
			s.ahead(l.record, q.name, 1)
		}
	})
}

// run puts a question and waits for its answer.
func (s *lookups) run(q question, l *lookup) {
	defer close(l.done)
	defer func() {
		if p := recover(); p != nil { // beyond the reach of who guards the stage
			l.record, l.addrs, l.names, l.void, l.err = nil, nil, nil, false, fmt.Errorf("panic: %v", p)
		}
	}()
	switch q.ask {
	case askPolicy:
		l.policy(s, q.name)
	case askAddr:
		l.addrs, l.err = s.addrs(q.name, s.client.Is4())
		l.answers, l.void = len(l.addrs), l.err == nil && len(l.addrs) == 0 && askable(q.name)
	case askExists:
		l.addrs, l.err = s.addrs(q.name, true)
		l.answers, l.void = len(l.addrs), l.err == nil && len(l.addrs) == 0 && askable(q.name)
	case askMX:
		l.hosts(s, q.name)
	case askPTR:
		l.validated(s)
	case askExplain:
		l.explanation(s, q.name)
	}
}

// notFound reports whether there is no such name or record; any other error leaves the question open.
func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

func (l *lookup) policy(s *lookups, domain string) {
	texts, err := s.resolver.LookupTXT(s.ctx, domain)
	l.answers = len(texts)
	if notFound(err) {
		l.void = true
		return
	}
	if err != nil {
		l.err = fmt.Errorf("look up the record of %s: %w", domain, err)
		return
	}
	found := 0
	for _, t := range texts {
		if isRecord(t) {
			l.text = t
			found++
		}
	}
	switch {
	case found > 1:
		l.err = permanent{fmt.Errorf("%s has %d records", domain, found)} // RFC 7208, 4.5
	case found == 1:
		if l.record, err = parse(l.text); err != nil {
			l.err = permanent{fmt.Errorf("record of %s: %w", domain, err)}
		}
	}
}

// addrs returns addresses of one family, none for a name that cannot be asked for.
func (s *lookups) addrs(name string, four bool) ([]netip.Addr, error) {
	if !askable(name) {
		return nil, nil
	}
	find := s.resolver.LookupAAAA
	if four {
		find = s.resolver.LookupA
	}
	found, err := find(s.ctx, name)
	switch {
	case notFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up the addresses of %s: %w", name, err)
	}
	return found, nil
}

// each calls f for all indices below n at once, and returns when all calls have.
func each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// hosts asks for MX records and the addresses of their hosts: RFC 7208, 5.4. One address that matches is enough, so an
// error of another host is told beside the addresses.
func (l *lookup) hosts(s *lookups, name string) {
	if !askable(name) {
		return
	}
	list, err := s.resolver.LookupMX(s.ctx, name)
	if err != nil && !notFound(err) {
		l.err = fmt.Errorf("look up the mail exchangers of %s: %w", name, err)
		return
	}
	l.answers, l.void = len(list), len(list) == 0
	if len(list) > s.limits.Names {
		l.err = permanent{fmt.Errorf("%s has more than %d mail exchangers", name, s.limits.Names)} // RFC 7208, 4.6.4
		return
	}
	found, failed := make([][]netip.Addr, len(list)), make([]error, len(list))
	each(len(list), func(i int) { found[i], failed[i] = s.addrs(strings.TrimSuffix(list[i].Host, "."), s.client.Is4()) })
	for i := range list {
		l.addrs = append(l.addrs, found[i]...)
		if l.err == nil {
			l.err = failed[i]
		}
	}
	l.answers += len(l.addrs)
}

// validated asks for the client's names and keeps those that lead back to it: RFC 7208, 5.5. Errors are names that do
// not, for the client's own zone must not decide what others' policies come to.
func (l *lookup) validated(s *lookups) {
	names, err := s.resolver.LookupPTR(s.ctx, s.client)
	if err != nil {
		l.void = notFound(err)
		return
	}
	l.answers, l.void = len(names), len(names) == 0
	names = names[:min(len(names), s.limits.Names)] // RFC 7208, 4.6.4: the others are ignored
	found := make([][]netip.Addr, len(names))
	each(len(names), func(i int) {
		found[i], _ = s.addrs(strings.TrimSuffix(names[i], "."), s.client.Is4())
	})
	for i, name := range names {
		l.answers += len(found[i])
		for _, a := range found[i] {
			if a.Unmap() == s.client {
				l.names = append(l.names, strings.TrimSuffix(name, "."))
				break
			}
		}
	}
}

// explanation asks for the one text that explains (RFC 7208, 6.2); whatever is wrong with it, there is none.
func (l *lookup) explanation(s *lookups, name string) {
	if !askable(name) {
		return
	}
	texts, err := s.resolver.LookupTXT(s.ctx, name)
	if err != nil || len(texts) != 1 {
		return
	}
	for i := range len(texts[0]) {
		if c := texts[0][i]; c < ' ' || c > '~' {
			return
		}
	}
	l.text = texts[0]
}
