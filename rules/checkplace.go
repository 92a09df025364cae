package rules

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"

	"sluice/pipeline/lookalike"
)

var (
	tokenText        = regexp.MustCompile(`^(.*)unexpected token (\w+)(?:\("(.*)"\))?$`)
	strangeCharacter = regexp.MustCompile(`^unrecognized character: \S+ '(.+)'$`)
)

// syntax reports what the parser says in plainer words.
func (c *conditionChecker) syntax(err error) {
	var e *file.Error
	if !errors.As(err, &e) {
		c.wrong(0, 1, firstLine(err.Error()), "")
		return
	}
	text, remedy := e.Message, ""
	from, to := e.From, max(e.To, e.From+1)
	if m := tokenText.FindStringSubmatch(text); m != nil {
		tok := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[3])
		switch {
		case m[2] == "EOF":
			text, remedy = "the condition ends too early", c.cutOff()
		case tok == "=":
			text, remedy = "`=` is not expected here", "compare with `==`"
		case m[2] == "Identifier" && slices.Contains([]string{"and", "or", "not", "in"}, strings.ToLower(tok)) && tok != strings.ToLower(tok):
			text, remedy = fmt.Sprintf("`%s` is not expected here", tok), fmt.Sprintf("write `%s`", strings.ToLower(tok))
		default:
			text, remedy = fmt.Sprintf("`%s` is not expected here", tok), unexpected(m[2], tok, string(c.rule.when[:min(from, len(c.rule.when))]))
		}
	}
	if m := strangeCharacter.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("`%s` is not expected here", m[1])
		switch remedy = "text is written in quotes"; {
		case m[1] == "~" && from > 0 && c.rule.when[from-1] == '!':
			remedy = "write not (… matches …)"
		case m[1] == "~":
			remedy = "write `matches`"
		}
	}
	for _, x := range []struct{ says, text, remedy string }{
		{"coalesce", "`??` is not part of the rule language", "an unknown fact is asked for with known(step)"},
		{"literal not terminated", "the text is not closed with its quote", ""},
		{"invalid char escape", "there is no such escape in text", "write \\\\ for a backslash, or put the text in backquotes"},
		{"integer literal", "the number is too large, or none", ""},
		{"float literal", "the number is too large, or none", ""},
		{"bad number syntax", "a number has no unit", "write 10 * 1024 for 10 KiB, and days(2), hours(12) or minutes(30) for a time"},
		{"expected at least 2 arguments", "any() and its like take a list and a condition", `write for example any(links, .domain == "example.org"), or len(links) > 0`},
		{"maximum allowed nodes", "the condition is too large", "make several rules of it and use hit()"},
	} {
		if strings.Contains(text, x.says) {
			text, remedy = x.text, cmp.Or(x.remedy, c.cutOff())
		}
	}
	c.wrong(from, to, text, remedy)
}

// cutOff says what YAML took for the end of the condition, "" where it is the author's.
func (c *conditionChecker) cutOff() string {
	at := c.rule.whenAt[len(c.rule.whenAt)-1]
	rest := cut(at.src.lineText(at.line), at.column-1)
	switch {
	case strings.Contains(rest, " #"):
		return "in YAML ` #` begins a comment: put the condition in quotes"
	case strings.HasPrefix(rest, ","):
		return "in YAML a comma ends what stands in { }: put the condition in quotes"
	}
	return ""
}

func cut(s string, n int) string {
	r := []rune(s)
	return string(r[min(max(n, 0), len(r)):])
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// wrong reports a mistake at characters [from, to) of the condition.
func (c *conditionChecker) wrong(from, to int, text, remedy string) {
	c.failed = true
	places := c.rule.whenAt
	if len(places) == 0 {
		c.report(c.rule.pos, c.rule.name, text, remedy)
		return
	}
	from = min(max(from, 0), len(places)-1)
	to = min(max(to, from+1), len(places)-1)
	at := places[from]
	at.length = 1
	if end := places[max(to-1, from)]; end.line == at.line && end.column >= at.column {
		at.length = end.column - at.column + 1
	}
	c.report(at, c.rule.name, text, remedy)
}

func (c *conditionChecker) wrongAt(n ast.Node, text, remedy string) *typ {
	from, to := c.span(n)
	c.wrong(from, to, text, remedy)
	return &typ{kind: badKind}
}

// span returns the characters [from, to) that a node was read from. The parser keeps only where a node begins, or where
// its operator stands; the rest follows from the places below it and from the brackets around them.
func (c *conditionChecker) span(n ast.Node) (from, to int) {
	s := &spanner{from: -1}
	ast.Walk(&n, s)
	if s.from < 0 {
		return 0, len(c.rule.when)
	}
	first, last := -1, -1
	for i, t := range c.tokens {
		if t.From >= s.from && t.To <= s.to && t.Kind != lexer.EOF {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return s.from, s.to
	}
	if c.tokens[last].Kind == lexer.Identifier && last+1 < len(c.tokens) && c.tokens[last+1].Is(lexer.Bracket, "(") {
		last++
	}
	for {
		depth, lowest := 0, 0
		for _, t := range c.tokens[first : last+1] {
			switch {
			case t.Is(lexer.Bracket, "(", "[", "{"):
				depth++
			case t.Is(lexer.Bracket):
				depth--
				lowest = min(lowest, depth)
			}
		}
		switch {
		case lowest < 0 && first > 0:
			first--
		case depth-lowest > 0 && last+1 < len(c.tokens) && c.tokens[last+1].Kind != lexer.EOF:
			last++
		default:
			return c.tokens[first].From, c.tokens[last].To
		}
	}
}

type spanner struct{ from, to int }

func (s *spanner) Visit(n *ast.Node) {
	if _, ok := (*n).(*ast.ConditionalNode); ok {
		return // its place is behind it
	}
	at := (*n).Location()
	if at.To <= at.From {
		return
	}
	if s.from < 0 || at.From < s.from {
		s.from = at.From
	}
	s.to = max(s.to, at.To)
}

// source is the text of a node, on one line.
func (c *conditionChecker) source(n ast.Node) string {
	from, to := c.span(n)
	return strings.Join(strings.Fields(string(c.rule.when[min(from, len(c.rule.when)):min(to, len(c.rule.when))])), " ")
}

func didYouMeanOnly(s string, names []string) string {
	if best := lookalike.Nearest(s, names); best != "" {
		return fmt.Sprintf("did you mean `%s`?", best)
	}
	return ""
}

// shorten cuts text for messages and evidence.
func shorten(s string, most int) string {
	n, last := 0, 0
	for i := range s {
		if n == most-1 {
			last = i
		}
		if n++; n > most {
			return s[:last] + "…"
		}
	}
	return s
}
