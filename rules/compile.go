package rules

import (
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"sluice/pipeline"
)

// A ruleset is all rules of a step, checked and compiled. It is immutable once made.
type ruleset struct {
	scope    *scope
	limits   Limits
	rules    []*rule // by their place
	named    map[string]*rule
	groups   []*family // as written
	families map[string]*family

	overrides    []*override
	overridesFor map[string][]*override // by domain and user
	effective    map[string]*effective  // the same, merged; nil: everybody is served alike
	scoreSince   pipeline.Phase         // when the score would be known without them
	usual        thresholds             // of everybody
	// personalLevels: a threshold is another for some.
	personalLevels bool

	tests   []*ruleTest
	sources []*source
	hasty   bool           // tests end with the first that fails
	edit    func([]*rule)  // changes rules that have been read; nil is for none
	torn    bool           // there are rules that could not be read, which has been reported
	zone    *time.Location // of the clock; nil is the one in which it was noted

	refs       []ref
	refIndex   map[string]int
	nameRefs   [][]int        // by scope.known: the refs to it
	headers    map[string]int // lower-cased names that rules ask for
	lists      map[int]bool   // those of which headers() asks for all
	terms      []*term        // of all rules
	slots      []slot         // values that fast terms look at
	namedLists []*list
	listAt     map[string]int // in lists, by name
	uses       []listUse      // of lists, by fast terms
	gates      []gate         // by uses
	useText    []int          // of a use: the first use that is about the same value
	haystacks  []*haystack    // texts in which literals are looked for
	itemTexts  []itemText     // of lists, in which they are
	slow       bool           // every term goes through expr's machine, in written order; for tests
	plain      bool           // no literal is looked for, and terms are evaluated in written order; for tests

	config, showConfig *conf.Config
}

// A ref is one thing that terms read and that can be unknown: "dnsbl.zen", "client.ip", "message".
type ref struct {
	name  string // "dnsbl"
	field string // "zen"; "" for the whole
	step  *stepInfo
}

// A node is a condition taken apart: terms joined by and, or, not.
type node struct {
	op   byte // '&', '|', '!' or 't' for a term
	l, r *node
	term *term
}

// A term is an operand of and, or and not: what has one truth.
type term struct {
	id     int // in ruleset.terms
	rule   *rule
	source string
	key    string // see pipeline.Termer
	score  bool   // it reads the score, which another decision changes
	input  pipeline.Input
	pos    spot

	op      termKind
	prog    *vm.Program
	fast    fast
	refs    []int  // what it reads and can be unknown
	loads   uint32 // what of scope.known it reads, a bit each
	value   bool   // of a constant
	header  int    // that has() asks for
	ref     int    // that known() asks for
	hit     int    // the rule of this step that hit() asks for
	step    string
	hitRule string // … and of another step
	hitAt   int

	show    *vm.Program // the value that a comparison looked at, for evidence
	literal string      // what contains looked for in it
	pattern *regexp.Regexp
	field   string   // of the mail, that the value comes from
	fields  []string // of the item that the value is, which the condition reads
	words   []word   // one of which was looked for in it
	instant bool     // it is a time

	lists   []int // that it asks, in ruleset.lists
	asked   int   // the one that a comparison asks, of which show is the text
	askedIn bool  // … about the text as a whole
	asks    bool

	atom atom
}

type termKind byte

const (
	termProgram termKind = iota
	termFast
	termConst
	termHas
	termKnown
	termHit
	termHitOther
)

func newRuleset(sc *scope) *ruleset {
	// The struct and not a pointer to it: only then expr reads fields by their place and not by name.
	env := reflect.New(sc.env).Elem().Interface()
	s := &ruleset{scope: sc, limits: DefaultLimits(), refIndex: map[string]int{}, headers: map[string]int{}, lists: map[int]bool{},
		listAt: map[string]int{}, nameRefs: make([][]int, len(sc.known))}
	s.config, s.showConfig = conf.New(env), conf.New(env)
	s.config.Functions = functionTable()
	s.showConfig.Functions = s.config.Functions
	s.config.Expect = reflect.Bool
	return s
}

// compile checks and compiles the conditions of all rules; what is wrong is reported.
func (s *ruleset) compile(r *reporter) {
	var built []*builder
	for _, x := range s.rules {
		if x.when == nil {
			continue
		}
		c := &conditionChecker{reporter: r, set: s, rule: x}
		tree := c.parse(s.config)
		if tree == nil {
			continue
		}
		if c.condition(tree.Node); c.failed || s.torn || !s.scope.gaps.none() {
			continue
		}
		b := &builder{conditionChecker: c, tree: tree, need: newNeed()}
		x.cond = b.split(tree.Node)
		built = append(built, b)
	}
	for _, b := range s.inHitOrder(built) {
		b.finish()
	}
	s.settleScore(r)
	s.sealHaystacks()
	for _, b := range built {
		b.rule.quick, b.rule.moved = s.planOf(b.rule.cond)
	}
}

// A builder compiles the terms of one checked condition.
type builder struct {
	*conditionChecker
	tree *parser.Tree
	need need
}

// A need is what a condition reads.
type need struct {
	input   pipeline.Input
	refs    map[int]bool
	headers map[int]bool
	steps   map[string]bool
	hits    map[int]bool
	score   bool
}

func newNeed() need {
	return need{refs: map[int]bool{}, headers: map[int]bool{}, steps: map[string]bool{}, hits: map[int]bool{}}
}

func (b *builder) split(n ast.Node) *node {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			return &node{op: '!', l: b.split(n.Node)}
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return &node{op: '&', l: b.split(n.Left), r: b.split(n.Right)}
		case "or", "||":
			return &node{op: '|', l: b.split(n.Left), r: b.split(n.Right)}
		}
	}
	return &node{op: 't', term: b.term(n)}
}

func (b *builder) term(n ast.Node) *term {
	t := &term{id: len(b.set.terms), rule: b.rule, key: b.source(n)}
	t.source = shorten(t.key, 200)
	t.atom = b.atomOf(n)
	all, score := b.need.input, b.need.score
	b.need.input, b.need.score = 0, false
	defer func() {
		t.input, b.need.input = b.need.input, b.need.input|all
		t.score, b.need.score = b.need.score, b.need.score || score
		if lists := b.set.listKey(t); lists != "" {
			t.key += "\x00" + lists // another list is another question
		}
	}()
	from, to := b.span(n)
	t.pos = b.rule.whenAt[min(from, len(b.rule.whenAt)-1)]
	t.pos.length = to - from
	b.set.terms = append(b.set.terms, t)
	b.rule.terms = append(b.rule.terms, t)
	switch n := n.(type) {
	case *ast.BoolNode:
		t.op, t.value = termConst, n.Value
		return t
	case *ast.CallNode:
		id := n.Callee.(*ast.IdentifierNode)
		switch id.Value {
		case "known":
			t.op = termKnown
			name, _ := path(n.Arguments[0])
			step, field, _ := strings.Cut(name, ".")
			if b.set.scope.steps[step] == nil {
				b.names(t, step, field)
				t.ref, t.refs = t.refs[0], nil // it is never unknown itself
				return t
			}
			t.ref = b.reads(step, field)
			return t
		case "hit":
			b.hitTerm(t, n.Arguments[0].(*ast.StringNode).Value)
			return t
		case "has":
			t.op = termHas
			b.names(t, messageName, "")
			name := n.Arguments[0].(*ast.StringNode).Value
			t.header, t.field = b.headerRef(name), textproto.CanonicalMIMEHeaderKey(name)
			return t
		}
	}
	b.program(t, n)
	return t
}

func (b *builder) hitTerm(t *term, name string) {
	step, other, qualified := strings.Cut(name, ".")
	if qualified && step != b.set.scope.step {
		t.op, t.step, t.hitRule = termHitOther, step, other
		t.hitAt = slices.Index(b.set.scope.steps[step].Rules, other)
		b.need.steps[step] = true
		return
	}
	if qualified {
		name = other
	}
	t.op = termHit
	t.hit = b.set.named[name].at
	b.need.hits[t.hit] = true
}

// reads notes that the condition reads something, and returns its place among the refs.
func (b *builder) reads(name, field string) int {
	key := name
	if field != "" {
		key += "." + field
	}
	i, ok := b.set.refIndex[key]
	if !ok {
		i = len(b.set.refs)
		b.set.refs = append(b.set.refs, ref{name: name, field: field, step: b.set.scope.steps[name]})
		b.set.refIndex[key] = i
		if at, ok := b.set.scope.named[name]; ok {
			b.set.nameRefs[at] = append(b.set.nameRefs[at], i)
		}
	}
	b.need.refs[i] = true
	if b.set.refs[i].step != nil {
		b.need.steps[name] = true
	}
	return i
}

func (b *builder) headerRef(name string) int {
	name = strings.ToLower(name)
	i, ok := b.set.headers[name]
	if !ok {
		i = len(b.set.headers)
		b.set.headers[name] = i
	}
	b.need.headers[i] = true
	return i
}

// program compiles a term for the virtual machine.
func (b *builder) program(t *term, n ast.Node) {
	rewrite(&n)
	ast.Walk(&n, &collector{b, t})
	slices.Sort(t.refs)
	t.refs = slices.Compact(t.refs)
	written := n
	ast.Walk(&n, &listAsker{builder: b, term: t})
	tree := &parser.Tree{Node: n, Source: b.tree.Source}
	if _, err := checker.Check(tree, b.set.config); err != nil {
		b.internal(n, err)
		return
	}
	b.evidence(t, written)
	if f, ok := b.fastTerm(written, t.pattern); ok {
		t.op, t.fast = termFast, f
		t.fast.term = t.id
		if f.lowers != 0 && f.op != "list" {
			// The text as it is shows mostly that the one in lower case is not needed.
			t.loads, t.refs = 0, nil
			b.names(t, lowerNames()[written.(*ast.BinaryNode).Left.(*ast.IdentifierNode).Value], "")
		}
		return
	}
	t.fast.needle = b.itemNeedle(written)
	if err := optimizer.Optimize(&tree.Node, b.set.config); err != nil {
		b.internal(n, err)
		return
	}
	prog, err := compiler.Compile(tree, b.set.config)
	if err != nil {
		b.internal(n, err)
		return
	}
	t.prog = prog
}

// internal reports what expr does not take although the checker did. It is a mistake of ours; the rule is refused.
func (b *builder) internal(n ast.Node, err error) {
	text := firstLine(err.Error())
	var e *file.Error
	if errors.As(err, &e) {
		text = e.Message
	}
	b.wrongAt(n, "this cannot be compiled: "+text, "write it another way")
}

// evidence compiles the value that a comparison looks at, so that a rule that held can say what it saw.
func (b *builder) evidence(t *term, n ast.Node) {
	switch n := n.(type) {
	case *ast.BuiltinNode:
		b.showItem(t, n)
	case *ast.CallNode:
		b.showArgument(t, n)
	}
	x, ok := n.(*ast.BinaryNode)
	if !ok {
		return
	}
	side := x.Left
	if constant(side) {
		side = x.Right
	}
	if constant(side) {
		return
	}
	list := b.set.listNamed(x.Right, nil)
	switch {
	case list != nil:
		t.asks, t.asked, t.askedIn = true, b.set.listAt[list.name], x.Operator == "in"
	case x.Operator == "matches":
		t.pattern = regexp.MustCompile(x.Right.(*ast.StringNode).Value)
	case x.Operator == "contains":
		if s, ok := x.Right.(*ast.StringNode); ok {
			t.literal = s.Value
		}
	case slices.Contains([]string{"==", "!=", "<", ">", "<=", ">=", "startsWith", "endsWith", "in"}, x.Operator):
	default:
		return
	}
	prog, err := compiler.Compile(&parser.Tree{Node: side, Source: b.tree.Source}, b.set.showConfig)
	if err == nil {
		t.show, t.field, t.instant = prog, fieldOf(side), isInstant(side)
	}
}

func constant(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return true
	case *ast.UnaryNode:
		return constant(n.Node)
	case *ast.ArrayNode:
		return !slices.ContainsFunc(n.Nodes, func(x ast.Node) bool { return !constant(x) })
	case *ast.BinaryNode:
		return constant(n.Left) && constant(n.Right)
	}
	return false
}

// A collector notes what a term reads.
type collector struct {
	*builder
	term *term
}

func (c *collector) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.MemberNode:
		id, ok := x.Node.(*ast.IdentifierNode)
		if !ok {
			return
		}
		if t, ok := c.set.scope.vars[id.Value]; ok && t.kind == recordKind {
			c.names(c.term, id.Value, x.Property.(*ast.StringNode).Value)
		}
	case *ast.IdentifierNode:
		if t, ok := c.set.scope.vars[x.Value]; !ok || t.kind != recordKind {
			c.names(c.term, x.Value, "")
		}
	case *ast.CallNode:
		id, ok := x.Callee.(*ast.IdentifierNode)
		if !ok || !slices.Contains(headerFunctions(), id.Value) {
			return
		}
		c.names(c.term, messageName, "")
		s := x.Arguments[0].(*ast.StringNode)
		at := c.headerRef(s.Value)
		if id.Value == "headers" {
			c.set.lists[at] = true
		}
		s.Value = strings.ToLower(s.Value)
	}
}

// names notes that a term reads something of the transaction or a fact.
func (b *builder) names(t *term, name, field string) {
	at, ok := b.set.scope.named[name]
	if !ok {
		if b.set.scope.steps[name] != nil {
			t.refs = append(t.refs, b.reads(name, field))
		}
		return
	}
	b.need.input |= b.set.scope.known[at].input
	b.need.score = b.need.score || name == "score"
	t.loads |= 1 << at
	t.refs = append(t.refs, b.reads(name, field))
}

// finish works out what the whole condition needs, the rules whose hits it uses included. What those need is known: see
// [ruleset.inHitOrder].
func (b *builder) finish() {
	x := b.rule
	x.usual = b.need.input
	if x.only != nil {
		x.usual |= pipeline.InputRecipient
	}
	x.input = b.need.input
	if x.choosy {
		x.input |= pipeline.InputRecipient
	}
	x.waits = b.need.score
	for i := range b.need.hits {
		d := b.set.rules[i]
		x.input |= d.input
		x.usual |= d.usual
		x.waits = x.waits || d.waits
		for _, k := range d.refs {
			b.need.refs[k] = true
		}
		for _, k := range d.headers {
			b.need.headers[k] = true
		}
		for _, k := range d.steps {
			b.need.steps[k] = true
		}
	}
	x.refs = slices.Sorted(maps.Keys(b.need.refs))
	x.headers = slices.Sorted(maps.Keys(b.need.headers))
	x.steps = slices.Sorted(maps.Keys(b.need.steps))
	x.phase, x.perRcpt = x.usual.Phase(), x.usual&pipeline.InputRecipient != 0
	for _, k := range x.steps {
		info := b.set.scope.steps[k]
		x.phase = max(x.phase, info.Phase)
		x.perRcpt = x.perRcpt || info.PerRcpt
	}
	if x.perRcpt {
		x.phase = max(x.phase, pipeline.Rcpt)
	}
	x.since = x.phase
	if x.personal || x.input&pipeline.InputRecipient != 0 {
		x.phase, x.perRcpt = max(x.phase, pipeline.Rcpt), true
	}
}

// uniqueNames reports rules of one name.
func (s *ruleset) uniqueNames(r *reporter) {
	s.named = map[string]*rule{}
	for i, x := range s.rules {
		x.at = i
		if x.name == "" {
			continue
		}
		if f, ok := s.named[x.name]; ok {
			r.report(x.pos, x.name, fmt.Sprintf("there is a rule `%s` already, at %s", x.name, f.pos), "give one another name")
			continue
		}
		s.named[x.name] = x
	}
}
