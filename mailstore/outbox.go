package mailstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrQueueFull says that the outbox takes no more for now: its limit of messages or octets is reached.
var ErrQueueFull = errors.New("the queue is full")

// An Outbox takes mail that is to leave this machine, or to come back to it by way of its own doors, and keeps trying.
type Outbox interface {
	// Stage keeps messages, all or none, and returns once they would survive a power cut. Nobody tries to deliver them
	// before [Staged.Release]. What is staged when the program ends was never ours: it is forgotten at the next start.
	Stage(ctx context.Context, list []Outgoing) (Staged, error)
}

// Staged is mail in an outbox that does not leave yet: whoever staged it has other things to make durable first. One of
// its methods is called, once.
type Staged interface {
	// IDs are the names of the messages in the queue, in the order they were staged.
	IDs() []string
	// Release lets the messages leave and returns once that would survive a power cut. After an error none has left.
	Release(ctx context.Context) error
	// Withdraw forgets them.
	Withdraw() error
}

// An Outgoing is one message that is to leave.
type Outgoing struct {
	ID      string // of the transaction it comes from, for the record; "" is none
	Account string // of ours, on whose behalf it leaves; "" is the system's own
	// Why says to an operator what sends it: "submission", "redirect by line 14 of work.sieve", "vacation", "delivery report".
	Why        string
	Sender     string // the envelope's, where reports about it go; "" is the null sender
	EnvelopeID string // RFC 3461, 4.4: ENVID, decoded
	// Return says how much of the message a failure report brings back: "full", "hdrs" or "".
	Return     string
	UTF8       bool // RFC 6531: it needs SMTPUTF8
	EightBit   bool // RFC 6152: its body has octets over 127
	Recipients []OutgoingRecipient
	// Forwarded says that it is somebody else's mail, handed on: the sender of its envelope is rewritten so that reports
	// come back by way of us, and the message is sealed (RFC 8617).
	Forwarded bool
	// Results says, for the seal, what the mail's authentication came to when it arrived: the body of an
	// Authentication-Results field without our name, "spf=pass smtp.mailfrom=…; arc=none"; "" is not known.
	Results string
	// NotBefore is when it may leave at the earliest; the zero time is at once.
	NotBefore time.Time
	// Hold says why it is held until somebody releases it; "" is not at all.
	Hold    string
	Content io.Reader // the whole message, line ends CRLF; read once
}

// An OutgoingRecipient is one recipient of a message that is to leave.
type OutgoingRecipient struct {
	Address  string
	Notify   []string // RFC 3461, 4.1: "never", or any of "success", "failure", "delay"; nil is failure and delay
	Original string   // RFC 3461, 4.2: ORCPT, decoded, "rfc822;me@example.org"; "" is none
}
