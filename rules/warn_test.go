package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

func warningsOf(t testing.TB, c Config, file string) (texts []string) {
	t.Helper()
	c.Files = []string{"x"}
	e := env(map[string]string{"x": file})
	e.Warn = func(err error) { texts = append(texts, strings.Split(err.Error(), "\n")[0]) }
	if _, err := New(c, e); err != nil {
		t.Fatal(err)
	}
	return texts
}

// What conditions can never or always be.
func TestWarnings(t *testing.T) {
	for when, want := range map[string]string{
		`true`:                                   "",
		`false`:                                  "x:2:22: the rule `a` can never hold: `false` reads nothing of the mail",
		`1 > 2 or len("abc") == 3`:               "x:2:31: the rule `a` always holds: `len(\"abc\") == 3` reads nothing of the mail",
		`subject == "x" and subject == "y"`:      "x:2:41: the rule `a` can never hold: `subject == \"x\"` and `subject == \"y\"` exclude each other",
		`subject != "x" or subject != "y"`:       "x:2:40: the rule `a` always holds: of `subject != \"x\"` and `subject != \"y\"` one is always so",
		`subject == "x" or subject == "y"`:       "",
		`spf.result == "x" or spf.result != "x"`: "the rule `a` holds for every mail of which is known what it reads: of `spf.result == \"x\"` and",
		`subject contains "x" and not (subject contains "x")`:         "x:2:52: the rule `a` can never hold: `subject contains \"x\"` cannot hold and not hold",
		`subject contains "xyz" and not (subject contains "y")`:       "`subject contains \"xyz\"` and not `subject contains \"y\"` exclude each other",
		`subject contains "y" and not (subject contains "xyz")`:       "",
		`subject startsWith "ab" and subject startsWith "b"`:          "exclude each other",
		`subject startsWith "ab" and subject startsWith "abc"`:        "",
		`subject startsWith "b" and subject < "a"`:                    "exclude each other",
		`subject startsWith "b" and subject <= "b"`:                   "",
		`subject endsWith "x" and subject == "y"`:                     "exclude each other",
		`subject matches "x" and subject not matches "x"`:             "exclude each other",
		`subject matches "^re:" and subject == "spam"`:                "exclude each other",
		`subject contains "" and size > 3`:                            "x:2:22: `subject contains \"\"` holds wherever it is known: that is so for every text",
		`subject matches "a*" and size > 3`:                           "`subject matches \"a*\"` holds wherever it is known: that is so for every text",
		`subject matches "^a*$" and size > 3`:                         "",
		`subject in [] or size > 3`:                                   "x:2:22: `subject in []` can never hold: the list is empty",
		`subject in ["a", "b"] and subject not in ["b", "a", "c"]`:    "exclude each other",
		`subject in ["a", "b"] and subject != "a" and subject != "b"`: "its parts exclude each other",
		`size < 0 or helo == "x"`:                                     "`size < 0` can never hold: `size` is never below 0",
		`size >= 0`:                                                   "the rule `a` always holds: `size` is never below 0",
		`size > 10 and size < 11`:                                     "exclude each other",
		`size > 10 and size <= 11`:                                    "",
		`size > 10 and size < 13 and size != 11 and size != 12`:       "its parts exclude each other",
		`10 < size and 5 > size`:                                      "exclude each other",
		`size in 1..5 and size > 5`:                                   "exclude each other",
		`size == 1.5`:                                                 "that is no whole number",
		`size > 1.5 and size < 2`:                                     "exclude each other",
		`dmarc.percent > 1.5 and dmarc.percent < 1`:                   "exclude each other",
		`dmarc.percent < 1.5 or dmarc.percent >= 1.5`:                 "", // what is no number is neither
		`received.hour == 24`:                                         "`received.hour` is from 0 to 23",
		`received.weekday == "friday"`:                                "",
		`client.ip == "192.0.2.0/24"`:                                 "`client.ip` is one address, written as in 192.0.2.1",
		`client.ip in ["2001:DB8::1", "2001:db8::1"]`:                 "",
		`client.ip == "2001:DB8::1"`:                                  "is one address",
		`spf.hops < 0`:                                                "`spf.hops` is never below 0",
		`not has("X") and header("x") contains "a"`:                   "not `has(\"X\")` and `header(\"x\") contains \"a\"` exclude each other",
		`not has("X") and header("x") == ""`:                          "",
		`not known(spf) and spf.result == "fail"`:                     "x:2:41: the rule `a` can never hold: `spf.result == \"fail\"` needs what is not known",
		`not known(spf) and known(spf.result)`:                        "what is not known has no known part",
		`not known(spf.result) and spf.domain == "x"`:                 "",
		`not known(dnsbl.zen) and dnsbl.zen.listed`:                   "needs what is not known",
		`hit("early.friend") and not hit("early.friend")`:             "cannot hold and not hold",
		`dnsbl.zen.listed and dnsbl.zen.listed == false`:              "exclude each other",
		`client.trusted != true and client.trusted`:                   "exclude each other",
		`from.domain == rcpt.domain and rcpt.domain != from.domain`:   "exclude each other",
		`from.domain < rcpt.domain and rcpt.domain <= from.domain`:    "exclude each other",
		`from.domain != from.domain`:                                  "can never hold",
		`any(scan.sizes, # > 3) and not any(scan.sizes, # > 3)`:       "cannot hold and not hold",
		`len(subject) == -1`:                                          "`len(subject)` is never below 0",
		`indexOf(subject, "x") < -1`:                                  "is never below -1",
		`size == 3 and (helo == "a" and helo == "b" or size == 4)`:    "the rule `a` can never hold: each of its parts excludes another",
		`size == 3 or (helo == "a" and helo == "b")`:                  "x:2:52: `helo == \"a\" and helo == \"b\"` can never hold: `helo == \"a\"` and `helo == \"b\"` exclude each other",
		`(size == 3 or size == 4) and (size == 5 or size == 6)`:       "each of its parts excludes another",
		`[1][size] == 1`:                                              "",
		`[1][5] == 1`:                                                 "`[1][5] == 1` fails, whatever the mail",
	} {
		got := warningsOf(t, Config{}, "rules:\n  - {name: a, when: "+quote(when)+"}\n")
		if len(got) != min(len(want), 1) || want != "" && !strings.Contains(got[0], want) {
			t.Errorf("%s:\n got %q\nwant %q", when, got, want)
		}
	}
}

// Rules that one further up leaves nothing to decide.
func TestUselessRules(t *testing.T) {
	for rules, useless := range map[string]bool{
		`{name: a, when: 'subject == "x"', reject: true} | {name: b, when: 'subject == "x"', reject: true}`:                           true,
		`{name: a, when: 'subject contains "x"', discard: true} | {name: b, when: 'subject startsWith "xy" and size > 3', file: X}`:   true,
		`{name: a, when: 'subject startsWith "xy"', discard: true} | {name: b, when: 'subject contains "x"', file: X}`:                false,
		`{name: a, when: 'size > 10', quarantine: true} | {name: b, when: 'size > 20 or size == 15', score: 3}`:                       true,
		`{name: a, when: 'size > 10', quarantine: true} | {name: b, when: 'size > 20 or size == 5', score: 3}`:                        false,
		`{name: a, when: 'size > 10', keep: true} | {name: b, when: 'size > 20', score: 3}`:                                           true,
		`{name: a, when: 'size > 10', keep: true} | {name: b, when: 'size > 20', reject: true}`:                                       true,
		`{name: a, when: 'size > 10', keep: true} | {name: b, when: 'size > 20', reject: true, file: X}`:                              false,
		`{name: a, when: 'size > 10', reject: true} | {name: b, when: 'size > 20'}`:                                                   false,
		`{name: a, when: 'size > 10', reject: true, shadow: true} | {name: b, when: 'size > 20', score: 1}`:                           false,
		`{name: a, when: 'size > 10', reject: true} | {name: b, when: 'size > 20', score: 1, shadow: true}`:                           false,
		`{name: a, when: 'client.name == "x"', reject: true} | {name: b, when: 'client.name == "x" and size > 1', quarantine: true}`:  false, // not for postmaster
		`{name: a, when: 'client.name == "x"', discard: true} | {name: b, when: 'client.name == "x" and size > 1', quarantine: true}`: true,
		`{name: a, when: 'spf.result == "fail" or size > 10', discard: true} | {name: b, when: 'size > 11', quarantine: true}`:        true,
		`{name: a, when: 'spf.result == "fail" and size > 10', discard: true} | {name: b, when: 'size > 11', quarantine: true}`:       false,
		`{name: a, when: 'not (size > 10)', discard: true} | {name: b, when: 'size < 5', quarantine: true}`:                           true,
		`{name: a, when: 'true', discard: true} | {name: b, when: 'size < 5', quarantine: true}`:                                      true,
		`{name: a, when: 'spf.result != "x"', discard: true} | {name: b, when: 'dmarc.result == "y"', quarantine: true}`:              false,
		`{name: a, when: 'has("X")', discard: true} | {name: b, when: 'has("x") and has("Y")', quarantine: true}`:                     true,
	} {
		got := warningsOf(t, Config{}, "rules:\n  - "+strings.ReplaceAll(rules, " | ", "\n  - ")+"\n")
		want := "x:3:12: the rule `b` has nothing to decide: wherever it holds `a` holds too, at x:2:12, and has the last word"
		if useless && (len(got) != 1 || !strings.HasPrefix(got[0], want)) || !useless && len(got) > 0 {
			t.Errorf("%s: %q", rules, got)
		}
	}
}

func TestThresholdsBeyondReach(t *testing.T) {
	file := "groups: {g: {max: 2}}\nrules:\n" +
		"  - {name: a, when: size > 1, score: 1.5, group: g}\n  - {name: b, when: size > 2, score: 1.5, group: g}\n" +
		"  - {name: c, when: size > 3, score: 1}\n  - {name: d, when: size > 4, score: -7}\n  - {name: e, when: size > 5, score: 7, shadow: true}\n"
	for name, tt := range map[string]struct {
		c    Config
		want []string
	}{
		"reached": {Config{Junk: 1, Reject: 3, JunkFolder: "Junk"}, nil},
		"beyond":  {Config{Junk: 1, Quarantine: 3.1, Reject: 4, JunkFolder: "Junk"}, []string{"reject: no mail reaches 4: all rules together score 3", "quarantine: no mail reaches 3.1: all rules together score 3"}},
	} {
		if got := warningsOf(t, tt.c, file); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// crowd makes a random condition whose terms have much to do with each other.
func crowd(r *rand.Rand, depth int) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	if depth <= 0 || r.IntN(5) == 0 {
		text := func() string { return pick(`""`, `"x"`, `"12"`, `"Gr"`, `"aa"`, `"127.0.0.2"`, `"pass"`, `"Grüße"`) }
		n := func() string { return pick("-1", "0", "1", "2", "12", "42", "1.5", "255", "256") }
		return pick(
			pick("subject", "helo", `header("X")`, "spf.result", "client.ip", "spf.domain", "lower(subject)")+" "+
				pick("==", "!=", "contains", "startsWith", "endsWith", "<", ">=", "<=", ">", "not contains")+" "+text(),
			pick("subject", "client.ip", "from.local")+pick(" in [", " not in [")+text()+", "+text()+"]",
			pick("subject", "header(\"x\")")+" matches "+pick(`"^x"`, `"1*"`, `"x|1"`, `"^$"`),
			pick("size", "spf.hops", "len(subject)", "header_from.count", "received.hour", "dmarc.percent")+" "+pick("==", "!=", "<", "<=", ">", ">=")+" "+n(),
			n()+pick(" < ", " >= ", " == ")+pick("size", "spf.hops"),
			"spf.hops "+pick("in", "not in")+" "+pick("1..5", "[1, 2]", "[]"),
			pick("dnsbl.zen.listed", "client.trusted", "client.trusted != true", "dnsbl.zen.listed == false", `has("X")`, `has("subject")`,
				"known(spf)", "known(dnsbl.zen)", "known(dmarc.result)", "known(client.name)", "true", "false", "1 > 2", "[1][5] == 1",
				"subject == helo", "helo != subject", "subject < helo", "helo <= subject", `any(dnsbl.zen.codes, # == "x")`,
				`"x" in dnsbl.zen.codes`, "scan.sizes[0] > 3", "scan.sizes[0] < 3"),
		)
	}
	switch r.IntN(5) {
	case 0:
		return "not (" + crowd(r, depth-1) + ")"
	case 1, 2:
		return "(" + crowd(r, depth-1) + " and " + crowd(r, depth-1) + ")"
	}
	return "(" + crowd(r, depth-1) + " or " + crowd(r, depth-1) + ")"
}

// A warning is never wrong: what never holds does not, and what is never false is not, whatever the mail.
func TestWarningsAreSound(t *testing.T) {
	rounds := 800
	if testing.Short() {
		rounds = 200
	}
	never, always, useless := 0, 0, 0
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		var file strings.Builder
		file.WriteString("rules:\n")
		for i := range 3 {
			fmt.Fprintf(&file, "  - {name: r%d, when: %s, %s}\n", i, quote(crowd(r, 1+r.IntN(3))), []string{"discard: true", "score: 1", "quarantine: true"}[r.IntN(3)])
		}
		set, err := load(Config{Files: []string{"x"}}, env(map[string]string{"x": file.String()}))
		if err != nil {
			continue // "x" is never in lower case, and such
		}
		w := &warner{reporter: &reporter{}, set: set, left: warnWork, dead: map[*rule]bool{}}
		for _, term := range set.terms {
			set.settle(term)
		}
		type claim struct {
			n    *node
			want bool
		}
		var claims []claim
		implied := map[[2]*rule]bool{}
		var walk func(n *node)
		walk = func(n *node) {
			for _, want := range []bool{true, false} {
				if can, _ := w.ask(n, want); !can {
					claims = append(claims, claim{n, want})
				}
			}
			if n.op != 't' {
				walk(n.l)
			}
			if n.op == '&' || n.op == '|' {
				walk(n.r)
			}
		}
		for i, x := range set.rules {
			walk(x.cond)
			for _, y := range set.rules[i+1:] {
				if can, _ := w.ask(y.cond, true); can && w.implies(y.cond, x.cond) {
					implied[[2]*rule{y, x}] = true
				}
			}
		}
		useless += len(implied)
		for range 40 {
			v := oddView(t, r)
			s := newState(set)
			for _, step := range set.scope.order {
				if step.shape != nil {
					var f stageFact
					f.step = step
					for i, ref := range set.refs {
						if ref.step == step {
							f.refs = append(f.refs, i)
						}
					}
					s.view = &v
					s.loadFact(f)
				}
			}
			s.view = &v
			truthAt := func(x *rule, n *node) truth { s.rule = x; return s.eval(n) }
			for _, c := range claims {
				got := truthAt(set.rules[0], c.n)
				if c.want && got == isTrue || !c.want && got == isFalse {
					t.Fatalf("seed %d: `%s` came to %d, which was called impossible", seed, c.n.source(), got)
				}
				if c.want {
					never++
				} else {
					always++
				}
			}
			for pair := range implied {
				if truthAt(pair[0], pair[0].cond) == isTrue && truthAt(pair[1], pair[1].cond) != isTrue {
					t.Fatalf("seed %d: `%s` holds, and `%s` does not follow", seed, pair[0].cond.source(), pair[1].cond.source())
				}
			}
		}
	}
	if never < rounds || always < rounds || useless < rounds/30 {
		t.Errorf("only %d, %d and %d claims were put to the test", never, always, useless)
	}
}

// oddView is a random transaction whose values meet those that crowd compares with.
func oddView(t testing.TB, r *rand.Rand) pipeline.View {
	v := randomView(t, r)
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	if r.IntN(4) > 0 {
		header := ""
		if r.IntN(2) == 0 {
			header += "X: " + pick("x", "12", "", "Grüße x", "aa") + "\n"
		}
		if r.IntN(3) > 0 {
			header += "Subject: " + pick("x", "12", "", "xx12", "Gr", "aa", "Grüße") + "\n"
		}
		v.Message = message(t, header+"From: a@b.example\n\n"+strings.Repeat("x", r.IntN(60)))
	}
	if f, ok := v.Facts["spf"].Fact.(spfFact); ok {
		f.Hops, f.Result = uint8(r.IntN(3)), result(pick("x", "pass", "", "12"))
		v.Facts["spf"] = pipeline.Finding{Fact: f, Missing: v.Facts["spf"].Missing}
	}
	return v
}

// Much to think about is given up in time, and then nothing is said.
func TestWarningsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 300 {
		fmt.Fprintf(&b, "  - {name: r%d, when: '", i)
		for k := range 20 {
			fmt.Fprintf(&b, "(subject contains \"%d\" or size > %d) and ", k, i*k)
		}
		b.WriteString("size != 3', discard: true}\n")
	}
	c := Config{Files: []string{"x"}}
	set, err := load(c, env(map[string]string{"x": b.String()}))
	if err != nil {
		t.Fatal(err)
	}
	w := &warner{reporter: &reporter{}, set: set, left: 1000, dead: map[*rule]bool{}}
	for _, x := range set.rules {
		w.rule(x)
	}
	w.useless()
	if w.left < -10_000 {
		t.Errorf("%d comparisons were done beyond what is allowed", -w.left)
	}
	if len(w.all) > 300 {
		t.Errorf("%d warnings", len(w.all))
	}
}

func BenchmarkWarnings(b *testing.B) {
	var text strings.Builder
	text.WriteString("rules:\n")
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		fmt.Fprintf(&text, "  - {name: r%d, when: %s, reject: true}\n", i, quote(fmt.Sprintf("subject contains \"w%d\" and (size > %d or spf.result == \"fail\")", i, r.IntN(9999))))
	}
	set, err := load(Config{Files: []string{"x"}}, env(map[string]string{"x": text.String()}))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		set.warnings(thresholds{})
	}
}

// What overrides change for some recipients is not judged by what it is for the others.
func TestWarningsWithOverrides(t *testing.T) {
	file := "rules:\n  - {name: a, when: size > 10, discard: true}\n  - {name: b, when: size > 20, quarantine: true}\n" +
		"  - {name: c, when: size > 3 or size <= 3, score: 1}\n  - {name: d, when: size < 0, score: 1}\n"
	c := Config{Junk: 5, JunkFolder: "Junk"}
	if got := warningsOf(t, c, file); len(got) != 4 {
		t.Errorf("got %q", got)
	}
	got := warningsOf(t, c, file+"overrides:\n  - {for: anna@example.org, off: [a], junk: 1}\n")
	if len(got) != 1 || !strings.Contains(got[0], "the rule `d` can never hold") {
		t.Errorf("got %q", got)
	}
}
