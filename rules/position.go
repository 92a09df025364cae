package rules

import (
	"net/textproto"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"sluice/pipeline"
)

// fieldOf returns what of the mail an expression reads, "" where it reads none or more than one thing of it.
func fieldOf(n ast.Node) (field string) {
	ast.Walk(&n, visit(func(n ast.Node) {
		found := ""
		switch x := n.(type) {
		case *ast.IdentifierNode:
			found = mailFields()[x.Value]
		case *ast.CallNode:
			name, ok := x.Callee.(*ast.IdentifierNode)
			if !ok || len(x.Arguments) != 1 || name.Value != "header" && name.Value != "headers" {
				return
			}
			if s, ok := x.Arguments[0].(*ast.StringNode); ok {
				found = textproto.CanonicalMIMEHeaderKey(s.Value)
			}
		}
		switch {
		case found == "" || found == field:
		case field == "":
			field = found
		default:
			field = several
		}
	}))
	if field == several {
		return ""
	}
	return field
}

// several is no name of a field.
const several = ":"

// mailFields says where in a mail stands what rules call by these names.
func mailFields() map[string]string {
	return map[string]string{
		"subject": "Subject", "header_from": "From", "header_froms": "From", "list_id": "List-Id", "message_id": "Message-Id",
		"date": "Date", "text": "text", "html": "html", "links": "links", "attachments": "attachments",
		lowerSubject: "Subject", lowerText: "text", lowerHTML: "html",
	}
}

type visit func(ast.Node)

// Visit implements ast.Visitor.
func (v visit) Visit(n *ast.Node) { v(*n) }

// position says where in the mail a term found what it looked for in text: at from, -1 for nowhere in particular.
func (t *term) position(text string, from int) pipeline.Position {
	at := pipeline.Position{Field: t.field}
	if t.field == "" || from < 0 {
		return at
	}
	at.Line = 1 + strings.Count(text[:from], "\n")
	at.Column = 1 + utf8.RuneCountInString(text[strings.LastIndexByte(text[:from], '\n')+1:from])
	return at
}

// matched returns where in text the term's pattern or literal is, -1 where it has none.
func (s *state) matched(t *term, text string) int {
	switch {
	case t.op == termFast && s.found[t.id] > 0:
		return int(s.found[t.id]) - 1
	case t.pattern != nil && t.op == termFast:
		return s.find(t.pattern, &t.fast.needle, text)
	case t.pattern != nil:
		return firstMatch(t.pattern, text)
	case t.literal != "" && t.op == termFast:
		return s.index(&t.fast.needle, text, t.literal)
	case t.literal != "":
		return strings.Index(text, t.literal)
	case len(t.words) > 0:
		low := strings.ToLower(text)
		first := -1
		for _, w := range t.words {
			if at := wordIndex(low, string(w)); at >= 0 && (first < 0 || at < first) {
				first = at
			}
		}
		if len(low) == len(text) {
			return first
		}
	}
	return -1
}

func firstMatch(re *regexp.Regexp, text string) int {
	if at := re.FindStringIndex(text); at != nil {
		return at[0]
	}
	return -1
}
