package program

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/protocols/relay"
	"sluice/scanners/resolve"
)

// mailDNS is what relay asks the resolver.
type mailDNS struct{ *resolve.Resolver }

// MX implements relay.Resolver.
func (d mailDNS) MX(ctx context.Context, domain string) ([]*net.MX, bool, error) {
	return d.LookupMXAuthentic(ctx, domain)
}

// Addresses implements relay.Resolver.
func (d mailDNS) Addresses(ctx context.Context, host string) (relay.Addresses, error) {
	h, err := d.LookupHost(ctx, host)
	return relay.Addresses{IPv4: h.IPv4, IPv6: h.IPv6, Name: h.Name, Authentic: h.Authentic}, err
}

// TLSA implements relay.Resolver.
func (d mailDNS) TLSA(ctx context.Context, name string) ([]relay.TLSA, bool, error) {
	found, authentic, err := d.LookupTLSA(ctx, name)
	var list []relay.TLSA
	for _, x := range found {
		list = append(list, relay.TLSA(x))
	}
	return list, authentic, err
}

// TXT implements relay.Resolver.
func (d mailDNS) TXT(ctx context.Context, name string) ([]string, error) {
	return d.LookupTXT(ctx, name)
}

// certificatesIn reads a file of certificates that sign others.
func certificatesIn(c *config.Config) func(name string) (*x509.CertPool, error) {
	return func(name string) (*x509.CertPool, error) {
		text, err := os.ReadFile(c.Path(name))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", c.Path(name), cause(err))
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM", c.Path(name))
		}
		return pool, nil
	}
}

// relayOptions returns how mail leaves by a configuration, as far as that can be said without a server that runs, and what
// will have read the passwords.
func relayOptions(c *config.Config) (relay.Options, *secrets) {
	read := &secrets{config: c}
	o := relay.Options{Config: c.Relay, Hostname: c.Hostname, Secret: read.read, Roots: certificatesIn(c)}
	for i := range o.Routes {
		r := o.Routes[i]
		if path, unix := strings.CutPrefix(r.LMTP, "unix:"); unix {
			r.LMTP = "unix:" + c.Path(path)
			o.Routes[i] = r
		}
	}
	return o, read
}

// relayProblems reads the files that the way out needs, and returns all that is wrong with them, where they are named.
func relayProblems(c *config.Config) (wrong config.Problems) {
	o, _ := relayOptions(c)
	if _, err := relay.New(o); err != nil {
		for _, e := range leaves(err) {
			setting, text, _ := strings.Cut(e.Error(), ": ")
			wrong = append(wrong, c.Where("relay."+setting, text))
		}
	}
	return wrong
}

// newRelay makes what brings mail from the queue to where it goes, by a setup, and warnings about the files it reads.
func (s *service) newRelay(x *setup, queue mailstore.Queue, local relay.Transport) (_ *relay.Relay, warnings config.Problems, _ error) {
	o, read := relayOptions(x.config)
	o.Queue, o.Local, o.Resolver, o.State = queue, local, mailDNS{x.asking}, s.house.state
	o.Now, o.Log = s.program.now, s.log
	o.IsLocal = (&localDomains{ask: s.isLocal, now: s.program.now}).is
	o.Observe = func(x relay.Report) {
		var outcomes []string
		for _, o := range x.Outcomes {
			outcomes = append(outcomes, o.String())
		}
		s.house.metrics.Sent(x.Destination, x.Proof(), outcomes, x.Took)
	}
	r, err := relay.New(o)
	for _, w := range read.warnings {
		warnings = append(warnings, config.Problem{Text: w})
	}
	return r, warnings, err
}

// isLocal reports whether a domain is ours. One that nobody can tell is: our own door will say what it thinks of the mail,
// and nothing goes round in circles.
func (s *service) isLocal(domain string) bool {
	_, err := s.house.users.Resolve(s.ctx, "postmaster", domain)
	return !errors.Is(err, mailstore.ErrForeign)
}

// A sender is the relay of now. A reload puts another in its place.
type sender struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	now    *relay.Relay // nil: none was used yet
	ran    sync.WaitGroup
	ended  bool
}

// use ends the relay before, which finishes what it has begun, and starts another. Both may work on the queue for a while.
func (s *sender) use(r *relay.Relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if s.cancel != nil {
		s.cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.now = cancel, r
	s.ran.Go(func() { r.Run(ctx) }) // until the next use, or shutdown
}

// anew has servers that are left alone asked again: an operator wants mail tried now.
func (s *sender) anew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		s.now.Anew()
	}
}

// shutdown ends it and waits until it has.
func (s *sender) shutdown() {
	s.mu.Lock()
	s.ended = true
	if s.cancel != nil {
		s.cancel()
	}
	s.mu.Unlock()
	s.ran.Wait()
}
