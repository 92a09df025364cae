package rules

import (
	"github.com/expr-lang/expr/ast"
)

// rewrite puts in the place of what is written what is quicker: constants that are read once, and texts in lower case that
// are worked out once a mail. A division becomes one that fails where it divides by zero.
func rewrite(n *ast.Node) { ast.Walk(n, rewriter{}) }

type rewriter struct{}

// Visit implements ast.Visitor.
func (rewriter) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.BinaryNode:
		if x.Operator == "/" && !isNumber(x.Right) {
			call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: divided}, Arguments: []ast.Node{x.Left, x.Right}}
			call.SetLocation(x.Location())
			*n = call
		}
	case *ast.BuiltinNode:
		if x.Name == "lower" && len(x.Arguments) == 1 {
			if low := lowered(x.Arguments[0]); low != nil {
				*n = low
			}
		}
	case *ast.CallNode:
		id, ok := x.Callee.(*ast.IdentifierNode)
		if !ok {
			return
		}
		f, ok := functionNamed(id.Value)
		if !ok {
			return
		}
		prepared(x, f)
		if f.folds {
			if low := lowered(x.Arguments[0]); low != nil {
				x.Arguments[0] = low
			}
		}
	}
}

// isNumber reports whether a number is written out. The checker has seen that none by which something is divided is 0.
func isNumber(n ast.Node) bool {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return true
	}
	return false
}

// lowered is the name of what a name has in lower case, nil where that is not kept.
func lowered(n ast.Node) ast.Node {
	id, ok := n.(*ast.IdentifierNode)
	if !ok {
		return nil
	}
	name := ""
	for low, base := range lowerNames() {
		if base == id.Value {
			name = low
		}
	}
	if name == "" {
		return nil
	}
	low := &ast.IdentifierNode{Value: name}
	low.SetLocation(id.Location())
	return low
}

// lowerNames are the names of texts in lower case, and of those texts.
func lowerNames() map[string]string {
	return map[string]string{lowerSubject: "subject", lowerText: "text", lowerHTML: "html"}
}
