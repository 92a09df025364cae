package dkim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// What a verifier of the field took seconds for, or memory of the mail's size for each signature.
func TestHostile(t *testing.T) {
	const usual = "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=sel; bh=" + someHash + "; b=AAAA; "
	var lengths, long strings.Builder
	for i := range 8 {
		fmt.Fprintf(&lengths, usual+"h=from; c=%s; l=%d\r\n", []string{"simple/simple", "relaxed/relaxed"}[i%2], i<<18)
		fmt.Fprintf(&long, usual+"h=from%s\r\n", strings.Repeat(":a", 12_000))
	}
	const from = "From: a@example.com\r\n"
	for name, text := range map[string]string{
		"empty lines":         lengths.String() + from + "\r\n" + strings.Repeat("\r\n", 2<<20) + "x\r\n",
		"nothing but spaces":  lengths.String() + from + "\r\n" + strings.Repeat(" ", 4<<20),
		"one word a line":     lengths.String() + from + "\r\n" + strings.Repeat("a \r\n", 1<<20),
		"no line ends":        lengths.String() + from + "\r\n" + strings.Repeat("a", 4<<20),
		"long lists of names": long.String() + from + "\r\nx\r\n",
		"many fields of one name": strings.ReplaceAll(long.String(), ":a", ":x") + from +
			strings.Repeat("x:\r\n", 900) + "\r\nx\r\n",
		"many signatures": strings.Repeat(usual+"h=from\r\n", 900) + from + "\r\nx\r\n",
		"many tags":       "DKIM-Signature: " + strings.Repeat("a=b;", 60_000) + "\r\n" + from + "\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, keys(record(rsa2048(), "")), nil)
			m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var v pipeline.View
			v.Message = m
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			if _, err := s.Check(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			// Far above what any machine needs: only something that is not linear gets there.
			if took > 60*time.Second {
				t.Errorf("took %s", took)
			}
			// Other tests may be running; a copy of the body for each signature would be 32 MiB.
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("took %d octets of memory", n)
			}
		})
	}
}

const someHash = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="

// An anyResolver has an answer to every question.
type anyResolver struct{ pipeline.Resolver }

func (anyResolver) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch len(name) % 4 {
	case 0:
		return nil, &net.DNSError{Err: "timeout", Name: name, IsTimeout: true}
	case 1:
		return []string{record(edwards(), "t=y:s; ")}, nil
	case 2:
		return []string{name, "v=DKIM1; " + name}, nil
	}
	return []string{record(rsa2048(), "")}, nil
}

// Whatever stands in the header, what is said about it keeps its promises.
func FuzzCheck(f *testing.F) {
	good, err := seal(mail, "v=1; a=ed25519-sha256; c=relaxed/relaxed; d=ex.example; s=sel; h=from; ", edwards(), 0)
	if err != nil {
		f.Fatal(err)
	}
	if fact, err := check(f, newStage(f, anyResolver{}, nil), good); err != nil || !fact.Pass {
		f.Fatal(fact, err)
	}
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, "c=relaxed/relaxed;", "c=simple; l=3; i=\xff@a.example.com; x=1; t=99999999999999999999;", 1)))
	f.Add([]byte("dkim-SIGNATURE : v=1;a=ed25519-sha256;d=\xc3\xa4.example;s=a;h=from:\xff;bh=" + someHash + ";b=" + someHash + someHash + "\nFrom:\n\n"))
	f.Add([]byte("DKIM-Signature:\r\n\tv\r\n =\r\n 1;;\r\n\r\n"))
	s := newStage(f, anyResolver{}, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := mime.Parse(bytes.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil {
			return
		}
		var v pipeline.View
		v.Message = m
		r, err := s.Check(t.Context(), v)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "no signature is valid so far") {
				t.Error(err)
			}
			return
		}
		fact := r.Fact.(Fact)
		raw, err := json.Marshal(fact)
		if err != nil || len(raw) > 100<<10 {
			t.Errorf("%d octets: %v", len(raw), err)
		}
		passed := 0
		for _, x := range fact.Signatures {
			if x.Result == "pass" {
				passed++
				if !x.CoversBody || x.BodyPartial || x.Expired || x.Bits < 256 || x.Domain == "" || x.Reason != "" {
					t.Errorf("passed: %+v", x)
				}
			} else if x.Reason == "" {
				t.Errorf("not passed for no reason: %+v", x)
			}
			for _, text := range append([]string{x.Domain, x.Selector, x.Identity, x.Algorithm, x.Reason, x.Key}, x.Headers...) {
				if !utf8.ValidString(text) {
					t.Errorf("%q", text)
				}
			}
		}
		if fact.Pass != (passed > 0) || fact.Pass != (len(fact.Domains) > 0) || len(fact.Signatures) > 8 || fact.Found < len(fact.Signatures) {
			t.Errorf("%+v", fact)
		}
	})
}

// What a library signs verifies with us, and of what was changed since we think as it does.
func FuzzLikeOthers(f *testing.F) {
	f.Add("hello", "body\r\n", "body\r\n\r\n", uint8(0))
	f.Add("a\r\n b", " \t\r\n\r\n x  y \r\n", " \r\n\r\n x y\r\n", uint8(3))
	f.Add("", "", "\r\n", uint8(1))
	f.Add("\xff", "\x00", " \x00", uint8(2))
	record := record(edwards(), "")
	s := newStage(f, keys(record), anyTime)
	f.Fuzz(func(t *testing.T, subject, body, other string, forms uint8) {
		text := "From: a@example.com\r\nSubject: " + subject + "\r\n\r\n" + body
		// Sluice takes no bare CR or LF from the net, and the library looks at them in a way of its own.
		if bare := strings.NewReplacer("\r\n", "").Replace(text + other); strings.ContainsAny(bare, "\r\n") {
			return
		}
		for line := range strings.SplitSeq(subject, "\r\n") {
			if strings.TrimLeft(line, " \t") == "" || line != subject && !strings.ContainsAny(line[:1], " \t") && !strings.HasPrefix(subject, line) {
				return // no header of one Subject any more
			}
		}
		form := func(bit uint8) msgauth.Canonicalization {
			if forms&bit != 0 {
				return msgauth.CanonicalizationRelaxed
			}
			return msgauth.CanonicalizationSimple
		}
		signed := sign(t, text, msgauth.SignOptions{
			Signer: edwards(), HeaderCanonicalization: form(1), BodyCanonicalization: form(2), HeaderKeys: []string{"From", "Subject"},
		})
		for _, text := range []string{signed, strings.TrimSuffix(signed, body) + other} {
			they, err := msgauth.VerifyWithOptions(strings.NewReader(text), &msgauth.VerifyOptions{
				LookupTXT: func(string) ([]string, error) { return []string{record}, nil },
			})
			if err != nil || len(they) != 1 {
				t.Fatal(they, err)
			}
			we, err := check(t, s, text)
			if err != nil {
				t.Fatal(err)
			}
			if we.Pass != (they[0].Err == nil) {
				t.Errorf("%q: we say %+v, they say %v", text, we.Signatures, they[0].Err)
			}
		}
	})
}

// What the stage costs, with its keys in memory: a mail of 10 KB with a signature of 2048 bits, one of two, none.
func BenchmarkCheck(b *testing.B) {
	body := strings.Repeat("The quick brown fox jumps over the lazy dog, and then over another.\r\n", 150)
	text := strings.TrimSuffix(mail, "hello \t world\r\n\r\nend  \r\n\r\n\r\n") + body
	for _, bb := range []struct {
		name string
		text string
	}{
		{"none", text},
		{"relaxed", must(seal(text, fmt.Sprintf(tags, "example.com"), rsa2048(), 0))},
		{"simple", must(seal(text, strings.Replace(fmt.Sprintf(tags, "example.com"), "relaxed/relaxed", "simple/simple", 1), rsa2048(), 0))},
		{"two", must(seal(must(seal(text, fmt.Sprintf(tags, "example.com"), rsa2048(), 0)), fmt.Sprintf(tags, "example.com"), rsa2048(), 0))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := newStage(b, benchResolver{record: []string{record(rsa2048(), "")}}, nil)
			m, err := mime.Parse(strings.NewReader(bb.text), int64(len(bb.text)), mime.Limits{})
			if err != nil {
				b.Fatal(err)
			}
			var v pipeline.View
			v.Message = m
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Check(b.Context(), v)
				if err != nil || r.Fact.(Fact).Pass != (bb.name != "none") {
					b.Fatal(r, err)
				}
			}
		})
	}
}

type benchResolver struct {
	pipeline.Resolver
	record []string
}

func (r benchResolver) LookupTXT(context.Context, string) ([]string, error) { return r.record, nil }
