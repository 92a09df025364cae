package sieve

import (
	"strings"
	"sync"
)

// A pending is replies that mails under way will have sent, but that nothing remembers yet. Of two mails of one sender at
// a time only one is answered: RFC 5230, 4.2. The zero value is empty.
type pending struct {
	mu sync.Mutex
	by map[string]*claim
}

// A claim is one transaction's on a reply, of one or more of its recipients.
type claim struct {
	transaction string
	times       int
}

// claim reports whether a transaction may have a reply sent, which none that is under way has claimed. Whoever claims drops.
func (p *pending) claim(key, transaction string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.by[key]
	if c == nil {
		if p.by == nil {
			p.by = map[string]*claim{}
		}
		c = &claim{transaction: transaction}
		p.by[key] = c
	}
	if c.transaction != transaction {
		return false
	}
	c.times++
	return true
}

// drop ends a claim.
func (p *pending) drop(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.by[key]; c != nil {
		if c.times--; c.times <= 0 {
			delete(p.by, key)
		}
	}
}

// claims says of which marks one mail at a time may count on leaving them. A mail that is called a duplicate of one that is
// then refused could be lost, so duplicates are not among them.
func claims(mark string) bool { return strings.HasPrefix(mark, "vacation:") }
