package program

import (
	"fmt"
	"path"
	"strings"

	"sluice/pipeline"
)

// handling prints what a recipient's own wishes have made of the mail: which line of which script filed it where, and what
// left.
func (t *text) handling(x *pipeline.RecipientRecord) {
	h := x.Handling
	if h == nil || x.Disposition == pipeline.Refused || x.Disposition == pipeline.Postponed {
		return // nothing of it was done
	}
	if h.Dropped != "" {
		t.row(3, narrow, "sieve", "%s discarded it", h.Dropped)
	}
	for _, c := range h.Copies {
		t.row(3, narrow, "sieve", "%s", describeCopy(c))
	}
	for _, l := range h.Leaving {
		t.row(3, narrow, "sieve", "%s", describeLeaving(l))
	}
	for _, r := range h.Runs {
		s := fmt.Sprintf("%s gave it to %s", r.By, strings.Join(append([]string{r.Program}, r.Args...), " "))
		if r.Ended != "" {
			s += ", which failed: " + r.Ended
		}
		t.row(3, narrow, "sieve", "%s", s)
	}
	if h.Failed != "" {
		t.styledRow(3, narrow, "failed", red, "%s", h.Failed)
	}
	for _, n := range h.Notes {
		t.row(3, narrow, "sieve", "%s", n)
	}
	for _, l := range h.Trace {
		t.styledRow(3, narrow, "trace", faint, "%s", l)
	}
}

func describeCopy(c pipeline.Copy) string {
	s := "kept in " + folder(c.Folder)
	if c.By != "" {
		s = c.By + " filed it in " + folder(c.Folder)
		if c.Kept {
			s = c.By + " kept it in " + folder(c.Folder)
		}
	}
	if len(c.Flags) > 0 {
		s += ", flagged " + strings.Join(c.Flags, " ")
	}
	if c.Altered {
		s += ", changed"
	}
	if c.Note != "" {
		s += " (" + c.Note + ")"
	}
	return s
}

func describeLeaving(l pipeline.Leaving) string {
	to := strings.Join(l.To, ", ")
	var s string
	switch l.Kind {
	case pipeline.Redirect:
		s = "redirected it to " + to
	case pipeline.Vacation:
		s = "answered " + to
	case pipeline.Return:
		s = "sent on to " + to + ", whose mail it is about"
	default:
		s = "notified " + to
	}
	if l.By != "" {
		s = l.By + " " + s
	}
	if l.Subject != "" {
		s += fmt.Sprintf(" (%s)", l.Subject)
	}
	if l.Queued != "" {
		s += ": sluice queue show " + l.Queued
	}
	return s
}

// whereTo says where a mail that was delivered is, for all its copies.
func whereTo(x *pipeline.RecipientRecord) string {
	h := x.Handling
	if h == nil {
		return folder(x.Folder)
	}
	var all []string
	for _, c := range h.Copies {
		all = append(all, folder(c.Folder))
	}
	if len(all) == 0 {
		return "no folder: it only left"
	}
	return strings.Join(all, ", ")
}

// ownersHandling is a handling as the owner of the mailbox may see it: without what is said to the operator.
func ownersHandling(h *pipeline.Handling) *pipeline.Handling {
	if h == nil {
		return nil
	}
	out := *h
	out.Runs, out.Leaving, out.Trace = nil, nil, nil
	for _, r := range h.Runs {
		out.Runs = append(out.Runs, pipeline.Run{By: r.By, Program: path.Base(r.Program)})
	}
	for _, l := range h.Leaving {
		l.Fields = nil // they have marks by which mail is known that comes back
		out.Leaving = append(out.Leaving, l)
	}
	return &out
}
