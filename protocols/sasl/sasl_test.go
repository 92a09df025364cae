package sasl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// house has one account, "user", whose password is "pencil", with the salts of the examples in RFC 5802 and RFC 7677.
type house struct {
	offers []string
	broken error
	fixed  *mailstore.Keys // of every name
}

func (h house) Resolve(context.Context, string, string) ([]string, error) {
	return nil, mailstore.ErrNoAccount
}

func (h house) Authenticate(_ context.Context, login, password string) (string, error) {
	if h.broken != nil {
		return "", h.broken
	}
	if login != "user" || password != "pencil" {
		return "", mailstore.ErrPassword
	}
	return "user@example.org", nil
}

func (h house) Mechanisms(context.Context) ([]string, error) { return h.offers, nil }

func (h house) Keys(_ context.Context, login, mechanism string) (string, mailstore.Keys, error) {
	if h.broken != nil {
		return "", mailstore.Keys{}, h.broken
	}
	if h.fixed != nil {
		return "user@example.org", *h.fixed, nil
	}
	salt, hash := "QSXCR+Q6sek8bf92", scram.SHA1
	if mechanism == "SCRAM-SHA-256" {
		salt, hash = "W22ZaJ0SNY7soEsUEjb6gQ==", scram.SHA256
	}
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		return "", mailstore.Keys{}, err
	}
	account, password := "user@example.org", "pencil"
	if login != "user" {
		account, password = "", "nobody's"
	}
	client, err := hash.NewClient("", password, "")
	if err != nil {
		return "", mailstore.Keys{}, err
	}
	k, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(raw), Iters: 4096})
	return account, mailstore.Keys{Salt: raw, Iterations: 4096, Stored: k.StoredKey, Server: k.ServerKey}, err
}

var all = []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"}

func server(h house, nonce string) *Server {
	s := &Server{
		Door: "test", Directory: h, Keys: h, Login: true, Log: slog.New(slog.DiscardHandler),
		Logins: &listen.Logins{Log: slog.New(slog.DiscardHandler), First: time.Nanosecond, Most: time.Nanosecond},
	}
	if nonce != "" {
		s.nonce = func() string { return nonce }
	}
	return s
}

var somebody = Client{Addr: netip.MustParseAddr("192.0.2.1")}

// What is said is written here as it is below base64; "C:" of what a client cannot have encoded so begins with "!".
func TestExchanges(t *testing.T) {
	const (
		first1, final1     = "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,"
		first256, final256 = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
		nonce1, nonce256   = "3rfcNHYJY1ZVvWVs7j", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		asks1              = "S: r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096\n"
		asks256            = "S: r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096\n"
		proof1, proof256   = "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		shows1, shows256   = "S: v=rmF9pqV8S7suAoZWja4dJRkFsKQ=\n", "S: v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=\n"
	)
	for _, tt := range []struct {
		name, mechanism, initial string // initial "-": none
		dialogue                 string
		err                      error
		failed                   uint64 // logins counted as failed
		nonce                    string
		change                   func(*house)
	}{
		{name: "RFC 5802, 5", mechanism: "scram-sha-1", initial: first1, nonce: nonce1,
			dialogue: asks1 + "C: " + final1 + proof1 + "\n" + shows1 + "C: \n"},
		{name: "RFC 7677, 3", mechanism: "SCRAM-SHA-256", initial: "-", nonce: nonce256,
			dialogue: "S: \nC: " + first256 + "\n" + asks256 + "C: " + final256 + proof256 + "\n" + shows256 + "C: \n"},
		{name: "for oneself", mechanism: "SCRAM-SHA-1", initial: "n,a=user,n=user,r=x", nonce: "y",
			dialogue: "S: r=xy,s=QSXCR+Q6sek8bf92,i=4096\nC: *\n", err: ErrCancelled},
		{name: "for somebody else", mechanism: "SCRAM-SHA-1", initial: "n,a=root,n=user,r=x", err: ErrProxy},
		{name: "a wrong proof", mechanism: "SCRAM-SHA-1", initial: first1, nonce: nonce1, err: mailstore.ErrPassword, failed: 1,
			dialogue: asks1 + "C: " + final1 + "p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"},
		{name: "an unknown name", mechanism: "SCRAM-SHA-1", initial: "n,,n=nobody,r=fyko+d2lbbFgONRv9qkxdawL", nonce: nonce1,
			err: mailstore.ErrPassword, failed: 1, dialogue: asks1 + "C: " + final1 + proof1 + "\n"},
		{name: "an unknown name whose keys somebody has found", mechanism: "SCRAM-SHA-1", initial: "-",
			err: mailstore.ErrPassword, failed: 1, dialogue: "login nobody nobody's"},
		{name: "the client does not believe us", mechanism: "SCRAM-SHA-1", initial: first1, nonce: nonce1, err: ErrCancelled,
			dialogue: asks1 + "C: " + final1 + proof1 + "\n" + shows1 + "C: *\n"},
		{name: "the client says more than it may", mechanism: "SCRAM-SHA-1", initial: first1, nonce: nonce1, err: ErrResponse,
			dialogue: asks1 + "C: " + final1 + proof1 + "\n" + shows1 + "C: more\n"},
		{name: "somebody else's nonce", mechanism: "SCRAM-SHA-1", initial: first1, nonce: nonce1, err: ErrResponse,
			dialogue: asks1 + "C: c=biws,r=fyko+d2lbbFgONRv9qkxdawL," + proof1 + "\n"},
		{name: "a header that differs from the first", mechanism: "SCRAM-SHA-1", initial: first1, nonce: nonce1, err: ErrResponse,
			dialogue: asks1 + "C: c=eSws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j," + proof1 + "\n"},
		{name: "an empty initial response", mechanism: "SCRAM-SHA-1", initial: "", err: ErrResponse},
		{name: "nothing of SCRAM", mechanism: "SCRAM-SHA-1", initial: "\x00user\x00pencil", err: ErrResponse},
		{name: "an extension that must be known", mechanism: "SCRAM-SHA-1", initial: "n,,m=x,n=user,r=x", err: ErrResponse},
		{name: "a name that is not escaped", mechanism: "SCRAM-SHA-1", initial: "n,,n=us=er,r=x", err: ErrResponse},
		{name: "bound, by a mechanism that does not bind", mechanism: "SCRAM-SHA-1", initial: "p=tls-exporter,,n=user,r=x", err: ErrResponse},
		{name: "bound where there is no TLS", mechanism: "SCRAM-SHA-1-PLUS", initial: "p=tls-exporter,,n=user,r=x", err: ErrMechanism},
		{name: "cancelled at once", mechanism: "SCRAM-SHA-1", initial: "-", dialogue: "S: \nC: *\n", err: ErrCancelled},
		{name: "no base64", mechanism: "SCRAM-SHA-1", initial: "-", dialogue: "S: \nC: !???\n", err: ErrResponse},
		{name: "it is not offered", mechanism: "SCRAM-SHA-256", initial: first256, err: ErrMechanism,
			change: func(h *house) { h.offers = []string{"SCRAM-SHA-1"} }},
		{name: "accounts that cannot be read", mechanism: "SCRAM-SHA-256", initial: first256, err: io.ErrClosedPipe,
			change: func(h *house) { h.broken = io.ErrClosedPipe }},
		{name: "none such", mechanism: "CRAM-MD5", initial: "-", err: ErrMechanism},
		{name: "nothing", mechanism: "", initial: "-", err: ErrMechanism},

		{name: "PLAIN", mechanism: "Plain", initial: "\x00user\x00pencil"},
		{name: "PLAIN for oneself", mechanism: "PLAIN", initial: "-", dialogue: "S: \nC: user\x00user\x00pencil\n"},
		{name: "PLAIN for somebody else", mechanism: "PLAIN", initial: "root\x00user\x00pencil", err: ErrProxy},
		{name: "PLAIN, wrong", mechanism: "PLAIN", initial: "\x00user\x00pen", err: mailstore.ErrPassword, failed: 1},
		{name: "PLAIN without a password", mechanism: "PLAIN", initial: "\x00user", err: ErrResponse},
		{name: "LOGIN", mechanism: "LOGIN", initial: "-", dialogue: "S: Username:\nC: user\nS: Password:\nC: pencil\n"},
		{name: "LOGIN with a name", mechanism: "LOGIN", initial: "user", dialogue: "S: Password:\nC: pencil\n"},
		{name: "LOGIN, cancelled", mechanism: "LOGIN", initial: "user", dialogue: "S: Password:\nC: *\n", err: ErrCancelled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := house{offers: all}
			if tt.change != nil {
				tt.change(&h)
			}
			s := server(h, tt.nonce)
			dialogue := strings.SplitAfter(strings.TrimSuffix(tt.dialogue, "\n"), "\n")
			x := Exchange{Mechanism: tt.mechanism}
			if tt.initial != "-" {
				x.Has, x.Initial = true, cmpOr(base64.StdEncoding.EncodeToString([]byte(tt.initial)), "=")
			}
			x.Ask = func(challenge string) (string, error) {
				text, err := base64.StdEncoding.DecodeString(challenge)
				if err != nil {
					t.Fatal(err)
				}
				if len(dialogue) < 2 || strings.TrimSuffix(dialogue[0], "\n") != "S: "+string(text) {
					t.Fatalf("said %q, not what comes first in %q", text, dialogue)
				}
				answer := strings.TrimSuffix(strings.TrimPrefix(dialogue[1], "C: "), "\n")
				dialogue = dialogue[2:]
				if raw, ok := strings.CutPrefix(answer, "!"); ok || answer == "*" {
					return raw, nil
				}
				return base64.StdEncoding.EncodeToString([]byte(answer)), nil
			}
			if login, ok := strings.CutPrefix(tt.dialogue, "login "); ok {
				dialogue = nil
				name, password, _ := strings.Cut(login, " ")
				x.Ask = answering(t, tt.mechanism, name, password, nil, all)
			}
			account, last, err := s.Authenticate(t.Context(), somebody, x)
			if !errors.Is(err, tt.err) || (err == nil) != (account == "user@example.org") || last != "" {
				t.Errorf("%q, %q, %v; want %v", account, last, err, tt.err)
			}
			if strings.Join(dialogue, "") != "" {
				t.Errorf("not said: %q", dialogue)
			}
			if n := s.Logins.Counts(); n.Failed != tt.failed || (err != nil && tt.err != ErrCancelled && tt.name != "the client says more than it may" && n.Succeeded > 0) {
				t.Errorf("counted: %+v", n)
			}
		})
	}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// answering is our own client.
func answering(t *testing.T, mechanism, user, password string, state *tls.ConnectionState, offered []string) func(string) (string, error) {
	l, err := NewLogin(mechanism, user, password, offered, state)
	if err != nil {
		t.Fatal(err)
	}
	return l.Next
}

// What a mechanism says with its success goes with the door's answer where there is room for it.
func TestLast(t *testing.T) {
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		s := server(house{offers: all}, "")
		l, err := NewLogin(mechanism, "user", "pencil", all, nil)
		if err != nil {
			t.Fatal(err)
		}
		initial, ok := l.Initial()
		if !ok || l.Proved() == nil {
			t.Errorf("%s: no initial response, or believed without a proof", mechanism)
		}
		account, last, err := s.Authenticate(t.Context(), somebody, Exchange{Mechanism: mechanism, Initial: initial, Has: true, Ask: l.Next, Last: true})
		if err != nil || account != "user@example.org" || last == "" {
			t.Fatalf("%q, %q, %v", account, last, err)
		}
		if answer, err := l.Next(last); answer != "" || err != nil || l.Proved() != nil {
			t.Errorf("%q, %v, %v", answer, err, l.Proved())
		}
	}
}

// tunnel returns both ends' view of a TLS connection.
func tunnel(t *testing.T, version uint16) (here, there *tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: version})
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(t.Context()) }() // ends with its handshake
	if err := errors.Join(c.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	inside, outside := s.ConnectionState(), c.ConnectionState()
	return &inside, &outside
}

// A login that is bound to its TLS connection counts in no other, and one who takes -PLUS out of what is offered is found
// out (RFC 5802, 6).
func TestChannelBinding(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		here, there := tunnel(t, version)
		otherHere, _ := tunnel(t, version)
		for _, tt := range []struct {
			name      string
			server    *tls.ConnectionState
			seen      []string // by the client
			offers    []string
			mechanism string // that the client takes
			err       error
		}{
			{"bound", here, all, all, "SCRAM-SHA-256-PLUS", nil},
			{"bound, by SHA-1", here, all[2:], all[2:], "SCRAM-SHA-1-PLUS", nil},
			{"another connection", otherHere, all, all, "SCRAM-SHA-256-PLUS", ErrBinding},
			{"-PLUS taken out", here, []string{"SCRAM-SHA-256"}, all, "SCRAM-SHA-256", ErrBinding},
			{"-PLUS not offered", here, []string{"SCRAM-SHA-256"}, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256", nil},
			{"-PLUS not offered, asked for", here, all, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256-PLUS", ErrMechanism},
			{"nothing but -PLUS", here, all, []string{"SCRAM-SHA-256-PLUS"}, "SCRAM-SHA-256-PLUS", nil},
		} {
			s := server(house{offers: tt.offers}, "")
			if got := Choose(tt.seen, nil, there); got[0] != tt.mechanism {
				t.Fatalf("%s: the client takes %s", tt.name, got[0])
			}
			_, _, err := s.Authenticate(t.Context(), Client{Addr: somebody.Addr, TLS: tt.server},
				Exchange{Mechanism: tt.mechanism, Ask: answering(t, tt.mechanism, "user", "pencil", there, tt.seen)})
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("%s, %s: %v", tls.VersionName(version), tt.name, err)
			}
			if n := s.Logins.Counts().Failed; n != uint64(btoi(tt.err == ErrBinding)) {
				t.Errorf("%s: %d failed logins counted", tt.name, n)
			}
		}
		if got := server(house{offers: all}, "").Mechanisms(t.Context(), Client{TLS: here}); strings.Join(got, " ") !=
			"SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN LOGIN" {
			t.Errorf("offered over TLS: %q", got)
		}
		// A client that cannot bind says so, and is let in.
		s := server(house{offers: all}, "")
		if _, _, err := s.Authenticate(t.Context(), Client{TLS: here},
			Exchange{Mechanism: "SCRAM-SHA-256", Ask: answering(t, "SCRAM-SHA-256", "user", "pencil", nil, all)}); err != nil {
			t.Errorf("a client that cannot bind: %v", err)
		}
	}
	if got := server(house{offers: all}, "").Mechanisms(t.Context(), somebody); strings.Join(got, " ") != "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN" {
		t.Errorf("offered without TLS: %q", got)
	}
}

// Our own side believes no server that cannot show that it knows the password, and does no endless work for it.
func TestClientIsCareful(t *testing.T) {
	for _, tt := range []struct {
		name       string
		challenges []string
		want       string
	}{
		{"no base64", []string{"!?"}, "the challenge is not in base64"},
		{"too much work", []string{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=10000001"}, `the server wants the password hashed "10000001" times; at most 10000000 are done`},
		{"too much to count", []string{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=99999999999999999999999999999"}, `hashed "99999999999999999999" times`},
		{"hardly any work", []string{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4095"}, "the challenge is not as SCRAM-SHA-256 wants it"},
		{"somebody else's nonce", []string{"r=x,s=QSXCR+Q6sek8bf92,i=4096"}, "the challenge is not as SCRAM-SHA-256 wants it"},
		{"nothing", []string{""}, "the challenge is not as SCRAM-SHA-256 wants it"},
		{"no proof", []string{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4096", "v=AAAA"}, "it is not who it seems to be"},
		{"an error for a proof", []string{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4096", "e=other-error"}, "it is not who it seems to be"},
	} {
		l, err := NewLogin("SCRAM-SHA-256", "user", "pencil", all, nil)
		if err != nil {
			t.Fatal(err)
		}
		initial, _ := l.Initial()
		text, _ := base64.StdEncoding.DecodeString(initial)
		_, nonce, _ := strings.Cut(string(text), ",r=")
		for _, c := range tt.challenges {
			raw := strings.Replace(c, "NONCE", nonce, 1)
			if c != "!?" {
				raw = base64.StdEncoding.EncodeToString([]byte(raw))
			}
			_, err = l.Next(raw)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || l.Proved() == nil {
			t.Errorf("%s: %v, %v", tt.name, err, l.Proved())
		}
	}
	for mechanism, steps := range map[string]int{"PLAIN": 1, "LOGIN": 2} {
		l, err := NewLogin(mechanism, "user", "pencil", all, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range steps {
			if _, err := l.Next(""); err != nil {
				t.Error(mechanism, err)
			}
		}
		if _, err := l.Next(""); err == nil || l.Proved() != nil {
			t.Errorf("%s: more than it has: %v", mechanism, err)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		offered, only []string
		want          string
	}{
		{[]string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, nil, "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"},
		{[]string{"PLAIN", "SCRAM-SHA-256"}, []string{"PLAIN"}, "PLAIN"},
		{[]string{"PLAIN"}, []string{"SCRAM-SHA-256"}, ""},
		{nil, nil, ""},
	} {
		if got := strings.Join(Choose(tt.offered, tt.only, nil), " "); got != tt.want {
			t.Errorf("%q, only %q: %q, want %q", tt.offered, tt.only, got, tt.want)
		}
	}
}

// Whatever a client says, nobody is logged in who does not know the password, and no more is asked than there is to ask.
func FuzzServer(f *testing.F) {
	f.Add("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "")
	f.Add("y,a=user,n=us=2Cer,r=x", "c=eSxhPXVzZXIs,r=x3rfcNHYJY1ZVvWVs7j,x=y,p=", "x")
	f.Add("p=tls-exporter,,n=,r=", "", "")
	_, k, err := house{}.Keys(f.Context(), "user", "SCRAM-SHA-1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, second, third string) {
		s := server(house{offers: all, fixed: &k}, "3rfcNHYJY1ZVvWVs7j")
		answers := []string{first, second, third}
		x := Exchange{Mechanism: "SCRAM-SHA-1", Ask: func(string) (string, error) {
			if len(answers) == 0 {
				t.Fatal("asked once more")
			}
			a := answers[0]
			answers = answers[1:]
			return base64.StdEncoding.EncodeToString([]byte(a)), nil
		}}
		if account, _, err := s.Authenticate(t.Context(), somebody, x); account != "" || err == nil {
			t.Errorf("%q is let in: %v", account, err)
		}
	})
}

// Whatever a server says, it is not believed without a proof.
func FuzzLogin(f *testing.F) {
	f.Add("r=x,s=QSXCR+Q6sek8bf92,i=4096", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")
	f.Add("m=x", "e=x")
	f.Fuzz(func(t *testing.T, first, second string) {
		if regexp.MustCompile(`\d{5}`).MatchString(first) {
			return // that many iterations take too long
		}
		l, err := NewLogin("SCRAM-SHA-1", "user", "pencil", all, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := l.Initial(); !ok {
			t.Fatal("nothing to begin with")
		}
		for _, challenge := range []string{first, second, second} {
			if _, err := l.Next(base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
				break
			}
		}
		if l.Proved() == nil {
			t.Error("believed")
		}
	})
}
