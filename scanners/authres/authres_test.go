package authres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/authres"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// told is a fact that tells what a test says.
type told struct {
	Said [][]string `json:"said"`
}

func (f told) AuthResults(say func(method, result, reason string, properties ...string)) {
	for _, x := range f.Said {
		say(x[0], x[1], x[2], x[3:]...)
	}
}

func kind(name string) pipeline.Kind {
	return pipeline.Kind{
		Name: name, Doc: "A stage of the test.", Config: func() any { return &struct{}{} }, Fact: func(any) any { return told{} },
		New: func(any, pipeline.Env) ([]pipeline.Stage, error) { return []pipeline.Stage{pipelinetest.Stage{}}, nil },
	}
}

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), nil)
	t.Run("behind others", func(t *testing.T) {
		pipelinetest.Conform(t, Kind(), nil, pipeline.Step{Kind: kind("spf"), Config: &struct{}{}})
	})
}

// make returns the stage behind steps of these kinds, which are called my_spf and so on.
func made(t testing.TB, c Config, kinds ...string) *stage {
	t.Helper()
	env := pipelinetest.Env(t)
	env.Name = "authres"
	for _, k := range kinds {
		env.Before = append(env.Before, pipeline.Before{Name: "my_" + k, Kind: k, Fact: told{}})
	}
	s, err := Kind().New(&c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s[0].(*stage)
}

func check(t testing.TB, s *stage, v pipeline.View) []pipeline.Edit {
	t.Helper()
	r, err := s.Check(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return r.Edits
}

func TestField(t *testing.T) {
	unknown := func(why error) pipeline.Finding { return pipeline.Finding{Unknown: why} }
	says := func(said ...[]string) pipeline.Finding { return pipeline.Finding{Fact: told{said}} }
	spf := says([]string{"spf", "pass", "matched ip4", "smtp.mailfrom", "example.com"})
	for _, tt := range []struct {
		name  string
		facts pipeline.Facts
		login string
		want  string
	}{
		{"nothing", pipeline.Facts{}, "", "mx.example.org; none"},
		{"one", pipeline.Facts{"my_spf": spf}, "", "mx.example.org; spf=pass smtp.mailfrom=example.com"},
		{"in the order of the steps", pipeline.Facts{
			"my_dmarc": says([]string{"dmarc", "fail", "p=reject", "header.from", "example.com"}),
			"my_dkim":  says([]string{"dkim", "pass", "", "header.d", "a.example", "header.s", "s1"}, []string{"dkim", "permerror", "no key", "header.d", "b.example"}),
			"my_spf":   spf,
		}, "", `mx.example.org; spf=pass smtp.mailfrom=example.com; dkim=pass header.d=a.example header.s=s1; ` +
			`dkim=permerror reason="no key" header.d=b.example; dmarc=fail reason="p=reject" header.from=example.com`},
		{"failed", pipeline.Facts{"my_spf": unknown(errors.New("no answer")), "my_rdns": unknown(errors.New(`"no"`))}, "",
			`mx.example.org; spf=temperror reason="no answer"; iprev=temperror reason="no answer"`},
		{"not asked", pipeline.Facts{"my_spf": unknown(pipeline.ErrNotAsked)}, "", "mx.example.org; none"},
		{"in part", pipeline.Facts{"my_dmarc": {
			Fact:    told{[][]string{{"dmarc", "", "", "header.from", "example.com"}}},
			Missing: map[string]error{"result": errors.New("spf is open: lookup x on 192.0.2.53:53")},
		}}, "", `mx.example.org; dmarc=temperror reason="no answer" header.from=example.com`},
		{"in part, for nobody asked", pipeline.Facts{"my_dmarc": {
			Fact:    told{[][]string{{"dmarc", "", "", "header.from", "example.com"}}},
			Missing: map[string]error{"result": fmt.Errorf("spf: %w", pipeline.ErrNotAsked)},
		}}, "", `mx.example.org; none`},
		{"a login", pipeline.Facts{}, "me@example.org", "mx.example.org; auth=pass smtp.auth=me@example.org"},
		{"hostile", pipeline.Facts{"my_spf": says(
			[]string{"spf", "fail", "a\r\nX-Evil: yes\x00", "smtp.mailfrom", "x; dmarc=pass (\r\n\tü\"\\"},
			[]string{"spf\r\n", "pass", ""}, []string{"spf", "pass; dkim=pass", ""}, []string{"", "", ""},
			[]string{"spf", "none", "", "smtp", "x", "smtp.a b", "x", "smtp.helo", ""},
		)}, "", `mx.example.org; spf=fail reason="a  X-Evil: yes " smtp.mailfrom="x; dmarc=pass (   ??\"\\"; spf=none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := pipeline.View{Message: pipelinetest.Parse(t, "Subject: x\n\nx\n"), Facts: tt.facts}
			v.Client.Login = tt.login
			got := check(t, made(t, Config{}, "spf", "dkim", "dmarc", "rdns", "other"), v)
			if want := []pipeline.Edit{{Name: fieldName, Value: tt.want}}; !slices.Equal(got, want) {
				t.Errorf("%+v\nwant %+v", got, want)
			}
		})
	}
}

// Whatever facts contain, the field is one line that is not too long and says again what was put into it.
func TestWhateverTheFacts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const chars = "ab.1-@\"\\;=()<> \t\r\n\x00\x7f\xc3\xbc,/+:?%"
	text := func(most int) string {
		b := make([]byte, r.IntN(most))
		for i := range b {
			b[i] = chars[r.IntN(len(chars))]
		}
		return string(b)
	}
	s := made(t, Config{}, "spf")
	for range 2000 {
		var said [][]string
		for range r.IntN(30) {
			method := []string{"spf", "dkim", "dmarc", "arc", "iprev", text(5)}[r.IntN(6)]
			x := []string{method, []string{"pass", "fail", "temperror", text(5)}[r.IntN(4)], text(200)}
			for range r.IntN(6) {
				x = append(x, []string{"header.d", "smtp.mailfrom", text(12)}[r.IntN(3)], text(200))
			}
			said = append(said, x)
		}
		value := s.field(pipeline.View{Facts: pipeline.Facts{"my_spf": {Fact: told{said}}}})
		mustParse(t, value, said)
	}
}

func mustParse(t *testing.T, value string, said [][]string) {
	t.Helper()
	if len(value) > mostField || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Fatalf("%d octets: %q", len(value), value)
	}
	id, results, err := parse(value)
	if err != nil || id != "mx.example.org" {
		t.Fatalf("%s: %q, %v", value, id, err)
	}
	for _, r := range results {
		method, result, _ := strings.Cut(r[0], "=")
		if !slices.ContainsFunc(said, func(x []string) bool { return x[0] == method && x[1] == result }) {
			t.Fatalf("%s\nsays %s, which nobody said", value, r[0])
		}
	}
}

// parse reads a field strictly (RFC 8601, 2.2): results as lists of words, quoted strings without their quotes.
func parse(value string) (id string, results [][]string, err error) {
	var words []string
	word, quotes := "", false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quotes && c == '\\':
			i++
			word += value[i : i+1]
		case c == '"':
			quotes = !quotes
		case quotes:
			word += string(c)
		case c == ' ' || c == ';':
			if word != "" {
				words = append(words, word)
				word = ""
			}
			if c == ';' {
				results, words = append(results, words), nil
			}
		case strings.IndexByte("()<>,:\\/[]?", c) >= 0:
			return "", nil, fmt.Errorf("%q outside of quotes", c)
		default:
			word += string(c)
		}
	}
	if quotes {
		return "", nil, errors.New("a quotation without an end")
	}
	if word != "" {
		words = append(words, word)
	}
	results = append(results, words)
	id = results[0][0]
	if results = results[1:]; len(results) == 1 && slices.Equal(results[0], []string{"none"}) {
		results = nil
	}
	for _, r := range results {
		if len(r) == 0 {
			return "", nil, errors.New("an empty result")
		}
	}
	return id, results, nil
}

// What others read: go-msgauth's parser knows the methods.
func TestOthersReadIt(t *testing.T) {
	v := pipeline.View{Facts: pipeline.Facts{"my_spf": {Fact: told{[][]string{
		{"spf", "softfail", "why not", "smtp.mailfrom", "example.com"}, {"dkim", "pass", "", "header.d", "d.example", "header.s", "s"},
		{"dmarc", "pass", "", "header.from", "example.com"},
	}}}}}
	id, results, err := msgauth.Parse(made(t, Config{}, "spf").field(v))
	if err != nil || id != "mx.example.org" || len(results) != 3 {
		t.Fatal(id, results, err)
	}
	if x := results[0].(*msgauth.SPFResult); x.Value != "softfail" || x.From != "example.com" {
		t.Errorf("%+v", x)
	}
	if x := results[1].(*msgauth.DKIMResult); x.Value != "pass" || x.Domain != "d.example" {
		t.Errorf("%+v", x)
	}
	if x := results[2].(*msgauth.DMARCResult); x.Value != "pass" || x.From != "example.com" {
		t.Errorf("%+v", x)
	}
}

// Where there is not room for all, reasons go first, then signatures; those that pass stay longest.
func TestRoom(t *testing.T) {
	var said [][]string
	for i := range 20 {
		result := []string{"fail", "pass"}[i%2]
		said = append(said, []string{"dkim", result, strings.Repeat("r", 100), "header.d", fmt.Sprintf("d%d.%s.example", i, strings.Repeat("x", 60))})
	}
	said = append(said, []string{"dmarc", "fail", "p=none", "header.from", "example.com"})
	got := made(t, Config{}, "dkim").field(pipeline.View{Facts: pipeline.Facts{"my_dkim": {Fact: told{said}}}})
	if len(got) > mostField || len(got) < mostField-120 || strings.Contains(got, "reason") || strings.Contains(got, "dkim=fail") ||
		!strings.Contains(got, "dkim=pass header.d=d1.") || !strings.HasSuffix(got, "; dmarc=fail header.from=example.com") {
		t.Errorf("%d octets: %s", len(got), got)
	}
}

func TestForged(t *testing.T) {
	for value, forged := range map[string]bool{
		"mx.example.org; spf=pass smtp.mailfrom=bank.example": true,
		"MX.Example.ORG ; none":                               true,
		"mx.example.org 1; spf=pass":                          true,
		"mx.example.org. 1; spf=pass":                         true,
		"mx.example.org":                                      true,
		"mx.example.org spf=pass":                             true,
		"mx.example.org/1; spf=pass":                          false,
		`"mx.example.org"; spf=pass`:                          true,
		`"mx.\example.org"; spf=pass`:                         true,
		`"mx".example.org; spf=pass`:                          true,
		"(hi) mx.example.org (there); spf=pass":               true,
		"(a(b)c\\))mx.example.org; spf=pass":                  true,
		"mx(x).example.(y)org; spf=pass":                      true,
		"mx . example . org; spf=pass":                        true,
		"\n mx.example.org;\n spf=pass":                       true,
		"m\x00x.example.org; spf=pass":                        true,
		"(unclosed mx.example.org; x":                         false,
		"((x) mx.example.org; spf=pass":                       false,
		"( mx.example.org":                                    true,
		`"mx.example.org; spf=pass`:                           true,
		"mx.example.org(; spf=pass":                           true,
		"mx.example.organisation; spf=pass":                   false,
		"mx.example.org2; spf=pass":                           false,
		"amx.example.org; spf=pass":                           false,
		"mx.example.net; spf=pass":                            false,
		"other.example; spf=pass (mx.example.org)":            false,
		"":                false,
		";":               false,
		";mx.example.org": false,
	} {
		text := "Authentication-Results: other.example; dkim=pass\nauthentication-results : " + value + "\nSubject: x\n\nx\n"
		if strings.HasPrefix(value, "\n") {
			text = strings.ReplaceAll(text, ": \n", ":\n")
		}
		v := pipeline.View{Message: pipelinetest.Parse(t, text)}
		want := []pipeline.Edit{{Name: fieldName, Value: "mx.example.org; none"}}
		if forged {
			want = append([]pipeline.Edit{{Delete: true, Name: fieldName, Index: 2}}, want...)
		}
		if got := check(t, made(t, Config{}), v); !slices.Equal(got, want) {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

// Where our milter has written the field, whoever files the mail neither removes it nor writes it again.
func TestOursIsThere(t *testing.T) {
	s := made(t, Config{AuthservID: "filter.example.org"})
	const ours = "Authentication-Results: filter.example.org;\n\tnone\n"
	v := pipeline.View{Message: pipelinetest.Parse(t, ours+"Authentication-Results: mx.example.org; none\nSubject: x\n\nx\n")}
	if got := check(t, s, v); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	v.Message = pipelinetest.Parse(t, ours+ours+"\nx\n")
	if got := check(t, s, v); !slices.Equal(got, []pipeline.Edit{{Delete: true, Name: fieldName, Index: 2}}) {
		t.Errorf("twice: %+v", got)
	}
}

// The client need not be known, and a plan with the stage works out what it does.
func TestInAPlan(t *testing.T) {
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal = journal
	spf := kind("spf")
	spf.New = func(any, pipeline.Env) ([]pipeline.Stage, error) {
		return []pipeline.Stage{pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputClient, Strangers: true},
			Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
				return pipeline.Result{}, errors.New("no answer")
			},
		}}, nil
	}
	p := pipelinetest.Plan(t, env, pipeline.Step{Kind: spf, Config: &struct{}{}}, pipeline.Step{Kind: Kind(), Config: &Config{}})
	for _, tt := range []struct {
		client pipeline.Client
		want   string
	}{
		{pipeline.Client{}, `mx.example.org; spf=temperror reason="no answer"`}, // 192.0.2.1
		{pipeline.Client{Trusted: true}, "mx.example.org; none"},
		{pipeline.Client{Login: "me@example.org"}, "mx.example.org; auth=pass smtp.auth=me@example.org"},
	} {
		ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{Client: tt.client, From: "a@example.com", Text: "Subject: x\n\nx\n"})
		if got := ran.Decisions[0].Edits; len(got) != 1 || got[0].Value != tt.want {
			t.Errorf("%+v: %+v", tt.client, got)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, want := range map[string]string{
		"a b":      `authserv_id: "a b" is no name: write for example mx.example.org`,
		"a\r\nX:y": `authserv_id: "a\r\nX:y" is no name: write for example mx.example.org`,
	} {
		_, err := Kind().New(&Config{AuthservID: name}, pipelinetest.Env(t))
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func FuzzClaims(f *testing.F) {
	for _, s := range []string{"mx.example.org; none", `"mx.\example.org" 1`, "((x)", `"`, "\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := claims(s, "mx.example.org")
		if again := claims(strings.ToUpper(s), "mx.example.org"); again != got && strings.ToUpper(s) == strings.ToValidUTF8(strings.ToUpper(s), "") && isASCII(s) {
			t.Errorf("claims(%q) is %t, in capitals it is %t", s, got, again)
		}
		if !claims("mx.example.org;"+s, "mx.example.org") || !claims("(c) mx.example.org "+strings.TrimLeft(s, ".")+";", "mx.example.org") {
			t.Errorf("%q behind our name hides it", s)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

func BenchmarkField(b *testing.B) {
	s := made(b, Config{}, "spf", "dkim", "dmarc")
	v := pipeline.View{
		Message: pipelinetest.Parse(b, "From: a@example.com\nAuthentication-Results: other.example; none\nSubject: x\n\nx\n"),
		Facts: pipeline.Facts{
			"my_spf":   {Fact: told{[][]string{{"spf", "pass", "", "smtp.mailfrom", "example.com"}}}},
			"my_dkim":  {Fact: told{[][]string{{"dkim", "pass", "", "header.d", "example.com", "header.s", "s1", "header.a", "rsa-sha256"}}}},
			"my_dmarc": {Fact: told{[][]string{{"dmarc", "pass", "", "header.from", "example.com"}}}},
		},
	}
	for b.Loop() {
		if _, err := s.Check(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
}
