package rules

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A fast is a term that needs no virtual machine: one value compared with constants, which most terms are.
type fast struct {
	term   int // its id
	from   fastFrom
	slot   int // of the value: in ruleset.slots, or of a header field
	op     string
	text   string
	texts  []string
	number int
	re     *regexp.Regexp
	use    int // of a list, in ruleset.uses
	needle needle
	// lower: the value is lower(…) of another, which is worked out where it may matter.
	lower    bool
	lowers   uint32 // what of scope.known to bring for it
	baseFrom fastFrom
	baseSlot int
}

type fastFrom byte

const (
	fromNowhere fastFrom = iota
	fromBool
	fromText
	fromNumber
	fromHeader
	fromLowerHeader
	fromItems // texts of the items of a list: ruleset.itemTexts
)

// A slot is a value of the environment: the places of its fields from the outside in.
type slot []int

// fastTerm returns a term as a comparison of one value, ok is false where it is more; pattern is what
// matches compares with, compiled.
func (b *builder) fastTerm(n ast.Node, pattern *regexp.Regexp) (f fast, ok bool) {
	if b.set.slow {
		return f, false
	}
	x, isBinary := n.(*ast.BinaryNode)
	if !isBinary {
		f.from, f.slot = b.fastValue(n)
		return f, f.from == fromBool
	}
	f.op = x.Operator
	f.from, f.slot = b.fastValue(x.Left)
	b.fastLower(&f, x.Left)
	if l := b.set.listNamed(x.Right, nil); l != nil {
		return b.fastList(f, l, x.Operator)
	}
	switch f.from {
	case fromText, fromHeader, fromLowerHeader:
		switch r := x.Right.(type) {
		case *ast.StringNode:
			f.text = r.Value
			switch f.op {
			case "!=":
				return f, true
			case "==", "startsWith", "endsWith", "contains":
				f.needle = b.set.needleFor(f)
				return f, true
			case "matches":
				if f.re = pattern; pattern == nil {
					return f, false
				}
				f.needle = b.set.needleFor(f)
				return f, true
			}
		case *ast.ArrayNode:
			for _, e := range r.Nodes {
				s, ok := e.(*ast.StringNode)
				if !ok {
					return f, false
				}
				f.texts = append(f.texts, s.Value)
			}
			f.needle = b.set.needleFor(f)
			return f, f.op == "in"
		}
	case fromNumber:
		if r, ok := x.Right.(*ast.IntegerNode); ok {
			f.number = r.Value
			switch f.op {
			case "==", "!=", "<", "<=", ">", ">=":
				return f, true
			}
		}
	}
	return f, false
}

// fastValue finds a field of the environment, or the text of a header field.
func (b *builder) fastValue(n ast.Node) (fastFrom, int) {
	if call, ok := n.(*ast.CallNode); ok {
		if id, ok := call.Callee.(*ast.IdentifierNode); ok && id.Value == "header" {
			return fromHeader, b.headerRef(call.Arguments[0].(*ast.StringNode).Value)
		}
		return fromNowhere, 0
	}
	path, t, ok := b.fieldPath(n)
	if !ok {
		return fromNowhere, 0
	}
	return b.fastSlot(path, t)
}

// fastLower finds lower(…) of a text of the mail, which is a name of its own where it is kept for all: see rewrite.
func (b *builder) fastLower(f *fast, n ast.Node) {
	switch x := n.(type) {
	case *ast.BuiltinNode:
		if x.Name != "lower" || len(x.Arguments) != 1 {
			return
		}
		if from, slot := b.fastValue(x.Arguments[0]); from == fromHeader {
			f.from, f.slot, f.lower = fromLowerHeader, slot, true
			f.baseFrom, f.baseSlot = from, slot
		}
	case *ast.IdentifierNode:
		base, ok := lowerNames()[x.Value]
		if !ok {
			return
		}
		f.baseFrom, f.baseSlot = b.fastValue(&ast.IdentifierNode{Value: base})
		f.lower, f.lowers = true, 1<<b.set.scope.named[x.Value]
	}
}

// fieldPath finds a field of the environment, and its type.
func (b *builder) fieldPath(n ast.Node) (path slot, t reflect.Type, ok bool) {
	var names []string
	for {
		if id, ok := n.(*ast.IdentifierNode); ok {
			names = append(names, id.Value)
			break
		}
		m, ok := n.(*ast.MemberNode)
		if !ok {
			return nil, nil, false
		}
		p, ok := m.Property.(*ast.StringNode)
		if !ok {
			return nil, nil, false
		}
		names = append(names, p.Value)
		n = m.Node
	}
	slices.Reverse(names)
	t = b.set.scope.env
	for _, name := range names {
		if t.Kind() != reflect.Struct {
			return nil, nil, false
		}
		i := 0
		for ; i < t.NumField(); i++ {
			if t.Field(i).Tag.Get("expr") == name {
				break
			}
		}
		if i == t.NumField() {
			return nil, nil, false
		}
		path, t = append(path, i), t.Field(i).Type
	}
	return path, t, true
}

// fastSlot is a field of the environment as fast terms have it.
func (b *builder) fastSlot(path slot, t reflect.Type) (fastFrom, int) {
	from := fromNowhere
	switch t.Kind() {
	case reflect.Bool:
		from = fromBool
	case reflect.String:
		from = fromText
	case reflect.Int:
		from = fromNumber
	default:
		return from, 0
	}
	for i, s := range b.set.slots {
		if slices.Equal(s, path) {
			return from, i
		}
	}
	b.set.slots = append(b.set.slots, path)
	return from, len(b.set.slots) - 1
}

// pointers are where the values of the slots lie in one state: *bool, *string or *int.
func (s *state) pointers() {
	for i, path := range s.set.slots {
		switch p := s.value.FieldByIndex(path).Addr().Interface().(type) {
		case *bool:
			s.bools[i] = p
		case *string:
			s.texts[i] = p
		case *int:
			s.numbers[i] = p
		}
	}
}

func (s *state) evalFast(f *fast) bool {
	switch f.from {
	case fromBool:
		return *s.bools[f.slot]
	case fromNumber:
		n := *s.numbers[f.slot]
		switch f.op {
		case "==":
			return n == f.number
		case "!=":
			return n != f.number
		case "<":
			return n < f.number
		case "<=":
			return n <= f.number
		case ">":
			return n > f.number
		}
		return n >= f.number
	}
	if f.op == "list" {
		s.bring(f.lowers)
		return s.ask(f.use) != noEntry
	}
	if f.op == "contains" || f.op == "matches" {
		if !s.mayHold(&f.needle) {
			return false
		}
	}
	if f.op == "contains" && f.lower && s.lowerHas(&f.needle) {
		return true
	}
	if f.lowers != 0 {
		s.bring(f.lowers)
	}
	text := s.textOf(f.from, f.slot)
	switch f.op {
	case "==":
		return text == f.text
	case "!=":
		return text != f.text
	case "contains":
		return s.foundAt(f, s.index(&f.needle, text, f.text))
	case "startsWith":
		return strings.HasPrefix(text, f.text)
	case "endsWith":
		return strings.HasSuffix(text, f.text)
	case "in":
		return slices.Contains(f.texts, text)
	}
	return s.foundAt(f, s.matches(f.re, &f.needle, text))
}

// somewhere is where a text has what a term looks for, while nobody has asked for the place.
const somewhere = -2

// foundAt notes where a term has found what it looks for, for those who ask later, and reports whether it has.
func (s *state) foundAt(f *fast, at int) bool {
	if at >= 0 {
		s.found[f.term] = int32(at) + 1
	}
	return at != -1
}

// textOf is the text that a fast term looks at.
func (s *state) textOf(from fastFrom, slot int) string {
	switch from {
	case fromHeader:
		return s.headerText(slot)
	case fromLowerHeader:
		return s.headerLower(slot)
	}
	return *s.texts[slot]
}
