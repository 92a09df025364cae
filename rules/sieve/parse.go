package sieve

import "strings"

// A node is a command or a test as it stands in the script (RFC 5228, 8.2).
type node struct {
	name  string // in lower case
	at    span   // of the name
	end   int    // of its arguments
	args  []argument
	tests []*node
	many  bool // the tests stand in parentheses
	block []*node
	// open is where its block begins; zero: it has none.
	open span
}

// whole is the node without its block.
func (n *node) whole() span { return span{n.at.from, max(n.end, n.at.to)} }

// An argument is a tag, a number, a string or a list of strings.
type argument struct {
	kind    tokenKind // tokenTag, tokenNumber or tokenString
	at      span
	tag     string // in lower case, without the colon
	number  int64
	texts   []literal
	bracket bool // the strings stand in brackets
}

// A literal is one string.
type literal struct {
	value string
	at    span
}

func (a argument) describe() string {
	switch {
	case a.kind == tokenTag:
		return ":" + clip(a.tag)
	case a.kind == tokenNumber:
		return "a number"
	case a.bracket:
		return "a list of strings"
	}
	return "a string"
}

// A parser makes nodes of a script. What is wrong it reports, and goes on behind it.
type parser struct {
	lexer
	token token
	deep  bool // the limit on nesting was reported
}

func parse(r *reporter, l Limits) []*node {
	p := &parser{lexer: lexer{reporter: r, limits: l}}
	p.advance()
	var list []*node
	for {
		list = append(list, p.commands(0)...)
		if p.token.kind == tokenEnd {
			return list
		}
		p.report(p.token.at, "a } without a { before it", "")
		p.advance()
	}
}

func (p *parser) advance() { p.token = p.next() }

func (p *parser) sign(s string) bool { return p.token.kind == tokenSign && p.token.text == s }

// take goes beyond a sign if it comes next.
func (p *parser) take(s string) bool {
	if !p.sign(s) {
		return false
	}
	p.advance()
	return true
}

// commands reads commands up to a } or the end.
func (p *parser) commands(depth int) (list []*node) {
	for {
		switch {
		case p.token.kind == tokenEnd || p.sign("}"):
			return list
		case p.token.kind == tokenName:
			list = append(list, p.command(depth))
		case p.take(";"): // one too many does no harm to anybody
		default:
			p.unexpected("a command")
			p.skip(depth)
		}
	}
}

// unexpected reports the next token, unless it has been.
func (p *parser) unexpected(want string) {
	if p.token.kind != tokenBad {
		p.report(p.token.at, sprintf("%s stands where %s should be", p.token.describe(), want), "")
	}
}

// skip goes behind what could not be read: behind the next semicolon or block.
func (p *parser) skip(depth int) {
	for {
		switch {
		case p.token.kind == tokenEnd || p.sign("}"):
			return
		case p.take(";"):
			return
		case p.sign("{"):
			p.blockOf(&node{}, depth)
			return
		}
		p.advance()
	}
}

// tooDeep reports once that blocks or tests stand too deep in each other, and gives the script up.
func (p *parser) tooDeep(depth int, what string) bool {
	if depth < p.limits.Nesting {
		return false
	}
	if !p.deep {
		p.report(p.token.at, sprintf("%s stand deeper in each other than %d", what, p.limits.Nesting), "")
	}
	p.deep = true
	p.at = len(p.text)
	p.advance()
	return true
}

func (p *parser) command(depth int) *node {
	n := p.head(depth)
	switch {
	case p.take(";"):
	case p.sign("{"):
		p.blockOf(n, depth)
	case p.deep:
	default:
		at := span{n.end, n.end}
		switch p.token.kind {
		case tokenName, tokenEnd:
			// What follows is a command by itself, most likely.
			p.report(at, sprintf("a ; is missing behind %s", clip(n.name)), "")
		case tokenSign:
			if p.sign("}") {
				p.report(at, sprintf("a ; is missing behind %s", clip(n.name)), "")
				break
			}
			fallthrough
		default:
			p.unexpected("a ; or a block")
			p.skip(depth)
		}
	}
	return n
}

func (p *parser) blockOf(n *node, depth int) {
	n.open = p.token.at
	if p.tooDeep(depth, "blocks") {
		return
	}
	p.advance()
	n.block = p.commands(depth + 1)
	if !p.take("}") && !p.deep {
		p.report(n.open, "the block that begins here does not end", "close it with }")
	}
}

// head reads a name, its arguments and its tests.
func (p *parser) head(depth int) *node {
	n := &node{name: strings.ToLower(p.token.text), at: p.token.at, end: p.token.at.to}
	p.advance()
	for {
		switch {
		case p.token.kind == tokenTag:
			n.args = append(n.args, argument{kind: tokenTag, at: p.token.at, tag: strings.ToLower(p.token.text)})
		case p.token.kind == tokenNumber:
			n.args = append(n.args, argument{kind: tokenNumber, at: p.token.at, number: p.token.number})
		case p.token.kind == tokenString:
			n.args = append(n.args, argument{kind: tokenString, at: p.token.at, texts: []literal{{p.token.text, p.token.at}}})
		case p.sign("["):
			a := p.list()
			n.args = append(n.args, a)
			n.end = a.at.to
			continue
		case p.token.kind == tokenName:
			if p.startsCommand() {
				return n
			}
			if p.tooDeep(depth, "tests") {
				return n
			}
			t := p.head(depth + 1)
			n.tests, n.end = append(n.tests, t), t.end
			return n
		case p.sign("("):
			p.testList(n, depth)
			return n
		default:
			return n
		}
		n.end = p.token.at.to
		p.advance()
	}
}

// startsCommand reports whether the name that comes next is that of a command, and no test: a semicolon was forgotten.
func (p *parser) startsCommand() bool {
	switch strings.ToLower(p.token.text) {
	case "if", "elsif", "else", "keep", "discard", "stop", "fileinto", "redirect", "require", "set", "addflag", "setflag",
		"removeflag", "include", "return", "reject", "ereject", "vacation", "notify", "foreverypart", "break":
		return true
	}
	return false
}

// testList reads ( test, test … ).
func (p *parser) testList(n *node, depth int) {
	open := p.token.at
	if p.tooDeep(depth, "tests") {
		return
	}
	p.advance()
	n.many = true
	for {
		if p.token.kind != tokenName {
			if !p.sign(")") || len(n.tests) > 0 {
				p.unexpected("a test")
			}
			p.behind(")")
			break
		}
		t := p.head(depth + 1)
		n.tests = append(n.tests, t)
		if p.take(",") {
			continue
		}
		if !p.sign(")") && !p.deep {
			if p.token.kind == tokenEnd {
				p.report(open, "the list of tests that begins here does not end", "close it with )")
			} else {
				p.unexpected("a , or a )")
			}
			p.behind(")")
			break
		}
		n.end = p.token.at.to
		p.advance()
		return
	}
	n.end = max(n.end, open.to)
}

// behind skips to behind a closing sign, if it comes before the command ends.
func (p *parser) behind(sign string) {
	for p.token.kind != tokenEnd && !p.sign("{") && !p.sign("}") && !p.sign(";") {
		if p.take(sign) {
			return
		}
		p.advance()
	}
}

// list reads [ "string", "string" … ].
func (p *parser) list() argument {
	a := argument{kind: tokenString, at: p.token.at, bracket: true}
	open := p.token.at
	p.advance()
	for {
		if p.token.kind != tokenString {
			p.unexpected("a string")
			p.behind("]")
			return a
		}
		if len(a.texts) == p.limits.Strings {
			p.report(p.token.at, sprintf("the list has more than %d strings", p.limits.Strings), "")
			p.behind("]")
			return a
		}
		a.texts = append(a.texts, literal{p.token.text, p.token.at})
		a.at.to = p.token.at.to
		p.advance()
		if p.take(",") {
			continue
		}
		if p.sign("]") {
			a.at.to = p.token.at.to
			p.advance()
			return a
		}
		if p.token.kind == tokenEnd {
			p.report(open, "the list that begins here does not end", "close it with ]")
			return a
		}
		p.unexpected("a , or a ]")
		p.behind("]")
		return a
	}
}
