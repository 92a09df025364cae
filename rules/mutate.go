package rules

import (
	"context"
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser/lexer"

	"sluice/pipeline"
)

// Mutants are what became of a step's rules, each changed in one place: those that no test in the rule files noticed show
// what is not tested.
type Mutants struct {
	Made      int        // changes that were tried
	Unnoticed []*Problem // those that no test noticed, in the order of the files
	Left      int        // changes that were not tried before the context ended
}

// A mutant is one change of one rule.
type mutant struct {
	at     int // of the rule
	whole  bool
	say    spot
	text   string
	change func(x *rule)
}

// Mutate changes the rules of a step, one place at a time, and runs the tests of its rule files against each change: a
// rule that never holds, a term turned round, `and` for `or`, `<` for `<=`, another verdict, folder or score. Where no test
// notices that a rule never holds nothing else is tried of it. progress, if set, is told how many changes of how many
// have been tried. What is wrong with the rules as they are is the error.
func Mutate(ctx context.Context, c Config, env pipeline.Env, progress func(done, all int)) (Mutants, error) {
	env.Files, env.Warn = remembered(env.Files), nil
	if _, err := New(c, env); err != nil {
		return Mutants{}, err
	}
	set, err := load(c, env)
	if err != nil {
		return Mutants{}, err
	}
	var out Mutants
	r := &reporter{step: env.Name}
	all := set.mutants()
	idle := map[int]bool{} // rules that no test notices at all
	for i, m := range all {
		if ctx.Err() != nil {
			out.Left = len(all) - i
			break
		}
		if progress != nil {
			progress(i, len(all))
		}
		if idle[m.at] {
			continue
		}
		noticed, ok := set.noticed(c, env, m)
		if !ok {
			continue // changed so it is no rule
		}
		out.Made++
		if noticed {
			continue
		}
		idle[m.at] = m.whole
		r.report(m.say, set.rules[m.at].name, m.text, "")
	}
	if progress != nil {
		progress(len(all)-out.Left, len(all))
	}
	out.Unnoticed = r.sorted(set.sources)
	return out, nil
}

// noticed reports whether a test fails with the change; ok is false where the rules cannot be read with it.
func (s *ruleset) noticed(c Config, env pipeline.Env, m mutant) (noticed, ok bool) {
	if len(s.tests) == 0 {
		return false, true
	}
	set, err := load(c, env, func(s *ruleset) {
		s.edit = func(rules []*rule) { m.change(rules[m.at]) }
	})
	if err != nil {
		return false, false
	}
	set.hasty = true
	r := &reporter{step: env.Name}
	set.runTests(set.stages(thresholds{c.Reject, c.Quarantine, c.Junk, c.JunkFolder}), env, r)
	return len(r.all) > 0, true
}

// remembered reads each pattern once.
func remembered(files func(string) ([]pipeline.File, error)) func(string) ([]pipeline.File, error) {
	if files == nil {
		return nil
	}
	type answer struct {
		files []pipeline.File
		err   error
	}
	known := map[string]answer{}
	return func(pattern string) ([]pipeline.File, error) {
		a, ok := known[pattern]
		if !ok {
			a.files, a.err = files(pattern)
			known[pattern] = a
		}
		return slices.Clone(a.files), a.err
	}
}

// mutants lists all changes, rule by rule.
func (s *ruleset) mutants() (all []mutant) {
	for _, x := range s.rules {
		all = append(all, mutant{
			at: x.at, whole: true, say: x.pos, text: fmt.Sprintf("no test notices if the rule `%s` never holds", x.name),
			change: func(x *rule) { x.rewrite("false") },
		})
		all = append(all, s.conditionMutants(x)...)
		if other, ok := otherVerdict(x.final); ok && !x.shadow {
			all = append(all, mutant{
				at: x.at, say: x.pos, text: fmt.Sprintf("no test notices if the rule `%s` says %s and not %s", x.name, other, x.final),
				change: func(x *rule) { x.final = other },
			})
		}
		if x.folder != "" && !x.shadow {
			all = append(all, mutant{
				at: x.at, say: x.pos, text: fmt.Sprintf("no test notices if the rule `%s` files into another folder than %s", x.name, x.folder),
				change: func(x *rule) { x.folder += " changed" },
			})
		}
		if x.scores && x.score != 0 && !x.shadow {
			all = append(all, mutant{
				at: x.at, say: x.pos, text: fmt.Sprintf("no test notices if the rule `%s` scores 0 and not %v", x.name, x.score),
				change: func(x *rule) { x.score = 0 },
			})
		}
	}
	return all
}

// otherVerdict is a final verdict that needs no reply, in place of another.
func otherVerdict(a pipeline.Action) (pipeline.Action, bool) {
	switch a {
	case pipeline.Pass:
		return a, false
	case pipeline.Quarantine:
		return pipeline.Discard, true
	}
	return pipeline.Quarantine, true
}

// rewrite gives a rule another condition.
func (x *rule) rewrite(when string) {
	x.when = []rune(when)
	x.whenAt = slices.Repeat([]spot{x.pos}, len(x.when)+1)
}

// A changer finds what can be changed in a condition.
type changer struct {
	*conditionChecker
	all []mutant
}

func (s *ruleset) conditionMutants(x *rule) []mutant {
	c := &changer{conditionChecker: &conditionChecker{reporter: &reporter{}, set: s, rule: x}}
	tree := c.parse(s.config)
	if tree == nil {
		return nil
	}
	c.walk(tree.Node)
	return c.all
}

// walk goes through the terms of a condition, as [conditionChecker.condition] does.
func (c *changer) walk(n ast.Node) {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			c.walk(n.Node)
			return
		}
	case *ast.BinaryNode:
		other := map[string]string{"and": "or", "&&": "||", "or": "and", "||": "&&"}[n.Operator]
		if other != "" {
			c.walk(n.Left)
			c.operator(n, other)
			c.walk(n.Right)
			return
		}
		if other := map[string]string{"<": "<=", "<=": "<", ">": ">=", ">=": ">"}[n.Operator]; other != "" {
			c.operator(n, other)
		}
	case *ast.BoolNode:
		return // written out: it means itself
	}
	from, to := c.span(n)
	source := shorten(c.source(n), 100)
	c.replace(from, to, "not ("+string(c.rule.when[from:to])+")", fmt.Sprintf("no test notices if `%s` is turned round", source))
}

// operator replaces the operator of a node.
func (c *changer) operator(n *ast.BinaryNode, other string) {
	at := n.Location()
	for _, t := range c.tokens {
		if t.Kind == lexer.Operator && t.From == at.From && t.Value == n.Operator {
			c.replace(t.From, t.To, other, fmt.Sprintf("no test notices if this `%s` is `%s`", n.Operator, other))
			return
		}
	}
}

func (c *changer) replace(from, to int, with, text string) {
	if from < 0 || to > len(c.rule.when) || from >= to {
		return
	}
	when := string(c.rule.when[:from]) + with + string(c.rule.when[to:])
	at := c.rule.whenAt[from]
	at.length = 1
	if end := c.rule.whenAt[to-1]; end.line == at.line && end.column >= at.column {
		at.length = end.column - at.column + 1
	}
	c.all = append(c.all, mutant{at: c.rule.at, say: at, text: text, change: func(x *rule) { x.rewrite(when) }})
}
