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
	// What a longer path goes through is not shown by itself, nor fields of items of a list that the item has.
	passed := map[ast.Node]bool{}
	ast.Walk(&n.Arguments[1], visit(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.MemberNode:
			passed[n.Node] = true
		case *ast.BuiltinNode:
			if len(n.Arguments) == 2 {
				ast.Walk(&n.Arguments[1], visit(func(n ast.Node) { passed[n] = true }))
			}
		}
	}))
	ast.Walk(&n.Arguments[1], visit(func(n ast.Node) {
		if passed[n] {
			return
		}
		if path := pathInItem(n); path != "" && !slices.Contains(t.fields, path) {
			t.fields = append(t.fields, path)
		}
	}))
}

// pathInItem is where a field of the item of a list is: "archive.members"; "" for another node.
func pathInItem(n ast.Node) string {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return ""
	}
	s, ok := m.Property.(*ast.StringNode)
	if !ok {
		return ""
	}
	if _, ok := m.Node.(*ast.PointerNode); ok {
		return s.Value
	}
	if before := pathInItem(m.Node); before != "" {
		return before + "." + s.Value
	}
	return ""
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
	called, name := nameOf(v)
	var more []string
	for i := range v.NumField() {
		first := v.Type().Field(i).Tag.Get("expr")
		for _, path := range t.fields {
			top, rest, _ := strings.Cut(path, ".")
			if top != first || path == called {
				continue
			}
			if field := fieldAlong(v.Field(i), rest); field.IsValid() {
				more = append(more, fmt.Sprintf("%s %s", path, fieldText(field)))
			}
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

// nameOf is the first text that an item has, and how that field is called.
func nameOf(v reflect.Value) (called, name string) {
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.String {
			return v.Type().Field(i).Tag.Get("expr"), v.Field(i).String()
		}
	}
	return "", ""
}

// fieldAlong follows a path of fields: "members" of an archive.
func fieldAlong(v reflect.Value, path string) reflect.Value {
	for path != "" && v.IsValid() {
		var name string
		name, path, _ = strings.Cut(path, ".")
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		v = v.FieldByNameFunc(func(goName string) bool {
			f, _ := v.Type().FieldByName(goName)
			return f.Tag.Get("expr") == name
		})
	}
	return v
}

// fieldText writes a field; of a list of items their names.
func fieldText(v reflect.Value) string {
	if v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.Struct {
		return fmt.Sprint(v.Interface())
	}
	var names []string
	for i := range v.Len() {
		_, name := nameOf(v.Index(i))
		names = append(names, name)
	}
	return shorten(strings.Join(names, ", "), maxShown/2)
}
