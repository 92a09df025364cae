package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// Beyond says what door d does otherwise than the plan asks for, one sentence each: refusals and edits that it has no
// way to carry out, and what it does instead. refuse is as for [Door.Settle]. both says that mail passes our milter and then
// our LMTP door: there the one carries out what the other cannot.
func (p *Plan) Beyond(d Door, refuse, both bool) (all []Warning) {
	say := func(who []actor, format string) {
		if len(who) > 0 {
			// The place is that of the first.
			all = append(all, p.warningAt(who[0].step, who[0].at, fmt.Sprintf("at the %s door "+format, d, enumerate(who))))
		}
	}
	switch d {
	case SMTP, Milter:
		say(p.finals(func(x planStage, f Final) bool { return x.perRcpt && x.phase == Content && f.Action == Reject }),
			"%s may refuse the content for some recipients and not for others: there is one answer for all, so the mail is "+
				"accepted, and held in quarantine for those who refuse it")
		say(p.finals(func(x planStage, f Final) bool { return x.perRcpt && x.phase == Content && f.Action == TempFail }),
			"%s may postpone the content for single recipients: there is one answer for all, so it is postponed for all of them")
	case LMTP, Deliver:
		var remedy string
		switch {
		case refuse:
			return nil
		case d == Deliver:
		case both:
			remedy = "; refusals of mail that passed the milter have reached its sender"
		default:
			remedy = "; set `refuse: true` for a peer that still holds its client, or ask at the milter door too"
		}
		who := p.finals(func(_ planStage, f Final) bool { return f.Action == Reject })
		for i, s := range p.steps {
			if s.onError == Refuse && !s.Shadow && !slices.ContainsFunc(who, func(x actor) bool { return x.name == s.Name }) {
				who = append(who, actor{s.Name, key{i, -1}})
			}
		}
		say(who, "%s may refuse: the queue before this door would bounce to a sender who may be forged, so the mail is accepted "+
			"and held in quarantine"+remedy)
	}
	if d != Milter || both {
		return all
	}
	say(p.deeds(func(_ planStage, x Deed) bool { return x.Kind == DoesFile }),
		"%s may file: the MTA delivers, and is told the folder in "+FolderField)
	say(p.deeds(func(_ planStage, x Deed) bool { return x.Kind == DoesJunk }),
		"%s may file into the junk folder: the MTA delivers, and is told so in "+FlagField+" and "+FolderField)
	say(p.deeds(func(_ planStage, x Deed) bool { return x.Kind == DoesFlag }),
		"%s may set flags: the MTA delivers, and is not told of them")
	say(p.deeds(func(s planStage, x Deed) bool { return x.Kind == DoesEdit && s.perRcpt }),
		"%s may change header fields for single recipients: a mail to several is one copy, and gets only the changes that "+
			"all of them want")
	var late []actor
	for i, s := range p.steps {
		if s.Kind.AtDelivery {
			late = append(late, actor{s.Name, key{i, -1}})
		}
	}
	say(late, "%s is not asked: it is about where the mail is filed, and the MTA does that")
	return all
}

// finals names those that can give a final verdict of which ok is true, in configured order.
func (p *Plan) finals(ok func(planStage, Final) bool) []actor {
	var found []key
	for _, s := range p.stages {
		for _, f := range s.reads.Can {
			// What recipients refuse themselves no administrator has asked for.
			if !s.shadow && !p.steps[s.step].Kind.AtDelivery && ok(s, f) {
				found = append(found, key{s.step, f.At})
			}
		}
	}
	return p.whoAll(found)
}

// deeds names those that can do something of which ok is true, in configured order.
func (p *Plan) deeds(ok func(planStage, Deed) bool) []actor {
	var found []key
	for _, s := range p.stages {
		doer, isDoer := s.stage.(Doer)
		if !isDoer || s.shadow {
			continue
		}
		for _, x := range doer.Does() {
			if ok(s, x) {
				found = append(found, key{s.step, x.At})
			}
		}
	}
	return p.whoAll(found)
}

// An actor is a place with what messages call it.
type actor struct {
	name string
	key
}

// whoAll names places in configured order, each once; those in shadow steps do nothing.
func (p *Plan) whoAll(found []key) (names []actor) {
	slices.SortFunc(found, func(a, b key) int {
		switch {
		case a.less(b):
			return -1
		case b.less(a):
			return 1
		}
		return 0
	})
	for _, k := range found {
		name := p.who(k.step, k.at)
		if !p.steps[k.step].Shadow && !slices.ContainsFunc(names, func(x actor) bool { return x.name == name }) {
			names = append(names, actor{name, k})
		}
	}
	return names
}

// enumerate joins names: "a, b and 7 more".
func enumerate(all []actor) string {
	const most = 3
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = x.name
	}
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}
