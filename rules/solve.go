package rules

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// A literal is a term that comes to true or to false; unknown is neither.
type literal struct {
	*term
	want bool
}

// ask is what the atom of the literal comes to.
func (l literal) ask() bool { return l.want != l.atom.not }

// A clash is why terms cannot come to what is asked of them: one by itself, two together, or several.
type clash struct {
	a, b *term // b is nil for one alone, both are for several
	why  string
	// What two terms were asked to come to.
	aWant, bWant bool
}

// A solver looks for ways in which conditions can come out, whatever the mail. What it calls impossible is: it follows
// Kleene's logic, in which a condition is true or false because of some of its terms that are, and what is known of their
// values. What it calls possible may still never happen.
type solver struct {
	set     *ruleset
	left    int // work that may still be done, about a comparison of two literals each
	trail   []literal
	clashes []clash
	found   func(trail []literal) bool // called for each way; false ends the search
}

type goal struct {
	n    *node
	want bool
}

// possible reports whether a condition can come to want. Where the work is too much it may.
func (s *solver) possible(n *node, want bool) bool {
	s.trail, s.clashes = s.trail[:0], nil
	return s.solve([]goal{{n, want}})
}

// solve reaches all goals in all ways until one is found that is enough.
func (s *solver) solve(goals []goal) bool {
	mark := len(s.trail)
	defer func() { s.trail = s.trail[:mark] }()
	for len(goals) > 0 {
		g := goals[len(goals)-1]
		goals = goals[:len(goals)-1]
		if s.left--; s.left < 0 {
			return true
		}
		switch {
		case g.n.op == '!':
			goals = append(goals, goal{g.n.l, !g.want})
		case g.n.op == 't':
			if c := s.add(literal{g.n.term, g.want}); c != nil {
				if !slices.Contains(s.clashes, *c) {
					s.clashes = append(s.clashes, *c)
				}
				return false
			}
		case (g.n.op == '&') == g.want:
			goals = append(goals, goal{g.n.r, g.want}, goal{g.n.l, g.want})
		default:
			rest := slices.Clone(goals)
			if s.solve(append(rest, goal{g.n.l, g.want})) {
				return true
			}
			goals = append(goals, goal{g.n.r, g.want})
		}
	}
	return s.found == nil || !s.found(s.trail)
}

// add takes a literal in, or says what it clashes with.
func (s *solver) add(l literal) *clash {
	if c := s.alone(l); c != nil {
		return c
	}
	related := []literal{l}
	for _, o := range s.trail {
		s.left--
		if c := s.pair(o, l); c != nil {
			return c
		}
		if s.related(o, l) {
			related = append(related, o)
		}
	}
	if len(related) > 2 && impossible(s.withAbsent(related)) {
		return &clash{why: "its parts exclude each other"}
	}
	s.trail = append(s.trail, l)
	return nil
}

// related reports whether two literals are about one value.
func (s *solver) related(o, l literal) bool {
	return l.atom.kind >= atomText && o.atom.key == l.atom.key && o.atom.kind == l.atom.kind ||
		absent(o, l) || absent(l, o)
}

// absent reports whether h says that there is no header field, which l reads.
func absent(h, l literal) bool {
	return h.op == termHas && !h.want && l.atom.kind == atomText && l.atom.header != "" && "has("+strconv.Quote(l.atom.header)+")" == h.atom.key
}

// withAbsent puts the text of header fields in that are not there.
func (s *solver) withAbsent(all []literal) []literal {
	out := make([]literal, 0, len(all))
	for _, l := range all {
		if l.op == termHas {
			l = literal{&term{atom: atom{kind: atomText, op: "==", texts: []string{""}}}, true}
		}
		out = append(out, l)
	}
	return out
}

// alone says why a literal cannot be by itself.
func (s *solver) alone(l literal) *clash {
	a := &l.atom
	switch a.kind {
	case atomNever:
		return &clash{a: l.term, why: fmt.Sprintf("`%s` fails, whatever the mail", l.source)}
	case atomConst:
		if a.holds != l.ask() {
			return &clash{a: l.term, why: fmt.Sprintf("`%s` reads nothing of the mail", l.source)}
		}
	case atomText, atomWhole, atomFloat:
		if !impossible([]literal{l}) {
			return nil
		}
		why := a.value.why(a.key)
		switch {
		case a.op == "in" && len(a.texts)+len(a.whole) == 0:
			why = "the list is empty"
			if a.kind == atomWhole {
				why = "that is no whole number"
			}
		case why == "":
			why = "that is so for every text"
		}
		return &clash{a: l.term, why: why}
	}
	return nil
}

// pair says why two literals cannot be together.
func (s *solver) pair(o, l literal) *clash {
	for _, x := range [][2]literal{{o, l}, {l, o}} {
		if why := s.unread(x[0], x[1]); why != "" {
			return &clash{a: o.term, b: l.term, why: why}
		}
	}
	switch {
	case l.atom.kind == atomOther && o.atom.kind == atomOther:
		if o.atom.key != l.atom.key || o.ask() == l.ask() {
			return nil
		}
	case !s.related(o, l) || !impossible(s.withAbsent([]literal{o, l})):
		return nil
	}
	return &clash{a: o.term, b: l.term, aWant: o.want, bWant: l.want}
}

// unread says that k is about something which is not known, and l needs it.
func (s *solver) unread(k, l literal) string {
	if k.op != termKnown || k.want {
		return ""
	}
	hidden := s.set.refs[k.ref]
	hides := func(i int) bool {
		r := s.set.refs[i]
		if r.name != hidden.name {
			return false
		}
		return i == k.ref || hidden.field == "" && (r.step != nil || s.set.scope.known[s.set.scope.named[r.name]].unknown == nil)
	}
	if l.op == termKnown {
		if l.want && hides(l.ref) {
			return "what is not known has no known part"
		}
		return ""
	}
	if slices.ContainsFunc(l.refs, hides) {
		return fmt.Sprintf("`%s` needs what is not known", l.source)
	}
	return ""
}

// impossible reports whether no value makes all literals, which are about one value, come to what is asked.
func impossible(all []literal) bool {
	var value *typ
	kind := all[0].atom.kind
	for _, l := range all {
		if l.atom.value != nil {
			value = l.atom.value
		}
	}
	switch kind {
	case atomText:
		return textImpossible(all, value)
	case atomWhole:
		return wholeImpossible(all, value)
	case atomFloat:
		return floatImpossible(all)
	}
	return false
}

func textImpossible(all []literal, value *typ) bool {
	finite := false
	var candidates []string
	take := func(list []string) {
		if !finite || len(list) < len(candidates) {
			finite, candidates = true, list
		}
	}
	if value != nil && value.values != nil {
		take(append([]string{""}, value.values...))
	}
	for _, l := range all {
		if l.ask() && (l.atom.op == "==" || l.atom.op == "in") {
			take(l.atom.texts)
		}
	}
	if finite {
		return !slices.ContainsFunc(candidates, func(s string) bool {
			return value.can(s) && !slices.ContainsFunc(all, func(l literal) bool { return l.atom.text(s) != l.ask() })
		})
	}
	for i, l := range all {
		if !l.ask() && l.atom.everyText() || l.ask() && l.atom.noText() {
			return true
		}
		for _, o := range all[:i] {
			if textsClash(o, l) || textsClash(l, o) {
				return true
			}
		}
	}
	return false
}

// text is what the atom asks of a text.
func (a *atom) text(s string) bool {
	switch a.op {
	case "==":
		return s == a.texts[0]
	case "in":
		return slices.Contains(a.texts, s)
	case "<":
		return s < a.texts[0]
	case "<=":
		return s <= a.texts[0]
	case ">":
		return s > a.texts[0]
	case ">=":
		return s >= a.texts[0]
	case "contains":
		return strings.Contains(s, a.texts[0])
	case "startsWith":
		return strings.HasPrefix(s, a.texts[0])
	case "endsWith":
		return strings.HasSuffix(s, a.texts[0])
	}
	return regexp.MustCompile(a.texts[0]).MatchString(s)
}

// everyText reports whether every text does what the atom asks.
func (a *atom) everyText() bool {
	switch a.op {
	case "contains", "startsWith", "endsWith", ">=":
		return a.texts[0] == ""
	case "matches":
		re, err := syntax.Parse(a.texts[0], syntax.Perl)
		return err == nil && matchesEmpty(re)
	}
	return false
}

// noText reports whether no text does.
func (a *atom) noText() bool {
	switch a.op {
	case "<":
		return a.texts[0] == ""
	case "matches":
		re, err := syntax.Parse(a.texts[0], syntax.Perl)
		return err == nil && re.Simplify().Op == syntax.OpNoMatch
	}
	return false
}

// matchesEmpty reports whether a pattern matches the empty text anywhere.
func matchesEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpStar, syntax.OpQuest:
		return true
	case syntax.OpRepeat:
		return re.Min == 0 || matchesEmpty(re.Sub[0])
	case syntax.OpCapture, syntax.OpPlus:
		return matchesEmpty(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(x *syntax.Regexp) bool { return !matchesEmpty(x) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, matchesEmpty)
	}
	return false
}

// textsClash reports whether o, which says what a text is, leaves no room for l.
func textsClash(o, l literal) bool {
	x, y := o.atom.texts, l.atom.texts
	if len(x) != 1 || len(y) != 1 {
		return false
	}
	p, q := x[0], y[0]
	if o.ask() && !l.ask() {
		switch o.atom.op + " " + l.atom.op {
		case "contains contains", "startsWith contains", "endsWith contains":
			return strings.Contains(p, q)
		case "startsWith startsWith":
			return strings.HasPrefix(p, q)
		case "endsWith endsWith":
			return strings.HasSuffix(p, q)
		case "matches matches":
			return p == q
		}
	}
	if o.ask() && l.ask() {
		switch o.atom.op + " " + l.atom.op {
		case "startsWith startsWith":
			return !strings.HasPrefix(p, q) && !strings.HasPrefix(q, p)
		case "endsWith endsWith":
			return !strings.HasSuffix(p, q) && !strings.HasSuffix(q, p)
		}
	}
	// An order: o is a lower end, l an upper one.
	low, lowStrict, ok1 := o.lower()
	high, highStrict, ok2 := l.upper()
	return ok1 && ok2 && (low > high || low == high && (lowStrict || highStrict))
}

// lower is the lower end that a literal sets to a text.
func (l literal) lower() (end string, strict, ok bool) {
	switch {
	case l.atom.op == ">" && l.ask() || l.atom.op == "<=" && !l.ask():
		return l.atom.texts[0], true, true
	case l.atom.op == ">=" && l.ask() || l.atom.op == "<" && !l.ask(), l.atom.op == "startsWith" && l.ask():
		return l.atom.texts[0], false, true
	}
	return "", false, false
}

func (l literal) upper() (end string, strict, ok bool) {
	switch {
	case l.atom.op == "<" && l.ask() || l.atom.op == ">=" && !l.ask():
		return l.atom.texts[0], true, true
	case l.atom.op == "<=" && l.ask() || l.atom.op == ">" && !l.ask():
		return l.atom.texts[0], false, true
	}
	return "", false, false
}

func wholeImpossible(all []literal, value *typ) bool {
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	if value != nil && value.least != nil {
		low = *value.least
	}
	if value != nil && value.most != nil {
		high = *value.most
	}
	var only []int64
	finite := false
	for _, l := range all {
		a := &l.atom
		op := a.op
		if !l.ask() {
			op = map[string]string{"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[op]
		}
		if (op == "==" || op == "in") && (!finite || len(a.whole) < len(only)) {
			finite, only = true, a.whole
		}
		if len(a.whole) != 1 {
			continue
		}
		n := a.whole[0]
		switch op {
		case "<":
			if n == math.MinInt64 {
				return true
			}
			high = min(high, n-1)
		case "<=":
			high = min(high, n)
		case ">":
			if n == math.MaxInt64 {
				return true
			}
			low = max(low, n+1)
		case ">=":
			low = max(low, n)
		}
	}
	fits := func(n int64) bool {
		return n >= low && n <= high && !slices.ContainsFunc(all, func(l literal) bool { return l.atom.number(n) != l.ask() })
	}
	if finite {
		return !slices.ContainsFunc(only, fits)
	}
	if low > high {
		return true
	}
	// A short stretch may be full of exceptions.
	if d := uint64(high) - uint64(low); d < 1000 {
		for n := low; ; n++ {
			if fits(n) {
				return false
			}
			if n == high {
				return true
			}
		}
	}
	return false
}

// number is what the atom asks of a whole number.
func (a *atom) number(n int64) bool {
	if a.op == "in" {
		return slices.Contains(a.whole, n)
	}
	return ordered(a.op, n, a.whole[0])
}

func ordered[T int64 | float64](op string, x, y T) bool {
	switch op {
	case "==":
		return x == y
	case "<":
		return x < y
	case "<=":
		return x <= y
	case ">":
		return x > y
	}
	return x >= y
}

// floatImpossible: what is not a number is neither below nor above anything, so only what holds is an end.
func floatImpossible(all []literal) bool {
	low, high := math.Inf(-1), math.Inf(1)
	lowStrict, highStrict := false, false
	var only []float64
	for _, l := range all {
		if !l.ask() {
			continue
		}
		v := l.atom.parts[0]
		switch l.atom.op {
		case "==":
			only = append(only, v)
		case "<", "<=":
			if v < high || v == high && l.atom.op == "<" {
				high, highStrict = v, l.atom.op == "<"
			}
		case ">", ">=":
			if v > low || v == low && l.atom.op == ">" {
				low, lowStrict = v, l.atom.op == ">"
			}
		}
	}
	if len(only) > 0 {
		return slices.ContainsFunc(all, func(l literal) bool { return ordered(l.atom.op, only[0], l.atom.parts[0]) != l.ask() })
	}
	return low > high || low == high && (lowStrict || highStrict)
}
