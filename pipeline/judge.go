package pipeline

import (
	"cmp"
	"slices"
)

// A ledger is everything that has been said about one recipient: answers for everybody and for this one, by the place of
// the stage in the plan. nil: not asked yet.
type ledger struct {
	shared, own []*answer
	who         *Recipient // nil where it is about nobody yet
}

func (l ledger) at(i int, s *planStage) *answer {
	if s.perRcpt {
		if l.own == nil {
			return nil
		}
		return l.own[i]
	}
	return l.shared[i]
}

// A judgement is what follows from a ledger for one recipient.
type judgement struct {
	verdict Verdict
	key     key   // of who decided; end if nobody
	stage   int   // who decided; -1: nobody
	at      Phase // what was said later is not looked at
	// certain: nothing that is still to be said can change it.
	certain bool
	// exempt says why refusals were set aside: "postmaster", "logged in".
	exempt string
}

// judge merges what was said. The first final verdict in configured order wins; it is certain unless a stage before it,
// not asked yet, can give a final verdict with another action, or a stage before it in the plan that is being asked now
// has not answered.
//
// now is the phase whose stages are being asked: what was said by those of later ones is left out. exempt, if set, is why
// refusals that look neither at header nor at body do not count.
func (p *Plan) judge(l ledger, now Phase, exempt string) judgement {
	j := judgement{key: end, stage: -1, at: now}
	for i := range p.stages {
		s := &p.stages[i]
		a := l.at(i, s)
		if a == nil || s.since > now || s.shadow {
			continue
		}
		v, k := a.verdict(p.steps[s.step].onError), key{s.step, a.result.Verdict.At}
		if a.err != nil {
			k.at = -1
		}
		if v.Action == Pass {
			continue
		}
		if v.Action.Refuses() && s.spares(exempt) {
			j.exempt = exempt
			continue
		}
		if k.less(j.key) {
			j.verdict, j.key, j.stage = v, k, i
		}
	}
	j.certain = p.certain(l, now, exempt, j)
	j.verdict = j.verdict.withReply()
	return j
}

// spares reports whether refusals of s do not count for a recipient who is exempt for that reason.
func (s *planStage) spares(exempt string) bool {
	return exempt != "" && !s.content && !(s.logins && exempt == loggedIn)
}

func (p *Plan) certain(l ledger, now Phase, exempt string, j judgement) bool {
	for i := range p.stages {
		s := &p.stages[i]
		if s.shadow {
			continue
		}
		if s.since <= now {
			if l.at(i, s) != nil {
				continue
			}
			// It is being asked, or would be but for others. Its step or an earlier one: its answer belongs into the record, and
			// may decide.
			if s.step <= j.key.step {
				return false
			}
			continue
		}
		for _, f := range s.reads.Can {
			if f.Action.Refuses() && s.spares(exempt) || l.who != nil && s.concerns != nil && !s.concerns(*l.who, f) {
				continue
			}
			if (key{s.step, f.At}).less(j.key) && f.Action != j.verdict.Action {
				return false
			}
		}
	}
	return true
}

// settled reports whether j leaves nothing to be asked for the recipient: after Keep stages still file and flag.
func (j judgement) settled() bool { return j.certain && j.verdict.Action > Keep }

// decision works out everything that counts for a recipient under a judgement.
func (p *Plan) decision(r Recipient, l ledger, j judgement) Decision {
	d := Decision{Recipient: r, Verdict: j.verdict}
	if j.stage >= 0 {
		d.Step = p.steps[p.stages[j.stage].step].Name
	}
	// Without a verdict and after Keep everything counts; after any other final verdict only what stands before it.
	last := end
	if j.verdict.Action > Keep {
		last = j.key
	}
	folder, handled := key{-1, -1}, key{-1, -1}
	var hits []placed[Hit]
	var edits []placed[Edit]
	var flags []placed[[]string]
	for i := range p.stages {
		s := &p.stages[i]
		a := l.at(i, s)
		if a == nil || a.err != nil || a.state == stateNotAsked || s.shadow || s.since > j.at {
			continue
		}
		for _, h := range a.result.Hits {
			if k := (key{s.step, h.At}); !h.Shadow && !last.less(k) {
				h.Step = p.steps[s.step].Name
				hits = append(hits, placed[Hit]{k, h})
			}
		}
		for _, e := range a.result.Edits {
			if k := (key{s.step, e.At}); !e.Shadow && !last.less(k) {
				edits = append(edits, placed[Edit]{k, e})
			}
		}
		if h := a.result.Handling; h != nil && !h.Shadow && j.verdict.Action <= Keep {
			if k := (key{s.step, h.At}); !k.less(handled) {
				handled, d.Handling, d.wisher = k, h, p.steps[s.step].Name
			}
		}
		for _, e := range a.result.Effects {
			k := key{s.step, e.At}
			if e.Shadow || last.less(k) || e.Threshold && j.verdict.Action == Keep && j.key.less(k) {
				continue
			}
			switch e.Kind {
			case FileInto:
				if !k.less(folder) {
					folder, d.Folder, d.Junk, d.folderBy = k, e.Folder, e.Threshold, p.by(s.step, e.By)
				}
			case AddFlags:
				flags = append(flags, placed[[]string]{k, e.Flags})
			}
		}
	}
	d.Hits = inOrder(hits)
	d.Score = Score(d.Hits)
	d.Edits = inOrder(edits)
	for _, f := range inOrder(flags) {
		for _, x := range f {
			if !slices.Contains(d.Flags, x) {
				d.Flags = append(d.Flags, x)
			}
		}
	}
	return d
}

// by names who wanted something: "rules/newsletters", or the step alone.
func (p *Plan) by(step int, by string) string {
	if by == "" {
		return p.steps[step].Name
	}
	return p.steps[step].Name + "/" + by
}

type placed[T any] struct {
	key
	it T
}

func inOrder[T any](in []placed[T]) []T {
	if len(in) == 0 {
		return nil
	}
	slices.SortStableFunc(in, func(a, b placed[T]) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.at, b.at))
	})
	out := make([]T, len(in))
	for i, x := range in {
		out[i] = x.it
	}
	return out
}
