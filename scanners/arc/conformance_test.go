package arc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// The suite of the ARC working group. Where it says nothing of the result (cv: ""), the last sealer has said that the
// chain is broken: "fail" (RFC 8617, 5.2, step 2).
func TestSuite(t *testing.T) {
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Skip("no test data")
	}
	text, err := os.ReadFile(filepath.Join(dir, "arc", "arc-draft-validation-tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	type scenario struct {
		Description string            `yaml:"description"`
		TXT         map[string]string `yaml:"txt-records"`
		Tests       map[string]struct {
			Message string `yaml:"message"`
			CV      string `yaml:"cv"`
		} `yaml:"tests"`
	}
	ran := 0
	for document := range strings.SplitSeq("\n"+string(text), "\n---") {
		var s scenario
		// Some names stand twice; the last is meant.
		if err := yaml.UnmarshalWithOptions([]byte(document), &s, yaml.AllowDuplicateMapKey()); err != nil {
			t.Fatal(err)
		}
		env := pipelinetest.Env(t)
		resolver := &pipelinetest.Resolver{TXT: map[string][]string{}}
		for name, record := range s.TXT {
			resolver.TXT[name] = []string{record}
		}
		env.Resolver = resolver
		stages, err := Kind().New(Kind().Config(), env)
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range s.Tests {
			ran++
			t.Run(name, func(t *testing.T) {
				want := strings.ToLower(tt.CV)
				if want == "" {
					want = failed
				}
				var v pipeline.View
				v.Message = pipelinetest.Parse(t, tt.Message)
				v.Received = pipelinetest.Epoch
				r, err := stages[0].Check(t.Context(), v)
				if err != nil {
					t.Fatal(err)
				}
				f := r.Fact.(Fact)
				if f.Result != want || (f.Why != "") != (want == failed) || r.Missing != nil {
					t.Errorf("%s (%s), want %s", f.Result, f.Why, want)
				}
			})
		}
	}
	if ran != 171 {
		t.Errorf("ran %d tests, not 171", ran)
	}
}
