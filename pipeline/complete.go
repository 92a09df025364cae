package pipeline

import "slices"

// Complete returns the record with what a later one that completes it says about its shadow stages: nothing else of it
// changes. Completing it with the same twice changes nothing. Neither record is changed.
func (r *Record) Complete(with *Record) *Record {
	out := *r
	out.Steps = completeSteps(r.Steps, with.Steps)
	out.Recipients = slices.Clone(r.Recipients)
	used := make([]bool, len(r.Recipients)) // one address may be named twice
	for _, x := range with.Recipients {
		at := -1
		for i := range r.Recipients {
			if !used[i] && r.Recipients[i].Address.String() == x.Address.String() {
				at = i
				break
			}
		}
		if at < 0 {
			if r.Completes {
				out.Recipients = append(out.Recipients, x)
			}
			continue
		}
		used[at] = true
		out.Recipients[at].Steps = completeSteps(r.Recipients[at].Steps, x.Steps)
	}
	out.Timings = slices.Clone(r.Timings)
	for _, t := range with.Timings {
		if !slices.Contains(out.Timings, t) {
			out.Timings = append(out.Timings, t)
		}
	}
	return &out
}

func completeSteps(first, later []StepRecord) []StepRecord {
	all := slices.Clone(first)
	for _, s := range later {
		at := slices.IndexFunc(all, func(x StepRecord) bool { return x.Name == s.Name && x.Kind == s.Kind })
		if at < 0 {
			all = append(all, s)
			continue
		}
		all[at] = completeStep(all[at], s)
	}
	return all
}

func completeStep(first, later StepRecord) StepRecord {
	heard := false
	first.Stages = slices.Clone(first.Stages)
	for i, x := range later.Stages {
		switch {
		case x.State == "": // a stage that counts
		case i >= len(first.Stages):
			first.Stages = append(first.Stages, x)
			heard = true
		case x.spoke() || !first.Stages[i].spoke():
			first.Stages[i] = x
			heard = true
		}
	}
	if !heard {
		return first
	}
	if first.Shadow {
		first.Fact, first.Unknown, first.Missing = later.Fact, later.Unknown, later.Missing
	}
	first.Hits = addNew(first.Hits, later.Hits, func(a, b Hit) bool { return a.At == b.At && a.Name == b.Name })
	first.Undecided = addNew(first.Undecided, later.Undecided, func(a, b Undecided) bool { return a.At == b.At && a.Name == b.Name })
	return first
}

// spoke reports whether a stage was asked, and answered or failed.
func (s StageRecord) spoke() bool {
	return s.State == stateAnswered || s.State == stateError || s.State == stateRecalled
}

func addNew[T any](to, more []T, same func(a, b T) bool) []T {
	to = slices.Clone(to)
	for _, x := range more {
		if !slices.ContainsFunc(to, func(y T) bool { return same(x, y) }) {
			to = append(to, x)
		}
	}
	return to
}
