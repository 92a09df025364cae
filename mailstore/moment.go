package mailstore

import (
	"context"
	"slices"
	"sync"
	"time"
)

// momentLasts is how long answers may be as of the first.
const momentLasts = time.Second

// AtOneMoment returns a context for several questions that belong to one command: their answers may all be as of the
// moment of the first, for a second. What another process changes meanwhile need not count before the next command.
func AtOneMoment(ctx context.Context) context.Context {
	return context.WithValue(ctx, momentKey{}, new(Moment))
}

type momentKey struct{}

// MomentOf returns the moment that ctx is of; nil: there is none, and every question has its own.
func MomentOf(ctx context.Context) *Moment {
	m, _ := ctx.Value(momentKey{}).(*Moment)
	return m
}

// A Moment remembers who has looked at what they keep since it began. Its methods may be called by any number of
// goroutines; nil is a Moment in which nobody ever has.
type Moment struct {
	mu     sync.Mutex
	looked []look
}

type look struct {
	who any
	at  time.Time
}

// Looked says that who, a pointer, has looked.
func (m *Moment) Looked(who any) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looked = slices.DeleteFunc(m.looked, func(l look) bool { return l.who == who })
	m.looked = append(m.looked, look{who, time.Now()})
}

// HasLooked reports whether who has looked, at most a second ago.
func (m *Moment) HasLooked(who any) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.looked, func(l look) bool { return l.who == who && time.Since(l.at) < momentLasts })
}
