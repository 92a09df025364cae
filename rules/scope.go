package rules

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/builtin"

	"sluice/pipeline"
)

// functions are those of ours; hit and known stand only as operands of and, or, not.
func functions() []string {
	out := []string{"has", "header", "headers", "hit", "known", "count_in"}
	for _, f := range ownFunctions() {
		out = append(out, f.name)
	}
	return out
}

// headerFunctions are those that take the name of a header field.
func headerFunctions() []string { return []string{"has", "header", "headers"} }

// operators are the words that expr reads as such, and its literals.
func operators() []string {
	return []string{"and", "or", "not", "in", "contains", "matches", "startsWith", "endsWith", "let", "if", "else", "true", "false", "nil"}
}

// isWord reports whether a name means something in the rule language by itself.
func isWord(name string) bool {
	if slices.Contains(functions(), name) || slices.Contains(operators(), name) || slices.Contains(messageNames(), name) {
		return true
	}
	_, ok := builtin.Index[name]
	return ok
}

// IsWord reports whether a name means something in the rule language by itself, so that no step and no list that rules
// shall see can have it.
func IsWord(name string) bool { return isWord(name) }

// A scope is what the rules of a step can name.
type scope struct {
	step   string
	shadow bool // the whole step is a trial
	torn   bool // parts of its settings could not be read
	vars   map[string]*typ
	steps  map[string]*stepInfo
	order  []*stepInfo
	env    reflect.Type
	field  map[string]int // of env
	known  []name         // of the transaction
	named  map[string]int // their places
	gaps   gaps
}

// gaps are what nobody knows because steps before this one could not be read.
type gaps struct {
	names map[string]bool // steps of which it is not known what they find
	any   bool            // there may be steps of any name
}

// hides reports whether a name may be that of a step which could not be read.
func (g gaps) hides(name string) bool { return g.any || g.names[name] }

func (g gaps) none() bool { return !g.any && len(g.names) == 0 }

// A stepInfo is a step before the one whose rules are read.
type stepInfo struct {
	pipeline.Before
	shape *shape // nil: it finds no facts
	from  map[reflect.Type]converter
}

func (s *scope) factSteps() []string {
	var names []string
	for _, x := range s.order {
		if x.shape != nil {
			names = append(names, x.Name)
		}
	}
	return names
}

func (s *scope) names() []string { return slices.Sorted(maps.Keys(s.vars)) }

// newScope works out what rules can name from the steps before theirs; the last of before is their own.
func newScope(name string, before []pipeline.Before) (*scope, error) {
	s := &scope{
		step: name, steps: map[string]*stepInfo{}, field: map[string]int{}, vars: map[string]*typ{},
		known: names(), named: map[string]int{}, gaps: gaps{names: map[string]bool{}},
	}
	var fields []reflect.StructField
	add := func(name string, t reflect.Type) {
		s.field[name] = len(fields)
		fields = append(fields, envField(name, t))
	}
	for i, x := range s.known {
		s.named[x.name] = i
		if x.zero == nil {
			continue
		}
		t := reflect.TypeOf(x.zero)
		add(x.name, t)
		if !x.hidden {
			typ := typeFor(t, "")
			typ.number, typ.large = x.number, x.large
			if x.among != nil {
				typ.elem.among = x.among
			}
			s.vars[x.name] = typ
		}
	}
	add("has", reflect.TypeFor[func(string) bool]())
	add("header", reflect.TypeFor[func(string) string]())
	add("headers", reflect.TypeFor[func(string) []string]())
	add(listIn, reflect.TypeFor[func(string, int) bool]())
	add(listFinds, reflect.TypeFor[func(string, int) bool]())
	add(countIn, reflect.TypeFor[func(string, int) int]())
	for _, b := range before {
		if b.Name == name {
			s.shadow, s.torn = b.Shadow, b.Failed
			continue
		}
		if b.Failed && b.Fact == nil {
			s.gaps.any = s.gaps.any || b.Name == ""
			s.gaps.names[b.Name] = true
			delete(s.vars, b.Name)
			delete(s.steps, b.Name)
			continue
		}
		info := &stepInfo{Before: b}
		s.steps[b.Name] = info
		s.order = append(s.order, info)
		if b.Fact == nil {
			continue
		}
		if isWord(b.Name) {
			return nil, fmt.Errorf("the step %s is called like a word of the rule language: give it another name with `name:`", b.Name)
		}
		if !memberName.MatchString(b.Name) {
			return nil, fmt.Errorf("%q cannot be used as a name in rules: write lower-case letters, digits and _, a letter first", b.Name)
		}
		v := reflect.ValueOf(b.Fact)
		sh, err := shapeOf(v, nounOf(b))
		if err != nil {
			return nil, fmt.Errorf("the facts of %s: %w", b.Name, err)
		}
		if sh.typ.kind != recordKind {
			return nil, fmt.Errorf("the facts of %s: a fact is a struct or a pipeline.Named, not %T", b.Name, b.Fact)
		}
		info.shape = sh
		info.from = map[reflect.Type]converter{v.Type(): sh.converterFrom(v.Type())}
		// Records are decoded into the plan's type, which differs from the scanner's for a Named.
		if t, err := pipeline.FactType(b.Fact); err == nil && t != v.Type() {
			info.from[t] = sh.converterFrom(t)
		}
		s.vars[b.Name] = sh.typ
		add(b.Name, sh.goType)
	}
	s.env = reflect.StructOf(fields)
	return s, nil
}

// nounOf is what the configuration calls the names of a Named: a DNS list is a list.
func nounOf(b pipeline.Before) string {
	if t := reflect.TypeOf(b.Fact); isNamed(t) {
		if b.Kind == "dnsbl" {
			return "list"
		}
		if n := t.Elem().Name(); n != "" && t.Elem().Kind() == reflect.Struct {
			return strings.ToLower(n)
		}
	}
	return "field"
}
