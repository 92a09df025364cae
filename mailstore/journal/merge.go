package journal

import (
	"slices"
	"time"

	"sluice/pipeline"
)

// merge adds to a record what a later transaction of the same id has to say: the door that files a mail adds to what
// the door that judged it has recorded. Merging the same thing twice changes nothing, and the order of two transactions
// about different recipients does not matter.
//
// What was decided on stays the first record's unless the later one has steps of its own. What came of it is the later
// one's where that says anything. A recipient of both is the later one's, unless that ended before anything became of
// the mail; recipients of one are kept.
func merge(first, later *pipeline.Record) *pipeline.Record {
	switch {
	case later.Completes:
		return first.Complete(later)
	case first.Completes:
		return later.Complete(first)
	}
	r := *first
	if len(later.Steps) > 0 {
		r.Steps, r.Plan = later.Steps, or(later.Plan, r.Plan)
	}
	r.Version = max(r.Version, later.Version)
	r.Door = or(r.Door, later.Door)
	r.Client = or(r.Client, later.Client)
	r.Greeting = or(r.Greeting, later.Greeting)
	r.Sender = or(r.Sender, later.Sender)
	r.Plan = or(r.Plan, later.Plan)
	r.SHA256 = or(r.SHA256, later.SHA256)
	r.Size = or(r.Size, later.Size)
	if r.Received.IsZero() {
		r.Received = later.Received
	}
	r.QueueID = or(r.QueueID, later.QueueID)
	r.MessageID = or(r.MessageID, later.MessageID)
	r.Subject = or(r.Subject, later.Subject)
	r.End = or(later.End, r.End)
	r.Reply = or(later.Reply, r.Reply)
	r.Note = or(later.Note, r.Note)
	r.Recipients = mergeRecipients(first.Recipients, later.Recipients)
	r.Timings = slices.Clone(first.Timings)
	for _, t := range later.Timings {
		if !slices.Contains(r.Timings, t) {
			r.Timings = append(r.Timings, t)
		}
	}
	return &r
}

func or[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

func mergeRecipients(first, later []pipeline.RecipientRecord) []pipeline.RecipientRecord {
	all := slices.Clone(first)
	used := make([]bool, len(first)) // one address may be named twice
	for _, x := range later {
		address := x.Address.String()
		at := -1
		for i := range first {
			if !used[i] && first[i].Address.String() == address {
				at = i
				break
			}
		}
		if at < 0 {
			all = append(all, x)
			continue
		}
		used[at] = true
		if x.Disposition == pipeline.NotFinished && first[at].Disposition != pipeline.NotFinished {
			continue
		}
		x.Steps = mergeSteps(first[at].Steps, x.Steps)
		x.Score = or(x.Score, first[at].Score)
		x.Exempt = or(x.Exempt, first[at].Exempt)
		all[at] = x
	}
	return all
}

// mergeSteps keeps what stages said for a recipient where they were not asked again.
func mergeSteps(first, later []pipeline.StepRecord) []pipeline.StepRecord {
	all := slices.Clone(first)
	for _, s := range later {
		at := slices.IndexFunc(first, func(x pipeline.StepRecord) bool { return x.Name == s.Name && x.Kind == s.Kind })
		switch {
		case at < 0:
			all = append(all, s)
		case spoke(s) || !spoke(first[at]):
			all[at] = s
		}
	}
	return all
}

func spoke(s pipeline.StepRecord) bool {
	return slices.ContainsFunc(s.Stages, func(x pipeline.StageRecord) bool {
		return x.State == "answered" || x.State == "error" || x.State == "recalled"
	})
}

// oldestFirst orders records as Find promises.
func oldestFirst(a, b *pipeline.Record) int {
	if c := a.Received.Compare(b.Received); c != 0 {
		return c
	}
	return compareID(a.ID, b.ID)
}

func compareID(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
