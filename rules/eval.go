package rules

import (
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A truth is what a term or a condition came to, in the numbers that records use (pipeline.Result.Terms).
type truth byte

const (
	open    truth = iota // not evaluated
	isFalse              //
	isTrue               //
	unknown              //
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

func (t truth) not() truth {
	switch t {
	case isFalse:
		return isTrue
	case isTrue:
		return isFalse
	}
	return t
}

var errNotAnswered = errors.New("not answered")

// A state is what one call of a stage works with. States are used again and again; nothing of a mail stays in them.
type state struct {
	set    *ruleset
	value  reflect.Value // what rules see, a struct of scope.env
	env    any           // a pointer to it
	values []any         // by scope.known: pointers into it
	have   uint32        // which of them are worked out

	view      *pipeline.View
	unknown   []error // by ref: why it is not known
	truths    []truth // by rule
	terms     []truth // by term
	failures  []error // by term: why it failed at run time
	found     []int32 // by fast term: where in its text it found something, from 1; 0: that is not noted
	whys      []string
	fields    []headerField // by ruleset.headers
	fieldsSet bool
	machine   vm.VM
	bools     []*bool // by ruleset.slots
	texts     []*string
	numbers   []*int
	own       *effective      // what holds for the recipient, nil for what holds for all
	rule      *rule           // whose condition is being evaluated
	answers   []answer        // by ruleset.uses
	words     []wordsMade     // by ruleset.useText
	looked    []looked        // by ruleset.haystacks
	early     []truth         // by term: what it came to before its turn
	again     bool            // there is an Again in view, and something is missing or left out
	awake     []uint64        // see wake
	present   []int32         // by ruleset.headers: fields that are there
	lists     []reflect.Value // by ruleset.itemTexts
	missed    bool            // a term was not looked at then, and the message is gone
}

type headerField struct {
	there   bool
	decoded bool
	field   mime.Field
	text    string
	more    []mime.Field // the others of the name, where headers() asks for them
	texts   []string
	lower   string
	lowered bool
}

func newState(set *ruleset) *state {
	v := reflect.New(set.scope.env)
	s := &state{
		set: set, value: v.Elem(), env: v.Interface(),
		unknown:  make([]error, len(set.refs)),
		truths:   make([]truth, len(set.rules)),
		terms:    make([]truth, len(set.terms)),
		failures: make([]error, len(set.terms)),
		found:    make([]int32, len(set.terms)),
		fields:   make([]headerField, len(set.headers)),
		bools:    make([]*bool, len(set.slots)),
		texts:    make([]*string, len(set.slots)),
		numbers:  make([]*int, len(set.slots)),
		answers:  make([]answer, len(set.uses)),
		words:    make([]wordsMade, len(set.uses)),
		looked:   make([]looked, len(set.haystacks)),
		early:    make([]truth, len(set.terms)),
	}
	for _, x := range set.itemTexts {
		var list reflect.Value
		if x.header < 0 {
			list = s.value.FieldByIndex(x.list)
		}
		s.lists = append(s.lists, list)
	}
	s.pointers()
	s.machine.MemoryBudget = uint(set.limits.MaxMemory)
	field := func(name string) any { return s.value.Field(set.scope.field[name]).Addr().Interface() }
	s.values = make([]any, len(set.scope.known))
	for i, x := range set.scope.known {
		if x.zero != nil {
			s.values[i] = field(x.name)
		}
	}
	s.listFunctions(field)
	*field("has").(*func(string) bool) = func(name string) bool { return s.field(set.headers[name]).there }
	*field("headers").(*func(string) []string) = func(name string) []string { return s.headerTexts(set.headers[name]) }
	*field("header").(*func(string) string) = func(name string) string { return s.headerText(set.headers[name]) }
	return s
}

// load takes in what a stage reads of the transaction.
func (s *state) load(st *stage, v *pipeline.View) {
	s.view, s.own, s.again = v, nil, !v.Again.Whole()
	if st.personal && !v.Again.Usual() {
		s.own = s.set.forRecipient(v.Rcpt.Address)
	}
	for _, f := range st.facts {
		s.loadFact(f)
	}
}

// bring works out those of the names that are not yet.
func (s *state) bring(names uint32) {
	for names &^= s.have; names != 0; names &= names - 1 {
		i := bits.TrailingZeros32(names)
		n := &s.set.scope.known[i]
		s.have |= 1 << i
		err := n.load(s, s.values[i])
		for _, k := range s.set.nameRefs[i] {
			s.unknown[k] = err
			if err == nil && n.unknown != nil {
				s.unknown[k] = n.unknown(s, s.set.refs[k].field)
			}
		}
	}
}

// loadFact takes in what one step has found, and what of it is not known.
func (s *state) loadFact(f stageFact) {
	found := s.view.Facts.Of(f.step.Name)
	why := found.Unknown
	var v reflect.Value
	if why == nil {
		v = reflect.ValueOf(found.Fact)
		if v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		switch {
		case !v.IsValid():
			why = errNotAnswered
		default:
			convert := f.step.from[v.Type()]
			if convert == nil {
				why = fmt.Errorf("the fact is a %s, which is not what the step declares", v.Type())
				break
			}
			dst := s.value.Field(s.set.scope.field[f.step.Name])
			if isNamed(v.Type()) {
				dst.SetZero() // names that it does not have
			}
			convert(dst, v)
		}
	}
	for _, i := range f.refs {
		field := s.set.refs[i].field
		switch {
		case why != nil:
			s.unknown[i] = why
		case field == "":
			s.unknown[i] = nil
		case found.Missing[field] != nil:
			s.unknown[i] = found.Missing[field]
		case v.Kind() == reflect.Map && !v.MapIndex(reflect.ValueOf(field).Convert(v.Type().Key())).IsValid():
			s.unknown[i] = errNotAnswered
		default:
			s.unknown[i] = nil
		}
	}
}

// cut bounds what rules see of a header field, so that no mail can make a thousand rules slow.
func (s *state) cut(text string) string { return head(text, s.set.limits.MaxValue) }

// head shortens a text to so many octets, not within a character.
func head(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// clear drops everything of the mail.
func (s *state) clear() {
	for names := s.have; names != 0; names &= names - 1 {
		if n := s.set.scope.known[bits.TrailingZeros32(names)].name; n != messageName {
			s.value.Field(s.set.scope.field[n]).SetZero()
		}
	}
	s.have = 0
	for _, x := range s.set.scope.order {
		if x.shape != nil {
			s.value.Field(s.set.scope.field[x.Name]).SetZero()
		}
	}
	clear(s.unknown)
	clear(s.truths)
	clear(s.terms)
	clear(s.found)
	for _, i := range s.present {
		s.fields[i] = headerField{}
	}
	s.present = s.present[:0]
	clear(s.failures)
	s.clearLists()
	s.clearLooked()
	s.own, s.view, s.rule, s.whys, s.fieldsSet = nil, nil, nil, s.whys[:0], false
}

// field returns the first header field of a name. The header is gone through once for all names.
func (s *state) field(n int) *headerField {
	s.readFields()
	return &s.fields[n]
}

// readFields finds the header fields that rules ask for.
func (s *state) readFields() {
	if !s.fieldsSet {
		s.fieldsSet = true
		var lower [256]byte
		for _, f := range s.view.Message.Header().Fields() {
			if len(f.Name) > len(lower) {
				continue
			}
			for i := range len(f.Name) {
				c := f.Name[i]
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				lower[i] = c
			}
			i, ok := s.set.headers[string(lower[:len(f.Name)])]
			switch {
			case !ok:
			case !s.fields[i].there:
				s.fields[i] = headerField{there: true, field: f}
				s.present = append(s.present, int32(i))
			case s.set.lists[i] && len(s.fields[i].more) < s.set.limits.MaxItems-1:
				s.fields[i].more = append(s.fields[i].more, f)
			}
		}
	}
}

func (s *state) headerText(n int) string {
	f := s.field(n)
	if f.there && !f.decoded {
		f.text, f.decoded = s.cut(f.field.Text()), true
	}
	return f.text
}

// headerLower is the first field of a name in lower case.
func (s *state) headerLower(n int) string {
	f := s.field(n)
	if f.there && !f.lowered {
		f.lower, f.lowered = strings.ToLower(s.headerText(n)), true
	}
	return f.lower
}

// headerTexts are all fields of a name.
func (s *state) headerTexts(n int) []string {
	f := s.field(n)
	if f.there && f.texts == nil {
		f.texts = append(f.texts, s.headerText(n))
		for _, x := range f.more {
			f.texts = append(f.texts, s.cut(x.Text()))
		}
	}
	return f.texts
}

// evalRule returns whether a rule holds, which is what hit() says.
func (s *state) evalRule(x *rule) truth {
	if !s.own.concerns(x) || s.own.isOff(x) {
		return isFalse
	}
	return s.evalCondition(x)
}

// evalCondition returns whether a rule's condition holds. Each is evaluated once.
func (s *state) evalCondition(x *rule) truth {
	if t := s.truths[x.at]; t != open {
		return t
	}
	outer := s.rule
	s.rule = x
	t := isFalse
	if !s.view.Again.Without(x.at) {
		t = s.evalPlan(x)
	}
	s.rule = outer
	s.truths[x.at] = t
	return t
}

// eval follows Kleene's three-valued logic, in written order. What is settled by its left side leaves its right side alone.
func (s *state) eval(n *node) truth {
	switch n.op {
	case '!':
		return s.eval(n.l).not()
	case '&':
		l := s.eval(n.l)
		if l == isFalse {
			return isFalse
		}
		if r := s.eval(n.r); r != isTrue {
			return r
		}
		return l
	case '|':
		l := s.eval(n.l)
		if l == isTrue {
			return isTrue
		}
		if r := s.eval(n.r); r != isFalse {
			return r
		}
		return l
	}
	t := s.early[n.term.id]
	if t == open {
		t = s.evalTerm(n.term)
	}
	s.terms[n.term.id] = t
	return t
}

// everyTerm evaluates what has been settled without, so that it can be said what each term came to.
func (s *state) everyTerm(st *stage) {
	for _, t := range st.terms {
		if s.terms[t.id] == open && s.own.concerns(t.rule) && !s.own.isOff(t.rule) {
			s.rule = t.rule
			s.terms[t.id] = s.evalTerm(t)
		}
	}
	s.rule = nil
}

// looks reports whether a term looks at anything itself, and not at what became of a rule.
func (t *term) looks() bool { return t.op != termHit && t.op != termHitOther && t.op != termConst }

// lacks tells of the terms that an undecided rule would have had to know, and that a record does not have.
func (s *state) lacks(x *rule) {
	for _, t := range x.terms {
		switch {
		case s.terms[t.id] != unknown:
		case s.failures[t.id] == errNotLookedAt:
			s.view.Again.Lacks(t.key)
		case t.op == termHit:
			s.lacks(s.set.rules[t.hit])
		}
	}
}

var (
	errNotLookedAt = errors.New("the message is gone, and this was not looked at when it came")
	errUnknownThen = errors.New("it was unknown when the mail came")
)

func (s *state) evalTerm(t *term) truth {
	if again := s.view.Again; s.again && t.score && t.input != 0 && again.Changed() && !again.There(t.input) {
		s.failures[t.id] = errNotLookedAt // what it came to then was for another score
		return unknown
	}
	if s.again && t.looks() && !(t.score && t.input == 0) {
		if came, ok := s.view.Again.Term(t.key, t.input); ok {
			switch {
			case truth(came) != unknown:
			case s.view.Again.Knows(t.key, t.input):
				s.failures[t.id] = errUnknownThen
			default:
				s.failures[t.id] = errNotLookedAt
			}
			return truth(came)
		}
	}
	if t.loads&^s.have != 0 {
		s.bring(t.loads)
	}
	for _, i := range t.refs {
		if s.unknown[i] != nil {
			return unknown
		}
	}
	switch t.op {
	case termFast:
		return truthOf(s.evalFast(&t.fast))
	case termConst:
		return truthOf(t.value)
	case termHas:
		return truthOf(s.field(t.header).there)
	case termKnown:
		return truthOf(s.unknown[t.ref] == nil)
	case termHit:
		return s.evalRule(s.set.rules[t.hit])
	case termHitOther:
		return s.hitOther(t)
	}
	out, err := s.machine.Run(t.prog, s.env)
	b, ok := out.(bool)
	if err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("it came to %T", out)
		}
		s.failures[t.id] = err
		return unknown
	}
	return truthOf(b)
}

// hitOther looks a rule of another step up among what that step said.
func (s *state) hitOther(t *term) truth {
	is := func(step string, at int, name string) bool {
		return step == t.step && name == t.hitRule && at == t.hitAt
	}
	for _, h := range s.view.Hits {
		if !is(h.Step, h.At, h.Name) {
			continue
		}
		if h.Off {
			continue // for this recipient
		}
		if h.Shadow && !s.rule.shadow && !s.set.scope.shadow {
			s.failures[t.id] = fmt.Errorf("%s.%s is a shadow rule", t.step, t.hitRule)
			return unknown // a trial changes nothing
		}
		return isTrue
	}
	for _, u := range s.view.Undecided {
		if is(u.Step, u.At, u.Name) {
			s.failures[t.id] = fmt.Errorf("%s.%s undecided", t.step, t.hitRule)
			return unknown
		}
	}
	// A step that failed has said nothing about its rules.
	if f, ok := s.view.Facts[t.step]; ok && f.Unknown != nil && f.Fact == nil {
		s.failures[t.id] = fmt.Errorf("%s unavailable: %w", t.step, f.Unknown)
		return unknown
	}
	return isFalse
}

// why says what an undecided rule could not know, in the order of its terms.
func (s *state) why(x *rule) string {
	s.whys = s.whys[:0]
	add := func(why string) {
		if !slices.Contains(s.whys, why) {
			s.whys = append(s.whys, why)
		}
	}
	for _, t := range x.terms {
		if s.terms[t.id] != unknown {
			continue
		}
		if err := s.failures[t.id]; err != nil {
			text := firstLine(err.Error())
			var at *file.Error
			if errors.As(err, &at) {
				text = at.Message // without expr's own excerpt
			}
			if t.op == termProgram {
				text = fmt.Sprintf("`%s` failed: %s", shorten(t.source, 60), failure(text))
			}
			add(text)
			continue
		}
		if t.op == termHit {
			add(fmt.Sprintf("%s undecided", s.set.rules[t.hit].name))
			continue
		}
		for _, i := range t.refs {
			err := s.unknown[i]
			if err == nil {
				continue
			}
			r := s.set.refs[i]
			switch {
			case r.step == nil:
				add(err.Error())
			case s.view.Facts.Of(r.name).Unknown != nil || r.field == "":
				add(fmt.Sprintf("%s unavailable: %v", r.name, err))
			default:
				add(fmt.Sprintf("%s.%s unavailable: %v", r.name, r.field, err))
			}
		}
	}
	return shorten(clean(strings.Join(s.whys, "; ")), 300)
}

// evidence lists what the comparisons of a rule that held have seen.
func (s *state) evidence(x *rule) []pipeline.Evidence {
	return s.gather(nil, x.cond, true)
}

const (
	maxEvidence = 10
	maxShown    = 100
)

func (s *state) gather(out []pipeline.Evidence, n *node, positive bool) []pipeline.Evidence {
	switch n.op {
	case '!':
		return s.gather(out, n.l, !positive)
	case '&', '|':
		return s.gather(s.gather(out, n.l, positive), n.r, positive)
	}
	t := n.term
	if t.input&(pipeline.InputHeader|pipeline.InputBody) != 0 && s.view.Message == nil {
		return out // what it saw is gone
	}
	if !positive || t.show == nil && t.op != termHas || s.terms[t.id] != isTrue || len(out) >= maxEvidence {
		return out
	}
	text, ok := s.shownText(t)
	switch {
	case !ok:
		return out
	case t.asks:
		return append(out, s.listEvidence(t, text))
	}
	from := s.matched(t, text)
	return append(out, pipeline.Evidence{Where: t.source, What: shown(text, from), Position: t.position(text, from)})
}

// shownText is the value that a comparison looked at.
func (s *state) shownText(t *term) (string, bool) {
	if t.op == termHas {
		return s.headerText(t.header), true
	}
	if f := &t.fast; t.op == termFast && f.from != fromBool && f.from != fromNumber {
		s.bring(f.lowers)
		return s.textOf(f.from, f.slot), true
	}
	v, err := s.machine.Run(t.show, s.env)
	if err != nil {
		return "", false
	}
	return t.valueText(v), true
}

// shown is the part of a value that matters, for people: what begins at from, -1 for all of it.
func shown(text string, from int) string {
	const before = 20
	lead, room := "", maxShown
	if from > maxShown/2 && len(text) > maxShown {
		from -= before
		for from > 0 && !utf8.RuneStart(text[from]) {
			from--
		}
		text, lead, room = text[from:], "…", maxShown-1
	}
	if len(text) > room && isASCII(text[:room+1]) {
		return lead + clean(text[:room-1]) + "…" // as most of it is
	}
	if text = lead + head(text, 5*maxShown); len(text) > 4*maxShown {
		text = strings.ToValidUTF8(text[:4*maxShown], "") + "…"
	}
	return shorten(clean(text), maxShown)
}

// clean makes text of a mail fit for records: valid UTF-8 without control characters, and without what nobody sees around it.
func clean(s string) string {
	if s = strings.TrimSpace(s); strings.Contains(s, "\r\n") {
		s = strings.ReplaceAll(s, "\r\n", " ")
	}
	ascii := true
	bad := -1
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
		case bad < 0 && (c < ' ' || c == 0x7f):
			bad = i
		}
	}
	switch {
	case ascii && bad < 0:
		return s // as most of it is
	case ascii:
		out := []byte(s)
		for i := bad; i < len(out); i++ {
			if out[i] < ' ' || out[i] == 0x7f {
				out[i] = ' '
			}
		}
		return string(out)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}
