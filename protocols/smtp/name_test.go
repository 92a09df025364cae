package smtp

import (
	"net/netip"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestNameOf(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	r := &pipelinetest.Resolver{
		PTR: map[netip.Addr][]string{
			a("192.0.2.1"):   {"Mail.Example.COM."},
			a("192.0.2.2"):   {"forged.example.com"},
			a("192.0.2.3"):   {"nowhere.example.com", "mail.example.com"},
			a("192.0.2.4"):   {"slow.example.com"},
			a("192.0.2.5"):   {"slow.example.com", "five.example.com"},
			a("2001:db8::1"): {"six.example.com"},
		},
		Addr: map[string][]netip.Addr{
			"mail.example.com":   {a("192.0.2.9"), a("192.0.2.1"), a("192.0.2.3")},
			"forged.example.com": {a("198.51.100.1")},
			"five.example.com":   {a("192.0.2.5")},
			"six.example.com":    {a("2001:db8::1")},
		},
		Fail: map[string]string{"slow.example.com": "timeout", "192.0.2.6": "server misbehaving"},
	}
	for _, tt := range []struct {
		client        pipeline.Client
		name, unknown string
	}{
		{pipeline.Client{Addr: a("192.0.2.1")}, "mail.example.com", ""},
		{pipeline.Client{Addr: a("192.0.2.2")}, "", ""},
		{pipeline.Client{Addr: a("192.0.2.3")}, "mail.example.com", ""},
		{pipeline.Client{Addr: a("192.0.2.4")}, "", "look up slow.example.com: lookup slow.example.com: timeout"},
		{pipeline.Client{Addr: a("192.0.2.5")}, "five.example.com", ""},
		{pipeline.Client{Addr: a("192.0.2.6")}, "", "look up the name of 192.0.2.6: lookup 192.0.2.6: server misbehaving"},
		{pipeline.Client{Addr: a("192.0.2.7")}, "", ""},
		{pipeline.Client{Addr: a("2001:db8::1")}, "six.example.com", ""},
		{pipeline.Client{Addr: a("10.0.0.1"), Trusted: true}, "", "not asked for: the client is trusted"},
		{pipeline.Client{}, "", ""},
	} {
		got := nameOf(t.Context(), r, tt.client)
		if got.Name != tt.name || got.NameUnknown != tt.unknown {
			t.Errorf("%s: name %q, unknown %q; want %q, %q", tt.client.Addr, got.Name, got.NameUnknown, tt.name, tt.unknown)
		}
	}
	if got := nameOf(t.Context(), nil, pipeline.Client{Addr: a("192.0.2.1")}); got.NameUnknown == "" {
		t.Error("without a resolver the name is not unknown")
	}
}
