package sieve

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"
)

// Options say what a script may use. The zero Options allow every extension but those that run programs, and know no
// other scripts.
type Options struct {
	Limits Limits
	// Off names extensions that are not to be had.
	Off []string
	// Include returns the text of a script that another includes (RFC 6609): a personal one or, with global, one of the
	// site's. An error is told to the script's owner; nil: there is none to include.
	Include func(global bool, name string) ([]byte, error)
	// Programs are the programs that vnd.dovecot.pipe, filter and execute may name; nil: these extensions are off.
	Programs *Programs
	// Unchecked is for scripts that are not run now: an included script that is not there is a warning (RFC 6609, 3.2).
	Unchecked bool
}

// Programs names the programs that scripts may run.
type Programs struct {
	Pipe, Filter, Execute []string
	// Unknown is for scripts that are looked at where nobody knows what a site lists: to name a program is a warning.
	Unknown bool
}

// A Script is a checked script. It says the same always and may be run by any number of goroutines at once.
type Script struct {
	main     *unit
	limits   Limits
	includes []Included
	units    []*unit     // the main one, and those that are included
	waits    atomic.Bool // a run had to wait for something: see [stage.Prompt]
}

// Name is the name it was compiled under.
func (s *Script) Name() string { return s.main.name }

// An Included is a script that another includes.
type Included struct {
	Global  bool
	Name    string
	Missing bool // it was not there
}

// Includes lists what the script includes, directly and not: where one of them has changed it is to be compiled again.
func (s *Script) Includes() []Included { return slices.Clone(s.includes) }

// A unit is one script file: the main one or an included one.
type unit struct {
	name string
	text string
	body []*call
	// has are the extensions in force.
	has map[string]bool
}

// Compile checks a script. Where anything is wrong with it the script is nil; the problems, warnings among them, are in
// the order of the text, at most [Limits.Problems] of them. name is what problems and actions call the script: "work.sieve".
func Compile(name string, text []byte, o Options) (*Script, []Problem) {
	o.Limits = o.Limits.withDefaults()
	b := &build{options: o, extensions: available(o), units: map[Included]*unit{}}
	b.index = newIndex(b.extensions)
	u := b.compile(name, string(text))
	problems := b.sorted()
	if slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	return &Script{main: u, limits: o.Limits, includes: b.included, units: append(slices.Collect(maps.Values(b.units)), u)}, problems
}

// uses reports whether an extension is in force in the script, or in one that it includes.
func (s *Script) uses(extension string) bool {
	return slices.ContainsFunc(s.units, func(u *unit) bool { return u.has[extension] })
}

// Extensions lists the extensions that scripts may require under o, as ManageSieve announces them (RFC 5804, 1.7).
func Extensions(o Options) []string {
	var names []string
	for name, e := range available(o) {
		if !e.unlisted {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A build is the compilation of one script with all that it includes.
type build struct {
	options Options
	index
	extensions map[string]*extension
	files      []string // names of the scripts, in the order they were met
	problems   []Problem
	wrong      bool               // not only warnings are among them
	units      map[Included]*unit // compiled; nil while it is being compiled
	included   []Included
	depth      int
	regexes    int // octets of expressions compiled so far
}

func (b *build) compile(name, text string) *unit {
	u := &unit{name: name, text: text, has: map[string]bool{}}
	b.files = append(b.files, name)
	if most := b.options.Limits.ScriptSize; len(text) > most {
		b.report(Problem{Script: name, Text: sprintf("the script has %d octets; %d are allowed", len(text), most)})
		return u
	}
	r := &reporter{b: b, name: name, text: text}
	c := &checker{b: b, unit: u, reporter: r, limits: b.options.Limits}
	u.body = c.script(parse(r, b.options.Limits))
	return u
}

func (b *build) report(p Problem) {
	if !b.wants(p.Warning) {
		return
	}
	if len(b.problems) < b.options.Limits.Problems {
		b.problems = append(b.problems, p)
	} else {
		b.problems[len(b.problems)-1] = p // the first error among warnings: a script that has one is none
	}
	b.wrong = b.wrong || !p.Warning
}

// wants reports whether there is room for another problem. To find out where one is takes time, and there may be many.
func (b *build) wants(warning bool) bool {
	return len(b.problems) < b.options.Limits.Problems || !warning && !b.wrong
}

// enough reports whether what else is wrong need not be known.
func (b *build) enough() bool { return !b.wants(false) }

func (b *build) sorted() []Problem {
	order := map[string]int{}
	for i, name := range b.files {
		order[name] = i
	}
	slices.SortStableFunc(b.problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(order[x.Script], order[y.Script]), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	return slices.Compact(b.problems)
}

// Run runs the script over a mail. It fails never: what goes wrong is in the outcome, and the mail is kept then.
func (s *Script) Run(ctx context.Context, in Input) Outcome {
	r := newRun(ctx, s, in)
	r.script(s.main)
	return r.outcome()
}
