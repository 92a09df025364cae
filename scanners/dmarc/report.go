package dmarc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/orgdomain"
)

// A Destination is an address that the owner of a domain wants aggregate reports at.
type Destination struct {
	Address string
	Most    int64 // octets that a report may have; 0: any
}

// Destinations returns the addresses that rua= of a policy record names, each once, in order. Only mailto: is known: what
// else stands there is left out.
func Destinations(record string) (all []Destination) {
	for part := range strings.SplitSeq(record, ";") {
		name, value, ok := tag(part)
		if !ok || name != "rua" {
			continue
		}
		for one := range strings.SplitSeq(value, ",") {
			d, ok := destination(strings.Trim(one, " \t"))
			same := func(x Destination) bool { return strings.EqualFold(x.Address, d.Address) }
			if ok && len(all) < mostTags && !slices.ContainsFunc(all, same) {
				all = append(all, d)
			}
		}
		break // the first counts, as everywhere
	}
	return all
}

// destination reads one URI with its limit (RFC 7489, 6.4): "mailto:reports@example.org!10m".
func destination(s string) (d Destination, ok bool) {
	s, limit, limited := strings.Cut(s, "!")
	if limited {
		if d.Most, ok = size(limit); !ok {
			return d, false // what cannot be read might be small
		}
	}
	u, err := url.Parse(s)
	if err != nil || !strings.EqualFold(u.Scheme, "mailto") {
		return d, false
	}
	if d.Address, err = url.PathUnescape(u.Opaque); err != nil {
		return d, false
	}
	a, err := mime.ParseAddress(d.Address)
	plain := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>[\]`, r) }
	return d, err == nil && a.Domain != "" && !strings.ContainsFunc(d.Address, plain) && strings.Count(d.Address, "@") == 1
}

// size reads a number with k, m, g or t behind it, which are powers of 1024.
func size(s string) (octets int64, ok bool) {
	unit := int64(1)
	if n := len(s); n > 0 {
		if power := strings.IndexByte("kmgt", s[n-1]|0x20); power >= 0 {
			s, unit = s[:n-1], 1<<(10*(power+1))
		}
	}
	x, err := strconv.ParseInt(s, 10, 64)
	return x * unit, err == nil && x > 0 && x <= (1<<62)/unit
}

// Wanted finds out whether somebody wants the reports about a domain at an address. Of the domain's own addresses that is
// plain; who is elsewhere says so in the DNS, or everybody could have others sent mail (RFC 7489, 7.1). What he says may
// name another address of his: that is the one to send to. An error is that the DNS has not answered.
func Wanted(ctx context.Context, r pipeline.Resolver, domain string, d Destination) (to []Destination, err error) {
	host, ok := hostOf(d)
	own, known := orgdomain.Canonical(domain)
	if !ok || !known {
		return nil, nil
	}
	a, _ := orgdomain.Of(own)
	b, _ := orgdomain.Of(host)
	if a == b && a != "" || own == host {
		return []Destination{d}, nil
	}
	records, err := r.LookupTXT(ctx, own+"._report._dmarc."+host)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ask %s whether it wants reports about %s: %w", host, own, err)
	}
	records = slices.DeleteFunc(slices.Clone(records), func(s string) bool { return !IsRecord(s) })
	if len(records) == 0 {
		return nil, nil
	}
	named := false
	for _, text := range records {
		for _, other := range Destinations(text) {
			named = true
			if h, ok := hostOf(other); ok && h == host { // 7.1, 9: never another's
				other.Most = smaller(other.Most, d.Most)
				to = append(to, other)
			}
		}
	}
	if !named {
		return []Destination{d}, nil
	}
	return to, nil
}

func hostOf(d Destination) (string, bool) {
	return orgdomain.Canonical(d.Address[strings.LastIndexByte(d.Address, '@')+1:])
}

// smaller of two limits, of which 0 is none.
func smaller(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
