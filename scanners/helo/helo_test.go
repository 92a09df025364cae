package helo

import (
	"context"
	"net"
	"net/netip"
	"reflect"
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
		"Client.Example.":    {Name: "client.example", Valid: true, Resolves: true, Matches: true},
		"other.example":      {Name: "other.example", Valid: true, Resolves: true},
		"takes.example":      {Name: "takes.example", Valid: true, Resolves: true},
		"null.example":       {Name: "null.example", Valid: true},
		"none.example":       {Name: "none.example", Valid: true},
		"silent.example":     {Name: "silent.example", Valid: true}, // and Missing, below
		"[192.0.2.1]":        {Name: "[192.0.2.1]", Valid: true, Literal: true, Resolves: true, Matches: true},
		"[IPv6:2001:db8::1]": {Name: "[ipv6:2001:db8::1]", Valid: true, Literal: true, Resolves: true},
		"[2001:db8::1]":      {Name: "[2001:db8::1]"}, // RFC 5321, 4.1.3 wants the tag
		"192.0.2.1":          {Name: "192.0.2.1", Bare: true, Matches: true},
		"mx.example.org":     {Name: "mx.example.org", Valid: true, Ours: true},
		"EXAMPLE.org":        {Name: "example.org", Valid: true, Ours: true},
		"localhost":          {Name: "localhost"},
		"win_pc.local":       {Name: "win_pc.local"},
		"-x.example":         {Name: "-x.example"},
		"1.2.3":              {Name: "1.2.3"},
		"a b.example":        {Name: "a b.example"},
		"":                   {},
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

// halfDead answers nothing about addresses.
type halfDead struct{ *pipelinetest.Resolver }

func (halfDead) LookupAddr(_ context.Context, name string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true, IsTemporary: true}
}

// Half an answer is known by half.
func TestMissing(t *testing.T) {
	mx := map[string][]*net.MX{"client.example": {{Host: "mx.example"}}}
	env := pipelinetest.Env(t)
	env.Resolver = halfDead{&pipelinetest.Resolver{MX: mx, Fail: map[string]string{}}}
	stages, err := Kind().New(&Config{}, env)
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Client.Addr, v.Greeting = netip.MustParseAddr("192.0.2.1"), "client.example"
	got, err := stages[0].Check(t.Context(), v)
	if f := got.Fact.(Fact); err != nil || !f.Resolves || got.Missing["resolves"] != nil || got.Missing["matches"] == nil {
		t.Errorf("%+v, unknown %v, %v", f, got.Missing, err)
	}
}
