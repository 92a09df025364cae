package replay

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/rules"
)

type listFact struct {
	Listed bool `json:"listed"`
}

// A site is a plan of a list of senders, a scanner of contents, and rules.
type site struct {
	plan    *pipeline.Plan
	journal *pipelinetest.Journal
}

func newSite(t testing.TB, text string, with ...pipeline.Step) site {
	t.Helper()
	j := &pipelinetest.Journal{}
	e := pipelinetest.Env(t)
	e.Journal = j
	e.Files = pipelinetest.Files{"r.yaml": text}.Open
	scanner := func(name string, input pipeline.Input, find func(v pipeline.View) (bool, error)) pipeline.Step {
		return pipeline.Step{Name: name, Kind: pipeline.Kind{
			Name: name, Fact: func(any) any { return listFact{} }, Config: func() any { return &struct{}{} },
			New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
				return []pipeline.Stage{pipelinetest.Stage{Looks: pipeline.Reads{Input: input}, Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
					listed, err := find(v)
					return pipeline.Result{Fact: listFact{listed}}, err
				}}}, nil
			},
		}}
	}
	c := rules.DefaultConfig()
	c.Files, c.Junk, c.Reject = []string{"r.yaml"}, 3, 9
	steps := []pipeline.Step{
		scanner("list", pipeline.InputSender, func(v pipeline.View) (bool, error) {
			if v.Sender.Local == "broken" {
				return false, errors.New("timeout")
			}
			return v.Sender.Domain == "bad.example", nil
		}),
		scanner("scan", pipeline.InputBody, func(v pipeline.View) (bool, error) { return strings.Contains(v.Message.Subject(), "virus"), nil }),
	}
	steps = append(append(steps, with...), pipeline.Step{Kind: rules.Kind(), Config: &c})
	return site{pipelinetest.Plan(t, e, steps...), j}
}

func (s site) side() Side {
	return Side{Plan: s.plan, Junk: func(folder string) bool { return folder == "Junk" }}
}

// received takes a mail in and returns its case, with every recipient's label.
func (s site) received(t testing.TB, subject, from string, labels ...Label) *Case {
	t.Helper()
	var to []string
	for i := range labels {
		to = append(to, fmt.Sprintf("u%d@example.org", i))
	}
	text := "From: " + from + "\nSubject: " + subject + "\nMessage-ID: <" + strings.ReplaceAll(subject, " ", ".") + "@x>\n\nbody\n"
	ran := pipelinetest.Run(t, s.plan, pipeline.SMTP, s.journal, pipelinetest.Mail{From: from, To: to, Text: text, Accounts: true})
	c := &Case{Record: ran.Record, Message: pipelinetest.Parse(t, text), Then: s.plan}
	for i, l := range labels {
		c.Copies = append(c.Copies, Copy{At: i, Label: l, Why: "the test says so"})
	}
	return c
}

func compare(t testing.TB, was, is site, c *Case) *Compared {
	t.Helper()
	x, err := Compare(t.Context(), was.side(), is.side(), c, false)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Compare(t.Context(), was.side(), is.side(), c, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range []*Compared{x, other} {
		if len(c.Copies) > 0 && y.OldCost <= 0 && y.NewCost <= 0 {
			t.Error("nothing was measured")
		}
	}
	if !reflect.DeepEqual(x.Old, other.Old) || !reflect.DeepEqual(x.New, other.New) || !slices.Equal(x.Gaps, other.Gaps) {
		t.Errorf("it matters who begins: %+v, %+v", x, other)
	}
	return x
}

func outcomes(all []Outcome) string {
	var out []string
	for _, o := range all {
		s := o.What + " by " + o.By
		if o.Reason != "" {
			s += " (" + o.Reason + ")"
		}
		if o.KeptOut {
			s += " kept out"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

const oldRules = `
rules:
  - {name: bad, when: list.listed, score: 4}
  - {name: prize, when: 'subject contains "prize"', score: 2}
  - {name: virus, when: scan.listed, reject: 5.7.1 a virus}
  - {name: lists, when: 'subject contains "[list]"', file: Lists}
`

const newRules = `
rules:
  - {name: good, when: 'from.local == "friend"', keep: true}
  - {name: bad, when: list.listed and not (rcpt.local == "u1"), score: 4}
  - {name: prize, when: 'subject contains "prize"', score: 3}
  - {name: virus, when: scan.listed, quarantine: true}
  - {name: known, when: not list.listed, score: -1}
  - {name: tried, when: 'subject contains "tried"', score: 5, shadow: true}
`

func TestCompare(t *testing.T) {
	was, is := newSite(t, oldRules), newSite(t, newRules)
	for _, tt := range []struct {
		subject, from string
		labels        []Label
		old, new      string
		undecided     string // of the new side
	}{
		{"hello", "a@ok.example", []Label{Ham}, "delivered to INBOX by nobody objected", "delivered to INBOX by nobody objected", ""},
		{"hello", "a@bad.example", []Label{Spam, Unknown},
			"delivered to Junk by rules (score 4 reaches junk: 3) kept out; delivered to Junk by rules (score 4 reaches junk: 3) kept out",
			"delivered to Junk by rules (score 4 reaches junk: 3) kept out; delivered to INBOX by nobody objected", ""},
		{"a prize", "a@bad.example", []Label{Spam}, "delivered to Junk by rules (score 6 reaches junk: 3) kept out",
			"delivered to Junk by rules (score 7 reaches junk: 3) kept out", ""},
		{"virus", "a@ok.example", []Label{Unknown}, "refused by rules/virus kept out", "quarantined by rules/virus kept out", ""},
		{"virus", "friend@ok.example", []Label{Unknown}, "refused by rules/virus kept out", "delivered to INBOX by rules/good", ""},
		{"a [list]", "a@ok.example", []Label{Ham}, "delivered to Lists by rules/lists", "delivered to INBOX by nobody objected", ""},
		{"a prize", "broken@ok.example", []Label{Ham}, "delivered to INBOX by nobody objected",
			"delivered to Junk by rules (score 3 reaches junk: 3) kept out", "rules/known"},
	} {
		x := compare(t, was, is, was.received(t, tt.subject, tt.from, tt.labels...))
		if got := outcomes(x.Old); got != tt.old {
			t.Errorf("%s from %s: old %s, want %s", tt.subject, tt.from, got, tt.old)
		}
		if got := outcomes(x.New); got != tt.new {
			t.Errorf("%s from %s: new %s, want %s", tt.subject, tt.from, got, tt.new)
		}
		if len(x.Disagree) > 0 || !x.SamePlan || len(x.Gaps) > 0 {
			t.Errorf("%s from %s: disagree %v, same plan %v, gaps %v", tt.subject, tt.from, x.Disagree, x.SamePlan, x.Gaps)
		}
		if tt.undecided != "" && !slices.ContainsFunc(x.Undecided[1], func(u pipeline.Undecided) bool { return u.Step+"/"+u.Name == tt.undecided }) {
			t.Errorf("%s from %s: undecided %v", tt.subject, tt.from, x.Undecided[1])
		}
	}
}

// Right after a mail came nobody has heard of its shadow rules: that is no difference.
func TestDifferencesOfShadowsUnderWay(t *testing.T) {
	step := func(state string, hits ...pipeline.Hit) *pipeline.Record {
		return &pipeline.Record{Steps: []pipeline.StepRecord{{Name: "rules", Hits: hits, Stages: []pipeline.StageRecord{{State: state}}}}}
	}
	live, tried := pipeline.Hit{Name: "live"}, pipeline.Hit{At: 1, Name: "tried", Shadow: true}
	for _, tt := range []struct {
		state string
		hits  []pipeline.Hit
		want  string
	}{
		{"not finished", []pipeline.Hit{live}, "[]"},
		{"not run", []pipeline.Hit{live}, "[]"},
		{"answered", []pipeline.Hit{live}, "[rules of rules was live and is live, tried]"},
		{"not finished", nil, "[rules of rules was none and is live]"},
	} {
		if got := fmt.Sprint(Differences(step(tt.state, tt.hits...), step("answered", live, tried))); got != tt.want {
			t.Errorf("%s %v: %s, want %s", tt.state, tt.hits, got, tt.want)
		}
	}
}

func TestCompareWithoutTheMail(t *testing.T) {
	was := newSite(t, oldRules)
	same := newSite(t, strings.Replace(oldRules, "score: 2", "score: 3", 1))
	other := newSite(t, oldRules+"  - {name: fresh, when: 'subject contains \"lottery\"', score: 1}\n")
	c := was.received(t, "a prize", "a@ok.example", Spam)
	c.Message, c.Gone = nil, "deleted"

	x := compare(t, was, same, c)
	if got, want := outcomes(x.New), "delivered to Junk by rules (score 3 reaches junk: 3) kept out"; got != want || len(x.Gaps) > 0 {
		t.Errorf("by the recorded terms: %s %v, want %s", got, x.Gaps, want)
	}
	x = compare(t, was, other, c)
	if len(x.Gaps) != 1 || !strings.Contains(x.Gaps[0], "`subject contains \"lottery\"`") || x.Old != nil || x.New != nil {
		t.Errorf("a term that nobody looked at: %+v", x)
	}
	c.Then = nil
	if x = compare(t, was, same, c); len(x.Gaps) == 0 {
		t.Errorf("without the plan of the time: %+v", x)
	}
}

func TestCompareWithStepsThatTheRecordDoesNotHave(t *testing.T) {
	was := newSite(t, oldRules)
	more := newSite(t, oldRules, pipelinetest.Step("extra", pipelinetest.Stage{Looks: pipeline.Reads{Input: pipeline.InputSender}}))
	c := was.received(t, "hello", "a@ok.example", Ham)
	if x := compare(t, was, more, c); len(x.Gaps) > 0 || len(x.New) != 1 {
		t.Errorf("a step that nobody reads: %+v", x)
	}
	may := newSite(t, oldRules, pipelinetest.Step("extra", pipelinetest.Stage{Looks: pipeline.Reads{
		Input: pipeline.InputSender, Can: []pipeline.Final{{Action: pipeline.Reject}},
	}}))
	if x := compare(t, was, may, c); len(x.Gaps) != 1 || !strings.HasPrefix(x.Gaps[0], "extra was not asked then: ") {
		t.Errorf("a step that could have refused it: %+v", x)
	}
	c.Record.Steps = slices.DeleteFunc(c.Record.Steps, func(s pipeline.StepRecord) bool { return s.Name == "scan" })
	if x := compare(t, was, was, c); len(x.Gaps) != 1 || !strings.HasPrefix(x.Gaps[0], "scan was not asked then: ") {
		t.Errorf("a step that rules read: %+v", x)
	}
}

func TestCompareWhatIsCertain(t *testing.T) {
	was := newSite(t, oldRules)
	c := was.received(t, "virus", "a@ok.example", Unknown)
	c.Message, c.Gone = nil, "refused"
	behind := newSite(t, oldRules+"  - {name: fresh, when: 'subject contains \"fresh\"', quarantine: true}\n")
	x := compare(t, was, behind, c)
	if got, want := outcomes(x.New), "refused by rules/virus kept out"; got != want || len(x.Gaps) > 0 {
		t.Errorf("%s %v, want %s", got, x.Gaps, want)
	}
	before := newSite(t, strings.Replace(oldRules, "rules:", "rules:\n  - {name: fresh, when: 'subject contains \"fresh\"', keep: true}", 1))
	if x = compare(t, was, before, c); len(x.Gaps) != 1 || x.New != nil {
		t.Errorf("a rule before it might have kept it: %+v", x)
	}
}

func TestCompareWithARecordOfAnotherPlan(t *testing.T) {
	was, is := newSite(t, oldRules), newSite(t, newRules)
	c := was.received(t, "hello", "a@bad.example", Spam)
	// The configuration has changed since: the old side of today would have let it in.
	today := newSite(t, "rules: [{name: none, when: 'subject == \"\"', score: 1}]\n")
	x := compare(t, today, is, c)
	if x.SamePlan || len(x.Disagree) != 1 || x.Disagree[0].What != "folder" {
		t.Errorf("same plan: %v, %v", x.SamePlan, x.Disagree)
	}
	// And here somebody has tampered with the record.
	c.Record.Recipients[0].Verdict.Action = pipeline.Discard
	if x = compare(t, was, is, c); !x.SamePlan || len(x.Disagree) == 0 {
		t.Errorf("same plan: %v, %v", x.SamePlan, x.Disagree)
	}
}

func TestCompareBare(t *testing.T) {
	was, is := newSite(t, oldRules), newSite(t, newRules)
	c := was.received(t, "a prize", "a@bad.example", Spam)
	bare := &Case{Bare: true, Message: c.Message, Copies: c.Copies, Record: &pipeline.Record{
		Received: c.Record.Received, Door: pipeline.SMTP, Sender: c.Record.Sender, Size: c.Record.Size,
		Recipients: []pipeline.RecipientRecord{{Recipient: c.Record.Recipients[0].Recipient, Disposition: pipeline.Delivered}},
	}}
	x := compare(t, was, is, bare)
	if got, want := outcomes(x.Old)+" | "+outcomes(x.New), "delivered to INBOX by nobody objected | delivered to Junk by rules (score 3 reaches junk: 3) kept out"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	bare.Message = nil
	if x = compare(t, was, is, bare); x.Old != nil || len(x.Gaps) == 0 {
		t.Errorf("a mail that cannot be read: %+v", x)
	}
}

func TestCompareEnds(t *testing.T) {
	s := newSite(t, oldRules)
	c := s.received(t, "hello", "a@ok.example", Ham)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compare(ctx, s.side(), s.side(), c, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTally(t *testing.T) {
	was, is := newSite(t, oldRules), newSite(t, newRules)
	tally := NewTally(is.side(), 6)
	add := func(c *Case) {
		t.Helper()
		tally.Add(compare(t, was, is, c))
	}
	add(was.received(t, "hello", "a@ok.example", Ham))
	add(was.received(t, "hello", "a@bad.example", Spam, Spam))              // the second is let in
	add(was.received(t, "tried", "a@bad.example", Unknown, Ham))            // the second is let in
	add(was.received(t, "a prize", "broken@ok.example", Ham))               // kept out
	add(was.received(t, "virus", "friend@ok.example", Unknown))             // was refused
	add(was.received(t, "a [list]", "a@ok.example", Unknown))               // to another folder
	add(was.received(t, "a [list]", "a@ok.example", Ham))                   // again, and somebody used it
	gone := was.received(t, "anything", "a@ok.example", Spam)               // cannot be decided
	gone.Message, gone.Gone, gone.Then = nil, "deleted", new(pipeline.Plan) //
	add(gone)

	r := tally.Report()
	if r.Mails != 8 || r.Decided != 7 || len(r.Undecided) != 1 || r.Undecided[0].N != 1 || !slices.Equal(r.Gone, []Count{{"deleted", 1}}) {
		t.Errorf("%d mails, %d decided, %v undecided, %v gone", r.Mails, r.Decided, r.Undecided, r.Gone)
	}
	f := r.Recorded
	if f.Mails != 7 || f.Copies != 9 || f.Changed != 6 || f.Spam != 2 || f.Ham != 4 || f.Unknown != 3 {
		t.Errorf("%+v", f)
	}
	if got, want := f.Old.Confusion, (Confusion{SpamKeptOut: 2, HamKeptOut: 1, HamLetIn: 3}); got != want {
		t.Errorf("old %+v, want %+v", got, want)
	}
	if got, want := f.New.Confusion, (Confusion{SpamKeptOut: 1, SpamLetIn: 1, HamKeptOut: 1, HamLetIn: 3}); got != want {
		t.Errorf("new %+v, want %+v", got, want)
	}
	if got, want := f.Changes, []Change{
		{"delivered to Junk", "delivered to INBOX", 2, 1, 1, 0},
		{"delivered to Lists", "delivered to INBOX", 2, 0, 1, 1},
		{"delivered to INBOX", "delivered to Junk", 1, 0, 1, 0},
		{"refused", "delivered to INBOX", 1, 0, 0, 1},
	}; !slices.Equal(got, want) {
		t.Errorf("changes %v, want %v", got, want)
	}
	var flips []string
	for _, x := range r.Flips {
		flips = append(flips, fmt.Sprintf("%s for %s is %s: %s %v %v", x.Subject, x.To, x.Label, x.MessageID, x.Lost, x.Gained))
	}
	if got, want := strings.Join(flips, "\n"), strings.Join([]string{
		"a prize for u0@example.org is ham: a.prize@x [rules/prize=2] [rules/prize=3]",
		"hello for u1@example.org is spam: hello@x [rules/bad=4] []",
		"tried for u1@example.org is ham: tried@x [rules/bad=4] []",
		"virus for u0@example.org is unknown: virus@x [] [rules/good=0 rules/known=-1]",
		"a [list] for u0@example.org is ham: a.[list]@x [rules/lists=0] [rules/known=-1]",
		"a [list] for u0@example.org is unknown: a.[list]@x [rules/lists=0] [rules/known=-1]",
	}, "\n"); got != want || r.Flipped != 6 {
		t.Errorf("%d flips\n%s\nwant 6\n%s", r.Flipped, got, want)
	}
	rule := func(name string) RuleHits {
		for _, x := range r.Rules {
			if x.Rule == name {
				return x
			}
		}
		t.Errorf("no rule %s", name)
		return RuleHits{}
	}
	for _, want := range []RuleHits{
		{"rules/bad", 4, 2, 1, 0, true},
		{"rules/good", 0, 1, 0, 0, true},
		{"rules/lists", 2, 0, 0, 0, false},
		{"rules/tried (shadow)", 0, 2, 0, 1, true},
	} {
		if got := rule(want.Rule); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if len(r.Lacking[0]) != 1 || !strings.HasPrefix(r.Lacking[0][0].What, "rules/bad: ") || r.Lacking[0][0].N != 1 || len(r.Lacking[1]) != 2 {
		t.Errorf("lacking %v", r.Lacking)
	}
	for _, c := range r.Cost {
		if c.Mean <= 0 || c.P95 <= 0 {
			t.Errorf("cost %v", c)
		}
	}
	if r.Disagree.Mails != 0 || r.Bare.Copies != 0 || len(r.Bare.Changes) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestTallyIsBounded: whatever comes, it takes no more room than was asked for.
func TestTallyIsBounded(t *testing.T) {
	was, is := newSite(t, oldRules), newSite(t, newRules)
	flipped := compare(t, was, is, was.received(t, "a [list]", "a@ok.example", Ham))
	undecided := *flipped
	undecided.Old, undecided.New = nil, nil
	tally := NewTally(is.side(), 2)
	all := NewTally(is.side(), 0)
	for i := range 1000 {
		undecided.Gaps = []string{fmt.Sprint("reason ", i)}
		undecided.Undecided[0] = []pipeline.Undecided{{Step: "rules", Name: fmt.Sprint("r", i), Why: "no"}}
		for _, x := range []*Tally{tally, all} {
			x.Add(flipped)
			x.Add(&undecided)
		}
	}
	r := tally.Report()
	if len(r.Flips) != 2 || r.Flipped != 1000 || len(r.Undecided) != mostCounted+1 {
		t.Errorf("%d of %d flips, %d reasons", len(r.Flips), r.Flipped, len(r.Undecided))
	}
	if last := r.Undecided[0]; last != (Count{otherwise, 1000 - mostCounted}) {
		t.Errorf("%v", last)
	}
	if r = all.Report(); len(r.Flips) != 1000 {
		t.Errorf("%d flips of all", len(r.Flips))
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for i := range 1000 {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.95: 950 * time.Microsecond, 1: 999 * time.Microsecond} {
		if got := h.quantile(q); got < want-time.Microsecond || float64(got) > 1.11*float64(want) {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}
