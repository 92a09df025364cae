package peertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/scanners/arc"
)

// arcOf is what the record of a mail says of its chain.
func arcOf(t *testing.T, r pipeline.Record) (f arc.Fact) {
	t.Helper()
	for _, s := range r.Steps {
		if s.Kind == "arc" && s.Fact != nil {
			if err := json.Unmarshal(s.Fact, &f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// Keys are made by command; what an account sends is signed so that opendkim and our own verifier accept it, what is handed
// on is sealed and has a sender of ours, and a report about it goes on to who sent it, and nothing else does.
func TestWhatLeavesIsSigned(t *testing.T) {
	Need(t, "opendkim")
	dir := TempDir(t)
	maker := NewSluice(t, SluiceConfig{Dir: dir, YAML: "domains: [example.org]\n"})
	maker.Run("dkim", "keygen", "example.org", "--selector", "one", "--algorithm", "both")
	var made struct {
		Keys []struct{ Name, Record string }
	}
	if err := json.Unmarshal([]byte(maker.Run("dkim", "show", "--json")), &made); err != nil || len(made.Keys) != 2 {
		t.Fatal(made, err)
	}
	public := map[string]string{}
	var zone []string
	for _, k := range made.Keys {
		public[k.Name] = k.Record
		zone = append(zone, k.Name+". TXT "+quoted(k.Record))
	}
	d := DNS(t, zone...)
	opendkim := StartOpendkim(t, OpendkimConfig{Keys: public})
	far := StartSluice(t, SluiceConfig{
		YAML: fmt.Sprintf(`domains: [far.example, sender.example]
resolver: {servers: [%q], attempts: 1}
pipeline:
  - milter: {name: opendkim, address: "inet:%s", act: [headers]}
  - dkim: {}
  - arc: {}
`, d.Address, opendkim.Address),
		Accounts: []string{"you@far.example", "a@sender.example"},
	})
	near := StartSluice(t, SluiceConfig{
		Dir: dir,
		YAML: fmt.Sprintf(`domains: [example.org]
resolver: {servers: [%q], attempts: 1}
pipeline:
  - arc: {}
  - sieve: {}
relay: {smarthost: [%q], tls: none}
`, d.Address, far.SMTP),
		Files: map[string]string{"work.sieve": `require ["vacation", "envelope"];
if header "Subject" "away" { vacation "I am away."; }
elsif not envelope "from" "" { redirect "you@far.example"; }
`},
		Accounts: []string{"me@example.org"},
	})
	if out := near.Run("dkim", "check", "example.org"); strings.Count(out, "  signs  fits\n") != 2 {
		t.Errorf("%s", out)
	}
	near.Run("user", "sieve", "put", "me@example.org", "work", dir+"/work.sieve", "--activate")
	send := func(from, to, id, subject string) string {
		t.Helper()
		c, err := DialClient(near.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Expect("250", "EHLO client.example"); err != nil {
			t.Fatal(err)
		}
		replies, err := c.Mail(false, from, []string{to}, "From: a@sender.example\r\nTo: me@example.org\r\nMessage-ID: <"+id+">\r\nSubject: "+subject+"\r\n\r\nhello\r\n")
		if err != nil && len(replies) == 0 {
			return err.Error()
		}
		return replies[0]
	}

	// The account's own mail: the reply of somebody who is away.
	if reply := send("a@sender.example", "me@example.org", "away@x", "away"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	reply := far.Mails("a@sender.example", "", 1)[0]
	head, _, _ := strings.Cut(strings.ReplaceAll(reply, "\n\t", " "), "\n\n")
	said := strings.Join(strings.Fields(head), " ")
	if strings.Count(head, "DKIM-Signature: v=1;") != 2 || !strings.Contains(said, " Authentication-Results: mx.example.org; dkim=pass (2048-bit key) header.d=example.org ") ||
		strings.Count(said, "dkim=pass") != 2 {
		t.Errorf("opendkim does not say that it is signed:\n%s", reply)
	}
	_, id, _ := strings.Cut(head, "\nMessage-ID: <")
	id, _, _ = strings.Cut(id, ">")
	var fact dkimFact
	for _, s := range far.records(id)[0].Steps {
		if s.Kind == "dkim" {
			if err := json.Unmarshal(s.Fact, &fact); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(fact.Signatures) != 2 || fact.Signatures[0].Result != "pass" || fact.Signatures[1].Result != "pass" {
		t.Errorf("%+v", fact)
	}

	// A stranger's mail, handed on.
	if reply := send("a@sender.example", "me@example.org", "handed@x", "on"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	far.Mails("you@far.example", "", 1)
	r := far.records("handed@x")[0]
	if f := arcOf(t, r); f.Result != "pass" || f.Sealers[0] != "example.org" || f.Last.ARC != "none" {
		t.Errorf("%+v", f)
	}
	if !strings.HasPrefix(r.Sender.Raw, "SRS0=") || !strings.HasSuffix(r.Sender.Raw, "=sender.example=a@example.org") {
		t.Fatalf("it came from %s", r.Sender.Raw)
	}

	// A report about it goes on to who sent it.
	if reply := send("", r.Sender.Raw, "report@x", "could not be delivered"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	far.Mails("a@sender.example", "", 2)
	report := far.records("report@x")[0]
	if !report.Sender.IsZero() || report.Recipients[0].Address.String() != "a@sender.example" {
		t.Errorf("%+v", report)
	}
	for _, tt := range []struct{ from, to string }{
		{"b@sender.example", r.Sender.Raw}, {"", strings.Replace(r.Sender.Raw, "=a@", "=you@", 1)}, {"", "SRS0=aaaaaaaa=aa=far.example=you@example.org"},
	} {
		if reply := send(tt.from, tt.to, "relay@x", "x"); !strings.Contains(reply, ": 550 5.1.1 ") {
			t.Errorf("from %q to %s: %s", tt.from, tt.to, reply)
		}
	}
	Eventually(t, func() error {
		if out := near.Run("queue", "list"); strings.Contains(out, "@") {
			return errors.New(out)
		}
		return nil
	})
}
