package mailstore

import (
	"context"
	"errors"
	"time"
)

// Errors about scripts that callers branch on.
var (
	ErrNoScript       = errors.New("no such script")
	ErrActive         = errors.New("the script is active")          // and so cannot be deleted
	ErrTooManyScripts = errors.New("too many scripts")              // RFC 5804, 1.3: QUOTA/MAXSCRIPTS
	ErrScriptSize     = errors.New("the script is too large")       // QUOTA/MAXSIZE
	ErrScriptName     = errors.New("not a usable name of a script") // RFC 5804, 1.6
)

// Scripts keeps the Sieve scripts of accounts. It knows nothing of Sieve: what is put into it has been checked. Its
// methods may be called by any number of goroutines.
type Scripts interface {
	// List returns an account's scripts by name.
	List(ctx context.Context, account string) ([]ScriptInfo, error)
	// Script returns the text of a script; ErrNoScript.
	Script(ctx context.Context, account, name string) ([]byte, error)
	// Active returns name and text of the active script; ErrNoScript if none is. version is the same as long as the text is.
	// have is the version that the caller has the text of, or "": of that one the text is left out, and looking is cheap.
	Active(ctx context.Context, account, have string) (name string, text []byte, version string, err error)
	// Put keeps a script under a name, in place of one of the same name, and returns once it would survive a power cut.
	// An active one stays active. After an error it is the one before or, where it was the disk that failed, this one; never
	// a part of one.
	Put(ctx context.Context, account, name string, text []byte) error
	// Room reports whether Put would find room for a script of size octets under a name: nil or ErrTooManyScripts,
	// ErrScriptSize, ErrQuota.
	Room(ctx context.Context, account, name string, size int64) error
	// Activate makes a script the active one; "" none. At every moment the one before or this one is. ErrNoScript.
	Activate(ctx context.Context, account, name string) error
	// Delete removes a script that is not active; ErrActive, ErrNoScript.
	Delete(ctx context.Context, account, name string) error
	// Rename gives a script another name; an active one stays active. ErrNoScript, ErrExists.
	Rename(ctx context.Context, account, from, to string) error
}

// A ScriptInfo describes a script.
type ScriptInfo struct {
	Name    string
	Active  bool
	Size    int64
	Changed time.Time
}

// A ScriptProblem is what went wrong when a script ran.
type ScriptProblem struct {
	Time   time.Time `json:"time"`
	Script string    `json:"script"` // its name, as the account's owner knows it
	Line   int       `json:"line,omitempty"`
	Column int       `json:"column,omitempty"`
	Text   string    `json:"text"` // for the owner: one line
	// ID is the transaction's, under which its record is found; MessageID is that of the mail. Both may be "".
	ID        string `json:"id,omitempty"`
	MessageID string `json:"message_id,omitempty"`
}

// A ScriptLog keeps for each account what went wrong when its scripts ran. What it keeps is bounded in size and age: the
// oldest makes room. Its methods may be called by any number of goroutines.
type ScriptLog interface {
	// Note keeps a problem. tell lets the owner know; it is called, before Note returns, unless it was called for the same
	// script, line and text within a day before, or too often for others. One that fails is called again for the next such
	// problem. nil is nobody.
	Note(ctx context.Context, account string, p ScriptProblem, tell func(context.Context) error) error
	// Problems returns what is kept, the oldest first.
	Problems(ctx context.Context, account string) ([]ScriptProblem, error)
}
