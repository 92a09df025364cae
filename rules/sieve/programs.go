package sieve

import (
	"bytes"
	"io"
	"slices"
	"strings"
)

// programExtensions: Pigeonhole's pipe, filter and execute, for programs that the site lists.
func programExtensions() []extension {
	args := []positional{{name: "name of a program", shape: text, constant: true}, {name: "arguments", shape: texts, optional: true}}
	filter := form{name: "filter", args: args, check: checkProgram}
	filterTest := filter
	filter.run = func(r *run, n *call) flow { r.filter(n); return r.went() }
	filterTest.holds = func(r *run, n *call) bool { return r.filter(n) }
	execute := form{
		name: "execute", args: args, check: checkExecute,
		tags: []tag{{name: "input", takes: text, group: "what the program reads"}, {name: "pipe", group: "what the program reads"},
			{name: "output", takes: text, constant: true}},
	}
	executeTest := execute
	execute.run = func(r *run, n *call) flow { r.execute(n); return r.went() }
	executeTest.holds = func(r *run, n *call) bool { return r.execute(n) }
	return []extension{
		{name: "vnd.dovecot.pipe", commands: []form{{name: "pipe", tags: []tag{{name: "try"}}, args: args, check: checkProgram, run: runPipe}}},
		{name: "vnd.dovecot.filter", commands: []form{filter}, tests: []form{filterTest}},
		{name: "vnd.dovecot.execute", commands: []form{execute}, tests: []form{executeTest}},
		{name: "copy", tags: []tagOn{{on: []string{"pipe"}, tag: tag{name: "copy", apply: func(_ *run, _ *call, _ *value, a *Action) { a.Copy = true }}}}},
	}
}

// Bounds of what programs are called with.
const (
	mostArguments = 64
	argumentSize  = 8 << 10 // octets
)

func checkProgram(c *checker, n *call) {
	if c.b.options.Programs == nil || !n.args[0].texts[0].constant() {
		return
	}
	var names []string
	switch n.form.name {
	case "pipe":
		names = c.b.options.Programs.Pipe
	case "filter":
		names = c.b.options.Programs.Filter
	case "execute":
		names = c.b.options.Programs.Execute
	}
	p := n.args[0].texts[0]
	switch {
	case c.b.options.Programs.Unknown:
		c.warn(p.at, sprintf("it is not known here whether the site lists a program %q for %s", clip(p.fixed), n.form.name), "")
	case !slices.Contains(names, p.fixed):
		remedy := didYouMean(p.fixed, names)
		if len(names) == 0 {
			remedy = "the site lists none"
		}
		c.report(p.at, sprintf("there is no program %q for %s", clip(p.fixed), n.form.name), remedy)
	}
	if n.args[1].is != nothing && len(n.args[1].texts) > mostArguments {
		c.report(n.args[1].at, sprintf("a program takes at most %d arguments", mostArguments), "")
	}
}

func checkExecute(c *checker, n *call) {
	checkProgram(c, n)
	if v := n.tag("output"); v != nil {
		if !c.unit.has["variables"] {
			c.missing(v.at, ":output", []string{"variables"})
			return
		}
		n.extra = c.variableName(v)
	}
}

// program is the call of a program; false: the run has failed.
func (r *run) program(n *call) (Program, bool) {
	p := Program{Use: n.form.name, Name: r.text(&n.args[0]), Envelope: r.in.Envelope, Account: r.in.Account}
	if n.args[1].is != nothing {
		p.Arguments = r.texts(&n.args[1])
	}
	for _, s := range p.Arguments {
		if len(s) > argumentSize || strings.ContainsAny(s, "\x00\r\n") {
			r.fail(n, "an argument of %q has more than %d octets, or a line end", p.Name, argumentSize)
			return p, false
		}
	}
	return p, r.spend(n, 100)
}

// runPipe asks for the mail to be handed to a program: that is done afterwards, with everything else.
func runPipe(r *run, n *call) flow {
	p, ok := r.program(n)
	if !ok {
		return failed
	}
	r.say(n, "pipe to the program %q", p.Name)
	return r.add(n, Action{Kind: Pipe, Program: p.Name, Arguments: p.Arguments, Try: n.has("try")})
}

// ask runs a program now. That it fails is no failure of the script (extprograms, 6 and 7), but it is noted.
func (r *run) ask(n *call, p Program) ([]byte, bool) {
	if r.in.Programs == nil {
		r.note(n, "%s: the program %q is not run here", p.Use, p.Name)
		return nil, false
	}
	if r.asked++; r.asked > r.limits.Programs {
		r.fail(n, "the script runs programs more than %d times", r.limits.Programs)
		return nil, false
	}
	out, err := r.in.Programs.Run(r.ctx, p)
	if err != nil {
		r.note(n, "%s: the program %q: %v", p.Use, p.Name, err)
		return nil, false
	}
	return out, true
}

// filter makes of the mail what a program makes of it.
func (r *run) filter(n *call) bool {
	p, ok := r.program(n)
	if !ok {
		return false
	}
	p.Input = r.mail.src.Raw()
	out, ok := r.ask(n, p)
	if !ok {
		return false
	}
	// extprograms, 6: who fails to provide message output leaves the mail as it is.
	if len(bytes.TrimSpace(out)) == 0 {
		r.note(n, "filter: the program %q has written nothing: the mail stays as it is", p.Name)
		return false
	}
	if !r.spendEdit(n, len(out)) {
		return false
	}
	out = []byte(crlf(string(out)))
	made, err := r.mail.current().assemble(chunk{data: out})
	switch {
	case err != nil:
		r.note(n, "filter: what the program %q has written cannot be read as a mail, which stays as it is: %v", p.Name, err)
		return false
	case len(made.message.Header().Fields()) == 0:
		r.note(n, "filter: what the program %q has written is no mail, for it begins with no header field: the mail stays as it is", p.Name)
		return false
	}
	if !r.edit(n, func(*draft) (*draft, error) { return made, nil }) {
		return false
	}
	r.say(n, "filter: the mail is what the program %q has written, %d octets", p.Name, len(out))
	return true
}

// execute runs a program beside the mail.
func (r *run) execute(n *call) bool {
	p, ok := r.program(n)
	if !ok {
		return false
	}
	if v := n.tag("input"); v != nil {
		p.Input = strings.NewReader(r.text(v))
	} else if n.has("pipe") {
		p.Input = io.Reader(r.mail.src.Raw())
	}
	out, ok := r.ask(n, p)
	if !ok {
		return false
	}
	r.say(n, "execute: the program %q has written %q", p.Name, clipTo(string(out), 100))
	if name, named := n.extra.(string); named {
		r.set(n, name, strings.ToValidUTF8(string(out), "\ufffd"))
	}
	return r.failure == nil
}
