package sieve

import (
	"slices"
	"strings"
	"time"

	"sluice/pipeline/mime"
)

// vacationExtensions: RFC 5230 and RFC 6131.
func vacationExtensions() []extension {
	return []extension{
		{
			name: "vacation",
			commands: []form{{
				name: "vacation", run: runVacation, check: checkVacation, args: []positional{{name: "reason", shape: text}},
				tags: []tag{
					{name: "days", takes: number, group: "how often"}, {name: "subject", takes: text},
					{name: "from", takes: text, check: checkFrom}, {name: "addresses", takes: texts, check: checkAddresses},
					{name: "mime"}, {name: "handle", takes: text},
				},
			}},
		},
		{
			name: "vacation-seconds", with: []string{"vacation"},
			tags: []tagOn{{on: []string{"vacation"}, tag: tag{name: "seconds", takes: number, group: "how often"}}},
		},
	}
}

func checkVacation(c *checker, n *call) {
	if p := n.args[0].texts[0]; p.constant() && strings.TrimSpace(p.fixed) == "" && !n.has("mime") {
		c.warn(p.at, "the reply is empty", "say when you are back")
	}
}

// checkFrom checks who a letter is said to be from: an address, with or without a name.
func checkFrom(c *checker, _ *call, v *value) {
	if p := v.texts[0]; p.constant() {
		if _, ok := fromAddress(p.fixed); !ok {
			c.report(p.at, sprintf("%q is no mail address", clip(p.fixed)), `write "me@example.org" or "Me <me@example.org>"`)
		}
	}
}

func checkAddresses(c *checker, _ *call, v *value) {
	for _, p := range v.texts {
		if !p.constant() {
			continue
		}
		if a, err := mime.ParseAddress(strings.TrimSpace(p.fixed)); err != nil || a.Domain == "" {
			c.report(p.at, sprintf("%q is no mail address", clip(p.fixed)), "write the address alone")
		}
	}
}

// mostAddresses bounds how many addresses a script says are the owner's.
const mostAddresses = 200

func runVacation(r *run, n *call) flow {
	if r.in.Envelope.Unknown {
		return r.fail(n, "vacation: nobody has sent the mail just now")
	}
	reason := r.text(&n.args[0])
	if !r.spend(n, 10+len(reason)/octetsPerInstruction) {
		return failed
	}
	c := correspondence{header: r.came.Header(), own: r.own()}
	var err error
	if c.sender, err = mime.ParseAddress(r.in.Envelope.From); err != nil {
		r.note(n, "no reply: the mail's sender is no address that could be answered")
		return next
	}
	for _, s := range r.texts(n.tag("addresses")) {
		if a, err := mime.ParseAddress(strings.TrimSpace(s)); err == nil && len(c.more) < mostAddresses {
			c.more = append(c.more, a)
		}
	}
	if why := c.unanswerable(); why != "" {
		r.note(n, "no reply: %s", why)
		return next
	}
	l := letter{
		from: r.letterFrom(n), to: []string{r.in.Envelope.From}, date: r.in.Now, auto: "auto-replied", text: reason, entity: n.has("mime"),
		more: [][2]string{{"X-Auto-Response-Suppress", "All"}}, // Exchange answers answers otherwise
	}
	if v := n.tag("subject"); v != nil {
		l.subject = r.text(v)
	} else if s := strings.TrimSpace(r.came.Subject()); s != "" {
		l.subject = "Auto: " + s
	} else {
		l.subject = "Automated reply"
	}
	m := Mark{Key: markKey("vacation", r.handle(n, reason), c.sender.String()), Within: r.howOften(n)}
	if r.in.Seen != nil && r.in.Seen.Before(m.Key, m.Within) {
		r.note(n, "no reply: %s had one less than %s ago", clipTo(r.in.Envelope.From, 100), days(m.Within))
		return next
	}
	l.inReplyTo, l.references = thread(r.came.Header())
	l.id = letterMessageID(domainOf(l.from), "vacation", r.in.Account, l.inReplyTo, r.in.Now.Format(time.RFC3339Nano), m.Key)
	content := l.bytes()
	r.say(n, "vacation: a reply to %s, %q", clipTo(r.in.Envelope.From, 100), clipTo(l.subject, 100))
	f := r.add(n, Action{Kind: Vacation, Reply: &Reply{To: []string{r.in.Envelope.From}, Subject: oneLine(l.subject), Content: content}})
	if f != next {
		return f
	}
	r.mark(m)
	return r.fcc(n, content)
}

// handle tells replies apart: what the script says, else all that they say (RFC 5230, 4.2 and 4.7).
func (r *run) handle(n *call, reason string) string {
	if v := n.tag("handle"); v != nil {
		return "handle " + r.text(v)
	}
	about := []string{reason, "", "", ""}
	for i, name := range []string{"subject", "from"} {
		if v := n.tag(name); v != nil {
			about[i+1] = r.text(v)
		}
	}
	if n.has("mime") {
		about[3] = "mime"
	}
	return markKey("text", about...)
}

// howOften is how long a sender gets no second reply (RFC 5230, 4.1; RFC 6131, 2).
func (r *run) howOften(n *call) time.Duration {
	if v := n.tag("seconds"); v != nil {
		return seconds(v.number, r.limits.VacationLeast, r.limits.RememberMost)
	}
	if v := n.tag("days"); v != nil {
		return max(r.limits.VacationLeast, seconds(min(max(v.number, 1), 100000)*86400, 0, r.limits.RememberMost))
	}
	return r.limits.VacationTime
}

func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		if d == day {
			return "a day"
		}
		return sprintf("%d days", d/day)
	}
	return d.String()
}

// own are the addresses of the owner.
func (r *run) own() []mime.Address {
	var all []mime.Address
	for _, s := range append([]string{r.in.Account}, r.in.Own...) {
		if a, err := mime.ParseAddress(s); err == nil && a.Domain != "" {
			all = append(all, a)
		}
	}
	return all
}

// owner is the address that the owner writes from: the one that the mail came to, if it is theirs.
func (r *run) owner() string {
	own := r.own()
	for _, s := range []string{r.in.Envelope.To, r.in.Envelope.OriginalTo} {
		if a, err := mime.ParseAddress(s); err == nil && owns(own, a) {
			return s
		}
	}
	if len(own) > 0 {
		return own[0].String()
	}
	return r.in.Envelope.To
}

// letterFrom is whom a letter is from: what the script says, if it is an address of the owner's, so that nobody writes in
// another's name (RFC 5230, 4.3; RFC 5435, 3.3).
func (r *run) letterFrom(n *call) string {
	v := n.tag("from")
	if v == nil {
		return r.owner()
	}
	s := oneLine(r.text(v))
	a, ok := fromAddress(s)
	switch {
	case !ok:
		r.note(n, ":from is not used: %q is no mail address", clipTo(s, 100))
	case !owns(r.own(), a):
		r.note(n, ":from is not used: %s is none of the owner's addresses", clipTo(a.String(), 100))
	default:
		return s
	}
	return r.owner()
}

// fromAddress reads an address that may have a name before it.
func fromAddress(s string) (a mime.Address, ok bool) {
	x, err := parseFrom(s)
	if err != nil {
		return a, false
	}
	a, err = mime.ParseAddress(x.Address)
	return a, err == nil && a.Domain != ""
}

func domainOf(from string) string {
	a, _ := fromAddress(from)
	return a.Domain
}

// sameRecipients leaves out addresses that are there twice.
func sameRecipients(list ...[]string) []string {
	var all []string
	for _, s := range slices.Concat(list...) {
		if !slices.ContainsFunc(all, func(t string) bool { return strings.EqualFold(s, t) }) {
			all = append(all, s)
		}
	}
	return all
}
