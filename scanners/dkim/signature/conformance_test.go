package signature

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"hash"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/pipeline/mime"
)

// The mails of Mail::DKIM are from the days of rsa-sha1, of drafts and of short keys, so that our verdict about nearly all
// of them is that they prove nothing. What is hashed of them has not changed since: with all that overlooked, every
// signature must fit that fits there.
func TestFormsOfOldMail(t *testing.T) {
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	keys := map[string]string{}
	for line := range strings.Lines(file(t, dir, "dns.txt")) {
		name, record, _ := strings.Cut(strings.TrimSpace(line), " ")
		keys[name] = strings.TrimSpace(record)
	}
	for line := range strings.Lines(file(t, dir, "expected.tsv")) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), "\t")
		switch {
		case want == "invalid", name == "goodkey_ed25519.txt": // nothing to be hashed; not old
			continue
		case strings.HasPrefix(name, "good_ietf00"): // the first draft had no bh=: header and body were hashed in one
			continue
		}
		t.Run(name, func(t *testing.T) {
			text := file(t, dir, "messages/"+name)
			m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			fits := 0
			for i, f := range m.Header().Fields() {
				if strings.EqualFold(f.Name, "DKIM-Signature") && fitsAnyhow(t, m, i, keys) {
					fits++
				}
			}
			if (fits > 0) != (want == "pass") {
				t.Errorf("%d signatures fit, want %s", fits, want)
			}
		})
	}
}

func file(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "dkim", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fitsAnyhow verifies a signature with the forms of this package and nothing else of it.
func fitsAnyhow(t *testing.T, m *mime.Message, own int, keys map[string]string) bool {
	t.Helper()
	fields := m.Header().Fields()
	raw := fields[own].Raw
	tags, err := ParseTags(string(raw[bytes.IndexByte(raw, ':')+1:]))
	if err != nil {
		return false
	}
	value := func(name string) string { v, _ := tags.Value(name); return unspaced(v) }
	newHash, kind := sha256.New, crypto.SHA256
	if value("a") == "rsa-sha1" {
		newHash, kind = sha1.New, crypto.SHA1
	}
	header, body, both := strings.Cut(value("c"), "/")
	if !both {
		body = "simple"
	}
	part := BodyPart{Form(body), -1}
	if l := value("l"); l != "" {
		if part.Length, err = strconv.ParseInt(l, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	sums, err := sumBody(m.RawBody(), []BodyPart{part}, func() hash.Hash { return newHash() })
	if err != nil {
		t.Fatal(err)
	}
	if want, err := decode(value("bh")); err != nil || !bytes.Equal(sums[part].Hash, want) {
		return false
	}
	record, err := ParseTags(keys[value("s")+"._domainkey."+value("d")])
	if err != nil {
		t.Fatal(err)
	}
	p, _ := record.Value("p")
	der, err := decode(p)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	h := newHash()
	NewHeader(fields).Write(h, words(strings.ToLower(value("h"))), Form(header), own)
	h.Write(Form(header).AppendUnsigned(nil, raw, tags))
	b, err := decode(value("b"))
	if err != nil {
		return false
	}
	return rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), kind, h.Sum(nil), b) == nil
}
