package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"sluice/pipeline/mime"
)

var both = sync.OnceValue(func() []Identity {
	var by []Identity
	for _, algorithm := range []string{RSA, Ed25519} {
		k, err := GenerateKey(algorithm)
		if err != nil {
			panic(err)
		}
		by = append(by, Identity{"example.org", "s-" + algorithm, k})
	}
	return by
})

func parse(t testing.TB, text string) *mime.Message {
	t.Helper()
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func signed(t testing.TB, text string, by []Identity, lasts time.Duration) string {
	t.Helper()
	m := parse(t, text)
	hash, err := HashBody(m.RawBody())
	if err != nil {
		t.Fatal(err)
	}
	fields, err := Sign(NewHeader(m.Header().Fields()), hash, by, time.Now(), lasts)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		for line := range strings.SplitSeq(f, "\r\n") {
			if len(line) > 78 {
				t.Errorf("a line of %d characters: %s", len(line), line)
			}
		}
	}
	return strings.Join(fields, "\r\n") + "\r\n" + text
}

// fits verifies what is on top of a mail with our own verifier and with go-msgauth's, which agree, and says how many fit.
func fits(t *testing.T, text string, by []Identity) (ours int) {
	t.Helper()
	records := map[string]string{}
	for _, i := range by {
		record, err := i.Key.Record()
		if err != nil {
			t.Fatal(err)
		}
		records[i.KeyName()] = record
	}
	m := parse(t, text)
	fields := m.Header().Fields()
	sums, err := SumBody(m.RawBody(), []BodyPart{WholeBody()})
	if err != nil {
		t.Fatal(err)
	}
	for own, f := range fields {
		if f.Name != "DKIM-Signature" {
			continue
		}
		s, err := Parse(f, Simple)
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseKey(records[s.KeyName()])
		if err != nil {
			t.Fatal(err)
		}
		if s.Verify(NewHeader(fields), own, sums[s.Body], k) == nil {
			ours++
		}
	}
	theirs := 0
	all, err := dkim.VerifyWithOptions(strings.NewReader(text), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return []string{records[name]}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.Err == nil {
			theirs++
		}
	}
	if ours != theirs {
		t.Errorf("%d signatures fit for us, %d for go-msgauth: %v", ours, theirs, all[0].Err)
	}
	return ours
}

const mail = "From: Me <me@example.org>\r\nTo: you@example.com\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_und?=\r\n" +
	"Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nX-Other: 1\r\n\r\nOne  \r\n\r\n.two\t three\r\n\r\n\r\n"

// Both algorithms sign, every verifier accepts, and what a reader would take for something else is found out.
func TestSign(t *testing.T) {
	text := signed(t, mail, both(), 14*24*time.Hour)
	if n := fits(t, text, both()); n != 2 {
		t.Fatalf("%d signatures fit, not 2\n%s", n, text)
	}
	list := signed(t, "List-Id: <l.example.org>\r\nList-Unsubscribe: <mailto:x@example.org>\r\n"+mail, both(), 0)
	if n := fits(t, list, both()); n != 2 {
		t.Fatalf("of a list's mail %d signatures fit, not 2\n%s", n, list)
	}
	for _, tt := range []struct {
		name, text string
		fit        int
	}{
		{"as it was", text, 2},
		{"trace fields on top", "Received: from x by y; now\r\nReturn-Path: <me@example.org>\r\n" + text, 2},
		{"a field that nobody is shown changes", strings.Replace(text, "X-Other: 1", "X-Other: 2", 1), 2},
		{"folded otherwise", strings.Replace(text, "To: you@example.com", "TO:\r\n  you@example.com  ", 1), 2},
		{"white space at the ends of lines goes", strings.Replace(text, "One  \r\n", "One\r\n", 1), 2},
		{"a list hands it on", "List-Id: <l.example.com>\r\nList-Post: <mailto:l@example.com>\r\n" + text, 2},
		{"a word of the body", strings.Replace(text, "three", "four", 1), 0},
		{"something below the body", text + "more\r\n", 0},
		{"another subject", strings.Replace(text, "_und", "_oder", 1), 0},
		{"a second subject on top", "Subject: other\r\n" + text, 0},
		{"a second subject below", strings.Replace(text, "X-Other: 1", "Subject: other", 1), 0},
		{"a second From on top", "From: you@example.com\r\n" + text, 0},
		{"a Cc where none was", "Cc: them@example.com\r\n" + text, 0},
		{"a reply goes elsewhere", "Reply-To: them@example.com\r\n" + text, 0},
		{"the body is read as something else", "Content-Type: text/html\r\n" + text, 0},
		{"the second signature is another's", strings.Replace(text, "s=s-ed25519;", "s=s-ed25519 ;", 1), 1},
		{"of a list, another list's", "List-Unsubscribe: <mailto:y@example.com>\r\n" + list, 0},
	} {
		if n := fits(t, tt.text, both()); n != tt.fit {
			t.Errorf("%s: %d signatures fit, want %d", tt.name, n, tt.fit)
		}
	}
}

func TestSignedTags(t *testing.T) {
	m := parse(t, signed(t, mail, both()[1:], 48*time.Hour))
	s, err := Parse(m.Header().Fields()[0], Simple)
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Number("x")
	if err != nil || x-s.Time != 48*3600 || s.Domain != "example.org" || s.Selector != "s-ed25519" || s.Algorithm != "ed25519-sha256" {
		t.Errorf("x=%d t=%d %+v %v", x, s.Time, s, err)
	}
	const want = "from from to to cc subject subject date date message-id message-id reply-to in-reply-to references sender " +
		"mime-version content-type content-transfer-encoding content-disposition"
	if got := strings.Join(s.Headers, " "); got != want {
		t.Errorf("signed are %s", got)
	}
	m = parse(t, signed(t, mail, both()[1:], 0))
	if s, err := Parse(m.Header().Fields()[0], Simple); err != nil || slices.ContainsFunc(s.Tags, func(t Tag) bool { return t.Name == "x" }) {
		t.Errorf("a signature that does not expire says %v, %v", s.Tags, err)
	}
}

// Any number of fields, an empty body, no body: what is signed verifies.
func TestSignOddMail(t *testing.T) {
	for _, text := range []string{
		"From: a@example.org\r\n\r\n", "From: a@example.org\r\n\r\n\r\n\r\n", "from:a@example.org\r\nFrom: b@example.org\r\n\r\n\r\nx",
		"From: a@example.org\r\n" + strings.Repeat("To: x@example.com\r\n", 300) + "\r\nx\r\n",
		"From: a@example.org\r\nSubject: " + strings.Repeat("long ", 4000) + "\r\n\r\n" + strings.Repeat("x", 100_000),
		"From: \"\xc3\xa4\" <a@example.org>\r\nSubject: \xff\r\n\r\n\xff\x00\r\n",
	} {
		if n := fits(t, signed(t, text, both(), 0), both()); n != 2 {
			t.Errorf("%.60q: %d signatures fit, not 2", text, n)
		}
	}
}

func TestPrivateKey(t *testing.T) {
	der := func(k any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	short, err := rsa.GenerateKey(rand.Reader, 512)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ours := both()[0].Key
	for _, tt := range []struct{ name, text, want string }{
		{"PKCS #1, below a certificate", block("CERTIFICATE", []byte("x")) + block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(ours.signer.(*rsa.PrivateKey))), ""},
		{"PKCS #8", "a comment\n" + block("PRIVATE KEY", der(ours.signer)), ""},
		{"nothing", "", "there is no private key in it, which begins with -----BEGIN PRIVATE KEY-----"},
		{"a public key", block("PUBLIC KEY", []byte("x")), "there is no private key in it, which begins with -----BEGIN PRIVATE KEY-----"},
		{"no end", strings.Repeat(block("CERTIFICATE", []byte("x")), 101) + block("PRIVATE KEY", der(ours.signer)), "there is no private key in it, which begins with -----BEGIN PRIVATE KEY-----"},
		{"rubbish", block("PRIVATE KEY", []byte("x")), "the private key in it is damaged"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), errEncrypted.Error()},
		{"encrypted as of old", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\neA==\n-----END RSA PRIVATE KEY-----\n", errEncrypted.Error()},
		{"a curve", block("EC PRIVATE KEY", []byte("x")), `it is a key of the kind "EC PRIVATE KEY"; DKIM knows RSA and ed25519, in PKCS #8`},
		{"a curve in PKCS #8", block("PRIVATE KEY", der(curve)), "it is a key of another kind; DKIM knows RSA and ed25519"},
		{"too short", block("PRIVATE KEY", der(short)), "an RSA key of 512 bits: it needs from 1024 to 8192, or nobody accepts what it signs"},
	} {
		k, err := ParsePrivateKey([]byte(tt.text))
		if got := fmt.Sprint(err); err != nil && got != tt.want || err == nil && tt.want != "" {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if err == nil && (k.Algorithm() != RSA || k.Bits() != 2048) {
			t.Errorf("%s: %s, %d bits", tt.name, k.Algorithm(), k.Bits())
		}
	}
	if _, err := GenerateKey("dsa"); err == nil || err.Error() != `there is no algorithm "dsa"; there are rsa and ed25519` {
		t.Error(err)
	}
}

// A key that was written is read as the same, and its record is of that key and no other.
func TestKeyRecord(t *testing.T) {
	for n, i := range both() {
		text, err := i.Key.PEM()
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParsePrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		record, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		public, err := ParseKey(record)
		if err != nil || !i.Key.Fits(public) || both()[1-n].Key.Fits(public) || i.Key.Fits(Key{}) {
			t.Errorf("%s: %v", record, err)
		}
	}
}

// Whatever a file holds, reading it ends, says nothing of a secret, and what is taken for a key can sign.
func FuzzPrivateKey(f *testing.F) {
	key, err := GenerateKey(Ed25519) // one of RSA takes long to make
	if err != nil {
		f.Fatal(err)
	}
	text, err := key.PEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.ReplaceAll(text, []byte("PRIVATE"), []byte("RSA PRIVATE")))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nDEK-Info: x\n\neA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParsePrivateKey(text)
		if err != nil {
			if len(err.Error()) > 200 {
				t.Error(err)
			}
			return
		}
		record, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		public, err := ParseKey(record)
		if err != nil || !k.Fits(public) {
			t.Errorf("%s: %v", record, err)
		}
	})
}

// What signing a mail of 12 KB costs, with both keys.
func BenchmarkSign(b *testing.B) {
	text := mail + strings.Repeat("The quick brown fox jumps over the lazy dog, and then over another.\r\n", 170)
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				signed(b, text, both()[2-n:], 0)
			}
		})
	}
}
