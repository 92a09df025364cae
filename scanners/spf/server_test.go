package spf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/protocols/peertest"
	"sluice/scanners/resolve"
)

// The evaluator, the resolver of the program and a name server.
func TestThroughADNSServer(t *testing.T) {
	var many, quoted []string
	for i := range 200 { // an answer that does not fit into a datagram
		many = append(many, fmt.Sprintf("many.example. A 198.51.100.%d", i%250), fmt.Sprintf("many.example. A 203.0.113.%d", i%250))
	}
	for range 30 {
		quoted = append(quoted, `"ip4:198.51.100.0/24 ip6:2001:db8:1::/48 ip4:203.0.113.0/24 ip6:2001:db8:2::/48 "`)
	}
	d := peertest.DNS(t, append(many,
		`a.example. TXT "v=spf1 a:many.example include:long.example exists:%{ir}.%{l1r+-}.lists.example -all"`, "many.example. A 192.0.2.3",
		`long.example. TXT "v=spf1 " `+strings.Join(quoted, " ")+` "ip4:192.0.2.2 ?all"`,
		"1.2.0.192.user.lists.example. A 127.0.0.2",
		`b.example. TXT "v=spf1 ptr:b.example mx -all"`, "b.example. MX 0 .", "5.2.0.192.in-addr.arpa. PTR Mail.B.example.", "mail.b.example. A 192.0.2.5",
		`xn--bcher-kva.example. TXT "v=spf1 ip4:192.0.2.6 -all"`,
	)...)
	d.Fail("silent.example")
	r, err := resolve.New(resolve.Config{Servers: []string{d.Address}, Timeout: 5 * time.Second, Attempts: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ client, local, domain, want string }{
		{"192.0.2.1", "user+x-y", "a.example", "pass by exists:%{ir}.%{l1r+-}.lists.example"},
		{"192.0.2.1", "x+user", "a.example", "fail by all"},
		{"192.0.2.1", "user", "a.example", "pass by exists:%{ir}.%{l1r+-}.lists.example"},
		{"192.0.2.2", "user", "a.example", "pass by ip4:192.0.2.2"},
		{"192.0.2.3", "user", "a.example", "pass by a:many.example"},
		{"192.0.2.5", "user", "b.example", "pass by ptr:b.example"},
		{"192.0.2.6", "user", "b.example", "fail by all"},
		{"192.0.2.6", "user", "Bücher.example", "pass by ip4:192.0.2.6"},
		{"192.0.2.6", "user", "nobody.example", "none by "},
		{"192.0.2.6", "user", "silent.example", "temperror by "},
	} {
		got := Check(t.Context(), r, Limits{}, Query{Client: netip.MustParseAddr(tt.client), Local: tt.local, Domain: tt.domain, Helo: "mail.a.example"})
		if s := got.Result + " by " + got.Mechanism; s != tt.want {
			t.Errorf("%s, %s@%s: %s (%v)", tt.client, tt.local, tt.domain, s, got.Err)
		}
	}
}
