package pipeline

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestScore(t *testing.T) {
	spam := &Group{Name: "spam", Max: new(6.0), Min: new(-2.0)}
	open := &Group{Name: "open"}
	for name, tt := range map[string]struct {
		hits    []Hit
		score   float64
		counted []float64
	}{
		"nothing":                   {nil, 0, []float64{}},
		"decimal fractions":         {[]Hit{{Score: 0.1}, {Score: 0.2}, {Score: 14.7}}, 15, []float64{0.1, 0.2, 14.7}},
		"shadow hits":               {[]Hit{{Score: 1}, {Score: 2, Shadow: true}, {Score: 9, Group: spam, Shadow: true}}, 1, []float64{1, 0, 0}},
		"below the bound":           {[]Hit{{Score: 2, Group: spam}, {Score: 3, Group: spam}}, 5, []float64{2, 3}},
		"above it":                  {[]Hit{{Score: 4, Group: spam}, {At: 1, Score: 3.5, Group: spam}, {At: 2, Score: 1}}, 7, []float64{4, 2, 1}},
		"in order of place":         {[]Hit{{At: 7, Score: 4, Group: spam}, {At: 1, Score: 3, Group: spam}}, 6, []float64{3, 3}},
		"below zero":                {[]Hit{{Score: -1.5, Group: spam}, {At: 1, Score: -1.5, Group: spam}}, -2, []float64{-1.5, -0.5}},
		"above and back":            {[]Hit{{Score: 8, Group: spam}, {At: 1, Score: -3, Group: spam}}, 5, []float64{6, -1}},
		"no bounds":                 {[]Hit{{Score: 8, Group: open}, {At: 1, Score: -30, Group: open}}, -22, []float64{8, -30}},
		"one name in two steps":     {[]Hit{{Step: "a", Score: 5, Group: spam}, {Step: "b", Score: 5, Group: spam}}, 10, []float64{5, 5}},
		"a bound that lets nothing": {[]Hit{{Score: 5, Group: &Group{Name: "x", Max: new(0.0)}}}, 0, []float64{0}},
	} {
		if got := Score(tt.hits); got != tt.score {
			t.Errorf("%s: the score is %v, want %v", name, got, tt.score)
		}
		if got := Counted(tt.hits); !slices.Equal(got, tt.counted) {
			t.Errorf("%s: counted %v, want %v", name, got, tt.counted)
		}
	}
}

// What hits add makes their score, in whatever order they come, and each group stays within its bounds.
func TestScoresAddUp(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		groups := []*Group{nil, {Name: "a", Max: new(r.Float64() * 10)}, {Name: "b", Min: new(-r.Float64() * 10)}, {Name: "c", Max: new(3.0), Min: new(-3.0)}}
		var hits []Hit
		for at := range r.IntN(40) {
			hits = append(hits, Hit{
				Step: []string{"x", "y"}[r.IntN(2)], At: at, Shadow: r.IntN(5) == 0,
				Score: math.Round(r.NormFloat64()*500) / 100, Group: groups[r.IntN(len(groups))],
			})
		}
		score, counted := Score(hits), Counted(hits)
		sum, of := 0.0, map[string]float64{}
		for i, h := range hits {
			sum += counted[i]
			if h.Group != nil {
				of[h.Step+h.Group.Name] += counted[i]
			} else if want := h.Score; !h.Shadow && counted[i] != want || h.Shadow && counted[i] != 0 {
				t.Fatalf("seed %d: %+v counts %v", seed, h, counted[i])
			}
		}
		if math.Abs(sum-score) > 1e-9 {
			t.Fatalf("seed %d: the hits add %v to a score of %v", seed, sum, score)
		}
		for _, g := range groups[1:] {
			for _, step := range []string{"x", "y"} {
				if x := of[step+g.Name]; math.Abs(g.bound(x)-x) > 1e-9 {
					t.Fatalf("seed %d: %s/%s adds %v", seed, step, g.Name, x)
				}
			}
		}
		r.Shuffle(len(hits), func(i, j int) { hits[i], hits[j] = hits[j], hits[i] })
		if again := Score(hits); again != score {
			t.Fatalf("seed %d: %v in one order, %v in another", seed, score, again)
		}
	}
}
