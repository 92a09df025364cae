package rules

import (
	"slices"
	"unicode/utf8"
)

// An automaton finds all of many literals in one pass over a text (Aho and Corasick, 1975). It is immutable once made.
//
// Nodes are numbered level by level, so that those near the root, where texts spend their time, come first. Of these each
// has a row with where every octet leads; deeper ones have their children and the node of their longest proper suffix, and
// take 17 octets each, whatever the literals.
type automaton struct {
	class   [256]byte // of an octet; 0 for those that no literal has
	classes int
	rows    []uint32 // of the first nodes: where each class leads, times classes, with hasHit
	dense   uint32   // how many nodes have rows
	first   []uint32 // of a node: its first child; the children of node n are first[n] to first[n+1]-1
	label   []byte   // of a node: the class that leads to it from its parent
	suffix  []uint32 // of a node: that of its longest proper suffix
	out     []int32  // of a node: the literal that ends there, -1 for none
	more    []uint32 // of a node: the nearest suffix that ends a literal, 0 for none
	folded  bool     // literals are in the form of fold, and so is what it reads
	ascii   bool     // no literal has an octet beyond ASCII
}

const (
	hasHit    = 1 << 31 // in rows: a literal ends at the node
	rowOctets = 1 << 20 // that all rows of an automaton may take
)

// newAutomaton makes the automaton of literals, none of them empty and each there once. With folded they are in the form
// of [fold], and texts are folded while they are read.
func newAutomaton(literals []string, folded bool) *automaton {
	order := make([]int32, len(literals))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch x, y := literals[a], literals[b]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	a := &automaton{folded: folded}
	a.classify(literals)

	// A node is a run of the sorted literals that begin alike. Children are found by going through its run once.
	type run struct {
		from, to int32
		depth    int32
	}
	runs := []run{{0, int32(len(order)), 0}}
	a.label = []byte{0}
	for n := 0; n < len(runs); n++ {
		r := runs[n]
		end := int32(-1)
		if r.from < r.to && int(r.depth) == len(literals[order[r.from]]) {
			end = order[r.from]
			r.from++
		}
		a.out = append(a.out, end)
		a.first = append(a.first, uint32(len(runs)))
		for r.from < r.to {
			c := literals[order[r.from]][r.depth]
			to := r.from + 1
			for to < r.to && literals[order[to]][r.depth] == c {
				to++
			}
			runs = append(runs, run{r.from, to, r.depth + 1})
			a.label = append(a.label, a.class[c])
			r.from = to
		}
	}
	a.first = append(a.first, uint32(len(runs)))
	a.link()
	a.fill()
	return a
}

// classify numbers the octets that literals have.
func (a *automaton) classify(literals []string) {
	var used [256]bool
	for _, s := range literals {
		for i := range len(s) {
			used[s[i]] = true
		}
	}
	a.ascii, a.classes = true, 1
	for c, is := range used {
		if is {
			a.class[c] = byte(a.classes)
			a.classes++
			a.ascii = a.ascii && c < utf8.RuneSelf
		}
	}
	if a.folded {
		for c := 'A'; c <= 'Z'; c++ {
			a.class[c] = a.class[c+'a'-'A']
		}
	}
}

// link finds the longest proper suffix of each node that is a node too. Suffixes are shorter, so theirs are known.
func (a *automaton) link() {
	a.suffix, a.more = make([]uint32, len(a.out)), make([]uint32, len(a.out))
	for n := range uint32(len(a.out)) {
		for child := a.first[n]; child < a.first[n+1]; child++ {
			to := uint32(0)
			if n > 0 {
				to = a.follow(a.suffix[n], a.label[child])
			}
			a.suffix[child] = to
			a.more[child] = to
			if a.out[to] < 0 {
				a.more[child] = a.more[to]
			}
		}
	}
}

// fill makes the rows of the first nodes.
func (a *automaton) fill() {
	a.dense = uint32(min(len(a.out), max(1, rowOctets/(4*a.classes))))
	a.rows = make([]uint32, int(a.dense)*a.classes)
	for n := range a.dense {
		row := a.rows[int(n)*a.classes : int(n+1)*a.classes]
		if n > 0 {
			copy(row, a.rows[int(a.suffix[n])*a.classes:])
		}
		for child := a.first[n]; child < a.first[n+1]; child++ {
			row[a.label[child]] = a.marked(child)
		}
	}
}

// marked is a node as rows and scan have it: where its row begins; for those without, what comes behind all rows.
func (a *automaton) marked(n uint32) uint32 {
	at := n * uint32(a.classes)
	if n >= a.dense {
		at = uint32(len(a.rows)) + n - a.dense
	}
	if a.out[n] >= 0 || a.more[n] != 0 {
		at |= hasHit
	}
	return at
}

// node is the number of a node that is marked, but for hasHit.
func (a *automaton) node(at uint32) uint32 {
	if int(at) < len(a.rows) {
		return at / uint32(a.classes)
	}
	return at - uint32(len(a.rows)) + a.dense
}

// follow is where a class leads from a node, without rows.
func (a *automaton) follow(n uint32, class byte) uint32 {
	for {
		for child := a.first[n]; child < a.first[n+1]; child++ {
			if a.label[child] == class {
				return child
			}
		}
		if n == 0 {
			return 0
		}
		n = a.suffix[n]
	}
}

// step is where an octet's class leads from a node, both as marked has them but for hasHit of the one it comes from.
func (a *automaton) step(at uint32, class byte) uint32 {
	if i := int(at) + int(class); i < len(a.rows) {
		return a.rows[i]
	}
	return a.deepStep(at, class)
}

// deepStep is step from a node without a row.
func (a *automaton) deepStep(at uint32, class byte) uint32 {
	n := a.node(at)
	for n >= a.dense {
		for child := a.first[n]; child < a.first[n+1]; child++ {
			if a.label[child] == class {
				return a.marked(child)
			}
		}
		n = a.suffix[n]
	}
	return a.rows[int(n)*a.classes+int(class)]
}

// scan calls hit for each place where a literal ends, in the order of the text and there the longest first: the literal,
// and the octet of text behind it. It ends when hit says false.
func scan[T string | []byte](a *automaton, text T, hit func(literal int32, end int) bool) {
	if len(a.out) == 1 {
		return
	}
	at, rows := uint32(0), a.rows
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c >= utf8.RuneSelf && a.folded:
			var width int
			at, width = a.rune(at, string(text[i:min(i+utf8.UTFMax, len(text))]))
			i += width
		default:
			i++
			if k := int(at) + int(a.class[c]); k < len(rows) {
				at = rows[k]
			} else {
				at = a.deepStep(at, a.class[c])
			}
		}
		if at&hasHit == 0 {
			continue
		}
		at &^= hasHit
		for k := a.node(at); k != 0; k = a.more[k] {
			if a.out[k] >= 0 && !hit(a.out[k], i) {
				return
			}
		}
	}
}

// rune takes one character beyond ASCII at the beginning of text.
func (a *automaton) rune(n uint32, text string) (uint32, int) {
	if a.ascii && text[0] != 0xe2 && text[0] != 0xc5 && text[0] != 0xc4 {
		return 0, 1 // it does not fold to ASCII, and its other octets are nobody's either
	}
	r, width := utf8.DecodeRuneInString(text)
	if r == utf8.RuneError && width == 1 {
		return 0, 1 // no literal has it
	}
	r = fold(r)
	if r < utf8.RuneSelf {
		return a.step(n, a.class[r]), width
	}
	if a.ascii {
		return 0, width
	}
	var octets [utf8.UTFMax]byte
	for _, c := range octets[:utf8.EncodeRune(octets[:], r)] {
		n = a.step(n&^hasHit, a.class[c])
	}
	return n, width
}
