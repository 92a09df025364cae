package relay

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// security is what a connection to a server must be, and who says so.
type security struct {
	level  Level
	by     string   // for people: "tls: verify", "DANE", "its MTA-STS policy"
	names  []string // any of which a certificate must be for; the first is told to the server (SNI)
	roots  *x509.CertPool
	tlsa   []TLSA // if any: one must match, and nothing else counts
	proof  string // what it is called when it was verified
	tested bool   // an MTA-STS policy that is tested: what is wrong is noted
}

// settings returns those for a handshake. What was proved is written down in s.
func (x security) settings(s *session) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         x.names[0],
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does, by whatever counts for this server
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := state.PeerCertificates
			switch {
			case len(x.tlsa) > 0:
				if err := matchTLSA(chain, x.tlsa, x.names); err != nil {
					return err
				}
			case x.level == Verify:
				if err := x.verify(chain); err != nil {
					return err
				}
			case x.tested:
				if err := x.verify(chain); err != nil {
					s.note = "its MTA-STS policy, which is only tested, would refuse this: " + err.Error()
					return nil //nolint:nilerr // RFC 8461, 5: it is noted, and the mail goes
				}
			default:
				return nil
			}
			s.proof = x.proof
			return nil
		},
	}
}

// verify checks a certificate as web browsers do.
func (x security) verify(chain []*x509.Certificate) error {
	return verifyChain(chain, x.roots, x.names)
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, names []string) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return err
	}
	var err error
	for _, name := range names {
		if err = chain[0].VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}

// Fields of TLSA records: RFC 6698, 2.1, by the names of RFC 7218.
const (
	daneTA = 2
	daneEE = 3
)

// usable returns those of the records that count for mail: RFC 7672, 3.1.
func usable(list []TLSA) []TLSA {
	return slices.DeleteFunc(slices.Clone(list), func(r TLSA) bool {
		size, known := map[uint8]int{0: len(r.Data), 1: sha256.Size, 2: sha512.Size}[r.Matching]
		return r.Usage != daneTA && r.Usage != daneEE || r.Selector > 1 || !known || len(r.Data) != size || size == 0
	})
}

// matchTLSA checks a chain against records that are usable: RFC 7672, 3.2.
func matchTLSA(chain []*x509.Certificate, list []TLSA, names []string) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	err := errors.New("its certificate is none that its TLSA records name")
	for _, r := range list {
		switch r.Usage {
		case daneEE: // 3.1.1: neither name nor time count
			if r.matches(chain[0]) {
				return nil
			}
		case daneTA: // 3.1.2: a chain from an authority, which the server shows, to a certificate for the name
			authorities := chain
			if c, err := x509.ParseCertificate(r.Data); err == nil { // all of it is there: the server need not show it
				authorities = append(slices.Clone(chain), c)
			}
			for _, c := range authorities {
				if !r.matches(c) {
					continue
				}
				anchor := x509.NewCertPool()
				anchor.AddCert(c)
				wrong := verifyChain(chain, anchor, names)
				if wrong == nil {
					return nil
				}
				err = fmt.Errorf("its TLSA records name the authority, but: %w", wrong)
			}
		}
	}
	return err
}

func (r TLSA) matches(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return slices.Equal(data, r.Data)
}
