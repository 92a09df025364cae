package sieve

import (
	"strings"
	"time"
)

// notifyExtension: RFC 5435, with mailto (RFC 5436) as its method.
func notifyExtension() []extension {
	return []extension{{
		name: "enotify",
		commands: []form{{
			name: "notify", run: runNotify, check: checkMethod, args: []positional{{name: "method", shape: text}},
			tags: []tag{
				{name: "from", takes: text, check: checkFrom}, {name: "importance", takes: text, check: checkImportance},
				{name: "options", takes: texts}, {name: "message", takes: text},
			},
		}},
		tests: []form{
			{
				name: "valid_notify_method", args: []positional{{name: "methods", shape: texts}},
				holds: func(r *run, n *call) bool {
					return r.each(n, &n.args[0], func(uri string) bool {
						_, err := parseMailto(uri)
						return err == nil
					})
				},
			},
			{
				name: "notify_method_capability", tags: matchTags(), matches: true, holds: methodCapability,
				args: []positional{{name: "method", shape: text}, {name: "capability", shape: text}, {name: "keys", shape: texts}},
			},
		},
	}}
}

func checkMethod(c *checker, n *call) {
	if p := n.args[0].texts[0]; p.constant() {
		if _, err := parseMailto(p.fixed); err != nil {
			c.report(p.at, err.Error(), `write for example notify "mailto:me@example.org"`)
		}
	}
}

func checkImportance(c *checker, _ *call, v *value) {
	if p := v.texts[0]; p.constant() && p.fixed != "1" && p.fixed != "2" && p.fixed != "3" {
		c.report(p.at, sprintf("%q is no importance", clip(p.fixed)), `there is "1" (high), "2" (normal), "3" (low)`)
	}
}

// methodCapability: whether somebody reads mail just now is not known (RFC 5436, 2.2).
func methodCapability(r *run, n *call) bool {
	if _, err := parseMailto(r.text(&n.args[0])); err != nil || !strings.EqualFold(r.text(&n.args[1]), "online") {
		return false
	}
	return r.matches(n, []string{"maybe"})
}

func runNotify(r *run, n *call) flow {
	m, err := parseMailto(r.text(&n.args[0]))
	if err != nil {
		return r.fail(n, "%v", err)
	}
	if autoSubmitted(r.came.Header()) {
		r.note(n, "no notification: the mail was sent by a machine, and machines would notify each other without end")
		return next
	}
	if r.notifies++; r.notifies > r.limits.Notifies {
		return r.fail(n, "the script notifies more than %d times", r.limits.Notifies)
	}
	owner := r.owner()
	l := letter{
		from: r.letterFrom(n), to: m.to, cc: m.cc, date: r.in.Now, text: m.body, more: m.more,
		auto: "auto-notified; owner-email=" + quoted(owner), // RFC 5436, 2.7.1
	}
	switch v := n.tag("message"); {
	case v != nil:
		l.subject = r.text(v)
	case m.subject != "":
		l.subject = m.subject
	default:
		l.subject = r.came.Subject()
	}
	if strings.TrimSpace(l.subject) == "" {
		l.subject = "New mail"
	}
	if l.text == "" {
		l.text = r.announcement()
	}
	if v := n.tag("importance"); v != nil {
		switch r.text(v) {
		case "1":
			l.more = append(l.more, [2]string{"Importance", "High"}, [2]string{"X-Priority", "1 (Highest)"})
		case "3":
			l.more = append(l.more, [2]string{"Importance", "Low"}, [2]string{"X-Priority", "5 (Lowest)"})
		}
	}
	_, l.references = thread(r.came.Header())
	l.id = letterMessageID(domainOf(owner), "notify", r.in.Account, r.came.MessageID(), r.in.Now.Format(time.RFC3339Nano), sprintf("%d", r.notifies))
	reply := &Reply{From: owner, To: sameRecipients(m.to, m.cc), Subject: oneLine(l.subject), Content: l.bytes()}
	if r.in.Envelope.From == "" && !r.in.Envelope.Unknown {
		reply.From = "" // RFC 5436, 2.7: a report about it would be a report about a report
	}
	if !r.spend(n, 10+len(reply.Content)/octetsPerInstruction) {
		return failed
	}
	r.say(n, "notify %s: %q", clipTo(strings.Join(reply.To, ", "), 200), clipTo(reply.Subject, 100))
	if f := r.add(n, Action{Kind: Notify, Reply: reply}); f != next {
		return f
	}
	return r.fcc(n, reply.Content)
}

// announcement is what a notification says where the script leaves it open.
func (r *run) announcement() string {
	var b strings.Builder
	b.WriteString("There is mail for you.\n")
	for _, name := range []string{"From", "Subject"} {
		if f, ok := r.came.Header().First(name); ok {
			b.WriteString(name + ": " + cutText(oneLine(f.Text()), letterSubject) + "\n")
		}
	}
	return b.String()
}

// quoted writes a quoted-string (RFC 5322, 3.2.4).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(s)) + `"`
}
