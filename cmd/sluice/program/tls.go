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

// certificate returns what the doors prove themselves with: the configured files, or a certificate of our own making
// that is kept in the data folder.
func (p *program) certificate(c *config.Config) (*tls.Config, error) {
	certificate, key := c.Path(c.TLS.Certificate), c.Path(c.TLS.Key)
	if certificate == "" {
		dir := filepath.Join(c.Data, "tls")
		certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		_, err := os.Stat(certificate)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := selfSigned(certificate, key, c.Hostname, p.now()); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, fmt.Errorf("read the certificate %s: %w", certificate, cause(err))
		}
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key %s: %w", certificate, key, cause(err))
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
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
