package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Whatever steps say, in whatever order: what a recipient wishes is carried out if and only if the mail is delivered to it,
// and then it is what the last step says; nobody else's wishes are. It survives JSON, and a replay comes to the same.
func TestHandlingsOfManySteps(t *testing.T) {
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 1))
		var steps []pipeline.Step
		said := map[string]map[int]pipeline.Result{} // by recipient and step
		actions := []pipeline.Action{pipeline.Pass, pipeline.Pass, pipeline.Pass, pipeline.Keep, pipeline.Quarantine, pipeline.Reject, pipeline.TempFail, pipeline.Discard}
		recipients := []string{"a@example.org", "b@example.org", "c@example.org"}
		for i := range 1 + chance.IntN(4) {
			atDelivery, waits := chance.IntN(2) == 0, chance.IntN(2) == 0
			for _, r := range recipients {
				var x pipeline.Result
				x.Verdict.Action = actions[chance.IntN(len(actions))]
				if atDelivery && x.Verdict.Action == pipeline.Pass {
					x.Handling = &pipeline.Handling{Notes: []string{fmt.Sprintf("step %d for %s", i, r)}}
					for range chance.IntN(3) {
						x.Handling.Copies = append(x.Handling.Copies, pipeline.Copy{Kept: chance.IntN(2) == 0, Folder: fmt.Sprint(chance.IntN(2))})
					}
				}
				if !atDelivery && chance.IntN(2) == 0 {
					x.Effects = []pipeline.Effect{{Kind: pipeline.FileInto, Folder: "rule"}}
				}
				if said[r] == nil {
					said[r] = map[int]pipeline.Result{}
				}
				said[r][i] = x
			}
			var can []pipeline.Final
			for _, a := range actions[3:] {
				can = append(can, pipeline.Final{Action: a})
			}
			s := pipelinetest.Step(fmt.Sprintf("s%d", i), pipelinetest.Stage{
				Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputBody, Can: can, Waits: waits},
				Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
					return said[v.Rcpt.Account][i], nil
				},
			})
			s.Kind.AtDelivery = atDelivery
			steps = append(steps, s)
		}
		p, j := plan(t, steps...)
		ran := pipelinetest.Run(t, p, pipeline.LMTP, j, pipelinetest.Mail{From: "s@client.example", To: recipients, Text: mail, Accounts: true})
		for n, r := range recipients {
			// The specification, one step after the other.
			action, kept := pipeline.Pass, false
			var want *pipeline.Handling
			for i := range steps {
				x := said[r][i]
				if action <= pipeline.Keep && x.Handling != nil {
					want = x.Handling
				}
				if v := x.Verdict.Action; v != pipeline.Pass && action == pipeline.Pass {
					action, kept = v, v == pipeline.Keep
				}
			}
			d := ran.Decisions[n]
			switch {
			case d.Verdict.Action != action:
				t.Fatalf("seed %d, %s: %s, want %s", seed, r, d.Verdict.Action, action)
			case action > pipeline.Keep && !kept:
				want = nil
			}
			if (d.Handling == nil) != (want == nil) || want != nil && !slices.Equal(d.Handling.Notes, want.Notes) {
				t.Fatalf("seed %d, %s: %+v, want %+v", seed, r, d.Handling, want)
			}
			if d.Handling == nil {
				continue
			}
			folders := map[string]bool{}
			for _, c := range d.Handling.Copies {
				if folders[c.Folder] || c.Kept && c.Folder != d.Folder {
					t.Fatalf("seed %d, %s: %+v in %s", seed, r, d.Handling.Copies, d.Folder)
				}
				folders[c.Folder] = true
			}
		}
		raw, err := json.Marshal(ran.Record)
		if err != nil {
			t.Fatal(err)
		}
		back := new(pipeline.Record)
		if err := json.Unmarshal(raw, back); err != nil {
			t.Fatal(err)
		}
		again, err := p.Replay(t.Context(), back, pipeline.Replay{Message: pipelinetest.Parse(t, mail)})
		if err != nil {
			t.Fatal(err)
		}
		for n, x := range again.Record.Recipients {
			if was := back.Recipients[n]; !reflect.DeepEqual(x.Handling, was.Handling) || x.Folder != was.Folder || x.Disposition != was.Disposition {
				t.Fatalf("seed %d, replayed: %+v\nwas %+v", seed, x, was)
			}
		}
	}
}
