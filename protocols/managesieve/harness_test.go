package managesieve

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/scripts"
	"sluice/protocols/listen"
)

const (
	me       = "me@localhost"
	password = "open sesame"
	patience = time.Minute
)

// people is a directory of one account.
type people struct {
	mu     sync.Mutex
	broken error
	asked  int
	gone   bool
}

func (p *people) Resolve(context.Context, string, string) ([]string, error) {
	return nil, mailstore.ErrNoAccount
}

func (p *people) Authenticate(_ context.Context, login, word string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.broken != nil {
		return "", p.broken
	}
	if login != "me" && login != me || word != password {
		return "", mailstore.ErrPassword
	}
	return me, nil
}

func (p *people) exists(context.Context, string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.gone, nil
}

// check stands for the checker of a language of which "bad" is an error and "odd" looks like one.
func check(_ context.Context, account, name string, text []byte) (warnings, problems []string) {
	if account != me {
		return nil, []string{"this is somebody else"}
	}
	for i, line := range strings.Split(string(text), "\r\n") {
		if at := strings.Index(line, "bad"); at >= 0 {
			problems = append(problems, fmt.Sprintf("line %d, column %d: bad", i+1, at+1))
		}
		if at := strings.Index(line, "odd"); at >= 0 {
			warnings = append(warnings, fmt.Sprintf("line %d, column %d: \"odd\" in %s", i+1, at+1, name))
		}
	}
	return warnings, problems
}

type site struct {
	t       testing.TB
	people  *people
	store   *scripts.Store
	server  *Server
	address string
	dir     string
}

type options struct {
	limits  Limits
	scripts scripts.Limits
	listen  listen.Config
	conn    listen.Limits
	wrap    func(mailstore.Scripts) mailstore.Scripts
}

func start(t testing.TB, o options) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &site{t: t, people: &people{}, dir: t.TempDir()}
	var err error
	s.store, err = scripts.Open(scripts.Config{Users: s.dir, Exists: s.people.exists, Limits: o.scripts, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if o.listen.Address == "" {
		o.listen.Address = "127.0.0.1:0"
	}
	l, err := listen.Open(t.Context(), o.listen, listen.Options{
		Limits: o.conn, TLS: certificate(t), HasStartTLS: true, Busy: Busy, Goodbye: Goodbye, Log: log,
		Trusted: netip.Addr.IsLoopback,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var kept mailstore.Scripts = s.store
	if o.wrap != nil {
		kept = o.wrap(kept)
	}
	s.server = New(Config{
		Scripts: kept, Directory: s.people, Check: check,
		Logins:         &listen.Logins{First: time.Nanosecond, Most: time.Nanosecond, Log: log},
		Implementation: "Sluice 0", Sieve: []string{"fileinto", "vacation"}, Notify: []string{"mailto"}, MaxRedirects: 4,
		Hostname: "mx.test", Log: log, Limits: o.limits,
	})
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(l) }() // ends by Shutdown
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

type peer struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

func (s *site) dial() *peer {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return &peer{t: s.t, conn: c, br: bufio.NewReader(c)}
}

// greeted returns a client that has heard the greeting.
func (s *site) greeted() *peer {
	s.t.Helper()
	p := s.dial()
	p.until(`OK "mx.test ready"`)
	return p
}

func (s *site) login() *peer {
	s.t.Helper()
	p := s.greeted()
	p.talk(`
		C: AUTHENTICATE "PLAIN" "` + plain("", "me", password) + `"
		S: OK "you are me@localhost"`)
	return p
}

func plain(authzid, name, word string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + name + "\x00" + word))
}

func (p *peer) send(s string) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

func (p *peer) line() string {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := p.br.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "\r\n") {
		p.t.Fatalf("read %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// until reads lines up to this one.
func (p *peer) until(last string) {
	p.t.Helper()
	for p.line() != last {
	}
}

// talk plays a dialogue: "C: " lines are sent, "S: " lines are expected, where … is anything, "X:" is the end of the
// connection.
func (p *peer) talk(script string) {
	p.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "C:"):
			p.send(strings.TrimPrefix(line[2:], " ") + "\r\n")
		case line == "X:":
			_ = p.conn.SetReadDeadline(time.Now().Add(patience))
			rest, err := io.ReadAll(p.br)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
				p.t.Fatalf("the connection stays open: %q", rest)
			}
		case strings.HasPrefix(line, "S:"):
			want := strings.TrimPrefix(line[2:], " ")
			got := p.line()
			if !regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + "$").MatchString(got) {
				p.t.Fatalf("got  %q\nwant %q", got, want)
			}
		default:
			p.t.Fatalf("bad script line %q", line)
		}
	}
}

func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
