// Package peer asks programs beside us, on a socket: within a time, so many questions at once and no more, and none
// while the program is dead.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/scanners/breaker"
)

// Config says which program is asked, and how.
type Config struct {
	Name    string         // what errors call it: "rspamd"
	Address string         // see [ParseAddress]
	AtOnce  int            // questions at a time; more of them wait
	Connect time.Duration  // to connect
	Breaker breaker.Config //
}

// A Peer is one program that stages ask. It is safe for concurrent use.
type Peer struct {
	config           Config
	network, address string
	dial             func(ctx context.Context, network, address string) (net.Conn, error)
	slots            chan struct{}
	breaker          *breaker.Breaker
}

// New returns a peer. It connects to nothing.
func New(c Config, env pipeline.Env) (*Peer, error) {
	if c.AtOnce <= 0 {
		return nil, errors.New("at_once: is less than 1: nothing would ever be asked")
	}
	network, address, err := ParseAddress(c.Address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	return &Peer{
		config: c, network: network, address: address, dial: env.Dial,
		slots: make(chan struct{}, c.AtOnce), breaker: breaker.New(c.Breaker, env.Now),
	}, nil
}

// String is "rspamd at 127.0.0.1:11333".
func (p *Peer) String() string { return p.config.Name + " at " + p.address }

// An Answered error says that the peer is well, although it did not tell what it was asked: it counts for nothing
// against it.
type Answered struct{ Err error }

func (e *Answered) Error() string { return e.Err.Error() }

// Unwrap returns what it did tell.
func (e *Answered) Unwrap() error { return e.Err }

// Ask asks a question when there is room for it, unless the peer is dead. What goes wrong is returned with the peer's
// name. A question that is given up because ctx was cancelled says nothing about the peer; one that comes to its
// deadline does.
func (p *Peer) Ask(ctx context.Context, question func(ctx context.Context) error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("ask %s: %d questions are under way: %w", p, cap(p.slots), ctx.Err())
	}
	defer func() { <-p.slots }()
	if err := p.breaker.Allow(); err != nil {
		return fmt.Errorf("ask %s: %w", p, err)
	}
	if err := p.watched(ctx, question); err != nil {
		return fmt.Errorf("ask %s: %w", p, err)
	}
	return nil
}

// watched asks, and tells the breaker how it went: after a panic, too, or it would wait for that for ever.
func (p *Peer) watched(ctx context.Context, question func(ctx context.Context) error) error {
	err := errors.New("the question was not brought to its end")
	defer func() {
		var answered *Answered
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			p.breaker.Cancelled()
		case errors.As(err, &answered):
			p.breaker.Done(nil)
		default:
			p.breaker.Done(err)
		}
	}()
	err = question(ctx)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // and not that its connection was closed
	}
	return err
}

// Dial connects to the peer.
func (p *Peer) Dial(ctx context.Context) (net.Conn, error) {
	if p.config.Connect > 0 {
		within, cancel := context.WithTimeoutCause(ctx, p.config.Connect,
			fmt.Errorf("connect: no answer within %s", p.config.Connect))
		defer cancel()
		conn, err := p.dial(within, p.network, p.address)
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			return nil, context.Cause(within)
		}
		return conn, err
	}
	return p.dial(ctx, p.network, p.address)
}

// Connect is Dial for one question alone: the connection is closed when ctx ends.
func (p *Peer) Connect(ctx context.Context) (net.Conn, error) {
	conn, err := p.Dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return &bound{conn, stop}, nil
}

type bound struct {
	net.Conn
	stop func() bool
}

func (b *bound) Close() error {
	b.stop()
	return b.Conn.Close()
}

// ParseAddress reads an address as configurations write it: unix:PATH, inet:HOST:PORT or HOST:PORT. It returns what
// [net.Dial] takes.
func ParseAddress(s string) (network, address string, err error) {
	if s == "" {
		return "", "", errors.New("is missing; write unix:PATH or HOST:PORT")
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// sun_path has 108 octets, a NUL at its end.
		if path == "" || len(path) > 107 || strings.ContainsRune(path, 0) {
			return "", "", fmt.Errorf("%q is no path of a socket: it has 1 to 107 octets", path)
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(s, "inet:"))
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
		return "", "", fmt.Errorf("%q is none; write unix:PATH or HOST:PORT", s)
	}
	return "tcp", net.JoinHostPort(host, port), nil
}
