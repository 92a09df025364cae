package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A Problem is one thing that is wrong with a configuration, with its place and what to do about it.
type Problem struct {
	File   string `json:"file,omitempty"`   // "": it is about no file
	Line   int    `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column int    `json:"column,omitempty"` // from 1, in characters
	Text   string `json:"text"`             // what is wrong
	Remedy string `json:"remedy,omitempty"` // what to write instead
	Source string `json:"source,omitempty"` // the line it is in

	// follows: it may be there only because something could not be read, which is a problem itself. Sorted leaves it out.
	follows bool
}

// String returns the problem with the line it is in and a caret under its place.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.Short()
	}
	return p.Short() + "\n" + excerpt(p.Source, p.Line, p.Column)
}

// Short returns the problem in one line: its place, what is wrong, and what to do.
func (p Problem) Short() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(Printable(p.Text))
	if p.Remedy != "" {
		b.WriteString("; " + Printable(p.Remedy))
	}
	return b.String()
}

// Printable returns s as one line that a terminal can be shown: what is not printable is written as in Go's strings.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// excerpt shows a line with a caret under one of its columns. Long lines are cut around it.
func excerpt(source string, line, column int) string {
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
	return fmt.Sprintf("%6d | %s\n       | %s^", line, strings.TrimRight(string(text), " "), strings.Repeat(" ", at))
}

// Problems are everything that is wrong with a configuration, in the order of the file.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Sorted returns the problems file by file as the files are first spoken of, and in the order of each, without
// repetitions, and without those that may only follow from others.
func (p Problems) Sorted() Problems {
	p = slices.DeleteFunc(p, func(x Problem) bool { return x.follows })
	order := map[string]int{}
	for _, x := range p {
		if _, ok := order[x.File]; !ok {
			order[x.File] = len(order)
		}
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(order[a.File]-order[b.File], a.Line-b.Line, a.Column-b.Column)
	})
	return slices.Compact(p)
}

// err returns p as an error, nil if nothing is wrong.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p.Sorted()
}

// AsProblems takes an error apart: what is a Problem already stays one, everything else becomes a Problem without a
// place in file.
func AsProblems(file string, err error) Problems {
	var all Problems
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &all):
		return all
	case errors.As(err, &joined):
		for _, e := range joined.Unwrap() {
			all = append(all, AsProblems(file, e)...)
		}
		return all
	}
	return Problems{{File: file, Text: err.Error()}}
}
