package replay

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A Label is what the owner of a mail has shown it to be.
type Label string

const (
	Spam    Label = "spam"
	Ham     Label = "ham"
	Unknown Label = "unknown"
)

// A Side is one of the two plans that a backtest compares.
type Side struct {
	Plan *pipeline.Plan
	// Junk reports whether a folder is one for junk.
	Junk func(folder string) bool
}

// A Case is one transaction that both sides decide again.
type Case struct {
	Record  *pipeline.Record
	Message *mime.Message // as it came; nil where it is gone
	Gone    string        // why it is, in words that can be counted
	// Then is the plan that decided at the time; nil where it cannot be had: then of a message that is gone nothing is known.
	Then *pipeline.Plan
	// Bare: there is no record; this one was made of the mail that lies in a folder. No step has found anything.
	Bare   bool
	Copies []Copy // those recipients whose mail is asked about
}

// A Copy is one recipient's mail.
type Copy struct {
	At    int // among the recipients of the record
	Label Label
	Why   string // the label, in words that can be counted
}

// An Outcome is what a side makes of one copy.
type Outcome struct {
	What    string         `json:"what"`             // "delivered to INBOX", "refused"
	By      string         `json:"by"`               // "rules/forged_bank", "rules", or "nobody objected"
	Reason  string         `json:"reason,omitempty"` // "score 6 reaches junk: 5"
	Score   float64        `json:"score"`
	KeptOut bool           `json:"kept_out"` // see [Confusion]
	hits    []pipeline.Hit // that counted
}

// A Compared is what came of a case.
type Compared struct {
	Case     *Case
	Old, New []Outcome // by Case.Copies
	// Gaps say why nothing certain can be said. Then Old and New are empty, unless the case is bare and its message there.
	Gaps []string
	// Disagree says where the old side's replay and the record differ. It is no fault where another plan decided then.
	Disagree  []Difference
	SamePlan  bool // the old side's plan is the one that decided then
	OldCost   time.Duration
	NewCost   time.Duration
	Undecided [2][]pipeline.Undecided // rules of each side that lacked a fact, and did not hold for that
	held      [2][][]string           // by side and copy: rules that held, shadow ones marked
}

// Compare decides a case on both sides. newFirst is which of them begins: whoever does has the work of reading the mail.
func Compare(ctx context.Context, was, is Side, c *Case, newFirst bool) (*Compared, error) {
	out := &Compared{Case: c, SamePlan: c.Record.Plan == was.Plan.Version()}
	how := pipeline.Replay{Message: c.Message, Then: c.Then}
	replayed := [2]pipeline.Replayed{}
	sides := []Side{was, is}
	for i := range sides {
		at := i
		if newFirst {
			at = 1 - i
		}
		var err error
		if replayed[at], err = sides[at].Plan.Replay(ctx, c.Record, how); err != nil {
			return nil, err
		}
	}
	for _, x := range replayed {
		if len(x.Record.Recipients) != len(c.Record.Recipients) {
			return nil, fmt.Errorf("the replay of %s has %d recipients, not %d", c.Record.ID, len(x.Record.Recipients), len(c.Record.Recipients))
		}
		for _, gap := range x.Gaps {
			if !x.Certain && !slices.Contains(out.Gaps, gap) {
				out.Gaps = append(out.Gaps, gap)
			}
		}
	}
	out.OldCost, out.NewCost = cost(replayed[0].Record), cost(replayed[1].Record)
	if len(out.Gaps) > 0 && (!c.Bare || c.Message == nil) {
		return out, nil
	}
	for i, side := range sides {
		r := replayed[i].Record
		out.Undecided[i] = undecided(r)
		for _, x := range c.Copies {
			o, held := side.outcome(r, &r.Recipients[x.At]), heldFor(r, &r.Recipients[x.At])
			out.held[i] = append(out.held[i], held)
			if i == 0 {
				out.Old = append(out.Old, o)
			} else {
				out.New = append(out.New, o)
			}
		}
	}
	if !c.Bare {
		out.Disagree = disagree(c.Record, replayed[0].Record, out.SamePlan)
	}
	return out, nil
}

// disagree compares a record with the replay of the old side. Of another plan only what it came to is compared, for its
// rules may be others.
func disagree(was, is *pipeline.Record, same bool) []Difference {
	all := Differences(was, is)
	if same {
		return all
	}
	return slices.DeleteFunc(all, func(d Difference) bool { return d.What != "verdict" && d.What != "folder" })
}

// outcome says what became of a recipient's copy.
func (s Side) outcome(r *pipeline.Record, x *pipeline.RecipientRecord) Outcome {
	o := Outcome{What: string(x.Disposition), Score: x.Score, hits: r.HitsOf(x), Reason: x.Verdict.Reason, By: "nobody objected", KeptOut: true}
	if x.Step != "" {
		o.By = x.Step
		if x.Verdict.By != "" {
			o.By += "/" + x.Verdict.By
		}
	}
	switch x.Disposition {
	case pipeline.Delivered:
		folder := cmp.Or(x.Folder, "INBOX")
		o.What += " to " + folder
		if o.KeptOut = s.Junk(folder); x.FolderBy != "" {
			o.By, o.Reason = x.FolderBy, threshold(r, x)
		}
	case pipeline.NotFinished:
		o.What = "nothing: the mail never came"
	case pipeline.Repeated:
		o.What = "nothing again"
	case pipeline.Refused:
		if x.ByDoor {
			o.By = "the door"
		}
	}
	return o
}

// threshold is why a score has named the folder, "" where a rule did.
func threshold(r *pipeline.Record, x *pipeline.RecipientRecord) string {
	for _, steps := range [][]pipeline.StepRecord{x.Steps, r.Steps} {
		for _, s := range steps {
			for _, stage := range s.Stages {
				for _, e := range stage.Effects {
					if e.Threshold && !e.Shadow && s.Name == x.FolderBy {
						return e.Reason
					}
				}
			}
		}
	}
	return ""
}

// heldFor names the rules that held for a recipient, "step/rule", those tried only with a mark behind.
func heldFor(r *pipeline.Record, x *pipeline.RecipientRecord) (all []string) {
	for _, steps := range [][]pipeline.StepRecord{r.Steps, x.Steps} {
		for _, s := range steps {
			for _, h := range s.Hits {
				if h.Off {
					continue
				}
				name := s.Name + "/" + h.Name
				if h.Shadow || s.Shadow {
					name += shadowMark
				}
				all = append(all, name)
			}
		}
	}
	return all
}

const shadowMark = " (shadow)"

func undecided(r *pipeline.Record) (all []pipeline.Undecided) {
	add := func(steps []pipeline.StepRecord) {
		for _, s := range steps {
			for _, u := range s.Undecided {
				u.Step = s.Name
				all = append(all, u)
			}
		}
	}
	add(r.Steps)
	for i := range r.Recipients {
		add(r.Recipients[i].Steps)
	}
	return all
}

// cost is how long the rules took.
func cost(r *pipeline.Record) (sum time.Duration) {
	rules := func(steps []pipeline.StepRecord, name string) bool {
		return slices.ContainsFunc(steps, func(s pipeline.StepRecord) bool { return s.Name == name && s.Kind == "rules" })
	}
	for _, t := range r.Timings {
		if rules(r.Steps, t.Step) || slices.ContainsFunc(r.Recipients, func(x pipeline.RecipientRecord) bool { return rules(x.Steps, t.Step) }) {
			sum += t.Took
		}
	}
	return sum
}
