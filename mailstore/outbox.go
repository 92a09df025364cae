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

// A Queue is the other side of an outbox: whoever brings mail to where it goes takes it here and says what became of it.
// One process works on a queue; what it has taken it remembers in memory alone, so a crash gives everything back. Mail is
// sent twice at most where the program ends between the peer's answer to the end of data and the return of Settle.
//
// Methods may be called by any number of goroutines.
type Queue interface {
	// Take gives out at most n jobs that are due, those due longest first. Before each, admit is asked about its
	// domain: true, and the job is given; false, and neither it nor another of this domain is given in this call, which
	// costs one question however many wait. A job that was given is not given again before it is settled. next is when
	// another job will be due; the zero time if none is known of. A job that is due and was not admitted makes no next:
	// ask again when there is room for it.
	Take(ctx context.Context, n int, admit func(domain string) bool) (jobs []Job, next time.Time, err error)
	// Content opens the message of a job. It has CRLF line ends, as it was staged. ErrNoMessage if its file is gone: the job
	// has failed then.
	Content(ctx context.Context, message string) (Content, error)
	// Settle says what became of jobs, gives them back, and returns once that would survive a power cut. Calls at the same
	// time are written together. After an error the jobs are still out: try again.
	Settle(ctx context.Context, attempts []Attempt) error
	// Wake gets a value whenever something may be due before the time that Take has named. There is one channel.
	Wake() <-chan struct{}
}

// A Job is one message for recipients of one domain.
type Job struct {
	Message string // its name in the queue
	// Domain is where it goes: in lower case, without a final dot, not in A-labels unless the address was; "[192.0.2.1]" is
	// an address literal.
	Domain string

	ID         string // of the transaction it comes from
	Account    string // of ours, on whose behalf it leaves; "" is the system's own
	Why        string
	Sender     string // "" is the null sender
	EnvelopeID string // ENVID, decoded
	Return     string // "full", "hdrs" or ""
	UTF8       bool
	EightBit   bool
	Forwarded  bool  // it is somebody else's mail, which the account hands on
	Size       int64 // octets of the content
	Queued     time.Time

	Recipients []JobRecipient
}

// A JobRecipient is one recipient of a job.
type JobRecipient struct {
	Number int // within its message, to be named in the result
	OutgoingRecipient
	Attempts int // that came before
}

// An Attempt is what became of a job.
type Attempt struct {
	Message string
	Domain  string
	// Results has one for each recipient of the job. One that is missing is Untried.
	Results []AttemptResult
}

// An AttemptResult is what became of one recipient.
type AttemptResult struct {
	Recipient int // its Number
	Outcome   AttemptOutcome
	// Host is the server that answered, for people: "mx.example.org [192.0.2.1]:25"; "" if none did.
	Host string
	// Reply is what it answered, its lines joined by LF: "550 5.1.1 no such user". Where no server has answered, it says
	// why in our own words, without a code: "no answer within 5m0s".
	Reply string
	// Status is the enhanced code of RFC 3463, the server's own or ours: "5.1.1"; "" is 5.0.0 or 4.0.0.
	Status string
	// How it went, for an operator: "TLS 1.3, verified by DANE"; "" where nothing went.
	How string
	// Next is when a postponed recipient is to be tried again; the zero time leaves that to the queue.
	Next time.Time
}

// An AttemptOutcome is what became of a recipient.
type AttemptOutcome uint8

const (
	Untried   AttemptOutcome = iota // given back: due at once, or at Next, and no attempt is counted
	Delivered                       // it is where its reader finds it: an LMTP server has taken it
	Relayed                         // a server has taken it that reports nothing about success
	Passed                          // a server has taken it with all that its sender asked for about reports (RFC 3461)
	Postponed                       // 4yz, or no answer: it is tried again, until the mail is too old
	Failed                          // 5yz: never again
)

// String returns the outcome in a word.
func (o AttemptOutcome) String() string {
	words := [...]string{"untried", "delivered", "relayed", "passed on", "postponed", "failed"}
	if int(o) >= len(words) {
		return "unknown"
	}
	return words[o]
}
