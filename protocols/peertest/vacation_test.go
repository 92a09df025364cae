package peertest

import (
	"fmt"
	"strings"
	"testing"
)

// A real Postfix stands before us, by LMTP, and behind us, as the smarthost. Somebody who is away answers the first mail of a
// sender, and neither the second nor that of a list; what a script redirects passes the same way, with a sender of ours.
func TestVacationThroughPostfix(t *testing.T) {
	Need(t, "postfix", "swaks")
	const away, there = "away@example.org", "a@sender.example"
	world := StartSluice(t, SluiceConfig{YAML: "pipeline: []\n", Accounts: []string{there}})
	s := NewSluice(t, SluiceConfig{Accounts: []string{away}, Files: map[string]string{
		"away.sieve": "require [\"vacation\", \"copy\"];\nvacation :days 7 :subject \"Away\" \"Back on Monday.\";\n" +
			"if header :is \"Subject\" \"forward\" { redirect :copy \"" + there + "\"; }\n",
	}})
	p := StartPostfix(t, PostfixConfig{
		Main:      map[string]string{"virtual_transport": "lmtp:inet:" + s.LMTP},
		Transport: []string{"sender.example smtp:[127.0.0.1]:" + Port(world.SMTP)},
	})
	s.write("sluice.yaml", s.head()+fmt.Sprintf("relay: {smarthost: [%q]}\npipeline:\n  - sieve: {}\n", p.Address))
	s.Run("user", "sieve", "put", away, "away", s.Dir+"/away.sieve", "--activate")
	s.Start()
	send := func(subject string, args ...string) {
		t.Helper()
		out, code := Swaks(t, append([]string{
			"--server", p.Address, "--from", there, "--to", away, "--header", "Subject: " + subject, "--header", "Message-Id: <" + subject + "@sender.example>",
		}, args...)...)
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
	}
	send("first")
	reply := world.Mails(there, "", 1)[0]
	for _, want := range []string{
		"Return-Path: <>", "Auto-Submitted: auto-replied", "Subject: Away", "In-Reply-To: <first@sender.example>", "To: ", "Back on Monday.",
	} {
		if !strings.Contains(reply, want) {
			t.Errorf("%q is not in\n%s", want, reply)
		}
	}
	// The one that is handed on comes after those that get no reply: by then a reply to them would be there.
	send("second")
	send("list", "--header", "List-Id: <l.sender.example>")
	send("forward")
	s.Mails(away, "", 4)
	all := world.Mails(there, "", 2)
	at := 0
	if !strings.Contains(all[at], "Message-Id: <forward@sender.example>") {
		at = 1
	}
	forward := all[at]
	if !strings.Contains(forward, "Message-Id: <forward@sender.example>") {
		t.Fatalf("what came is\n%s", strings.Join(all, "\n----\n"))
	}
	if !strings.HasPrefix(forward, "Return-Path: <SRS0=") {
		t.Errorf("it is handed on with another's sender:\n%s", forward)
	}
	for key, want := range map[string]string{
		"first@sender.example":  "line 2 of away.sieve answered " + there,
		"second@sender.example": "line 2 of away.sieve: no reply: " + there,
		"list@sender.example":   "line 2 of away.sieve: no reply: the mail is from a list",
	} {
		if out := s.Explain(key); !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
