package pipeline_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/rules"
	"sluice/scanners/greylist"
)

// A step that only reports, and that no rule reads, does nothing.
func TestUnread(t *testing.T) {
	for rule, want := range map[string]bool{"greylist.new": false, "size > 1": true} {
		inline, err := rules.ParseInline("- {name: a, when: '" + rule + "', tempfail: true}")
		if err != nil {
			t.Fatal(err)
		}
		env := pipelinetest.Env(t)
		p, err := pipeline.NewPlan([]pipeline.Step{
			{Kind: greylist.Kind(), Config: greylist.Kind().Config()},
			{Kind: rules.Kind(), Config: &rules.Config{Rules: inline}},
		}, env, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(p.Warnings())
		if strings.Contains(said, "no step reads what greylist finds, and it only reports: to act on it write a rule") != want {
			t.Errorf("%s: %q", rule, said)
		}
	}
}
