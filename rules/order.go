package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// inHitOrder returns what was built so that each rule stands behind all whose hits it asks for: hit() may name a rule
// further down as well. Where rules ask for each other in a circle none of them could be first, and each circle is reported.
// What the order is for is what rules need, and from when; they are decided in the configured order.
func (s *ruleset) inHitOrder(built []*builder) (order []*builder) {
	by := map[int]*builder{}
	for _, b := range built {
		by[b.rule.at] = b
	}
	const (
		unseen = iota
		under  // on the path that is walked
		done
	)
	state := map[int]int{}
	circled := map[int]bool{}
	type step struct {
		*builder
		asks []int // that are still to be walked
	}
	for _, first := range built {
		// Not by calling itself: a chain may be as long as there are rules.
		var path []step
		enter := func(b *builder) {
			state[b.rule.at] = under
			path = append(path, step{b, slices.Sorted(maps.Keys(b.need.hits))})
		}
		if state[first.rule.at] == unseen {
			enter(first)
		}
		for len(path) > 0 {
			top := &path[len(path)-1]
			if len(top.asks) == 0 {
				state[top.rule.at] = done
				order = append(order, top.builder)
				path = path[:len(path)-1]
				continue
			}
			next := by[top.asks[0]]
			top.asks = top.asks[1:]
			switch {
			case next == nil: // what is wrong with it is said already
			case state[next.rule.at] == unseen:
				enter(next)
			case state[next.rule.at] == under:
				from := slices.IndexFunc(path, func(x step) bool { return x.rule == next.rule })
				var circle []*builder
				for _, x := range path[from:] {
					circle = append(circle, x.builder)
				}
				if !slices.ContainsFunc(circle, func(b *builder) bool { return circled[b.rule.at] }) {
					circle[0].circle(circle)
				}
				for _, b := range circle {
					circled[b.rule.at] = true
				}
			}
		}
	}
	return order
}

// circle reports rules of which each asks for the next one, and the last for the first.
func (b *builder) circle(all []*builder) {
	const most = 6
	var says []string
	for i, x := range all {
		if i == most && len(all) > most+1 {
			says = append(says, fmt.Sprintf("and so on over %d more rules back to `%s`", len(all)-most, all[0].rule.name))
			break
		}
		next := all[(i+1)%len(all)].rule
		says = append(says, fmt.Sprintf("`%s` (%s) asks for `%s`", x.rule.name, x.asksAt(next), next.name))
	}
	b.report(b.asksAt(all[1%len(all)].rule), b.rule.name, "rules ask for each other in a circle: "+strings.Join(says, ", "),
		"take hit() out of one of them")
}

// asksAt is where the rule asks for the hit of another.
func (b *builder) asksAt(of *rule) spot {
	for _, t := range b.rule.terms {
		if t.op == termHit && t.hit == of.at {
			return t.pos
		}
	}
	return b.rule.pos
}

// ruleNames names the rules that have a name, by their place.
func (s *ruleset) ruleNames() (names []string) {
	for _, x := range s.rules {
		if x.name != "" {
			names = append(names, x.name)
		}
	}
	return names
}

// unshadow is the remedy where a live rule asks for a shadow rule.
func (x *rule) unshadow() string {
	from := "`" + x.name + "`"
	if x.shadowBy != "" {
		from = x.shadowBy
	}
	return fmt.Sprintf("take `shadow` from %s, or add it here", from)
}
