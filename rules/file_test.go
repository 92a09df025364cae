package rules

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestFolders(t *testing.T) {
	for _, name := range []string{"Lists", "Lists/go", "INBOX", "Entwürfe/2026", "a b"} {
		if why := badFolder(name); why != "" {
			t.Errorf("%q: %s", name, why)
		}
	}
	for name, want := range map[string]string{
		"":                               "has no name",
		strings.Repeat("x", maxFolder+1): "at most 255",
		"a\x00b":                         `'\x00'`,
		"a/../b":                         "begins with a dot",
		"/a":                             "without a name",
		"a/":                             "without a name",
		" a":                             "begins or ends with a space",
		"a*":                             "read as patterns",
		"a\u0085":                        `'\u0085'`,
	} {
		if why := badFolder(name); !strings.Contains(why, want) {
			t.Errorf("%q: got %q, want %q", name, why, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for in, want := range map[string]string{`\seen`: `\Seen`, `\FLAGGED`: `\Flagged`, "$Junk": "$Junk", "a-b_c": "a-b_c"} {
		if got, why := checkFlag(in); got != want || why != "" {
			t.Errorf("%q: got %q %s", in, got, why)
		}
	}
	for _, in := range []string{"", `\Recent`, "a b", "a(b", `a"b`, "a]b", "ü", strings.Repeat("x", maxFlag+1), "a\\b", "a\r\nb"} {
		if got, why := checkFlag(in); why == "" {
			t.Errorf("%q is taken as %q", in, got)
		}
	}
}

func TestFields(t *testing.T) {
	for _, name := range []string{"X-A", "List-Archive", "Precedence"} {
		if why, _ := badField(name); why != "" {
			t.Errorf("%q: %s", name, why)
		}
	}
	for _, name := range []string{"", "received", "X-Sluice-Id", "x-spam-score", "Content-Length", "DKIM-Signature", "ARC-Seal", "Resent-To",
		"a b", "a:", "Ä", strings.Repeat("x", 71), "Return-Path", "Bcc", "a\r\nB"} {
		if why, _ := badField(name); why == "" {
			t.Errorf("%q is taken", name)
		}
	}
	for _, value := range []string{"", " ", "a\nb", "a\rb", "é", "a\x00", strings.Repeat("x", maxField)} {
		if why := badValue("X-A", value); why == "" {
			t.Errorf("%q is taken", value)
		}
	}
	if why := badValue("X-A", strings.Repeat("x", maxField-len("X-A: "))); why != "" {
		t.Error(why)
	}
}

func TestTooMuchInOneRule(t *testing.T) {
	for name, tt := range map[string]struct{ rule, want string }{
		"flags":  {"flag: [" + strings.Repeat("x, ", maxFlags+1) + "]", "the rule sets 21 flags"},
		"fields": {"header: {X: [" + strings.Repeat("x, ", maxFields+1) + "]}", "the rule adds 21 fields"},
	} {
		_, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": "rules:\n  - name: a\n    when: true\n    " + tt.rule + "\n"}))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A configuration's loader hands the list over as it stands in its file, so that places are those of the file.
func TestInlineInAConfiguration(t *testing.T) {
	text := "pipeline:\n  - rules:\n      junk: 5\n      rules:\n        - {name: a, when: dnsbl.zem.listed}\n"
	var whole struct {
		Pipeline []map[string]Config `yaml:"pipeline"`
	}
	if err := yaml.UnmarshalWithOptions([]byte(text), &whole, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	_, err := New(whole.Pipeline[0]["rules"], env(nil))
	var p *Problem
	if !errors.As(err, &p) || p.Line != 5 || p.Column != 33 || p.Rule != "a" || p.Length != 3 {
		t.Errorf("got %+v", err)
	}
	one, err := json.Marshal(whole.Pipeline[0]["rules"])
	if err != nil || !strings.Contains(string(one), `"Rules":[{"name":"a","when":"dnsbl.zem.listed"}]`) {
		t.Errorf("got %s %v", one, err)
	}
}

func TestWindowsLineEnds(t *testing.T) {
	text := strings.ReplaceAll("rules:\n  - name: a\n    when: |\n      true and\n      sbject == \"x\"\n", "\n", "\r\n")
	_, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": text}))
	if err == nil || !strings.HasPrefix(err.Error(), "x:5:7: there is no `sbject`") {
		t.Errorf("got %v", err)
	}
}

func TestTestsAreRead(t *testing.T) {
	c := Config{Files: []string{"x"}}
	set, err := load(c, env(map[string]string{"x": someRules + `
tests:
  - name: one
    mail: {from: a@b.example, rcpts: [c@d.example, e@f.example], client: {ip: 192.0.2.1}, headers: {Subject: s}, facts: {dnsbl: {zen: {listed: true}}}}
    expect: {hit: [listed], miss: [bank], verdict: keep, folder: Lists/x}
  - message: testdata/a.eml
    expect: {hit: list}
`}))
	if err != nil {
		t.Fatal(err)
	}
	one, two := set.tests[0], set.tests[1]
	if one.name != "one" || !slices.Equal(one.mail.rcpts, []string{"c@d.example", "e@f.example"}) || one.mail.ip.String() != "192.0.2.1" ||
		one.mail.facts[0].step.name != "dnsbl" || one.mail.facts[0].fields[0].name != "zen" || one.hit[0].name != "listed" ||
		one.miss[0].name != "bank" || one.verdicts[""].value != "keep" || one.folders[""].value != "Lists/x" {
		t.Errorf("got %+v", one)
	}
	if two.message != "testdata/a.eml" || two.hit[0].name != "list" {
		t.Errorf("got %+v", two)
	}
}

func TestWords(t *testing.T) {
	for _, w := range []string{"subject", "known", "in", "filter", "not", "from", "len"} {
		if !IsWord(w) {
			t.Errorf("%s is a word", w)
		}
	}
	for _, w := range []string{"zen", "dnsbl", "spf", "rules"} {
		if IsWord(w) {
			t.Errorf("%s is no word", w)
		}
	}
}
