package clamav

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clamd "github.com/dutchcoders/go-clamd"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/scanners/peer"
)

const (
	// trustFor is how long an answer stands for the next: after it clamd is asked whether it is there before it gets a mail.
	trustFor = time.Second
	// versionFor is how long a version is believed. Databases change several times a day.
	versionFor = time.Minute
)

// prefix stands before each mail. clamd looks into the parts of what begins like a mail to it, and only a few fields do:
// a mail that begins with any other is one text to it, and what is encoded in it is not found.
const prefix = "Received: by sluice\r\n"

// A daemon is one clamd.
type daemon struct {
	*peer.Peer
	name         string // as the configuration has it
	within, ping time.Duration
	env          pipeline.Env
	scans        atomic.Int64 // under way or waiting for their turn

	mu         sync.Mutex
	answered   time.Time // when it last did; zero: it is to be asked whether it is there
	down       bool      // the log says that it is
	version    string
	versionErr error
	versionAt  time.Time
}

// An answer is what clamd says of a mail.
type answer struct {
	infected   bool
	signature  string
	version    string
	versionErr error
}

// A refusal is an answer of a clamd that works, but not on this mail.
type refusal struct{ says string }

func (e *refusal) Error() string { return "it answers: " + e.says }

// scan has the clamd scan a mail.
func (p *daemon) scan(ctx context.Context, m *mime.Message) (a answer, err error) {
	p.scans.Add(1)
	defer p.scans.Add(-1)
	err = p.Ask(ctx, func(ctx context.Context) error {
		if err := p.there(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, p.within, fmt.Errorf("no answer within %s", p.within))
		defer cancel()
		var refused *refusal
		a, err = p.instream(ctx, m)
		p.heard(err == nil || errors.As(err, &refused))
		if err != nil {
			// It was there a moment ago, so it may be this mail that it cannot bear: whether it still is will be asked before
			// it gets the next, and that answer counts. Otherwise a few such mails would switch it off for everybody.
			return &peer.Answered{Err: err}
		}
		a.version, a.versionErr = p.versionNow(ctx)
		return nil
	})
	return a, err
}

func (p *daemon) heard(it bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = time.Time{}
	if it {
		p.answered = p.env.Now()
	}
}

// there returns nil if the clamd has answered lately or answers PING. The log says when that
// changes.
func (p *daemon) there(ctx context.Context) error {
	p.mu.Lock()
	fresh := !p.answered.IsZero() && p.env.Now().Sub(p.answered) < trustFor
	p.mu.Unlock()
	if fresh {
		return nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, p.ping, fmt.Errorf("no PONG within %s", p.ping))
	defer cancel()
	err := p.pong(limited)
	if err != nil && ctx.Err() != nil {
		return err // nobody waited for it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if !p.down {
			p.env.Log.Warn("clamd does not answer", "step", p.env.Name, "address", p.name, "error", err)
		}
		p.down = true
		return err
	}
	if p.down {
		p.env.Log.Info("clamd answers again", "step", p.env.Name, "address", p.name)
	}
	p.down, p.answered = false, p.env.Now()
	return nil
}

// pong asks PING over a connection of ours: go-clamd's panics when clamd hangs up.
func (p *daemon) pong(ctx context.Context) error {
	conn, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = io.WriteString(conn, "nPING\n"); err == nil {
		var line string
		line, err = bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
		switch {
		case line == "PONG\n":
			return nil
		case err == nil || errors.Is(err, io.EOF) && line != "":
			return fmt.Errorf("it answers PING with %q", line)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("ask for PONG: %w", err)
}

// instream has go-clamd send the mail, and believes its answer only if all of the mail went out.
func (p *daemon) instream(ctx context.Context, m *mime.Message) (answer, error) {
	conn, err := p.Dial(ctx)
	if err != nil {
		return answer{}, err
	}
	in := &source{ctx: ctx, r: io.MultiReader(strings.NewReader(prefix), m.Raw())}
	results, sent, err := collect(ctx, conn, func(c *clamd.Clamd) (chan *clamd.ScanResult, func(), error) {
		abort := make(chan bool)
		results, err := c.ScanStream(in, abort)
		return results, func() { close(abort) }, err
	})
	// nINSTREAM, each piece behind its length, and a length of nothing at the end (clamd(8)).
	want := int64(len("nINSTREAM\n")) + in.octets + 4*in.pieces + 4
	switch size := int64(len(prefix)) + m.Size(); {
	case in.err != nil:
		return answer{}, fmt.Errorf("read the mail: %w", in.err)
	case len(results) == 1 && says(results[0]) != "" && says(results[0]) != clamd.RES_OK:
		return verdict(results[0])
	case err != nil:
		return answer{}, err
	case in.octets != size || !in.ended || sent != want:
		return answer{}, fmt.Errorf("only %d of %d octets went out before the answer", sent, want)
	case len(results) == 0:
		return answer{}, errors.New("it hung up without an answer")
	case len(results) > 1:
		return answer{}, fmt.Errorf("it answers twice: %s; %s", clip(results[0].Raw), clip(results[1].Raw))
	}
	return verdict(results[0])
}

// says is what an answer of go-clamd says, for one that it could not read too: FOUND, ERROR, OK or "".
func says(r *clamd.ScanResult) string {
	for _, word := range []string{clamd.RES_FOUND, clamd.RES_ERROR} {
		if strings.HasSuffix(r.Raw, " "+word) {
			return word
		}
	}
	if r.Status == clamd.RES_OK && r.Raw == "stream: OK" {
		return clamd.RES_OK
	}
	return ""
}

func verdict(r *clamd.ScanResult) (answer, error) {
	switch says(r) {
	case clamd.RES_OK:
		return answer{}, nil
	case clamd.RES_FOUND:
		name := r.Description
		if r.Status != clamd.RES_FOUND { // a name with a colon
			name = strings.TrimSuffix(strings.TrimPrefix(r.Raw, "stream: "), " FOUND")
		}
		if name = clip(name); name == "" {
			name = "(no name)"
		}
		return answer{infected: true, signature: name}, nil
	case clamd.RES_ERROR:
		return answer{}, &refusal{clip(r.Raw)}
	}
	return answer{}, fmt.Errorf("it answers %q", clip(r.Raw))
}

// clip makes what clamd says fit for a record.
func clip(s string) string {
	s = pipeline.CleanText(s)
	return s[:min(len(s), 200)]
}

// collect runs one command of go-clamd, and returns its first answers: two are one too many.
func collect(ctx context.Context, conn net.Conn, command func(*clamd.Clamd) (chan *clamd.ScanResult, func(), error)) (
	results []*clamd.ScanResult, sent int64, err error,
) {
	sent, err = through(ctx, conn, func(c *clamd.Clamd) error {
		answers, done, err := command(c)
		defer done()
		if err != nil {
			return err
		}
		for r := range answers { // to the end: it is a goroutine's only way out
			if len(results) < 2 {
				results = append(results, r)
			}
		}
		return nil
	})
	return results, sent, err
}

// versionNow returns the version of the clamd and of its database, asked for once a minute.
func (p *daemon) versionNow(ctx context.Context) (string, error) {
	p.mu.Lock()
	version, err, at := p.version, p.versionErr, p.versionAt
	p.mu.Unlock()
	if !at.IsZero() && p.env.Now().Sub(at) < versionFor {
		return version, err
	}
	version, err = p.askVersion(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version, p.versionErr, p.versionAt = version, err, p.env.Now()
	if err != nil {
		p.versionAt = time.Time{}
	}
	return version, err
}

func (p *daemon) askVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.ping, fmt.Errorf("no version within %s", p.ping))
	defer cancel()
	conn, err := p.Dial(ctx)
	if err != nil {
		return "", err
	}
	lines, _, err := collect(ctx, conn, func(c *clamd.Clamd) (chan *clamd.ScanResult, func(), error) {
		lines, err := c.Version()
		return lines, func() {}, err
	})
	switch {
	case err != nil:
		return "", err
	case len(lines) != 1 || !strings.HasPrefix(lines[0].Raw, "ClamAV "):
		return "", errors.New("no answer to VERSION that could be understood")
	}
	return clip(lines[0].Raw), nil
}

// A source is the mail as go-clamd reads it, and remembers what became of it: go-clamd takes every error for its end.
type source struct {
	ctx    context.Context
	r      io.Reader
	octets int64
	pieces int64 // go-clamd sends one for each Read
	ended  bool
	err    error
}

func (s *source) Read(b []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, s.ctx.Err() // nobody waits for the rest; that is no fault of the mail
	}
	n, err := s.r.Read(b)
	s.octets += int64(n)
	if n > 0 {
		s.pieces++
	}
	switch {
	case errors.Is(err, io.EOF):
		s.ended = true
	case err != nil:
		s.err = err
	}
	return n, err
}
