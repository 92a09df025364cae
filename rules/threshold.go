package rules

import (
	"context"
	"fmt"
	"slices"

	"sluice/pipeline"
)

// Thresholds of a step's score; 0 is none.
type thresholds struct {
	reject, quarantine, junk float64
	folder                   string
}

// Recipients whose score a threshold stage judges.
type whoseScore byte

const (
	everybody  whoseScore = iota
	withoutOwn            // those for whom no rule of an override scores
	withOwn               // the others
)

// A thresholdStage judges the sum of what the step's rules have scored.
type thresholdStage struct {
	set   *ruleset
	names []string
	at    int
	thresholds
	content      bool
	who          whoseScore
	refuses      bool // it judges reject
	files        bool // and this, quarantine and junk
	canReject    bool // there is anybody to whom it applies
	canHold      bool
	canJunk      bool
	forRecipient bool
}

// thresholdStages makes the stage for the thresholds, its place after all rules. Where a refusal by score might not
// count (none of the rules that score reads header or body) it is a stage of its own, so that the others still do.
func (s *ruleset) thresholdStages(t thresholdStage) []pipeline.Stage {
	t.set, t.at = s, len(s.rules)
	t.canReject, t.canHold, t.canJunk = t.reject > 0, t.quarantine > 0, t.junk > 0
	for _, e := range s.effective {
		t.canReject, t.canHold, t.canJunk = t.canReject || e.reject > 0, t.canHold || e.quarantine > 0, t.canJunk || e.junk > 0
	}
	t.forRecipient = s.personalLevels || t.who != everybody
	t.refuses, t.files = t.canReject, t.canHold || t.canJunk
	switch {
	case !t.refuses && !t.files:
		return nil
	case t.content || !t.refuses || !t.files:
		return []pipeline.Stage{&t}
	}
	first, rest := t, t
	first.files, rest.refuses, rest.at = false, false, t.at+1
	return []pipeline.Stage{&first, &rest}
}

// Reads implements pipeline.Stage.
func (t *thresholdStage) Reads() pipeline.Reads {
	r := pipeline.Reads{Facts: []string{t.set.scope.step}}
	if t.content {
		// What it judges comes from the header or the body.
		r.Input = pipeline.InputHeader
	}
	if t.forRecipient {
		r.Input |= pipeline.InputRecipient
	}
	if t.refuses && t.canReject {
		r.Can = append(r.Can, pipeline.Final{At: t.at, Action: pipeline.Reject})
	}
	if t.files && t.canHold {
		r.Can = append(r.Can, pipeline.Final{At: t.at, Action: pipeline.Quarantine})
	}
	return r
}

// TermKeys implements pipeline.Termer: it has no condition, and is asked again without the message.
func (t *thresholdStage) TermKeys() []string { return nil }

// Does implements pipeline.Doer.
func (t *thresholdStage) Does() []pipeline.Deed {
	if !t.files || !t.canJunk {
		return nil
	}
	return []pipeline.Deed{{At: t.at, Kind: pipeline.DoesJunk}}
}

// ShadowRules names those of the whole step's rules that are tried only.
func (t *thresholdStage) ShadowRules() []string { return t.set.shadowRules() }

// Rules names the rules of the whole step, in order.
func (t *thresholdStage) Rules() []string { return t.names }

// of returns the thresholds of a recipient; own is nil where they are those of everybody. ok is false where another stage
// judges.
func (t *thresholdStage) of(r pipeline.Recipient) (th thresholds, own *effective, ok bool) {
	th = t.thresholds
	if t.forRecipient {
		own = t.set.forRecipient(r.Address)
	}
	scores := own != nil && own.scoresOwn()
	if t.who == withoutOwn && scores || t.who == withOwn && !scores {
		return th, own, false
	}
	if own != nil {
		th = own.thresholds
	}
	return t.judged(th), own, true
}

// judged are those of thresholds that this stage judges.
func (t *thresholdStage) judged(th thresholds) thresholds {
	if !t.refuses {
		th.reject = 0
	}
	if !t.files {
		th.quarantine, th.junk = 0, 0
	}
	return th
}

// Concerns implements pipeline.Chooser.
func (t *thresholdStage) Concerns(r pipeline.Recipient, f pipeline.Final) bool {
	th, _, ok := t.of(r)
	return ok && *th.level(f.Action.String()) > 0
}

// reached is the strictest threshold that a score reaches, "" for none.
func (t thresholds) reached(score float64) string {
	for _, name := range []string{"reject", "quarantine", "junk"} {
		if limit := *t.level(name); limit > 0 && score >= limit {
			return name
		}
	}
	return ""
}

// Check implements pipeline.Stage.
func (t *thresholdStage) Check(_ context.Context, v pipeline.View) (pipeline.Result, error) {
	var r pipeline.Result
	who := v.Rcpt
	if v.Again.Usual() {
		who = pipeline.Recipient{}
	}
	th, own, ok := t.of(who)
	if !ok {
		return r, nil
	}
	score := t.set.score(v.Hits)
	level := th.reached(score)
	if level != "" && v.Again.Without(t.at) {
		*th.level(level) = 0 // the one that decided is left out; the others stand
		level = th.reached(score)
	}
	why := ""
	if level != "" {
		why = fmt.Sprintf("score %.4g reaches %s: %.4g", score, level, *th.level(level))
		if own != nil {
			if o, ok := own.levels[level]; ok {
				why += " (" + o.String() + ")"
			}
		}
	}
	if own != nil {
		r.Note = own.otherwise(t.judged(t.thresholds), score, level)
	}
	switch level {
	case "reject":
		r.Verdict = pipeline.Verdict{At: t.at, Action: pipeline.Reject, Reason: why,
			Reply: pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "message refused: it looks like spam"}}
	case "quarantine":
		r.Verdict = pipeline.Verdict{At: t.at, Action: pipeline.Quarantine, Reason: why}
	case "junk":
		r.Effects = []pipeline.Effect{{At: t.at, Kind: pipeline.FileInto, Folder: t.folder, Threshold: true, Reason: why}}
	}
	return r, nil
}

// otherwise says what stricter threshold the score would have reached were this recipient served as everybody is.
func (e *effective) otherwise(usual thresholds, score float64, reached string) string {
	level := usual.reached(score)
	strict := []string{"", "junk", "quarantine", "reject"}
	if slices.Index(strict, level) <= slices.Index(strict, reached) {
		return ""
	}
	s := fmt.Sprintf("score %.4g would reach %s: %.4g", score, level, *usual.level(level))
	if o, ok := e.levels[level]; ok {
		s += fmt.Sprintf(", which is %s %s", figure(*e.level(level)), o)
	}
	return s
}

// scoresOwn reports whether a rule that is there for these recipients only adds to their score.
func (e *effective) scoresOwn() bool {
	for o := range e.only {
		for _, x := range o.rules {
			if x.scores && !x.shadow {
				return true
			}
		}
	}
	return false
}

// Concerns implements pipeline.Chooser.
func (st *stage) Concerns(r pipeline.Recipient, f pipeline.Final) bool {
	if !st.personal || f.At < 0 || f.At >= len(st.set.rules) {
		return true
	}
	own, x := st.set.forRecipient(r.Address), st.set.rules[f.At]
	return own.concerns(x) && !own.isOff(x)
}

// Since implements pipeline.Chooser.
func (st *stage) Since() pipeline.Phase { return st.since }

// Since implements pipeline.Chooser.
func (t *thresholdStage) Since() pipeline.Phase { return t.set.scoreSince }
