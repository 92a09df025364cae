package rules

import (
	"fmt"

	"sluice/pipeline"
)

// scores reports whether any rule adds to the step's score.
func (s *ruleset) scores() bool {
	for _, x := range s.rules {
		if x.scores && !x.shadow {
			return true
		}
	}
	return false
}

// settleScore lets the rules that read the score wait for those that make it. What reads the score cannot be a part of it.
func (s *ruleset) settleScore(r *reporter) {
	var phase, since pipeline.Phase
	perRcpt := false
	for _, x := range s.rules {
		switch {
		case x.scores && x.waits:
			text := fmt.Sprintf("the rule `%s` waits for the score and cannot add to it", x.name)
			if via := s.waitsFor(x); via != nil {
				text = fmt.Sprintf("the rule `%s` asks for `%s`, which waits for the score, and cannot add to it", x.name, via.name)
			}
			r.report(x.scoreAt, x.name, text, "take `score` out of the rule or of the condition")
		case x.scores && !x.shadow:
			phase, perRcpt = max(phase, x.phase), perRcpt || x.perRcpt
			if x.only == nil {
				since = max(since, x.since)
			}
		}
	}
	s.scoreSince = since
	for _, x := range s.rules {
		if x.waits {
			x.phase, x.perRcpt, x.since = max(x.phase, phase), x.perRcpt || perRcpt, max(x.since, since)
		}
	}
}

// waitsFor is the rule by whose hit x waits for the score; nil: it reads the score itself.
func (s *ruleset) waitsFor(x *rule) *rule {
	for _, t := range x.terms {
		if t.op == termHit && s.rules[t.hit].waits {
			return s.rules[t.hit]
		}
	}
	return nil
}

// score is what the rules of the step have scored, of the hits that its earlier stages found.
func (s *ruleset) score(hits []pipeline.Hit) float64 {
	own := make([]pipeline.Hit, 0, len(hits))
	for _, h := range hits {
		// Hits of other steps are seen as well. In a shadow step every hit is marked as one; its own shadow rules do not
		// score there either.
		if h.Step != "" && h.Step != s.scope.step || h.At < 0 || h.At >= len(s.rules) || s.rules[h.At].shadow || h.Off {
			continue
		}
		h.Step, h.Shadow = "", false
		own = append(own, h)
	}
	return pipeline.Score(own)
}

// loadScore: where some of the rules that make the score could not be asked it might be any. A rule that is undecided does
// not hold, and adds nothing.
func loadScore(s *state, v any) error {
	*v.(*float64) = 0
	if !s.set.scores() {
		return nil
	}
	if why := s.view.Facts.Of(s.set.scope.step).Unknown; why != nil {
		return fmt.Errorf("the score is not known: %w", why)
	}
	*v.(*float64) = s.set.score(s.view.Hits)
	return nil
}
