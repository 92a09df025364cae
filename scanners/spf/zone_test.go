package spf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A zone answers from memory as name servers and a resolver that follows aliases do.
type zone struct {
	txt, ptr, cname map[string][]string // by lower-cased name; of ptr the name below arpa
	addr            map[string][]netip.Addr
	mx              map[string][]*net.MX
	fail            map[string]bool // names whose servers do not answer
	latency         time.Duration
	panics          string // the name whose look-up is a fault of ours

	mu    sync.Mutex
	asked map[string]int // questions, by type and name
}

func newZone() *zone {
	return &zone{
		txt: map[string][]string{}, ptr: map[string][]string{}, cname: map[string][]string{},
		addr: map[string][]netip.Addr{}, mx: map[string][]*net.MX{}, fail: map[string]bool{}, asked: map[string]int{},
	}
}

// add takes records as "example.com TXT v=spf1 -all"; PTR may have an address for its name, and FAIL is no answer.
func (z *zone) add(records ...string) *zone {
	for _, r := range records {
		name, rest, _ := strings.Cut(r, " ")
		kind, value, _ := strings.Cut(rest, " ")
		if a, err := netip.ParseAddr(name); err == nil && kind == "PTR" {
			name = arpa(a)
		}
		z.put(name, kind, value)
	}
	return z
}

func (z *zone) put(name, kind, value string) {
	name = strings.ToLower(name)
	switch kind {
	case "TXT":
		z.txt[name] = append(z.txt[name], value)
	case "A", "AAAA":
		z.addr[name] = append(z.addr[name], netip.MustParseAddr(value))
	case "MX":
		z.mx[name] = append(z.mx[name], &net.MX{Host: value})
	case "PTR":
		z.ptr[name] = append(z.ptr[name], value)
	case "CNAME":
		z.cname[name] = append(z.cname[name], value)
	case "FAIL":
		z.fail[name] = true
	default:
		panic("no record: " + name + " " + kind)
	}
}

// questions returns how many questions came, and the most that one name and type got.
func (z *zone) questions() (n, most int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, x := range z.asked {
		n, most = n+x, max(most, x)
	}
	return n, most
}

func find[T any](ctx context.Context, z *zone, kind, name string, table map[string][]T) ([]T, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == z.panics && name != "" {
		panic(name)
	}
	z.mu.Lock()
	z.asked[kind+" "+name]++
	z.mu.Unlock()
	if z.latency > 0 {
		select {
		case <-time.After(z.latency):
		case <-ctx.Done():
			return nil, &net.DNSError{Err: "given up", Name: name, IsTemporary: true}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true}
	}
	for range 9 {
		if z.fail[name] {
			return nil, &net.DNSError{Err: "no answer in time", Name: name, IsTimeout: true, IsTemporary: true}
		}
		if x := table[name]; len(x) > 0 {
			return slices.Clone(x), nil
		}
		if len(z.cname[name]) == 0 {
			return nil, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
		}
		name = strings.ToLower(strings.TrimSuffix(z.cname[name][0], "."))
	}
	return nil, &net.DNSError{Err: "more than 8 aliases in a row", Name: name, IsTemporary: true}
}

func (z *zone) family(ctx context.Context, kind, name string, is func(netip.Addr) bool) ([]netip.Addr, error) {
	all, err := find(ctx, z, kind, name, z.addr)
	if all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !is(a) }); err == nil && len(all) == 0 {
		return nil, &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
	}
	return all, err
}

func (z *zone) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return z.family(ctx, "A", name, netip.Addr.Is4)
}

func (z *zone) LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return z.family(ctx, "AAAA", name, netip.Addr.Is6)
}

func (z *zone) LookupAddr(context.Context, string) ([]netip.Addr, error) {
	panic("SPF asks for one family")
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return find(ctx, z, "TXT", name, z.txt)
}

func (z *zone) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return find(ctx, z, "MX", name, z.mx)
}

func (z *zone) LookupPTR(ctx context.Context, a netip.Addr) ([]string, error) {
	return find(ctx, z, "PTR", arpa(a), z.ptr)
}

// arpa is the name of an address for PTR records.
func arpa(a netip.Addr) string {
	digits := strings.Split(nibbles(a), ".")
	slices.Reverse(digits)
	if a.Is4() {
		return fmt.Sprintf("%s.in-addr.arpa", strings.Join(digits, "."))
	}
	return fmt.Sprintf("%s.ip6.arpa", strings.Join(digits, "."))
}
