package peertest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/scanners/dkim/signature"
)

const dkimRules = `rules:
  - {name: signed, when: 'dkim.pass and "signer.example" in dkim.domains', file: Signed}
  - {name: changed, when: 'any(dkim.signatures, .domain == "signer.example" and .result == "fail")', file: Changed}
  - {name: sealed, when: 'arc.result == "pass" and "example.org" in arc.sealers and arc.first.dmarc == "pass"', file: Sealed}
`

// dkimSite is a Sluice that looks at signatures and sorts by them.
func dkimSite(t *testing.T, d *DNSServer, onError string) *Sluice {
	t.Helper()
	return StartSluice(t, SluiceConfig{
		YAML: fmt.Sprintf(`domains: [example.org]
trusted: [127.0.0.0/8]
resolver: {servers: [%q], attempts: 1}
pipeline:
  - dkim: {on_error: %s}
  - arc: {}
  - rules: {files: [rules.yaml]}
`, d.Address, onError),
		Files:    map[string]string{"rules.yaml": dkimRules},
		Accounts: []string{"me@example.org"},
	})
}

// quoted is a long text as a TXT record of several strings.
func quoted(text string) string {
	var b strings.Builder
	for len(text) > 200 {
		fmt.Fprintf(&b, "%q ", text[:200])
		text = text[200:]
	}
	return b.String() + fmt.Sprintf("%q", text)
}

type dkimFact struct {
	Pass       bool
	Domains    []string
	Signatures []struct {
		Domain, Selector, Algorithm, Result, Reason, Canonical string
		Bits                                                   int
		Oversigned, Addable                                    []string
	}
}

// dkimOf returns what the record of a mail says of dkim, and whether the step before it has said something.
func dkimOf(t *testing.T, s *Sluice, key string) (f dkimFact, step pipeline.StepRecord) {
	t.Helper()
	records := s.records(key)
	if len(records) == 0 {
		t.Fatalf("no record of %s", key)
	}
	step = records[0].Steps[0]
	if step.Fact != nil {
		if err := json.Unmarshal(step.Fact, &f); err != nil {
			t.Fatal(err)
		}
	}
	return f, step
}

// What opendkim has signed in Postfix verifies at each of our doors behind it, and no more after a word was changed.
func TestOpendkimSigns(t *testing.T) {
	Need(t, "opendkim", "postfix", "swaks")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	d := DNS(t, "sel._domainkey.signer.example. TXT "+quoted("v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(public)))
	s := dkimSite(t, d, "skip")
	file := filepath.Join(s.Dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	type way struct{ name, form, address string }
	var ways []way
	var services strings.Builder
	for _, form := range []string{"simple/simple", "relaxed/relaxed"} {
		signer := "inet:" + StartOpendkim(t, OpendkimConfig{Text: fmt.Sprintf("Mode s\nDomain signer.example\nSelector sel\nKeyFile %s\n"+
			"InternalHosts csl:127.0.0.1\nCanonicalization %s\nOversignHeaders csl:From\nRequireSafeKeys no\n", file, form)}).Address
		for _, milters := range []string{signer, signer + ",unix:" + s.MilterSocket} {
			w := way{form + " by " + milters, form, Address(t)}
			ways = append(ways, w)
			fmt.Fprintf(&services, "%s inet n - n - - smtpd -o smtpd_milters=%s\n", w.address, milters)
		}
	}
	StartPostfix(t, PostfixConfig{MasterText: services.String(), Main: map[string]string{
		"milter_default_action": "tempfail", "virtual_transport": "lmtp:unix:" + s.LMTPSocket,
	}})
	for i, w := range ways {
		n := i + 1
		id := fmt.Sprintf("%d@signer.example", n)
		Eventually(t, func() error { return answers(w.address) })
		// No line is longer than 998 octets: Postfix would break it, and the signature with it.
		out, code := Swaks(t, "--server", w.address, "--from", "a@signer.example", "--to", "me@example.org", "--data",
			"From: A  B <a@signer.example>\nSubject: folded\n  and spaced \t twice\nMessage-ID: <"+id+">\nTo:me@example.org\n\n"+
				"one  word \n\n.dots\n\n"+strings.Repeat("long ", 180)+"\nend\n\n\n")
		if code != 0 {
			t.Fatal(w.name, out)
		}
		f, step := dkimOf(t, s, id)
		if !f.Pass || len(f.Signatures) != 1 {
			t.Fatalf("%s: %+v %s", w.name, f, step.Unknown)
		}
		x := f.Signatures[0]
		if x.Selector != "sel" || x.Bits != 2048 || x.Algorithm != "rsa-sha256" || x.Canonical != w.form || strings.Join(x.Oversigned, " ") != "from" {
			t.Errorf("%s: %+v", w.name, x)
		}
		// The same mail once more by SMTP as it lies on the disk, and with another word.
		var mail string
		for _, m := range s.Mails("me@example.org", "Signed", 2*n-1) {
			if strings.Contains(m, "<"+id+">") {
				mail = strings.ReplaceAll(strings.ReplaceAll(m, "\n", "\r\n"), "\r\n.", "\r\n..")
			}
		}
		again(t, s, mail)
		again(t, s, strings.Replace(mail, "dots", "dits", 1))
		s.Mails("me@example.org", "Signed", 2*n)
		s.Mails("me@example.org", "Changed", n)
	}
}

// again sends a mail to Sluice by SMTP.
func again(t *testing.T, s *Sluice, text string) {
	t.Helper()
	c, err := DialClient(s.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Expect("250", "EHLO again.example"); err != nil {
		t.Fatal(err)
	}
	if replies, err := c.Mail(false, "a@signer.example", []string{"me@example.org"}, text); err != nil || !strings.HasPrefix(replies[0], "250") {
		t.Fatal(replies, err)
	}
}

// Through serve: what is said of mail without signatures, with a broken one, and of one whose key does not answer.
func TestDKIMThroughServe(t *testing.T) {
	d := DNS(t, `revoked._domainkey.signer.example. TXT "v=DKIM1; p="`)
	d.Fail("sel._domainkey.silent.example")
	send := func(s *Sluice, id, header string) string {
		t.Helper()
		c, err := DialClient(s.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Expect("250", "EHLO client.example"); err != nil {
			t.Fatal(err)
		}
		replies, err := c.Mail(false, "a@signer.example", []string{"me@example.org"},
			header+"From: a@signer.example\r\nMessage-ID: <"+id+"@signer.example>\r\nSubject: x\r\n\r\nx\r\n")
		if err != nil {
			t.Fatal(err)
		}
		return replies[0]
	}
	signature := func(selector, domain string) string {
		return "DKIM-Signature: v=1; a=rsa-sha256; d=" + domain + "; s=" + selector +
			"; h=from; bh=uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=; b=AAAA\r\n"
	}
	s := dkimSite(t, d, "skip")
	for _, tt := range []struct{ id, header, result, reason, unknown string }{
		{id: "none"},
		{id: "revoked", header: signature("revoked", "signer.example"), result: "permerror", reason: "the key is revoked"},
		{id: "nokey", header: signature("sel", "signer.example"), result: "permerror", reason: "there is no key at sel._domainkey.signer.example"},
		{id: "silent", header: signature("sel", "silent.example"), unknown: "undecided: sel._domainkey.silent.example: look up the key"},
	} {
		if reply := send(s, tt.id, tt.header); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
		f, step := dkimOf(t, s, tt.id+"@signer.example")
		if f.Pass || !strings.Contains(step.Unknown, tt.unknown) || (step.Fact == nil) != (tt.unknown != "") || len(f.Signatures) > 0 != (tt.result != "") {
			t.Errorf("%s: %+v, unknown: %s", tt.id, f, step.Unknown)
		}
		if tt.result != "" && (f.Signatures[0].Result != tt.result || f.Signatures[0].Reason != tt.reason) {
			t.Errorf("%s: %+v", tt.id, f)
		}
	}
	if out := s.Explain("silent@signer.example"); !strings.Contains(out, "sel._domainkey.silent.example") {
		t.Errorf("explain does not say which key is missing:\n%s", out)
	}
	s = dkimSite(t, d, "postpone")
	if reply := send(s, "silent", signature("sel", "silent.example")); !strings.HasPrefix(reply, "451 4.7.1") {
		t.Errorf("with on_error: postpone the client is told %q", reply)
	}
	if reply := send(s, "revoked", signature("revoked", "signer.example")); !strings.HasPrefix(reply, "250") {
		t.Errorf("a revoked key is no error, and the client is told %q", reply)
	}
}

// A chain of one forwarder, through serve: sorted by what the forwarder saw, and no more after a word was changed.
func TestARCThroughServe(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := DNS(t, fmt.Sprintf(`sel._domainkey.example.org. TXT "v=DKIM1; k=ed25519; p=%s"`, base64.StdEncoding.EncodeToString(public)))
	s := dkimSite(t, d, "skip")
	const body = "hello\r\n"
	from := mime.Field{Name: "From", Raw: []byte("From: a@signer.example")}
	sign := func(field string, sum hash.Hash) string {
		return field + base64.StdEncoding.EncodeToString(ed25519.Sign(key, sum.Sum(nil)))
	}
	results := "ARC-Authentication-Results: i=1; mx.example.org; dmarc=pass header.from=signer.example"
	bh := sha256.Sum256([]byte(body))
	ams := "ARC-Message-Signature: i=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=sel; h=from; bh=" +
		base64.StdEncoding.EncodeToString(bh[:]) + "; b="
	sum := sha256.New()
	signature.NewHeader([]mime.Field{from}).Write(sum, []string{"from"}, signature.Relaxed, -1)
	sum.Write(signature.Relaxed.AppendUnsigned(nil, []byte(ams), nil))
	ams = sign(ams, sum)
	seal := "ARC-Seal: i=1; a=ed25519-sha256; cv=none; d=example.org; s=sel; b="
	sum = sha256.New()
	sum.Write(signature.Relaxed.AppendField(signature.Relaxed.AppendField(nil, []byte(results)), []byte(ams)))
	sum.Write(signature.Relaxed.AppendUnsigned(nil, []byte(seal), nil))
	text := strings.Join([]string{sign(seal, sum), ams, results, string(from.Raw), "Subject: forwarded", "", body}, "\r\n")
	again(t, s, "Message-ID: <chain@signer.example>\r\n"+text)
	again(t, s, "Message-ID: <broken@signer.example>\r\n"+strings.Replace(text, "hello", "hallo", 1))
	s.Mails("me@example.org", "Sealed", 1)
	s.Mails("me@example.org", "", 1)
	for id, want := range map[string]arcFact{
		"chain":  {Result: "pass", Sealers: []string{"example.org"}},
		"broken": {Result: "fail", Why: "the message signature i=1: the body is not the one that was signed", OldestPass: -1, Sealers: []string{"example.org"}},
	} {
		var got arcFact
		if err := json.Unmarshal(s.records(id + "@signer.example")[0].Steps[1].Fact, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", id, got, err)
		}
	}
}

type arcFact struct {
	Result     string   `json:"result"`
	Why        string   `json:"why"`
	OldestPass int      `json:"oldest_pass"`
	Sealers    []string `json:"sealers"`
}
