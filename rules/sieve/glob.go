package sieve

import (
	"strings"
	"unicode/utf8"
)

// A glob is a pattern of :matches (RFC 5228, 2.7.1): runs of text between stars. Taking the first place where each run
// fits is right, and gives each star as little as can be (RFC 5229, 3.2), so nothing is ever tried again.
type glob struct{ runs []globRun }

// A globRun is literals with one question mark between each and the next.
type globRun struct{ literals []string }

// compileGlob reads a folded pattern. A backslash takes the next character as it is.
func compileGlob(s string) *glob {
	g := &glob{}
	var run globRun
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case c == '?':
			run.literals = append(run.literals, b.String())
			b.Reset()
		case c == '*':
			run.literals = append(run.literals, b.String())
			b.Reset()
			g.runs = append(g.runs, run)
			run = globRun{}
		default:
			b.WriteByte(c)
		}
	}
	run.literals = append(run.literals, b.String())
	g.runs = append(g.runs, run)
	return g
}

// A hole is what a star or a question mark stood for.
type hole struct{ from, to int }

// match reports whether s matches, and what the stars and question marks stand for where holes is not nil. spend is told
// how many places were tried; it returns false to end the search.
func (g *glob) match(s string, holes *[]hole, spend func(int) bool) bool {
	first, last := g.runs[0], g.runs[len(g.runs)-1]
	at, ok := first.at(s, 0, holes)
	if !ok {
		return false
	}
	if len(g.runs) == 1 {
		return at == len(s)
	}
	for _, run := range g.runs[1 : len(g.runs)-1] {
		from := at
		star := 0
		if holes != nil {
			star = len(*holes)
			*holes = append(*holes, hole{})
		}
		begin, end, ok := run.find(s, at, holes, spend)
		if !ok {
			return false
		}
		if holes != nil {
			(*holes)[star] = hole{from, begin}
		}
		at = end
	}
	begin, ok := last.before(s)
	if !ok || begin < at {
		return false
	}
	if holes != nil {
		*holes = append(*holes, hole{at, begin})
		last.at(s, begin, holes)
	}
	return true
}

// at matches the run at a place and returns where it ends.
func (g globRun) at(s string, at int, holes *[]hole) (end int, ok bool) {
	for i, l := range g.literals {
		if i > 0 {
			if at >= len(s) {
				return 0, false
			}
			_, n := utf8.DecodeRuneInString(s[at:])
			if holes != nil {
				*holes = append(*holes, hole{at, at + n})
			}
			at += n
		}
		if !strings.HasPrefix(s[at:], l) {
			return 0, false
		}
		at += len(l)
	}
	return at, true
}

// find matches the run at the first place where it fits.
func (g globRun) find(s string, at int, holes *[]hole, spend func(int) bool) (begin, end int, ok bool) {
	had := 0
	if holes != nil {
		had = len(*holes)
	}
	for tried := 0; at <= len(s); tried++ {
		const often = 64
		if tried%often == often-1 && !spend(1+len(g.literals)/2) {
			return 0, 0, false
		}
		i := strings.Index(s[at:], g.literals[0])
		if i < 0 {
			return 0, 0, false
		}
		at += i
		if end, ok := g.at(s, at, holes); ok {
			return at, end, true
		}
		if holes != nil {
			*holes = (*holes)[:had]
		}
		if at == len(s) {
			break
		}
		_, n := utf8.DecodeRuneInString(s[at:])
		at += n
	}
	return 0, 0, false
}

// before matches the run at the end of s and returns where it begins.
func (g globRun) before(s string) (begin int, ok bool) {
	at := len(s)
	for i := len(g.literals) - 1; i >= 0; i-- {
		l := g.literals[i]
		if !strings.HasSuffix(s[:at], l) {
			return 0, false
		}
		if at -= len(l); i > 0 {
			if at == 0 {
				return 0, false
			}
			_, n := utf8.DecodeLastRuneInString(s[:at])
			at -= n
		}
	}
	return at, true
}
