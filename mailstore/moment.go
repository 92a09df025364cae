package mailstore

import (
	"context"
	"slices"
	"sync"
)

// AtOneMoment returns a context for several questions that belong to one command: their answers may all be as of the
// moment of the first. What another process changes meanwhile need not count before the next command.
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
	looked []any
}

// Looked says that who, a pointer, has looked.
func (m *Moment) Looked(who any) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.looked, who) {
		m.looked = append(m.looked, who)
	}
}

// HasLooked reports whether who has looked.
func (m *Moment) HasLooked(who any) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.looked, who)
}
