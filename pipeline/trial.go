package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// TrialLimits bound what is asked after the door has answered. A zero value is its default.
type TrialLimits struct {
	// AtOnce is about how many mails shadow steps and shadow rules are asked at one time.
	AtOnce int `yaml:"at_once"`
	// Waiting is how many more mails wait for their turn. For those beyond the record says "not run".
	Waiting int `yaml:"waiting"`
	// Time is what all shadow steps and rules get together for one mail, from its answer on.
	Time time.Duration `yaml:"time"`
	// Memory is how many octets all mails together may have that are kept readable after they were answered: in memory,
	// large ones in the spool.
	Memory int64 `yaml:"memory"`
}

// DefaultTrialLimits returns what stands for the zero values.
func DefaultTrialLimits() TrialLimits {
	return TrialLimits{AtOnce: 16, Waiting: 256, Time: time.Minute, Memory: 64 << 20}
}

func (l TrialLimits) withDefaults() TrialLimits {
	d := DefaultTrialLimits()
	if l.AtOnce <= 0 {
		l.AtOnce = d.AtOnce
	}
	if l.Waiting <= 0 {
		l.Waiting = d.Waiting
	}
	if l.Time <= 0 {
		l.Time = d.Time
	}
	if l.Memory <= 0 {
		l.Memory = d.Memory
	}
	return l
}

var errStopped = errors.New("the program was stopped")

// Trials asks shadow stages once the door has answered, so that nobody waits for what does not count. Plans that follow
// one another share one, so that its limits hold for all of them. The zero Trials is ready.
type Trials struct {
	mu      sync.Mutex
	running map[*trial]context.CancelCauseFunc
	waiting []*trial
	octets  int64
	stopped bool
	idle    chan struct{} // closed once nothing runs; nil while nobody waits for that
	stats   TrialStats
}

// TrialStats say what became of trials: one is that of all shadow stages about one mail.
type TrialStats struct {
	Running, Waiting int    // now
	Octets           int64  // of the mails that are kept for it, now
	Finished         uint64 // so far
	Unfinished       uint64 // so far: their time was over, or the program was stopped
	NotRun           uint64 // so far: a limit did not let them begin
}

// Stats returns how it goes.
func (t *Trials) Stats() TrialStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Running, s.Waiting, s.Octets = len(t.running), len(t.waiting), t.octets
	return s
}

// A trial is what is asked about one mail.
type trial struct {
	limits  TrialLimits
	octets  int64
	until   time.Time
	release func()
	run     func(context.Context) (finished bool)
}

// admit makes room for a trial; why is set where there is none. It is followed by begin or by dismiss.
func (t *Trials) admit(l TrialLimits, octets int64) (x *trial, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		why = errStopped.Error()
	case len(t.running) >= l.AtOnce && len(t.waiting) >= l.Waiting:
		why = fmt.Sprintf("%d mails wait for shadow steps already", len(t.waiting))
	case t.octets+octets > l.Memory:
		why = fmt.Sprintf("the mails kept for shadow steps would have more than %d octets", l.Memory)
	}
	if why != "" {
		t.stats.NotRun++
		return nil, why
	}
	t.octets += octets
	return &trial{limits: l, octets: octets, until: time.Now().Add(l.Time), release: func() {}}, ""
}

// dismiss gives back the room of a trial that does not begin.
func (t *Trials) dismiss(x *trial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.octets -= x.octets
}

// begin runs a trial, now or when it is its turn.
func (t *Trials) begin(x *trial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, x)
	t.next()
}

// next starts what may start. The caller holds mu.
func (t *Trials) next() {
	for len(t.waiting) > 0 && (t.stopped || len(t.running) < t.waiting[0].limits.AtOnce) {
		x := t.waiting[0]
		t.waiting = slices.Delete(t.waiting, 0, 1)
		if t.running == nil {
			t.running = map[*trial]context.CancelCauseFunc{}
		}
		ctx, stop := context.WithCancelCause(context.Background())
		if t.stopped {
			stop(errStopped) // it only leaves its record
		}
		t.running[x] = stop
		go t.do(ctx, x) // ends soon after its time is over, or after Shutdown
	}
	if len(t.running) == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

func (t *Trials) do(ctx context.Context, x *trial) {
	finished := false
	defer func() {
		x.release()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.running[x](nil)
		delete(t.running, x)
		t.octets -= x.octets
		if finished {
			t.stats.Finished++
		} else {
			t.stats.Unfinished++
		}
		t.next()
	}()
	ctx, cancel := context.WithDeadlineCause(ctx, x.until, lateError(x.limits.Time))
	defer cancel()
	finished = x.run(ctx)
}

// Shutdown waits until all trials have ended. When ctx ends it stops those that have not, which then leave in the record
// that they were not finished. No trial begins after it.
func (t *Trials) Shutdown(ctx context.Context) {
	t.mu.Lock()
	idle := make(chan struct{})
	t.idle = idle
	t.next()
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	t.mu.Lock()
	t.stopped = true
	for _, stop := range t.running {
		stop(errStopped)
	}
	t.next()
	t.mu.Unlock()
	<-idle // at once: nothing is waited for any more
}

// later says what the record of a transaction has about shadow stages until they have been asked.
type later struct{ state, why string }

// tries reports whether there is a shadow stage to be asked about the transaction.
func (s *Session) tries() bool {
	return slices.ContainsFunc(s.plan.stages, func(st planStage) bool {
		return st.shadow && st.phase <= s.tx.phase && (!s.resumed || st.perRcpt)
	})
}

// try makes room for the shadow stages of a transaction that is about to be recorded. nil: none is asked afterwards.
func (s *Session) try() *trial {
	t := s.tx
	if s.plan.env.Trials == nil || s.plan.env.Journal == nil || !s.tries() {
		return nil
	}
	octets := int64(0)
	if t.message != nil {
		octets = t.message.Size()
	}
	x, why := s.plan.env.Trials.admit(s.plan.options.Trials, octets)
	t.later = later{stateNotFinished, "it is asked after the door has answered"}
	if x == nil {
		t.later = later{stateNotRun, why}
	}
	return x
}

// begin has shadow stages asked about a transaction that has been recorded. The session goes on meanwhile.
func (s *Session) begin(x *trial) {
	if x == nil {
		return
	}
	aside := s.aside()
	if m := aside.tx.message; m != nil {
		x.release = m.Hold()
	}
	x.run = func(ctx context.Context) (finished bool) {
		defer func() {
			if x := recover(); x != nil && s.plan.env.Log != nil {
				s.plan.env.Log.Error("a trial of shadow steps panicked", "id", aside.tx.id, "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
			}
		}()
		finished = aside.askShadows(ctx)
		if err := s.plan.env.Journal.Record(context.WithoutCancel(ctx), aside.completion(), false); err != nil && s.plan.env.Log != nil {
			s.plan.env.Log.Error("what shadow steps say is not recorded", "id", aside.tx.id, "error", err)
		}
		aside.settleShadows()
		return finished
	}
	s.plan.env.Trials.begin(x)
}

// dismissTrial gives up on what try has made room for.
func (s *Session) dismissTrial(x *trial) {
	if x != nil {
		s.plan.env.Trials.dismiss(x)
		s.tx.later = later{stateNotRun, "the mail was not taken for want of a record"}
	}
}

// tryNow asks shadow stages while the caller waits, and returns the session that has heard them.
func (s *Session) tryNow(ctx context.Context) *Session {
	most := s.plan.options.Trials.Time
	ctx, cancel := context.WithTimeoutCause(ctx, most, lateError(most))
	defer cancel()
	aside := s.aside()
	if aside.again = s.again; s.again != nil {
		again := *s.again
		again.gaps, again.calls = gaps{}, nil // what shadow stages would have to know nobody's decision hangs on
		aside.again = &again
	}
	aside.askShadows(ctx)
	return aside
}

func lateError(most time.Duration) error {
	return fmt.Errorf("shadow steps get %s for one mail", most)
}

// aside returns a session of its own for shadow stages: it knows what was said so far, and nothing of it reaches the one
// that the door drives.
func (s *Session) aside() *Session {
	t := *s.tx
	x := &Session{
		plan: s.plan, door: s.door, client: s.client, greeting: s.greeting, began: s.began, resumed: s.resumed,
		shared: slices.Clone(s.shared), desk: newDesk(), tx: &t,
	}
	t.seen, t.live = make([]*rcpt, len(s.tx.seen)), make([]*rcpt, len(s.tx.live))
	for i, r := range s.tx.seen {
		own := *r
		own.own = slices.Clone(r.own)
		t.seen[i] = &own
		if n := indexOf(s.tx.live, r); n >= 0 {
			t.live[n] = &own
		}
	}
	return x
}

// reach is the last phase whose shadow stages are asked: for one recipient, or for everybody (nil).
func (s *Session) reach(r *rcpt) Phase {
	if r != nil && r.refused {
		return min(s.tx.phase, Rcpt)
	}
	return s.tx.phase
}

// askShadows asks all shadow stages, each once those before it that it reads have answered, and reports whether it came to
// an end before ctx did. What live stages have not said is unknown to them.
func (s *Session) askShadows(ctx context.Context) (finished bool) {
	todo := s.shadows()
	for {
		progress := false
		rest := todo[:0:0]
		for _, c := range todo {
			st := &s.plan.stages[c.stage]
			switch {
			case s.heard(c.stage, c.rcpt) != nil:
				continue
			case s.running[c] != nil, !s.ready(c), c.rcpt != nil && s.single >= s.plan.options.Workers, ctx.Err() != nil:
				rest = append(rest, c)
				continue
			}
			if s.again != nil {
				if a := s.again.answer(s.plan, c); a != nil {
					s.put(c, a)
					progress = true
					continue
				}
			}
			if why := s.notAsked(st, c.rcpt); why != "" {
				s.put(c, &answer{state: stateNotAsked, why: why})
				progress = true
				continue
			}
			if int(st.hanging.Load()) >= s.plan.options.Abandoned {
				s.put(c, s.failed(fmt.Errorf("%d calls that never ended are still hanging", s.plan.options.Abandoned), 0))
				progress = true
				continue
			}
			s.start(ctx, c, st.phase)
			rest = append(rest, c)
		}
		if todo = rest; len(todo) == 0 {
			return true
		}
		if s.collect() || progress {
			continue
		}
		if len(s.running) == 0 {
			break
		}
		select {
		case <-s.desk.wake:
		case <-ctx.Done():
			why := context.Cause(ctx)
			for _, e := range s.running {
				e.why.Store(&why)
				e.cancel()
			}
			<-s.desk.wake // each answers at once that it has come to its end
		}
	}
	s.tx.later = later{stateNotRun, "no time is left"}
	if why := context.Cause(ctx); errors.Is(why, errStopped) {
		s.tx.later = later{stateNotFinished, why.Error()}
	} else if why != nil {
		s.tx.later.why = why.Error()
	}
	return false
}

// shadows lists the calls of shadow stages, in configured order.
func (s *Session) shadows() []call {
	var todo []call
	for i := range s.plan.stages {
		st := &s.plan.stages[i]
		switch {
		case !st.shadow:
		case !st.perRcpt:
			if st.phase <= s.reach(nil) && s.shared[i] == nil {
				todo = append(todo, call{stage: i})
			}
		default:
			for _, r := range s.tx.seen {
				if r.own != nil && r.own[i] == nil && st.phase <= s.reach(r) {
					todo = append(todo, call{i, r})
				}
			}
		}
	}
	return todo
}

// completion is the record of what shadow stages have said, and of nothing else.
func (s *Session) completion() *Record {
	t := s.tx
	r := &Record{Version: RecordVersion, ID: t.id, Received: t.received, Plan: s.plan.version, Completes: true}
	if t.base == nil {
		r.Steps = s.shadowRecords(nil)
		for i, a := range s.shared {
			if s.plan.stages[i].shadow {
				r.Timings = s.timing(r.Timings, i, a)
			}
		}
	} else {
		r.Received, r.Plan = t.base.Received, t.base.Plan
	}
	for _, x := range t.seen {
		r.Recipients = append(r.Recipients, RecipientRecord{Recipient: x.Recipient, Steps: s.shadowRecords(x)})
		for i, a := range x.own {
			if s.plan.stages[i].shadow {
				r.Timings = s.timing(r.Timings, i, a)
			}
		}
	}
	return r
}

// shadowRecords writes down what shadow stages said about everybody (nil) or about one recipient. The places of other
// stages in their steps are left empty.
func (s *Session) shadowRecords(r *rcpt) (out []StepRecord) {
	if r != nil && r.own == nil {
		return nil
	}
	for _, step := range s.plan.steps {
		sr, said := StepRecord{Name: step.Name, Kind: step.Kind.Name, Shadow: step.Shadow}, false
		for _, i := range step.stages {
			st := &s.plan.stages[i]
			if st.perRcpt != (r != nil) {
				continue
			}
			if !st.shadow {
				sr.Stages = append(sr.Stages, StageRecord{Phase: st.phase})
				continue
			}
			said = true
			sr.Stages = append(sr.Stages, s.shadowRecord(&sr, st, step.onError, s.heard(i, r), r))
		}
		if !said {
			continue
		}
		if step.factType == nil || sr.Fact != nil {
			sr.Unknown = ""
		}
		out = append(out, sr)
	}
	return out
}

// shadowRecord is stageRecord for a shadow stage.
func (s *Session) shadowRecord(sr *StepRecord, st *planStage, policy OnError, a *answer, r *rcpt) StageRecord {
	if a != nil {
		return s.stageRecord(sr, st, policy, a, true)
	}
	out := StageRecord{Phase: st.phase, Shadow: true}
	switch {
	case st.phase > s.reach(r) && s.tx.phase == Content:
		out.State, out.Why = stateNotAsked, "refused before"
	case st.phase > s.reach(r):
		out.State, out.Why = stateNotAsked, "no message came"
	case s.resumed && r != nil && r.recalled != nil && !s.plan.steps[st.step].Kind.AtDelivery:
		out.State, out.Why = stateNotAsked, "decided before"
	default:
		out.State, out.Why = s.tx.later.state, s.tx.later.why
		if out.State == "" {
			out.State, out.Why = stateNotFinished, "no record of it came"
		}
	}
	if s.plan.steps[st.step].Shadow {
		sr.Unknown = out.Why
	}
	return out
}

// settleShadows tells what shadow stages said that it does not count, and what became of the mail.
func (s *Session) settleShadows() {
	t := s.tx
	all := Outcome{Taken: slices.Contains(t.taken, true)}
	if len(t.decisions) > 0 {
		all.Verdict = t.decisions[0].Verdict
	}
	for i, a := range s.shared {
		if a != nil && s.plan.stages[i].shadow {
			s.settle(a.result, all)
		}
	}
	for _, r := range t.seen {
		o := Outcome{}
		if k := indexOf(t.live, r); k >= 0 && k < len(t.decisions) {
			o.Verdict, o.Taken = t.decisions[k].Verdict, k < len(t.taken) && t.taken[k]
		} else if r.refused && r.early != nil {
			o.Verdict = r.early.verdict
		}
		for i, a := range r.own {
			if a != nil && s.plan.stages[i].shadow {
				s.settle(a.result, o)
			}
		}
	}
}

// A Tried is something of a plan that is asked and never counted: a step, or a rule of a step.
type Tried struct {
	Step string
	Rule string // "" for the step as a whole
	// Own says that it is tried because of what is said about it, and not because its whole step is.
	Own bool
}

// Tried lists what of the plan is only tried, in its order: each shadow step, followed by its rules, and the shadow rules of
// other steps.
func (p *Plan) Tried() (all []Tried) {
	for _, s := range p.steps {
		rules := s.shadowRules
		if s.Shadow {
			all = append(all, Tried{Step: s.Name, Own: true})
			rules = s.rules
		}
		for _, r := range rules {
			all = append(all, Tried{s.Name, r, !s.Shadow})
		}
	}
	return all
}
