package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

var anything = pipeline.Reads{Input: pipeline.InputBody, Waits: true}

// tried makes a plan whose shadow steps are asked after the answer.
func tried(t testing.TB, limits pipeline.TrialLimits, steps ...pipeline.Step) (*pipeline.Plan, *pipeline.Trials, *pipelinetest.Journal) {
	t.Helper()
	j, trials := &pipelinetest.Journal{}, new(pipeline.Trials)
	env := pipelinetest.Env(t)
	env.Journal, env.Trials = j, trials
	p, err := pipeline.NewPlan(steps, env, pipeline.Options{Trials: limits})
	if err != nil {
		t.Fatal(err)
	}
	return p, trials, j
}

func shadowStep(name string, reads pipeline.Reads, says func(context.Context, V) (R, error)) pipeline.Step {
	s := pipelinetest.Step(name, stage(reads, says))
	s.Shadow = true
	return s
}

// whole is what a journal makes of all records of an id.
func whole(j *pipelinetest.Journal, id string) (out *pipeline.Record) {
	for _, r := range j.Records() {
		switch {
		case r.ID != id:
		case out == nil:
			out = r
		case r.Completes:
			out = out.Complete(r)
		}
	}
	return out
}

// state is what a record says of the first stage of a step.
func state(t testing.TB, r *pipeline.Record, step string) string {
	t.Helper()
	for _, s := range r.Steps {
		if s.Name == step {
			x := s.Stages[0]
			return strings.TrimSuffix(x.State+": "+x.Why, ": ")
		}
	}
	t.Fatalf("no step %s in %+v", step, r.Steps)
	return ""
}

// The door has its answer at once, however long shadow steps take; what they say completes the record, and they are told
// that it does not count.
func TestShadowsKeepNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []pipeline.Outcome
		slow := shadowStep("slow", anything, func(_ context.Context, v V) (R, error) {
			time.Sleep(20 * time.Second)
			return R{
				Verdict: pipeline.Verdict{Action: pipeline.Reject}, Hits: []pipeline.Hit{{Name: "h", Score: 3}},
				After: func(_ context.Context, o pipeline.Outcome) { told = append(told, o) },
			}, nil
		})
		p, _, j := tried(t, pipeline.TrialLimits{}, slow)
		began := time.Now()
		ran := run(t, p, j, pipelinetest.Mail{})
		if d := time.Since(began); d != 0 {
			t.Errorf("the door waited for %s", d)
		}
		if d := ran.Decisions[0]; d.Verdict.Action != pipeline.Pass || len(d.Hits) > 0 {
			t.Errorf("it counts: %+v", d)
		}
		if got := state(t, ran.Record, "slow"); !strings.HasPrefix(got, "not finished") {
			t.Errorf("the record says %q at first", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		r := whole(j, ran.Record.ID)
		if got := state(t, r, "slow"); got != "answered" || len(r.Steps[0].Hits) != 1 || !r.Steps[0].Hits[0].Shadow ||
			r.Steps[0].Stages[0].Verdict.Action != pipeline.Reject {
			t.Errorf("%s: %+v", got, r.Steps[0])
		}
		if len(told) != 1 || told[0].Counted || !told[0].Taken {
			t.Errorf("After was told %+v", told)
		}
		if twice := r.Complete(j.Records()[1]); fmt.Sprintf("%+v", twice.Steps) != fmt.Sprintf("%+v", r.Steps) || len(twice.Timings) != len(r.Timings) {
			t.Error("completing it twice changes something")
		}
	})
}

// A shadow step sees what live ones and shadow ones have found; a live one may not read it.
func TestWhoReadsShadows(t *testing.T) {
	type fact struct {
		N int `json:"n"`
	}
	found := func(name string, n int, reads pipeline.Reads) pipeline.Step {
		s := pipelinetest.Step(name, stage(reads, func(_ context.Context, v V) (R, error) {
			for _, from := range reads.Facts {
				f, ok := v.Facts.Of(from).Fact.(fact)
				if !ok {
					return R{}, v.Facts.Of(from).Unknown
				}
				n += f.N
			}
			return R{Fact: fact{n}}, nil
		}))
		s.Kind.Fact = func(any) any { return fact{} }
		return s
	}
	live := found("live", 1, pipeline.Reads{})
	one, two := found("one", 10, pipeline.Reads{Facts: []string{"live"}}), found("two", 100, pipeline.Reads{Facts: []string{"live", "one"}})
	one.Shadow, two.Shadow = true, true
	synctest.Test(t, func(t *testing.T) {
		p, _, j := tried(t, pipeline.TrialLimits{}, live, one, two)
		ran := run(t, p, j, pipelinetest.Mail{})
		synctest.Wait()
		if r := whole(j, ran.Record.ID); string(r.Steps[2].Fact) != `{"n":112}` {
			t.Errorf("the second one found %s, %s", r.Steps[2].Fact, r.Steps[2].Unknown)
		}
	})
	two.Shadow, two.Pos = false, "x.yaml:3:5"
	_, err := pipeline.NewPlan([]pipeline.Step{live, one, two}, pipelinetest.Env(t), pipeline.Options{})
	const want = "x.yaml:3:5: two: it reads what one finds, which is a shadow step and must not change what counts: " +
		"take `shadow` from one, or add it here"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Each limit is reached, and the record says which.
func TestTrialLimits(t *testing.T) {
	hang := func(ctx context.Context, _ V) (R, error) {
		<-ctx.Done()
		return R{}, ctx.Err()
	}
	for _, tt := range []struct {
		name   string
		limits pipeline.TrialLimits
		want   []string // of the mails, in order
	}{
		{"waiting", pipeline.TrialLimits{AtOnce: 1, Waiting: 1, Time: time.Second}, []string{
			"error: shadow steps get 1s for one mail",
			"not run: shadow steps get 1s for one mail", // its time was over when its turn came
			"not run: 1 mails wait for shadow steps already",
		}},
		{"at once", pipeline.TrialLimits{AtOnce: 2, Waiting: 1, Time: time.Second}, []string{
			"error: shadow steps get 1s for one mail", "error: shadow steps get 1s for one mail", "not run: shadow steps get 1s for one mail",
		}},
		{"memory", pipeline.TrialLimits{Memory: 200, Time: time.Second}, []string{
			"error: shadow steps get 1s for one mail", "error: shadow steps get 1s for one mail",
			"not run: the mails kept for shadow steps would have more than 200 octets",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, trials, j := tried(t, tt.limits, shadowStep("hang", anything, hang))
				var ids []string
				for range tt.want {
					ids = append(ids, run(t, p, j, pipelinetest.Mail{}).Record.ID)
				}
				if s := trials.Stats(); s.Running == 0 || s.Octets == 0 || s.Octets > 300 {
					t.Errorf("%+v", s)
				}
				time.Sleep(time.Minute)
				for i, id := range ids {
					if got := state(t, whole(j, id), "hang"); got != tt.want[i] {
						t.Errorf("mail %d: %s, want %s", i+1, got, tt.want[i])
					}
				}
				if s := trials.Stats(); s.Running+s.Waiting != 0 || s.Octets != 0 || int(s.Finished+s.NotRun+s.Unfinished) != len(ids) {
					t.Errorf("afterwards %+v", s)
				}
			})
		})
	}
}

// A stage that heeds no deadline holds up neither the rest nor the end, and after a while is not asked any more.
func TestShadowHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		var asked atomic.Int32
		hang := shadowStep("hang", pipeline.Reads{Input: pipeline.InputSender}, func(context.Context, V) (R, error) {
			asked.Add(1)
			<-never
			return R{}, nil
		})
		other := shadowStep("other", anything, always(R{Hits: []pipeline.Hit{{Name: "h"}}}))
		env, j, trials := pipelinetest.Env(t), &pipelinetest.Journal{}, new(pipeline.Trials)
		env.Journal, env.Trials = j, trials
		p, err := pipeline.NewPlan([]pipeline.Step{hang, other}, env, pipeline.Options{Abandoned: 2})
		if err != nil {
			t.Fatal(err)
		}
		var last string
		for range 3 {
			last = run(t, p, j, pipelinetest.Mail{}).Record.ID
			time.Sleep(2 * time.Minute)
		}
		if r := whole(j, last); state(t, r, "hang") != "error: 2 calls that never ended are still hanging" || state(t, r, "other") != "answered" || asked.Load() != 2 {
			t.Errorf("%s, %s, asked %d times", state(t, r, "hang"), state(t, r, "other"), asked.Load())
		}
		trials.Shutdown(t.Context())
		close(never)
	})
}

// Shutdown waits while it may, and then the record says what was not finished.
func TestTrialsShutdown(t *testing.T) {
	for _, tt := range []struct {
		grace time.Duration
		want  []string
	}{
		{time.Minute, []string{"answered", "answered", "not run: the program was stopped"}},
		{time.Second, []string{"error: the program was stopped", "not finished: the program was stopped", "not run: the program was stopped"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			slow := shadowStep("slow", anything, func(ctx context.Context, _ V) (R, error) {
				select {
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
				}
				return R{}, ctx.Err()
			})
			p, trials, j := tried(t, pipeline.TrialLimits{AtOnce: 1}, slow)
			ids := []string{run(t, p, j, pipelinetest.Mail{}).Record.ID, run(t, p, j, pipelinetest.Mail{}).Record.ID}
			ctx, cancel := context.WithTimeout(t.Context(), tt.grace)
			defer cancel()
			began := time.Now()
			trials.Shutdown(ctx)
			if d := time.Since(began); d > min(tt.grace, 20*time.Second) {
				t.Errorf("it took %s", d)
			}
			ids = append(ids, run(t, p, j, pipelinetest.Mail{}).Record.ID)
			for i, id := range ids {
				if got := state(t, whole(j, id), "slow"); got != tt.want[i] {
					t.Errorf("after %s mail %d: %s, want %s", tt.grace, i+1, got, tt.want[i])
				}
			}
		})
	}
}

// A crash is an error of the stage; without a record nothing is tried; a mail that never came is tried as far as it came.
func TestTrialsOnBadDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crash := shadowStep("crash", pipeline.Reads{Input: pipeline.InputClient}, func(context.Context, V) (R, error) { panic("boom") })
		late := shadowStep("late", anything, always(R{}))
		p, trials, j := tried(t, pipeline.TrialLimits{}, crash, late)
		ran := run(t, p, j, pipelinetest.Mail{NoContent: true})
		synctest.Wait()
		r := whole(j, ran.Record.ID)
		if state(t, r, "crash") != "error: panic: boom" || state(t, r, "late") != "not asked: no message came" || r.End != "aborted" {
			t.Errorf("%s, %s, %s", r.End, state(t, r, "crash"), state(t, r, "late"))
		}
		j.Err = errors.New("no room")
		s := p.NewSession(pipeline.SMTP, pipeline.Client{})
		s.Mail(t.Context(), pipeline.Address{})
		s.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")})
		s.Content(t.Context(), pipelinetest.Parse(t, mail))
		if err := s.Done(t.Context(), pipeline.Reply{Code: 250}, []pipeline.Delivery{{Disposition: pipeline.Dropped}}); err == nil {
			t.Error("a discard without a record")
		}
		synctest.Wait()
		if s := trials.Stats(); s.Octets != 0 || s.Finished != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// What is asked for each recipient is asked for all that were named, for those refused as far as they came.
func TestShadowsOfRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		each := pipeline.Reads{Input: pipeline.InputRecipient}
		guard := pipelinetest.Step("guard", stage(pipeline.Reads{Input: pipeline.InputRecipient, Can: final(pipeline.Reject)}, func(_ context.Context, v V) (R, error) {
			if v.Rcpt.Address.Local == "bad" {
				return verdict(pipeline.Reject, 0, "no"), nil
			}
			return R{}, nil
		}))
		hit := func(_ context.Context, v V) (R, error) {
			return R{Hits: []pipeline.Hit{{Name: v.Rcpt.Address.Local}}}, nil
		}
		content := each
		content.Input |= pipeline.InputBody
		p, _, j := tried(t, pipeline.TrialLimits{}, guard, shadowStep("early", each, hit), shadowStep("late", content, hit))
		ran := run(t, p, j, pipelinetest.Mail{To: []string{"bad@example.org", "good@example.org"}})
		synctest.Wait()
		r := whole(j, ran.Record.ID)
		var got []string
		for _, x := range r.Recipients {
			for _, s := range x.Steps {
				line := x.Address.Local + " " + s.Name + " " + s.Stages[0].State + " " + s.Stages[0].Why
				for _, h := range s.Hits {
					line += h.Name
				}
				got = append(got, strings.TrimSpace(line))
			}
		}
		want := []string{
			"bad guard answered", "bad early answered bad", "bad late not asked refused before",
			"good guard answered", "good early answered good", "good late answered good",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

// BenchmarkShadow is what the door pays for shadow steps.
func BenchmarkShadow(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("shadow=%t", with), func(b *testing.B) {
			steps := []pipeline.Step{pipelinetest.Step("live", stage(pipeline.Reads{Input: pipeline.InputBody}, always(R{})))}
			if with {
				steps = append(steps, shadowStep("try", pipeline.Reads{Input: pipeline.InputBody}, always(R{})))
			}
			env := pipelinetest.Env(b)
			trials := new(pipeline.Trials)
			env.Journal, env.Trials = forgetful{}, trials
			p := pipelinetest.Plan(b, env, steps...)
			for b.Loop() {
				pipelinetest.Run(b, p, pipeline.SMTP, nil, pipelinetest.Mail{From: "a@example.com", Text: mail})
			}
			trials.Shutdown(b.Context())
		})
	}
}

type forgetful struct{}

func (forgetful) Record(context.Context, *pipeline.Record, bool) error { return nil }
