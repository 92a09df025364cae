package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotAsked says of a Finding that there is no fact because the step was not asked, and not because it failed: its
// errors wrap it, or are it.
var ErrNotAsked = errors.New("not asked")

// A notAskedError is why a step was not asked.
type notAskedError string

func (e notAskedError) Error() string        { return string(e) }
func (e notAskedError) Is(target error) bool { return target == ErrNotAsked }

var errNotRecorded = errors.New("not in the record")

// States of an answer, as records name them.
const (
	stateAnswered  = "answered"
	stateError     = "error"
	stateNotAsked  = "not asked"
	stateNotNeeded = "not needed"
	stateRecalled  = "recalled"

	stateNotFinished = "not finished" // a shadow stage, of which nothing has been heard yet
	stateNotRun      = "not run"      // a shadow stage, for which there was no room or no time
)

// An answer is what became of one call of a stage.
type answer struct {
	state    string
	why      string // for "not asked"
	result   Result
	err      error
	took     time.Duration
	recalled bool
	gap      bool // nobody asked, and somebody might have answered
}

// verdict is what the answer says, an error by way of the policy.
func (a *answer) verdict(o OnError) Verdict {
	if a.err == nil {
		return a.result.Verdict
	}
	switch o {
	case Postpone:
		return Verdict{At: -1, Action: TempFail, By: "on_error", Reason: a.err.Error(),
			Reply: Reply{Code: 451, Enhanced: "4.7.1", Text: "a check could not be made; please try again later"}}
	case Refuse:
		return Verdict{At: -1, Action: Reject, By: "on_error", Reason: a.err.Error(),
			Reply: Reply{Code: 550, Enhanced: "5.7.1", Text: "a check could not be made"}}
	}
	return Verdict{}
}

// A call is one question under way or waiting: a stage, for everybody (rcpt nil) or for one recipient.
type call struct {
	stage int
	rcpt  *rcpt
}

// An errand is a call under way, in a goroutine of its own.
type errand struct {
	call
	cancel    context.CancelFunc
	late      atomic.Bool           // the phase that waits for it has come to its end
	why       atomic.Pointer[error] // why it is broken off, if for another reason
	abandoned bool                  // guarded by desk.mu: nobody waits for it any more
}

// A desk is where the answers of errands arrive. Nobody who brings one waits.
type desk struct {
	mu      sync.Mutex
	arrived []arrival
	wake    chan struct{} // holds one
}

type arrival struct {
	errand *errand
	answer *answer
}

func newDesk() *desk { return &desk{wake: make(chan struct{}, 1)} }

// bring hands an answer in; it returns false if nobody waits for it any more.
func (d *desk) bring(e *errand, a *answer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.abandoned {
		return false
	}
	d.arrived = append(d.arrived, arrival{e, a})
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return true
}

// collect puts down what has arrived, and reports whether anything has.
func (s *Session) collect() bool {
	s.desk.mu.Lock()
	arrived := s.desk.arrived
	s.desk.arrived = nil
	s.desk.mu.Unlock()
	for _, x := range arrived {
		s.forget(x.errand)
		s.put(x.errand.call, x.answer)
	}
	return len(arrived) > 0
}

func (s *Session) forget(e *errand) {
	e.cancel()
	delete(s.running, e.call)
	if e.rcpt != nil {
		s.single--
	}
}

// abandon ends the errands that which picks. What they bring, or have brought already, is told that it does not count.
func (s *Session) abandon(which func(call) bool) {
	if len(s.running) == 0 {
		return
	}
	var brought []*answer
	s.desk.mu.Lock()
	for c, e := range s.running {
		if which(c) {
			e.abandoned = true
		}
	}
	s.desk.arrived = slices.DeleteFunc(s.desk.arrived, func(x arrival) bool {
		if x.errand.abandoned {
			brought = append(brought, x.answer)
		}
		return x.errand.abandoned
	})
	s.desk.mu.Unlock()
	for c, e := range s.running {
		if which(c) {
			s.forget(e)
		}
	}
	for _, a := range brought {
		s.settle(a.result, Outcome{})
	}
}

// ask asks every stage whose phase has come and that has not been asked yet: those for everybody, and for the given
// recipients those that are asked for each. It returns when all have answered, failed or reached their deadline, or when
// enough() says that the rest is not needed; then those of the transaction are abandoned. Without wait it returns at once,
// and what is under way goes on: a later call takes it up.
func (s *Session) ask(ctx context.Context, now Phase, rcpts []*rcpt, enough func() bool, wait bool) {
	p := s.plan
	limit := p.options.PhaseTimeout
	if now == Content {
		limit = p.options.ContentTimeout
	}
	s.collect()
	todo := s.due(now, rcpts)
	if len(todo) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		// Those that wait for something outside start first, so that what only computes runs meanwhile, in order.
		progress := false
		underWay := 0 // of those asked for here
		rest := todo[:0:0]
		for _, c := range todo {
			st := &p.stages[c.stage]
			if s.heard(c.stage, c.rcpt) != nil || c.rcpt != nil && c.rcpt.settled() {
				continue
			}
			if s.again != nil && s.ready(c) {
				if a := s.again.answer(p, c); a != nil {
					s.put(c, a)
					progress = true
					continue
				}
			}
			if s.running[c] != nil {
				underWay++
				rest = append(rest, c)
				continue
			}
			if !s.ready(c) || !st.reads.Waits || c.rcpt != nil && s.single >= p.options.Workers {
				rest = append(rest, c)
				continue
			}
			if why := s.notAsked(st, c.rcpt); why != "" {
				s.put(c, &answer{state: stateNotAsked, why: why})
				progress = true
				continue
			}
			if int(st.hanging.Load()) >= p.options.Abandoned {
				s.put(c, s.failed(fmt.Errorf("%d calls that never ended are still hanging", p.options.Abandoned), 0))
				progress = true
				continue
			}
			if a := s.prompt(ctx, c, now); a != nil {
				s.put(c, a)
				progress = true
				continue
			}
			s.start(ctx, c, now)
			underWay++
			rest = append(rest, c)
		}
		todo = rest
		for i, c := range todo {
			st := &p.stages[c.stage]
			if st.reads.Waits || !s.ready(c) {
				continue
			}
			todo = slices.Delete(todo, i, i+1)
			if why := s.notAsked(st, c.rcpt); why != "" {
				s.put(c, &answer{state: stateNotAsked, why: why})
			} else {
				s.put(c, s.inline(ctx, c, now))
			}
			progress = true
			break // it may have made others ready, which come first in order
		}
		if enough() {
			// What is about the connection goes on: the next message of it may want it.
			s.abandon(func(c call) bool { return c.rcpt != nil || p.stages[c.stage].phase >= Mail })
			return
		}
		if len(todo) == 0 {
			return
		}
		if s.collect() || progress {
			continue
		}
		if underWay == 0 || !wait {
			return // the rest waits for stages that are not asked, or for another phase
		}
		select {
		case <-s.desk.wake:
		case <-ctx.Done():
			// Each answers at once that it has come to its end.
			for _, c := range todo {
				if e := s.running[c]; e != nil {
					e.late.Store(errors.Is(ctx.Err(), context.DeadlineExceeded))
					e.cancel()
				}
			}
			<-s.desk.wake
		}
	}
}

// due lists the calls to be made at a phase, in configured order.
func (s *Session) due(now Phase, rcpts []*rcpt) []call {
	var todo []call
	for i := range s.plan.stages {
		st := &s.plan.stages[i]
		if st.phase > now || st.shadow {
			continue
		}
		if !st.perRcpt {
			if s.shared[i] == nil {
				todo = append(todo, call{stage: i})
			}
			continue
		}
		for _, r := range rcpts {
			if r.own[i] == nil {
				todo = append(todo, call{i, r})
			}
		}
	}
	return todo
}

// ready reports whether the stages that a call reads have all been asked.
func (s *Session) ready(c call) bool {
	st := &s.plan.stages[c.stage]
	for _, d := range st.deps {
		// What live stages have not said by the time shadow ones are asked they will not say.
		if s.heard(d, c.rcpt) == nil && (!st.shadow || s.plan.stages[d].shadow) {
			return false
		}
	}
	return true
}

func (s *Session) heard(stage int, r *rcpt) *answer {
	if s.plan.stages[stage].perRcpt {
		if r == nil {
			return nil
		}
		return r.own[stage]
	}
	return s.shared[stage]
}

func (s *Session) put(c call, a *answer) {
	if s.plan.stages[c.stage].shadow {
		markShadow(&a.result, true)
	}
	if s.again != nil {
		s.again.leaveOut(s.plan, c.stage, a)
	}
	if c.rcpt != nil {
		c.rcpt.own[c.stage] = a
		return
	}
	s.shared[c.stage] = a
}

// markShadow marks all that a result wants as recorded only, or as meant.
func markShadow(r *Result, shadow bool) {
	for i := range r.Hits {
		r.Hits[i].Shadow = shadow
	}
	for i := range r.Undecided {
		r.Undecided[i].Shadow = shadow
	}
	for i := range r.Effects {
		r.Effects[i].Shadow = shadow
	}
	for i := range r.Edits {
		r.Edits[i].Shadow = shadow
	}
	if r.Handling != nil {
		r.Handling.Shadow = shadow
	}
}

// notAsked returns why a stage is not to be asked, "" if it is.
func (s *Session) notAsked(st *planStage, r *rcpt) string {
	step := &s.plan.steps[st.step]
	if step.Kind.AtDelivery && s.door == Milter {
		return "asked where the mail is filed"
	}
	if r != nil && r.recalled != nil && (!step.Kind.AtDelivery || r.recalled.Verdict.Action > Keep) {
		return "decided before"
	}
	if s.resumed && !step.Kind.Pure && !step.Kind.AtDelivery {
		return "not in the record"
	}
	switch {
	case st.reads.Strangers && s.client.Login != "":
		return "client logged in"
	case st.reads.Strangers && s.client.Trusted:
		return "client is trusted"
	case st.reads.Input&InputClient != 0 && !st.reads.AnyClient && !step.Kind.Pure && !s.client.Known():
		return "client unknown"
	}
	return ""
}

// start makes a call in a goroutine of its own, which ends when the stage returns, however late. A stage that outlives its
// deadline or is not needed any more is answered for, and counted as hanging until it returns.
func (s *Session) start(ctx context.Context, c call, now Phase) {
	st := &s.plan.stages[c.stage]
	v := s.view(c, now)
	began := time.Now()
	// It may outlive the phase in which it was started; the session ends it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), st.timeout)
	e := &errand{call: c, cancel: cancel}
	if s.running == nil {
		s.running = map[call]*errand{}
	}
	s.running[c] = e
	if c.rcpt != nil {
		s.single++
	}
	desk := s.desk
	var answered atomic.Bool // by whoever comes first: the stage or its deadline
	bring := func(a *answer) {
		if !desk.bring(e, a) {
			s.settle(a.result, Outcome{})
		}
	}
	context.AfterFunc(ctx, func() {
		if answered.CompareAndSwap(false, true) {
			st.hanging.Add(1)
			bring(s.failed(s.deadline(ctx, st, e), time.Since(began)))
		}
	})
	go func() {
		result, err := s.check(st, func() (Result, error) { return st.stage.Check(ctx, v) })
		if err != nil && ctx.Err() != nil {
			err = s.deadline(ctx, st, e) // a stage that heeds its context says the same as one that does not
		}
		if !answered.CompareAndSwap(false, true) {
			st.hanging.Add(-1)
			s.settle(result, Outcome{})
			return
		}
		if err != nil {
			s.settle(result, Outcome{})
			bring(s.failed(err, time.Since(began)))
			return
		}
		bring(&answer{state: stateAnswered, result: result, took: time.Since(began)})
	}()
}

func (s *Session) deadline(ctx context.Context, st *planStage, e *errand) error {
	if why := e.why.Load(); why != nil {
		return *why
	}
	if e.late.Load() || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", st.timeout)
	}
	return errors.New("the client went away")
}

// inline makes a call of a stage that only computes.
func (s *Session) inline(ctx context.Context, c call, now Phase) *answer {
	st := &s.plan.stages[c.stage]
	v := s.view(c, now)
	return s.timed(st, func() (Result, error) { return st.stage.Check(ctx, v) })
}

// prompt makes a call of a stage that waits for some mail only; nil: it has to wait, or always does.
func (s *Session) prompt(ctx context.Context, c call, now Phase) *answer {
	st := &s.plan.stages[c.stage]
	p, ok := st.stage.(Prompter)
	if !ok || ctx.Err() != nil {
		return nil
	}
	v := s.view(c, now)
	a := s.timed(st, func() (r Result, err error) {
		r, ok = p.Prompt(ctx, v)
		return r, nil
	})
	if !ok && a.err == nil {
		return nil
	}
	return a
}

// timed makes a call here and now.
func (s *Session) timed(st *planStage, call func() (Result, error)) *answer {
	began := time.Now()
	result, err := s.check(st, call)
	took := time.Since(began)
	if err == nil && took > st.timeout {
		err = fmt.Errorf("took longer than %s", st.timeout)
	}
	if err != nil {
		s.settle(result, Outcome{})
		return s.failed(err, took)
	}
	return &answer{state: stateAnswered, result: result, took: took}
}

// check makes a call of a stage; a panic becomes an error.
func (s *Session) check(st *planStage, call func() (Result, error)) (r Result, err error) {
	defer func() {
		if x := recover(); x != nil {
			r, err = Result{}, fmt.Errorf("panic: %v", x)
			if log := s.plan.env.Log; log != nil {
				// The record says that it happened; only the log has room for where.
				log.Error("stage panicked", "step", s.plan.steps[st.step].Name, "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
			}
		}
	}()
	return call()
}

func (s *Session) failed(err error, took time.Duration) *answer {
	return &answer{state: stateError, err: err, took: took}
}

// settle tells a result what became of it.
func (s *Session) settle(r Result, o Outcome) {
	if r.After == nil {
		return
	}
	defer func() {
		if x := recover(); x != nil && s.plan.env.Log != nil {
			s.plan.env.Log.Error("stage panicked after the decision", "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r.After(ctx, o)
}

// view is the transaction as one call may see it.
func (s *Session) view(c call, now Phase) View {
	st := &s.plan.stages[c.stage]
	in := st.reads.Input
	v := View{Phase: now}
	if s.again != nil {
		v.Again = s.again.view(s.plan, c)
	}
	v.Door = s.door
	if t := s.tx; t != nil {
		v.ID, v.Received = t.id, t.received
		if in&InputSender != 0 {
			v.Sender = t.sender
		}
		if in&InputRecipients != 0 {
			for _, r := range t.live {
				v.Recipients = append(v.Recipients, r.Recipient)
			}
		}
		if in&(InputHeader|InputBody) != 0 {
			v.Message = t.message
		}
	} else {
		v.Received = s.began
	}
	if in&InputClient != 0 {
		v.Client = s.client
	}
	if in&InputGreeting != 0 {
		v.Greeting = s.greeting
	}
	if c.rcpt != nil && in&InputRecipient != 0 {
		v.Rcpt = c.rcpt.Recipient
	}
	if len(st.reads.Facts) == 0 {
		return v
	}
	v.Facts = make(Facts, len(st.reads.Facts))
	if c.rcpt != nil && c.rcpt.recalled != nil {
		// Of the steps before only those about everybody say again what they said: for this one the record has it.
		for _, h := range s.tx.base.HitsOf(c.rcpt.recalled) {
			if slices.Contains(st.reads.Facts, h.Step) {
				v.Hits = append(v.Hits, h)
			}
		}
	}
	for _, name := range st.reads.Facts {
		v.Facts[name] = Finding{Unknown: ErrNotAsked}
	}
	// A step without facts is known, that is its rules are, when all of its stages that are read have answered.
	silent := map[string]error{}
	for _, d := range st.deps {
		ds := &s.plan.stages[d]
		step := &s.plan.steps[ds.step]
		a := s.heard(d, c.rcpt)
		if a == nil {
			continue
		}
		f := v.Facts[step.Name]
		why := a.err
		if a.state == stateNotAsked {
			why = notAskedError(a.why)
		}
		switch {
		case why != nil && silent[step.Name] == nil:
			silent[step.Name] = why
			if f.Fact == nil {
				f.Unknown = why
			}
			f.Missing = leftOpen(f.Missing, why)
		case why != nil:
		case a.result.Fact != nil:
			f = Finding{Fact: a.result.Fact, Missing: a.result.Missing}
		case len(a.result.Missing) > 0:
			f.Missing = a.result.Missing
		case step.fact == nil:
			f.Unknown = silent[step.Name]
		}
		v.Facts[step.Name] = f
		if c.rcpt != nil && c.rcpt.recalled != nil {
			continue
		}
		for _, h := range a.result.Hits {
			h.Step = step.Name
			v.Hits = append(v.Hits, h)
		}
		for _, u := range a.result.Undecided {
			u.Step = step.Name
			v.Undecided = append(v.Undecided, u)
		}
	}
	return v
}

// leftOpen returns the fields that an earlier stage of a step left to a later one, which failed or was not asked.
func leftOpen(missing map[string]error, why error) map[string]error {
	if missing == nil {
		return nil
	}
	out := make(map[string]error, len(missing))
	for name := range missing {
		out[name] = why
	}
	return out
}
