package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of reads that a protocol may answer.
var (
	// ErrShutdown: the program is ending and has waited long enough for this connection.
	ErrShutdown = errors.New("the server is shutting down")
	// ErrLineTooLong: a line exceeds the length given to [Conn.LimitLine].
	ErrLineTooLong = errors.New("line too long")
	// ErrPlaintext: octets followed STARTTLS without waiting for its answer (RFC 3207, 4; CVE-2011-0411).
	ErrPlaintext = errors.New("the client sent more before TLS began")
)

// goodbyeTimeout bounds what is written to a connection that is being closed.
const goodbyeTimeout = time.Second

// A Conn is one connection. Deadlines that a library sets on it are ignored: each read and each write has one of its
// own, as the limits say. The first error of a read is final: every later read returns it too, so that nothing that
// arrives after a timeout can be taken for something else.
//
// One goroutine reads; any number may write.
type Conn struct {
	sock    *socket
	opts    Options
	from    arrival
	trusted bool
	ctx     context.Context
	cut     context.CancelCauseFunc
	closed  func() // once, when the connection has been closed
	once    sync.Once

	transport atomic.Pointer[transport]
	writing   sync.Mutex // held for each write, so that a goodbye comes between two of them

	readErr error // of the reading goroutine
	line    int   // octets since the last line end
	limit   atomic.Int64

	mu       sync.Mutex
	busy     bool
	draining bool // the listener is shutting down
	gone     bool // Goodbye has been said; nothing is written any more
}

// transport is what octets go through: the socket, or TLS over it.
type transport struct {
	net.Conn
	tls        *tls.Conn // nil over cleartext
	handshake  sync.Once
	handshaken error
}

// Wrap makes a Conn of c, outside of any listener: its limits on connections do not count.
func Wrap(c net.Conn, o Options) *Conn {
	o.Limits = o.Limits.withDefaults()
	return newConn(arrived(c), o, nil)
}

func newConn(a arrival, o Options, closed func()) *Conn {
	conn := &Conn{
		sock:    &socket{Conn: a.Conn, readTimeout: o.Limits.ReadTimeout, writeTimeout: o.Limits.WriteTimeout},
		opts:    o,
		from:    a,
		trusted: a.local || a.trusted(o),
		closed:  closed,
	}
	conn.ctx, conn.cut = context.WithCancelCause(context.Background())
	conn.transport.Store(&transport{Conn: conn.sock})
	if o.implicit {
		t := tls.Server(conn.sock, o.TLS)
		conn.transport.Store(&transport{Conn: t, tls: t})
	}
	return conn
}

// Peer returns the address of the client, the zero Addr on a unix socket, and where a proxy does not know it.
func (c *Conn) Peer() netip.Addr { return c.from.peer }

// Local reports whether the client came through a unix socket.
func (c *Conn) Local() bool { return c.from.local }

// Hostname returns who this listener says we are, "" if it has no name of its own.
func (c *Conn) Hostname() string { return c.opts.hostname }

// Banner returns what this listener's greeting says after the host name, "" for what the protocol says.
func (c *Conn) Banner() string { return c.opts.banner }

// Trusted reports whether the client came through a unix socket or from a trusted network.
func (c *Conn) Trusted() bool { return c.trusted }

// Loopback reports whether nobody else can read along: a unix socket, or an address of this machine's loopback.
func (c *Conn) Loopback() bool { return c.from.local || c.from.loopback }

// Context ends when the connection has been closed or [Listener.Shutdown] has given up waiting for it; its cause then is
// ErrShutdown.
func (c *Conn) Context() context.Context { return c.ctx }

// Read reads from the client. See [Conn] about its errors.
func (c *Conn) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	t := c.transport.Load()
	if err := c.handshake(t); err != nil {
		c.readErr = err
		return 0, err
	}
	n, err := t.Read(p)
	if limit := int(c.limit.Load()); limit > 0 && err == nil {
		n, err = c.measure(p[:n], limit)
	}
	if err != nil && !errors.Is(err, ErrLineTooLong) && context.Cause(c.ctx) == ErrShutdown {
		err = ErrShutdown
	}
	c.readErr = err
	return n, err
}

// measure returns how much of p is in lines within the limit. A line's end counts.
func (c *Conn) measure(p []byte, limit int) (int, error) {
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			c.line += len(rest)
			rest = nil
		} else {
			c.line += i + 1
			rest = rest[i+1:]
		}
		if c.line > limit {
			return 0, ErrLineTooLong
		}
		if i >= 0 {
			c.line = 0
		}
	}
	return len(p), nil
}

// LimitLine bounds the length of a line that is read from now on, its end included; 0 is no bound. A longer line is
// ErrLineTooLong.
func (c *Conn) LimitLine(n int) {
	c.limit.Store(int64(n))
	c.line = 0
}

// Write writes to the client.
func (c *Conn) Write(p []byte) (int, error) {
	t := c.transport.Load()
	if err := c.handshake(t); err != nil {
		return 0, err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.gone {
		return 0, net.ErrClosed
	}
	return t.Write(p)
}

// Close closes the connection. What has been written before is sent.
func (c *Conn) Close() error {
	c.sock.hurry(time.Now().Add(goodbyeTimeout))
	err := c.transport.Load().Close()
	c.once.Do(func() {
		_ = c.sock.Close() // TLS leaves it open if its own goodbye fails
		c.cut(net.ErrClosed)
		if c.closed != nil {
			c.closed()
		}
	})
	return err
}

// LocalAddr returns our end.
func (c *Conn) LocalAddr() net.Addr { return c.sock.LocalAddr() }

// RemoteAddr returns the client's end, that of the proxy where one stands between and does not know it.
func (c *Conn) RemoteAddr() net.Addr {
	if c.from.client.IsValid() {
		return net.TCPAddrFromAddrPort(c.from.client)
	}
	return c.sock.RemoteAddr()
}

// SetDeadline does nothing: deadlines are ours.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing: deadlines are ours.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: deadlines are ours.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadTimeout changes how long one read may wait, from the next read on; 0 is what the limits say.
func (c *Conn) SetReadTimeout(d time.Duration) {
	if d <= 0 {
		d = c.opts.Limits.ReadTimeout
	}
	c.sock.set(func(s *socket) { s.readTimeout = d })
}

// ReadUntil bounds all reads from now on by a moment, besides the timeout of each; the zero Time is no bound.
func (c *Conn) ReadUntil(t time.Time) { c.sock.set(func(s *socket) { s.until = t }) }

// BytesRead returns how many octets came from the client, TLS included.
func (c *Conn) BytesRead() int64 { return c.sock.in.Load() }

// BytesWritten returns how many octets went to the client, TLS included.
func (c *Conn) BytesWritten() int64 { return c.sock.out.Load() }

// StartTLS begins TLS and returns after the handshake, which has a deadline of its own. The protocol has answered the
// client's command and says how many octets it has read beyond it: with any the connection is of no use any more
// (ErrPlaintext), for somebody between may have put them there. After an error close the connection.
func (c *Conn) StartTLS(buffered int) error {
	switch {
	case buffered > 0:
		c.readErr = ErrPlaintext
		return ErrPlaintext
	case c.transport.Load().tls != nil:
		return errors.New("TLS has begun already")
	case c.opts.TLS == nil:
		return errors.New("there is no certificate for TLS")
	}
	t := tls.Server(c.sock, c.opts.TLS)
	next := &transport{Conn: t, tls: t}
	if err := c.handshake(next); err != nil {
		c.readErr = err
		return err
	}
	c.transport.Store(next)
	return nil
}

// CanStartTLS reports whether TLS can begin on this connection, and has not.
func (c *Conn) CanStartTLS() bool {
	return c.opts.startTLS && c.opts.TLS != nil && c.transport.Load().tls == nil
}

// TLS returns the state of TLS; ok is false over cleartext and before the handshake.
func (c *Conn) TLS() (state tls.ConnectionState, ok bool) {
	t := c.transport.Load().tls
	if t == nil {
		return tls.ConnectionState{}, false
	}
	state = t.ConnectionState()
	return state, state.HandshakeComplete
}

// TLSVersion returns "TLSv1.3" or the like, "" over cleartext and before the handshake.
func (c *Conn) TLSVersion() string {
	state, ok := c.TLS()
	if !ok {
		return ""
	}
	switch state.Version {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(state.Version)
}

// Handshake does the TLS handshake of a connection that begins with TLS, if nothing has been read or written yet. Over
// cleartext it does nothing.
func (c *Conn) Handshake() error { return c.handshake(c.transport.Load()) }

func (c *Conn) handshake(t *transport) error {
	if t.tls == nil {
		return nil
	}
	t.handshake.Do(func() {
		c.sock.set(func(s *socket) { s.handshake = time.Now().Add(c.opts.Limits.HandshakeTimeout) })
		t.handshaken = t.tls.HandshakeContext(c.ctx)
		c.sock.set(func(s *socket) { s.handshake = time.Time{} })
	})
	return t.handshaken
}

// SetBusy says whether the connection is in the middle of something that [Listener.Shutdown] waits for. A connection
// begins idle. false means that the connection is being closed, and that nothing may begin; what has begun may go on.
func (c *Conn) SetBusy(busy bool) bool {
	c.mu.Lock()
	draining, was := c.draining, c.busy
	c.busy = busy && (was || !draining)
	c.mu.Unlock()
	if draining && !busy {
		c.goodbye()
	}
	return !draining || busy && was
}

// drain lets nothing new begin. A busy connection says goodbye itself when it becomes idle.
func (c *Conn) drain() (busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	return c.busy
}

// interrupt makes reads fail with ErrShutdown and ends the context, so that the protocol can say so itself.
func (c *Conn) interrupt() {
	c.cut(ErrShutdown)
	c.sock.interrupt()
}

// goodbye says that we are going, and closes. Whoever is writing has a second to finish.
func (c *Conn) goodbye() {
	c.cut(ErrShutdown)
	c.sock.hurry(time.Now().Add(goodbyeTimeout))
	c.writing.Lock()
	if t := c.transport.Load(); !c.gone && (t.tls == nil || t.tls.ConnectionState().HandshakeComplete) {
		_, _ = io.WriteString(t, c.opts.Goodbye) // it may be gone already
	}
	c.gone = true
	c.writing.Unlock()
	_ = c.Close()
}

// A socket gives every read and write a deadline and counts octets.
type socket struct {
	net.Conn
	in, out atomic.Int64

	mu           sync.Mutex // held while a deadline is set, so that the last word is that of hurry and interrupt
	readTimeout  time.Duration
	writeTimeout time.Duration
	until        time.Time // bound on all reads
	handshake    time.Time // bound on the handshake
	last         time.Time // bound on everything: we are closing
	interrupted  bool
}

func (s *socket) set(f func(*socket)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *socket) Read(p []byte) (int, error) {
	s.mu.Lock()
	if s.interrupted {
		s.mu.Unlock()
		return 0, ErrShutdown
	}
	_ = s.Conn.SetReadDeadline(earliest(time.Now().Add(s.readTimeout), s.until, s.handshake, s.last))
	s.mu.Unlock()
	n, err := s.Conn.Read(p)
	s.in.Add(int64(n))
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	_ = s.Conn.SetWriteDeadline(earliest(time.Now().Add(s.writeTimeout), s.handshake, s.last))
	s.mu.Unlock()
	n, err := s.Conn.Write(p)
	s.out.Add(int64(n))
	return n, err
}

// hurry bounds reads and writes, those under way included.
func (s *socket) hurry(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = earliest(t, s.last)
	_ = s.Conn.SetWriteDeadline(s.last)
	_ = s.Conn.SetReadDeadline(s.last)
}

func (s *socket) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = true
	_ = s.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Deadlines that crypto/tls sets are ours to ignore too.
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// earliest returns the first of the moments that are set.
func earliest(t time.Time, more ...time.Time) time.Time {
	for _, x := range more {
		if !x.IsZero() && (t.IsZero() || x.Before(t)) {
			t = x
		}
	}
	return t
}
