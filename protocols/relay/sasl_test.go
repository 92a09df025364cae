package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"sluice/mailstore"
	"sluice/protocols/listen"
	"sluice/protocols/sasl"
)

// accounts has one, "me", whose password is "secret".
type accounts struct {
	mailstore.Directory
	offers []string
	keys   bool // it has keys for SCRAM
}

func (a accounts) Authenticate(_ context.Context, login, password string) (string, error) {
	if login != "me" || password != "secret" {
		return "", mailstore.ErrPassword
	}
	return login, nil
}

func (a accounts) Mechanisms(context.Context) ([]string, error) { return a.offers, nil }

func (a accounts) Keys(_ context.Context, login, mechanism string) (string, mailstore.Keys, error) {
	hash, password := scram.SHA256, "secret"
	if mechanism == "SCRAM-SHA-1" {
		hash = scram.SHA1
	}
	if !a.keys {
		password = "something else"
	}
	client, err := hash.NewClient("", password, "")
	if err != nil {
		return "", mailstore.Keys{}, err
	}
	k, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
	return login, mailstore.Keys{Salt: []byte("salt"), Iterations: 4096, Stored: k.StoredKey, Server: k.ServerKey}, err
}

// smarthost takes one mail from who has logged in, and says what was tried. impostor: it says yes to everybody.
func smarthost(t *testing.T, conn net.Conn, cert *tls.Certificate, a accounts, impostor bool) (tried []string) {
	var state *tls.ConnectionState
	if cert != nil {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*cert}})
		if secure.HandshakeContext(t.Context()) != nil {
			return nil
		}
		x := secure.ConnectionState()
		conn, state = secure, &x
	}
	defer conn.Close()
	server := &sasl.Server{
		Door: "test", Directory: a, Keys: a, Login: true, Log: slog.New(slog.DiscardHandler),
		Logins: &listen.Logins{Log: slog.New(slog.DiscardHandler), First: time.Nanosecond, Most: time.Nanosecond},
	}
	who := sasl.Client{Addr: netip.MustParseAddr("192.0.2.9"), TLS: state}
	in := bufio.NewScanner(conn)
	ask := func(line string) (string, error) {
		fmt.Fprintf(conn, "%s\r\n", line)
		if !in.Scan() {
			return "", net.ErrClosed
		}
		return in.Text(), nil
	}
	line, err := ask("220 mail.example.net")
	for err == nil {
		verb, arg, _ := strings.Cut(line, " ")
		answer := "250 fine"
		switch verb {
		case "EHLO":
			answer = "250-mail.example.net\r\n250 AUTH " + strings.Join(server.Mechanisms(t.Context(), who), " ")
		case "AUTH":
			x := sasl.Exchange{Ask: func(challenge string) (string, error) { return ask("334 " + challenge) }}
			x.Mechanism, x.Initial, x.Has = strings.Cut(arg, " ")
			tried = append(tried, x.Mechanism)
			answer = "535 5.7.8 no"
			if impostor {
				answer = "235 welcome"
			} else if account, _, err := server.Authenticate(t.Context(), who, x); err == nil && account == "me" {
				answer = "235 welcome"
			}
		case "DATA":
			if line, err = ask("354 go on"); err != nil {
				return tried
			}
			for line != "." && in.Scan() {
				line = in.Text()
			}
		case "QUIT":
			answer = "221 bye"
		}
		line, err = ask(answer)
	}
	return tried
}

// The strongest mechanism that both know is used. A password is sent only where it may be, and a server that cannot show
// that it knows it gets no mail.
func TestLogin(t *testing.T) {
	ca := newAuthority(t)
	good := ca.server(t, far(), "mail.example.net")
	all := []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"}
	for _, tt := range []struct {
		name     string
		offers   []string // besides PLAIN and LOGIN
		noKeys   bool
		only     []string
		tls      bool
		level    Level
		impostor bool
		tried    string
		want     string
	}{
		{name: "bound to TLS", tls: true, offers: all, tried: "SCRAM-SHA-256-PLUS", want: "relayed"},
		{name: "the server cannot bind", tls: true, offers: []string{"SCRAM-SHA-256", "SCRAM-SHA-1"}, tried: "SCRAM-SHA-256", want: "relayed"},
		{name: "without TLS", offers: all, tried: "SCRAM-SHA-256", want: "relayed"},
		{name: "an old server", offers: []string{"SCRAM-SHA-1"}, tried: "SCRAM-SHA-1", want: "relayed"},
		{name: "a very old server", tried: "PLAIN", want: "relayed"},
		{name: "no keys", tls: true, offers: all, noKeys: true, tried: "SCRAM-SHA-256-PLUS PLAIN", want: "relayed"},
		{name: "no keys, and nobody knows who it is", tls: true, level: Require, offers: all, noKeys: true,
			tried: "SCRAM-SHA-256-PLUS", want: `postponed 4.7.8 "535 5.7.8 no"`},
		{name: "no keys, and the password is not to be sent", tls: true, offers: all, noKeys: true, only: []string{"SCRAM-SHA-256"},
			tried: "SCRAM-SHA-256", want: `postponed 4.7.8 "535 5.7.8 no"`},
		{name: "LOGIN alone may be used", offers: all, only: []string{"LOGIN"}, tried: "LOGIN", want: "relayed"},
		{name: "none that may be used", only: []string{"SCRAM-SHA-256", "SCRAM-SHA-1"}, tried: "",
			want: `postponed 4.7.8 "AUTH: the server offers none of SCRAM-SHA-256, SCRAM-SHA-1"`},
		{name: "an impostor", tls: true, offers: all, impostor: true, tried: "SCRAM-SHA-256-PLUS",
			want: `postponed 4.7.8 "AUTH: the server does not show that it knows the password: it is not who it seems to be"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := Config{Smarthost: []string{"mail.example.net:25"}, TLS: tt.level}
				c.Login = Login{User: "me", PasswordFile: "secret", Cleartext: !tt.tls, Mechanisms: tt.only}
				var cert *tls.Certificate
				port := "25"
				if tt.tls {
					port, cert = "465", &good
					c.Smarthost = []string{"mail.example.net:465"}
				}
				s := start(t, c, nil)
				s.relay.ways.all.roots = ca.pool()
				s.zone.addresses["mail.example.net"] = ips("192.0.2.1")
				s.zone.insecure["A mail.example.net"] = true
				tried := make(chan []string, 10)
				s.network.servers["192.0.2.1:"+port] = func(conn net.Conn) {
					tried <- smarthost(t, conn, cert, accounts{offers: tt.offers, keys: !tt.noKeys}, tt.impostor)
				}
				s.queue.add(mailstore.Job{Sender: "me@example.com", Domain: "example.org", Recipients: to("you@example.org")}, "Subject: x\r\n\r\nx\r\n")
				time.Sleep(14 * time.Minute) // one attempt
				got := s.queue.history("m1")
				if !strings.HasPrefix(got, "1 "+tt.want) {
					t.Errorf("%s", got)
				}
				if first := strings.Join(<-tried, " "); first != tt.tried {
					t.Errorf("tried %s, want %s", first, tt.tried)
				}
			})
		})
	}
}

// What is said to PLAIN and LOGIN is what RFC 4616 and old servers want.
func TestLoginInBase64(t *testing.T) {
	l, err := sasl.NewLogin("PLAIN", "me", "secret", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, ok := l.Initial(); !ok || response != base64.StdEncoding.EncodeToString([]byte("\x00me\x00secret")) {
		t.Errorf("%q, %v", response, ok)
	}
}
