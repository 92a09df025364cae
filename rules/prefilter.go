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
	exact  bool // the term holds where one is there
	most   int  // octets of a match, -1: any number
	line   bool // a match does not reach over the end of a line
}

// needleFor notes the literals that a term looks for in a text.
func (s *ruleset) needleFor(f fast) needle {
	var what required
	switch {
	case s.plain:
		return needle{in: -1}
	case f.op == "matches":
		what = requiredBy(f.text)
	case f.op == "contains" && utf8.ValidString(f.text) && !strings.ContainsRune(f.text, utf8.RuneError) && len(f.text) >= minLiteral:
		what.groups = [][]string{{head(folded(f.text), maxLiteral)}}
	}
	if len(what.groups) == 0 {
		return needle{in: -1}
	}
	from, slot := f.from, f.slot
	n := needle{exact: what.exact && f.op == "matches", most: what.most, line: what.line}
	if f.lower {
		// Literals are looked for in the text as it is. Places in it are not those in lower case.
		from, slot = f.baseFrom, f.baseSlot
		n = needle{most: -1}
	}
	n.in = slices.IndexFunc(s.haystacks, func(h *haystack) bool { return h.from == from && h.slot == slot })
	if n.in < 0 {
		n.in = len(s.haystacks)
		s.haystacks = append(s.haystacks, &haystack{from: from, slot: slot, index: map[string]int32{}})
	}
	h := s.haystacks[n.in]
	for _, g := range what.groups {
		var ids []int32
		for _, literal := range g {
			id, ok := h.index[literal]
			if !ok {
				id = int32(len(h.literals))
				h.index[literal], h.literals = id, append(h.literals, literal)
			}
			ids = append(ids, id)
		}
		n.groups = append(n.groups, ids)
	}
	return n
}

// sealHaystacks makes what finds the literals, once all are known.
func (s *ruleset) sealHaystacks() {
	for _, h := range s.haystacks {
		h.auto, h.index = newAutomaton(h.literals, true), nil
	}
}

// maxPlaces bounds how many places of literals are kept for one text.
const maxPlaces = 1000

// A looked is what one pass over a haystack has found.
type looked struct {
	done   bool
	there  []uint64 // by literal, a bit each
	places []placed // where literals end, in the order of the text
	all    bool     // places are all there are
}

type placed struct{ literal, end int32 }

func (l *looked) has(literal int32) bool { return l.there[literal/64]&(1<<(literal%64)) != 0 }

func (l *looked) hasOneOf(group []int32) bool {
	for _, n := range group {
		if l.has(n) {
			return true
		}
	}
	return false
}

// look goes over a haystack, once a mail.
func (s *state) look(n int) *looked {
	l := &s.looked[n]
	if l.done {
		return l
	}
	h := s.set.haystacks[n]
	text := s.textOf(h.from, h.slot)
	if l.there == nil {
		l.there = make([]uint64, (len(h.literals)+63)/64)
	}
	l.done, l.all = true, true
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
			l.done, l.places = false, l.places[:0]
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

// matches reports whether a pattern matches a text in which its literals are. Where that can be, only the surroundings of
// the literals are looked at.
func (s *state) matches(re *regexp.Regexp, n *needle, text string) bool {
	if n.in < 0 || len(text) <= maxWindow {
		return re.MatchString(text)
	}
	// Two characters fold further than (?i) goes.
	if n.exact && !strings.Contains(text, "İ") && !strings.Contains(text, "ı") {
		return true
	}
	l := s.look(n.in)
	bounded := n.most >= 0 && n.most <= maxWindow
	if !l.all || !n.line && !bounded {
		return re.MatchString(text)
	}
	seen, spent := 0, 0 // a line up to seen has no match
	for _, p := range l.places {
		if !slices.Contains(n.groups[0], p.literal) || int(p.end) <= seen {
			continue
		}
		from, to := n.window(text, int(p.end), bounded)
		if spent += to - from; spent > len(text) {
			return re.MatchString(text)
		}
		at := re.FindStringIndex(text[from:to])
		switch {
		case at == nil:
			if !bounded {
				seen = to - utf8.UTFMax
			}
		case (at[0] > 0 || from == 0) && (at[1] < to-from || to == len(text)):
			return true
		default:
			// It touches an edge, beyond which the pattern cannot see.
			return re.MatchString(text)
		}
	}
	return false
}

// window returns the part of a text that a match with a literal ending at end lies in, with a character more on each side.
func (n *needle) window(text string, end int, bounded bool) (from, to int) {
	if bounded {
		from, to = max(end-n.most-utf8.UTFMax, 0), min(end+n.most+utf8.UTFMax, len(text))
	} else {
		from = max(strings.LastIndexByte(text[:end], '\n')-utf8.UTFMax, 0)
		if i := strings.IndexByte(text[end:], '\n'); i < 0 {
			to = len(text)
		} else {
			to = min(end+i+1+utf8.UTFMax, len(text))
		}
	}
	for from > 0 && !utf8.RuneStart(text[from]) {
		from--
	}
	for to < len(text) && !utf8.RuneStart(text[to]) {
		to++
	}
	return from, to
}
