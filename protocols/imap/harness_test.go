package imap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/maildir"
	"sluice/protocols/listen"
)

const (
	me       = "me@localhost"
	password = "open sesame"
	// patience is how long a test waits for an answer before it fails.
	patience = time.Minute
)

// people is a directory of fixed accounts.
type people struct {
	mu        sync.Mutex
	passwords map[string]string
	broken    error
	asked     int
}

func (p *people) Resolve(context.Context, string, string) ([]string, error) {
	return nil, mailstore.ErrNoAccount
}

func (p *people) Authenticate(_ context.Context, login, password string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.broken != nil {
		return "", p.broken
	}
	if !strings.Contains(login, "@") {
		login += "@localhost"
	}
	if want, ok := p.passwords[login]; !ok || want != password {
		return "", mailstore.ErrPassword
	}
	return login, nil
}

func (p *people) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

func (p *people) set(login, password string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passwords[login] = password
}

// A site is a server with a store, on loopback.
type site struct {
	t       testing.TB
	store   mailstore.Store
	people  *people
	server  *Server
	address string
	tls     *tls.Config
	log     *lockedBuffer
}

// options change a site before it starts.
type options struct {
	limits  Limits
	listen  listen.Config
	conn    listen.Limits
	store   func(mailstore.Store) mailstore.Store
	quota   int64
	trusted func(netip.Addr) bool
	events  Events
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func start(t testing.TB, o options) *site {
	t.Helper()
	s := &site{t: t, people: &people{passwords: map[string]string{me: password, "you@localhost": "other"}}, log: &lockedBuffer{}}
	dir := t.TempDir()
	md, err := maildir.Open(maildir.Config{
		Root: filepath.Join(dir, "mail"), Users: filepath.Join(dir, "users"),
		Exists:   func(context.Context, string) (bool, error) { return true, nil },
		Quota:    func(context.Context, string) (int64, error) { return o.quota, nil },
		Hostname: "test",
		Now:      func() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = md.Close() })
	s.store = md
	if o.store != nil {
		s.store = o.store(md)
	}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.tls = certificate(t)
	if o.listen.Address == "" {
		o.listen.Address = "127.0.0.1:0"
	}
	l, err := listen.Open(t.Context(), o.listen, listen.Options{
		Limits: o.conn, TLS: s.tls, HasStartTLS: true, Busy: Busy, Goodbye: Goodbye, Log: log, Trusted: o.trusted,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	s.server = New(Config{
		Store: s.store, Directory: s.people, Logins: &listen.Logins{First: time.Nanosecond, Most: time.Nanosecond, Log: log},
		Hostname: "mx.test", Log: log, Limits: o.limits, Events: o.events,
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
		if strings.Contains(s.log.String(), "panic") && !strings.Contains(t.Name(), "Panic") {
			t.Errorf("there was a panic:\n%s", s.log.String())
		}
	})
	return s
}

// deliver files messages in a folder ("": the inbox) of me.
func (s *site) deliver(folder string, messages ...string) {
	s.t.Helper()
	for i, m := range messages {
		item := mailstore.Item{
			Account: me, Folder: folder, ID: fmt.Sprintf("id%d", i),
			Date: time.Date(2026, 11, 21, 9, 30, i%60, 0, time.UTC), Content: strings.NewReader(m),
		}
		if _, err := s.store.Deliver(context.Background(), []mailstore.Item{item}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// folder opens a folder of me beside the server.
func (s *site) folder(name string) mailstore.Folder {
	s.t.Helper()
	a, err := s.store.Account(context.Background(), me)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = a.Close() })
	f, err := a.Open(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// messages lists a folder beside the server.
func (s *site) messages(name string) []mailstore.Message {
	s.t.Helper()
	l, err := s.folder(name).Messages(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return l.Messages
}

// A peer is a raw connection.
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

// login returns a connection that is logged in.
func (s *site) login() *peer {
	s.t.Helper()
	p := s.dial()
	p.talk(`
		S: * OK …
		C: l0 LOGIN me "open sesame"
		S: l0 OK …`)
	return p
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
	if err != nil {
		p.t.Fatalf("read: %v (after %q)", err, line)
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.t.Fatalf("line without CRLF: %q", line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// closed checks that nothing more comes and the connection ends.
func (p *peer) closed() {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(p.br)
	if len(rest) > 0 {
		p.t.Fatalf("before the end came %q", rest)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("the connection stays open")
	}
}

// talk plays a dialogue: "C: " lines are sent, "S: " lines are expected, "S- " skips lines until one that fits, "X:" is
// the end of the connection. In expected lines … is anything. Lines of the script are trimmed.
func (p *peer) talk(script string) {
	p.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "C:"):
			p.send(strings.TrimPrefix(line[2:], " ") + "\r\n")
		case line == "X:":
			p.closed()
		case strings.HasPrefix(line, "S:"):
			want := strings.TrimPrefix(line[2:], " ")
			if got := p.line(); !fits(want, got) {
				p.t.Fatalf("got  %q\nwant %q", got, want)
			}
		case strings.HasPrefix(line, "S-"):
			want := strings.TrimPrefix(line[2:], " ")
			for got := p.line(); !fits(want, got); got = p.line() {
				if !strings.HasPrefix(want, "* BYE") && !strings.HasPrefix(got, "*") && !strings.HasPrefix(got, "+") && strings.Contains(got, " OK ") {
					p.t.Fatalf("got %q while waiting for %q", got, want)
				}
			}
		default:
			p.t.Fatalf("bad script line %q", line)
		}
	}
}

func fits(want, got string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + "$").MatchString(got)
}

// certificate makes a self-signed certificate for localhost.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// letter makes a small message.
func letter(subject string) string {
	return "From: Ann <ann@example.org>\r\nTo: me@localhost\r\nSubject: " + subject +
		"\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@example.org>\r\nDate: Sat, 21 Nov 2026 09:30:00 +0000\r\n\r\nThe text of " +
		subject + ".\r\n"
}
