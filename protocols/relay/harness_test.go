package relay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
)

// A memory is a queue that keeps nothing: it retries what is postponed after 15 minutes, for five days.
type memory struct {
	mu      sync.Mutex
	entries []*entry
	wake    chan struct{}
	broken  error // of Settle
	settled []mailstore.Attempt
}

type entry struct {
	job     mailstore.Job
	text    string
	due     time.Time
	since   time.Time
	out     bool
	results map[int][]mailstore.AttemptResult
}

func (q *memory) add(job mailstore.Job, text string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	job.Message = cmp.Or(job.Message, fmt.Sprintf("m%d", len(q.entries)+1))
	job.Size = int64(len(text))
	for i := range job.Recipients {
		job.Recipients[i].Number = i
	}
	q.entries = append(q.entries, &entry{job: job, text: text, due: time.Now(), since: time.Now(), results: map[int][]mailstore.AttemptResult{}})
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *memory) Take(_ context.Context, n int, admit func(string) bool) (jobs []mailstore.Job, next time.Time, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	no := map[string]bool{}
	now := time.Now()
	for _, e := range q.entries {
		switch {
		case e.out || len(e.job.Recipients) == 0:
		case now.Before(e.due):
			if next.IsZero() || e.due.Before(next) {
				next = e.due
			}
		case len(jobs) < n && !no[e.job.Domain]:
			if !admit(e.job.Domain) {
				no[e.job.Domain] = true
				continue
			}
			e.out = true
			jobs = append(jobs, e.job)
		}
	}
	return jobs, next, nil
}

func (q *memory) Content(_ context.Context, message string) (mailstore.Content, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		if e.job.Message == message && e.text != "" {
			return content{strings.NewReader(e.text)}, nil
		}
	}
	return nil, mailstore.ErrNoMessage
}

type content struct{ *strings.Reader }

func (content) Close() error { return nil }

func (q *memory) Settle(_ context.Context, attempts []mailstore.Attempt) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broken != nil {
		return q.broken
	}
	for _, a := range attempts {
		q.settled = append(q.settled, a)
		for _, e := range q.entries {
			if e.job.Message != a.Message || e.job.Domain != a.Domain {
				continue
			}
			e.out = false
			var left []mailstore.JobRecipient
			for _, x := range e.job.Recipients {
				i := slices.IndexFunc(a.Results, func(y mailstore.AttemptResult) bool { return y.Recipient == x.Number })
				if i >= 0 {
					e.results[x.Number] = append(e.results[x.Number], a.Results[i])
				}
				if i < 0 || a.Results[i].Outcome == mailstore.Postponed {
					x.Attempts++
					left = append(left, x)
				}
			}
			e.job.Recipients = left
			e.due = time.Now().Add(15 * time.Minute)
			if time.Since(e.since) > 5*24*time.Hour {
				e.job.Recipients = nil
			}
			select { // it may be due before what Take has named
			case q.wake <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

func (q *memory) Wake() <-chan struct{} { return q.wake }

// forget keeps a message from being tried again.
func (q *memory) forget(message string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		if e.job.Message == message {
			e.job.Recipients = nil
		}
	}
}

// history returns what became of the recipients of a message, an attempt a line.
func (q *memory) history(message string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var b strings.Builder
	for _, e := range q.entries {
		if e.job.Message != message {
			continue
		}
		for i := range len(e.results) {
			for _, r := range e.results[i] {
				fmt.Fprintf(&b, "%d %s %s %q", i+1, r.Outcome, r.Status, r.Reply)
				if r.How != "" {
					fmt.Fprintf(&b, " (%s)", r.How)
				}
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// A zone answers questions about the DNS.
type zone struct {
	mx        map[string][]*net.MX
	addresses map[string]Addresses
	tlsa      map[string][]TLSA
	txt       map[string][]string
	failing   map[string]bool
	insecure  map[string]bool
	mu        sync.Mutex
	asked     []string
}

func (z *zone) ask(kind, name string) (authentic bool, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, kind+" "+name)
	if z.failing[kind+" "+name] {
		return false, &net.DNSError{Err: "server failure", Name: name, IsTemporary: true}
	}
	return !z.insecure[kind+" "+name], nil
}

func found[T any](z *zone, kind, name string, list []T) ([]T, bool, error) {
	authentic, err := z.ask(kind, name)
	if err == nil && len(list) == 0 {
		err = &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	return list, authentic && err == nil, err
}

func (z *zone) MX(_ context.Context, name string) ([]*net.MX, bool, error) {
	return found(z, "MX", name, z.mx[name])
}

func (z *zone) TLSA(_ context.Context, name string) ([]TLSA, bool, error) {
	return found(z, "TLSA", name, z.tlsa[name])
}

func (z *zone) TXT(_ context.Context, name string) ([]string, error) {
	list, _, err := found(z, "TXT", name, z.txt[name])
	return list, err
}

func (z *zone) Addresses(_ context.Context, name string) (Addresses, error) {
	a := z.addresses[name]
	_, authentic, err := found(z, "A", name, slices.Concat(a.IPv4, a.IPv6))
	a.Authentic = authentic
	return a, err
}

func ips(all ...string) (a Addresses) {
	for _, s := range all {
		if ip := netip.MustParseAddr(s); ip.Is4() {
			a.IPv4 = append(a.IPv4, ip)
		} else {
			a.IPv6 = append(a.IPv6, ip)
		}
	}
	return a
}

// A network leads to servers by address. What is not there refuses connections.
type network struct {
	mu      sync.Mutex
	servers map[string]func(net.Conn)
	dialled []string
	open    int
	most    int
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	serve := n.servers[address]
	n.dialled = append(n.dialled, address)
	n.mu.Unlock()
	if serve == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	ours, theirs := net.Pipe()
	n.mu.Lock()
	n.open++
	n.most = max(n.most, n.open)
	n.mu.Unlock()
	go func() {
		defer theirs.Close()
		serve(theirs)
		n.mu.Lock()
		n.open--
		n.mu.Unlock()
	}()
	return ours, nil
}

func (n *network) calls() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dialled)
}

// An authority signs certificates for servers.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// Bubbles of synctest begin at the start of 2000.
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{key, sign(t, c, c, key, key)}
}

func sign(t testing.TB, c, by *x509.Certificate, of, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &of.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// server returns a certificate for names, good until.
func (a *authority) server(t testing.TB, until time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: names,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key, a.key)
	return tls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key, Leaf: c}
}

// far is after everything in these tests.
func far() time.Time { return time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC) }

// A sink takes mail and remembers it.
type sink struct {
	mu    sync.Mutex
	mails []string // data, as it came over the wire
	rcpts []string
	conns int
	extra string // replies to EHLO, besides
	cert  *tls.Certificate
	// answer overrides replies: by command in capitals ("MAIL", "END", …); "" is the usual. Connections ask it at once.
	answer func(verb, line string) string
}

func (s *sink) serve(c net.Conn) {
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	r := newLines(c)
	say := func(verb, line, usual string) bool {
		text := usual
		if s.answer != nil {
			text = cmp.Or(s.answer(verb, line), usual)
		}
		if text == "close" {
			return false
		}
		if text == "hang" {
			_, _ = io.Copy(io.Discard, c)
			return false
		}
		_, err := io.WriteString(c, text+"\r\n")
		return err == nil && !strings.HasPrefix(text, "421")
	}
	if !say("", "", "220 sink ESMTP") {
		return
	}
	for {
		line, err := r.line()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		verb, _, _ = strings.Cut(verb, ":")
		usual := "250 2.0.0 ok"
		switch verb {
		case "EHLO", "LHLO":
			usual = "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n" + s.extra + "250 SIZE 0"
			if s.cert != nil {
				usual = strings.Replace(usual, "250-PIPE", "250-STARTTLS\r\n250-PIPE", 1)
			}
		case "STARTTLS":
			usual = "220 go"
		case "DATA":
			usual = "354 go"
		case "QUIT":
			usual = "221 bye"
		}
		if !say(verb, line, usual) || verb == "QUIT" {
			return
		}
		switch verb {
		case "STARTTLS":
			secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*s.cert}})
			if secured.Handshake() != nil {
				return
			}
			c, r = secured, newLines(secured)
		case "RCPT":
			s.mu.Lock()
			s.rcpts = append(s.rcpts, line)
			s.mu.Unlock()
		case "DATA":
			data, err := r.data()
			if err != nil {
				return
			}
			s.mu.Lock()
			if data != "" { // else it was for nobody
				s.mails = append(s.mails, data)
			}
			s.mu.Unlock()
			if !say("END", data, "250 2.0.0 taken") {
				return
			}
		}
	}
}

func (s *sink) count() (mails, conns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails), s.conns
}

// lines reads lines that end with CRLF, and with nothing else.
type lines struct {
	c    io.Reader
	kept []byte
}

func newLines(c io.Reader) *lines { return &lines{c: c} }

func (l *lines) until(end string) (string, error) {
	p := make([]byte, 64<<10)
	for {
		if i := bytes.Index(l.kept, []byte(end)); i >= 0 {
			s := string(l.kept[:i])
			l.kept = l.kept[i+len(end):]
			return s, nil
		}
		n, err := l.c.Read(p)
		if n == 0 && err != nil {
			return "", err
		}
		l.kept = append(l.kept, p[:n]...)
	}
}

func (l *lines) line() (string, error) { return l.until("\r\n") }

func (l *lines) data() (string, error) {
	l.kept = append([]byte("\r\n"), l.kept...) // a message may begin with its end
	s, err := l.until("\r\n.\r\n")
	return strings.TrimPrefix(s+"\r\n", "\r\n"), err
}

// quiet logs nothing.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// to makes recipients.
func to(addresses ...string) (list []mailstore.JobRecipient) {
	for _, a := range addresses {
		list = append(list, mailstore.JobRecipient{OutgoingRecipient: mailstore.OutgoingRecipient{Address: a}})
	}
	return list
}

const letter = "Subject: hello\r\n\r\nIt works.\r\n"

// caRoots is Options.Roots.
func caRoots(ca *authority) func(string) (*x509.CertPool, error) {
	return func(string) (*x509.CertPool, error) { return ca.pool(), nil }
}
