package peertest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// bring brings a mail as a client that the server is told of: "ADDR=192.0.2.7", "ADDR=192.0.2.7 LOGIN=me@example.org". It
// returns the reply to it, or to the first command that was refused.
func bring(t *testing.T, address, client, from, to, mail string) string {
	t.Helper()
	c := introduce(t, address, client)
	defer c.Close()
	replies, err := c.Mail(false, from, []string{to}, strings.ReplaceAll(mail, "\n", "\r\n"))
	if err != nil {
		return err.Error()
	}
	return replies[0]
}

func introduce(t *testing.T, address, client string) *Client {
	t.Helper()
	c, err := DialClient(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"EHLO mx.client.example", "XCLIENT " + client, "EHLO mx.client.example"} {
		if reply, err := c.Say("%s", line); err != nil || reply[0] != '2' {
			t.Fatalf("%s: %s, %v", line, reply, err)
		}
	}
	return c
}

// Who has tried before is known to the server that comes after.
func TestGreylistingOutlivesARestart(t *testing.T) {
	s := StartSluice(t, SluiceConfig{
		YAML: `domains: [example.org]
pipeline:
  - greylist: {wait: 2s}
  - rules:
      rules:
        - {name: first, when: 'greylist.state == "first"', tempfail: 4.7.1 first}
        - {name: again, when: greylist.new, tempfail: 4.7.1 early}
`,
		Accounts: []string{"me@example.org", "you@example.org"},
	})
	try := func(to string) string {
		return bring(t, s.SMTP, "ADDR=192.0.2.7", "a@sender.example", to, "Subject: x\n\nx\n")
	}
	for _, to := range []string{"me@example.org", "you@example.org"} {
		if got := try(to); !strings.Contains(got, "451 4.7.1 first") {
			t.Fatalf("%s: %s", to, got)
		}
	}
	s.Restart()
	Eventually(t, func() error {
		got := try("me@example.org")
		if strings.Contains(got, "first") {
			t.Fatalf("what was known is lost: %s", got)
		}
		if !strings.HasPrefix(got, "250") {
			return fmt.Errorf("told %s", got)
		}
		return nil
	})
	s.Kill9()
	s.Start()
	for _, to := range []string{"me@example.org", "you@example.org"} {
		if got := try(to); !strings.HasPrefix(got, "250") {
			t.Errorf("%s: %s", to, got)
		}
	}
	s.Mails("me@example.org", "", 2)
}

// Limits count what is taken, of logins and of strangers, each their own; and refusals for them count for logins, which
// others that look at the envelope only do not.
func TestRateLimits(t *testing.T) {
	s := StartSluice(t, SluiceConfig{
		YAML: `domains: [example.org]
trusted: [127.0.0.0/8]
pipeline:
  - ratelimit: {name: rate_in, limit: 2, per: 7d}
  - ratelimit: {name: rate_out, by: [login], of: out, count: recipients, limit: 2, per: 7d}
  - rules:
      rules:
        - {name: much_in, when: rate_in.exceeded, tempfail: 4.7.1 too much in}
        - {name: much_out, when: rate_out.exceeded, tempfail: 4.7.1 too much out}
        - {name: banned, when: 'from.local == "banned"', reject: 5.7.1 banned}
`,
		Accounts: []string{"me@example.org", "you@example.org"},
	})
	const mail = "Subject: x\n\nx\n"
	for _, tt := range []struct{ name, client, other, over string }{
		{"in", "ADDR=192.0.2.7", "ADDR=192.0.2.8", "451 4.7.1 too much in"},
		{"out", "ADDR=192.0.2.7 LOGIN=me@example.org", "ADDR=192.0.2.7 LOGIN=you@example.org", "451 4.7.1 too much out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := introduce(t, s.SMTP, tt.client)
			for range 10 { // which end without a message
				for _, line := range []string{"MAIL FROM:<a@sender.example>", "RCPT TO:<you@example.org>", "RSET"} {
					if _, err := c.Expect("250", "%s", line); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, line := range []string{"MAIL FROM:<a@sender.example>", "RCPT TO:<you@example.org>"} {
				if _, err := c.Expect("250", "%s", line); err != nil {
					t.Fatal(err)
				}
			}
			c.Close() // in the middle
			bring(t, s.SMTP, tt.client, "a@sender.example", "nobody@example.org", mail)
			for n := range 4 {
				want := "250"
				if n >= 2 {
					want = tt.over
				}
				if got := bring(t, s.SMTP, tt.client, "a@sender.example", "you@example.org", mail); !strings.Contains(got, want) {
					t.Errorf("the %d. mail: %s, want %s", n+1, got, want)
				}
			}
			if got := bring(t, s.SMTP, tt.other, "a@sender.example", "you@example.org", mail); !strings.HasPrefix(got, "250") {
				t.Errorf("somebody else: %s", got)
			}
			want := map[string]string{"in": "550 5.7.1 banned", "out": "250"}[tt.name]
			if got := bring(t, s.SMTP, tt.other, "banned@sender.example", "you@example.org", mail); !strings.Contains(got, want) {
				t.Errorf("by another rule: %s, want %s", got, want)
			}
		})
	}
	s.Restart()
	if got := bring(t, s.SMTP, "ADDR=192.0.2.7 LOGIN=Me@Example.org", "a@sender.example", "you@example.org", mail); !strings.Contains(got, "too much out") {
		t.Errorf("after a restart: %s", got)
	}
}

// An answer to what one of our users has sent is known as one.
func TestReplies(t *testing.T) {
	s := StartSluice(t, SluiceConfig{
		YAML: `domains: [example.org]
trusted: [127.0.0.0/8]
pipeline:
  - replies: {}
  - rules:
      rules:
        - {name: own, when: replies.own and replies.written, file: Own}
        - {name: answer, when: replies.reply and not replies.own, file: Others}
        - {name: written, when: replies.written and not replies.reply, file: Written}
`,
		Accounts: []string{"me@example.org", "you@example.org", "friend@example.org"},
	})
	const me, stranger = "ADDR=192.0.2.9 LOGIN=me@example.org", "ADDR=192.0.2.7"
	send := func(client, from, to, header string) {
		t.Helper()
		mail := "From: " + from + "\nSubject: x\n" + header + "\n\nx\n"
		if got := bring(t, s.SMTP, client, from, to, mail); !strings.HasPrefix(got, "250") {
			t.Fatal(got)
		}
	}
	send(me, "me@example.org", "friend@example.org", "Message-ID: <1@ours>")
	send(stranger, "forger@example.net", "friend@example.org", "Message-ID: <2@theirs>")
	s.Restart()
	send(stranger, "friend@example.org", "me@example.org", "In-Reply-To: <1@ours>")
	s.Mails("me@example.org", "Own", 1)
	send(stranger, "other@example.net", "you@example.org", "References: <0@x> <1@ours>")
	s.Mails("you@example.org", "Others", 1)
	send(stranger, "friend@example.org", "me@example.org", "In-Reply-To: <2@theirs>") // which no user of ours has sent
	s.Mails("me@example.org", "Written", 1)
	send(stranger, "friend@example.org", "you@example.org", "In-Reply-To: <2@theirs>")
	s.Mails("you@example.org", "", 1)
}

// The same for users of a Postfix that asks us: who has logged in there, what they send to the world, and its answers.
func TestLoginsAtPostfix(t *testing.T) {
	s := StartSluice(t, SluiceConfig{
		YAML: `domains: [example.org]
pipeline:
  - replies: {}
  - ratelimit: {name: rate_out, by: [login], of: out, count: recipients, limit: 2}
  - rules:
      rules:
        - {name: much_out, when: rate_out.exceeded, tempfail: 4.7.1 too much out}
        - {name: own, when: replies.own and replies.written, file: Own}
`,
		Accounts: []string{"me@example.org"},
	})
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters": "unix:" + s.MilterSocket, "milter_default_action": "tempfail", "virtual_transport": "lmtp:unix:" + s.LMTPSocket,
		"smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
		"smtpd_sasl_auth_enable":   "yes", "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": SASL(t),
	}})
	send := func(login, from, to, header string) string {
		c := introduce(t, p.Address, "ADDR=192.0.2.9")
		defer c.Close()
		if login != "" {
			plain := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + Password))
			if _, err := c.Expect("235", "AUTH PLAIN %s", plain); err != nil {
				t.Fatal(err)
			}
		}
		replies, err := c.Mail(false, from, []string{to}, "From: "+from+"\r\nSubject: x\r\n"+header+"\r\n\r\nx\r\n")
		if err != nil {
			return err.Error()
		}
		return replies[0]
	}
	for n, want := range []string{"250", "250", "451 4.7.1 too much out"} {
		got := send("me@example.org", "me@example.org", "friend@example.com", fmt.Sprintf("Message-ID: <%d@ours>", n))
		if !strings.Contains(got, want) {
			t.Fatalf("the %d. mail: %s, want %s", n+1, got, want)
		}
	}
	for _, id := range []string{"0@ours", "2@ours"} { // the last of which was not taken
		if got := send("", "friend@example.com", "me@example.org", "In-Reply-To: <"+id+">"); !strings.HasPrefix(got, "250") {
			t.Fatal(got)
		}
	}
	s.Mails("me@example.org", "Own", 1)
	s.Mails("me@example.org", "", 1)
}

// Lists of domains and of hashes, and what is to be seen of them when they die: in the record and in the metrics.
func TestLinkListsAndTheirEnd(t *testing.T) {
	address := sha1.Sum([]byte("victim@phish.example"))
	file := sha256.Sum256([]byte("MZ bad"))
	d := DNS(t,
		"test.uri.example. 60 A 127.0.0.2", "bad.co.uk.uri.example. 60 A 127.0.0.12", "77.2.0.192.uri.example. 60 A 127.0.0.2",
		hex.EncodeToString(address[:])+".ebl.example. 60 A 127.0.0.2",
		strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(file[:]))+".files.example. 60 A 127.0.0.2",
		"2.0.0.127.zen.example. 60 A 127.0.0.2", "2.0.0.127.dead.example. 60 A 127.0.0.2",
	)
	smtp, admin := Address(t), Address(t)
	s := StartSluice(t, SluiceConfig{
		Whole: true,
		YAML: fmt.Sprintf(`hostname: sluice.example.org
data: $DIR/sluice-data
domains: [example.org]
trusted: [127.0.0.0/8]
listen: {smtp: [%q], admin: [%q]}
resolver: {servers: [%q], timeout: 10s, attempts: 1, cache_failure_for: 1ms}
pipeline:
  - dnsbl: {lists: {zen: {zone: zen.example}, dead: {zone: dead.example}}}
  - links:
      lists:
        uri: {zone: uri.example, answers: {phishing: ["&8"]}}
        ebl: {zone: ebl.example, hash: sha1, of: [addresses]}
        files: {zone: files.example, hash: sha256, base32: true, of: [files]}
  - rules:
      rules:
        - {name: phishing, when: '"phishing" in uribl.uri.names', file: Phishing}
        - {name: number, when: '"192.0.2.77" in uribl.uri.hits', file: Number}
        - {name: address, when: '"victim@phish.example" in uribl.ebl.hits', file: Address}
        - {name: attachment, when: uribl.files.listed, file: File}
`, smtp, admin, d.Address),
		Accounts: []string{"me@example.org"},
	})
	sent := 0
	send := func(header, body string) (id string) {
		t.Helper()
		sent++
		id = fmt.Sprintf("%d@sender.example", sent)
		mail := fmt.Sprintf("Message-ID: <%s>\nFrom: a@sender.example\n%s\n\n%s\n", id, header, body)
		if got := bring(t, smtp, fmt.Sprintf("ADDR=192.0.2.%d", 100+sent), "a@sender.example", "me@example.org", mail); !strings.HasPrefix(got, "250") {
			t.Fatal(got)
		}
		return id
	}
	many := ""
	for i := range 200 {
		many += fmt.Sprintf("http://d%d.example/\n", i)
	}
	for i, tt := range []struct{ header, body, folder string }{
		{"Subject: x", "see http://www.bad.co.uk/x", "Phishing"},
		{"Subject: x", "see https://r.example/?u=https%3A%2F%2Fx.bad.co.uk%2F", "Phishing"},
		{"Subject: x", many + "http://bad.co.uk/", "Phishing"},
		{"Content-Type: text/html", `<base href="http://x.bad.co.uk/"><a href="y">z</a>`, "Phishing"},
		{"Content-Type: text/html", `<a href="http://ok.example@w%77w.ba&#100;.co.uk">z</a>`, "Phishing"},
		{"Subject: x", "see http://3221226061/", "Number"},
		{"Subject: x", "write to Victim@phish.example", "Address"},
		{"Content-Type: application/octet-stream; name=a.exe\nContent-Transfer-Encoding: base64", "TVogYmFk", "File"},
		{"Subject: x", "see http://good.example/x", ""},
	} {
		id := send(tt.header, tt.body)
		if got := s.records(id)[0].Recipients[0].Folder; got != tt.folder && (got != "INBOX" || tt.folder != "") {
			t.Errorf("mail %d: filed into %q, want %q", i, got, tt.folder)
		}
	}
	metric := func(pattern string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + pattern + ` (\S+)$`).FindStringSubmatch(Curl(t, "http://"+admin+"/metrics"))
		if m == nil {
			return 0
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, least := range map[string]float64{
		"sluice_dns_asked_total": 20, "sluice_dns_cached_total": 3, "sluice_dns_cache_entries": 5, "sluice_dns_cache_bytes": 2000,
		`sluice_dns_lookups_total\{result="found",type="a"\}`: 5, `sluice_dns_lookups_total\{result="not found",type="a"\}`: 20,
	} {
		if got := metric(name); got < least {
			t.Errorf("%s is %g", name, got)
		}
	}
	if got := metric(`sluice_dns_failed_total`) + metric(`sluice_stage_unknown_total\{field="dead",step="dnsbl"\}`); got != 0 {
		t.Errorf("%g failures while all is well", got)
	}

	// One list dies: its part is unknown, and it is not asked for each mail.
	for i := range 9 {
		d.Fail(fmt.Sprintf("%d.2.0.192.dead.example", 100+sent+1+i))
	}
	var id string
	for range 7 {
		id = send("Subject: x", "x")
	}
	step := s.records(id)[0].Steps[0]
	if why := step.Missing["dead"]; step.Name != "dnsbl" || !strings.Contains(why, "not asked until") || !strings.Contains(why, "server failure") || step.Missing["zen"] != "" {
		t.Errorf("%s: %v", step.Name, step.Missing)
	}
	if text := s.Explain(id); !strings.Contains(text, "it failed too often") {
		t.Errorf("explain does not say so:\n%s", text)
	}
	if got := metric(`sluice_stage_unknown_total\{field="dead",step="dnsbl"\}`); got != 7 {
		t.Errorf("unknown for %g mails", got)
	}
	if got := metric(`sluice_stage_errors_total\{phase="connect",policy="skip",step="dnsbl"\}`); got != 0 {
		t.Errorf("%g errors of the stage", got)
	}
	// All die.
	d.Misbehave(DNSRefuses)
	for range 7 {
		id = send("Subject: x", "see http://another.example")
	}
	if step := s.records(id)[0].Steps[0]; !strings.Contains(step.Unknown, "it failed too often") || !strings.Contains(step.Unknown, "refused by the server") {
		t.Errorf("%s: unknown %q", step.Name, step.Unknown)
	}
	if got := metric(`sluice_stage_errors_total\{phase="connect",policy="skip",step="dnsbl"\}`); got != 7 {
		t.Errorf("%g errors of the stage", got)
	}
	if got := metric("sluice_dns_failed_total"); got < 7 {
		t.Errorf("%g questions left open", got)
	}
}

// Counting or greylisting that nobody acts on is said when the configuration is checked.
func TestCheckNamesWhatNobodyReads(t *testing.T) {
	const steps = "pipeline:\n  - greylist: {}\n  - ratelimit: {name: rate, limit: 10}\n"
	for rules, want := range map[string][]string{
		"": {"no step reads what greylist finds", "`when: greylist.new` with `tempfail: 4.7.1", "no step reads what rate finds"},
		"  - rules: {rules: [{name: later, when: greylist.new or rate.exceeded, tempfail: 4.7.1 later}]}\n": nil,
	} {
		s := NewSluice(t, SluiceConfig{YAML: steps + rules})
		out, err := s.Command("check").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("check does not say %q:\n%s", w, out)
			}
		}
		if want == nil && strings.Contains(string(out), "no step reads") {
			t.Errorf("check warns of what is read:\n%s", out)
		}
	}
}
