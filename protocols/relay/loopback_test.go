package relay

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
)

// Over real sockets, of IPv6 where the machine has it: the policy comes from a web server by HTTPS, and the mail goes to the
// server that it names, by TLS; to an impostor at the same address it does not go.
func TestOverLoopback(t *testing.T) {
	home := netip.MustParseAddr("::1")
	if text, err := os.ReadFile("/proc/net/if_inet6"); err != nil || !strings.Contains(string(text), " lo\n") {
		home = netip.MustParseAddr("127.0.0.1")
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", netip.AddrPortFrom(home, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	ca := newAuthority(t)
	good, bad := ca.server(t, far(), "mx.example.net"), ca.server(t, far(), "another.example")
	policies := ca.server(t, far(), "mta-sts.example.org", "mta-sts.example.com")

	page := listen()
	web := &http.Server{
		ReadTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/.well-known/mta-sts.txt" {
				http.NotFound(w, q)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, enforced)
		}),
	}
	go func() { _ = web.Serve(tls.NewListener(page, &tls.Config{Certificates: []tls.Certificate{policies}})) }() // until Close
	t.Cleanup(func() { _ = web.Close() })

	for _, tt := range []struct {
		name, domain string
		cert         tls.Certificate
		want         string
		mails        int
	}{
		{"the server that the policy names", "example.org", good, `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, verified as its MTA-STS policy asks)`, 1},
		{
			"an impostor", "example.com", bad,
			`1 postponed 4.7.5 "STARTTLS: no TLS with the server: x509: certificate is valid for another.example, not mx.example.net"`, 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			door := listen()
			server := &sink{cert: &tt.cert}
			go func() { // until the listener is closed
				for {
					c, err := door.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						server.serve(c)
					}()
				}
			}()
			told := make(chan Report, 10)
			s := start(t, Config{
				Direct: true, MTASTS: true, CA: "ca", Port: door.Addr().(*net.TCPAddr).Port, Reach: []netip.Prefix{netip.PrefixFrom(home, home.BitLen())},
			}, func(o *Options) {
				o.Roots = caRoots(ca)
				o.Observe = func(r Report) { told <- r }
				o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if address == netip.AddrPortFrom(home, 443).String() { // which others may have, and we may not
						address = page.Addr().String()
					}
					return new(net.Dialer).DialContext(ctx, network, address)
				}
			})
			s.zone.mx[tt.domain], s.zone.addresses["mx.example.net"] = mx(10, "mx.example.net"), ips(home.String())
			s.zone.addresses["mta-sts."+tt.domain] = ips(home.String())
			s.zone.txt["_mta-sts."+tt.domain] = []string{"v=STSv1; id=20260101;"}
			s.queue.add(mailstore.Job{Message: "m1", Domain: tt.domain, Sender: "me@example.com", Recipients: to("you@" + tt.domain)}, letter)
			select {
			case <-told:
			case <-time.After(2 * time.Minute):
				t.Fatal("nothing became of it")
			}
			if got := strings.TrimSuffix(s.queue.history("m1"), "\n"); got != tt.want {
				t.Errorf("became %s\nwant   %s", got, tt.want)
			}
			if mails, conns := server.count(); mails != tt.mails || conns == 0 {
				t.Errorf("%d mails came with %d connections", mails, conns)
			}
		})
	}
}
