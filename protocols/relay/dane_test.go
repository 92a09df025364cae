package relay

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tlsa returns a record that a certificate matches.
func tlsa(usage, selector, matching uint8, cert tls.Certificate, of int) TLSA {
	data := cert.Certificate[of]
	if selector == 1 {
		data = cert.Leaf.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return TLSA{usage, selector, matching, data}
}

func TestDANE(t *testing.T) {
	ca := newAuthority(t)
	good := ca.server(t, far(), "mx.example.net")
	old := newAuthority(t).server(t, time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC), "elsewhere.example")
	byDomain := ca.server(t, far(), "example.org")
	byAlias := ca.server(t, far(), "real.example.net")
	alone := tls.Certificate{Certificate: good.Certificate[:1], PrivateKey: good.PrivateKey, Leaf: good.Leaf}
	const (
		name     = "_25._tcp.mx.example.net"
		verified = `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, verified by DANE)`
		secret   = `1 relayed 2.0.0 "250 2.0.0 taken" (TLS 1.3, not verified)`
		plain    = `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`
		differs  = `1 postponed 4.7.5 "STARTTLS: no TLS with the server: its certificate is none that its TLSA records name"`
		noTLS    = `1 postponed 4.7.10 "STARTTLS: the server offers no TLS, and DANE asks for it"`
	)
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		set  func(z *zone)
		want string
	}{
		{"the certificate's own key, whatever its name and time", &old, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)} }, verified},
		{"the whole certificate", &old, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneEE, 0, 0, old, 0)} }, verified},
		{"SHA-512, and one that is for the next certificate", &old, func(z *zone) {
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, good, 0), tlsa(daneEE, 0, 2, old, 0)}
		}, verified},
		{"another certificate", &good, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)} }, differs},
		{"an authority", &good, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneTA, 0, 1, good, 1)} }, verified},
		{"an authority, and a certificate for the domain", &byDomain, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneTA, 0, 1, good, 1)} }, verified},
		{"an authority that the server does not show", &alone, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneTA, 0, 0, good, 1)} }, verified},
		{"another authority", &good, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneTA, 0, 1, old, 1)} }, differs},
		{"an authority, and a certificate for another name", &byAlias, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneTA, 0, 1, good, 1)} },
			`1 postponed 4.7.5 "STARTTLS: no TLS with the server: its TLSA records name the authority, but: x509: certificate is valid for real.example.net, not example.org"`},
		{"no TLS offered", nil, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)} }, noTLS},
		{"none that is usable: TLS all the same", &good, func(z *zone) {
			z.tlsa[name] = []TLSA{tlsa(1, 1, 1, good, 0), tlsa(0, 1, 1, good, 0), {daneEE, 1, 1, []byte("short")}, {daneEE, 2, 1, nil}, {daneEE, 1, 9, nil}}
		}, secret},
		{"none that is usable, and no TLS", nil, func(z *zone) { z.tlsa[name] = []TLSA{tlsa(1, 1, 1, good, 0)} }, noTLS},
		{"records that nobody vouches for", &good, func(z *zone) {
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)}
			z.insecure["TLSA "+name] = true
		}, secret},
		{"an MX that nobody vouches for", nil, func(z *zone) {
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)}
			z.insecure["MX example.org"] = true
		}, plain},
		{"an address that nobody vouches for", nil, func(z *zone) {
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)}
			z.insecure["A mx.example.net"] = true
		}, plain},
		{"no answer: somebody may hide them", &good, func(z *zone) { z.failing["TLSA "+name] = true },
			`1 postponed 4.7.5 "no answer about the TLSA records of mx.example.net: lookup ` + name + `: server failure"`},
		{"an alias: where it ends", &byAlias, func(z *zone) {
			a := z.addresses["mx.example.net"]
			a.Name = "real.example.net"
			z.addresses["mx.example.net"] = a
			z.tlsa["_25._tcp.real.example.net"] = []TLSA{tlsa(daneTA, 0, 1, good, 1)}
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, old, 0)}
		}, verified},
		{"an alias: where it begins", &good, func(z *zone) {
			a := z.addresses["mx.example.net"]
			a.Name = "real.example.net"
			z.addresses["mx.example.net"] = a
			z.tlsa[name] = []TLSA{tlsa(daneEE, 1, 1, good, 0)}
		}, verified},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, Config{Direct: true, DANE: true}, nil)
				s.network.servers["192.0.2.1:25"] = (&sink{cert: tt.cert}).serve
				s.zone.mx["example.org"], s.zone.addresses["mx.example.net"] = mx(10, "mx.example.net"), ips("192.0.2.1")
				tt.set(s.zone)
				if got := s.send("you@example.org"); got != tt.want {
					t.Errorf("became %s\nwant   %s", got, tt.want)
				}
			})
		})
	}
}

// With dane: false nobody asks.
func TestWithoutDANE(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Direct: true}, nil)
		s.network.servers["192.0.2.1:25"] = (&sink{}).serve
		s.zone.mx["example.org"], s.zone.addresses["mx.example.net"] = mx(10, "mx.example.net"), ips("192.0.2.1")
		s.send("you@example.org")
		for _, q := range s.zone.asked {
			if strings.HasPrefix(q, "TLSA") || strings.HasPrefix(q, "TXT") {
				t.Errorf("asked for %s", q)
			}
		}
	})
}
