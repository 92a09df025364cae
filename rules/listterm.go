package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"sluice/pipeline"
)

// listNamed returns the list that a node names, nil if it is none.
func (s *ruleset) listNamed(n ast.Node, locals []local) *list {
	id, ok := n.(*ast.IdentifierNode)
	if !ok || slices.ContainsFunc(locals, func(l local) bool { return l.name == id.Value }) {
		return nil
	}
	if i, ok := s.listAt[id.Value]; ok {
		return s.namedLists[i]
	}
	return nil
}

// mayBeList reports whether a node is a name that only what could not be read can tell of, and a list may have.
func (c *conditionChecker) mayBeList(n ast.Node) bool {
	id, ok := n.(*ast.IdentifierNode)
	if !ok || !c.set.torn || isWord(id.Value) || slices.ContainsFunc(c.locals, func(l local) bool { return l.name == id.Value }) {
		return false
	}
	return c.set.scope.vars[id.Value] == nil && c.set.scope.steps[id.Value] == nil && memberName.MatchString(id.Value)
}

// A meaning is what the text of a name stands for, where that is known.
type meaning string

const (
	ipMeaning      meaning = "an IP address"
	addressMeaning meaning = "a mail address"
	domainMeaning  meaning = "a domain"
	proseMeaning   meaning = "text that people read"
	partMeaning    meaning = "a part of a mail address"
)

// meaningOf returns what the text of a name stands for, "" where nobody knows.
func meaningOf(name string) meaning {
	switch name {
	case "client.ip":
		return ipMeaning
	case "client.name", "spf.domain":
		return domainMeaning
	case "subject", "text", "html":
		return proseMeaning
	}
	first, field, _ := strings.Cut(name, ".")
	if slices.Contains([]string{"from", "rcpt", "header_from"}, first) {
		switch field {
		case "address":
			return addressMeaning
		case "domain":
			return domainMeaning
		case "local", "tag":
			return partMeaning
		}
	}
	return ""
}

// asks reports whether texts of a meaning can be in a list of the kind.
func (m meaning) asks(k entryKind) bool {
	switch k {
	case addressList:
		return m == "" || m == addressMeaning
	case domainList:
		return m == "" || m == domainMeaning
	case networkList:
		return m == "" || m == ipMeaning
	case wordList:
		return m != proseMeaning
	}
	return true
}

// askList checks a comparison whose right side is a list.
func (c *conditionChecker) askList(n *ast.BinaryNode, l *list) *typ {
	truth := &typ{kind: boolKind}
	left := c.expr(n.Left)
	if l.kind == noKind || left.kind == badKind {
		return truth
	}
	usage := fmt.Sprintf("write %s %s %s", c.source(n.Left), l.kind.operator(), l.name)
	switch {
	case left.kind == listKind && left.elem != nil && left.elem.kind == textKind:
		return c.wrongAt(n.Left, fmt.Sprintf("`%s` is %s; a list is asked about one text", c.source(n.Left), left),
			fmt.Sprintf("ask any(%s, # %s %s)", c.source(n.Left), l.kind.operator(), l.name))
	case left.kind != textKind:
		return c.wrongAt(n.Left, fmt.Sprintf("a list is asked about text; `%s` is %s", c.source(n.Left), left), "")
	}
	if n.Operator != l.kind.operator() && (n.Operator != "in" || l.kind != wordList) {
		return c.wrongAt(n, fmt.Sprintf("`%s` is a list of %s, which `%s` does not ask", l.name, l.kind, n.Operator), usage)
	}
	name, _ := path(n.Left)
	m := meaningOf(name)
	if n.Operator != "in" || m.asks(l.kind) {
		return truth
	}
	text := fmt.Sprintf("`%s` is a list of %s; `%s` is %s", l.name, l.kind, name, m)
	first, _, _ := strings.Cut(name, ".")
	remedy := ""
	switch {
	case l.kind == wordList:
		remedy = fmt.Sprintf("write %s contains %s", name, l.name)
	case l.kind == networkList:
		remedy = fmt.Sprintf("write client.ip in %s", l.name)
	case m == ipMeaning:
		remedy = "addresses of clients are kept in a list of the kind networks"
	case m == proseMeaning:
		remedy = "what texts hold is kept in a list of the kind words or regexes"
	case first == "client" || first == "spf":
		remedy = "domains are kept in a list of the kind domains"
	case l.kind == addressList:
		remedy = fmt.Sprintf("write %s.address in %s, or give the list the kind domains", first, l.name)
	case l.kind == domainList:
		remedy = fmt.Sprintf("write %s.domain in %s, or give the list the kind addresses", first, l.name)
	}
	return c.wrongAt(n, text, remedy)
}

// countIn checks count_in(text, list).
func (c *conditionChecker) countIn(n *ast.CallNode) *typ {
	const usage = "write count_in(subject, list) with a list of words or regexes"
	result := &typ{kind: intKind}
	if len(n.Arguments) != 2 {
		c.wrongAt(n, "count_in() takes a text and a list", usage)
		return result
	}
	if t := c.expr(n.Arguments[0]); t.kind != textKind && t.kind != badKind {
		c.wrongAt(n.Arguments[0], fmt.Sprintf("count_in() takes a text; `%s` is %s", c.source(n.Arguments[0]), t), usage)
	}
	l := c.set.listNamed(n.Arguments[1], c.locals)
	switch {
	case l == nil && c.mayBeList(n.Arguments[1]):
	case l == nil:
		c.wrongAt(n.Arguments[1], fmt.Sprintf("there is no list `%s`", c.source(n.Arguments[1])),
			didYouMean(c.source(n.Arguments[1]), c.set.listNames(wordList, regexList)))
	case l.kind != wordList && l.kind != regexList && l.kind != noKind:
		c.wrongAt(n.Arguments[1], fmt.Sprintf("`%s` is a list of %s; count_in() takes one of words or regexes", l.name, l.kind), "")
	}
	return result
}

// listNames names the lists of some kinds, of all without any.
func (s *ruleset) listNames(kinds ...entryKind) (names []string) {
	for _, l := range s.namedLists {
		if len(kinds) == 0 || slices.Contains(kinds, l.kind) {
			names = append(names, l.name)
		}
	}
	return names
}

// Functions that a term calls where it asks a list. Conditions cannot name them.
const (
	listIn    = "list_in"
	listFinds = "list_finds"
	countIn   = "count_in"
)

// A listAsker turns what asks a list into calls: in, contains and matches know nothing of lists.
type listAsker struct {
	*builder
	term *term
}

func (a *listAsker) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.BinaryNode:
		l := a.set.listNamed(x.Right, nil) // no let takes the name of a list
		if l == nil {
			return
		}
		name := listFinds
		if x.Operator == "in" {
			name = listIn
		}
		a.call(n, name, x.Left, l)
	case *ast.CallNode:
		if id, ok := x.Callee.(*ast.IdentifierNode); ok && id.Value == countIn {
			if l := a.set.listNamed(x.Arguments[1], nil); l != nil {
				a.call(n, countIn, x.Arguments[0], l)
			}
		}
	}
}

func (a *listAsker) call(n *ast.Node, name string, text ast.Node, l *list) {
	at := a.set.listAt[l.name]
	if !slices.Contains(a.term.lists, at) {
		a.term.lists = append(a.term.lists, at)
	}
	ast.Patch(n, &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: []ast.Node{text, &ast.IntegerNode{Value: at}}})
}

// listKey names what a term asks besides what it sees of the mail: the lists in it, with all they hold.
func (s *ruleset) listKey(t *term) string {
	var b strings.Builder
	for _, i := range t.lists {
		fmt.Fprintf(&b, "%s=%s ", s.namedLists[i].name, s.namedLists[i].hash)
	}
	return strings.TrimSpace(b.String())
}

// A listUse is one list asked about one value, by one or several terms: the answer is worked out once a mail.
type listUse struct {
	from fastFrom
	slot int
	list *list
	in   bool // about the text as a whole
}

// An answer is the entry that a listUse came to, from 1; 0: it was not asked yet.
type answer int32

const noEntry answer = -1

func (s *ruleset) useOf(u listUse) int {
	if i := slices.Index(s.uses, u); i >= 0 {
		return i
	}
	same := slices.IndexFunc(s.uses, func(x listUse) bool { return x.from == u.from && x.slot == u.slot })
	if same < 0 {
		same = len(s.uses)
	}
	s.uses, s.useText, s.gates = append(s.uses, u), append(s.useText, same), append(s.gates, s.gateFor(u))
	return len(s.uses) - 1
}

// fastList returns a comparison of one value with a list.
func (b *builder) fastList(f fast, l *list, op string) (fast, bool) {
	if f.from != fromText && f.from != fromHeader {
		return f, false
	}
	f.op = "list"
	f.use = b.set.useOf(listUse{f.from, f.slot, l, op == "in"})
	return f, true
}

// ask returns what a list says.
func (s *state) ask(use int) answer {
	if a := s.answers[use]; a != 0 {
		return a
	}
	u := &s.set.uses[use]
	a := noEntry
	switch {
	case u.in:
		a = answerOf(u.list.in(s.textOf(u.from, u.slot)))
	case !s.shut(&s.set.gates[use]):
		a = answerOf(u.list.find(s.textOf(u.from, u.slot), s.wordsOf(use)))
	}
	s.answers[use] = a
	return a
}

func answerOf(entry int32, ok bool) answer {
	if !ok {
		return noEntry
	}
	return answer(entry + 1)
}

// wordsOf returns the words of the value that a list of words is asked about, made once a mail.
func (s *state) wordsOf(use int) []byte {
	u := &s.set.uses[use]
	if u.list.kind != wordList {
		return nil
	}
	w := &s.words[s.set.useText[use]]
	if !w.made {
		w.text, w.made = appendWords(w.text[:0], s.textOf(u.from, u.slot)), true
	}
	return w.text
}

type wordsMade struct {
	text []byte
	made bool
}

// maxKept bounds what a state keeps of memory for the next mail.
const maxKept = 64 << 10

func (s *state) clearLists() {
	clear(s.answers)
	for i := range s.words {
		w := &s.words[i]
		if w.made = false; cap(w.text) > maxKept {
			w.text = nil
		}
	}
}

// listFunctions are what terms that are not fast call.
func (s *state) listFunctions(field func(name string) any) {
	*field(listIn).(*func(string, int) bool) = func(text string, list int) bool {
		_, ok := s.set.namedLists[list].in(text)
		return ok
	}
	*field(listFinds).(*func(string, int) bool) = func(text string, list int) bool {
		_, ok := s.set.namedLists[list].find(text, nil)
		return ok
	}
	*field(countIn).(*func(string, int) int) = func(text string, list int) int {
		return s.set.namedLists[list].count(text, nil)
	}
}

// listEvidence is what a comparison with a list has seen, and the entry that it came to.
func (s *state) listEvidence(t *term, text string) pipeline.Evidence {
	l := s.set.namedLists[t.asked]
	var (
		entry int32
		ok    bool
	)
	switch {
	case t.op == termFast:
		a := s.ask(t.fast.use)
		entry, ok = int32(a)-1, a != noEntry
	case t.askedIn:
		entry, ok = l.in(text)
	default:
		entry, ok = l.find(text, nil)
	}
	if !ok {
		return pipeline.Evidence{Where: t.source, What: shown(text, -1), Position: t.position(text, -1)}
	}
	from := -1
	if !t.askedIn {
		if re := l.pattern(entry); re != nil {
			from = firstMatch(re, text)
		}
	}
	return pipeline.Evidence{
		Where:    t.source,
		Position: t.position(text, from),
		What:     fmt.Sprintf("%s, by %s (%s)", shown(text, from), shorten(clean(l.entries[entry].text), maxShown), l.where(entry)),
	}
}
