package rules

import (
	"fmt"
	"slices"

	"sluice/pipeline"
)

const (
	warnWork  = 1_000_000 // of all conditions of a step, in comparisons of two literals: some tenths of a second
	queryWork = 5_000     // of one question
	maxReason = 200       // characters of a reason
)

// warnings are what an administrator should know about the rules of the step, which are right: rules and parts of
// conditions that can come out one way only, rules that others leave nothing to do, and thresholds beyond every score.
// None of them is ever wrong; where finding out is too much work nothing is said.
func (s *ruleset) warnings(th thresholds) (all []error) {
	w := &warner{reporter: &reporter{step: s.scope.step}, set: s, left: warnWork, dead: map[*rule]bool{}}
	for _, t := range s.terms {
		s.settle(t)
	}
	for _, x := range s.rules {
		if x.cond != nil {
			w.rule(x)
		}
	}
	// Overrides switch rules off and change scores and thresholds for some recipients.
	alike := len(s.overrides) == 0
	if alike {
		w.useless()
	}
	for _, p := range w.sorted(s.sources) {
		all = append(all, p)
	}
	if alike {
		all = append(all, w.thresholds(th)...)
	}
	return all
}

type warner struct {
	*reporter
	set  *ruleset
	left int
	dead map[*rule]bool // rules that never hold
}

// ask returns whether a condition can come to want, and if it cannot why.
func (w *warner) ask(n *node, want bool) (possible bool, why []clash) {
	s := &solver{set: w.set, left: min(w.left, queryWork)}
	most := s.left
	possible = s.possible(n, want)
	w.left -= most - max(s.left, 0)
	return possible, s.clashes
}

// rule warns of a rule that never or always holds, or else of parts of its condition that do.
func (w *warner) rule(x *rule) {
	if w.left <= 0 || x.cond.op == 't' && x.cond.term.op == termConst && x.cond.term.value {
		return // `when: true` means it
	}
	if can, why := w.ask(x.cond, true); !can {
		w.dead[x] = true
		w.report(place(x.cond, why), x.name, fmt.Sprintf("the rule `%s` can never hold: %s", x.name, reason(why, true)), "")
		return
	}
	if can, why := w.ask(x.cond, false); !can {
		if len(w.set.overrides) > 0 {
			return // where it is switched off it does not
		}
		text := "the rule `%s` holds for every mail of which is known what it reads: %s"
		if w.certain(x) {
			text = "the rule `%s` always holds: %s"
		}
		w.report(place(x.cond, why), x.name, fmt.Sprintf(text, x.name, reason(why, false)), "")
		return
	}
	w.parts(x, x.cond)
}

// certain reports whether a condition that cannot be false is true: nothing that it reads is ever unknown.
func (w *warner) certain(x *rule) bool {
	for _, t := range x.terms {
		if t.op == termKnown {
			continue
		}
		if t.op == termHit || t.op == termHitOther || t.op == termProgram && t.atom.kind != atomConst {
			return false
		}
		for _, i := range t.refs {
			switch w.set.refs[i].name {
			case "from", "rcpt", "header_from", "subject", messageName, "size":
			default:
				return false
			}
		}
	}
	return true
}

// parts warns of the smallest parts of a condition that come out one way only.
func (w *warner) parts(x *rule, n *node) (said bool) {
	if n.op != 't' {
		left := w.parts(x, n.l)
		if n.op != '!' {
			left = w.parts(x, n.r) || left
		}
		if left || n == x.cond || n.op == '!' {
			return left
		}
	} else if n.term.op == termConst {
		return false // written out
	}
	if w.left <= 0 {
		return false
	}
	for _, holds := range []bool{true, false} {
		if can, why := w.ask(n, holds); !can {
			text := "`%s` can never hold: %s"
			if !holds {
				text = "`%s` holds wherever it is known: %s"
			}
			w.report(place(n, why), x.name, fmt.Sprintf(text, n.source(), reason(why, holds)), "")
			return true
		}
	}
	return false
}

// source is the text of a condition, short.
func (n *node) source() string {
	switch n.op {
	case 't':
		return n.term.source
	case '!':
		return "not (" + n.l.source() + ")"
	}
	return shorten(n.l.source()+map[byte]string{'&': " and ", '|': " or "}[n.op]+n.r.source(), maxReason)
}

// place is where to look: the last of the terms to blame, or where the condition begins.
func place(n *node, why []clash) spot {
	if len(why) == 1 && why[0].a != nil {
		t := why[0].a
		if b := why[0].b; b != nil && (b.pos.line > t.pos.line || b.pos.line == t.pos.line && b.pos.column > t.pos.column) {
			t = b
		}
		return t.pos
	}
	for n.op != 't' {
		n = n.l
	}
	return n.term.pos
}

// reason says why a condition comes out one way only.
func reason(why []clash, never bool) string {
	if len(why) != 1 {
		if never {
			return "each of its parts excludes another"
		}
		return "one of its parts always does"
	}
	c := why[0]
	switch {
	case c.b == nil:
		return c.why
	case c.why != "":
		return c.why
	case c.a.key == c.b.key && never:
		return fmt.Sprintf("`%s` cannot hold and not hold", c.a.source)
	case never:
		return fmt.Sprintf("%s and %s exclude each other", c.a.quoted(c.aWant), c.b.quoted(c.bWant))
	}
	// It cannot come out false, which asks for the opposite of each.
	return fmt.Sprintf("of %s and %s one is always so", c.a.quoted(!c.aWant), c.b.quoted(!c.bWant))
}

// quoted is a term, or that it shall not hold.
func (t *term) quoted(holds bool) string {
	if holds {
		return "`" + t.source + "`"
	}
	return "not `" + t.source + "`"
}

// useless warns of rules that have nothing to say: wherever they hold, one rule further up holds too and has said the last
// word.
func (w *warner) useless() {
	type final struct {
		*rule
		keys map[string]bool
	}
	var above []final
	for _, x := range w.set.rules {
		if x.cond == nil || w.dead[x] {
			continue
		}
		keys := map[string]bool{}
		for _, t := range x.terms {
			keys[t.atom.key] = true
		}
		for _, f := range above {
			if w.left--; w.left <= 0 {
				return
			}
			shared := f.cond.op == 't' && f.cond.term.atom.kind == atomConst
			for k := range f.keys {
				shared = shared || keys[k]
			}
			if !shared || !f.silences(x) || !w.implies(x.cond, f.cond) {
				continue
			}
			w.report(x.pos, x.name, fmt.Sprintf("the rule `%s` has nothing to decide: wherever it holds `%s` holds too, at %s, and has the last word with %s",
				x.name, f.name, f.pos, f.final), "")
			break
		}
		if x.final != pipeline.Pass && !x.shadow {
			above = append(above, final{x, keys})
		}
	}
}

// silences reports whether nothing of y counts where x holds further up.
func (x *rule) silences(y *rule) bool {
	switch {
	case y.shadow || x.perRcpt && !y.perRcpt:
		return false
	case y.final == pipeline.Pass && !y.scores && y.folder == "" && len(y.flags) == 0 && len(y.edits) == 0:
		return false // others ask for its hit
	case x.final == pipeline.Keep && (y.folder != "" || len(y.flags) > 0 || len(y.edits) > 0):
		return false // these count after keep
	case x.final.Refuses() && x.input&(pipeline.InputHeader|pipeline.InputBody) == 0:
		return false // for postmaster and for logins it does not count
	}
	return true
}

// implies reports whether b comes to true wherever a does.
func (w *warner) implies(a, b *node) bool {
	s := &solver{set: w.set, left: min(w.left, queryWork)}
	most := s.left
	all := true
	s.found = func(trail []literal) bool {
		all = w.follows(b, true, trail)
		return all // go on as long as it does
	}
	// The search ends early where it is found not to follow, or where it is too much.
	ended := s.possible(a, true)
	w.left -= most - max(s.left, 0)
	return all && !ended
}

// follows reports whether a condition comes to want where the literals do.
func (w *warner) follows(n *node, want bool, trail []literal) bool {
	w.left--
	switch {
	case n.op == '!':
		return w.follows(n.l, !want, trail)
	case n.op == 't':
		return w.followsTerm(literal{n.term, want}, trail)
	case (n.op == '&') == want:
		return w.follows(n.l, want, trail) && w.follows(n.r, want, trail)
	}
	return w.follows(n.l, want, trail) || w.follows(n.r, want, trail)
}

// followsTerm: the value is known where something of the trail has looked at it, and then the term cannot come to the
// opposite.
func (w *warner) followsTerm(l literal, trail []literal) bool {
	if l.atom.kind == atomConst {
		return l.atom.holds == l.ask()
	}
	s := &solver{set: w.set, left: queryWork}
	opposite := literal{l.term, !l.want}
	for _, o := range trail {
		if o.atom.kind != l.atom.kind || o.atom.key != l.atom.key {
			continue
		}
		if l.atom.kind == atomOther {
			return o.ask() == l.ask()
		}
		s.trail = trail
		return s.alone(opposite) != nil || slices.ContainsFunc(trail, func(o literal) bool {
			return s.related(o, opposite) && s.pair(o, opposite) != nil
		})
	}
	return false
}

// thresholds warns of those that all rules together do not reach.
func (w *warner) thresholds(th thresholds) (all []error) {
	if !w.set.scores() {
		return nil
	}
	most := w.set.mostScore(w.dead)
	for _, x := range []struct {
		name  string
		limit float64
	}{{"reject", th.reject}, {"quarantine", th.quarantine}, {"junk", th.junk}} {
		if x.limit > 0 && most < x.limit-1e-9 {
			all = append(all, fmt.Errorf("%s: no mail reaches %.4g: all rules together score %.4g", x.name, x.limit, most))
		}
	}
	return all
}

// hitGroup is the group of the rule's hits, nil for none.
func (x *rule) hitGroup() *pipeline.Group {
	if x.group == nil {
		return nil
	}
	return &x.group.Group
}

// mostScore is what no mail scores more than.
func (s *ruleset) mostScore(dead map[*rule]bool) float64 {
	var hits []pipeline.Hit
	for _, x := range s.rules {
		if x.scores && x.score > 0 && !x.shadow && !dead[x] {
			hits = append(hits, pipeline.Hit{At: x.at, Score: x.score, Group: x.hitGroup()})
		}
	}
	return pipeline.Score(hits)
}
