package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// record writes down the transaction and hands the record over.
func (s *Session) record(ctx context.Context, end string, reply Reply, note string, deliveries []Delivery, durable bool) error {
	if s.plan.env.Journal == nil {
		return nil
	}
	r := s.toRecord(end, reply, note, deliveries)
	if s.plan.env.Trials == nil && s.tries() {
		if s.tx.tried == nil {
			s.tx.tried = s.tryNow(ctx)
		}
		r = r.Complete(s.tx.tried.completion())
	}
	if err := s.plan.env.Journal.Record(ctx, r, durable); err != nil {
		return fmt.Errorf("keep the record of %s: %w", s.tx.id, err)
	}
	return nil
}

func (s *Session) toRecord(end string, reply Reply, note string, deliveries []Delivery) *Record {
	t := s.tx
	r := &Record{
		Version: RecordVersion, ID: t.id, Received: t.received, Door: s.door, QueueID: t.queueID, SHA256: t.digest(),
		Plan: s.plan.version, Client: s.client, Greeting: s.greeting, Sender: t.sender, Asked: t.asked, Once: t.once,
		End: end, Reply: reply, Note: note, Via: s.door, Began: t.received,
	}
	if m := t.message; m != nil {
		r.MessageID, r.Subject, r.Size = m.MessageID(), CleanSubject(m.Subject()), m.Size()
	}
	if t.base != nil {
		// What was decided stands in the record already; this adds what became of its recipients.
		r.Door, r.Received, r.Plan, r.SHA256, r.Size = t.base.Door, t.base.Received, t.base.Plan, t.base.SHA256, t.base.Size
		r.QueueID, r.MessageID, r.Subject = t.base.QueueID, t.base.MessageID, t.base.Subject
		r.Began = s.began
		if r.Asked == (Asked{}) {
			r.Asked = t.base.Asked
		}
	} else {
		r.Steps = s.stepRecords(nil)
		for i, a := range s.shared {
			r.Timings = s.timing(r.Timings, i, a)
		}
	}
	for _, x := range t.seen {
		rr := RecipientRecord{Recipient: x.Recipient, Note: x.note, Reply: x.reply, ByDoor: x.byDoor}
		n := indexOf(t.live, x)
		switch {
		case x.refused:
			rr.Disposition = Refused
			switch {
			case x.repeated:
				rr.Disposition = Repeated
			case !x.reply.Permanent():
				rr.Disposition = Postponed
			}
			if x.early != nil && !x.byDoor {
				d := s.plan.decision(x.Recipient, ledger{s.shared, x.own, &x.Recipient}, *x.early)
				rr.Verdict, rr.Step, rr.Score = d.Verdict, d.Step, d.Score
			}
		case n < len(t.decisions):
			d := t.decisions[n]
			rr.Verdict, rr.Step, rr.Folder, rr.FolderBy, rr.Flags, rr.Score = d.Verdict, d.Step, d.Folder, d.folderBy, d.Flags, d.Score
			if rr.Handling = d.Handling; d.Handling != nil {
				rr.Folder, rr.FolderBy = d.firstCopy()
			}
		}
		if x.early != nil {
			rr.Until = &x.at
		}
		if n >= 0 && n < len(deliveries) {
			d := deliveries[n]
			rr.Disposition, rr.File, rr.Held, rr.Note = d.Disposition, d.File, d.Held, d.Note
			rr.Reply, rr.Removed = d.Reply, d.Removed
			if t.base != nil {
				rr.Removed = removedOf(t.base, d.Removed)
			}
			if d.Handling != nil {
				rr.Handling = d.Handling
			}
			if d.Folder != "" {
				rr.Folder = d.Folder
			}
		}
		if !x.byDoor && x.recalled == nil {
			j := s.judge(x, t.phase)
			rr.Exempt = j.exempt
		}
		if x.own != nil {
			rr.Steps = s.stepRecords(x)
			for i, a := range x.own {
				r.Timings = s.timing(r.Timings, i, a)
			}
		}
		r.Recipients = append(r.Recipients, rr)
	}
	shareRemoved(r.Recipients)
	return r
}

// CleanSubject makes a subject fit to be kept: without control characters, of at most 200 characters.
func CleanSubject(subject string) string {
	var out []rune
	for _, c := range subject {
		if len(out) == 200 {
			break
		}
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			c = ' '
		}
		out = append(out, c)
	}
	return string(out)
}

func (s *Session) timing(to []Timing, stage int, a *answer) []Timing {
	if a == nil || a.took == 0 {
		return to
	}
	st := &s.plan.stages[stage]
	return append(to, Timing{Step: s.plan.steps[st.step].Name, Phase: st.phase, Took: a.took, Shadow: st.shadow})
}

// stepRecords writes down what the steps said about everybody (nil) or about one recipient.
func (s *Session) stepRecords(r *rcpt) []StepRecord {
	var out []StepRecord
	for at, step := range s.plan.steps {
		sr := StepRecord{Name: step.Name, At: at, Kind: step.Kind.Name, Shadow: step.Shadow}
		for _, i := range step.stages {
			st := &s.plan.stages[i]
			if st.perRcpt != (r != nil) {
				continue
			}
			if st.shadow {
				sr.Stages = append(sr.Stages, s.shadowRecord(&sr, st, step.onError, s.heard(i, r), r))
				continue
			}
			var a *answer
			var needed bool
			if r == nil {
				a, needed = s.shared[i], s.neededShared(i)
			} else {
				a, needed = r.own[i], s.needed(i, r)
			}
			sr.Stages = append(sr.Stages, s.stageRecord(&sr, st, step.onError, a, needed))
		}
		if len(sr.Stages) == 0 && (r != nil || len(step.stages) > 0) {
			continue
		}
		if step.factType == nil || sr.Fact != nil {
			sr.Unknown = ""
		}
		out = append(out, sr)
	}
	return out
}

func (s *Session) stageRecord(sr *StepRecord, st *planStage, policy OnError, a *answer, needed bool) StageRecord {
	out := StageRecord{Phase: st.phase, Shadow: st.shadow}
	switch {
	case !needed:
		out.State = stateNotNeeded
		sr.Unknown = "not needed"
		return out
	case a == nil:
		out.State, out.Why = stateNotAsked, "no message came"
		if s.tx.phase == Content {
			out.Why = "what it reads was not asked"
		}
		sr.Unknown = out.Why
		return out
	case a.err != nil:
		out.State, out.Why, out.OnError = stateError, a.err.Error(), &policy
		sr.leftOpen(out.Why)
		return out
	case a.state == stateNotAsked:
		out.State, out.Why = stateNotAsked, a.why
		sr.leftOpen(out.Why)
		return out
	}
	out.State = a.state
	if a.recalled {
		out.State = stateRecalled
	}
	out.Note = a.result.Note
	out.Effects, out.Edits, out.Terms = a.result.Effects, a.result.Edits, a.result.Terms
	out.Handling = a.result.Handling
	if v := a.result.Verdict; v.Action != Pass {
		v = v.withReply()
		out.Verdict = &v
	}
	if f := a.result.Fact; f != nil {
		raw, err := encodeFact(f, a.result.Missing)
		if err != nil {
			sr.Unknown = "cannot be written down: " + err.Error()
		} else {
			sr.Fact, sr.Missing = raw, nil // it takes the place of what an earlier stage of the step has found
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.result.Missing)) {
		if sr.Missing == nil {
			sr.Missing = map[string]string{}
		}
		sr.Missing[name] = a.result.Missing[name].Error()
	}
	for _, h := range a.result.Hits {
		h.Phase = st.since
		sr.Hits = append(sr.Hits, h)
	}
	sr.Undecided = append(sr.Undecided, a.result.Undecided...)
	return out
}

// leftOpen notes that a stage has no answer: neither has what an earlier one of the step left to it.
func (sr *StepRecord) leftOpen(why string) {
	sr.Unknown = why
	for name := range sr.Missing {
		sr.Missing[name] = why
	}
}

// needed reports whether what a stage said, or would have said, counts for a recipient: nothing does that stands in a
// step after a final verdict's, or would have been asked after the recipient was settled.
func (s *Session) needed(stage int, r *rcpt) bool {
	if r.byDoor {
		return false
	}
	j := r.early
	if j == nil {
		return true // nobody has decided, or Keep has: all that is said counts
	}
	st := &s.plan.stages[stage]
	return st.step <= j.key.step && st.since <= r.at
}

// neededShared reports whether a stage about everybody is needed for anybody.
func (s *Session) neededShared(stage int) bool {
	asked := false
	for _, r := range s.tx.seen {
		if r.byDoor {
			continue
		}
		asked = true
		if s.needed(stage, r) {
			return true
		}
	}
	return !asked
}

// recipient finds the recorded decision about a recipient: by the address itself, else by the one that an alias
// expansion came from.
func (r *Record) recipient(x Recipient) *RecipientRecord {
	for _, want := range []Address{x.Address, x.Original} {
		if want.IsZero() {
			continue
		}
		for i := range r.Recipients {
			if r.Recipients[i].Address.String() == want.String() {
				return &r.Recipients[i]
			}
		}
	}
	return nil
}

// edits returns what was to be changed in this recipient's copy alone. A milter with one copy for several recipients did
// not do it; where it did, the door that files the mail finds the field there. Which of several fields a deletion meant
// cannot be told any more once some are gone.
func (r *RecipientRecord) edits() (own []Edit) {
	for _, step := range r.Steps {
		for _, stage := range step.Stages {
			for _, e := range stage.Edits {
				if !e.Shadow && !(e.Delete && e.Index > 0) {
					own = append(own, e)
				}
			}
		}
	}
	return own
}

// Lets reports whether the record names a recipient and lets the mail go to it.
func (r *Record) Lets(x Recipient) bool {
	known := r.recipient(x)
	return known != nil && known.Verdict.Action <= Keep && known.Disposition == Delivered
}

// Resume returns a session that goes on where a record ends: its transaction, client and facts are recalled. Drive it
// with Rcpt …, Data, Content, Done. Recipients that the record names get the recorded decision, for them only steps that
// are asked at delivery are asked; others are decided from the recorded facts.
func (p *Plan) Resume(d Door, r *Record) *Session {
	s := p.NewSession(d, r.Client)
	s.greeting, s.resumed = r.Greeting, true
	s.tx = &transaction{
		id: r.ID, received: r.Received, sender: r.Sender, queueID: r.QueueID, sha256: r.SHA256, phase: Mail, base: r,
	}
	for i := range p.stages {
		st := &p.stages[i]
		step := &p.steps[st.step]
		if st.perRcpt || step.Kind.Pure || step.Kind.AtDelivery {
			continue // pure stages say again what they said
		}
		s.shared[i] = p.recalled(i, r.Steps)
	}
	return s
}

// stageRecord finds what was recorded of a stage: about everybody, or, where it is asked for each, about one recipient. The
// second result is nil where there is nothing.
func (p *Plan) stageRecord(stage int, recorded []StepRecord) (sr StepRecord, _ *StageRecord) {
	st := &p.stages[stage]
	step := &p.steps[st.step]
	at := slices.IndexFunc(recorded, func(x StepRecord) bool { return x.Name == step.Name && x.Kind == step.Kind.Name })
	if at < 0 {
		return sr, nil
	}
	sr = recorded[at]
	n := 0 // its place among those of its step that a record of this sort has
	for _, i := range step.stages {
		if i == stage {
			break
		}
		if p.stages[i].perRcpt == st.perRcpt {
			n++
		}
	}
	if n >= len(sr.Stages) {
		return sr, nil
	}
	return sr, &sr.Stages[n]
}

// recalled is what a stage that looks at the world said according to what was recorded.
func (p *Plan) recalled(stage int, recorded []StepRecord) *answer {
	step := &p.steps[p.stages[stage].step]
	sr, x := p.stageRecord(stage, recorded)
	if x == nil {
		return &answer{state: stateNotAsked, why: errNotRecorded.Error(), recalled: true, gap: true}
	}
	switch x.State {
	case stateError:
		return &answer{state: stateError, err: fmt.Errorf("%s", x.Why), recalled: true}
	case stateNotNeeded:
		return &answer{state: stateNotAsked, why: "it was not needed", recalled: true, gap: true}
	case stateNotFinished, stateNotRun, "":
		return &answer{state: stateNotAsked, why: x.State + ": " + x.Why, recalled: true, gap: true}
	case stateNotAsked:
		return &answer{state: stateNotAsked, why: x.Why, recalled: true}
	}
	a := &answer{state: stateAnswered, recalled: true}
	if x.Verdict != nil {
		a.result.Verdict = *x.Verdict
	}
	a.result.Effects, a.result.Edits, a.result.Terms = x.Effects, x.Edits, x.Terms
	a.result.Handling = x.Handling
	if sr.Shadow && !step.Shadow {
		a.result.Effects, a.result.Edits = slices.Clone(x.Effects), slices.Clone(x.Edits)
		sr.Hits, sr.Undecided = slices.Clone(sr.Hits), slices.Clone(sr.Undecided)
		if x.Handling != nil {
			h := *x.Handling
			a.result.Handling = &h
		}
		defer markShadow(&a.result, false)
	}
	if x == &sr.Stages[len(sr.Stages)-1] {
		// The step's fact and hits are those of all its stages: the last one has them.
		a.result.Hits, a.result.Undecided = sr.Hits, sr.Undecided
		if step.factType != nil && sr.Fact != nil {
			fact, missing, err := decodeFact(step.factType, sr.Fact)
			if err != nil {
				return &answer{state: stateError, err: err, recalled: true}
			}
			a.result.Fact, a.result.Missing = fact, missing
		}
		for name, why := range sr.Missing {
			if a.result.Missing == nil {
				a.result.Missing = map[string]error{}
			}
			a.result.Missing[name] = fmt.Errorf("%s", why)
		}
	}
	return a
}
