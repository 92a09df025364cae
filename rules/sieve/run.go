package sieve

import (
	"context"
	"slices"
	"strings"
	"time"

	"sluice/pipeline/mime"
)

// A flow says where a run goes on after a command.
type flow uint8

const (
	next   flow = iota
	stop        // the run is over
	leave       // the script is over; one that included it goes on
	broken      // out of the loop that run.leaving names
	failed      // run.failure says why
)

// A run is one run of a script over a mail.
type run struct {
	ctx    context.Context
	in     Input
	limits Limits

	mail     *message
	came     *mime.Message // the mail as it came, whatever is made of it
	edits    int           // changes of the mail
	asked    int           // programs run
	actions  []Action
	marks    []Mark
	notes    []Line
	implicit bool     // the implicit keep stands
	flags    []string // the internal variable of RFC 5232

	matching matcher // of the test at hand
	frame    *frame
	globals  map[string]string
	memory   int // octets of variables
	depth    int // of blocks, for the trace
	included map[Included]bool
	loops    []*loop // foreverypart, the innermost last
	leaving  string  // the loop that break leaves, "" the innermost

	spent     int
	redirects int
	notifies  int
	failure   *Failure
	log       []Line
	trace     []Line
	cut       bool   // the trace is full
	why       string // what the test at hand found, for the trace
}

// A loop is a foreverypart that is running.
type loop struct {
	name string
	part *mime.Part
}

// A frame is what belongs to one script while it runs.
type frame struct {
	unit    *unit
	vars    map[string]string
	globals map[string]bool // names that mean global variables here
	match   []string        // RFC 5229, 3.2; [0] is the whole
}

func newRun(ctx context.Context, s *Script, in Input) *run {
	if in.Now.IsZero() {
		in.Now = time.Unix(0, 0).UTC()
	}
	r := &run{
		ctx: ctx, in: in, limits: s.limits, mail: newMail(in.Message), implicit: true, flags: in.Flags,
	}
	r.came = r.mail.src
	return r
}

// script runs a script in a frame of its own.
func (r *run) script(u *unit) flow {
	outer := r.frame
	r.frame = &frame{unit: u}
	defer func() {
		for _, v := range r.frame.vars {
			r.memory -= len(v)
		}
		r.frame = outer
	}()
	f := r.commands(u.body)
	if f == leave {
		return next
	}
	return f
}

func (r *run) commands(list []*call) flow {
	for _, n := range list {
		if !r.spend(n, 1) {
			return failed
		}
		if f := n.form.run(r, n); f != next {
			return f
		}
		if r.failure != nil {
			return failed
		}
	}
	return next
}

// block runs the block of a command.
func (r *run) block(n *call) flow {
	r.depth++
	defer func() { r.depth-- }()
	return r.commands(n.block)
}

// test asks a test. After a failure it is false, and run.failure is set.
func (r *run) test(n *call) bool {
	if !r.spend(n, 1) {
		return false
	}
	held := n.form.holds(r, n)
	if r.failure != nil {
		return false
	}
	return held
}

// spend takes from the budget of instructions; false: it is used up.
func (r *run) spend(n *call, cost int) bool {
	before := r.spent
	r.spent += cost
	if r.spent > r.limits.Instructions {
		r.fail(n, "the script does more than %d instructions", r.limits.Instructions)
		return false
	}
	const often = 1 << 10
	if before/often != r.spent/often && r.ctx.Err() != nil {
		r.fail(n, "there is no time left: %v", context.Cause(r.ctx))
		return false
	}
	return r.failure == nil
}

// fail ends the run: what was asked for so far is forgotten, and the mail is kept. Only the first failure counts.
func (r *run) fail(n *call, format string, args ...any) flow {
	if r.failure == nil {
		r.failure = &Failure{Script: n.unit.name, Line: n.line, Text: sprintf(format, args...)}
		r.say(n, "error: %s", r.failure.Text)
	}
	return failed
}

// say adds a line to the trace.
func (r *run) say(n *call, format string, args ...any) {
	if !r.in.Trace || r.cut {
		return
	}
	if len(r.trace) == r.limits.Trace {
		r.cut = true
		format, args = "… and more: the trace is cut here", nil
	}
	r.trace = append(r.trace, Line{n.unit.name, n.line, r.depth, clipTo(strings.ToValidUTF8(sprintf(format, args...), "\ufffd"), 500)})
}

// because keeps what the test at hand has found, for the trace.
func (r *run) because(format string, args ...any) {
	if r.in.Trace {
		r.why = sprintf(format, args...)
	}
}

// add asks for an action. Tags of the command that have a say in it have it.
func (r *run) add(n *call, a Action) flow {
	a.Script, a.Line = n.unit.name, n.line
	for i := range n.given {
		if g := &n.given[i]; g.tag.apply != nil {
			if g.tag.apply(r, n, &g.value, &a); r.failure != nil {
				return failed
			}
		}
	}
	if a.Message = r.mail.now(); a.Content != nil {
		a.Message = nil
	}
	if (a.Kind == Keep || a.Kind == FileInto && a.Content == nil) && a.Flags == nil {
		a.Flags = r.flags // RFC 5232, 2: without :flags those of the internal variable
	}
	if wrong := r.conflict(a); wrong != "" {
		return r.fail(n, "%s", wrong)
	}
	if !a.Copy && takesKeep(a.Kind) {
		r.implicit = false
	}
	if i := slices.IndexFunc(r.actions, a.same); i >= 0 {
		// RFC 5228, 2.10.3: the same thing twice is once; flags add up.
		r.actions[i].Flags = merge(r.actions[i].Flags, a.Flags)
		r.actions[i].Create = r.actions[i].Create || a.Create
		return next
	}
	if len(r.actions) == r.limits.Actions {
		return r.fail(n, "the script asks for more than %d actions", r.limits.Actions)
	}
	if a.Kind == Redirect {
		if r.redirects++; r.redirects > r.limits.Redirects {
			return r.fail(n, "the script redirects more than %d times", r.limits.Redirects)
		}
	}
	r.actions = append(r.actions, a)
	return next
}

// takesKeep reports whether an action of this kind takes the implicit keep away (RFC 5228, 2.10.2).
func takesKeep(k Kind) bool { return k != Vacation && k != Notify }

// same reports whether b does what a does already.
func (a Action) same(b Action) bool {
	if a.Kind != b.Kind || a.Message != b.Message {
		return false
	}
	switch a.Kind {
	case Keep, Discard:
		return true
	case FileInto:
		return a.Content == nil && b.Content == nil && a.Folder == b.Folder && a.MailboxID == b.MailboxID && a.SpecialUse == b.SpecialUse
	case Redirect:
		return strings.EqualFold(a.Address, b.Address)
	}
	return false
}

func merge(a, b []string) []string {
	for _, x := range b {
		if !slices.ContainsFunc(a, func(y string) bool { return strings.EqualFold(x, y) }) {
			a = append(slices.Clip(a), x)
		}
	}
	return a
}

// outcome ends the run.
func (r *run) outcome() Outcome {
	o := Outcome{Failure: r.failure, Log: r.log, Notes: r.notes, Trace: r.trace, Instructions: r.spent}
	switch {
	case r.failure != nil:
		o.Actions = []Action{{Kind: Keep, Implicit: true}}
	case r.implicit:
		o.Actions = append(r.actions, Action{Kind: Keep, Implicit: true, Flags: r.flags, Message: r.mail.now()})
		o.Marks = r.marks
	default:
		o.Actions, o.Marks = r.actions, r.marks
		soles(o.Actions)
	}
	return o
}

// soles marks the programs that alone have taken the implicit keep away, where nothing else has.
func soles(actions []Action) {
	for _, a := range actions {
		if a.Kind != Pipe && !a.Copy && takesKeep(a.Kind) {
			return
		}
	}
	for i := range actions {
		actions[i].Sole = actions[i].Kind == Pipe && !actions[i].Copy
	}
}

// text is the value of a string argument, variables expanded.
func (r *run) text(v *value) string {
	if v == nil || len(v.texts) == 0 {
		return ""
	}
	return r.expand(v.texts[0])
}

// texts are the values of a list of strings.
func (r *run) texts(v *value) []string {
	if v == nil {
		return nil
	}
	all := make([]string, len(v.texts))
	for i, p := range v.texts {
		all[i] = r.expand(p)
	}
	return all
}

// clipTo shortens a text to so many octets.
func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
