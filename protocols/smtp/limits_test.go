package smtp_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/protocols/listen"
)

func TestUnknownRecipients(t *testing.T) {
	tests := []struct {
		name   string
		from   string
		change func(*door)
		ends   bool
	}{
		{name: "a stranger", from: "192.0.2.1:25", ends: true},
		{name: "trusted", from: "10.0.0.1:25", change: func(d *door) {
			d.cfg.Trusted = netip.MustParsePrefix("10.0.0.0/8").Contains
		}},
		{name: "LMTP", from: "192.0.2.1:25", change: func(d *door) { d.cfg.LMTP = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, func(d *door) {
				d.from = tt.from
				if tt.change != nil {
					tt.change(d)
				}
			})
			c := d.dial()
			if d.cfg.LMTP {
				c.talk(lmtpGreeting)
			} else {
				c.talk(greeting)
			}
			c.talk("C: MAIL FROM:<s@client.example>\nS: 250 *\n")
			for i := range 9 {
				c.talk(fmt.Sprintf("C: RCPT TO:<nobody%d@example.org>\nS: 550 5.1.1 no such user here\n", i))
			}
			if tt.ends {
				c.talk("C: RCPT TO:<nobody@example.org>\nC: RCPT TO:<me@example.org>\nS: 421 4.7.0 too many unknown recipients\nS: EOF\n")
				return
			}
			c.talk("C: RCPT TO:<nobody@example.org>\nS: 550 *\nC: RCPT TO:<me@example.org>\nS: 250 *\n")
		})
	}
}

func TestMessageSize(t *testing.T) {
	const limit = 100
	small := func(d *door) { d.cfg.Limits.MessageSize = limit }
	tests := []struct{ name, dialogue string }{
		{"announced", `
			C: MAIL FROM:<s@client.example> SIZE=101
			S: 552 5.3.4 a message has at most 100 octets
			C: MAIL FROM:<s@client.example> SIZE=100
			S: 250 *
		`},
		{"DATA of the limit", begunMail + "C: DATA\nS: 354 *\nC: " + strings.Repeat("x", limit-2) + `
			C: .
			S: 250 2.0.0 accepted as id1
		`},
		{"DATA over it", begunMail + "C: DATA\nS: 354 *\nC: " + strings.Repeat("x", limit-1) + `
			C: .
			S: 552 5.3.4 a message has at most 100 octets
			C: NOOP
			S: 250 *
		`},
		{"DATA far over it", begunMail + "C: DATA\nS: 354 *\nC: " + strings.Repeat("x", 1<<20) + `
			C: MAIL FROM:<ceo@bank.example>
			C: .
			S: 552 5.3.4 *
			C: NOOP
			S: 250 *
		`},
		{"BDAT of the limit", begunMail + "R: \"BDAT 40\\r\\n" + strings.Repeat("x", 40) + "BDAT 60 LAST\\r\\n" + strings.Repeat("y", 60) + `"
			S: 250 2.0.0 40 octets received
			S: 250 2.0.0 accepted as id1
		`},
		{"BDAT over it", begunMail + "R: \"BDAT 40\\r\\n" + strings.Repeat("x", 40) + "BDAT 61 LAST\\r\\n" + strings.Repeat("y", 61) + `"
			S: 250 2.0.0 40 octets received
			S: 552 5.3.4 *
			C: NOOP
			S: 250 *
		`},
		{"BDAT far over it", begunMail + "R: \"BDAT 400 LAST\\r\\n" + strings.Repeat("NOOP\\r\\n4", 57) + `x"
			S: 552 5.3.4 *
			C: NOOP
			S: 250 *
		`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, small)
			d.dial().talk(greeting + tt.dialogue)
			want := ""
			if strings.Contains(tt.dialogue, "accepted") {
				want = "me"
			}
			if got := d.store.all(); got != want {
				t.Errorf("delivered %q, want %q", got, want)
			}
			if want == "" && strings.Contains(tt.dialogue, "RCPT") {
				if r, _ := d.journal.Last(); r == nil || !strings.Contains(r.Note, ": 552 5.3.4") {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

const begunMail = `
	C: MAIL FROM:<s@client.example>
	S: 250 *
	C: RCPT TO:<me@example.org>
	S: 250 *
`

func TestEHLONamesTheSizeLimit(t *testing.T) {
	d := open(t, func(d *door) { d.cfg.Limits.MessageSize = 12345; d.cfg.Limits.Recipients = 7 })
	c := d.dial()
	c.talk("S: 220 *\nC: EHLO x\n")
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(line)
		if line[3] == ' ' {
			break
		}
	}
	if s := all.String(); !strings.Contains(s, "250-SIZE 12345\r\n") || !strings.Contains(s, "LIMITS RCPTMAX=7\r\n") {
		t.Errorf("EHLO said\n%s", s)
	}
}

func TestRecipientLimit(t *testing.T) {
	d := open(t, func(d *door) { d.cfg.Limits.Recipients = 2 })
	d.dial().talk(greeting + begunMail + `
		C: RCPT TO:<you@example.org>
		S: 250 *
		C: RCPT TO:<she@example.org>
		S: 452 4.5.3 *
		C: DATA
		S: 354 *
		C: .
		S: 250 *
	`)
	if got := d.store.all(); got != "me you" {
		t.Errorf("delivered %q", got)
	}
}

func TestHops(t *testing.T) {
	for hops, want := range map[int]string{49: "250 2.0.0 accepted as id1", 50: "554 5.4.6 this message goes in circles"} {
		d := open(t, nil)
		d.dial().talk(begun + "C: DATA\nS: 354 *\n" + strings.Repeat("C: Received: from a by b; now\n", hops) + "C: .\nS: " + want + "\n")
		r, _ := d.journal.Last()
		if hops == 50 && (r == nil || !strings.Contains(r.Note, "50 Received fields") || r.End != "refused" || r.Reply.Code != 554 || !r.Recipients[0].ByDoor ||
			d.store.all() != "") {
			t.Errorf("record %+v, delivered %q", r, d.store.all())
		}
	}
	d := open(t, lmtp)
	d.dial().talk(lmtpGreeting + begunMail + "C: DATA\nS: 354 *\n" + strings.Repeat("C: Received: from a by b; now\n", 50) + `
		C: .
		S: 554 5.4.6 <me@example.org> this message goes in circles
	`)
	if r, _ := d.journal.Last(); r == nil || len(r.Recipients) != 1 || r.Recipients[0].Reply.Code != 554 {
		t.Errorf("record %+v", r)
	}
}

func TestHeaderLimits(t *testing.T) {
	for name, lines := range map[string]string{
		"octets": "C: X-Long: " + strings.Repeat("x", 300<<10) + "\n",
		"fields": strings.Repeat("C: A: b\n", 1001),
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, nil)
			d.dial().talk(begun + "C: DATA\nS: 354 *\n" + lines + `
				C:
				C: .
				S: 552 5.3.4 *
				C: NOOP
				S: 250 *
			`)
		})
	}
}

func TestCommandLine(t *testing.T) {
	fits := "NOOP " + strings.Repeat("x", 2048-7)
	open(t, nil).dial().talk(greeting + "C: " + fits + "\nS: 250 *\nC: " + fits + `x
		S: 500 5.5.2 a command is at most 2048 octets long
		S: EOF
	`)
	endless := open(t, nil).dial()
	endless.talk(greeting + "R: \"" + strings.Repeat("x", 100_000) + "\"\nS: 500 5.5.2 *\n")
}

func TestCommandTimeout(t *testing.T) {
	t.Parallel() // it waits
	d := open(t, func(d *door) { d.cfg.Limits.CommandTimeout = 2 * time.Second })
	c := d.dial()
	c.talk(greeting)
	done := make(chan struct{})
	go func() { // one octet a time; ends when the server closes the connection
		defer close(done)
		for {
			if _, err := io.WriteString(c.Conn, "x"); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	c.talk("S: 421 4.4.2 timed out while waiting for a command\n")
	<-done
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel() // it waits
	d := open(t, func(d *door) { d.opts.Limits.ReadTimeout = 2 * time.Second })
	d.dial().talk(greeting + `
		S: 421 4.4.2 timed out while waiting for a command
		S: EOF
	`)
}

func TestCommandErrors(t *testing.T) {
	d := open(t, func(d *door) { d.cfg.Limits.CommandErrors = 3 })
	d.dial().talk(greeting + `
		C: XYZZY
		S: 500 *
		C: DATA
		S: 503 *
		C: MAIL FROM
		S: 501 *
		C: NOOP
		S: 250 *
		C: BDAT 1 x
		S: 501 *
		S: EOF
	`)
	d.dial().talk(greeting + strings.Repeat("C: XYZZY\nS: 500 *\n", 4) + `
		S: 421 4.7.0 too many errors
		S: EOF
	`)
}

func TestConnections(t *testing.T) {
	d := open(t, func(d *door) { d.opts.Limits.Connections = 1 })
	d.dial().talk(greeting)
	d.dial().talk(`
		S: 421 4.7.0 too many connections, please try again later
		S: EOF
	`)
}

func TestConnectionsOfOneAddress(t *testing.T) {
	d := open(t, func(d *door) { d.from = "192.0.2.1:25"; d.opts.Limits = listen.Limits{PerAddress: 2} })
	d.dial().talk(greeting)
	d.dial().talk(greeting)
	d.dial().talk(`
		S: 421 4.7.0 *
		S: EOF
	`)
}
