package milter

import (
	"slices"
	"strings"

	"sluice/pipeline"
)

// maxField is how many octets a field may have unfolded: RFC 5322, 2.1.1, and some clients lose mail with longer ones.
const maxField = 998

// add has a field added above the message, where it can be.
func (d *dialogue) add(name, value string) {
	bad := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
	// Fields that only we write: nobody else can say where a mail was decided.
	ours := strings.HasPrefix(strings.ToLower(name), "x-sluice-")
	if bad || ours || len(name)+2+len(value) > maxField {
		d.notDone("headers")
		return
	}
	d.edit = append(d.edit, pipeline.Edit{Name: name, Value: value})
}

// replace has a field deleted and, where there is a new value, added anew: it moves to the top. Places count as in the
// mail that the milter was told.
func (d *dialogue) replace(name string, place int, value string) {
	there := 0
	for range d.view.Message.Header().All(name) {
		there++
	}
	if place <= there {
		d.edit = append(d.edit, pipeline.Edit{Delete: true, Name: name, Index: place})
	}
	if value != "" {
		d.add(name, value)
	}
}

func (d *dialogue) notDone(what string) {
	if !slices.Contains(d.fact.NotDone, what) {
		d.fact.NotDone = append(d.fact.NotDone, what)
	}
}

// admit states what is never carried out, because a stage speaks for all recipients, and changes neither envelope nor
// body.
func (d *dialogue) admit() {
	f := &d.fact
	for _, x := range []struct {
		what string
		is   bool
	}{
		{"rcpts_refused", len(f.RcptsRefused) > 0 && f.Verdict != refused && f.Verdict != postponed},
		{"rcpts_deleted", len(f.RcptsDeleted) > 0 && f.Verdict != discarded},
		{"rcpts_added", len(f.RcptsAdded) > 0},
		{"sender", f.SenderChanged},
		{"body", f.BodyReplaced},
	} {
		if x.is {
			d.notDone(x.what)
		}
	}
	slices.Sort(f.NotDone)
}
