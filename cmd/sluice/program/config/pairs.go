package config

import (
	"fmt"
	"slices"
	"time"
)

// Pointless returns warnings about limits that another limit keeps from ever counting. Only what the file itself says is
// warned of: where a default is never reached, nobody has meant otherwise.
func (c *Config) Pointless() (warnings Problems) {
	if c.d == nil {
		return nil
	}
	warn := func(path string, wrong bool, text, remedy string) {
		if _, written := c.d.places[path]; wrong && written {
			p := c.placed(path)
			p.Text, p.Remedy = path+" "+text, remedy
			warnings = append(warnings, p)
		}
	}
	// What bounds a part is pointless where it is more than what bounds the whole.
	within := func(part string, n int64, whole string, most int64, remedy string) {
		warn(part, most > 0 && n > most, fmt.Sprintf("is more than %s, %d, and never reached", whole, most), remedy)
	}
	before := func(first string, t time.Duration, last string, end time.Duration, text string) {
		warn(first, end > 0 && t >= end, fmt.Sprintf("is not shorter than %s, %s: %s", last, FormatDuration(end), text), "write a shorter time")
	}
	c.pointlessOnTheWayOut(warn, within, before)
	l := c.Limits
	const less = "write less, or raise the other"
	within("limits.connections_per_address", int64(l.Sockets.PerAddress), "limits.connections", int64(l.Sockets.Connections), less)
	within("limits.header_size", int64(l.HeaderSize), "limits.message_size", int64(l.MessageSize), less)
	within("limits.scripts.size", l.Scripts.Size, "limits.scripts.total", l.Scripts.Total, less)
	warn("limits.managesieve.literal", l.ManageSieve.Literal > 0 && l.ManageSieve.Literal < l.Scripts.Size,
		fmt.Sprintf("is less than limits.scripts.size, %d: a script over that limit ends the connection instead of being refused", l.Scripts.Size), "write more")
	warn("limits.quota", l.Quota > 0 && l.Quota < l.MessageSize,
		fmt.Sprintf("is less than limits.message_size, %d: a mail that is accepted may fit into no mailbox", l.MessageSize), "write more, or lower limits.message_size")
	for _, x := range []struct {
		part string
		n    int64
		of   string
		most int64
	}{
		{"limits.imap.login_command_line", int64(l.IMAP.LoginLine), "limits.imap.login_octets", l.IMAP.LoginOctets},
		{"limits.pop3.command_line", int64(l.POP3.CommandLine), "limits.pop3.login_octets", l.POP3.LoginOctets},
		{"limits.managesieve.command_line", int64(l.ManageSieve.CommandLine), "limits.managesieve.login_octets", l.ManageSieve.LoginOctets},
	} {
		within(x.part, x.n, x.of, x.most, less)
	}
	if most := max(l.PhaseTimeout, l.ContentTimeout); most > 0 {
		for _, s := range slices.Concat(c.Pipeline, c.Outgoing) {
			warn(c.d.stepPaths[s.Pos]+".timeout", s.Timeout > most,
				fmt.Sprintf("is longer than limits.phase_timeout and limits.content_timeout let any step take, %s", FormatDuration(most)), "write a shorter time, or raise those")
		}
	}
	r := c.Resolver
	warn("resolver.cache_at_least", r.CacheAtLeast > r.CacheFor && r.CacheFor > 0,
		fmt.Sprintf("is longer than resolver.cache_for, %s, which is the longest an answer is kept", FormatDuration(r.CacheFor)), "write a shorter time")
	before("journal.redact.after", c.Journal.Redact.After, "journal.keep", c.Journal.Keep, "records are removed before they would be redacted")
	warn("journal.redact.after", c.Journal.Redact.After > 0 && len(c.Journal.Redact.What) == 0, "says when, and journal.redact.what names nothing",
		"write for example what: [addresses]")
	warn("submission.save_sent_for", len(c.Submission.SaveSentFor) > 0 && !c.Submission.SaveSent, "counts only with save_sent: true", "set it, or leave this out")
	s := c.Submission.Limits
	for _, x := range []struct {
		hour, day  string
		slow, hold [2]int
	}{
		{"messages_per_hour", "messages_per_day", [2]int{s.MessagesPerHour.Slow, s.MessagesPerDay.Slow}, [2]int{s.MessagesPerHour.Hold, s.MessagesPerDay.Hold}},
		{"recipients_per_hour", "recipients_per_day", [2]int{s.RecipientsPerHour.Slow, s.RecipientsPerDay.Slow}, [2]int{s.RecipientsPerHour.Hold, s.RecipientsPerDay.Hold}},
		{"different_per_day", "recipients_per_day", [2]int{s.DifferentPerDay.Slow, s.RecipientsPerDay.Slow}, [2]int{s.DifferentPerDay.Hold, s.RecipientsPerDay.Hold}},
	} {
		const at = "submission.limits."
		within(at+x.hour+".slow", int64(x.slow[0]), at+x.day+".slow", int64(x.slow[1]), less)
		within(at+x.hour+".hold", int64(x.hold[0]), at+x.day+".hold", int64(x.hold[1]), less)
	}
	return warnings.Sorted()
}

// pointlessOnTheWayOut is about the queue and the relay.
func (c *Config) pointlessOnTheWayOut(
	warn func(path string, wrong bool, text, remedy string),
	within func(part string, n int64, whole string, most int64, remedy string),
	before func(first string, t time.Duration, last string, end time.Duration, text string),
) {
	q := c.Queue
	before("queue.warn", q.Warn, "queue.age", q.Age, "mail goes back before its sender is told that it waits")
	if len(q.Backoff) > 0 {
		before("queue.backoff", q.Backoff[0], "queue.age", q.Age, "mail is tried only once")
	}
	within("queue.per_account", int64(q.PerAccount), "queue.messages", int64(q.Messages), "write less, or raise the other")
	r := c.Relay
	within("relay.per_destination", int64(r.PerDestination), "relay.connections", int64(r.Connections), "write less, or raise the other")
	warn("relay.back_off", r.BackOffMost > 0 && r.BackOff > r.BackOffMost,
		fmt.Sprintf("is longer than relay.back_off_most, %s, the longest that it becomes", FormatDuration(r.BackOffMost)), "write a shorter time, or raise the other")
	before("relay.back_off_most", r.BackOffMost, "queue.age", q.Age, "mail goes back before its destination is tried again")
	t := r.Timeouts
	for _, x := range []struct {
		name string
		time time.Duration
	}{
		{"command", t.Command}, {"data", t.Data}, {"block", t.Block}, {"end", t.End},
	} {
		before("relay.timeouts."+x.name, x.time, "relay.timeouts.mail", t.Mail, "that one ends the attempt first")
	}
}
