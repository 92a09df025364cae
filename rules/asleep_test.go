package rules

import (
	"fmt"
	"strings"
	"testing"
)

// asleep names the rules of a set that are not looked at unless something of theirs is there.
func asleep(set *ruleset) string {
	var names []string
	for _, st := range set.stages(thresholds{}) {
		st, ok := st.(*stage)
		if !ok || st.sleepers == nil {
			continue
		}
		for _, x := range st.rules {
			if st.truths[x.at] == isFalse {
				names = append(names, x.name)
			}
		}
	}
	return strings.Join(names, " ")
}

func TestAsleep(t *testing.T) {
	for _, c := range []struct{ name, rules, want string }{
		{"what it looks for first", `
  - {name: a, when: 'subject contains "prize"'}
  - {name: b, when: 'has("X-Odd") and not has("List-Id")'}
  - {name: c, when: 'text matches "(?i)prize" or any(attachments, .extension == "exe")'}
  - {name: d, when: 'any(headers("Received"), # contains "dsl" and lower(#) contains "pool")'}`, "a b c d"},
		{"what can hold without it", `
  - {name: a, when: 'not (subject contains "prize")'}
  - {name: b, when: 'subject contains "prize" or size > 5'}
  - {name: c, when: 'subject contains ""'}
  - {name: d, when: 'any(links, len(.text) > 3 or .domain == "a.example")'}
  - {name: e, when: 'all(attachments, .extension == "exe")'}`, ""},
		{"a body that a cheap term may leave alone", `
  - {name: a, when: 'size < 10 and text contains "prize"'}`, ""},
		{"a body that is looked at anyway", `
  - {name: a, when: 'size < 10 and text contains "prize"'}
  - {name: b, when: 'text contains "money"'}`, "a b"},
		{"facts cost nothing", `
  - {name: a, when: 'dnsbl.zen.listed and spf.result == "fail"'}`, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := asleep(setOf(t, "rules:"+c.rules+"\n", nil, func(*ruleset) {})); got != c.want {
				t.Errorf("asleep are %q, not %q", got, c.want)
			}
		})
	}
}

// The record says of a rule that has slept which terms have settled it, and hit() knows that it does not hold.
func TestAsleepIsFalse(t *testing.T) {
	set := setOf(t, `rules:
  - {name: first, when: 'text contains "money"'}
  - {name: second, when: 'size < 10 and text contains "prize"'}
  - {name: third, when: 'not hit("second") and subject contains "hello"'}
  - {name: fourth, when: 'text contains "minutes" and subject contains "hello"'}
`, nil, func(*ruleset) {})
	v := view(t)
	v.Message = message(t, "Subject: hello\n\nthe minutes of our meeting\n")
	r, err := set.stages(thresholds{})[0].Check(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	var held []string
	for _, h := range r.Hits {
		held = append(held, h.Name)
	}
	var terms []string
	for i, term := range set.terms {
		terms = append(terms, fmt.Sprintf("%s: %d", term.source, r.Terms[i/4]>>(i%4*2)&3))
	}
	want := `text contains "money": 1; size < 10: 0; text contains "prize": 1; hit("second"): 1; subject contains "hello": 2; ` +
		`text contains "minutes": 2; subject contains "hello": 2`
	if got := strings.Join(terms, "; "); got != want || strings.Join(held, " ") != "third fourth" {
		t.Errorf("%s held\ngot  %s\nwant %s", held, got, want)
	}
	v.Message = nil // of which nothing is known, then
	if r, err = set.stages(thresholds{})[0].Check(t.Context(), v); err != nil || len(r.Undecided) != 4 {
		t.Errorf("%d rules are undecided, %v", len(r.Undecided), err)
	}
}
