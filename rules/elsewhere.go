package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"sluice/pipeline/lookalike"
)

// elsewhereOperator is what rules write for an operator as other languages and filters have it, "" for none.
func elsewhereOperator(s string) string {
	switch strings.ToLower(s) {
	case "is", "equals", "equal", "eq":
		return "=="
	case "ne", "<>":
		return "!="
	case "gt":
		return ">"
	case "ge":
		return ">="
	case "lt":
		return "<"
	case "le":
		return "<="
	case "&":
		return "and"
	case "|":
		return "or"
	case "~", "=~", "regex", "regexp", "match":
		return "matches"
	case "like", "has", "contain", "include", "includes", "containing":
		return "contains"
	case "starts", "begins", "starts_with", "begins_with", "startswith":
		return "startsWith"
	case "ends", "ends_with", "endswith":
		return "endsWith"
	}
	return ""
}

// elsewhereName says what rules have for a name that stands for something in other filters, "" for nothing.
func elsewhereName(s string) string {
	switch strings.ToLower(s) {
	case "body", "content":
		return "what there is to read is `text`, its source `html`"
	case "sender", "envelope_from", "mail_from", "mailfrom", "return_path":
		return "the envelope's sender is `from.address`"
	case "to", "recipient", "rcpt_to", "envelope_to":
		return `the recipient is rcpt.address; the field is header("To")`
	case "recipients":
		return "all of them are `rcpts`"
	case "cc", "reply_to":
		return fmt.Sprintf("a field of the header is header(%q)", map[string]string{"cc": "Cc", "reply_to": "Reply-To"}[strings.ToLower(s)])
	case "ip", "client_ip", "remote_ip", "address":
		return "the client's address is `client.ip`"
	case "url", "urls", "uri", "uris", "link":
		return `ask any(links, .domain == "example.org")`
	case "mail", "msg", "message", "email":
		return "what a mail has stands by itself: subject, text, size"
	case "today", "yesterday", "time":
		return "the only clock is `received`: date < received - days(1)"
	}
	return ""
}

// elsewhereField is the field that rules have for one of another name.
func elsewhereField(s string) string {
	switch strings.ToLower(s) {
	case "user", "localpart", "local_part", "mailbox":
		return "local"
	case "host", "hostname", "filename", "display_name":
		return "name"
	case "ext":
		return "extension"
	case "addr", "email":
		return "address"
	case "mime", "content_type", "mimetype":
		return "type"
	}
	return ""
}

// elsewhereFunction says what rules have for a function that they have not, "" for nothing.
func elsewhereFunction(s string) string {
	switch s {
	case "now", "date", "timezone":
		return "rules have no clock but `received`, when the mail came: date > received + days(2), received.hour < 6"
	case "duration":
		return "write days(2), hours(12) or minutes(30)"
	case "map", "filter", "find", "findIndex", "findLast", "findLastIndex", "groupBy", "reduce", "sum", "first", "last":
		return "ask any(list, .field …), or count(list, .field …) for how many"
	case "split", "splitAfter", "join", "concat", "repeat", "replace":
		return "compare with contains, startsWith, endsWith or matches"
	case "exists":
		return `write has("Field") for a field of the header, known(step.field) for a fact`
	}
	return ""
}

// unexpected says what to write for a token that a condition cannot have in this place, before being the text up to it.
func unexpected(kind, tok, before string) string {
	if tok == ">" && strings.HasSuffix(before, "<") {
		return "write `!=`"
	}
	if kind == "Operator" && slices.Contains(operators(), tok) && tok != "not" {
		return fmt.Sprintf("`%s` stands between two values", tok)
	}
	if op := elsewhereOperator(tok); op != "" {
		return fmt.Sprintf("write `%s`", op)
	}
	switch kind {
	case "Identifier":
		if best := lookalike.Nearest(tok, []string{"and", "or", "in", "contains", "matches", "startsWith", "endsWith"}); best != "" && len(tok) > 2 {
			return fmt.Sprintf("did you mean `%s`?", best)
		}
		if tok == "between" {
			return "compare with >= and <="
		}
	case "Number":
		return "addresses and networks are text, in quotes"
	}
	return ""
}

// method says what to write for x.name(…): values have fields here, and no functions of their own.
func (c *conditionChecker) method(n *ast.CallNode) string {
	m, ok := n.Callee.(*ast.MemberNode)
	if !ok {
		return c.functionList()
	}
	name, ok := m.Property.(*ast.StringNode)
	if !ok {
		return c.functionList()
	}
	op := name.Value
	if slices.ContainsFunc(operators(), func(s string) bool { return strings.EqualFold(s, op) }) || elsewhereOperator(op) != "" {
		if best := lookalike.Nearest(op, operators()); strings.EqualFold(best, op) {
			op = best
		} else {
			op = elsewhereOperator(op)
		}
		if len(n.Arguments) == 1 {
			return fmt.Sprintf("write %s %s %s", c.source(m.Node), op, c.source(n.Arguments[0]))
		}
	}
	if isLength(name.Value) {
		return fmt.Sprintf("write len(%s)", c.source(m.Node))
	}
	if slices.Contains(allFunctions(), name.Value) {
		return fmt.Sprintf("write %s(%s)", name.Value, strings.Join(append([]string{c.source(m.Node)}, c.sources(n.Arguments)...), ", "))
	}
	return c.functionList()
}

func (c *conditionChecker) sources(nodes []ast.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, c.source(n))
	}
	return out
}

// isLength reports whether other languages call the length of something so.
func isLength(s string) bool {
	return s == "length" || s == "len" || s == "size" || s == "count"
}

var (
	noItem   = regexp.MustCompile(`^index out of range: (-?\d+) \(array length is (\d+)\)$`)
	noNumber = regexp.MustCompile(`(?s)^invalid operation: (int|float)\((.*)\)$`)
)

// failure says in plainer words why a term failed while it ran.
func failure(text string) string {
	if m := noItem.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("there is no item %s: the list has %s, counted from 0", m[1], m[2])
	}
	if m := noNumber.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%q is no %s", shorten(m[2], 60), map[string]string{"int": "whole number", "float": "number"}[m[1]])
	}
	if strings.HasSuffix(text, "divide by zero") {
		return "it divides by zero"
	}
	return text
}
