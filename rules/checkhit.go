package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

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
