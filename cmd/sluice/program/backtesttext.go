package program

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sluice/rules/replay"
)

func (c *backtestCommand) print(p *program, r *backtestResult) error {
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := text{w: p.stdout}
	t.backtest(r)
	return t.err
}

// backtest prints what a backtest has found out, for a person.
func (t *text) backtest(r *backtestResult) {
	if r.Partial {
		t.line(0, "PARTIAL: interrupted after %d mails; what came later is missing", r.Mails)
	}
	against := strings.Join(r.Against, ", ")
	if against == "current" {
		against = "the configured rules"
	}
	t.line(0, "%s against %s", strings.Join(r.Files, ", "), against)
	t.line(1, "%-14s from %s to %s", "mail", r.Since.Format(time.DateTime), r.Until.Format(time.DateTime))
	t.line(1, "%-14s %d %s, %d decided with both; %.0f a second", "looked at", r.Mails, plural(r.Mails, "mail", "mails"), r.Decided,
		float64(r.Mails)/max(r.Seconds, 1e-3))
	t.line(1, "%-14s %v a mail, with the old rules %v (95 of 100: %v, %v)", "rules take", cost(r.Cost[1].Mean), cost(r.Cost[0].Mean),
		cost(r.Cost[1].P95), cost(r.Cost[0].P95))
	t.counts("cannot be decided", r.Undecided)
	t.counts("without the mail", r.Gone)
	t.examples("RECORD AND REPLAY DISAGREE", "the old rules do not say again what is recorded", r.Disagree)
	t.examples("decided otherwise then", "another configuration decided, and the old rules say something else", r.OtherPlan)
	if r.Unreadable > 0 {
		t.line(1, "%-14s %d", "not readable", r.Unreadable)
		for _, n := range r.Notes {
			t.line(2, "%s", n)
		}
	}
	if r.Recorded.Copies > 0 || r.Bare.Copies == 0 {
		t.figures("", "", r.Recorded)
	}
	if r.Bare.Copies > 0 {
		t.figures(" without a record", ", by the mail alone: no step has found anything", r.Bare)
	}
	t.flips(r)
	t.ruleHits(r)
}

func (t *text) counts(title string, all []replay.Count) {
	sum := 0
	for _, c := range all {
		sum += c.N
	}
	if sum == 0 {
		return
	}
	t.line(1, "%s: %d %s", title, sum, plural(sum, "mail", "mails"))
	for i, c := range all {
		if i == 10 {
			t.line(2, "and %d other reasons", len(all)-i)
			break
		}
		t.line(2, "%6d  %s", c.N, c.What)
	}
}

func (t *text) examples(title, what string, e replay.Examples) {
	if e.Mails > 0 {
		t.line(1, "%s: %d %s: %s: %s", title, e.Mails, plural(e.Mails, "mail", "mails"), what, strings.Join(e.IDs, " "))
	}
}

// figures prints what would change, and how that fits to what users did.
func (t *text) figures(which, how string, f replay.Figures) {
	t.line(0, "")
	t.line(0, "%d of %d %s%s would come out otherwise%s", f.Changed, f.Copies, plural(f.Copies, "copy", "copies"), which, how)
	for _, c := range f.Changes {
		t.line(1, "%6d  %s -> %s  (spam %d, ham %d, unknown %d)", c.Copies, c.From, c.To, c.Spam, c.Ham, c.Unknown)
	}
	t.line(1, "what users made of the mail: spam %d, ham %d, unknown %d", f.Spam, f.Ham, f.Unknown)
	for _, c := range f.Labels {
		t.line(2, "%6d  %s", c.N, c.What)
	}
	if f.Spam+f.Ham == 0 {
		t.line(1, "nobody has said of any mail what it is: nothing can be told of hits and misses")
		return
	}
	t.line(1, "of those %d, unknown ones left out, with Wilson's 95 %% intervals:", f.Spam+f.Ham)
	t.line(2, "%-30s %-28s %s", "", "old", "new")
	t.line(2, "%-30s %-28s %s", "precision", f.Old.Precision, f.New.Precision)
	t.line(2, "%-30s %-28s %s", "recall", f.Old.Recall, f.New.Recall)
	t.line(2, "%-30s %-28s %s", "false positives", f.Old.FalsePositives, f.New.FalsePositives)
	t.line(2, "%-30s %-28s %s", "spam kept out, let in", pair(f.Old.SpamKeptOut, f.Old.SpamLetIn), pair(f.New.SpamKeptOut, f.New.SpamLetIn))
	t.line(2, "%-30s %-28s %s", "ham kept out, let in", pair(f.Old.HamKeptOut, f.Old.HamLetIn), pair(f.New.HamKeptOut, f.New.HamLetIn))
	t.line(1, "only mail that was delivered has a label: what was refused then is in none of these figures")
}

func pair(a, b int) string { return fmt.Sprintf("%d, %d", a, b) }

func (t *text) flips(r *backtestResult) {
	if r.Flipped == 0 {
		return
	}
	t.line(0, "")
	t.line(0, "mail that would come out otherwise, the worst first")
	for _, f := range r.Flips {
		id := f.ID
		if id == "" {
			id = f.File
		}
		t.line(1, "%s  %s  %s", id, f.Received.Format(time.DateTime), f.Label)
		t.line(2, "%-8s %s for %s", "from", f.From, f.To)
		t.line(2, "%-8s %s", "subject", f.Subject)
		t.line(2, "%-8s %s", "label", f.Why)
		t.line(2, "%-8s %s", "old", describeOutcome(f.Old))
		t.line(2, "%-8s %s", "new", describeOutcome(f.New))
		for _, side := range []struct {
			title string
			hits  []string
		}{{"lost", f.Lost}, {"gained", f.Gained}} {
			if len(side.hits) > 0 {
				t.line(2, "%-8s %s", side.title, strings.Join(side.hits, ", "))
			}
		}
	}
	if n := r.Flipped - len(r.Flips); n > 0 {
		t.line(1, "and %d more: --limit 0 lists all", n)
	}
}

func describeOutcome(o replay.Outcome) string {
	s := o.What + ", " + o.By
	if o.Reason != "" {
		s += ": " + o.Reason
	} else if o.Score != 0 {
		s += ", score " + numeral(o.Score)
	}
	return s
}

// mostRules is how many rules are listed for a person.
const mostRules = 40

func (t *text) ruleHits(r *backtestResult) {
	if len(r.Rules) == 0 {
		return
	}
	t.line(0, "")
	t.line(0, "%-40s %8s %8s %8s %8s", "rules that held, by copies", "old", "new", "of spam", "of ham")
	var never []string
	listed := 0
	for _, x := range r.Rules {
		switch {
		case x.Old+x.New == 0:
			never = append(never, x.Rule)
		case listed < mostRules:
			listed++
			t.line(1, "%-38s %8d %8d %8d %8d", x.Rule, x.Old, x.New, x.NewSpam, x.NewHam)
		default:
			listed++
		}
	}
	if listed > mostRules {
		t.line(1, "and %d more; --json has all", listed-mostRules)
	}
	if len(never) > 0 {
		more := ""
		if len(never) > mostRules {
			more = fmt.Sprintf(" and %d more", len(never)-mostRules)
			never = never[:mostRules]
		}
		t.line(1, "never: %s%s", strings.Join(never, ", "), more)
	}
	if lacking := r.Lacking[1]; len(lacking) > 0 {
		t.line(0, "rules that could not be decided for some mail, and did not hold")
		for i, c := range lacking {
			if i == 10 {
				t.line(1, "and %d more; --json has all", len(lacking)-i)
				break
			}
			t.line(1, "%6d  %s", c.N, c.What)
		}
	}
}

// cost rounds a duration to what means something.
func cost(d time.Duration) time.Duration {
	switch {
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d >= time.Microsecond:
		return d.Round(10 * time.Nanosecond)
	}
	return d
}
