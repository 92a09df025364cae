package program

import (
	"fmt"
	"strconv"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules"
)

// An effectiveStep is a step with rules as it is for one recipient: what check --effective prints.
type effectiveStep struct {
	Step       string               `json:"step"`
	JunkFolder string               `json:"junk_folder,omitempty"`
	Thresholds []effectiveThreshold `json:"thresholds"`
	Groups     []effectiveGroup     `json:"groups"`
	Rules      []effectiveRule      `json:"rules"`
}

type effectiveThreshold struct {
	Name    string            `json:"name"`
	Value   float64           `json:"value"` // 0: none
	From    place             `json:"from"`
	Changed []effectiveChange `json:"changed,omitempty"`
}

type effectiveGroup struct {
	pipeline.Group
	Shadow  bool              `json:"shadow,omitempty"`
	From    place             `json:"from"`
	Changed []effectiveChange `json:"changed,omitempty"`
}

type effectiveRule struct {
	Name    string            `json:"name"`
	When    string            `json:"when"`
	Score   *float64          `json:"score,omitempty"` // absent where it has none
	Group   string            `json:"group,omitempty"`
	Does    []string          `json:"does,omitempty"`
	Off     bool              `json:"off,omitempty"`
	Shadow  bool              `json:"shadow,omitempty"`
	From    place             `json:"from"`
	Changed []effectiveChange `json:"changed,omitempty"`
}

// An effectiveChange is what an override says.
type effectiveChange struct {
	For  string `json:"for"`
	What string `json:"what"`
	From place  `json:"from"`
}

// A place is where something is written.
type place struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// effectiveSteps works out what the rules of a plan are for a recipient.
func effectiveSteps(c *config.Config, plan *pipeline.Plan, recipient string) ([]effectiveStep, error) {
	a, err := mime.ParseAddress(strings.Trim(recipient, "<>"))
	if err != nil {
		return nil, fmt.Errorf("--effective %s: %w", recipient, err)
	}
	if a.IsZero() {
		return nil, fmt.Errorf("--effective: name a recipient, anna@example.org say")
	}
	all := []effectiveStep{}
	for i, name := range plan.Steps() {
		e, ok := rules.EffectiveFor(plan.Stages(name), a)
		if !ok {
			continue
		}
		all = append(all, effective(c, c.Pipeline[i], name, e))
	}
	return all, nil
}

func effective(c *config.Config, step pipeline.Step, name string, e rules.Effective) effectiveStep {
	at := func(w rules.Written) place {
		if w.File == "" {
			w.File = c.File()
		}
		return place(w)
	}
	changed := func(all []rules.Change) (out []effectiveChange) {
		for _, x := range all {
			out = append(out, effectiveChange{x.For, x.What, at(x.Written)})
		}
		return out
	}
	out := effectiveStep{Step: name, JunkFolder: e.JunkFolder, Groups: []effectiveGroup{}, Rules: []effectiveRule{}}
	for _, x := range e.Thresholds {
		set := c.At(step.Pos, x.Name+": ")
		out.Thresholds = append(out.Thresholds, effectiveThreshold{x.Name, x.Value, place{set.File, set.Line, set.Column}, changed(x.Changes)})
	}
	for _, x := range e.Groups {
		out.Groups = append(out.Groups, effectiveGroup{x.Group, x.Shadow, at(x.Written), changed(x.Changes)})
	}
	for _, x := range e.Rules {
		r := effectiveRule{
			Name: x.Name, When: x.Condition, Group: x.Group, Does: x.Does, Off: x.Off, Shadow: x.Shadow, From: at(x.Written), Changed: changed(x.Changes),
		}
		if x.Scores {
			r.Score = &x.Score
		}
		out.Rules = append(out.Rules, r)
	}
	return out
}

// effective prints what the rules are for a recipient.
func (t *text) effective(recipient string, steps []effectiveStep) {
	t.line(0, "what holds for %s", recipient)
	if len(steps) == 0 {
		t.line(1, "there are no rules")
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	line := func(name, what string, from place, changed []effectiveChange) {
		t.line(2, "%-24s %-36s %s", name, what, from)
		for _, c := range changed {
			t.line(3, "%-22s %-36s %s", "for "+c.For, c.What, c.From)
		}
	}
	for _, s := range steps {
		t.line(1, "thresholds of %s", s.Step)
		for _, x := range s.Thresholds {
			what := "none"
			if x.Value > 0 {
				what = number(x.Value)
				if x.Name == "junk" {
					what += ", into " + s.JunkFolder
				}
			}
			line(x.Name, what, x.From, x.Changed)
		}
		if len(s.Groups) > 0 {
			t.line(1, "groups of %s", s.Step)
		}
		for _, x := range s.Groups {
			var what []string
			if x.Max != nil {
				what = append(what, "at most "+number(*x.Max))
			}
			if x.Min != nil {
				what = append(what, "at least "+number(*x.Min))
			}
			if x.Shadow {
				what = append(what, "shadow: recorded only")
			}
			line(x.Name, strings.Join(what, ", "), x.From, x.Changed)
		}
		t.line(1, "rules of %s", s.Step)
		for _, x := range s.Rules {
			line(x.Name, x.what(), x.From, x.Changed)
		}
	}
}

// what says in one line what a rule does where it holds.
func (r effectiveRule) what() string {
	var all []string
	if r.Off {
		all = append(all, "off")
	}
	if r.Shadow {
		all = append(all, "shadow")
	}
	if r.Score != nil {
		s := "score " + strconv.FormatFloat(*r.Score, 'f', -1, 64)
		if r.Group != "" {
			s += " in " + r.Group
		}
		all = append(all, s)
	}
	all = append(all, r.Does...)
	if len(all) == 0 {
		return "only asked for by others"
	}
	return strings.Join(all, ", ")
}
