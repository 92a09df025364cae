package pipeline_test

import (
	"context"
	"errors"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// prompter is a stage that answers at once where it can.
type prompter struct {
	pipelinetest.Stage
	prompt func() (R, bool)
}

func (p prompter) Prompt(context.Context, V) (R, bool) { return p.prompt() }

// A stage that need not wait for a mail answers without a goroutine of its own, and the outcome is the same.
func TestPrompt(t *testing.T) {
	kept, refused := verdict(pipeline.Keep, 0, "kept"), verdict(pipeline.Reject, 0, "refused")
	for _, tt := range []struct {
		name    string
		prompt  func() (R, bool)
		checked int
		want    pipeline.Action
		says    string
	}{
		{"it can", func() (R, bool) { return kept, true }, 0, pipeline.Keep, "answered"},
		{"it has to wait", func() (R, bool) { return kept, false }, 1, pipeline.Reject, "answered"},
		{"it has nothing to say", func() (R, bool) { return R{}, true }, 0, pipeline.Pass, "answered"},
		{"it panics", func() (R, bool) { panic("oh") }, 0, pipeline.TempFail, "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checked := 0
			step := pipelinetest.Step("sieve", prompter{pipelinetest.Stage{
				Looks: pipeline.Reads{
					Input: pipeline.InputRecipient | pipeline.InputHeader, Waits: true,
					Can: []pipeline.Final{{Action: pipeline.Keep}, {Action: pipeline.Reject}},
				},
				Says: func(context.Context, V) (R, error) { checked++; return refused, nil },
			}, tt.prompt})
			postpone := pipeline.Postpone
			step.OnError = &postpone
			p, j := plan(t, step)
			got := run(t, p, j, pipelinetest.Mail{})
			if a := got.Decisions[0].Verdict.Action; a != tt.want || checked != tt.checked {
				t.Errorf("%s, checked %d times; want %s, %d", a, checked, tt.want, tt.checked)
			}
			if says := got.Record.Recipients[0].Steps[0].Stages[0].State; says != tt.says {
				t.Errorf("the record says %s, want %s", says, tt.says)
			}
		})
	}
}

// What was answered at once is told what became of it, once.
func TestPromptIsSettled(t *testing.T) {
	for _, waits := range []bool{false, true} {
		told := 0
		r := R{After: func(context.Context, pipeline.Outcome) { told++ }}
		step := pipelinetest.Step("sieve", prompter{pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Waits: true},
			Says:  func(context.Context, V) (R, error) { return r, errors.New("no disk") },
		}, func() (R, bool) {
			if waits {
				return R{}, false
			}
			return r, true
		}})
		p, j := plan(t, step)
		run(t, p, j, pipelinetest.Mail{})
		if told != 1 {
			t.Errorf("it waits: %v: told %d times", waits, told)
		}
	}
}
