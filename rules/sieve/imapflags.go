package sieve

import (
	"slices"
	"strings"
)

// flagExtensions: RFC 5232.
func flagExtensions() []extension {
	args := []positional{{name: "name of a variable", shape: text, optional: true, constant: true}, {name: "flags", shape: texts}}
	set := func(name string, change func(has, flags []string) []string) form {
		return form{name: name, args: args, check: checkFlagVariable, run: func(r *run, n *call) flow { return r.changeFlags(n, change) }}
	}
	return []extension{{
		name: "imap4flags",
		commands: []form{
			set("setflag", func(_, flags []string) []string { return flags }),
			set("addflag", func(has, flags []string) []string { return flagWords(append(slices.Clone(has), flags...)...) }),
			set("removeflag", withoutFlags),
		},
		tests: []form{{
			name: "hasflag", tags: matchTags(), matches: true, check: checkFlagVariables, holds: hasFlagTest,
			args: []positional{{name: "names of variables", shape: texts, optional: true, constant: true}, {name: "flags", shape: texts}},
		}},
		tags: []tagOn{{on: []string{"keep", "fileinto", "vacation", "notify"}, tag: tag{name: "flags", takes: texts, check: needsFcc, apply: applyFlags}}},
	}}
}

// changeFlags gives the internal variable, or one of the script's, what a change makes of the flags in it.
func (r *run) changeFlags(n *call, change func(has, flags []string) []string) flow {
	flags := flagWords(r.texts(n.arg("flags"))...)
	if !r.spend(n, 1+len(flags)) {
		return failed
	}
	name := "its flags"
	if n.args[0].is == nothing {
		r.flags = change(r.flags, flags)
		flags = r.flags
	} else {
		name = n.extra.(string)
		flags = change(flagWords(r.variable(name)), flags)
		r.set(n, name, strings.Join(flags, " "))
	}
	r.say(n, "%s: %s are %q", n.form.name, name, strings.Join(flags, " "))
	return next
}

func checkFlagVariable(c *checker, n *call) {
	if n.args[0].is != nothing && c.withVariables(n) {
		n.extra = c.variableName(&n.args[0])
	}
}

func checkFlagVariables(c *checker, n *call) {
	if n.args[0].is == nothing || !c.withVariables(n) {
		return
	}
	var names []string
	for i := range n.args[0].texts {
		v := n.args[0]
		v.texts = v.texts[i : i+1]
		names = append(names, c.variableName(&v))
	}
	n.extra = names
}

// withVariables reports a call that names a variable where there are none.
func (c *checker) withVariables(n *call) bool {
	if c.unit.has["variables"] {
		return true
	}
	c.missing(n.args[0].at, "the name of a variable", []string{"variables"})
	return false
}

// hasFlagTest: a key may have several flags, as a variable may (RFC 5232, 4).
func hasFlagTest(r *run, n *call) bool {
	has := r.flags
	if names, ok := n.extra.([]string); ok {
		has = nil
		for _, name := range names {
			has = append(has, flagWords(r.variable(name))...)
		}
	}
	x := r.matcher(n)
	if n.match.how == is && n.match.by != asciiNumeric {
		for _, k := range x.keys {
			for word := range strings.FieldsSeq(k.folded) {
				if !r.spend(n, 1+len(has)) {
					return false
				}
				if slices.ContainsFunc(has, func(f string) bool { return n.match.by.fold(f) == word }) {
					return true
				}
			}
		}
		return false
	}
	for _, f := range has {
		if x.value(f) {
			break
		}
	}
	return x.held()
}

func applyFlags(r *run, _ *call, v *value, a *Action) {
	if a.Kind == Keep || a.Kind == FileInto {
		if a.Flags = flagWords(r.texts(v)...); a.Flags == nil {
			a.Flags = []string{} // none, and not those of the internal variable
		}
	}
}
