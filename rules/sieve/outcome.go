package sieve

import (
	"fmt"
	"time"
)

// An Outcome is what a run came to.
type Outcome struct {
	// Actions is what the script wants done, in order; the implicit keep, if it stands, is the last. After a failure it is
	// a keep in the inbox alone.
	Actions []Action
	// Marks are what [Seen] is to remember once the mail is ours: what came before, and who had a reply.
	Marks []Mark
	// Notes say what was asked for and is not done, and why: "no reply: the mail is from a list".
	Notes   []Line
	Failure *Failure // nil: all went well
	Log     []Line   // what vnd.dovecot.debug logs
	Trace   []Line   // what happened, line by line, where it was asked for
	// Instructions is what the run cost, in the unit of [Limits.Instructions].
	Instructions int
}

// Kept reports whether the mail ends up in a folder.
func (o Outcome) Kept() bool {
	for _, a := range o.Actions {
		if a.Kind == Keep || a.Kind == FileInto && a.Content == nil {
			return true
		}
	}
	return false
}

// A Failure says why a script did not run to its end.
type Failure struct {
	Script string `json:"script"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
}

func (f *Failure) Error() string { return fmt.Sprintf("%s:%d: %s", f.Script, f.Line, f.Text) }

// A Line is one line of a log or a trace.
type Line struct {
	Script string `json:"script"`
	Line   int    `json:"line"`
	Depth  int    `json:"-"` // of blocks, for indentation
	Text   string `json:"text"`
}

// A Mark is a thing to remember, so that [Seen] knows of it the next time.
type Mark struct {
	Key    string        // of the account's: what kind of thing, and which
	Within time.Duration // how long
	// Last says that the time begins anew with each one (RFC 7352, 3); otherwise it runs from the first.
	Last bool
}
