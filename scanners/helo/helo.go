// Package helo looks at the name by which a client greets (RFC 5321, 4.1.1.1).
package helo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
	"sluice/pipeline/orgdomain"
)

// Kind is the kind of stage the configuration calls helo. Without an answer of the DNS mail goes on: what the greeting
// says by itself is known all the same, and RFC 5321, 4.1.4 does not want mail refused for a name that cannot be verified.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name: "helo",
		Step: "greeting", // helo is the greeting itself
		Doc: "Looks at the name by which the client greets: its form, whether it is ours, whether it leads to the client. Where the " +
			"DNS does not answer only that is unknown: RFC 5321, 4.1.4 wants no mail refused for it.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{} },
		Fact:    func(any) any { return Fact{} },
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s := stage{resolver: env.Resolver}
			for _, name := range append([]string{env.Hostname}, config.(*Config).Ours...) {
				c, ok := orgdomain.Canonical(name)
				if !ok {
					return nil, fmt.Errorf("ours: %q is no domain name", name)
				}
				s.ours = append(s.ours, c)
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of a helo step.
type Config struct {
	// Ours are names that nobody outside can have, besides `hostname`: other names of this machine, the domains it serves.
	Ours []string `yaml:"ours" example:"[example.org]"`
}

// Fact is what rules see.
type Fact struct {
	Name    string `json:"name" expr:"name" example:"mail.example.org"` // in lower case, without a trailing dot
	Valid   bool   `json:"valid" expr:"valid"`                          // it is a domain name of two labels and more, or an address literal
	Literal bool   `json:"literal" expr:"literal"`                      // [192.0.2.1], [IPv6:2001:db8::1]
	Bare    bool   `json:"bare" expr:"bare"`                            // an address without brackets
	Ours    bool   `json:"ours" expr:"ours"`                            // it says that it is us
	// Resolves: the name has an address or takes mail. Of a literal it is true, of what is not valid false.
	Resolves bool `json:"resolves" expr:"resolves"`
	// Matches: the name, or the literal, leads to the client's address.
	Matches bool `json:"matches" expr:"matches"`
}

type stage struct {
	resolver pipeline.Resolver
	ours     []string
}

// Reads implements pipeline.Stage.
func (s stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting, Waits: true, Strangers: true}
}

// Check looks at the name, and asks the DNS where it leads. Without an answer only that is unknown.
func (s stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	client := v.Client.Addr.Unmap().WithZone("")
	f := Fact{Name: strings.ToLower(strings.TrimSuffix(v.Greeting, "."))}
	name, isName := orgdomain.Canonical(v.Greeting)
	if a, ok := literal(f.Name); ok {
		f.Valid, f.Literal, f.Resolves, f.Matches = true, true, true, a == client
		return pipeline.Result{Fact: f}, nil
	}
	if a, err := netip.ParseAddr(f.Name); err == nil {
		f.Bare, f.Matches = true, a.Unmap() == client
		return pipeline.Result{Fact: f}, nil
	}
	f.Valid, f.Ours = isName && valid(name), isName && slices.Contains(s.ours, name)
	if !f.Valid {
		return pipeline.Result{Fact: f}, nil
	}
	r := pipeline.Result{Missing: map[string]error{}}
	s.look(ctx, name, client, &f, r.Missing)
	r.Fact = f
	return r, nil
}

// look asks for addresses of both kinds and MX records at once. What could not be found out is in missing.
func (s stage) look(ctx context.Context, name string, client netip.Addr, f *Fact, missing map[string]error) {
	// Those of the client's kind say whether the name leads to it; those of the other kind say nothing of that.
	same, other := s.resolver.LookupA, s.resolver.LookupAAAA
	if client.Is6() {
		same, other = other, same
	}
	var addrs, more []netip.Addr
	var mx []*net.MX
	var addrErr, moreErr, mxErr error
	var wg sync.WaitGroup // all have ended when look returns
	wg.Go(func() { addrs, addrErr = same(ctx, name) })
	wg.Go(func() { more, moreErr = other(ctx, name) })
	wg.Go(func() { mx, mxErr = s.resolver.LookupMX(ctx, name) })
	wg.Wait()
	takes := slices.ContainsFunc(mx, func(m *net.MX) bool { return m.Host != "." }) // RFC 7505: "." takes no mail
	f.Resolves, f.Matches = len(addrs) > 0 || len(more) > 0 || takes, slices.Contains(addrs, client)
	open := func(err error) error {
		if notFound(err) {
			return nil
		}
		return err
	}
	if err := open(addrErr); err != nil {
		missing["matches"] = err
	}
	if err := errors.Join(open(addrErr), open(moreErr), open(mxErr)); err != nil && !f.Resolves {
		missing["resolves"] = err
	}
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// literal reads an address literal (RFC 5321, 4.1.3).
func literal(s string) (netip.Addr, bool) {
	s, ok := strings.CutPrefix(s, "[")
	if !ok || !strings.HasSuffix(s, "]") {
		return netip.Addr{}, false
	}
	s, six := strings.CutPrefix(strings.TrimSuffix(s, "]"), "ipv6:")
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == "" && six == a.Is6()
}

// valid reports whether a name, in lower case and A-labels, is a fully qualified host name: letters, digits and hyphens, and no number as last label.
func valid(c string) bool {
	if !strings.Contains(c, ".") {
		return false
	}
	for label := range strings.SplitSeq(c, ".") {
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return strings.Trim(c[strings.LastIndexByte(c, '.')+1:], "0123456789") != ""
}
