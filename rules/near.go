package rules

import "sluice/pipeline"

// A NearMiss is a rule that did not hold and would have, had one term of its condition come out otherwise.
type NearMiss struct {
	At     int // its place in the step
	Rule   string
	Term   string // as written
	Pos    string // "rules/spam.yaml:12:11"
	Came   string // what the term came to: "false", "true" or "unknown"
	Score  float64
	Action pipeline.Action
	Shadow bool
}

// A NearMisser is a stage that can tell which of its rules were one term short.
type NearMisser interface {
	// NearMisses looks at what the terms came to (see pipeline.Result.Terms). Terms that were not evaluated are unknown: a
	// record of every term (pipeline.Replay.EveryTerm) tells most.
	NearMisses(terms []byte) []NearMiss
}

// NearMisses implements NearMisser. A rule of a single term is no near miss: it is as far from holding as can be.
func (st *stage) NearMisses(terms []byte) (all []NearMiss) {
	came := map[*term]truth{}
	for i, t := range st.terms {
		if i/4 < len(terms) {
			came[t] = truth(terms[i/4] >> (i % 4 * 2) & 3)
		}
	}
	for _, x := range st.rules {
		if len(x.terms) < 2 || x.cond == nil || x.cond.under(came) == isTrue {
			continue
		}
		short := x.shortOf(came)
		if len(short) != 1 {
			continue // none is enough, or any of several: it was far from anything
		}
		all = append(all, NearMiss{
			At: x.at, Rule: x.name, Term: short[0].source, Pos: short[0].pos.String(), Came: came[short[0]].String(),
			Score: x.score, Action: x.final, Shadow: x.shadow,
		})
	}
	return all
}

// shortOf returns the terms each of which, had it come out otherwise, would have made the rule hold.
func (x *rule) shortOf(came map[*term]truth) (short []*term) {
	for _, t := range x.terms {
		was := came[t]
		if was == open || t.op == termConst {
			continue
		}
		for _, other := range []truth{isTrue, isFalse} {
			came[t] = other
			if other != was && x.cond.under(came) == isTrue {
				short = append(short, t)
			}
		}
		came[t] = was
	}
	return short
}

// under is what a condition comes to where its terms come to this. What was not evaluated is unknown.
func (n *node) under(came map[*term]truth) truth {
	switch n.op {
	case '!':
		return n.l.under(came).not()
	case '&', '|':
		l, r := n.l.under(came), n.r.under(came)
		settles := isFalse
		if n.op == '|' {
			settles = isTrue
		}
		switch {
		case l == settles || r == settles:
			return settles
		case l == unknown || r == unknown:
			return unknown
		}
		return settles.not()
	}
	if t := came[n.term]; t != open {
		return t
	}
	return unknown
}

func (t truth) String() string {
	return [...]string{"not evaluated", "false", "true", "unknown"}[t&3]
}
