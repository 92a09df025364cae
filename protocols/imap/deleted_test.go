package imap

import (
	"context"
	"sync/atomic"
	"testing"

	"sluice/mailstore"
)

// leaving is a store whose accounts can go.
type leaving struct {
	mailstore.Store
	gone atomic.Bool
}

func (s *leaving) Account(ctx context.Context, name string) (mailstore.Account, error) {
	if s.gone.Load() {
		return nil, mailstore.ErrNoAccount
	}
	return s.Store.Account(ctx, name)
}

func TestADeletedAccountEndsItsSessions(t *testing.T) {
	l := &leaving{}
	s := start(t, options{store: func(m mailstore.Store) mailstore.Store { l.Store = m; return l }})
	s.deliver("", letter("one"))
	p := s.login()
	p.talk(`
		C: a NOOP
		S: a OK NOOP completed`)
	l.gone.Store(true)
	p.talk(`
		C: b SELECT INBOX
		S: * BYE this account has been deleted
		X:`)
}

func TestADeletedAccountEndsIdling(t *testing.T) {
	l := &leaving{}
	s := start(t, options{store: func(m mailstore.Store) mailstore.Store { l.Store = m; return l }})
	p := s.login()
	p.talk(`
		C: a SELECT INBOX
		S: * 0 EXISTS
		S: …
		S: …
		S: …
		S: …
		S: …
		S: a OK …
		C: b IDLE
		S: + …`)
	l.gone.Store(true)
	s.deliver("", letter("one")) // something to wake up for
	p.talk(`
		S: * BYE this account has been deleted
		X:`)
}
