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
	from   fastFrom
	slot   int // of the value: in ruleset.slots, or of a header field
	op     string
	text   string
	texts  []string
	number int
	re     *regexp.Regexp
	use    int // of a list, in ruleset.uses
}

type fastFrom byte

const (
	fromNowhere fastFrom = iota
	fromBool
	fromText
	fromNumber
	fromHeader
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
	if l := b.set.listNamed(x.Right, nil); l != nil {
		return b.fastList(f, l, x.Operator)
	}
	switch f.from {
	case fromText, fromHeader:
		switch r := x.Right.(type) {
		case *ast.StringNode:
			f.text = r.Value
			switch f.op {
			case "==", "!=", "contains", "startsWith", "endsWith":
				return f, true
			case "matches":
				f.re = pattern
				return f, pattern != nil
			}
		case *ast.ArrayNode:
			for _, e := range r.Nodes {
				s, ok := e.(*ast.StringNode)
				if !ok {
					return f, false
				}
				f.texts = append(f.texts, s.Value)
			}
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
	var names []string
	for {
		if id, ok := n.(*ast.IdentifierNode); ok {
			names = append(names, id.Value)
			break
		}
		m, ok := n.(*ast.MemberNode)
		if !ok {
			return fromNowhere, 0
		}
		p, ok := m.Property.(*ast.StringNode)
		if !ok {
			return fromNowhere, 0
		}
		names = append(names, p.Value)
		n = m.Node
	}
	slices.Reverse(names)
	var path slot
	t := b.set.scope.env
	for _, name := range names {
		if t.Kind() != reflect.Struct {
			return fromNowhere, 0
		}
		i := 0
		for ; i < t.NumField(); i++ {
			if t.Field(i).Tag.Get("expr") == name {
				break
			}
		}
		if i == t.NumField() {
			return fromNowhere, 0
		}
		path, t = append(path, i), t.Field(i).Type
	}
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
		return s.ask(f.use) != noEntry
	}
	text := s.textOf(f.from, f.slot)
	switch f.op {
	case "==":
		return text == f.text
	case "!=":
		return text != f.text
	case "contains":
		return strings.Contains(text, f.text)
	case "startsWith":
		return strings.HasPrefix(text, f.text)
	case "endsWith":
		return strings.HasSuffix(text, f.text)
	case "in":
		return slices.Contains(f.texts, text)
	}
	return f.re.MatchString(text)
}

// textOf is the text that a fast term looks at.
func (s *state) textOf(from fastFrom, slot int) string {
	if from == fromHeader {
		return s.headerText(slot)
	}
	return *s.texts[slot]
}
