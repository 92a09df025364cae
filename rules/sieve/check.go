package sieve

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline/lookalike"
)

// A checker makes calls of nodes, and reports what is wrong with them.
type checker struct {
	*reporter
	b      *build
	unit   *unit
	limits Limits
	// loops counts the foreverypart around what is checked.
	loops []string
	// told are extensions whose lack was reported: once is enough.
	told map[string]bool
	vars map[string]bool // variables that the script names
	// globals are the variables that a global command names (RFC 6609, 3.4).
	globals map[string]bool
}

// script checks a whole script. Requires come first (RFC 5228, 3.2).
func (c *checker) script(list []*node) []*call {
	c.told, c.vars, c.globals = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range c.b.extensions {
		if e.free {
			c.unit.has[e.name] = true
		}
	}
	begun := false
	var rest []*node
	for _, n := range list {
		switch {
		case n.name != "require":
			begun = true
			rest = append(rest, n)
		case begun:
			c.report(n.at, "require stands behind other commands", "move it to the beginning of the script")
			c.require(n)
		default:
			c.require(n)
		}
	}
	return c.commands(rest)
}

func (c *checker) require(n *node) {
	if n.broken && len(n.args) != 1 {
		return
	}
	if len(n.args) == 1 && len(n.tests) > 0 && c.line(n.tests[0].at.from) > c.line(n.args[0].at.to) {
		c.stray(n)
		return
	}
	if len(n.args) != 1 || n.args[0].kind != tokenString || len(n.tests) > 0 || n.open != (span{}) {
		c.report(n.whole(), "require takes names of extensions and nothing else", `write require ["fileinto", "envelope"];`)
		return
	}
	for _, t := range n.args[0].texts {
		if c.b.enough() {
			return
		}
		name := t.value
		switch {
		case name == "comparator-i;octet" || name == "comparator-i;ascii-casemap":
		case c.b.extensions[name] != nil && name != "":
			c.enable(name)
		case slices.Contains(c.b.options.Off, name):
			c.told[name] = true
			c.report(t.at, sprintf("the extension %q is switched off here", clip(name)), "")
		default:
			c.told[name] = true
			names := Extensions(c.b.options)
			c.report(t.at, sprintf("there is no extension %q", clip(name)), didYouMean(name, names))
		}
	}
}

// enable puts an extension in force, and those that come with it.
func (c *checker) enable(name string) {
	if c.unit.has[name] {
		return
	}
	c.unit.has[name] = true
	if e := c.b.extensions[name]; e != nil {
		for _, x := range e.with {
			c.enable(x)
		}
	}
}

// missing reports that a thing needs a require.
func (c *checker) missing(at span, what string, names []string) {
	// Where any of several brings it, the plainest.
	name := slices.MinFunc(names, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	if c.told[name] {
		return
	}
	c.told[name] = true
	c.report(at, sprintf("%s needs the extension %q", what, name), sprintf("add require %q", name))
}

// commands checks a list of commands. An if and the elsif and else behind it become one.
func (c *checker) commands(list []*node) []*call {
	var all []*call
	var chain *call // the last of an if, elsif …
	decided := false
	for _, n := range list {
		if c.b.enough() {
			break
		}
		follows := n.name == "elsif" || n.name == "else"
		if follows && chain == nil {
			c.report(n.at, sprintf("%s has no if before it", n.name), "")
		}
		if !follows {
			chain, decided = nil, false
		}
		if follows && decided {
			continue // never run: RFC 5463, 4 wants no errors there
		}
		if n.name == "require" {
			c.report(n.at, "require stands inside a block", "move it to the beginning of the script")
			c.require(n)
			continue
		}
		x := c.command(n)
		if x == nil {
			if n.name == "if" {
				chain = &call{}
			}
			continue
		}
		switch {
		case n.name == "if":
			chain = x
			all = append(all, x)
		case follows && chain != nil:
			chain.otherwise = x
			if chain = x; n.name == "else" {
				chain = nil
			}
		case !follows:
			all = append(all, x)
		}
		decided = chain != nil && len(x.tests) == 1 && x.tests[0].always == yes
	}
	return all
}

// find returns the form of a command or test in force, and reports where there is none.
func (c *checker) find(n *node, test bool) *form {
	mine, others, what := c.b.commands, c.b.tests, "command"
	if test {
		mine, others, what = others, mine, "test"
	}
	var lacking []string
	for _, o := range mine[n.name] {
		if c.inForce(o.by) {
			return o.form
		}
		lacking = append(lacking, o.by.name)
	}
	switch {
	case len(lacking) > 0:
		c.missing(n.at, n.name, lacking)
	case len(others[n.name]) > 0 && test:
		c.report(n.at, sprintf("%s is a command, and a test should be here", n.name), "")
	case len(others[n.name]) > 0:
		c.report(n.at, sprintf("%s is a test, and a command should be here", n.name), sprintf("write if %s … { … }", n.name))
	case n.name == "elseif" || n.name == "elif":
		c.report(n.at, sprintf("there is no %s %q", what, n.name), "did you mean elsif?")
	default:
		remedy := lookalike.Nearest(n.name, slices.Sorted(maps.Keys(mine)))
		if remedy != "" {
			remedy = sprintf("did you mean %s?", remedy)
		}
		c.report(n.at, sprintf("there is no %s %q", what, clip(n.name)), remedy)
	}
	return nil
}

func (c *checker) inForce(e *extension) bool { return e.name == "" || c.unit.has[e.name] }

// command checks a command with its block; nil: it cannot be understood.
func (c *checker) command(n *node) *call {
	f := c.find(n, false)
	if f == nil {
		// What is inside may have errors of its own.
		for _, t := range n.tests {
			if c.b.enough() {
				break
			}
			c.test(t)
		}
		c.commands(n.block)
		return nil
	}
	x := c.call(n, f)
	if f.name == "foreverypart" {
		name := ""
		if v := x.tag("name"); v != nil && len(v.texts) == 1 {
			name = v.texts[0].fixed
		}
		c.loops = append(c.loops, name)
		defer func() { c.loops = c.loops[:len(c.loops)-1] }()
	}
	switch {
	case f.block && n.open == span{} && n.broken:
	case f.block && n.open == span{}:
		c.report(span{x.at.to, x.at.to}, sprintf("%s has no block", n.name), "write { … } behind it")
	case !f.block && n.open != span{}:
		c.report(n.open, sprintf("%s takes no block", n.name), "end it with a ;")
		c.commands(n.block)
	case len(x.tests) == 1 && x.tests[0].always == no:
		// Never run: RFC 5463, 4 wants no errors there.
	default:
		x.block = c.commands(n.block)
	}
	return x
}

// test checks a test; nil: it cannot be understood.
func (c *checker) test(n *node) *call {
	f := c.find(n, true)
	if f == nil {
		for _, t := range n.tests {
			if c.b.enough() {
				break
			}
			c.test(t)
		}
		return nil
	}
	return c.call(n, f)
}

// call checks tags, arguments and tests.
func (c *checker) call(n *node, f *form) *call {
	x := &call{form: f, unit: c.unit, line: c.line(n.at.from), at: n.whole(), args: make([]value, len(f.args))}
	if n.broken {
		for _, t := range n.tests {
			if c.b.enough() {
				break
			}
			if n.many || t.broken {
				c.test(t)
			}
		}
		return x
	}
	ok := c.arguments(n, f, x)
	switch {
	case f.tests == 0 && len(n.tests) > 0:
		c.stray(n)
		return x
	case f.tests == 1 && (len(n.tests) != 1 || n.many):
		if n.many {
			c.report(n.at, sprintf("%s takes one test, and no list of them", n.name), "write anyof (…) or allof (…) around them")
		} else {
			c.report(n.at, sprintf("%s has no test", n.name), sprintf("write for example %s header :contains \"subject\" \"order\"", n.name))
		}
		ok = false
	case f.tests < 0 && !n.many:
		c.report(n.at, sprintf("%s takes a list of tests in parentheses", n.name), sprintf("write %s (…, …)", n.name))
		ok = false
	}
	for _, t := range n.tests {
		if c.b.enough() {
			break
		}
		if y := c.test(t); y != nil {
			x.tests = append(x.tests, y)
		} else {
			ok = false
		}
	}
	if !ok {
		return x
	}
	if f.matches {
		c.matching(x)
	}
	for i := range x.given {
		if g := &x.given[i]; g.tag.check != nil {
			g.tag.check(c, x, &g.value)
		}
	}
	if f.check != nil {
		f.check(c, x)
	}
	return x
}

// stray says what a word is that stands where a test would, behind what takes none.
func (c *checker) stray(n *node) {
	t, end := n.tests[0], n.at.to
	for _, a := range n.args {
		end = max(end, a.at.to)
	}
	switch {
	case t.name == "or":
		c.report(t.at, "or joins no tests in Sieve", "write anyof (…, …)")
	case t.name == "and":
		c.report(t.at, "and joins no tests in Sieve", "write allof (…, …)")
	case t.name == "then":
		c.report(t.at, "then has no meaning here", "leave it out")
	case c.line(t.at.from) > c.line(end):
		c.report(span{end, end}, sprintf("a ; is missing behind %s", clip(n.name)), "")
	case len(c.b.tests[t.name]) > 0:
		c.report(t.at, sprintf("%s takes no test", n.name), "")
	default:
		c.report(t.at, sprintf("%s has no meaning here", clip(t.name)), "strings stand in \"double quotes\"")
	}
}

// arguments checks tags and positional arguments and reports whether they can be understood.
func (c *checker) arguments(n *node, f *form, x *call) bool {
	ok := true
	var rest []argument
	for i := 0; i < len(n.args); i++ {
		a := n.args[i]
		if a.kind != tokenTag {
			rest = append(rest, a)
			continue
		}
		t := c.findTag(n, f, a)
		if t == nil {
			ok = false
			// Whether it would have taken an argument is not known.
			if i+1 < len(n.args) && n.args[i+1].kind != tokenTag && len(n.args)-i-1 > len(f.args) {
				i++
			}
			continue
		}
		if len(rest) > 0 {
			c.report(a.at, sprintf(":%s stands behind other arguments", t.name), sprintf("write it right behind %s", n.name))
		}
		g := given{tag: t, value: value{at: a.at}}
		if t.takes != nothing {
			if i+1 == len(n.args) {
				c.report(a.at, sprintf(":%s has no argument", t.name), sprintf("%s follows it", t.takes))
				return false
			}
			i++
			v, fine := c.value(n.args[i], t.takes, ":"+t.name, t.constant)
			if g.value = v; !fine {
				ok = false
			}
		}
		for _, other := range x.given {
			switch {
			case other.tag.name == t.name:
				c.report(a.at, sprintf(":%s stands twice", t.name), "")
			case t.group != "" && other.tag.group == t.group:
				c.report(a.at, sprintf(":%s and :%s exclude each other", other.tag.name, t.name), "")
			}
		}
		x.given = append(x.given, g)
	}
	for _, g := range x.given {
		if g.tag.needs != "" && !x.has(g.tag.needs) {
			c.report(g.value.at, sprintf(":%s means nothing without :%s", g.tag.name, g.tag.needs), "")
		}
	}
	return c.positionals(n, f, x, rest) && ok
}

func (c *checker) positionals(n *node, f *form, x *call, rest []argument) bool {
	ok, least := true, 0
	for _, p := range f.args {
		if !p.optional {
			least++
		}
	}
	spare := len(rest) - least
	at := 0
	for i, p := range f.args {
		if p.optional {
			if spare <= 0 {
				continue
			}
			spare--
		}
		if at == len(rest) {
			c.report(x.at, sprintf("%s lacks its %s: %s", n.name, p.name, p.shape), "")
			return false
		}
		v, fine := c.value(rest[at], p.shape, sprintf("the %s of %s", p.name, n.name), p.constant)
		x.args[i], ok = v, ok && fine
		at++
	}
	if at < len(rest) {
		takes := "no argument"
		if len(f.args) > 0 {
			var names []string
			for _, p := range f.args {
				names = append(names, p.name)
			}
			takes = strings.Join(names, " and ") + " and nothing else"
		}
		c.report(rest[at].at, sprintf("%s takes %s", n.name, takes), "")
		return false
	}
	return ok
}

// findTag returns a tag that is in force, and reports where there is none.
func (c *checker) findTag(n *node, f *form, a argument) *tag {
	for i := range f.tags {
		if f.tags[i].name == a.tag {
			return &f.tags[i]
		}
	}
	var lacking []string
	for _, o := range c.b.tags[a.tag] {
		switch {
		case !f.takes(o.tagOn):
		case c.inForce(o.by):
			return &o.tag
		default:
			lacking = append(lacking, o.by.name)
		}
	}
	if len(lacking) > 0 {
		c.missing(a.at, ":"+a.tag, lacking)
		return nil
	}
	if c.b.enough() {
		return nil
	}
	var names []string
	for _, t := range f.tags {
		names = append(names, ":"+t.name)
	}
	for name, list := range c.b.tags {
		if slices.ContainsFunc(list, func(o offeredTag) bool { return f.takes(o.tagOn) && c.inForce(o.by) }) {
			names = append(names, ":"+name)
		}
	}
	slices.Sort(names)
	c.report(a.at, sprintf("%s has no tag :%s", n.name, clip(a.tag)), didYouMean(":"+a.tag, names))
	return nil
}

// value checks one argument against its shape.
func (c *checker) value(a argument, s shape, what string, constant bool) (value, bool) {
	fits := a.kind == tokenNumber && s == number || a.kind == tokenString && (s == texts || s == text && !a.bracket)
	if !fits {
		remedy := ""
		switch {
		case s == number && a.kind == tokenString && len(a.texts) == 1:
			if _, err := strconv.Atoi(a.texts[0].value); err == nil {
				remedy = "leave the quotes out"
			}
		case s == text && a.bracket && len(a.texts) == 1:
			remedy = "leave the brackets out"
		case s != number && a.kind == tokenNumber:
			remedy = sprintf("write \"%d\"", a.number)
		}
		c.report(a.at, sprintf("%s is %s, and not %s", what, s, a.describe()), remedy)
		return value{}, false
	}
	v := value{is: s, at: a.at, number: a.number}
	for _, t := range a.texts {
		p := c.pattern(t)
		if constant && !p.constant() {
			c.report(t.at, sprintf("%s can have no variables", what), "")
		}
		v.texts = append(v.texts, p)
	}
	return v, true
}
