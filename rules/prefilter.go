package rules

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A haystack is a text of the mail in which many terms look for something. What they look for, as far as that is
// literals, is found for all of them in one pass.
type haystack struct {
	from     fastFrom
	slot     int
	index    map[string]int32 // of the literals, while they are collected
	literals []string
	auto     *automaton
}

// A needle is what a term needs of a haystack to hold: of each group one literal.
type needle struct {
	in     int // in ruleset.haystacks; -1: nothing is known
	groups [][]int32
	exact  bool  // the term holds where one is there
	edges  edges // … and stands between such edges, where exact is about all but them
	lower  bool  // of lower(…)
	same   bool  // the literal is all of what contains looks for; with lower(…) it is in lower case, too
	line   bool  // a match does not reach over the end of a line
	reach
}

// needleFor notes the literals that a term looks for in a text.
func (s *ruleset) needleFor(f fast) needle {
	if s.plain {
		return needle{in: -1}
	}
	what := neededBy(f)
	if len(what.groups) == 0 {
		return needle{in: -1}
	}
	from, slot := f.from, f.slot
	n := needle{exact: what.exact && f.op == "matches", edges: what.edges, reach: what.reach, line: what.line}
	literal := what.groups[0][0]
	n.same = f.op == "contains" && len(literal) == len(f.text) && (!f.lower || literal == f.text)
	if f.lower {
		from, slot, n.lower = f.baseFrom, f.baseSlot, true
	}
	n.in = s.haystackOf(from, slot)
	for _, g := range what.groups {
		var ids []int32
		for _, literal := range g {
			ids = append(ids, s.haystacks[n.in].add(literal))
		}
		n.groups = append(n.groups, ids)
	}
	return n
}

// neededBy works out what a text holds that a comparison with constants is true of.
func neededBy(f fast) required {
	var texts, group []string
	switch f.op {
	case "matches":
		return requiredBy(f.text)
	case "==", "startsWith", "endsWith", "contains":
		texts = []string{f.text}
	case "in":
		texts = f.texts
	}
	for _, text := range texts {
		if len(text) < minLiteral || !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
			return required{}
		}
		if literal := head(folded(text), maxLiteral); !slices.Contains(group, literal) {
			group = append(group, literal)
		}
	}
	if !useful(group) {
		return required{}
	}
	return required{groups: [][]string{group}}
}

func (s *ruleset) haystackOf(from fastFrom, slot int) int {
	if i := slices.IndexFunc(s.haystacks, func(h *haystack) bool { return h.from == from && h.slot == slot }); i >= 0 {
		return i
	}
	s.haystacks = append(s.haystacks, &haystack{from: from, slot: slot, index: map[string]int32{}})
	return len(s.haystacks) - 1
}

// add has a literal looked for, and returns its number.
func (h *haystack) add(literal string) int32 {
	id, ok := h.index[literal]
	if !ok {
		id = int32(len(h.literals))
		h.index[literal], h.literals = id, append(h.literals, literal)
	}
	return id
}

// A gate says without asking it that a list has nothing to say about a text: none of its literals is there.
type gate struct {
	in    int // in ruleset.haystacks; -1: the list is always asked
	ids   []int32
	mask  []uint64 // of ids, as looked.there
	ascii bool     // it knows about texts of ASCII alone
}

// maxGated is how many entries of a list are looked for with those of the rules.
const maxGated = 10_000

// gateFor notes the literals of a list that a text is asked about.
func (s *ruleset) gateFor(u listUse) gate {
	l := u.list
	if s.plain || u.in || len(l.entries) > maxGated || len(l.always) > 0 {
		return gate{in: -1}
	}
	g := gate{in: s.haystackOf(u.from, u.slot), ascii: l.kind == wordList}
	h := s.haystacks[g.in]
	for _, literal := range l.needs {
		g.ids = append(g.ids, h.add(literal))
	}
	return g
}

// shut reports whether a list has nothing to say.
func (s *state) shut(g *gate) bool {
	if g.in < 0 {
		return false
	}
	l := s.look(g.in)
	for i, m := range g.mask {
		if l.there[i]&m != 0 {
			return false
		}
	}
	if !g.ascii {
		return true
	}
	return l.ascii
}

// sealHaystacks makes what finds the literals, once all are known.
func (s *ruleset) sealHaystacks() {
	for _, h := range s.haystacks {
		h.auto, h.index = newAutomaton(h.literals, true), nil
	}
	for i := range s.gates {
		g := &s.gates[i]
		if g.in < 0 {
			continue
		}
		g.mask = make([]uint64, (len(s.haystacks[g.in].literals)+63)/64)
		for _, id := range g.ids {
			g.mask[id/64] |= 1 << (id % 64)
		}
	}
}

// maxPlaces bounds how many places of literals are kept for one text.
const maxPlaces = 1000

// A looked is what one pass over a haystack has found.
type looked struct {
	done   bool
	ascii  bool     // the text has nothing else
	there  []uint64 // by literal, a bit each
	places []placed // where literals end, in the order of the text
	all    bool     // places are all there are
	runs   runs     // where they were asked for
}

type placed struct{ literal, end int32 }

func (l *looked) has(literal int32) bool { return l.there[literal/64]&(1<<(literal%64)) != 0 }

func (l *looked) hasOneOf(group []int32) bool {
	return slices.ContainsFunc(group, l.has)
}

// look goes over a haystack, once a mail.
func (s *state) look(n int) *looked {
	l := &s.looked[n]
	if l.done {
		return l
	}
	h := s.set.haystacks[n]
	if l.there == nil {
		l.there = make([]uint64, (len(h.literals)+63)/64)
	}
	l.done, l.all = true, true
	if h.from == fromItems {
		s.eachItem(h.slot, func(text string) {
			scan(h.auto, text, func(n int32, _ int) bool {
				l.there[n/64] |= 1 << (n % 64)
				return true
			})
		})
		return l
	}
	text := s.textOf(h.from, h.slot)
	l.ascii = isASCII(text)
	scan(h.auto, text, func(n int32, end int) bool {
		l.there[n/64] |= 1 << (n % 64)
		if len(l.places) < maxPlaces {
			l.places = append(l.places, placed{n, int32(end)})
		} else {
			l.all = false
		}
		return true
	})
	return l
}

// clearLooked forgets what was found in the texts of a mail.
func (s *state) clearLooked() {
	for i := range s.looked {
		if l := &s.looked[i]; l.done {
			clear(l.there)
			l.done, l.places, l.runs = false, l.places[:0], runs{}
		}
	}
}

// mayHold reports whether all is there that a term needs; false is certain.
func (s *state) mayHold(n *needle) bool {
	if n.in < 0 {
		return true
	}
	l := s.look(n.in)
	for _, g := range n.groups {
		if !l.hasOneOf(g) {
			return false
		}
	}
	return true
}

// lowerHas reports whether a text in lower case is certain to hold what contains looks for in it, whose literal is there.
func (s *state) lowerHas(n *needle) bool { return n.in >= 0 && n.same && s.look(n.in).ascii }

// placed reports whether places of literals are those in the text that a term looks at.
func (s *state) placed(n *needle) bool { return n.in >= 0 && (!n.lower || s.look(n.in).ascii) }

// index is [strings.Index] of a text in which the literal of a term may be.
func (s *state) index(n *needle, text, literal string) int {
	if !n.same || !s.placed(n) {
		return strings.Index(text, literal)
	}
	l := s.look(n.in)
	for _, p := range l.places {
		if from := int(p.end) - len(literal); p.literal == n.groups[0][0] && from >= 0 && text[from:p.end] == literal {
			return from
		}
	}
	if !l.all {
		return strings.Index(text, literal)
	}
	return -1
}

// between returns where the first of a pattern's literals stands between the edges that it asks for, -1 for nowhere. ok is false
// where the places of literals do not tell.
func (s *state) between(n *needle, text string) (first int, ok bool) {
	if n.in < 0 || n.edges == noEdges {
		return 0, false
	}
	l := s.look(n.in)
	if !l.ascii {
		return 0, false // characters that fold to a literal's may be wider
	}
	first = -1
	literals := s.set.haystacks[n.in].literals
	for _, p := range l.places {
		if !slices.Contains(n.groups[0], p.literal) {
			continue
		}
		from := int(p.end) - len(literals[p.literal])
		if (first < 0 || from < first) && n.edges.hold(text, from, int(p.end)) {
			first = from
		}
	}
	return first, l.all || first >= 0 && len(n.groups[0]) == 1
}

// matches is find for those who mostly need not know the place: it may be somewhere.
func (s *state) matches(re *regexp.Regexp, n *needle, text string) int {
	whole := func() int {
		if re.MatchString(text) {
			return somewhere
		}
		return -1
	}
	first, told := s.between(n, text)
	switch {
	case told:
		return first
	case !s.placed(n) || len(text) <= maxWindow:
		return whole()
	case n.exact && !strings.Contains(text, "İ") && !strings.Contains(text, "ı"): // which fold further than (?i) goes
		return somewhere
	case n.line || s.reaches(n, text) >= 0:
		return s.find(re, n, text)
	}
	// What matches within a part of the text matches in the whole of it, as long as it does not touch the part's edges.
	tried := 0
	for _, p := range s.look(n.in).places {
		if !slices.Contains(n.groups[0], p.literal) {
			continue
		}
		from, to := runes(text, int(p.end)-maxWindow/4, int(p.end)+maxWindow/4)
		if at := re.FindStringIndex(text[from:to]); at != nil && inside(at, from, to, text) {
			return somewhere
		}
		if tried++; tried == 4 {
			break
		}
	}
	return whole()
}

// find returns where the first match of a pattern begins in a text in which its literals are, -1 for nowhere. Where a match
// cannot reach far from its literals only their surroundings are looked at. The first match in them is the first of all:
// one that began before it and holds another literal would lie in the same surroundings.
func (s *state) find(re *regexp.Regexp, n *needle, text string) int {
	whole := func() int {
		if at := re.FindStringIndex(text); at != nil {
			return at[0]
		}
		return -1
	}
	if first, ok := s.between(n, text); ok {
		return first
	}
	if !s.placed(n) || len(text) <= maxWindow {
		return whole()
	}
	l, most := s.look(n.in), s.reaches(n, text)
	if !l.all || !n.line && most < 0 {
		return whole()
	}
	seen, spent := 0, 0 // a line up to seen has no match
	for _, p := range l.places {
		if !slices.Contains(n.groups[0], p.literal) || int(p.end) <= seen {
			continue
		}
		from, to := window(text, int(p.end), most)
		if spent += to - from; spent > len(text) {
			return whole()
		}
		at := re.FindStringIndex(text[from:to])
		switch {
		case at == nil:
			if most < 0 {
				seen = to - utf8.UTFMax
			}
		case inside(at, from, to, text):
			return from + at[0]
		default:
			return whole()
		}
	}
	return -1
}

// inside reports whether a match in text[from:to] touches none of its edges, beyond which the pattern could not see.
func inside(at []int, from, to int, text string) bool {
	return (at[0] > 0 || from == 0) && (at[1] < to-from || to == len(text))
}

// reaches is how far a match reaches in a text, -1 for too far.
func (s *state) reaches(n *needle, text string) int {
	most := n.most
	if most >= 0 && n.spaces+n.words+n.lines > 0 {
		l := s.look(n.in)
		if l.runs == (runs{}) {
			l.runs = runsOf(text)
		}
		most = n.within(l.runs)
	}
	if most > maxWindow {
		return -1
	}
	return most
}

// window returns the part of a text that a match with a literal ending at end lies in, with a character more on each side.
// The match has at most so many octets; with -1 it lies in one line.
func window(text string, end, most int) (from, to int) {
	if most >= 0 {
		return runes(text, end-most-utf8.UTFMax, end+most+utf8.UTFMax)
	}
	to = len(text)
	if i := strings.IndexByte(text[end:], '\n'); i >= 0 {
		to = end + i + 1 + utf8.UTFMax
	}
	return runes(text, strings.LastIndexByte(text[:end], '\n')-utf8.UTFMax, to)
}

// runes widens a part of a text, so that it lies in it and no character is cut.
func runes(text string, from, to int) (int, int) {
	from, to = max(from, 0), min(to, len(text))
	for from > 0 && !utf8.RuneStart(text[from]) {
		from--
	}
	for to < len(text) && !utf8.RuneStart(text[to]) {
		to++
	}
	return from, to
}
