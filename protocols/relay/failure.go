package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"sluice/mailstore"
)

// A failure is why a server, or all of a destination's, did not take a mail: what it answered, or what happened instead.
type failure struct {
	at    string // "greeting", "EHLO", "STARTTLS", "MAIL", …
	reply reply  // code 0: there is none
	err   error  // instead of a reply
	// permanent says that trying again does not help.
	permanent bool
	// mail says that it is about this mail, so that neither another server nor another mail is the better or worse for it.
	mail   bool
	status string // instead of the reply's own
	server *server
}

// Error says it for a person.
func (f *failure) Error() string { return f.text() }

func (f *failure) Unwrap() error { return f.err }

// text is what stands in a record: the reply as it came, else our own words.
func (f *failure) text() string {
	if f.reply.code > 0 {
		return f.reply.String()
	}
	if f.at == "" {
		return f.err.Error()
	}
	return f.at + ": " + f.err.Error()
}

// outcome returns what becomes of recipients.
func (f *failure) outcome() mailstore.AttemptOutcome {
	if f.permanent {
		return mailstore.Failed
	}
	return mailstore.Postponed
}

func (f *failure) code() string {
	class := "4"
	if f.permanent {
		class = "5"
	}
	if s := cmp.Or(f.status, f.reply.status()); s != "" {
		return class + s[1:] // what is for good to a server may not be to us
	}
	return class + ".0.0"
}

// said makes a failure of a reply to a command: a refusal of this mail.
func said(at string, r reply) *failure {
	return &failure{at: at, reply: r, permanent: r.class() == 5, mail: true}
}

// unasked makes a failure of what kept us from asking.
func unasked(at, status string, err error) *failure {
	return &failure{at: at, status: status, err: err}
}

// plainly returns an error of the network in few words, without addresses: they stand beside it.
func plainly(err error, within time.Duration) error {
	var op *net.OpError
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fmt.Errorf("no answer within %v", within)
	case errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errHangUp
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &op):
		return op.Err
	case err != nil && strings.HasSuffix(err.Error(), "EOF"):
		return errHangUp
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// errHangUp says that a server has closed the connection.
var errHangUp = errors.New("the server hung up")
