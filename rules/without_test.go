package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// overridesAtRandom makes overrides of some of the rules of a text of someRulesAtRandom.
func overridesAtRandom(r *rand.Rand, rules string) string {
	var all, scoring []string
	for block := range strings.SplitSeq(rules, "  - name: ") {
		name, rest, _ := strings.Cut(block, "\n")
		if strings.HasPrefix(name, "r") && !strings.HasSuffix(name, ":") {
			all = append(all, name)
			if strings.Contains(rest, "    score:") {
				scoring = append(scoring, name)
			}
		}
	}
	var b strings.Builder
	b.WriteString("overrides:\n")
	for _, who := range []string{"anna@example.org", "example.net"} {
		fmt.Fprintf(&b, "  - for: %s\n    off: [%s]\n", who, all[r.IntN(len(all))])
		if len(scoring) > 0 {
			fmt.Fprintf(&b, "    scores: {%s: %d}\n", scoring[r.IntN(len(scoring))], r.IntN(12)-2)
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    junk: %d\n", r.IntN(3))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    rules: [{name: own_%s, when: 'subject contains \"a\"', %s}]\n", who[:4],
				[]string{"score: 4", "reject: true", "file: Own"}[r.IntN(3)])
		}
	}
	return b.String()
}

// Whatever is left out, a replay says what the engine says that has never had it: a threshold, a rule that has filed or scored,
// everything that is otherwise for some recipients.
func TestReplayWithout(t *testing.T) {
	said := map[string]int{}
	otherwise := map[string]int{}
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := DefaultConfig()
		c.Reject, c.Quarantine, c.Junk = 9, 7, 3
		usual := someRulesAtRandom(seed, -1)
		text := usual + overridesAtRandom(r, usual)
		rest := strings.TrimPrefix(text, usual)
		p, j := againPlan(t, text, c, new(int))
		for range 3 {
			door := []pipeline.Door{pipeline.SMTP, pipeline.LMTP}[r.IntN(2)]
			m := pipelinetest.Mail{
				From: fmt.Sprintf("s%d@example.com", r.IntN(30)), To: []string{"anna@example.org", "bert@example.net", "carl@example.com"}[r.IntN(3):],
				Text: fmt.Sprintf("From: x@example.com\nSubject: %s%d\n%s\nhello\n", []string{"a", "b", "ab", "c"}[r.IntN(4)], r.IntN(20),
					[]string{"", "X-One: 1\n", "X-One: 2\n"}[r.IntN(3)]),
			}
			ran := pipelinetest.Run(t, p, door, j, m)
			if len(ran.Decisions) == 0 {
				continue
			}
			record, parsed := copyOf(t, ran.Record), pipelinetest.Parse(t, m.Text)
			compare := func(what string, o pipeline.Replay, rules string, c Config, only int) {
				t.Helper()
				o.Message = parsed
				without, err := p.Replay(t.Context(), record, o)
				if err != nil {
					t.Fatal(err)
				}
				if len(without.Gaps) > 0 {
					return // what was not needed then would be now
				}
				other, otherJournal := againPlan(t, rules, c, new(int))
				want, got := decisionsOf(pipelinetest.Run(t, other, door, otherJournal, m).Record), decisionsOf(without.Record)
				was := decisionsOf(record)
				if only >= 0 {
					want, got, was = want[only:only+1], got[only:only+1], was[only:only+1]
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: %s without %s\n%s\ngot  %q\nwant %q\nwas  %q", seed, door, what, text, got, want, was)
				}
				kind, _, _ := strings.Cut(what, " ")
				said[kind]++
				if !slices.Equal(got, was) {
					otherwise[kind]++
				}
			}
			compare("overrides", pipeline.Replay{Usual: true}, usual, c, -1)
			asked := map[string]bool{}
			for i, x := range record.Recipients {
				if x.Address.Local != "carl" {
					continue // whose thresholds and rules are those of everybody
				}
				level := ""
				switch {
				case x.Step == "rules" && x.Verdict.By == "":
					level = x.Verdict.Action.String()
				case x.FolderBy == "rules":
					level = "junk"
				}
				if level != "" {
					lower := c
					*map[string]*float64{"reject": &lower.Reject, "quarantine": &lower.Quarantine, "junk": &lower.Junk}[level] = 0
					at := []pipeline.Place{{Step: "rules", At: placeOfThreshold(record, i)}}
					compare("threshold "+level, pipeline.Replay{Without: at}, text, lower, i)
				}
				for _, h := range record.HitsOf(&x) {
					if !asked[h.Name] && strings.HasPrefix(h.Name, "r") {
						asked[h.Name] = true
						var n int
						if _, err := fmt.Sscanf(h.Name, "r%d", &n); err != nil {
							t.Fatal(err)
						}
						compare("rule "+h.Name, pipeline.Replay{Without: []pipeline.Place{{Step: "rules", At: h.At}}}, someRulesAtRandom(seed, n)+rest, c, i)
					}
				}
			}
		}
	}
	t.Logf("%v compared, %v otherwise", said, otherwise)
	for _, kind := range []string{"overrides", "threshold", "rule"} {
		if said[kind] < 5 || otherwise[kind] < 5 {
			t.Errorf("%d without %s, %d of them otherwise: the test looks at too little", said[kind], kind, otherwise[kind])
		}
	}
}

// placeOfThreshold is where the threshold stands that has had its say about a recipient.
func placeOfThreshold(r *pipeline.Record, rcpt int) (at int) {
	x := &r.Recipients[rcpt]
	if x.Verdict.Action > pipeline.Keep {
		return x.Verdict.At
	}
	for _, steps := range [][]pipeline.StepRecord{x.Steps, r.Steps} {
		for _, s := range steps {
			for _, st := range s.Stages {
				for _, e := range st.Effects {
					if e.Threshold {
						return e.At
					}
				}
			}
		}
	}
	return -2
}
