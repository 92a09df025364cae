package peertest

import (
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
)

const milterRules = `
rules:
  - name: listed
    when: client.ip in ["192.0.2.66", "2001:db8::66"]
    reject: 5.7.1 this client is listed
  - name: greeted_badly
    when: helo == "bad.example"
    reject: 5.7.1 nobody is called that
  - name: sender_later
    when: from.domain == "later.example"
    tempfail: 4.7.1 not now
  - name: carol_takes_none
    when: rcpt.local == "carol"
    reject: 5.7.1 carol takes no mail
  - name: dave_later
    when: rcpt.local == "dave"
    tempfail: 4.7.1 dave is away
  - name: bank
    when: subject contains "bank"
    reject: 5.7.1 100% no banks here
  - name: yet
    when: subject contains "not yet"
    tempfail: 4.7.1 come back later
  - name: pills
    when: subject contains "pills"
    score: 6
  - name: party
    when: rcpt.local == "bob" and subject contains "party"
    quarantine: true
  - name: drop
    when: subject contains "drop"
    discard: true
  - name: staff
    when: client.login == "ann"
    score: -1
  - name: greeting
    when: subject contains "hello" and client.login == ""
    score: 1
`

func startMilter(t *testing.T, settings string) *Sluice {
	t.Helper()
	return StartSluice(t, SluiceConfig{
		YAML: `domains: [example.org]
trusted: [127.0.0.0/8]
resolver: {servers: ["127.0.0.1:1"]}
` + settings + `pipeline:
  - rules: {files: [rules.yaml], junk: 5}
`,
		Files:    map[string]string{"rules.yaml": milterRules},
		Accounts: []string{"me@example.org"},
	})
}

// miltertest runs a script of testdata/milter, in which the OpenDKIM project's miltertest is the MTA.
func (s *Sluice) miltertest(script string, definitions ...string) {
	s.t.Helper()
	args := []string{"-v", "-D", "SOCKET=unix:" + s.MilterSocket, "-D", "LIB=testdata/milter/lib.lua"}
	for _, d := range definitions {
		args = append(args, "-D", d)
	}
	out, code := Run(s.t, "miltertest", append(args, "-s", "testdata/milter/"+script)...)
	if code != 0 || !strings.Contains(out, "passed") {
		s.t.Fatalf("miltertest %s: exit code %d:\n%s", script, code, out)
	}
}

// record returns the one record of a Message-ID.
func (s *Sluice) record(id string) pipeline.Record {
	s.t.Helper()
	records := s.records(id + "@sender.example")
	if len(records) != 1 {
		s.t.Fatalf("%s has %d records", id, len(records))
	}
	return records[0]
}

func TestMilterClientGreetingSender(t *testing.T) {
	Need(t, "miltertest")
	for _, earliest := range []string{"no", "yes"} {
		t.Run("earliest "+earliest, func(t *testing.T) {
			settings := ""
			if earliest == "yes" {
				settings = "speak: earliest\n"
			}
			s := startMilter(t, settings)
			s.miltertest("connect.lua", "EARLIEST="+earliest)
			if r := s.record("welcome"); r.Client.Addr.String() != "192.0.2.7" || r.Greeting != "mail.example" || r.Sender.String() != "b@sender.example" {
				t.Errorf("%+v", r)
			}
			if r := s.record("unspec"); r.Client.Addr.IsValid() || r.Client.Name != "" {
				t.Errorf("of a client of whom nothing is known: %+v", r.Client)
			}
		})
	}
}

func TestMilterEndOfMessage(t *testing.T) {
	Need(t, "miltertest")
	s := startMilter(t, "")
	s.miltertest("eom.lua")
	for id, want := range map[string]string{
		"fine": "250 2.0.0", "bank": "550 5.7.1 100% no banks here", "yet": "451 4.7.1 come back later", "pills": "250 2.0.0",
		"party": "250 2.0.0", "alone": "250 2.0.0", "drop": "250 2.0.0", "forged": "250 2.0.0",
	} {
		if r := s.record(id); r.Door != pipeline.Milter || !strings.HasPrefix(r.Reply.String(), want) {
			t.Errorf("%s: %s by %s, not %s", id, r.Reply, r.Door, want)
		}
	}
	// Who is refused at RCPT is in the record of the others.
	var refused []string
	for _, r := range s.record("fine").Recipients {
		refused = append(refused, fmt.Sprintf("%s %s", r.Recipient.Address, r.Reply))
	}
	for _, want := range []string{"carol@example.org 550 5.7.1 carol takes no mail", "dave@example.org 451 4.7.1 dave is away"} {
		if !strings.Contains(strings.Join(refused, "\n"), want) {
			t.Errorf("no %q in %q", want, refused)
		}
	}
	list := s.Run("quarantine", "list")
	if n := strings.Count(list, "\n"); n != 2 || strings.Count(list, "a party") != 2 {
		t.Errorf("in quarantine:\n%s", list)
	}
}

func TestMilterAbort(t *testing.T) {
	Need(t, "miltertest")
	s := startMilter(t, "")
	s.miltertest("abort.lua")
	for id, want := range map[string]int{"kept": 250, "refused": 550, "again": 250} {
		r := s.record(id)
		if r.Reply.Code != want || r.Client.Addr.String() != "192.0.2.7" || r.Greeting != "mail.example" || len(r.Recipients) != 1 ||
			r.Sender.String() != "kept@sender.example" {
			t.Errorf("%s: %+v", id, r)
		}
	}
	if list := s.Run("quarantine", "list"); list != "" {
		t.Errorf("in quarantine:\n%s", list)
	}
}

func TestMilterMacros(t *testing.T) {
	Need(t, "miltertest")
	s := startMilter(t, "")
	s.miltertest("macros.lua")
	r := s.record("login")
	if r.QueueID != "6AMqueue1" || r.Client.Login != "ann" || r.Client.TLS != "TLSv1.3" || r.Client.Name != "mail.example" {
		t.Errorf("%s, %+v", r.QueueID, r.Client)
	}
	r = s.record("nologin")
	if r.QueueID != "6AMqueue2" || r.Client.Login != "" || r.Client.TLS != "TLSv1.3" {
		t.Errorf("%s, %+v", r.QueueID, r.Client)
	}
	if r = s.record("forgedname"); r.Client.Name != "" || r.Client.TLS != "" {
		t.Errorf("%+v", r.Client)
	}
	// The MTA's own name for the mail leads to its record, too.
	if found := s.records("6AMqueue2"); len(found) != 1 || found[0].ID != s.record("nologin").ID {
		t.Errorf("by queue id: %+v", found)
	}
}
