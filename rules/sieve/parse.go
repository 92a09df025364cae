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
	// broken: something in it could not be read, which has been reported.
	broken bool
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
		case p.sign(";"):
			p.report(p.token.at, "a ; has no command before it", "leave it out")
			p.advance()
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

// tooDeep reports that blocks or tests stand too deep in each other, and gives the script up.
func (p *parser) tooDeep(depth int, what string) bool {
	if depth < p.limits.Nesting {
		return false
	}
	p.report(p.token.at, sprintf("%s stand deeper in each other than %d", what, p.limits.Nesting), "")
	p.token = p.ends()
	return true
}

func (p *parser) command(depth int) *node {
	n := p.head(depth)
	if n.name == "else" && p.token.kind == tokenName && strings.EqualFold(p.token.text, "if") {
		p.report(span{n.at.from, p.token.at.to}, "else if is one word in Sieve", "write elsif")
		n = p.head(depth)
		n.name = "elsif"
	}
	n.broken = n.broken || p.dead
	switch {
	case p.take(";"):
	case p.sign("{"):
		p.blockOf(n, depth)
	case p.dead:
	case n.broken:
		p.skip(depth)
	case p.token.kind == tokenName || p.token.kind == tokenEnd || p.sign("}"):
		// What follows is a command by itself, most likely. Whether a block is missing is known later.
		if !takesBlock(n.name) {
			p.report(span{n.end, n.end}, sprintf("a ; is missing behind %s", clip(n.name)), "")
		}
	default:
		p.unexpected("a ; or a block")
		p.skip(depth)
	}
	return n
}

func takesBlock(name string) bool {
	return name == "if" || name == "elsif" || name == "else" || name == "foreverypart"
}

func (p *parser) blockOf(n *node, depth int) {
	n.open = p.token.at
	if p.tooDeep(depth, "blocks") {
		return
	}
	p.advance()
	n.block = p.commands(depth + 1)
	if !p.take("}") && !p.dead {
		p.report(n.open, "the block that begins here does not end", "close it with }")
	}
}

// head reads a name, its arguments and its tests.
func (p *parser) head(depth int) *node {
	n := &node{name: strings.ToLower(p.token.text), at: p.token.at, end: p.token.at.to}
	p.advance()
	defer func() { n.broken = n.broken || p.dead }()
	for {
		switch {
		case p.token.kind == tokenBad:
			n.broken = true
		case p.token.kind == tokenTag:
			n.args = append(n.args, argument{kind: tokenTag, at: p.token.at, tag: strings.ToLower(p.token.text)})
		case p.token.kind == tokenNumber:
			n.args = append(n.args, argument{kind: tokenNumber, at: p.token.at, number: p.token.number})
		case p.token.kind == tokenString:
			n.args = append(n.args, argument{kind: tokenString, at: p.token.at, texts: []literal{{p.token.text, p.token.at}}})
		case p.sign("["):
			a, ok := p.list()
			n.args = append(n.args, a)
			n.end, n.broken = a.at.to, n.broken || !ok
			continue
		case p.token.kind == tokenName:
			if p.startsCommand(n.name) {
				return n
			}
			if p.tooDeep(depth, "tests") {
				return n
			}
			t := p.head(depth + 1)
			n.tests, n.end, n.broken = append(n.tests, t), t.end, n.broken || t.broken
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

// startsCommand reports whether the name that comes next is that of a command, and no test of what stands before it: a
// semicolon was forgotten.
func (p *parser) startsCommand(before string) bool {
	switch before {
	case "if", "elsif", "not":
		return false
	}
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
			p.unexpected("a test")
			break
		}
		t := p.head(depth + 1)
		n.tests, n.end, n.broken = append(n.tests, t), t.end, n.broken || t.broken
		if p.take(",") {
			continue
		}
		if p.sign(")") {
			n.end = p.token.at.to
			p.advance()
			return
		}
		if p.token.kind == tokenEnd && !p.dead {
			p.report(open, "the list of tests that begins here does not end", "close it with )")
		} else if !p.dead && !n.broken {
			p.unexpected("a , or a )")
		}
		break
	}
	n.broken = true
	n.end = max(n.end, open.to)
	p.behind(")")
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
func (p *parser) list() (a argument, ok bool) {
	a = argument{kind: tokenString, at: p.token.at, bracket: true}
	open := p.token.at
	p.advance()
	for {
		if p.token.kind != tokenString {
			if p.token.kind != tokenEnd {
				p.unexpected("a string")
			} else if !p.dead {
				p.report(open, "the list that begins here does not end", "close it with ]")
			}
			break
		}
		if len(a.texts) == p.limits.Strings {
			p.report(p.token.at, sprintf("the list has more than %d strings", p.limits.Strings), "")
			break
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
			return a, true
		}
		if p.token.kind == tokenEnd && !p.dead {
			p.report(open, "the list that begins here does not end", "close it with ]")
		} else if !p.dead {
			p.unexpected("a , or a ]")
		}
		break
	}
	p.behind("]")
	return a, false
}
