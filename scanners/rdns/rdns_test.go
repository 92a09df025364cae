package rdns

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
	"sluice/scanners/resolve"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

func TestCheck(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	many := []string{"a.example", "b.example", "c.example"}
	for _, tt := range []struct {
		name   string
		client string
		ptr    []string
		addr   map[string][]netip.Addr
		fail   map[string]string
		want   Fact
		err    string
	}{
		{"leads back", "192.0.2.1", []string{"MX.example."}, map[string][]netip.Addr{"mx.example": {four}}, nil,
			Fact{Result: "pass", Name: "mx.example", Confirmed: true, Names: []string{"mx.example"}}, ""},
		{"IPv6", "2001:db8::1", []string{"mx.example"}, map[string][]netip.Addr{"mx.example": {four, six}}, nil,
			Fact{Result: "pass", Name: "mx.example", Confirmed: true, Names: []string{"mx.example"}}, ""},
		{"IPv4 in IPv6", "::ffff:192.0.2.1", []string{"mx.example"}, map[string][]netip.Addr{"mx.example": {four}}, nil,
			Fact{Result: "pass", Name: "mx.example", Confirmed: true, Names: []string{"mx.example"}}, ""},
		{"leads elsewhere", "192.0.2.1", []string{"mx.example"}, map[string][]netip.Addr{"mx.example": {six}}, nil,
			Fact{Result: "fail", Names: []string{"mx.example"}}, ""},
		{"leads nowhere", "192.0.2.1", []string{"mx.example"}, nil, nil, Fact{Result: "fail", Names: []string{"mx.example"}}, ""},
		{"has no name", "192.0.2.1", nil, nil, nil, Fact{Result: "permerror", Names: []string{}}, ""},
		{"the second leads back", "192.0.2.1", many, map[string][]netip.Addr{"b.example": {four}}, nil,
			Fact{Result: "pass", Name: "b.example", Confirmed: true, Names: many}, ""},
		{"the fourth is not looked at", "192.0.2.1", append([]string{"d.example"}, many...), map[string][]netip.Addr{"d.example": {four}}, nil,
			Fact{Result: "fail", Names: many}, ""},
		{"one fails, another leads back", "192.0.2.1", many, map[string][]netip.Addr{"c.example": {four}}, map[string]string{"a.example": "timeout"},
			Fact{Result: "pass", Name: "c.example", Confirmed: true, Names: many}, ""},
		{"one fails", "192.0.2.1", many, nil, map[string]string{"b.example": "timeout"}, Fact{}, "ask for the address of b.example: lookup b.example: timeout"},
		{"no answer", "192.0.2.1", nil, nil, map[string]string{"192.0.2.1": "server misbehaving"}, Fact{}, "ask for the name of 192.0.2.1: lookup 192.0.2.1: server misbehaving"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := pipelinetest.Env(t)
			client := netip.MustParseAddr(tt.client)
			env.Resolver = &pipelinetest.Resolver{Addr: tt.addr, Fail: tt.fail, PTR: map[netip.Addr][]string{client.Unmap(): tt.ptr}}
			stages, err := Kind().New(&Config{Names: 3}, env)
			if err != nil {
				t.Fatal(err)
			}
			var v pipeline.View
			v.Client.Addr = client
			got, err := stages[0].Check(t.Context(), v)
			if tt.err != "" || err != nil {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("%v, want %s", err, tt.err)
				}
				return
			}
			if !reflect.DeepEqual(got.Fact, tt.want) {
				t.Errorf("%+v, want %+v", got.Fact, tt.want)
			}
		})
	}
}

// Thousands of names, or of addresses of a name, are no way to have nothing known: they are looked at as far as the
// limits go.
func TestFarTooMany(t *testing.T) {
	var records []string
	for i := range 600 {
		records = append(records, fmt.Sprintf("1.2.0.192.in-addr.arpa. 60 PTR n%d.example.", i),
			fmt.Sprintf("many.example. 60 A 198.51.%d.%d", i/250, i%250))
	}
	records = append(records, "2.2.0.192.in-addr.arpa. 60 PTR many.example.")
	d := peertest.DNS(t, records...)
	env := pipelinetest.Env(t)
	r, err := resolve.New(resolve.Config{Servers: []string{d.Address}, Attempts: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	env.Resolver = r
	stages, err := Kind().New(Kind().Config(), env)
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]Fact{
		"192.0.2.1": {Result: "permerror", Names: []string{}},
		"192.0.2.2": {Result: "fail", Names: []string{"many.example"}},
	} {
		var v pipeline.View
		v.Client.Addr = netip.MustParseAddr(client)
		if got, err := stages[0].Check(t.Context(), v); err != nil || !reflect.DeepEqual(got.Fact, want) {
			t.Errorf("%s: %+v, %v", client, got.Fact, err)
		}
	}
	if d.Asked() > 2+2+2 { // each over UDP and TCP
		t.Errorf("%d questions", d.Asked())
	}
}

func TestGeneric(t *testing.T) {
	for name, want := range map[string]bool{
		"host-203-0-113-77.dyn.example": true, "77.113.0.203.dyn.example": true, "ip-113-77.example": true,
		"cb00714d.dyn.example": true, "203000113077.dsl.example": true, "p113077.example": false,
		"mx1.example": false, "mail.example77.net": false, "mail-113.example": false, "dsl-203-000-113-077.example": true,
	} {
		if got := generic(name, netip.MustParseAddr("203.0.113.77")); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for name, want := range map[string]bool{"2001-db8-0-0-0-0-1234-5678.dyn.example": true, "mx.example": false} {
		if got := generic(name, netip.MustParseAddr("2001:db8::1234:5678")); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestConfig(t *testing.T) {
	if _, err := Kind().New(&Config{}, pipelinetest.Env(t)); err == nil || !strings.Contains(err.Error(), "names: 0 is too few") {
		t.Error(err)
	}
}
