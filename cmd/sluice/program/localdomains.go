package program

import (
	"sync"
	"time"
)

// localDomains remembers for a moment which domains are ours: the relay asks about each that mail waits for, again and
// again, and the accounts are asked in a database.
type localDomains struct {
	ask func(domain string) bool
	now func() time.Time

	mu    sync.Mutex
	known map[string]bool
	since time.Time
}

const (
	localFor  = 5 * time.Second // how long an account that is made may take to count
	mostLocal = 20_000
)

func (l *localDomains) is(domain string) bool {
	now := l.now()
	l.mu.Lock()
	if age := now.Sub(l.since); age < 0 || age > localFor || len(l.known) >= mostLocal {
		l.known, l.since = map[string]bool{}, now
	}
	ours, ok := l.known[domain]
	l.mu.Unlock()
	if ok {
		return ours
	}
	ours = l.ask(domain)
	l.mu.Lock()
	l.known[domain] = ours
	l.mu.Unlock()
	return ours
}
