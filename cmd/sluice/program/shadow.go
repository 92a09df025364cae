package program

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/rules"
)

type shadowCommands struct {
	Report shadowReportCommand `cmd:"" help:"Say what shadow steps and shadow rules would have done, against what users did with those mails."`
}

type shadowReportCommand struct {
	Since    string `default:"7d" placeholder:"TIME" help:"Look at mail from then on: 7d, 36h, 2026-11-20. Default: ${default}."`
	Until    string `placeholder:"TIME" help:"Look at mail before then. Default: now."`
	Rule     string `placeholder:"STEP[/RULE]" help:"Only this step with its rules, or this rule."`
	Examples int    `default:"3" help:"How many mails to name for each change. Default: ${default}."`
	JSON     bool   `help:"Print JSON."`
}

// shadowVersion is the version of what shadow report --json prints.
const shadowVersion = 1

// A shadowReport says what shadow steps and rules would have done.
type shadowReport struct {
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	// Records is how many were looked at; Unreadable could not be read, and are not among them.
	Records    int `json:"records"`
	Unreadable int `json:"unreadable"`
	// Interrupted says that it ended before the last record, and Reached when the last one looked at came.
	Interrupted bool          `json:"interrupted"`
	Reached     time.Time     `json:"reached,omitzero"`
	Items       []*shadowItem `json:"items"`
}

// A shadowItem is what became known about one shadow step, one shadow rule, or all of them together.
type shadowItem struct {
	Name string `json:"name"` // "clamav", "rules/forged_bank", "all together"
	Kind string `json:"kind"` // "step", "rule", "all"
	// Seen is how many mails it was asked about; Held how many of them it held for, or, of a step, had something to say.
	Seen int `json:"seen"`
	Held int `json:"held"`
	// Undecided is how many mails it could not be decided for, and so on, with the reasons.
	Undecided   tally `json:"undecided"`
	Errors      tally `json:"errors"`
	NotRun      tally `json:"not_run"`
	NotFinished tally `json:"not_finished"`
	// Users is what the owners of the copies did with the mails that it held for.
	Users userTally `json:"users"`
	// Changes are what would have been decided otherwise, a copy each; Same is for how many copies nothing would have been,
	// and Unsure for how many nobody can say. All three are empty for a rule of a shadow step: see the step.
	Changes []*shadowChange `json:"changes"`
	Same    int             `json:"same"`
	Unsure  tally           `json:"unsure"`
	// Together says why what it would have done was worked out with all others made live, too; "" where it was not.
	Together string `json:"together,omitempty"`
	// Took is how long its step's shadow took for a mail, for steps and rules alike.
	Took spent `json:"took"`

	tried pipeline.Tried
	whole bool // what it would have done is asked
}

// A shadowChange is one thing that would have been decided otherwise.
type shadowChange struct {
	Was      string    `json:"was"`   // "delivered to INBOX"
	Would    string    `json:"would"` // "refused"
	Copies   int       `json:"copies"`
	Users    userTally `json:"users"`
	Examples []string  `json:"examples"` // ids
}

// A tally counts, with the reasons.
type tally struct {
	Count int            `json:"count"`
	Why   map[string]int `json:"why,omitempty"`
}

// mostReasons bounds how many different reasons are remembered; the rest is one.
const mostReasons = 50

func (t *tally) add(why string) {
	t.Count++
	if t.Why == nil {
		t.Why = map[string]int{}
	}
	if _, ok := t.Why[why]; !ok && len(t.Why) >= mostReasons {
		why = "other reasons"
	}
	t.Why[why]++
}

// A userTally counts what users made of copies.
type userTally struct {
	Spam    int   `json:"spam"`
	Ham     int   `json:"ham"`
	Unknown tally `json:"unknown"`
}

func (u *userTally) add(l label) {
	switch l.Label {
	case labelSpam:
		u.Spam++
	case labelHam:
		u.Ham++
	default:
		u.Unknown.add(l.Why)
	}
}

// spent is how long something took: a histogram whose steps are a twentieth apart.
type spent struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`

	steps map[int]int
}

const spentStep = 1.05

func (s *spent) add(d time.Duration) {
	if s.steps == nil {
		s.steps = map[int]int{}
	}
	s.Count++
	s.steps[int(math.Ceil(math.Log(max(1, float64(d)))/math.Log(spentStep)))]++
}

// settle works out the percentiles.
func (s *spent) settle() {
	at := func(share float64) float64 {
		left := int(math.Ceil(share * float64(s.Count)))
		for _, step := range slices.Sorted(maps.Keys(s.steps)) {
			if left -= s.steps[step]; left <= 0 {
				return math.Pow(spentStep, float64(step)) / 1e6
			}
		}
		return 0
	}
	s.P50, s.P95 = at(0.50), at(0.95)
}

func (c *shadowReportCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	now := p.now()
	when, err := newSpan(c.Since, c.Until, now)
	if err != nil {
		return err
	}
	if when.until.IsZero() {
		when.until = now
	}
	if c.Examples < 0 {
		return fmt.Errorf("--examples %d is no number of mails", c.Examples)
	}
	var report *shadowReport
	err = p.withPlans(settings, func(all *plans) (err error) {
		users, err := newWhereabouts(p.ctx, settings, when.since)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, users.Close()) }()
		x := &shadowReporter{
			plans: all, users: users, rule: c.Rule, examples: c.Examples, items: map[string]*shadowItem{},
			report: &shadowReport{Version: shadowVersion, Since: when.since, Until: when.until, Items: []*shadowItem{}},
		}
		report = x.report
		return x.run(p)
	})
	if err != nil {
		return err
	}
	if err := c.print(p, report); err != nil {
		return err
	}
	if report.Interrupted {
		return errSilent // it is said
	}
	return nil
}

func (c *shadowReportCommand) print(p *program, r *shadowReport) error {
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := text{w: p.stdout}
	r.print(&t)
	return t.err
}

// A shadowReporter goes through the journal.
type shadowReporter struct {
	plans    *plans
	users    *whereabouts
	rule     string
	examples int
	report   *shadowReport
	items    map[string]*shadowItem // by name
	known    map[string]*shadowPlan // by version
}

// A shadowPlan is a plan of the time of a record.
type shadowPlan struct {
	plan  *pipeline.Plan
	why   string // there is none
	rules map[rules.Termer][]string
	live  map[string]livePlan // by the name of the item that counts there
}

// A livePlan is a plan in which something that was tried counts.
type livePlan struct {
	plan     *pipeline.Plan
	together string // why all others do, too
	why      string // there is none
}

// mostShadowPlans is for how many versions of the plan others are remembered: records come in the order of time.
const mostShadowPlans = 2

// everything is the item of all of them together.
const everything = "all together"

func (x *shadowReporter) run(p *program) error {
	// What is configured now is listed also where no mail has come since.
	for _, t := range x.plans.current.Tried() {
		x.item(t)
	}
	shown := p.newProgress("records", 0)
	defer shown.end()
	ctx := p.ctx
	for r, err := range x.plans.journal.Between(ctx, x.report.Since, x.report.Until) {
		var unreadable *journal.UnreadableError
		switch {
		case errors.As(err, &unreadable):
			x.report.Unreadable++
			continue
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			err = x.record(ctx, r)
		}
		if ctx.Err() != nil {
			x.report.Interrupted = true
			break
		}
		if err != nil {
			return err
		}
		x.report.Records++
		x.report.Reached = r.Received
		shown.at(x.report.Records)
	}
	if x.rule != "" && len(x.items) == 0 && !x.report.Interrupted {
		return x.noSuch()
	}
	x.settle()
	return nil
}

// noSuch says that what is asked for is neither configured nor recorded.
func (x *shadowReporter) noSuch() error {
	remedy := "; `shadow: true` on a rule, a group, a rule file or a step makes it one"
	names := map[string]string{} // by what may have been meant
	for _, t := range x.plans.current.Tried() {
		names[triedName(t)], names[cmp.Or(t.Rule, t.Step)] = triedName(t), triedName(t)
	}
	if near := lookalike.Nearest(x.rule, slices.Sorted(maps.Keys(names))); near != "" {
		remedy = "; did you mean " + names[near] + "?"
	}
	return fmt.Errorf("--rule %s: no shadow step and no shadow rule has that name%s", x.rule, remedy)
}

// settle puts the items in order: those of the configuration first, as they stand there.
func (x *shadowReporter) settle() {
	places := map[string]int{}
	for i, t := range x.plans.current.Tried() {
		places[triedName(t)] = i + 1
	}
	place := func(i *shadowItem) int {
		switch n := places[i.Name]; {
		case i.Kind == "all":
			return math.MaxInt
		case n == 0:
			return math.MaxInt - 1
		default:
			return n
		}
	}
	asked := 0
	for _, i := range x.items {
		if i.whole && i.Kind != "all" {
			asked++
		}
	}
	for _, i := range x.items {
		if i.Kind == "all" && asked < 2 {
			continue // it would say the same once more
		}
		i.Took.settle()
		slices.SortFunc(i.Changes, func(a, b *shadowChange) int {
			return cmp.Or(cmp.Compare(b.Copies, a.Copies), cmp.Compare(a.Would, b.Would), cmp.Compare(a.Was, b.Was))
		})
		x.report.Items = append(x.report.Items, i)
	}
	slices.SortFunc(x.report.Items, func(a, b *shadowItem) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Name, b.Name))
	})
}

func triedName(t pipeline.Tried) string {
	if t.Rule == "" {
		return t.Step
	}
	return t.Step + "/" + t.Rule
}

// item returns the item of something that is tried; nil if it is not asked for.
func (x *shadowReporter) item(t pipeline.Tried) *shadowItem {
	name := triedName(t)
	if x.rule != "" && x.rule != name && x.rule != t.Step && x.rule != t.Rule {
		return nil
	}
	i := x.items[name]
	if i == nil {
		i = &shadowItem{Name: name, Kind: "rule", Changes: []*shadowChange{}, tried: t, whole: t.Own}
		if t.Rule == "" {
			i.Kind = "step"
		}
		x.items[name] = i
	}
	return i
}

// all returns the item of all together; nil where the report is about less.
func (x *shadowReporter) all() *shadowItem {
	if x.rule != "" {
		return nil
	}
	if x.items[everything] == nil {
		x.items[everything] = &shadowItem{Name: everything, Kind: "all", Changes: []*shadowChange{}, whole: true}
	}
	return x.items[everything]
}

// planOf returns the plan that decided on a record.
func (x *shadowReporter) planOf(ctx context.Context, version string) *shadowPlan {
	if s := x.known[version]; s != nil {
		return s
	}
	if len(x.known) >= mostShadowPlans {
		x.known = nil
	}
	if x.known == nil {
		x.known = map[string]*shadowPlan{}
	}
	s := &shadowPlan{rules: map[rules.Termer][]string{}, live: map[string]livePlan{}}
	x.known[version] = s
	var err error
	if s.plan, err = x.plans.of(ctx, version); err != nil {
		s.why = firstLine(err.Error())
		return s
	}
	for _, name := range s.plan.Steps() {
		for _, stage := range s.plan.Stages(name) {
			termer, ok := stage.(rules.Termer)
			if !ok {
				continue
			}
			for _, t := range termer.Terms() {
				if !slices.Contains(s.rules[termer], t.Rule) {
					s.rules[termer] = append(s.rules[termer], t.Rule)
				}
			}
		}
	}
	return s
}

// liveOf returns the plan in which an item counts.
func (x *shadowReporter) liveOf(ctx context.Context, s *shadowPlan, version string, i *shadowItem) livePlan {
	if l, ok := s.live[i.Name]; ok {
		return l
	}
	var l livePlan
	var err error
	if i.Kind == "all" {
		l.plan, err = x.plans.remake(ctx, version, alive(s.plan.Tried()))
	} else if l.plan, err = x.plans.remake(ctx, version, alive([]pipeline.Tried{i.tried})); err != nil {
		// It reads what another shadow step or rule says, which a live one may not.
		l.together = firstLine(err.Error())
		l.plan, err = x.plans.remake(ctx, version, alive(s.plan.Tried()))
	}
	if err != nil {
		l.why = firstLine(err.Error())
	}
	s.live[i.Name] = l
	return l
}

// alive makes steps and rules count that are only tried.
func alive(tried []pipeline.Tried) func([]pipeline.Step) []pipeline.Step {
	return func(steps []pipeline.Step) []pipeline.Step {
		steps = slices.Clone(steps)
		for i := range steps {
			s := &steps[i]
			name := cmp.Or(s.Name, s.Kind.StepName())
			for _, t := range tried {
				switch {
				case t.Step != name:
				case t.Rule == "":
					s.Shadow = false
				default:
					if c, ok := s.Config.(*rules.Config); ok {
						changed := *c
						changed.Live = append(slices.Clone(c.Live), t.Rule)
						s.Config = &changed
					}
				}
			}
		}
		return steps
	}
}
