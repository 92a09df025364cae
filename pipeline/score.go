package pipeline

import (
	"cmp"
	"math"
	"slices"
)

// A Group is rules of a step whose scores count together within bounds. Max is never below 0 and Min never above: a
// group of which nothing held adds nothing. nil is no bound.
type Group struct {
	Name string   `json:"name"`
	Max  *float64 `json:"max,omitempty"`
	Min  *float64 `json:"min,omitempty"`
}

func (g *Group) bound(sum float64) float64 {
	if g.Max != nil {
		sum = min(sum, *g.Max)
	}
	if g.Min != nil {
		sum = max(sum, *g.Min)
	}
	return sum
}

// Score sums hits, each group of a step within its bounds; shadow hits are left out. Every score that is shown,
// recorded or compared is this sum. It does not depend on the order of hits: sums of decimal fractions miss their mark by
// a hair, so it is rounded to nine places.
func Score(hits []Hit) float64 {
	sum := 0.0
	for _, x := range Counted(hits) {
		sum += x
	}
	return rounded(sum)
}

func rounded(x float64) float64 {
	const places = 1e9
	if y := math.Round(x*places) / places; !math.IsNaN(y) && !math.IsInf(y, 0) {
		return y
	}
	return x
}

// Counted returns what each of hits adds to their [Score]: its own score, or what its group's bounds leave of it where
// the hits of the group are counted in configured order.
func Counted(hits []Hit) []float64 {
	out := make([]float64, len(hits))
	type group struct{ step, name string }
	var sums map[group]float64
	add := func(i int) {
		h := &hits[i]
		g := group{h.Step, h.Group.Name}
		if sums == nil {
			sums = map[group]float64{}
		}
		before := sums[g]
		sums[g] = before + h.Score
		out[i] = rounded(h.Group.bound(before+h.Score) - h.Group.bound(before))
	}
	var grouped []int
	for i, h := range hits {
		switch {
		case h.Shadow:
		case h.Group == nil:
			out[i] = h.Score
		default:
			grouped = append(grouped, i)
		}
	}
	// Hits of one step are not always in the order of their places: stages answer in an order of their own.
	slices.SortStableFunc(grouped, func(a, b int) int { return cmp.Compare(hits[a].At, hits[b].At) })
	for _, i := range grouped {
		add(i)
	}
	return out
}

// HitsOf returns the hits that counted for a recipient of r, in configured order and with their steps: those that its
// score is the sum of. After a final verdict other than Keep nothing further down counts.
func (r *Record) HitsOf(x *RecipientRecord) []Hit {
	type placedHit struct {
		key
		hit Hit
	}
	last := end
	var all []placedHit
	for _, steps := range [][]StepRecord{r.Steps, x.Steps} {
		for _, s := range steps {
			if s.Name == x.Step && x.Verdict.Action > Keep {
				last = key{s.At, x.Verdict.At}
			}
			if s.Shadow {
				continue
			}
			for _, h := range s.Hits {
				if !h.Shadow && (x.Until == nil || h.Phase <= *x.Until) {
					h.Step = s.Name
					all = append(all, placedHit{key{s.At, h.At}, h})
				}
			}
		}
	}
	all = slices.DeleteFunc(all, func(p placedHit) bool { return last.less(p.key) })
	slices.SortStableFunc(all, func(a, b placedHit) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.at, b.at))
	})
	hits := make([]Hit, len(all))
	for i, p := range all {
		hits[i] = p.hit
	}
	return hits
}
