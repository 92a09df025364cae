package rules

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// testsIn runs the tests of rule files and returns what fails.
func testsIn(t *testing.T, c Config, files map[string]string) string {
	t.Helper()
	e := pipelinetest.Env(t)
	e.Name, e.Files = "rules", pipelinetest.Files(files).Open
	e.Before = []pipeline.Before{{Name: "scan", Kind: "scan", Fact: testedFact{}, Phase: pipeline.Mail}, {Name: "rules", Kind: "rules"}}
	c.Files = []string{"rules/*.yaml"}
	if _, err := New(c, e); err != nil {
		return err.Error()
	}
	return ""
}

// Groups and the score, in the words of the language itself.
func TestGroupsAndScore(t *testing.T) {
	c := DefaultConfig()
	c.Reject, c.Junk = 15, 5
	if fails := testsIn(t, c, map[string]string{"rules/a.yaml": `
groups:
  names: {max: 6, min: -2}
  trial: {shadow: true}
rules:
  # Asked for, and so evaluated, before what it asks about.
  - {name: high, when: score >= 7 and not has("X-Friend"), quarantine: true}
  - {name: above, when: 'hit("high") or score == 4.3', flag: [seen_high]}
  - {name: a, when: scan.listed, score: 4, group: names}
  - {name: b, when: scan.count > 3, score: 3.5, group: names}
  - {name: c, when: has("X-Good"), score: -3, group: names}
  - {name: d, when: has("X-Bad"), score: 1}
  - {name: e, when: has("X-Odd"), score: 0.1}
  - {name: f, when: has("X-Odd"), score: 0.2}
  - {name: tried, when: true, score: 9, group: trial}
  - {name: low, when: score < 0, file: Good}
tests:
  - name: one of the group
    mail: {facts: {scan: {listed: true, count: 0}}}
    expect: {hit: [a, tried], miss: [high, low], score: 4, folder: INBOX}
  - name: the group's most is less than what its rules score
    mail: {facts: {scan: {listed: true, count: 9}}}
    expect: {hit: [a, b], score: 6, folder: Junk}
  - name: others add to it, and what is high is held although it stands first
    mail: {facts: {scan: {listed: true, count: 9}}, headers: {X-Bad: "1"}}
    expect: {hit: [a, b, d, high, above], verdict: quarantine, score: 0}
  - name: no condition but the score
    mail: {facts: {scan: {listed: true, count: 9}}, headers: {X-Bad: "1", X-Friend: "1"}}
    expect: {hit: [a, b, d], miss: [high], verdict: pass, score: 7, folder: Junk}
  - name: the group's least
    mail: {facts: {scan: {listed: false, count: 0}}, headers: {X-Good: "1"}}
    expect: {hit: [c, low], score: -2, folder: Good}
  - name: decimal fractions are what they look like
    mail: {facts: {scan: {listed: true, count: 0}}, headers: {X-Odd: "1"}}
    expect: {hit: [above], score: 4.3}
`, "rules/b.yaml": `
shadow: true
rules:
  - {name: g, when: true, score: 50, group: names}
  - {name: h, when: true, reject: true}
  - {name: i, when: 'hit("h") and score > 3', discard: true}
tests:
  - name: a file that is tried only
    mail: {facts: {scan: {listed: true, count: 0}}}
    expect: {hit: [g, h, i], verdict: pass, score: 4}
`}); fails != "" {
		t.Error(fails)
	}
	// The tests would notice.
	fails := testsIn(t, c, map[string]string{"rules/a.yaml": `
rules:
  - {name: a, when: true, score: 4}
tests:
  - {name: sum, mail: {rcpts: [x@example.org]}, expect: {score: {x@example.org: 5}}}
  - {name: number, mail: {rcpts: [x@example.org]}, expect: {score: 4}}
`})
	if !strings.Contains(fails, "rules/a.yaml:5:81: the test `sum` fails: the score for x@example.org is 4, not 5") || strings.Contains(fails, "number") {
		t.Errorf("got %s", fails)
	}
}

// A rule that reads the score waits for the last rule that scores, and its own stage stands behind the thresholds.
func TestScoreWaits(t *testing.T) {
	c := DefaultConfig()
	c.Junk = 3
	stages := stagesOf(t, c, `
rules:
  - {name: over, when: score > 3, reject: true}
  - {name: who, when: rcpt.local == "x", score: 1}
  - {name: listed, when: dnsbl.zen.listed, score: 2}
  - {name: plain, when: from.domain == "x"}
`)
	st := stages[len(stages)-2].(*stage)
	if len(stages) != 5 || st.rules[0].name != "over" || st.reads.Input != pipeline.InputRecipient || st.reads.Facts[0] != "rules" {
		t.Fatalf("%d stages; %+v", len(stages), st.reads)
	}
	if _, ok := stages[2].(*thresholdStage); !ok {
		t.Errorf("the third is %T", stages[2])
	}
	hits := []pipeline.Hit{{Step: "rules", At: 1, Name: "who", Score: 1}, {Step: "rules", At: 2, Name: "listed", Score: 2.5}, {Step: "early", At: 2, Score: 9}}
	for name, tt := range map[string]struct {
		hits  []pipeline.Hit
		known error
		want  truth
	}{
		"over":                   {hits, nil, isTrue},
		"below":                  {hits[1:], nil, isFalse},
		"a stage that failed":    {hits, errors.New("took too long"), unknown},
		"one that was not asked": {hits, pipeline.ErrNotAsked, unknown},
	} {
		v := view(t)
		v.Hits = tt.hits
		v.Facts["rules"] = pipeline.Finding{Unknown: tt.known}
		res, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		came := isFalse
		switch {
		case len(res.Hits) == 1:
			came = isTrue
		case len(res.Undecided) == 1:
			came = unknown
			if why := res.Undecided[0].Why; !strings.Contains(why, "the score is not known: "+tt.known.Error()) {
				t.Errorf("%s: %s", name, why)
			}
		}
		if came != tt.want {
			t.Errorf("%s: got %d, want %d: %+v", name, came, tt.want, res)
		}
	}
	// Nothing scores: the score is 0, and that is known.
	if got, _ := truthOfRule(t, "score == 0", view(t)); got != isTrue {
		t.Errorf("without rules that score it came to %d", got)
	}
}
