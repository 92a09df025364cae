package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// Sessions are what a server does with the connections of any number of listeners, until it shuts down. Set Protocol and
// Talk before first use.
type Sessions struct {
	// Protocol is what errors call the server.
	Protocol string
	// Talk takes a connection from its greeting to its end. It is called in a goroutine of its own.
	Talk func(*Conn)

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
	talking   sync.WaitGroup
}

// Serve accepts connections from l, which hands out *Conn, until l is closed or Shutdown is called; then it returns nil.
func (s *Sessions) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners = append(s.listeners, l)
	s.talking.Add(1) // no session begins behind Shutdown's back
	s.mu.Unlock()
	defer s.talking.Done()
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection for %s: %w", s.Protocol, err)
		}
		conn, ok := nc.(*Conn)
		if !ok {
			_ = nc.Close()
			return fmt.Errorf("serve %s: the listener hands out %T, not *listen.Conn", s.Protocol, nc)
		}
		s.talking.Go(func() { s.Talk(conn) })
	}
}

// Shutdown stops accepting, says goodbye to idle connections at once, and waits for what is under way on the others until
// ctx ends. It returns when all connections have gone; the error is ctx's if some had to be cut.
func (s *Sessions) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	errs := make([]error, len(listeners))
	var all sync.WaitGroup
	for i, l := range listeners {
		all.Go(func() {
			if d, ok := l.(interface{ Shutdown(context.Context) error }); ok {
				errs[i] = d.Shutdown(ctx)
				return
			}
			errs[i] = l.Close()
		})
	}
	all.Wait()
	s.talking.Wait()
	return errors.Join(errs...)
}
