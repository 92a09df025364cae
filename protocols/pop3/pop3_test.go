package pop3

import (
	"bufio"
	"bytes"
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
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/maildir"
	"sluice/protocols/listen"
	"sluice/protocols/peertest"
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

type site struct {
	t       testing.TB
	store   *maildir.Store
	people  *people
	server  *Server
	address string
}

type options struct {
	limits  Limits
	listen  listen.Config
	conn    listen.Limits
	store   func(mailstore.Store) mailstore.Store
	trusted func(netip.Addr) bool
}

func start(t testing.TB, o options) *site {
	t.Helper()
	dir := t.TempDir()
	md, err := maildir.Open(maildir.Config{
		Root: filepath.Join(dir, "mail"), Users: filepath.Join(dir, "users"), Hostname: "test",
		Exists: func(context.Context, string) (bool, error) { return true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = md.Close() })
	log := slog.New(slog.DiscardHandler)
	if o.listen.Address == "" {
		o.listen.Address = "127.0.0.1:0"
	}
	l, err := listen.Open(t.Context(), o.listen, listen.Options{
		Limits: o.conn, TLS: certificate(t), HasStartTLS: true, Busy: Busy, Goodbye: Goodbye, Log: log, Trusted: o.trusted,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, store: md, people: &people{}, address: l.Addr().String()}
	var store mailstore.Store = md
	if o.store != nil {
		store = o.store(md)
	}
	s.server = New(Config{
		Store: store, Directory: s.people, Logins: &listen.Logins{First: time.Nanosecond, Most: time.Nanosecond, Log: log},
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

func (s *site) deliver(messages ...string) {
	s.t.Helper()
	for i, m := range messages {
		item := mailstore.Item{Account: me, ID: fmt.Sprintf("id%d", i), Date: time.Unix(1_800_000_000+int64(i), 0), Content: strings.NewReader(m)}
		if _, err := s.store.Deliver(context.Background(), []mailstore.Item{item}); err != nil {
			s.t.Fatal(err)
		}
		s.count() // so that they get their UIDs in this order
	}
}

// count returns how many messages the inbox has.
func (s *site) count() int {
	s.t.Helper()
	a, err := s.store.Account(context.Background(), me)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Close()
	f, err := a.Open(context.Background(), mailstore.Inbox)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := f.Messages(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(l.Messages)
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

func (s *site) login() *peer {
	s.t.Helper()
	p := s.dial()
	p.talk("S: +OK …\nC: USER me\nS: +OK …\nC: PASS open sesame\nS: +OK …")
	return p
}

func (p *peer) send(s string) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// talk plays a dialogue: "C: " lines are sent, "S: " lines are expected, where … is anything, "X:" is the end of the
// connection.
func (p *peer) talk(script string) {
	p.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		line = strings.TrimSpace(line)
		_ = p.conn.SetReadDeadline(time.Now().Add(patience))
		switch {
		case line == "":
		case strings.HasPrefix(line, "C:"):
			p.send(strings.TrimPrefix(line[2:], " ") + "\r\n")
		case line == "X:":
			rest, err := io.ReadAll(p.br)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
				p.t.Fatalf("the connection stays open: %q", rest)
			}
		case strings.HasPrefix(line, "S:"):
			want := strings.TrimPrefix(line[2:], " ")
			got, err := p.br.ReadString('\n')
			if err != nil || !strings.HasSuffix(got, "\r\n") {
				p.t.Fatalf("read %q, %v; want %q", got, err, want)
			}
			got = strings.TrimSuffix(got, "\r\n")
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

func plain(authzid, name, word string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + name + "\x00" + word))
}

const (
	first  = "Subject: one\r\n\r\nline 1\r\n.dot\r\n..\r\n\r\nline 5\r\n"
	second = "Subject: two\r\n\r\nshort\r\n"
)

func TestDialogues(t *testing.T) {
	const login = `
		S: +OK mx.test ready
		C: USER me
		S: +OK and the password?
		C: PASS open sesame
		S: +OK 2 messages
		`
	tests := []struct{ name, script string }{
		{"before login", `
			S: +OK mx.test ready
			C: capa
			S: +OK …
			S: TOP
			S: UIDL
			S: RESP-CODES
			S: AUTH-RESP-CODE
			S: PIPELINING
			S: STLS
			S: USER
			S: SASL PLAIN
			S: .
			C: STAT
			S: -ERR log in first
			C: PASS x
			S: -ERR USER comes before PASS
			C: USER
			S: -ERR USER takes a name
			C: XYZZY
			S: -ERR unknown command
			C: LAST
			S: -ERR unknown command
			C: APOP me 123
			S: -ERR unknown command
			C: QUIT
			S: +OK bye
			X:`},
		{"maildrop", login + `
			C: STAT
			S: +OK 2 67
			C: LIST
			S: +OK 2 messages (67 octets)
			S: 1 44
			S: 2 23
			S: .
			C: LIST 2
			S: +OK 2 23
			C: LIST 3
			S: -ERR no such message
			C: RETR 1
			S: +OK 44 octets
			S: Subject: one
			S:
			S: line 1
			S: ..dot
			S: ...
			S:
			S: line 5
			S: .
			C: TOP 1 2
			S: +OK the top of the message
			S: Subject: one
			S:
			S: line 1
			S: ..dot
			S: .
			C: TOP 1 0
			S: +OK the top of the message
			S: Subject: one
			S:
			S: .
			C: TOP 2 99
			S: +OK the top of the message
			S: Subject: two
			S:
			S: short
			S: .
			C: TOP 2
			S: -ERR TOP takes a message and a number of lines
			C: TOP 2 -1
			S: -ERR TOP takes a message and a number of lines
			C: RETR 0
			S: -ERR no such message
			C: RETR 99999999999999999999
			S: -ERR this takes the number of a message
			C: RETR
			S: -ERR this takes the number of a message
			C: NOOP
			S: +OK …
			C: USER me
			S: -ERR you have logged in already
			C: STLS
			S: -ERR you have logged in already
			C: DELE 1
			S: +OK message 1 is marked
			C: DELE 1
			S: -ERR no such message
			C: RETR 1
			S: -ERR no such message
			C: UIDL 1
			S: -ERR no such message
			C: STAT
			S: +OK 1 23
			C: LIST
			S: +OK 1 messages (23 octets)
			S: 2 23
			S: .
			C: RSET
			S: +OK 2 messages (67 octets)
			C: STAT
			S: +OK 2 67
			C: QUIT
			S: +OK bye
			X:`},
		{"auth plain", `
			S: +OK …
			C: AUTH CRAM-MD5
			S: -ERR the mechanisms are PLAIN
			C: AUTH PLAIN ????
			S: -ERR this is no response of PLAIN
			C: AUTH PLAIN
			S: +…
			C: *
			S: -ERR AUTH cancelled
			C: AUTH PLAIN ` + plain("you", "me", password) + `
			S: -ERR [AUTH] nobody acts for somebody else here
			C: AUTH PLAIN
			S: +…
			C: ` + plain("", "me", password) + `
			S: +OK 2 messages`},
		{"auth with initial response", "S: +OK …\nC: AUTH PLAIN " + plain("me", "me", password) + "\nS: +OK 2 messages"},
		{"three failures end the connection", `
			S: +OK …
			C: USER me
			S: +OK and the password?
			C: PASS wrong
			S: -ERR [AUTH] wrong name or password
			C: USER nobody
			S: +OK and the password?
			C: PASS wrong
			S: -ERR [AUTH] wrong name or password
			C: AUTH PLAIN ` + plain("", "me", "wrong") + `
			S: -ERR [AUTH] wrong name or password
			S: -ERR [AUTH] too many failed logins
			X:`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{})
			s.deliver(first, second)
			s.dial().talk(tt.script)
			if n := s.count(); n != 2 {
				t.Errorf("%d messages are left", n)
			}
		})
	}
}

func TestPipelining(t *testing.T) {
	s := start(t, options{})
	s.deliver(second)
	p := s.dial()
	p.send("USER me\r\nPASS open sesame\r\nSTAT\nRETR 1\r\nDELE 1\r\nQUIT\r\nSTAT\r\n")
	p.talk("S: +OK …\nS: +OK …\nS: +OK 1 messages\nS: +OK 1 23\nS: +OK 23 octets\nS: Subject: two\nS:\nS: short\nS: .\nS: +OK …\nS: +OK bye\nX:")
	if n := s.count(); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestOnlyQuitRemoves(t *testing.T) {
	s := start(t, options{})
	s.deliver(first, second)
	p := s.login()
	p.talk("C: DELE 1\nS: +OK …\nC: DELE 2\nS: +OK …")
	_ = p.conn.Close()
	// The account is free again once the session has noticed.
	peertest.Eventually(t, func() error {
		p := s.dial()
		defer p.conn.Close()
		p.talk("S: +OK …\nC: USER me\nS: +OK …\nC: PASS open sesame")
		if line, err := p.br.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK 2 messages") {
			return errors.Join(err, fmt.Errorf("it says %q", line))
		}
		p.talk("C: DELE 2\nS: +OK …\nC: QUIT\nS: +OK bye\nX:")
		return nil
	})
	if n := s.count(); n != 1 {
		t.Errorf("%d messages are left", n)
	}
}

// leaving is a store whose accounts can go.
type leaving struct {
	mailstore.Store
	gone atomic.Bool
}

func (s *leaving) Account(ctx context.Context, name string) (mailstore.Account, error) {
	if s.gone.Load() {
		return nil, mailstore.ErrNoAccount
	}
	return s.Store.Account(ctx, name)
}

func TestADeletedAccountEndsItsSessions(t *testing.T) {
	l := &leaving{}
	s := start(t, options{store: func(m mailstore.Store) mailstore.Store { l.Store = m; return l }})
	s.deliver("Subject: one\r\n\r\nx\r\n")
	p := s.login()
	p.talk(`
		C: DELE 1
		S: +OK …`)
	l.gone.Store(true)
	p.talk(`
		C: QUIT
		S: -ERR this account has been deleted
		X:`)
	l.gone.Store(false)
	if n := s.count(); n != 1 {
		t.Errorf("there are %d messages", n)
	}
}

func TestOneSessionAtATime(t *testing.T) {
	s := start(t, options{})
	p := s.login()
	q := s.dial()
	q.talk("S: +OK …\nC: USER me\nS: +OK …\nC: PASS open sesame\nS: -ERR [IN-USE] another POP3 session has this mailbox")
	p.talk("C: QUIT\nS: +OK bye\nX:")
	q.talk("C: USER me\nS: +OK …\nC: PASS open sesame\nS: +OK 0 messages")
}

func TestUniqueIDsStay(t *testing.T) {
	s := start(t, options{})
	s.deliver(first, second)
	uidl := func() []string {
		p := s.login()
		p.talk("C: UIDL\nS: +OK …")
		var ids []string
		for {
			line, err := p.br.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == ".\r\n" {
				break
			}
			ids = append(ids, strings.Fields(line)[1])
		}
		p.talk("C: UIDL 1\nS: +OK 1 " + ids[0] + "\nC: DELE 1\nS: +OK …\nC: QUIT\nS: +OK bye\nX:")
		return ids
	}
	a := uidl()
	b := uidl()
	if len(a) != 2 || len(b) != 1 || a[1] != b[0] || a[0] == a[1] {
		t.Errorf("first %q, then %q", a, b)
	}
	for _, tt := range []struct {
		m    mailstore.Message
		want string
	}{
		{mailstore.Message{UID: 7, File: "1700.abc_1.host"}, "1700.abc_1.host"},
		{mailstore.Message{UID: 7}, "0000000900000007"},
		{mailstore.Message{UID: 7, File: strings.Repeat("x", 71)}, "87a1e4c1c92b7b7a7c46433d780de6cc"},
		{mailstore.Message{UID: 7, File: "a b"}, "c8687a08aa5d6ed2044328fa6a697ab8"},
	} {
		if got := uniqueID(9, tt.m); got != tt.want {
			t.Errorf("%+v: %s", tt.m, got)
		}
	}
}

func TestLimits(t *testing.T) {
	s := start(t, options{limits: Limits{LoginOctets: 3000}})
	s.dial().talk("S: +OK …\nC: USER " + strings.Repeat("x", 1024) + "\nS: -ERR the line is too long\nX:")
	p := s.dial()
	p.send(strings.Repeat("USER "+strings.Repeat("x", 900)+"\r\n", 4))
	p.talk("S: +OK …")
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "-ERR too much before login\r\n" {
			break
		}
	}
	p.talk("X:")
	p = s.dial()
	p.send(strings.Repeat("X\r\n", 20))
	p.talk("S: +OK …\n" + strings.Repeat("S: -ERR unknown command\n", 20) + "S: -ERR too many bad commands\nX:")
	s = start(t, options{limits: Limits{LoginTime: 50 * time.Millisecond}})
	s.dial().talk("S: +OK …\nS: -ERR you have been silent for too long\nX:")
	s = start(t, options{limits: Limits{Idle: 50 * time.Millisecond}})
	s.login().talk("S: -ERR you have been silent for too long\nX:")
}

func TestStartTLS(t *testing.T) {
	s := start(t, options{})
	p := s.dial()
	p.talk("S: +OK …\nC: STLS\nS: +OK begin TLS now")
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p = &peer{t: t, conn: c, br: bufio.NewReader(c)}
	p.talk("C: STLS\nS: -ERR STLS is not available\nC: USER me\nS: +OK …\nC: PASS open sesame\nS: +OK 0 messages")

	p = s.dial()
	p.send("STLS\r\nUSER me\r\nPASS open sesame\r\n")
	p.talk("S: +OK …\nS: +OK begin TLS now\nX:")

	s = start(t, options{conn: listen.Limits{HandshakeTimeout: 100 * time.Millisecond}})
	s.dial().talk("S: +OK …\nC: STLS\nS: +OK begin TLS now\nX:")
}

func TestPasswordsOverCleartext(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	address := ""
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			address = p.Addr().String() + ":0"
		}
	}
	if address == "" {
		t.Skip("this machine has loopback alone")
	}
	s := start(t, options{listen: listen.Config{Address: address}})
	s.dial().talk(`
		S: +OK …
		C: CAPA
		S: +OK …
		S: TOP
		S: UIDL
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: PIPELINING
		S: STLS
		S: .
		C: USER me
		S: -ERR begin TLS first
		C: AUTH PLAIN ` + plain("", "me", password) + `
		S: -ERR begin TLS first`)
	if s.people.asked != 0 {
		t.Error("a password was looked at")
	}
	s = start(t, options{listen: listen.Config{Address: address}, trusted: func(netip.Addr) bool { return true }})
	s.login()
}

func TestShutdown(t *testing.T) {
	s := start(t, options{})
	s.deliver(first)
	fresh, idle := s.dial(), s.login()
	fresh.talk("S: +OK …")
	idle.talk("C: DELE 1\nS: +OK …")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	fresh.talk("S: -ERR [SYS/TEMP] the server is shutting down\nX:")
	idle.talk("S: -ERR [SYS/TEMP] the server is shutting down\nX:")
	if n := s.count(); n != 1 {
		t.Errorf("%d messages are left", n)
	}
}

// trapped is a store whose inboxes fail.
type trapped struct {
	mailstore.Store
	remove, content error
}

type trappedAccount struct {
	mailstore.Account
	s *trapped
}

type trappedFolder struct {
	mailstore.Folder
	s *trapped
}

func (s *trapped) Account(ctx context.Context, name string) (mailstore.Account, error) {
	a, err := s.Store.Account(ctx, name)
	if err != nil {
		return nil, err
	}
	return trappedAccount{a, s}, nil
}

func (a trappedAccount) Open(ctx context.Context, name string) (mailstore.Folder, error) {
	f, err := a.Account.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return trappedFolder{f, a.s}, nil
}

func (f trappedFolder) Remove(context.Context, []uint32) error { return f.s.remove }

func (f trappedFolder) Content(context.Context, uint32) (mailstore.Content, error) {
	return nil, f.s.content
}

func TestFailures(t *testing.T) {
	broken := &trapped{remove: errors.New("the disk is on fire"), content: errors.New("the disk is on fire")}
	s := start(t, options{store: func(st mailstore.Store) mailstore.Store { broken.Store = st; return broken }})
	s.deliver(first)
	p := s.login()
	p.talk("C: RETR 1\nS: -ERR [SYS/TEMP] this failed, try again later")
	broken.content = fmt.Errorf("message 1: %w", mailstore.ErrNoMessage)
	p.talk("C: TOP 1 1\nS: -ERR the message is gone\nC: DELE 1\nS: +OK …")
	p.talk("C: QUIT\nS: -ERR [SYS/TEMP] deleted messages could not be removed\nX:")
	s.people.mu.Lock()
	s.people.broken = errors.New("no database")
	s.people.mu.Unlock()
	s.dial().talk("S: +OK …\nC: USER me\nS: +OK …\nC: PASS open sesame\nS: -ERR [SYS/TEMP] this failed, try again later")
}

func TestSendLines(t *testing.T) {
	tests := []struct {
		in    string
		lines int
		want  string
	}{
		{"", -1, ".\r\n"},
		{".", -1, "..\r\n.\r\n"},
		{"a", -1, "a\r\n.\r\n"},
		{"a\r\n.\r\n", -1, "a\r\n..\r\n.\r\n"},
		{"A: b\r\n\r\n1\r\n2\r\n", 1, "A: b\r\n\r\n1\r\n.\r\n"},
		{"A: b\r\n", 1, "A: b\r\n.\r\n"},
		{strings.Repeat(".", 100_000) + "\r\n", -1, "." + strings.Repeat(".", 100_000) + "\r\n.\r\n"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := sendLines(w, strings.NewReader(tt.in), tt.lines); err != nil {
			t.Fatal(err)
		}
		_ = w.Flush()
		if out.String() != tt.want {
			t.Errorf("%.40q: %.40q", tt.in, out.String())
		}
	}
	// The n-th write fails: so does the whole.
	for n := range 5 {
		w := bufio.NewWriterSize(&failing{after: n}, 16)
		if err := errors.Join(sendLines(w, strings.NewReader(first), -1), w.Flush()); err == nil && n < 4 {
			t.Errorf("after %d writes: no error", n)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errors.New("broken pipe")
	}
	return len(p), nil
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"USER me", "PASS open  sesame ", "", " ", "TOP 1 1", "\x00", "RETR\t1", "ÜSER x", "LIST 4294967297"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		keyword, arg, ok := parseCommand(line)
		if !ok {
			return
		}
		if keyword == "" || keyword != strings.ToUpper(keyword) || strings.ContainsAny(keyword+arg, "\x00\r\n") || strings.Contains(keyword, " ") {
			t.Fatalf("%q is %q and %q", line, keyword, arg)
		}
		var out bytes.Buffer
		c := &session{bw: bufio.NewWriter(&out), deleted: map[int]bool{}, messages: make([]mailstore.Message, 2)}
		if keyword == "LIST" || keyword == "DELE" || keyword == "UIDL" {
			if err := c.transaction(keyword, arg); err != nil {
				if _, ok := errors.AsType[reply](err); !ok {
					t.Fatalf("%q: %v", line, err)
				}
			}
		}
	})
}

const poplibScript = `
import poplib, sys
m = poplib.POP3(sys.argv[1], int(sys.argv[2]))
assert b'ready' in m.getwelcome()
caps = m.capa()
assert 'UIDL' in caps and 'STLS' in caps and caps['SASL'] == ['PLAIN'], caps
m.user('me@localhost')
m.pass_('open sesame')
assert m.stat() == (2, 67), m.stat()
r, lines, octets = m.retr(1)
assert lines == [b'Subject: one', b'', b'line 1', b'.dot', b'..', b'', b'line 5'], lines
assert octets == 44, octets
assert m.list()[1] == [b'1 44', b'2 23']
assert len(set(l.split()[1] for l in m.uidl()[1])) == 2
assert m.top(1, 1)[1] == [b'Subject: one', b'', b'line 1']
m.dele(1)
m.quit()
m = poplib.POP3(sys.argv[1], int(sys.argv[2]))
import ssl
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
m.stls(c)
m.user('me'); m.pass_('open sesame')
assert m.stat() == (1, 23), m.stat()
m.quit()
print('done')
`

func TestPoplib(t *testing.T) {
	peertest.Need(t, "python3")
	s := start(t, options{})
	s.deliver(first, second)
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	if out := peertest.Python(t, poplibScript, host, port); strings.TrimSpace(out) != "done" {
		t.Errorf("it says %q", out)
	}
}

func TestCurl(t *testing.T) {
	peertest.Need(t, "curl")
	s := start(t, options{})
	s.deliver(first, second)
	if out := peertest.Curl(t, "--user", "me:"+password, "pop3://"+s.address+"/1"); out != first {
		t.Errorf("it reads %q", out)
	}
	if out := peertest.Curl(t, "--user", "me:"+password, "--ssl-reqd", "--insecure", "pop3://"+s.address+"/"); out != "1 44\r\n2 23\r\n" {
		t.Errorf("it lists %q", out)
	}
}
