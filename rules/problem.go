package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"sluice/pipeline/lookalike"
)

// A Problem is one thing that is wrong with a rule, with its place and what to do about it.
type Problem struct {
	File   string // "" for a rule in the configuration itself
	Step   string // the step whose rule it is
	Rule   string // "" where it belongs to no single rule
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1, in characters
	Length int    // of what is wrong, in characters
	Text   string // what is wrong
	Remedy string // what to write instead
	Source string // the line it is in
}

// Error returns the problem with the line it is in and carets under its place.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
	} else {
		// The configuration's name is not known here: the step and the rule say where to look.
		b.WriteString("step " + p.Step)
		if p.Rule != "" {
			b.WriteString(", rule " + p.Rule)
		}
		if p.Line > 0 {
			fmt.Fprintf(&b, ", line %d, column %d", p.Line, p.Column)
		}
	}
	b.WriteString(": " + p.Text)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	if p.Line > 0 && p.Source != "" {
		b.WriteString("\n" + excerpt(p.Source, p.Line, p.Column, p.Length))
	}
	return b.String()
}

// excerpt shows a line with carets under some of its columns. Long lines are cut around them.
func excerpt(source string, line, column, length int) string {
	const width = 100
	text := []rune(strings.Map(func(r rune) rune {
		if r == '\t' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, source))
	at := max(0, min(column-1, len(text)))
	if from := at - width*2/3; from > 0 {
		text, at = append([]rune("…"), text[from:]...), at-from+1
	}
	if len(text) > width {
		text = append(text[:width:width], '…')
	}
	carets := max(1, min(length, len(text)-at))
	return fmt.Sprintf("%6d | %s\n       | %s%s", line, strings.TrimRight(string(text), " "), strings.Repeat(" ", at), strings.Repeat("^", carets))
}

// Problems are everything that is wrong with the rules of a step, in the order of the files.
type Problems []*Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems one by one.
func (p Problems) Unwrap() []error {
	all := make([]error, len(p))
	for i, x := range p {
		all[i] = x
	}
	return all
}

// didYouMean is a remedy that names the nearest of names, else what there is.
func didYouMean(s string, names []string) string {
	if best := lookalike.Nearest(s, names); best != "" {
		return fmt.Sprintf("did you mean `%s`?", best)
	}
	if len(names) == 0 || len(names) > 20 {
		return ""
	}
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return "there is " + strings.Join(sorted, ", ")
}

// A spot is a place in a source.
type spot struct {
	src          *source
	line, column int
	length       int
}

func (s spot) String() string {
	if s.src == nil {
		return ""
	}
	if s.src.path == "" {
		return fmt.Sprintf("line %d, column %d", s.line, s.column)
	}
	return fmt.Sprintf("%s:%d:%d", s.src.path, s.line, s.column)
}

// maxProblems is how many things are said to be wrong with a step. Nobody reads more, and each costs a look for what was
// meant.
const maxProblems = 1000

const tooMany = "more is wrong than is listed here"

// A reporter collects problems.
type reporter struct {
	step   string
	all    Problems
	listed bool                    // the functions have been listed once
	folder func(name string) error // see [pipeline.Env]
}

func (r *reporter) report(at spot, rule, text, remedy string) {
	if at.src != nil && at.src.garbled[at.line] {
		return
	}
	if len(r.all) >= maxProblems {
		if len(r.all) == maxProblems {
			r.all = append(r.all, &Problem{Step: r.step, Text: tooMany})
		}
		return
	}
	p := &Problem{Step: r.step, Rule: rule, Line: at.line, Column: at.column, Length: at.length, Text: text, Remedy: remedy}
	if at.src != nil {
		p.File = at.src.path
		p.Source = at.src.lineText(at.line)
	}
	r.all = append(r.all, p)
}

// sorted returns the problems file by file, in the order of files.
func (r *reporter) sorted(sources []*source) Problems {
	order := map[string]int{}
	for i, s := range sources {
		order[s.path] = i
	}
	slices.SortStableFunc(r.all, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(r.all, func(a, b *Problem) bool { return *a == *b })
}
