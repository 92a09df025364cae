package rules

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A ruleTest is a test inside a rule file: a mail and what the rules should make of it.
type ruleTest struct {
	name    string
	pos     spot
	message string // a file with the mail, relative to the rule file
	// received is when the mail comes: where that has no zone the one of the step is meant. "" leaves it unknown.
	received string
	mail     testMail
	hit      []named
	miss     []named
	// What is expected by recipient; "" is for all others.
	verdicts, folders, scores map[string]expectation
}

// An expectation is what a test expects for a recipient, "" for all.
type expectation struct {
	rcpt, value string
	at          spot
}

// A testMail is a mail written in a test. What is not given is unknown or empty.
type testMail struct {
	from       string
	rcpts      []string
	ip         netip.Addr
	clientName string
	login      string
	trusted    bool
	tls        string
	helo       string
	headers    []pipeline.Edit
	headerFrom string
	body       string
	facts      []testFact
}

// A testFact is what a test says that a step has found.
type testFact struct {
	step   named
	fields []testField
}

type testField struct {
	named
	value ast.Node
}

// A named is a name with its place.
type named struct {
	name string
	at   spot
}

func (r *reader) testList(n ast.Node) {
	for _, item := range r.items(n, "`tests`") {
		r.test(item)
	}
}

func (r *reader) test(n ast.Node) {
	t := &ruleTest{pos: r.src.spotOf(n)}
	has := map[string]bool{}
	for _, e := range r.mapping(n, "a test", []string{"name", "message", "mail", "received", "expect"}) {
		has[e.name] = true
		switch e.name {
		case "name":
			t.name, _ = r.text(e)
		case "message":
			t.message, _ = r.text(e)
		case "mail":
			r.mail(t, e.value)
		case "received":
			t.received, _ = r.text(e)
			if _, err := clock(t.received, time.UTC); err != nil && t.received != "" {
				r.at(e.value, fmt.Sprintf("%q is no time", t.received), "write for example `received: 2026-11-21 23:10`, or `2026-11-21T23:10:00+01:00`")
				t.received = ""
			}
		case "expect":
			r.expect(t, e.value)
		}
	}
	switch {
	case len(has) == 0:
		return
	case has["message"] && has["mail"]:
		r.at(n, "a test has `mail` or `message`, not both", "make two tests of it")
	case !has["message"] && !has["mail"]:
		r.at(n, "the test has no mail", "add `mail: {…}`, or `message: ` with a file")
	}
	if !has["expect"] {
		r.at(n, "the test expects nothing", "add `expect: {hit: […], verdict: …}`")
	}
	r.tests = append(r.tests, t)
}

func (r *reader) mail(t *ruleTest, n ast.Node) {
	m := &t.mail
	for _, e := range r.mapping(n, "`mail`", []string{"from", "rcpts", "client", "helo", "headers", "header_from", "body", "facts"}) {
		switch e.name {
		case "from":
			m.from, _ = r.text(e)
		case "helo":
			m.helo, _ = r.text(e)
		case "header_from":
			m.headerFrom, _ = r.text(e)
		case "body":
			m.body, _ = r.text(e)
		case "rcpts":
			for _, x := range r.names(e) {
				m.rcpts = append(m.rcpts, x.name)
			}
		case "client":
			r.client(m, e.value)
		case "headers":
			for _, f := range r.mapping(e.value, "`headers`", nil) {
				if text, ok := scalar(f.value); ok {
					m.headers = append(m.headers, pipeline.Edit{Name: f.name, Value: text})
					continue
				}
				r.at(f.value, fmt.Sprintf("the value of `%s` is text, not %s", f.name, describe(f.value)), "")
			}
		case "facts":
			for _, f := range r.mapping(e.value, "`facts`", nil) {
				fact := testFact{step: named{f.name, r.src.spotOf(f.key)}}
				for _, x := range r.mapping(f.value, "`"+f.name+"`", nil) {
					fact.fields = append(fact.fields, testField{named{x.name, r.src.spotOf(x.key)}, x.value})
				}
				m.facts = append(m.facts, fact)
			}
		}
	}
}

// clock reads a time, in a zone unless it names one.
func clock(s string, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	return time.Parse(time.RFC3339, s)
}

func (r *reader) client(m *testMail, n ast.Node) {
	for _, e := range r.mapping(n, "`client`", []string{"ip", "name", "login", "trusted", "tls"}) {
		if e.name == "trusted" {
			m.trusted = r.boolean(e)
			continue
		}
		text, ok := r.text(e)
		if !ok {
			continue
		}
		switch e.name {
		case "ip":
			ip, err := netip.ParseAddr(text)
			if err != nil {
				r.at(e.value, fmt.Sprintf("%q is no IP address", text), "write for example `ip: 192.0.2.1`")
			}
			m.ip = ip
		case "name":
			m.clientName = text
		case "login":
			m.login = text
		case "tls":
			m.tls = text
		}
	}
}

func (r *reader) expect(t *ruleTest, n ast.Node) {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 0 {
		r.at(n, "the test expects nothing", "add `expect: {hit: […], verdict: …}`")
	}
	for _, e := range r.mapping(n, "`expect`", []string{"hit", "miss", "verdict", "folder", "score"}) {
		switch e.name {
		case "hit":
			t.hit = r.names(e)
		case "miss":
			t.miss = r.names(e)
		case "folder":
			t.folders = r.perRecipient(e)
		case "score":
			t.scores = r.perRecipient(e)
			for _, x := range t.scores {
				if f, err := strconv.ParseFloat(x.value, 64); err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
					r.report(x.at, r.rule, fmt.Sprintf("`score` is a number, not `%s`", shorten(x.value, 40)), "")
				}
			}
		case "verdict":
			t.verdicts = r.perRecipient(e)
			for _, x := range t.verdicts {
				var a pipeline.Action
				if err := a.UnmarshalText([]byte(x.value)); err != nil {
					r.report(x.at, r.rule, fmt.Sprintf("there is no verdict `%s`", x.value), didYouMean(x.value, append(finals(), "pass")))
				}
			}
		}
	}
}

// perRecipient reads what is expected for all recipients, or a mapping of what is for each.
func (r *reader) perRecipient(e entry) map[string]expectation {
	out := map[string]expectation{}
	read := r.text
	if e.name == "score" {
		read = r.plainText
	}
	m, ok := e.value.(*ast.MappingNode)
	if !ok {
		if text, ok := read(e); ok {
			out[""] = expectation{"", text, r.src.spotOf(e.value)}
		}
		return out
	}
	for _, x := range r.mapping(m, "`"+e.name+"`", nil) {
		a, err := mime.ParseAddress(x.name)
		if err != nil {
			r.at(x.key, fmt.Sprintf("%q is no address", x.name), "")
			continue
		}
		if text, ok := read(x); ok {
			out[a.String()] = expectation{a.String(), text, r.src.spotOf(x.value)}
		}
	}
	return out
}

// plainText reads a value that is text, or a number.
func (r *reader) plainText(e entry) (string, bool) {
	switch e.value.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return scalar(e.value)
	}
	return r.text(e)
}

// names reads a list of names, or one alone.
func (r *reader) names(e entry) []named {
	items := []ast.Node{e.value}
	if _, ok := e.value.(*ast.SequenceNode); ok {
		items = r.items(e.value, "`"+e.name+"`")
	}
	var out []named
	for _, n := range items {
		if text, ok := r.text(entry{e.name, e.key, n}); ok {
			out = append(out, named{text, r.src.spotOf(n)})
		}
	}
	return out
}

// checkTests says which tests speak of rules, steps and facts that there are not.
func (s *ruleset) checkTests(r *reporter) {
	rules := s.ruleNames()
	for _, t := range s.tests {
		for _, x := range slices.Concat(t.hit, t.miss) {
			if !slices.Contains(rules, x.name) && !s.torn {
				r.report(x.at, "", fmt.Sprintf("there is no rule `%s`", x.name), didYouMean(x.name, rules))
			}
		}
		for _, f := range t.mail.facts {
			step, ok := s.scope.steps[f.step.name]
			if !ok && s.scope.gaps.hides(f.step.name) {
				continue
			}
			if !ok || step.shape == nil {
				r.report(f.step.at, "", fmt.Sprintf("no step `%s` before this one finds facts", f.step.name), didYouMean(f.step.name, s.scope.factSteps()))
				continue
			}
			for _, x := range f.fields {
				t, ok := step.shape.typ.fields[x.name]
				if !ok {
					r.report(x.at, "", noMember(f.step.name, step.shape.typ, x.name), "")
					continue
				}
				if text, ok := scalar(x.value); ok && t.values != nil && !t.can(text) {
					name := f.step.name + "." + x.name
					r.report(x.at, "", fmt.Sprintf("`%s` is never %q", name, text), t.why(name))
				}
			}
		}
	}
}
