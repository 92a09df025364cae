package program

import (
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/sending"
)

// An effectiveLimit is how much of something an account may send.
type effectiveLimit struct {
	Name string `json:"name"`
	Slow int    `json:"slow"` // 0: none
	Hold int    `json:"hold"`
	// For is the account or domain that it is for; absent where it is for all.
	For  string `json:"for,omitempty"`
	From place  `json:"from"`
}

// effectiveLimits are the limits of what an account sends, where the configuration has others for some; else nothing.
func effectiveLimits(c *config.Config, account string) (all []effectiveLimit) {
	if len(c.Submission.LimitsFor) == 0 {
		return nil
	}
	for _, l := range sendingPolicy(c).Of(normalAddress(strings.Trim(account, "<>"))) {
		setting := "submission.limits." + l.Name
		for key := range c.Submission.LimitsFor { // as it is written there
			if l.From != "" && normalAccounts(key) == l.From {
				setting = "submission.limits_for." + key + "." + l.Name
			}
		}
		at := c.Where(setting, "")
		all = append(all, effectiveLimit{l.Name, l.Bound.Slow, l.Bound.Hold, l.From, place{at.File, at.Line, at.Column}})
	}
	return all
}

// effectiveLimits prints how much an account may send.
func (t *text) effectiveLimits(all []effectiveLimit) {
	if len(all) == 0 {
		return
	}
	t.line(1, "limits of what it sends")
	for _, l := range all {
		what := sending.Bound{Slow: l.Slow, Hold: l.Hold}.String()
		if l.For != "" {
			what += ", for " + l.For
		}
		t.line(2, "%-24s %-46s %s", l.Name, what, l.From)
	}
}
