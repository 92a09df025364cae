package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A policy is what a domain says about its servers: RFC 8461, 3.2.
type policy struct {
	ID      string    `json:"id"`
	Mode    string    `json:"mode"` // enforce, testing, none
	MX      []string  `json:"mx"`
	Fetched time.Time `json:"fetched"`
	Expires time.Time `json:"expires"`
}

// apply says what the policy makes of a host: what a connection to it must be, or that it is none of the domain's.
func (p *policy) apply(x *security, host string) *failure {
	if p.Mode != "enforce" && p.Mode != "testing" {
		return nil
	}
	named := false
	for _, pattern := range p.MX {
		named = named || matchMX(pattern, host)
	}
	switch {
	case !named && p.Mode == "enforce":
		return unasked("", "4.7.5", fmt.Errorf("%s is no server that the MTA-STS policy of the domain names", host))
	case p.Mode == "enforce":
		x.level, x.by, x.proof = Verify, "its MTA-STS policy", "mta-sts"
	case x.level == May || x.level == Require:
		x.tested, x.proof = true, "mta-sts"
	}
	return nil
}

// matchMX reports whether a host is what a pattern of a policy names: RFC 8461, 4.1.
func matchMX(pattern, host string) bool {
	if rest, wild := strings.CutPrefix(pattern, "*."); wild {
		_, parent, ok := strings.Cut(host, ".")
		return ok && parent == rest
	}
	return pattern == host
}

// Limits on policies.
const (
	mostPolicy  = 64 << 10 // octets: RFC 8461, 3.3
	mostMX      = 200
	longestAge  = 31557600 * time.Second // RFC 8461, 3.2
	afterFailed = 5 * time.Minute        // RFC 8461, 3.3: not asked again before
	refresh     = 24 * time.Hour         // RFC 8461, 10.2: so that one who hides the record for long gains nothing
	mostKnown   = 1000                   // in memory
	fetchFor    = 30 * time.Second
)

// policies finds policies, and keeps them.
type policies struct {
	resolver Resolver
	state    State // nil: in memory alone
	client   *http.Client
	now      func() time.Time
	log      *slog.Logger

	mu     sync.Mutex
	known  map[string]*knownPolicy
	asking map[string]chan struct{} // closed when somebody has asked
}

// A knownPolicy is what memory has of a domain.
type knownPolicy struct {
	policy *policy   // nil is none
	failed time.Time // when it could last not be fetched
}

// newPolicies returns policies that are fetched over connections of f's.
func newPolicies(f *finder, transport *http.Transport, state State, log *slog.Logger) *policies {
	return &policies{
		resolver: f.resolver, state: state, now: f.now, log: log,
		client: &http.Client{
			Transport: transport,
			// RFC 8461, 3.3: redirects are not followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		known: map[string]*knownPolicy{}, asking: map[string]chan struct{}{},
	}
}

// of returns the policy of a domain, nil if it has none or none can be had.
func (p *policies) of(ctx context.Context, domain string) *policy {
	for { // one at a time asks about a domain
		p.mu.Lock()
		busy, ok := p.asking[domain]
		if !ok {
			busy = make(chan struct{})
			p.asking[domain] = busy
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil
		}
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.asking[domain])
		delete(p.asking, domain)
	}()
	x := p.load(ctx, domain)
	if x.policy != nil && !p.now().Before(x.policy.Expires) {
		x.policy = nil
	}
	id, ok := p.announced(ctx, domain)
	switch {
	case !ok: // RFC 8461, 5.1: one that is kept counts while it lasts
		return x.policy
	case x.policy != nil && x.policy.ID == id && p.now().Before(x.policy.Fetched.Add(refresh)):
		return x.policy
	case p.now().Before(x.failed.Add(afterFailed)):
		return x.policy
	}
	fetched, err := p.fetch(ctx, domain)
	if err != nil {
		if ctx.Err() != nil {
			return x.policy
		}
		x.failed = p.now()
		p.keep(domain, x)
		p.log.Warn("no MTA-STS policy, although the domain announces one", "domain", domain, "err", err, "kept", x.policy != nil)
		return x.policy
	}
	fetched.ID = id
	p.keep(domain, knownPolicy{policy: fetched})
	p.store(ctx, domain, fetched)
	return fetched
}

// announced returns the id of the policy that a domain says it has: RFC 8461, 3.1.
func (p *policies) announced(ctx context.Context, domain string) (id string, ok bool) {
	records, err := p.resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return "", false
	}
	found := 0
	for _, r := range records {
		version, rest, _ := strings.Cut(r, ";")
		if strings.TrimRight(version, " \t") != "v=STSv1" {
			continue
		}
		found++
		for field := range strings.SplitSeq(rest, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			if strings.TrimSpace(name) == "id" {
				id = strings.TrimSpace(value)
			}
		}
	}
	return id, found == 1 && id != "" && len(id) <= 32
}

func (p *policies) load(ctx context.Context, domain string) knownPolicy {
	p.mu.Lock()
	x := p.known[domain]
	p.mu.Unlock()
	if x != nil || p.state == nil {
		if x == nil {
			return knownPolicy{}
		}
		return *x
	}
	var kept policy
	value, ok, err := p.state.Load(ctx, stsKey+domain)
	if err == nil && ok && json.Unmarshal(value, &kept) == nil {
		return knownPolicy{policy: &kept}
	}
	return knownPolicy{}
}

// stsKey is what keys of policies begin with.
const stsKey = "relay mta-sts "

func (p *policies) keep(domain string, x knownPolicy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other := range p.known {
		if len(p.known) < mostKnown {
			break
		}
		delete(p.known, other) // any: State has them
	}
	p.known[domain] = &x
}

func (p *policies) store(ctx context.Context, domain string, x *policy) {
	if p.state == nil {
		return
	}
	value, err := json.Marshal(x)
	if err == nil {
		err = p.state.Store(ctx, stsKey+domain, value, x.Expires.Sub(p.now()))
	}
	if err != nil {
		p.log.Warn("an MTA-STS policy is kept in memory alone", "domain", domain, "err", err)
	}
}

// fetch gets a policy: RFC 8461, 3.3.
func (p *policies) fetch(ctx context.Context, domain string) (*policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, err
	}
	a, err := p.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server says %d", a.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(a.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return nil, fmt.Errorf("the server gives it as %s, not as text/plain", shortened(printable(a.Header.Get("Content-Type")), 80))
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, mostPolicy+1))
	if err != nil {
		return nil, err
	}
	return parsePolicy(string(text), p.now())
}

// parsePolicy reads a policy: RFC 8461, 3.2.
func parsePolicy(text string, now time.Time) (*policy, error) {
	if len(text) > mostPolicy {
		return nil, fmt.Errorf("it has more than %d octets", mostPolicy)
	}
	x := &policy{Fetched: now}
	seen := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, mostPolicy+1)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key != "mx" && seen[key] {
			continue // the first counts
		}
		seen[key] = true
		switch key {
		case "version":
			if value != "STSv1" {
				return nil, errors.New("its version is none that we know")
			}
		case "mode":
			if x.Mode = value; value != "enforce" && value != "testing" && value != "none" {
				return nil, fmt.Errorf("its mode is %q", shortened(printable(value), 40))
			}
		case "max_age":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil || len(value) > 10 {
				return nil, fmt.Errorf("its max_age is %q", shortened(printable(value), 40))
			}
			x.Expires = now.Add(min(time.Duration(n)*time.Second, longestAge))
		case "mx":
			pattern := strings.ToLower(strings.TrimSuffix(value, "."))
			if _, err := asciiDomain(strings.TrimPrefix(pattern, "*.")); err != nil {
				return nil, fmt.Errorf("it names %q as a server", shortened(printable(value), 80))
			}
			if x.MX = append(x.MX, pattern); len(x.MX) > mostMX {
				return nil, fmt.Errorf("it names more than %d servers", mostMX)
			}
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, lines.Err()
	case !seen["version"] || !seen["mode"] || !seen["max_age"]:
		return nil, errors.New("it lacks version, mode or max_age")
	case len(x.MX) == 0 && x.Mode != "none":
		return nil, errors.New("it names no server")
	}
	return x, nil
}

// webTransport returns how policies are fetched: to addresses that our resolver finds, and that may be talked to.
func (f *finder) webTransport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true, TLSHandshakeTimeout: fetchFor, MaxResponseHeaderBytes: mostPolicy,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			found, err := f.resolver.Addresses(ctx, host)
			err = fmt.Errorf("no address of %s: %w", host, orNone(err))
			for _, ip := range f.families.order(found, f.now()) {
				if !f.may(ip) {
					err = fmt.Errorf("%s is on this machine", host)
					continue
				}
				dialing, cancel := context.WithTimeout(ctx, f.config.Timeouts.Connect)
				conn, wrong := dial(dialing, "tcp", net.JoinHostPort(ip.String(), port))
				cancel()
				if wrong == nil {
					return conn, nil
				}
				err = wrong
			}
			return nil, err
		},
	}
}
