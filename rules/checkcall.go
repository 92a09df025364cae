package rules

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
)

// pattern checks the right side of matches. Only a constant is compiled once, and can be checked.
func (c *conditionChecker) pattern(n ast.Node) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		c.wrongAt(n, "a pattern is written out in quotes", "compare with contains, startsWith, endsWith or ==")
		return
	}
	if why, remedy := badPattern(s.Value, c.set.limits.MaxPattern); why != "" {
		c.wrongAt(n, why, remedy)
	}
}

// badPattern says why a text is no pattern of at most so many instructions, "" if it is one.
func badPattern(s string, most int) (why, remedy string) {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		var e *syntax.Error
		why := err.Error()
		if errors.As(err, &e) {
			why = fmt.Sprintf("%s: `%s`", e.Code, e.Expr)
			foreign := e.Code == syntax.ErrInvalidEscape && strings.Trim(e.Expr, `\123456789`) == ""
			if foreign || e.Code == syntax.ErrInvalidPerlOp || strings.HasPrefix(e.Expr, "(?<") {
				remedy = "patterns are RE2: no look-around, no back-references"
			}
		}
		return "not a pattern: " + why, remedy
	}
	if p, err := syntax.Compile(re.Simplify()); err != nil || len(p.Inst) > most {
		return "the pattern is too large once its repetitions are written out", "use smaller counts in { }"
	}
	return "", ""
}

func (c *conditionChecker) call(n *ast.CallNode) *typ {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if m, isMember := n.Callee.(*ast.MemberNode); isMember {
		if t := c.expr(m.Node); t.kind == badKind {
			return t
		}
	}
	if !ok {
		return c.wrongAt(n, "only functions can be called", c.method(n))
	}
	switch id.Value {
	case "has", "header", "headers":
		result := &typ{kind: boolKind}
		switch id.Value {
		case "header":
			result = &typ{kind: textKind}
		case "headers":
			result = &typ{kind: listKind, elem: &typ{kind: textKind}}
		}
		usage := fmt.Sprintf(`write %s("Subject")`, id.Value)
		if len(n.Arguments) != 1 {
			c.wrongAt(n, fmt.Sprintf("%s() takes the name of one header field", id.Value), usage)
			return result
		}
		s, ok := n.Arguments[0].(*ast.StringNode)
		if !ok {
			c.wrongAt(n.Arguments[0], fmt.Sprintf("%s() takes the name of a header field in quotes", id.Value), usage)
			return result
		}
		if !isFieldName(s.Value) {
			c.wrongAt(n.Arguments[0], fmt.Sprintf("%q is not the name of a header field", s.Value), "use letters, digits and -, without the colon")
		}
		return result
	case countIn:
		return c.countIn(n)
	case "known", "hit":
		return c.wrongAt(n, fmt.Sprintf("%s() stands only between and, or and not", id.Value), "take it out of what is around it")
	}
	if f, ok := functionNamed(id.Value); ok {
		return c.own(n, f)
	}
	return c.noFunction(n, id.Value)
}

func isFieldName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || r == ':' {
			return false
		}
	}
	return true
}

func (c *conditionChecker) noFunction(n ast.Node, name string) *typ {
	if _, ok := builtin.Index[name]; ok {
		remedy := elsewhereFunction(name)
		if remedy == "" {
			remedy = c.functionList()
		}
		if _, ok := c.set.scope.vars[name]; ok {
			return c.wrongAt(n, fmt.Sprintf("`%s` is not a function", name), remedy)
		}
		return c.wrongAt(n, fmt.Sprintf("`%s` is not part of the rule language", name), remedy)
	}
	for _, op := range operators() {
		if strings.EqualFold(op, name) {
			return c.wrongAt(n, fmt.Sprintf("there is no function `%s`", name), fmt.Sprintf("`%s` stands between two values", op))
		}
	}
	remedy := didYouMeanOnly(name, allFunctions())
	switch op := elsewhereOperator(name); {
	case elsewhereFunction(name) != "":
		remedy = elsewhereFunction(name)
	case op != "":
		remedy = fmt.Sprintf("`%s` stands between two values", op)
	case remedy == "":
		remedy = c.functionList()
	}
	return c.wrongAt(n, fmt.Sprintf("there is no function `%s`", name), remedy)
}

func allFunctions() []string {
	return append(functions(), "len", "lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix",
		"any", "all", "none", "one", "count", "abs", "min", "max", "int", "float", "string")
}

// functionList is a remedy that names all functions, the first time.
func (c *conditionChecker) functionList() string {
	if c.listed {
		return ""
	}
	c.listed = true
	all := allFunctions()
	slices.Sort(all)
	return "the functions are " + strings.Join(all, ", ")
}

// builtin checks a function of expr's. What is not named here is refused: repeat, join and reduce make texts of any
// size, now() and date() would make a decision depend on when it is asked, and the rest nobody needs to judge a mail.
func (c *conditionChecker) builtin(n *ast.BuiltinNode) *typ {
	truth, count := &typ{kind: boolKind}, &typ{kind: intKind}
	switch n.Name {
	case "len":
		if c.arity(n, 1, 1) {
			t := c.expr(n.Arguments[0])
			if t.kind != textKind && t.kind != listKind && t.kind != badKind {
				c.wrongAt(n.Arguments[0], fmt.Sprintf("len() takes text or a list; `%s` is %s", c.source(n.Arguments[0]), t), "")
			}
		}
		return count
	case "lower", "upper", "trim", "trimPrefix", "trimSuffix":
		most := 2
		least := 1
		switch n.Name {
		case "lower", "upper":
			most = 1
		case "trimPrefix", "trimSuffix":
			least = 2
		}
		out := &typ{kind: textKind, lower: n.Name == "lower"}
		if c.arity(n, least, most) {
			out.large = c.arguments(n, textKind)
		}
		return out
	case "hasPrefix", "hasSuffix":
		if c.arity(n, 2, 2) {
			c.arguments(n, textKind)
		}
		return truth
	case "any", "all", "none", "one", "count":
		c.predicate(n)
		if n.Name == "count" {
			return count
		}
		return truth
	case "abs", "min", "max":
		result, most := count, 10
		if n.Name == "abs" {
			most = 1
		}
		if c.arity(n, 1, most) {
			for i, a := range n.Arguments {
				t := c.number(&n.Arguments[i], c.expr(a))
				switch {
				case i == 0 && t.kind == floatKind:
					result = t
				case i > 0 && t.isNumber() && t.kind != result.kind:
					// expr takes the result for the kind of the first, and fails where it is not.
					c.wrongAt(a, fmt.Sprintf("%s() takes whole numbers or numbers with a fraction, not both", n.Name), "write float(…) around the whole ones")
				}
				if !t.isNumber() && t.kind != badKind {
					c.wrongAt(a, fmt.Sprintf("%s() takes numbers; `%s` is %s", n.Name, c.source(a), t), "")
				}
			}
		}
		return result
	case "int", "float", "string":
		if c.arity(n, 1, 1) {
			t := c.expr(n.Arguments[0])
			if t.kind != textKind && !t.isNumber() && t.kind != badKind && (n.Name != "string" || t.kind != boolKind) {
				c.wrongAt(n.Arguments[0], fmt.Sprintf("%s() cannot take %s", n.Name, t), "")
			}
		}
		return &typ{kind: map[string]kind{"int": intKind, "float": floatKind, "string": textKind}[n.Name]}
	}
	return c.noFunction(n, n.Name)
}

func (c *conditionChecker) arity(n *ast.BuiltinNode, least, most int) bool {
	if k := len(n.Arguments); k >= least && k <= most {
		return true
	}
	want := fmt.Sprintf("%d arguments", least)
	switch {
	case most == 1:
		want = "one argument"
	case most > least:
		want = fmt.Sprintf("%d to %d arguments", least, most)
	}
	c.wrongAt(n, fmt.Sprintf("%s() takes %s, not %d", n.Name, want, len(n.Arguments)), "")
	return false
}

// arguments checks what kind they are, and reports whether one of them is large.
func (c *conditionChecker) arguments(n *ast.BuiltinNode, want kind) (large bool) {
	for _, a := range n.Arguments {
		t := c.expr(a)
		large = large || t.large
		if t.kind != want && t.kind != badKind {
			c.wrongAt(a, fmt.Sprintf("%s() takes %s; `%s` is %s", n.Name, &typ{kind: want}, c.source(a), t), "")
		}
	}
	return large
}

// predicate checks any(list, condition) and its like. One inside another would multiply their costs, but for a list that
// the item itself has: all of those together are no longer than what a step has found.
func (c *conditionChecker) predicate(n *ast.BuiltinNode) {
	if len(n.Arguments) != 2 {
		c.wrongAt(n, fmt.Sprintf("%s() takes a list and a condition", n.Name), fmt.Sprintf(`write for example %s(list, # == "x")`, n.Name))
		return
	}
	if len(c.items) > 0 && !ofItem(n.Arguments[0]) {
		c.wrongAt(n, fmt.Sprintf("%s() stands inside another one, about a list that is not its item's", n.Name), "make two rules of it and use hit()")
		return
	}
	t := c.expr(n.Arguments[0])
	if t.kind != listKind {
		if t.kind != badKind {
			c.wrongAt(n.Arguments[0], fmt.Sprintf("%s() takes a list; `%s` is %s", n.Name, c.source(n.Arguments[0]), t), "")
		}
		return
	}
	if t.elem == nil {
		c.wrongAt(n.Arguments[0], fmt.Sprintf("`%s` is empty", c.source(n.Arguments[0])), "")
		return
	}
	const few = 20
	list, written := n.Arguments[0].(*ast.ArrayNode)
	around := c.fewItems
	c.items, c.fewItems = append(c.items, t.elem), written && len(list.Nodes) <= few
	p := c.expr(n.Arguments[1])
	c.items, c.fewItems = c.items[:len(c.items)-1], around
	if p.kind != boolKind && p.kind != badKind {
		c.wrongAt(n.Arguments[1], fmt.Sprintf("`%s` is %s, not a condition", c.source(n.Arguments[1]), p), "")
	}
}

// ofItem reports whether a node is a field of the item of a list: .archive.members.
func ofItem(n ast.Node) bool {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return false
	}
	_, isItem := m.Node.(*ast.PointerNode)
	return isItem || ofItem(m.Node)
}

func (c *conditionChecker) pointer(n *ast.PointerNode) *typ {
	if len(c.items) == 0 {
		return c.wrongAt(n, "`#` stands for an item of a list, inside any() and its like", "")
	}
	if n.Name != "" {
		return c.wrongAt(n, fmt.Sprintf("there is no `#%s`", n.Name), "`#` is the item itself")
	}
	return c.items[len(c.items)-1]
}

func (c *conditionChecker) let(n *ast.VariableDeclaratorNode) *typ {
	name := n.Name
	if _, ok := c.set.scope.vars[name]; ok || isWord(name) || slices.Contains(c.set.listNames(), name) || slices.ContainsFunc(c.locals, func(l local) bool { return l.name == name }) {
		return c.wrongAt(n, fmt.Sprintf("`%s` means something already", name), "take another name")
	}
	t := c.expr(n.Value)
	if t.kind == recordKind {
		return c.wrongAt(n.Value, fmt.Sprintf("`%s` is a group of fields", c.source(n.Value)), "it has "+strings.Join(t.names(), ", "))
	}
	c.locals = append(c.locals, local{name, t})
	defer func() { c.locals = c.locals[:len(c.locals)-1] }()
	return c.expr(n.Expr)
}
