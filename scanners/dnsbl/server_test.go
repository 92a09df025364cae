package dnsbl

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/protocols/peertest"
	"sluice/scanners/resolve"
)

// The stage, the resolver of the program and a name server.
func TestThroughADNSServer(t *testing.T) {
	d := peertest.DNS(t,
		"1.2.0.192.zen.example. 60 A 127.0.0.4", "1.2.0.192.zen.example. 60 A 127.0.0.2", "1.2.0.192.zen.example. 60 AAAA 2001:db8::1",
		"1.2.0.192.parked.example. 60 A 203.0.113.1",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.example. 60 A 127.0.0.3",
	)
	r, err := resolve.New(resolve.Config{Servers: []string{d.Address}, Timeout: 5 * time.Second, Attempts: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(Config{Lists: map[string]List{"zen": {Zone: "zen.example"}, "parked": {Zone: "parked.example"}, "clean": {Zone: "clean.example"}}}, r)
	if err != nil {
		t.Fatal(err)
	}
	check := func(client string) pipeline.Result {
		var v pipeline.View
		v.Client.Addr = netip.MustParseAddr(client)
		got, err := s.Check(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := check("192.0.2.1")
	want := pipeline.Named[Listed]{"zen": {Listed: true, Codes: []string{"127.0.0.2", "127.0.0.4"}}, "parked": {}, "clean": {}}
	if !reflect.DeepEqual(got.Fact, want) || len(got.Missing) != 1 || got.Missing["parked"] == nil {
		t.Errorf("%+v, missing %v", got.Fact, got.Missing)
	}
	if d.Asked() != 3 {
		t.Errorf("%d questions for three lists", d.Asked())
	}
	if got := check("2001:db8::1"); !got.Fact.(pipeline.Named[Listed])["zen"].Listed || len(got.Missing) > 0 {
		t.Errorf("IPv6: %+v, missing %v", got.Fact, got.Missing)
	}

	pc, err := net.ListenPacket("udp", "127.0.0.1:0") // and nobody answers there
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if r, err = resolve.New(resolve.Config{Servers: []string{pc.LocalAddr().String()}, Timeout: time.Hour}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if s, err = newStage(Config{Lists: map[string]List{"zen": {Zone: "zen.example", Timeout: 20 * time.Millisecond}}}, r); err != nil {
		t.Fatal(err)
	}
	var v pipeline.View
	v.Client.Addr = netip.MustParseAddr("192.0.2.1")
	if _, err := s.Check(t.Context(), v); err == nil {
		t.Error("no list answers, and that is no error")
	}
}
