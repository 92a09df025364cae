package peertest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

// doorsRules say who takes what. Each refusal names its rule.
const doorsRules = `rules:
  - {name: friend, when: 'client.name == "friend.example"', keep: true}
  - {name: listed, when: dnsbl.zen.listed, reject: 5.7.1 says listed}
  - {name: liar, when: 'helo == "liar.example"', reject: 5.7.1 says liar}
  - {name: spammer, when: 'from.domain == "spammer.example"', reject: 5.7.1 says spammer}
  - {name: closed, when: 'rcpt.local == "closed"', reject: 5.7.1 says closed}
  - {name: strict, when: 'rcpt.local == "strict" and subject contains "offer"', reject: 5.7.1 says strict}
  - {name: careful, when: 'rcpt.local == "careful" and subject contains "offer"', quarantine: true}
  - {name: deaf, when: 'rcpt.local == "deaf" and subject contains "offer"', discard: true}
  - {name: busy, when: 'rcpt.local == "busy" and subject contains "offer"', tempfail: 4.7.1 says busy}
  - {name: bank, when: 'subject contains "bank"', reject: 5.7.1 says bank}
  - {name: news, when: 'has("List-Id")', file: Lists}
  - {name: pills, when: 'subject contains "pills"', score: 6}
  - {name: bomb, when: 'subject contains "bomb"', score: 20}
`

// A doorsMail is one mail, its client, and what is decided for each of its recipients: "reject strict" is a verdict and
// the rule that gave it, "pass Lists" one and the folder.
type doorsMail struct {
	name               string
	client, host, helo string
	from               string
	subject            string
	header             string
	want               map[string]string
}

var doorsMails = []doorsMail{
	{name: "plain", subject: "hello", want: map[string]string{"alice": "pass"}},
	{name: "several", subject: "hello all", want: map[string]string{"alice": "pass", "strict": "pass", "careful": "pass", "deaf": "pass"}},
	{name: "pills", subject: "cheap pills", want: map[string]string{"alice": "pass Junk", "strict": "pass Junk"}},
	{name: "news", subject: "news", header: "List-Id: <l.sender.example>", want: map[string]string{"alice": "pass Lists"}},
	{name: "listed", client: "192.0.2.66", host: "listed.example", subject: "hello", want: map[string]string{"alice": "reject listed", "strict": "reject listed"}},
	{name: "liar", helo: "liar.example", subject: "hello", want: map[string]string{"alice": "reject liar"}},
	{name: "spammer", from: "a@spammer.example", subject: "hello", want: map[string]string{"alice": "reject spammer", "careful": "reject spammer"}},
	{name: "closed", subject: "hello", want: map[string]string{"alice": "pass", "closed": "reject closed", "strict": "pass"}},
	{name: "closed alone", subject: "hello", want: map[string]string{"closed": "reject closed"}},
	{name: "strict", subject: "an offer", want: map[string]string{"strict": "reject strict"}},
	{name: "one of two refuses", subject: "an offer", want: map[string]string{"alice": "pass", "strict": "reject strict"}},
	{name: "all differ", subject: "an offer", want: map[string]string{
		"alice": "pass", "strict": "reject strict", "careful": "quarantine careful", "deaf": "discard deaf",
	}},
	{name: "held and dropped", subject: "an offer", want: map[string]string{"careful": "quarantine careful", "deaf": "discard deaf"}},
	{name: "busy", subject: "an offer", want: map[string]string{"busy": "tempfail busy"}},
	{name: "one of three is busy", subject: "an offer", want: map[string]string{"alice": "pass", "busy": "tempfail busy", "strict": "reject strict"}},
	{name: "bank", subject: "your bank", want: map[string]string{"alice": "reject bank", "careful": "reject bank", "strict": "reject bank"}},
	{name: "bomb", subject: "a bomb", want: map[string]string{"alice": "reject threshold"}},
	{name: "a friend", client: "192.0.2.9", host: "friend.example", subject: "an offer of pills", want: map[string]string{
		"alice": "keep friend", "strict": "keep friend", "careful": "keep friend", "closed": "keep friend",
	}},
	{name: "the null sender", from: "<>", subject: "an offer", want: map[string]string{"alice": "pass", "strict": "reject strict"}},
}

func (m doorsMail) id(door string) string {
	return strings.ReplaceAll(m.name, " ", ".") + "@" + door + ".example"
}

func (m doorsMail) recipients() []string { return slices.Sorted(maps.Keys(m.want)) }

func (m doorsMail) withDefaults() doorsMail {
	if m.client == "" {
		m.client, m.host = "192.0.2.7", "client.example"
	}
	if m.helo == "" {
		m.helo = m.host
	}
	switch m.from {
	case "":
		m.from = "a@sender.example"
	case "<>":
		m.from = ""
	}
	return m
}

func (m doorsMail) text(door string) string {
	header := ""
	if m.header != "" {
		header = m.header + "\r\n"
	}
	return fmt.Sprintf("Subject: %s\r\nMessage-ID: <%s>\r\nFrom: a@sender.example\r\n%s\r\nthe text of %s\r\n", m.subject, m.id(door), header, m.name)
}

// A way is one door, with what stands before it.
type way struct {
	name    string
	sluice  *Sluice
	postfix *Postfix // in front of it, or nil
	// offer brings a mail in and returns what the client was told for each recipient.
	offer func(t *testing.T, m doorsMail) map[string]string
}

// openWays opens a Sluice for each door, all configured alike.
func openWays(t *testing.T) []way {
	t.Helper()
	d := DNS(t, "2.0.0.127.zen.lists.example. A 127.0.0.2", "66.2.0.192.zen.lists.example. A 127.0.0.2",
		"7.2.0.192.in-addr.arpa. PTR client.example.", "client.example. A 192.0.2.7",
		"9.2.0.192.in-addr.arpa. PTR friend.example.", "friend.example. A 192.0.2.9",
		"66.2.0.192.in-addr.arpa. PTR listed.example.", "listed.example. A 192.0.2.66",
	)
	sluice := func() *Sluice {
		return StartSluice(t, SluiceConfig{
			YAML: fmt.Sprintf("domains: [example.org]\nresolver: {servers: [%q]}\npipeline:\n"+
				"  - dnsbl: {lists: {zen: {zone: zen.lists.example}}}\n  - rules: {files: [rules.yaml], junk: 5, reject: 15}\n", d.Address),
			Files: map[string]string{"rules.yaml": doorsRules},
			Accounts: []string{"alice@example.org", "strict@example.org", "careful@example.org", "deaf@example.org",
				"busy@example.org", "closed@example.org"},
		})
	}
	viaXCLIENT := func(door, address string) func(*testing.T, doorsMail) map[string]string {
		return func(t *testing.T, m doorsMail) map[string]string { return m.xclient(t, door, address) }
	}
	direct := sluice()
	ways := []way{{name: "smtp", sluice: direct, offer: viaXCLIENT("smtp", direct.SMTP)}}

	asked := sluice()
	asking := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters": "unix:" + asked.MilterSocket, "milter_default_action": "tempfail", "virtual_transport": "lmtp:unix:" + asked.LMTPSocket,
	}})
	ways = append(ways, way{name: "milter", sluice: asked, postfix: asking, offer: viaXCLIENT("milter", asking.Address)})

	last := sluice()
	giving := StartPostfix(t, PostfixConfig{Main: map[string]string{"virtual_transport": "lmtp:unix:" + last.LMTPSocket}})
	ways = append(ways, way{name: "lmtp", sluice: last, postfix: giving, offer: viaXCLIENT("lmtp", giving.Address)})

	called := sluice()
	if strings.Contains(called.Run("--help"), "  deliver ") {
		ways = append(ways, way{name: "deliver", sluice: called, offer: func(t *testing.T, m doorsMail) map[string]string {
			return m.deliver(t, called)
		}})
	} else {
		t.Log("this program has no `deliver`")
	}
	return ways
}

// xclient offers a mail to a server that believes us who its client is.
func (m doorsMail) xclient(t *testing.T, door, address string) map[string]string {
	t.Helper()
	c, err := DialClient(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, line := range []string{
		"250 EHLO front.example", "220 XCLIENT ADDR=" + m.client + " NAME=" + m.host, "250 EHLO " + m.helo, "250 MAIL FROM:<" + m.from + ">",
	} {
		code, line, _ := strings.Cut(line, " ")
		if _, err := c.Expect(code, "%s", line); err != nil {
			t.Fatal(err)
		}
	}
	told := map[string]string{}
	var taken []string
	for _, r := range m.recipients() {
		reply, err := c.Say("RCPT TO:<%s@example.org>", r)
		if err != nil {
			t.Fatal(err)
		}
		if told[r] = reply; strings.HasPrefix(reply, "250") {
			taken = append(taken, r)
		}
	}
	if len(taken) == 0 {
		return told
	}
	if _, err := c.Expect("354", "DATA"); err != nil {
		t.Fatal(err)
	}
	reply, err := c.Say("%s.", m.text(door))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range taken {
		told[r] = reply
	}
	return told
}

// deliver offers a mail as Postfix's pipe(8) does. What is told is an exit code for all; so where somebody is told to come
// again each has a call of their own, as with pipe's flag D.
func (m doorsMail) deliver(t *testing.T, s *Sluice) map[string]string {
	t.Helper()
	all := m.recipients()
	if _, busy := m.want["busy"]; !busy {
		return m.deliverTo(t, s, all...)
	}
	told := map[string]string{}
	for _, r := range all {
		maps.Copy(told, m.deliverTo(t, s, r))
	}
	return told
}

func (m doorsMail) deliverTo(t *testing.T, s *Sluice, to ...string) map[string]string {
	t.Helper()
	args := []string{"deliver", "--from", m.from, "--client-ip", m.client, "--helo", m.helo}
	for _, r := range to {
		args = append(args, r+"@example.org")
	}
	cmd := s.Command(args...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(m.text("deliver"), "\r\n", "\n"))
	out, err := cmd.CombinedOutput()
	reply := "250 "
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 75:
		reply = fmt.Sprintf("451 %s", out)
	case errors.As(err, &exit):
		reply = fmt.Sprintf("550 exit %d %s", exit.ExitCode(), out)
	case err != nil:
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, r := range to {
		told[r] = reply
	}
	return told
}

// An outcome is what became of a mail for one recipient.
type outcome struct {
	verdict string
	told    string
	record  pipeline.RecipientRecord
	files   []string // folders in which it lies
	held    bool
}

// outcome waits until a mail has come to its end at a door, for one recipient.
func (w way) outcome(t *testing.T, m doorsMail, rcpt, told string) (o outcome) {
	t.Helper()
	o.told = told
	id := m.id(w.name)
	refusedAtRCPT := strings.HasPrefix(told, "550") && strings.Contains(told, "says ")
	if _, says, ok := strings.Cut(told, "says "); ok && refusedAtRCPT {
		o.verdict = "reject " + says // the record of a mail of which nobody saw the text is not found by its Message-ID
	}
	Eventually(t, func() error {
		if !refusedAtRCPT {
			found := false
			for _, r := range w.sluice.records(id) {
				for _, x := range r.Recipients {
					if x.Address.Local == rcpt && x.Disposition != pipeline.NotFinished && !found {
						o.record, found = x, true
					}
				}
			}
			if !found {
				return fmt.Errorf("%s: no record of %s for %s", w.name, id, rcpt)
			}
			if o.record.Disposition == pipeline.Delivered && o.record.File == "" {
				return fmt.Errorf("%s: %s for %s is not filed yet", w.name, id, rcpt)
			}
			o.verdict = verdictOf(o.record)
		}
		return nil
	})
	for _, folder := range []string{"", "Junk", "Lists"} {
		for _, text := range w.sluice.texts(rcpt+"@example.org", folder) {
			if strings.Contains(text, "\nMessage-ID: <"+id+">\n") {
				o.files = append(o.files, cmp.Or(folder, "INBOX"))
			}
		}
	}
	o.held = o.record.Held != "" && strings.Contains(w.sluice.Run("quarantine", "list"), o.record.Held)
	return o
}

func verdictOf(x pipeline.RecipientRecord) string {
	s := x.Verdict.Action.String()
	switch {
	case x.Verdict.By != "":
		s += " " + x.Verdict.By
	case x.Verdict.Action == pipeline.Pass && x.Folder != "INBOX" && x.Folder != "":
		s += " " + x.Folder
	case strings.HasPrefix(x.Verdict.Reason, "score "):
		s += " threshold"
	}
	return s
}

// The same mail, with its client known, gets the same verdicts through any door. Each door expresses them as it can: but
// nobody's mail is lost, nobody gets what their policy refused, and nobody who was forged as the sender gets a bounce.
func TestFourDoorsOneVerdict(t *testing.T) {
	ways := openWays(t)
	for _, m := range doorsMails {
		t.Run(m.name, func(t *testing.T) {
			m := m.withDefaults()
			for _, w := range ways {
				told := w.offer(t, m)
				for _, rcpt := range m.recipients() {
					o := w.outcome(t, m, rcpt, told[rcpt])
					if o.verdict != m.want[rcpt] {
						t.Errorf("%s: %s: %q, want %q (told %q, recorded %+v)", w.name, rcpt, o.verdict, m.want[rcpt], o.told, o.record.Verdict)
					}
					if wrong := o.wrong(w); wrong != "" {
						t.Errorf("%s: %s: %s: told %q, files %q, held %t, recorded %s", w.name, rcpt, wrong, o.told, o.files, o.held, o.record.Disposition)
					}
				}
			}
		})
	}
	for _, w := range ways {
		if w.postfix == nil {
			continue
		}
		if log := w.postfix.Log(); strings.Contains(log, "status=bounced") || strings.Contains(log, "sender non-delivery notification") {
			t.Errorf("%s: Postfix has bounced:\n%s", w.name, log)
		}
		// What waits in the queue waits for whoever asked to be offered it again.
		Eventually(t, func() error {
			out, _ := Run(t, "postqueue", "-c", w.postfix.config(), "-p")
			for line := range strings.Lines(out) {
				if line = strings.TrimSpace(line); strings.HasSuffix(line, "@example.org") && line != "busy@example.org" || strings.Contains(line, "MAILER-DAEMON") {
					return fmt.Errorf("%s: in the queue of Postfix:\n%s", w.name, out)
				}
			}
			return nil
		})
	}
}

// wrong says what must not be, at any door.
func (o outcome) wrong(w way) string {
	action, rest, _ := strings.Cut(o.verdict, " ")
	postponed := strings.HasPrefix(o.told, "4") // the sender keeps it, for all of them
	switch {
	case postponed && (len(o.files) > 0 || o.held):
		return "the sender comes again with what is here already"
	case postponed:
		return ""
	}
	switch action {
	case "pass", "keep":
		want := "INBOX"
		if action == "pass" && rest != "" {
			want = rest
		}
		if !strings.HasPrefix(o.told, "250") || len(o.files) != 1 || o.files[0] != want {
			return "not in " + want
		}
	case "reject":
		switch {
		case len(o.files) > 0:
			return "in a folder, though it was refused"
		case strings.HasPrefix(o.told, "550"):
		case !o.held:
			return "lost: neither refused nor held"
		}
	case "quarantine":
		if len(o.files) > 0 || !o.held {
			return "not held"
		}
	case "discard":
		if len(o.files) > 0 || o.held || !strings.HasPrefix(o.told, "250") {
			return "not discarded"
		}
	case "tempfail": // nobody who is told 250 has to offer it again, but the MTA in front of us
		if len(o.files) > 0 || o.held || w.postfix == nil || o.record.Disposition != pipeline.Postponed {
			return "not postponed"
		}
	}
	return ""
}
