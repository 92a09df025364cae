package listen

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A source is one socket. It accepts for whichever listener takes next, so that one can follow another without a
// connection being lost between them.
type source struct {
	once     sync.Once
	latest   atomic.Pointer[Listener] // whose settings count before a connection is anybody's
	arrivals chan arrival
	failed   chan struct{} // closed when nothing more comes, with err
	err      error
	proxied  atomic.Int64 // connections whose proxy has not yet said whose they are

	mu     sync.Mutex
	closed chan struct{}
}

func newSource() *source {
	return &source{arrivals: make(chan arrival), failed: make(chan struct{}), closed: make(chan struct{})}
}

// begin accepts on behalf of l, unless the socket accepts already.
func (s *source) begin(l *Listener) {
	s.once.Do(func() {
		s.latest.Store(l)
		go s.run(l.Listener) // ends when the socket is closed or fails
	})
}

func (s *source) run(socket net.Listener) {
	var delay time.Duration
	for {
		raw, err := socket.Accept()
		if err != nil {
			if isClosed(s.closed) || !passing(err) {
				s.err = err
				close(s.failed)
				return
			}
			// Out of file descriptors, say: others will be closed.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l := s.latest.Load()
			l.opts.Log.Warn("cannot accept connections for now", "address", l.config.Address, "error", err)
			select {
			case <-time.After(delay):
			case <-s.closed:
			}
			continue
		}
		delay = 0
		if l := s.latest.Load(); l.config.Proxy {
			s.introduce(l, raw)
			continue
		}
		s.offer(arrived(raw))
	}
}

// offer waits until a listener takes the connection.
func (s *source) offer(a arrival) {
	select {
	case s.arrivals <- a:
	case <-s.closed:
		_ = a.Close()
	}
}

// introduce has the proxy say whose connection this is, and then offers it.
func (s *source) introduce(l *Listener, raw net.Conn) {
	refuse := func(why string) {
		l.opts.Log.Warn("proxied connection refused", "address", l.config.Address, "peer", raw.RemoteAddr().String(), "why", why)
		_ = raw.Close()
	}
	proxy := arrived(raw)
	if !proxy.local && !proxy.trusted(l.opts) {
		refuse("the peer is not in a trusted network")
		return
	}
	if s.proxied.Add(1) > int64(l.opts.Limits.Connections) {
		s.proxied.Add(-1)
		refuse("too many proxies have not said whose connection it is")
		return
	}
	go func() { // ends within ProxyTimeout, and then when a listener takes the connection or the socket is closed
		defer s.proxied.Add(-1)
		stop := make(chan struct{})
		defer close(stop)
		go func() { // ends with the one that started it
			select {
			case <-s.closed:
				_ = raw.SetReadDeadline(time.Unix(1, 0))
			case <-stop:
			}
		}()
		_ = raw.SetReadDeadline(time.Now().Add(l.opts.Limits.ProxyTimeout))
		h, err := readProxyHeader(raw)
		if err != nil {
			if !isClosed(s.closed) {
				refuse(err.Error())
				return
			}
			_ = raw.Close()
			return
		}
		_ = raw.SetReadDeadline(time.Time{})
		s.offer(proxy.on(h))
	}()
}

// close closes the socket. What has not been taken is closed too.
func (s *source) close(socket net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isClosed(s.closed) {
		return nil
	}
	close(s.closed)
	return socket.Close()
}

// An arrival is a connection and where it comes from.
type arrival struct {
	net.Conn
	client   netip.AddrPort // as a proxy names it; zero without one, or where it does not know
	peer     netip.Addr     // the client's, zero if unknown
	local    bool           // through a unix socket
	loopback bool           // nobody can read along between the client and us
}

func arrived(c net.Conn) arrival {
	a := arrival{Conn: c}
	switch remote := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		a.peer = remote.AddrPort().Addr().Unmap().WithZone("")
		a.loopback = a.peer.IsLoopback()
	case *net.UnixAddr:
		a.local = true
	}
	return a
}

func (a arrival) trusted(o Options) bool {
	return a.peer.IsValid() && o.Trusted != nil && o.Trusted(a.peer)
}

// on returns what came through the proxy a.
func (a arrival) on(h proxyHeader) arrival {
	if h.own {
		return a
	}
	near := a.local || a.loopback
	return arrival{Conn: a.Conn, client: h.client, peer: h.client.Addr(), loopback: near && h.client.Addr().IsLoopback()}
}
