// Package resolve asks the DNS for everybody: one resolver with a cache, for stages and doors alike.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// Config says whom to ask and for how long. Fields that are zero stand for those of DefaultConfig.
type Config struct {
	// Servers are the addresses of recursive resolvers, "192.0.2.1" or "[2001:db8::1]:5353", asked in this order. Empty:
	// those in /etc/resolv.conf.
	Servers []string `yaml:"servers" example:"[192.0.2.1]"`
	// Timeout is how long one server may take for one question.
	Timeout time.Duration `yaml:"timeout"`
	// Attempts is how often each server is asked before the answer is "no answer".
	Attempts int `yaml:"attempts"`
	// CacheSize is how many octets of answers are kept; less than 0 keeps none.
	CacheSize int `yaml:"cache_size"`
	// CacheFor is how long an answer is kept at most, whatever its TTL says.
	CacheFor time.Duration `yaml:"cache_for"`
	// CacheAtLeast is how long an answer is kept at least, whatever its TTL says; 0s keeps none longer than it allows.
	CacheAtLeast time.Duration `yaml:"cache_at_least"`
	// CacheNothingFor is how long "there is none" is kept at most; the zone's own word counts below that.
	CacheNothingFor time.Duration `yaml:"cache_nothing_for"`
	// CacheFailureFor is how long a question that nobody could answer is not asked again (RFC 9520); at most 5m.
	CacheFailureFor time.Duration `yaml:"cache_failure_for"`
	// StaleFor is how long after its time an answer still serves where nobody gives a fresh one (RFC 8767). 0s: never.
	StaleFor time.Duration `yaml:"stale_for"`
	// TrustAD says that the servers validate DNSSEC and that nobody is between them and us: their word that an answer is
	// authentic is then passed on, else none is.
	TrustAD bool `yaml:"trust_ad"`
	// Records is how many records an answer may have at most; a question that leads to more stays open.
	Records int `yaml:"records"`
	// Aliases is how many CNAME records may follow each other; a question that leads to more stays open.
	Aliases int `yaml:"aliases"`
	// Concurrent is how many questions may be under way at once; others wait.
	Concurrent int `yaml:"concurrent"`
}

// DefaultConfig returns what New takes for fields that are zero.
func DefaultConfig() Config {
	return Config{
		Timeout: 3 * time.Second, Attempts: 2, CacheSize: 16 << 20, CacheFor: time.Hour, CacheNothingFor: 3 * time.Hour,
		CacheFailureFor: 2 * time.Second, Records: 500, Aliases: 8, Concurrent: 500,
	}
}

// Limits on what one question may lead to.
const (
	maxStrays     = 20                      // packets on our port that do not answer our question
	maxFailureFor = 5 * time.Minute         // RFC 9520, 3.2: how long a failure may be kept
	staleAfter    = 1800 * time.Millisecond // RFC 8767, 5: how long to wait for a fresh answer where there is an old one
	deadFor       = 10 * time.Second        // a server that did not answer is asked last
	udpSize       = 1232                    // RFC 9715, 3.1: what does not need fragments
	resolvConf    = "/etc/resolv.conf"
	// Octets of the cache that an empty answer and each of its records cost besides what was sent.
	entryOverhead  = 300
	recordOverhead = 150
)

// A Resolver asks recursive resolvers and keeps their answers. It implements pipeline.Resolver and is safe for
// concurrent use. Questions that are the same are asked once.
//
// Names may be given with U-labels and with or without the trailing dot, and are always absolute; names in answers have
// no trailing dot. All errors are *net.DNSError. IsNotFound: the name or the type does not exist. IsTemporary: the
// question stays open, as nobody answered (IsTimeout too), or a server failed or refused. errors.Is tells them apart:
// ErrNoSuchName, ErrNoRecords, ErrTimeout, ErrServerFailure, ErrRefused, ErrTooMany.
type Resolver struct {
	config  Config
	servers []*server
	now     func() time.Time
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	slots   chan struct{} // one for each question under way

	mu    sync.Mutex
	calls map[question]*call
	cache cache
	stats Stats
}

// Stats counts what a Resolver did since it was made.
type Stats struct {
	Cached, Stale, Asked, Failed uint64 // answers from the cache, those past their time, questions to servers, those left open
	Entries, Octets              int    // in the cache now
}

// Stats returns what was counted so far.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Entries, s.Octets = len(r.cache.entries), r.cache.size
	return s
}

type server struct {
	address string
	mu      sync.Mutex
	deadTo  time.Time
}

// A question is what is asked: an absolute name in lower case, and a type.
type question struct {
	name  string
	qtype uint16
}

// New returns a Resolver. A nil now is time.Now, a nil dial that of a net.Dialer.
func New(c Config, now func() time.Time, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Resolver, error) {
	d := DefaultConfig()
	c.Timeout = cmp.Or(c.Timeout, d.Timeout)
	c.Attempts = cmp.Or(c.Attempts, d.Attempts)
	c.CacheSize = cmp.Or(c.CacheSize, d.CacheSize)
	c.CacheFor = cmp.Or(c.CacheFor, d.CacheFor)
	c.CacheNothingFor = cmp.Or(c.CacheNothingFor, d.CacheNothingFor)
	c.CacheFailureFor = min(cmp.Or(c.CacheFailureFor, d.CacheFailureFor), maxFailureFor)
	c.Records = cmp.Or(c.Records, d.Records)
	c.Aliases = cmp.Or(c.Aliases, d.Aliases)
	c.Concurrent = cmp.Or(c.Concurrent, d.Concurrent)
	if min(c.Timeout, c.CacheFor, c.CacheAtLeast, c.CacheNothingFor, c.CacheFailureFor, c.StaleFor) < 0 ||
		min(c.Attempts, c.Records, c.Aliases, c.Concurrent) < 0 {
		return nil, errors.New("of the resolver's settings only cache_size may be negative")
	}
	if len(c.Servers) == 0 {
		var err error
		if c.Servers, err = systemServers(resolvConf); err != nil {
			return nil, err
		}
	}
	r := &Resolver{config: c, now: now, dial: dial, slots: make(chan struct{}, c.Concurrent), calls: map[question]*call{}}
	r.cache.most, r.cache.stale = c.CacheSize, c.StaleFor
	if r.now == nil {
		r.now = time.Now
	}
	if r.dial == nil {
		r.dial = new(net.Dialer).DialContext
	}
	for _, s := range c.Servers {
		address, err := serverAddress(s)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, &server{address: address})
	}
	return r, nil
}

// systemServers returns what the system asks. Without a file that is a resolver on this machine, as resolv.conf(5) says.
func systemServers(file string) ([]string, error) {
	c, err := dns.ClientConfigFromFile(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(c.Servers) == 0 {
		return []string{"127.0.0.1"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find out whom to ask: %s: %w", file, err)
	}
	return c.Servers, nil
}

func serverAddress(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", fmt.Errorf("name server %q: not an address; write it as 192.0.2.1 or [2001:db8::1]:53", s)
	}
	return a.String(), nil
}

// LookupAddr returns the addresses of a name, IPv4 first. If one of the two kinds cannot be had the other is the answer.
func (r *Resolver) LookupAddr(ctx context.Context, name string) ([]netip.Addr, error) {
	type reply struct {
		addrs []netip.Addr
		err   error
	}
	six := make(chan reply, 1)
	go func() { // ends with the look-up, which we wait for
		addrs, err := r.LookupAAAA(ctx, name)
		six <- reply{addrs, err}
	}()
	addrs, err := r.LookupA(ctx, name)
	other := <-six
	if addrs = append(addrs, other.addrs...); len(addrs) > 0 {
		return addrs, nil
	}
	if errors.Is(err, ErrNoRecords) {
		return nil, other.err // no A record says nothing about AAAA
	}
	return nil, err
}

// LookupA returns the IPv4 addresses of a name.
func (r *Resolver) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return lookup(ctx, r, name, dns.TypeA, func(rr *dns.A) (netip.Addr, bool) {
		a, ok := netip.AddrFromSlice(rr.A)
		return a.Unmap(), ok
	})
}

// LookupAAAA returns the IPv6 addresses of a name.
func (r *Resolver) LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return lookup(ctx, r, name, dns.TypeAAAA, func(rr *dns.AAAA) (netip.Addr, bool) { return netip.AddrFromSlice(rr.AAAA) })
}

// LookupTXT returns the TXT records of a name, the strings of each put together.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return lookup(ctx, r, name, dns.TypeTXT, func(rr *dns.TXT) (string, bool) {
		var b strings.Builder
		for _, s := range rr.Txt {
			b.WriteString(unescape(s))
		}
		return b.String(), true
	})
}

// LookupPTR returns the names of an address.
func (r *Resolver) LookupPTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, &net.DNSError{Err: "no address", Name: addr.String(), IsNotFound: true}
	}
	return lookup(ctx, r, name, dns.TypePTR, func(rr *dns.PTR) (string, bool) { return trimDot(rr.Ptr), true })
}

// LookupMX returns the MX records of a name, the preferred first. The null MX (RFC 7505) has the host ".".
func (r *Resolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	list, err := lookup(ctx, r, name, dns.TypeMX, func(rr *dns.MX) (*net.MX, bool) {
		return &net.MX{Host: trimDot(rr.Mx), Pref: rr.Preference}, true
	})
	slices.SortStableFunc(list, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	return list, err
}

// An Answer is what the DNS says about a name and a type. Its records are shared and must not be changed.
type Answer struct {
	Records   []dns.RR
	Authentic bool // the server vouches for it by DNSSEC, and is trusted to (Config.TrustAD)
	Stale     bool // its time is over, but nobody gave a fresh one (Config.StaleFor)
}

// Lookup returns the records of one type; there is at least one.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	fqdn, ok := absolute(name)
	if !ok {
		return Answer{}, &net.DNSError{UnwrapErr: ErrNoSuchName, Err: "not a domain name", Name: name, IsNotFound: true}
	}
	a, err := r.ask(ctx, question{fqdn, qtype})
	if err == nil && a.missing != nil {
		err = &net.DNSError{UnwrapErr: a.missing, Err: a.missing.Error(), IsNotFound: true}
	}
	if err != nil {
		e := *err // shared with others who ask
		e.Name = name
		return Answer{}, &e
	}
	return Answer{Records: a.records, Authentic: a.authentic, Stale: a.stale}, nil
}

// lookup asks and turns records into values.
func lookup[R dns.RR, T any](ctx context.Context, r *Resolver, name string, qtype uint16, value func(R) (T, bool)) ([]T, error) {
	a, err := r.Lookup(ctx, name, qtype)
	if err != nil {
		return nil, err
	}
	var list []T
	for _, rr := range a.Records {
		if rr, ok := rr.(R); ok {
			if v, ok := value(rr); ok {
				list = append(list, v)
			}
		}
	}
	return list, nil
}

// absolute returns a name as questions have it.
func absolute(name string) (string, bool) {
	if strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 }) >= 0 {
		a, err := idna.Lookup.ToASCII(name) // RFC 5891, 5: with capitals and other dots made plain
		if err != nil {
			a, err = idna.Punycode.ToASCII(name) // and what is no name of a host may be one of the DNS
		}
		if err != nil {
			return "", false
		}
		name = a
	}
	if name == "" || strings.ContainsAny(name, " \t\r\n\x00") {
		return "", false
	}
	_, ok := dns.IsDomainName(name)
	return dns.CanonicalName(name), ok
}

func trimDot(s string) string {
	if s == "." {
		return s
	}
	return strings.TrimSuffix(s, ".")
}

// unescape undoes what the library does to octets that are not printable: \DDD and \c.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		digit := func(n int) bool { return i+n < len(s) && '0' <= s[i+n] && s[i+n] <= '9' }
		if digit(1) && digit(2) && digit(3) {
			out = append(out, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
			continue
		}
		i++
		out = append(out, s[i])
	}
	return string(out)
}
