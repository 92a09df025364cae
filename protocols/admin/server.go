// Package admin is the door for those who watch over the program: metrics for Prometheus, and whether it lives and takes
// mail, over HTTP. Nobody is asked for a password: it is meant for loopback. It also writes the log's one line about each
// transaction, worked out from the record as the metrics are.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what the door is given.
type Config struct {
	Metrics *Metrics // required
	// Checks say whether mail is taken, in the order in which they are shown.
	Checks []Check
	Log    *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
}

// A Check is one thing that must be well for mail to be taken.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// A Server answers whoever watches.
type Server struct {
	c    Config
	http http.Server

	mu     sync.Mutex // held while the checks run: those who ask at once share the answer
	asked  time.Time
	answer string
	ready  bool
}

// New returns a door that listens nowhere yet.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{c: c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics.registry, promhttp.HandlerOpts{
		ErrorLog: failures{c.Log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	s.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers until l fails or Shutdown is called; nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(pumped{l}); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// Shutdown stops listening, lets answers under way be given until ctx ends, and closes what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		return err
	}
	return nil
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "/healthz  the program runs\n/readyz   it takes mail\n/metrics  for Prometheus\n")
}

// healthz says that the program runs.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }

// readyz says whether mail is taken: 200, or 503 with what is wrong.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	answer, ready := s.check(r.Context())
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, answer)
}

// checkTime bounds all checks together.
const checkTime = 5 * time.Second

// check runs the checks, at most once a second.
func (s *Server) check(ctx context.Context) (answer string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.Now()
	if since := now.Sub(s.asked); !s.asked.IsZero() && since >= 0 && since < time.Second {
		return s.answer, s.ready
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime) // others wait for the answer, too
	defer cancel()
	var b strings.Builder
	s.ready = true
	for _, c := range s.c.Checks {
		if err := c.Run(ctx); err != nil {
			fmt.Fprintf(&b, "%s: %v\n", c.Name, err)
			s.ready = false
			continue
		}
		fmt.Fprintf(&b, "%s: ok\n", c.Name)
	}
	s.asked, s.answer = now, b.String()
	return s.answer, s.ready
}

// failures takes what the metrics' handler has to say.
type failures struct{ log *slog.Logger }

func (f failures) Println(v ...any) {
	f.log.Warn("metrics are incomplete", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

// pumped makes connections whose reads can be interrupted, as net/http does after each request: package listen keeps
// the deadlines of its connections to itself.
type pumped struct{ net.Listener }

func (l pumped) Accept() (net.Conn, error) {
	below, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	in, out := net.Pipe()
	go func() { // ends when the connection does
		_, err := io.Copy(in, below)
		if err != nil {
			_ = below.Close()
		}
		_ = in.Close()
	}()
	return &pumpedConn{below, out}, nil
}

type pumpedConn struct {
	net.Conn
	in net.Conn
}

func (c *pumpedConn) Read(p []byte) (int, error)        { return c.in.Read(p) }
func (c *pumpedConn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }
func (c *pumpedConn) SetDeadline(t time.Time) error     { return c.in.SetDeadline(t) }
func (c *pumpedConn) Close() error                      { return errors.Join(c.Conn.Close(), c.in.Close()) }
