package smtp_test

import (
	"bufio"
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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
	"sluice/protocols/smtp"
)

// A directory knows accounts and aliases.
type directory map[string][]string

func (d directory) Resolve(_ context.Context, local, domain string) ([]string, error) {
	switch {
	case local == "panic":
		panic("in the directory")
	case local == "offline":
		return nil, errors.New("database is locked: /secret/path")
	case domain == "" && local == "postmaster":
		return []string{"me@example.org"}, nil
	case domain != "" && domain != "example.org":
		return nil, fmt.Errorf("%s@%s: %w", local, domain, mailstore.ErrForeign)
	}
	for _, name := range []string{local, strings.Split(local, "+")[0]} {
		if accounts, ok := d[name]; ok {
			return accounts, nil
		}
	}
	return nil, fmt.Errorf("%s@%s: %w", local, domain, mailstore.ErrNoAccount)
}

func (d directory) Authenticate(context.Context, string, string) (string, error) {
	return "", mailstore.ErrPassword
}

var everybody = directory{
	"me": {"me@example.org"}, "you": {"you@example.org"}, "she": {"she@example.org"}, "full": {"full@example.org"},
	"team": {"me@example.org", "you@example.org"}, "info": {"me@example.org"}, "private": {"me@example.org"},
	"postmaster": {"me@example.org"}, "some": {"full@example.org", "you@example.org"},
	"deleted": {"deleted@example.org"}, "ümlaut": {"me@example.org"},
	"keep": {"keep@example.org"}, "reject": {"reject@example.org"}, "reject2": {"reject2@example.org"},
	"tempfail": {"tempfail@example.org"}, "discard": {"discard@example.org"}, "hold": {"hold@example.org"},
	"early": {"early@example.org"}, "junk": {"junk@example.org"}, "mixed": {"me@example.org", "tempfail@example.org"},
	"half": {"me@example.org", "reject@example.org"}, "later": {"me@example.org", "later@example.org"},
	"held": {"me@example.org", "hold@example.org"},
}

// A store keeps what was delivered, by account.
type store struct {
	mailstore.Store // nothing else is called
	mu              sync.Mutex
	mail            map[string][]delivered
	err             error
	hold            chan struct{} // Deliver waits for it, if it is there
	entered         chan struct{}
}

type delivered struct {
	folder string
	flags  []string
	text   string
}

func (s *store) Room(_ context.Context, account string, size int64) error {
	switch {
	case account == "full@example.org" && (size == 0 || size > 100):
		return fmt.Errorf("%s: %w", account, mailstore.ErrQuota)
	case account == "deleted@example.org":
		return fmt.Errorf("%s: %w", account, mailstore.ErrNoAccount)
	}
	return nil
}

func (s *store) Deliver(_ context.Context, items []mailstore.Item) ([]mailstore.Placed, error) {
	if s.entered != nil {
		close(s.entered)
	}
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	placed := make([]mailstore.Placed, len(items))
	texts := make([]string, len(items))
	for i, it := range items {
		b, err := io.ReadAll(it.Content)
		if err != nil {
			return nil, err
		}
		texts[i] = string(b)
		placed[i] = mailstore.Placed{Folder: it.Folder, File: "file-" + it.ID}
	}
	for i, it := range items {
		s.mail[it.Account] = append(s.mail[it.Account], delivered{it.Folder, it.Flags, texts[i]})
	}
	return placed, nil
}

// got returns what an account got.
func (s *store) got(account string) []delivered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mail[account])
}

// all returns who got mail, in order, once for each copy.
func (s *store) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for account, mail := range s.mail {
		name, _, _ := strings.Cut(account, "@")
		out = append(out, slices.Repeat([]string{name}, len(mail))...)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A quarantine keeps a row for each mail and recipient.
type quarantine struct {
	mu   sync.Mutex
	rows []string // "reject rules: 550 …"
	text string
	err  error
}

func (q *quarantine) Hold(_ context.Context, h mailstore.Held) ([]string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	b, err := io.ReadAll(h.Content)
	if err != nil {
		return nil, err
	}
	q.text = string(b)
	var ids []string
	for _, r := range h.Recipients {
		row := h.SHA256[:8] + " " + r.Address + " " + r.Reason
		i := slices.Index(q.rows, row)
		if i < 0 {
			i = len(q.rows)
			q.rows = append(q.rows, row)
		}
		ids = append(ids, strconv.Itoa(i))
	}
	return ids, nil
}

func (q *quarantine) held() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []string
	for _, row := range q.rows {
		name, _, _ := strings.Cut(strings.Fields(row)[1], "@")
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// byName is a step whose verdict is the recipient's name. early@ and later@ are refused at RCPT, the others after DATA.
func byName() pipeline.Step {
	all := []pipeline.Final{{Action: pipeline.Keep}, {Action: pipeline.Discard}, {Action: pipeline.Quarantine}, {Action: pipeline.TempFail}, {Action: pipeline.Reject}}
	says := func(_ context.Context, v pipeline.View) (r pipeline.Result, err error) {
		switch v.Rcpt.Account {
		case "keep@example.org":
			r.Verdict.Action = pipeline.Keep
		case "discard@example.org":
			r.Verdict.Action = pipeline.Discard
		case "hold@example.org":
			r.Verdict = pipeline.Verdict{Action: pipeline.Quarantine, By: "suspicious"}
		case "tempfail@example.org":
			r.Verdict = pipeline.Verdict{Action: pipeline.TempFail, Reply: pipeline.Reply{Code: 451, Enhanced: "4.7.1", Text: "come again"}}
		case "reject@example.org", "reject2@example.org":
			name, _, _ := strings.Cut(v.Rcpt.Account, "@")
			r.Verdict = pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "no, says " + name}}
		case "junk@example.org":
			r.Hits = []pipeline.Hit{{Name: "viagra", Score: 7.5}}
			r.Effects = []pipeline.Effect{
				{Kind: pipeline.FileInto, Folder: "Junk", Threshold: true},
				{Kind: pipeline.AddFlags, Flags: []string{"$Junk"}},
			}
			r.Edits = []pipeline.Edit{{Name: "X-Rule", Value: "häm\r\nBcc: all"}, {Name: "X-Loud", Delete: true}}
		}
		return r, nil
	}
	early := pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipient, Can: []pipeline.Final{{Action: pipeline.Reject}, {Action: pipeline.TempFail}}},
		Says: func(_ context.Context, v pipeline.View) (r pipeline.Result, err error) {
			switch v.Rcpt.Account {
			case "early@example.org":
				r.Verdict = pipeline.Verdict{Action: pipeline.Reject, Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "early"}}
			case "later@example.org":
				r.Verdict = pipeline.Verdict{Action: pipeline.TempFail, Reply: pipeline.Reply{Code: 451, Enhanced: "4.7.1", Text: "later"}}
			}
			return r, nil
		},
	}
	return pipelinetest.Step("rules", early, pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Can: all}, Says: says,
	})
}

// A door is a server under test, and its world.
type door struct {
	t       *testing.T
	cfg     smtp.Config
	opts    listen.Options
	listen  listen.Config
	from    string // whom clients seem to be, "192.0.2.1:25"; "" is loopback
	options pipeline.Options
	steps   []pipeline.Step
	journal *pipelinetest.Journal
	store   *store
	held    *quarantine
	log     *logged
	server  *smtp.Server
	l       *listen.Listener
	served  chan error
}

// logged is a log to look into.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// open opens a door; change may change what it is made of.
func open(t *testing.T, change func(*door)) *door {
	t.Helper()
	d := &door{
		t: t, journal: &pipelinetest.Journal{}, store: &store{mail: map[string][]delivered{}}, held: &quarantine{}, log: &logged{},
		steps: []pipeline.Step{byName()}, listen: listen.Config{Address: "127.0.0.1:0"}, served: make(chan error, 1),
	}
	logger := slog.New(slog.NewTextHandler(d.log, nil))
	d.cfg = smtp.Config{
		Hostname: "mx.example.org", Directory: everybody, Store: d.store, Quarantine: d.held,
		Handover: pipeline.Handover{Key: []byte("secret")},
		Now:      func() time.Time { return noon },
		Log:      logger,
	}
	d.opts = listen.Options{HasStartTLS: true, Busy: smtp.Busy, Goodbye: smtp.Goodbye, Log: logger}
	if change != nil {
		change(d)
	}
	d.opts.Trusted = d.cfg.Trusted
	env := pipelinetest.Env(t)
	env.Journal, env.Now = d.journal, d.cfg.Now
	var mu sync.Mutex
	ids := 0
	env.NewID = func() string {
		mu.Lock()
		defer mu.Unlock()
		ids++
		return fmt.Sprintf("id%d", ids)
	}
	plan, err := pipeline.NewPlan(d.steps, env, d.options)
	if err != nil {
		t.Fatal(err)
	}
	d.cfg.Plan = func() *pipeline.Plan { return plan }
	if d.l, err = listen.Open(t.Context(), d.listen, d.opts); err != nil {
		t.Fatal(err)
	}
	if d.from != "" {
		d.l.Listener = elsewhere{d.l.Listener, d.from}
	}
	d.server = smtp.New(d.cfg)
	go func() { d.served <- d.server.Serve(d.l) }() // ends with the Shutdown below
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = d.server.Shutdown(ctx)
		select {
		case err := <-d.served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Serve did not return")
		}
	})
	return d
}

// elsewhere is a listener whose connections come from an address of one's choice.
type elsewhere struct {
	net.Listener
	addr string
}

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return at{c, l.addr}, nil
}

type at struct {
	net.Conn
	addr string
}

func (c at) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)) }

// A client talks to a door.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (d *door) dial() *client {
	d.t.Helper()
	c, err := net.Dial(d.l.Addr().Network(), d.l.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return newClient(d.t, c)
}

func newClient(t *testing.T, c net.Conn) *client { return &client{t, c, bufio.NewReader(c)} }

// talk holds a dialogue, a line each:
//
//	C: a line for the server, sent with CRLF; lines in a row are sent at once
//	R: "octets for the server, as a Go string"
//	S: a line of the server, "*" stands for anything within it
//	S: EOF
func (c *client) talk(dialogue string) {
	c.t.Helper()
	var out strings.Builder
	flush := func() {
		if out.Len() > 0 {
			_, _ = io.WriteString(c, out.String()) // the server may have gone; what it said counts
			out.Reset()
		}
	}
	for line := range strings.Lines(dialogue) {
		line = strings.TrimSpace(line)
		what, rest, _ := strings.Cut(line, ":")
		rest = strings.TrimPrefix(rest, " ")
		switch what {
		case "C":
			out.WriteString(rest + "\r\n")
		case "R":
			s, err := strconv.Unquote(rest)
			if err != nil {
				c.t.Fatalf("%s: %v", line, err)
			}
			out.WriteString(s)
		case "S":
			flush()
			got, err := c.r.ReadString('\n')
			switch {
			case rest == "EOF":
				if err == nil || got != "" {
					c.t.Fatalf("S: %q, want the end", got)
				}
			case err != nil:
				c.t.Fatalf("%v (%q), want S: %s", err, got, rest)
			case !matches(rest, got):
				c.t.Fatalf("S: %q, want %q", got, rest)
			}
		case "":
		default:
			c.t.Fatalf("not a line of a dialogue: %s", line)
		}
	}
	flush()
}

func matches(want, got string) bool {
	parts := strings.Split(want, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "\r\n$").MatchString(got)
}

const (
	greeting = `
		S: 220 mx.example.org ESMTP Service Ready
		C: HELO client.example
		S: 250 2.0.0 Hello client.example
	`
	lmtpGreeting = `
		S: 220 mx.example.org LMTP Service Ready
		C: LHLO mta.example
		S: 250-Hello mta.example
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-ENHANCEDSTATUSCODES
		S: 250-CHUNKING
		S: 250-SMTPUTF8
		S: 250-DSN
		S: 250-SIZE 52428800
		S: 250 LIMITS RCPTMAX=100
	`
)

// certificate makes a certificate for localhost.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// trust trusts loopback, as the default configuration does.
func trust(d *door) { d.cfg.Trusted = netip.Addr.IsLoopback }

// lmtp makes the door an LMTP one.
func lmtp(d *door) { d.cfg.LMTP = true; trust(d) }

// says is a stage's Check that always says the same.
func says(r pipeline.Result) func(context.Context, pipeline.View) (pipeline.Result, error) {
	return func(context.Context, pipeline.View) (pipeline.Result, error) { return r, nil }
}

// sees is a stage's Check that keeps the message it is shown.
func sees(text *string) func(context.Context, pipeline.View) (pipeline.Result, error) {
	return func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
		b, err := io.ReadAll(v.Message.Raw())
		*text = string(b)
		return pipeline.Result{}, err
	}
}

// whom is a stage's Check that keeps whom it is asked about.
func whom(clients *[]pipeline.Client) func(context.Context, pipeline.View) (pipeline.Result, error) {
	return func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
		*clients = append(*clients, v.Client)
		return pipeline.Result{}, nil
	}
}

// panicking is a store that panics when mail is delivered.
type panicking struct{ *store }

func (panicking) Deliver(context.Context, []mailstore.Item) ([]mailstore.Placed, error) {
	panic("disk on fire")
}
