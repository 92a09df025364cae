package rules

import (
	"fmt"
	"strconv"

	"sluice/pipeline"
)

// effective is what holds for the recipients of one domain, or for one user, once all overrides are merged.
type effective struct {
	thresholds
	levels map[string]origin // of the thresholds that are otherwise, by name
	off    map[*rule]switched
	scores map[*rule]scored
	caps   map[*family]capped
	only   map[*override]origin // whose rules there are
}

// An origin says for whom something is otherwise, and where that is written.
type origin struct {
	who string
	at  spot
}

func (o origin) String() string {
	if o.at.src != nil && o.at.src.path == "" {
		return fmt.Sprintf("for %s, line %d of the configuration", o.who, o.at.line)
	}
	return fmt.Sprintf("for %s, %s", o.who, o.at)
}

type switched struct {
	off bool
	origin
}

type scored struct {
	score float64
	origin
}

type capped struct {
	*pipeline.Group
	origin
}

// merge works out what holds for a domain or a user: what is set for the domain, and over it what is set for the user.
func (s *ruleset) merge(t target, th thresholds) *effective {
	e := &effective{
		thresholds: th, levels: map[string]origin{}, off: map[*rule]switched{}, scores: map[*rule]scored{}, caps: map[*family]capped{},
		only: map[*override]origin{},
	}
	names := []string{t.name}
	if t.domain != "" {
		names = []string{t.domain, t.name}
	}
	for _, who := range names {
		for _, o := range s.overridesFor[who] {
			e.add(s, o, who)
		}
	}
	return e
}

func (e *effective) add(s *ruleset, o *override, who string) {
	for _, x := range o.levels {
		*e.level(x.name) = x.value
		e.levels[x.name] = origin{who, x.at}
	}
	for _, x := range o.off {
		if r := s.named[x.name]; r != nil {
			e.off[r] = switched{true, origin{who, x.at}}
		}
	}
	for _, x := range o.on {
		if r := s.named[x.name]; r != nil {
			e.off[r] = switched{false, origin{who, x.at}}
		}
	}
	for _, x := range o.scores {
		if r := s.named[x.name]; r != nil {
			e.scores[r] = scored{x.value, origin{who, x.at}}
		}
	}
	for _, f := range o.caps {
		base := s.families[f.Name]
		if base == nil {
			continue
		}
		g := base.Group
		if c, ok := e.caps[base]; ok {
			g = *c.Group
		}
		if _, ok := f.at["max"]; ok {
			g.Max = f.Max
		}
		if _, ok := f.at["min"]; ok {
			g.Min = f.Min
		}
		e.caps[base] = capped{&g, origin{who, f.pos}}
	}
	if len(o.rules) > 0 {
		e.only[o] = origin{who, o.pos}
	}
}

// level is the threshold of a name.
func (t *thresholds) level(name string) *float64 {
	switch name {
	case "reject":
		return &t.reject
	case "quarantine":
		return &t.quarantine
	}
	return &t.junk
}

// checkOrder reports a threshold that can never be reached because a stricter one is below it, where one of the two is set for
// who, whose merged thresholds these are.
func (e *effective) checkOrder(who string, r *reporter) {
	names := []string{"junk", "quarantine", "reject"}
	for i, high := range names {
		for _, low := range names[:i] {
			x, y := *e.level(low), *e.level(high)
			if y == 0 || x <= y {
				continue
			}
			at := e.levels[low]
			if at.who != who {
				at = e.levels[high]
			}
			if at.who != who {
				continue // it is said of the domain, or of the step
			}
			r.report(at.at, "", fmt.Sprintf("for %s %s: %s%s is above %s: %s%s, and would never be reached", who, low, figure(x), e.from(low),
				high, figure(y), e.from(high)), "order them junk, quarantine, reject; 0 is none")
		}
	}
}

// from says where a threshold that is otherwise is set: " (rules.yaml:3:7)".
func (e *effective) from(level string) string {
	if o, ok := e.levels[level]; ok {
		return fmt.Sprintf(" (%s)", o.at)
	}
	return ""
}

// forRecipient is what holds for a recipient; nil: what holds for everybody.
func (s *ruleset) forRecipient(a pipeline.Address) *effective {
	if s.effective == nil {
		return nil
	}
	if e, ok := s.effective[userKey(a)]; ok {
		return e
	}
	return s.effective[a.Domain]
}

// concerns reports whether there is a rule at all for somebody: those of overrides are for their recipients only.
func (e *effective) concerns(x *rule) bool {
	if x.only == nil {
		return true
	}
	if e == nil {
		return false
	}
	_, ok := e.only[x.only]
	return ok
}

// isOff reports whether a rule is switched off.
func (e *effective) isOff(x *rule) bool { return e != nil && e.off[x].off }

// change makes of the hit of a rule what it is for one recipient, and notes what is otherwise.
func (e *effective) change(x *rule, h *pipeline.Hit) {
	if e == nil {
		return
	}
	note := func(s string) {
		if h.Note != "" {
			h.Note += "; "
		}
		h.Note += s
	}
	if from, ok := e.only[x.only]; ok && x.only != nil {
		note("a rule " + from.String())
	}
	if c, ok := e.scores[x]; ok {
		h.Score = c.score
		note(fmt.Sprintf("score %s and not %s %s", figure(c.score), figure(x.score), c.origin))
	}
	if c, ok := e.caps[x.group]; ok && x.group != nil {
		h.Group = c.Group
		note(fmt.Sprintf("the group %s %s, and not %s, %s", x.group.Name, bounds(c.Group), bounds(&x.group.Group), c.origin))
	}
	if o := e.off[x]; o.off {
		h.Off, h.Shadow = true, true
		note("off " + o.String())
	}
}

func figure(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// bounds says in words what the rules of a group may score together.
func bounds(g *pipeline.Group) string {
	switch {
	case g.Max != nil && g.Min != nil:
		return fmt.Sprintf("between %s and %s", figure(*g.Min), figure(*g.Max))
	case g.Max != nil:
		return "at most " + figure(*g.Max)
	case g.Min != nil:
		return "at least " + figure(*g.Min)
	}
	return "without bounds"
}
