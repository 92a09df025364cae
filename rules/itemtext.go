package rules

import (
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// An itemText is a text that each item of a list has, in which any() looks for something: the item itself, or a field of it.
type itemText struct {
	header int  // of headers(), in ruleset.headers; -1 for a list of the environment
	list   slot // where that is
	field  int  // of an item; -1 for the item itself
}

// eachItem calls f with each of the texts.
func (s *state) eachItem(n int, f func(text string)) {
	x := &s.set.itemTexts[n]
	if x.header >= 0 {
		for _, text := range s.headerTexts(x.header) {
			f(text)
		}
		return
	}
	list := s.lists[n]
	for i := range list.Len() {
		item := list.Index(i)
		if x.field >= 0 {
			item = item.Field(x.field)
		}
		f(item.String())
	}
}

// itemNeedle is what the items of a list must hold for any(list, condition) to hold. Of a condition that could fail for
// an item nothing is said.
func (b *builder) itemNeedle(n ast.Node) needle {
	none := needle{in: -1}
	call, ok := n.(*ast.BuiltinNode)
	if !ok || call.Name != "any" || len(call.Arguments) != 2 || b.set.slow || b.set.plain {
		return none
	}
	p, ok := call.Arguments[1].(*ast.PredicateNode)
	if !ok {
		return none
	}
	text, ok := b.listOf(call.Arguments[0])
	if !ok {
		return none
	}
	field, group := b.itemGroup(p.Node)
	if !useful(group) {
		return none
	}
	if field != "" {
		if text.field = fieldAt(text.of, field); text.field < 0 {
			return none
		}
	} else if text.of.Kind() != reflect.String {
		return none
	}
	out := needle{in: b.set.haystackOf(fromItems, b.itemTextOf(text.itemText)), reach: reach{most: -1}}
	var ids []int32
	for _, literal := range group {
		ids = append(ids, b.set.haystacks[out.in].add(literal))
	}
	out.groups = [][]int32{ids}
	return out
}

func (b *builder) itemTextOf(x itemText) int {
	i := slices.IndexFunc(b.set.itemTexts, func(y itemText) bool {
		return x.header == y.header && x.field == y.field && slices.Equal(x.list, y.list)
	})
	if i < 0 {
		i = len(b.set.itemTexts)
		b.set.itemTexts = append(b.set.itemTexts, x)
	}
	return i
}

type listText struct {
	itemText
	of reflect.Type
}

// listOf finds a list by the node that names it.
func (b *builder) listOf(n ast.Node) (listText, bool) {
	if call, ok := n.(*ast.CallNode); ok {
		id, ok := call.Callee.(*ast.IdentifierNode)
		if !ok || id.Value != "headers" {
			return listText{}, false
		}
		return listText{itemText{b.headerRef(call.Arguments[0].(*ast.StringNode).Value), nil, -1}, reflect.TypeFor[string]()}, true
	}
	path, t, ok := b.fieldPath(n)
	if !ok || t.Kind() != reflect.Slice {
		return listText{}, false
	}
	return listText{itemText{-1, path, -1}, t.Elem()}, true
}

// fieldAt is the place of a text among the fields of an item.
func fieldAt(t reflect.Type, name string) int {
	if t.Kind() != reflect.Struct {
		return -1
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("expr") == name && f.Type.Kind() == reflect.String {
			return i
		}
	}
	return -1
}

// itemGroup returns literals of which an item has one that a condition holds for, and its field that has it, "" for the item
// itself. nil: nothing is known.
func (b *builder) itemGroup(n ast.Node) (field string, group []string) {
	x, ok := n.(*ast.BinaryNode)
	if !ok {
		return "", nil
	}
	switch x.Operator {
	case "and", "&&", "or", "||":
		lf, l := b.itemGroup(x.Left)
		rf, r := b.itemGroup(x.Right)
		if l == nil || r == nil || lf != rf {
			return "", nil
		}
		if x.Operator == "and" || x.Operator == "&&" {
			return lf, bestOf([][]string{l, r})
		}
		return lf, union(l, r)
	}
	side := x.Left
	if low, ok := side.(*ast.BuiltinNode); ok && low.Name == "lower" && len(low.Arguments) == 1 {
		side = low.Arguments[0]
	}
	switch s := side.(type) {
	case *ast.PointerNode:
	case *ast.MemberNode:
		name, ok := s.Property.(*ast.StringNode)
		if _, isItem := s.Node.(*ast.PointerNode); !isItem || !ok {
			return "", nil
		}
		field = name.Value
	default:
		return "", nil
	}
	f := fast{op: x.Operator}
	switch r := x.Right.(type) {
	case *ast.StringNode:
		f.text = r.Value
	case *ast.ArrayNode:
		for _, e := range r.Nodes {
			s, ok := e.(*ast.StringNode)
			if !ok {
				return "", nil
			}
			f.texts = append(f.texts, s.Value)
		}
	default:
		return "", nil
	}
	groups := neededBy(f).groups
	if len(groups) == 0 {
		return "", nil
	}
	return field, groups[0]
}
