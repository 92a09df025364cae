package rules

import (
	"cmp"
	"slices"

	"sluice/pipeline"
)

// A plan is a condition in the order in which it is evaluated: of operands the cheap ones first, so that the dear ones are
// mostly settled without. What comes of it is the same in any order (see [state.evalPlan]).
type plan struct {
	op   byte // as of a node, with any number of operands
	kids []plan
	term *term
	cost cost

	// Of a term that looks for literals, what is needed to see that none is there without looking at the term itself: with
	// a thousand rules most of the time goes into fetching from memory what they are made of.
	hay   int32 // in ruleset.haystacks; -1: look at the term
	id    int32 // of the term
	ref   int32 // what must be known
	loads uint32
	lit   int32   // one of them
	lits  []int32 // the others
}

// A cost is how dear it is to evaluate something, roughly.
type cost int

const (
	freeCost    cost = iota // there already
	valueCost               // a number or a short text
	headerCost              // a look at the header, once a mail
	literalCost             // literals of all terms are looked for at once
	listCost                // a named list
	patternCost             // a pattern on a short text
	programCost             // expr's machine
	bodyCost                // the body has to be decoded
)

// planOf plans a condition; moved says that its order is not the written one.
func (s *ruleset) planOf(n *node) (p plan, moved bool) {
	switch n.op {
	case 't':
		return s.planOfTerm(n.term), false
	case '!':
		kid, moved := s.planOf(n.l)
		return plan{op: '!', kids: []plan{kid}, cost: kid.cost, hay: -1}, moved
	}
	p.op, p.hay = n.op, -1
	var gather func(n *node)
	gather = func(x *node) {
		if x.op == n.op {
			gather(x.l)
			gather(x.r)
			return
		}
		kid, m := s.planOf(x)
		p.kids, moved = append(p.kids, kid), moved || m
	}
	gather(n)
	byCost := func(a, b plan) int { return cmp.Compare(a.cost, b.cost) }
	if !s.slow && !s.plain && !slices.IsSortedFunc(p.kids, byCost) {
		slices.SortStableFunc(p.kids, byCost)
		moved = true
	}
	p.cost = p.kids[len(p.kids)-1].cost
	return p, moved
}

func (s *ruleset) planOfTerm(t *term) plan {
	p := plan{op: 't', term: t, cost: s.costOf(t), hay: -1}
	n := &t.fast.needle
	if n.in < 0 || len(n.groups) == 0 || len(t.refs) != 1 {
		return p
	}
	group := n.groups[0]
	p.hay, p.id, p.ref, p.loads, p.lit, p.lits = int32(n.in), int32(t.id), int32(t.refs[0]), t.loads, group[0], group[1:]
	return p
}

// isThere reports whether the literals that a plan's term needs are there. It may say that they are where they are not, for
// the term itself to find out.
func (s *state) isThere(p *plan) bool {
	l := &s.looked[p.hay]
	if !l.done || p.loads&^s.have != 0 || s.unknown[p.ref] != nil || l.has(p.lit) {
		return true
	}
	return len(p.lits) > 0 && l.hasOneOf(p.lits)
}

// costOf is what a term costs.
func (s *ruleset) costOf(t *term) cost {
	body := t.input&pipeline.InputBody != 0 && t.loads&s.scope.large() != 0
	switch t.op {
	case termConst, termKnown, termHitOther:
		return freeCost
	case termHas:
		return headerCost
	case termHit:
		return headerCost // the other rule is asked sooner or later
	case termFast:
		f := &t.fast
		switch {
		case f.op == "list" && body, body && f.op == "matches" && f.needle.in < 0:
			return bodyCost
		case f.op == "list":
			return listCost
		case f.op == "contains" || f.op == "matches":
			if f.needle.in >= 0 || f.op == "contains" {
				return literalCost
			}
			return patternCost
		case f.from == fromHeader || f.from == fromLowerHeader:
			return headerCost
		case body:
			return literalCost
		}
		return valueCost
	}
	if body {
		return bodyCost
	}
	return programCost
}

// large are the names that are texts of any size, a bit each.
func (s *scope) large() (names uint32) {
	for i, x := range s.known {
		if x.large {
			names |= 1 << i
		}
	}
	return names
}

// evalPlan returns what a rule's condition comes to.
func (s *state) evalPlan(x *rule) truth {
	outer := s.missed
	s.missed = false
	t := s.asWritten(x, s.quick(&x.quick))
	s.missed = outer
	return t
}

// asWritten returns what a condition comes to that has come to t by its plan. Where it holds or is undecided, the record says of
// its terms what it would had they been evaluated as they are written, for that is what people read; where it does not hold,
// the terms that have settled it.
func (s *state) asWritten(x *rule, t truth) truth {
	if t == isFalse || !x.moved && !s.missed {
		return t
	}
	for _, k := range x.terms {
		s.early[k.id], s.terms[k.id] = s.terms[k.id], open
	}
	t = s.eval(x.cond)
	for _, k := range x.terms {
		s.early[k.id] = open
	}
	return t
}

// quick is eval over a plan.
func (s *state) quick(p *plan) truth {
	switch p.op {
	case 't':
		if p.hay >= 0 && !s.again && !s.isThere(p) {
			s.terms[p.id] = isFalse
			return isFalse
		}
		if s.again && p.term.looks() && !s.view.Again.Knows(p.term.key, p.term.input) {
			s.missed = true // it may not matter: written order will tell
			return unknown
		}
		t := s.evalTerm(p.term)
		s.terms[p.term.id] = t
		return t
	case '!':
		return s.quick(&p.kids[0]).not()
	}
	settles, t := isFalse, isTrue
	if p.op == '|' {
		settles, t = isTrue, isFalse
	}
	for i := range p.kids {
		switch s.quick(&p.kids[i]) {
		case settles:
			return settles
		case unknown:
			t = unknown
		}
	}
	return t
}

// A hotRule is what of a rule is looked at for each mail. Those of a stage lie side by side.
type hotRule struct {
	at   int
	plan plan
}

// evalHot is evalCondition from what lies side by side.
func (s *state) evalHot(h *hotRule, x *rule) truth {
	if s.again || s.truths[h.at] != open {
		return s.evalCondition(x)
	}
	outer := s.rule
	s.rule = x
	t := s.asWritten(x, s.quick(&h.plan))
	s.rule = outer
	s.truths[h.at] = t
	return t
}
