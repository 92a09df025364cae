package helo

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

func TestCheck(t *testing.T) {
	r := &pipelinetest.Resolver{
		Addr: map[string][]netip.Addr{"client.example": {netip.MustParseAddr("192.0.2.1")}, "other.example": {netip.MustParseAddr("192.0.2.9")}},
		MX:   map[string][]*net.MX{"takes.example": {{Host: "mx.example"}}, "null.example": {{Host: "."}}, "dead.example": {{Host: "mx.example"}}},
		Fail: map[string]string{"silent.example": "timeout"},
	}
	env := pipelinetest.Env(t)
	env.Resolver = r
	stages, err := Kind().New(&Config{Ours: []string{"Example.ORG"}}, env)
	if err != nil {
		t.Fatal(err)
	}
	for greeting, want := range map[string]Fact{
		"Client.Example.":     {Name: "client.example", Valid: true, Resolves: true, Matches: true},
		"other.example":       {Name: "other.example", Valid: true, Resolves: true},
		"takes.example":       {Name: "takes.example", Valid: true, Resolves: true},
		"null.example":        {Name: "null.example", Valid: true},
		"none.example":        {Name: "none.example", Valid: true},
		"silent.example":      {Name: "silent.example", Valid: true}, // and Missing, below
		"[192.0.2.1]":         {Name: "[192.0.2.1]", Valid: true, Literal: true, Resolves: true, Matches: true},
		"[IPv6:2001:db8::1]":  {Name: "[ipv6:2001:db8::1]", Valid: true, Literal: true, Resolves: true},
		"[2001:db8::1]":       {Name: "[2001:db8::1]"}, // RFC 5321, 4.1.3 wants the tag
		"192.0.2.1":           {Name: "192.0.2.1", Bare: true, Matches: true},
		"mx.example.org":      {Name: "mx.example.org", Valid: true, Ours: true},
		"EXAMPLE.org":         {Name: "example.org", Valid: true, Ours: true},
		"localhost":           {Name: "localhost"},
		"win_pc.local":        {Name: "win_pc.local"},
		"-x.example":          {Name: "-x.example"},
		"1.2.3":               {Name: "1.2.3"},
		"a b.example":         {Name: "a b.example"},
		"client.example..":    {Name: "client.example."},
		".":                   {},
		"\uff43lient.example": {Name: "\uff43lient.example", Valid: true, Resolves: true, Matches: true}, // full-width c
		"":                    {},
	} {
		var v pipeline.View
		v.Client.Addr, v.Greeting = netip.MustParseAddr("192.0.2.1"), greeting
		got, err := stages[0].Check(t.Context(), v)
		if err != nil || !reflect.DeepEqual(got.Fact, want) {
			t.Errorf("%q: %+v, %v; want %+v", greeting, got.Fact, err, want)
		}
		open := strings.HasPrefix(greeting, "silent")
		if (got.Missing["resolves"] != nil) != open || (got.Missing["matches"] != nil) != open {
			t.Errorf("%q: unknown %v", greeting, got.Missing)
		}
	}
}

// halfDead answers nothing about addresses of some kinds.
type halfDead struct {
	*pipelinetest.Resolver
	four, six bool
}

func timeout(name string) error {
	return &net.DNSError{Err: "timeout", Name: name, IsTimeout: true, IsTemporary: true}
}

func (h halfDead) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	if h.four {
		return nil, timeout(name)
	}
	return h.Resolver.LookupA(ctx, name)
}

func (h halfDead) LookupAAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	if h.six {
		return nil, timeout(name)
	}
	return h.Resolver.LookupAAAA(ctx, name)
}

// Half an answer is known by half: an address of one kind says nothing of those of the other.
func TestMissing(t *testing.T) {
	mx := map[string][]*net.MX{"client.example": {{Host: "mx.example"}}}
	both := map[string][]netip.Addr{"client.example": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	for _, tt := range []struct {
		name      string
		client    string
		four, six bool
		addr      map[string][]netip.Addr
		mx        map[string][]*net.MX
		want      Fact // Resolves and Matches
		missing   string
	}{
		{"nothing of addresses, but MX", "192.0.2.1", true, true, both, mx, Fact{Resolves: true}, "matches"},
		{"nothing of either kind", "192.0.2.1", true, true, both, nil, Fact{}, "matches resolves"},
		{"the other kind is silent", "192.0.2.1", false, true, both, nil, Fact{Resolves: true, Matches: true}, ""},
		{"its own kind is silent", "2001:db8::1", false, true, both, nil, Fact{Resolves: true}, "matches"},
		{"no address of its kind, the other is silent", "192.0.2.1", false, true, nil, nil, Fact{}, "resolves"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := pipelinetest.Env(t)
			env.Resolver = halfDead{&pipelinetest.Resolver{MX: tt.mx, Addr: tt.addr}, tt.four, tt.six}
			stages, err := Kind().New(&Config{}, env)
			if err != nil {
				t.Fatal(err)
			}
			var v pipeline.View
			v.Client.Addr, v.Greeting = netip.MustParseAddr(tt.client), "client.example"
			got, err := stages[0].Check(t.Context(), v)
			tt.want.Name, tt.want.Valid = "client.example", true
			if missing := strings.Join(slices.Sorted(maps.Keys(got.Missing)), " "); err != nil || got.Fact != tt.want || missing != tt.missing {
				t.Errorf("%+v, unknown %q, %v; want %+v, %q", got.Fact, missing, err, tt.want, tt.missing)
			}
		})
	}
}
