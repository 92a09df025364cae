package arc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dkim/signature"
)

// sealed hands a mail on as the program does.
func sealed(t testing.TB, text, domain, results, chain string) (string, error) {
	t.Helper()
	key, err := signature.GenerateKey(signature.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	keysOf[domain] = public
	m := parse(t, text)
	hash, err := signature.HashBody(m.RawBody())
	if err != nil {
		t.Fatal(err)
	}
	top, err := Seal(m.Header().Fields(), hash, Sealing{
		By: signature.Identity{Domain: domain, Selector: "s", Key: key}, Authserv: "mx." + domain, Results: results, Chain: chain, Now: pipelinetest.Epoch,
	})
	return top + text, err
}

// keysOf are the public keys of who has sealed in the test that runs.
var keysOf = map[string]string{}

func chainOf(t testing.TB, text string) Fact {
	t.Helper()
	r := &pipelinetest.Resolver{TXT: map[string][]string{}}
	for domain, key := range keysOf {
		r.TXT["s._domainkey."+domain] = []string{key}
	}
	fact, err := Validate(t.Context(), r, parse(t, text), pipelinetest.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	return fact
}

// Three hand a mail on, the second changes it. The last can see what the first has found.
func TestSeal(t *testing.T) {
	one, err := sealed(t, mail, "one.example", "spf=pass smtp.mailfrom=example.com; dmarc=pass header.from=example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	two, err := sealed(t, list(one), "two.example", `spf=fail reason="a; b"; arc=pass header.d=one.example`, "pass")
	if err != nil {
		t.Fatal(err)
	}
	three, err := sealed(t, "Received: from x by y\r\n"+two, "three.example", "", "pass")
	if err != nil {
		t.Fatal(err)
	}
	fact := chainOf(t, "Received: from y by z\r\n"+three)
	if fact.Result != "pass" || fact.Instances != 3 || fact.OldestPass != 2 || strings.Join(fact.Sealers, " ") != "three.example two.example one.example" {
		t.Fatalf("%+v\n%s", fact, three)
	}
	if f := fact.First; f.SPF != "pass" || f.DMARC != "pass" || f.MailFrom != "example.com" || f.Authserv != "mx.one.example" {
		t.Errorf("the first has found %+v", f)
	}
	if f := fact.Sets[1]; f.CV != "pass" || !strings.Contains(two, "i=2; mx.two.example;\r\n\tspf=fail reason=\"a; b\";\r\n\tarc=pass header.d=one.example\r\n") {
		t.Errorf("%+v\n%s", f, two)
	}
	for line := range strings.SplitSeq(three, "\r\n") {
		if len(line) > 78 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	// Any change of what is sealed shows.
	for _, change := range []struct{ from, to string }{
		{"dmarc=pass", "dmarc=fail"}, {"-- \r\na list", "-- \r\nthe list"}, {"Subject: hello", "Subject: other"}, {"cv=pass", "cv=none"},
	} {
		if got := chainOf(t, strings.Replace(three, change.from, change.to, 1)); got.Result != "fail" {
			t.Errorf("with %q the chain is %+v", change.to, got)
		}
	}
}

// The chain that is broken is sealed as that once, and then no more.
func TestSealBroken(t *testing.T) {
	one, err := sealed(t, mail, "one.example", "spf=pass", "")
	if err != nil {
		t.Fatal(err)
	}
	missing := one[strings.Index(one, "ARC-Message-Signature"):] // the seal is gone
	for name, text := range map[string]string{"found broken": list(one), "without a seal": missing, "odd": "ARC-Seal: i=x\r\n" + mail} {
		broken, err := sealed(t, text, "two.example", "arc=fail", "fail")
		if err != nil {
			t.Fatal(name, err)
		}
		if !strings.Contains(broken, " cv=fail;") {
			t.Errorf("%s:\n%s", name, broken)
		}
		if f := chainOf(t, broken); f.Result != "fail" {
			t.Errorf("%s: %+v", name, f)
		}
		if name == "found broken" {
			if f := chainOf(t, broken); !strings.HasPrefix(f.Why, "two.example found the chain broken (i=2)") {
				t.Errorf("%+v", f)
			}
			if _, err := sealed(t, broken, "three.example", "arc=fail", "fail"); !errors.Is(err, ErrNoSeal) {
				t.Errorf("sealed once more: %v", err)
			}
		}
	}
	if _, err := sealed(t, one, "two.example", "", ""); err == nil || !strings.Contains(err.Error(), `a chain of 1 sets whose result is ""`) {
		t.Errorf("a chain that nobody has looked at: %v", err)
	}
}

// RFC 8617, 4.2.1.
func TestSealLimit(t *testing.T) {
	text := mail
	for n := 1; n <= 50; n++ {
		var err error
		if text, err = sealed(t, text, fmt.Sprintf("d%d.example", n), "spf=pass", "pass"); err != nil {
			t.Fatal(n, err)
		}
	}
	if f := chainOf(t, text); f.Result != "pass" || f.Instances != 50 {
		t.Fatalf("%s %s", f.Result, f.Why)
	}
	if _, err := sealed(t, text, "over.example", "", "pass"); !errors.Is(err, ErrNoSeal) {
		t.Errorf("the 51st: %v", err)
	}
}

// Results are of strangers in part: nothing in them ends the field.
func TestSealHostileResults(t *testing.T) {
	for _, results := range []string{
		"spf=pass\r\nBcc: x@example.com", "spf=pass\nX: y", `x="unclosed; y`, `x="a\`, ";;;", "; ;", strings.Repeat("x", 3000), "\"\\\r\nX: y\"",
	} {
		text, err := sealed(t, mail, "one.example", results, "")
		if err != nil {
			t.Fatal(err)
		}
		if m := parse(t, text); len(m.Header().Fields()) != 5 || m.Header().Fields()[2].Name != resultsField {
			t.Errorf("%q: %q", results, text)
		}
		if f := chainOf(t, text); f.Result != "pass" {
			t.Errorf("%q: %+v", results, f)
		}
	}
}

func TestChainOf(t *testing.T) {
	for results, want := range map[string]string{
		"arc=pass": "pass", "spf=pass; arc=none": "none", "arc=fail (why); dkim=pass": "fail", "": "", "arc=temperror": "", "spf=pass": "", `x="arc=pass"`: "",
	} {
		if got := ChainOf(results); got != want {
			t.Errorf("%q: %q, want %q", results, got, want)
		}
	}
}

// What a seal of a mail of 12 KB costs.
func BenchmarkSeal(b *testing.B) {
	text := mail + strings.Repeat("The quick brown fox jumps over the lazy dog, and then over another.\r\n", 170)
	key, err := signature.GenerateKey(signature.RSA)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m := parse(b, text)
		hash, err := signature.HashBody(m.RawBody())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Seal(m.Header().Fields(), hash, Sealing{By: signature.Identity{Domain: "a.example", Selector: "s", Key: key}, Authserv: "mx", Now: pipelinetest.Epoch}); err != nil {
			b.Fatal(err)
		}
	}
}
