package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// runTests runs the tests of the rule files and reports those that fail. Each is a transaction that goes through the
// step alone: the steps before it have found what the test says, and nothing else is known.
func (s *ruleset) runTests(stages []pipeline.Stage, env pipeline.Env, r *reporter) {
	if len(s.tests) == 0 || slices.ContainsFunc(env.Before, func(b pipeline.Before) bool { return b.Failed }) {
		return
	}
	t := &trial{set: s, env: env, reporter: r}
	steps := make([]pipeline.Step, 0, len(env.Before))
	for _, b := range env.Before {
		if b.Name != env.Name {
			steps = append(steps, t.standIn(b))
		}
	}
	world := pipeline.Env{
		Log: slog.New(slog.DiscardHandler), NewID: func() string { return "test" }, Hostname: env.Hostname, Journal: t,
		// A test comes out the same at any time of the day.
		Now: func() time.Time { return t.now },
	}
	plan, err := pipeline.NewPlan(append(steps, pipeline.Step{Name: env.Name, Kind: pipeline.Kind{
		Name: "rules", Pure: true, OnError: pipeline.Postpone,
		Config: func() any { return &struct{}{} },
		New:    func(any, pipeline.Env) ([]pipeline.Stage, error) { return stages, nil },
	}}), world, pipeline.Options{})
	if err != nil {
		r.report(s.tests[0].pos, "", "the tests cannot be run: "+err.Error(), "")
		return
	}
	for _, x := range s.tests {
		if t.run(plan, x); s.hasty && len(r.all) > 0 {
			return
		}
	}
}

// A trial runs tests, one at a time.
type trial struct {
	*reporter
	set    *ruleset
	env    pipeline.Env
	facts  map[string]pipeline.Result // what the steps have found in the test that runs
	record *pipeline.Record
	now    time.Time // in the test that runs; zero: it does not say
}

// Record keeps the record of the test that runs.
func (t *trial) Record(_ context.Context, r *pipeline.Record, _ bool) error {
	t.record = r
	return nil
}

var errNotInTest = errors.New("the test does not say")

// standIn is a step that finds what the test says, when the real one does.
func (t *trial) standIn(b pipeline.Before) pipeline.Step {
	input := map[pipeline.Phase]pipeline.Input{
		pipeline.Helo: pipeline.InputGreeting, pipeline.Mail: pipeline.InputSender, pipeline.Rcpt: pipeline.InputSender,
		pipeline.Data: pipeline.InputRecipients, pipeline.Content: pipeline.InputBody,
	}[b.Phase]
	if b.PerRcpt {
		input |= pipeline.InputRecipient
	}
	return pipeline.Step{Name: b.Name, Kind: pipeline.Kind{
		Name: b.Kind, Config: func() any { return &struct{}{} }, Fact: func(any) any { return b.Fact },
		New: func(any, pipeline.Env) ([]pipeline.Stage, error) {
			return []pipeline.Stage{standIn{pipeline.Reads{Input: input, Logins: b.Logins}, func() (pipeline.Result, error) {
				r, ok := t.facts[b.Name]
				if !ok {
					return pipeline.Result{}, errNotInTest
				}
				return r, nil
			}}}, nil
		},
	}}
}

type standIn struct {
	reads pipeline.Reads
	found func() (pipeline.Result, error)
}

func (s standIn) Reads() pipeline.Reads { return s.reads }

func (s standIn) Check(context.Context, pipeline.View) (pipeline.Result, error) { return s.found() }

// run runs one test.
func (t *trial) run(plan *pipeline.Plan, x *ruleTest) {
	text, ok := t.text(x)
	facts, sound := t.found(x)
	if !ok || !sound {
		return
	}
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.fails(x, x.pos, "the mail cannot be read: "+err.Error())
		return
	}
	t.facts, t.record, t.now = facts, nil, time.Time{}
	if x.received != "" {
		zone := t.set.zone
		if zone == nil {
			zone = time.UTC
		}
		if t.now, err = clock(x.received, zone); err != nil {
			t.fails(x, x.pos, err.Error())
			return
		}
	}
	s := plan.NewSession(pipeline.SMTP, x.mail.who())
	defer s.Close()
	ctx := context.Background()
	s.Connect(ctx)
	s.Helo(ctx, x.mail.helo)
	s.Mail(ctx, t.address(x, x.mail.from))
	s.AnswerOnce() // so that each recipient's decision is among those of the content
	rcpts := x.mail.rcpts
	if len(rcpts) == 0 {
		rcpts = []string{"recipient@example.org"}
	}
	for _, rcpt := range rcpts {
		a := t.address(x, rcpt)
		s.Rcpt(ctx, pipeline.Recipient{Address: a, Account: a.String()})
	}
	s.Data(ctx)
	decisions := s.Content(ctx, m)
	if err := s.Done(ctx, pipeline.Reply{Code: 250}, make([]pipeline.Delivery, len(decisions))); err != nil || t.record == nil {
		t.fails(x, x.pos, "there is no record of it")
		return
	}
	t.compare(x, plan, decisions)
}

// who is the client. One of whom the test says anything is known.
func (m testMail) who() pipeline.Client {
	c := pipeline.Client{Addr: m.ip, Name: m.clientName, Login: m.login, Trusted: m.trusted, TLS: m.tls}
	if !c.Addr.IsValid() && (c.Name != "" || c.Login != "" || c.Trusted || c.TLS != "") {
		c.Addr = netip.MustParseAddr("192.0.2.1")
	}
	return c
}

func (t *trial) address(x *ruleTest, s string) pipeline.Address {
	a, err := mime.ParseAddress(strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">"))
	if err != nil {
		t.fails(x, x.pos, fmt.Sprintf("%q is no address: %v", s, err))
	}
	return a
}

// text is the mail of a test.
func (t *trial) text(x *ruleTest) (string, bool) {
	if x.message != "" {
		return t.file(x)
	}
	var b strings.Builder
	if x.mail.headerFrom != "" {
		fmt.Fprintf(&b, "From: %s\r\n", x.mail.headerFrom)
	}
	for _, f := range x.mail.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("\r\n" + strings.ReplaceAll(strings.ReplaceAll(x.mail.body, "\r\n", "\n"), "\n", "\r\n"))
	return b.String(), true
}

// file reads a mail from a file beside the rule file.
func (t *trial) file(x *ruleTest) (string, bool) {
	files, err := beside(t.env, x.pos.src.path, x.message)
	if err != nil {
		why := err.Error()
		if !strings.Contains(why, x.message) {
			why = x.message + ": " + why
		}
		t.fails(x, x.pos, why)
		return "", false
	}
	text := string(files[0].Text)
	if !strings.Contains(text, "\r\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text, true
}

// found turns the facts of a test into those of the steps. What a fact does not say is unknown.
func (t *trial) found(x *ruleTest) (map[string]pipeline.Result, bool) {
	all, sound := map[string]pipeline.Result{}, true
	for _, f := range x.mail.facts {
		step := t.set.scope.steps[f.step.name]
		typ, err := pipeline.FactType(step.Fact)
		if err != nil {
			t.fails(x, f.step.at, err.Error())
			return nil, false
		}
		v, missing := reflect.New(typ), map[string]error{}
		for i := range typ.NumField() {
			if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
				missing[name] = errNotInTest
			}
		}
		for _, field := range f.fields {
			var value any
			err := yaml.NodeToValue(field.value, &value)
			if err == nil {
				err = into(v.Interface(), field.name, value)
			}
			if err != nil {
				t.fails(x, field.at, fmt.Sprintf("`%s.%s` cannot be that: %s", f.step.name, field.name, inWords(err)))
				sound = false
			}
			delete(missing, field.name)
		}
		all[f.step.name] = pipeline.Result{Fact: v.Elem().Interface(), Missing: missing}
	}
	return all, sound
}

// into sets one field of a fact.
func into(fact any, name string, value any) error {
	text, err := json.Marshal(map[string]any{name: value})
	if err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	return d.Decode(fact)
}

// inWords says what is wrong with a value without the names of Go's types.
func inWords(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Sprintf("it is not %s", kindName(wrong.Type))
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	default:
		return "a number"
	}
}

// compare reports where the outcome is not what the test expects.
func (t *trial) compare(x *ruleTest, plan *pipeline.Plan, decisions []pipeline.Decision) {
	held, undecided := t.outcome()
	for _, want := range x.hit {
		if held[want.name] {
			continue
		}
		why := "it does not hold" + t.terms(plan, want.name)
		if u, ok := undecided[want.name]; ok {
			why = "it is undecided: " + u
		}
		t.fails(x, want.at, fmt.Sprintf("rule `%s` should hold, but %s", want.name, why))
	}
	for _, no := range x.miss {
		if held[no.name] {
			t.fails(x, no.at, fmt.Sprintf("rule `%s` should not hold, but it does%s", no.name, t.terms(plan, no.name)))
		}
	}
	for _, d := range decisions {
		rcpt := d.Recipient.Address.String()
		if want, ok := expected(x.verdicts, rcpt); ok && want.value != d.Verdict.Action.String() {
			by := ""
			if d.Verdict.By != "" {
				by = " by `" + d.Verdict.By + "`"
			}
			t.fails(x, want.at, fmt.Sprintf("the verdict for %s is %s%s, not %s", rcpt, d.Verdict.Action, by, want.value))
		}
		if want, ok := expected(x.scores, rcpt); ok {
			if f, err := strconv.ParseFloat(want.value, 64); err == nil && f != d.Score {
				t.fails(x, want.at, fmt.Sprintf("the score for %s is %v, not %s", rcpt, d.Score, want.value))
			}
		}
		if want, ok := expected(x.folders, rcpt); ok && !strings.EqualFold(want.value, inbox(d.Folder)) && want.value != d.Folder {
			t.fails(x, want.at, fmt.Sprintf("the folder for %s is %s, not %s", rcpt, inbox(d.Folder), want.value))
		}
	}
	for _, e := range slices.Concat(slices.Collect(maps.Values(x.verdicts)), slices.Collect(maps.Values(x.folders)), slices.Collect(maps.Values(x.scores))) {
		if e.rcpt != "" && !slices.ContainsFunc(decisions, func(d pipeline.Decision) bool { return d.Recipient.Address.String() == e.rcpt }) {
			t.fails(x, e.at, fmt.Sprintf("%s is no recipient of this test", e.rcpt))
		}
	}
}

// terms says what the terms of a rule came to in the test: those that were evaluated, for the last of them settled it.
func (t *trial) terms(plan *pipeline.Plan, name string) string {
	for at, x := range plan.Recorded(t.record) {
		st, ok := at.Stage.(*stage)
		if !ok || at.Step != t.env.Name {
			continue
		}
		var came []string
		for i, term := range st.terms {
			if term.rule.name != name || i/4 >= len(x.Terms) {
				continue
			}
			if v := truth(x.Terms[i/4] >> (i % 4 * 2) & 3); v != open && term.op != termConst {
				came = append(came, fmt.Sprintf("`%s` was %s", shorten(term.source, 60), v))
			}
		}
		if len(came) > 0 {
			const most = 4
			return ": " + strings.Join(came[max(0, len(came)-most):], ", ")
		}
	}
	return ""
}

func inbox(folder string) string {
	if folder == "" {
		return "INBOX"
	}
	return folder
}

// expected is what a test expects for one recipient: what it says of this one, or of all.
func expected(of map[string]expectation, rcpt string) (expectation, bool) {
	if e, ok := of[rcpt]; ok {
		return e, true
	}
	e, ok := of[""]
	return e, ok
}

// outcome returns which rules of the step held for anybody, and which could not be decided.
func (t *trial) outcome() (held map[string]bool, undecided map[string]string) {
	held, undecided = map[string]bool{}, map[string]string{}
	take := func(steps []pipeline.StepRecord) {
		for _, step := range steps {
			if step.Name != t.env.Name {
				continue
			}
			for _, h := range step.Hits {
				held[h.Name] = held[h.Name] || !h.Off
			}
			for _, u := range step.Undecided {
				undecided[u.Name] = u.Why
			}
		}
	}
	take(t.record.Steps)
	for _, r := range t.record.Recipients {
		take(r.Steps)
	}
	return held, undecided
}

func (t *trial) fails(x *ruleTest, at spot, why string) {
	name := x.name
	if name == "" {
		name = x.message
	}
	if name != "" {
		name = "`" + name + "` "
	}
	t.report(at, "", fmt.Sprintf("the test %sfails: %s", name, why), "")
}
