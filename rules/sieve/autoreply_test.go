package sieve

import (
	"strings"
	"testing"

	"sluice/pipeline/mime"
)

// RFC 5230, 4.5 and 4.6, clause by clause.
func TestUnanswerable(t *testing.T) {
	own := []mime.Address{{Local: "me", Domain: "example.org"}, {Local: "info", Domain: "example.org"}}
	for _, tt := range []struct{ name, sender, header, want string }{
		{"a person", "friend@example.net", "To: me@example.org", ""},
		{"the owner's other address", "friend@example.net", "To: INFO@Example.ORG", ""},
		{"with a subaddress", "friend@example.net", "To: me+shop@example.org", ""},
		{"a copy", "friend@example.net", "To: all@example.net\nCc: Me <me@example.org>", ""},
		{"a blind copy", "friend@example.net", "Bcc: me@example.org", ""},
		{"sent on", "friend@example.net", "To: b@example.net\nResent-To: me@example.org", ""},
		{"sent on as a copy", "friend@example.net", "Resent-Cc: me@example.org", ""},
		{"sent on as a blind copy", "friend@example.net", "Resent-Bcc: me@example.org", ""},
		{"second field", "friend@example.net", "To: b@example.net\nTo: me@example.org", ""},
		{"what the script adds", "friend@example.net", "To: sales@example.org", ""},
		{"a machine says it is none", "friend@example.net", "To: me@example.org\nAuto-Submitted: No (really)", ""},
		{"precedence of people", "friend@example.net", "To: me@example.org\nPrecedence: first-class", ""},
		{"no sender", "", "To: me@example.org", "the mail has no sender"},
		{"the owner", "me@example.org", "To: me@example.org", "from the owner"},
		{"the owner elsewhere", "me+x@example.org", "To: me@example.org", "from the owner"},
		{"what the script adds writes", "sales@example.org", "To: me@example.org", "from the owner"},
		{"not to the owner", "friend@example.net", "To: you@example.org", "none of the owner's addresses"},
		{"in the wrong field", "friend@example.net", "To: you@example.org\nReply-To: me@example.org", "none of the owner's addresses"},
		{"no recipients", "friend@example.net", "Subject: hi", "none of the owner's addresses"},
		{"a machine", "friend@example.net", "To: me@example.org\nAuto-Submitted: auto-generated", "Auto-Submitted: auto-generated"},
		{"a machine with more to say", "friend@example.net", "To: me@example.org\nAuto-Submitted: auto-replied; x=no", "sent by a machine"},
		{"one of two", "friend@example.net", "To: me@example.org\nAuto-Submitted: no\nAuto-Submitted: auto-notified", "sent by a machine"},
		{"a list", "friend@example.net", "To: me@example.org\nList-Id: <x.example.net>", "from a list: List-Id"},
		{"a list's way out", "friend@example.net", "To: me@example.org\nList-Unsubscribe: <mailto:x>", "from a list"},
		{"a list's post", "friend@example.net", "To: me@example.org\nLIST-POST: NO", "from a list"},
		{"bulk", "friend@example.net", "To: me@example.org\nPrecedence: Bulk", "Precedence: bulk"},
		{"junk", "friend@example.net", "To: me@example.org\nPrecedence: junk", "Precedence: junk"},
		{"Exchange", "friend@example.net", "To: me@example.org\nX-Auto-Response-Suppress: DR, OOF", "wants no automatic answer"},
		{"MAILER-DAEMON", "MAILER-DAEMON@example.net", "To: me@example.org", "a machine: mailer-daemon"},
		{"LISTSERV", "LISTSERV@example.net", "To: me@example.org", "a machine"},
		{"majordomo", "majordomo@example.net", "To: me@example.org", "a machine"},
		{"owner-", "owner-gophers@example.net", "To: me@example.org", "the sender is a list"},
		{"-request", "gophers-request@example.net", "To: me@example.org", "the sender is a list"},
		{"bounces", "gophers-bounces@example.net", "To: me@example.org", "the sender is a list"},
		{"variable envelope paths", "bounces+me=example.org@example.net", "To: me@example.org", "the sender is a list"},
		{"no-reply", "no-reply@example.net", "To: me@example.org", "reads no answers"},
		{"noreply", "shop.noreply@example.net", "To: me@example.org", "reads no answers"},
		{"do_not_reply", "Do_Not_Reply@example.net", "To: me@example.org", "reads no answers"},
		{"a name like one", "owner@example.net", "To: me@example.org", ""},
		{"postmaster is a person", "postmaster@example.net", "To: me@example.org", ""},
	} {
		sender, err := mime.ParseAddress(tt.sender)
		if err != nil {
			t.Fatal(err)
		}
		c := correspondence{sender: sender, header: parsed(t, tt.header+"\n\n").Header(), own: own, more: []mime.Address{{Local: "sales", Domain: "example.org"}}}
		if got := c.unanswerable(); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
