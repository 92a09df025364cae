package rules

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/pipeline"
)

// odds are pieces of texts, literals and patterns: such as fold in odd ways, stand at edges, or are next to each other.
func odds() []string {
	return []string{"free", "FREE", "Money", "money", "k", "K", "\u212a", "s", "ſ", "SS", "ß", "ẞ", "İ", "ı", "i", "I", "é", "É", "\u00b5", "μ",
		" ", "  ", "\n", "\r\n", "-", "\xff", "\xc3", "\ufffd", "Ω", "ω", "中文", "\U00010400", "\U00010428", "word", "x", "12", "_"}
}

func oddText(r *rand.Rand, n int) string {
	all := odds()
	var b strings.Builder
	for range n {
		b.WriteString(all[r.IntN(len(all))])
	}
	return b.String()
}

// oddPattern makes a random pattern, mostly with something literal in it.
func oddPattern(r *rand.Rand, depth int) string {
	all := odds()
	piece := func() string {
		if depth > 0 && r.IntN(3) == 0 {
			return "(?:" + oddPattern(r, depth-1) + ")" + []string{"", "?", "*", "+", "{1,2}"}[r.IntN(5)]
		}
		switch r.IntN(9) {
		case 0:
			return []string{`\b`, `\B`, `^`, `$`, `\A`, `\z`, `(?m:^)`, `(?m:$)`}[r.IntN(8)]
		case 1:
			return []string{`.`, `.*`, `(?s:.)`, `\s+`, `[a-z]+`, `[^x]*`, `\w{2,4}`, `[kſ]`, `[\x{fffd}a]`, `\pL`}[r.IntN(10)]
		}
		return regexp.QuoteMeta(strings.ToValidUTF8(all[r.IntN(len(all))], "é"))
	}
	var b strings.Builder
	for range 1 + r.IntN(4) {
		b.WriteString(piece())
	}
	if r.IntN(4) == 0 {
		return b.String() + "|" + piece()
	}
	return b.String()
}

// What a pattern requires is in every text that it matches; where that is exact, it matches wherever it is; and no match
// is longer or reaches over a line's end unless it is said.
func checkRequired(t *testing.T, pattern, text string) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return
	}
	need := requiredBy(pattern)
	there := folded(text)
	all := true
	for _, g := range need.groups {
		one := false
		for _, s := range g {
			one = one || strings.Contains(there, s)
		}
		all = all && one
	}
	matches := re.MatchString(text)
	if matches && !all {
		t.Fatalf("%q matches %q, which has none of %q", pattern, text, need.groups)
	}
	if need.exact && all && !matches && !strings.ContainsAny(text, "İı") {
		t.Fatalf("%q does not match %q, which has one of %q", pattern, text, need.groups)
	}
	if need.edges != noEdges && isASCII(text) {
		first := -1
		for _, s := range need.groups[0] {
			for at := range len(there) {
				if strings.HasPrefix(there[at:], s) && need.edges.hold(text, at, at+len(s)) && (first < 0 || at < first) {
					first = at
				}
			}
		}
		if want := firstMatch(re, text); first != want {
			t.Fatalf("%q matches %q at %d, and one of %q stands between edges at %d", pattern, text, want, need.groups, first)
		}
	}
	for _, at := range re.FindAllStringIndex(text, -1) {
		if most := need.within(runsOf(text)); most >= 0 && at[1]-at[0] > most {
			t.Fatalf("%q matches %q, more than %d octets", pattern, text[at[0]:at[1]], most)
		}
		if need.line && strings.Contains(text[at[0]:at[1]], "\n") {
			t.Fatalf("%q matches %q, over the end of a line", pattern, text[at[0]:at[1]])
		}
	}
}

func TestRequired(t *testing.T) {
	for pattern, want := range map[string]string{
		`(?i)\bviagra\b`:            "[[viagra]] false 24",
		`(?i)viagra`:                "[[viagra]] true 24",
		`viagra`:                    "[[viagra]] false 24",
		`123-45`:                    "[[123-45]] true 24",
		`free.*money`:               "[[money] [free]] false 36",
		`(?i)act\s+now`:             "[[act] [now]] false 24",
		`(?i)act(?s:.*)now`:         "[[act] [now]] false -1",
		`(?i)act(?:\s\w)+now`:       "[[act] [now]] false -1",
		`(?:foo|bar)baz`:            "[[foobaz barbaz]] false 24",
		`(?:foo|ba[rz])?x+`:         "[] false 12",
		`[a-z]{20,}`:                "[] false 76",
		`(?i)un(?:subscribe|block)`: "[[unsubscribe unblock]] true 44",
		`\x{fffd}aa`:                "[] false 12",
		`a`:                         "[] false 4",
	} {
		x := requiredBy(pattern)
		if got := fmt.Sprint(x.groups, " ", x.exact, " ", x.most); got != want {
			t.Errorf("%s: got %s, want %s", pattern, got, want)
		}
	}
	r := rand.New(rand.NewPCG(8, 8))
	for range 20_000 {
		flags := []string{"", "(?i)", "(?s)", "(?im)"}[r.IntN(4)]
		checkRequired(t, flags+oddPattern(r, 2), oddText(r, r.IntN(12)))
	}
	edged := 0
	for range 5000 {
		edge := func() string { return []string{"", `\b`, `\b`}[r.IntN(3)] }
		pattern := "(?i)" + edge() + []string{"free", "free ", "-free", "(?:free|money)", "free(?:money)?", "fre+", "word x"}[r.IntN(7)] + edge()
		if requiredBy(pattern).edges != noEdges {
			edged++
		}
		text := ""
		for range r.IntN(8) {
			text += []string{"free", "FREE", "money", " ", "-", "word", "x", "_", "\n"}[r.IntN(9)]
		}
		checkRequired(t, pattern, text)
	}
	if edged < 1000 {
		t.Errorf("%d patterns are literals between edges: the test looks at too little", edged)
	}
}

func FuzzRequired(f *testing.F) {
	f.Add(`(?i)\bfree\s+(money|cash)`, "FREE \n Money")
	f.Add(`(k|s)+[^x]{2}`, "ſſab")
	f.Add("x\xff", "\ufffd")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 60 || len(text) > 100 {
			return
		}
		checkRequired(t, pattern, text)
	})
}

// setOf compiles conditions, one a rule, as New does but for the tests; how changes the set before.
func setOf(t testing.TB, file string, files map[string]string, how func(*ruleset)) *ruleset {
	t.Helper()
	all := map[string]string{"rules/test.yaml": file}
	maps.Copy(all, files)
	set, err := load(Config{Files: []string{"rules/test.yaml"}}, env(all), how)
	if err != nil {
		t.Fatalf("rules are refused:\n%v\n%s", err, file)
	}
	return set
}

// Looking for literals first, and evaluating cheap terms first, changes nothing that is said: not which rules hold or are
// undecided, nor why, nor what the terms of those came to.
func TestPrefilterChangesNothing(t *testing.T) {
	rounds := 80
	if testing.Short() {
		rounds = 40
	}
	held, undecided, not, asleep := 0, 0, 0, 0
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 77))
		var file strings.Builder
		file.WriteString("lists:\n  words: {kind: words, values: [free money, word]}\n  scams: {kind: regexes, values: ['(?i)free.{0,9}money', '^x', 'k\\b']}\nrules:\n")
		for i := range 20 {
			when := strings.ReplaceAll(oddCondition(r, 2), `hit("r0")`, fmt.Sprintf(`hit("r%d")`, (i+19)%20))
			if i == 0 {
				when = `subject contains "x"` // that hits lead nowhere for ever
			}
			fmt.Fprintf(&file, "  - {name: r%d, when: %s}\n", i, quote(when))
		}
		sets := []*ruleset{
			setOf(t, file.String(), nil, func(*ruleset) {}),
			setOf(t, file.String(), nil, func(s *ruleset) { s.plain = true }),
			setOf(t, file.String(), nil, func(s *ruleset) { s.slow = true }),
		}
		var stages [][]pipeline.Stage
		for _, s := range sets {
			stages = append(stages, s.stages(thresholds{}))
		}
		for _, st := range stages[0] {
			if z := st.(*stage).sleepers; z != nil {
				for _, x := range st.(*stage).rules {
					if z.truths[x.at] == isFalse {
						asleep++
					}
				}
			}
		}
		for range 6 {
			v := randomView(t, r)
			subject := strings.NewReplacer("\r", "", "\n", "").Replace(oddText(r, r.IntN(12)))
			body := oddText(r, r.IntN(20)) + strings.Repeat("padding that is none of it\n", r.IntN(2)*60) + oddText(r, r.IntN(20))
			v.Message = message(t, "Subject: "+subject+"\nX-Text: "+subject+"\nContent-Type: text/plain; charset=utf-8\n\n"+strings.ReplaceAll(body, "\r\n", "\n"))
			for n := range stages[0] {
				want, err := stages[2][n].Check(context.Background(), v)
				if err != nil {
					t.Fatal(err)
				}
				held, undecided = held+len(want.Hits), undecided+len(want.Undecided)
				not += len(stages[2][n].(*stage).rules) - len(want.Hits) - len(want.Undecided)
				for _, k := range []int{0, 1} {
					got, err := stages[k][n].Check(context.Background(), v)
					if err != nil {
						t.Fatal(err)
					}
					if x, y := said(stages[k][n], got), said(stages[2][n], want); !reflect.DeepEqual(x, y) {
						t.Fatalf("seed %d, set %d, subject %q, body %q\n%s\ngot  %+v\nwant %+v", seed, k, subject, body, &file, x, y)
					}
				}
			}
		}
	}
	t.Logf("%d rules held, %d were undecided, %d neither; %d sleep", held, undecided, not, asleep)
	if held < 500 || undecided < 50 || not < 500 || asleep < 100 {
		t.Errorf("%d rules held, %d were undecided, %d neither, %d sleep: the test looks at too little", held, undecided, not, asleep)
	}
}

// said is what a stage said, without the terms of rules that did not hold: cheap ones settle those.
func said(st pipeline.Stage, r pipeline.Result) pipeline.Result {
	told := map[string]bool{}
	for _, h := range r.Hits {
		told[h.Name] = true
	}
	for _, u := range r.Undecided {
		told[u.Name] = true
	}
	terms := make([]byte, len(r.Terms))
	for i, x := range st.(*stage).terms {
		if told[x.rule.name] {
			terms[i/4] |= r.Terms[i/4] & (3 << (i % 4 * 2))
		}
	}
	r.Terms = terms
	return r
}

func oddCondition(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(3) > 0 {
		a, b := oddCondition(r, depth-1), oddCondition(r, depth-1)
		return fmt.Sprintf([]string{"(%s) and (%s)", "(%s) or (%s)", "not (%s) and (%s)", "(%s) or not (%s)"}[r.IntN(4)], a, b)
	}
	where := []string{"subject", "text", `header("X-Text")`, "lower(subject)", "lower(text)", `lower(header("X-Text"))`, "html", "trim(text)"}[r.IntN(8)]
	text := func(s string) string {
		return "`" + strings.NewReplacer("\n", " ", "\r", "", "`", "").Replace(strings.ToValidUTF8(s, "é")) + "`"
	}
	switch r.IntN(13) {
	case 0, 11, 12:
		return []string{
			"spf.result == \"fail\"", "dnsbl.zen.listed", "size > 200", "client.trusted", "has(\"X-Text\")", "known(dmarc)", "true",
			"has(\"X-None\")", "from.domain in [\"example.org\", \"example.com\"]", "any(attachments, .extension == \"exe\")",
			"hit(\"r0\")", "not has(\"X-Text\")", "dmarc.result == \"fail\"", "dmarc.result != \"fail\"", "dnsbl.sbl.listed",
		}[r.IntN(15)]
	case 8:
		return where + " " + []string{"==", "startsWith", "endsWith"}[r.IntN(3)] + " " + text(strings.ToLower(oddText(r, 1+r.IntN(2))))
	case 9:
		return fmt.Sprintf("%s in [%s, %s]", where, text(strings.ToLower(oddText(r, 2))), text(strings.ToLower(oddText(r, 1+r.IntN(2)))))
	case 10:
		one := func() string {
			return []string{"#", "lower(#)"}[r.IntN(2)] + " " + []string{"contains", "==", "startsWith", "endsWith"}[r.IntN(4)] + " " +
				text(strings.ToLower(oddText(r, 1+r.IntN(2))))
		}
		return fmt.Sprintf(`any(headers("X-Text"), %s)`, []string{one(), one() + " and " + one(), one() + " or " + one(), "not (" + one() + ")"}[r.IntN(4)])
	case 1, 2:
		literal := oddText(r, 1+r.IntN(2))
		if strings.HasPrefix(where, "lower(") {
			literal = strings.ToLower(literal)
		}
		return where + " contains " + text(literal)
	case 3:
		return where + " contains words"
	case 4:
		return where + " matches scams"
	default:
		pattern := []string{"", "(?i)", "(?i)", "(?s)"}[r.IntN(4)] + oddPattern(r, 1)
		if why, _ := badPattern(strings.Trim(text(pattern), "`"), 20_000); why != "" {
			return "true"
		}
		return where + " matches " + text(pattern)
	}
}
