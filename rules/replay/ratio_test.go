package replay

import (
	"math"
	"testing"
)

// scored finds the ends of Wilson's interval as they are defined: the shares from which the sample is just as far away as
// 95 of 100 samples are at most. It is found by halving, not by the formula.
func scored(part, of int) (low, high float64) {
	n := float64(of)
	sample := float64(part) / n
	far := func(p float64) bool { return math.Abs(sample-p) > 1.959963984540054*math.Sqrt(p*(1-p)/n) }
	halve := func(in, out float64) float64 {
		for range 200 {
			if middle := (in + out) / 2; far(middle) {
				out = middle
			} else {
				in = middle
			}
		}
		return in
	}
	return halve(sample, 0), halve(sample, 1)
}

func TestWilson(t *testing.T) {
	for _, of := range []int{1, 2, 3, 10, 50, 1000, 100_000} {
		for _, part := range []int{0, 1, 2, of / 3, of / 2, of - 1, of} {
			if part < 0 || part > of {
				continue
			}
			r := NewRatio(part, of)
			low, high := scored(part, of)
			if math.Abs(*r.Value-float64(part)/float64(of)) > 1e-12 || math.Abs(*r.Low-low) > 1e-9 || math.Abs(*r.High-high) > 1e-9 {
				t.Errorf("%d of %d: %v in %v to %v, want %v to %v", part, of, *r.Value, *r.Low, *r.High, low, high)
			}
		}
	}
	// Newcombe, 1998, table I: 81 of 263 and 15 of 148.
	for _, tt := range []struct {
		part, of  int
		low, high float64
	}{{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718}} {
		r := NewRatio(tt.part, tt.of)
		if math.Abs(*r.Low-tt.low) > 5e-5 || math.Abs(*r.High-tt.high) > 5e-5 {
			t.Errorf("%d of %d: %v to %v, want %v to %v", tt.part, tt.of, *r.Low, *r.High, tt.low, tt.high)
		}
	}
	if got, want := NewRatio(81, 263).String(), "30.8 % (25.5 to 36.6)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r := NewRatio(0, 0); r.Value != nil || r.Low != nil || r.High != nil || r.String() != "nothing to tell from" {
		t.Errorf("of nothing: %v", r)
	}
}

func TestConfusion(t *testing.T) {
	var c Confusion
	for _, x := range []struct {
		label Label
		out   bool
		n     int
	}{{Spam, true, 5}, {Spam, false, 3}, {Ham, true, 2}, {Ham, false, 7}, {Unknown, true, 11}, {Unknown, false, 13}} {
		for range x.n {
			c.Add(x.label, x.out)
		}
	}
	if want := (Confusion{SpamKeptOut: 5, SpamLetIn: 3, HamKeptOut: 2, HamLetIn: 7}); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	for _, x := range []struct {
		what     string
		got      Ratio
		part, of int
	}{{"precision", c.Precision(), 5, 7}, {"recall", c.Recall(), 5, 8}, {"false positives", c.FalsePositives(), 2, 9}} {
		if x.got.Part != x.part || x.got.Of != x.of {
			t.Errorf("%s: %d of %d, want %d of %d", x.what, x.got.Part, x.got.Of, x.part, x.of)
		}
	}
}
