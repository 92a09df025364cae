package peertest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/pipeline"
)

const theRules = `
rules:
  - name: listed
    when: dnsbl.zen.listed
    reject: 5.7.1 listed by zen, 100% sure
  - name: carol_takes_none
    when: rcpt.local == "carol"
    reject: 5.7.1 carol takes no mail
  - name: greeting
    when: subject contains "hello"
    score: 1
  - name: pills
    when: subject contains "pills"
    score: 6
  - name: bank
    when: subject contains "bank"
    reject: 5.7.1 no banks here
  - name: bob_no_party
    when: rcpt.local == "bob" and subject contains "party"
    reject: 5.7.1 bob stays at home
`

// site is Postfix in front of Sluice: the milter door by a unix socket, then the LMTP door by another.
type site struct {
	*Postfix
	sluice *Sluice
	dns    *DNSServer
}

func startSite(t *testing.T) site {
	t.Helper()
	Need(t, "postfix", "swaks", "curl", "python3")
	dir := TempDir(t)
	d := DNS(t, "2.0.0.127.zen.lists.example. A 127.0.0.2", "2.2.0.192.zen.lists.example. A 127.0.0.2")
	s := StartSluice(t, SluiceConfig{
		Dir: dir,
		YAML: fmt.Sprintf(`domains: [example.org]
trusted: [127.0.0.0/8]
resolver: {servers: [%q]}
pipeline:
  - dnsbl: {lists: {zen: {zone: zen.lists.example}}}
  - rules: {files: [rules.yaml], junk: 5}
`, d.Address),
		Files:    map[string]string{"rules.yaml": theRules},
		Accounts: []string{"alice@example.org", "bob@example.org", "carol@example.org", "me@example.org"},
	})
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters":         "unix:" + s.MilterSocket,
		"milter_default_action": "tempfail",
		"virtual_transport":     "lmtp:unix:" + s.LMTPSocket,
	}})
	return site{p, s, d}
}

// send sends one mail through Postfix as a client of this address would.
func (s site) send(client, subject, id string, to ...string) (transcript string, code int) {
	s.t.Helper()
	return Swaks(s.t, "--server", s.Postfix.Address, "--xclient", "ADDR="+client+" NAME=client.example", "--helo", "client.example",
		"--from", "a@sender.example", "--to", strings.Join(to, ","),
		"--data", fmt.Sprintf("Subject: %s\nMessage-ID: <%s@sender.example>\nFrom: a@sender.example\nTo: %s\n\nthe text of %s\n",
			subject, id, to[0], id))
}

// records returns the records that a key leads to.
func (s *Sluice) records(key string) []pipeline.Record {
	s.t.Helper()
	var x struct {
		Records []struct {
			Record pipeline.Record `json:"record"`
		} `json:"records"`
	}
	text := s.Explain(key, "--json")
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		s.t.Fatalf("explain %s --json: %v\n%s", key, err, text)
	}
	var out []pipeline.Record
	for _, r := range x.Records {
		out = append(out, r.Record)
	}
	return out
}

func TestMailThroughPostfix(t *testing.T) {
	s := startSite(t)

	t.Run("filed, read over IMAP, explained", func(t *testing.T) {
		if out, code := s.send("192.0.2.7", "hello world", "fine", "alice@example.org"); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		mail := s.sluice.Mails("alice@example.org", "", 1)[0]
		for _, want := range []string{"X-Sluice-Hits: greeting=1\n", "Subject: hello world\n", "the text of fine\n", "Delivered-To: alice@example.org\n"} {
			if !strings.Contains(mail, want) {
				t.Errorf("the mail has no %q:\n%s", want, mail)
			}
		}
		if n := strings.Count(mail, "X-Sluice-Id: "); n != 1 {
			t.Errorf("the mail has %d hand-over fields:\n%s", n, mail)
		}
		if strings.Contains(mail, "\r") {
			t.Errorf("there are CRs on disk: %q", mail)
		}
		head := fieldNames(mail)
		if len(head) < 4 || head[0] != "Return-Path" || !strings.HasPrefix(strings.Join(head, " "), "Return-Path Delivered-To") ||
			!strings.Contains(strings.Join(head, " "), "X-Sluice-Id") {
			t.Errorf("the fields are %q", head)
		}

		got := Curl(t, "--user", "alice@example.org:"+Password, "imap://"+s.sluice.IMAP+"/INBOX;MAILINDEX=1")
		if !strings.Contains(got, "the text of fine\r\n") || !strings.Contains(got, "Subject: hello world\r\n") {
			t.Errorf("curl reads %q", got)
		}
		got = Python(t, imaplib, Port(s.sluice.IMAP), "alice@example.org", Password)
		if !strings.Contains(got, "INBOX 1") || !strings.Contains(got, "Subject: hello world") {
			t.Errorf("imaplib reads:\n%s", got)
		}

		text := s.sluice.Explain("fine@sender.example")
		for _, want := range []string{"192.0.2.7", "greeting", "alice@example.org", "client.example"} {
			if !strings.Contains(text, want) {
				t.Errorf("explain does not say %q:\n%s", want, text)
			}
		}
	})

	t.Run("the LMTP side takes the hand-over and does not scan again", func(t *testing.T) {
		before := s.dns.Asked()
		if out, code := s.send("192.0.2.33", "hello once", "once", "alice@example.org"); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		s.sluice.Mails("alice@example.org", "", 2)
		var r pipeline.Record
		Eventually(t, func() error {
			all := s.sluice.records("once@sender.example")
			if r = all[0]; len(all) != 1 || len(r.Recipients) != 1 || r.Recipients[0].File == "" {
				return fmt.Errorf("the records are %+v", all)
			}
			return nil
		})
		if r.Door != pipeline.Milter || r.Client.Addr != netip.MustParseAddr("192.0.2.33") || r.QueueID == "" {
			t.Errorf("door %s, client %+v, queue id %q", r.Door, r.Client, r.QueueID)
		}
		// A second scan would ask about a second client, the LMTP peer or the one in Received. One look-up may be two
		// questions, over UDP and for another type.
		if asked := s.dns.Asked() - before; asked < 1 || asked > 2 {
			t.Errorf("%d DNS questions for one mail", asked)
		}
		if got := s.sluice.records(r.QueueID); len(got) != 1 || got[0].ID != r.ID {
			t.Errorf("by queue id: %+v", got)
		}
	})

	t.Run("junk", func(t *testing.T) {
		if out, code := s.send("192.0.2.7", "cheap pills", "junk", "bob@example.org"); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		mail := s.sluice.Mails("bob@example.org", "Junk", 1)[0]
		if !strings.Contains(mail, "X-Sluice-Hits: pills=6\n") || !strings.Contains(mail, "X-Spam-Flag: YES\n") {
			t.Errorf("the mail in Junk:\n%s", mail)
		}
		got := Python(t, imaplib, Port(s.sluice.IMAP), "bob@example.org", Password)
		if !strings.Contains(got, "Junk 1") {
			t.Errorf("imaplib reads:\n%s", got)
		}
	})

	t.Run("refused after DATA", func(t *testing.T) {
		out, code := s.send("192.0.2.7", "your bank", "bank", "alice@example.org")
		if code == 0 || !strings.Contains(out, "550 5.7.1 no banks here") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		if r := s.sluice.records("bank@sender.example"); len(r) != 1 || r[0].End != "refused" {
			t.Errorf("the records are %+v", r)
		}
	})

	t.Run("refused for the client, at RCPT", func(t *testing.T) {
		out, code := s.send("192.0.2.2", "hello", "listed", "alice@example.org")
		if code == 0 || !strings.Contains(out, "550 5.7.1 listed by zen, 100% sure") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		if strings.Contains(out, "354 ") {
			t.Errorf("the mail was let in as far as DATA:\n%s", out)
		}
	})

	t.Run("one of three refused alone", func(t *testing.T) {
		alice, me := len(s.sluice.Files("alice@example.org", "")), len(s.sluice.Files("me@example.org", ""))
		out, code := s.send("192.0.2.7", "hello three", "three", "alice@example.org", "carol@example.org", "me@example.org")
		if code != 0 || !strings.Contains(out, "550 5.7.1 carol takes no mail") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		s.sluice.Mails("alice@example.org", "", alice+1)
		s.sluice.Mails("me@example.org", "", me+1)
		if n := len(s.sluice.Files("carol@example.org", "")); n != 0 {
			t.Errorf("carol has %d mails", n)
		}
	})

	t.Run("refused for one after DATA: held, and nobody gets a bounce", func(t *testing.T) {
		before := len(s.sluice.Files("me@example.org", ""))
		if out, code := s.send("192.0.2.7", "a party", "party", "Bob@example.org", "me@example.org"); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		s.sluice.Mails("me@example.org", "", before+1)
		if n := len(s.sluice.Files("bob@example.org", "")); n != 0 {
			t.Errorf("bob has %d mails in his inbox", n)
		}
		if list := s.sluice.Run("quarantine", "list"); !strings.Contains(list, "bob@example.org") {
			t.Errorf("in quarantine:\n%s", list)
		}
	})

	t.Run("every mail of a connection knows its client", func(t *testing.T) {
		before := len(s.sluice.Files("me@example.org", ""))
		c, err := DialClient(s.Postfix.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, line := range []string{
			"250 EHLO mta.example", "220 XCLIENT ADDR=192.0.2.44 NAME=many.example", "250 EHLO many.example",
			"250 MAIL FROM:<a@sender.example>", "550 RCPT TO:<carol@example.org>", "250 RSET",
		} {
			code, line, _ := strings.Cut(line, " ")
			if _, err := c.Expect(code, "%s", line); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 3 {
			text := fmt.Sprintf("Subject: hello\r\nMessage-ID: <many%d@sender.example>\r\n\r\ntext\r\n", n)
			replies, err := c.Mail(false, "a@sender.example", []string{"me@example.org"}, text)
			if err != nil || !strings.HasPrefix(replies[0], "250") {
				t.Fatalf("%q, %v", replies, err)
			}
		}
		s.sluice.Mails("me@example.org", "", before+3)
		for n := range 3 {
			r := s.sluice.records(fmt.Sprintf("many%d@sender.example", n))
			if len(r) != 1 || r[0].Client.Addr != netip.MustParseAddr("192.0.2.44") || r[0].Client.Name != "many.example" || r[0].Greeting != "many.example" {
				t.Errorf("mail %d: %+v", n, r)
			}
		}
	})

	t.Run("a forged hand-over is worth nothing", func(t *testing.T) {
		genuine := ""
		for line := range strings.Lines(s.sluice.Mails("alice@example.org", "", len(s.sluice.Files("alice@example.org", "")))[0]) {
			if value, ok := strings.CutPrefix(line, "X-Sluice-Id: "); ok {
				genuine = strings.TrimSpace(value)
			}
		}
		if genuine == "" {
			t.Fatal("no mail with a hand-over field")
		}
		junk := len(s.sluice.Files("me@example.org", "Junk"))
		for n, value := range []string{"0123456789 AAAA", genuine, genuine + "\r\nX-Sluice-Id: " + genuine} {
			// Straight to LMTP, as a trusted MTA that lets a stranger's field pass would.
			c, err := DialClient(s.sluice.LMTPSocket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Expect("250", "LHLO mta.example"); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("X-Sluice-Id: %s\r\nSubject: pills\r\nMessage-ID: <fine@sender.example>\r\n\r\nforged %d\r\n", value, n)
			replies, err := c.Mail(true, "a@sender.example", []string{"me@example.org"}, text)
			if err != nil || !strings.HasPrefix(replies[0], "250") {
				t.Fatalf("%q, %v", replies, err)
			}
			for _, mail := range s.sluice.Mails("me@example.org", "Junk", junk+n+1) {
				if strings.Contains(mail, value) || strings.Count(mail, "X-Sluice-Id: ") > 1 {
					t.Errorf("the forged field was kept:\n%s", mail)
				}
			}
		}
	})

	t.Run("nothing waits in the queue of Postfix", func(t *testing.T) {
		Eventually(t, func() error {
			if out, _ := Run(t, "postqueue", "-c", s.config(), "-p"); !strings.Contains(out, "Mail queue is empty") {
				return fmt.Errorf("the queue: %s", out)
			}
			return nil
		})
		if strings.Contains(s.Postfix.Log(), "status=bounced") {
			t.Error("Postfix has bounced")
		}
	})
}

// fieldNames returns the names of the header fields of a mail, in order.
func fieldNames(mail string) []string {
	var names []string
	head, _, _ := strings.Cut(mail, "\n\n")
	for line := range strings.Lines(head) {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			names = append(names, name)
		}
	}
	return names
}

// imaplib reads all folders of an account: arguments port, name, password.
const imaplib = `
import imaplib, sys, re
i = imaplib.IMAP4("127.0.0.1", int(sys.argv[1]))
i.login(sys.argv[2], sys.argv[3])
ok, folders = i.list()
assert ok == "OK", folders
for f in folders:
    name = re.match(rb'.*"?/"? (.*)', f).group(1).decode().strip('"')
    ok, n = i.select('"' + name + '"', readonly=True)
    assert ok == "OK", n
    print(name, int(n[0]))
    ok, uids = i.uid("SEARCH", "ALL")
    for u in uids[0].split():
        ok, data = i.uid("FETCH", u, "(FLAGS BODY.PEEK[])")
        assert ok == "OK", data
        print(data[0][1].decode("utf-8", "replace"))
i.logout()
`
