package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/mailstore/sending"
	"sluice/mailstore/users"
	"sluice/pipeline/lookalike"
)

// Submission is how mail of our own users leaves: what the doors submission and submissions do with it.
type Submission struct {
	// Senders are addresses that an account may send under besides its own and those of aliases that lead to it. A key
	// "@example.org" is about all accounts there; an address "@example.org" is every one there.
	Senders users.Aliases `yaml:"senders" example:"{me@example.org: [office@example.org, \"@shop.example\"]}"`
	// HideClient keeps the name and the network address of the client, and that of the account, out of the mail. The
	// record has them.
	HideClient bool `yaml:"hide_client"`
	// SaveSent files a copy of what was sent in the account's folder for sent mail. Most mail programs do that themselves,
	// and would show it twice.
	SaveSent bool `yaml:"save_sent"`
	// SaveSentFor are the accounts that save_sent is about; "@example.org" is all there. Default: all accounts.
	SaveSentFor []string `yaml:"save_sent_for" example:"[scanner@example.org]"`
	// Limits say from when on an account sends like one whose password was stolen: it is slowed, then held, and the
	// postmaster gets a mail about it. See `sluice user show`, `sluice user release` and `sluice user block`.
	Limits sending.Limits `yaml:"limits"`
	// LimitsFor are other limits for some accounts; "@example.org" is all there. A limit that is named here counts for them
	// instead of that of all, slow and hold together; what is said of an account counts before what is said of its domain.
	LimitsFor map[string]map[string]sending.Bound `yaml:"limits_for" example:"{news@example.org: {messages_per_day: {slow: 20000, hold: 50000}}}"`
}

// DefaultSubmission returns the defaults.
func DefaultSubmission() Submission {
	return Submission{HideClient: true, Limits: sending.DefaultLimits()}
}

func isAddressOrDomain(s string) bool {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		return IsHostname(domain)
	}
	return isAddress(s)
}

func (c *Config) checkSubmission() {
	const remedy = "write NAME@DOMAIN, or \"@DOMAIN\" for all there"
	for _, account := range slices.Sorted(maps.Keys(c.Submission.Senders)) {
		path := "submission.senders." + account
		if !isAddressOrDomain(account) {
			c.d.wrong(path, fmt.Sprintf("%q is no account", account), remedy)
		}
		for _, x := range c.Submission.Senders[account] {
			if !isAddressOrDomain(x) {
				c.d.wrong(path, fmt.Sprintf("%q is no address", x), remedy)
			}
		}
	}
	for i, x := range c.Submission.SaveSentFor {
		if !isAddressOrDomain(x) {
			c.d.wrong(fmt.Sprintf("submission.save_sent_for[%d]", i), fmt.Sprintf("%q is no account", x), remedy)
		}
	}
	wrong := func(at string, all map[string]error) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			c.d.wrong(at+"."+key, all[key].Error(), "0 is no such limit; hold is more than slow")
		}
	}
	wrong("submission.limits", c.Submission.Limits.Check())
	for _, account := range slices.Sorted(maps.Keys(c.Submission.LimitsFor)) {
		at := "submission.limits_for." + account
		if !isAddressOrDomain(account) {
			c.d.wrong(at, fmt.Sprintf("%q is no account", account), remedy)
		}
		limits := c.Submission.LimitsFor[account]
		for _, name := range slices.Sorted(maps.Keys(limits)) {
			if slices.Contains(sending.Names(), name) {
				wrong(at+"."+name, limits[name].Check())
				continue
			}
			hint := "there are " + strings.Join(sending.Names(), ", ")
			if near := lookalike.Nearest(name, sending.Names()); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			c.d.wrong(at+"."+name, fmt.Sprintf("there is no limit %q", name), hint)
		}
	}
}
