package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"

	"sluice/pipeline/lookalike"
)

const (
	maxBrackets = 50   // open at once in a condition
	maxRange    = 1000 // elements of a constant range
)

// A conditionChecker says everything that is wrong with one condition, in the words of the rule language. It is stricter than
// expr's own: what it lets pass has only types it knows, and costs little.
type conditionChecker struct {
	*reporter
	set    *ruleset
	rule   *rule
	tokens []lexer.Token
	locals []local
	items  []*typ // of the lists whose predicates are being read
	// fewItems: that list is written out and short.
	fewItems bool
	failed   bool
}

type local struct {
	name string
	typ  *typ
}

// parse reads the condition of a rule; nil: it is wrong, and reported.
func (c *conditionChecker) parse(cfg *conf.Config) *parser.Tree {
	src := string(c.rule.when)
	if len(src) > c.set.limits.MaxCondition {
		c.wrong(0, 1, fmt.Sprintf("the condition has %d octets", len(src)), fmt.Sprintf("at most %d are read; make several rules of it and use hit()", c.set.limits.MaxCondition))
		return nil
	}
	tokens, err := lexer.Lex(file.NewSource(src))
	if err != nil {
		c.syntax(err)
		return nil
	}
	c.tokens = tokens
	depth := 0
	for _, t := range tokens {
		switch {
		case t.Is(lexer.Bracket, "(", "[", "{"):
			depth++
		case t.Is(lexer.Bracket):
			depth--
		}
		if depth > maxBrackets {
			c.wrong(t.From, t.To, fmt.Sprintf("more than %d brackets are open here", maxBrackets), "")
			return nil
		}
	}
	tree, err := parser.ParseWithConfig(src, cfg)
	if err != nil {
		c.syntax(err)
		return nil
	}
	return tree
}

// condition checks a whole condition: terms joined by and, or and not.
func (c *conditionChecker) condition(n ast.Node) {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			c.condition(n.Node)
			return
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			c.condition(n.Left)
			c.condition(n.Right)
			return
		}
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			switch id.Value {
			case "known":
				c.known(n)
				return
			case "hit":
				c.hit(n)
				return
			}
		}
	}
	t := c.expr(n)
	if t.kind != boolKind && t.kind != badKind {
		remedy := "compare it with something"
		switch t.kind {
		case listKind:
			remedy = "ask any(…), or len(…) > 0"
		case recordKind:
			remedy = "it has " + strings.Join(t.names(), ", ")
		}
		c.wrongAt(n, fmt.Sprintf("`%s` is %s, not a condition", c.source(n), t), remedy)
	}
}

// expr checks a node inside a term and returns its type.
func (c *conditionChecker) expr(n ast.Node) *typ {
	switch n := n.(type) {
	case *ast.BoolNode:
		return &typ{kind: boolKind}
	case *ast.IntegerNode:
		return &typ{kind: intKind}
	case *ast.FloatNode:
		return &typ{kind: floatKind}
	case *ast.StringNode:
		return &typ{kind: textKind}
	case *ast.IdentifierNode:
		return c.identifier(n)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.CallNode:
		return c.call(n)
	case *ast.BuiltinNode:
		return c.builtin(n)
	case *ast.PointerNode:
		return c.pointer(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.VariableDeclaratorNode:
		return c.let(n)
	case *ast.ArrayNode:
		return c.array(n)
	case *ast.PredicateNode:
		return c.expr(n.Node)
	case *ast.ChainNode:
		return c.wrongAt(n, "`?.` is not part of the rule language", "write `.`: facts are never empty, and unknown ones make the rule undecided")
	case *ast.NilNode:
		return c.wrongAt(n, "`nil` is not part of the rule language", "an unknown fact is asked for with known(step)")
	case *ast.SliceNode:
		return c.wrongAt(n, "slices are not part of the rule language", "compare with startsWith, endsWith or matches")
	case *ast.MapNode:
		return c.wrongAt(n, "maps are not part of the rule language", "")
	case *ast.SequenceNode:
		return c.wrongAt(n, "`;` is not part of the rule language here", "join conditions with `and`")
	case *ast.BytesNode:
		return c.wrongAt(n, "byte strings are not part of the rule language", "write it without the b")
	}
	return c.wrongAt(n, "this is not part of the rule language", "")
}

func (c *conditionChecker) identifier(n *ast.IdentifierNode) *typ {
	for i := len(c.locals) - 1; i >= 0; i-- {
		if c.locals[i].name == n.Value {
			return c.once(n, c.locals[i].typ)
		}
	}
	if t, ok := c.set.scope.vars[n.Value]; ok {
		if c.shadowStep(n, n.Value) {
			return &typ{kind: badKind}
		}
		return c.once(n, t)
	}
	name := n.Value
	if !isWord(name) && name != c.set.scope.step && c.set.scope.steps[name] == nil && c.set.scope.gaps.hides(name) {
		return &typ{kind: badKind} // of a step that could not be read
	}
	if l := c.set.listNamed(n, nil); l != nil {
		remedy := ""
		if l.kind != noKind {
			remedy = fmt.Sprintf("write text %s %s", l.kind.operator(), name)
		}
		return c.wrongAt(n, fmt.Sprintf("`%s` is a list; it is asked about a text that stands before it", name), remedy)
	}
	switch {
	case slices.Contains(functions(), name):
		return c.wrongAt(n, fmt.Sprintf("`%s` is a function", name), fmt.Sprintf("write %s(…)", name))
	case name == "$env":
		return c.wrongAt(n, "`$env` is not part of the rule language", "")
	}
	if info, ok := c.set.scope.steps[name]; ok {
		if len(info.Rules) > 0 {
			return c.wrongAt(n, fmt.Sprintf("the step `%s` finds no facts", name), fmt.Sprintf(`its rules are asked for with hit("%s.…")`, name))
		}
		return c.wrongAt(n, fmt.Sprintf("the step `%s` finds no facts", name), "")
	}
	if name == c.set.scope.step {
		return c.wrongAt(n, fmt.Sprintf("`%s` is this step; it finds no facts", name), `its rules are asked for with hit("…")`)
	}
	if l := strings.ToLower(name); l != name {
		if _, ok := c.set.scope.vars[l]; ok || slices.Contains(operators(), l) {
			return c.wrongAt(n, fmt.Sprintf("there is no `%s`", name), fmt.Sprintf("did you mean `%s`?", l))
		}
	}
	remedy := "facts come from steps that stand before this one; text is written in quotes"
	if best := lookalike.Nearest(name, append(c.set.scope.names(), c.set.listNames()...)); best != "" {
		remedy = fmt.Sprintf("did you mean `%s`?", best)
	}
	if other := elsewhereName(name); other != "" {
		remedy = other
	}
	if len(c.items) > 0 && c.items[len(c.items)-1].fields[name] != nil {
		remedy = fmt.Sprintf("a field of the item is `.%s`", name)
	}
	return c.wrongAt(n, fmt.Sprintf("there is no `%s`", name), remedy)
}

// once refuses what must not be gone through for each item of a list that the sender writes.
func (c *conditionChecker) once(n ast.Node, t *typ) *typ {
	if t.large && len(c.items) > 0 && !c.fewItems {
		return c.wrongAt(n, fmt.Sprintf("`%s` may be long, and would be gone through for each item of the list", c.source(n)), "make two rules of it and use hit()")
	}
	return t
}

func (c *conditionChecker) member(n *ast.MemberNode) *typ {
	if n.Optional {
		return c.wrongAt(n, "`?.` is not part of the rule language", "write `.`: facts are never empty, and unknown ones make the rule undecided")
	}
	base := c.expr(n.Node)
	prop, named := n.Property.(*ast.StringNode)
	switch base.kind {
	case badKind:
		return base
	case recordKind:
		if !named {
			return c.wrongAt(n.Property, fmt.Sprintf("the %s is named with text in quotes, or after a dot", base.noun), "it has "+strings.Join(base.names(), ", "))
		}
		t, ok := base.fields[prop.Value]
		if !ok {
			from, to := c.propertySpan(n)
			of := c.source(n.Node)
			if _, isItem := n.Node.(*ast.PointerNode); isItem {
				of = "#"
			}
			remedy := didYouMeanOnly(prop.Value, base.names())
			if other := elsewhereField(prop.Value); slices.Contains(base.names(), other) {
				remedy = fmt.Sprintf("did you mean `%s`?", other)
			}
			c.wrong(from, to, noMember(of, base, prop.Value), remedy)
			return &typ{kind: badKind}
		}
		return t
	case listKind:
		if named {
			remedy := "ask any(list, .field …)"
			if isLength(prop.Value) {
				remedy = fmt.Sprintf("write len(%s)", c.source(n.Node))
			}
			return c.wrongAt(n, fmt.Sprintf("`%s` is a list, which has no field `%s`", c.source(n.Node), prop.Value), remedy)
		}
		i := c.expr(n.Property)
		if i.kind != intKind && i.kind != badKind {
			return c.wrongAt(n.Property, fmt.Sprintf("a place in a list is a whole number, not %s", i), "")
		}
		if base.elem == nil {
			return c.wrongAt(n, fmt.Sprintf("`%s` is empty", c.source(n.Node)), "")
		}
		return base.elem
	}
	if named {
		remedy := ""
		if base.kind == textKind && isLength(prop.Value) {
			remedy = fmt.Sprintf("write len(%s)", c.source(n.Node))
		}
		return c.wrongAt(n, fmt.Sprintf("`%s` is %s, which has no field `%s`", c.source(n.Node), base, prop.Value), remedy)
	}
	return c.wrongAt(n, fmt.Sprintf("`%s` is %s, not a list", c.source(n.Node), base), "")
}

// propertySpan is where the property of a member is written.
func (c *conditionChecker) propertySpan(n *ast.MemberNode) (from, to int) {
	at := n.Property.Location()
	return at.From, at.To
}

func elemOf(t *typ) *typ {
	if t.elem == nil {
		return &typ{kind: badKind}
	}
	return t.elem
}

func (c *conditionChecker) array(n *ast.ArrayNode) *typ {
	out := &typ{kind: listKind}
	for _, x := range n.Nodes {
		t := c.expr(x)
		switch {
		case t.kind == badKind:
		case t.kind == recordKind || t.kind == listKind:
			c.wrongAt(x, fmt.Sprintf("a list holds texts or numbers; `%s` is %s", c.source(x), t), "")
		case out.elem == nil:
			out.elem = &typ{kind: t.kind}
		case !canEqual(out.elem, t):
			c.wrongAt(x, fmt.Sprintf("a list holds things of one kind; `%s` is %s, the first one is %s", c.source(x), t, out.elem), "")
		case t.kind == floatKind:
			out.elem.kind = floatKind
		}
	}
	return out
}
