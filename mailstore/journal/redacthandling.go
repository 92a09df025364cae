package journal

import (
	"strings"

	"sluice/pipeline"
)

// eachHandling calls f for what recipients' own wishes made of the mail: as it was said, and as it was carried out.
func eachHandling(r *pipeline.Record, f func(*pipeline.Handling)) {
	for n := range r.Recipients {
		if h := r.Recipients[n].Handling; h != nil {
			f(h)
		}
	}
	eachStep(r, func(s *pipeline.StepRecord) {
		for i := range s.Stages {
			if h := s.Stages[i].Handling; h != nil {
				f(h)
				s.Stages[i].Note = h.Failed // it says the same
			}
		}
	})
}

// redactHandling takes out who got what, and texts that scripts have made, which may say it too. Which line of which script
// wanted it stays.
func redactHandling(h *pipeline.Handling) {
	domain := func(a string) string {
		if at := strings.LastIndexByte(a, '@'); at >= 0 {
			return "redacted" + a[at:]
		}
		return a
	}
	for i := range h.Leaving {
		l := &h.Leaving[i]
		l.Sender, l.Fields = domain(l.Sender), nil
		for n := range l.To {
			l.To[n] = domain(l.To[n])
		}
	}
	for i := range h.Runs {
		h.Runs[i].Args, h.Runs[i].Ended = nil, cut(h.Runs[i].Ended)
	}
	h.Notes, h.Trace = nil, nil
	h.Failed = cut(h.Failed) // "work.sieve, line 14: …"
}

// cut is what stands before the first colon of a text.
func cut(s string) string {
	before, _, _ := strings.Cut(s, ":")
	return before
}
