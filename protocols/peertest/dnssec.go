package peertest

import (
	"crypto"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signZone signs a zone in zone file form (RFC 4035, 2) with a key of its own, and returns the zone and the key.
func signZone(t testing.TB, zone, text string) (signed, key string) {
	t.Helper()
	origin := zone + "."
	public := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := public.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	type set struct {
		name  string
		qtype uint16
	}
	sets := map[set][]dns.RR{{origin, dns.TypeDNSKEY}: {public}}
	parser := dns.NewZoneParser(strings.NewReader(text), origin, "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		k := set{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
		sets[k] = append(sets[k], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	types := map[string][]uint16{}
	for k := range sets {
		types[k.name] = append(types[k.name], k.qtype)
	}
	// RFC 4034, 6.1: by labels from the right.
	order := func(a, b string) int {
		x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
		slices.Reverse(x)
		slices.Reverse(y)
		return slices.Compare(x, y)
	}
	names := slices.SortedFunc(maps.Keys(types), order)
	for i, name := range names {
		bitmap := append(types[name], dns.TypeNSEC, dns.TypeRRSIG)
		slices.Sort(bitmap)
		sets[set{name, dns.TypeNSEC}] = []dns.RR{&dns.NSEC{
			Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60},
			NextDomain: names[(i+1)%len(names)], TypeBitMap: bitmap,
		}}
	}
	var b strings.Builder
	for _, rrs := range sets {
		sig := &dns.RRSIG{
			Hdr:       dns.RR_Header{Ttl: rrs[0].Header().Ttl},
			Algorithm: public.Algorithm, KeyTag: public.KeyTag(), SignerName: origin,
			Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix()),
		}
		if err := sig.Sign(private.(crypto.Signer), rrs); err != nil {
			t.Fatal(err)
		}
		for _, rr := range append(rrs, sig) {
			b.WriteString(rr.String() + "\n")
		}
	}
	return b.String(), strings.ReplaceAll(public.String(), "\t", " ")
}
