package rules

import (
	"context"
	"errors"

	"sluice/pipeline"
)

// Place implements pipeline.Placer.
func (st *stage) Place(at int, text string) error { return st.set.place(at, text) }

// Place implements pipeline.Placer.
func (t *thresholdStage) Place(at int, text string) error { return t.set.place(at, text) }

// place is what is to be said about a rule, with its place.
func (s *ruleset) place(at int, text string) error {
	if at < 0 || at >= len(s.rules) {
		return nil
	}
	x := s.rules[at]
	r := &reporter{step: s.scope.step}
	r.report(x.pos, x.name, text, "")
	return r.all[0]
}

// An outline stands for the rules of a step that cannot be compiled because steps before it could not be read: later steps
// learn the names of its rules from it. It is in no plan.
type outline struct{ set *ruleset }

func (o *outline) Reads() pipeline.Reads { return pipeline.Reads{} }

func (o *outline) Check(context.Context, pipeline.View) (pipeline.Result, error) {
	return pipeline.Result{}, errors.New("rules: the steps before could not be read")
}

// Rules names the rules of the step, in order.
func (o *outline) Rules() []string {
	var names []string
	for _, x := range o.set.rules {
		names = append(names, x.name)
	}
	return names
}

// ShadowRules names those of the step's rules that are tried only.
func (o *outline) ShadowRules() []string { return o.set.shadowRules() }
