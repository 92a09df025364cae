package mailstore

import (
	"context"
	"net/netip"
	"time"
)

// Submitters know what accounts may send: under which addresses, and how much.
type Submitters interface {
	// Owns reports whether local@domain may stand as a sender or an author in mail of an account. Parts are given as
	// sluice/pipeline/mime normalises them.
	Owns(ctx context.Context, account, local, domain string) (bool, error)
	// Addresses returns the addresses that an account may send under, for people: its own first; "@example.org" is all of
	// a domain.
	Addresses(ctx context.Context, account string) ([]string, error)
	// Blocked returns why an account may send nothing at all, "" if it may.
	Blocked(ctx context.Context, account string) (why string, err error)
	// Reserve counts a message against the limits of its account, before it is taken, and says when it may leave. It
	// returns once that would survive a power cut.
	Reserve(ctx context.Context, s Sending) (Pace, error)
	// Cancel takes a message out of the count: it was not taken.
	Cancel(ctx context.Context, s Sending) error
	// Failed counts recipients that there were not, or that nobody could deliver to.
	Failed(ctx context.Context, s Sending) error
}

// A Sending is one message that an account hands in.
type Sending struct {
	Account    string
	ID         string     // of the transaction: its record shows why
	Client     netip.Addr // who hands it in; the zero Addr is not known
	Recipients []string
}

// A Pace says when a message may leave. The zero Pace: at once.
type Pace struct {
	NotBefore time.Time // at the earliest
	Hold      string    // why it is held until an administrator lets it go, "" if it is not
	Why       string    // of NotBefore, for an operator
}
