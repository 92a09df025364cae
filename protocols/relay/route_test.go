package relay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mailstore"
)

// send sends one mail to an address and returns what became of it in one attempt.
func (s *site) send(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	s.queue.mu.Lock()
	name := fmt.Sprintf("m%d", len(s.queue.entries)+1)
	s.queue.mu.Unlock()
	s.queue.add(mailstore.Job{Message: name, Domain: domain, Sender: "me@example.com", Recipients: to(address)}, letter)
	time.Sleep(14 * time.Minute)
	s.queue.forget(name)
	return strings.TrimSuffix(s.queue.history(name), "\n")
}

func mx(pairs ...any) (list []*net.MX) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, &net.MX{Pref: uint16(pairs[i].(int)), Host: pairs[i+1].(string)})
	}
	return list
}

func TestMX(t *testing.T) {
	for _, tt := range []struct {
		name, to string
		set      func(s *site)
		want     string   // what became of it
		calls    []string // addresses that were tried
	}{
		{"the preferred first, and the next where it is down", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(20, "b.example.net", 10, "a.example.net")
			s.zone.addresses["a.example.net"], s.zone.addresses["b.example.net"] = ips("192.0.2.9"), ips("192.0.2.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.9:25", "192.0.2.1:25"}},
		{"IPv6 first, and IPv4 where it leads nowhere", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("2001:db8::9", "192.0.2.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"[2001:db8::9]:25", "192.0.2.1:25"}},
		{"no MX: the domain's own address", "you@example.org", func(s *site) {
			s.zone.addresses["example.org"] = ips("192.0.2.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.1:25"}},
		{"a domain in Unicode", "you@bücher.example", func(s *site) {
			s.zone.mx["xn--bcher-kva.example"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.1:25"}},
		{"null MX", "you@example.org", func(s *site) { s.zone.mx["example.org"] = mx(0, ".") },
			`1 failed 5.1.10 "example.org says that it takes no mail"`, nil},
		{"no such domain", "you@example.org", func(*site) {}, `1 failed 5.1.2 "there is no example.org that takes mail: it has neither a mail server nor an address"`, nil},
		{"a DNS that does not answer", "you@example.org", func(s *site) { s.zone.failing["MX example.org"] = true },
			`1 postponed 4.4.3 "the DNS does not say who takes mail for example.org: lookup example.org: server failure"`, nil},
		{"a host that the DNS does not tell of", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net", 20, "b.example.net")
			s.zone.failing["A a.example.net"] = true
		}, `1 postponed 4.4.3 "the DNS does not say where a.example.net is: lookup a.example.net: server failure"`, nil},
		{"we are a backup: those before us only", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net", 20, "WE.example", 20, "c.example.net", 30, "d.example.net")
			s.zone.addresses["a.example.net"], s.zone.addresses["d.example.net"] = ips("192.0.2.9"), ips("192.0.2.1")
			s.zone.addresses["c.example.net"] = ips("192.0.2.1")
		}, `1 postponed 4.4.1 "connect: connection refused"`, []string{"192.0.2.9:25"}},
		{"we are the best: a loop", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "we.example", 20, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.1")
		}, `1 failed 5.4.6 "example.org names we.example, which we are, to take its mail, but it is none of our domains"`, nil},
		{"addresses of this machine", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("127.0.0.1", "::1", "::ffff:127.0.0.2", "0.0.0.0", "fe80::1", "169.254.169.254")
		}, `1 failed 5.4.6 "the addresses of a.example.net are on this machine"`, nil},
		{"addresses that may be reached", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("127.0.5.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"127.0.5.1:25"}},
		{"an address literal", "you@[192.0.2.1]", func(*site) {}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.1:25"}},
		{"an address literal of this machine", "you@[IPv6:::1]", func(*site) {}, `1 failed 5.4.6 "[IPv6:::1] is on this machine"`, nil},
		{"no name", "you@a..b", func(*site) {}, `1 failed 5.1.2 "\"a..b\" is no domain that the DNS could know"`, nil},
		{"no host could exist", "you@example.org", func(s *site) { s.zone.mx["example.org"] = mx(10, "a b", 20, ".") },
			`1 failed 5.4.4 "example.org names no server that could exist"`, nil},
		{"refused for good by all", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.5", "192.0.2.6")
		}, `1 failed 5.0.0 "554 no mail here"`, []string{"192.0.2.5:25", "192.0.2.6:25"}},
		{"refused for good by one, and for now by another", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.9", "192.0.2.5")
		}, `1 postponed 4.4.1 "connect: connection refused"`, []string{"192.0.2.9:25", "192.0.2.5:25"}},
		{"421 at MAIL: the next host", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.7", "192.0.2.1")
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.7:25", "192.0.2.1:25"}},
		{"no more hosts than a mail may try", "you@example.org", func(s *site) {
			s.zone.mx["example.org"] = mx(10, "a.example.net")
			s.zone.addresses["a.example.net"] = ips("192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.1")
		}, `1 postponed 4.4.1 "connect: connection refused"`, []string{"192.0.2.11:25", "192.0.2.12:25", "192.0.2.13:25", "192.0.2.14:25"}},
		{"a domain with a way of its own", "you@lists.example.com", func(*site) {}, `1 delivered 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"/run/lists"}},
		{"and those below another", "you@a.b.partner.example", func(*site) {}, `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`, []string{"192.0.2.1:2525"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, Config{Direct: true, Hosts: 4, Reach: []netip.Prefix{netip.MustParsePrefix("127.0.5.0/24")}, Routes: map[string]Route{
					"lists.example.com": {LMTP: "unix:/run/lists"},
					".partner.example":  {Smarthost: []string{"192.0.2.1:2525"}},
				}}, nil)
				good := &sink{}
				for _, at := range []string{"192.0.2.1:25", "192.0.2.1:2525", "127.0.5.1:25", "/run/lists", "127.0.0.1:25", "[::1]:25"} {
					s.network.servers[at] = good.serve
				}
				never := func(verb, _ string) string { return map[string]string{"": "554 no mail here"}[verb] }
				for _, at := range []string{"192.0.2.5:25", "192.0.2.6:25"} {
					s.network.servers[at] = (&sink{answer: never}).serve
				}
				s.network.servers["192.0.2.7:25"] = (&sink{answer: func(verb, _ string) string { return map[string]string{"MAIL": "421 busy"}[verb] }}).serve
				tt.set(s)
				if got := s.send(tt.to); got != tt.want {
					t.Errorf("became %s\nwant   %s", got, tt.want)
				}
				if got := s.network.calls(); !slices.Equal(got, tt.calls) {
					t.Errorf("tried %v, want %v", got, tt.calls)
				}
			})
		})
	}
}

// Servers of one preference share the mail.
func TestEqualPreference(t *testing.T) {
	f := finder{resolver: &zone{mx: map[string][]*net.MX{"example.org": mx(10, "a.example", 10, "b.example", 20, "c.example")}}, ours: func(string) bool { return false }}
	first := map[string]int{}
	for range 200 {
		names, _, no := f.hosts(t.Context(), "example.org")
		if no != nil || len(names) != 3 || names[2] != "c.example" {
			t.Fatal(names, no)
		}
		first[names[0]]++
	}
	if first["a.example"] < 50 || first["b.example"] < 50 {
		t.Errorf("first were %v", first)
	}
}

// A kind of address that leads nowhere, while the other does, comes last for a while.
func TestFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Direct: true}, nil)
		s.network.servers["192.0.2.1:25"] = (&sink{}).serve
		s.zone.addresses["a.example"], s.zone.addresses["b.example"] = ips("2001:db8::1", "192.0.2.1"), ips("2001:db8::2", "192.0.2.1")
		for _, domain := range []string{"a.example", "b.example"} {
			s.queue.add(mailstore.Job{Domain: domain, Recipients: to("you@" + domain)}, letter)
			synctest.Wait()
		}
		time.Sleep(familyFor + time.Minute)
		s.send("you@b.example")
		want := []string{"[2001:db8::1]:25", "192.0.2.1:25", "192.0.2.1:25", "[2001:db8::2]:25", "192.0.2.1:25"}
		if got := s.network.calls(); !slices.Equal(got, want) {
			t.Errorf("tried %v, want %v", got, want)
		}
	})
}

// Without a way out mail waits, and says why.
func TestNoWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{}, nil)
		want := `1 postponed 4.3.5 "nothing says how mail leaves; set relay.smarthost or relay.direct"`
		if got := s.send("you@example.org"); got != want {
			t.Errorf("became %s", got)
		}
	})
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{Smarthost: []string{"mail.example.net:25", "[::1]:25", "192.0.2.1:587"}}, ""},
		{Config{Smarthost: []string{"mail.example.net"}}, `smarthost[0]: "mail.example.net" is no server; write HOST:PORT, for example mail.example.net:587`},
		{Config{Smarthost: []string{"a b:25", "a:0", "a:port"}}, `smarthost[0]: "a b" is no host; write HOST:PORT, for example mail.example.net:587
smarthost[1]: "0" is no port; write HOST:PORT, for example mail.example.net:587
smarthost[2]: "port" is no port; write HOST:PORT, for example mail.example.net:587`},
		{Config{Smarthost: []string{"a:25"}, Direct: true}, `direct: mail goes to the smarthost already; say smarthost or direct; single domains can have a route of their own`},
		{Config{Login: Login{User: "me"}, Smarthost: []string{"a:25"}}, `login: a name and its password go together; set both, user and password_file`},
		{Config{Login: Login{User: "me", PasswordFile: "p"}}, `login: there is no server to log in to; set smarthost`},
		{Config{Login: Login{User: "me", PasswordFile: "p"}, TLS: NoTLS, Smarthost: []string{"a:25"}}, `login: the password would go in the clear; leave tls out, or say cleartext: true`},
		{Config{Routes: map[string]Route{"a b": {Direct: true}}}, `routes.a b: "a b" is no domain; write example.org, or .example.org for all below it, in lower case`},
		{Config{Routes: map[string]Route{"a.example": {Direct: true, LMTP: "unix:"}}}, `routes.a.example.lmtp: the path of the unix socket is missing; write unix:PATH
routes.a.example: this is more than one way; say one of smarthost, lmtp and direct`},
		{Config{Port: 70000, Hosts: -1}, `port: 70000 is no port; write 25
hosts: hosts is below zero; leave the key out for its default`},
	} {
		var got []string
		for _, p := range tt.config.Problems() {
			got = append(got, p.Error())
		}
		if strings.Join(got, "\n") != tt.want {
			t.Errorf("%+v: %s\nwant %s", tt.config, strings.Join(got, "\n"), tt.want)
		}
	}
}
