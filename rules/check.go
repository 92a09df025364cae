package rules

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
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

var (
	tokenText        = regexp.MustCompile(`^(.*)unexpected token (\w+)(?:\("(.*)"\))?$`)
	strangeCharacter = regexp.MustCompile(`^unrecognized character: \S+ '(.+)'$`)
)

// syntax reports what the parser says in plainer words.
func (c *conditionChecker) syntax(err error) {
	var e *file.Error
	if !errors.As(err, &e) {
		c.wrong(0, 1, firstLine(err.Error()), "")
		return
	}
	text, remedy := e.Message, ""
	from, to := e.From, max(e.To, e.From+1)
	if m := tokenText.FindStringSubmatch(text); m != nil {
		tok := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[3])
		switch {
		case m[2] == "EOF":
			text, remedy = "the condition ends too early", c.cutOff()
		case tok == "=":
			text, remedy = "`=` is not expected here", "compare with `==`"
		case m[2] == "Identifier" && slices.Contains([]string{"and", "or", "not", "in"}, strings.ToLower(tok)) && tok != strings.ToLower(tok):
			text, remedy = fmt.Sprintf("`%s` is not expected here", tok), fmt.Sprintf("write `%s`", strings.ToLower(tok))
		default:
			text, remedy = fmt.Sprintf("`%s` is not expected here", tok), unexpected(m[2], tok, string(c.rule.when[:min(from, len(c.rule.when))]))
		}
	}
	if m := strangeCharacter.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("`%s` is not expected here", m[1])
		switch remedy = "text is written in quotes"; {
		case m[1] == "~" && from > 0 && c.rule.when[from-1] == '!':
			remedy = "write not (… matches …)"
		case m[1] == "~":
			remedy = "write `matches`"
		}
	}
	for _, x := range []struct{ says, text, remedy string }{
		{"coalesce", "`??` is not part of the rule language", "an unknown fact is asked for with known(step)"},
		{"literal not terminated", "the text is not closed with its quote", ""},
		{"invalid char escape", "there is no such escape in text", "write \\\\ for a backslash, or put the text in backquotes"},
		{"integer literal", "the number is too large, or none", ""},
		{"float literal", "the number is too large, or none", ""},
		{"bad number syntax", "a number has no unit", "write 10 * 1024 for 10 KiB, and days(2), hours(12) or minutes(30) for a time"},
		{"expected at least 2 arguments", "any() and its like take a list and a condition", `write for example any(links, .domain == "example.org"), or len(links) > 0`},
		{"maximum allowed nodes", "the condition is too large", "make several rules of it and use hit()"},
	} {
		if strings.Contains(text, x.says) {
			text, remedy = x.text, cmp.Or(x.remedy, c.cutOff())
		}
	}
	c.wrong(from, to, text, remedy)
}

// cutOff says what YAML took for the end of the condition, "" where it is the author's.
func (c *conditionChecker) cutOff() string {
	at := c.rule.whenAt[len(c.rule.whenAt)-1]
	rest := cut(at.src.lineText(at.line), at.column-1)
	switch {
	case strings.Contains(rest, " #"):
		return "in YAML ` #` begins a comment: put the condition in quotes"
	case strings.HasPrefix(rest, ","):
		return "in YAML a comma ends what stands in { }: put the condition in quotes"
	}
	return ""
}

func cut(s string, n int) string {
	r := []rune(s)
	return string(r[min(max(n, 0), len(r)):])
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// wrong reports a mistake at characters [from, to) of the condition.
func (c *conditionChecker) wrong(from, to int, text, remedy string) {
	c.failed = true
	places := c.rule.whenAt
	if len(places) == 0 {
		c.report(c.rule.pos, c.rule.name, text, remedy)
		return
	}
	from = min(max(from, 0), len(places)-1)
	to = min(max(to, from+1), len(places)-1)
	at := places[from]
	at.length = 1
	if end := places[max(to-1, from)]; end.line == at.line && end.column >= at.column {
		at.length = end.column - at.column + 1
	}
	c.report(at, c.rule.name, text, remedy)
}

func (c *conditionChecker) wrongAt(n ast.Node, text, remedy string) *typ {
	from, to := c.span(n)
	c.wrong(from, to, text, remedy)
	return &typ{kind: badKind}
}

// span returns the characters [from, to) that a node was read from. The parser keeps only where a node begins, or where
// its operator stands; the rest follows from the places below it and from the brackets around them.
func (c *conditionChecker) span(n ast.Node) (from, to int) {
	s := &spanner{from: -1}
	ast.Walk(&n, s)
	if s.from < 0 {
		return 0, len(c.rule.when)
	}
	first, last := -1, -1
	for i, t := range c.tokens {
		if t.From >= s.from && t.To <= s.to && t.Kind != lexer.EOF {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return s.from, s.to
	}
	if c.tokens[last].Kind == lexer.Identifier && last+1 < len(c.tokens) && c.tokens[last+1].Is(lexer.Bracket, "(") {
		last++
	}
	for {
		depth, lowest := 0, 0
		for _, t := range c.tokens[first : last+1] {
			switch {
			case t.Is(lexer.Bracket, "(", "[", "{"):
				depth++
			case t.Is(lexer.Bracket):
				depth--
				lowest = min(lowest, depth)
			}
		}
		switch {
		case lowest < 0 && first > 0:
			first--
		case depth-lowest > 0 && last+1 < len(c.tokens) && c.tokens[last+1].Kind != lexer.EOF:
			last++
		default:
			return c.tokens[first].From, c.tokens[last].To
		}
	}
}

type spanner struct{ from, to int }

func (s *spanner) Visit(n *ast.Node) {
	if _, ok := (*n).(*ast.ConditionalNode); ok {
		return // its place is behind it
	}
	at := (*n).Location()
	if at.To <= at.From {
		return
	}
	if s.from < 0 || at.From < s.from {
		s.from = at.From
	}
	s.to = max(s.to, at.To)
}

// source is the text of a node, on one line.
func (c *conditionChecker) source(n ast.Node) string {
	from, to := c.span(n)
	return strings.Join(strings.Fields(string(c.rule.when[min(from, len(c.rule.when)):min(to, len(c.rule.when))])), " ")
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

// known checks known(step) and known(step.field).
func (c *conditionChecker) known(n *ast.CallNode) {
	const usage = "write known(step), known(step.field) or known(date)"
	if len(n.Arguments) != 1 {
		c.wrongAt(n, "known() takes one name", usage)
		return
	}
	name, ok := path(n.Arguments[0])
	if !ok {
		c.wrongAt(n.Arguments[0], "known() takes the name of a step", usage)
		return
	}
	step, field, _ := strings.Cut(name, ".")
	info, ok := c.set.scope.steps[step]
	if t, isName := c.set.scope.vars[step]; isName && !ok {
		if field == "" && t.kind == recordKind && step == "client" {
			c.wrongAt(n.Arguments[0], "`client` is known in part, or not at all", "write known(client.ip)")
		} else if field != "" && t.fields[field] == nil {
			c.wrongAt(n.Arguments[0], fmt.Sprintf("there is no `%s`", name), didYouMean(field, t.names()))
		}
		return
	}
	if !ok && c.set.scope.gaps.hides(step) {
		return
	}
	if !ok || info.shape == nil {
		text := fmt.Sprintf("no step `%s` before this one finds facts", step)
		if ok {
			text = fmt.Sprintf("the step `%s` finds no facts", step)
		}
		c.wrongAt(n.Arguments[0], text, didYouMean(step, c.set.scope.factSteps()))
		return
	}
	if c.shadowStep(n.Arguments[0], step) || field == "" {
		return
	}
	if _, ok := info.shape.typ.fields[field]; !ok {
		c.wrongAt(n.Arguments[0], noMember(step, info.shape.typ, field), didYouMean(field, info.shape.typ.names()))
	}
}

// path reads `a`, `"a"`, `a.b` and `"a.b"`.
func path(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value, true
	case *ast.StringNode:
		return n.Value, n.Value != ""
	case *ast.MemberNode:
		id, ok1 := n.Node.(*ast.IdentifierNode)
		p, ok2 := n.Property.(*ast.StringNode)
		if ok1 && ok2 && !n.Method {
			return id.Value + "." + p.Value, true
		}
	}
	return "", false
}

// hit checks hit("rule") and hit("step.rule").
func (c *conditionChecker) hit(n *ast.CallNode) {
	const usage = `write hit("rule") or hit("step.rule")`
	if len(n.Arguments) != 1 {
		c.wrongAt(n, "hit() takes one rule", usage)
		return
	}
	arg := n.Arguments[0]
	name, ok := arg.(*ast.StringNode)
	if !ok {
		c.wrongAt(arg, "hit() takes the name of a rule in quotes", usage)
		return
	}
	step, other, qualified := strings.Cut(name.Value, ".")
	if qualified && step != c.set.scope.step {
		c.hitOther(arg, step, other)
		return
	}
	if qualified {
		name = &ast.StringNode{Value: other}
	}
	x, ok := c.set.named[name.Value]
	switch {
	case !ok && c.set.torn:
	case !ok:
		others := slices.DeleteFunc(c.set.ruleNames(), func(s string) bool { return s == c.rule.name })
		c.wrongAt(arg, fmt.Sprintf("there is no rule `%s`", name.Value), didYouMean(name.Value, others))
	case x == c.rule:
		c.wrongAt(arg, fmt.Sprintf("the rule `%s` asks for itself", x.name), "")
	case x.shadow && !c.rule.shadow && !c.set.scope.shadow:
		c.wrongAt(arg, fmt.Sprintf("`%s` is a shadow rule: it must not change what a live rule does", x.name), x.unshadow())
	}
}

func (c *conditionChecker) hitOther(arg ast.Node, step, name string) {
	info, ok := c.set.scope.steps[step]
	var ruled []string
	for _, x := range c.set.scope.order {
		if len(x.Rules) > 0 {
			ruled = append(ruled, x.Name)
		}
	}
	switch {
	case !ok && c.set.scope.gaps.hides(step):
	case !ok:
		c.wrongAt(arg, fmt.Sprintf("there is no step `%s` before this one", step), didYouMean(step, ruled))
	case info.Failed: // what is wrong with it is said already
	case len(info.Rules) == 0:
		c.wrongAt(arg, fmt.Sprintf("the step `%s` has no rules", step), didYouMean(step, ruled))
	case !slices.Contains(info.Rules, name):
		c.wrongAt(arg, fmt.Sprintf("the step `%s` has no rule `%s`", step, name), didYouMean(name, info.Rules))
	case slices.Contains(info.ShadowRules, name) && !c.rule.shadow && !c.set.scope.shadow:
		c.wrongAt(arg, fmt.Sprintf("`%s.%s` is a shadow rule: it must not change what a live rule does", step, name), fmt.Sprintf("take `shadow` from `%s`, or add it here", name))
	default:
		c.shadowStep(arg, step)
	}
}

// shadowStep reports a rule that counts and reads what a shadow step says.
func (c *conditionChecker) shadowStep(n ast.Node, step string) bool {
	info := c.set.scope.steps[step]
	if info == nil || !info.Shadow || c.rule.shadow || c.set.scope.shadow {
		return false
	}
	c.wrongAt(n, fmt.Sprintf("`%s` is a shadow step: it must not change what a live rule does", step), fmt.Sprintf("take `shadow` from `%s`, or add it here", step))
	return true
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

func didYouMeanOnly(s string, names []string) string {
	if best := lookalike.Nearest(s, names); best != "" {
		return fmt.Sprintf("did you mean `%s`?", best)
	}
	return ""
}

func elemOf(t *typ) *typ {
	if t.elem == nil {
		return &typ{kind: badKind}
	}
	return t.elem
}

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
		switch z, written := n.Right.(*ast.IntegerNode); {
		case written && z.Value == 0 && (n.Operator == "/" || n.Operator == "%"):
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

// predicate checks any(list, condition) and its like. One inside another would multiply their costs.
func (c *conditionChecker) predicate(n *ast.BuiltinNode) {
	if len(n.Arguments) != 2 {
		c.wrongAt(n, fmt.Sprintf("%s() takes a list and a condition", n.Name), fmt.Sprintf(`write for example %s(list, # == "x")`, n.Name))
		return
	}
	if len(c.items) > 0 {
		c.wrongAt(n, fmt.Sprintf("%s() stands inside another one", n.Name), "make two rules of it and use hit()")
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
	c.items, c.fewItems = append(c.items, t.elem), written && len(list.Nodes) <= few
	p := c.expr(n.Arguments[1])
	c.items = c.items[:len(c.items)-1]
	if p.kind != boolKind && p.kind != badKind {
		c.wrongAt(n.Arguments[1], fmt.Sprintf("`%s` is %s, not a condition", c.source(n.Arguments[1]), p), "")
	}
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

// shorten cuts text for messages and evidence.
func shorten(s string, most int) string {
	n, last := 0, 0
	for i := range s {
		if n == most-1 {
			last = i
		}
		if n++; n > most {
			return s[:last] + "…"
		}
	}
	return s
}
