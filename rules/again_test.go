package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

type againFact struct {
	Bad  bool   `json:"bad"`
	Word string `json:"word"`
}

// againPlan makes a plan of two scanners and a rules step. What the scanners find depends on the mail, and now and then they
// fail.
func againPlan(t *testing.T, rules string, c Config, asked *int) (*pipeline.Plan, *pipelinetest.Journal) {
	t.Helper()
	scanner := func(name string, input pipeline.Input, find func(v pipeline.View) (pipeline.Result, error)) pipeline.Step {
		return pipeline.Step{Name: name, Kind: pipeline.Kind{
			Name: name, Fact: func(any) any { return againFact{} }, Config: func() any { return &struct{}{} },
			New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
				return []pipeline.Stage{pipelinetest.Stage{
					Looks: pipeline.Reads{Input: input},
					Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
						*asked++
						return find(v)
					},
				}}, nil
			},
		}}
	}
	find := func(key string) (pipeline.Result, error) {
		sum := 0
		for _, c := range []byte(key) {
			sum = (sum*31 + int(c)) % 1000
		}
		switch sum % 7 {
		case 0:
			return pipeline.Result{}, errors.New("down")
		case 1:
			return pipeline.Result{Fact: againFact{Bad: true}, Missing: map[string]error{"word": errors.New("no answer")}}, nil
		}
		return pipeline.Result{Fact: againFact{Bad: sum%2 == 0, Word: []string{"spam", "ham", ""}[sum%3]}}, nil
	}
	j := &pipelinetest.Journal{}
	e := pipelinetest.Env(t)
	e.Journal = j
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e.Now = func() time.Time { return at }
	n := 0
	e.NewID = func() string { n++; return fmt.Sprint("id", n) }
	e.Files = func(string) ([]pipeline.File, error) {
		return []pipeline.File{{Path: "r.yaml", Text: []byte(rules)}}, nil
	}
	c.Files = []string{"r.yaml"}
	kind := Kind()
	p, err := pipeline.NewPlan([]pipeline.Step{
		scanner("list", pipeline.InputClient|pipeline.InputSender, func(v pipeline.View) (pipeline.Result, error) { return find(v.Sender.Local) }),
		scanner("person", pipeline.InputRecipient, func(v pipeline.View) (pipeline.Result, error) { return find(v.Rcpt.Address.Local) }),
		scanner("scan", pipeline.InputBody, func(v pipeline.View) (pipeline.Result, error) { return find(v.Message.Subject()) }),
		{Kind: kind, Config: &c},
	}, e, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p, j
}

// someRulesAtRandom writes rules of which the nth of off never holds.
func someRulesAtRandom(seed uint64, off int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 3 + r.IntN(8) {
		var terms []string
		for range 1 + r.IntN(3) {
			term := pick(`subject contains "a"`, `subject contains "b"`, `has("X-One")`, `header("X-One") == "1"`, "list.bad", `list.word == "spam"`,
				"scan.bad", `scan.word != "ham"`, "person.bad", `rcpt.local == "anna"`, `from.local startsWith "s"`, "known(scan.word)", "size > 80",
				`rcpt.domain == header_from.domain`)
			if i > 0 && r.IntN(4) == 0 {
				term = fmt.Sprintf(`hit("r%d")`, r.IntN(i))
			}
			if r.IntN(3) == 0 {
				term = "not (" + term + ")"
			}
			terms = append(terms, term)
		}
		when := strings.Join(terms, pick(" and ", " or "))
		if i == off {
			when = "(" + when + ") and false" // asked when it was asked
		}
		fmt.Fprintf(&b, "  - name: r%d\n    when: '%s'\n", i, when)
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    score: %d\n", r.IntN(7)-1)
		}
		switch r.IntN(9) {
		case 0:
			b.WriteString("    reject: true\n")
		case 1:
			b.WriteString("    quarantine: true\n")
		case 2:
			b.WriteString("    keep: true\n")
		case 3:
			b.WriteString("    tempfail: true\n")
		case 4, 5:
			fmt.Fprintf(&b, "    file: F%d\n", i)
		case 6:
			fmt.Fprintf(&b, "    flag: f%d\n", i)
		}
	}
	return b.String()
}

// outcomeOf is what was decided, without what tells a replay from the first time; evidence where the message was there.
func outcomeOf(r *pipeline.Record, evidence bool) string {
	c := *r
	c.Timings = nil
	steps := func(all []pipeline.StepRecord) (out []pipeline.StepRecord) {
		for _, s := range all {
			var stages []pipeline.StageRecord
			for _, x := range s.Stages {
				if x.State == "recalled" {
					x.State = "answered"
				}
				if !evidence {
					x.Terms = nil
				}
				stages = append(stages, x)
			}
			s.Stages = stages
			if !evidence {
				var hits []pipeline.Hit
				for _, h := range s.Hits {
					h.Evidence = nil
					hits = append(hits, h)
				}
				s.Hits = hits
				for i := range s.Undecided {
					s.Undecided[i].Why = ""
				}
			}
			out = append(out, s)
		}
		return out
	}
	c.Steps = steps(c.Steps)
	c.Recipients = nil
	for _, x := range r.Recipients {
		x.Steps = steps(x.Steps)
		c.Recipients = append(c.Recipients, x)
	}
	text, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// A term that asks a list is another one when the list is: what was recorded of it does not answer for today's.
func TestReplayWithAnotherList(t *testing.T) {
	file := func(word string) string {
		return "lists: {bad: {kind: words, values: [" + word + "]}}\nrules: [{name: r, when: subject contains bad, reject: true}]\n"
	}
	then, j := againPlan(t, file("pills"), DefaultConfig(), new(int))
	now, _ := againPlan(t, file("watches"), DefaultConfig(), new(int))
	same, _ := againPlan(t, file("pills"), DefaultConfig(), new(int))
	record := pipelinetest.Run(t, then, pipeline.SMTP, j, pipelinetest.Mail{From: "a@b.example", Text: "Subject: pills\n\nx\n"}).Record
	for _, tt := range []struct {
		plan *pipeline.Plan
		says pipeline.Action
		gaps string
	}{
		{same, pipeline.Reject, "[]"},
		{now, pipeline.Pass, "[the message is gone, and `subject contains bad` was not looked at then]"},
	} {
		// A plan that is not the one that decided takes no terms of it for its own.
		if blind, err := tt.plan.Replay(t.Context(), record, pipeline.Replay{}); err != nil || (len(blind.Gaps) > 0) != (tt.plan != same) {
			t.Errorf("without the plan that decided: %v, %v", blind.Gaps, err)
		}
		got, err := tt.plan.Replay(t.Context(), record, pipeline.Replay{Then: then})
		if err != nil || got.Record.Recipients[0].Verdict.Action != tt.says || fmt.Sprint(got.Gaps) != tt.gaps {
			t.Errorf("got %v, %v, %v; want %v, %s", got.Record.Recipients[0].Verdict, got.Gaps, err, tt.says, tt.gaps)
		}
	}
}

// What a term came to with one score is not what it comes to with another.
func TestReplayWithAnotherScore(t *testing.T) {
	p, j := againPlan(t, `rules:
  - {name: a, when: subject contains "a", score: 5}
  - {name: high, when: score > 3, file: High}
  - {name: mixed, when: 'score > (size > 0 ? 3 : 100)', reject: true}
`, DefaultConfig(), new(int))
	record := pipelinetest.Run(t, p, pipeline.SMTP, j, pipelinetest.Mail{From: "a@b.example", Text: "Subject: a\n\nx\n"}).Record
	redacted := copyOf(t, record)
	redacted.Redacted = &pipeline.Redaction{}
	for name, r := range map[string]*pipeline.Record{"as it was": record, "redacted": redacted} {
		for _, tt := range []struct {
			without []pipeline.Place
			want    string
		}{
			{nil, "reject by mixed into High, []"},
			{[]pipeline.Place{{Step: "rules", At: 0}}, "pass by  into , [the message is gone, and `score > (size > 0 ? 3 : 100)` was not looked at then]"},
		} {
			got, err := p.Replay(t.Context(), r, pipeline.Replay{Without: tt.without})
			if err != nil {
				t.Fatal(err)
			}
			x := got.Record.Recipients[0]
			s := fmt.Sprintf("%s by %s into %s, %s", x.Verdict.Action, x.Verdict.By, x.Folder, got.Gaps)
			if s = strings.ReplaceAll(s, "the record was redacted", "the message is gone"); s != tt.want {
				t.Errorf("%s: %s; want %s", name, s, tt.want)
			}
		}
	}
}

// decisionsOf is what was decided about each recipient.
func decisionsOf(r *pipeline.Record) (all []string) {
	for _, x := range r.Recipients {
		all = append(all, fmt.Sprintf("%s: %s by %s/%s, %s by %s, %q, %g, %s", x.Address.Raw, x.Verdict.Action, x.Step, x.Verdict.By,
			x.Folder, x.FolderBy, x.Flags, x.Score, x.Disposition))
	}
	return all
}

// copyOf is what the journal gives back.
func copyOf(t *testing.T, r *pipeline.Record) *pipeline.Record {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out pipeline.Record
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// A replay agrees with the record, with the message and without; without a rule it says what the engine says where the rule
// never holds; and the world is not asked.
func TestReplay(t *testing.T) {
	exact, left, changed, gone := 0, 0, 0, 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := DefaultConfig()
		if r.IntN(2) == 0 {
			c.Reject, c.Junk = 9, 4
		}
		asked := 0
		text := someRulesAtRandom(seed, -1)
		p, j := againPlan(t, text, c, &asked)
		for range 4 {
			door := []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter}[r.IntN(3)]
			m := pipelinetest.Mail{
				From: fmt.Sprintf("s%d@example.com", r.IntN(30)), To: []string{"anna@example.org", "bert@example.net", "carl@example.com"}[r.IntN(3):],
				Text: fmt.Sprintf("From: x@example.com\nSubject: %s%d\n%s\nhello\n", []string{"a", "b", "ab", "c"}[r.IntN(4)], r.IntN(20),
					[]string{"", "X-One: 1\n", "X-One: 2\n"}[r.IntN(3)]),
				NoContent: r.IntN(10) == 0,
			}
			ran := pipelinetest.Run(t, p, door, j, m)
			record := copyOf(t, ran.Record)
			before := asked
			parsed := pipelinetest.Parse(t, m.Text)
			whole, err := p.Replay(t.Context(), record, pipeline.Replay{Message: parsed})
			if err != nil {
				t.Fatal(err)
			}
			if asked != before {
				t.Fatalf("seed %d: the replay asked the world", seed)
			}
			if len(ran.Decisions) > 0 {
				if got, want := outcomeOf(whole.Record, true), outcomeOf(record, true); got != want || len(whole.Gaps) > 0 {
					t.Fatalf("seed %d: %s\n%s\nreplayed (gaps %q) and recorded: %s", seed, door, text, whole.Gaps, difference(got, want))
				}
				exact++
			}
			terms, err := p.Replay(t.Context(), record, pipeline.Replay{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := outcomeOf(terms.Record, false), outcomeOf(record, false); len(ran.Decisions) > 0 && (got != want || len(terms.Gaps) > 0) {
				t.Fatalf("seed %d: %s\n%s\nreplayed without the mail (gaps %q) and recorded: %s", seed, door, text, terms.Gaps, difference(got, want))
			}
			if len(ran.Decisions) > 0 {
				redacted := copyOf(t, record)
				redacted.Redacted = &pipeline.Redaction{What: []string{"addresses", "facts"}}
				redacted.Sender = pipelinetest.Address(t, "redacted1@example.com")
				for i := range redacted.Recipients {
					redacted.Recipients[i].Address.Local = "redacted2"
				}
				for i := range redacted.Steps {
					if len(redacted.Steps[i].Fact) > 0 {
						redacted.Steps[i].Fact, redacted.Steps[i].Missing, redacted.Steps[i].Unknown = nil, nil, "taken out"
					}
				}
				blind, err := p.Replay(t.Context(), redacted, pipeline.Replay{Message: parsed})
				if err != nil {
					t.Fatal(err)
				}
				for i, x := range blind.Record.Recipients {
					y := record.Recipients[i]
					if x.Verdict.Action != y.Verdict.Action || x.Verdict.By != y.Verdict.By || x.Folder != y.Folder || x.Score != y.Score || len(blind.Gaps) > 0 {
						t.Fatalf("seed %d: %s redacted\n%s\n%s by %s into %s, %g (gaps %q); recorded %s by %s into %s, %g", seed, door, text,
							x.Verdict.Action, x.Verdict.By, x.Folder, x.Score, blind.Gaps, y.Verdict.Action, y.Verdict.By, y.Folder, y.Score)
					}
				}
			}
			for _, x := range record.Recipients {
				if x.Step != "rules" || x.Verdict.By == "" || len(ran.Decisions) == 0 {
					continue
				}
				at := []pipeline.Place{{Step: "rules", At: x.Verdict.At}}
				without, err := p.Replay(t.Context(), record, pipeline.Replay{Message: parsed, Without: at})
				if err != nil {
					t.Fatal(err)
				}
				if len(without.Gaps) > 0 {
					gone++ // what was not needed then would be now
					continue
				}
				other, otherJournal := againPlan(t, someRulesAtRandom(seed, x.Verdict.At), c, new(int))
				want := decisionsOf(pipelinetest.Run(t, other, door, otherJournal, m).Record)
				got := decisionsOf(without.Record)
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Fatalf("seed %d: %s without %s\n%s\ngot  %q\nwant %q", seed, door, x.Verdict.By, text, got, want)
				}
				left++
				if strings.Join(got, "\n") != strings.Join(decisionsOf(record), "\n") {
					changed++
				}
				fromTerms, err := p.Replay(t.Context(), record, pipeline.Replay{Without: at})
				if err != nil {
					t.Fatal(err)
				}
				if len(fromTerms.Gaps) == 0 && strings.Join(decisionsOf(fromTerms.Record), "\n") != strings.Join(want, "\n") {
					t.Fatalf("seed %d: %s without %s and without the mail\n%s\ngot  %q\nwant %q", seed, door, x.Verdict.By, text,
						decisionsOf(fromTerms.Record), want)
				}
			}
		}
	}
	t.Logf("%d replays agree; %d of %d without the decider say otherwise; %d need what was not needed", exact, changed, left, gone)
	if exact < 200 || changed < 50 || changed != left {
		t.Errorf("%d replays, %d without the decider, %d of them otherwise: the test looks at too little", exact, left, changed)
	}
}

// difference is where two texts part, by line.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			from := max(i-12, 0)
			return strings.Join(x[from:min(i+8, len(x))], "\n") + "\n--- not ---\n" + strings.Join(y[from:min(i+8, len(y))], "\n")
		}
	}
	return "the second goes on"
}
