package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/maildir"
	"sluice/pipeline"
	"sluice/rules"
	"sluice/rules/sieve"
)

// logger returns what serve says while it runs.
func (p *program) logger(c config.Log, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, options))
	}
	return slog.New(slog.NewTextHandler(p.stderr, options))
}

// plan makes the plan of a configuration. Its error is config.Problems: what the steps object to gets the line of the
// configuration that it is about. The warnings are what an administrator should know of a configuration that is right.
func plan(c *config.Config, steps []pipeline.Step, env pipeline.Env) (_ *pipeline.Plan, warnings config.Problems, _ error) {
	made, warnings, err := listPlan(c, steps, env)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range beyond(c, made) {
		warnings = append(warnings, problemsAt(c, w.Pos, w.Err)...)
	}
	for _, text := range slices.Concat(exposed(c.Listen.Admin), unrun(c)) {
		warnings = append(warnings, config.Problem{Text: text})
	}
	return made, warnings, nil
}

// listPlan makes the plan of one of the configuration's lists of steps.
func listPlan(c *config.Config, steps []pipeline.Step, env pipeline.Env) (_ *pipeline.Plan, warnings config.Problems, _ error) {
	secrets := secrets{config: c}
	env.Files, env.Secret = files(c), secrets.read
	if len(c.Listen.Milter) == 0 || len(c.Listen.SMTP)+len(c.Listen.LMTP) > 0 {
		env.Folder = maildir.CheckFolder
	}
	if env.Owners == nil {
		x, _ := readScripting(c) // plansOf says what is wrong with it
		env.Owners = nobody{x}
	}
	made, err := pipeline.NewPlan(steps, env, planOptions(c))
	switch {
	case errors.Is(err, pipeline.ErrFailedStep):
		return nil, nil, config.Problems{} // all of it is said already
	case err != nil:
		return nil, nil, placed(c, steps, err)
	}
	for _, w := range made.Warnings() {
		warnings = append(warnings, problemsAt(c, w.Pos, w.Err)...)
	}
	for _, text := range secrets.warnings {
		warnings = append(warnings, config.Problem{Text: text})
	}
	return made, warnings, nil
}

// outgoingPlan makes the plan for mail of our own users. Steps that sort somebody's mail have no place in it.
func outgoingPlan(c *config.Config, env pipeline.Env) (*pipeline.Plan, config.Problems, error) {
	var wrong config.Problems
	for _, s := range c.Outgoing {
		if s.Kind.AtDelivery {
			x := c.At(s.Pos, s.Kind.Name+" sorts the mail that somebody gets, and this is mail that leaves")
			x.Remedy = "move it to pipeline:"
			wrong = append(wrong, x)
		}
	}
	made, warnings, err := listPlan(c, c.Outgoing, env)
	if len(wrong) > 0 {
		return nil, nil, append(wrong, config.AsProblems(c.File(), err)...)
	}
	return made, warnings, err
}

// plansOf makes both plans, of mail that comes and of mail that leaves, and finds all that is wrong with either.
func plansOf(c *config.Config, env pipeline.Env) (in, out *pipeline.Plan, warnings config.Problems, _ error) {
	in, warnings, err := plan(c, c.Pipeline, env)
	out, more, outErr := outgoingPlan(c, env)
	scripts, scriptErr := readScripting(c)
	var all config.Problems
	wrong := 0
	for _, e := range []error{err, outErr, scriptErr} {
		if e != nil {
			wrong++
			all, err = append(all, config.AsProblems(c.File(), e)...), e
		}
	}
	switch wrong {
	case 0:
	case 1:
		return nil, nil, nil, err
	default:
		return nil, nil, nil, all.Sorted()
	}
	return in, out, slices.Concat(warnings, more, scripts.warnings, c.Pointless()), nil
}

func planOptions(c *config.Config) pipeline.Options {
	return pipeline.Options{
		SpeakEarliest:  c.Speak == config.SpeakEarliest,
		PhaseTimeout:   c.Limits.PhaseTimeout,
		ContentTimeout: c.Limits.ContentTimeout,
		Workers:        c.Limits.Workers,
		Abandoned:      c.Limits.Abandoned,
		Trials:         c.Limits.Shadow,
	}
}

// placed turns the errors of NewPlan, each of which begins with the position of its step, into problems.
func placed(c *config.Config, steps []pipeline.Step, err error) config.Problems {
	var all config.Problems
	for _, e := range parts(err) {
		at := slices.IndexFunc(steps, func(s pipeline.Step) bool {
			return s.Pos != "" && strings.HasPrefix(e.Error(), s.Pos+": ")
		})
		if at < 0 {
			all = append(all, config.Problem{File: c.File(), Text: e.Error()})
			continue
		}
		all = append(all, problemsAt(c, steps[at].Pos, e)...)
	}
	return all
}

// problemsAt turns what is said about the step at pos into problems: what has a place of its own keeps it.
func problemsAt(c *config.Config, pos string, err error) (all config.Problems) {
	for _, x := range leaves(err) {
		var r *rules.Problem
		var script sieve.Problem
		switch {
		case errors.As(x, &script):
			all = append(all, config.Problem{
				File: script.Script, Line: script.Line, Column: script.Column, Text: script.Text, Remedy: script.Remedy, Source: script.Source,
			})
		case errors.As(x, &r) && r.File != "":
			all = append(all, config.Problem{
				File: r.File, Line: r.Line, Column: r.Column, Text: r.Text, Remedy: r.Remedy, Source: r.Source,
			})
		case errors.As(x, &r): // a rule in the configuration itself
			p := c.At(fmt.Sprintf("%s:%d:%d", c.File(), r.Line, r.Column), r.Text)
			p.Remedy = r.Remedy
			all = append(all, p)
		case pos == "":
			all = append(all, config.Problem{Text: x.Error()})
		default:
			text := x.Error()
			if rest, ok := strings.CutPrefix(text, pos+": "); ok {
				_, text, _ = strings.Cut(rest, ": ") // the step's name, which its place tells
			}
			all = append(all, c.At(pos, text))
		}
	}
	return all
}

// parts returns the errors that were joined into err.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// leaves returns the errors that were joined somewhere below err, each with what stands before all of them, or err itself.
func leaves(err error) []error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		joined, ok := e.(interface{ Unwrap() []error })
		if !ok {
			continue
		}
		var all []error
		before, _ := strings.CutSuffix(err.Error(), e.Error())
		for _, x := range joined.Unwrap() {
			for _, y := range leaves(x) {
				all = append(all, leaf{before, y})
			}
		}
		return all
	}
	return []error{err}
}

// A leaf is one of several errors, with what is said before all of them.
type leaf struct {
	before string
	error
}

func (l leaf) Error() string { return l.before + l.error.Error() }

func (l leaf) Unwrap() error { return l.error }

var errOffline = errors.New("check asks nothing of the network")

// offline is the world as check shows it to stages: there is none.
type offline struct{}

func (offline) LookupAddr(_ context.Context, name string) ([]netip.Addr, error) {
	return nil, unasked(name)
}
func (offline) LookupA(_ context.Context, name string) ([]netip.Addr, error) {
	return nil, unasked(name)
}
func (offline) LookupAAAA(_ context.Context, name string) ([]netip.Addr, error) {
	return nil, unasked(name)
}
func (offline) LookupTXT(_ context.Context, name string) ([]string, error) { return nil, unasked(name) }
func (offline) LookupPTR(_ context.Context, a netip.Addr) ([]string, error) {
	return nil, unasked(a.String())
}
func (offline) LookupMX(_ context.Context, name string) ([]*net.MX, error) { return nil, unasked(name) }

func unasked(name string) error {
	return &net.DNSError{Err: errOffline.Error(), UnwrapErr: errOffline, Name: name, IsTemporary: true}
}

func (offline) dial(_ context.Context, _, address string) (net.Conn, error) {
	return nil, fmt.Errorf("dial %s: %w", address, errOffline)
}

func (offline) Load(context.Context, string) ([]byte, bool, error) {
	return nil, false, errors.New("check looks at no counters")
}

func (offline) Store(context.Context, string, []byte, time.Duration) error {
	return errors.New("check keeps nothing")
}

func (offline) Add(context.Context, string, int64, time.Duration) (int64, error) {
	return 0, errors.New("check looks at no counters")
}

// Record keeps nothing; see [offlineEnv].
type lastRecord struct{ record *pipeline.Record }

func (l *lastRecord) Record(_ context.Context, r *pipeline.Record, _ bool) error {
	l.record = r
	return nil
}

func offlineEnv(hostname string, now func() time.Time, journal pipeline.Recorder) pipeline.Env {
	return pipeline.Env{
		Log: slog.New(slog.DiscardHandler), Now: now, Hostname: hostname,
		Resolver: offline{}, Dial: offline{}.dial, State: offline{}, Journal: journal, Offline: true,
	}
}
