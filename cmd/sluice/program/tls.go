package program

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"sluice/cmd/sluice/program/config"
)

// certificates are what the doors prove themselves with, each for the names in it.
type certificates []tls.Certificate

// certificates reads the configured files, or a certificate of our own making that is kept in the data folder. The first
// is for clients that ask for no name, or for one that none is for.
func (p *program) certificates(c *config.Config) (certificates, error) {
	files := configuredCertificates(c)
	if len(files) == 0 {
		own, err := p.ownCertificate(c)
		if err != nil {
			return nil, err
		}
		files = append(files, own)
	}
	var all certificates
	var errs []error
	for _, x := range files {
		pair, err := x.read(c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, pair)
	}
	return all, errors.Join(errs...)
}

// A certificateFile is a certificate and its key, and the setting that names them.
type certificateFile struct {
	config.Certificate
	setting string
}

func configuredCertificates(c *config.Config) (files []certificateFile) {
	if c.TLS.Certificate != "" {
		files = append(files, certificateFile{config.Certificate{Certificate: c.TLS.Certificate, Key: c.TLS.Key}, "tls.certificate"})
	}
	for i, x := range c.TLS.Certificates {
		files = append(files, certificateFile{x, fmt.Sprintf("tls.certificates[%d]", i)})
	}
	return files
}

func (f certificateFile) read(c *config.Config) (tls.Certificate, error) {
	certificate, key := c.Path(f.Certificate.Certificate), c.Path(f.Key)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return pair, fmt.Errorf("read the certificate %s and its key %s: %w", certificate, key, cause(err))
	}
	return pair, nil
}

// choose returns the certificate for a client: the first that is for the name it asks for and that it can check.
func (all certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != "" {
		for i := range all {
			if hello.SupportsCertificate(&all[i]) == nil {
				return &all[i], nil
			}
		}
	}
	return &all[0], nil
}

// ownCertificate returns the certificate in the data folder, which it makes if need be.
func (p *program) ownCertificate(c *config.Config) (own certificateFile, _ error) {
	dir := filepath.Join(c.Data, "tls") // absolute, as the data folder is
	own.Certificate = config.Certificate{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	_, err := os.Stat(own.Certificate.Certificate)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return own, selfSigned(own.Certificate.Certificate, own.Key, c.Hostname, p.now())
	case err != nil:
		return own, fmt.Errorf("read the certificate %s: %w", own.Certificate.Certificate, cause(err))
	}
	return own, nil
}

// selfSigned makes a certificate for this machine and for loopback. The key is written first: a certificate that is
// there has its key.
func selfSigned(certificate, key, host string, now time.Time) error {
	if err := os.MkdirAll(filepath.Dir(certificate), 0o700); err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: host, Organization: []string{"Sluice, self-signed"}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{host},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		BasicConstraintsValid: true,
	}
	if host != "localhost" {
		template.DNSNames = append(template.DNSNames, "localhost")
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return fmt.Errorf("make a certificate for %s: %w", host, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("make a certificate for %s: %w", host, err)
	}
	if err := writeFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return writeFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
