package sieve

import (
	"context"
	"io"
	"time"

	"sluice/pipeline/mime"
)

// An Input is everything that a run is told. The zero value of each field can be used: nothing is known then, and the
// Message of the zero Input is an empty one.
type Input struct {
	Message  *mime.Message
	Now      time.Time // the clock of the script; the zero time is 1 January 1970
	Envelope Envelope
	Account  string   // whose script it is
	Own      []string // the addresses that lead to the account (RFC 5230, 4.5)
	// Environment has what RFC 5183 and those after it name: "domain", "host", "location", "phase", "name", "version",
	// "remote-host", "remote-ip", and "imap.…"; with vnd.dovecot.environment also "vnd.dovecot.…". Names in lower case.
	Environment map[string]string
	Mailboxes   Mailboxes // nil: INBOX alone
	Seen        Seen      // nil: nothing was seen before
	Lists       Lists     // nil: there are none
	Spam        Score     // RFC 5235: spamtest
	Virus       Score     // RFC 5235: virustest
	Programs    Runner    // nil: filter and execute fail
	Flags       []string  // of the message that an IMAP event is about (RFC 6785), else nil
	Trace       bool      // Outcome.Trace is wanted
}

// An Envelope is what SMTP said, addresses without angle brackets.
type Envelope struct {
	From       string // "" is the null sender
	To         string
	OriginalTo string // RFC 6009 and vnd.dovecot: what the sender wrote before aliases
	Auth       string // RFC 5228, 5.4 leaves "auth" to RFC 4954: who logged in
	// Unknown says that there is none, as in an IMAP event.
	Unknown bool
}

// Mailboxes tells of the account's folders. Names are as scripts write them: UTF-8, "/" between levels.
type Mailboxes interface {
	// Exists reports whether a folder is there and mail can be filed into it (RFC 5490, 3.1).
	Exists(name string) bool
	// ByID returns the folder with an identity (RFC 9042).
	ByID(id string) (name string, ok bool)
	// BySpecialUse returns the folder with a use, "\Junk" (RFC 8579).
	BySpecialUse(use string) (name string, ok bool)
	// Metadata returns an annotation of a folder, of the server for "" (RFC 5490, 3.3 and 4.1).
	Metadata(name, annotation string) (value string, ok bool)
}

// Seen tells what was seen and sent before. It is asked while the script runs and changes nothing: what is new is for
// whoever carries the outcome out to keep, once the mail is ours.
type Seen interface {
	// Before reports whether a mark with this key was left for the account within the time.
	Before(key string, within time.Duration) bool
}

// Lists tells who is on external lists (RFC 6134).
type Lists interface {
	// Known reports whether there is a list of this name, "tag:example.org,2026:family" or as the site names it.
	Known(list string) bool
	// Has reports whether an address or another value is on a list.
	Has(list, value string) bool
	// Members returns the addresses on a list, for redirect; ok is false where they cannot be told.
	Members(list string) (addresses []string, ok bool)
}

// A Runner runs programs that the site lists, for filter and execute. What a program may do, how long it may take and
// how much it may write is its business.
type Runner interface {
	// Run runs a program and returns what it writes. An error is for the trace and the log of the account: the program is
	// not there, ended badly, took too long, wrote too much.
	Run(ctx context.Context, p Program) (output []byte, err error)
}

// A Program is one call of a program.
type Program struct {
	Use       string // "pipe", "filter" or "execute"
	Name      string // as the site lists it
	Arguments []string
	Input     io.Reader // nil: nothing
	Envelope  Envelope
	Account   string
}

// A Score is what a scanner made of a mail, as RFC 5235 wants it.
type Score struct {
	Known bool
	// Value is 1 (clearly none) to 10 for spamtest, 1 to 5 for virustest; 0 is not tested.
	Value int
	// Percent is for spamtest :percent, 0 to 100.
	Percent int
	// Text is what the scanner itself says, for the trace.
	Text string
}
