package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A Plan is a checked, immutable list of steps. Any number of sessions may use it at once; a reload makes a new one.
type Plan struct {
	steps    []planStep
	stages   []planStage // of all steps, in configured order
	env      Env
	options  Options
	files    []File
	text     string
	version  string
	warnings []Warning
	early    bool // whether anything can be decided before the content
}

// Options are settings of a whole plan; the zero value is the default.
type Options struct {
	// SpeakEarliest speaks a refusal as soon as it is decided, and not at RCPT.
	SpeakEarliest bool
	// PhaseTimeout bounds each phase before content; 0 is 20 s (Postfix gives a milter 30 s for a command).
	PhaseTimeout time.Duration
	// ContentTimeout bounds the content phase; 0 is 4 minutes (Postfix gives a milter 300 s).
	ContentTimeout time.Duration
	// Workers bounds the waiting calls that one transaction has under way for single recipients; 0 is 8.
	Workers int
	// Abandoned bounds the calls of one stage that have outlived their deadline and still hang; 0 is 64. Beyond it the
	// stage fails at once.
	Abandoned int
	// Trials bounds what is asked after the door has answered.
	Trials TrialLimits
}

func (o Options) withDefaults() Options {
	if o.PhaseTimeout <= 0 {
		o.PhaseTimeout = 20 * time.Second
	}
	if o.ContentTimeout <= 0 {
		o.ContentTimeout = 4 * time.Minute
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Abandoned <= 0 {
		o.Abandoned = 64
	}
	o.Trials = o.Trials.withDefaults()
	return o
}

type planStep struct {
	Step
	onError     OnError
	fact        any          // sample of the fact, nil for none
	factType    reflect.Type //
	stages      []int        // places in Plan.stages
	rules       []string
	shadowRules []string
}

type planStage struct {
	stage   Stage
	reads   Reads
	step    int
	phase   Phase
	perRcpt bool
	shadow  bool // asked after the decision, and never counted
	content bool // what it says depends on header or body, be it by way of facts
	logins  bool // its refusals count for logins, too
	// concerns, if set, is whether a final verdict is possible for a recipient.
	concerns func(Recipient, Final) bool
	// since is phase, but for a Chooser. What follows for whom is worked out as if it had been asked then.
	since   Phase
	deps    []int // stages before it whose facts and hits it reads
	timeout time.Duration
	hanging *atomic.Int32 // calls that outlived their deadline
}

// ErrFailedStep says that nothing is wrong with a plan but what was known to be: steps that could not be read.
var ErrFailedStep = errors.New("a step could not be read")

// NewPlan makes the stages of all steps and works out when each is asked. Its error joins everything that is wrong; each
// part begins with the step's position.
func NewPlan(steps []Step, env Env, o Options) (*Plan, error) {
	p := &Plan{env: env, options: o.withDefaults()}
	if p.env.Now == nil {
		p.env.Now = time.Now
	}
	if p.env.NewID == nil {
		p.env.NewID = newID
	}
	var (
		wrong  []error
		before []Before
		files  []File
		names  = map[string]int{}
		failed bool
	)
	for _, st := range steps {
		if st.Name == "" {
			st.Name = st.Kind.StepName()
		}
		fail := func(err error) {
			where := st.Name
			if st.Pos != "" {
				where = st.Pos + ": " + where
			}
			wrong = append(wrong, fmt.Errorf("%s: %w", where, err))
		}
		if st.Failed {
			failed = true
			names[st.Name] = len(p.steps)
			p.steps = append(p.steps, planStep{Step: st})
			self := Before{Name: st.Name, Kind: st.Kind.Name, Shadow: st.Shadow, Failed: true}
			before = append(before, self)
			if st.Config == nil {
				continue
			}
			e := p.env
			e.Name, e.Before = st.Name, slices.Clone(before)
			if _, err := st.Kind.New(st.Config, e); err != nil {
				fail(err)
			}
			continue
		}
		if !factName.MatchString(st.Name) {
			fail(fmt.Errorf("%q cannot be the name of a step: write lower-case letters, digits and _, a letter first", st.Name))
			continue
		}
		if _, ok := names[st.Name]; ok {
			fail(fmt.Errorf("there are two steps called %s: give one a name of its own with `name:`", st.Name))
			continue
		}
		names[st.Name] = len(p.steps)
		ps := planStep{Step: st, onError: st.Kind.OnError}
		if st.OnError != nil {
			ps.onError = *st.OnError
		}
		if st.Kind.Fact != nil {
			if ps.fact = st.Kind.Fact(st.Config); ps.fact != nil {
				t, err := FactType(ps.fact)
				if err != nil {
					fail(err)
					continue
				}
				ps.factType = t
			}
		}
		self := Before{Name: st.Name, Kind: st.Kind.Name, Shadow: st.Shadow, Fact: ps.fact}
		e := p.env
		e.Name, e.Before = st.Name, append(slices.Clone(before), self)
		e.Warn = func(err error) { p.warnings = append(p.warnings, Warning{Step: st.Name, Pos: st.Pos, Err: err}) }
		if env.Files != nil {
			e.Files = func(pattern string) ([]File, error) {
				f, err := env.Files(pattern)
				files = append(files, f...)
				return f, err
			}
		}
		stages, err := st.Kind.New(st.Config, e)
		if err != nil {
			fail(err)
			// Later steps are checked against what this one would have found, so that one mistake is not reported twice.
			self.Failed = true
			before = append(before, self)
			p.steps = append(p.steps, ps)
			continue
		}
		p.steps = append(p.steps, ps)
		for _, s := range stages {
			if err := p.addStage(len(p.steps)-1, s, names); err != nil {
				fail(err)
			}
		}
		last := &p.steps[len(p.steps)-1]
		self.Rules, self.ShadowRules = last.rules, last.shadowRules
		for _, n := range last.stages {
			if p.stages[n].shadow && !st.Shadow {
				continue
			}
			self.Phase = max(self.Phase, p.stages[n].phase)
			self.PerRcpt = self.PerRcpt || p.stages[n].perRcpt
			self.Logins = self.Logins || p.stages[n].logins
		}
		before = append(before, self)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if failed {
		return nil, ErrFailedStep
	}
	p.early = slices.ContainsFunc(p.stages, func(s planStage) bool {
		return s.phase <= Rcpt && !s.shadow && (len(s.reads.Can) > 0 || p.steps[s.step].onError != Skip)
	})
	p.files = files
	p.describe(files)
	p.warn()
	return p, nil
}

func (p *Plan) addStage(step int, s Stage, names map[string]int) error {
	ps := &p.steps[step]
	r := s.Reads()
	x := planStage{
		stage: s, reads: r, step: step,
		phase:   r.Input.Phase(),
		perRcpt: r.Input&InputRecipient != 0,
		content: r.Input&(InputHeader|InputBody) != 0,
		shadow:  r.Shadow || ps.Shadow,
		logins:  r.Logins,
		timeout: ps.Timeout,
		hanging: new(atomic.Int32),
	}
	if ps.At != nil {
		x.phase = max(x.phase, *ps.At)
	}
	for _, name := range r.Facts {
		k, ok := names[name]
		if !ok {
			return fmt.Errorf("reads the facts of %s, which is no step before it", name)
		}
		if p.steps[k].Shadow && !x.shadow {
			return fmt.Errorf("it reads what %s finds, which is a shadow step and must not change what counts: take `shadow` from %s, or add it here",
				name, name)
		}
		// Its own step: what the stages made before this one found.
		for _, n := range p.steps[k].stages {
			d := p.stages[n]
			if d.shadow && !x.shadow {
				continue
			}
			x.deps = append(x.deps, n)
			x.phase = max(x.phase, d.phase)
			x.perRcpt = x.perRcpt || d.perRcpt
			x.content = x.content || d.content
			x.logins = x.logins || d.logins
		}
	}
	if x.perRcpt {
		x.phase = max(x.phase, Rcpt)
	}
	if x.timeout <= 0 {
		x.timeout = 10 * time.Second
		if x.phase == Content {
			x.timeout = time.Minute
		}
	}
	x.since = x.phase
	if chooser, ok := s.(Chooser); ok {
		x.concerns, x.since = chooser.Concerns, min(x.phase, chooser.Since())
		if ps.At != nil {
			x.since = max(x.since, min(x.phase, *ps.At))
		}
	}
	if ruler, ok := s.(Ruler); ok && len(ps.rules) == 0 {
		ps.rules, ps.shadowRules = ruler.Rules(), ruler.ShadowRules()
	}
	ps.stages = append(ps.stages, len(p.stages))
	p.stages = append(p.stages, x)
	return nil
}

// Version names the plan in records: a hash of its text.
func (p *Plan) Version() string { return p.version }

// Text is the plan as text, for the journal: its steps with their settings and the hashes of the files they name.
func (p *Plan) Text() string { return p.text }

// Files are those that its steps were made from, in the order in which they were asked for.
func (p *Plan) Files() []File { return p.files }

// Warnings are things about the plan that an administrator should know, one sentence each.
func (p *Plan) Warnings() []Warning { return p.warnings }

// Awaited reports whether a door should keep its peer waiting at a phase before the recipients or at [Data], because
// something may be said there. Elsewhere what is asked is under way when it returns.
func (p *Plan) Awaited() bool { return p.options.SpeakEarliest }

// Steps names the steps in order.
func (p *Plan) Steps() []string {
	names := make([]string, len(p.steps))
	for i, s := range p.steps {
		names[i] = s.Name
	}
	return names
}

// Stages returns the stages of a step in order, for those who explain what they said.
func (p *Plan) Stages(step string) []Stage {
	for _, s := range p.steps {
		if s.Name == step {
			out := make([]Stage, len(s.stages))
			for i, n := range s.stages {
				out[i] = p.stages[n].stage
			}
			return out
		}
	}
	return nil
}

func (p *Plan) describe(files []File) {
	var b strings.Builder
	for _, s := range p.steps {
		config, err := json.Marshal(s.Config)
		if err != nil {
			config = fmt.Appendf(nil, "%+v", s.Config)
		}
		fmt.Fprintf(&b, "%s: kind=%s on_error=%s shadow=%t %s\n", s.Name, s.Kind.Name, s.onError, s.Shadow, config)
	}
	for _, f := range files {
		fmt.Fprintf(&b, "file %s sha256=%x\n", f.Path, sha256.Sum256(f.Text))
	}
	p.text = b.String()
	sum := sha256.Sum256([]byte(p.text))
	p.version = hex.EncodeToString(sum[:6])
}

// warn says which steps find what nobody reads, and which verdicts have to wait for a later phase than the one they are
// decided at, and for whom.
func (p *Plan) warn() {
	for i, s := range p.steps {
		if s.Kind.Unread != "" && !slices.ContainsFunc(p.stages, func(t planStage) bool { return t.step > i && slices.Contains(t.reads.Facts, s.Name) }) {
			p.warnAt(i, -1, fmt.Sprintf("no step reads what %s finds, and %s", s.Name, s.Kind.Unread))
		}
	}
	for i, s := range p.stages {
		if s.shadow {
			continue
		}
		for _, f := range s.reads.Can {
			k := key{s.step, f.At}
			for j, t := range p.stages {
				if j == i || t.phase <= s.phase || t.shadow {
					continue
				}
				n := slices.IndexFunc(t.reads.Can, func(o Final) bool {
					return (key{t.step, o.At}).less(k) && o.Action != f.Action
				})
				if n >= 0 {
					o := t.reads.Can[n]
					p.warnAt(s.step, f.At, fmt.Sprintf("%s acts at %s and not at %s, because %s may say %s",
						p.who(s.step, f.At), t.phase, s.phase, p.who(t.step, o.At), o.Action))
					break
				}
			}
		}
	}
}

// who names a place in a step: `zen` (rules) for a rule.
func (p *Plan) who(step, at int) string {
	s := p.steps[step]
	switch {
	case at >= 0 && at < len(s.rules):
		return fmt.Sprintf("`%s` of %s", s.rules[at], s.Name)
	case at >= 0 && len(s.rules) > 0:
		return "a threshold of " + s.Name
	}
	return s.Name
}

// A key is a place in the configured order.
type key struct{ step, at int }

// end is behind everything.
var end = key{math.MaxInt, math.MaxInt}

func (a key) less(b key) bool { return a.step < b.step || a.step == b.step && a.at < b.at }
