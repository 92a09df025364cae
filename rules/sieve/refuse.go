package sieve

import "strings"

// refuseExtensions: RFC 5429.
func refuseExtensions() []extension {
	args := []positional{{name: "reason", shape: text}}
	return []extension{
		{name: "reject", commands: []form{{name: "reject", args: args, check: checkReason, run: func(r *run, n *call) flow { return r.refuse(n, Reject) }}}},
		{name: "ereject", commands: []form{{name: "ereject", args: args, check: checkReason, run: func(r *run, n *call) flow { return r.refuse(n, EReject) }}}},
	}
}

func checkReason(c *checker, n *call) {
	if p := n.args[0].texts[0]; p.constant() && strings.TrimSpace(p.fixed) == "" {
		c.warn(p.at, sprintf("the reason of %s is empty", n.form.name), "say why the mail is refused: its sender reads it")
	}
}

func (r *run) refuse(n *call, kind Kind) flow {
	if r.in.Envelope.Unknown {
		return r.fail(n, "%s: the mail is in a folder already, and cannot be refused any more", kind)
	}
	reason := r.text(&n.args[0])
	if strings.TrimSpace(reason) == "" {
		reason = "the recipient does not take this mail"
	}
	r.say(n, "%s %q", kind, clipTo(reason, 200))
	return r.add(n, Action{Kind: kind, Text: reason})
}
