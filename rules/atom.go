package rules

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// An atom is what is known of a term without any mail: which value it looks at and what it asks of it. The same key with
// the same question has the same truth, for every mail.
type atom struct {
	kind atomKind
	key  string // the value it looks at; of atomOther the whole question
	not  bool   // the term is the atom turned round
	op   string
	// What the value is compared with, by kind; several for `in`.
	texts  []string
	whole  []int64
	parts  []float64
	value  *typ
	holds  bool   // of atomConst
	header string // the field that header() reads
}

type atomKind byte

const (
	atomOther atomKind = iota // true or false, and nothing more is known
	atomConst
	atomNever // neither true nor false: it fails
	atomText
	atomWhole
	atomFloat
)

// exact bounds the numbers that comparisons of whole numbers with fractions are understood for: beyond, floats have gaps.
const exact = 1 << 50

// atomOf says what a checked term asks, before it is compiled.
func (b *builder) atomOf(n ast.Node) atom {
	other := atom{kind: atomOther, key: canon(n)}
	x, ok := n.(*ast.BinaryNode)
	if !ok {
		if u, unary := n.(*ast.BoolNode); unary {
			return atom{kind: atomConst, holds: u.Value}
		}
		return other
	}
	left, right, op := x.Left, x.Right, x.Operator
	if flipped, can := flips()[op]; can && isConstant(left) && !isConstant(right) {
		left, right, op = right, left, flipped
	}
	t := b.expr(left)
	if !isConstant(right) {
		return b.between(other, left, right, op, t)
	}
	a := atom{key: canon(left), op: op, value: bounded(left, t)}
	if call, isCall := left.(*ast.CallNode); isCall && len(call.Arguments) == 1 {
		if id, ok := call.Callee.(*ast.IdentifierNode); ok && id.Value == "header" {
			a.header = strings.ToLower(call.Arguments[0].(*ast.StringNode).Value)
		}
	}
	if op == "!=" {
		a.op, a.not = "==", true
	}
	switch {
	case t.kind == boolKind:
		if v, ok := right.(*ast.BoolNode); ok && a.op == "==" {
			return atom{kind: atomOther, key: a.key, not: a.not != !v.Value}
		}
	case t.kind == textKind && b.textual(&a, right):
		a.kind = atomText
		return a
	case t.kind == intKind && numeric(&a, right):
		a.kind = atomWhole
		return a
	case t.kind == floatKind && fractional(&a, right):
		a.kind = atomFloat
		return a
	}
	return other
}

func flips() map[string]string {
	return map[string]string{"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
}

// between is an atom that compares two values with each other.
func (b *builder) between(other atom, left, right ast.Node, op string, t *typ) atom {
	l, r := canon(left), canon(right)
	ordered := t.kind == textKind || t.kind == intKind && b.expr(right).kind == intKind
	if l == r && ordered {
		switch op {
		case "==", "<=", ">=":
			return atom{kind: atomConst, holds: true}
		case "!=", "<", ">":
			return atom{kind: atomConst}
		}
	}
	switch op {
	case "==", "!=":
		if r < l {
			l, r = r, l
		}
		return atom{kind: atomOther, key: l + " == " + r, not: op == "!="}
	case "<", ">=":
		if ordered {
			return atom{kind: atomOther, key: l + " < " + r, not: op == ">="}
		}
	case ">", "<=":
		if ordered {
			return atom{kind: atomOther, key: r + " < " + l, not: op == "<="}
		}
	}
	return other
}

// textual reads what a text is compared with.
func (b *builder) textual(a *atom, right ast.Node) bool {
	switch r := right.(type) {
	case *ast.StringNode:
		a.texts = []string{r.Value}
		switch a.op {
		case "==", "<", "<=", ">", ">=", "contains", "startsWith", "endsWith":
			return true
		case "matches":
			_, err := regexp.Compile(r.Value)
			return err == nil
		}
	case *ast.ArrayNode:
		for _, e := range r.Nodes {
			s, ok := e.(*ast.StringNode)
			if !ok {
				return false
			}
			a.texts = append(a.texts, s.Value)
		}
		return a.op == "in"
	}
	return false
}

// numeric reads what a whole number is compared with.
func numeric(a *atom, right ast.Node) bool {
	var list []ast.Node
	switch r := right.(type) {
	case *ast.ArrayNode:
		list = r.Nodes
	case *ast.BinaryNode: // a range
		from, ok1 := r.Left.(*ast.IntegerNode)
		to, ok2 := r.Right.(*ast.IntegerNode)
		if r.Operator != ".." || !ok1 || !ok2 || a.op != "in" {
			return false
		}
		for i := from.Value; i <= to.Value && i-from.Value < maxRange; i++ {
			a.whole = append(a.whole, int64(i))
		}
		return true
	default:
		list = []ast.Node{right}
		if v, ok := number(right); ok && a.op != "in" && math.Abs(v) <= exact && v != math.Trunc(v) {
			// Between two whole numbers.
			switch a.op {
			case "<", "<=":
				a.op, a.whole = "<=", []int64{int64(math.Floor(v))}
			case ">", ">=":
				a.op, a.whole = ">=", []int64{int64(math.Ceil(v))}
			default:
				a.op, a.whole = "in", nil
			}
			return true
		}
	}
	if _, isList := right.(*ast.ArrayNode); isList != (a.op == "in") {
		return false
	}
	for _, e := range list {
		n := integer(e)
		if n == nil {
			return false
		}
		a.whole = append(a.whole, *n)
	}
	return slices.Contains([]string{"==", "<", "<=", ">", ">=", "in"}, a.op)
}

func integer(n ast.Node) *int64 {
	switch n := n.(type) {
	case *ast.IntegerNode:
		v := int64(n.Value)
		return &v
	case *ast.UnaryNode:
		if v := integer(n.Node); v != nil && n.Operator == "-" && *v != math.MinInt64 {
			*v = -*v
			return v
		}
	case *ast.FloatNode:
		if n.Value == math.Trunc(n.Value) && math.Abs(n.Value) <= exact {
			v := int64(n.Value)
			return &v
		}
	}
	return nil
}

func number(n ast.Node) (float64, bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return float64(n.Value), n.Value <= exact && n.Value >= -exact
	case *ast.FloatNode:
		return n.Value, true
	case *ast.UnaryNode:
		v, ok := number(n.Node)
		return -v, ok && n.Operator == "-"
	}
	return 0, false
}

// fractional reads what a number with a fraction is compared with.
func fractional(a *atom, right ast.Node) bool {
	v, ok := number(right)
	a.parts = []float64{v}
	return ok && slices.Contains([]string{"==", "<", "<=", ">", ">="}, a.op)
}

// isConstant reports whether a node is written out: it reads nothing.
func isConstant(n ast.Node) bool {
	if x, ok := n.(*ast.BinaryNode); ok && x.Operator != ".." {
		return false
	}
	return constant(n)
}

// canon is the text of a node, the same for whatever means the same to the parser and for header fields of any case.
func canon(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok && len(n.Arguments) == 1 && slices.Contains(headerFunctions(), id.Value) {
			if s, ok := n.Arguments[0].(*ast.StringNode); ok {
				return id.Value + "(" + strconv.Quote(strings.ToLower(s.Value)) + ")"
			}
		}
	case *ast.MemberNode:
		if p, ok := path(n); ok {
			return p
		}
	}
	return n.String()
}

// bounded is the type of a value with what is known of its bounds.
func bounded(n ast.Node, t *typ) *typ {
	if id, ok := n.(*ast.IdentifierNode); ok && id.Value == "size" {
		return &typ{kind: intKind, least: new(int64)}
	}
	switch x := n.(type) {
	case *ast.BuiltinNode:
		if t.kind == intKind && (x.Name == "len" || x.Name == "count") {
			return &typ{kind: intKind, least: new(int64)}
		}
	case *ast.CallNode:
		if id, ok := x.Callee.(*ast.IdentifierNode); ok && (id.Value == "indexOf" || id.Value == "lastIndexOf") {
			least := int64(-1)
			return &typ{kind: intKind, least: &least}
		}
	}
	return t
}

// bound notes what the tags of a field say of its values: `range:"0..23"`, `oneof:"pass fail"`, `form:"ip"`. Facts may have them, too.
func (t *typ) bound(tag reflect.StructTag) *typ {
	if from, to, ok := strings.Cut(tag.Get("range"), ".."); ok {
		if v, err := strconv.ParseInt(from, 10, 64); err == nil {
			t.least = &v
		}
		if v, err := strconv.ParseInt(to, 10, 64); err == nil {
			t.most = &v
		}
	}
	if list := tag.Get("oneof"); list != "" {
		t.values = strings.Fields(list)
	}
	t.ip = tag.Get("form") == "ip"
	return t
}

// settle finds out what atoms come to that read nothing at all.
func (s *ruleset) settle(t *term) {
	if t.op != termProgram || len(t.refs) > 0 || t.loads != 0 || len(t.lists) > 0 || t.atom.kind == atomConst {
		return
	}
	machine := vm.VM{MemoryBudget: uint(s.limits.MaxMemory)}
	out, err := machine.Run(t.prog, reflect.New(s.scope.env).Interface())
	holds, ok := out.(bool)
	if err != nil || !ok {
		t.atom = atom{kind: atomNever}
		return
	}
	t.atom = atom{kind: atomConst, holds: holds}
}

// can reports whether a value that is not unknown can be this text.
func (t *typ) can(s string) bool {
	switch {
	case t == nil:
		return true
	case t.lower && strings.ToLower(s) != s:
		return false
	case t.values != nil && s != "" && !slices.Contains(t.values, s):
		return false
	case t.ip:
		a, err := netip.ParseAddr(s)
		return err == nil && a.Unmap().String() == s
	}
	return true
}

// why says what is known of the values, for people; "" for nothing.
func (t *typ) why(name string) string {
	switch {
	case t == nil:
	case t.values != nil:
		return fmt.Sprintf("`%s` is one of %s", name, strings.Join(t.values, ", "))
	case t.ip:
		return fmt.Sprintf("`%s` is one address, written as in 192.0.2.1 or 2001:db8::1", name)
	case t.least != nil && t.most != nil:
		return fmt.Sprintf("`%s` is from %d to %d", name, *t.least, *t.most)
	case t.least != nil:
		return fmt.Sprintf("`%s` is never below %d", name, *t.least)
	case t.lower:
		return fmt.Sprintf("`%s` is always in lower case", name)
	}
	return ""
}
