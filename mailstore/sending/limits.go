// Package sending counts what accounts send, so that one whose password was stolen is slowed, then held, and somebody is
// told. What it has counted survives a restart.
package sending

import (
	"fmt"
	"time"
)

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
}

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

func (l Limits) all() []limit {
	return []limit{
		{"messages_per_hour", "messages in an hour", l.MessagesPerHour, hour},
		{"messages_per_day", "messages in a day", l.MessagesPerDay, day},
		{"recipients_per_hour", "recipients in an hour", l.RecipientsPerHour, hour},
		{"recipients_per_day", "recipients in a day", l.RecipientsPerDay, day},
		{"different_per_day", "different recipients in a day", l.DifferentPerDay, day},
		{"failed_per_day", "recipients in a day that there are not", l.FailedPerDay, day},
		{"networks_per_day", "networks in a day that it sends from", l.NetworksPerDay, day},
	}
}

// Check returns what is wrong with limits, by key.
func (l Limits) Check() map[string]error {
	wrong := map[string]error{}
	for _, x := range l.all() {
		switch b := x.bound; {
		case b.Slow < 0:
			wrong[x.name+".slow"] = fmt.Errorf("%d is below zero", b.Slow)
		case b.Hold < 0:
			wrong[x.name+".hold"] = fmt.Errorf("%d is below zero", b.Hold)
		case b.Slow > 0 && b.Hold > 0 && b.Hold < b.Slow:
			wrong[x.name+".hold"] = fmt.Errorf("mail would be held from %d on, before it is slowed at %d", b.Hold, b.Slow)
		}
	}
	return wrong
}
