package relay

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
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
