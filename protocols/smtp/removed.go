package smtp

import (
	"slices"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// An unwanted says which fields of a message are not in a copy: by their names in lower case the nth, 0 is each.
type unwanted map[string][]int

func (u unwanted) has(name string, nth int) bool {
	which, ok := u[name]
	return ok && (slices.Contains(which, 0) || slices.Contains(which, nth))
}

// deleted adds the fields that edits delete.
func (u unwanted) deleted(edits []pipeline.Edit) unwanted {
	for _, e := range edits {
		if e.Delete {
			name := strings.ToLower(e.Name)
			u[name] = append(u[name], e.Index)
		}
	}
	return u
}

// unwanted are the fields that are not in the copy for a decision, nil for the one in quarantine.
func (f *filing) unwanted(d *pipeline.Decision) unwanted {
	u := unwanted{"return-path": {0}, "delivered-to": {0}, strings.ToLower(pipeline.IDField): {0}}
	if d != nil {
		u.deleted(d.Edits)
	}
	return u
}

// removed is what stood in the message as it came, and does not in the copy for a decision. Without it nobody could tell from
// the copy what came.
func (f *filing) removed(d *pipeline.Decision) (all []pipeline.Removed) {
	u := f.unwanted(d)
	ours := func(x mime.Field) bool { return pipeline.Ours(x.Name) }
	forged := !slices.ContainsFunc(f.stored.Header().Fields(), ours) // else they are what another of our doors wrote
	if !slices.ContainsFunc(f.m.parsed.Header().Fields(), func(x mime.Field) bool {
		return forged && ours(x) || u[strings.ToLower(x.Name)] != nil
	}) {
		return nil
	}
	section, _, err := split(f.m.parsed)
	if err != nil {
		return nil // then the copy could not be read either
	}
	at := int64(0)
	eachField(section, func(name string, nth int, text []byte) {
		at += int64(len(text))
		if u.has(name, nth) || forged && pipeline.Ours(name) {
			all = append(all, pipeline.Removed{Behind: f.m.Size() - at, Field: text})
		}
	})
	return all
}
