package rules

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxAlternatives = 32   // literals of which one must be there
	maxGroups       = 3    // such sets of a pattern
	maxLiteral      = 64   // octets that are looked for of a literal
	minLiteral      = 2    // octets; shorter ones are in nearly every text
	maxWindow       = 1024 // octets around a literal in which a pattern is looked for
)

// A required is what a text must hold for a pattern to match: of each group one literal. Literals are in the form of fold.
type required struct {
	groups [][]string
	exact  bool  // it matches where a literal of its one group is, and nowhere else
	edges  edges // … where they stand at its ends; then exact is false
	line   bool  // a match does not reach over the end of a line
	reach
}

// A reach is how long a match can be: so many octets, and some runs of the text. A + or * over characters of one kind matches
// a part of one run of them.
type reach struct {
	most                 int // octets; -1: any number
	spaces, words, lines int // runs of white space, without it, and without the end of a line
}

// within is the reach in a text with such longest runs.
func (r reach) within(x runs) int {
	if r.most < 0 {
		return -1
	}
	return r.most + r.spaces*x.space + r.words*x.word + r.lines*x.line
}

func (r reach) and(o reach) reach {
	return reach{sum(r.most, o.most), r.spaces + o.spaces, r.words + o.words, r.lines + o.lines}
}

func (r reach) or(o reach) reach {
	out := reach{max(r.most, o.most), max(r.spaces, o.spaces), max(r.words, o.words), max(r.lines, o.lines)}
	if r.most < 0 || o.most < 0 {
		out.most = -1
	}
	return out
}

// runs are the longest ones of a text, in octets.
type runs struct{ space, word, line int }

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func runsOf(text string) (x runs) {
	spaces, words, line := 0, 0, 0
	for i := range len(text) {
		c := text[i]
		if isSpace(c) {
			spaces++
			words = 0
			x.space = max(x.space, spaces)
		} else {
			words++
			spaces = 0
			x.word = max(x.word, words)
		}
		if line++; c == '\n' {
			line = 0
		}
		x.line = max(x.line, line)
	}
	return x
}

// repeated is the reach of + or * over what matches one character.
func repeated(re *syntax.Regexp) reach {
	ranges := re.Rune
	switch re.Op {
	case syntax.OpAnyCharNotNL:
		return reach{lines: 1}
	case syntax.OpLiteral:
		if len(re.Rune) != 1 || re.Flags&syntax.FoldCase != 0 {
			return reach{most: -1}
		}
		ranges = []rune{re.Rune[0], re.Rune[0]}
	case syntax.OpCharClass:
	default:
		return reach{most: -1}
	}
	all, none := true, true
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			if r > ' ' {
				all = false
				break
			}
			if isSpace(byte(r)) {
				none = false
			} else {
				all = false
			}
		}
	}
	switch {
	case all:
		return reach{spaces: 1}
	case none:
		return reach{words: 1}
	case !inRanges(ranges, '\n'):
		return reach{lines: 1}
	}
	return reach{most: -1}
}

// edges are the word boundaries at the ends of a pattern that is literals else, a bit each.
type edges byte

const (
	noEdges  edges = 0
	leftEdge edges = 1 << iota
	rightEdge
)

// edgesOf finds them, and what is between them. It is nil where the pattern is more than literals.
func edgesOf(re *syntax.Regexp) (edges, *analysis) {
	if re.Op != syntax.OpConcat {
		return noEdges, nil
	}
	e, inner := noEdges, re.Sub
	if inner[0].Op == syntax.OpWordBoundary {
		e, inner = e|leftEdge, inner[1:]
	}
	if n := len(inner); n > 0 && inner[n-1].Op == syntax.OpWordBoundary {
		e, inner = e|rightEdge, inner[:n-1]
	}
	if e == noEdges || len(inner) == 0 {
		return noEdges, nil
	}
	x := analyseConcat(inner)
	if x.exact == nil || !x.whole {
		return noEdges, nil
	}
	return e, &x
}

// hold reports whether they are at the ends of a part of a text.
func (e edges) hold(text string, from, to int) bool {
	return (e&leftEdge == 0 || isEdge(text, from)) && (e&rightEdge == 0 || isEdge(text, to))
}

// isEdge is \b.
func isEdge(text string, at int) bool {
	return (at > 0 && syntax.IsWordChar(rune(text[at-1]))) != (at < len(text) && syntax.IsWordChar(rune(text[at])))
}

// requiredBy works out what texts that match a pattern hold.
func requiredBy(pattern string) required {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return required{reach: reach{most: -1}}
	}
	re = re.Simplify()
	x := analyse(re)
	var out required
	out.reach, out.line = x.reach, !x.breaks
	if x.exact != nil {
		x.groups = append(x.groups, x.exact)
		out.exact = x.whole && len(x.groups) == 1
	}
	for _, g := range x.groups {
		if useful(g) {
			out.groups = append(out.groups, g)
			continue
		}
		out.exact = false
	}
	slices.SortStableFunc(out.groups, func(a, b []string) int { return shortest(b) - shortest(a) })
	if len(out.groups) > maxGroups {
		out.groups = out.groups[:maxGroups]
	}
	for _, g := range out.groups {
		for i, s := range g {
			if len(s) > maxLiteral {
				g[i], out.exact = head(s, maxLiteral), false
			}
		}
	}
	out.exact = out.exact && len(out.groups) == 1
	if e, inner := edgesOf(re); inner != nil && len(out.groups) == 1 && slices.Equal(out.groups[0], inner.exact) {
		out.edges = e // nothing was shortened or left out
	}
	return out
}

func useful(group []string) bool {
	return len(group) > 0 && len(group) <= maxAlternatives && shortest(group) >= minLiteral
}

func shortest(group []string) int {
	least := len(group[0])
	for _, s := range group {
		least = min(least, len(s))
	}
	return least
}

// An analysis is what is known of the texts that a part of a pattern matches.
type analysis struct {
	exact  []string   // all of them, folded; nil: there are too many
	whole  bool       // … and it matches all that fold to one of them, wherever they stand
	groups [][]string // of each group one is in each of them
	breaks bool       // they can hold the end of a line
	reach
}

func analyse(re *syntax.Regexp) analysis {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return analysis{exact: []string{""}, whole: true}
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return analysis{exact: []string{""}}
	case syntax.OpLiteral:
		return analyseLiteral(re)
	case syntax.OpCharClass:
		return analyseClass(re.Rune)
	case syntax.OpAnyChar:
		return analysis{reach: reach{most: utf8.UTFMax}, breaks: true}
	case syntax.OpAnyCharNotNL:
		return analysis{reach: reach{most: utf8.UTFMax}}
	case syntax.OpCapture:
		return analyse(re.Sub[0])
	case syntax.OpQuest:
		x := analyse(re.Sub[0])
		if x.exact != nil {
			x.exact = union(x.exact, []string{""})
		}
		x.groups = nil
		return x
	case syntax.OpStar:
		return analysis{reach: repeated(re.Sub[0]), breaks: analyse(re.Sub[0]).breaks}
	case syntax.OpPlus:
		x := analyse(re.Sub[0])
		if x.exact != nil {
			x.groups = append(x.groups, x.exact)
		}
		return analysis{groups: x.groups, reach: repeated(re.Sub[0]), breaks: x.breaks}
	case syntax.OpConcat:
		return analyseConcat(re.Sub)
	case syntax.OpAlternate:
		return analyseAlternate(re.Sub)
	case syntax.OpNoMatch:
		return analysis{}
	}
	return analysis{reach: reach{most: -1}, breaks: true} // OpRepeat, which Simplify writes out
}

func analyseLiteral(re *syntax.Regexp) analysis {
	var b strings.Builder
	x := analysis{whole: re.Flags&syntax.FoldCase != 0}
	for _, r := range re.Rune {
		if r == utf8.RuneError {
			// It matches octets that are no UTF-8, too.
			return analysis{reach: reach{most: utf8.UTFMax * len(re.Rune)}, breaks: slices.Contains(re.Rune, '\n')}
		}
		x.breaks = x.breaks || r == '\n'
		b.WriteRune(fold(r))
	}
	x.whole = (x.whole || !cased(re.Rune)) && !slices.ContainsFunc(re.Rune, furtherFolded)
	x.exact, x.most = []string{b.String()}, utf8.UTFMax*len(re.Rune)
	return x
}

// cased reports whether any of the characters has another one that it folds together with.
func cased(all []rune) bool {
	return slices.ContainsFunc(all, func(r rune) bool { return unicode.SimpleFold(r) != r || fold(r) != r })
}

// furtherFolded reports whether fold goes further than (?i) for a character.
func furtherFolded(r rune) bool { return r == 'İ' || r == 'ı' }

func analyseClass(ranges []rune) analysis {
	x := analysis{reach: reach{most: utf8.UTFMax}}
	n := 0
	for i := 0; i < len(ranges); i += 2 {
		x.breaks = x.breaks || ranges[i] <= '\n' && '\n' <= ranges[i+1]
		n += int(ranges[i+1]-ranges[i]) + 1
		if ranges[i] <= utf8.RuneError && utf8.RuneError <= ranges[i+1] {
			n += maxAlternatives
		}
	}
	if n > maxAlternatives || n == 0 {
		return x
	}
	x.whole = true
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			x.exact = union(x.exact, []string{string(fold(r))})
			x.whole = x.whole && !furtherFolded(r)
			for same := unicode.SimpleFold(r); same != r; same = unicode.SimpleFold(same) {
				x.whole = x.whole && inRanges(ranges, same)
			}
		}
	}
	return x
}

func inRanges(ranges []rune, r rune) bool {
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i] <= r && r <= ranges[i+1] {
			return true
		}
	}
	return false
}

// union joins two sets, nil if that is too many.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) > maxAlternatives {
		return nil
	}
	return out
}

func analyseConcat(parts []*syntax.Regexp) analysis {
	out := analysis{exact: []string{""}, whole: true}
	run := []string{""} // of the texts that the parts since the last one that can be anything match
	for _, p := range parts {
		x := analyse(p)
		out.breaks = out.breaks || x.breaks
		out.reach = out.and(x.reach)
		out.whole = out.whole && x.whole
		out.groups = append(out.groups, x.groups...)
		var joined []string
		if x.exact != nil {
			joined = cross(run, x.exact)
		}
		if joined == nil {
			out.exact = nil
			out.groups = append(out.groups, run)
			run = []string{""}
			if x.exact != nil {
				run = x.exact
			}
			continue
		}
		run = joined
	}
	if out.exact != nil {
		out.exact = run
		return out
	}
	out.whole = false
	out.groups = append(out.groups, run)
	return out
}

func sum(a, b int) int {
	if a < 0 || b < 0 || a+b > 1<<20 {
		return -1
	}
	return a + b
}

// cross is each of a with each of b behind it, nil if that is too many or too long.
func cross(a, b []string) (out []string) {
	if len(a)*len(b) > maxAlternatives {
		return nil
	}
	for _, x := range a {
		for _, y := range b {
			if len(x)+len(y) > 4*maxLiteral {
				return nil
			}
			out = union(out, []string{x + y})
		}
	}
	return out
}

func analyseAlternate(parts []*syntax.Regexp) analysis {
	out := analysis{exact: []string{}, whole: true}
	var group []string // one for each alternative
	for i, p := range parts {
		x := analyse(p)
		out.breaks = out.breaks || x.breaks
		out.whole = out.whole && x.whole
		out.reach = out.or(x.reach)
		if x.exact != nil {
			x.groups = append(x.groups, x.exact)
			if out.exact != nil {
				out.exact = union(out.exact, x.exact)
			}
		} else {
			out.exact = nil
		}
		best := bestOf(x.groups)
		if i > 0 && group == nil || best == nil {
			group = nil
			continue
		}
		group = union(group, best)
	}
	if out.exact == nil {
		out.whole = false
		if group != nil {
			out.groups = [][]string{group}
		}
	}
	return out
}

// bestOf returns the group whose literals tell most, nil for none that tells anything.
func bestOf(groups [][]string) (best []string) {
	for _, g := range groups {
		if useful(g) && (best == nil || shortest(g) > shortest(best)) {
			best = g
		}
	}
	return best
}
