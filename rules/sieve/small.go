package sieve

import "strings"

// smallExtensions are those that only add tags to what is there.
func smallExtensions() []extension {
	matching := []string{"*"}
	return []extension{
		{ // RFC 5231
			name: "relational",
			tags: []tagOn{
				{on: matching, tag: tag{name: "count", takes: text, constant: true, group: "match type"}},
				{on: matching, tag: tag{name: "value", takes: text, constant: true, group: "match type"}},
			},
		},
		{ // draft-murchison-sieve-regex, as Pigeonhole has it
			name: "regex",
			tags: []tagOn{{on: matching, tag: tag{name: "regex", group: "match type"}}},
		},
		{ // RFC 5233
			name: "subaddress",
			tags: []tagOn{
				{on: []string{"address", "envelope"}, tag: tag{name: "user", group: "part"}},
				{on: []string{"address", "envelope"}, tag: tag{name: "detail", group: "part"}},
			},
		},
		{ // RFC 3894
			name: "copy",
			tags: []tagOn{{
				on: []string{"fileinto", "redirect"},
				tag: tag{name: "copy", apply: func(_ *run, _ *call, _ *value, a *Action) {
					a.Copy = true
				}},
			}},
		},
		{ // RFC 5260, 6
			name: "index",
			tags: []tagOn{
				{on: []string{"header", "address", "date"}, tag: tag{name: "index", takes: number, check: checkIndex}},
				{on: []string{"header", "address", "date"}, tag: tag{name: "last", needs: "index"}},
			},
		},
		{ // RFC 5463
			name: "ihave",
			commands: []form{{
				name: "error", args: []positional{{name: "text", shape: text}},
				run: func(r *run, n *call) flow { return r.fail(n, "the script says: %s", clipTo(r.text(&n.args[0]), 1000)) },
			}},
			tests: []form{{
				name: "ihave", args: []positional{{name: "extensions", shape: texts, constant: true}}, check: checkIhave,
				holds: func(_ *run, n *call) bool { return n.always == yes },
			}},
		},
		{ // vnd.dovecot.debug: Pigeonhole's
			name: "vnd.dovecot.debug",
			commands: []form{{
				name: "debug_log", args: []positional{{name: "text", shape: text}}, run: runDebugLog,
			}},
		},
		{ // RFC 5183
			name: "environment",
			tests: []form{{
				name: "environment", tags: matchTags(), matches: true, holds: environmentTest,
				args: []positional{{name: "item", shape: text}, {name: "keys", shape: texts}},
			}},
		},
		{name: "vnd.dovecot.environment", with: []string{"environment"}},
		{ // RFC 5235
			name:  "spamtest",
			tests: []form{scoreForm("spamtest", func(in *Input) Score { return in.Spam })},
		},
		{
			name: "spamtestplus", with: []string{"spamtest"},
			tags: []tagOn{{on: []string{"spamtest"}, tag: tag{name: "percent"}}},
		},
		{
			name:  "virustest",
			tests: []form{scoreForm("virustest", func(in *Input) Score { return in.Virus })},
		},
	}
}

// userAndDetail splits a local part (RFC 5233, 4).
func userAndDetail(local string) (user, detail string, ok bool) { return strings.Cut(local, "+") }

func checkIndex(c *checker, _ *call, v *value) {
	if v.number < 1 {
		c.report(v.at, "the first field is :index 1", "")
	}
}

// indexed is what :index leaves of a list of fields.
func indexed[T any](n *call, list []T) []T {
	if len(n.given) == 0 {
		return list
	}
	v := n.tag("index")
	if v == nil {
		return list
	}
	at := v.number - 1
	if n.has("last") {
		at = int64(len(list)) - v.number
	}
	if at < 0 || at >= int64(len(list)) {
		return nil
	}
	return list[at : at+1]
}

// checkIhave decides the test: what is to be had is in force from here on (RFC 5463, 4).
func checkIhave(c *checker, n *call) {
	n.always = yes
	for _, p := range n.args[0].texts {
		e := c.b.extensions[p.fixed]
		basic := p.fixed == "comparator-i;octet" || p.fixed == "comparator-i;ascii-casemap"
		if !basic && (e == nil || e.name == "" || e.grammar && !c.unit.has[e.name]) {
			n.always = no
		}
		if e != nil && e.name == "encoded-character" {
			n.always = no
		}
	}
	if n.always == yes {
		for _, p := range n.args[0].texts {
			c.enable(p.fixed)
		}
	}
}

func runDebugLog(r *run, n *call) flow {
	s := clipTo(r.text(&n.args[0]), 1000)
	if len(r.log) < r.limits.Log {
		r.log = append(r.log, Line{Script: n.unit.name, Line: n.line, Text: s})
	}
	r.say(n, "debug_log %q", s)
	return next
}

func environmentTest(r *run, n *call) bool {
	x := r.matcher(n)
	name := lowerASCII(r.text(&n.args[0]))
	x.where = "environment " + name
	s, ok := r.in.Environment[name]
	if !ok {
		return false // RFC 5183, 4: of what is not known nothing holds
	}
	x.value(s)
	return x.held()
}
