package sieve

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// variablesExtension: RFC 5229.
func variablesExtension() []extension {
	return []extension{
		{
			name: "variables", grammar: true,
			commands: []form{{
				name: "set", tags: modifiers(), check: checkSet, run: runSet,
				args: []positional{{name: "name of a variable", shape: text, constant: true}, {name: "value", shape: text}},
			}},
			tests: []form{{
				name: "string", tags: matchTags(), matches: true, holds: stringTest,
				args: []positional{{name: "strings", shape: texts}, {name: "keys", shape: texts}},
			}},
		},
		// What other extensions add to it counts where both are required.
		{name: "regex", tags: []tagOn{{on: []string{"set", "extracttext"}, tag: tag{name: "quoteregex", group: "quoting"}}}},
		{name: "enotify", tags: []tagOn{{on: []string{"set", "extracttext"}, tag: tag{name: "encodeurl", group: "encoding"}}}},
	}
}

// modifiers change a value before it is set (RFC 5229, 4.1). Two of one rank exclude each other.
func modifiers() []tag {
	return []tag{
		{name: "lower", group: "case"}, {name: "upper", group: "case"},
		{name: "lowerfirst", group: "case of the first"}, {name: "upperfirst", group: "case of the first"},
		{name: "quotewildcard", group: "quoting"}, {name: "length", group: "length"},
	}
}

// ranks: the highest goes first (RFC 5229, 4.1; RFC 5435, 6 for encodeurl).
var ranks = [...]struct {
	name   string
	rank   int
	change func(string) string
}{
	{"lower", 40, lowerASCII},
	{"upper", 40, upperASCII},
	{"lowerfirst", 30, func(s string) string { return first(s, lowerASCII) }},
	{"upperfirst", 30, func(s string) string { return first(s, upperASCII) }},
	{"quotewildcard", 20, func(s string) string { return quoteOctets(s, `\*?`) }},
	{"quoteregex", 20, func(s string) string { return quoteOctets(s, `\.*+?()[]{}|^$`) }},
	{"encodeurl", 15, encodeURL},
	{"length", 10, func(s string) string { return strconv.Itoa(utf8.RuneCountInString(s)) }},
}

// modified changes a value as the tags of n say.
func (n *call) modified(s string) string {
	if len(n.given) == 0 {
		return s
	}
	all := slices.Clone(ranks[:])
	slices.SortStableFunc(all, func(a, b struct {
		name   string
		rank   int
		change func(string) string
	}) int {
		return cmp.Compare(b.rank, a.rank)
	})
	for _, x := range all {
		if n.has(x.name) {
			s = x.change(s)
		}
	}
	return s
}

func upperASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return unicode.ToUpper(r)
		}
		return r
	}, s)
}

// first changes the first octet.
func first(s string, change func(string) string) string {
	if s == "" {
		return s
	}
	_, n := utf8.DecodeRuneInString(s)
	return change(s[:n]) + s[n:]
}

func quoteOctets(s, special string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// encodeURL: RFC 5435, 6: all but the unreserved characters of RFC 3986, 2.3.
func encodeURL(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if isLetter(c) || isDigit(c) || c == '-' || c == '.' || c == '~' {
			b.WriteByte(c)
		} else {
			b.WriteString(sprintf("%%%02X", c))
		}
	}
	return b.String()
}

func checkSet(c *checker, n *call) { n.extra = c.variableName(&n.args[0]) }

// variableName reads the name of a variable that is to be set, in lower case.
func (c *checker) variableName(v *value) string {
	p := v.texts[0]
	name := strings.ToLower(p.fixed)
	space, rest, dotted := strings.Cut(name, ".")
	switch {
	case !p.constant(): // that has been reported
	case name != "" && strings.Trim(name, "0123456789") == "":
		c.report(v.at, sprintf("${%s} is a match value, which only :matches and :regex set", clip(name)), "")
	case dotted && space == "global" && c.unit.has["include"] && isVariable(rest) && !strings.Contains(rest, "."):
	case dotted || !isVariable(name):
		c.report(v.at, sprintf("%q is no name of a variable", clip(p.fixed)), "a name has letters, digits and _, and begins with no digit")
	case !c.vars[name]:
		if c.vars[name] = true; len(c.vars) == c.limits.Variables+1 {
			c.report(v.at, sprintf("the script has more than %d variables", c.limits.Variables), "")
		}
	}
	return name
}

func runSet(r *run, n *call) flow {
	name := n.extra.(string)
	value := n.modified(r.text(&n.args[1]))
	if !r.spend(n, 1+len(value)/octetsPerInstruction) {
		return failed
	}
	r.set(n, name, value)
	r.say(n, "set %s to %q", name, clipTo(value, 200))
	return next
}

func stringTest(r *run, n *call) bool {
	x := r.matcher(n)
	for _, p := range n.args[0].texts {
		s := r.expand(p)
		if s == "" && n.match.how == count {
			continue // RFC 5229, 5: empty strings do not count
		}
		if x.value(s) {
			break
		}
	}
	return x.held()
}
