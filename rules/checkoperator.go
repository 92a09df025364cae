package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"sluice/pipeline/lookalike"
)

func (c *conditionChecker) unary(n *ast.UnaryNode) *typ {
	t := c.expr(n.Node)
	if t.kind == badKind {
		return t
	}
	switch n.Operator {
	case "not", "!":
		if t.kind != boolKind {
			return c.wrongAt(n.Node, fmt.Sprintf("`not` turns a condition round; `%s` is %s", c.source(n.Node), t), "")
		}
	default:
		if t = c.number(&n.Node, t); !t.isNumber() {
			return c.wrongAt(n.Node, fmt.Sprintf("`%s` is %s, not a number", c.source(n.Node), t), "")
		}
	}
	return t
}

func (c *conditionChecker) binary(n *ast.BinaryNode) *typ {
	switch n.Operator {
	case "**", "^":
		return c.wrongAt(n, fmt.Sprintf("`%s` is not part of the rule language", n.Operator), "")
	case "??":
		return c.wrongAt(n, "`??` is not part of the rule language", "an unknown fact is asked for with known(step)")
	}
	if list := c.set.listNamed(n.Right, c.locals); list != nil {
		return c.askList(n, list)
	}
	if c.mayBeList(n.Right) {
		c.expr(n.Left)
		return &typ{kind: boolKind}
	}
	l, r := c.expr(n.Left), c.expr(n.Right)
	switch n.Operator {
	case "==", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%":
		l, r = c.number(&n.Left, l), c.number(&n.Right, r)
	}
	if n.Operator == "matches" {
		c.pattern(n.Right)
	}
	if l.kind == badKind || r.kind == badKind {
		switch n.Operator {
		case "+", "-", "*", "/", "%", "..":
			return &typ{kind: badKind}
		}
		return &typ{kind: boolKind}
	}
	truth := &typ{kind: boolKind}
	switch n.Operator {
	case "and", "&&", "or", "||":
		for _, x := range []struct {
			n ast.Node
			t *typ
		}{{n.Left, l}, {n.Right, r}} {
			if x.t.kind != boolKind {
				c.wrongAt(x.n, fmt.Sprintf("`%s` joins conditions; `%s` is %s", n.Operator, c.source(x.n), x.t), "")
			}
		}
		return truth
	case "==", "!=":
		switch {
		case l.kind == recordKind && r.kind == recordKind, l.kind == listKind && r.kind == listKind && l.elem != nil && l.elem.kind == recordKind:
			return c.wrongAt(n, fmt.Sprintf("`%s` and `%s` are not compared as a whole", c.source(n.Left), c.source(n.Right)), "compare a field of each")
		case !canEqual(l, r):
			return c.mismatch(n, l, r, "they are never equal")
		}
		c.neverLower(n.Left, l, n.Right)
		c.neverLower(n.Right, r, n.Left)
		c.neverAmong(n.Left, l, n.Right)
		c.neverAmong(n.Right, r, n.Left)
		return truth
	case "<", ">", "<=", ">=":
		if l.isNumber() && r.isNumber() || l.kind == textKind && r.kind == textKind {
			return truth
		}
		return c.mismatch(n, l, r, "only numbers with numbers and texts with texts have an order")
	case "contains", "startsWith", "endsWith", "matches":
		for _, x := range []struct {
			n ast.Node
			t *typ
		}{{n.Left, l}, {n.Right, r}} {
			if x.t.kind != textKind {
				remedy := ""
				if x.t.kind == listKind {
					remedy = fmt.Sprintf("ask any(%s, # %s …)", c.source(x.n), n.Operator)
					if n.Operator == "contains" && x.n == n.Left {
						remedy = fmt.Sprintf("write %s in %s", c.source(n.Right), c.source(n.Left))
					}
				}
				return c.wrongAt(x.n, fmt.Sprintf("`%s` is about text; `%s` is %s", n.Operator, c.source(x.n), x.t), remedy)
			}
		}
		if n.Operator != "matches" {
			c.neverLower(n.Left, l, n.Right)
		}
		return truth
	case "in":
		if r.kind != listKind {
			remedy := "write the list in [ ]"
			switch {
			case l.ip:
				remedy = fmt.Sprintf("write in_network(%s, %s)", c.source(n.Left), c.source(n.Right))
			case r.kind == textKind:
				remedy = fmt.Sprintf("write %s contains %s", c.source(n.Right), c.source(n.Left))
			}
			return c.wrongAt(n.Right, fmt.Sprintf("`in` asks whether something is in a list; `%s` is %s", c.source(n.Right), r), remedy)
		}
		if e := elemOf(r); e.kind != badKind && !canEqual(l, e) {
			return c.mismatch(n, l, r, "it is never in there")
		}
		if a, ok := n.Right.(*ast.ArrayNode); ok {
			for _, x := range a.Nodes {
				c.neverLower(n.Left, l, x)
				c.neverAmong(n.Left, l, x)
			}
		}
		c.neverAmong(n.Right, elemOf(r), n.Left)
		return truth
	case "..":
		from, ok1 := n.Left.(*ast.IntegerNode)
		to, ok2 := n.Right.(*ast.IntegerNode)
		switch {
		case !ok1 || !ok2:
			return c.wrongAt(n, "a range runs between two numbers that are written out", "compare with <= and >=")
		case from.Value > to.Value:
			return c.wrongAt(n, "a range begins with the smaller number", "join two with `or`: x in 22..23 or x in 0..5")
		case to.Value-from.Value >= maxRange:
			return c.wrongAt(n, fmt.Sprintf("a range has at most %d numbers", maxRange), "compare with <= and >=")
		}
		return &typ{kind: listKind, elem: &typ{kind: intKind}}
	case "+", "-", "*", "/", "%":
		if n.Operator == "+" && (l.kind == textKind || r.kind == textKind) {
			return c.wrongAt(n, "texts cannot be joined in a rule", "compare each by itself")
		}
		if !l.isNumber() || !r.isNumber() {
			return c.mismatch(n, l, r, fmt.Sprintf("`%s` takes numbers", n.Operator))
		}
		switch {
		case isZero(n.Right) && (n.Operator == "/" || n.Operator == "%"):
			return c.wrongAt(n, "this divides by zero", "")
		case n.Operator == "/":
			return &typ{kind: floatKind}
		case n.Operator == "%":
			if l.kind != intKind || r.kind != intKind {
				return c.wrongAt(n, "`%` takes whole numbers", "")
			}
			return l
		case l.kind == floatKind || r.kind == floatKind:
			return &typ{kind: floatKind}
		}
		return &typ{kind: intKind}
	}
	return c.wrongAt(n, fmt.Sprintf("`%s` is not part of the rule language", n.Operator), "")
}

func isZero(n ast.Node) bool {
	switch z := n.(type) {
	case *ast.IntegerNode:
		return z.Value == 0
	case *ast.FloatNode:
		return z.Value == 0
	}
	return false
}

// number puts the field in the place of a record that stands for it in arithmetic: date > received means their seconds.
func (c *conditionChecker) number(n *ast.Node, t *typ) *typ {
	if t.kind != recordKind || t.number == "" {
		return t
	}
	m := &ast.MemberNode{Node: *n, Property: &ast.StringNode{Value: t.number}}
	m.SetLocation((*n).Location())
	*n = m
	return t.fields[t.number]
}

func (c *conditionChecker) mismatch(n *ast.BinaryNode, l, r *typ, why string) *typ {
	return c.wrongAt(n, fmt.Sprintf("`%s` is %s and `%s` is %s: %s", c.source(n.Left), l, c.source(n.Right), r, why), "")
}

// canEqual reports whether a and b can be equal.
func canEqual(a, b *typ) bool {
	switch {
	case a.isNumber():
		return b.isNumber()
	case a.kind == listKind:
		return b.kind == listKind && (a.elem == nil || b.elem == nil || canEqual(a.elem, b.elem))
	case a.kind == recordKind:
		return false
	}
	return a.kind == b.kind
}

// neverLower reports text with capitals compared with what is always in lower case.
func (c *conditionChecker) neverLower(what ast.Node, t *typ, with ast.Node) {
	s, ok := with.(*ast.StringNode)
	if !ok || !t.lower || strings.ToLower(s.Value) == s.Value {
		return
	}
	c.wrongAt(with, fmt.Sprintf("`%s` is always in lower case, and %s is not", c.source(what), c.source(with)), fmt.Sprintf("write %q", strings.ToLower(s.Value)))
}

// neverAmong reports a text that is compared with what can be one of a few others only.
func (c *conditionChecker) neverAmong(what ast.Node, t *typ, with ast.Node) {
	s, ok := with.(*ast.StringNode)
	if !ok || len(t.among) == 0 || t.lower && strings.ToLower(s.Value) != s.Value || slices.Contains(t.among, s.Value) {
		return
	}
	remedy := "it can be " + strings.Join(t.among, ", ")
	if best := lookalike.Nearest(s.Value, t.among); best != "" {
		remedy = fmt.Sprintf("did you mean %q?", best)
	}
	c.wrongAt(with, fmt.Sprintf("`%s` never is or holds %s", c.source(what), c.source(with)), remedy)
}

func (c *conditionChecker) conditional(n *ast.ConditionalNode) *typ {
	if !n.Ternary {
		return c.wrongAt(n.Cond, "`if` is not part of the rule language", "write `condition ? a : b`, or two rules")
	}
	if t := c.expr(n.Cond); t.kind != boolKind && t.kind != badKind {
		c.wrongAt(n.Cond, fmt.Sprintf("`%s` is %s, not a condition", c.source(n.Cond), t), "")
	}
	a, b := c.expr(n.Exp1), c.expr(n.Exp2)
	switch {
	case a.kind == badKind:
		return b
	case b.kind == badKind:
		return a
	case a.kind == recordKind || b.kind == recordKind || !canEqual(a, b):
		return c.wrongAt(n, fmt.Sprintf("`%s` is %s and `%s` is %s: both sides of the colon must be alike", c.source(n.Exp1), a, c.source(n.Exp2), b), "")
	case a.kind != b.kind: // a whole number and one with a fraction
		return &typ{kind: floatKind}
	case a.kind == textKind:
		return &typ{kind: textKind, lower: a.lower && b.lower, large: a.large || b.large}
	}
	return a
}
