package milter

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestAcceptedMailGetsItsFields(t *testing.T) {
	score := pipelinetest.Step("score", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputHeader},
		Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
			return pipeline.Result{
				Hits:  []pipeline.Hit{{Name: "zen", Score: 4}},
				Edits: []pipeline.Edit{{Name: "X-Seen", Value: "yes\r\nX-Forged: no"}, {Name: "X-Gone", Delete: true}},
			}, nil
		},
	})
	d := open(t, nil, score)
	d.dial().talk(postfix + `
C: D M|i|
C: M <a@sender.example>|SIZE=100
S: c
C: R <me@example.org>
S: c
C: D T|i|4F1
C: T
S: c
C: L X-Sluice-Id| 1 forged
S: c
C: L Subject| hello
S: c
C: L X-Gone| 1
S: c
C: L x-sluice-id| 2 forged
S: c
C: L X-Spam-Flag| YES
S: c
C: L x-gone| 2
S: c
C: D N|i|4F1
C: N
S: c
C: B text\r\n
S: c
C: D E|i|4F1
C: E
S: m 2 x-gone|
S: m 1 X-Spam-Flag|
S: m 2 x-sluice-id|
S: m 1 X-Gone|
S: m 1 X-Sluice-Id|
S: i 0 X-Seen| yes  X-Forged: no
S: i 0 X-Sluice-Hits| zen=4
S: i 0 X-Spam-Score| 4.0
S: i 0 X-Sluice-Id| t1 *
S: a
C: A
C: Q
S: EOF
`)
	r, _ := d.journal.Last()
	if r == nil || r.ID != "t1" || r.QueueID != "4F1" || r.End != "handed over" || r.SHA256 == "" {
		t.Errorf("the record is %+v", r)
	}
	if got := len(d.journal.Records()); got != 1 {
		t.Errorf("%d records of one message: the MTA's abort after it is none", got)
	}
}

// go-milter makes a new Milter after every answer that isn't "continue", and forgets client and greeting with the old.
func TestClientSurvivesRefusalsAndMessages(t *testing.T) {
	d := open(t, nil, says("rules", pipeline.Rcpt, reject("no 100% such luck"), "bad"))
	m := d.dial()
	m.talk(postfix + `
C: M <a@sender.example>
S: c
C: R <bad@example.org>
S: y 550 5.7.1 no 100%% such luck
C: R <me@example.org>
S: c
C: R <bad@EXAMPLE.org>
S: y 550 5.7.1 no 100%% such luck
` + transfer + `
S: i 0 X-Sluice-Id| t1 *
S: a
C: A
`)
	for _, want := range []string{"t2", "t3"} {
		m.talk(message + "S: i 0 X-Sluice-Id| " + want + " *\nS: a\nC: A\n")
		v := d.last()
		if v.Client.Addr != netip.MustParseAddr("192.0.2.7") || v.Client.Name != "mail.example" || v.Greeting != "mail.example" {
			t.Errorf("%s: the client is %+v, its greeting %q", want, v.Client, v.Greeting)
		}
	}
	r := d.journal.Records()[0]
	if len(r.Recipients) != 3 || r.Recipients[0].Disposition != pipeline.Refused || r.Recipients[1].Disposition != pipeline.Delivered {
		t.Errorf("the record has the recipients %+v", r.Recipients)
	}
}

func TestMacrosOfEveryStageCount(t *testing.T) {
	d := open(t, nil)
	m := d.dial()
	m.talk(`
C: O 6 0x1ff 0x100f7f
S: O 6 0x19 0x100100
C: D C|j|mx.example.org|{daemon_name}|smtpd|v|Postfix 3.7.11
C: C unknown|4|192.0.2.7
S: c
C: D H|{tls_version}|TLSv1.3|{cipher}|x
C: H first.example
S: c
C: H second.example
S: c
C: A
C: D M|i||{auth_type}|PLAIN|{auth_authen}|me@example.org|{mail_addr}|a@b
C: M <>
S: c
C: D R|i|4F2
C: R <Me+Tag@example.org>|NOTIFY=NEVER|ORCPT=rfc822;al+2Bias@example.org
S: c
` + transfer + `
S: i 0 X-Sluice-Id| t1 *
S: a
C: A
`)
	v := d.last()
	want := pipeline.Client{Addr: netip.MustParseAddr("192.0.2.7"), Login: "me@example.org", TLS: "TLSv1.3"}
	if v.Client != want {
		t.Errorf("the client is %+v, want %+v", v.Client, want)
	}
	if v.Greeting != "second.example" || !v.Sender.IsZero() {
		t.Errorf("greeting %q, sender %v", v.Greeting, v.Sender)
	}
	if rcpt := v.Recipients[0]; rcpt.Address.String() != "me+tag@example.org" || rcpt.Original.String() != "al+ias@example.org" {
		t.Errorf("the recipient is %+v", rcpt)
	}
	if r, _ := d.journal.Last(); r.QueueID != "4F2" {
		t.Errorf("queue id %q", r.QueueID)
	}
	// The next message has no login, and another queue id.
	m.talk(message + "S: i 0 X-Sluice-Id| t2 *\nS: a\nC: A\n")
	if v := d.last(); v.Client.Login != "" || v.Client.TLS != "TLSv1.3" {
		t.Errorf("the client of the next message is %+v", v.Client)
	}
	if r, _ := d.journal.Last(); r.QueueID != "" {
		t.Errorf("the next message has the queue id %q of the one before", r.QueueID)
	}
}

func TestNegotiation(t *testing.T) {
	for _, x := range []struct{ name, dialogue string }{
		{"version 2 is answered with 2, and without leading spaces", "C: O 2 0x3f 0x7f\nS: O 2 0x19 0x0\n"},
		{"no more than version 6", "C: O 7 0xffff 0xffffff7f\nS: O 6 0x19 0x1d7100\n"},
		{"an MTA that lets nobody remove recipients is left", "C: O 6 0x11 0x1fff7f\nS: EOF\n"},
		{"a short packet", "C: O 6 0x1ff\nS: EOF\n"},
	} {
		t.Run(x.name, func(t *testing.T) { open(t, nil).dial().talk(x.dialogue) })
	}
}

func TestUnknownCommandsAndASecondClientOnOneSocket(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(postfix + `
C: U FOO bar
S: c
C: M <gone@sender.example>
S: c
C: R <me@example.org>
S: c
C: K
C: C other.example|6|IPv6:2001:db8::7
S: c
C: H other.example
S: c
` + message + `
S: i 0 X-Sluice-Id| t2 *
S: a
C: Q
S: EOF
`)
	if v := d.last(); v.Client.Addr != netip.MustParseAddr("2001:db8::7") || v.Greeting != "other.example" {
		t.Errorf("the client is %+v, its greeting %q", v.Client, v.Greeting)
	}
	if r := d.journal.Records()[0]; r.End != "aborted" || r.Client.Name != "mail.example" {
		t.Errorf("the first client's message ended %q, with the client %+v", r.End, r.Client)
	}
}

func TestTheMessageIsByteTrue(t *testing.T) {
	t.Run("with leading spaces", func(t *testing.T) {
		d := open(t, nil)
		d.dial().talk(postfix + `
C: M <a@sender.example>
S: c
C: R <me@example.org>
S: c
C: T
S: c
C: L Subject|  two spaces
S: c
C: L X-None|none
S: c
C: L X-Folded| a\n\tb\r\n c
S: c
C: L X-Empty|
S: c
C: N
S: c
C: B one\r\n
S: c
C: B \r\n.two\r\n
S: c
C: E
S: i 0 X-Sluice-Id| t1 *
S: a
`)
		want := "Subject:  two spaces\r\nX-None:none\r\nX-Folded: a\r\n\tb\r\n c\r\nX-Empty:\r\n\r\none\r\n\r\n.two\r\n"
		if got := d.last().text; got != want {
			t.Errorf("stages saw %q, want %q", got, want)
		}
	})
	t.Run("without", func(t *testing.T) {
		d := open(t, nil)
		d.dial().talk(`
C: O 2 0x3f 0x7f
S: O 2 0x19 0x0
C: C mail.example|4|192.0.2.7
S: c
C: M <a@sender.example>
S: c
C: R <me@example.org>
S: c
C: L Subject|hello
S: c
C: N
S: c
C: E
S: i 0 X-Sluice-Id|t1 *
S: a
`)
		if got, want := d.last().text, "Subject: hello\r\n\r\n"; got != want {
			t.Errorf("stages saw %q, want %q", got, want)
		}
	})
}

func TestRecipientsAreRemovedAsTheyWereSpelt(t *testing.T) {
	discard := says("a", pipeline.Content, pipeline.Verdict{Action: pipeline.Discard}, "discard")
	hold := says("b", pipeline.Content, pipeline.Verdict{Action: pipeline.Quarantine, Reason: "a virus"}, "hold")
	refuse := says("c", pipeline.Content, reject("no"), "refuse")
	d := open(t, nil, discard, hold, refuse)
	d.dial().talk(postfix + `
C: M <a@sender.example>
S: c
C: R <DisCard@Example.ORG>
S: c
C: R <me@example.org>
S: c
C: R <"hold"@example.org>
S: c
C: R <refuse@example.org>
S: c
C: R <DisCard@Example.ORG>
S: c
` + transfer + `
S: i 0 X-Sluice-Id| t1 *
S: - <DisCard@Example.ORG>
S: - <"hold"@example.org>
S: - <refuse@example.org>
S: a
`)
	if len(d.held.held) != 1 {
		t.Fatalf("%d mails are held", len(d.held.held))
	}
	h := d.held.held[0]
	if len(h.Recipients) != 2 || h.Recipients[0].Reason != "b: a virus" || h.Recipients[1].Reason != "c: 550 5.7.1 no" {
		t.Errorf("held for %+v", h.Recipients)
	}
	r, durable := d.journal.Last()
	if !durable || r.Recipients[2].Held != "q1" || r.Recipients[3].Held != "q2" || r.SHA256 != h.SHA256 || h.ID != "t1" {
		t.Errorf("the record (durable: %v) has %+v", durable, r.Recipients)
	}
	text := d.held.text[0]
	for _, want := range []string{
		"Received: from mail.example (mail.example [192.0.2.7])\r\n\tby mx.example.org (Sluice milter) with ESMTP id t1;",
		"X-Sluice-Id: t1 ",
		"Subject: hello\r\n\r\ntext\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("what is held has no %q:\n%s", want, text)
		}
	}
}

func TestAnswersForAll(t *testing.T) {
	steps := func(s ...pipeline.Step) []pipeline.Step { return s }
	content := func(name string, v pipeline.Verdict, mailboxes ...string) pipeline.Step {
		return says(name, pipeline.Content, v, mailboxes...)
	}
	hold, discard := pipeline.Verdict{Action: pipeline.Quarantine}, pipeline.Verdict{Action: pipeline.Discard}
	postpone := pipeline.Verdict{
		Action: pipeline.TempFail,
		Reply:  pipeline.Reply{Code: 451, Enhanced: "4.7.1", Text: "later"},
	}
	for _, x := range []struct {
		name   string
		steps  []pipeline.Step
		answer string
		end    string
		held   int
	}{
		{"all refused", steps(content("a", reject("no"), "me"), content("b", reject("nor you"), "you")), "S: y 550 5.7.1 no\n", "refused", 0},
		{"one postponed", steps(content("a", postpone, "you"), content("b", hold, "me")), "S: y 451 4.7.1 later\n", "refused", 0},
		{"all discarded", steps(content("a", discard)), "S: d\n", "done", 0},
		{"all held", steps(content("a", hold)), "S: d\n", "done", 1},
		{"one refused, one discarded", steps(content("a", reject("no"), "me"), content("b", discard, "you")), "S: d\n", "done", 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := open(t, nil, x.steps...)
			m := d.dial()
			m.talk(postfix + "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: R <you@example.org>\nS: c\n" + transfer + x.answer)
			if r, _ := d.journal.Last(); r.End != x.end {
				t.Errorf("the record ends %q, want %q", r.End, x.end)
			}
			if got := len(d.held.held); got != x.held {
				t.Errorf("%d mails held, want %d", got, x.held)
			}
			// The MTA aborts, and may go on.
			m.talk("C: A\nC: M <>\nS: c\n")
		})
	}
}

func TestRefusedAtData(t *testing.T) {
	plan, err := pipeline.NewPlan([]pipeline.Step{pipelinetest.Step("all", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipients, Can: []pipeline.Final{{Action: pipeline.Reject}}},
		Says: func(context.Context, pipeline.View) (pipeline.Result, error) {
			return pipeline.Result{Verdict: reject("too many friends")}, nil
		},
	})}, pipelinetest.Env(t), pipeline.Options{SpeakEarliest: true})
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, func(c *Config) { c.Plan = func() *pipeline.Plan { return plan } }).dial()
	m.talk(postfix + `
C: M <>
S: c
C: R <me@example.org>
S: c
C: T
S: y 550 5.7.1 too many friends
C: L Subject| goes on all the same
S: y 550 5.7.1 too many friends
C: E
S: y 550 5.7.1 too many friends
C: A
C: M <>
S: c
`)
}

func TestWhatFailsIsPostponed(t *testing.T) {
	hold := says("a", pipeline.Content, pipeline.Verdict{Action: pipeline.Quarantine}, "me")
	discard := says("b", pipeline.Content, pipeline.Verdict{Action: pipeline.Discard}, "you")
	const internal = "S: y 451 4.3.0 internal error, please try again later\nC: A\n"
	t.Run("quarantine", func(t *testing.T) {
		d := open(t, nil, hold)
		d.held.err = errors.New("disk full")
		d.dial().talk(postfix + message + internal)
		r, _ := d.journal.Last()
		if r.End != "refused" || r.Recipients[0].Disposition != pipeline.Postponed ||
			!strings.Contains(r.Recipients[0].Note, "disk full") {
			t.Errorf("the record ends %q for %+v", r.End, r.Recipients)
		}
	})
	t.Run("no quarantine", func(t *testing.T) {
		d := open(t, func(c *Config) { c.Quarantine = nil }, hold)
		d.dial().talk(postfix + message + internal)
	})
	t.Run("journal", func(t *testing.T) {
		d := open(t, nil, discard)
		d.journal.Err = errors.New("disk full")
		d.dial().talk(postfix + "C: M <>\nS: c\nC: R <you@example.org>\nS: c\n" + transfer + internal)
	})
	t.Run("panic", func(t *testing.T) {
		d := open(t, nil, hold)
		d.held.panics = true
		m := d.dial()
		m.talk(postfix + message + internal)
		// The connection, the client and the next message live on.
		m.talk(message + "S: d\n")
		if v := d.last(); v.Client.Addr != netip.MustParseAddr("192.0.2.7") || v.Greeting != "mail.example" {
			t.Errorf("after a panic the client is %+v, its greeting %q", v.Client, v.Greeting)
		}
	})
	t.Run("spool", func(t *testing.T) {
		d := open(t, func(c *Config) { c.SpoolDir = "/nonexistent" })
		m := d.dial()
		m.talk(postfix + "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: T\nS: c\nC: N\nS: c\n")
		answer := "c"
		for range 40 { // memory holds the first MiB
			m.raw('B', strings.Repeat("x", 60<<10))
			if answer = m.hear(); answer != "c" {
				break
			}
		}
		if want := "y 451 4.3.1 no room, please try again later"; answer != want {
			t.Errorf("heard %q, want %q", answer, want)
		}
		m.talk("C: E\nS: y 451 4.3.1 *\nC: A\n")
	})
}

func TestAbort(t *testing.T) {
	d := open(t, nil)
	m := d.dial()
	m.talk(postfix + `
C: M <a@sender.example>
S: c
C: A
C: M <b@sender.example>
S: c
C: R <me@example.org>
S: c
C: A
C: M <c@sender.example>
S: c
C: R <me@example.org>
S: c
C: T
S: c
C: L Subject| half a
S: c
C: A
` + message + `
S: i 0 X-Sluice-Id| t4 *
S: a
`)
	var ends []string
	for _, r := range d.journal.Records() {
		ends = append(ends, r.Sender.Local+" "+r.End)
	}
	if got, want := strings.Join(ends, ", "), "b aborted, c aborted, a handed over"; got != want {
		t.Errorf("records: %s; want %s", got, want)
	}
	if got, want := d.last().text, "Subject: hello\r\n\r\ntext\r\n"; got != want {
		t.Errorf("stages saw %q, want %q", got, want)
	}
}

func TestEventsOutOfOrder(t *testing.T) {
	const stray = "S: y 451 4.3.0 no message was begun\n"
	for _, x := range []struct{ name, dialogue string }{
		{"a recipient without a sender", "C: R <me@example.org>\n" + stray},
		{"an end without a beginning", "C: E\n" + stray},
		{"a body without a beginning", "C: B x\n" + stray + "C: E\n" + stray},
		{"DATA without a sender", "C: T\n" + stray},
		{"no recipients", "C: M <>\nS: c\n" + transfer + "S: y 503 5.5.1 no recipients\n"},
		{"a malformed sender", "C: M <\ta@c>\nS: y 501 5.1.7 malformed sender address\n"},
		{"a malformed recipient", "C: M <>\nS: c\nC: R <>\nS: y 501 5.1.3 malformed recipient address\n"},
		{"neither connect nor helo", "C: M <>\nS: c\nC: R <me@example.org>\nS: c\n" + transfer + "S: i 0 X-Sluice-Id| t1 *\nS: a\n"},
		{"no end of header", "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: L A| b\nS: c\nC: E\nS: i 0 *\nS: a\n"},
		{"MAIL after MAIL", "C: M <>\nS: c\nC: R <x@example.org>\nS: c\n" + message + "S: i 0 X-Sluice-Id| t2 *\nS: a\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			open(t, nil).dial().talk("C: O 6 0x1ff 0x100f7f\nS: O 6 0x19 0x100100\n" + x.dialogue)
		})
	}
}

func TestBrokenPackets(t *testing.T) {
	for _, x := range []struct{ name, bytes string }{
		{"no length", "\x00\x00\x00\x00"},
		{"too long", "\x00\x20\x00\x00B"},
		{"an unknown command", "\x00\x00\x00\x01?"},
		{"macros of no stage", "\x00\x00\x00\x01D"},
		{"half a connect", "\x00\x00\x00\x03Cx\x00"},
		{"a connect without a port", "\x00\x00\x00\x05Cx\x004\x01"},
		{"a header without an end", "\x00\x00\x00\x02Lx"},
		{"half a packet", "\x00\x00\x00\x05Cx"},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := open(t, func(c *Config) {
				if x.name == "half a packet" {
					c.Limits.Packet = time.Second
				}
			})
			m := d.dial()
			m.talk("C: O 6 0x1ff 0x100f7f\nS: O 6 0x19 0x100100\n")
			if _, err := m.Write([]byte(x.bytes)); err != nil {
				t.Fatal(err)
			}
			if got := m.hear(); got != "EOF" && !strings.Contains(got, "reset by peer") {
				t.Errorf("heard %q", got)
			}
			// Others are served on.
			d.dial().talk(postfix + message + "S: i 0 *\nS: a\n")
		})
	}
}

func TestLimits(t *testing.T) {
	const rcpt = "C: M <>\nS: c\nC: R <me@example.org>\nS: c\n"
	for _, x := range []struct {
		name     string
		limits   Limits
		dialogue string
	}{
		{"message size", Limits{MessageSize: 30}, rcpt + `
C: T
S: c
C: L Subject| hello
S: c
C: N
S: c
C: B 12345678901234567890\r\n
S: y 552 5.3.4 message too large
C: B 1
S: y 552 5.3.4 message too large
C: E
S: y 552 5.3.4 message too large
`},
		{"header size", Limits{HeaderSize: 30}, rcpt + `
C: L Subject| hello
S: c
C: L X-Long| 1234567890
S: y 552 5.3.4 header section too large
C: N
S: y 552 5.3.4 header section too large
`},
		{"header fields", Limits{HeaderFields: 2}, rcpt + `
C: L A| 1
S: c
C: L B| 2
S: c
C: L C| 3
S: y 552 5.3.4 too many header fields
`},
		{"recipients", Limits{Recipients: 2}, rcpt + `
C: R <you@example.org>
S: c
C: R <them@example.org>
S: y 452 4.5.3 too many recipients
` + transfer + `
S: i 0 X-Sluice-Id| t1 *
S: a
`},
		{"idle", Limits{Idle: time.Second}, "S: EOF\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := open(t, func(c *Config) { c.Limits = x.limits })
			d.dial().talk(strings.TrimSuffix(postfix, "C: A\n") + x.dialogue)
			if x.name == "idle" {
				return
			}
			r := d.journal.Records()
			if len(r) != 1 {
				t.Fatalf("%d records", len(r))
			}
		})
	}
	if got := (Limits{}).withDefaults(); got != DefaultLimits() {
		t.Errorf("zero limits are %+v", got)
	}
}

// An MTA that can goes on without waiting for us. What refuses an event that has no answer is the answer to what follows.
func TestEventsWithoutAnswers(t *testing.T) {
	const (
		quiet = "C: O 6 0x1ff 0x1fffff\nS: O 6 0x19 0x1d7180\nC: C mail.example|4|192.0.2.7\nC: H mail.example\n"
		mail  = quiet + "C: M <a@sender.example>\nC: R <me@example.org>\nS: c\nC: T\n"
		ends  = "C: A\nC: M <>\nC: R <me@example.org>\nS: c\nC: T\nC: L Subject| hello\nC: N\nC: B text\\r\\n\nC: E\nS: i 0 *\nS: a\n"
	)
	for _, x := range []struct {
		name, dialogue string
		records        int
	}{
		{"nothing to refuse", mail + "C: L A| 1\nC: N\nC: B text\\r\\n\nC: E\nS: i 0 *\nS: a\n", 2},
		{"too many fields", mail + "C: L A| 1\nC: L B| 2\nC: L C| 3\nC: L D| 4\nC: N\nC: B x\nC: E\nS: y 552 5.3.4 too many header fields\n", 2},
		{"too large", mail + "C: N\nC: B 0123456789012345678901234567890123456789\nC: B x\nC: E\nS: y 552 5.3.4 message too large\n", 2},
		{"a sender that is no address", quiet + "C: M <\ta@c>\nC: R <me@example.org>\nS: y 501 5.1.7 malformed sender address\n", 1},
		{"no room", quiet + "C: M <>|SIZE=5000\nC: R <me@example.org>\nS: y 452 4.3.1 insufficient system storage, please try again later\n", 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := open(t, func(c *Config) {
				c.Limits = Limits{HeaderFields: 2, MessageSize: 40}
				c.Space = func(size int64) error {
					if size > 1000 {
						return mailstore.ErrFull
					}
					return nil
				}
			})
			d.dial().talk(x.dialogue + ends)
			r := d.journal.Records()
			if len(r) != x.records || r[x.records-1].End != "handed over" {
				t.Fatalf("%d records, want %d: %+v", len(r), x.records, r)
			}
			if got := d.last().Message.Subject(); got != "hello" {
				t.Errorf("the message that was asked about last has the subject %q", got)
			}
		})
	}
	t.Run("mail that did not come by SMTP", func(t *testing.T) {
		open(t, nil).dial().talk(`
C: O 6 0x1ff 0x1fffff
S: O 6 0x19 0x1d7180
C: D C|j|mx.example.org|v|Postfix 3.7.11
C: C localhost|4|127.0.0.1
C: H localhost
C: D M|i|4F3
C: M <\ta@c>
C: R <me@example.org>
S: c
C: N
C: E
S: y 501 5.1.7 malformed sender address
`)
	})
	t.Run("a plan with answers", func(t *testing.T) {
		waits := func(in pipeline.Input) pipeline.Step {
			return pipelinetest.Step("waits", pipelinetest.Stage{Looks: pipeline.Reads{Input: in, Waits: true}})
		}
		for _, x := range []struct {
			what     string
			step     pipeline.Step
			earliest bool
			agreed   string
		}{
			{"asks the world at connect", waits(pipeline.InputClient), false, "0x1d7180"}, // which is under way meanwhile
			{"asks the world about the body", waits(pipeline.InputBody), false, "0x1d7180"},
			{"speaks at once", says("no", pipeline.Content, reject("no")), true, "0x1c0180"},
		} {
			d := open(t, func(c *Config) {
				if x.earliest {
					env := pipelinetest.Env(t)
					p, err := pipeline.NewPlan([]pipeline.Step{x.step}, env, pipeline.Options{SpeakEarliest: true})
					if err != nil {
						t.Fatal(err)
					}
					c.Plan = func() *pipeline.Plan { return p }
				}
			}, x.step)
			d.dial().talk("C: O 6 0x1ff 0x1fffff\nS: O 6 0x19 " + x.agreed + "\n")
		}
	})
}

func TestProgressWhileADecisionTakesLong(t *testing.T) {
	heard := make(chan struct{})
	slow := pipelinetest.Step("slow", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputBody, Waits: true},
		Says: func(ctx context.Context, _ pipeline.View) (pipeline.Result, error) {
			select {
			case <-heard:
			case <-ctx.Done():
			}
			return pipeline.Result{}, ctx.Err()
		},
	})
	d := open(t, func(c *Config) { c.Limits.Progress = time.Millisecond }, slow)
	m := d.dial()
	m.talk(postfix + message + "S: p\nS: p\nS: p\n")
	close(heard)
	for {
		if got := m.hear(); got != "p" {
			if !strings.HasPrefix(got, "i 0 X-Sluice-Id| t1 ") {
				t.Fatalf("heard %q", got)
			}
			break
		}
	}
	m.talk("S: a\n")
}

// Postfix takes a refused recipient of mail that did not come by SMTP for a fault of ours and keeps the mail for ever.
func TestMailFromNoSMTPClientIsRefusedAtItsEnd(t *testing.T) {
	const local = `
C: O 6 0x1ff 0x100f7f
S: O 6 0x19 0x100100
C: D C|j|mx.example.org|v|Postfix 3.7.11
C: C localhost|4|127.0.0.1
S: c
C: H localhost
S: c
C: D M|i|4F3
C: M <>
S: c
`
	bad := says("rules", pipeline.Rcpt, reject("no"), "bad")
	t.Run("all", func(t *testing.T) {
		d := open(t, nil, bad)
		d.dial().talk(local + "C: R <bad@example.org>\nS: c\n" + transfer + "S: y 550 5.7.1 no\n")
		if r, _ := d.journal.Last(); r.End != "refused" {
			t.Errorf("the record ends %q", r.End)
		}
	})
	t.Run("some", func(t *testing.T) {
		d := open(t, nil, bad)
		d.dial().talk(local + "C: R <bad@example.org>\nS: c\nC: R <me@example.org>\nS: c\n" + transfer +
			"S: i 0 X-Sluice-Id| t1 *\nS: - <bad@example.org>\nS: a\n")
		if len(d.held.held) != 1 || d.held.held[0].Recipients[0].Address != "bad@example.org" {
			t.Errorf("held: %+v", d.held.held)
		}
		r, _ := d.journal.Last()
		if x := r.Recipients[0]; x.Disposition != pipeline.Held || x.Held != "q1" || x.Verdict.Action != pipeline.Reject {
			t.Errorf("the record says of the one that refused %+v", x)
		}
	})
	t.Run("Sendmail has its id at MAIL too", func(t *testing.T) {
		d := open(t, nil, bad)
		d.dial().talk(strings.ReplaceAll(local, "Postfix 3.7.11", "8.17.1") + "C: R <bad@example.org>\nS: y 550 5.7.1 no\n")
	})
}

func TestWhoTheClientIs(t *testing.T) {
	for _, x := range []struct {
		name, macros, connect string
		want                  pipeline.Client
	}{
		{"a name that leads back", "", "mail.example|4|192.0.2.7", pipeline.Client{Name: "mail.example"}},
		{"Postfix's word for none", "", "unknown|4|192.0.2.7", pipeline.Client{}},
		{"Sendmail's word for none", "", "[192.0.2.7]|4|192.0.2.7", pipeline.Client{}},
		{"Sendmail: forged", "|{client_resolve}|FORGED", "bank.example|4|192.0.2.7", pipeline.Client{}},
		{"Sendmail: not forged", "|{client_resolve}|OK", "mail.example|4|192.0.2.7", pipeline.Client{Name: "mail.example"}},
		{"IPv6", "", "mail.example|6|2001:db8::1", pipeline.Client{Name: "mail.example", Addr: netip.MustParseAddr("2001:db8::1")}},
		{"IPv4 in IPv6", "", "mail.example|6|::ffff:192.0.2.7", pipeline.Client{Name: "mail.example"}},
		{"trusted", "", "localhost|4|127.0.0.1", pipeline.Client{Name: "localhost", Addr: netip.MustParseAddr("127.0.0.1"), Trusted: true}},
		{"only a macro", "|{client_addr}|192.0.2.7", "mail.example|U", pipeline.Client{Name: "mail.example"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := open(t, nil)
			d.dial().talk("C: O 6 0x1ff 0x100f7f\nS: O 6 0x19 0x100100\nC: D C|j|mx" + x.macros + "\nC: C " + x.connect +
				"\nS: c\n" + message + "S: i 0 *\nS: a\n")
			if !x.want.Addr.IsValid() {
				x.want.Addr = netip.MustParseAddr("192.0.2.7")
			}
			if got := d.last().Client; got != x.want {
				t.Errorf("%+v, want %+v", got, x.want)
			}
		})
	}
	t.Run("a unix socket", func(t *testing.T) {
		d := open(t, nil)
		d.dial().talk("C: O 6 0x1ff 0x100f7f\nS: O 6 0x19 0x100100\nC: C localhost|L|/x\nS: c\n" + message + "S: i 0 *\nS: a\n")
		r, _ := d.journal.Last()
		if r.Client != (pipeline.Client{}) {
			t.Errorf("%+v, want none", r.Client)
		}
	})
}

func TestFieldsThatHoldForOneAloneAreNotAdded(t *testing.T) {
	own := pipelinetest.Step("own", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputRecipient | pipeline.InputHeader},
		Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
			return pipeline.Result{Edits: []pipeline.Edit{{Name: "X-For", Value: v.Rcpt.Address.Local}, {Name: "X-All", Value: "all"}}}, nil
		},
	})
	d := open(t, nil, own)
	d.dial().talk(postfix + "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: R <you@example.org>\nS: c\n" + transfer +
		"S: i 0 X-All| all\nS: i 0 X-Sluice-Id| t1 *\nS: a\n")
}

func TestRespond(t *testing.T) {
	for _, x := range []struct {
		reply pipeline.Reply
		want  string
	}{
		{pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "100% sure, 5%d"}, "y550 5.7.1 100%% sure, 5%%d\x00"},
		{pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "two\r\nlines: 9% \x00é"}, "y550-5.7.1 two\r\n550 5.7.1 lines: 9%%  ?\x00"},
		{pipeline.Reply{Code: 550, Text: "no status"}, "y550 5.0.0 no status\x00"},
		{pipeline.Reply{Code: 451, Enhanced: "5.7.1", Text: "mixed"}, "y451 4.0.0 mixed\x00"},
		{pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "ok"}, "y451 4.3.0 not accepted\x00"},
		{pipeline.Reply{}, "y451 4.3.0 not accepted\x00"},
	} {
		m := respond(&x.reply, false).Response()
		if got := string(m.Code) + string(m.Data); got != x.want {
			t.Errorf("%+v: %q, want %q", x.reply, got, x.want)
		}
	}
	both := pipeline.Reply{Code: 550, Enhanced: "5.7.1", Text: "Nein, danke.\nGruss", UTF8: "Nein, danke.\nGruß"}
	if got := string(respond(&both, true).Response().Data); got != "550-5.7.1 Nein, danke.\r\n550 5.7.1 Gruß\x00" {
		t.Errorf("for a client that has said SMTPUTF8: %q", got)
	}
	if got := respond(nil, false).Response().Code; got != 'c' {
		t.Errorf("no reply: %q", got)
	}
}
