package sieve

import (
	"strings"

	"sluice/pipeline/mime"
)

// redirectedFrom is the field that a mail which was handed on carries: the account that did. One that comes back has it.
const redirectedFrom = "X-Sieve-Redirected-From"

// forwardExtensions: RFC 6134, and what it adds to redirect.
func forwardExtensions() []extension {
	return []extension{{
		name: "extlists",
		tests: []form{{
			name: "valid_ext_list", args: []positional{{name: "names of lists", shape: texts}},
			holds: func(r *run, n *call) bool {
				for _, name := range r.texts(&n.args[0]) {
					if r.in.Lists == nil || !r.in.Lists.Known(name) {
						return false
					}
				}
				return true
			},
		}},
		tags: []tagOn{
			{on: []string{"*"}, tag: tag{name: "list", group: "match type"}},
			{on: []string{"redirect"}, tag: tag{name: "list"}},
		},
	}}
}

// redirect hands the mail on, unless it was here before: then it stays, so that no loop loses it (RFC 5228, 4.2).
func (r *run) redirect(n *call, to string) flow {
	if hops := fieldCount(r.came.Header(), "Received"); hops > r.limits.Hops {
		r.note(n, "not redirected to %s: the mail has gone through %d servers, which looks like a loop", clipTo(to, 100), hops)
		return next
	}
	for f := range r.came.Header().All(redirectedFrom) {
		if r.in.Account != "" && strings.EqualFold(strings.TrimSpace(f.Value()), r.in.Account) {
			r.note(n, "not redirected to %s: the mail was redirected from here before, and has come back", clipTo(to, 100))
			return next
		}
	}
	r.say(n, "redirect %q", to)
	a := Action{Kind: Redirect, Address: to}
	if r.in.Account != "" {
		a.Fields = [][2]string{{redirectedFrom, oneLine(r.in.Account)}}
	}
	return r.add(n, a)
}

// redirectList hands the mail on to everybody on a list (RFC 6134, 2.3).
func (r *run) redirectList(n *call, list string) flow {
	var members []string
	known := false
	if r.in.Lists != nil {
		members, known = r.in.Lists.Members(list)
	}
	if !known {
		return r.fail(n, "there is no list %q to redirect to", clipTo(list, 100))
	}
	if left := r.limits.Redirects - r.redirects; len(members) > left {
		return r.fail(n, "the list %q has %d addresses; the script may redirect %d times, and %d are left", clipTo(list, 100), len(members), r.limits.Redirects, left)
	}
	for _, m := range members {
		to, wrong := redirectAddress(m)
		if wrong != "" {
			return r.fail(n, "the list %q: %s", clipTo(list, 100), wrong)
		}
		if f := r.redirect(n, to); f != next {
			return f
		}
	}
	return next
}

func fieldCount(h mime.Header, name string) (n int) {
	for range h.All(name) {
		n++
	}
	return n
}
