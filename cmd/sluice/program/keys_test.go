package program

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/protocols/peertest"
	"sluice/scanners/dkim/signature"
)

func (d *faultyDisk) Link(from, to string) error {
	if err := d.next("link"); err != nil {
		return err
	}
	return d.osDisk.Link(from, to)
}

// newKeys are two keys that are nowhere yet.
func newKeys(t testing.TB, domain string, selectors ...string) (keys []keptKey) {
	t.Helper()
	for _, s := range selectors {
		k, err := signature.GenerateKey(signature.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, keptKey{signature.Identity{Domain: domain, Selector: s, Key: k}, true})
	}
	return keys
}

// Whatever fails while keys are written, there is no half of one afterwards, those that signed before still do and
// nothing else does, and once more succeeds.
func TestKeepKeysFails(t *testing.T) {
	for _, first := range []bool{true, false} {
		for n := 1; ; n++ {
			data := t.TempDir()
			dir := keyFolder(data, "example.org")
			var before []keptKey
			want := ""
			if !first {
				if err := keepKeys(osDisk{}, dir, nil, newKeys(t, "example.org", "old")); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(dir, activeFile)); err != nil { // as if by hand
					t.Fatal(err)
				}
				before, want = keysIn(t, data), "old"
			}
			d := &faultyDisk{n: n, err: syscall.ENOSPC}
			made := newKeys(t, "example.org", "a", "b")
			err := keepKeys(d, dir, before, made)
			if d.fell == "" {
				if err != nil {
					t.Fatal(err)
				}
				if n < 12 {
					t.Errorf("only %d calls: %v", n, d.did)
				}
				break
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("call %d (%s): %v", n, d.fell, err)
			}
			c := config.Default()
			c.Data = data
			keys, err := readKeys(c)
			if err != nil {
				t.Errorf("call %d (%s): %v", n, d.fell, err)
			}
			if got := selectors(keys["example.org"]); got != want {
				t.Errorf("call %d (%s): %q sign, want %q", n, d.fell, got, want)
			}
			if err := keepKeys(osDisk{}, dir, keysIn(t, data), made); err != nil {
				t.Errorf("call %d (%s): once more: %v", n, d.fell, err)
			}
		}
	}
}

func selectors(all []signature.Identity) string {
	var names []string
	for _, i := range all {
		names = append(names, i.Selector)
	}
	return strings.Join(names, " ")
}

func keysIn(t testing.TB, data string) []keptKey {
	t.Helper()
	keys, err := keptKeys(data, "example.org")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysOf(t *testing.T) {
	keys := signingKeys{"example.org": {{Selector: "a"}}, "sub.example.org": {{Selector: "b"}}, "xn--bcher-kva.example": {{Selector: "c"}}}
	for domain, want := range map[string]string{
		"example.org": "a", "Example.ORG": "a", "mx.example.org": "a", "sub.example.org": "b", "x.sub.example.org": "b", "notexample.org": "",
		"org": "", "": "", "bücher.example": "c", "example.com": "", "a b": "",
	} {
		if got := selectors(keys.of(domain)); got != want {
			t.Errorf("%s is signed by %q, want %q", domain, got, want)
		}
	}
}

// A key that cannot be used stops who would sign with it, and all such keys are named at once.
func TestKeysThatAreNone(t *testing.T) {
	data := t.TempDir()
	for file, f := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"a.example/open.pem": {"x", 0o640}, "a.example/odd.pem": {"x", 0o600}, "b.example/large.pem": {strings.Repeat("x", 65<<10), 0o600},
		"c.example/active": {"gone\n", 0o600}, "d.example/README": {"x", 0o644}, "d.example/.new-x.pem": {"x", 0o600}, "Not A Domain/x.pem": {"x", 0o644},
	} {
		path := filepath.Join(data, "dkim", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(f.text), f.mode), os.Chmod(path, f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	c := config.Default()
	c.Data = data
	c.Signing.Keys = []config.SigningKey{{Domain: "e.example", Selector: "s", File: filepath.Join(data, "nowhere.pem")}}
	_, err := readKeys(c)
	const want = `signing.keys[0].file: there is no key DATA/nowhere.pem
the key DATA/dkim/a.example/odd.pem: there is no private key in it, which begins with -----BEGIN PRIVATE KEY-----
the key DATA/dkim/a.example/open.pem can be read by others (mode 0640); say chmod 600 DATA/dkim/a.example/open.pem
the key DATA/dkim/b.example/large.pem has more than 65536 octets, so it is none
DATA/dkim/c.example/active names the selector "gone", of which there is no key; ` + "`sluice dkim use c.example SELECTOR…` says which sign"
	if err == nil || strings.ReplaceAll(err.Error(), data, "DATA") != want {
		t.Errorf("%v", err)
	}
}

// The life of a domain's keys, with a DNS that answers: the first signs at once, the second when its record is there.
func TestRotation(t *testing.T) {
	data := t.TempDir()
	dns := peertest.DNS(t)
	conf := filepath.Join(t.TempDir(), "sluice.yaml")
	write := func(dns *peertest.DNSServer) {
		if err := os.WriteFile(conf, []byte("domain: example.org\nresolver: {servers: ['"+dns.Address+"'], attempts: 1}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(code int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		p := &program{ctx: t.Context(), stdout: &out, stderr: &out, kinds: Stages(), now: func() time.Time { return time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC) }}
		if got := p.run(append([]string{"-c", conf, "--data", data}, args...)); got != code {
			t.Errorf("%s ends with %d:\n%s", strings.Join(args, " "), got, out.String())
		}
		return out.String()
	}
	write(dns)
	run(1, "dkim", "check")
	first := run(0, "dkim", "keygen", "example.org", "--algorithm", "both")
	if strings.Contains(first, "dkim use") || !strings.Contains(first, "s20261122e._domainkey.example.org. IN TXT ( \"v=DKIM1; k=ed25519; p=") {
		t.Error(first)
	}
	if again := run(1, "dkim", "keygen", "example.org"); !strings.Contains(again, "s20261122.pem already; --selector gives the new one another name") {
		t.Error(again)
	}
	second := run(0, "dkim", "keygen", "example.org", "--selector", "next", "--algorithm", "ed25519")
	if !strings.Contains(second, "sluice dkim use example.org next ") {
		t.Error(second)
	}
	if got := run(1, "dkim", "check", "example.org"); strings.Count(got, "there is no key at ") != 3 || !strings.Contains(got, "next._domainkey.example.org  waits") {
		t.Error(got)
	}
	if got := run(1, "dkim", "use", "example.org", "next"); !strings.Contains(got, "next._domainkey.example.org: there is no key at ") {
		t.Error(got)
	}
	// What was printed goes into the zone as it stands there.
	zone := func(text string) (records []string) {
		_, text, _ = strings.Cut(text, ":\n\n")
		text, _, _ = strings.Cut(text, "\n\nThen:")
		for r := range strings.SplitSeq(text, " )\n") {
			if strings.Contains(r, "IN TXT") {
				records = append(records, strings.TrimSuffix(strings.ReplaceAll(r, " IN TXT (", " 60 IN TXT"), " )"))
			}
		}
		return records
	}
	var records []string
	for _, r := range append(zone(first), zone(second)...) {
		records = append(records, strings.ReplaceAll(r, "\n", ""))
	}
	write(peertest.DNS(t, records...))
	if got := run(0, "dkim", "check", "example.org"); strings.Count(got, "  fits\n") != 3 {
		t.Error(got)
	}
	if got := run(0, "dkim", "use", "example.org", "next"); !strings.Contains(got, "next._domainkey.example.org signs\n") {
		t.Error(got)
	}
	if got := run(0, "dkim", "show", "--json"); !strings.Contains(got, `"version": 1`) || strings.Count(got, `"signs": true`) != 1 || strings.Contains(got, "PRIVATE") {
		t.Error(got)
	}
	wrong := strings.Replace(records[2], "next._domainkey", "s20261122e._domainkey", 1)
	write(peertest.DNS(t, wrong, records[2]))
	if got := run(0, "dkim", "check"); !strings.Contains(got, "s20261122e._domainkey.example.org  waits  the DNS has another key") {
		t.Error(got)
	}
	if got := run(1, "dkim", "use", "example.org", "nobody"); !strings.Contains(got, `example.org has no key "nobody"`) {
		t.Error(got)
	}
}

func TestSigningWarnings(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	file := filepath.Join(t.TempDir(), "short.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Data = t.TempDir()
	c.Signing.Keys = []config.SigningKey{{Domain: "example.org", Selector: "short", File: file}}
	c.DMARCReports.Send = true
	warnings, problems := keyProblems(c)
	if len(problems) > 0 || len(warnings) != 2 || !strings.HasPrefix(warnings[0].Text, "the key short._domainkey.example.org has 1024 bits: some believe nothing below 2048") {
		t.Errorf("%v %v", warnings, problems)
	}
	if warnings := signingWarnings(config.Default(), signingKeys{"example.org": newKeysOf(t)}); len(warnings) > 0 {
		t.Errorf("%v", warnings)
	}
}

func newKeysOf(t *testing.T) (all []signature.Identity) {
	t.Helper()
	for _, k := range newKeys(t, "example.org", "s") {
		all = append(all, k.Identity)
	}
	return all
}
