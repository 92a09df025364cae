// Package sending counts what accounts send, so that one whose password was stolen is slowed, then held, and somebody is
// told. What it has counted survives a restart.
package sending

import (
	"fmt"
	"strings"
	"time"
)

// A Policy is the limits of all accounts.
type Policy struct {
	Limits
	// For are other limits for some: of an account, or with "@example.org" of all accounts of a domain, by the names that
	// configurations have for limits. What is said of the account counts before what is said of its domain; a limit that
	// neither names is that of all.
	For map[string]map[string]Bound
}

// Limits say from when on an account sends like a stolen one. Windows slide: an hour is the last 60 minutes.
type Limits struct {
	// MessagesPerHour is how many messages an account sends in an hour.
	MessagesPerHour Bound `yaml:"messages_per_hour"`
	// MessagesPerDay is how many messages an account sends in a day.
	MessagesPerDay Bound `yaml:"messages_per_day"`
	// RecipientsPerHour is how many recipients its messages have in an hour, the same one again counted again.
	RecipientsPerHour Bound `yaml:"recipients_per_hour"`
	// RecipientsPerDay is how many recipients its messages have in a day, the same one again counted again.
	RecipientsPerDay Bound `yaml:"recipients_per_day"`
	// DifferentPerDay is how many different recipients its messages have in a day.
	DifferentPerDay Bound `yaml:"different_per_day"`
	// FailedPerDay is how many recipients of a day there were not: refused at once, or reported as undeliverable later.
	FailedPerDay Bound `yaml:"failed_per_day"`
	// NetworksPerDay is from how many networks, /24 and of IPv6 /48, an account sends in a day.
	NetworksPerDay Bound `yaml:"networks_per_day"`
}

// A Bound is a pair of limits. 0 is no such limit.
type Bound struct {
	// Slow: beyond so many its mail leaves no faster than this limit allows.
	Slow int `yaml:"slow"`
	// Hold: beyond so many its mail is held until somebody says `sluice user release`.
	Hold int `yaml:"hold"`
}

// DefaultLimits returns limits that people who write by hand do not reach.
func DefaultLimits() Limits {
	return Limits{
		MessagesPerHour:   Bound{100, 300},
		MessagesPerDay:    Bound{500, 1500},
		RecipientsPerHour: Bound{200, 600},
		RecipientsPerDay:  Bound{1000, 3000},
		DifferentPerDay:   Bound{500, 1500},
		FailedPerDay:      Bound{25, 100},
		NetworksPerDay:    Bound{10, 30},
	}
}

// A limit is one of Limits by its name.
type limit struct {
	name   string // as configurations write it
	what   string // "messages in an hour"
	bound  Bound
	window time.Duration
	from   string // whose it is: a key of Policy.For; "" is everybody's
}

// setting is where a configuration says it.
func (l limit) setting() string {
	if l.from != "" {
		return "submission.limits_for." + l.from + "." + l.name
	}
	return "submission.limits." + l.name
}

// of returns the limits of an account.
func (p Policy) of(account string) []limit {
	all := p.all()
	_, domain, _ := strings.Cut(account, "@")
	for _, key := range []string{"@" + domain, account} {
		for i := range all {
			if b, ok := p.For[key][all[i].name]; ok {
				all[i].bound, all[i].from = b, key
			}
		}
	}
	return all
}

// Of returns the limits of an account, nothing of them used.
func (p Policy) Of(account string) (all []Count) {
	for _, l := range p.of(account) {
		all = append(all, l.count(0))
	}
	return all
}

func (l limit) count(used int) Count { return Count{l.name, l.what, used, l.bound, l.from} }

// Names returns what the limits are called in configurations.
func Names() (names []string) {
	for _, l := range (Limits{}).all() {
		names = append(names, l.name)
	}
	return names
}

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

func (l Limits) all() []limit {
	return []limit{
		{name: "messages_per_hour", what: "messages in an hour", bound: l.MessagesPerHour, window: hour},
		{name: "messages_per_day", what: "messages in a day", bound: l.MessagesPerDay, window: day},
		{name: "recipients_per_hour", what: "recipients in an hour", bound: l.RecipientsPerHour, window: hour},
		{name: "recipients_per_day", what: "recipients in a day", bound: l.RecipientsPerDay, window: day},
		{name: "different_per_day", what: "different recipients in a day", bound: l.DifferentPerDay, window: day},
		{name: "failed_per_day", what: "recipients in a day that there are not", bound: l.FailedPerDay, window: day},
		{name: "networks_per_day", what: "networks in a day that it sends from", bound: l.NetworksPerDay, window: day},
	}
}

// Check returns what is wrong with limits, by key.
func (l Limits) Check() map[string]error {
	wrong := map[string]error{}
	for _, x := range l.all() {
		for key, err := range x.bound.Check() {
			wrong[x.name+"."+key] = err
		}
	}
	return wrong
}

// Check returns what is wrong with a pair of limits, by key.
func (b Bound) Check() map[string]error {
	wrong := map[string]error{}
	switch {
	case b.Slow < 0:
		wrong["slow"] = fmt.Errorf("%d is below zero", b.Slow)
	case b.Hold < 0:
		wrong["hold"] = fmt.Errorf("%d is below zero", b.Hold)
	case b.Slow > 0 && b.Hold > 0 && b.Hold < b.Slow:
		wrong["hold"] = fmt.Errorf("mail would be held from %d on, before it is slowed at %d", b.Hold, b.Slow)
	}
	return wrong
}

// String says it for people: "slowed over 100, held over 300".
func (b Bound) String() string {
	over := func(what string, n int) string {
		if n == 0 {
			return "never " + what
		}
		return fmt.Sprintf("%s over %d", what, n)
	}
	return over("slowed", b.Slow) + ", " + over("held", b.Hold)
}
