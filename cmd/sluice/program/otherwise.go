package program

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules"
	"sluice/rules/replay"
)

// A counterfactual is what would have become of the mail for a recipient without one of those who had a say: the engine has
// decided again, and left it out.
type counterfactual struct {
	Recipient string `json:"recipient"`
	Decider   string `json:"decider"` // who is left out: "rules/zen", "clamav"; "rules" is a threshold of its score, or the step itself
	// Of says what the decider had a say in: "verdict"; "folder", by a rule or a threshold; "script", what the recipient's own
	// wishes have made of the mail; "mark", flags and fields; "score", where it is a part of the score that has decided or
	// has not; "overrides", all that is otherwise for the recipient; "exemption", by which refusals did not count; "door", a refusal by the door; "others", what was decided
	// about another recipient and answered for all.
	Of string `json:"of"`
	// Outcome says in words what would have become of the mail, "delivered to Junk, by rules: score 6 reaches junk: 5".
	Outcome string  `json:"outcome"`
	Same    bool    `json:"same,omitempty"` // the same would have become of it, all the same
	Verdict string  `json:"verdict"`        // "pass", "reject by rules/forged"
	Folder  string  `json:"folder,omitempty"`
	Score   float64 `json:"score"`
	// Disposition is what the door would have done; "" where the mail never came, and nobody knows.
	Disposition pipeline.Disposition `json:"disposition,omitempty"`
	Gaps        []string             `json:"gaps,omitempty"` // what the record does not know, and might have mattered

	threshold string // which one it is: "junk"
}

// String is the sentence about it.
func (c counterfactual) String() string {
	s := fmt.Sprintf("%s it would have been %s", c.who(), c.Outcome)
	if c.Of == "door" && c.Disposition != pipeline.NotFinished { // there may be no mailbox
		s = fmt.Sprintf("%s the steps would have had it %s", c.who(), c.Outcome)
	}
	if c.Same {
		s += " all the same"
	}
	if len(c.Gaps) > 0 && c.Disposition != pipeline.NotFinished { // there it is said already
		s += "; not certain: " + strings.Join(c.Gaps, "; ")
	}
	return s
}

// who names who is left out.
func (c counterfactual) who() string {
	switch {
	case c.Of == "overrides":
		return "the overrides for " + c.Decider
	case c.Of == "exemption":
		return "the exemption (" + c.Decider + ")"
	case c.Of == "others":
		return c.Decider + ", for another recipient,"
	case c.threshold != "":
		return fmt.Sprintf("the threshold %s of %s", c.threshold, c.Decider)
	}
	return c.Decider
}

// An omission is what is left out to see what would have been without it.
type omission struct {
	of, decider string
	threshold   string
	replay      pipeline.Replay
	only        bool            // worth a word only if something else comes of it
	marks       []pipeline.Edit // fields that it has added
	flags       []string
}

// mostScores is how many rules that score are left out, one by one: those that count most.
const mostScores = 12

// otherwise decides about the ith recipient without each of those who had a say: first without whoever decided. base is what
// comes of deciding with all of them.
func (p *plans) otherwise(ctx context.Context, plan *pipeline.Plan, was, base *pipeline.Record, i int, m *mime.Message) (all []counterfactual, _ error) {
	x := &base.Recipients[i]
	for _, out := range p.deciders(plan, was, i) {
		out.replay.Message = m
		again, err := plan.Replay(ctx, was, out.replay)
		if err != nil {
			return nil, err
		}
		if i >= len(again.Record.Recipients) {
			return nil, fmt.Errorf("the replay of %s has lost a recipient", was.ID)
		}
		other := &again.Record.Recipients[i]
		c := counterfactual{
			Recipient: x.Address.Raw, Decider: out.decider, Of: out.of, Gaps: again.Gaps, threshold: out.threshold,
			Verdict: replay.Verdict(other), Score: other.Score, Disposition: other.Disposition,
		}
		if other.Verdict.Action <= pipeline.Keep && other.Disposition != pipeline.NotFinished {
			c.Folder = replay.Folder(other)
		}
		c.Same = sameEnd(x, other)
		if out.only && c.Same {
			continue
		}
		p.describe(&c, out, was, x, again.Record, other)
		all = append(all, c)
	}
	return all, nil
}

// sameEnd reports whether the same becomes of a mail, by the same word.
func sameEnd(a, b *pipeline.RecipientRecord) bool {
	return a.Disposition == b.Disposition && replay.Verdict(a) == replay.Verdict(b) && replay.Folder(a) == replay.Folder(b) &&
		slices.Equal(a.Flags, b.Flags) && whereTo(a) == whereTo(b) && leaving(a) == leaving(b)
}

// leaving says what goes out for a recipient.
func leaving(x *pipeline.RecipientRecord) string {
	if x.Handling == nil {
		return ""
	}
	var all []string
	for _, l := range x.Handling.Leaving {
		all = append(all, string(l.Kind)+" "+strings.Join(l.To, ", "))
	}
	for _, r := range x.Handling.Runs {
		all = append(all, r.Program)
	}
	return strings.Join(all, "; ")
}

// deciders are those who had a say about the ith recipient.
func (p *plans) deciders(plan *pipeline.Plan, r *pipeline.Record, i int) (all []omission) {
	x := &r.Recipients[i]
	at := func(step string, at int) pipeline.Replay {
		return pipeline.Replay{Without: []pipeline.Place{{Step: step, At: at}}}
	}
	if x.Disposition == pipeline.NotFinished || x.Disposition == pipeline.Repeated {
		return nil
	}
	if x.ByDoor || atTheDoor(r, x) {
		return []omission{{of: "door", decider: "the door", replay: pipeline.Replay{Admitted: []int{i}}}}
	}
	var taken []pipeline.Place // each is left out once
	if x.Step != "" && x.Verdict.Action != pipeline.Pass {
		decider := deciderOf(x)
		if p.atDelivery(r, x, x.Step) {
			decider = x.Step // with all of its scripts
		}
		threshold := ""
		if names := rulesOf(plan, x.Step); len(names) > 0 && x.Verdict.At >= len(names) {
			threshold = x.Verdict.Action.String()
		}
		all = append(all, omission{of: "verdict", decider: decider, threshold: threshold, replay: at(x.Step, x.Verdict.At)})
		taken = append(taken, pipeline.Place{Step: x.Step, At: x.Verdict.At})
	}
	if by := refusedForAll(r, x); by != nil {
		all = append(all, omission{of: "others", decider: deciderOf(by), replay: at(by.Step, by.Verdict.At)})
	}
	if x.Verdict.Action <= pipeline.Keep {
		if step, h := wishesOf(r, x); h != nil {
			all = append(all, omission{of: "script", decider: step, replay: at(step, h.At)})
		}
		for _, m := range marksOf(r, x) {
			if !slices.Contains(taken, m.place) {
				taken = append(taken, m.place)
				all = append(all, omission{of: m.of, decider: m.decider, threshold: m.threshold, replay: at(m.place.Step, m.place.At), marks: m.edits, flags: m.flags})
			}
		}
	}
	if x.Exempt != "" {
		all = append(all, omission{of: "exemption", decider: x.Exempt, replay: pipeline.Replay{Strict: true}})
	}
	if overridden(plan, r, x) {
		all = append(all, omission{of: "overrides", decider: x.Address.String(), replay: pipeline.Replay{Usual: true}, only: true})
	}
	hits := r.HitsOf(x)
	counted := pipeline.Counted(hits)
	order := make([]int, len(hits))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(math.Abs(counted[b]), math.Abs(counted[a])) })
	for _, i := range order[:min(len(order), mostScores)] {
		h := &hits[i]
		if place := (pipeline.Place{Step: h.Step, At: h.At}); !slices.Contains(taken, place) {
			all = append(all, omission{of: "score", decider: h.Step + "/" + h.Name, replay: at(h.Step, h.At), only: true})
		}
	}
	return all
}

// dispositionOf is what a verdict comes to by itself.
func dispositionOf(a pipeline.Action) pipeline.Disposition {
	switch a {
	case pipeline.Reject:
		return pipeline.Refused
	case pipeline.TempFail:
		return pipeline.Postponed
	case pipeline.Quarantine:
		return pipeline.Held
	case pipeline.Discard:
		return pipeline.Dropped
	}
	return pipeline.Delivered
}

// refusedForAll returns the recipient about whom was decided what the door has answered for all, if that was another one
// than x; else nil.
func refusedForAll(r *pipeline.Record, x *pipeline.RecipientRecord) *pipeline.RecipientRecord {
	if x.ByDoor || x.Disposition != pipeline.Refused && x.Disposition != pipeline.Postponed {
		return nil
	}
	for i := range r.Recipients {
		y := &r.Recipients[i]
		if y != x && !y.ByDoor && y.Step != "" && y.Verdict.Action.Refuses() && dispositionOf(y.Verdict.Action) == x.Disposition && y.Disposition == x.Disposition &&
			dispositionOf(x.Verdict.Action) != x.Disposition {
			return y
		}
	}
	return nil
}

// atTheDoor reports whether nobody but the door has kept the mail from a recipient: it could not be filed, say.
func atTheDoor(r *pipeline.Record, x *pipeline.RecipientRecord) bool {
	return x.Step == "" && x.Verdict.Action == pipeline.Pass && (x.Disposition == pipeline.Refused || x.Disposition == pipeline.Postponed) &&
		refusedForAll(r, x) == nil
}

// atDelivery reports whether a step is asked where the mail is filed, such as what runs scripts of recipients.
func (p *plans) atDelivery(r *pipeline.Record, x *pipeline.RecipientRecord, step string) bool {
	for _, s := range slices.Concat(x.Steps, r.Steps) {
		if s.Name == step {
			return slices.ContainsFunc(p.program.kinds, func(k pipeline.Kind) bool { return k.Name == s.Kind && k.AtDelivery })
		}
	}
	return false
}

// wishesOf returns what the recipient's own wishes have made of a mail, and by which step; nil where they have left it as it
// would be without them.
func wishesOf(r *pipeline.Record, x *pipeline.RecipientRecord) (step string, said *pipeline.Handling) {
	if x.Handling == nil {
		return "", nil
	}
	place := -1
	for _, s := range slices.Concat(r.Steps, x.Steps) {
		for _, st := range s.Stages {
			if h := st.Handling; h != nil && !s.Shadow && !st.Shadow && !h.Shadow && s.At >= place {
				step, said, place = s.Name, h, s.At
			}
		}
	}
	if said != nil && len(said.Copies) == 1 && len(said.Leaving) == 0 && len(said.Runs) == 0 {
		if c := said.Copies[0]; c.Kept && !c.Altered && len(c.Flags) == 0 {
			return "", nil
		}
	}
	return step, said
}

// A mark is what a rule or a threshold has done to mail that was delivered.
type mark struct {
	place       pipeline.Place
	of, decider string
	threshold   string
	edits       []pipeline.Edit
	flags       []string
}

// marksOf are those that counted for a recipient: first what has chosen the folder, then rules that set flags and fields.
func marksOf(r *pipeline.Record, x *pipeline.RecipientRecord) (all []mark) {
	if step, by, _ := strings.Cut(x.FolderBy, "/"); step != "" {
		for _, s := range slices.Concat(r.Steps, x.Steps) {
			for _, st := range s.Stages {
				for _, e := range st.Effects {
					if s.Name == step && !s.Shadow && !st.Shadow && !e.Shadow && e.Kind == pipeline.FileInto && e.By == by && e.Folder == x.Folder {
						m := mark{place: pipeline.Place{Step: step, At: e.At}, of: "folder", decider: x.FolderBy}
						if e.Threshold {
							m.threshold = "junk"
						}
						all = []mark{m} // the last one counts
					}
				}
			}
		}
	}
	for _, h := range r.HitsOf(x) {
		m := mark{place: pipeline.Place{Step: h.Step, At: h.At}, of: "mark", decider: h.Step + "/" + h.Name}
		for _, s := range slices.Concat(r.Steps, x.Steps) {
			if s.Name != h.Step {
				continue
			}
			for _, st := range s.Stages {
				for _, e := range st.Effects {
					if e.At == h.At && e.Kind == pipeline.AddFlags && !e.Shadow {
						m.flags = append(m.flags, e.Flags...)
					}
				}
				for _, e := range st.Edits {
					if e.At == h.At && !e.Shadow {
						m.edits = append(m.edits, e)
					}
				}
			}
		}
		if len(m.flags)+len(m.edits) > 0 {
			if len(all) > 0 && all[0].place == m.place {
				all[0].edits, all[0].flags = m.edits, m.flags
				continue
			}
			all = append(all, m)
		}
	}
	return all
}

// overridden reports whether anything is otherwise for a recipient than for everybody.
func overridden(plan *pipeline.Plan, r *pipeline.Record, x *pipeline.RecipientRecord) bool {
	for _, s := range r.Steps {
		e, ok := rules.EffectiveFor(plan.Stages(s.Name), x.Address)
		if !ok || s.Shadow {
			continue
		}
		changed := slices.ContainsFunc(e.Thresholds, func(t rules.Threshold) bool { return len(t.Changes) > 0 }) ||
			slices.ContainsFunc(e.Groups, func(g rules.GroupOf) bool { return len(g.Changes) > 0 }) ||
			slices.ContainsFunc(e.Rules, func(x rules.RuleOf) bool { return len(x.Changes) > 0 })
		if changed {
			return true
		}
	}
	return false
}

// describe says in words what would have become of the mail.
func (p *plans) describe(c *counterfactual, out omission, was *pipeline.Record, x *pipeline.RecipientRecord, again *pipeline.Record, other *pipeline.RecipientRecord) {
	if other.Disposition == pipeline.NotFinished {
		c.Outcome = "let in so far; what would have been said of the mail nobody knows, for it never came"
		return
	}
	s := outcome(other, true)
	if other.Disposition == pipeline.Delivered && was.Door == pipeline.Milter && !slices.ContainsFunc(was.Recipients, func(x pipeline.RecipientRecord) bool { return x.File != "" }) {
		s = "left to the MTA, for " + folder(other.Folder)
	}
	switch reason := reached(again, other); {
	case other.Verdict.Action > pipeline.Keep:
		s += ", by " + deciderOf(other)
		if other.Verdict.Reason != "" {
			s += ": " + other.Verdict.Reason
		}
	case refusedForAll(again, other) != nil:
		s += ", for " + decidedBy(again, other)
	case other.Verdict.Action == pipeline.Keep:
		s += ", kept by " + deciderOf(other)
	case other.FolderBy != "":
		s += ", by " + other.FolderBy + reason
	}
	if other.Score != x.Score {
		s += ", score " + numeral(other.Score)
	}
	if other.Disposition == pipeline.Delivered {
		for _, x := range []struct {
			is   string
			what []string
		}{
			{"without the flag", minus(slices.Concat(out.flags, flagsOf(x)), flagsOf(other))}, {"with the flag", minus(flagsOf(other), flagsOf(x))},
		} {
			if len(x.what) > 0 {
				s += ", " + x.is + " " + strings.Join(x.what, ", ")
				c.Same = false
			}
		}
		if leaving(x) != "" && leaving(other) == "" {
			s += ", and nothing would have left"
			c.Same = false
		}
		if gone := missing(out.marks, again, other); len(gone) > 0 {
			s += ", " + strings.Join(gone, ", ")
			c.Same = false
		}
		if step := p.unasked(was, again, other); step != "" {
			c.Gaps = append(slices.Clone(c.Gaps), step+" was not asked then, and scripts may want it elsewhere")
		}
	}
	c.Outcome = s
}

// flagsOf are the flags of a mail that was delivered.
func flagsOf(x *pipeline.RecipientRecord) []string {
	all := slices.Clone(x.Flags)
	if x.Handling != nil {
		for _, c := range x.Handling.Copies {
			all = append(all, c.Flags...)
		}
	}
	return all
}

func minus(a, b []string) (rest []string) {
	for _, s := range a {
		if !slices.Contains(b, s) && !slices.Contains(rest, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// missing says which changes of the header nobody would have wanted.
func missing(edits []pipeline.Edit, r *pipeline.Record, x *pipeline.RecipientRecord) (all []string) {
	wanted := func(e pipeline.Edit) bool {
		for _, s := range slices.Concat(r.Steps, x.Steps) {
			for _, st := range s.Stages {
				if !s.Shadow && !st.Shadow && slices.ContainsFunc(st.Edits, func(y pipeline.Edit) bool {
					y.At = e.At
					return y == e
				}) {
					return true
				}
			}
		}
		return false
	}
	for _, e := range edits {
		switch {
		case wanted(e):
		case e.Delete:
			all = append(all, "with the field "+e.Name)
		default:
			all = append(all, "without the field "+e.Name)
		}
	}
	return all
}

// unasked names the step whose scripts were not asked then where they would have been, "" for none.
func (p *plans) unasked(was, again *pipeline.Record, x *pipeline.RecipientRecord) string {
	if was.Door == pipeline.Milter || was.Door == pipeline.Submission {
		return ""
	}
	for _, s := range x.Steps {
		if !s.Shadow && p.atDelivery(again, x, s.Name) && !slices.ContainsFunc(s.Stages, func(st pipeline.StageRecord) bool { return st.State == "recalled" || st.State == "error" }) {
			return s.Name
		}
	}
	return ""
}
