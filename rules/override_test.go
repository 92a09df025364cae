package rules

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// Overrides in the words of the language itself: each recipient gets what is written for it, all others what is for all.
func TestOverrides(t *testing.T) {
	c := DefaultConfig()
	c.Reject, c.Junk = 15, 5
	if fails := testsIn(t, c, map[string]string{"rules/a.yaml": `
groups:
  spam: {max: 6}
rules:
  - {name: listed, when: scan.listed, score: 4, group: spam}
  - {name: many, when: scan.count > 3, score: 4, group: spam}
  - {name: huge, when: scan.count > 30, reject: true}
  - {name: both, when: hit("listed") and hit("many"), flag: [both]}
  - {name: alarm, when: score > 7, quarantine: true}
overrides:
  - for: example.org
    junk: 3
    scores: {listed: 3.5}
    off: [huge]
  - for: anna@example.org
    "on": [huge]
    off: [many]
    groups: {spam: {max: 3}}
  - for: [example.com, bert@example.org]
    rules:
      - {name: friend, when: has("X-Friend"), score: -3}
      - {name: own, when: has("X-Own"), file: Own}
      - {name: early, when: has("X-Early"), keep: true}
tests:
  - name: scores and thresholds of a domain, and of nobody
    mail: {rcpts: [dora@example.org, eva@example.net, bert+lists@example.org], facts: {scan: {listed: true, count: 0}}}
    expect:
      score: {dora@example.org: 3.5, eva@example.net: 4, bert+lists@example.org: 3.5}
      folder: {dora@example.org: Junk, eva@example.net: INBOX, bert+lists@example.org: Junk}
  - name: a rule that is off for some refuses the others
    mail: {rcpts: [dora@example.org, eva@example.net, anna@example.org], facts: {scan: {listed: false, count: 40}}}
    expect:
      verdict: {dora@example.org: pass, eva@example.net: reject, anna@example.org: reject}
  - name: what is off hit() does not see
    mail: {rcpts: [anna@example.org], facts: {scan: {listed: true, count: 4}}}
    expect: {miss: [both, many], score: 3, folder: Junk}
  - name: others see it, within their own bounds
    mail: {rcpts: [dora@example.org], facts: {scan: {listed: true, count: 4}}}
    expect: {hit: [both, many], score: 6, folder: Junk}
  - name: rules of their own
    mail: {rcpts: [carl@example.com, eva@example.net, bert@example.org], headers: {X-Friend: "1", X-Own: "1"}, facts: {scan: {listed: true, count: 4}}}
    expect:
      score: {carl@example.com: 3, eva@example.net: 6, bert@example.org: 3}
      folder: {carl@example.com: Own, eva@example.net: Junk, bert@example.org: Junk}
  - name: a keep of their own stands behind all rules and before the thresholds
    mail: {rcpts: [carl@example.com, eva@example.net], headers: {X-Early: "1"}, facts: {scan: {listed: true, count: 31}}}
    expect:
      verdict: reject
  - name: and saves from the thresholds
    mail: {rcpts: [carl@example.com, eva@example.net], headers: {X-Early: "1"}, facts: {scan: {listed: true, count: 5}}}
    expect:
      verdict: {carl@example.com: keep, eva@example.net: pass}
      folder: {carl@example.com: INBOX, eva@example.net: Junk}
`}); fails != "" {
		t.Error(fails)
	}
}

// The record says what was otherwise for a recipient where it mattered.
func TestOverridesInRecord(t *testing.T) {
	c := DefaultConfig()
	c.Reject, c.Junk = 15, 5
	c.Files = []string{"r.yaml"}
	p, j := againPlan(t, `
groups: {spam: {max: 6, min: -1}}
rules:
  - {name: a, when: size > 1, score: 4, group: spam}
  - {name: b, when: size > 1, score: 12}
  - {name: c, when: size > 1, reject: true}
overrides:
  - {for: example.org, reject: 0, scores: {b: 2}, off: [c]}
  - {for: anna@example.org, reject: 5, groups: {spam: {max: 7}}, rules: [{name: d, when: size > 1, score: 0.5}]}
  - {for: fritz@example.org, scores: {b: 20}}
`, c, new(int))
	ran := pipelinetest.Run(t, p, pipeline.LMTP, j, pipelinetest.Mail{
		From: "x@example.com", To: []string{"dora@example.org", "anna@example.org", "fritz@example.org", "eva@example.net"},
		Text: "From: x@example.com\nSubject: x\n\nhello\n",
	})
	var got strings.Builder
	for _, x := range ran.Record.Recipients {
		fmt.Fprintf(&got, "%s: %s %s (%s) %q, score %v\n", x.Address.Raw, x.Verdict.Action, x.Verdict.By, x.Verdict.Reason, x.Folder, x.Score)
		for _, s := range x.Steps {
			for _, h := range s.Hits {
				off := ""
				if h.Off {
					off = " off"
				}
				fmt.Fprintf(&got, "  %s %v%s: %s\n", h.Name, h.Score, off, h.Note)
			}
			for _, st := range s.Stages {
				for _, e := range st.Effects {
					fmt.Fprintf(&got, "  %s %s: %s\n", e.Kind, e.Folder, e.Reason)
				}
				if st.Note != "" {
					fmt.Fprintf(&got, "  %s\n", st.Note)
				}
			}
		}
	}
	const want = `dora@example.org: pass  () "Junk", score 6
  a 4: 
  b 2: score 2 and not 12 for example.org, r.yaml:8:44
  c 0 off: off for example.org, r.yaml:8:57
  file Junk: score 6 reaches junk: 5
anna@example.org: reject  (score 6.5 reaches reject: 5 (for anna@example.org, r.yaml:9:29)) "", score 6.5
  a 4: the group spam between -1 and 7, and not between -1 and 6, for anna@example.org, r.yaml:9:49
  b 2: score 2 and not 12 for example.org, r.yaml:8:44
  c 0 off: off for example.org, r.yaml:8:57
  d 0.5: a rule for anna@example.org, r.yaml:9:5
fritz@example.org: pass  () "Junk", score 24
  a 4: 
  b 20: score 20 and not 12 for fritz@example.org, r.yaml:10:39
  c 0 off: off for example.org, r.yaml:8:57
  file Junk: score 24 reaches junk: 5
  score 24 would reach reject: 15, which is 0 for example.org, r.yaml:8:24
eva@example.net: reject c () "", score 16
  a 4: 
  b 12: 
  c 0: 
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	checkSums(t, "", ran.Record)
}

// checkSums looks whether what a record says of hits adds up to the scores it says.
func checkSums(t *testing.T, what string, r *pipeline.Record) {
	t.Helper()
	for _, x := range r.Recipients {
		hits := r.HitsOf(&x)
		if got := pipeline.Score(hits); got != x.Score {
			t.Errorf("%s: the hits of %s add up to %v, and its score is %v: %+v", what, x.Address.Raw, got, x.Score, hits)
		}
		sum := 0.0
		for _, c := range pipeline.Counted(hits) {
			sum += c
		}
		if math.Abs(sum-x.Score) > 1e-9 {
			t.Errorf("%s: what the hits of %s add is %v, and its score is %v", what, x.Address.Raw, sum, x.Score)
		}
	}
}

// overridden writes random rules with groups, hit() in all directions and rules that read the score, and overrides for them.
func overridden(seed uint64) (file, overrides string) {
	r := rand.New(rand.NewPCG(seed, 5))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	n := 4 + r.IntN(8)
	scores, reads := make([]bool, n), make([]bool, n)
	var b strings.Builder
	b.WriteString("groups: {one: {max: 5, min: -1}, two: {max: 2.5}}\nrules:\n")
	for i := range n {
		terms := []string{pick(`subject contains "a"`, `has("X-One")`, "list.bad", `list.word == "spam"`, "scan.bad", "person.bad", `rcpt.local == "anna"`,
			`from.local startsWith "s"`, "true")}
		scores[i], reads[i] = r.IntN(2) == 0, r.IntN(6) == 0
		if reads[i] {
			scores[i] = false
			terms = append(terms, pick("score > 3", "score <= 0", "score == 2.5"))
		}
		if k := r.IntN(n); k > i && !reads[i] && r.IntN(2) == 0 && i > 0 {
			// Further down: only rules that ask for nothing themselves, so that there is no circle.
			terms = append(terms, fmt.Sprintf("not hit(%q)", fmt.Sprintf("leaf%d", k)))
		}
		fmt.Fprintf(&b, "  - {name: r%d, when: '%s'", i, strings.Join(terms, pick(" and ", " or ")))
		if scores[i] {
			fmt.Fprintf(&b, ", score: %v", float64(r.IntN(70)-10)/10)
			if g := pick("", "one", "two"); g != "" {
				b.WriteString(", group: " + g)
			}
		}
		if what := pick("", "", "", "reject: true", "quarantine: true", "keep: true", "tempfail: true", fmt.Sprintf("file: F%d", i), "flag: x"); what != "" {
			b.WriteString(", " + what)
		}
		b.WriteString("}\n")
		fmt.Fprintf(&b, "  - {name: leaf%d, when: '%s', shadow: false}\n", i, pick(`subject contains "b"`, "list.bad", `header("X-One") == "1"`))
	}
	file = b.String()
	b.Reset()
	b.WriteString("overrides:\n")
	for i, who := range []string{"example.org", "anna@example.org", "[example.com, bert@example.net]"} {
		fmt.Fprintf(&b, "  - for: %s\n    junk: %d\n", who, 1+r.IntN(3))
		if r.IntN(2) == 0 {
			b.WriteString("    reject: " + pick("0", "12", "4") + "\n")
		}
		fmt.Fprintf(&b, "    %s: [r%d, leaf%d]\n", pick("off", `"on"`), r.IntN(n), r.IntN(n))
		if k := slices.Index(scores, true); k >= 0 && r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    scores: {r%d: %v}\n", k, float64(r.IntN(100)-20)/10)
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    groups: {one: {max: %d}}\n", r.IntN(9))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    rules:\n      - {name: own%d, when: '%s', %s}\n", i, pick("scan.bad", "list.bad", "true", `hit("leaf0")`, `has("X-One")`),
				pick("reject: true", "keep: true", "quarantine: true", "file: Own", "flag: own", "score: 3.1", "score: 20", "score: -2"))
		}
	}
	return file, b.String()
}

// For those whom no override is for everything is as if there were none, whoever else gets the mail; and the sums of all
// recipients add up.
func TestOverridesChangeNothingForOthers(t *testing.T) {
	compared, otherwise, off, notes := 0, 0, 0, 0
	for seed := range uint64(250) {
		r := rand.New(rand.NewPCG(seed, 6))
		c := DefaultConfig()
		c.Reject, c.Quarantine, c.Junk = 9, 0, 4
		if r.IntN(3) == 0 {
			c.Reject, c.Junk = 0, 0
		}
		file, overrides := overridden(seed)
		plain, plainJournal := againPlan(t, file, c, new(int))
		p, j := againPlan(t, file+overrides, c, new(int))
		for range 3 {
			door := []pipeline.Door{pipeline.SMTP, pipeline.LMTP, pipeline.Milter}[r.IntN(3)]
			m := pipelinetest.Mail{
				From: fmt.Sprintf("s%d@example.com", r.IntN(30)), To: []string{"eva@example.edu", "anna@example.org", "dora@example.org", "bert@example.net", "gerd@example.net"},
				Text: fmt.Sprintf("From: x@example.com\nSubject: %s%d\n%s\nhello\n", []string{"a", "b", "ab", "c"}[r.IntN(4)], r.IntN(20),
					[]string{"", "X-One: 1\n", "X-One: 2\n"}[r.IntN(3)]),
			}
			with, without := pipelinetest.Run(t, p, door, j, m).Record, pipelinetest.Run(t, plain, door, plainJournal, m).Record
			what := fmt.Sprintf("seed %d, %s\n%s%s", seed, door, file, overrides)
			checkSums(t, what, with)
			checkSums(t, what, without)
			for i, x := range with.Recipients {
				y := without.Recipients[i]
				says := func(x pipeline.RecipientRecord) string {
					s := fmt.Sprintf("%s %s/%s %s %v in %q by %q, flags %q, score %v", x.Verdict.Action, x.Step, x.Verdict.By, x.Verdict.Reason, x.Verdict.Reply,
						x.Folder, x.FolderBy, x.Flags, x.Score)
					return s
				}
				a, b := says(x), says(y)
				for _, step := range x.Steps {
					for _, h := range step.Hits {
						if h.Off {
							off++
						}
						if h.Note != "" {
							notes++
						}
					}
				}
				if x.Address.Local != "eva" && x.Address.Local != "gerd" {
					if a != b {
						otherwise++
					}
					continue
				}
				compared++
				if a != b {
					t.Fatalf("%s\n%s is served otherwise:\n%s\nand without overrides\n%s", what, x.Address.Raw, a, b)
				}
				for _, step := range x.Steps {
					for _, h := range step.Hits {
						if h.Off || h.Note != "" {
							t.Fatalf("%s\n%s: %+v", what, x.Address.Raw, h)
						}
					}
				}
			}
		}
	}
	if compared < 1000 || otherwise < 200 || off < 100 || notes < 300 {
		t.Errorf("only %d outcomes compared, %d otherwise, %d rules off, %d notes", compared, otherwise, off, notes)
	}
}
