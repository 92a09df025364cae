package peertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sluice/pipeline"
)

var logged = regexp.MustCompile(`id=(\S+) door=smtp client=192\.0\.2\.99 `)

// SPF through the whole program by SMTP, with a DNS server: who is refused before DATA, what the record says, and what
// happens while the DNS does not answer.
func TestSPFThroughServe(t *testing.T) {
	d := DNS(t,
		`sender.example. TXT "v=spf1 include:_spf.pool.example mx -all exp=why.sender.example"`,
		`sender.example. MX 10 mx.sender.example.`, `mx.sender.example. A 192.0.2.8`,
		`_spf.pool.example. TXT "v=spf1 ip4:" "192.0.2.0/29 ~all"`, // two strings of one record
		`why.sender.example. TXT "%{i} may not send for %{d}"`,
		`mail.sender.example. TXT "v=spf1 ip4:192.0.2.7 -all"`,
		`broken.example. TXT "v=spf1 ip4:192.0.2"`,
	)
	d.Fail("silent.example")
	start := func(onError string) *Sluice {
		return StartSluice(t, SluiceConfig{
			YAML: fmt.Sprintf(`domains: [example.org]
resolver: {servers: [%q], attempts: 1}
pipeline:
  - spf: {on_error: %s}
  - rules: {files: [rules.yaml], junk: 5}
`, d.Address, onError),
			Files: map[string]string{"rules.yaml": `rules:
  - {name: forged, when: 'spf.result == "fail"', reject: 5.7.23 SPF says that this client may not send for the domain}
  - {name: broken, when: 'spf.result == "permerror"', score: 6}
  - {name: known_pool, when: 'spf.pool == "pool.example"', flag: '$Pool'}
  - {name: no_helo, when: 'spf.helo == "none"', score: 1}
`},
			Accounts: []string{"me@example.org"},
		})
	}
	send := func(s *Sluice, client, from, helo, id string) string {
		t.Helper()
		c, err := DialClient(s.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, line := range []string{
			"250 EHLO front.example", "220 XCLIENT ADDR=" + client + " NAME=client.example", "250 EHLO " + helo, "250 MAIL FROM:<" + from + ">",
		} {
			code, line, _ := strings.Cut(line, " ")
			if _, err := c.Expect(code, "%s", line); err != nil {
				t.Fatal(err)
			}
		}
		reply, err := c.Say("RCPT TO:<me@example.org>")
		if err != nil || !strings.HasPrefix(reply, "250") {
			return fmt.Sprint("at RCPT: ", reply)
		}
		if _, err := c.Expect("354", "DATA"); err != nil {
			t.Fatal(err)
		}
		reply, err = c.Say("From: <%s>\r\nSubject: x\r\nMessage-ID: <%s@sender.example>\r\n\r\nx\r\n.", from, id)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	type spfFact struct {
		Result, Identity, Domain, Mechanism, Record, Explanation, Pool, Helo, Reason string
		Via                                                                          []string
	}
	fact := func(s *Sluice, key string) (f spfFact, step pipeline.StepRecord) {
		t.Helper()
		records := s.records(key)
		if len(records) != 1 {
			t.Fatalf("%d records of %s", len(records), key)
		}
		step = records[0].Steps[0]
		if step.Fact != nil {
			if err := json.Unmarshal(step.Fact, &f); err != nil {
				t.Fatal(err)
			}
		}
		return f, step
	}

	s := start("skip")
	if reply := send(s, "192.0.2.7", "user@sender.example", "mail.sender.example", "pass"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	f, _ := fact(s, "pass@sender.example")
	if f.Result != "pass" || f.Mechanism != "ip4:192.0.2.0/29" || strings.Join(f.Via, " ") != "_spf.pool.example" || f.Pool != "pool.example" ||
		f.Helo != "pass" || f.Identity != "mailfrom" || f.Record != "v=spf1 include:_spf.pool.example mx -all exp=why.sender.example" {
		t.Errorf("%+v", f)
	}
	if reply := send(s, "192.0.2.8", "user@Sender.Example", "mx.sender.example", "mx"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	if f, _ := fact(s, "mx@sender.example"); f.Result != "pass" || f.Mechanism != "mx" || f.Pool != "sender.example" || f.Helo != "none" {
		t.Errorf("%+v", f)
	}
	reply := send(s, "192.0.2.99", "user@sender.example", "mail.sender.example", "fail")
	if reply != "at RCPT: 550 5.7.23 SPF says that this client may not send for the domain" {
		t.Errorf("a forged sender is told %q", reply)
	}
	var id []string
	Eventually(t, func() error {
		if id = logged.FindStringSubmatch(s.Log()); id == nil {
			return errors.New("the log has no line about the forged sender")
		}
		return nil
	})
	if out := s.Explain(id[1]); !strings.Contains(out, "192.0.2.99 may not send for sender.example") {
		t.Errorf("explain does not show what the domain says:\n%s", out)
	}
	if reply := send(s, "192.0.2.7", "", "mail.sender.example", "null"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	if f, _ := fact(s, "null@sender.example"); f.Result != "pass" || f.Identity != "helo" || f.Domain != "mail.sender.example" {
		t.Errorf("%+v", f)
	}
	if reply := send(s, "192.0.2.7", "user@broken.example", "mail.sender.example", "broken"); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	if f, _ := fact(s, "broken@sender.example"); f.Result != "permerror" || !strings.Contains(f.Reason, `term "ip4:192.0.2"`) {
		t.Errorf("%+v", f)
	}
	if n := len(s.Mails("me@example.org", "Junk", 1)); n != 1 {
		t.Errorf("%d in Junk", n)
	}
	// What could not be found out is unknown: no rule holds, and on_error decides.
	if reply := send(s, "192.0.2.99", "user@silent.example", "mail.sender.example", "silent"); !strings.HasPrefix(reply, "250") {
		t.Errorf("skip: %s", reply)
	}
	if _, step := fact(s, "silent@sender.example"); step.Fact != nil || !strings.Contains(step.Unknown, "silent.example") {
		t.Errorf("%+v", step)
	}
	asked := d.Asked()
	if reply := send(s, "127.0.0.1", "user@sender.example", "mail.sender.example", "trusted"); !strings.HasPrefix(reply, "250") {
		t.Errorf("a trusted client: %s", reply)
	}
	if d.Asked() != asked {
		t.Errorf("%d questions about a trusted client", d.Asked()-asked)
	}

	careful := start("postpone")
	if reply := send(careful, "192.0.2.99", "user@silent.example", "mail.sender.example", "later"); !strings.HasPrefix(reply, "at RCPT: 451 4.7.1") {
		t.Errorf("postpone: %s", reply)
	}
}
