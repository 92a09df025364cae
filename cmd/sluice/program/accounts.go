package program

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"sluice/mailstore"
	"sluice/mailstore/users"
)

var (
	_ mailstore.Directory = (*accounts)(nil)
	_ mailstore.Keyring   = (*accounts)(nil)
)

// accounts are the users as the configuration of now has them. A reload replaces them while others ask.
type accounts struct {
	log *slog.Logger

	mu  sync.Mutex
	now *opened // nil when closed
}

// opened are users that are closed once they have been replaced and nobody asks them any more.
type opened struct {
	*users.Users
	calls int
}

// replace closes what was there before when the last call to it has returned. nil closes for good.
func (a *accounts) replace(next *users.Users) {
	a.mu.Lock()
	before := a.now
	a.now = nil
	if next != nil {
		a.now = &opened{Users: next}
	}
	idle := before != nil && before.calls == 0
	a.mu.Unlock()
	if idle {
		a.close(before)
	}
}

func (a *accounts) close(x *opened) {
	if err := x.Close(); err != nil {
		a.log.Warn("close the accounts", "err", err)
	}
}

func (a *accounts) done(x *opened) {
	a.mu.Lock()
	x.calls--
	idle := x != a.now && x.calls == 0
	a.mu.Unlock()
	if idle {
		a.close(x)
	}
}

// askAccounts calls f with the users of now.
func askAccounts[T any](a *accounts, f func(*users.Users) (T, error)) (none T, err error) {
	a.mu.Lock()
	x := a.now
	if x != nil {
		x.calls++
	}
	a.mu.Unlock()
	if x == nil {
		return none, errors.New("the accounts are closed")
	}
	defer a.done(x)
	return f(x.Users)
}

// operator returns who is told what goes wrong with an account.
func (a *accounts) operator(ctx context.Context, account string) ([]string, error) {
	return askAccounts(a, func(u *users.Users) ([]string, error) { return u.Operator(ctx, account) })
}

// Resolve implements mailstore.Directory.
func (a *accounts) Resolve(ctx context.Context, local, domain string) ([]string, error) {
	return askAccounts(a, func(u *users.Users) ([]string, error) { return u.Resolve(ctx, local, domain) })
}

// Authenticate implements mailstore.Directory.
func (a *accounts) Authenticate(ctx context.Context, login, password string) (string, error) {
	return askAccounts(a, func(u *users.Users) (string, error) { return u.Authenticate(ctx, login, password) })
}

// Mechanisms implements mailstore.Keyring.
func (a *accounts) Mechanisms(ctx context.Context) ([]string, error) {
	return askAccounts(a, func(u *users.Users) ([]string, error) { return u.Mechanisms(ctx) })
}

// Keys implements mailstore.Keyring.
func (a *accounts) Keys(ctx context.Context, login, mechanism string) (account string, k mailstore.Keys, err error) {
	k, err = askAccounts(a, func(u *users.Users) (k mailstore.Keys, err error) {
		account, k, err = u.Keys(ctx, login, mechanism)
		return k, err
	})
	return account, k, err
}

func (a *accounts) exists(ctx context.Context, account string) (bool, error) {
	return askAccounts(a, func(u *users.Users) (bool, error) { return u.Exists(ctx, account) })
}

func (a *accounts) quota(ctx context.Context, account string) (int64, error) {
	return askAccounts(a, func(u *users.Users) (int64, error) { return u.Quota(ctx, account) })
}
