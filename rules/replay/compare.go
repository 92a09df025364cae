// Package replay looks at decisions a second time: whether a replay agrees with its record, and what other rules would have
// changed.
package replay

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/pipeline"
)

// A Difference is one thing in which two decisions about a transaction differ.
type Difference struct {
	Recipient string `json:"recipient,omitempty"` // as it was written; "" for what is about everybody
	What      string `json:"what"`                // "verdict", "folder", "flags", "score", "rules of STEP"
	Was       string `json:"was"`
	Is        string `json:"is"`
}

func (d Difference) String() string {
	s := fmt.Sprintf("%s was %s and is %s", d.What, d.Was, d.Is)
	if d.Recipient != "" {
		s = d.Recipient + ": " + s
	}
	return s
}

// Differences compares what was decided about each recipient and which rules held. Timings, evidence and reasons in words
// are not compared, nor is what shadow rules say that nobody has heard of yet. None: the decisions agree.
func Differences(was, is *pipeline.Record) (all []Difference) {
	differ := func(rcpt, what, a, b string) {
		if a != b {
			all = append(all, Difference{rcpt, what, a, b})
		}
	}
	rulesOf := func(rcpt string, a, b []pipeline.StepRecord) {
		unheard := unheardOf(a)
		names, left := stepsOf(a, unheard)
		more, right := stepsOf(b, unheard)
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		for _, name := range names {
			differ(rcpt, "rules of "+name, cmp.Or(left[name], "none"), cmp.Or(right[name], "none"))
		}
	}
	rulesOf("", was.Steps, is.Steps)
	for i, a := range was.Recipients {
		if i >= len(is.Recipients) {
			break // the same transaction has the same recipients
		}
		b := is.Recipients[i]
		rcpt := a.Address.Raw
		differ(rcpt, "verdict", Verdict(&a), Verdict(&b))
		if a.Disposition == pipeline.Delivered && b.Disposition == pipeline.Delivered {
			differ(rcpt, "folder", Folder(&a), Folder(&b))
			differ(rcpt, "flags", strings.Join(a.Flags, " "), strings.Join(b.Flags, " "))
		}
		if math.Abs(a.Score-b.Score) > 1e-9 {
			differ(rcpt, "score", number(a.Score), number(b.Score))
		}
		rulesOf(rcpt, a.Steps, b.Steps)
	}
	return all
}

// Verdict says in a few words what was decided about a recipient and by whom: "reject by rules/zen", "pass".
func Verdict(r *pipeline.RecipientRecord) string {
	s := r.Verdict.Action.String()
	if r.Step != "" {
		s += " by " + r.Step
		if r.Verdict.By != "" {
			s += "/" + r.Verdict.By
		}
	}
	return s
}

// Folder says into which folder and by whom: "INBOX", "Lists by rules/newsletters".
func Folder(r *pipeline.RecipientRecord) string {
	s := cmp.Or(r.Folder, "INBOX")
	if r.FolderBy != "" {
		s += " by " + r.FolderBy
	}
	return s
}

// unheardOf names the steps of a record whose shadow stages were still being asked, or never were.
func unheardOf(steps []pipeline.StepRecord) (names []string) {
	for _, s := range steps {
		if slices.ContainsFunc(s.Stages, func(x pipeline.StageRecord) bool { return x.State == "not finished" || x.State == "not run" }) {
			names = append(names, s.Name)
		}
	}
	return names
}

// stepsOf lists, for each step that has rules, those that held and those that could not be decided: "zen, dmarc?". Of
// unheard steps shadow rules are left out.
func stepsOf(steps []pipeline.StepRecord, unheard []string) (names []string, rules map[string]string) {
	rules = map[string]string{}
	for _, s := range steps {
		type one struct {
			at   int
			name string
		}
		var held []one
		out := slices.Contains(unheard, s.Name)
		for _, h := range s.Hits {
			if !out || !s.Shadow && !h.Shadow {
				held = append(held, one{h.At, h.Name})
			}
		}
		for _, u := range s.Undecided {
			if !out || !s.Shadow && !u.Shadow {
				held = append(held, one{u.At, u.Name + "?"})
			}
		}
		slices.SortFunc(held, func(a, b one) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.name, b.name)) })
		var all []string
		for _, x := range held {
			all = append(all, x.name)
		}
		names = append(names, s.Name)
		rules[s.Name] = strings.Join(all, ", ")
	}
	return names, rules
}

func number(x float64) string { return fmt.Sprintf("%.6g", x) }
