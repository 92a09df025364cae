package replay

import (
	"fmt"
	"math"
)

// A Ratio is a part of a whole, with what can be said of the share that it is a sample of. Without a whole nothing can.
type Ratio struct {
	Part  int      `json:"part"`
	Of    int      `json:"of"`
	Value *float64 `json:"value"` // nil: of nothing
	// Low and High are Wilson's interval: in 95 of 100 samples it holds the true share.
	Low  *float64 `json:"low"`
	High *float64 `json:"high"`
}

// z95 is the quantile of the normal distribution that leaves 2.5 % on each side.
const z95 = 1.959963984540054

// NewRatio works out the share and its interval (E. B. Wilson, 1927).
func NewRatio(part, of int) Ratio {
	r := Ratio{Part: part, Of: of}
	if of <= 0 {
		return r
	}
	n := float64(of)
	p := float64(part) / n
	middle := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	low, high := (middle-half)/(1+z95*z95/n), (middle+half)/(1+z95*z95/n)
	// Where the part is none or all of it one end is that, but for rounding.
	if part == 0 {
		low = 0
	}
	if part == of {
		high = 1
	}
	r.Value, r.Low, r.High = &p, &low, &high
	return r
}

// String is "91.2 % (88.0 to 94.1)", or what it is where there is nothing to divide.
func (r Ratio) String() string {
	if r.Value == nil {
		return "nothing to tell from"
	}
	return fmt.Sprintf("%.1f %% (%.1f to %.1f)", 100**r.Value, 100**r.Low, 100**r.High)
}

// A Confusion counts what rules made of mail whose owners have said what it is. Kept out is what did not reach them among
// their ordinary mail: refused, postponed, quarantined, discarded or filed as junk.
type Confusion struct {
	SpamKeptOut int `json:"spam_kept_out"` // true positives
	HamKeptOut  int `json:"ham_kept_out"`  // false positives
	SpamLetIn   int `json:"spam_let_in"`   // false negatives
	HamLetIn    int `json:"ham_let_in"`    // true negatives
}

// Add counts a mail; an unknown one is not counted.
func (c *Confusion) Add(l Label, keptOut bool) {
	switch {
	case l == Spam && keptOut:
		c.SpamKeptOut++
	case l == Spam:
		c.SpamLetIn++
	case l == Ham && keptOut:
		c.HamKeptOut++
	case l == Ham:
		c.HamLetIn++
	}
}

// Precision is how much of what was kept out is spam.
func (c Confusion) Precision() Ratio { return NewRatio(c.SpamKeptOut, c.SpamKeptOut+c.HamKeptOut) }

// Recall is how much of the spam was kept out.
func (c Confusion) Recall() Ratio { return NewRatio(c.SpamKeptOut, c.SpamKeptOut+c.SpamLetIn) }

// FalsePositives is how much of the wanted mail was kept out.
func (c Confusion) FalsePositives() Ratio { return NewRatio(c.HamKeptOut, c.HamKeptOut+c.HamLetIn) }
