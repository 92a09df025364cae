package replay

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// A Report is what a backtest has found out.
type Report struct {
	// Mails were looked at; so many of them could be decided on both sides, and this became of the others.
	Mails     int     `json:"mails"`
	Decided   int     `json:"decided"`
	Undecided []Count `json:"undecided"` // why nothing certain can be said, by mails
	Gone      []Count `json:"gone"`      // why there is no message to decide about, by mails, decided or not
	// Recorded is about the mail that has a record, Bare about what lies in a folder without one: no step has found anything
	// about it, so that the rules see the mail alone.
	Recorded Figures `json:"recorded"`
	Bare     Figures `json:"bare"`

	Flips   []Flip `json:"flips"`   // the worst first; at most as many as were asked for
	Flipped int    `json:"flipped"` // all of them

	// Disagree counts mails of which the record and the old side's replay say different things although the same plan
	// decided; OtherPlan those that another plan decided then, with another outcome.
	Disagree  Examples `json:"disagree"`
	OtherPlan Examples `json:"other_plan"`

	Rules []RuleHits `json:"rules"`
	// Lacking counts, by rule, the mails of which it lacked a fact and so did not hold; at most a hundred.
	Lacking [2][]Count `json:"lacking"`

	Cost [2]Cost `json:"cost"` // a mail, of the old and the new rules
}

// Figures are about copies of mail: one for each recipient.
type Figures struct {
	Mails   int      `json:"mails"`
	Copies  int      `json:"copies"`
	Changed int      `json:"changed"`
	Changes []Change `json:"changes"`
	Labels  []Count  `json:"labels"` // "spam: moved into Junk"
	Spam    int      `json:"spam"`
	Ham     int      `json:"ham"`
	Unknown int      `json:"unknown"`
	Old     Score    `json:"old"`
	New     Score    `json:"new"`
}

// A Score is what a side made of labelled mail.
type Score struct {
	Confusion
	Precision      Ratio `json:"precision"`
	Recall         Ratio `json:"recall"`
	FalsePositives Ratio `json:"false_positives"`
}

// A Change is how many copies would have come out otherwise.
type Change struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Copies  int    `json:"copies"`
	Spam    int    `json:"spam"`
	Ham     int    `json:"ham"`
	Unknown int    `json:"unknown"`
}

// A Count is how often something was so.
type Count struct {
	What string `json:"what"`
	N    int    `json:"n"`
}

// Examples are how many records something is so of, and the ids of some.
type Examples struct {
	Mails int      `json:"mails"`
	IDs   []string `json:"ids"`
}

const mostExamples = 5

func (e *Examples) add(id string) {
	if e.Mails++; len(e.IDs) < mostExamples {
		e.IDs = append(e.IDs, id)
	}
}

// A RuleHits is how many copies a rule held for; of a rule that one side does not have that side's is 0.
type RuleHits struct {
	Rule    string `json:"rule"` // "rules/zen", with " (shadow)" behind one that is only tried
	Old     int    `json:"old"`
	New     int    `json:"new"`
	NewSpam int    `json:"new_spam"`
	NewHam  int    `json:"new_ham"`
	IsNew   bool   `json:"is_new"` // the new side has it
}

// A Flip is a copy that would have come out otherwise.
type Flip struct {
	ID        string    `json:"id,omitempty"` // of the record; "" where there is none
	File      string    `json:"file,omitempty"`
	Received  time.Time `json:"received"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Subject   string    `json:"subject"`
	MessageID string    `json:"message_id,omitempty"`
	Label     Label     `json:"label"`
	Why       string    `json:"why"`
	Old       Outcome   `json:"old"`
	New       Outcome   `json:"new"`
	// Lost and Gained are rules that counted on one side only, "prize=4".
	Lost   []string `json:"lost"`
	Gained []string `json:"gained"`
}

// A Cost is what the evaluation of the rules took.
type Cost struct {
	Mean time.Duration `json:"mean_ns"`
	P95  time.Duration `json:"p95_ns"`
}

// A Tally adds up what came of cases. It takes as much memory as there are rules and sorts of outcomes, and flips that are
// kept. It is used by one goroutine.
type Tally struct {
	report    Report
	limit     int // flips kept
	undecided counts
	gone      counts
	figures   [2]tallied // recorded, bare
	flips     [worst][]Flip
	rules     map[string]*RuleHits
	lacking   [2]counts
	cost      [2]histogram
	costs     [2]time.Duration
	costed    int
}

type tallied struct {
	Figures
	changes map[[2]string]*Change
	labels  counts
}

// NewTally keeps as many flips as limit says; 0 is all of them. Rules of the new side are shown although they
// never held.
func NewTally(is Side, limit int) *Tally {
	t := &Tally{limit: limit, rules: map[string]*RuleHits{}}
	if limit <= 0 {
		t.limit = math.MaxInt
	}
	for _, step := range is.Plan.Steps() {
		for _, s := range is.Plan.Stages(step) {
			r, ok := s.(pipeline.Ruler)
			if !ok {
				continue
			}
			shadow := r.ShadowRules()
			for _, name := range r.Rules() {
				mark := ""
				if slices.Contains(shadow, name) {
					mark = shadowMark
				}
				t.rule(step + "/" + name + mark).IsNew = true
			}
		}
	}
	return t
}

func (t *Tally) rule(name string) *RuleHits {
	r := t.rules[name]
	if r == nil {
		r = &RuleHits{Rule: name}
		t.rules[name] = r
	}
	return r
}

// Add counts what came of a case.
func (t *Tally) Add(c *Compared) {
	t.report.Mails++
	t.costs[0] += c.OldCost
	t.costs[1] += c.NewCost
	t.cost[0].add(c.OldCost)
	t.cost[1].add(c.NewCost)
	t.costed++
	if c.Case.Message == nil {
		t.gone.add(c.Case.Gone)
	}
	if len(c.Old) == 0 && len(c.Gaps) > 0 {
		t.undecided.add(c.Gaps[0])
		return
	}
	t.report.Decided++
	if len(c.Disagree) > 0 {
		if c.SamePlan {
			t.report.Disagree.add(c.Case.Record.ID)
		} else {
			t.report.OtherPlan.add(c.Case.Record.ID)
		}
	}
	for side := range c.Undecided {
		seen := map[string]bool{}
		for _, u := range c.Undecided[side] {
			if what := u.Step + "/" + u.Name + ": " + u.Why; !seen[what] {
				seen[what] = true
				t.lacking[side].add(what)
			}
		}
	}
	f := &t.figures[0]
	if c.Case.Bare {
		f = &t.figures[1]
	}
	f.Mails++
	for i := range c.Case.Copies {
		t.copy(f, c, i)
	}
}

func (t *Tally) copy(f *tallied, c *Compared, i int) {
	x, was, is := c.Case.Copies[i], c.Old[i], c.New[i]
	f.Copies++
	f.labels.add(string(x.Label) + ": " + x.Why)
	tick(x.Label, &f.Spam, &f.Ham, &f.Unknown)
	f.Old.Add(x.Label, was.KeptOut)
	f.New.Add(x.Label, is.KeptOut)
	for _, name := range c.held[0][i] {
		t.rule(name).Old++
	}
	for _, name := range c.held[1][i] {
		r := t.rule(name)
		r.New++
		var unknown int
		tick(x.Label, &r.NewSpam, &r.NewHam, &unknown)
	}
	if was.What == is.What {
		return
	}
	f.Changed++
	if f.changes == nil {
		f.changes = map[[2]string]*Change{}
	}
	change := f.changes[[2]string{was.What, is.What}]
	if change == nil {
		change = &Change{From: was.What, To: is.What}
		f.changes[[2]string{was.What, is.What}] = change
	}
	change.Copies++
	tick(x.Label, &change.Spam, &change.Ham, &change.Unknown)
	t.report.Flipped++
	if list := &t.flips[badness(x.Label, was, is)]; len(*list) < t.limit {
		*list = append(*list, c.flip(i))
	}
}

func tick(l Label, spam, ham, unknown *int) {
	switch l {
	case Spam:
		*spam++
	case Ham:
		*ham++
	default:
		*unknown++
	}
}

// worst is how many grades badness has.
const worst = 8

// badness grades a flip: what an administrator should look at first is least.
func badness(l Label, was, is Outcome) int {
	switch {
	case l == Ham && is.KeptOut && !was.KeptOut:
		return 0
	case l == Spam && !is.KeptOut && was.KeptOut:
		return 1
	case l == Ham && !is.KeptOut && was.KeptOut:
		return 2
	case l == Spam && is.KeptOut && !was.KeptOut:
		return 3
	case is.KeptOut && !was.KeptOut:
		return 4
	case !is.KeptOut && was.KeptOut:
		return 5
	case l == Ham || l == Spam:
		return 6
	}
	return 7
}

// flip describes the ith copy.
func (c *Compared) flip(i int) Flip {
	r, x := c.Case.Record, c.Case.Copies[i]
	to := &r.Recipients[x.At]
	f := Flip{
		ID: r.ID, File: to.File, Received: r.Received, From: r.Sender.Raw, To: to.Address.Raw, Subject: r.Subject, MessageID: r.MessageID,
		Label: x.Label, Why: x.Why, Old: c.Old[i], New: c.New[i],
	}
	if m := c.Case.Message; m != nil {
		if from := m.From(); len(from) > 0 {
			f.From = from[0].Raw
		}
	}
	f.Lost, f.Gained = oneSided(f.Old.hits, f.New.hits), oneSided(f.New.hits, f.Old.hits)
	f.Old.hits, f.New.hits = nil, nil // they are large
	return f
}

// oneSided lists the hits that are not among the others, or have another score there.
func oneSided(hits, others []pipeline.Hit) []string {
	all := []string{}
	for _, h := range hits {
		if !slices.ContainsFunc(others, func(o pipeline.Hit) bool { return o.Step == h.Step && o.Name == h.Name && o.Score == h.Score }) {
			all = append(all, h.Step+"/"+h.Name+"="+number(h.Score))
		}
	}
	return all
}

// Report returns what was added so far.
func (t *Tally) Report() Report {
	r := t.report
	r.Undecided, r.Gone = t.undecided.list(), t.gone.list()
	r.Recorded, r.Bare = t.figures[0].finish(), t.figures[1].finish()
	r.Flips = []Flip{}
	for _, list := range t.flips {
		r.Flips = append(r.Flips, list[:min(len(list), t.limit-len(r.Flips))]...)
	}
	r.Rules = []RuleHits{}
	for _, name := range slices.Sorted(maps.Keys(t.rules)) {
		r.Rules = append(r.Rules, *t.rules[name])
	}
	slices.SortStableFunc(r.Rules, func(a, b RuleHits) int {
		return cmp.Or(cmp.Compare(b.New+b.Old, a.New+a.Old), strings.Compare(a.Rule, b.Rule))
	})
	for side := range r.Lacking {
		r.Lacking[side] = t.lacking[side].list()
		r.Cost[side].P95 = t.cost[side].quantile(0.95)
		if t.costed > 0 {
			r.Cost[side].Mean = t.costs[side] / time.Duration(t.costed)
		}
	}
	r.Disagree.IDs, r.OtherPlan.IDs = append([]string{}, r.Disagree.IDs...), append([]string{}, r.OtherPlan.IDs...)
	return r
}

func (f *tallied) finish() Figures {
	out := f.Figures
	out.Labels = f.labels.list()
	out.Changes = []Change{}
	for _, c := range f.changes {
		out.Changes = append(out.Changes, *c)
	}
	slices.SortFunc(out.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Copies, a.Copies), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	for _, s := range []*Score{&out.Old, &out.New} {
		s.Precision, s.Recall, s.FalsePositives = s.Confusion.Precision(), s.Confusion.Recall(), s.Confusion.FalsePositives()
	}
	return out
}

// counts count sentences. Those that come when there are many already are counted together.
type counts struct{ by map[string]int }

const (
	mostCounted = 100
	otherwise   = "for other reasons"
)

func (c *counts) add(what string) {
	if c.by == nil {
		c.by = map[string]int{}
	}
	if _, ok := c.by[what]; !ok && len(c.by) >= mostCounted {
		what = otherwise
	}
	c.by[what]++
}

// list returns the most frequent first.
func (c *counts) list() []Count {
	all := []Count{}
	for what, n := range c.by {
		all = append(all, Count{what, n})
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.What, b.What)) })
	return all
}

// A histogram counts durations in steps of a tenth.
type histogram struct {
	n    int
	bins map[int]int
}

func (h *histogram) add(d time.Duration) {
	if h.bins == nil {
		h.bins = map[int]int{}
	}
	h.n++
	h.bins[int(math.Ceil(math.Log(float64(max(d, 1)))/math.Log(1.1)))]++
}

// quantile returns what a share of the durations does not exceed, to a tenth.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	seen := 0
	for _, bin := range slices.Sorted(maps.Keys(h.bins)) {
		if seen += h.bins[bin]; float64(seen) >= q*float64(h.n) {
			return time.Duration(math.Round(math.Pow(1.1, float64(bin))))
		}
	}
	return 0
}
