package clamav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	clamd "github.com/dutchcoders/go-clamd"
)

// maxAnswer is how many octets of an answer of clamd are read: it is one line, of some 60.
const maxAnswer = 4 << 10

// through runs one command of go-clamd over a connection of ours, and returns how many octets of it were written there.
//
// go-clamd dials by itself, knows no deadlines, ignores what goes wrong while it writes, and takes a connection that
// breaks for the end of an answer. So it is sent to a private socket whose other end is here: what it says there goes
// on to conn and is counted, the answer comes back within a limit, and when ctx ends everything is closed under it.
// All of it has ended, and conn is closed, when through returns.
func through(ctx context.Context, conn net.Conn, use func(*clamd.Clamd) error) (sent int64, err error) {
	defer conn.Close()
	dir, err := os.MkdirTemp("", "sluice-clamd-") // nobody else may enter it
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	r := &relay{conn: conn, listener: l}
	defer context.AfterFunc(ctx, r.cut)()
	var ended sync.WaitGroup
	ended.Go(r.run)
	err = use(clamd.NewClamd(path))
	r.cut()
	ended.Wait()
	switch {
	case ctx.Err() != nil:
		return r.sent, context.Cause(ctx)
	case r.tooMuch:
		return r.sent, fmt.Errorf("the answer is longer than %d octets", maxAnswer)
	case r.answerErr != nil:
		return r.sent, fmt.Errorf("read the answer: %w", r.answerErr)
	}
	return r.sent, err
}

// A relay carries what go-clamd says to clamd, and back what clamd answers.
type relay struct {
	conn     net.Conn // to clamd
	listener *net.UnixListener

	mu    sync.Mutex
	inner *net.UnixConn // go-clamd is at its other end
	gone  bool          // cut

	// Once run has returned:
	sent      int64
	answerErr error
	tooMuch   bool
}

// cut ends everything at once.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	_ = r.listener.Close()
	_ = r.conn.Close()
	if r.inner != nil {
		_ = r.inner.Close()
	}
}

func (r *relay) run() {
	inner, err := r.listener.AcceptUnix()
	if err != nil {
		return // cut before go-clamd came
	}
	defer inner.Close()
	r.mu.Lock()
	r.inner = inner
	gone := r.gone
	r.mu.Unlock()
	if gone {
		return
	}
	var up sync.WaitGroup // has ended when run returns
	up.Go(func() {
		sent, err := io.Copy(r.conn, inner)
		r.sent = sent
		if err != nil {
			// go-clamd does not notice, and goes on: so does this, that clamd's last words may still be read.
			_, _ = io.Copy(io.Discard, inner)
		}
	})
	n, err := io.Copy(inner, io.LimitReader(r.conn, maxAnswer))
	if n == maxAnswer {
		r.tooMuch = true
		r.cut()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		r.answerErr = err
	}
	_ = inner.CloseWrite() // the end of the answer
	up.Wait()
}
