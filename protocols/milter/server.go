// Package milter is the door for an MTA that holds the client itself and asks us: Postfix or Sendmail with a milter
// socket. It drives a [pipeline.Session] with what the MTA reports, and answers with what was decided.
//
// go-milter decodes and encodes packets. What it does not do, or does in a way that would lose mail or the client's
// identity, is in wire.go: one connection, one go-milter server, one state of ours that lives as long as the connection.
package milter

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/spool"
)

// Config is what the door is given. Plan is required, and Quarantine where the plan can quarantine or refuse.
type Config struct {
	Plan       func() *pipeline.Plan // the plan of now; a connection stays with the one it began on
	Quarantine mailstore.Quarantine
	Handover   pipeline.Handover
	// Recall finds the record of a mail that carries our mark; nil, or no record, is that there is none.
	Recall   func(ctx context.Context, id string) (*pipeline.Record, error)
	Hostname string                // ours, in trace fields of mail that is held
	Trusted  func(netip.Addr) bool // nil trusts nobody
	Log      *slog.Logger          // nil is slog.Default
	Now      func() time.Time      // nil is time.Now
	Limits   Limits
	// Space says whether the disk has room for a message of so many octets (0: unknown); nil: it has.
	Space    func(size int64) error
	SpoolDir string // where large messages wait; "" is the system's folder for temporary files
}

// Limits bound what an MTA can make us hold. A field that is zero has its default.
type Limits struct {
	// Octets of a message. A larger one is refused with 552.
	MessageSize int64 `yaml:"message_size"`
	// Octets of a header section. A larger one is refused with 552.
	HeaderSize int64 `yaml:"header_size"`
	// Fields of a header section. More are refused with 552.
	HeaderFields int `yaml:"header_fields"`
	// Recipients of a message. Further ones get 452.
	Recipients int `yaml:"recipients"`
	// How long an MTA may say nothing. It says nothing while its client sends a long message slowly.
	Idle time.Duration `yaml:"idle"`
	// How long one packet may take to arrive or to be sent.
	Packet time.Duration `yaml:"packet"`
	// How often an MTA that waits for our decision is told that we are still at it.
	Progress time.Duration `yaml:"progress"`
}

// DefaultLimits returns the limits that stand for zero fields.
func DefaultLimits() Limits {
	return Limits{
		MessageSize:  64 << 20,
		HeaderSize:   256 << 10,
		HeaderFields: 1000,
		Recipients:   1000,
		Idle:         2 * time.Hour,
		Packet:       time.Minute,
		Progress:     10 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		MessageSize:  cmp.Or(l.MessageSize, d.MessageSize),
		HeaderSize:   cmp.Or(l.HeaderSize, d.HeaderSize),
		HeaderFields: cmp.Or(l.HeaderFields, d.HeaderFields),
		Recipients:   cmp.Or(l.Recipients, d.Recipients),
		Idle:         cmp.Or(l.Idle, d.Idle),
		Packet:       cmp.Or(l.Packet, d.Packet),
		Progress:     cmp.Or(l.Progress, d.Progress),
	}
}

// A Server answers MTAs. Make it with [New].
type Server struct {
	cfg    Config
	memory spool.Pool // of messages

	ctx    context.Context // of all decisions; ends when Shutdown gives up waiting
	cancel context.CancelFunc

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	ended     sync.WaitGroup // one for each of conns
}

// New returns a server that listens nowhere yet.
func New(cfg Config) *Server {
	if cfg.Trusted == nil {
		cfg.Trusted = func(netip.Addr) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Server{cfg: cfg, listeners: map[net.Listener]bool{}, conns: map[*conn]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers the MTAs that connect to l until l fails or [Server.Shutdown] is called, and then returns nil. It may be
// called for several listeners. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.track(l) {
		return nil
	}
	defer s.untrack(l)
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.isClosing() {
				return nil
			}
			return err
		}
		c := newConn(s, nc)
		if !s.enter(c) {
			nc.Close()
			return nil
		}
		go func() { // ends when the MTA hangs up, a deadline passes, or Shutdown closes the connection
			defer s.leave(c)
			c.serve()
		}()
	}
}

// Shutdown stops listening and closes every connection on which no message is being transferred. Those messages are
// still decided about and answered, until ctx ends: then what is left is told to come again later. It returns ctx's
// error if there was something left, and leaves no connection open.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.wire.stop()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() { // ends with the last connection
		defer close(done)
		s.ended.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cancel() // decisions under way end now, and are answered with 451
	const grace = time.Second
	select {
	case <-done:
		return ctx.Err()
	case <-time.After(grace):
	}
	s.mu.Lock()
	for c := range s.conns {
		c.wire.hangUp()
	}
	s.mu.Unlock()
	return ctx.Err()
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[l] = true
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.conns[c] = true
	s.ended.Add(1)
	return true
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.ended.Done()
}

// errOnce ends go-milter's accept loop after its one connection.
var errOnce = errors.New("one connection only")
