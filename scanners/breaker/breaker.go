// Package breaker stops asking a peer that does not answer, until one question shows that it does again.
package breaker

import (
	"fmt"
	"sync"
	"time"
)

// Config says when a peer counts as dead. Fields that are zero stand for those of DefaultConfig.
type Config struct {
	// Failures is how many questions in a row must fail before the peer is not asked any more.
	Failures int `yaml:"failures"`
	// Pause is how long it is not asked then; each time it fails again the pause doubles, up to ten times this.
	Pause time.Duration `yaml:"pause"`
}

// DefaultConfig is five failures in a row, and ten seconds.
func DefaultConfig() Config { return Config{Failures: 5, Pause: 10 * time.Second} }

// A Breaker watches one peer. It is safe for concurrent use.
type Breaker struct {
	config Config
	now    func() time.Time

	mu     sync.Mutex
	failed int           // in a row
	why    error         // the last failure
	until  time.Time     // not asked before
	pause  time.Duration // the next one
	trying bool          // one question is under way to see whether the peer is back
}

// New returns a closed breaker: the peer is asked.
func New(c Config, now func() time.Time) *Breaker {
	d := DefaultConfig()
	if c.Failures <= 0 {
		c.Failures = d.Failures
	}
	if c.Pause <= 0 {
		c.Pause = d.Pause
	}
	return &Breaker{config: c, now: now, pause: c.Pause}
}

// An OpenError says that a peer was not asked, and why.
type OpenError struct {
	Until time.Time // when it is asked again
	Last  error     // what went wrong last
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("not asked until %s, it failed too often: %v", e.Until.UTC().Format(time.TimeOnly), e.Last)
}

// Unwrap returns what went wrong last.
func (e *OpenError) Unwrap() error { return e.Last }

// Allow returns nil if the peer may be asked now; the caller then says with Done how it went, exactly once. While the
// breaker is open it returns an *OpenError. After a pause one caller alone may ask.
func (b *Breaker) Allow() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < b.config.Failures {
		return nil
	}
	if b.trying || b.now().Before(b.until) {
		return &OpenError{Until: b.until, Last: b.why}
	}
	b.trying = true
	return nil
}

// Done says how a question went that Allow let pass. nil closes the breaker.
func (b *Breaker) Done(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tried := b.trying
	b.trying = false
	if err == nil {
		b.failed, b.why, b.pause = 0, nil, b.config.Pause
		return
	}
	b.failed++
	b.why = err
	if b.failed < b.config.Failures {
		return
	}
	if !tried && b.now().Before(b.until) {
		return // one that was under way when the breaker opened
	}
	b.until = b.now().Add(b.pause)
	b.pause = min(2*b.pause, 10*b.config.Pause)
}

// Cancelled says that a question which Allow let pass was given up by the caller: it tells nothing of the peer.
func (b *Breaker) Cancelled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}
