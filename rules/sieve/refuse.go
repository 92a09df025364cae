package sieve

import (
	"strings"
)

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
		c.report(p.at, sprintf("the reason of %s is empty", n.form.name), "say why the mail is refused: its sender reads it")
	}
}

func (r *run) refuse(n *call, kind Kind) flow {
	if r.in.Envelope.Unknown {
		return r.fail(n, "%s: the mail is in a folder already, and cannot be refused any more", kind)
	}
	reason := r.text(&n.args[0])
	r.say(n, "%s %q", kind, clipTo(reason, 200))
	return r.add(n, Action{Kind: kind, Text: reason})
}

// Bounds of what a refusal says.
const (
	replyLines = 20  // lines
	replyLine  = 400 // octets of one
)

// ReplyLines makes a reason fit for an SMTP reply of several lines (RFC 5321, 4.2.1): at least one line, none too long,
// without control characters. Where the client does not take UTF-8 in replies (RFC 6531, 3.7.4.2), what is not ASCII
// becomes "?" (RFC 5429, 2.1.2 leaves it to the server).
func ReplyLines(reason string, utf8 bool) []string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(crlf(reason)), "\r\n") {
		line = oneLine(line)
		if !utf8 {
			line = strings.Map(func(c rune) rune {
				if c > 0x7e {
					return '?'
				}
				return c
			}, line)
		}
		for line != "" && len(lines) < replyLines {
			part := cutText(line, replyLine)
			if i := strings.LastIndexByte(part, ' '); i > 0 && len(part) < len(line) {
				part = part[:i]
			}
			lines = append(lines, part)
			line = strings.TrimSpace(line[len(part):])
		}
	}
	if len(lines) == 0 {
		return []string{"message refused"}
	}
	return lines
}
