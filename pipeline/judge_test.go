package pipeline

import (
	"math/rand/v2"
	"testing"
)

// step makes a step of a test plan; each stage is given as its phase and what it can say.
type testStage struct {
	step  int
	phase Phase
	on    OnError
	can   []Final
}

func testPlan(stages ...testStage) *Plan {
	p := &Plan{}
	for _, s := range stages {
		for len(p.steps) <= s.step {
			p.steps = append(p.steps, planStep{})
		}
		p.steps[s.step].onError = s.on
		p.stages = append(p.stages, planStage{step: s.step, phase: s.phase, since: s.phase, reads: Reads{Can: s.can}, content: s.phase == Content})
	}
	return p
}

func says(at int, a Action) *answer {
	return &answer{state: stateAnswered, result: Result{Verdict: Verdict{At: at, Action: a}}}
}

func can(at int, a Action) []Final { return []Final{{at, a}} }

func TestJudge(t *testing.T) {
	nothing, broken := &answer{state: stateAnswered}, &answer{state: stateError, err: ErrNotAsked}
	sample := testPlan(testStage{0, Connect, Skip, nil}, testStage{1, Content, Postpone, nil},
		testStage{2, Connect, Skip, can(3, Reject)}, testStage{2, Content, Skip, can(4, Reject)})
	friends := testPlan(testStage{0, Connect, Skip, can(20, Reject)}, testStage{0, Content, Skip, can(12, Keep)})
	friendsAfter := testPlan(testStage{0, Connect, Skip, can(20, Reject)}, testStage{0, Content, Skip, can(30, Keep)})
	sameAction := testPlan(testStage{0, Connect, Skip, can(20, Reject)}, testStage{0, Content, Skip, can(12, Reject)})
	threshold := testPlan(testStage{0, Content, Skip, can(9, Quarantine)}, testStage{1, Connect, Skip, can(0, Reject)})
	for _, tt := range []struct {
		name    string
		plan    *Plan
		now     Phase
		answers []*answer
		exempt  string
		want    Action
		certain bool
	}{
		{"what clamav's error might say holds nothing back", sample, Connect, []*answer{nothing, nil, says(3, Reject), nil}, "", Reject, true},
		{"once it is asked, its error comes first", sample, Content, []*answer{nothing, broken, nothing, says(4, Reject)}, "", TempFail, true},
		{"a keep before it holds a reject back", friends, Connect, []*answer{says(20, Reject), nil}, "", Reject, false},
		{"the keep wins", friends, Content, []*answer{says(20, Reject), says(12, Keep)}, "", Keep, true},
		{"the keep does not hold", friends, Content, []*answer{says(20, Reject), nothing}, "", Reject, true},
		{"a keep after it holds nothing back", friendsAfter, Connect, []*answer{says(20, Reject), nil}, "", Reject, true},
		{"the same action before it holds nothing back", sameAction, Connect, []*answer{says(20, Reject), nil}, "", Reject, true},
		{"a pending threshold of an earlier step holds back", threshold, Connect, []*answer{nil, says(0, Reject)}, "", Reject, false},
		{"it wins", threshold, Content, []*answer{says(9, Quarantine), says(0, Reject)}, "", Quarantine, true},
		{"it is not reached", threshold, Content, []*answer{nothing, says(0, Reject)}, "", Reject, true},
		{"the postmaster is reached", sample, Connect, []*answer{nothing, nil, says(3, Reject), nil}, "postmaster", Pass, false},
		{"but not with a virus", sample, Content, []*answer{nothing, nothing, says(3, Reject), says(4, Reject)}, "postmaster", Reject, true},
		{"what is being asked is waited for", friends, Content, []*answer{says(20, Reject), nil}, "", Reject, false},
		{"nobody objects", sample, Content, []*answer{nothing, nothing, nothing, nothing}, "", Pass, true},
	} {
		j := tt.plan.judge(ledger{shared: tt.answers}, tt.now, tt.exempt)
		if j.verdict.Action != tt.want || j.certain != tt.certain {
			t.Errorf("%s: %s, certain %t; want %s, %t", tt.name, j.verdict.Action, j.certain, tt.want, tt.certain)
		}
	}
}

// Whenever a verdict acts early, its action is that of a run in which everything was asked, one by one and in order.
func TestEarlyIsInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	early, held := 0, 0
	for range 100000 {
		var stages []testStage
		var full []*answer
		for step := range 1 + r.IntN(4) {
			phases := r.Perm(6)[:1+r.IntN(3)]
			first := len(stages)
			for _, ph := range phases {
				stages = append(stages, testStage{step: step, phase: Phase(ph)})
				full = append(full, &answer{state: stateAnswered})
			}
			for at := range 4 {
				i := first + r.IntN(len(phases))
				if r.IntN(2) == 0 {
					continue
				}
				action := Action(1 + r.IntN(5))
				stages[i].can = append(stages[i].can, Final{at, action})
				if r.IntN(2) == 0 && full[i].result.Verdict.Action == Pass {
					full[i].result.Verdict = Verdict{At: at, Action: action}
				}
			}
		}
		p := testPlan(stages...)
		want := inOrderVerdict(stages, full)
		for now := Connect; now <= Content; now++ {
			asked := make([]*answer, len(full))
			for i, s := range stages {
				if s.phase <= now {
					asked[i] = full[i]
				}
			}
			j := p.judge(ledger{shared: asked}, now, "")
			switch {
			case now == Content && j.verdict.Action != want:
				t.Fatalf("at the end %s, in order %s\n%+v", j.verdict.Action, want, stages)
			case j.certain && j.verdict.Action != Pass && now < Content:
				early++
				if j.verdict.Action != want {
					t.Fatalf("early %s at %s, in order %s\n%+v", j.verdict.Action, now, want, stages)
				}
			case j.verdict.Action != Pass:
				held++
			}
		}
	}
	if early == 0 || held == 0 {
		t.Fatalf("acted early %d times, held back %d: the test tests nothing", early, held)
	}
}

// inOrderVerdict goes through steps and places one by one.
func inOrderVerdict(stages []testStage, answers []*answer) Action {
	for step := range 8 {
		for at := range 8 {
			for i, s := range stages {
				if v := answers[i].result.Verdict; s.step == step && v.Action != Pass && v.At == at {
					return v.Action
				}
			}
		}
	}
	return Pass
}
