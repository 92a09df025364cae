package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

type (
	V = pipeline.View
	R = pipeline.Result
)

const mail = "From: a@example.com\nTo: me@example.org\nSubject: hello\nMessage-ID: <1@example.com>\n\nhello\n"

// stage is a stage of a test.
func stage(reads pipeline.Reads, says func(ctx context.Context, v V) (R, error)) pipeline.Stage {
	return pipelinetest.Stage{Looks: reads, Says: says}
}

func always(r R) func(context.Context, V) (R, error) {
	return func(context.Context, V) (R, error) { return r, nil }
}

func verdict(a pipeline.Action, at int, text string) R {
	return R{Verdict: pipeline.Verdict{At: at, Action: a, By: text, Reply: pipeline.Reply{Text: text}}}
}

func final(a pipeline.Action) []pipeline.Final { return []pipeline.Final{{Action: a}} }

// plan makes a plan that keeps its records in the journal.
func plan(t testing.TB, steps ...pipeline.Step) (*pipeline.Plan, *pipelinetest.Journal) {
	t.Helper()
	j := &pipelinetest.Journal{}
	env := pipelinetest.Env(t)
	env.Journal = j
	return pipelinetest.Plan(t, env, steps...), j
}

func run(t testing.TB, p *pipeline.Plan, j *pipelinetest.Journal, m pipelinetest.Mail) pipelinetest.Ran {
	t.Helper()
	if m.Text == "" {
		m.Text = mail
	}
	if m.From == "" {
		m.From = "a@example.com"
	}
	return pipelinetest.Run(t, p, pipeline.SMTP, j, m)
}

// What was decided at connect is said at RCPT, so that the record has the recipients; the postmaster is reached.
func TestRefusedAtRcpt(t *testing.T) {
	asked := 0
	p, j := plan(t,
		pipelinetest.Step("listed", stage(pipeline.Reads{Input: pipeline.InputClient, Can: final(pipeline.Reject)}, always(verdict(pipeline.Reject, 0, "listed")))),
		pipelinetest.Step("later", stage(pipeline.Reads{Input: pipeline.InputSender}, func(context.Context, V) (R, error) { asked++; return R{}, nil })),
	)
	ran := run(t, p, j, pipelinetest.Mail{To: []string{"me@example.org", "you@example.org"}, NoContent: true})
	for i, r := range ran.Refused {
		if r == nil || r.String() != "550 5.7.1 listed" {
			t.Errorf("recipient %d: %v", i, r)
		}
	}
	if asked != 0 {
		t.Error("a stage was asked though the mail was refused at connect")
	}
	rec := ran.Record
	if rec == nil || rec.End != "refused" || len(rec.Recipients) != 2 {
		t.Fatalf("record %+v", rec)
	}
	if r := rec.Recipients[0]; r.Step != "listed" || r.Verdict.By != "listed" || r.Disposition != pipeline.Refused {
		t.Errorf("recipient %+v", r)
	}
	if s := rec.Steps[1].Stages[0]; s.State != "not needed" {
		t.Errorf("the later step: %+v", s)
	}

	ran = run(t, p, j, pipelinetest.Mail{To: []string{"me@example.org", "Postmaster@example.org"}})
	if ran.Refused[0] == nil || ran.Refused[1] != nil {
		t.Fatalf("refused %v", ran.Refused)
	}
	if asked != 1 {
		t.Errorf("for the postmaster the later stage was asked %d times", asked)
	}
	if r := ran.Record.Recipients[1]; r.Exempt != "postmaster" || r.Disposition != pipeline.Delivered {
		t.Errorf("postmaster: %+v", r)
	}
	ran = run(t, p, j, pipelinetest.Mail{Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.9"), Login: "me@example.org"}})
	if ran.Refused[0] != nil || ran.Record.Recipients[0].Exempt != "logged in" {
		t.Errorf("logged in: %v %+v", ran.Refused, ran.Record.Recipients[0])
	}
}

// What was asked at MAIL and decides is in the record, though it is known when the recipient comes.
func TestRefusedByTheSender(t *testing.T) {
	says := verdict(pipeline.Reject, 0, "spammer")
	says.Hits = []pipeline.Hit{{Name: "spammer"}}
	p, j := plan(t,
		pipelinetest.Step("client", stage(pipeline.Reads{Input: pipeline.InputClient}, always(R{}))),
		pipelinetest.Step("sender", stage(pipeline.Reads{Input: pipeline.InputSender, Can: final(pipeline.Reject)}, always(says))),
	)
	rec := run(t, p, j, pipelinetest.Mail{NoContent: true}).Record
	if rec == nil || len(rec.Steps) != 2 {
		t.Fatalf("record %+v", rec)
	}
	if s := rec.Steps[1]; s.Stages[0].State != "answered" || s.Stages[0].Verdict == nil || len(s.Hits) != 1 {
		t.Errorf("who decided: %+v", s)
	}
}

// At LMTP nobody is refused at RCPT: a refusal would become a bounce.
func TestLMTPDoesNotRefuseAtRcpt(t *testing.T) {
	p, j := plan(t, pipelinetest.Step("listed", stage(pipeline.Reads{Input: pipeline.InputClient, Can: final(pipeline.Reject)}, always(verdict(pipeline.Reject, 0, "listed")))))
	ran := pipelinetest.Run(t, p, pipeline.LMTP, j, pipelinetest.Mail{Text: mail})
	if ran.Refused[0] != nil || ran.Decisions[0].Verdict.Action != pipeline.Reject || ran.Record.Recipients[0].Disposition != pipeline.Held {
		t.Errorf("%v %+v", ran.Refused, ran.Decisions)
	}
}

// Only what a stage declares does it see.
func TestView(t *testing.T) {
	see := func(in pipeline.Input) V {
		var seen V
		p, j := plan(t, pipelinetest.Step("x", stage(pipeline.Reads{Input: in}, func(_ context.Context, v V) (R, error) { seen = v; return R{}, nil })))
		run(t, p, j, pipelinetest.Mail{})
		return seen
	}
	all := pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipient | pipeline.InputRecipients | pipeline.InputHeader | pipeline.InputBody
	for in := pipeline.Input(0); in <= all; in++ {
		v := see(in)
		for _, x := range []struct {
			in   pipeline.Input
			has  bool
			name string
		}{
			{pipeline.InputClient, v.Client.Known(), "client"},
			{pipeline.InputGreeting, v.Greeting != "", "greeting"},
			{pipeline.InputSender, !v.Sender.IsZero(), "sender"},
			{pipeline.InputRecipient, !v.Rcpt.Address.IsZero(), "recipient"},
			{pipeline.InputRecipients, len(v.Recipients) > 0, "recipients"},
			{pipeline.InputHeader | pipeline.InputBody, v.Message != nil, "message"},
		} {
			if want := in&x.in != 0; x.has != want {
				t.Fatalf("reads %v: sees %s is %t", in, x.name, x.has)
			}
		}
		if v.Phase != in.Phase() {
			t.Fatalf("reads %v: asked at %s, not %s", in, v.Phase, in.Phase())
		}
	}
}

// A fact of a stage that failed, hung, panicked or was not asked is unknown, with the reason; the policy is applied.
func TestNoAnswer(t *testing.T) {
	reads := pipeline.Reads{Input: pipeline.InputClient}
	waits := pipeline.Reads{Input: pipeline.InputClient, Waits: true}
	strangers := pipeline.Reads{Input: pipeline.InputClient, Strangers: true}
	anybody := pipeline.Reads{Input: pipeline.InputClient, AnyClient: true}
	for _, tt := range []struct {
		name   string
		stage  pipeline.Stage
		client pipeline.Client
		why    string
		policy bool
	}{
		{"error", stage(reads, func(context.Context, V) (R, error) { return R{}, errors.New("no answer from zen") }), pipeline.Client{}, "no answer from zen", true},
		{"error of one that waits", stage(waits, func(context.Context, V) (R, error) { return R{}, errors.New("no answer from zen") }), pipeline.Client{}, "no answer from zen", true},
		{"panic", stage(reads, func(context.Context, V) (R, error) { panic("oops") }), pipeline.Client{}, "panic: oops", true},
		{"panic of one that waits", stage(waits, func(context.Context, V) (R, error) { panic("oops") }), pipeline.Client{}, "panic: oops", true},
		{"heeds its deadline", stage(waits, func(ctx context.Context, _ V) (R, error) { <-ctx.Done(); return R{}, ctx.Err() }), pipeline.Client{}, "no answer within 10s", true},
		{"too slow", stage(reads, func(context.Context, V) (R, error) { time.Sleep(11 * time.Second); return R{Fact: struct{}{}}, nil }), pipeline.Client{}, "took longer than 10s", true},
		{"trusted", stage(strangers, always(verdict(pipeline.Reject, 0, "x"))), pipeline.Client{Addr: netip.MustParseAddr("127.0.0.1"), Trusted: true}, "client is trusted", false},
		{"logged in", stage(strangers, always(verdict(pipeline.Reject, 0, "x"))), pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Login: "me"}, "client logged in", false},
		{"unknown", stage(strangers, always(verdict(pipeline.Reject, 0, "x"))), pipeline.Client{Name: "unknown"}, "client unknown", false},
		{"unknown, and asked", stage(anybody, func(context.Context, V) (R, error) { return R{}, errors.New("asked") }), pipeline.Client{Name: "unknown"}, "asked", true},
	} {
		for _, policy := range []pipeline.OnError{pipeline.Skip, pipeline.Postpone, pipeline.Refuse} {
			t.Run(tt.name+"/"+policy.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var seen pipeline.Finding
					step := pipelinetest.Step("zen", tt.stage)
					step.OnError = &policy
					step.Kind.Fact = func(any) any { return struct{}{} }
					p, j := plan(t, step, pipelinetest.Step("look", stage(pipeline.Reads{Facts: []string{"zen"}}, func(_ context.Context, v V) (R, error) {
						seen = v.Facts.Of("zen")
						return R{}, nil
					})))
					ran := run(t, p, j, pipelinetest.Mail{Client: tt.client})
					code := 0
					if ran.Refused[0] != nil {
						code = ran.Refused[0].Code
					}
					want := map[pipeline.OnError]int{pipeline.Skip: 0, pipeline.Postpone: 451, pipeline.Refuse: 550}[policy]
					if !tt.policy {
						want = 0
					}
					if code != want {
						t.Errorf("answered %d, want %d", code, want)
					}
					if want == 0 && (seen.Unknown == nil || seen.Unknown.Error() != tt.why) {
						t.Errorf("the fact is unknown because %v, want %s", seen.Unknown, tt.why)
					}
					s := ran.Record.Steps[0]
					if s.Unknown != tt.why || s.Stages[0].Why != tt.why {
						t.Errorf("the record says %q, %q; want %q", s.Unknown, s.Stages[0].Why, tt.why)
					}
					if tt.policy && (s.Stages[0].OnError == nil || *s.Stages[0].OnError != policy) {
						t.Errorf("the record does not say which policy was met: %+v", s.Stages[0])
					}
				})
			})
		}
	}
}

// A step without facts is known when all its stages that are read have answered; rules say whose they are.
func TestRulesOfAFailedStage(t *testing.T) {
	head := pipeline.Reads{Input: pipeline.InputHeader}
	hit := always(R{Hits: []pipeline.Hit{{Name: "x"}}, Undecided: []pipeline.Undecided{{Name: "y"}}})
	broken := func(context.Context, V) (R, error) { return R{}, errors.New("broken") }
	for _, tt := range []struct {
		stages []pipeline.Stage
		want   string
	}{
		{[]pipeline.Stage{stage(head, hit), stage(head, broken)}, "broken"},
		{[]pipeline.Stage{stage(head, broken), stage(head, hit)}, "broken"},
		{[]pipeline.Stage{stage(head, hit)}, "<nil>"},
	} {
		var seen V
		p, j := plan(t, pipelinetest.Step("early", tt.stages...),
			pipelinetest.Step("look", stage(pipeline.Reads{Facts: []string{"early"}}, func(_ context.Context, v V) (R, error) { seen = v; return R{}, nil })))
		run(t, p, j, pipelinetest.Mail{})
		if got := fmt.Sprint(seen.Facts.Of("early").Unknown); got != tt.want {
			t.Errorf("%d stages: unknown because %s, want %s", len(tt.stages), got, tt.want)
		}
		if len(seen.Hits) != 1 || seen.Hits[0].Step != "early" || seen.Undecided[0].Step != "early" {
			t.Errorf("hits %+v, undecided %+v", seen.Hits, seen.Undecided)
		}
	}
}

// Calls that never end are counted; beyond the cap a stage fails at once.
func TestAbandonedCalls(t *testing.T) {
	synctest.Test(t, abandonedCalls) // or a call could begin after its time was up
}

func abandonedCalls(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int32
	step := pipelinetest.Step("dead", stage(pipeline.Reads{Input: pipeline.InputClient, Waits: true}, func(context.Context, V) (R, error) {
		calls.Add(1)
		<-release
		return R{}, nil
	}))
	step.Timeout = time.Millisecond
	j := &pipelinetest.Journal{}
	env := pipelinetest.Env(t)
	env.Journal = j
	p, err := pipeline.NewPlan([]pipeline.Step{step}, env, pipeline.Options{Abandoned: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		run(t, p, j, pipelinetest.Mail{})
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls were made, want 3", n)
	}
	rec, _ := j.Last()
	first := j.Records()[0].Steps[0].Stages[0]
	if got, want := first.Why, "no answer within 1ms"; got != want {
		t.Errorf("the first record says %q, want %q", got, want)
	}
	if got, want := rec.Steps[0].Stages[0].Why, "3 calls that never ended are still hanging"; got != want {
		t.Errorf("the record says %q, want %q", got, want)
	}
	close(release)
}

// Every result hears exactly once what became of it: counted, not needed, refused, late, dropped with the connection.
func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		heard := map[string][]bool{}
		after := func(name string, r R) R {
			r.After = func(_ context.Context, o pipeline.Outcome) {
				mu.Lock()
				defer mu.Unlock()
				heard[name] = append(heard[name], o.Counted)
			}
			return r
		}
		late := pipelinetest.Step("late", stage(pipeline.Reads{Input: pipeline.InputHeader, Waits: true}, func(context.Context, V) (R, error) {
			time.Sleep(time.Hour)
			return after("late", R{}), nil
		}))
		p, j := plan(t,
			pipelinetest.Step("client", stage(pipeline.Reads{Input: pipeline.InputClient}, always(after("client", R{})))),
			late,
			pipelinetest.Step("each", stage(pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader}, always(after("each", R{})))),
			pipelinetest.Step("no", stage(pipeline.Reads{Input: pipeline.InputHeader, Can: final(pipeline.Reject)}, always(after("no", verdict(pipeline.Reject, 0, "no"))))),
			pipelinetest.Step("behind", stage(pipeline.Reads{Input: pipeline.InputHeader, Waits: true}, always(after("behind", R{})))),
		)
		run(t, p, j, pipelinetest.Mail{To: []string{"a@example.org", "b@example.org"}})
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		want := map[string][]bool{"client": {false}, "late": {false}, "each": {true, true}, "no": {true}, "behind": {false}}
		// The client's result counted too; it is told when the connection ends.
		mu.Lock()
		defer mu.Unlock()
		if !reflect.DeepEqual(heard, want) {
			t.Errorf("heard %v\nwant  %v", heard, want)
		}
	})
}

// A result hears whether the mail was taken in the end, whatever was decided: not where the client went away, nor where
// the door postponed it for all or could not keep its word.
func TestTaken(t *testing.T) {
	for _, tt := range []struct {
		name string
		mail pipelinetest.Mail
		says pipeline.Action // for a@
		want map[string]bool
	}{
		{"taken", pipelinetest.Mail{}, 0, map[string]bool{"a": true, "b": true, "all": true}},
		{"went away", pipelinetest.Mail{NoContent: true}, 0, map[string]bool{"a": false, "b": false, "all": false}},
		{"one is refused", pipelinetest.Mail{}, pipeline.Reject, map[string]bool{"a": false, "b": true, "all": true}},
		{"the disk is full", pipelinetest.Mail{Deliveries: []pipeline.Delivery{{Disposition: pipeline.Postponed}, {Disposition: pipeline.Postponed}}},
			0, map[string]bool{"a": false, "b": false, "all": false}},
		{"a mailbox is full", pipelinetest.Mail{Deliveries: []pipeline.Delivery{{Disposition: pipeline.Postponed}, {Disposition: pipeline.Delivered}}},
			0, map[string]bool{"a": false, "b": true, "all": true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard := map[string]bool{}
			hear := func(name string) func(context.Context, pipeline.Outcome) {
				return func(_ context.Context, o pipeline.Outcome) { heard[name] = o.Taken }
			}
			p, j := plan(t,
				pipelinetest.Step("all", stage(pipeline.Reads{Input: pipeline.InputSender}, always(R{After: hear("all")}))),
				pipelinetest.Step("each", stage(pipeline.Reads{Input: pipeline.InputRecipient}, func(_ context.Context, v V) (R, error) {
					return R{After: hear(v.Rcpt.Address.Local)}, nil
				})),
				pipelinetest.Step("no", stage(pipeline.Reads{Input: pipeline.InputRecipient, Can: final(pipeline.Reject)}, func(_ context.Context, v V) (R, error) {
					if v.Rcpt.Address.Local == "a" {
						return verdict(tt.says, 0, "no"), nil
					}
					return R{}, nil
				})),
			)
			tt.mail.To = []string{"a@example.org", "b@example.org"}
			run(t, p, j, tt.mail)
			if !reflect.DeepEqual(heard, tt.want) {
				t.Errorf("taken %v, want %v", heard, tt.want)
			}
		})
	}
}

// Refusals that rest on what is about the mail of logins count for them; others that read the envelope only do not.
func TestRefusalsOfLogins(t *testing.T) {
	for _, tt := range []struct {
		logins  bool
		client  pipeline.Client
		to      string
		refused bool
	}{
		{true, pipeline.Client{Login: "me"}, "you@example.org", true},
		{false, pipeline.Client{Login: "me"}, "you@example.org", false},
		{true, pipeline.Client{}, "you@example.org", true},
		{true, pipeline.Client{}, "postmaster@example.org", false},
	} {
		rate := pipelinetest.Step("rate", stage(pipeline.Reads{Input: pipeline.InputSender, Logins: tt.logins}, always(R{})))
		p, j := plan(t, rate, pipelinetest.Step("no", stage(
			pipeline.Reads{Input: pipeline.InputSender, Facts: []string{"rate"}, Can: final(pipeline.TempFail)}, always(verdict(pipeline.TempFail, 0, "no")))))
		ran := run(t, p, j, pipelinetest.Mail{Client: tt.client, To: []string{tt.to}})
		if got := ran.Refused[0] != nil; got != tt.refused {
			t.Errorf("%+v: refused %t", tt, got)
		}
	}
}

// What one recipient's policy says does not touch another's mail.
func TestRecipientIsTheUnit(t *testing.T) {
	reads := pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Can: final(pipeline.Reject)}
	p, j := plan(t,
		pipelinetest.Step("policy", stage(reads, func(_ context.Context, v V) (R, error) {
			switch v.Rcpt.Address.Local {
			case "strict":
				return verdict(pipeline.Reject, 0, "strict"), nil
			case "sorted":
				return R{Effects: []pipeline.Effect{{Kind: pipeline.FileInto, Folder: "Lists", By: "lists"}}}, nil
			case "broken":
				return R{}, errors.New("broken")
			}
			return R{}, nil
		})),
		pipelinetest.Step("flag", stage(pipeline.Reads{Input: pipeline.InputHeader}, always(R{
			Hits:    []pipeline.Hit{{Name: "x", Score: 2}},
			Effects: []pipeline.Effect{{Kind: pipeline.AddFlags, Flags: []string{`\Flagged`}}},
			Edits:   []pipeline.Edit{{Name: "X-A", Value: "b"}},
		}))),
	)
	ran := run(t, p, j, pipelinetest.Mail{To: []string{"strict@example.org", "sorted@example.org", "broken@example.org", "me@example.org"}})
	var got []string
	for _, d := range ran.Decisions {
		got = append(got, fmt.Sprintf("%s %s %s %v %g %d", d.Recipient.Address.Local, d.Verdict.Action, d.Folder, d.Flags, d.Score, len(d.Edits)))
	}
	want := []string{`strict reject  [] 0 0`, `sorted pass Lists [\Flagged] 2 1`, `broken pass  [\Flagged] 2 1`, `me pass  [\Flagged] 2 1`}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	r := ran.Record.Recipients
	if r[0].Disposition != pipeline.Held || r[1].FolderBy != "policy/lists" || r[2].Steps[0].Stages[0].Why != "broken" {
		t.Errorf("%+v", r)
	}
}

// After Keep no final verdict or threshold counts, but filing does; the last file in order wins.
func TestKeep(t *testing.T) {
	file := func(folder string, threshold bool) pipeline.Effect {
		return pipeline.Effect{Kind: pipeline.FileInto, Folder: folder, Threshold: threshold}
	}
	head := pipeline.Reads{Input: pipeline.InputHeader}
	can := func(a pipeline.Action) pipeline.Reads { return pipeline.Reads{Input: head.Input, Can: final(a)} }
	p, j := plan(t,
		pipelinetest.Step("first", stage(head, always(R{Effects: []pipeline.Effect{file("First", false)}}))),
		pipelinetest.Step("friend", stage(can(pipeline.Keep), always(verdict(pipeline.Keep, 0, "friend")))),
		pipelinetest.Step("second", stage(head, always(R{Effects: []pipeline.Effect{file("Second", false)}}))),
		pipelinetest.Step("spam", stage(can(pipeline.Reject), always(R{Verdict: pipeline.Verdict{Action: pipeline.Reject}, Effects: []pipeline.Effect{file("Junk", true)}}))),
	)
	ran := run(t, p, j, pipelinetest.Mail{})
	if d := ran.Decisions[0]; d.Verdict.Action != pipeline.Keep || d.Folder != "Second" || d.Step != "friend" || d.Junk {
		t.Errorf("%+v", d)
	}
}

// A shadow step's facts are seen; nothing else of it counts, its errors neither.
func TestShadow(t *testing.T) {
	for _, says := range []func(context.Context, V) (R, error){
		always(R{
			Verdict: pipeline.Verdict{Action: pipeline.Reject}, Hits: []pipeline.Hit{{Name: "h", Score: 9}},
			Effects: []pipeline.Effect{{Kind: pipeline.FileInto, Folder: "Junk"}}, Edits: []pipeline.Edit{{Name: "X-A", Value: "b"}},
		}),
		func(context.Context, V) (R, error) { return R{}, errors.New("broken") },
	} {
		step := pipelinetest.Step("try", stage(pipeline.Reads{Input: pipeline.InputClient, Can: final(pipeline.Reject)}, says))
		refuse := pipeline.Refuse
		step.Shadow, step.OnError = true, &refuse
		p, j := plan(t, step)
		ran := run(t, p, j, pipelinetest.Mail{})
		if ran.Refused[0] != nil {
			t.Fatalf("refused: %s", ran.Refused[0])
		}
		d := ran.Decisions[0]
		if d.Verdict.Action != pipeline.Pass || d.Folder != "" || len(d.Hits) != 0 || len(d.Edits) != 0 || d.Score != 0 {
			t.Errorf("%+v", d)
		}
		s := ran.Record.Steps[0]
		if !s.Shadow || s.Score() != 0 {
			t.Errorf("%+v", s)
		}
		if s.Stages[0].State == "answered" && (s.Stages[0].Verdict == nil || len(s.Hits) != 1 || !s.Hits[0].Shadow) {
			t.Errorf("not recorded: %+v", s)
		}
	}
}

// A second HELO, a login and STARTTLS drop what they outdate; a second mail of the connection keeps the rest.
func TestConnection(t *testing.T) {
	var clients, greetings []string
	p, _ := plan(t,
		pipelinetest.Step("client", stage(pipeline.Reads{Input: pipeline.InputClient}, func(_ context.Context, v V) (R, error) {
			clients = append(clients, v.Client.Login)
			return R{}, nil
		})),
		pipelinetest.Step("helo", stage(pipeline.Reads{Input: pipeline.InputGreeting}, func(_ context.Context, v V) (R, error) {
			greetings = append(greetings, v.Greeting)
			return R{}, nil
		})),
	)
	ctx, c := t.Context(), pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	s := p.NewSession(pipeline.SMTP, c)
	s.Connect(ctx)
	s.Helo(ctx, "one")
	s.Helo(ctx, "two")
	for range 2 {
		s.Mail(ctx, pipeline.Address{})
		s.Rcpt(ctx, pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")})
		s.Data(ctx)
		s.Content(ctx, pipelinetest.Parse(t, mail))
		if err := s.Done(ctx, pipeline.Reply{Code: 250}, []pipeline.Delivery{{Disposition: pipeline.Delivered}}); err != nil {
			t.Fatal(err)
		}
		s.Reset("after Done it does nothing")
	}
	c.Login = "me@example.org"
	s.SetClient(c)
	s.Mail(ctx, pipeline.Address{})
	s.Close()
	if want := []string{"", "me@example.org"}; !slices.Equal(clients, want) {
		t.Errorf("asked about clients %q", clients)
	}
	if want := []string{"one", "two", "two"}; !slices.Equal(greetings, want) {
		t.Errorf("asked about greetings %q", greetings)
	}
}

// A transaction that saw a recipient leaves a record, also without DATA; one that did not leaves none.
func TestEveryTransactionIsRecorded(t *testing.T) {
	p, j := plan(t)
	s := p.NewSession(pipeline.SMTP, pipeline.Client{})
	s.Mail(t.Context(), pipeline.Address{})
	s.Reset("RSET")
	if n := len(j.Records()); n != 0 {
		t.Errorf("%d records of nothing", n)
	}
	s.Mail(t.Context(), pipeline.Address{})
	s.Refuse(pipeline.Recipient{Address: pipelinetest.Address(t, "nobody@example.org")}, pipeline.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}, "no such account")
	s.Close()
	rec, _ := j.Last()
	if rec == nil || rec.End != "refused" || rec.Recipients[0].Disposition != pipeline.Refused || rec.Recipients[0].Note != "no such account" {
		t.Fatalf("%+v", rec)
	}
}

// The record of a discard is the only trace of the mail: it is durable, and without it the mail is not accepted.
func TestDiscardIsDurable(t *testing.T) {
	p, j := plan(t, pipelinetest.Step("drop", stage(pipeline.Reads{Input: pipeline.InputHeader, Can: final(pipeline.Discard)}, always(verdict(pipeline.Discard, 0, "drop")))))
	run(t, p, j, pipelinetest.Mail{})
	if _, durable := j.Last(); !durable {
		t.Error("the record of a discard was not durable")
	}
	j.Err = errors.New("disk full")
	s := p.NewSession(pipeline.SMTP, pipeline.Client{})
	s.Mail(t.Context(), pipeline.Address{})
	s.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, "me@example.org")})
	d := s.Content(t.Context(), pipelinetest.Parse(t, mail))
	settled := pipeline.SMTP.Settle(d, false)
	if err := s.Done(t.Context(), settled.Reply, []pipeline.Delivery{{Disposition: settled.Dispositions[0]}}); err == nil {
		t.Error("Done hides that the only trace of the mail is lost")
	}
}

// 51 runs of one mail with random delays in the stages: identical replies, decisions and records.
func TestDeterminism(t *testing.T) {
	type outcome struct{ replies, decisions, record string }
	var first outcome
	for n := range 51 {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(n), 7))
			var mu sync.Mutex
			slow := func(says func(V) (R, error)) func(context.Context, V) (R, error) {
				return func(ctx context.Context, v V) (R, error) {
					mu.Lock()
					d := time.Duration(r.IntN(5000)) * time.Millisecond
					mu.Unlock()
					select {
					case <-time.After(d):
					case <-ctx.Done():
						return R{}, ctx.Err()
					}
					return says(v)
				}
			}
			type fact struct {
				Listed bool `json:"listed"`
			}
			waits := func(in pipeline.Input, can ...pipeline.Final) pipeline.Reads {
				return pipeline.Reads{Input: in, Waits: true, Can: can}
			}
			scanner := func(name string, in pipeline.Input, err error) pipeline.Step {
				s := pipelinetest.Step(name, stage(waits(in), slow(func(V) (R, error) { return R{Fact: fact{true}}, err })))
				s.Kind.Fact = func(any) any { return fact{} }
				return s
			}
			postpone := pipeline.Postpone
			av := scanner("av", pipeline.InputBody, nil)
			av.OnError = &postpone
			p, j := plan(t,
				scanner("zen", pipeline.InputClient, nil),
				scanner("spf", pipeline.InputSender, errors.New("servfail")),
				scanner("dkim", pipeline.InputHeader, nil),
				av,
				pipelinetest.Step("each", stage(waits(pipeline.InputRecipient|pipeline.InputHeader, pipeline.Final{Action: pipeline.Reject}), slow(func(v V) (R, error) {
					if v.Rcpt.Address.Local == "b" {
						return verdict(pipeline.Reject, 0, "b wants none"), nil
					}
					return R{Edits: []pipeline.Edit{{Name: "X-For", Value: v.Rcpt.Address.Local}}}, nil
				}))),
				pipelinetest.Step("rules", stage(pipeline.Reads{Input: pipeline.InputHeader, Facts: []string{"zen", "spf", "dkim", "av"}}, func(_ context.Context, v V) (R, error) {
					return R{Hits: []pipeline.Hit{{Name: fmt.Sprintf("known_%t_%t", v.Facts.Of("zen").Unknown == nil, v.Facts.Of("spf").Unknown == nil), Score: 1}}}, nil
				})),
				pipelinetest.Step("first", stage(waits(pipeline.InputBody, pipeline.Final{Action: pipeline.Quarantine}), slow(func(V) (R, error) { return verdict(pipeline.Quarantine, 0, "first"), nil }))),
				pipelinetest.Step("second", stage(waits(pipeline.InputBody, pipeline.Final{Action: pipeline.Reject}), slow(func(V) (R, error) { return verdict(pipeline.Reject, 0, "second"), nil }))),
				scanner("behind", pipeline.InputBody, errors.New("whatever")),
			)
			ran := run(t, p, j, pipelinetest.Mail{To: []string{"a@example.org", "b@example.org", "c@example.org"}})
			ran.Record.Timings, ran.Record.Received = nil, time.Time{}
			js := func(v any) string {
				b, err := json.MarshalIndent(v, "", " ")
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			got := outcome{js(ran.Refused), js(ran.Decisions), js(ran.Record)}
			if n == 0 {
				first = got
			}
			if got != first {
				t.Fatalf("run %d differs:\n%s\nfirst:\n%s", n, got, first)
			}
		})
	}
	for _, want := range []string{`"not needed"`, `"servfail"`, `"known_true_false"`, `"b wants none"`, `"by": "first"`} {
		if !strings.Contains(first.record+first.decisions, want) {
			t.Errorf("the record has no %s:\n%s", want, first.record)
		}
	}
}

// A record that went through JSON is enough to go on where another door stopped: what it decided for a recipient is
// recalled, and a recipient that it does not name is decided from the recorded facts.
func TestResume(t *testing.T) {
	type fact struct {
		Listed bool `json:"listed"`
	}
	asked := 0
	zen := pipelinetest.Step("zen", stage(pipeline.Reads{Input: pipeline.InputClient}, func(context.Context, V) (R, error) {
		asked++
		return R{Fact: fact{true}}, nil
	}))
	zen.Kind.Fact = func(any) any { return fact{} }
	rules := pipelinetest.Step("rules", stage(pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader, Facts: []string{"zen"}}, func(_ context.Context, v V) (R, error) {
		f, ok := v.Facts.Of("zen").Fact.(fact)
		if !ok || !f.Listed {
			return R{}, fmt.Errorf("zen is %+v", v.Facts.Of("zen"))
		}
		return R{Effects: []pipeline.Effect{{Kind: pipeline.FileInto, Folder: "for " + v.Rcpt.Address.Local}},
			Edits: []pipeline.Edit{{Name: "X-For", Value: v.Rcpt.Address.Local}}}, nil
	}))
	rules.Kind.Pure = true
	sieve := pipelinetest.Step("sieve", stage(pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader}, always(R{
		Effects: []pipeline.Effect{{Kind: pipeline.AddFlags, Flags: []string{`\Seen`}}},
	})))
	sieve.Kind.AtDelivery = true
	p, j := plan(t, zen, rules, sieve)

	ran := pipelinetest.Run(t, p, pipeline.Milter, j, pipelinetest.Mail{From: "a@example.com", To: []string{"list@example.org", "me@example.org"}, Text: mail})
	if d := ran.Decisions[0]; len(d.Flags) != 0 || ran.Record.End != "handed over" {
		t.Errorf("the milter asked what is asked at delivery: %+v", d)
	}
	raw, err := json.Marshal(ran.Record)
	if err != nil {
		t.Fatal(err)
	}
	rec := new(pipeline.Record)
	if err := json.Unmarshal(raw, rec); err != nil {
		t.Fatal(err)
	}
	s := p.Resume(pipeline.LMTP, rec)
	defer s.Close()
	for _, r := range []pipeline.Recipient{
		{Address: pipelinetest.Address(t, "me@example.org"), Account: "me@example.org"},
		{Address: pipelinetest.Address(t, "one@example.org"), Account: "one@example.org", Original: pipelinetest.Address(t, "list@example.org")},
		{Address: pipelinetest.Address(t, "new@example.org"), Account: "new@example.org"},
	} {
		s.Rcpt(t.Context(), r)
	}
	s.Data(t.Context())
	var got []string
	for _, d := range s.Content(t.Context(), pipelinetest.Parse(t, mail)) {
		got = append(got, fmt.Sprintf("%s %s %v %t %s", d.Recipient.Address.Local, d.Folder, d.Flags, d.Recalled, d.Edits[0].Value))
	}
	want := []string{`me for me [\Seen] true me`, `one for list [\Seen] true list`, `new for new [\Seen] false new`}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if asked != 1 {
		t.Errorf("the world was asked %d times", asked)
	}
	if err := s.Done(t.Context(), pipeline.Reply{Code: 250}, make([]pipeline.Delivery, 3)); err != nil {
		t.Fatal(err)
	}
	if again, _ := j.Last(); again.ID != rec.ID || len(again.Recipients) != 3 {
		t.Errorf("%+v", again)
	}
}

// A fact that is unknown in part is recorded without that part, and recalled so.
func TestMissingIsNotRecorded(t *testing.T) {
	type listed struct {
		Listed bool `json:"listed"`
	}
	step := pipelinetest.Step("lists", stage(pipeline.Reads{Input: pipeline.InputClient}, always(R{
		Fact:    pipeline.Named[listed]{"zen": {}, "sbl": {Listed: true}},
		Missing: map[string]error{"zen": errors.New("no answer")},
	})))
	step.Kind.Fact = func(any) any { return pipeline.Named[listed]{"zen": {}, "sbl": {}} }
	var seen pipeline.Finding
	look := pipelinetest.Step("look", stage(pipeline.Reads{Input: pipeline.InputHeader, Facts: []string{"lists"}}, func(_ context.Context, v V) (R, error) {
		seen = v.Facts.Of("lists")
		return R{}, nil
	}))
	look.Kind.Pure = true
	p, j := plan(t, step, look)
	ran := run(t, p, j, pipelinetest.Mail{})
	if got, want := string(ran.Record.Steps[0].Fact), `{"sbl":{"listed":true}}`; got != want || ran.Record.Steps[0].Missing["zen"] != "no answer" {
		t.Errorf("recorded %s, missing %v; want %s", got, ran.Record.Steps[0].Missing, want)
	}
	s := p.Resume(pipeline.LMTP, ran.Record)
	defer s.Close()
	s.Rcpt(t.Context(), pipeline.Recipient{Address: pipelinetest.Address(t, "new@example.org")})
	s.Content(t.Context(), pipelinetest.Parse(t, mail))
	if e := seen.Missing["zen"]; seen.Unknown != nil || e == nil || e.Error() != "no answer" || len(seen.Missing) != 1 {
		t.Errorf("recalled %+v", seen)
	}
}

// Mail of which nothing is left to the MTA was not handed over.
func TestNobodyLeft(t *testing.T) {
	p, j := plan(t, pipelinetest.Step("drop", stage(pipeline.Reads{Input: pipeline.InputHeader, Can: final(pipeline.Discard)}, always(verdict(pipeline.Discard, 0, "drop")))))
	if ran := pipelinetest.Run(t, p, pipeline.Milter, j, pipelinetest.Mail{Text: mail}); ran.Record.End != "done" {
		t.Errorf("ended: %s", ran.Record.End)
	}
}

func TestHandover(t *testing.T) {
	h := pipeline.Handover{Key: []byte("secret")}
	m := pipelinetest.Parse(t, mail)
	v := h.Value("abc", m)
	if id, ok := h.Verify(" "+v, m); !ok || id != "abc" {
		t.Errorf("not recognised: %q", v)
	}
	for name, text := range map[string]string{
		"another body":       mail + "more\n",
		"another Message-ID": strings.Replace(mail, "<1@", "<2@", 1),
	} {
		if _, ok := h.Verify(v, pipelinetest.Parse(t, text)); ok {
			t.Errorf("%s: recognised", name)
		}
	}
	// Postfix folds the header and breaks lines of more than 998 octets, and adds nothing but line ends and a space.
	long := "Message-ID: <1@x>\n\n" + strings.Repeat("x", 3000) + " y\tz\n"
	broken := "Message-ID:\n <1@x>\nX: y\n\n" + strings.Repeat("x", 998) + "\n " + strings.Repeat("x", 2002) + "\n y z"
	if _, ok := h.Verify(h.Value("abc", pipelinetest.Parse(t, long)), pipelinetest.Parse(t, broken)); !ok {
		t.Error("not recognised after Postfix broke its lines")
	}
	for _, forged := range []string{"", "abc", "abc ", "abd " + v[4:], v + "x", v[:len(v)-1]} {
		if _, ok := h.Verify(forged, m); ok {
			t.Errorf("%q: recognised", forged)
		}
	}
	if _, ok := (pipeline.Handover{}).Verify((pipeline.Handover{}).Value("abc", m), m); ok {
		t.Error("without a key a value is recognised")
	}
}

// A plan says what is wrong with it, all at once, and what has to wait.
func TestNewPlan(t *testing.T) {
	bad := pipelinetest.Step("bad name")
	bad.Pos = "sluice.yaml:3:5"
	named := pipelinetest.Step("lists")
	named.Kind.Fact = func(any) any { return pipeline.Named[struct{}]{"zen-pbl": {}} }
	_, err := pipeline.NewPlan([]pipeline.Step{bad, named, pipelinetest.Step("a"), pipelinetest.Step("a"),
		pipelinetest.Step("b", stage(pipeline.Reads{Facts: []string{"nowhere"}}, nil))}, pipelinetest.Env(t), pipeline.Options{})
	want := `sluice.yaml:3:5: bad name: "bad name" cannot be the name of a step: write lower-case letters, digits and _, a letter first
lists: "zen-pbl" cannot be used as a name in rules: write lower-case letters, digits and _, a letter first
a: there are two steps called a: give one a name of its own with ` + "`name:`" + `
b: reads the facts of nowhere, which is no step before it`
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	p, _ := plan(t,
		pipelinetest.Step("friends", stage(pipeline.Reads{Input: pipeline.InputHeader, Can: final(pipeline.Keep)}, nil)),
		pipelinetest.Step("zen", stage(pipeline.Reads{Input: pipeline.InputClient, Can: final(pipeline.Reject)}, nil)))
	if got := p.Warnings(); len(got) != 1 || got[0].Step != "zen" || got[0].String() != "zen acts at content and not at connect, because friends may say keep" {
		t.Errorf("%q", got)
	}
}

func TestSpeakEarliest(t *testing.T) {
	env := pipelinetest.Env(t)
	p, err := pipeline.NewPlan([]pipeline.Step{pipelinetest.Step("zen", stage(pipeline.Reads{Input: pipeline.InputClient, Can: final(pipeline.Reject)}, always(verdict(pipeline.Reject, 0, "listed"))))}, env, pipeline.Options{SpeakEarliest: true})
	if err != nil {
		t.Fatal(err)
	}
	s := p.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
	defer s.Close()
	if r := s.Connect(t.Context()); r == nil || r.Text != "listed" {
		t.Errorf("at connect: %v", r)
	}
}

func BenchmarkEightEmptyStages(b *testing.B) {
	env := pipelinetest.Env(b)
	env.Log = nil
	var steps []pipeline.Step
	for i, in := range []pipeline.Input{pipeline.InputClient, pipeline.InputGreeting, pipeline.InputSender, pipeline.InputRecipient, pipeline.InputRecipients, pipeline.InputHeader, pipeline.InputBody, pipeline.InputHeader | pipeline.InputRecipient} {
		steps = append(steps, pipelinetest.Step(fmt.Sprintf("s%d", i), stage(pipeline.Reads{Input: in, Waits: i%2 == 0}, nil)))
	}
	p := pipelinetest.Plan(b, env, steps...)
	m := pipelinetest.Parse(b, mail)
	from, to := pipelinetest.Address(b, "a@example.com"), pipelinetest.Address(b, "me@example.org")
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		s := p.NewSession(pipeline.SMTP, pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")})
		s.Connect(ctx)
		s.Helo(ctx, "x")
		s.Mail(ctx, from)
		s.Rcpt(ctx, pipeline.Recipient{Address: to})
		s.Data(ctx)
		s.Content(ctx, m)
		s.Close()
	}
}

// A step of two stages: what the first leaves open the second finds, or says why it could not.
func TestTwoStagesOfAStep(t *testing.T) {
	type F struct {
		Domain string `json:"domain" expr:"domain"`
		Result string `json:"result" expr:"result"`
	}
	for _, tt := range []struct {
		name            string
		err             error
		missing, record string
	}{
		{"found", nil, "", `{"domain":"a.example","result":"pass"}`},
		{"failed", errors.New("no answer"), "no answer", `{"domain":"a.example"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := stage(pipeline.Reads{Input: pipeline.InputHeader}, always(R{
				Fact: F{Domain: "a.example"}, Missing: map[string]error{"result": errors.New("not found yet")},
			}))
			second := stage(pipeline.Reads{Facts: []string{"two"}}, func(_ context.Context, v V) (R, error) {
				f := v.Facts.Of("two").Fact.(F)
				f.Result = "pass"
				return R{Fact: f}, tt.err
			})
			two := pipelinetest.Step("two", first, second)
			two.Kind.Fact = func(any) any { return F{} }
			var seen pipeline.Finding
			reader := stage(pipeline.Reads{Facts: []string{"two"}}, func(_ context.Context, v V) (R, error) {
				seen = v.Facts.Of("two")
				return R{}, nil
			})
			p, j := plan(t, two, pipelinetest.Step("reader", reader))
			got := run(t, p, j, pipelinetest.Mail{}).Record.Steps[0]
			missing := ""
			if e := seen.Missing["result"]; e != nil {
				missing = e.Error()
			}
			if f := seen.Fact.(F); f.Domain != "a.example" || missing != tt.missing {
				t.Errorf("seen %+v", seen)
			}
			if string(got.Fact) != tt.record || got.Missing["result"] != tt.missing || got.Unknown != "" {
				t.Errorf("recorded %s, %+v", got.Fact, got)
			}
		})
	}
}

// A step that was not asked did not fail.
func TestNotAskedIsNotFailed(t *testing.T) {
	for _, tt := range []struct {
		trusted, notAsked bool
	}{{false, false}, {true, true}} {
		asked := stage(pipeline.Reads{Input: pipeline.InputClient, Strangers: true}, func(context.Context, V) (R, error) {
			return R{}, errors.New("no answer")
		})
		var seen pipeline.Finding
		reader := stage(pipeline.Reads{Facts: []string{"asked"}}, func(_ context.Context, v V) (R, error) {
			seen = v.Facts.Of("asked")
			return R{}, nil
		})
		p, j := plan(t, pipelinetest.Step("asked", asked), pipelinetest.Step("reader", reader))
		run(t, p, j, pipelinetest.Mail{Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Trusted: tt.trusted}})
		if seen.Unknown == nil || errors.Is(seen.Unknown, pipeline.ErrNotAsked) != tt.notAsked {
			t.Errorf("trusted %t: %v", tt.trusted, seen.Unknown)
		}
	}
}
