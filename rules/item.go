package rules

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/parser"
)

// showItem compiles what any() and one() found: the first item that their condition holds for.
func (b *builder) showItem(t *term, n *ast.BuiltinNode) {
	if n.Name != "any" && n.Name != "one" {
		return
	}
	find := &ast.BuiltinNode{Name: "find", Arguments: n.Arguments}
	find.SetLocation(n.Location())
	prog, err := compiler.Compile(&parser.Tree{Node: find, Source: b.tree.Source}, b.set.showConfig)
	if err != nil {
		return
	}
	t.show, t.field = prog, fieldOf(n.Arguments[0])
	ast.Walk(&n.Arguments[1], visit(func(n ast.Node) {
		m, ok := n.(*ast.MemberNode)
		if !ok {
			return
		}
		if _, ok := m.Node.(*ast.PointerNode); !ok {
			return
		}
		if s, ok := m.Property.(*ast.StringNode); ok && !slices.Contains(t.fields, s.Value) {
			t.fields = append(t.fields, s.Value)
		}
	}))
}

// showArgument compiles what a function was asked about.
func (b *builder) showArgument(t *term, n *ast.CallNode) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || len(n.Arguments) == 0 || constant(n.Arguments[0]) {
		return
	}
	if _, ok := functionNamed(id.Value); !ok {
		return
	}
	prog, err := compiler.Compile(&parser.Tree{Node: n.Arguments[0], Source: b.tree.Source}, b.set.showConfig)
	if err != nil {
		return
	}
	t.show, t.field = prog, fieldOf(n.Arguments[0])
	if c, ok := n.Arguments[len(n.Arguments)-1].(*ast.ConstantNode); ok {
		t.words, _ = c.Value.([]word)
	}
}

// isInstant reports whether a node is the seconds of a time, or of one so much later or earlier.
func isInstant(n ast.Node) bool {
	if x, ok := n.(*ast.BinaryNode); ok {
		return x.Operator == "+" && isInstant(x.Left) != isInstant(x.Right) || x.Operator == "-" && isInstant(x.Left) && !isInstant(x.Right)
	}
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return false
	}
	p, ok := m.Property.(*ast.StringNode)
	id, isName := m.Node.(*ast.IdentifierNode)
	return ok && isName && p.Value == "unix" && (id.Value == "date" || id.Value == "received")
}

// valueText writes a value that a term has looked at, for people.
func (t *term) valueText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case []string:
		return strings.Join(x, ", ")
	case float64:
		if !t.instant {
			return fmt.Sprintf("%.4g", x)
		}
		return time.Unix(int64(x), 0).UTC().Format(time.RFC3339)
	case int:
		if t.instant {
			return time.Unix(int64(x), 0).UTC().Format(time.RFC3339)
		}
	}
	if r := reflect.ValueOf(v); r.IsValid() && r.Kind() == reflect.Struct {
		return t.itemText(r)
	}
	return fmt.Sprint(v)
}

// itemText is what an item of a list is called, and those of its fields that the condition reads: "invoice.exe (size 7000)".
func (t *term) itemText(v reflect.Value) string {
	name, called := "", ""
	var more []string
	for i := range v.NumField() {
		field := v.Type().Field(i).Tag.Get("expr")
		if called == "" && v.Field(i).Kind() == reflect.String {
			called, name = field, v.Field(i).String()
			continue
		}
		if slices.Contains(t.fields, field) {
			more = append(more, fmt.Sprintf("%s %v", field, v.Field(i).Interface()))
		}
	}
	if name == "" {
		return strings.Join(more, ", ")
	}
	if len(more) == 0 {
		return name
	}
	return fmt.Sprintf("%s (%s)", shorten(name, maxShown/2), strings.Join(more, ", "))
}
