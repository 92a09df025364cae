package program

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// print prints the report for a person.
func (r *shadowReport) print(t *text) {
	const minute = "2006-01-02 15:04"
	t.line(0, "shadow steps and rules from %s to %s: %s", r.Since.Local().Format(minute), r.Until.Local().Format(minute), many(r.Records, "mail"))
	if r.Interrupted {
		reached := "none was looked at"
		if !r.Reached.IsZero() {
			reached = "what follows is about mail up to " + r.Reached.Local().Format(time.DateTime)
		}
		t.line(0, "INTERRUPTED: %s", reached)
	}
	if r.Unreadable > 0 {
		t.line(0, "%s could not be read, and %s not counted", many(r.Unreadable, "record"), plural(r.Unreadable, "is", "are"))
	}
	if len(r.Items) == 0 {
		t.line(0, "nothing is tried: put `shadow: true` on a rule, a group, a rule file or a step")
	}
	for _, i := range r.Items {
		t.line(0, "")
		i.print(t)
	}
}

func many(n int, what string) string { return strconv.Itoa(n) + " " + what + plural(n, "", "s") }

func (i *shadowItem) print(t *text) {
	kind := i.Kind
	if i.Kind == "all" {
		kind = "had they all counted"
	}
	t.line(0, "%s (%s)", i.Name, kind)
	if i.Seen == 0 {
		t.line(1, "asked about no mail")
	} else {
		t.line(1, "asked about %s, held for %d", many(i.Seen, "mail"), i.Held)
	}
	for _, x := range []struct {
		what string
		tally
	}{{"could not be decided for", i.Undecided}, {"failed for", i.Errors}, {"not run for", i.NotRun}, {"not finished for", i.NotFinished}} {
		if x.Count > 0 {
			t.line(1, "%s %s: %s", x.what, many(x.Count, "mail"), reasons(x.tally))
		}
	}
	if u := i.Users; u.Spam+u.Ham+u.Unknown.Count > 0 {
		t.line(1, "owners of the copies it held for: %s", u)
	}
	if i.Together != "" {
		t.line(1, "what follows is with all other shadow steps and rules counting, too: by itself it cannot count (%s)", i.Together)
	}
	for _, c := range i.Changes {
		t.line(1, "%s that %s %s would have been %s", copies(c.Copies), plural(c.Copies, "was", "were"), c.Was, c.Would)
		t.line(2, "their owners: %s", c.Users)
		if len(c.Examples) > 0 {
			t.line(2, "sluice explain %s", strings.Join(c.Examples, " "))
		}
	}
	if i.Same > 0 {
		t.line(1, "for %s nothing would have changed", copies(i.Same))
	}
	if i.Unsure.Count > 0 {
		t.line(1, "for %s nobody can say: %s", copies(i.Unsure.Count), reasons(i.Unsure))
	}
	if !i.whole && i.Held > 0 {
		t.line(1, "what it would have done is part of %s", i.tried.Step)
	}
	if i.Took.Count > 0 {
		of := ""
		if i.Kind == "rule" {
			of = ", all shadow rules of " + i.tried.Step + " together"
		}
		t.line(1, "took %s for half of the mails, %s for 95 of 100%s", milliseconds(i.Took.P50), milliseconds(i.Took.P95), of)
	}
}

func copies(n int) string { return strconv.Itoa(n) + " " + plural(n, "copy", "copies") }

// String is "1 spam, 0 ham, 2 unknown (unread where it was filed 2)".
func (u userTally) String() string {
	s := fmt.Sprintf("%d spam, %d ham, %d unknown", u.Spam, u.Ham, u.Unknown.Count)
	if u.Unknown.Count > 0 {
		s += " (" + reasons(u.Unknown) + ")"
	}
	return s
}

// reasons lists the most frequent first: "unread where it was filed 2, replied to 1".
func reasons(t tally) string {
	const most = 4
	names := slices.SortedFunc(maps.Keys(t.Why), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.Why[b], t.Why[a]), cmp.Compare(a, b))
	})
	var all []string
	rest := 0
	for n, name := range names {
		if n < most {
			all = append(all, fmt.Sprintf("%s %d", name, t.Why[name]))
		} else {
			rest += t.Why[name]
		}
	}
	if rest > 0 {
		all = append(all, fmt.Sprintf("other reasons %d", rest))
	}
	return strings.Join(all, ", ")
}

func milliseconds(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(10 * time.Microsecond).String()
}
