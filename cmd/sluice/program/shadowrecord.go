package program

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/rules"
)

// A sighting is what a record says about one item.
type sighting struct {
	item                                   *shadowItem
	asked                                  bool
	held                                   bool
	copies                                 map[int]bool // places of recipients it held for; -1: all
	undecided, failed, notRun, notFinished string
}

// record counts what one record says.
func (x *shadowReporter) record(ctx context.Context, r *pipeline.Record) error {
	plan := x.planOf(ctx, r.Plan)
	seen := x.sightings(plan, r)
	if all := x.all(); all != nil {
		together := &sighting{item: all, copies: map[int]bool{-1: true}}
		for _, s := range seen {
			together.asked = together.asked || s.asked
			together.held = together.held || s.held
			together.failed = cmp.Or(together.failed, s.failed)
		}
		seen = append(seen, together)
	}
	var held []*sighting
	for _, s := range seen {
		s.count()
		if s.held || s.failed != "" {
			held = append(held, s)
		}
	}
	x.times(r, seen)
	if len(held) == 0 {
		return nil
	}
	w := &weighing{reporter: x, plan: plan, record: r}
	for _, s := range held {
		if err := w.weigh(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (s *sighting) count() {
	i := s.item
	if s.asked {
		i.Seen++
	}
	if s.held {
		i.Held++
	}
	for _, x := range []struct {
		why string
		to  *tally
	}{{s.undecided, &i.Undecided}, {s.failed, &i.Errors}, {s.notRun, &i.NotRun}, {s.notFinished, &i.NotFinished}} {
		if x.why != "" {
			x.to.add(x.why)
		}
	}
}

// times notes how long the shadow of each step took for a mail.
func (x *shadowReporter) times(r *pipeline.Record, seen []*sighting) {
	for _, s := range seen {
		total, timed := pipeline.Timing{}, false
		for _, t := range r.Timings {
			if t.Shadow && (t.Step == s.item.tried.Step || s.item.Kind == "all") {
				total.Took += t.Took
				timed = true
			}
		}
		if timed {
			s.item.Took.add(total.Took)
		}
	}
}

// sightings is what a record says about the items, in the order of the plan.
func (x *shadowReporter) sightings(plan *shadowPlan, r *pipeline.Record) (all []*sighting) {
	of := map[string]*sighting{}
	sight := func(t pipeline.Tried) *sighting {
		name := triedName(t)
		s, ok := of[name]
		if !ok {
			if i := x.item(t); i != nil {
				s = &sighting{item: i, copies: map[int]bool{}}
				all = append(all, s)
			}
			of[name] = s
		}
		return s
	}
	if plan.plan != nil {
		for _, t := range plan.plan.Tried() {
			sight(t)
		}
		for at, said := range plan.plan.Recorded(r) {
			if !said.Shadow {
				continue
			}
			if termer, ok := at.Stage.(rules.Termer); ok {
				for _, rule := range plan.rules[termer] {
					if s := of[at.Step+"/"+rule]; s != nil {
						s.hear(said)
					}
				}
			}
			if s := of[at.Step]; s != nil {
				s.hear(said)
			}
		}
	}
	x.hits(r.Steps, -1, plan, sight)
	for i, rcpt := range r.Recipients {
		x.hits(rcpt.Steps, i, plan, sight)
	}
	return all
}

// hear notes what became of one question.
func (s *sighting) hear(said *pipeline.StageRecord) {
	switch said.State {
	case "answered", "recalled":
		s.asked = true
	case "error":
		s.asked, s.failed = true, said.Why
	case "not run":
		s.notRun = said.Why
	case "not finished":
		s.notFinished = said.Why
	}
}

// hits notes which rules held, and which steps had something to say.
func (x *shadowReporter) hits(steps []pipeline.StepRecord, rcpt int, plan *shadowPlan, sight func(pipeline.Tried) *sighting) {
	for _, step := range steps {
		var whole *sighting
		if step.Shadow {
			whole = sight(pipeline.Tried{Step: step.Name, Own: true})
		}
		for _, said := range step.Stages {
			if !said.Shadow {
				continue
			}
			if whole != nil && plan.plan == nil {
				whole.hear(&said)
			}
			if whole != nil && (said.Verdict != nil || len(said.Effects) > 0 || len(said.Edits) > 0) {
				whole.hold(rcpt)
			}
		}
		for _, h := range step.Hits {
			if !h.Shadow {
				continue
			}
			if s := sight(pipeline.Tried{Step: step.Name, Rule: h.Name, Own: !step.Shadow}); s != nil {
				s.asked = true
				s.hold(rcpt)
			}
			if whole != nil {
				whole.hold(rcpt)
			}
		}
		for _, u := range step.Undecided {
			if !u.Shadow {
				continue
			}
			if s := sight(pipeline.Tried{Step: step.Name, Rule: u.Name, Own: !step.Shadow}); s != nil {
				s.asked, s.undecided = true, u.Why
			}
		}
	}
}

func (s *sighting) hold(rcpt int) {
	s.held = true
	s.copies[rcpt] = true
}

// A weighing works out what would have been decided about one record.
type weighing struct {
	reporter *shadowReporter
	plan     *shadowPlan
	record   *pipeline.Record

	labels  []label
	paths   []string
	message *mime.Message
	looked  bool
	was     map[bool]*pipeline.Replayed // by whether the message was there
}

// weigh compares what was decided with what would have been had an item counted.
func (w *weighing) weigh(ctx context.Context, s *sighting) error {
	if err := w.look(); err != nil {
		return err
	}
	i := s.item
	concerned := func(n int) bool {
		x := &w.record.Recipients[n]
		byDoor := x.Step == "" && x.Reply.Code >= 400
		return !byDoor && (s.copies[-1] || s.copies[n] || s.failed != "")
	}
	if s.held && i.Kind != "all" {
		for n := range w.record.Recipients {
			if concerned(n) {
				i.Users.add(w.labels[n])
			}
		}
	}
	if !i.whole {
		return nil
	}
	unsure := func(why string) {
		for n := range w.record.Recipients {
			if concerned(n) {
				i.Unsure.add(why)
			}
		}
	}
	if w.plan.why != "" {
		unsure(w.plan.why)
		return nil
	}
	live := w.reporter.liveOf(ctx, w.plan, w.record.Plan, i)
	if live.why != "" {
		unsure(live.why)
		return nil
	}
	i.Together = live.together
	was, would, err := w.decide(ctx, live.plan)
	if err != nil {
		return err
	}
	if len(would.Gaps) > 0 {
		unsure(would.Gaps[0])
		return nil
	}
	for n := range w.record.Recipients {
		if !concerned(n) || n >= len(was.Record.Recipients) || n >= len(would.Record.Recipients) {
			continue
		}
		a, b := became(&was.Record.Recipients[n]), became(&would.Record.Recipients[n])
		if a == b {
			i.Same++
			continue
		}
		i.change(a, b, w.record.ID, w.labels[n], w.reporter.examples)
	}
	return nil
}

// look finds out what users did with the mail.
func (w *weighing) look() error {
	if w.labels != nil {
		return nil
	}
	for n := range w.record.Recipients {
		l, path, err := w.reporter.users.label(w.record, &w.record.Recipients[n])
		if err != nil {
			l = label{labelUnknown, firstLine(err.Error())}
		}
		w.labels, w.paths = append(w.labels, l), append(w.paths, path)
	}
	return w.reporter.users.ctx.Err()
}

// decide decides again, as it was and with something that counts: from the recorded terms, and where those leave something
// open with the message, if it is still there.
func (w *weighing) decide(ctx context.Context, live *pipeline.Plan) (was, would *pipeline.Replayed, err error) {
	for _, with := range []bool{false, true} {
		var m *mime.Message
		if with {
			if m = w.mail(); m == nil {
				break
			}
		}
		if w.was[with] == nil {
			again, err := w.plan.plan.Replay(ctx, w.record, pipeline.Replay{Message: m})
			if err != nil {
				return nil, nil, err
			}
			if w.was == nil {
				w.was = map[bool]*pipeline.Replayed{}
			}
			w.was[with] = &again
		}
		again, err := live.Replay(ctx, w.record, pipeline.Replay{Message: m, Then: w.plan.plan})
		if err != nil {
			return nil, nil, err
		}
		if was, would = w.was[with], &again; len(would.Gaps) == 0 {
			break
		}
	}
	return was, would, nil
}

// mail is the message as it came; nil if it is gone.
func (w *weighing) mail() *mime.Message {
	if w.looked {
		return w.message
	}
	w.looked = true
	for _, path := range w.paths {
		if path == "" {
			continue
		}
		if m, err := original(path, w.record, w.reporter.plans.settings.Limits.MIME()); err == nil {
			w.message = m
			break
		}
	}
	return w.message
}

// became says what becomes of a copy by a decision.
func became(x *pipeline.RecipientRecord) string {
	switch x.Disposition {
	case pipeline.Delivered:
		s := "delivered to " + folder(x.Folder)
		if len(x.Flags) > 0 {
			s += ", flagged " + strings.Join(x.Flags, " ")
		}
		return s
	case pipeline.Held:
		return "held in quarantine"
	case pipeline.NotFinished:
		return "not decided"
	}
	return string(x.Disposition)
}

func (i *shadowItem) change(was, would, id string, l label, examples int) {
	n := slices.IndexFunc(i.Changes, func(c *shadowChange) bool { return c.Was == was && c.Would == would })
	if n < 0 {
		n = len(i.Changes)
		i.Changes = append(i.Changes, &shadowChange{Was: was, Would: would, Examples: []string{}})
	}
	c := i.Changes[n]
	c.Copies++
	c.Users.add(l)
	if len(c.Examples) < examples && !slices.Contains(c.Examples, id) {
		c.Examples = append(c.Examples, id)
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
