package sieve

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// duplicateExtension: RFC 7352.
func duplicateExtension() []extension {
	return []extension{{
		name: "duplicate",
		tests: []form{{
			name: "duplicate", holds: duplicateTest,
			tags: []tag{
				{name: "handle", takes: text},
				{name: "header", takes: text, group: "what makes a mail the same", check: func(c *checker, _ *call, v *value) {
					if p := v.texts[0]; p.constant() && !isFieldName(p.fixed) {
						c.report(p.at, sprintf("%q is no name of a header field", clip(p.fixed)), "write the name alone")
					}
				}},
				{name: "uniqueid", takes: text, group: "what makes a mail the same"},
				{name: "seconds", takes: number}, {name: "last"},
			},
		}},
	}}
}

// duplicateTest asks whether the mail came before. That it came is remembered once it is ours, and not before (RFC 7352, 3).
func duplicateTest(r *run, n *call) bool {
	id, known := "", false
	switch {
	case n.has("uniqueid"):
		id, known = r.text(n.tag("uniqueid")), true
	default:
		name := "Message-ID"
		if v := n.tag("header"); v != nil {
			name = r.text(v)
		}
		if f, ok := r.mail.src.Header().First(name); ok {
			id, known = f.Value(), true
		}
	}
	if !known || strings.TrimSpace(id) == "" {
		r.say(n, "  the mail has nothing to know it by")
		return false
	}
	within := r.limits.DuplicateTime
	if v := n.tag("seconds"); v != nil {
		within = seconds(v.number, 0, r.limits.RememberMost)
	}
	handle := ""
	if v := n.tag("handle"); v != nil {
		handle = r.text(v)
	}
	m := Mark{Key: markKey("duplicate", handle, id), Within: within, Last: n.has("last")}
	before := r.in.Seen != nil && r.in.Seen.Before(m.Key, within)
	if !before || m.Last {
		r.mark(m)
	}
	return before
}

// mark remembers a thing once the mail is ours; a key is there once.
func (r *run) mark(m Mark) {
	for i := range r.marks {
		if r.marks[i].Key == m.Key {
			r.marks[i] = m
			return
		}
	}
	if len(r.marks) < r.limits.Actions {
		r.marks = append(r.marks, m)
	}
}

// markKey is the key of a mark: short, whatever it is about.
func markKey(kind string, about ...string) string {
	h := sha256.New()
	for _, s := range about {
		_, _ = h.Write([]byte(sprintf("%d:%s", len(s), s)))
	}
	return kind + ":" + hex.EncodeToString(h.Sum(nil)[:16])
}

// seconds is a time that a script says, within bounds.
func seconds(n int64, least, most time.Duration) time.Duration {
	if n > int64(most/time.Second) {
		return most
	}
	return max(least, time.Duration(n)*time.Second)
}
