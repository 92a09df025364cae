package peer

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/breaker"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct{ in, network, address string }{
		{"unix:/run/x.sock", "unix", "/run/x.sock"},
		{"inet:mx.example.org:8891", "tcp", "mx.example.org:8891"},
		{"127.0.0.1:783", "tcp", "127.0.0.1:783"},
		{"[::1]:783", "tcp", "[::1]:783"},
		{"", "", ""}, {"unix:", "", ""}, {"unix:" + strings.Repeat("x", 108), "", ""}, {":783", "", ""}, {"host", "", ""},
		{"host:", "", ""}, {"host:0", "", ""}, {"host:70000", "", ""}, {"local:/run/x", "", ""}, {"inet:8891@localhost", "", ""},
	} {
		network, address, err := ParseAddress(tt.in)
		if network != tt.network || address != tt.address || (err == nil) != (tt.network != "") {
			t.Errorf("%q: %s %s %v", tt.in, network, address, err)
		}
	}
}

func peer(t *testing.T, c Config, dial func(context.Context) (net.Conn, error)) *Peer {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Now = time.Now
	env.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	c.Name, c.Address, c.Breaker = "it", "127.0.0.1:1", breaker.Config{Failures: 2, Pause: time.Minute}
	p, err := New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// No more questions at a time than there are slots; who waits too long is told so, which says nothing about the peer.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peer(t, Config{AtOnce: 2}, nil)
		var (
			mu        sync.Mutex
			now, most int
		)
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			now += n
			most = max(most, now)
		}
		done := make(chan error, 10)
		for range 10 {
			go func() { // ends with its question
				done <- p.Ask(t.Context(), func(context.Context) error {
					count(1)
					time.Sleep(time.Second)
					count(-1)
					return nil
				})
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		err := p.Ask(ctx, func(context.Context) error { t.Error("asked"); return nil })
		if err == nil || err.Error() != "ask it at 127.0.0.1:1: 2 questions are under way: context deadline exceeded" {
			t.Error(err)
		}
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if most != 2 {
			t.Errorf("%d at once", most)
		}
	})
}

// What counts against a peer.
func TestBreaker(t *testing.T) {
	bad := errors.New("bad")
	for _, tt := range []struct {
		name  string
		ask   func(ctx context.Context, cancel func()) error
		stays bool // closed
	}{
		{"fails", func(context.Context, func()) error { return bad }, false},
		{"hangs", func(ctx context.Context, _ func()) error { <-ctx.Done(); return bad }, false},
		{"does not like the question", func(context.Context, func()) error { return &Answered{bad} }, true},
		{"given up", func(_ context.Context, cancel func()) error { cancel(); return bad }, true},
		{"panics", func(context.Context, func()) error { panic("oops") }, false},
		{"answers", func(context.Context, func()) error { return nil }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peer(t, Config{AtOnce: 1}, nil)
				ask := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					defer func() { _ = recover() }()
					return p.Ask(ctx, func(ctx context.Context) error { return tt.ask(ctx, cancel) })
				}
				_, _ = ask(), ask()
				var open *breaker.OpenError
				if err := ask(); errors.As(err, &open) == tt.stays {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if err := ask(); errors.As(err, &open) {
					t.Errorf("after the pause: %v", err)
				}
			})
		})
	}
}

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peer(t, Config{AtOnce: 1, Connect: 5 * time.Second}, func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if _, err := p.Dial(t.Context()); err == nil || err.Error() != "connect: no answer within 5s" {
			t.Error(err)
		}
		ours, theirs := net.Pipe()
		defer theirs.Close()
		p = peer(t, Config{AtOnce: 1}, func(context.Context) (net.Conn, error) { return ours, nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := p.Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil || ctx.Err() == nil {
			t.Errorf("%v, %v", err, ctx.Err())
		}
	})
}

func TestNew(t *testing.T) {
	if _, err := New(Config{Address: "x:1"}, pipeline.Env{Now: time.Now}); err == nil {
		t.Error("a peer that is never asked")
	}
}
