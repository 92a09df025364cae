package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/pipeline"
)

// truthsOf is what all rules of a step came to in a view, asked as the plan asks them: each stage by itself.
func truthsOf(t *testing.T, c Config, e pipeline.Env, v pipeline.View) map[string]truth {
	t.Helper()
	stages, err := New(c, e)
	if err != nil {
		t.Fatal(err)
	}
	came := map[string]truth{}
	for _, st := range stages {
		res, err := st.Check(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range res.Hits {
			came[h.Name] = isTrue
		}
		for _, u := range res.Undecided {
			came[u.Name] = unknown
		}
	}
	return came
}

// What a rule comes to depends neither on where those stand whose hits it asks for, nor on the order of the files.
func TestOrderOfRules(t *testing.T) {
	type fact struct {
		A bool `json:"a"`
		B bool `json:"b"`
		C bool `json:"c"`
		D bool `json:"d"`
	}
	seen := map[truth]int{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		f, missing, facts := fact{}, map[string]error{}, make([]truth, 4)
		for i, p := range []*bool{&f.A, &f.B, &f.C, &f.D} {
			facts[i] = truth(1 + r.IntN(3))
			*p = facts[i] == isTrue
			if facts[i] == unknown {
				missing[string(rune('a'+i))] = errors.New("down")
			}
		}
		v := pipeline.View{Facts: pipeline.Facts{"f": {Fact: f, Missing: missing}}}
		var lines []string
		want := map[string]truth{}
		for i := range 25 {
			x := grow(r, 2, facts)
			when, came := "("+x.text+")", x.truth
			for range r.IntN(3) {
				if i == 0 {
					break
				}
				on := fmt.Sprintf("r%d", r.IntN(i))
				switch other := want[on]; r.IntN(3) {
				case 0:
					when, came = fmt.Sprintf("not (%s) and hit(%q)", when, on), tables(came.not(), other)
				case 1:
					when, came = fmt.Sprintf("%s or hit(%q)", when, "rules."+on), tables(came.not(), other.not()).not()
				default:
					when, came = fmt.Sprintf("hit(%q) and %s", on, when), tables(other, came)
				}
				when = "(" + when + ")"
			}
			want[fmt.Sprintf("r%d", i)] = came
			lines = append(lines, fmt.Sprintf("  - {name: r%d, when: '%s'}\n", i, when))
			seen[came]++
		}
		maps.DeleteFunc(want, func(_ string, came truth) bool { return came == isFalse })
		for range 3 {
			r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			cut := r.IntN(len(lines))
			e := env(map[string]string{"x": "rules:\n" + strings.Join(lines[:cut], ""), "y": "rules:\n" + strings.Join(lines[cut:], "")})
			e.Before = []pipeline.Before{{Name: "f", Kind: "f", Fact: fact{}}, {Name: "rules"}}
			if got := truthsOf(t, Config{Files: []string{"x", "y"}}, e, v); !maps.Equal(got, want) {
				t.Fatalf("seed %d: with %v\n%s\ngot  %v\nwant %v", seed, facts, strings.Join(lines, ""), got, want)
			}
		}
	}
	if seen[isTrue] < 50 || seen[isFalse] < 50 || seen[unknown] < 50 {
		t.Errorf("the rules came to %v", seen)
	}
}

// tables is Kleene's and.
func tables(a, b truth) truth {
	switch {
	case a == isFalse || b == isFalse:
		return isFalse
	case a == isTrue && b == isTrue:
		return isTrue
	}
	return unknown
}

// A chain as long as there may be rules costs no more than they do.
func TestLongChain(t *testing.T) {
	const n = 10_000
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n - 1 {
		fmt.Fprintf(&b, "  - {name: r%d, when: hit(\"r%d\")}\n", i, i+1)
	}
	fmt.Fprintf(&b, "  - {name: r%d, when: has(\"Subject\")}\n", n-1)
	v := view(t)
	stages := stagesOf(t, DefaultConfig(), b.String())
	if len(stages) != 1 || stages[0].Reads().Input != pipeline.InputHeader {
		t.Fatalf("%d stages, the first reads %v", len(stages), stages[0].Reads().Input)
	}
	res, err := stages[0].Check(context.Background(), v)
	if err != nil || len(res.Hits) != n {
		t.Fatalf("%d of %d rules hold: %v", len(res.Hits), n, err)
	}
}

// The order of decision stays as written: a rule that asks for one further down acts in its own place.
func TestOrderOfDecision(t *testing.T) {
	stages := stagesOf(t, DefaultConfig(), `
rules:
  - {name: first, when: hit("second"), quarantine: true}
  - {name: second, when: has("Subject"), reject: true}
`)
	res, err := stages[0].Check(context.Background(), view(t))
	if err != nil || res.Verdict.By != "first" || res.Verdict.Action != pipeline.Quarantine || len(res.Hits) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
}
