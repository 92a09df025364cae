package sasl

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/xdg-go/scram"

	"sluice/mailstore"
)

// plus ends the names of mechanisms that bind the login to the TLS connection it happens in (RFC 5802, 4).
const plus = "-PLUS"

// hashOf returns what a mechanism hashes with; ok is false for one that is no SCRAM.
func hashOf(mechanism string) (hash scram.HashGeneratorFcn, ok bool) {
	switch strings.TrimSuffix(mechanism, plus) {
	case "SCRAM-SHA-256":
		return scram.SHA256, true
	case "SCRAM-SHA-1":
		return scram.SHA1, true
	}
	return nil, false
}

// binding returns what both ends of a TLS connection know and nobody in between: tls-exporter (RFC 9266). It is not there
// without TLS, and with a TLS 1.2 that lacks the extended master secret.
func binding(state *tls.ConnectionState) (b scram.ChannelBinding, ok bool) {
	if state == nil {
		return b, false
	}
	b, err := scram.NewTLSExporterBinding(state)
	return b, err == nil
}

// scram is RFC 5802 and RFC 7677. What is told of the account before the proof, a salt and a number, is told of every name.
// Whether the client may try is looked at when its proof is there: nothing before is a guess.
func (s *Server) scram(ctx context.Context, c Client, x *Exchange, mechanism string, offered []string) (account, last string, err error) {
	hash, ok := hashOf(mechanism)
	if !ok {
		return "", "", ErrMechanism
	}
	first, err := x.next("")
	if err != nil {
		return "", "", err
	}
	bare := strings.TrimSuffix(mechanism, plus)
	// RFC 5802, 6: "p" is for the mechanisms with channel binding, and for them alone.
	if strings.HasPrefix(first, "p=") != (bare != mechanism) {
		return "", "", ErrResponse
	}
	var looked error
	server, err := hash.NewServer(func(login string) (scram.StoredCredentials, error) {
		var k mailstore.Keys
		if account, k, looked = s.Keys.Keys(ctx, login, bare); looked != nil {
			return scram.StoredCredentials{}, looked
		}
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations}, StoredKey: k.Stored, ServerKey: k.Server,
		}, nil
	})
	if err != nil {
		return "", "", err
	}
	if s.nonce != nil {
		server = server.WithNonceGenerator(s.nonce)
	}
	conversation := server.NewConversation()
	if b, ok := binding(c.TLS); ok && slices.Contains(offered, bare+plus) {
		conversation = server.NewConversationWithChannelBinding(b)
	}
	challenge, err := conversation.Step(first)
	login := conversation.Username()
	switch {
	case looked != nil:
		return "", "", looked
	case err != nil && strings.HasPrefix(first, "y,") && challenge == scram.ErrServerDoesSupportChannelBinding:
		// Somebody has taken -PLUS out of what we offered.
		_, err := s.attempt(ctx, c, login, func(context.Context) (string, error) { return "", ErrBinding })
		return "", "", err
	case err != nil:
		return "", "", ErrResponse
	}
	if a := conversation.AuthzID(); a != "" && a != login {
		return "", "", ErrProxy
	}
	proof, err := x.next(challenge)
	if err != nil {
		return "", "", err
	}
	var final string
	account, err = s.attempt(ctx, c, login, func(context.Context) (string, error) {
		var err error
		final, err = conversation.Step(proof)
		switch {
		case err == nil && account != "":
			return account, nil
		case err == nil, final == scram.ErrInvalidProof:
			return "", mailstore.ErrPassword
		case final == scram.ErrChannelBindingsDontMatch && bare != mechanism:
			return "", ErrBinding
		}
		return "", ErrResponse
	})
	if err != nil {
		return "", "", err
	}
	if x.Last {
		return account, base64.StdEncoding.EncodeToString([]byte(final)), nil
	}
	// The client looks whether we know its password, and says that it agrees by an empty answer.
	answer, err := x.next(final)
	if err == nil && answer != "" {
		err = ErrResponse
	}
	if err != nil {
		return "", "", err
	}
	return account, "", nil
}
