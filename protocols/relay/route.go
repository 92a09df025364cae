package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A way is a route that is ready to be used.
type way struct {
	kind  string // "smarthost", "direct", "lmtp", "local", "none"
	fixed []place
	level Level
	by    string
	login credentials
	roots *x509.CertPool
}

// A place is a server that the configuration names.
type place struct {
	network, host, port string
}

type credentials struct {
	User      string
	password  string
	cleartext bool
	// mechanisms are those that may be used; nil: all.
	mechanisms []string
}

// A server is one address at which mail may be taken.
type server struct {
	host     string
	network  string
	address  string
	lmtp     bool
	implicit bool // RFC 8314, 3.3: TLS from the first octet
	fixed    bool // the configuration names it: what it says of us is not about the mail
	login    credentials
	security security
}

// String returns it for a person: "mx.example.org [192.0.2.1]:25".
func (s *server) String() string {
	if s.network == "unix" {
		return "unix:" + s.address
	}
	ip, port, err := net.SplitHostPort(s.address)
	if err != nil || ip == s.host {
		return s.address
	}
	return s.host + " [" + ip + "]:" + port
}

// newWay reads what a route needs. at is where it stands in the configuration.
func (o *Options) newWay(r Route, at string) (*way, error) {
	w := &way{kind: "none", level: r.TLS, by: at + "tls: " + string(r.TLS), login: credentials{
		User: r.Login.User, cleartext: r.Login.Cleartext, mechanisms: r.Login.Mechanisms}}
	var err error
	var wrong []error
	if r.Login.PasswordFile != "" && o.Secret != nil {
		if w.login.password, err = o.Secret(r.Login.PasswordFile); err != nil {
			wrong = append(wrong, fmt.Errorf("%slogin.password_file: %w", at, err))
		}
	}
	if r.CA != "" && o.Roots != nil {
		if w.roots, err = o.Roots(r.CA); err != nil {
			wrong = append(wrong, fmt.Errorf("%sca: %w", at, err))
		}
	}
	switch path, unix := strings.CutPrefix(r.LMTP, "unix:"); {
	case r.Direct:
		w.kind = "direct"
	case unix:
		w.kind, w.fixed = "lmtp", []place{{network: "unix", host: path}}
		if w.level == "" {
			w.level = NoTLS
		}
	case r.LMTP != "":
		w.kind, w.fixed = "lmtp", places([]string{r.LMTP})
	case len(r.Smarthost) > 0:
		w.kind, w.fixed = "smarthost", places(r.Smarthost)
	}
	switch {
	case w.level != "":
	case w.login.User != "" && !w.login.cleartext:
		w.level, w.by = Verify, "its login"
	default:
		w.level = May
	}
	return w, errors.Join(wrong...)
}

func places(all []string) (list []place) {
	for _, s := range all {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = s, "25" // Problems has said so
		}
		if a, err := asciiDomain(host); err == nil {
			host = a
		}
		list = append(list, place{"tcp", host, port})
	}
	return list
}

// ways is where all mail goes.
type ways struct {
	all    *way
	routes map[string]*way
	local  *way
	ours   func(domain string) bool
}

func (o *Options) newWays() (*ways, error) {
	all, err := o.newWay(o.way(), "")
	errs := []error{err}
	x := &ways{all: all, routes: map[string]*way{}, local: &way{kind: "local"}, ours: o.IsLocal}
	for domain, r := range o.Routes {
		if r.TLS == "" {
			r.TLS = o.TLS
		}
		if r.CA == "" {
			r.CA = o.CA
		}
		if r.LMTP == "" && len(r.Smarthost) == 0 && !r.Direct { // the way of all others, with a TLS of its own
			r.Smarthost, r.Direct = o.Smarthost, o.Direct
			if r.Login.User == "" {
				r.Login = o.Login
			}
		}
		w, err := o.newWay(r, "routes."+domain+".")
		errs = append(errs, err)
		x.routes[routeKey(domain)] = w
	}
	return x, errors.Join(errs...)
}

func routeKey(domain string) string {
	dot := ""
	if strings.HasPrefix(domain, ".") {
		dot, domain = ".", domain[1:]
	}
	if a, err := asciiDomain(domain); err == nil {
		domain = a
	}
	return dot + domain
}

// to returns the way to a domain, and what it shares with others: connections, and being left alone.
func (x *ways) to(domain string) (w *way, key string) {
	name := routeKey(domain)
	w, named := x.routes[name]
	if !named && x.ours != nil && x.ours(domain) {
		return x.local, "local"
	}
	for rest := name; w == nil; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			w = x.all
			break
		}
		w, rest = x.routes["."+after], after
	}
	if w.kind == "direct" {
		return w, name
	}
	return w, fmt.Sprintf("%p", w) // a way is a destination
}

// finder finds servers.
type finder struct {
	config   *Config
	resolver Resolver
	ours     func(host string) bool
	policies *policies // nil heeds none
	now      func() time.Time
	families families
}

// servers returns the servers for a domain in the order to try them, and between them why others cannot be tried.
func (f *finder) servers(ctx context.Context, w *way, domain string) iter.Seq2[*server, *failure] {
	return func(yield func(*server, *failure) bool) {
		switch w.kind {
		case "none":
			yield(nil, unasked("", "4.3.5", errors.New("nothing says how mail leaves; set relay.smarthost or relay.direct")))
		case "direct":
			f.direct(ctx, w, domain, yield)
		default:
			for _, p := range w.fixed {
				if !f.named(ctx, w, p, yield) {
					return
				}
			}
		}
	}
}

// named yields the addresses of a server that the configuration names.
func (f *finder) named(ctx context.Context, w *way, p place, yield func(*server, *failure) bool) bool {
	s := server{
		host: p.host, network: p.network, address: p.host, lmtp: w.kind == "lmtp", fixed: true, login: w.login,
		implicit: p.port == "465",
		security: security{level: w.level, by: w.by, names: []string{p.host}, roots: w.roots, proof: "certificate"},
	}
	if p.network == "unix" {
		s.security.names[0] = "localhost"
		return yield(&s, nil)
	}
	if ip, err := netip.ParseAddr(p.host); err == nil {
		s.address = net.JoinHostPort(ip.String(), p.port)
		return yield(&s, nil)
	}
	if p.host == "localhost" { // RFC 6761, 6.3: no matter of the DNS
		for _, ip := range []string{"127.0.0.1", "::1"} {
			local := s
			local.address = net.JoinHostPort(ip, p.port)
			if !yield(&local, nil) {
				return false
			}
		}
		return true
	}
	found, err := f.resolver.Addresses(ctx, p.host)
	if len(found.IPv4)+len(found.IPv6) == 0 {
		return yield(nil, unasked("", "4.4.3", fmt.Errorf("no address of %s: %w", p.host, orNone(err))))
	}
	if no := f.dane(ctx, &s.security, p.host, p.port, found, nil); no != nil {
		return yield(nil, no)
	}
	for _, ip := range f.families.order(found, f.now()) {
		at := s
		at.address = net.JoinHostPort(ip.String(), p.port)
		if !yield(&at, nil) {
			return false
		}
	}
	return true
}

func orNone(err error) error {
	if err == nil {
		return errors.New("it has none")
	}
	return err
}

func notFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

// never makes a failure that no other try would better.
func never(status, format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), status: status, permanent: true}
}

// direct yields the servers that the DNS names for a domain: RFC 5321, 5.1.
func (f *finder) direct(ctx context.Context, w *way, domain string, yield func(*server, *failure) bool) {
	port := strconv.Itoa(f.config.Port)
	s := server{
		network: "tcp", security: security{level: w.level, by: w.by, roots: w.roots, proof: "certificate"},
	}
	if ip, ok := literal(domain); ok {
		if !f.may(ip) {
			yield(nil, never("5.4.6", "%s is on this machine", domain))
			return
		}
		s.host, s.address = ip.String(), net.JoinHostPort(ip.String(), port)
		s.security.names = []string{ip.String()}
		yield(&s, nil)
		return
	}
	name, err := asciiDomain(domain)
	if err != nil {
		yield(nil, never("5.1.2", "%q is no domain that the DNS could know", domain))
		return
	}
	hosts, authentic, no := f.hosts(ctx, name)
	if no != nil {
		yield(nil, no)
		return
	}
	var policy *policy
	if f.policies != nil && w.level != NoTLS {
		policy = f.policies.of(ctx, name)
	}
	for _, host := range hosts {
		if !f.host(ctx, s, host, port, name, authentic, policy, yield) {
			return
		}
	}
}

// hosts returns the names of the servers of a domain in the order to try them.
func (f *finder) hosts(ctx context.Context, domain string) (names []string, authentic bool, no *failure) {
	list, authentic, err := f.resolver.MX(ctx, domain)
	switch {
	case notFound(err), err == nil && len(list) == 0:
		return []string{domain}, authentic, nil // an address will do
	case err != nil:
		return nil, false, unasked("", "4.4.3", fmt.Errorf("the DNS does not say who takes mail for %s: %w", domain, err))
	}
	if len(list) == 1 && strings.Trim(list[0].Host, ".") == "" { // RFC 7505, 3
		return nil, false, never("5.1.10", "%s says that it takes no mail", domain)
	}
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) //nolint:gosec // to spread, not to hide
	slices.SortStableFunc(list, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	for i, mx := range list {
		host, err := asciiDomain(mx.Host)
		if err == nil && f.ours(host) { // those after us would send it to us
			first := slices.IndexFunc(list, func(x *net.MX) bool { return x.Pref == mx.Pref })
			if first == 0 {
				return nil, false, never("5.4.6", "%s names %s, which we are, to take its mail, but it is none of our domains", domain, host)
			}
			list = list[:min(first, i)]
			break
		}
	}
	for _, mx := range list {
		if host, err := asciiDomain(mx.Host); err == nil && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	if len(names) == 0 {
		return nil, false, never("5.4.4", "%s names no server that could exist", domain)
	}
	return names, authentic, nil
}

// host yields the addresses of one of a domain's servers.
func (f *finder) host(ctx context.Context, s server, host, port, domain string, authentic bool, policy *policy, yield func(*server, *failure) bool) bool {
	found, err := f.resolver.Addresses(ctx, host)
	if len(found.IPv4)+len(found.IPv6) == 0 {
		if (err == nil || notFound(err)) && host == domain {
			return yield(nil, never("5.1.2", "there is no %s that takes mail: it has neither a mail server nor an address", host))
		}
		if err == nil || notFound(err) {
			return yield(nil, never("5.4.4", "%s has no address", host))
		}
		return yield(nil, unasked("", "4.4.3", fmt.Errorf("the DNS does not say where %s is: %w", host, err)))
	}
	s.host, s.security.names = host, []string{host}
	found.Authentic = found.Authentic && authentic
	if no := f.dane(ctx, &s.security, host, port, found, []string{domain}); no != nil {
		return yield(nil, no)
	}
	// RFC 8461, 2: where there is DANE it is what counts.
	if policy != nil && s.security.by != byDANE {
		if no := policy.apply(&s.security, host); no != nil {
			return yield(nil, no)
		}
	}
	reached := false
	for _, ip := range f.families.order(found, f.now()) {
		if !f.may(ip) {
			continue
		}
		reached = true
		at := s
		at.address = net.JoinHostPort(ip.String(), port)
		if !yield(&at, nil) {
			return false
		}
	}
	if !reached {
		return yield(nil, never("5.4.6", "the addresses of %s are on this machine", host))
	}
	return true
}

// may reports whether an address that somebody else's DNS names may be one to talk to.
func (f *finder) may(ip netip.Addr) bool {
	ip = ip.Unmap()
	for _, p := range f.config.Reach {
		if p.Contains(ip) {
			return true
		}
	}
	return !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() &&
		!netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8).Contains(ip)
}

// byDANE is who asks for TLS where TLSA records do.
const byDANE = "DANE"

// dane lets TLSA records say what the connection must be: RFC 7672, 2.2. more are other names that a certificate of an
// authority may be for.
func (f *finder) dane(ctx context.Context, x *security, host, port string, found Addresses, more []string) *failure {
	if !f.config.DANE || !found.Authentic || x.level == NoTLS {
		return nil
	}
	names := []string{host}
	if found.Name != "" && found.Name != host {
		names = []string{found.Name, host} // 2.2.2: where the aliases end first
	}
	for _, name := range names {
		list, authentic, err := f.resolver.TLSA(ctx, "_"+port+"._tcp."+name)
		switch {
		case notFound(err), err == nil && (!authentic || len(list) == 0):
			continue
		case err != nil: // 2.1.1: somebody may be hiding them
			return unasked("", "4.7.5", fmt.Errorf("no answer about the TLSA records of %s: %w", name, err))
		}
		x.by, x.tested = byDANE, false
		if x.tlsa = usable(list); len(x.tlsa) == 0 { // 2.2: TLS all the same
			if x.level == May {
				x.level = Require
			}
			return nil
		}
		x.level, x.proof = Verify, "dane"
		x.names = append([]string{name}, more...)
		if name != host {
			x.names = append(x.names, host)
		}
		return nil
	}
	return nil
}

// families remembers which kind of addresses leads nowhere from here. The zero value knows of none.
type families struct {
	mu   sync.Mutex
	four time.Time // until when IPv4 comes last
	six  time.Time
}

// familyFor is how long a kind of address that led nowhere, while the other did not, comes last.
const familyFor = 10 * time.Minute

// order returns addresses as they are to be tried: both kinds in turn, IPv6 first, but all of a kind that leads nowhere last.
func (f *families) order(found Addresses, now time.Time) (list []netip.Addr) {
	f.mu.Lock()
	noFour, noSix := now.Before(f.four), now.Before(f.six)
	f.mu.Unlock()
	switch {
	case noSix && !noFour:
		return slices.Concat(found.IPv4, found.IPv6)
	case noFour && !noSix:
		return slices.Concat(found.IPv6, found.IPv4)
	}
	for i := range max(len(found.IPv4), len(found.IPv6)) {
		if i < len(found.IPv6) {
			list = append(list, found.IPv6[i])
		}
		if i < len(found.IPv4) {
			list = append(list, found.IPv4[i])
		}
	}
	return list
}

// learn takes note that one host was not reached at an address, and was at another.
func (f *families) learn(failed, reached string, now time.Time) {
	a, err1 := netip.ParseAddrPort(failed)
	b, err2 := netip.ParseAddrPort(reached)
	if err1 != nil || err2 != nil || a.Addr().Is4() == b.Addr().Is4() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Addr().Is4() {
		f.four = now.Add(familyFor)
	} else {
		f.six = now.Add(familyFor)
	}
}
