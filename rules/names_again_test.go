package rules

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Every name and function says of a recorded mail what it said when the mail came, the clock among them: with the message,
// and without it from what is recorded.
func TestNamesAgain(t *testing.T) {
	d, err := Describe(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("rules:\n")
	n := 0
	for _, e := range append(d.Names, d.Functions...) {
		if strings.HasPrefix(e.Name, "known(") || strings.HasPrefix(e.Name, "hit(") || e.Name == "count_in(text, list)" || e.Name == "score" {
			continue // they are about other steps and rules
		}
		fmt.Fprintf(&rules, "  - {name: e%d, when: %s, score: 0.25}\n", n, quote(e.Example))
		n++
	}
	asked := 0
	p, j := againPlan(t, rules.String(), DefaultConfig(), &asked)
	for _, door := range []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter} {
		ran := pipelinetest.Run(t, p, door, j, pipelinetest.Mail{
			From: "bounce-Xq7+42@news.example", To: []string{"user+lists@example.org", "info@example.org"}, Text: exampleMail,
		})
		record := copyOf(t, ran.Record)
		if held := strings.Count(outcomeOf(record, true), `"name": "e`); held < n*3/4 {
			t.Fatalf("only %d of %d rules held", held, n)
		}
		parsed := pipelinetest.Parse(t, exampleMail)
		for _, evidence := range []bool{true, false} {
			o := pipeline.Replay{}
			if evidence {
				o.Message = parsed
			}
			again, err := p.Replay(t.Context(), record, o)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := outcomeOf(again.Record, evidence), outcomeOf(record, evidence); got != want || len(again.Gaps) > 0 {
				t.Errorf("%s, the message %t: replayed (gaps %q)\n%s\nrecorded\n%s", door, evidence, again.Gaps, got, want)
			}
		}
	}
}
