package sieve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A stage asks the scripts of a recipient what becomes of the mail.
type stage struct {
	config        Config
	env           pipeline.Env
	before, after []*Script // of the site
	global        map[string][]byte
	reads         []string // steps before it
	cache         *cache
	pending       pending
}

// Reads: where a mail goes may depend on everything.
func (s *stage) Reads() pipeline.Reads {
	return pipeline.Reads{
		Input: pipeline.InputClient | pipeline.InputGreeting | pipeline.InputSender | pipeline.InputRecipient |
			pipeline.InputHeader | pipeline.InputBody,
		Facts:     s.reads,
		Can:       []pipeline.Final{{Action: pipeline.Reject}},
		Waits:     true, // scripts are read, and what was seen before
		AnyClient: true,
	}
}

// A turn is one script of those that run for a mail, one after the other.
type turn struct {
	script *Script
	own    bool     // the recipient's
	failed *Failure // it cannot be run
}

// Check runs the scripts for one recipient.
func (s *stage) Check(ctx context.Context, v pipeline.View) (pipeline.Result, error) {
	return s.ask(ctx, v, false)
}

// Prompt runs them if they are compiled, and ask for nothing that has to be looked up or run elsewhere: most don't, and a
// goroutine of its own would cost more than they do.
func (s *stage) Prompt(ctx context.Context, v pipeline.View) (pipeline.Result, bool) {
	r, err := s.ask(ctx, v, true)
	return r, err == nil
}

// errWaits says of a script that it has to wait for something.
var errWaits = errors.New("it waits")

// ask is Check; where nothing may be waited for it fails instead, with nothing done.
func (s *stage) ask(ctx context.Context, v pipeline.View, prompt bool) (pipeline.Result, error) {
	if err := ctx.Err(); err != nil {
		return pipeline.Result{}, err
	}
	turns, ownName, err := s.turns(ctx, v.Rcpt.Account, prompt)
	if err != nil || len(turns) == 0 {
		return pipeline.Result{}, err
	}
	x := &execution{stage: s, ctx: ctx, view: v, prompt: prompt, ownName: ownName, handling: new(pipeline.Handling)}
	if err := x.run(turns); err != nil {
		x.unclaim()
		return pipeline.Result{}, err
	}
	return x.result(), nil
}

// turns are the scripts for an account: the site's first, its own, the site's last.
func (s *stage) turns(ctx context.Context, account string, prompt bool) (all []turn, ownName string, err error) {
	for _, x := range s.before {
		all = append(all, turn{script: x})
	}
	if account != "" && s.env.Owners != nil {
		own, err := s.compiled(ctx, account, prompt)
		if err != nil {
			return nil, "", err
		}
		if ownName = own.name; ownName != "" {
			all = append(all, turn{own.script, true, own.failed})
		}
	}
	for _, x := range s.after {
		all = append(all, turn{script: x})
	}
	return all, ownName, nil
}

// shown is what people call a script: Pigeonhole's users know files.
func shown(name string) string {
	if strings.HasSuffix(name, ".sieve") {
		return name
	}
	return name + ".sieve"
}

// options are what scripts may use; include gives the personal ones of an account.
func (s *stage) options(include func(name string) ([]byte, error)) Options {
	o := s.config.Options()
	o.Include = func(global bool, name string) ([]byte, error) {
		if !global && include != nil {
			return include(name)
		}
		if text, ok := s.global[name]; global && ok {
			return text, nil
		}
		return nil, errNoScript
	}
	if p, ok := s.env.Owners.(interface{ Programs() *Programs }); ok {
		o.Programs = p.Programs()
	}
	return o
}

// An execution is what scripts make of one mail for one recipient.
type execution struct {
	*stage
	ctx     context.Context
	view    pipeline.View
	prompt  bool   // nothing may be waited for
	ownName string // of the recipient's script

	handling *pipeline.Handling
	verdict  pipeline.Verdict
	marks    []Mark
	claimed  []string // marks that it counts on leaving, see pending
	failures []pipeline.ScriptFailure
	own      ownState
}

// run runs the scripts, each as long as those before leave the mail where it would be without them: with keep, by doing
// nothing else with it, or by failing. A script that fails is passed over as if it were not there.
func (x *execution) run(turns []turn) error {
	in := x.input(func(extension string) bool {
		return slices.ContainsFunc(turns, func(t turn) bool { return t.script != nil && t.script.uses(extension) })
	})
	keep := Action{Kind: Keep, Implicit: true}
	for _, t := range turns {
		if t.failed != nil {
			x.fail(*t.failed)
			continue
		}
		if x.prompt && t.script.waits.Load() {
			return errWaits
		}
		out := t.script.Run(x.ctx, in)
		if err := x.own.err; err != nil {
			t.script.waits.CompareAndSwap(false, errors.Is(err, errWaits))
			return err
		}
		if x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		x.say(out)
		if out.Failure != nil {
			x.fail(*out.Failure)
			continue
		}
		x.marks = append(x.marks, out.Marks...)
		kept := false
		for _, a := range out.Actions {
			if a.Kind == Keep {
				kept, keep = true, a
				continue
			}
			x.add(a, in.Message)
		}
		if err := x.own.err; err != nil { // where a folder is was looked up
			t.script.waits.CompareAndSwap(false, errors.Is(err, errWaits))
			return err
		}
		if !kept {
			return nil
		}
		// What one script makes of the mail is what the next one sees (as in Pigeonhole).
		if keep.Message != nil {
			in.Message = keep.Message
		}
		in.Flags = keep.Flags
	}
	c := pipeline.Copy{Kept: true, Flags: keep.Flags}
	if !keep.Implicit {
		c.By = by(keep)
	}
	c.Message, c.Altered = x.message(in.Message)
	x.handling.Copies = append(x.handling.Copies, c)
	return nil
}

// say keeps what a run says for people.
func (x *execution) say(out Outcome) {
	for _, n := range out.Notes {
		x.handling.Notes = append(x.handling.Notes, fmt.Sprintf("line %d of %s: %s", n.Line, n.Script, n.Text))
	}
	for _, l := range out.Log {
		x.handling.Notes = append(x.handling.Notes, fmt.Sprintf("line %d of %s says: %s", l.Line, l.Script, l.Text))
	}
	if !x.config.Trace {
		return
	}
	for _, l := range out.Trace {
		x.handling.Trace = append(x.handling.Trace, fmt.Sprintf("%s:%d: %s%s", l.Script, l.Line, strings.Repeat("  ", l.Depth), l.Text))
	}
}

// fail notes that a script has failed.
func (x *execution) fail(f Failure) {
	why := fmt.Sprintf("%s, line %d: %s", f.Script, f.Line, f.Text)
	if x.handling.Failed != "" {
		why = x.handling.Failed + "; " + why
	}
	x.handling.Failed = why
	x.tell(f.Script, f.Line, f.Text)
}

func (x *execution) tell(script string, line int, text string) {
	if script == shown(x.ownName) {
		script = x.ownName
	}
	failure := pipeline.ScriptFailure{
		Account: x.view.Rcpt.Account, Script: script, Line: line, Text: text, ID: x.view.ID, Time: x.env.Now(),
	}
	if x.view.Message != nil {
		failure.MessageID = x.view.Message.MessageID()
	}
	x.failures = append(x.failures, failure)
}

// result is what all scripts came to. What is to be remembered is remembered once the mail is ours, and only then: a crash in
// between leads to a reply too many, never to one that is missing.
func (x *execution) result() pipeline.Result {
	if !x.handling.Empty() {
		x.handling.Dropped = ""
	}
	r := pipeline.Result{Handling: x.handling, Verdict: x.verdict, Note: x.handling.Failed}
	if x.verdict.Action != pipeline.Pass {
		r.Handling = nil
	}
	if len(x.marks) == 0 && len(x.claimed) == 0 && len(x.failures) == 0 && len(x.handling.Copies) == 0 && len(x.handling.Runs) == 0 {
		return r
	}
	r.After = func(ctx context.Context, o pipeline.Outcome) {
		defer x.unclaim()
		if !o.Counted || !o.Taken {
			return
		}
		x.remember(ctx, o.Handling)
		x.report(ctx, o.Handling)
	}
	return r
}

// report tells the owner what went wrong, also when the mail was filed.
func (x *execution) report(ctx context.Context, done *pipeline.Handling) {
	if done != nil {
		for _, c := range done.Copies {
			if c.Note != "" {
				script, line := x.placeOf(c.By)
				x.tell(script, line, c.Note)
			}
		}
		for _, p := range done.Runs {
			if p.Ended != "" {
				script, line := x.placeOf(p.By)
				x.tell(script, line, fmt.Sprintf("the program %s has failed: %s", p.Program, p.Ended))
			}
		}
	}
	for _, f := range x.failures {
		if x.env.Owners != nil {
			x.env.Owners.Failed(ctx, f)
		}
	}
}

// placeOf reads what by writes.
func (x *execution) placeOf(by string) (script string, line int) {
	if _, err := fmt.Sscanf(by, "line %d of ", &line); err != nil {
		return x.ownName, 0
	}
	_, script, _ = strings.Cut(by, " of ")
	return script, line
}

// input is what scripts may know. uses reports whether any of them uses an extension: what is for that alone is not
// looked up in vain.
func (x *execution) input(uses func(extension string) bool) Input {
	v := &x.view
	x.own = ownState{x, MailboxesOf(x.ctx, x.env.Owners, v.Rcpt.Account)}
	x.own.atOnce = x.prompt
	in := Input{
		Message: v.Message, Now: v.Received, Account: v.Rcpt.Account, Trace: x.config.Trace,
		Envelope: Envelope{
			From: v.Sender.Raw, To: v.Rcpt.Address.Raw, OriginalTo: v.Rcpt.Original.Raw, Auth: v.Client.Login,
		},
		Mailboxes: &x.own, Seen: &x.own,
	}
	if uses("environment") {
		in.Environment = x.environment()
	}
	if uses("spamtest") {
		in.Spam = x.spam()
	}
	if uses("virustest") {
		in.Virus = x.virus()
	}
	if l, ok := x.env.Owners.(Lists); ok {
		in.Lists = l
		if x.prompt {
			in.Lists = waiting{x.own.Owned}
		}
	}
	if r, ok := x.env.Owners.(Runner); ok {
		in.Programs = r
		if x.prompt {
			in.Programs = waiting{x.own.Owned}
		}
	}
	if x.env.Owners != nil && v.Rcpt.Account != "" && uses("vacation") {
		if in.Own, x.own.err = x.env.Owners.Addresses(x.ctx, v.Rcpt.Account); x.own.err != nil {
			x.own.err = fmt.Errorf("find the addresses of %s: %w", v.Rcpt.Account, x.own.err)
		}
	}
	return in
}

// environment: RFC 5183, 4.
func (x *execution) environment() map[string]string {
	v := &x.view
	e := map[string]string{
		"name": "Sluice", "version": x.env.Version, "location": "MDA", "phase": "during", "host": x.env.Hostname,
		"vnd.dovecot.username": v.Rcpt.Account, "vnd.dovecot.default-mailbox": "INBOX",
	}
	if _, domain, ok := strings.Cut(x.env.Hostname, "."); ok {
		e["domain"] = domain
	}
	if v.Client.Known() {
		e["remote-ip"], e["remote-host"] = v.Client.Addr.String(), v.Client.Name
		if v.Client.Name == "" {
			e["remote-host"] = v.Client.Addr.String()
		}
	}
	return e
}

// message is what a copy looks like, of which the first that is not nil says how; nil where it is the mail as it came.
func (x *execution) message(as ...*mime.Message) (*mime.Message, bool) {
	m := cmp.Or(as...)
	if m == nil || m == x.view.Message {
		return nil, false
	}
	return m, true
}

// by says who wants something.
func by(a Action) string { return fmt.Sprintf("line %d of %s", a.Line, path.Base(a.Script)) }

// add makes a value of the pipeline's of what a script wants that has begun with a message.
func (x *execution) add(a Action, from *mime.Message) {
	h := x.handling
	message, altered := x.message(a.Message, from)
	switch a.Kind {
	case FileInto:
		c := pipeline.Copy{
			By: by(a), Folder: x.own.folder(a), Flags: a.Flags, Existing: !a.Create && !x.config.CreateFolders, Use: a.SpecialUse,
			Content: a.Content, Message: message, Altered: altered || a.Content != nil,
		}
		h.Copies = append(h.Copies, c)
	case Redirect:
		if slices.ContainsFunc(h.Leaving, func(l pipeline.Leaving) bool {
			return l.Kind == pipeline.Redirect && strings.EqualFold(l.To[0], a.Address)
		}) {
			return
		}
		l := pipeline.Leaving{
			Kind: pipeline.Redirect, By: by(a), Sender: x.view.Sender.Raw, To: []string{a.Address}, Message: message, Altered: altered,
		}
		for _, f := range a.Fields {
			l.Fields = append(l.Fields, pipeline.Edit{Name: f[0], Value: f[1]})
		}
		h.Leaving = append(h.Leaving, l)
	case Vacation, Notify:
		kind := pipeline.Vacation
		if a.Kind == Notify {
			kind = pipeline.Notify
		}
		h.Leaving = append(h.Leaving, pipeline.Leaving{
			Kind: kind, By: by(a), Sender: a.Reply.From, To: a.Reply.To, Subject: a.Reply.Subject, Content: a.Reply.Content,
		})
	case Reject, EReject:
		if x.verdict.Action == pipeline.Pass {
			x.verdict = pipeline.Verdict{
				Action: pipeline.Reject, By: fmt.Sprintf("%s line %d", path.Base(a.Script), a.Line), Reply: pipeline.Reply{Text: a.Text},
			}
		}
	case Discard:
		h.Dropped = by(a)
	case Pipe:
		h.Runs = append(h.Runs, pipeline.Run{
			By: by(a), Program: a.Program, Args: a.Arguments, Try: a.Try, Sole: a.Sole, Message: message, Altered: altered,
			Sender: x.view.Sender.Raw, Recipient: x.view.Rcpt.Address.Raw, Original: x.view.Rcpt.Original.Raw,
		})
	}
}
