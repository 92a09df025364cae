package peertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// selfSigned writes cert.pem and key.pem, for localhost, into a folder that Postfix can read, and returns the key that
// TLSA records name.
func selfSigned(t *testing.T, dir string) (spki []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spki, err = x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// leaving is a Sluice whose user me@example.org sends mail through it, and a function that does.
func leaving(t *testing.T, relay string) (s *Sluice, send func(to ...string)) {
	t.Helper()
	door := Address(t)
	s = StartSluice(t, SluiceConfig{
		Whole: true, Accounts: []string{"me@example.org"}, Files: map[string]string{"password": Password + "\n"},
		YAML: fmt.Sprintf("hostname: sluice.example.org\ndata: $DIR/sluice-data\ndomains: [example.org]\nlisten: {submission: [%q]}\n%s", door, relay),
	})
	mail := filepath.Join(s.Dir, "mail.eml")
	if err := os.WriteFile(mail, []byte("From: me@example.org\r\nSubject: out\r\n\r\n.\r\n..two dots\r\nIt works.\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, func(to ...string) {
		t.Helper()
		args := []string{"-k", "--ssl-reqd", "-u", "me@example.org:" + Password, "smtp://" + door, "--mail-from", "me@example.org", "-T", mail}
		for _, a := range to {
			args = append(args, "--mail-rcpt", a)
		}
		Curl(t, args...)
	}
}

// says waits until the log has a line that fits.
func (s *Sluice) says(pattern string) {
	s.t.Helper()
	Eventually(s.t, func() error {
		if !regexp.MustCompile(`(?m)` + pattern).MatchString(s.Log()) {
			return fmt.Errorf("the log of Sluice has no line %s", pattern)
		}
		return nil
	})
}

// Mail leaves by a Postfix that wants TLS and a login, and what it says of single recipients is what becomes of them.
func TestSmarthostIsPostfix(t *testing.T) {
	dir := TempDir(t)
	selfSigned(t, dir)
	p := StartPostfix(t, PostfixConfig{Dir: dir, Main: map[string]string{
		"mynetworks":              "192.0.2.0/24",
		"smtpd_tls_cert_file":     "$DIR/cert.pem",
		"smtpd_tls_key_file":      "$DIR/key.pem",
		"smtpd_tls_loglevel":      "1",
		"smtpd_tls_auth_only":     "yes",
		"smtpd_sasl_auth_enable":  "yes",
		"smtpd_sasl_type":         "dovecot",
		"smtpd_sasl_path":         SASL(t),
		"virtual_mailbox_domains": "",
		"smtpd_recipient_restrictions": "check_recipient_access inline:{ {nobody@elsewhere.example = 550 5.1.1 there is nobody} " +
			"{later@elsewhere.example = 450 4.2.0 come back} }",
		"smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
		"smtpd_tls_security_level": "encrypt",
		// The delays of its own guard against harvesters would only be waited for.
		"smtpd_error_sleep_time": "0",
	}})
	s, send := leaving(t, fmt.Sprintf(`relay:
  smarthost: ["localhost:%s"]
  ca: %s/cert.pem
  login: {user: sluice, password_file: password}
`, Port(p.Address), dir))
	send("friend@elsewhere.example", "other@elsewhere.example", "nobody@elsewhere.example", "later@elsewhere.example")
	for to, pattern := range map[string]string{
		"friend": `reply="250 2.0.0 Ok: queued as [^"]*" status=2.0.0 how="TLS 1.3, certificate verified"`,
		"other":  `reply="250 2.0.0 Ok: queued as [^"]*" status=2.0.0 how="TLS 1.3, certificate verified"`,
		"nobody": `reply="550 5.1.1 [^"]*there is nobody" status=5.1.1`,
		"later":  `reply="450 4.2.0 [^"]*come back" status=4.2.0`,
	} {
		s.says(`from=me@example.org to=` + to + `@elsewhere.example host="localhost \[127.0.0.1\]:` + Port(p.Address) + `" ` + pattern)
	}
	p.WaitLog("sasl_method=SCRAM-SHA-256, sasl_username=sluice@example.org")
	p.WaitLog("to=<friend@elsewhere.example>, relay=none")
	// A report says so to the sender, who is one of ours.
	s.Mails("me@example.org", "", 1)
}

// Mail goes to the servers that a signed DNS names, over TLS that its TLSA records vouch for, and not at all where they
// do not.
func TestDirectWithDANE(t *testing.T) {
	dir := TempDir(t)
	key := sha256.Sum256(selfSigned(t, dir))
	p := StartPostfix(t, PostfixConfig{Dir: dir, Main: map[string]string{
		"smtpd_tls_cert_file": "$DIR/cert.pem", "smtpd_tls_key_file": "$DIR/key.pem", "smtpd_tls_security_level": "may",
		"virtual_mailbox_domains": "good.example, wrong.example, alias.example", "virtual_transport": "discard:",
	}})
	port := Port(p.Address)
	zone := func(data string) string {
		return "@ MX 10 mx\n@ MX 20 mx2\nmx A 127.0.0.1\nmx2 A 127.0.0.1\n" +
			"_" + port + "._tcp.mx TLSA 3 1 1 " + data + "\n_" + port + "._tcp.mx2 TLSA 3 1 1 " + data
	}
	wrong := sha256.Sum256([]byte("another key"))
	n := StartSignedNameServer(t, map[string]string{
		"good.example":  zone(hex.EncodeToString(key[:])),
		"wrong.example": zone(hex.EncodeToString(wrong[:])),
		"alias.example": "@ MX 10 mx.good.example.",
		"null.example":  "@ MX 0 .",
	})
	s, send := leaving(t, fmt.Sprintf("resolver: {servers: [%q], trust_ad: true}\nrelay: {direct: true, port: %s, reach: [127.0.0.0/8]}\n", n.Address, port))
	send("you@good.example", "you@wrong.example", "you@alias.example", "you@null.example", "you@nobody.good.example")
	s.says(`to=you@good.example host="mx.good.example \[127.0.0.1\]:` + port + `" reply="250 2.0.0 Ok: [^"]*" status=2.0.0 how="TLS 1.3, verified by DANE"`)
	s.says(`to=you@alias.example .* how="TLS 1.3, verified by DANE"`)
	s.says(`msg="mail postponed" .*to=you@wrong.example host="mx2.wrong.example .* its certificate is none that its TLSA records name" status=4.7.5`)
	s.says(`msg="mail failed" .*to=you@null.example .* status=5.1.10`)
	s.says(`msg="mail failed" .*to=you@nobody.good.example .* status=5.1.2`)
}
