package sieve

import (
	"strconv"
	"strings"
)

// pattern reads a string of the script: characters encoded with their numbers (RFC 5228, 2.4.2.4) first, then variables
// (RFC 5229, 3).
func (c *checker) pattern(t literal) pattern {
	s := t.value
	if c.unit.has["encoded-character"] {
		s = c.decoded(s, t.at)
	}
	p := pattern{fixed: s, lower: lowerASCII(s), at: t.at}
	if !c.unit.has["variables"] || !strings.Contains(s, "${") {
		return p
	}
	fixed := 0
	for at := 0; ; {
		i := strings.Index(s[at:], "${")
		if i < 0 {
			break
		}
		at += i
		end := strings.IndexByte(s[at:], '}')
		if end < 0 {
			break
		}
		x, ok := c.reference(s[at+2:at+end], t.at)
		if !ok {
			at += 2
			continue
		}
		if at > fixed {
			p.pieces = append(p.pieces, piece{fixed: s[fixed:at], match: -1})
		}
		p.pieces = append(p.pieces, x)
		at += end + 1
		fixed = at
	}
	if p.pieces != nil && fixed < len(s) {
		p.pieces = append(p.pieces, piece{fixed: s[fixed:], match: -1})
	}
	return p
}

// reference reads what stands in ${…}; what is no name of a variable stays as it is (RFC 5229, 3).
func (c *checker) reference(name string, at span) (piece, bool) {
	if name == "" || len(name) > 128 {
		return piece{}, false
	}
	if isDigit(name[0]) {
		if strings.Trim(name, "0123456789") != "" {
			return piece{}, false
		}
		n, err := strconv.Atoi(name)
		if err != nil || n >= mostMatches {
			c.report(at, sprintf("there is no match value ${%s}", clip(name)), sprintf("the last is ${%d}", mostMatches-1))
			return piece{}, false
		}
		return piece{match: n}, true
	}
	if !isVariable(name) {
		return piece{}, false
	}
	name = strings.ToLower(name)
	space, rest, ok := cutLast(name)
	switch {
	case !ok:
	case space == "global" && c.unit.has["include"] && !strings.Contains(rest, "."):
	case c.environmentItem(name) != "":
	default:
		c.report(at, sprintf("there are no variables of the kind %q", clip(name)), "a variable has a name without dots")
		return piece{}, false
	}
	return piece{name: name, match: -1}, true
}

// cutLast splits a name at its first dot.
func cutLast(name string) (space, rest string, ok bool) { return strings.Cut(name, ".") }

// isVariable: RFC 5229, 3: identifiers with dots between.
func isVariable(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" {
			return false
		}
		for i := range len(part) {
			if !isLetter(part[i]) && (i == 0 || !isDigit(part[i])) {
				return false
			}
		}
	}
	return true
}

// environmentItem is the item of the environment that a variable of a namespace means, "" if none: ${env.…} with
// vnd.dovecot.environment.
func (c *checker) environmentItem(name string) string {
	if item, ok := strings.CutPrefix(name, "env."); ok && c.unit.has["vnd.dovecot.environment"] {
		return item
	}
	return ""
}

// expand is the value of a pattern now.
func (r *run) expand(p pattern) string {
	if p.constant() {
		return p.fixed
	}
	if len(p.pieces) == 1 {
		return r.piece(p.pieces[0])
	}
	var b strings.Builder
	for _, x := range p.pieces {
		b.WriteString(r.piece(x))
		if b.Len() > r.limits.VariableSize {
			break // longer is not to be had by this way
		}
	}
	r.spent += b.Len() / octetsPerInstruction
	return clipOctets(b.String(), r.limits.VariableSize)
}

func (r *run) piece(p piece) string {
	switch {
	case p.name != "":
		return r.variable(p.name)
	case p.match >= 0:
		if p.match < len(r.frame.match) {
			return r.frame.match[p.match]
		}
		return ""
	}
	return p.fixed
}

// variable is the value of a variable, "" where it has none.
func (r *run) variable(name string) string {
	if rest, ok := strings.CutPrefix(name, "global."); ok {
		return r.globals[rest]
	}
	if item, ok := strings.CutPrefix(name, "env."); ok {
		return r.in.Environment[item]
	}
	if r.frame.globals[name] {
		return r.globals[name]
	}
	return r.frame.vars[name]
}

// set gives a variable a value, within limits. What is too long is cut, as RFC 5229, 6 allows.
func (r *run) set(n *call, name, value string) {
	value = clipOctets(value, r.limits.VariableSize)
	all := &r.frame.vars
	if rest, ok := strings.CutPrefix(name, "global."); ok {
		all, name = &r.globals, rest
	} else if r.frame.globals[name] {
		all = &r.globals
	}
	if *all == nil {
		*all = map[string]string{}
	}
	vars := *all
	old, had := vars[name]
	if !had && len(vars) >= r.limits.Variables {
		r.fail(n, "the script has more than %d variables", r.limits.Variables)
		return
	}
	if r.memory += len(value) - len(old); r.memory > r.limits.Memory {
		r.fail(n, "the variables have more than %d octets together", r.limits.Memory)
		return
	}
	vars[name] = value
}

// clipOctets cuts s to so many octets, not inside a character.
func clipOctets(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}
