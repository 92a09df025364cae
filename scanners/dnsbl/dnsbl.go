// Package dnsbl looks the client up in DNS lists (RFC 5782).
package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/pipeline"
)

// Kind is the kind of stage the configuration calls dnsbl. A list that does not answer is skipped: mail must not wait
// for somebody else's service, and rules see that its answer is unknown.
func Kind() pipeline.Kind {
	return pipeline.Kind{
		Name:    "dnsbl",
		Doc:     "Looks the client's address up in DNS lists.",
		OnError: pipeline.Skip,
		Config:  func() any { return &Config{} },
		Fact: func(config any) any {
			f := pipeline.Named[Listed]{}
			for name := range config.(*Config).Lists {
				f[name] = Listed{}
			}
			return f
		},
		New: func(config any, env pipeline.Env) ([]pipeline.Stage, error) {
			s, err := newStage(*config.(*Config), env.Resolver)
			if err != nil {
				return nil, err
			}
			return []pipeline.Stage{s}, nil
		},
	}
}

// Config is the section of one dnsbl step.
type Config struct {
	// Lists are the lists to ask, by the name that rules use: dnsbl.zen.listed.
	Lists map[string]List `yaml:"lists" example:"{zen: {zone: zen.spamhaus.org}}"`
}

// A List is one DNS list.
type List struct {
	// Zone is the zone of the list: zen.spamhaus.org.
	Zone string `yaml:"zone"`
	// Codes are the answers that count as a listing, single addresses or networks. Without it all of 127.0.0.0/8 do, but
	// for 127.255.255.0/24, which lists answer to say that they refuse to.
	Codes []string `yaml:"codes"`
	// Timeout is how long to wait for this list. Default: 5s.
	Timeout time.Duration `yaml:"timeout"`
}

// Listed is what rules see of one list.
type Listed struct {
	Listed bool     `json:"listed" expr:"listed"` // whether the client is on it
	Codes  []string `json:"codes" expr:"codes"`   // what the list answered: "127.0.0.2"
}

type stage struct {
	resolver pipeline.Resolver
	names    []string // sorted
	lists    map[string]list
}

type list struct {
	zone    string
	codes   []netip.Prefix
	timeout time.Duration
}

var (
	listName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	answers  = netip.MustParsePrefix("127.0.0.0/8")
	// refusals are what lists answer to resolvers they do not serve, and to queries they do not understand.
	refusals = netip.MustParsePrefix("127.255.255.0/24")
)

// zoneError returns what is wrong with a zone, nil if nothing.
func zoneError(zone string) error {
	if zone == "" {
		return errors.New("zone: is missing; write for example `zone: zen.spamhaus.org`")
	}
	if len(zone) > 180 {
		return fmt.Errorf("zone: %q is too long to have an address put before it", zone)
	}
	for label := range strings.SplitSeq(zone, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("zone: %q is no domain name", zone)
		}
	}
	return nil
}

func newStage(c Config, r pipeline.Resolver) (*stage, error) {
	s := &stage{resolver: r, lists: map[string]list{}}
	var wrong []error
	if len(c.Lists) == 0 {
		wrong = append(wrong, errors.New("lists: there is none; write for example `lists: {zen: {zone: zen.spamhaus.org}}`"))
	}
	for name, l := range c.Lists {
		fail := func(err error) { wrong = append(wrong, fmt.Errorf("lists: %s: %w", name, err)) }
		if !listName.MatchString(name) {
			fail(errors.New("rules cannot use this name: write lower-case letters, digits and _, a letter first"))
		}
		x := list{zone: strings.TrimSuffix(l.Zone, "."), timeout: l.Timeout}
		if err := zoneError(x.zone); err != nil {
			fail(err)
		}
		if x.timeout < 0 {
			fail(fmt.Errorf("timeout: %s is no time to wait", x.timeout))
		}
		if x.timeout == 0 {
			x.timeout = 5 * time.Second
		}
		for _, code := range l.Codes {
			p, err := parseCode(code)
			if err != nil {
				fail(err)
			}
			x.codes = append(x.codes, p)
		}
		s.names = append(s.names, name)
		s.lists[name] = x
	}
	slices.Sort(s.names)
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return s, errors.Join(wrong...)
}

func parseCode(code string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(code)
	if a, e := netip.ParseAddr(code); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || !p.Addr().Is4() || !answers.Contains(p.Addr()) || p.Bits() < answers.Bits() {
		return netip.Prefix{}, fmt.Errorf("codes: %q is no answer of a list: write an address or a network in 127.0.0.0/8", code)
	}
	return p, nil
}

// Reads implements pipeline.Stage.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{Input: pipeline.InputClient, Waits: true, Strangers: true}
}

// Check asks all lists at once. A list that does not answer leaves its own field unknown; if none answers that is an
// error of the stage.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	prefix := reversed(v.Client.Addr)
	found, failed := make([]Listed, len(s.names)), make([]error, len(s.names))
	var wg sync.WaitGroup // all have ended when Check returns
	for i, name := range s.names {
		wg.Go(func() { found[i], failed[i] = s.lists[name].ask(ctx, s.resolver, prefix) })
	}
	wg.Wait()
	fact, missing := pipeline.Named[Listed]{}, map[string]error{}
	for i, name := range s.names {
		fact[name] = found[i]
		if failed[i] != nil {
			missing[name] = failed[i]
			failed[i] = fmt.Errorf("%s: %w", name, failed[i])
		}
	}
	if len(missing) == len(s.names) {
		return pipeline.Result{}, errors.Join(failed...)
	}
	return pipeline.Result{Fact: fact, Missing: missing}, nil
}

func (l list) ask(ctx context.Context, r pipeline.Resolver, prefix string) (Listed, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	got, err := r.LookupA(ctx, prefix+l.zone) // RFC 5782, 2.1: a listing is an A record
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return Listed{}, nil
	}
	if err != nil {
		return Listed{}, fmt.Errorf("look up in %s: %w", l.zone, err)
	}
	out := Listed{}
	for _, a := range got {
		switch {
		case a.Is6():
			continue
		case !answers.Contains(a):
			return Listed{}, fmt.Errorf("look up in %s: the answer %s is outside 127.0.0.0/8: this is no list, or not any more", l.zone, a)
		case refusals.Contains(a) && len(l.codes) == 0:
			return Listed{}, fmt.Errorf("look up in %s: the list refuses to answer us (%s)", l.zone, a)
		case len(l.codes) == 0 || slices.ContainsFunc(l.codes, func(p netip.Prefix) bool { return p.Contains(a) }):
			out.Listed = true
		case refusals.Contains(a):
			return Listed{}, fmt.Errorf("look up in %s: the list refuses to answer us (%s)", l.zone, a)
		}
		out.Codes = append(out.Codes, a.String())
	}
	slices.Sort(out.Codes)
	return out, nil
}

// reversed is the address as lists are asked for it, with a dot at its end: octets of IPv4, nibbles of IPv6
// (RFC 5782, 2.1 and 2.4).
func reversed(a netip.Addr) string {
	var b strings.Builder
	a = a.Unmap()
	if a.Is4() {
		for _, x := range slices.Backward(a.AsSlice()) {
			b.WriteString(strconv.Itoa(int(x)) + ".")
		}
		return b.String()
	}
	for _, x := range slices.Backward(a.AsSlice()) {
		fmt.Fprintf(&b, "%x.%x.", x&15, x>>4)
	}
	return b.String()
}
