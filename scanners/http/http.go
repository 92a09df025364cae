// Package http asks a service of a site's own about each mail, by HTTP, and makes facts of what it answers. What the
// service is told and has to answer is in package ask.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sluice/pipeline"
	"sluice/scanners/ask"
	"sluice/scanners/breaker"
	"sluice/scanners/peer"
)

// Kind is the kind of stage the configuration calls http. A service that fails is skipped: what a site's own service finds
// is mostly one sign among several, and rules see that it is unknown. Where it decides alone, `on_error: postpone`.
//
// The question is the body of a POST of the type application/vnd.sluice.question, the answer is that of a reply 200.
// Every other reply is an error, also one that leads elsewhere. The same question may come twice, with the same
// Idempotency-Key, where the service has closed a connection just then.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name:    "http",
		Doc:     "Asks a service by HTTP, with JSON in and out. One that fails is skipped: it is one sign among several, and rules see that it is unknown.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{Config: ask.Default(), Connect: 5 * time.Second} },
		Fact:    func(config any) any { return config.(*Config).Fact() },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one http step.
type Config struct {
	// URL is where the question goes: "http://127.0.0.1:8080/judge". Certificates are verified for https.
	URL string `yaml:"url" example:"http://127.0.0.1:8080/judge"`
	// Socket is the path of a unix socket to connect to; the URL then names host and path only.
	Socket     string `yaml:"socket" example:"/run/judge.sock"`
	ask.Config `yaml:",inline"`
	// CA is a file with the certificates, in PEM, that vouch for the service. Default: those of the system.
	CA string `yaml:"ca" example:"judge-ca.pem"`
	// TokenFile is a file whose first line is sent as a bearer token. It is read when the configuration is.
	TokenFile string `yaml:"token_file" example:"judge.token"`
	// Connect is how long to wait for a connection.
	Connect time.Duration `yaml:"connect"`
}

type stage struct {
	asker  *ask.Asker
	peer   *peer.Peer
	url    string
	token  string
	client *http.Client
}

func newStage(c Config, env pipeline.Env) (*stage, error) {
	asker, err := ask.New(c.Config, env)
	wrong := []error{err}
	fail := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	address, err := c.address()
	fail(err)
	if c.Connect <= 0 {
		fail(fmt.Errorf("connect: %s is too little", c.Connect))
	}
	s := &stage{asker: asker, url: c.URL}
	if err == nil {
		s.peer, err = peer.New(peer.Config{
			Name: "the service", Address: address, AtOnce: max(c.AtOnce, 1), Connect: c.Connect, Breaker: breaker.DefaultConfig(),
		}, env)
		fail(err)
	}
	secure, err := c.tls(env)
	fail(err)
	s.token, err = c.token(env)
	fail(err)
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	s.client = &http.Client{
		Transport: &http.Transport{
			// No proxy: what the environment of the server says is not what its configuration says.
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return s.peer.Dial(ctx) },
			TLSClientConfig:        secure,
			TLSHandshakeTimeout:    c.Connect,
			MaxIdleConns:           c.AtOnce,
			MaxIdleConnsPerHost:    c.AtOnce,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// address is what is connected to, as package peer writes it.
func (c Config) address() (string, error) {
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		return "", errors.New("url: is missing; write for example http://127.0.0.1:8080/judge")
	case err != nil:
		return "", fmt.Errorf("url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("url: %q begins neither with http:// nor with https://", c.URL)
	case u.Hostname() == "":
		return "", fmt.Errorf("url: %q names no host", c.URL)
	case u.User != nil:
		return "", errors.New("url: has a password in it, which would stand in every plan; use token_file")
	case c.Socket != "":
		return "unix:" + c.Socket, nil
	case u.Port() != "":
		return u.Host, nil
	case u.Scheme == "https":
		return net.JoinHostPort(u.Hostname(), "443"), nil
	}
	return net.JoinHostPort(u.Hostname(), "80"), nil
}

func (c Config) tls(env pipeline.Env) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA == "" {
		return out, nil
	}
	files, err := env.Files(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	out.RootCAs = x509.NewCertPool()
	for _, f := range files {
		if !out.RootCAs.AppendCertsFromPEM(f.Text) {
			return nil, fmt.Errorf("ca: %s has no certificate in PEM", f.Path)
		}
	}
	return out, nil
}

func (c Config) token(env pipeline.Env) (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	text, err := env.Secret(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	line, _, _ := strings.Cut(text, "\n")
	line = strings.TrimSpace(line)
	if strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token_file: %s: its first line is no token", c.TokenFile)
	}
	return line, nil
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads { return s.asker.Reads() }

// Check asks the service.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	open, size, err := s.asker.Question(v)
	var large *ask.TooLargeError
	if errors.As(err, &large) {
		return s.asker.NotAsked(large), nil
	}
	if err != nil {
		return pipeline.Result{}, err
	}
	var r pipeline.Result
	err = s.peer.Ask(ctx, func(ctx context.Context) (err error) {
		var text []byte
		if text, err = s.post(ctx, v.ID, open, size); err != nil {
			return err
		}
		if r, err = s.asker.Answer(text); err != nil {
			// Whoever answers is there: some mail that it cannot bear must not switch it off for all.
			return &peer.Answered{Err: err}
		}
		return nil
	})
	return r, err
}

func (s *stage) post(ctx context.Context, id string, open func() io.Reader, size int64) ([]byte, error) {
	reply, old, err := s.send(ctx, id, open, size)
	if err != nil && old && ctx.Err() == nil {
		// A connection that the service closed while nobody asked is noticed with the next question only. The service may be
		// a new one by now.
		s.client.CloseIdleConnections()
		reply, _, err = s.send(ctx, id, open, size)
	}
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // who was asked is said outside
		}
		return nil, err
	}
	defer reply.Body.Close()
	most := s.asker.MaxAnswer()
	text, err := io.ReadAll(io.LimitReader(reply.Body, most+1))
	switch {
	case reply.StatusCode != http.StatusOK:
		return nil, &peer.Answered{Err: fmt.Errorf("it answers %s: %s", pipeline.CleanText(reply.Status), firstLine(text))}
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return text, nil
}

// send sends the question; old says that it went over a connection that had been used before.
func (s *stage) send(ctx context.Context, id string, open func() io.Reader, size int64) (reply *http.Response, old bool, err error) {
	body := func() (io.ReadCloser, error) { return io.NopCloser(open()), nil }
	first, _ := body() // that never fails
	var used atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { used.Store(i.Reused) }})
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, first)
	if err != nil {
		return nil, false, err
	}
	q.GetBody, q.ContentLength = body, size
	q.Header.Set("Idempotency-Key", id)
	q.Header.Set("Content-Type", "application/vnd.sluice.question")
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", "sluice")
	if s.token != "" {
		q.Header.Set("Authorization", "Bearer "+s.token)
	}
	reply, err = s.client.Do(q)
	return reply, used.Load(), err
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	s := pipeline.CleanText(string(line))
	return s[:min(len(s), 200)]
}
