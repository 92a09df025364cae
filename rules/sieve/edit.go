package sieve

import "sluice/pipeline/mime"

// now is the message as the script has made it; nil: as it came.
func (m *message) now() *mime.Message {
	if m.draft == nil {
		return nil
	}
	return m.draft.message
}

// edit lets the rest of the run see another message: later tests and later actions, not those before (RFC 5293, 3).
func (r *run) edit(n *call, change func(d *draft) (*draft, error)) bool {
	d := r.mail.draft
	if d == nil {
		d = &draft{message: r.mail.src}
	}
	d, err := change(d)
	if err != nil {
		r.fail(n, "the mail cannot be changed so: %v", err)
		return false
	}
	if d.message.Size() > r.mail.size()+int64(r.limits.EditedSize) {
		r.fail(n, "the mail grows by more than %d octets", r.limits.EditedSize)
		return false
	}
	r.mail = newMail(d.message)
	r.mail.draft = d
	return true
}

// note says what was asked for and is not done, and why.
func (r *run) note(n *call, format string, args ...any) {
	r.say(n, format, args...)
	if len(r.notes) < r.limits.Log {
		r.notes = append(r.notes, Line{Script: n.unit.name, Line: n.line, Text: clipTo(sprintf(format, args...), 500)})
	}
}

// conflict says why an action cannot be asked for after those before it, "" if it can.
func (r *run) conflict(a Action) string {
	refuses := func(k Kind) bool { return k == Reject || k == EReject }
	for _, b := range r.actions {
		switch {
		case refuses(a.Kind) && refuses(b.Kind):
			return sprintf("%s after %s in line %d: the mail can be refused once", a.Kind, b.Kind, b.Line)
		case refuses(a.Kind) && spoils(b), refuses(b.Kind) && spoils(a):
			// RFC 5429, 2.2 and 2.1; RFC 5230, 4.7: who is told that the mail was refused must not find it taken.
			return sprintf("%s and, in line %d, %s exclude each other", a.Kind, b.Line, b.Kind)
		case a.Kind == Vacation && b.Kind == Vacation:
			return sprintf("vacation stands in line %d already: the sender gets one reply", b.Line)
		case a.Kind == Pipe && b.Kind == Pipe && a.Program == b.Program:
			return sprintf("the mail goes to the program %q in line %d already", a.Program, b.Line)
		}
	}
	return ""
}

// spoils reports whether an action takes the mail, which then cannot be refused.
func spoils(a Action) bool {
	return a.Kind == Keep || a.Kind == FileInto && a.Content == nil || a.Kind == Redirect || a.Kind == Vacation || a.Kind == Pipe
}
