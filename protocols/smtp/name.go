package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// nameTimeout bounds the look-ups of one client's name: nobody is kept waiting for long by a name server.
const nameTimeout = 5 * time.Second

// maxNames is how many of an address's names are looked at.
const maxNames = 5

// nameOf completes a client with its name: the first of its address's names that lead back to the address, as MTAs do
// (RFC 8601, 3: iprev). A client without one has none; where the DNS did not say, the name is unknown. Nothing is asked
// about clients whom the site trusts.
func nameOf(ctx context.Context, r pipeline.Resolver, c pipeline.Client) pipeline.Client {
	switch {
	case !c.Known():
		return c
	case c.Trusted || c.Addr.IsLoopback():
		c.NameUnknown = "not asked for: the client is trusted"
		return c
	case r == nil:
		c.NameUnknown = "not asked for"
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	names, err := r.LookupPTR(ctx, c.Addr)
	if err != nil {
		if !notFound(err) {
			c.NameUnknown = fmt.Sprintf("look up the name of %s: %v", c.Addr, err)
		}
		return c
	}
	for _, name := range names[:min(len(names), maxNames)] {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		addrs, err := r.LookupAddr(ctx, name)
		switch {
		case err != nil && !notFound(err):
			c.NameUnknown = fmt.Sprintf("look up %s: %v", name, err)
		case slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == c.Addr.Unmap() }):
			c.Name, c.NameUnknown = name, ""
			return c
		}
	}
	return c
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
