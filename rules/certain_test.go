package rules

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Other rules than those that decided need what is not in the record. Where a replay calls its verdicts certain all the same,
// they are those that the engine would have given at the time.
func TestCertain(t *testing.T) {
	certain, open, wrongWithout := 0, 0, 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := DefaultConfig()
		if r.IntN(2) == 0 {
			c.Reject, c.Quarantine, c.Junk = 9, 6, 4
		}
		then, j := againPlan(t, someRulesAtRandom(seed, -1), c, new(int))
		text := someRulesAtRandom(seed+100_000, -1)
		other, otherJournal := againPlan(t, text, c, new(int))
		for range 4 {
			door := []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter}[r.IntN(3)]
			m := pipelinetest.Mail{
				From: fmt.Sprintf("s%d@example.com", r.IntN(30)), To: []string{"anna@example.org", "bert@example.net", "carl@example.com"}[r.IntN(3):],
				Text: fmt.Sprintf("From: x@example.com\nSubject: %s%d\n%s\nhello\n", []string{"a", "b", "ab", "c"}[r.IntN(4)], r.IntN(20),
					[]string{"", "X-One: 1\n", "X-One: 2\n"}[r.IntN(3)]),
				NoContent: r.IntN(10) == 0,
			}
			record := copyOf(t, pipelinetest.Run(t, then, door, j, m).Record)
			truth := pipelinetest.Run(t, other, door, otherJournal, m).Record
			again, err := other.Replay(t.Context(), record, pipeline.Replay{Then: then})
			if err != nil {
				t.Fatal(err)
			}
			if len(again.Gaps) == 0 {
				if !again.Certain {
					t.Fatalf("seed %d: without gaps and not certain", seed)
				}
				continue
			}
			same := true
			for i := range truth.Recipients {
				same = same && again.Record.Recipients[i].Verdict.Action == truth.Recipients[i].Verdict.Action
			}
			switch {
			case again.Certain && !same:
				t.Fatalf("seed %d: %s, gaps %q\n%s\ncertain %q\nand it is %q", seed, door, again.Gaps, text, decisionsOf(again.Record), decisionsOf(truth))
			case again.Certain:
				certain++
			case same:
				open++
			default:
				wrongWithout++
			}
		}
	}
	t.Logf("with gaps: %d certain and right; not certain: %d right, %d wrong", certain, open, wrongWithout)
	if certain < 20 || wrongWithout < 20 {
		t.Errorf("%d certain, %d wrong: the test looks at too little", certain, wrongWithout)
	}
}
