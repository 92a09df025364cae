package pipeline

import (
	"bytes"
	"slices"
)

// A Removed is a header field that came and is not in the copy that was kept: one that only the last server writes, one
// that looks like ours, or one that a step has deleted. With it the copy tells what came.
type Removed struct {
	Behind int64  `json:"behind"` // how many octets of the message stood behind it
	Field  []byte `json:"field"`  // with its name and its ends of line
}

// Name is the name of the field as it was written.
func (r Removed) Name() string {
	name, _, _ := bytes.Cut(r.Field, []byte(":"))
	return string(bytes.TrimRight(name, " \t"))
}

// mostRemoved bounds what a record keeps of removed fields, in octets, and each takes some more. Beyond it a copy no longer
// tells what came.
const (
	mostRemoved = 16 << 10
	eachRemoved = 32
)

// shareRemoved leaves what was removed once where it is the same for several recipients.
func shareRemoved(all []RecipientRecord) {
	var sets [][]Removed
	left := mostRemoved
	for i := range all {
		r := &all[i]
		set := r.Removed
		same := func(x []Removed) bool { return slices.EqualFunc(x, set, sameRemoved) }
		n := 0
		for _, x := range set {
			n += len(x.Field) + eachRemoved
		}
		if n > left || slices.ContainsFunc(sets, same) {
			r.Removed = nil
			continue
		}
		left -= n
		sets = append(sets, set)
	}
}

func sameRemoved(a, b Removed) bool { return a.Behind == b.Behind && bytes.Equal(a.Field, b.Field) }

// removedOf is what was removed of the message that a record is about by a door to which an MTA has passed it on: the fields
// of ours in it are those of the first door, and what stands on top is the MTA's.
func removedOf(base *Record, all []Removed) []Removed {
	return slices.DeleteFunc(slices.Clone(all), func(x Removed) bool { return Ours(x.Name()) || x.Behind >= base.Size })
}
