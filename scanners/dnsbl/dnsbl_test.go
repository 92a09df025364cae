package dnsbl

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) {
		c.(*Config).Lists = map[string]List{"zen": {Zone: "zen.example"}}
	})
}

func addrs(s ...string) (out []netip.Addr) {
	for _, x := range s {
		out = append(out, netip.MustParseAddr(x))
	}
	return out
}

func TestCheck(t *testing.T) {
	const four, six = "1.2.0.192.", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2."
	for _, tt := range []struct {
		name    string
		client  string
		list    List
		addr    map[string][]netip.Addr
		fail    map[string]string
		want    Listed
		missing string
	}{
		{"listed", "192.0.2.1", List{Zone: "zen.example"}, map[string][]netip.Addr{four + "zen.example": addrs("127.0.0.4", "127.0.0.2")}, nil,
			Listed{true, []string{"127.0.0.2", "127.0.0.4"}}, ""},
		{"not listed", "192.0.2.1", List{Zone: "zen.example."}, nil, nil, Listed{}, ""},
		{"IPv6", "2001:db8::1", List{Zone: "zen.example"}, map[string][]netip.Addr{six + "zen.example": addrs("127.0.0.2")}, nil,
			Listed{true, []string{"127.0.0.2"}}, ""},
		{"IPv4 in IPv6", "::ffff:192.0.2.1", List{Zone: "zen.example"}, map[string][]netip.Addr{four + "zen.example": addrs("127.0.0.2")}, nil,
			Listed{true, []string{"127.0.0.2"}}, ""},
		{"a code that counts", "192.0.2.1", List{Zone: "zen.example", Codes: []string{"127.0.0.10/31"}}, map[string][]netip.Addr{four + "zen.example": addrs("127.0.0.11")}, nil,
			Listed{true, []string{"127.0.0.11"}}, ""},
		{"a code that does not count", "192.0.2.1", List{Zone: "zen.example", Codes: []string{"127.0.0.10"}}, map[string][]netip.Addr{four + "zen.example": addrs("127.0.0.2")}, nil,
			Listed{false, []string{"127.0.0.2"}}, ""},
		{"refused is not listed", "192.0.2.1", List{Zone: "zen.example"}, map[string][]netip.Addr{four + "zen.example": addrs("127.255.255.254")}, nil,
			Listed{}, "look up in zen.example: the list refuses to answer us (127.255.255.254)"},
		{"a parked domain lists nobody", "192.0.2.1", List{Zone: "zen.example"}, map[string][]netip.Addr{four + "zen.example": addrs("198.51.100.7")}, nil,
			Listed{}, "look up in zen.example: the answer 198.51.100.7 is outside 127.0.0.0/8: this is no list, or not any more"},
		{"no answer", "192.0.2.1", List{Zone: "zen.example"}, nil, map[string]string{four + "zen.example": "timeout"},
			Listed{}, "look up in zen.example: lookup " + four + "zen.example: timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &pipelinetest.Resolver{Addr: tt.addr, Fail: tt.fail}
			s, err := newStage(Config{Lists: map[string]List{"zen": tt.list, "other": {Zone: "other.example"}}}, r)
			if err != nil {
				t.Fatal(err)
			}
			var v pipeline.View
			v.Client.Addr = netip.MustParseAddr(tt.client)
			got, err := s.Check(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			fact := got.Fact.(pipeline.Named[Listed])
			if !reflect.DeepEqual(fact["zen"], tt.want) || fact["other"].Listed {
				t.Errorf("%+v, want %+v", fact, tt.want)
			}
			why := ""
			if e := got.Missing["zen"]; e != nil {
				why = e.Error()
			}
			if why != tt.missing || got.Missing["other"] != nil {
				t.Errorf("unknown: %v, want %q", got.Missing, tt.missing)
			}
		})
	}
}

// Where no list answers the stage has no answer.
func TestNobodyAnswers(t *testing.T) {
	r := &pipelinetest.Resolver{Fail: map[string]string{"1.2.0.192.a.example": "timeout", "1.2.0.192.b.example": "server misbehaving"}}
	s, err := newStage(Config{Lists: map[string]List{"a": {Zone: "a.example"}, "b": {Zone: "b.example"}}}, r)
	if err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Client.Addr = netip.MustParseAddr("192.0.2.1")
	_, err = s.Check(t.Context(), v)
	if err == nil || !strings.HasPrefix(err.Error(), "a: look up in a.example: ") || !strings.Contains(err.Error(), "\nb: look up") {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{}, "lists: there is none; write for example `lists: {zen: {zone: zen.spamhaus.org}}`"},
		{Config{Lists: map[string]List{"Zen-PBL": {Zone: "x"}}}, "lists: Zen-PBL: rules cannot use this name: write lower-case letters, digits and _, a letter first"},
		{Config{Lists: map[string]List{"a": {}, "b": {Zone: "b..x"}}}, "lists: a: zone: is missing; write for example `zone: zen.spamhaus.org`\nlists: b: zone: \"b..x\" is no domain name"},
		{Config{Lists: map[string]List{"a": {Zone: "x", Codes: []string{"10.0.0.1"}}}}, `lists: a: codes: "10.0.0.1" is no answer of a list: write an address or a network in 127.0.0.0/8`},
	} {
		_, err := newStage(tt.config, &pipelinetest.Resolver{})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}
