package sieve

import (
	"slices"
	"strings"

	"sluice/pipeline/mime"
)

// A correspondence is what decides whether a mail may be answered by a machine at all.
type correspondence struct {
	sender mime.Address   // of the envelope
	header mime.Header    // of the mail as it came
	own    []mime.Address // addresses of the owner, without subaddress: with any of them it is the owner's too
	more   []mime.Address // addresses that the script says are the owner's (RFC 5230, 4.5: :addresses)
}

// unanswerable says why a mail must not be answered by a machine, "" if it may (RFC 5230, 4.5 and 4.6; RFC 3834, 2).
func (c *correspondence) unanswerable() string {
	if c.sender.IsZero() {
		return "the mail has no sender: it is a report"
	}
	if c.isOwn(c.sender) {
		return "the mail is from the owner"
	}
	if what := machine(c.sender); what != "" {
		return what
	}
	if f, ok := c.header.First("Auto-Submitted"); ok && autoSubmitted(c.header) {
		return "the mail was sent by a machine: Auto-Submitted: " + cutText(oneLine(f.Value()), 60)
	}
	for _, f := range c.header.Fields() {
		name := strings.ToLower(f.Name)
		if listField(name) {
			return "the mail is from a list: " + f.Name
		}
		switch value := strings.ToLower(strings.TrimSpace(f.Value())); {
		case name == "precedence" && slices.Contains([]string{"bulk", "list", "junk"}, value):
			return "the mail is from a list: Precedence: " + value
		case name == "x-auto-response-suppress" && suppresses(value):
			return "the sender wants no automatic answer: X-Auto-Response-Suppress"
		}
	}
	for _, name := range []string{"To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"} {
		for f := range c.header.All(name) {
			if slices.ContainsFunc(f.Addresses(), c.isOwn) {
				return ""
			}
		}
	}
	return "none of the owner's addresses is in To, Cc or Bcc"
}

func (c *correspondence) isOwn(a mime.Address) bool {
	return owns(c.own, a) || slices.ContainsFunc(c.more, func(b mime.Address) bool { return sameAddress(a, b) })
}

// owns reports whether a is one of a list of addresses, with whatever subaddress.
func owns(own []mime.Address, a mime.Address) bool {
	return slices.ContainsFunc(own, func(b mime.Address) bool {
		return sameAddress(a, b) || b.Tag == "" && a.Local == b.Local && a.Domain == b.Domain && a.Domain != ""
	})
}

func sameAddress(a, b mime.Address) bool {
	return a.Local == b.Local && a.Tag == b.Tag && a.Domain == b.Domain && a.Domain != ""
}

// autoSubmitted reports whether a mail says that a machine sent it (RFC 3834, 5): any Auto-Submitted but "no".
func autoSubmitted(h mime.Header) bool {
	for f := range h.All("Auto-Submitted") {
		value, _, _ := strings.Cut(f.Value(), ";")
		value, _, _ = strings.Cut(value, "(")
		if !strings.EqualFold(strings.TrimSpace(value), "no") {
			return true
		}
	}
	return false
}

// listField reports whether a field, its name in lower case, is one that only mail of a list has (RFC 2369, RFC 2919).
func listField(name string) bool {
	switch name {
	case "list-id", "list-help", "list-subscribe", "list-unsubscribe", "list-post", "list-owner", "list-archive":
		return true
	}
	return false
}

// suppresses reads X-Auto-Response-Suppress, which Exchange sets.
func suppresses(value string) bool {
	for v := range strings.SplitSeq(value, ",") {
		if v = strings.TrimSpace(v); v == "all" || v == "oof" || v == "autoreply" {
			return true
		}
	}
	return false
}

// machine says why an address is one that nobody reads, or a list's, "" if it is not (RFC 5230, 4.6; RFC 2142).
func machine(a mime.Address) string {
	local := a.Mailbox()
	switch local {
	case "mailer-daemon", "listserv", "majordomo", "bounce", "bounces", "www-data", "nobody":
		return "the sender is a machine: " + local
	}
	squeezed := strings.NewReplacer("-", "", "_", "", ".", "").Replace(local)
	for _, no := range []string{"noreply", "donotreply", "dontreply"} {
		if strings.HasPrefix(squeezed, no) || strings.HasSuffix(squeezed, no) {
			return "the sender reads no answers: " + local
		}
	}
	for _, p := range []string{"owner-", "bounce-", "bounces-", "bounces+", "bounce+"} {
		if strings.HasPrefix(local, p) {
			return "the sender is a list: " + local
		}
	}
	for _, p := range []string{"-request", "-owner", "-bounces", "-bounce", "-confirm", "-errors"} {
		if strings.HasSuffix(local, p) {
			return "the sender is a list: " + local
		}
	}
	return ""
}
