package dnsbl

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dnslist"
)

type lists = map[string]dnslist.Config

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) {
		c.(*Config).Lists = lists{"zen": {Zone: "zen.example"}}
	})
}

func ask(t *testing.T, r pipeline.Resolver, l lists, client string) (pipeline.Result, error) {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Resolver = r
	s, err := newStage(Config{Lists: l}, env)
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Client.Addr = netip.MustParseAddr(client)
	return s.Check(t.Context(), v)
}

func TestCheck(t *testing.T) {
	listed := []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	r := &pipelinetest.Resolver{
		Addr: map[string][]netip.Addr{
			"1.2.0.192.zen.example": listed,
			"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.example": listed,
		},
		Fail: map[string]string{"1.2.0.192.dead.example": "timeout", "9.2.0.192.zen.example": "server misbehaving"},
	}
	two := lists{"zen": {Zone: "zen.example", NoTestPoints: true}, "dead": {Zone: "dead.example", NoTestPoints: true}}
	for client, want := range map[string]bool{"192.0.2.1": true, "::ffff:192.0.2.1": true, "2001:db8::1": true, "192.0.2.2": false, "2001:db8::2": false} {
		got, err := ask(t, r, two, client)
		if err != nil {
			t.Fatal(err)
		}
		fact := got.Fact.(pipeline.Named[dnslist.Listed])
		if fact["zen"].Listed != want || got.Missing["zen"] != nil {
			t.Errorf("%s: %+v, unknown %v", client, fact, got.Missing)
		}
		// One dead list leaves its own field unknown.
		if dead := strings.HasSuffix(client, "192.0.2.1"); (got.Missing["dead"] != nil) != dead {
			t.Errorf("%s: unknown %v", client, got.Missing)
		}
	}
	// Where no list answers the stage has no answer.
	_, err := ask(t, r, lists{"dead": two["dead"]}, "192.0.2.1")
	if err == nil || err.Error() != "dead: look up in dead.example: lookup 1.2.0.192.dead.example: timeout" {
		t.Error(err)
	}
}

func TestReversed(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "1.2.0.192", "::ffff:192.0.2.1": "1.2.0.192",
		"2001:db8::a1": "1.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
	} {
		if got := reversed(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}

func TestFact(t *testing.T) {
	typ, err := pipeline.FactType(Kind().Fact(&Config{Lists: lists{"zen": {}, "sbl": {}}}))
	if err != nil || typ.NumField() != 2 || typ.Field(1).Type != reflect.TypeFor[dnslist.Listed]() {
		t.Errorf("%v, %v", typ, err)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{}, "lists: there is none; write for example `lists: {zen: {zone: zen.spamhaus.org}}`"},
		{Config{Lists: lists{"Zen-PBL": {Zone: "x"}}}, "lists: Zen-PBL: rules cannot use this name: write lower-case letters, digits and _, a letter first"},
		{Config{Lists: lists{"a": {}, "b": {Zone: "b..x"}}}, "lists: a: zone: is missing; write for example `zone: zen.spamhaus.org`\nlists: b: zone: \"b..x\" is no domain name"},
	} {
		_, err := newStage(tt.config, pipelinetest.Env(t))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}
