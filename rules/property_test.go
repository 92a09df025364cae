package rules

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// A tree is a random condition over four facts, with what it should come to by the book.
type tree struct {
	text  string
	truth truth
}

// grow makes a random condition. Kleene's tables are written out here, without short cuts.
func grow(r *rand.Rand, depth int, facts []truth) tree {
	if depth == 0 || r.IntN(5) == 0 {
		i := r.IntN(len(facts))
		name := string(rune('a' + i))
		switch r.IntN(8) {
		case 0:
			return tree{"known(f." + name + ")", truthOf(facts[i] != unknown)}
		case 1:
			return tree{"true", isTrue}
		case 2:
			return tree{"f." + name + " == false", facts[i].not()}
		}
		return tree{"f." + name, facts[i]}
	}
	a := grow(r, depth-1, facts)
	if r.IntN(3) == 0 {
		not := []string{"not (%s)", "!(%s)"}[r.IntN(2)]
		return tree{fmt.Sprintf(not, a.text), map[truth]truth{isTrue: isFalse, isFalse: isTrue, unknown: unknown}[a.truth]}
	}
	b := grow(r, depth-1, facts)
	if r.IntN(2) == 0 {
		out := unknown
		switch {
		case a.truth == isFalse || b.truth == isFalse:
			out = isFalse
		case a.truth == isTrue && b.truth == isTrue:
			out = isTrue
		}
		return tree{fmt.Sprintf([]string{"(%s) and (%s)", "(%s) && (%s)"}[r.IntN(2)], a.text, b.text), out}
	}
	out := unknown
	switch {
	case a.truth == isTrue || b.truth == isTrue:
		out = isTrue
	case a.truth == isFalse && b.truth == isFalse:
		out = isFalse
	}
	return tree{fmt.Sprintf([]string{"(%s) or (%s)", "(%s) || (%s)"}[r.IntN(2)], a.text, b.text), out}
}

func TestKleene(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type fact struct {
		A bool `json:"a"`
		B bool `json:"b"`
		C bool `json:"c"`
		D bool `json:"d"`
	}
	for round := range 40 {
		facts := make([]truth, 4)
		f, missing := fact{}, map[string]error{}
		for i, p := range []*bool{&f.A, &f.B, &f.C, &f.D} {
			facts[i] = truth(1 + r.IntN(3))
			*p = facts[i] == isTrue || facts[i] == unknown && r.IntN(2) == 0
			if facts[i] == unknown {
				missing[string(rune('a'+i))] = errors.New("down")
			}
		}
		var rules strings.Builder
		rules.WriteString("rules:\n")
		var want []truth
		for i := range 30 {
			x := grow(r, 4, facts)
			want = append(want, x.truth)
			fmt.Fprintf(&rules, "  - {name: r%d, when: '%s'}\n", i, x.text)
			if i > 0 && r.IntN(3) == 0 {
				// What hit() says is what the rule came to.
				k := r.IntN(len(want))
				fmt.Fprintf(&rules, "  - {name: h%d, when: 'not hit(\"r%d\")'}\n", i, k)
			}
		}
		e := env(map[string]string{"x": rules.String()})
		e.Before = []pipeline.Before{{Name: "f", Kind: "f", Fact: fact{}}, {Name: "rules"}}
		stages, err := New(Config{Files: []string{"x"}}, e)
		if err != nil {
			t.Fatal(err)
		}
		v := pipeline.View{Facts: pipeline.Facts{"f": {Fact: f, Missing: missing}}}
		got := map[string]truth{}
		for _, st := range stages {
			res, err := st.Check(context.Background(), v)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range res.Hits {
				got[h.Name] = isTrue
			}
			for _, u := range res.Undecided {
				got[u.Name] = unknown
			}
		}
		for _, x := range stages[0].(*stage).rules {
			name := x.name
			came := max(got[name], isFalse)
			if strings.HasPrefix(name, "r") {
				var i int
				fmt.Sscanf(name, "r%d", &i)
				if came != want[i] {
					t.Fatalf("round %d: %s with %v: got %d, want %d", round, string(x.when), facts, came, want[i])
				}
				continue
			}
			var k int
			fmt.Sscanf(string(x.when), "not hit(\"r%d\")", &k)
			if came != want[k].not() {
				t.Fatalf("round %d: %s with %v: got %d, want %d", round, string(x.when), facts, came, want[k].not())
			}
		}
	}
}

// randomView is a transaction in which anything may be unknown, empty or odd.
func randomView(t testing.TB, r *rand.Rand) pipeline.View {
	v := view(t)
	texts := []string{"", "x", "Grüße", "\x00\xff", strings.Repeat("a", 3000), "127.0.0.2", "12"}
	text := func() string { return texts[r.IntN(len(texts))] }
	switch r.IntN(4) {
	case 0:
		v.Client = pipeline.Client{}
	case 1:
		v.Client = pipeline.Client{Addr: netip.MustParseAddr("2001:db8::1"), Login: text()}
	}
	if r.IntN(3) == 0 {
		v.Greeting = text()
	}
	switch r.IntN(4) {
	case 0:
		v.Message = message(t, "Subject: x\nX: 12\n\n")
	case 1, 2:
		v.Message = exampleView(t).Message
	}
	if r.IntN(3) > 0 {
		v.Received = time.Unix(r.Int64N(1<<32), 0).UTC()
	}
	for range r.IntN(3) {
		v.Recipients = append(v.Recipients, v.Rcpt)
	}
	scan := scanFact{}
	for range r.IntN(4) {
		scan.Files = append(scan.Files, fileFact{text(), result(text()), r.Int64(), []memberFact{{text(), r.Int64()}, {text(), r.Int64()}}[:r.IntN(3)]})
		scan.Sizes = append(scan.Sizes, r.Int64()-r.Int64())
	}
	v.Facts = pipeline.Facts{
		"dnsbl": {Fact: pipeline.Named[listed]{"zen": {Listed: r.IntN(2) == 0, Codes: texts[:r.IntN(len(texts))]}, "sbl": {}}},
		"spf":   {Fact: spfFact{Result: result(text()), Domain: text(), Hops: uint8(r.IntN(256))}},
		"dmarc": {Fact: dmarcFact{Result: text(), Percent: r.Float32()}},
		"scan":  {Fact: scan},
	}
	for name, f := range v.Facts {
		switch r.IntN(8) {
		case 0:
			v.Facts[name] = pipeline.Finding{Unknown: errors.New("down")}
		case 1:
			f.Missing = map[string]error{"zen": errors.New("down"), "result": errors.New("down"), "files": errors.New("down")}
			v.Facts[name] = f
		}
	}
	return v
}

// byData are the failures of a term that depend on values and not on types.
func byData(why string) bool {
	for _, s := range []string{"failed: there is no item ", " is no whole number", " is no number", "failed: it divides by zero", "memory budget exceeded"} {
		if strings.Contains(why, s) {
			return true
		}
	}
	return false
}

// An accepted condition never fails by type, and nothing takes long.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`dnsbl.zen.listed and not (spf.result in ["fail", "softfail"])`,
		`any(scan.files, .name endsWith ".exe" and .size > 10) or count(scan.sizes, # > 3) == 1`,
		`any(scan.files, .size > 3 and any(.members, .name endsWith ".exe")) or none(scan.files, count(.members, .size > 1) == len(.members))`,
		`subject matches "(?i)^re:" ? size > 3 : has("X")`,
		`let x = lower(from.local); x == "a" or x in ["b"]`,
		`max(spf.hops, 1.5) + -size / 3 % 2 == 0`,
		`known(dnsbl.zen) || hit("early.friend")`,
		`scan.files[spf.hops].name == header("X")`,
		`int(header("X")) in 1..10 or float(subject) < 1 or string(size) == "1"`,
		`1 < size < 3 and none(dnsbl.zen.codes, # == "x") and (((true)))`,
		`repeat("a", 99) == subject`, `now() > date("x")`, `$env`, `{"a": 1}`, `a?.b ?? c`, "`raw`", "'\\u{41}'", "// x\ntrue",
		`[1, 1.5, 2] == [size] and [] == scan.sizes and size in []`,
		`any(links, .domain == "x" and .text contains lower(.host)) or count(attachments, .size > 1) > len(rcpts)`,
		`date - received > days(2) or received.weekday in ["sunday"] or abs(date - received.unix) % 3 == 1 and known(date)`,
		`under(helo, "example.org", from.domain) and not in_network(client.ip, "192.0.2.0/24", "::1")`,
		`looks_like(org(helo), unicode(from.domain), ascii("bücher.de")) or similarity(subject, text) > entropy(html) - 0.5`,
		`has_word(text, "a b", "é") and count_matches(lower(subject), "(?i)x+") > 1 and "nul" in anomalies and other_address(helo, subject) == ""`,
		`one(1..3, # == 2) and indexOf(subject, helo) == -1 and abs(-1) == 1 and all(scan.sizes, # < 3)`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, when string) { neverByType(t, when) })
}

// Conditions that are nearly right: made by the grammar, with a piece of one put into another or taken out.
func FuzzMutated(f *testing.F) {
	for i := range uint64(8) {
		f.Add(i, i+100, uint16(5*i), uint16(3*i), uint16(7*i))
	}
	f.Fuzz(func(t *testing.T, one, other uint64, at, from, length uint16) {
		a := []rune(phrase(rand.New(rand.NewPCG(one, 5)), "bool", 3))
		b := []rune(phrase(rand.New(rand.NewPCG(other, 5)), []string{"bool", "int", "text", "texts"}[other%4], 2))
		i, k := int(at)%(len(a)+1), int(from)%(len(b)+1)
		piece := b[k:min(len(b), k+int(length)%40)]
		rest := a[i:]
		if length%3 == 0 {
			rest = rest[min(len(rest), len(piece)):]
		}
		neverByType(t, string(a))
		neverByType(t, string(a[:i])+string(piece)+string(rest))
	})
}

// neverByType checks that a condition is refused in the checker's own words, or comes to something for any mail.
func neverByType(t *testing.T, when string) {
	t.Helper()
	began := time.Now()
	sc, err := newScope("rules", before())
	if err != nil {
		t.Fatal(err)
	}
	set := newRuleset(sc)
	set.limits = DefaultLimits()
	x := &rule{name: "a", when: []rune(when)}
	if len(x.when) == 0 || string(x.when) != when {
		return
	}
	src := newSource("x", when)
	for i := range len(x.when) + 1 {
		x.whenAt = append(x.whenAt, spot{src, 1, i + 1, 1})
	}
	set.rules = []*rule{x}
	r := &reporter{step: "rules"}
	set.compile(r)
	if len(r.all) > 0 {
		if strings.Contains(r.all.Error(), "this cannot be compiled") {
			t.Errorf("%q: the checker lets pass what expr does not take:\n%v", when, r.all)
		}
		return
	}
	// What never holds according to the warnings does not.
	for _, term := range set.terms {
		set.settle(term)
	}
	w := &warner{reporter: &reporter{}, set: set, left: warnWork, dead: map[*rule]bool{}}
	canHold, _ := w.ask(x.cond, true)
	rnd := rand.New(rand.NewPCG(uint64(len(when)), 7))
	for range 8 {
		v := randomView(t, rnd)
		for _, st := range set.stages(thresholds{}) {
			res, err := st.Check(context.Background(), v)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Hits) > 0 && !canHold {
				t.Errorf("%q held, which was called impossible", when)
			}
			for _, u := range res.Undecided {
				if strings.Contains(u.Why, " failed: ") && !byData(u.Why) {
					t.Errorf("%q fails by type: %s", when, u.Why)
				}
			}
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("%q took %v", when, took)
	}
}

// A rule file of any bytes is read or refused, without a panic.
func FuzzFile(f *testing.F) {
	f.Add(someRules)
	f.Add("rules: [{name: a, when: \"a\\\"b\"}]\ntests:\n  - {message: x, expect: {hit: a}}\n")
	f.Add("rules:\n  - name: a\n    when: >\n      x\n\n      y\n    header: [{A: b}, {C: [d, e]}]\n")
	f.Add("shadow: false\ngroups: {g: {max: 6, min: -2}, t: {shadow: true}}\nrules:\n  - {name: a, when: score > 3 and hit(\"b\"), keep: true}\n" +
		"  - {name: b, when: size > 1, group: g}\n  - {name: c, when: true, score: 1, group: g}\noverrides:\n" +
		"  - {for: [a.example, x@a.example], junk: 3, off: [b], on: [a], scores: {c: 2}, groups: {g: {max: 9}}, rules: [{name: d, when: hit(\"a\")}]}\n")
	f.Add("? a\n: b\n--- |\n c\n...\n%YAML 1.2\n")
	f.Add("rules:\n- name: &a x\n  when: *a\n  <<: {a: b}\n  !!str k: !x [v]\n")
	f.Fuzz(func(t *testing.T, text string) {
		stages, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": text}))
		if err == nil {
			v := view(t)
			for _, st := range stages {
				if _, err := st.Check(context.Background(), v); err != nil {
					t.Fatal(err)
				}
			}
			return
		}
		if strings.TrimSpace(err.Error()) == "" {
			t.Error("an error without a text")
		}
	})
}

func TestHostileConditionsAreRefusedQuickly(t *testing.T) {
	within := func(name, when string) {
		t.Helper()
		began := time.Now()
		_, err := New(Config{Files: []string{"x"}}, env(map[string]string{"x": "rules:\n  - name: a\n    when: " + quote(when) + "\n"}))
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	within("200,000 parentheses", strings.Repeat("(", 200_000)+"true"+strings.Repeat(")", 200_000))
	within("4,000 parentheses", strings.Repeat("(", 4000)+"true"+strings.Repeat(")", 4000))
	within("2,000 nots of a number", strings.Repeat("not ", 2000)+"1")
	within("8,000 minus signs", strings.Repeat("-", 8000)+"1")
	within("1,000 ternaries", strings.Repeat("true?1:", 1000)+"1")
	within("2,000 powers", strings.Repeat("2**", 2000)+"2 == 1")
	within("a list of 4,000", "size in ["+strings.Repeat("1,", 4000)+"spf]")
	within("an unclosed text", `subject == "`+strings.Repeat("x", 8000))
	within("nested repeat", `repeat(repeat("a", 999999), 999999) == ""`)
	within("a range of a thousand million", `any(1..1000000000, # == size)`)
}

// What is accepted costs little: no condition of the largest size takes long on the largest values.
func TestAcceptedConditionsAreBounded(t *testing.T) {
	v := view(t)
	v.Message = message(t, "Subject: "+strings.Repeat("a ", 60_000)+"\n\nx\n")
	for name, when := range map[string]string{
		"a chain of or":         strings.Repeat("subject contains \"zz\" or ", 300) + "true",
		"a pattern":             `subject matches "(a*)*(a|b|c|d)*zz$"`,
		"a predicate":           `any(1..1000, subject contains "zz" and # == 1)`,
		"a predicate's pattern": `any(1..100, subject matches "(a+ )+zz$" and # == 1)`,
		"nots":                  strings.Repeat("not ", 2000) + "true",
		"upper of lower":        strings.Repeat("upper(lower(", 24) + "subject" + strings.Repeat("))", 24) + ` == "x"`,
	} {
		began := time.Now()
		truthOfRule(t, when, v)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestLimits(t *testing.T) {
	two := "rules:\n  - {name: a, when: true}\n  - {name: b, when: true}\n"
	for name, tt := range map[string]struct {
		c    Config
		file string
		want string
	}{
		"rules":         {Config{Limits: Limits{MaxRules: 1}}, two, "there are 2 rules; max_rules is 1"},
		"condition":     {Config{Limits: Limits{MaxCondition: 3}}, two, "the condition has 4 octets; at most 3 are read"},
		"max_condition": {Config{Limits: Limits{MaxCondition: 1 << 20}}, two, "max_condition: 1048576 is above 65536"},
		"file":          {Config{}, two + strings.Repeat("# comment\n", (4<<20)/10), "at most 4194304 are read"},
		"reject":        {Config{Reject: -1}, two, "reject: -1 is no threshold"},
		"order":         {Config{Reject: 5, Quarantine: 8}, two, "quarantine: 8 is above reject: 5"},
		"junk order":    {Config{Reject: 5, Junk: 8, JunkFolder: "Junk"}, two, "junk: 8 is above reject: 5"},
		"junk folder":   {Config{Junk: 5, JunkFolder: "../x"}, two, "junk_folder: \"../x\" has a level"},
	} {
		tt.c.Files = []string{"x"}
		if _, err := New(tt.c, env(map[string]string{"x": tt.file})); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Both a missing file and what is wrong in another are reported.
	_, err := New(Config{Files: []string{"none", "x"}, Junk: -1}, env(map[string]string{"x": "rules:\n  - {name: a, when: foo}\n"}))
	if err == nil || !strings.Contains(err.Error(), "none: no such file") || !strings.Contains(err.Error(), "x:2:21: there is no `foo`") ||
		!strings.Contains(err.Error(), "junk: -1") {
		t.Errorf("got %v", err)
	}
}

func TestScopes(t *testing.T) {
	for name, tt := range map[string]struct {
		before pipeline.Before
		want   string
	}{
		"a word":        {pipeline.Before{Name: "subject", Fact: spfFact{}}, "the step subject is called like a word of the rule language"},
		"a function":    {pipeline.Before{Name: "filter", Fact: spfFact{}}, "called like a word"},
		"a list's name": {pipeline.Before{Name: "x", Fact: pipeline.Named[listed]{"zen-pbl": {}}}, `"zen-pbl" cannot be used as a name in rules`},
		"a list's word": {pipeline.Before{Name: "x", Fact: pipeline.Named[listed]{"in": {}}}, `"in" is a word of the rule language`},
		"a map":         {pipeline.Before{Name: "x", Fact: struct{ M map[string]int }{}}, `"M" cannot be used`},
		"a map's tag": {pipeline.Before{Name: "x", Fact: struct {
			M map[string]int `json:"m"`
		}{}}, "rules cannot see a map[string]int"},
		"no struct": {pipeline.Before{Name: "x", Fact: 3}, "a fact is a struct"},
		"a pointer": {pipeline.Before{Name: "x", Fact: &spfFact{}}, "rules cannot see a *rules.spfFact"},
	} {
		if _, err := newScope("rules", []pipeline.Before{tt.before}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}
