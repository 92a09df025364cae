package pipeline

import "slices"

// certain reports whether every recipient's verdict would be the same whatever the gaps of a replay are filled with. After a
// verdict that delivers it is not looked for: what else might file the mail is too much.
func (s *Session) certain() bool {
	return !slices.ContainsFunc(s.tx.seen, func(r *rcpt) bool { return !s.certainFor(r) })
}

func (s *Session) certainFor(r *rcpt) bool {
	if r.byDoor {
		return true
	}
	j := r.early
	if j == nil {
		now := s.judge(r, s.tx.phase)
		j = &now
	}
	if j.verdict.Action <= Keep {
		return false
	}
	// open are steps of which something is not known: that of a gap, and those with rules that could not be decided.
	open := map[string]bool{}
	for i := range s.plan.stages {
		st := &s.plan.stages[i]
		a := s.heard(i, r)
		if a == nil || st.step > j.key.step || s.plan.steps[st.step].Shadow {
			continue // not asked, since without it the recipient was settled, or too late to count
		}
		if a.gap {
			open[s.plan.steps[st.step].Name] = true
		}
		for _, f := range st.reads.Can {
			undecided := slices.ContainsFunc(a.result.Undecided, func(u Undecided) bool { return u.At == f.At && !u.Shadow })
			if (a.gap || undecided) && s.forestalls(st, f, j) {
				return false
			}
		}
		if slices.ContainsFunc(a.result.Undecided, func(u Undecided) bool { return !u.Shadow }) {
			open[s.plan.steps[st.step].Name] = true
		}
	}
	for i := range s.plan.stages {
		st := &s.plan.stages[i]
		if st.step > j.key.step || s.plan.steps[st.step].Shadow || !slices.ContainsFunc(st.reads.Facts, func(name string) bool { return open[name] }) {
			continue
		}
		// A threshold over a score that is not certain, a rule that asks whether something is known.
		if i == j.stage || slices.ContainsFunc(st.reads.Can, func(f Final) bool { return s.forestalls(st, f, j) }) {
			return false
		}
	}
	return true
}

// forestalls reports whether a final verdict would take the place of the one that is, with another action.
func (s *Session) forestalls(st *planStage, f Final, j *judgement) bool {
	return (key{st.step, f.At}).less(j.key) && f.Action != j.verdict.Action
}

// hasSay reports whether a decision may hang on what a stage says: it can give a verdict or wants something done, or a stage
// that counts reads what its step has found.
func (p *Plan) hasSay(stage int) bool {
	st := &p.stages[stage]
	if d, ok := st.stage.(Doer); len(st.reads.Can) > 0 || ok && len(d.Does()) > 0 {
		return true
	}
	return slices.ContainsFunc(p.stages, func(x planStage) bool {
		return !x.shadow && slices.Contains(x.reads.Facts, p.steps[st.step].Name)
	})
}
