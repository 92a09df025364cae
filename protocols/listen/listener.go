package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options are what a listener needs besides its configuration. The zero value is usable: cleartext, default limits,
// nobody trusted.
type Options struct {
	Limits Limits
	// Trusted reports whether an address is in a trusted network.
	Trusted func(netip.Addr) bool
	// TLS is the configuration for TLS; nil is none. Its GetConfigForClient may give a new one for each connection.
	TLS *tls.Config
	// HasStartTLS: the protocol has a command that begins TLS.
	HasStartTLS bool
	// Busy is written to a client that is one too many, "421 4.7.0 too many connections\r\n".
	Busy string
	// Goodbye is written to a connection that Shutdown closes, "421 4.3.2 shutting down\r\n".
	Goodbye string
	// Counter counts connections together with other listeners; nil is a counter of its own.
	Counter *Counter
	// Inherited are the sockets that systemd has opened for us; nil is none.
	Inherited *Inherited
	Log       *slog.Logger // nil: slog.Default

	implicit, startTLS bool
	hostname, banner   string
}

// A Counter counts connections in all and per address, for one or more listeners.
type Counter struct {
	mu    sync.Mutex
	all   int
	peers map[netip.Prefix]int

	taken, refused uint64
}

// Counts are what a Counter has counted.
type Counts struct {
	Open           int    // now
	Taken, Refused uint64 // so far
}

// Counts returns what has been counted.
func (c *Counter) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{Open: c.all, Taken: c.taken, Refused: c.refused}
}

// add counts one more and returns "" or which limit forbids it.
func (c *Counter) add(peer netip.Prefix, l Limits) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= l.Connections {
		c.refused++
		return "connections"
	}
	if peer.IsValid() && c.peers[peer] >= l.PerAddress {
		c.refused++
		return "connections_per_address"
	}
	c.all++
	c.taken++
	if peer.IsValid() {
		if c.peers == nil {
			c.peers = map[netip.Prefix]int{}
		}
		c.peers[peer]++
	}
	return ""
}

func (c *Counter) done(peer netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if !peer.IsValid() {
		return
	}
	if c.peers[peer]--; c.peers[peer] <= 0 {
		delete(c.peers, peer)
	}
}

// network returns what counts as one address: an IPv4 address, or the /64 that one IPv6 client can choose from.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}

// A Listener accepts connections at one address. Accept returns a *[Conn].
type Listener struct {
	net.Listener
	config Config
	opts   Options
	source *source

	mu    sync.Mutex
	conns map[*Conn]struct{}
	heir  *Listener     // who accepts since HandOver
	down  chan struct{} // closed when Close, Shutdown or HandOver was called
	empty chan struct{} // closed when down and the last connection has gone
}

// Open opens the address of c. An error is one line that says what to do.
//
// A unix socket that is left over from a process that has died is replaced; one that somebody answers on, and a file
// that is no socket, are not touched. Of sockets with one name that systemd has opened, each Open takes one.
func Open(ctx context.Context, c Config, o Options) (*Listener, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if o.Counter == nil {
		o.Counter = &Counter{}
	}
	// What can be wrong without a socket is said before there is one.
	if _, err := o.of(c, strings.HasPrefix(c.Address, "unix:")); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Address, err)
	}
	path, unix := c.unix()
	name, systemd := c.systemd()
	var nl net.Listener
	var err error
	switch {
	case systemd:
		nl, err = o.Inherited.take(name)
	case unix:
		nl, err = openUnix(ctx, c, path)
	default:
		nl, err = openTCP(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Address, err)
	}
	if o, err = o.of(c, nl.Addr().Network() == "unix"); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", c.Address, err), nl.Close())
	}
	return newListener(nl, c, o, newSource()), nil
}

func newListener(nl net.Listener, c Config, o Options, s *source) *Listener {
	return &Listener{
		Listener: nl,
		config:   c,
		opts:     o,
		source:   s,
		conns:    map[*Conn]struct{}{},
		down:     make(chan struct{}),
		empty:    make(chan struct{}),
	}
}

// of completes o for the connections of a listener.
func (o Options) of(c Config, unix bool) (Options, error) {
	o.implicit = c.TLS == Implicit
	o.startTLS = o.HasStartTLS && (c.TLS == StartTLS || c.TLS == "" && !unix)
	o.hostname, o.banner = c.Hostname, c.Banner
	switch {
	case o.implicit && o.TLS == nil:
		return o, errors.New("tls: implicit needs a certificate")
	case c.TLS == StartTLS && !o.HasStartTLS:
		return o, errors.New("this protocol has no starttls; use implicit or none")
	case c.TLS == StartTLS && o.TLS == nil:
		return o, errors.New("tls: starttls needs a certificate")
	}
	o.Limits = o.Limits.withDefaults()
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o, nil
}

// Renew returns a listener at the same socket with other settings: everything in c but where the socket is and whose.
// It counts connections where l does unless o has a Counter. Until [Listener.HandOver] nothing comes to it, and after
// an error nothing has changed.
func (l *Listener) Renew(c Config, o Options) (*Listener, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if o.Counter == nil {
		o.Counter = l.opts.Counter
	}
	o, err := o.of(c, l.Addr().Network() == "unix")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Address, err)
	}
	return newListener(l.Listener, c, o, l.source), nil
}

// HandOver lets a listener made by l.Renew accept instead of l, whose Accept returns net.ErrClosed. No connection is lost
// between them; those that l has accepted stay with it. Shutdown of l then ends only them.
func (l *Listener) HandOver(heir *Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if isClosed(l.down) {
		return
	}
	l.source.begin(l)
	l.source.latest.Store(heir)
	l.heir = heir
	close(l.down)
	if len(l.conns) == 0 {
		close(l.empty)
	}
}

// Drained is closed when the listener accepts no more and its last connection has gone.
func (l *Listener) Drained() <-chan struct{} { return l.empty }

func openTCP(ctx context.Context, c Config) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, errors.New("the port is in use by another program; stop that one or use another port")
	case errors.Is(err, syscall.EACCES):
		return nil, errors.New("no permission for this port; ports below 1024 need root or CAP_NET_BIND_SERVICE")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, errors.New("this machine has no such address")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // "listen tcp" is said already
	}
	return nil, err
}

func openUnix(ctx context.Context, c Config, path string) (net.Listener, error) {
	if err := replaceable(ctx, path); err != nil {
		return nil, err
	}
	nl, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no folder %s; make it first", filepath.Dir(path))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to make a file in %s", filepath.Dir(path))
	default:
		return nil, err
	}
	if err := c.own(path); err != nil {
		_ = nl.Close()
		return nil, err
	}
	return nl, nil
}

// replaceable returns nil if path is free; a socket that nobody answers on it removes.
func replaceable(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to look into %s", filepath.Dir(path))
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of that name which is no socket; remove it or use another path")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another program answers on this socket; stop that one or use another path")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("there is a socket, and whether anybody answers on it cannot be told: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a socket is left over from before and cannot be removed: %w", err)
	}
	return nil
}

// own gives the socket its owner and mode.
func (c Config) own(path string) error {
	uid, gid := -1, -1
	if c.Owner != "" {
		id, err := number(c.Owner, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", fmt.Errorf("owner: there is no user %q", name)
			}
			return u.Uid, nil
		})
		if err != nil {
			return err
		}
		uid = id
	}
	if c.Group != "" {
		id, err := number(c.Group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", fmt.Errorf("group: there is no group %q", name)
			}
			return g.Gid, nil
		})
		if err != nil {
			return err
		}
		gid = id
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("give the socket to %s:%s: %w (only root may give files away)", c.Owner, c.Group, err)
		}
	}
	mode := c.Mode
	if mode == 0 {
		mode = 0o660
	}
	return os.Chmod(path, mode)
}

func number(s string, lookup func(string) (string, error)) (int, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return n, nil
	}
	id, err := lookup(s)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// Config returns what the listener was opened with.
func (l *Listener) Config() Config { return l.config }

// Accept waits for the next connection within the limits. After Close, Shutdown or HandOver its error is net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.source.begin(l)
	for {
		if isClosed(l.down) {
			return nil, net.ErrClosed
		}
		select {
		case a := <-l.source.arrivals:
			if c := l.admit(a); c != nil {
				return c, nil
			}
		case <-l.down:
		case <-l.source.failed:
			return nil, l.source.err
		}
	}
}

func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// admit returns the connection, or nil if it is one too many.
func (l *Listener) admit(a arrival) *Conn {
	var counted netip.Prefix
	if free := a.local || a.loopback || a.trusted(l.opts); !free {
		counted = network(a.peer)
	}
	l.mu.Lock()
	if isClosed(l.down) {
		heir := l.heir
		l.mu.Unlock()
		if heir != nil {
			go l.source.offer(a) // ends when the heir takes it, or the socket is closed
			return nil
		}
		go newConn(a, l.opts, nil).goodbye() // it came while we were closing; ends within goodbyeTimeout
		return nil
	}
	if which := l.opts.Counter.add(counted, l.opts.Limits); which != "" {
		l.mu.Unlock()
		l.opts.Log.Warn("connection refused: one too many", "address", l.config.Address, "client", a.peer, "limit", which)
		l.turnAway(a.Conn)
		return nil
	}
	defer l.mu.Unlock()
	var c *Conn
	c = newConn(a, l.opts, func() {
		l.opts.Counter.done(counted)
		l.forget(c)
	})
	l.conns[c] = struct{}{}
	return c
}

func (l *Listener) turnAway(raw net.Conn) {
	if !l.opts.implicit && l.opts.Busy != "" {
		_ = raw.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		_, _ = io.WriteString(raw, l.opts.Busy)
	}
	_ = raw.Close()
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if len(l.conns) == 0 && isClosed(l.down) && !isClosed(l.empty) {
		close(l.empty)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close stops accepting. Open connections go on. The file of a unix socket is removed, unless it came from systemd.
// After HandOver the socket is the heir's, and Close does nothing.
func (l *Listener) Close() error {
	_, err := l.stop()
	return err
}

func (l *Listener) stop() ([]*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if !isClosed(l.down) {
		err = l.source.close(l.Listener)
		close(l.down)
		if len(l.conns) == 0 {
			close(l.empty)
		}
	}
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	return conns, err
}

// cutGrace is how long a connection has to end in its own words once Shutdown waits no longer.
const cutGrace = time.Second

// Shutdown stops accepting, says goodbye to idle connections at once, and waits for the busy ones to become idle or
// end. Once one connection has read its goodbye, none begins anything new. When ctx ends first, what is still open has its reads fail with ErrShutdown and its context ended; a second later
// it is told goodbye and closed. The error is ctx's if it came to that.
func (l *Listener) Shutdown(ctx context.Context) error {
	conns, err := l.stop()
	// All of them know before one is told: nothing new begins after the first goodbye.
	idle := slices.DeleteFunc(conns, func(c *Conn) bool { return c.drain() })
	each(idle, (*Conn).goodbye)
	select {
	case <-l.empty:
		return err
	case <-ctx.Done():
	}
	conns, _ = l.stop()
	each(conns, (*Conn).interrupt)
	grace := time.NewTimer(cutGrace)
	defer grace.Stop()
	select {
	case <-l.empty:
		return ctx.Err()
	case <-grace.C:
	}
	conns, _ = l.stop()
	each(conns, (*Conn).goodbye)
	return ctx.Err()
}

// each calls f for all conns at once and returns when all have returned: one that is stuck holds up no other.
func each(conns []*Conn, f func(*Conn)) {
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}
