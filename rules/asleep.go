package rules

import "math/bits"

// Sleepers are rules of a stage that cannot hold unless something stands in the mail that they look for: a literal, or a
// header field. They are not looked at until it is found, for with a thousand rules even a look at each is dear.
//
// A rule that sleeps is one whose condition is false, settled by the terms that look for what is not there.
type sleepers struct {
	awake   []uint64 // by place in the stage, a bit each: rules that are always looked at
	watches []watch
	truths  []truth // by rule: what a state begins with
	terms   []truth // by term
}

// A watch is one text in which rules that sleep look for literals, or the names of the header fields.
type watch struct {
	outlook
	rules []int32   // all that sleep here
	wakes [][]int32 // by literal, or by ruleset.headers: those that it wakes
}

// An outlook is where a term looks for something, and what must be known and worked out for that.
type outlook struct {
	in    int32 // in ruleset.haystacks; headerNames
	ref   int32
	loads uint32
}

const headerNames = -1

// A lure is what wakes a rule, of one term.
type lure struct {
	outlook
	literals []int32 // any of them; of headerNames those fields
	term     int32
	worth    int // octets of the shortest
}

// manyLook is how many rules have to look somewhere for it to be certain that somebody does, where that is cheap.
const manyLook = 8

// sleepersOf finds the rules of a stage that can sleep. A place is only watched that is looked at in any case: a body that
// cheap terms would have left alone is not decoded for this.
func (s *ruleset) sleepersOf(hot []hotRule) *sleepers {
	if s.slow || s.plain {
		return nil
	}
	certain, looks := map[outlook]bool{}, map[outlook]int{}
	for i := range hot {
		for _, l := range s.luresOf(&hot[i].plan, true, func(outlook) bool { return false }) {
			certain[l.outlook] = true
		}
		for p := range s.placesOf(&hot[i].plan, map[outlook]bool{}) {
			looks[p]++
		}
	}
	large := s.scope.large()
	watched := func(p outlook) bool {
		return certain[p] || p.loads == 0 || p.loads&large == 0 && looks[p] >= manyLook
	}
	out := &sleepers{
		awake: make([]uint64, (len(hot)+63)/64), truths: make([]truth, len(s.rules)), terms: make([]truth, len(s.terms)),
	}
	at := map[outlook]int{}
	for i := range hot {
		lures := s.luresOf(&hot[i].plan, true, watched)
		if lures == nil || s.rules[hot[i].at].only != nil {
			out.awake[i/64] |= 1 << (i % 64)
			continue
		}
		out.truths[hot[i].at] = isFalse
		for _, l := range lures {
			out.terms[l.term] = isFalse
			n, ok := at[l.outlook]
			if !ok {
				n = len(out.watches)
				at[l.outlook] = n
				many := len(s.headers)
				if l.in != headerNames {
					many = len(s.haystacks[l.in].literals)
				}
				out.watches = append(out.watches, watch{outlook: l.outlook, wakes: make([][]int32, many)})
			}
			w := &out.watches[n]
			w.rules = append(w.rules, int32(i))
			for _, id := range l.literals {
				w.wakes[id] = append(w.wakes[id], int32(i))
			}
		}
	}
	if len(out.watches) == 0 {
		return nil
	}
	return out
}

// lureOf is what wakes a term.
func (s *ruleset) lureOf(p *plan) (lure, bool) {
	t := p.term
	switch {
	case t.op == termHas && len(t.refs) == 1:
		return lure{outlook{headerNames, int32(t.refs[0]), t.loads}, []int32{int32(t.header)}, int32(t.id), 2 * minLiteral}, true
	case p.hay < 0:
		return lure{}, false
	}
	l := lure{outlook{p.hay, p.ref, p.loads}, append([]int32{p.lit}, p.lits...), p.id, maxLiteral}
	for _, id := range l.literals {
		l.worth = min(l.worth, len(s.haystacks[p.hay].literals[id]))
	}
	return l, true
}

// luresOf returns what wakes a rule: while nothing of it is there the condition is false. Of and one operand is enough. nil: the
// rule never sleeps. first: the plan is evaluated whatever others come to; what it looks at need not be watched for others.
func (s *ruleset) luresOf(p *plan, first bool, watched func(outlook) bool) (best []lure) {
	switch p.op {
	case 't':
		if l, ok := s.lureOf(p); ok && (first || watched(l.outlook)) {
			return []lure{l}
		}
	case '&':
		for i := range p.kids {
			if x := s.luresOf(&p.kids[i], first && i == 0, watched); x != nil && (best == nil || worth(x) > worth(best)) {
				best = x
			}
		}
	case '|':
		for i := range p.kids {
			x := s.luresOf(&p.kids[i], first, watched)
			if x == nil {
				return nil
			}
			best = append(best, x...)
		}
	}
	return best
}

func worth(all []lure) int {
	least := all[0].worth
	for _, l := range all {
		least = min(least, l.worth)
	}
	return least
}

// placesOf adds all places where terms of a plan look for something.
func (s *ruleset) placesOf(p *plan, all map[outlook]bool) map[outlook]bool {
	if p.op == 't' {
		if l, ok := s.lureOf(p); ok {
			all[l.outlook] = true
		}
	}
	for i := range p.kids {
		s.placesOf(&p.kids[i], all)
	}
	return all
}

// wake returns which rules of a stage are to be looked at, a bit each by their place. The others do not hold, and their truths
// and terms say so.
func (s *state) wake(st *stage) []uint64 {
	z := st.sleepers
	n := (len(st.rules) + 63) / 64
	if cap(s.awake) < n {
		s.awake = make([]uint64, n)
	}
	awake := s.awake[:n]
	if z == nil || s.again {
		for i := range awake {
			awake[i] = ^uint64(0)
		}
		if rest := len(st.rules) % 64; rest > 0 {
			awake[n-1] = 1<<rest - 1
		}
		return awake
	}
	copy(awake, z.awake)
	copy(s.truths, z.truths)
	copy(s.terms, z.terms)
	for i := range z.watches {
		w := &z.watches[i]
		if w.loads&^s.have != 0 {
			s.bring(w.loads)
		}
		switch {
		case s.unknown[w.ref] != nil:
			s.rouse(st, awake, w.rules)
		case w.in == headerNames:
			s.readFields()
			for _, n := range s.present {
				s.rouse(st, awake, w.wakes[n])
			}
		default:
			for k, there := range s.look(int(w.in)).there {
				for ; there != 0; there &= there - 1 {
					s.rouse(st, awake, w.wakes[k*64+bits.TrailingZeros64(there)])
				}
			}
		}
	}
	return awake
}

// rouse has rules of a stage looked at.
func (s *state) rouse(st *stage, awake []uint64, rules []int32) {
	for _, i := range rules {
		if awake[i/64]&(1<<(i%64)) != 0 {
			continue
		}
		awake[i/64] |= 1 << (i % 64)
		x := st.rules[i]
		s.truths[x.at] = open
		for _, t := range x.terms {
			s.terms[t.id] = open
		}
	}
}

// packed is what the stage's terms came to, as records have it.
func (st *stage) packed(terms []truth) []byte {
	out := make([]byte, (len(st.ids)+3)/4)
	for i, id := range st.ids {
		out[i/4] |= byte(terms[id]) << (i % 4 * 2)
	}
	return out
}
