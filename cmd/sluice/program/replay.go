package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/rules/replay"
)

type replayCommand struct {
	JSON    bool     `help:"Print JSON."`
	Without []string `placeholder:"STEP/RULE" sep:"none" help:"Leave this rule out, or STEP what the step says by itself; may be repeated."`
	Rules   []string `placeholder:"FILE" sep:"none" help:"Decide with these rule files in place of the configured ones; may be repeated."`
	Step    string   `help:"The rules step whose files --rules replaces, outgoing/NAME for one of those for outgoing mail. Default: the only one."`
	Keys    []string `arg:"" name:"key" help:"What explain takes: an id, a queue id, a Message-ID, the name or path of a mail's file."`
}

// replayVersion is the version of what replay --json prints.
const replayVersion = 1

// A replayResult is what replay says about one record.
type replayResult struct {
	ID string `json:"id"`
	insight
	// Changes are what --without or --rules would have changed.
	Changes []replay.Difference `json:"changes"`
	Record  *pipeline.Record    `json:"record,omitempty"` // as it would be
}

func (c *replayCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	var other *pipeline.Plan
	if len(c.Rules) > 0 {
		if other, err = planWith(p, settings, c.Step, c.Rules); err != nil {
			return err
		}
	}
	var results []replayResult
	var failed []error
	err = p.withPlans(settings, func(all *plans) error {
		for _, key := range c.Keys {
			more, err := c.named(p, settings, all, other, key)
			results = append(results, more...)
			if p.ctx.Err() != nil {
				return p.ctx.Err()
			}
			if err != nil && !slices.ContainsFunc(failed, func(e error) bool { return e.Error() == err.Error() }) {
				failed = append(failed, err) // the others are decided about all the same
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(results) > 0 || len(failed) == 0 {
		if err := c.print(p, results); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if slices.ContainsFunc(results, func(x replayResult) bool { return x.Unknown != "" || len(x.Differences) > 0 }) {
		return errSilent // everything is said
	}
	return nil
}

// named decides again about the records that a key names.
func (c *replayCommand) named(p *program, settings *config.Config, all *plans, other *pipeline.Plan, key string) (results []replayResult, err error) {
	records, err := await(p.ctx, settings, key)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("no record of %s in %s", key, settings.Data)
	}
	if other != nil {
		if records, err = c.fitting(settings, records); err != nil {
			return nil, err
		}
	}
	for _, r := range records {
		result, err := c.replay(p, all, other, r)
		if err != nil {
			return results, err
		}
		results = append(results, result)
	}
	return results, nil
}

// withPlans opens the journal for reading, with the configured plan.
func (p *program) withPlans(settings *config.Config, f func(*plans) error) (err error) {
	current, outgoing, _, err := plansOf(settings, offlineEnv(settings.Hostname, p.now, nil))
	if err != nil {
		return err
	}
	c := settings.Journal
	c.Path, c.ReadOnly = journalPath(settings), true
	j, err := journal.Open(p.ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no journal in %s yet", settings.Data)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return f(&plans{program: p, settings: settings, current: current, outgoing: outgoing, journal: j})
}

// fitting returns those of some records, all of one mail, that the step is about whose files --rules replaces: a mail that
// one user sends another is decided about as it leaves and as it comes.
func (c *replayCommand) fitting(settings *config.Config, all []*pipeline.Record) (fit []*pipeline.Record, _ error) {
	for _, r := range all {
		if isOutgoing(settings, c.Step) == (r.Door == pipeline.Submission) {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("--rules: %s is a record of the door %s, whose steps are others: name one of them with --step", all[0].ID, all[0].Door)
	}
	return fit, nil
}

// replay decides one record again.
func (c *replayCommand) replay(p *program, all *plans, other *pipeline.Plan, r *pipeline.Record) (x replayResult, err error) {
	files := locate(p.ctx, all.settings, r)
	x = replayResult{ID: r.ID, insight: all.look(p.ctx, r, files), Changes: []replay.Difference{}}
	if x.Unknown != "" {
		return x, nil
	}
	x.Record = x.again
	if len(c.Without) == 0 && other == nil {
		return x, nil
	}
	then, err := all.of(p.ctx, r.Plan)
	if err != nil {
		return x, err
	}
	again := pipeline.Replay{Then: then}
	if x.WhyNot == "" {
		if again.Message, err = all.anywhere(p.ctx, r, files); err != nil {
			return x, err
		}
	}
	deciding := then
	if other != nil {
		deciding = other
	}
	if again.Without, err = leftOut(deciding, c.Without); err != nil {
		return x, err
	}
	replayed, err := deciding.Replay(p.ctx, r, again)
	if err != nil {
		return x, err
	}
	x.Record, x.Gaps = replayed.Record, append([]string{}, replayed.Gaps...)
	x.Changes = append(x.Changes, replay.Differences(x.again, replayed.Record)...)
	return x, nil
}

// leftOut turns "rules/zen" and "clamav" into places of a plan.
func leftOut(plan *pipeline.Plan, names []string) (all []pipeline.Place, _ error) {
	for _, name := range names {
		step, rule, named := strings.Cut(name, "/")
		if !slices.Contains(plan.Steps(), step) {
			return nil, fmt.Errorf("--without %s: there is no step %s; %s", name, step, stepRemedy(plan, name))
		}
		rules := rulesOf(plan, step)
		switch at := slices.Index(rules, rule); {
		case !named:
			// What a step says by itself: its verdict, what its on_error says, its thresholds.
			for at := -1; at <= 1; at++ {
				place := at
				if len(rules) > 0 && at >= 0 {
					place = len(rules) + at
				}
				all = append(all, pipeline.Place{Step: step, At: place})
			}
		case at < 0:
			remedy := ""
			if near := lookalike.Nearest(rule, rules); near != "" {
				remedy = fmt.Sprintf("; did you mean %s/%s?", step, near)
			}
			return nil, fmt.Errorf("--without %s: step %s has no rule %s%s", name, step, rule, remedy)
		default:
			all = append(all, pipeline.Place{Step: step, At: at})
		}
	}
	return all, nil
}

func rulesOf(plan *pipeline.Plan, step string) (rules []string) {
	for _, s := range plan.Stages(step) {
		if r, ok := s.(pipeline.Ruler); ok {
			rules = r.Rules()
		}
	}
	return rules
}

// stepRemedy says what a name could mean that begins with no step: mostly a rule.
func stepRemedy(plan *pipeline.Plan, name string) string {
	for _, step := range plan.Steps() {
		if slices.Contains(rulesOf(plan, step), name) {
			return fmt.Sprintf("did you mean %s/%s?", step, name)
		}
	}
	return "there is " + strings.Join(plan.Steps(), ", ")
}

func (c *replayCommand) print(p *program, results []replayResult) error {
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Version int            `json:"version"`
			Results []replayResult `json:"results"`
		}{replayVersion, results})
	}
	t := text{w: p.stdout}
	for _, x := range results {
		c.one(&t, x)
	}
	return t.err
}

// one prints what replay says about one record.
func (c *replayCommand) one(t *text, x replayResult) {
	if x.Unknown != "" {
		t.line(0, "%s cannot be decided again: %s", x.ID, x.Unknown)
		return
	}
	with := x.With
	if x.WhyNot != "" {
		with += " (" + x.WhyNot + ")"
	}
	switch {
	case len(x.Differences) == 0:
		t.line(0, "%s decided again with %s: as recorded", x.ID, with)
	default:
		t.line(0, "%s decided again with %s: NOT as recorded", x.ID, with)
		for _, d := range x.Differences {
			t.line(1, "%s", d)
		}
	}
	if len(c.Without) == 0 && len(c.Rules) == 0 {
		for _, r := range x.Record.Recipients {
			t.line(1, "%s: %s", r.Address.Raw, replay.Verdict(&r))
			for _, w := range x.Without {
				if w.Recipient == r.Address.Raw {
					t.line(2, "without %s", w)
				}
			}
		}
		return
	}
	changed := "with the other rules"
	if len(c.Without) > 0 {
		changed = "without " + strings.Join(c.Without, ", ")
	}
	if len(x.Changes) == 0 {
		t.line(1, "%s: nothing else", changed)
	}
	for _, d := range x.Changes {
		t.line(1, "%s: %s", changed, d)
	}
	for _, g := range x.Gaps {
		t.line(1, "not certain: %s", g)
	}
}

func numeral(x float64) string { return fmt.Sprintf("%.4g", x) }
