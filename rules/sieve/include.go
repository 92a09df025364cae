package sieve

import (
	"errors"
	"strings"
)

var errNoScript = errors.New("there is no such script")

// includeExtension: RFC 6609.
func includeExtension() []extension {
	return []extension{{
		name: "include",
		commands: []form{
			{
				name: "include", check: checkInclude, run: runInclude,
				tags: []tag{{name: "personal", group: "place"}, {name: "global", group: "place"}, {name: "once"}, {name: "optional"}},
				args: []positional{{name: "name of a script", shape: text, constant: true}},
			},
			{name: "return", run: func(r *run, n *call) flow { r.say(n, "return"); return leave }},
			{
				name: "global", args: []positional{{name: "names of variables", shape: texts, constant: true}},
				check: checkGlobal, run: runGlobal,
			},
		},
	}}
}

// An inclusion is what an include command comes to.
type inclusion struct {
	what Included
	unit *unit // nil: it is not there
}

func checkInclude(c *checker, n *call) {
	v := &n.args[0]
	what := Included{Global: n.has("global"), Name: v.texts[0].fixed}
	if wrong := badScriptName(what.Name); wrong != "" {
		c.report(v.at, wrong, "")
		return
	}
	n.extra = &inclusion{what: what}
	b := c.b
	u, known := b.units[what]
	switch {
	case known && u == nil:
		c.report(v.at, sprintf("%q includes itself, directly or by way of others", clip(what.Name)), "")
		return
	case known:
		n.extra.(*inclusion).unit = u
		return
	case b.depth == c.limits.IncludeDepth:
		c.report(v.at, sprintf("scripts include each other deeper than %d", c.limits.IncludeDepth), "")
		return
	case len(b.included) == c.limits.Includes:
		c.report(v.at, sprintf("more than %d scripts are included", c.limits.Includes), "")
		return
	}
	text, err := []byte(nil), errNoScript
	if b.options.Include != nil {
		text, err = b.options.Include(what.Global, what.Name)
	}
	if err != nil {
		b.included = append(b.included, Included{what.Global, what.Name, true})
		if n.has("optional") {
			return
		}
		said := sprintf("the script %q cannot be included: %v", clip(what.Name), err)
		if b.options.Unchecked {
			c.warn(v.at, said, "write include :optional where it need not be there")
		} else {
			c.report(v.at, said, "write include :optional where it need not be there")
		}
		return
	}
	b.included = append(b.included, what)
	b.units[what] = nil
	b.depth++
	name := what.Name
	if what.Global {
		name = "global " + name
	}
	u = b.compile(name, string(text))
	b.depth--
	b.units[what] = u
	n.extra.(*inclusion).unit = u
}

// badScriptName: RFC 5804, 1.6 says what names scripts can have; here they are also no paths.
func badScriptName(name string) string {
	const most = 512
	if name == "" {
		return "the name of the script is empty"
	}
	if len(name) > most {
		return sprintf("the name of the script has %d octets; %d are allowed", len(name), most)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '/' || r == '\u2028' || r == '\u2029' || r >= 0x80 && r < 0xa0 {
			return sprintf("the name of the script has the character %q", r)
		}
	}
	return ""
}

func runInclude(r *run, n *call) flow {
	x := n.extra.(*inclusion)
	switch {
	case x.unit == nil && n.has("optional"):
		r.say(n, "include %q: it is not there", x.what.Name)
		return next
	case x.unit == nil:
		return r.fail(n, "the script %q cannot be included: it was not there", clip(x.what.Name))
	case n.has("once") && r.included[x.what]:
		r.say(n, "include %q: it has run already", x.what.Name)
		return next
	}
	if r.included == nil {
		r.included = map[Included]bool{}
	}
	r.included[x.what] = true
	r.say(n, "include %q", x.what.Name)
	r.depth++
	defer func() { r.depth-- }()
	f := r.script(x.unit)
	if f == broken {
		return next // a loop of the including script is none of its own
	}
	return f
}

func checkGlobal(c *checker, n *call) {
	if !c.unit.has["variables"] {
		c.missing(n.at, "global", []string{"variables"})
		return
	}
	var names []string
	for i := range n.args[0].texts {
		v := n.args[0]
		v.texts = v.texts[i : i+1]
		v.at = v.texts[0].at
		name := c.variableName(&v)
		if space, _, dotted := strings.Cut(name, "."); dotted && space == "global" {
			c.report(v.at, "a name that begins with global. is a global variable by itself", "leave it out here")
		}
		names = append(names, name)
	}
	n.extra = names
}

func runGlobal(r *run, n *call) flow {
	names, _ := n.extra.([]string)
	if r.frame.globals == nil {
		r.frame.globals = map[string]bool{}
	}
	for _, name := range names {
		r.frame.globals[name] = true
	}
	return next
}
