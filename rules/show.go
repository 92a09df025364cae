package rules

import (
	"fmt"
	"strings"

	"sluice/pipeline"
)

// An Effective is what the rules of a step are for one recipient, once all overrides are merged.
type Effective struct {
	JunkFolder string
	Thresholds []Threshold // reject, quarantine, junk
	Groups     []GroupOf   // in the order in which they are written
	Rules      []RuleOf    // in the order of decision; those of others are left out
}

// A Written is where something is written.
type Written struct {
	File         string // "" is the configuration itself
	Line, Column int    // from 1; 0: the settings of the step
}

// A Change is something that an override says: what is otherwise, for whom, and where that is written.
type Change struct {
	For  string // "example.org", "anna@example.org"
	What string // "junk 3 and not 5"
	Written
}

// A Threshold is what a score has to reach; 0 is none.
type Threshold struct {
	Name    string
	Value   float64
	Changes []Change // one at most
}

// A GroupOf is a group of rules.
type GroupOf struct {
	pipeline.Group
	Shadow  bool
	Changes []Change
	Written
}

// A RuleOf is a rule.
type RuleOf struct {
	Name      string
	Condition string   // as written, on one line
	Scores    bool     //
	Score     float64  //
	Group     string   // "" for none
	Does      []string // what it does besides scoring: "reject 5.7.1 no", "file Lists"
	Off       bool
	Shadow    bool
	Changes   []Change
	Written
}

// EffectiveFor returns what the rules of a step are for a recipient; ok is false for stages that are none of this package.
func EffectiveFor(stages []pipeline.Stage, a pipeline.Address) (e Effective, ok bool) {
	for _, st := range stages {
		switch st := st.(type) {
		case *stage:
			return st.set.effectiveFor(a), true
		case *thresholdStage:
			return st.set.effectiveFor(a), true
		}
	}
	return e, false
}

func (s *ruleset) effectiveFor(a pipeline.Address) Effective {
	own := s.forRecipient(a)
	if own == nil {
		own = &effective{thresholds: s.usual} // its maps are empty
	}
	out := Effective{JunkFolder: s.usual.folder}
	for _, name := range []string{"reject", "quarantine", "junk"} {
		t := Threshold{Name: name, Value: *own.level(name)}
		if o, ok := own.levels[name]; ok {
			t.Changes = append(t.Changes, o.change(fmt.Sprintf("%s and not %s", figure(t.Value), figure(*s.usual.level(name)))))
		}
		out.Thresholds = append(out.Thresholds, t)
	}
	for _, f := range s.groups {
		g := GroupOf{Group: f.Group, Shadow: f.shadow, Written: f.pos.written()}
		if c, ok := own.caps[f]; ok {
			g.Group = *c.Group
			g.Changes = append(g.Changes, c.change(fmt.Sprintf("%s, and not %s", bounds(c.Group), bounds(&f.Group))))
		}
		out.Groups = append(out.Groups, g)
	}
	for _, x := range s.rules {
		if own.concerns(x) {
			out.Rules = append(out.Rules, x.of(own))
		}
	}
	return out
}

func (x *rule) of(own *effective) RuleOf {
	r := RuleOf{
		Name: x.name, Condition: strings.Join(strings.Fields(string(x.when)), " "), Scores: x.scores, Score: x.score, Does: x.does(),
		Off: own.isOff(x), Shadow: x.shadow, Written: x.pos.written(),
	}
	if x.group != nil {
		r.Group = x.group.Name
	}
	if o, ok := own.only[x.only]; ok && x.only != nil {
		r.Changes = append(r.Changes, o.change("a rule of its own"))
	}
	if c, ok := own.scores[x]; ok {
		r.Score = c.score
		r.Changes = append(r.Changes, c.change(fmt.Sprintf("score %s and not %s", figure(c.score), figure(x.score))))
	}
	if c, ok := own.off[x]; ok {
		what := "on"
		if c.off {
			what = "off"
		}
		r.Changes = append(r.Changes, c.change(what))
	}
	return r
}

// does says what a rule does besides scoring.
func (x *rule) does() (all []string) {
	switch {
	case x.final.Refuses():
		all = append(all, fmt.Sprintf("%s %s %s", x.final, x.reply.Enhanced, x.reply.Text))
	case x.final != pipeline.Pass:
		all = append(all, x.final.String())
	}
	if x.folder != "" {
		all = append(all, "file "+x.folder)
	}
	if len(x.flags) > 0 {
		all = append(all, "flag "+strings.Join(x.flags, " "))
	}
	for _, e := range x.edits {
		all = append(all, fmt.Sprintf("header %s: %s", e.Name, e.Value))
	}
	return all
}

func (o origin) change(what string) Change {
	return Change{For: o.who, What: what, Written: o.at.written()}
}

func (s spot) written() Written {
	w := Written{Line: s.line, Column: s.column}
	if s.src != nil {
		w.File = s.src.path
	}
	return w
}
