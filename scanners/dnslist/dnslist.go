// Package dnslist asks one DNS list (RFC 5782) and finds out whether its answers mean anything.
package dnslist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/pipeline"
	"sluice/scanners/breaker"
)

// Config is one DNS list.
type Config struct {
	// Zone is the zone of the list: zen.spamhaus.org.
	Zone string `yaml:"zone"`
	// Codes are the answers that count as a listing: addresses, networks, or & and bits of the last octet (&8). Without them
	// all of 127.0.0.0/8 does, but for 127.255.255.0/24 and 127.0.0.1, which lists answer to say that they refuse to. To have
	// these count as a listing, write them themselves.
	Codes []string `yaml:"codes" example:"[127.0.0.2, 127.0.0.10/31]"`
	// Answers gives answers names that rules can ask for ("pbl" in dnsbl.zen.names), written as in codes.
	Answers map[string][]string `yaml:"answers" example:"{pbl: [127.0.0.10/31], sbl: [127.0.0.2]}"`
	// Refused are answers by which the list says that it does not serve us, besides 127.255.255.0/24 and 127.0.0.1; written as
	// in codes.
	Refused []string `yaml:"refused" example:"[127.0.0.255]"`
	// Timeout is how long to wait for this list. Default: 5s.
	Timeout time.Duration `yaml:"timeout"`
	// TestPoint is the name that this list always has, where that is not 2.0.0.127 (a list of addresses) or test (a list of
	// domains).
	TestPoint string `yaml:"test_point" example:"test.surbl.org"`
	// NoTestPoints says that the list lacks the entries by which it can be seen to work (RFC 5782, 5): 127.0.0.2 listed and
	// 127.0.0.1 not, TEST listed and INVALID not. A list that has not got them right is switched off, unless this is set.
	NoTestPoints bool `yaml:"no_test_points"`
	// TestEvery is how often they are looked at. Default: 1h.
	TestEvery time.Duration `yaml:"test_every"`
}

// Listed is what a list says of one name.
type Listed struct {
	Listed bool     `json:"listed" expr:"listed"`                   // whether it is on it
	Codes  []string `json:"codes" expr:"codes" example:"127.0.0.2"` // what the list answered: "127.0.0.2"
	Names  []string `json:"names" expr:"names" example:"spam"`      // what the configuration calls these answers
}

// A Probe says by which names a list can be tested: the first point that the list has.
type Probe []Point

// A Point is a name that a list has, and one that it has not.
type Point struct{ Listed, Unlisted string }

// Addresses are the test points of lists of addresses: 127.0.0.2 and 127.0.0.1, and where there are only IPv6 addresses
// ::FFFF:7F00:2 and ::FFFF:7F00:1 (RFC 5782, 5).
func Addresses() Probe {
	six := ".0.0.0.0.0.f.7.f.f.f.f" + strings.Repeat(".0", 20)
	return Probe{{"2.0.0.127", "1.0.0.127"}, {"2" + six, "1" + six}}
}

// Names are the test points of lists of domains (RFC 5782, 5).
func Names() Probe { return Probe{{"test", "invalid"}} }

// A List is one DNS list. It is safe for concurrent use. What it knows of the list's health is its own: a reload of the
// configuration, which makes another, tests anew, and sounds the alarm anew.
type List struct {
	zone    string
	codes   []code
	refused []code
	answers map[string][]code
	names   []string // of answers, sorted
	timeout time.Duration
	every   time.Duration // 0: not tested
	probe   Probe

	resolver pipeline.Resolver
	now      func() time.Time
	log      *slog.Logger
	breaker  *breaker.Breaker

	mu   sync.Mutex
	due  time.Time // when it is to be tested again
	seen bool      // whether it was ever tested
	off  error     // why its answers mean nothing
}

var (
	// Name is what rules can call a list.
	Name = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

	answers = netip.MustParsePrefix("127.0.0.0/8")
	// What lists answer to resolvers they do not serve, and to queries they do not understand. The second is of old; no
	// list should use it (RFC 5782, 2.1) for anything else.
	refusals = netip.MustParsePrefix("127.255.255.0/24")
	blocked  = netip.MustParseAddr("127.0.0.1")
)

const (
	maxCodes = 50          // of one answer that are kept
	retest   = time.Minute // when a test could not be made, or failed
)

// New returns the list that c describes; all that is wrong with c is in the error.
func New(c Config, p Probe, env pipeline.Env) (*List, error) {
	l := &List{
		zone: strings.TrimSuffix(c.Zone, "."), answers: map[string][]code{}, timeout: c.Timeout, every: c.TestEvery, probe: p,
		resolver: env.Resolver, now: env.Now, log: env.Log, breaker: breaker.New(breaker.Config{}, env.Now),
	}
	wrong := []error{zoneError(l.zone)}
	if l.timeout < 0 {
		wrong = append(wrong, fmt.Errorf("timeout: %s is no time to wait", l.timeout))
	}
	if l.every < 0 {
		wrong = append(wrong, fmt.Errorf("test_every: %s is no time to wait", l.every))
	}
	if l.timeout == 0 {
		l.timeout = 5 * time.Second
	}
	if l.every == 0 {
		l.every = time.Hour
	}
	if c.NoTestPoints {
		l.every = 0
	}
	if c.TestPoint != "" {
		if err := zoneError(c.TestPoint); err != nil || c.NoTestPoints {
			wrong = append(wrong, fmt.Errorf("test_point: %q is no name before the zone, or there is also no_test_points", c.TestPoint))
		}
		l.probe = Probe{{c.TestPoint, p[0].Unlisted}}
	}
	var err error
	l.codes, err = parseCodes(c.Codes)
	wrong = append(wrong, err)
	l.refused, err = parseCodes(c.Refused)
	wrong = append(wrong, err)
	l.names = slices.Sorted(maps.Keys(c.Answers))
	for _, name := range l.names {
		if l.answers[name], err = parseCodes(c.Answers[name]); err != nil {
			wrong = append(wrong, fmt.Errorf("answers: %s: %w", name, err))
		}
	}
	return l, errors.Join(wrong...)
}

// zoneError returns what is wrong with a zone, nil if nothing.
func zoneError(zone string) error {
	if zone == "" {
		return errors.New("zone: is missing; write for example `zone: zen.spamhaus.org`")
	}
	if len(zone) > 180 {
		return fmt.Errorf("zone: %q is too long to have a name put before it", zone)
	}
	for label := range strings.SplitSeq(zone, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("zone: %q is no domain name", zone)
		}
	}
	return nil
}

// A code is answers that mean the same: a network, or those with some of these bits in the last octet.
type code struct {
	network netip.Prefix
	bits    byte
}

// matches reports whether a is among c. Refusals are only where c is about nothing else.
func (c code) matches(a netip.Addr) bool {
	switch {
	case a == blocked:
		return c.network.IsSingleIP() && c.network.Addr() == a
	case refusals.Contains(a) && (c.bits != 0 || !refusals.Overlaps(c.network) || c.network.Bits() < refusals.Bits()):
		return false
	case c.bits != 0:
		return a.As4()[3]&c.bits != 0
	}
	return c.network.Contains(a)
}

func parseCodes(list []string) ([]code, error) {
	var codes []code
	for _, s := range list {
		if bits, ok := strings.CutPrefix(s, "&"); ok {
			n, err := strconv.ParseUint(bits, 10, 8)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("codes: %q: write & and a number from 1 to 255, such as &8", s)
			}
			codes = append(codes, code{bits: byte(n)})
			continue
		}
		p, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || !p.Addr().Is4() || !answers.Contains(p.Addr()) || p.Bits() < answers.Bits() {
			return nil, fmt.Errorf("codes: %q is no answer of a list: write an address or a network in 127.0.0.0/8, or bits as &8", s)
		}
		codes = append(codes, code{network: p})
	}
	return codes, nil
}

// Ask returns what the list says of a name, an address the other way round for instance, without the zone. An error says
// that the list has not answered, refuses to, or is switched off because its answers mean nothing.
func (l *List) Ask(ctx context.Context, name string) (Listed, error) {
	due, off := l.health()
	if off != nil && !due { // who refuses to answer, or says nonsense, is not asked for each mail
		return Listed{}, fmt.Errorf("look up in %s: %w", l.zone, off)
	}
	if err := l.breaker.Allow(); err != nil {
		return Listed{}, fmt.Errorf("look up in %s: %w", l.zone, err)
	}
	// What a list can take is its own matter; what the caller can wait is his.
	own, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	var wg sync.WaitGroup // has ended when Ask returns
	if due {
		wg.Go(func() { l.test(own) })
	}
	got, err := l.ask(own, name)
	wg.Wait()
	switch temporary := (*net.DNSError)(nil); {
	case errors.Is(ctx.Err(), context.Canceled): // and not that his time is up: that is the list's doing
		l.breaker.Cancelled()
	case errors.As(err, &temporary):
		l.breaker.Done(err)
	default:
		l.breaker.Done(nil)
	}
	if err != nil {
		return Listed{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off != nil {
		return Listed{}, fmt.Errorf("look up in %s: %w", l.zone, l.off)
	}
	return got, nil
}

func (l *List) ask(ctx context.Context, name string) (Listed, error) {
	out := Listed{Codes: []string{}, Names: []string{}}
	got, err := l.look(ctx, name)
	if err != nil {
		return Listed{}, err
	}
	for _, a := range got {
		hit := slices.ContainsFunc(l.codes, func(c code) bool { return c.matches(a) })
		if !hit && l.refuses(a) {
			return Listed{}, fmt.Errorf("look up in %s: the list refuses to answer us (%s)", l.zone, a)
		}
		out.Listed = out.Listed || hit || len(l.codes) == 0
		if len(out.Codes) < maxCodes {
			out.Codes = append(out.Codes, a.String())
		}
	}
	slices.Sort(out.Codes)
	for _, name := range l.names {
		if slices.ContainsFunc(got, func(a netip.Addr) bool {
			return slices.ContainsFunc(l.answers[name], func(c code) bool { return c.matches(a) })
		}) {
			out.Names = append(out.Names, name)
		}
	}
	return out, nil
}

// look returns what the list answers about a name, nothing if it is not on it.
func (l *List) look(ctx context.Context, name string) ([]netip.Addr, error) {
	got, err := l.resolver.LookupA(ctx, name+"."+l.zone) // RFC 5782, 2.1: a listing is an A record
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up in %s: %w", l.zone, err)
	}
	for i, a := range got {
		if got[i] = a.Unmap(); !answers.Contains(got[i]) {
			return nil, fmt.Errorf("look up in %s: the answer %s is outside 127.0.0.0/8: this is no list, or not any more", l.zone, a)
		}
	}
	return got, nil
}

// health returns whether the list is to be tested, and why it was found to be of no use.
func (l *List) health() (due bool, off error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.every > 0 && !l.now().Before(l.due), l.off
}

// test looks at the test points. While it cannot, what it found last time holds, or that nothing is known of the list.
func (l *List) test(ctx context.Context) {
	off, err := l.points(ctx)
	if err != nil {
		l.untested(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.off
	l.seen, l.off, l.due = true, off, l.now().Add(l.every)
	if off != nil {
		l.due = l.now().Add(min(retest, l.every))
	}
	switch {
	case off != nil && (was == nil || was.Error() != off.Error()):
		l.log.Error("a DNS list is of no use", "list", l.zone, "err", off)
	case off == nil && was != nil:
		l.log.Info("a DNS list is of use again", "list", l.zone)
	}
}

// points returns why the list is of no use, by its test points; err is why they cannot be looked at.
func (l *List) points(ctx context.Context) (off, err error) {
	for _, p := range l.probe {
		var listed, unlisted []netip.Addr
		var errListed, errUnlisted error
		var wg sync.WaitGroup // both have ended when it is waited for
		wg.Go(func() { listed, errListed = l.look(ctx, p.Listed) })
		wg.Go(func() { unlisted, errUnlisted = l.look(ctx, p.Unlisted) })
		wg.Wait()
		refused := slices.IndexFunc(append(listed, unlisted...), l.refuses)
		switch err := errors.Join(errListed, errUnlisted); {
		case len(unlisted) > 0 && !slices.ContainsFunc(unlisted, l.refuses):
			return fmt.Errorf("switched off: it lists everybody, its test point %s too", p.Unlisted), nil
		case err != nil:
			return nil, err
		case refused >= 0:
			return fmt.Errorf("switched off: the list refuses to answer us (%s)", append(listed, unlisted...)[refused]), nil
		case len(listed) > 0:
			return nil, nil
		}
	}
	return fmt.Errorf("switched off: its test point %s is not listed, so it is dead, or has none: then set test_point or no_test_points",
		l.probe[0].Listed), nil
}

func (l *List) untested(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.seen {
		l.off = fmt.Errorf("its test points cannot be looked at: %w", err)
		return // and the next one to ask tries again
	}
	l.due = l.now().Add(min(retest, l.every))
}

func (l *List) refuses(a netip.Addr) bool {
	return a == blocked || refusals.Contains(a) || slices.ContainsFunc(l.refused, func(c code) bool { return c.matches(a) })
}
