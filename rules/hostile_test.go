package rules

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
)

// Whatever a rule file holds, what is said of it is bounded, and has its place.
func TestHostileFiles(t *testing.T) {
	lines := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		return b.String()
	}
	for name, x := range map[string]struct {
		text        string
		most        int // problems
		first, last string
	}{
		"anchors": {"rules: []\n" + lines(20_000, func(i int) string { return fmt.Sprintf("a%d: &a%d x", i, i) }), 1,
			"f.yaml:2:5: anchors and aliases are not used in rules", ""},
		"anchors in a row": {"rules: " + strings.Repeat("&a ", 20_000), 1, "f.yaml:1:", ""},
		"commas":           {"rules: [" + strings.Repeat(",", 50_000) + "]", 1, "f.yaml:1:", ""},
		"many mistakes": {"rules:\n" + lines(3000, func(int) string { return "  - {nam: a}" }), maxProblems + 1,
			"more is wrong than is listed here", "f.yaml:"},
		"a byte order mark and more": {"\ufeffrules: [{name: a, when: sbject}]", 2,
			"f.yaml:1:1: the file begins with a byte order mark", "f.yaml:1:25: there is no `sbject`"},
		"another encoding and more": {"# caf\xe9\nrules: [{name: a, when: sbject}]", 2,
			"f.yaml:1:6: the file is not UTF-8", "f.yaml:2:25: there is no `sbject`"},
		"wide characters": {"rules: [{name: a, when: 'subject == \"日本語😀\" and sbject == 1'}]", 1, "f.yaml:1:48: there is no `sbject`", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			c.Files = []string{"f.yaml"}
			_, err := New(c, pipeline.Env{Name: "rules", Files: func(string) ([]pipeline.File, error) {
				return []pipeline.File{{Path: "f.yaml", Text: []byte(x.text)}}, nil
			}})
			joined, ok := err.(interface{ Unwrap() []error })
			if !ok {
				t.Fatalf("%v", err)
			}
			all := joined.Unwrap()
			said := func(e error) string { return strings.TrimPrefix(e.Error(), "step rules: ") }
			if len(all) != x.most || !strings.HasPrefix(said(all[0]), x.first) || !strings.HasPrefix(said(all[len(all)-1]), x.last) {
				t.Errorf("%d problems, from %.200s to %.200s", len(all), all[0], all[len(all)-1])
			}
		})
	}
}
