// Package sasl logs clients in by the mechanisms of SASL (RFC 4422) that all doors take, whatever words each wraps around
// them, and logs us in elsewhere.
package sasl

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"sluice/mailstore"
	"sluice/protocols/listen"
)

// How an exchange ends without a login, besides mailstore.ErrPassword and listen.ErrThrottled. What the door has answered
// with is its own affair.
var (
	ErrMechanism = errors.New("no such mechanism")        // see [Server.Mechanisms]
	ErrCancelled = errors.New("authentication cancelled") // by the client
	ErrResponse  = errors.New("the response is not as the mechanism wants it")
	ErrProxy     = errors.New("nobody acts for somebody else here")
	// ErrBinding wraps mailstore.ErrPassword: it counts as a failed login.
	ErrBinding error = bindingError{}
)

type bindingError struct{}

func (bindingError) Error() string {
	return "this TLS connection does not end where it seems to: somebody may be in between"
}
func (bindingError) Unwrap() error { return mailstore.ErrPassword }

// A Server is what a door logs its clients in with.
type Server struct {
	Door      string // for the log
	Directory mailstore.Directory
	Keys      mailstore.Keyring // nil: no SCRAM
	Logins    *listen.Logins
	Log       *slog.Logger
	// Login adds LOGIN, for old mail programs that know no other.
	Login bool

	nonce func() string // for tests
}

// A Client is who logs in.
type Client struct {
	Addr    netip.Addr
	Trusted bool
	TLS     *tls.ConnectionState // nil: none
}

// ClientOf returns who is at the other end of a connection.
func ClientOf(c *listen.Conn) Client {
	who := Client{Addr: c.Peer(), Trusted: c.Trusted()}
	if state, ok := c.TLS(); ok {
		who.TLS = &state
	}
	return who
}

// Mechanisms returns what a client can log in by now, strongest first.
func (s *Server) Mechanisms(ctx context.Context, c Client) []string {
	var all []string
	if s.Keys != nil {
		scrams, err := s.Keys.Mechanisms(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Error("scram is not offered", "door", s.Door, "error", err)
		}
		_, binds := binding(c.TLS)
		for _, m := range scrams {
			if binds || !strings.HasSuffix(m, plus) {
				all = append(all, m)
			}
		}
	}
	all = append(all, "PLAIN")
	if s.Login {
		all = append(all, "LOGIN")
	}
	return all
}

// An Exchange is a client's wish to log in.
type Exchange struct {
	Mechanism string
	// Initial is the initial response as it came, in base64, where Has says that there is one. "=" is an empty one.
	Initial string
	Has     bool
	// Ask sends a challenge, which is in base64, and returns the answer as it came. An error ends the exchange, and is
	// returned as it is.
	Ask func(challenge string) (answer string, err error)
	// Last: what a mechanism says to a client that is logged in goes with the door's answer (RFC 4422, 3.6), and is not
	// asked.
	Last bool
}

// Authenticate logs a client in and returns its account, and what the mechanism says with that in base64 where x.Last asks
// for it.
func (s *Server) Authenticate(ctx context.Context, c Client, x Exchange) (account, last string, err error) {
	mechanism := strings.ToUpper(x.Mechanism)
	offered := s.Mechanisms(ctx, c)
	if !slices.Contains(offered, mechanism) {
		return "", "", ErrMechanism
	}
	switch mechanism {
	case "PLAIN":
		account, err = s.plain(ctx, c, &x)
		return account, "", err
	case "LOGIN":
		account, err = s.login(ctx, c, &x)
		return account, "", err
	}
	return s.scram(ctx, c, &x, mechanism, offered)
}

// Password logs a client in by its name and password.
func (s *Server) Password(ctx context.Context, c Client, login, password string) (account string, err error) {
	return s.attempt(ctx, c, login, func(ctx context.Context) (string, error) { return s.Directory.Authenticate(ctx, login, password) })
}

// attempt looks at what shows that a client knows a password, within the limits of guessing.
func (s *Server) attempt(ctx context.Context, c Client, login string, check func(context.Context) (string, error)) (string, error) {
	account, err := s.Logins.Attempt(ctx, s.Door, c.Addr, c.Trusted, login, check)
	if err != nil {
		return "", fmt.Errorf("%s: %w", login, err)
	}
	return account, nil
}

// plain is RFC 4616.
func (s *Server) plain(ctx context.Context, c Client, x *Exchange) (account string, err error) {
	message, err := x.next("")
	if err != nil {
		return "", err
	}
	fields := strings.Split(message, "\x00")
	switch {
	case len(fields) != 3:
		return "", ErrResponse
	case fields[0] != "" && fields[0] != fields[1]:
		return "", ErrProxy
	}
	return s.Password(ctx, c, fields[1], fields[2])
}

// login is what Microsoft's programs did before there was a standard.
func (s *Server) login(ctx context.Context, c Client, x *Exchange) (account string, err error) {
	name, err := x.next("Username:")
	if err != nil {
		return "", err
	}
	password, err := x.next("Password:")
	if err != nil {
		return "", err
	}
	return s.Password(ctx, c, name, password)
}

// next returns what the client answers to a challenge; the initial response is the answer to the first.
func (x *Exchange) next(challenge string) (string, error) {
	answer := x.Initial
	if !x.Has {
		var err error
		if answer, err = x.Ask(base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
			return "", err
		}
	} else if answer == "=" {
		answer = ""
	}
	x.Has = false
	if answer == "*" {
		return "", ErrCancelled
	}
	text, err := base64.StdEncoding.DecodeString(answer)
	if err != nil {
		return "", ErrResponse
	}
	return string(text), nil
}
