package rules

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) {
	inline, err := ParseInline(someRulesWithoutFacts)
	if err != nil {
		t.Fatal(err)
	}
	pipelinetest.Conform(t, Kind(), func(config any) {
		c := config.(*Config)
		c.Rules, c.Reject, c.Quarantine, c.Junk = inline, 15, 8, 5
	})
}

const someRulesWithoutFacts = `
- {name: a, when: 'subject matches "(?i)hello" or header("X-Spam") contains "yes"', score: 4}
- {name: b, when: 'header_from.count != 1', score: 12}
- {name: c, when: 'hit("a") and rcpt.local == "me"', file: A, flag: [x], header: {X-A: a}}
- {name: d, when: 'client.ip == "192.0.2.1" and helo contains "x"', reject: true}
- {name: e, when: 'size > 1_000_000 and has("Received")', quarantine: true, shadow: true}
`

// Every example is accepted, and can be asked.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../examples/rules/*.yaml")
	if err != nil || len(paths) < 3 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stages := stagesOf(t, Config{Reject: 15, Quarantine: 8, Junk: 5, JunkFolder: "Junk"}, string(text))
		if len(stages) == 0 {
			t.Errorf("%s: no stages", path)
		}
		v := view(t)
		for _, st := range stages {
			if _, err := st.Check(context.Background(), v); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if filepath.Base(path) == "basic.yaml" {
			var names []string
			for _, h := range decide(t, stages, v).Hits {
				names = append(names, h.Name)
			}
			if len(names) != 2 || names[0] != "zen" || names[1] != "newsletters" {
				t.Errorf("%s: got %q", path, names)
			}
		}
	}
}

// manyRules is a large site's mix: 1000 rules about headers, facts, addresses and texts.
func manyRules(t testing.TB) []pipeline.Stage {
	var b []byte
	b = append(b, "rules:\n"...)
	for i := range 1000 {
		b = append(b, rule1000(i)...)
	}
	return stagesOf(t, Config{Reject: 100}, string(b))
}

func BenchmarkThousandRules(b *testing.B) {
	stages := manyRules(b)
	v := view(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		for _, st := range stages {
			if _, err := st.Check(ctx, v); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkOneRule(b *testing.B) {
	st := stagesOf(b, Config{}, "rules:\n  - {name: a, when: 'header(\"X-Mailer\") contains \"x\" and subject startsWith \"y\"'}\n")[0]
	v := view(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := st.Check(ctx, v); err != nil {
			b.Fatal(err)
		}
	}
}

func rule1000(i int) string {
	when := ""
	switch i % 5 {
	case 0:
		when = fmt.Sprintf(`dnsbl.zen.listed and spf.result == "none%d"`, i)
	case 1:
		when = fmt.Sprintf(`has("X-%d") and subject contains "abc%d"`, i, i)
	case 2:
		when = fmt.Sprintf(`spf.result == "fail" and dmarc.result == "fail" and subject contains "w%d"`, i)
	case 3:
		when = fmt.Sprintf(`size > %d and (subject startsWith "foo%d" or subject endsWith "bar%d") and not (from.domain == "y%d")`, i/10, i, i, i)
	case 4:
		when = fmt.Sprintf(`header("X-Mailer") matches "(?i)mass%d" or subject in ["a%d", "b%d"]`, i, i, i)
	}
	return fmt.Sprintf("  - {name: r%d, when: %s, score: 1}\n", i, quote(when))
}
