package sieve

import "fmt"

// An Outcome is what a run came to.
type Outcome struct {
	// Actions is what the script wants done, in order; the implicit keep, if it stands, is the last. After a failure it is
	// a keep in the inbox alone.
	Actions []Action
	// Duplicates are what was asked of [Seen] and is to be remembered once the mail is ours.
	Duplicates []Mark
	Failure    *Failure // nil: all went well
	Log        []Line   // what vnd.dovecot.debug logs
	Trace      []Line   // what happened, line by line, where it was asked for
	// Instructions is what the run cost, in the unit of [Limits.Instructions].
	Instructions int
}

// Kept reports whether the mail ends up in a folder.
func (o Outcome) Kept() bool {
	for _, a := range o.Actions {
		if a.Kind == Keep || a.Kind == FileInto {
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

// A Mark is a thing to remember: RFC 7352.
type Mark struct {
	Handle, Key string
	Within      int64 // seconds
	Last        bool  // the time begins anew with each one
}
