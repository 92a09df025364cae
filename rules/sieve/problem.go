package sieve

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/pipeline/lookalike"
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// A Problem is one thing that is wrong with a script, with its place and what to do about it.
type Problem struct {
	Script  string `json:"file"`             // the name of the script
	Line    int    `json:"line,omitempty"`   // from 1; 0: the script as a whole
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Length  int    `json:"length,omitempty"` // of what is wrong, in characters, on that line
	Text    string `json:"text"`             // what is wrong
	Remedy  string `json:"remedy,omitempty"` // what to write instead
	Source  string `json:"source,omitempty"` // the line it is in
	Warning bool   `json:"warning,omitempty"`
}

// Error returns the problem on one line, without the excerpt: "work.sieve:12:5: text; remedy".
func (p Problem) Error() string {
	s := p.Script
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	if p.Warning {
		s += ": warning"
	}
	s += ": " + p.Text
	if p.Remedy != "" {
		s += "; " + p.Remedy
	}
	return s
}

// Excerpt returns the line it is in with carets under its place, "" where there is none.
func (p Problem) Excerpt() string {
	if p.Line == 0 || strings.TrimSpace(p.Source) == "" {
		return ""
	}
	const width = 100
	text := []rune(strings.Map(func(r rune) rune {
		if r == '\t' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, p.Source))
	at := max(0, min(p.Column-1, len(text)))
	if from := at - width*2/3; from > 0 {
		text, at = append([]rune("…"), text[from:]...), at-from+1
	}
	if len(text) > width {
		text = append(text[:width:width], '…')
	}
	carets := max(1, min(p.Length, len(text)-at))
	line := strings.TrimRight(string(text), " ")
	return fmt.Sprintf("%6d | %s\n       | %s%s", p.Line, line, strings.Repeat(" ", at), strings.Repeat("^", carets))
}

// A span is a piece of a script, in octets.
type span struct{ from, to int }

// A reporter reports problems of one script.
type reporter struct {
	b          *build
	name, text string
	starts     []int // of lines; worked out when first needed
}

func (r *reporter) report(at span, text, remedy string) {
	if !r.b.wants(false) {
		return
	}
	p := Problem{Script: r.name, Text: text, Remedy: remedy}
	p.Line, p.Column, p.Length, p.Source = r.place(at)
	r.b.report(p)
}

func (r *reporter) warn(at span, text, remedy string) {
	if !r.b.wants(true) {
		return
	}
	p := Problem{Script: r.name, Text: text, Remedy: remedy, Warning: true}
	p.Line, p.Column, p.Length, p.Source = r.place(at)
	r.b.report(p)
}

func (r *reporter) line(at int) int {
	if r.starts == nil {
		r.starts = append(r.starts, 0)
		for i := range len(r.text) {
			if r.text[i] == '\n' {
				r.starts = append(r.starts, i+1)
			}
		}
	}
	n, found := slices.BinarySearch(r.starts, min(at, len(r.text)))
	if found {
		n++
	}
	return n
}

// place says where a span is: column and length in characters, the length on its first line.
func (r *reporter) place(at span) (line, column, length int, source string) {
	line = r.line(at.from)
	start := r.starts[line-1]
	source, _, _ = strings.Cut(r.text[start:min(len(r.text), start+10000)], "\n")
	from := min(at.from, len(r.text))
	column = utf8.RuneCountInString(r.text[start:from]) + 1
	end := max(from, min(at.to, start+len(source)))
	length = max(1, utf8.RuneCountInString(r.text[from:end]))
	return line, column, length, strings.ToValidUTF8(strings.TrimRight(source, "\r"), "\ufffd")
}

// didYouMean is a remedy that names the nearest of names, else what there is if that is not much.
func didYouMean(s string, names []string) string {
	if best := lookalike.Nearest(s, names); best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	if len(names) == 0 || len(names) > 12 {
		return ""
	}
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return "there is " + strings.Join(sorted, ", ")
}
