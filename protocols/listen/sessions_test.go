package listen_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/protocols/listen"
)

// A session that has begun is over when Shutdown returns, and none begins afterwards.
func TestSessions(t *testing.T) {
	for range 50 {
		var talking, begun atomic.Int32
		s := listen.Sessions{Protocol: "echo"}
		s.Talk = func(c *listen.Conn) {
			begun.Add(1)
			talking.Add(1)
			_, _ = io.Copy(c, c)
			_ = c.Close()
			talking.Add(-1)
		}
		served := make(chan error, 2)
		for range 2 {
			l := open(t, listen.Config{}, listen.Options{Goodbye: "bye\r\n"})
			go func() { served <- s.Serve(l) }() // ends with Shutdown
			for range 5 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		n := begun.Load()
		if talking.Load() != 0 {
			t.Error("a session goes on behind Shutdown")
		}
		for range 2 {
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
		if begun.Load() != n {
			t.Error("a session began behind Shutdown")
		}
		l := open(t, listen.Config{}, listen.Options{})
		if err := s.Serve(l); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = c.Close()
			t.Error("a listener is open that nobody serves")
		}
	}
}

func TestSessionsCut(t *testing.T) {
	s := listen.Sessions{Protocol: "slow"}
	began := make(chan struct{})
	s.Talk = func(c *listen.Conn) {
		c.SetBusy(true)
		close(began)
		<-c.Context().Done() // Shutdown has given up
		_ = c.Close()
	}
	l := open(t, listen.Config{}, listen.Options{})
	go func() { _ = s.Serve(l) }() // ends with Shutdown
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
}

type failing struct{ net.Listener }

func (failing) Accept() (net.Conn, error) { return nil, io.ErrUnexpectedEOF }

func TestSessionsErrors(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{})
	s := listen.Sessions{Protocol: "imap"}
	if err := s.Serve(failing{l}); err == nil || !strings.Contains(err.Error(), "accept a connection for imap: unexpected EOF") {
		t.Errorf("Serve: %v", err)
	}
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	c, err := net.Dial("tcp", foreign.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Serve(foreign); err == nil || !strings.Contains(err.Error(), "*net.TCPConn") {
		t.Errorf("Serve: %v", err)
	}
}
