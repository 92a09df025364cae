package pipeline

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// A Replay says how a recorded transaction is to be decided again. The zero Replay decides without the message.
type Replay struct {
	// Message is the message as it came; nil where it is gone. Then what conditions say of it is taken from the record, and
	// unknown where the record does not have it.
	Message *mime.Message
	// Then is the plan that decided, which says what the recorded terms are; nil is the one that decides again if the record is
	// its own, else nothing is known of them.
	Then *Plan
	// Without are places whose word does not count: they are left out as if nobody had written them.
	Without []Place
	// Usual serves recipients as everybody is served: what is otherwise for some of them is not looked at.
	Usual bool
	// Strict has refusals count also for those who are exempt from them: postmaster, and who has logged in.
	Strict bool
	// Admitted are recipients, by their place in the record, that the door itself refused then and lets in now.
	Admitted []int
	// EveryTerm has conditions evaluated whole, so that the record says of each term what it came to.
	EveryTerm bool
}

// A Place is a place in the order of decision: that of a rule in its step, or of whatever else gives a verdict there. At -1
// is what on_error of the step says.
type Place struct {
	Step string
	At   int
}

// An Again is what a stage that is asked again may know besides the transaction. Its methods work on nil, which knows
// nothing.
type Again struct {
	gone    bool // the message
	blind   bool // of all that conditions look at something was taken out of the record
	every   bool
	usual   bool
	terms   map[string]byte
	without []int
	gaps    *gaps
}

// Term returns what a term of a condition came to at the time (see [Result.Terms]), where what it reads is gone: the message,
// or anything, where the record was redacted. ok is false where it is there. A term that was not evaluated then is 3, unknown.
func (a *Again) Term(key string, reads Input) (came byte, ok bool) {
	if a.There(reads) {
		return 0, false
	}
	if came := a.terms[key]; came != 0 {
		return came, true
	}
	return 3, true
}

// There reports whether what a term reads is there.
func (a *Again) There(reads Input) bool {
	return a == nil || !a.gone || !a.blind && reads&(InputHeader|InputBody) == 0
}

// Whole reports whether all is there and nothing is left out: conditions come to what they came to when the mail was there.
func (a *Again) Whole() bool { return a == nil || !a.gone && !a.Changed() }

// Knows reports whether a term can be evaluated, or [Again.Term] knows what it came to.
func (a *Again) Knows(key string, reads Input) bool { return a.There(reads) || a.terms[key] != 0 }

// Lacks says that a rule could not be decided because a term that is not known.
func (a *Again) Lacks(key string) {
	source, _, _ := strings.Cut(key, "\x00")
	why := "the message is gone"
	if a.blind {
		why = "the record was redacted"
	}
	a.gaps.add(fmt.Sprintf("%s, and `%s` was not looked at then", why, source))
}

// EveryTerm reports whether each term is to be evaluated, whether the outcome needs it or not. Without the message it cannot.
func (a *Again) EveryTerm() bool { return a != nil && a.every && !a.gone }

// Changed reports whether anything of the stage's step is left out.
func (a *Again) Changed() bool { return a != nil && (len(a.without) > 0 || a.usual) }

// Usual reports whether a recipient is to be served as everybody is: see [Replay.Usual].
func (a *Again) Usual() bool { return a != nil && a.usual }

// Without reports whether the rule at a place of the stage's step is left out.
func (a *Again) Without(at int) bool { return a != nil && slices.Contains(a.without, at) }

// A Termer is a stage whose conditions have terms, which [Result.Terms] tells of. Terms of one key that read nothing but the
// message come to the same, whatever the plan. A key begins with the term as written; what else it depends on stands behind
// a NUL.
type Termer interface {
	TermKeys() []string // in the order of Result.Terms
}

// A Replayed is what a replay came to.
type Replayed struct {
	// Record is like the one that the transaction would have left. Dispositions are what the door would have done, where
	// the mail went is not said.
	Record *Record
	// Gaps says what would have to be known and is not in the record: the outcome may be another. None: it is exact.
	Gaps []string
	// Certain: whatever the gaps are filled with, every recipient's verdict is the same.
	Certain bool
}

type gaps struct{ all []string }

func (g *gaps) add(what string) {
	if !slices.Contains(g.all, what) {
		g.all = append(g.all, what)
	}
}

// A replaying session asks nothing of the world.
type replaying struct {
	Replay
	record *Record
	terms  map[string]byte // of those asked about everybody
	calls  map[call]*gaps  // what each would have had to know
	gaps   gaps            // what somebody would have had to know whose word was needed
}

// Replay decides again about the transaction of a record, as this plan does. Nothing outside is asked and nothing is carried
// out: what stages that look at the world have said is recalled from the record, pure stages are asked again.
func (p *Plan) Replay(ctx context.Context, r *Record, o Replay) (Replayed, error) {
	if o.Then == nil {
		if o.Then = p; r.Plan != p.version {
			o.Then = &Plan{} // what its terms were nobody can say
		}
	}
	if r.Redacted != nil {
		o.Message = nil // what else conditions look at is not what it was
	}
	again := &replaying{Replay: o, record: r}
	if again.gone() {
		again.terms = o.Then.terms(r.Steps, false, nil)
	}
	s := p.NewSession(r.Door, r.Client)
	s.began, s.again = r.Received, again
	defer s.dismiss()
	s.Connect(ctx)
	s.Helo(ctx, r.Greeting)
	s.tx = &transaction{
		id: r.ID, received: r.Received, sender: r.Sender, phase: Mail, queueID: r.QueueID, sha256: r.SHA256, asked: r.Asked, once: r.Once,
	}
	s.everybody(ctx, Mail)
	for i, x := range r.Recipients {
		switch {
		case x.Disposition == Repeated:
			s.Repeat(x.Recipient, x.Reply, x.Note)
		case r.doorRefused(&x) && !slices.Contains(o.Admitted, i):
			s.Refuse(x.Recipient, x.Reply, x.Note)
		default:
			s.Rcpt(ctx, x.Recipient)
		}
	}
	end, reply := "refused", Reply{}
	var deliveries []Delivery
	switch {
	case len(s.tx.live) == 0:
	case r.Size == 0:
		end = r.End
		for _, x := range s.tx.live {
			if !x.settled() {
				again.gaps.add("the mail never came: what would have been said of it nobody knows")
			}
		}
	default:
		s.Data(ctx)
		decisions := s.Content(ctx, o.Message)
		refuse := slices.ContainsFunc(r.Recipients, func(x RecipientRecord) bool {
			return x.Disposition == Refused && x.Verdict.Action == Reject && !r.doorRefused(&x)
		})
		settled := r.Door.Settle(decisions, refuse)
		if reply = settled.Reply; reply.Code < 400 {
			end = "done"
			if r.Door == Milter && slices.Contains(settled.Dispositions, Delivered) {
				end = "handed over"
			}
		}
		for i, d := range settled.Dispositions {
			deliveries = append(deliveries, Delivery{Disposition: d, Reply: settled.Replies[i]})
		}
	}
	if err := ctx.Err(); err != nil {
		return Replayed{}, fmt.Errorf("replay %s: %w", r.ID, err)
	}
	s.noteGaps()
	out := s.toRecord(end, reply, "", deliveries)
	if s.tries() {
		out = out.Complete(s.tryNow(ctx).completion())
	}
	out.MessageID, out.Subject, out.Size = r.MessageID, r.Subject, r.Size
	return Replayed{out, again.gaps.all, len(again.gaps.all) == 0 || s.certain()}, nil
}

// doorRefused reports whether the door itself refused the recipient, with no stage asked. Older records do not say so: at
// doors other than Submission, where one refusal is for all, it is where nobody else has.
func (r *Record) doorRefused(x *RecipientRecord) bool {
	return x.ByDoor || x.Disposition == Refused && x.Verdict.Action == Pass && r.Door != Submission
}

// dismiss tells the results of a replay that nothing became of them.
func (s *Session) dismiss() {
	tell := func(all []*answer) {
		for _, a := range all {
			if a != nil {
				s.settle(a.result, Outcome{})
			}
		}
	}
	tell(s.shared)
	if s.tx != nil {
		for _, r := range s.tx.seen {
			tell(r.own)
		}
	}
}

// answer is what a stage says in a replay without being asked; nil: it has to be asked again.
func (again *replaying) answer(p *Plan, c call) *answer {
	st := &p.stages[c.stage]
	step := &p.steps[st.step]
	recorded := again.record.Steps
	if c.rcpt != nil {
		recorded = nil
		if x := again.record.recipient(c.rcpt.Recipient); x != nil {
			recorded = x.Steps
		}
	}
	if step.Kind.Pure {
		_, termer := st.stage.(Termer)
		// Without the message a stage can only be asked again that says what it has made of it in terms.
		if termer || !again.gone() || st.reads.Input&(InputHeader|InputBody) == 0 {
			return nil
		}
	}
	a := p.recalled(c.stage, recorded)
	if step.Kind.AtDelivery && a.gap {
		// What a recipient's own wishes would have been nobody knows, and no decision of an administrator hangs on it.
		return &answer{state: stateNotAsked, why: "asked where the mail is filed", recalled: true}
	}
	return a
}

func (again *replaying) gone() bool { return again.Message == nil }

// view is what a stage may know that is asked again.
func (again *replaying) view(p *Plan, c call) *Again {
	a := &Again{gone: again.gone(), blind: again.record.Redacted != nil, every: again.EveryTerm, usual: again.Usual,
		terms: again.terms, without: again.places(p, c.stage), gaps: &gaps{}}
	if again.calls == nil {
		again.calls = map[call]*gaps{}
	}
	again.calls[c] = a.gaps
	if c.rcpt != nil && a.gone {
		if x := again.record.recipient(c.rcpt.Recipient); x != nil {
			a.terms = again.Then.terms(x.Steps, true, again.terms)
		}
	}
	return a
}

// places are those of a stage's step that are left out.
func (again *replaying) places(p *Plan, stage int) (all []int) {
	for _, x := range again.Without {
		if x.Step == p.steps[p.stages[stage].step].Name {
			all = append(all, x.At)
		}
	}
	return all
}

// leaveOut takes out of an answer what is not to count.
func (again *replaying) leaveOut(p *Plan, stage int, a *answer) {
	places := again.places(p, stage)
	if len(places) == 0 {
		return
	}
	out := func(at int) bool { return slices.Contains(places, at) }
	if a.err != nil && out(-1) {
		a.state, a.why, a.err = stateNotAsked, a.err.Error(), nil
		return
	}
	if _, termer := p.stages[stage].stage.(Termer); termer && !a.recalled {
		return // it has left out itself what it was told to: see Again.Without
	}
	r := &a.result
	if r.Verdict.Action != Pass && out(r.Verdict.At) {
		// A stage gives its first verdict only: a later one takes its place.
		r.Verdict = Verdict{}
		for _, h := range r.Hits {
			if h.Action != Pass && !h.Shadow && !out(h.At) {
				r.Verdict = Verdict{At: h.At, Action: h.Action, By: h.Name}
				break
			}
		}
	}
	r.Hits = slices.DeleteFunc(slices.Clone(r.Hits), func(h Hit) bool { return out(h.At) })
	r.Effects = slices.DeleteFunc(slices.Clone(r.Effects), func(e Effect) bool { return out(e.At) })
	r.Edits = slices.DeleteFunc(slices.Clone(r.Edits), func(e Edit) bool { return out(e.At) })
	if r.Handling != nil && out(r.Handling.At) {
		r.Handling = nil
	}
}

// terms returns what the terms of recorded steps came to, by key: steps asked about everybody, or about one recipient; then
// all are those asked about everybody.
func (p *Plan) terms(recorded []StepRecord, perRcpt bool, all map[string]byte) map[string]byte {
	out := map[string]byte{}
	maps.Copy(out, all)
	for i := range p.stages {
		termer, ok := p.stages[i].stage.(Termer)
		if !ok || p.stages[i].perRcpt != perRcpt {
			continue
		}
		_, x := p.stageRecord(i, recorded)
		if x == nil {
			continue
		}
		for n, key := range termer.TermKeys() {
			if n/4 >= len(x.Terms) {
				break
			}
			if came := x.Terms[n/4] >> (n % 4 * 2) & 3; came != 0 {
				out[key] = came
			}
		}
	}
	return out
}

// noteGaps notes what those would have had to know whose word was needed, and which steps would have had a say that were not
// needed then.
func (s *Session) noteGaps() {
	for c, g := range s.again.calls {
		if s.plan.stages[c.stage].shadow {
			continue // nobody's decision hangs on it
		}
		if c.rcpt != nil && s.needed(c.stage, c.rcpt) || c.rcpt == nil && s.neededShared(c.stage) {
			for _, what := range g.all {
				s.again.gaps.add(what)
			}
		}
	}
	slices.Sort(s.again.gaps.all)
	for i := range s.plan.stages {
		st := &s.plan.stages[i]
		step := &s.plan.steps[st.step]
		if step.Kind.Pure || step.Kind.AtDelivery || step.Shadow || !s.plan.hasSay(i) {
			continue
		}
		for _, r := range s.tx.live {
			a := s.heard(i, r)
			if a != nil && a.gap && s.needed(i, r) {
				s.again.gaps.add(fmt.Sprintf("%s was not asked then: %s", step.Name, a.why))
			}
		}
	}
}

// Recorded yields the stages of the plan with what a record of it says of each: about everybody, then about each recipient.
func (p *Plan) Recorded(r *Record) iter.Seq2[RecordedStage, *StageRecord] {
	return func(yield func(RecordedStage, *StageRecord) bool) {
		for n := -1; n < len(r.Recipients); n++ {
			var rcpt *RecipientRecord
			recorded := r.Steps
			if n >= 0 {
				rcpt = &r.Recipients[n]
				recorded = rcpt.Steps
			}
			for i := range p.stages {
				st := &p.stages[i]
				if st.perRcpt != (rcpt != nil) {
					continue
				}
				_, x := p.stageRecord(i, recorded)
				if x != nil && !yield(RecordedStage{p.steps[st.step].Name, rcpt, st.stage}, x) {
					return
				}
			}
		}
	}
}

// A RecordedStage is a stage of a plan that a record tells of.
type RecordedStage struct {
	Step      string
	Recipient *RecipientRecord // nil: asked about everybody
	Stage     Stage
}
