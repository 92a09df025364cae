package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sluice/mailstore"
)

// Options are what a [Relay] works with.
type Options struct {
	Config
	Queue    mailstore.Queue
	Hostname string // who we say we are
	Resolver Resolver
	// Local takes mail for domains of ours; nil is none.
	Local Transport
	// IsLocal reports whether a domain is ours.
	IsLocal func(domain string) bool
	// Ours reports whether a name that the DNS gives for a domain is ours, so that mail does not go round in circles.
	// Hostname is, whatever it says; nil is no other.
	Ours func(host string) bool
	// State keeps MTA-STS policies over a restart; nil keeps them in memory.
	State State
	// Secret reads a file with a password.
	Secret func(path string) (string, error)
	// Roots reads a file of certificates; it is asked with CA where that is set.
	Roots func(path string) (*x509.CertPool, error)
	// Dial opens a connection; nil is that of a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock of the queue; nil is time.Now.
	Now func() time.Time
	// Log gets one line for each attempt; nil is slog.Default.
	Log *slog.Logger
	// Observe is told of every attempt, for metrics; nil is nobody.
	Observe func(Report)
	// Grace is how long mail that is being sent may take when Run is told to end; 0 is 5s.
	Grace time.Duration
}

// A Transport takes mail some other way than over the network.
type Transport interface {
	// Deliver says what became of a job. It returns once that would survive a power cut.
	Deliver(ctx context.Context, job mailstore.Job, content mailstore.Content) []mailstore.AttemptResult
}

// A Report is what an attempt came to, for whoever counts.
type Report struct {
	Destination string // as the configuration calls it: "smarthost", "direct", "lmtp", "local", "none"
	Outcomes    []mailstore.AttemptOutcome
	Took        time.Duration
	TLS         string // "1.3", "" without
	Verified    string // "dane", "mta-sts", "certificate", "" is nothing
}

// Proof says in a word what vouched for the server: what verified it, "tls" for TLS alone, "none".
func (r Report) Proof() string {
	switch {
	case r.Verified != "":
		return r.Verified
	case r.TLS != "":
		return "tls"
	}
	return "none"
}

// State keeps small values for a time. pipeline.State is one.
type State interface {
	Load(ctx context.Context, key string) (value []byte, ok bool, err error)
	Store(ctx context.Context, key string, value []byte, keep time.Duration) error
}

// A Resolver asks the DNS. Errors are *net.DNSError: IsNotFound where there is none, else the question stays open.
// authentic says that the answer is vouched for by DNSSEC all the way.
type Resolver interface {
	// MX returns the hosts of a domain, the preferred first. The null MX (RFC 7505) has the host ".".
	MX(ctx context.Context, domain string) (list []*net.MX, authentic bool, err error)
	// Addresses returns the addresses of a host. An error is one of both kinds: what was found counts.
	Addresses(ctx context.Context, host string) (Addresses, error)
	// TLSA returns records of RFC 6698. authentic is false as well where there are none.
	TLSA(ctx context.Context, name string) (list []TLSA, authentic bool, err error)
	// TXT returns records, the strings of each put together.
	TXT(ctx context.Context, name string) ([]string, error)
}

// Addresses are the addresses of a host.
type Addresses struct {
	IPv4, IPv6 []netip.Addr
	// Name is where its aliases end; "" or the host itself where there are none.
	Name      string
	Authentic bool
}

// A TLSA is what a domain says about the certificate of a server (RFC 6698, 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// A Relay takes mail from a queue and brings it to where it goes. Make it with [New].
type Relay struct {
	o      Options
	ways   *ways
	finder finder
	opener opener

	kick chan struct{} // something may be done that could not be before
	ran  sync.WaitGroup

	mu       sync.Mutex
	places   map[string]*destination
	free     free                      // those of them that nothing goes to, by when they may be forgotten
	idling   map[*destination]struct{} // those with idle sessions
	ring     []*destination            // those with jobs, the next to be served first
	waiting  int                       // jobs of all
	promised int                       // to be taken from the queue now
	starved  bool                      // somebody had no room because of all others
	busy     int                       // workers
	unproven int                       // of them, at destinations that have taken no mail lately
	live     int                       // sessions of all
	stopped  bool
}

// New returns a Relay, or all that is wrong with its settings.
func New(o Options) (*Relay, error) {
	o.Config = o.filled()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	o.Log, o.Grace = cmp.Or(o.Log, slog.Default()), cmp.Or(o.Grace, 5*time.Second)
	r := &Relay{o: o, kick: make(chan struct{}, 1), places: map[string]*destination{}, idling: map[*destination]struct{}{}}
	var err error
	if r.ways, err = o.newWays(); err != nil {
		return nil, err
	}
	r.finder.config, r.finder.resolver, r.finder.now = &r.o.Config, o.Resolver, o.Now
	r.finder.ours = func(host string) bool {
		return strings.EqualFold(host, o.Hostname) || o.Ours != nil && o.Ours(host)
	}
	if o.MTASTS {
		transport := r.finder.webTransport(o.Dial)
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.ways.all.roots}
		r.finder.policies = newPolicies(&r.finder, transport, o.State, o.Log)
	}
	r.opener = opener{config: &r.o.Config, hostname: o.Hostname, dial: o.Dial}
	return r, nil
}
