package rules

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"sluice/pipeline"
)

// A stage holds those rules of a step that can be asked at one moment about one thing.
type stage struct {
	set   *ruleset
	rules []*rule // by their place
	names []string
	reads pipeline.Reads
	facts []stageFact
	refs  []int
	hot   []hotRule // of rules
	terms []*term   // of its rules and of those whose hits they use, in the order of [stage.Terms]
	ids   []int32   // of terms
	keys  []string
	*sleepers
	// personal: something in it may be otherwise for some recipients.
	personal bool
	since    pipeline.Phase

	states sync.Pool
}

// A stageFact is a step whose facts a stage reads, and the refs they fill.
type stageFact struct {
	step *stepInfo
	refs []int
}

// A Term is an operand of and, or and not in a rule's condition: what pipeline.Result.Terms has two bits for.
type Term struct {
	Rule   string
	Source string // as written, on one line
	Pos    string // "rules/spam.yaml:12:11"
}

// A Termer is a stage whose conditions have terms, in the order of pipeline.Result.Terms.
type Termer interface {
	Terms() []Term
}

// group says which rules share a stage: those that can be asked at the same moment, so that none waits for what it does
// not read, and of which refusals count or do not count together.
//
// A refusal by a rule that reads neither header nor body does not count for postmaster and for clients that have logged
// in, unless what it reads is about the mail of logins; other verdicts do. So those are in separate stages, each with a
// first verdict of its own, and so are rules that wait for different facts of the content phase: such a fact may come
// from the body.
//
// Shadow rules are in stages of their own, so that those that count are asked when they would be without them.
type group struct {
	phase   pipeline.Phase
	perRcpt bool
	content bool
	late    string
	logins  bool
	refuses bool
	shadow  bool
	waits   bool
	since   pipeline.Phase
	only    bool // rules that are there for some recipients only
}

func (s *ruleset) groupOf(x *rule) group {
	if x.shadow {
		// They are asked after everybody else, when all that the others know is there.
		return group{phase: x.phase, perRcpt: x.perRcpt, shadow: true, waits: x.waits, since: x.since, only: x.only != nil}
	}
	g := group{phase: x.phase, perRcpt: x.perRcpt, content: x.input&(pipeline.InputHeader|pipeline.InputBody) != 0, waits: x.waits,
		since: x.since, only: x.only != nil}
	if g.content {
		return g
	}
	g.refuses = x.final.Refuses()
	g.logins = g.refuses && slices.ContainsFunc(x.steps, func(name string) bool { return s.scope.steps[name].Logins })
	if x.phase == pipeline.Content {
		var late []string
		for _, name := range x.steps {
			if s.scope.steps[name].Phase == pipeline.Content {
				late = append(late, name)
			}
		}
		g.late = strings.Join(late, ",")
	}
	return g
}

func compareGroups(a, b group) int {
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(number(a.shadow), number(b.shadow)), cmp.Compare(a.phase, b.phase), cmp.Compare(number(a.perRcpt), number(b.perRcpt)),
		cmp.Compare(number(a.content), number(b.content)), cmp.Compare(a.late, b.late), cmp.Compare(number(a.logins), number(b.logins)),
		cmp.Compare(number(a.refuses), number(b.refuses)), cmp.Compare(number(a.waits), number(b.waits)),
		cmp.Compare(a.since, b.since), cmp.Compare(number(a.only), number(b.only)))
}

// stages makes the stages of the rules. Those that score come first, by phase, so that the thresholds, which stand
// right after them and read what earlier stages of the step found, wait for nothing else. Then come those that read the score.
func (s *ruleset) stages(th thresholds) []pipeline.Stage {
	groups := map[group][]*rule{}
	var order []group
	for _, x := range s.rules {
		g := s.groupOf(x)
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], x)
	}
	slices.SortFunc(order, compareGroups)
	var scoring, own, waiting, others []pipeline.Stage // own: of rules for some recipients, that score
	var names []string
	for _, x := range s.rules {
		names = append(names, x.name)
	}
	content, ownContent := false, false
	for _, g := range order {
		st := s.stage(g, groups[g], names)
		scores := slices.ContainsFunc(groups[g], func(x *rule) bool { return x.scores && !x.shadow })
		switch {
		case scores && g.only:
			own = append(own, st)
			ownContent = ownContent || g.content
		case scores:
			scoring = append(scoring, st)
			content = content || g.content
		case g.waits:
			waiting = append(waiting, st)
		default:
			others = append(others, st)
		}
	}
	switch {
	case len(own) > 0:
		// For recipients without rules of their own nothing waits for those of others.
		if len(scoring) > 0 {
			scoring = append(scoring, s.thresholdStages(thresholdStage{thresholds: th, names: names, content: content, who: withoutOwn})...)
		}
		own = append(own, s.thresholdStages(thresholdStage{thresholds: th, names: names, content: content || ownContent, who: withOwn})...)
	case len(scoring) > 0:
		scoring = append(scoring, s.thresholdStages(thresholdStage{thresholds: th, names: names, content: content})...)
	}
	return slices.Concat(scoring, own, waiting, others)
}

func (s *ruleset) stage(g group, rules []*rule, names []string) *stage {
	st := &stage{set: s, rules: rules, names: names, since: g.since}
	steps, told := map[string]bool{}, map[*rule]bool{}
	for _, x := range rules {
		st.reads.Input |= x.input
		for _, name := range x.steps {
			steps[name] = true
		}
		st.refs = append(st.refs, x.refs...)
		s.termsOf(x, st, told)
		if x.final != pipeline.Pass && !x.shadow {
			st.reads.Can = append(st.reads.Can, pipeline.Final{At: x.at, Action: x.final})
		}
	}
	if g.perRcpt {
		st.reads.Input |= pipeline.InputRecipient
	}
	st.reads.Shadow = g.shadow
	if g.waits && s.scores() {
		// Its own step: the stages made before this one, which score.
		st.reads.Facts = append(st.reads.Facts, s.scope.step)
	}
	slices.Sort(st.refs)
	st.refs = slices.Compact(st.refs)
	for _, info := range s.scope.order {
		if !steps[info.Name] {
			continue
		}
		st.reads.Facts = append(st.reads.Facts, info.Name)
		if info.shape == nil {
			continue
		}
		f := stageFact{step: info}
		for _, i := range st.refs {
			if s.refs[i].step == info {
				f.refs = append(f.refs, i)
			}
		}
		st.facts = append(st.facts, f)
	}
	for _, x := range rules {
		h := hotRule{at: x.at, plan: x.quick}
		if len(h.plan.kids) > 0 {
			h.plan.kids = slices.Clone(h.plan.kids) // side by side
		}
		st.hot = append(st.hot, h)
	}
	for _, t := range st.terms {
		st.keys, st.ids = append(st.keys, t.key), append(st.ids, int32(t.id))
	}
	st.sleepers = s.sleepersOf(st.hot)
	st.personal = s.effective != nil && st.reads.Input&pipeline.InputRecipient != 0
	st.states.New = func() any { return newState(s) }
	return st
}

// termsOf adds the terms of a rule to a stage, and of the rules whose hits it uses: those may be asked in other stages too,
// or there be not needed any more.
func (s *ruleset) termsOf(x *rule, st *stage, told map[*rule]bool) {
	if told[x] {
		return
	}
	told[x] = true
	st.terms = append(st.terms, x.terms...)
	for _, t := range x.terms {
		if t.op == termHit {
			s.termsOf(s.rules[t.hit], st, told)
		}
	}
}

// Reads implements pipeline.Stage.
func (st *stage) Reads() pipeline.Reads { return st.reads }

// Rules names the rules of the whole step, in order.
func (st *stage) Rules() []string { return st.names }

// ShadowRules names those of the whole step's rules that are tried only.
func (st *stage) ShadowRules() []string { return st.set.shadowRules() }

func (s *ruleset) shadowRules() (names []string) {
	for _, x := range s.rules {
		if x.shadow {
			names = append(names, x.name)
		}
	}
	return names
}

// Does implements pipeline.Doer.
func (st *stage) Does() (all []pipeline.Deed) {
	for _, x := range st.rules {
		if x.shadow {
			continue
		}
		if x.folder != "" {
			all = append(all, pipeline.Deed{At: x.at, Kind: pipeline.DoesFile})
		}
		if len(x.flags) > 0 {
			all = append(all, pipeline.Deed{At: x.at, Kind: pipeline.DoesFlag})
		}
		if len(x.edits) > 0 {
			all = append(all, pipeline.Deed{At: x.at, Kind: pipeline.DoesEdit})
		}
	}
	return all
}

// Terms lists the terms of the stage's conditions.
func (st *stage) Terms() []Term {
	out := make([]Term, len(st.terms))
	for i, t := range st.terms {
		out[i] = Term{Rule: t.rule.name, Source: t.source, Pos: t.pos.String()}
	}
	return out
}

// TermKeys implements pipeline.Termer.
func (st *stage) TermKeys() []string { return st.keys }

// Check evaluates all rules of the stage, in order. Those below a final verdict are evaluated too: whether it counts is
// not known here.
func (st *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	s := st.states.Get().(*state)
	s.load(st, &v)
	var r pipeline.Result
	for word, awake := range s.wake(st) {
		if ctx.Err() != nil {
			return pipeline.Result{}, fmt.Errorf("rules: %d of %d rules evaluated: %w", word*64, len(st.rules), ctx.Err())
		}
		for ; awake != 0; awake &= awake - 1 {
			s.decide(st, word*64+bits.TrailingZeros64(awake), &r)
		}
	}
	if v.Again.EveryTerm() {
		s.everyTerm(st)
	}
	r.Terms = st.packed(s.terms)
	// A state that a panic has left is not used again.
	s.clear()
	st.states.Put(s)
	return r, nil
}

// decide evaluates one rule of the stage, and adds what comes of it to a result.
func (s *state) decide(st *stage, i int, r *pipeline.Result) {
	x := st.rules[i]
	if !s.own.concerns(x) {
		return
	}
	switch s.evalHot(&st.hot[i], x) {
	case isTrue:
		x.hold(r, s.evidence(x), s.own)
	case unknown:
		if s.own.isOff(x) {
			return
		}
		if s.view.Again != nil {
			s.lacks(x)
		}
		r.Undecided = append(r.Undecided, pipeline.Undecided{At: x.at, Name: x.name, Why: s.why(x), Shadow: x.shadow})
	}
}

// hold adds what a rule that held wants to a result, for a recipient for whom this is otherwise.
func (x *rule) hold(r *pipeline.Result, evidence []pipeline.Evidence, own *effective) {
	hit := pipeline.Hit{At: x.at, Name: x.name, Score: x.score, Action: x.final, Evidence: evidence, Shadow: x.shadow}
	if x.group != nil {
		hit.Group = &x.group.Group
	}
	own.change(x, &hit)
	r.Hits = append(r.Hits, hit)
	if hit.Off {
		return
	}
	if x.final != pipeline.Pass && !x.shadow && r.Verdict.Action == pipeline.Pass {
		r.Verdict = pipeline.Verdict{At: x.at, Action: x.final, Reply: x.reply, By: x.name}
	}
	if x.folder != "" {
		r.Effects = append(r.Effects, pipeline.Effect{At: x.at, Kind: pipeline.FileInto, By: x.name, Folder: x.folder, Shadow: x.shadow})
	}
	if len(x.flags) > 0 {
		r.Effects = append(r.Effects, pipeline.Effect{At: x.at, Kind: pipeline.AddFlags, By: x.name, Flags: slices.Clone(x.flags), Shadow: x.shadow})
	}
	for _, e := range x.edits {
		e.At, e.Shadow = x.at, x.shadow
		r.Edits = append(r.Edits, e)
	}
}
