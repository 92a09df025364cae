package arc

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

// Whatever stands in the header, what is said about it keeps its promises.
func FuzzCheck(f *testing.F) {
	one := seal(f, mail, hop{domain: "a.example", results: "a; spf=pass (x) smtp.mailfrom=\"a\"@b; dkim=pass header.i=@c"})
	f.Add([]byte(one))
	f.Add([]byte(seal(f, one, hop{domain: "b.example", results: "b; none"})))
	f.Add([]byte(strings.Replace(one, "i=1; a=", "i = 1 ;x_=\xff; a=", 1)))
	f.Add([]byte("arc-seal:i=1;cv=fail;h=\narc-message-signature:i=1;c=/;l=0\nARC-Authentication-Results:\n i=01;\xff(\n\n"))
	s := newStage(f, 50, "as._domainkey.b.example")
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := mime.Parse(bytes.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil {
			return
		}
		var v pipeline.View
		v.Message, v.Received = m, pipelinetest.Epoch
		r, err := s.Check(t.Context(), v)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "the chain is undecided: ") {
				t.Error(err)
			}
			return
		}
		fact := r.Fact.(Fact)
		raw, err := json.Marshal(fact)
		if err != nil || len(raw) > 200<<10 {
			t.Errorf("%d octets: %v", len(raw), err)
		}
		switch fact.Result {
		case "none":
			if m.Header().Has("ARC-Seal") || fact.Instances != 0 {
				t.Errorf("%+v", fact)
			}
		case "pass":
			if n := len(fact.Sets); n == 0 || n != fact.Instances || n > 50 || fact.Sets[n-1].Message != "pass" || fact.OldestPass > n || fact.Why != "" {
				t.Errorf("%+v", fact)
			}
			for i, x := range fact.Sets {
				if x.Seal != "pass" || x.Instance != i+1 || x.Sealer == "" {
					t.Errorf("%+v", fact)
				}
			}
		default:
			if fact.Result != "fail" || fact.Why == "" || fact.OldestPass != -1 {
				t.Errorf("%+v", fact)
			}
		}
		for _, text := range append([]string{fact.Why, fact.First.Text, fact.First.MailFrom, fact.Last.Authserv}, fact.Sealers...) {
			if !utf8.ValidString(text) || len(text) > 1100 {
				t.Errorf("%q", text)
			}
		}
	})
}

// What the stage costs, with its keys of 2048 bits in memory.
func BenchmarkCheck(b *testing.B) {
	text := mail + strings.Repeat("The quick brown fox jumps over the lazy dog, and then over another.\r\n", 150)
	texts := map[int]string{0: text}
	for i := range 3 {
		texts[i+1] = seal(b, texts[i], hop{domain: "a.example", results: "a; spf=pass; dkim=pass header.d=example.com", key: rsa2048()})
	}
	for _, n := range []int{0, 1, 3} {
		b.Run(map[int]string{0: "none", 1: "one set", 3: "three sets"}[n], func(b *testing.B) {
			s := &stage{config: *Kind().Config().(*Config), env: pipelinetest.Env(b)}
			s.env.Resolver = everywhere{record: record(b, rsa2048())}
			var v pipeline.View
			v.Message = parse(b, texts[n])
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Check(b.Context(), v)
				if err != nil || (r.Fact.(Fact).Result == "pass") != (n > 0) {
					b.Fatal(r, err)
				}
			}
		})
	}
}
