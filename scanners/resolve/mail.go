package resolve

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// A Host is what the DNS says about where a host is.
type Host struct {
	IPv4, IPv6 []netip.Addr
	Name       string // where its aliases end, without the final dot: its own where it has none
	Authentic  bool   // all of that is vouched for by DNSSEC (Config.TrustAD)
}

// LookupHost returns the addresses of a host with what vouches for them. The error is one of both kinds of addresses: what
// was found counts all the same. An answer that cannot be had is not authentic.
func (r *Resolver) LookupHost(ctx context.Context, name string) (Host, error) {
	type reply struct {
		a   Answer
		err error
	}
	var four, six reply
	var wait sync.WaitGroup
	wait.Go(func() { four.a, four.err = r.Lookup(ctx, name, dns.TypeA) })
	wait.Go(func() { six.a, six.err = r.Lookup(ctx, name, dns.TypeAAAA) })
	wait.Wait()
	h := Host{Name: trimDot(dns.CanonicalName(name)), Authentic: true}
	for _, x := range []reply{four, six} {
		var e *net.DNSError
		switch {
		case x.err == nil:
			h.Authentic = h.Authentic && x.a.Authentic
		case errors.As(x.err, &e) && e.IsNotFound: // there is nothing that could be wrong
		default:
			h.Authentic = false
		}
		for _, rr := range x.a.Records {
			h.Name = trimDot(dns.CanonicalName(rr.Header().Name))
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A); ok {
					h.IPv4 = append(h.IPv4, a.Unmap())
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
					h.IPv6 = append(h.IPv6, a)
				}
			}
		}
	}
	if h.Authentic = h.Authentic && len(h.IPv4)+len(h.IPv6) > 0; four.err != nil && !errors.Is(four.err, ErrNoRecords) {
		return h, four.err
	}
	if six.err != nil && (four.err != nil || !errors.Is(six.err, ErrNoRecords)) {
		return h, six.err
	}
	return h, nil
}

// LookupMXAuthentic is LookupMX, and says whether DNSSEC vouches for the answer.
func (r *Resolver) LookupMXAuthentic(ctx context.Context, name string) (list []*net.MX, authentic bool, err error) {
	a, err := r.Lookup(ctx, name, dns.TypeMX)
	if err != nil {
		return nil, false, err
	}
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			list = append(list, &net.MX{Host: trimDot(mx.Mx), Pref: mx.Preference})
		}
	}
	slices.SortStableFunc(list, func(a, b *net.MX) int { return int(a.Pref) - int(b.Pref) })
	return list, a.Authentic, nil
}

// A TLSA is what a domain says about the certificate of a server (RFC 6698, 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// LookupTLSA returns the TLSA records of a name ("_25._tcp.mx.example.org"), and whether DNSSEC vouches for them.
func (r *Resolver) LookupTLSA(ctx context.Context, name string) (list []TLSA, authentic bool, err error) {
	a, err := r.Lookup(ctx, name, dns.TypeTLSA)
	if err != nil {
		return nil, false, err
	}
	for _, rr := range a.Records {
		if x, ok := rr.(*dns.TLSA); ok {
			if data, err := hex.DecodeString(x.Certificate); err == nil {
				list = append(list, TLSA{x.Usage, x.Selector, x.MatchingType, data})
			}
		}
	}
	return list, a.Authentic, nil
}
