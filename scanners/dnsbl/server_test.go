package dnsbl

import (
	"net"
	"reflect"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/protocols/peertest"
	"sluice/scanners/dnslist"
	"sluice/scanners/resolve"
)

// The stage, the resolver of the program and a name server.
func TestThroughADNSServer(t *testing.T) {
	points := func(zone string) []string { return []string{"2.0.0.127." + zone + ". 60 A 127.0.0.2"} }
	d := peertest.DNS(t, append(append(points("zen.example"), points("clean.example")...),
		"1.2.0.192.zen.example. 60 A 127.0.0.4", "1.2.0.192.zen.example. 60 A 127.0.0.2", "1.2.0.192.zen.example. 60 AAAA 2001:db8::1",
		"1.2.0.192.parked.example. 60 A 203.0.113.1",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.example. 60 A 127.0.0.3",
	)...)
	r, err := resolve.New(resolve.Config{Servers: []string{d.Address}, Timeout: 5 * time.Second, Attempts: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	three := lists{"zen": {Zone: "zen.example"}, "parked": {Zone: "parked.example", NoTestPoints: true}, "clean": {Zone: "clean.example"}}
	got, err := ask(t, r, three, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	want := pipeline.Named[dnslist.Listed]{
		"zen": {Listed: true, Codes: []string{"127.0.0.2", "127.0.0.4"}, Names: []string{}}, "parked": {},
		"clean": {Codes: []string{}, Names: []string{}},
	}
	if !reflect.DeepEqual(got.Fact, want) || len(got.Missing) != 1 || got.Missing["parked"] == nil {
		t.Errorf("%+v, missing %v", got.Fact, got.Missing)
	}
	if d.Asked() != 3+4 { // and test points of two
		t.Errorf("%d questions for three lists", d.Asked())
	}
	got, err = ask(t, r, three, "2001:db8::1")
	if err != nil || !got.Fact.(pipeline.Named[dnslist.Listed])["zen"].Listed || len(got.Missing) > 0 {
		t.Errorf("IPv6: %+v, missing %v, %v", got.Fact, got.Missing, err)
	}

	pc, err := net.ListenPacket("udp", "127.0.0.1:0") // and nobody answers there
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if r, err = resolve.New(resolve.Config{Servers: []string{pc.LocalAddr().String()}, Timeout: time.Hour}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, r, lists{"zen": {Zone: "zen.example", Timeout: 20 * time.Millisecond}}, "192.0.2.1"); err == nil {
		t.Error("no list answers, and that is no error")
	}
}
