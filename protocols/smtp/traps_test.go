package smtp_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
	"sluice/protocols/smtp"
)

const begun = greeting + `
	C: MAIL FROM:<s@client.example>
	S: 250 *
	C: RCPT TO:<me@example.org>
	S: 250 *
`

// Only CRLF.CRLF ends a message (RFC 5321, 4.1.1.4): anything else would let one server's message be another's two. What
// could be taken for an end is refused from strangers; from others it is mended, so that nobody after us can take it for
// one.
func TestEndOfData(t *testing.T) {
	const (
		evil     = "MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<you@example.org>\r\nDATA\r\nevil\r\n"
		smuggled = `MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<you@example.org>\r\nDATA\r\nevil\r\n`
	)
	for _, tt := range []struct{ end, bare, mended string }{ // as Go strings
		{`\n.\n`, "LF", `\r\n.\r\n`},
		{`\n.\r\n`, "LF", `\r\n.\r\n`},
		{`\r\n.\n`, "LF", `\r\n\r\n`}, // the dot that begins a line belongs to SMTP
		{`\r.\r`, "CR", ` . `},
		{`\r.\r\n`, "CR", ` .\r\n`},
		{`\r\n.\r`, "CR", `\r\n `},
		{`\r\n.\rx\n`, "CR", `\r\n x\r\n`},
		{`\n\r.\r\n`, "LF", `\r\n .\r\n`},
		{`\r\r\n.\n`, "CR", ` \r\n\r\n`},
		{`\r\r\n.\r\r\n`, "CR", ` \r\n \r\n`},
		{`\r\n.\n\r\n`, "LF", `\r\n\r\n\r\n`},
		{`\n\n.\n\n`, "LF", `\r\n\r\n.\r\n\r\n`},
		{`\r\n\x00.\r\n`, "", `\r\n\x00.\r\n`},
		{`\r\n.\x00\r\n`, "", `\r\n\x00\r\n`},
		{`\r\n. \r\n`, "", `\r\n \r\n`},
		{`\r\n..\r\n`, "", `\r\n.\r\n`},
	} {
		for _, from := range []string{"a stranger", "a trusted client", "LMTP"} {
			for _, by := range []string{"DATA", "BDAT"} {
				t.Run(tt.end+" from "+from+" by "+by, func(t *testing.T) {
					hello, reply := greeting, "250 2.0.0 accepted as id1"
					d := open(t, func(d *door) {
						switch from {
						case "a trusted client":
							trust(d)
						case "LMTP":
							lmtp(d)
							hello, reply = lmtpGreeting, "250 2.0.0 <me@example.org> accepted as id1"
						}
					})
					if from == "a stranger" && tt.bare != "" {
						reply = "550 5.5.2 bare " + tt.bare + " received: lines end with CR LF (RFC 5321, 2.3.8)"
					}
					mended, err := strconv.Unquote(`"` + tt.mended + `"`)
					if err != nil {
						t.Fatal(err)
					}
					c := d.dial()
					c.talk(hello + begunMail)
					if by == "DATA" {
						c.talk(`C: DATA` + "\nS: 354 *\n" + `R: "Subject: x\r\n\r\nbody` + tt.end + smuggled + `.\r\n"`)
					} else {
						end, err := strconv.Unquote(`"` + tt.end + `"`)
						if err != nil {
							t.Fatal(err)
						}
						text := "Subject: x\r\n\r\nbody" + end + evil
						// Octet by octet over the place in question: a line end may be in two chunks.
						for i := range len(text) {
							if i > 18 && i < 18+len(end)+2 {
								c.talk(fmt.Sprintf("R: %q\nS: 250 *\n", "BDAT 1\r\n"+text[i:i+1]))
							} else if i == 0 {
								c.talk(fmt.Sprintf("R: %q\nS: 250 *\n", "BDAT 19\r\n"+text[:19]))
							}
						}
						rest := text[18+len(end)+2:]
						c.talk(fmt.Sprintf("R: %q", fmt.Sprintf("BDAT %d LAST\r\n%s", len(rest), rest)))
						mended = bdatMended(end)
					}
					if c.talk("S: " + reply + "\n"); strings.HasPrefix(reply, "550") {
						c.talk("S: EOF")
						if d.store.all() != "" {
							t.Errorf("delivered %q", d.store.all())
						}
						if r, _ := d.journal.Last(); r == nil || !strings.Contains(r.Note, "bare "+tt.bare) {
							t.Errorf("record %+v", r)
						}
						return
					}
					c.talk("C: NOOP\nS: 250 *\n")
					if got := d.store.all(); got != "me" {
						t.Fatalf("delivered %q", got)
					}
					if text := d.store.got("me@example.org")[0].text; !strings.HasSuffix(text, "body"+mended+evil) {
						t.Errorf("stored %q, want %q", text, "body"+mended+evil)
					}
				})
			}
		}
	}
}

// bdatMended is what becomes of the octets of a chunk, where a dot is a dot.
func bdatMended(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\x01")
	return strings.NewReplacer("\x01", "\r\n", "\r", " ", "\n", "\r\n").Replace(s)
}

// The setting wins over who it is.
func TestBareNewlinesSetting(t *testing.T) {
	for _, tt := range []struct {
		set    smtp.BareNewlines
		change func(*door)
		reply  string
	}{
		{smtp.Refuse, trust, "550 5.5.2 *"},
		{smtp.Refuse, lmtp, "550 5.5.2 <me@example.org> bare LF received: *"},
		{smtp.Mend, func(*door) {}, "250 *"},
		{smtp.RefuseStrangers, trust, "250 *"},
		{smtp.RefuseStrangers, func(*door) {}, "550 *"},
	} {
		d := open(t, func(d *door) { tt.change(d); d.cfg.Limits.BareNewlines = tt.set })
		hello := greeting
		if d.cfg.LMTP {
			hello = lmtpGreeting
		}
		d.dial().talk(hello + begunMail + "C: DATA\nS: 354 *\n" + `R: "Subject: x\r\n\r\nbody\n\r\n.\r\n"` + "\nS: " + tt.reply + "\n")
	}
	var b smtp.BareNewlines
	if err := b.UnmarshalText([]byte("keep")); err == nil || !strings.Contains(err.Error(), "refuse_strangers") {
		t.Errorf("keep: %v", err)
	}
	if err := b.UnmarshalText([]byte("mend")); err != nil || b != smtp.Mend {
		t.Errorf("mend: %v", err)
	}
}

// A command that ends with LF alone may be what another server took for a part of a message.
func TestCommandsEndWithCRLF(t *testing.T) {
	open(t, nil).dial().talk(greeting + `
		R: "NOOP\n"
		S: 500 5.5.2 bare LF received: commands end with CR LF
		S: EOF
	`)
	open(t, trust).dial().talk(greeting + `
		R: "NOOP\n"
		S: 250 *
		R: "NO\rOP\r\n"
		S: 500 5.5.2 there is a control character in the command
	`)
}

func TestMessageOfNothing(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(begun + `
		C: DATA
		C: .
		S: 354 *
		S: 250 2.0.0 accepted as id1
		C: NOOP
		S: 250 *
	`)
	if d.store.all() != "me" {
		t.Error("not delivered")
	}
}

func TestDots(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(begun + `
		C: DATA
		S: 354 *
		R: "S: x\r\n\r\n..\r\n...a\r\n.b\r\n\r\n.\r\n"
		S: 250 *
	`)
	if text := d.store.got("me@example.org")[0].text; !strings.HasSuffix(text, "\r\n\r\n.\r\n..a\r\nb\r\n\r\n") {
		t.Errorf("stored %q", text)
	}
}

// A read timeout inside a message must not turn the rest of it into commands.
func TestTimeoutInsideMessage(t *testing.T) {
	tests := []struct {
		name, begin string
		change      func(*door)
		reply       string
	}{
		{"DATA", "C: DATA\nS: 354 *\n" + `R: "S: x\r\n\r\nstart\r\n"`, nil, "421 4.4.2 timed out while waiting for the message"},
		{"BDAT", `R: "BDAT 500 LAST\r\nS: x\r\n\r\n"`, nil, "421 4.4.2 timed out while waiting for the message"},
		{"BDAT in pieces", `R: "BDAT 3\r\nS: BDAT 500 LAST\r\nx"` + "\nS: 250 2.0.0 * octets received", nil, "421 4.4.2 timed out while waiting for the message"},
		{"DATA at LMTP", "C: DATA\nS: 354 *\n" + `R: "S: x\r\n\r\nstart\r\n"`, lmtp, "421 4.4.2 timed out while waiting for the message"},
		{"BDAT at LMTP", `R: "BDAT 500 LAST\r\nS: x\r\n\r\n"`, lmtp, "421 4.4.2 timed out while waiting for the message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // they wait
			d := open(t, func(d *door) {
				d.opts.Limits.ReadTimeout = 2 * time.Second
				if tt.change != nil {
					tt.change(d)
				}
			})
			dialogue := begun
			if tt.change != nil {
				dialogue = lmtpGreeting + strings.TrimPrefix(begun, greeting)
			}
			c := d.dial()
			c.talk(dialogue + tt.begin + "\n")
			c.talk("S: " + tt.reply)
			_, _ = io.WriteString(c, "MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<you@example.org>\r\nDATA\r\nevil\r\n.\r\n")
			if b, _ := io.ReadAll(c.r); len(b) != 0 {
				t.Errorf("after the 421 the server said %q", b)
			}
			d.stop()
			if d.store.all() != "" || d.held.held() != "" {
				t.Errorf("delivered %q, held %q", d.store.all(), d.held.held())
			}
			for _, r := range d.journal.Records() {
				if r.Sender.Domain == "bank.example" || r.End == "done" {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

// stop waits until all connections have ended; their clients must have gone.
func (d *door) stop() {
	d.t.Helper()
	_ = d.l.Close()
	select {
	case err := <-d.served:
		d.served <- err
	case <-time.After(time.Minute):
		d.t.Fatal("connections are still open")
	}
}

// A client that vanishes within its message leaves nothing behind. go-smtp takes the end of the connection within the
// last BDAT chunk for the end of the message.
func TestClientVanishes(t *testing.T) {
	for _, begin := range []string{
		"", "C: DATA\nS: 354 *", "C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: half of it", "C: DATA\nS: 354 *\nC: x\n" + `R: ".\r"`,
		"C: BDAT 100", `R: "BDAT 100 LAST\r\nSubject: half of it"`, `R: "BDAT 3\r\nS: "` + "\nS: 250 *",
	} {
		for _, protocol := range []string{"SMTP", "LMTP"} {
			t.Run(protocol+" "+begin, func(t *testing.T) {
				d := open(t, func(d *door) {
					if protocol == "LMTP" {
						lmtp(d)
					}
				})
				c := d.dial()
				if protocol == "LMTP" {
					c.talk(lmtpGreeting + strings.TrimPrefix(begun, greeting) + begin)
				} else {
					c.talk(begun + begin)
				}
				_ = c.Close()
				d.stop()
				if d.store.all() != "" || d.held.held() != "" {
					t.Errorf("delivered %q, held %q", d.store.all(), d.held.held())
				}
				if protocol == "SMTP" {
					if r, _ := d.journal.Last(); r == nil || r.End != "aborted" {
						t.Errorf("record %+v", r)
					}
				}
			})
		}
	}
}

func TestBDAT(t *testing.T) {
	tests := []struct{ name, dialogue, stored string }{
		{"one chunk", `
			R: "BDAT 13 LAST\r\nS: x\r\n\r\n.\r\n\r\n"
			S: 250 2.0.0 accepted as id1
		`, "S: x\r\n\r\n.\r\n\r\n"},
		{"three", `
			R: "BDAT 4\r\nS: xBDAT 6\r\n\r\n\r\nabBDAT 0 LAST\r\nNOOP\r\n"
			S: 250 2.0.0 * octets received
			S: 250 2.0.0 * octets received
			S: 250 2.0.0 accepted as id1
			S: 250 2.0.0 *
		`, "S: x\r\n\r\nab"},
		{"nothing", `
			C: BDAT 0 LAST
			S: 250 2.0.0 accepted as id1
		`, ""},
		{"reset between", `
			R: "BDAT 4\r\nS: x"
			S: 250 2.0.0 * octets received
			C: RSET
			S: 250 *
			C: MAIL FROM:<s@client.example>
			S: 250 *
			C: RCPT TO:<me@example.org>
			S: 250 *
			R: "BDAT 4 LAST\r\nS: y"
			S: 250 2.0.0 accepted as id2
		`, "S: y\r\n"},
		{"DATA between", `
			R: "BDAT 4\r\nS: x"
			S: 250 2.0.0 * octets received
			C: DATA
			S: 503 5.5.1 the message is being sent in chunks
			C: RCPT TO:<you@example.org>
			S: 503 5.5.1 *
			R: "BDAT 0 LAST\r\n"
			S: 250 2.0.0 accepted as id1
		`, "S: x\r\n"},
		{"without recipients", `
			C: RSET
			S: 250 *
			R: "BDAT 24 LAST\r\nMAIL FROM:<a@b.example>\nNOOP\r\n"
			S: 503 5.5.1 MAIL and RCPT first
			S: 250 *
		`, "-"},
		{"no size", `
			C: BDAT
			S: 501 5.5.4 write BDAT size [LAST]
			S: EOF
		`, "-"},
		{"a size that is none", `
			R: "BDAT +4 LAST\r\nNOOP\r\n"
			S: 501 5.5.4 write BDAT size [LAST]
			S: EOF
		`, "-"},
		{"something else than LAST", `
			R: "BDAT 4 FIRST\r\nNOOP\r\n"
			S: 501 5.5.4 write BDAT size [LAST]
			S: EOF
		`, "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, nil)
			d.dial().talk(begun + tt.dialogue)
			got := d.store.got("me@example.org")
			if tt.stored == "-" {
				if len(got) != 0 {
					t.Errorf("stored %q", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d mails", len(got))
			}
			if _, text, _ := strings.Cut(got[0].text, "+0000\r\n"); text != tt.stored {
				t.Errorf("stored %q, want %q", text, tt.stored)
			}
		})
	}
}

// BDAT goes the way of DATA.
func TestVerdictsOfBDAT(t *testing.T) {
	for rcpts, reply := range map[string]string{
		"me": "250 2.0.0 accepted as id1", "reject": "550 5.7.1 no, says reject", "tempfail me": "451 4.7.1 come again",
	} {
		d := open(t, nil)
		c := d.dial()
		c.talk(greeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\n")
		for _, r := range strings.Fields(rcpts) {
			c.talk("C: RCPT TO:<" + r + "@example.org>\nS: 250 *\n")
		}
		c.talk(`R: "BDAT 4\r\nS: xBDAT 0 LAST\r\n"` + "\nS: 250 *\nS: " + reply + "\nC: NOOP\nS: 250 *\n")
	}
}

func TestPanics(t *testing.T) {
	at := func(input pipeline.Input) func(*door) {
		return func(d *door) {
			d.cfg.Plan = nil
			d.steps = []pipeline.Step{pipelinetest.Step("x", pipelinetest.Stage{Looks: pipeline.Reads{Input: input}})}
		}
	}
	t.Run("in the store", func(t *testing.T) {
		d := open(t, func(d *door) { at(pipeline.InputClient)(d); d.cfg.Store = panicking{d.store} })
		d.dial().talk(begun + `
			C: DATA
			S: 354 *
			C: .
			S: 451 4.3.0 temporary failure, please try again later
			C: MAIL FROM:<s@client.example>
			S: 250 *
			C: RCPT TO:<me@example.org>
			S: 250 *
			R: "BDAT 3 LAST\r\nabc"
			S: 451 4.3.0 temporary failure, please try again later
			C: NOOP
			S: 250 *
		`)
		if log := d.log.String(); strings.Count(log, "msg=panic") != 2 || !strings.Contains(log, "disk on fire") {
			t.Errorf("log:\n%s", log)
		}
	})
	t.Run("in the store, at LMTP", func(t *testing.T) {
		d := open(t, func(d *door) { lmtp(d); d.cfg.Store = panicking{d.store} })
		d.dial().talk(lmtpGreeting + strings.TrimPrefix(begun, greeting) + `
			C: RCPT TO:<you@example.org>
			S: 250 *
			C: DATA
			S: 354 *
			C: .
			S: 451 4.3.0 <me@example.org> temporary failure, please try again later
			S: 451 4.3.0 <you@example.org> temporary failure, please try again later
			C: NOOP
			S: 250 *
		`)
	})
}

func TestHostileCommands(t *testing.T) {
	tests := []struct{ name, send, reply string }{
		{"NUL in an address", `R: "RCPT TO:<me\x00@example.org>\r\n"`, "553 5.1.3 there is a control character in the address"},
		{"bare CR in an address", `R: "RCPT TO:<me\r@example.org>\r\n"`, "553 5.1.3 there is a control character in the address"},
		{"our placeholder", `R: "RCPT TO:<r0@\x01>\r\n"`, "553 5.1.3 there is a control character in the address"},
		{"NUL in a command", `R: "NOOP \x00\r\n"`, "500 5.5.2 there is a control character in the command"},
		{"Latin-1", `R: "RCPT TO:<m\xe9@example.org>\r\n"`, "500 5.5.2 the command is not UTF-8"},
		{"no such command", "C: XYZZY", "500 5.5.2 no such command"},
		{"nothing", "C: ", "500 5.5.2 no such command"},
		{"too short", "C: NO", "500 5.5.2 no such command"},
		{"STARTTLS without a certificate", "C: STARTTLS", "502 5.5.1 STARTTLS is not available"},
		{"STARTTLS with more", "C: STARTTLS now", "501 5.5.4 STARTTLS takes no argument"},
		{"AUTH", "C: AUTH PLAIN AAAA", "502 5.5.1 AUTH is not available"},
		{"VRFY", "C: VRFY me", "252 2.5.0 *"},
		{"EXPN", "C: EXPN team", "502 5.5.1 *"},
		{"two addresses", "C: RCPT TO:<me@example.org><you@example.org>", "501 5.1.3 *"},
		{"an address in an address", "C: RCPT TO:<me@example.org<you@example.org>>", "501 5.1.3 *"},
		{"half a quoted string", `C: RCPT TO:<"me@example.org>`, "501 5.1.3 *"},
		{"no TO", "C: RCPT me@example.org", "501 5.5.4 write RCPT TO:<address>"},
		{"size of no number", "C: MAIL FROM:<> SIZE=x", "501 5.5.4 *"},
		{"size of 30 digits", "C: MAIL FROM:<> SIZE=999999999999999999999999999999", "552 5.3.4 a message has at most 52428800 octets"},
		{"a size of 5 GB", "C: MAIL FROM:<> SIZE=5000000000", "552 5.3.4 *"},
		{"a parameter of another server", "C: MAIL FROM:<> XFOO=1", "555 5.5.4 *"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := greeting
			if strings.Contains(tt.send, "RCPT") {
				begin += "C: MAIL FROM:<s@client.example>\nS: 250 *\n"
			}
			open(t, nil).dial().talk(begin + tt.send + "\nS: " + tt.reply + "\nC: NOOP\nS: 250 *\n")
		})
	}
}

func TestSenders(t *testing.T) {
	tests := []struct{ from, peer, reply, kept string }{
		{"<>", "", "250 2.1.0 sender ok", "<>"},
		{"<Bounce+SRS0=HHH=TT@Client.Example>", "", "250 2.1.0 sender ok", "<Bounce+SRS0=HHH=TT@Client.Example>"},
		{`<"a b\"c@d"@client.example>`, "", "250 2.1.0 sender ok", `<"a b\"c@d"@client.example>`},
		{"<@a.example:s@client.example>", "", "250 2.1.0 sender ok", "<s@client.example>"},
		{"<root>", "", "250 2.1.0 sender ok", "<root>"},
		{"<root>", "192.0.2.1:25", "553 5.1.7 the sender's address needs a domain", ""},
		{"<s@>", "", "553 5.1.7 that is no address", ""},
		{"<s@[192.0.2.1]>", "", "250 2.1.0 sender ok", "<s@[192.0.2.1]>"},
	}
	for _, tt := range tests {
		t.Run(tt.from, func(t *testing.T) {
			d := open(t, func(d *door) { d.from = tt.peer })
			c := d.dial()
			c.talk(greeting + "C: MAIL FROM:" + tt.from + "\nS: " + tt.reply + "\n")
			if tt.kept == "" {
				return
			}
			c.talk("C: RCPT TO:<me@example.org>\nS: 250 *\nC: DATA\nS: 354 *\nC: .\nS: 250 *\n")
			if text := d.store.got("me@example.org")[0].text; !strings.HasPrefix(text, "Return-Path: "+tt.kept+"\r\n") {
				t.Errorf("stored\n%s", text)
			}
		})
	}
}

func withTLS(t *testing.T) func(*door) {
	return func(d *door) { d.opts.TLS = certificate(t) }
}

func TestSTARTTLS(t *testing.T) {
	var clients []pipeline.Client
	d := open(t, func(d *door) {
		withTLS(t)(d)
		d.steps = []pipeline.Step{pipelinetest.Step("who", pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputClient}, Says: whom(&clients),
		})}
	})
	const ehlo = `
		C: EHLO client.example
		S: 250-Hello client.example
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-ENHANCEDSTATUSCODES
		S: 250-CHUNKING
	`
	c := d.dial()
	c.talk("S: 220 *\n" + ehlo + `
		S: 250-STARTTLS
		S: 250-SMTPUTF8
		S: 250-SIZE 52428800
		S: 250 LIMITS RCPTMAX=100
		C: MAIL FROM:<forgotten@client.example>
		S: 250 *
		C: RCPT TO:<you@example.org>
		S: 250 *
		C: STARTTLS
		S: 220 2.0.0 ready to start TLS
	`)
	secure := c.upgrade()
	secure.talk(`
		C: MAIL FROM:<s@client.example>
		S: 503 5.5.1 *
	` + ehlo + `
		S: 250-SMTPUTF8
		S: 250-SIZE 52428800
		S: 250 LIMITS RCPTMAX=100
		C: STARTTLS
		S: 502 5.5.1 STARTTLS is not available
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: DATA
		S: 503 5.5.1 *
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
		S: 250 *
		C: QUIT
		S: 221 *
		S: EOF
	`)
	if d.store.all() != "me" {
		t.Errorf("delivered %q", d.store.all())
	}
	if text := d.store.got("me@example.org")[0].text; !strings.Contains(text, "with ESMTPS id") {
		t.Errorf("stored\n%s", text)
	}
	if len(clients) != 2 || clients[0].TLS != "" || clients[1].TLS != "TLSv1.3" {
		t.Errorf("stages were asked about %+v", clients)
	}
	d.stop()
	if rs := d.journal.Records(); len(rs) != 2 || rs[0].Note != "STARTTLS" || rs[1].Client.TLS != "TLSv1.3" {
		t.Errorf("records %+v", rs)
	}
}

// upgrade begins TLS.
func (c *client) upgrade() *client {
	c.t.Helper()
	conn := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return newClient(c.t, conn)
}

func TestSTARTTLSInjection(t *testing.T) {
	d := open(t, withTLS(t))
	d.dial().talk(greeting + `
		R: "STARTTLS\r\nMAIL FROM:<injected@bank.example>\r\n"
		S: 554 5.5.1 nothing may follow STARTTLS before its answer
		S: EOF
	`)
}

func TestSTARTTLSWithoutHandshake(t *testing.T) {
	d := open(t, func(d *door) { withTLS(t)(d); d.opts.Limits.HandshakeTimeout = 50 * time.Millisecond })
	c := d.dial()
	c.talk(greeting + "C: STARTTLS\nS: 220 *\n")
	if b, _ := io.ReadAll(c.r); strings.Contains(string(b), "250") {
		t.Errorf("the server said %q", b)
	}
}

func TestImplicitTLS(t *testing.T) {
	d := open(t, func(d *door) { withTLS(t)(d); d.listen.TLS = listen.Implicit })
	c := d.dial().upgrade()
	c.talk(begun + "C: DATA\nS: 354 *\nC: .\nS: 250 *\n")
	if text := d.store.got("me@example.org")[0].text; !strings.Contains(text, "with SMTPS id") {
		t.Errorf("stored\n%s", text)
	}
}

func TestLongLinesInAMessage(t *testing.T) {
	d := open(t, nil)
	long := strings.Repeat("x", 300_000)
	d.dial().talk(begun + "C: DATA\nS: 354 *\nC: Subject: a\nC:\nC: " + long + "\nC: .\nS: 250 *\n")
	if text := d.store.got("me@example.org")[0].text; !strings.HasSuffix(text, "\r\n"+long+"\r\n") {
		t.Error("the line was changed")
	}
}

func TestALargeMessageInSmallPackets(t *testing.T) {
	d := open(t, nil)
	c := d.dial()
	c.talk(begun + "C: DATA\nS: 354 *\n")
	var want strings.Builder
	for i := range 500 {
		line := fmt.Sprintf("%d %s\r\n", i, strings.Repeat("ü", i))
		want.WriteString(line)
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
	}
	c.talk("C: .\nS: 250 *\n")
	if text := d.store.got("me@example.org")[0].text; !strings.HasSuffix(text, want.String()) {
		t.Error("the message was changed")
	}
}
