package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A web server of policies.
type web struct {
	cert     tls.Certificate
	mu       sync.Mutex
	status   string // "200 OK"
	kind     string
	text     string
	asked    int
	redirect string
}

func (w *web) serve(c net.Conn) {
	secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{w.cert}})
	q, err := http.ReadRequest(bufio.NewReader(secured))
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	head := ""
	if w.redirect != "" {
		head = "Location: " + w.redirect + "\r\n"
	}
	if q.Host+q.URL.Path != "mta-sts.example.org/.well-known/mta-sts.txt" {
		w.status = "404 Not Found"
	}
	_, _ = fmt.Fprintf(secured, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s",
		w.status, w.kind, len(w.text), head, w.text)
	_, _ = io.Copy(io.Discard, secured)
}

// vault is a State in memory.
type vault struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (v *vault) Load(_ context.Context, key string) ([]byte, bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, ok := v.m[key]
	return x, ok, nil
}

func (v *vault) Store(_ context.Context, key string, value []byte, _ time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m[key] = value
	return nil
}

const enforced = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.net\r\nmx: *.backup.example\r\nmax_age: 604800\r\n"

func TestMTASTS(t *testing.T) {
	ca := newAuthority(t)
	good, bad := ca.server(t, far(), "mx.example.net"), ca.server(t, far(), "another.example")
	const (
		verified = `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, verified as its MTA-STS policy asks)`
		secret   = `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, not verified)`
		wrong    = `1 postponed 4.7.5 "STARTTLS: no TLS with the server: x509: certificate is valid for another.example, not mx.example.net"`
	)
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		set  func(s *site, w *web)
		want string
	}{
		{"enforced and good", &good, func(*site, *web) {}, verified},
		{"enforced, another certificate", &bad, func(*site, *web) {}, wrong},
		{"enforced, no TLS", nil, func(*site, *web) {}, `1 postponed 4.7.10 "STARTTLS: the server offers no TLS, and its MTA-STS policy asks for it"`},
		{"enforced, another host", &good, func(s *site, _ *web) {
			s.zone.mx["example.org"] = mx(10, "mx.attacker.example")
			s.zone.addresses["mx.attacker.example"] = ips("192.0.2.1")
		}, `1 postponed 4.7.5 "mx.attacker.example is no server that the MTA-STS policy of the domain names"`},
		{"tested, and good", &good, func(_ *site, w *web) { w.text = strings.Replace(enforced, "enforce", "testing", 1) }, verified},
		{"tested, another certificate", &bad, func(_ *site, w *web) { w.text = strings.Replace(enforced, "enforce", "testing", 1) },
			`1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, not verified; its MTA-STS policy, which is only tested, would refuse this: x509: certificate is valid for another.example, not mx.example.net)`},
		{"none", &bad, func(_ *site, w *web) { w.text = "version: STSv1\nmode: none\nmax_age: 86400\n" }, secret},
		{"not announced", &bad, func(s *site, _ *web) { delete(s.zone.txt, "_mta-sts.example.org") }, secret},
		{"announced twice", &bad, func(s *site, _ *web) {
			s.zone.txt["_mta-sts.example.org"] = []string{"v=STSv1; id=1;", "v=STSv1; id=2;"}
		}, secret},
		{"no page", &bad, func(_ *site, w *web) { w.status = "404 Not Found" }, secret},
		{"a redirect", &bad, func(_ *site, w *web) {
			w.status, w.redirect = "302 Found", "https://mta-sts.example.org/.well-known/mta-sts.txt"
		}, secret},
		{"no text", &bad, func(_ *site, w *web) { w.kind = "text/html" }, secret},
		{"too long", &bad, func(_ *site, w *web) { w.text = enforced + strings.Repeat("x: y\r\n", mostPolicy/5) }, secret},
		{"a certificate for another web server", &bad, func(_ *site, w *web) { w.cert = bad }, secret},
		{"a web server on this machine", &bad, func(s *site, _ *web) {
			s.zone.addresses["mta-sts.example.org"] = ips("127.0.0.1")
			s.network.servers["127.0.0.1:443"] = s.network.servers["192.0.2.80:443"]
		}, secret},
		{"no web server", &bad, func(s *site, _ *web) { delete(s.network.servers, "192.0.2.80:443") }, secret},
		{"DANE counts more", &bad, func(s *site, _ *web) {
			s.zone.tlsa["_25._tcp.mx.example.net"] = []TLSA{tlsa(daneEE, 1, 1, bad, 0)}
		}, `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, verified by DANE)`},
		{"DANE fails: a good policy does not help", &good, func(s *site, _ *web) {
			s.zone.tlsa["_25._tcp.mx.example.net"] = []TLSA{tlsa(daneEE, 1, 1, bad, 0)}
		}, `1 postponed 4.7.5 "STARTTLS: no TLS with the server: its certificate is none that its TLSA records name"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, w := stsSite(t, ca, tt.cert, nil)
				tt.set(s, w)
				if got := s.send("you@example.org"); got != tt.want {
					t.Errorf("became %s\nwant   %s", got, tt.want)
				}
			})
		})
	}
}

func stsSite(t *testing.T, ca *authority, cert *tls.Certificate, state State) (*site, *web) {
	t.Helper()
	s := start(t, Config{Direct: true, DANE: true, MTASTS: true, CA: "ca"}, func(o *Options) {
		o.State = state
		o.Roots = caRoots(ca)
	})
	w := &web{cert: ca.server(t, far(), "mta-sts.example.org"), status: "200 OK", kind: "text/plain; charset=utf-8", text: enforced}
	s.network.servers["192.0.2.80:443"] = w.serve
	s.network.servers["192.0.2.1:25"] = (&sink{cert: cert}).serve
	s.zone.mx["example.org"], s.zone.addresses["mx.example.net"] = mx(10, "mx.example.net"), ips("192.0.2.1")
	s.zone.addresses["mta-sts.example.org"] = ips("192.0.2.80")
	s.zone.txt["_mta-sts.example.org"] = []string{"v=spf1 -all", "v=STSv1; id=20260101;"}
	return s, w
}

// A policy is kept, over restarts too, and fetched anew when it says so.
func TestPolicyIsKept(t *testing.T) {
	ca := newAuthority(t)
	bad := ca.server(t, far(), "another.example")
	synctest.Test(t, func(t *testing.T) {
		kept := &vault{m: map[string][]byte{}}
		s, w := stsSite(t, ca, &bad, kept)
		asked := func(what string, want int) {
			t.Helper()
			s.send("you@example.org")
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.asked != want {
				t.Errorf("%s: fetched %d times, want %d", what, w.asked, want)
			}
		}
		refused := func(what string) {
			t.Helper()
			if got := s.send("you@example.org"); !strings.Contains(got, "certificate is valid for another.example") {
				t.Errorf("%s: became %s", what, got)
			}
		}
		asked("first", 1)
		asked("again", 1)
		s.zone.txt["_mta-sts.example.org"] = []string{"v=STSv1; id=2;"}
		asked("another id", 2)
		// Whoever hides the record, or the page, does not get around it.
		delete(s.zone.txt, "_mta-sts.example.org")
		refused("no record")
		s.zone.txt["_mta-sts.example.org"] = []string{"v=STSv1; id=3;"}
		w.status = "500 Broken"
		refused("no page")
		s.stop()
		s, w = stsSite(t, ca, &bad, kept)
		delete(s.zone.txt, "_mta-sts.example.org")
		refused("after a restart")
		// It is fetched once a day, lest one who hides its successor gain much, and ends when it says so.
		s.zone.txt["_mta-sts.example.org"] = []string{"v=STSv1; id=2;"}
		time.Sleep(25 * time.Hour)
		asked("a day later", 1)
		w.status = "500 Broken"
		time.Sleep(6 * 24 * time.Hour)
		refused("before it ends")
		time.Sleep(24 * time.Hour)
		if got := s.send("you@example.org"); !strings.Contains(got, "TLS 1.3, not verified") {
			t.Errorf("after it has ended: became %s", got)
		}
	})
}

func TestParsePolicy(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tt := range []struct{ text, want string }{
		{enforced, "enforce [mx.example.net *.backup.example] 168h0m0s"},
		{"version: STSv1\nmode: testing\nmode: none\nmx: MX.example.\nmax_age: 99999999\nfuture: x\n", "testing [mx.example] 8766h0m0s"},
		{"mode: enforce\nmx: a.example\nmax_age: 1\n", "it lacks version, mode or max_age"},
		{"version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1\n", "its version is none that we know"},
		{"version: STSv1\nmode: force\nmx: a.example\nmax_age: 1\n", `its mode is "force"`},
		{"version: STSv1\nmode: enforce\nmax_age: 1\n", "it names no server"},
		{"version: STSv1\nmode: enforce\nmx: *.*.example\nmax_age: 1\n", `it names "*.*.example" as a server`},
		{"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n", `its max_age is "-1"`},
		{"version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a.example\n", mostMX+1), "it names more than 200 servers"},
	} {
		p, err := parsePolicy(tt.text, now)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(p.Mode, " ", p.MX, " ", p.Expires.Sub(now))
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
	for _, tt := range []struct {
		pattern, host string
		want          bool
	}{
		{"mx.example", "mx.example", true}, {"*.example", "mx.example", true}, {"*.example", "a.mx.example", false},
		{"*.example", "example", false}, {"mx.example", "a.mx.example", false},
	} {
		if got := matchMX(tt.pattern, tt.host); got != tt.want {
			t.Errorf("%s, %s: %t", tt.pattern, tt.host, got)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(enforced)
	f.Add("version: STSv1\nmode: none\nmax_age: 86400\n")
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Unix(1_700_000_000, 0)
		p, err := parsePolicy(text, now)
		if err != nil {
			return
		}
		if p.Mode != "none" && len(p.MX) == 0 || len(p.MX) > mostMX || p.Expires.Before(now) || p.Expires.After(now.Add(longestAge)) {
			t.Errorf("%+v", p)
		}
	})
}
