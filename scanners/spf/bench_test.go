package spf

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"sluice/pipeline"
)

// A memory answers from memory at once: what is measured is the evaluator.
type memory struct{ *zone }

func (m memory) LookupTXT(_ context.Context, name string) ([]string, error) {
	return known(m.txt[name], name)
}
func (m memory) LookupA(_ context.Context, name string) ([]netip.Addr, error) {
	return known(m.addr[name], name)
}
func (m memory) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	return known(m.mx[name], name)
}

func known[T any](list []T, name string) ([]T, error) {
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	return list, nil
}

func BenchmarkCheck(b *testing.B) {
	z := memory{newZone().add(
		"company.example TXT v=spf1 mx ip4:203.0.113.7 include:_spf.mail.example include:spf.news.example -all",
		"company.example TXT some-verification=0123456789abcdef", "company.example MX mx.company.example", "mx.company.example A 203.0.113.8",
		"_spf.mail.example TXT v=spf1 include:_n1.mail.example include:_n2.mail.example include:_n3.mail.example ~all",
		"_n1.mail.example TXT v=spf1 ip4:198.51.100.0/26 ip4:198.51.100.64/26 ip6:2001:db8:1::/48 ip6:2001:db8:2::/48 ~all",
		"_n2.mail.example TXT v=spf1 ip4:198.51.100.128/26 ip4:198.51.100.192/26 ip4:203.0.113.128/26 ~all",
		"_n3.mail.example TXT v=spf1 ip4:192.0.2.0/24 ip4:203.0.113.192/26 ~all",
		"spf.news.example TXT v=spf1 ip4:203.0.113.0/29 -all",
		"small.example TXT v=spf1 ip4:192.0.2.0/24 -all",
	)}
	for _, bb := range []struct{ name, domain, want string }{{"include chain", "company.example", Pass}, {"one record", "small.example", Pass}, {"none", "nothing.example", None}} {
		b.Run(bb.name, func(b *testing.B) {
			q := Query{Client: netip.MustParseAddr("192.0.2.1"), Local: "user", Domain: bb.domain, Helo: "mail.company.example"}
			b.ReportAllocs()
			for b.Loop() {
				if got := Check(b.Context(), z, Limits{}, q); got.Result != bb.want {
					b.Fatalf("%+v", got)
				}
			}
		})
	}
}

// What a mail costs: the sender's policy and that of the HELO name.
func BenchmarkStage(b *testing.B) {
	z := memory{newZone().add("company.example TXT v=spf1 mx ip4:203.0.113.7 include:_spf.mail.example -all", "company.example MX mx.company.example",
		"mx.company.example A 203.0.113.8", "_spf.mail.example TXT v=spf1 ip4:198.51.100.0/26 ip4:192.0.2.0/24 ~all", "out.mail.example TXT v=spf1 a -all", "out.mail.example A 192.0.2.1")}
	s := &stage{z, "mx.example.org", DefaultLimits()}
	var v pipeline.View
	v.Client.Addr, v.Greeting, v.Sender.Local, v.Sender.Domain = netip.MustParseAddr("192.0.2.1"), "out.mail.example", "user", "company.example"
	b.ReportAllocs()
	for b.Loop() {
		if r, err := s.Check(b.Context(), v); err != nil || r.Fact.(Fact).Result != Pass || r.Fact.(Fact).Helo != Pass {
			b.Fatal(r, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse("v=spf1 mx ip4:203.0.113.7 include:_spf.mail.example include:spf.news.example exists:%{i}._spf.%{d2} -all"); err != nil {
			b.Fatal(err)
		}
	}
}
