package sieve

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A matching is how a test compares values with keys: match type, comparator and, where they have no variables, the keys
// made ready.
type matching struct {
	how   how
	by    comparator
	holds func(order int) bool // for count and value
	keys  []key
	fixed bool // no key has variables
	// set has the keys of a long list for :is.
	set map[string]bool
	// captures: match values are kept (RFC 5229, 3.2).
	captures bool
}

// how is a match type.
type how uint8

const (
	is how = iota
	contains
	matches
	regex
	count
	valued
	listed
)

var howNames = [...]string{"is", "contains", "matches", "regex", "count", "value", "list"}

func (h how) String() string { return ":" + howNames[h] }

// A key is one key, ready for its match type.
type key struct {
	text   string // as written
	folded string
	glob   *glob
	regex  *expression
}

// matchTags are the tags of every test that matches. Those of extensions are on "*".
func matchTags() []tag {
	return []tag{
		{name: "is", group: "match type"}, {name: "contains", group: "match type"}, {name: "matches", group: "match type"},
		{name: "comparator", takes: text, constant: true},
	}
}

// matching makes the match type and the keys of a test ready.
func (c *checker) matching(n *call) {
	m := &matching{}
	n.match = m
	for i := range n.given {
		g := &n.given[i]
		switch g.tag.name {
		case "comparator":
			name := g.value.texts[0].fixed
			at := slices.Index(comparatorNames[:], name)
			switch {
			case at < 0:
				c.report(g.value.at, sprintf("there is no comparator %q", clip(name)), didYouMean(name, comparatorNames[:]))
			case comparator(at) == asciiNumeric && !c.unit.has["comparator-i;ascii-numeric"]:
				c.missing(g.value.at, name, []string{"comparator-i;ascii-numeric"})
			default:
				m.by = comparator(at)
			}
		default:
			if at := slices.Index(howNames[:], g.tag.name); at >= 0 && g.tag.group == "match type" {
				m.how = how(at)
				if m.how == count || m.how == valued {
					m.holds = c.relation(&g.value)
				}
			}
		}
	}
	if m.by == asciiNumeric && (m.how == contains || m.how == matches || m.how == regex) {
		c.report(n.at, sprintf("i;ascii-numeric compares whole numbers, and cannot do %v", m.how), `use :is or, with require "relational", :value "eq"`)
	}
	m.captures = !n.form.silent && c.unit.has["variables"] && (m.how == matches || m.how == regex)
	m.fixed = true
	for _, p := range n.args[len(n.args)-1].texts {
		if !p.constant() {
			m.fixed = false
			continue
		}
		k, err := m.key(p.fixed)
		if err != "" {
			c.report(p.at, err, "")
			continue
		}
		if k.regex != nil {
			if c.b.regexes += len(p.fixed) + k.regex.steps; c.b.regexes > c.limits.Regex {
				c.report(p.at, sprintf("the regular expressions of the script have more than %d octets and steps together", c.limits.Regex), "")
				return
			}
		}
		m.keys = append(m.keys, k)
	}
	const long = 8
	if m.fixed && m.how == is && m.by != asciiNumeric && len(m.keys) > long {
		m.set = make(map[string]bool, len(m.keys))
		for _, k := range m.keys {
			m.set[k.folded] = true
		}
	}
}

// relation reads the argument of :count and :value (RFC 5231, 4).
func (c *checker) relation(v *value) func(int) bool {
	switch v.texts[0].fixed {
	case "gt":
		return func(o int) bool { return o > 0 }
	case "ge":
		return func(o int) bool { return o >= 0 }
	case "lt":
		return func(o int) bool { return o < 0 }
	case "le":
		return func(o int) bool { return o <= 0 }
	case "eq":
		return func(o int) bool { return o == 0 }
	case "ne":
		return func(o int) bool { return o != 0 }
	}
	c.report(v.at, sprintf("%q is no relation", clip(v.texts[0].fixed)), "there is eq, ne, gt, ge, lt, le")
	return func(int) bool { return false }
}

// key makes a key ready; err says what is wrong with it.
func (m *matching) key(s string) (k key, err string) {
	k = key{text: s, folded: m.by.fold(s)}
	switch m.how {
	case matches:
		k.glob = compileGlob(k.folded)
	case regex:
		k.regex, err = compileRegex(s, m.by)
	}
	return k, err
}

// A subject is a value that is compared, folded once.
type subject struct {
	text   string
	ascii  string
	folded bool
	// unicode is the same for i;unicode-casemap, which is dear.
	unicode string
	titled  bool
}

// fold returns the subject as a comparator sees it.
func (s *subject) fold(c comparator) string {
	switch c {
	case asciiCasemap:
		if !s.folded {
			s.ascii, s.folded = lowerASCII(s.text), true
		}
		return s.ascii
	case unicodeCasemap:
		if !s.titled {
			s.unicode, s.titled = foldUnicode(s.text, nil), true
		}
		return s.unicode
	}
	return s.text
}

// A matcher compares the values of one test, one by one.
type matcher struct {
	r     *run
	n     *call
	m     *matching
	keys  []key
	seen  int
	found bool
	where string // what is compared, for the trace
}

// matcher begins the comparison of a test. There is one at a time.
func (r *run) matcher(n *call) *matcher {
	x := &r.matching
	*x = matcher{r: r, n: n, m: n.match, keys: n.match.keys}
	if n.match.fixed {
		return x
	}
	x.keys = nil
	for _, p := range n.args[len(n.args)-1].texts {
		s := r.expand(p)
		if !r.spend(n, 1+len(s)/octetsPerInstruction) {
			return x
		}
		if n.match.how == regex && len(s) > r.limits.Regex/8 {
			r.fail(n, "a regular expression has %d octets; with variables %d are allowed", len(s), r.limits.Regex/8)
			return x
		}
		k, err := n.match.key(s)
		if err != "" {
			r.fail(n, "%s", err)
			return x
		}
		if k.regex != nil && !r.spend(n, len(s)+k.regex.steps) {
			return x
		}
		x.keys = append(x.keys, k)
	}
	return x
}

// octetsPerInstruction is how much is compared for one instruction of the budget.
const octetsPerInstruction = 256

// value compares one value and reports whether the test is decided.
func (x *matcher) value(s string) bool {
	v := subject{text: s}
	return x.subject(&v)
}

func (x *matcher) subject(v *subject) bool {
	x.seen++
	if x.m.how == count || x.r.failure != nil {
		return x.r.failure != nil
	}
	if x.m.set != nil {
		if !x.r.spend(x.n, 1+len(v.text)/octetsPerInstruction) {
			return true
		}
		folded := v.fold(x.m.by)
		if x.m.set[folded] {
			x.hit(v.text, key{text: folded})
		}
		return x.found
	}
	for i := range x.keys {
		if !x.r.spend(x.n, 1+len(v.text)/octetsPerInstruction) {
			return true
		}
		if x.compare(v, &x.keys[i]) {
			x.hit(v.text, x.keys[i])
			return true
		}
	}
	return x.r.failure != nil
}

func (x *matcher) hit(value string, k key) {
	x.found = true
	if x.r.in.Trace {
		where := ""
		if x.where != "" {
			where = x.where + ": "
		}
		x.r.because("%s%q %v %q", where, clipTo(value, 150), x.m.how, clipTo(k.text, 100))
	}
}

// compare compares one value with one key.
func (x *matcher) compare(v *subject, k *key) bool {
	switch x.m.how {
	case is:
		if x.m.by == asciiNumeric {
			// A value of nothing is like nothing only, and not like all that is no number.
			return (v.text != "" || k.text == "") && asciiNumeric.compare(v.text, k.text) == 0
		}
		return v.fold(x.m.by) == k.folded
	case contains:
		return strings.Contains(v.fold(x.m.by), k.folded)
	case matches:
		return x.matches(v, k.glob)
	case regex:
		return x.regex(v, k.regex)
	case valued:
		return x.m.holds(x.m.by.compare(v.fold(x.m.by), k.folded))
	case listed:
		return x.r.in.Lists != nil && x.r.in.Lists.Has(k.text, v.text)
	}
	return false
}

func (x *matcher) spend(n int) bool { return x.r.spend(x.n, n) }

func (x *matcher) matches(v *subject, g *glob) bool {
	if !x.m.captures {
		return g.match(v.fold(x.m.by), nil, x.spend)
	}
	var offsets []int
	var folded string
	if x.m.by == unicodeCasemap {
		if !x.spend(1 + len(v.text)/16) { // it is folded again, with its places
			return false
		}
		folded = foldUnicode(v.text, &offsets)
	} else {
		folded = v.fold(x.m.by)
	}
	var holes []hole
	if !g.match(folded, &holes, x.spend) {
		return false
	}
	found := []string{v.text}
	for _, h := range holes[:min(len(holes), mostMatches-1)] {
		if offsets != nil {
			h = hole{offsets[h.from], offsets[h.to]}
		}
		found = append(found, v.text[h.from:h.to])
	}
	x.r.frame.match = found
	return true
}

// mostMatches is how many match values are kept, the whole one among them.
const mostMatches = 100

func (x *matcher) regex(v *subject, e *expression) bool {
	// What needs a word that is not there matches nothing, which is found a thousand times faster.
	if !x.spend(1+len(v.text)/octetsPerInstruction) || !e.possible(v.fold(asciiCasemap)) {
		return false
	}
	cost := len(v.text) * (8 + e.steps) / 64
	if r := x.r; r.spent+cost > r.limits.Instructions {
		r.fail(x.n, "the script does more than %d instructions: this regular expression takes %d for the %d octets that it is to look at",
			r.limits.Instructions, cost, len(v.text))
		return false
	}
	if !x.spend(cost) {
		return false
	}
	if !x.m.captures {
		return e.re.MatchString(v.text)
	}
	at := e.re.FindStringSubmatchIndex(v.text)
	if at == nil {
		return false
	}
	var found []string
	for i := 0; i+1 < len(at) && i < 2*mostMatches; i += 2 {
		if at[i] < 0 {
			found = append(found, "")
		} else {
			found = append(found, v.text[at[i]:at[i+1]])
		}
	}
	x.r.frame.match = found
	return true
}

// held ends the comparison and reports whether the test holds.
func (x *matcher) held() bool {
	if x.r.failure != nil {
		return false
	}
	if x.m.how != count {
		return x.found
	}
	n := strconv.Itoa(x.seen)
	for _, k := range x.keys {
		if x.m.holds(x.m.by.compare(n, k.folded)) {
			x.r.because("there are %s", n)
			return true
		}
	}
	return false
}

// matches reports whether any of the values matches any of the keys of a test.
func (r *run) matches(n *call, values []string) bool {
	x := r.matcher(n)
	for _, v := range values {
		if x.value(v) {
			break
		}
	}
	return x.held()
}

// An expression is a compiled regular expression.
type expression struct {
	re    *regexp.Regexp
	steps int // of its program: what a match can take for each octet
	// needs has words in lower case of which every match has one; none: that cannot be said.
	needs []string
}

// possible reports whether there can be a match in a text, which is in lower case.
func (e *expression) possible(lower string) bool {
	return len(e.needs) == 0 || slices.ContainsFunc(e.needs, func(word string) bool { return strings.Contains(lower, word) })
}
