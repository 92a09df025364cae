package smtp_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// trustedGreeting is what a trusted client is offered.
const trustedGreeting = `
	C: EHLO mta.example
	S: 250-Hello mta.example
	S: 250-PIPELINING
	S: 250-8BITMIME
	S: 250-ENHANCEDSTATUSCODES
	S: 250-CHUNKING
	S: 250-SMTPUTF8
	S: 250-DSN
	S: 250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT
	S: 250-SIZE 52428800
	S: 250 LIMITS RCPTMAX=100
`

// statedGreeting is what it is offered in the name of another.
var statedGreeting = strings.Replace(trustedGreeting, "\tS: 250-DSN\n", "", 1)

// asking adds a first step that keeps whom it is asked about, with the greeting.
func asking(asked *[]string) func(*door) {
	return func(d *door) {
		trust(d)
		d.steps = append([]pipeline.Step{pipelinetest.Step("who", pipelinetest.Stage{
			Looks: pipeline.Reads{Input: pipeline.InputClient | pipeline.InputGreeting},
			Says: func(_ context.Context, v pipeline.View) (pipeline.Result, error) {
				c := v.Client
				name := c.Name
				if c.NameUnknown != "" {
					name = "?"
				}
				*asked = append(*asked, strings.TrimRight(strings.Join([]string{c.Addr.String(), name, v.Greeting, c.Login}, "|"), "|"))
				return pipeline.Result{}, nil
			},
		})}, d.steps...)
	}
}

func TestXCLIENT(t *testing.T) {
	const again = "S: 220 mx.example.org ESMTP Service Ready\n"
	tests := []struct{ name, say, asked string }{
		{"address and name", "C: XCLIENT ADDR=192.0.2.7 NAME=Client.Example\n" + again, "192.0.2.7|client.example|c.example"},
		{"in small letters, in xtext", "C: xclient addr=192.0.2.7 name=client+2eexample\n" + again, "192.0.2.7|client.example|c.example"},
		{"IPv6", "C: XCLIENT ADDR=IPV6:2001:db8::7 NAME=[UNAVAILABLE]\n" + again, "2001:db8::7||c.example"},
		{"an IPv4 address mapped", "C: XCLIENT ADDR=IPV6:::ffff:192.0.2.7 NAME=[UNAVAILABLE]\n" + again, "192.0.2.7||c.example"},
		{"no name", "C: XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7\n" + again, "192.0.2.7||c.example"},
		{"a name not known for now", "C: XCLIENT NAME=[TEMPUNAVAIL] ADDR=192.0.2.7\n" + again, "192.0.2.7|?|c.example"},
		{"the name is looked up", "C: XCLIENT ADDR=198.51.100.9\n" + again, "198.51.100.9|told.client.example|c.example"},
		{"a new address has a new name", "C: XCLIENT ADDR=192.0.2.7 NAME=client.example\n" + again +
			"C: XCLIENT ADDR=198.51.100.9\n" + again, "198.51.100.9|told.client.example|c.example"},
		{"piece by piece", "C: XCLIENT ADDR=192.0.2.7 NAME=client.example\n" + again + "C: XCLIENT LOGIN=me@example.org\n" + again,
			"192.0.2.7|client.example|c.example|me@example.org"},
		{"a login is taken back", "C: XCLIENT ADDR=192.0.2.7 NAME=c.example LOGIN=me\n" + again + "C: XCLIENT LOGIN=[UNAVAILABLE]\n" + again,
			"192.0.2.7|c.example|c.example"},
		{"all of it", "C: XCLIENT NAME=c.example ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=h.example LOGIN=m+C3+BC DESTADDR=192.0.2.1 DESTPORT=25\n" + again,
			"192.0.2.7|c.example|c.example|mü"},
		{"not known at all", "C: XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]\n" + again,
			"invalid IP||c.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			d := open(t, func(d *door) { asking(&asked)(d); d.cfg.Resolver = names{} })
			c := d.dial()
			c.talk("S: 220 *\n" + trustedGreeting + tt.say)
			c.talk("C: MAIL FROM:<s@client.example>\n")
			if !strings.Contains(tt.say, "HELO=h") {
				c.talk("S: 503 5.5.1 *\n") // the session starts over
			} else {
				c.talk("S: 250 *\nC: RSET\nS: 250 *\n")
			}
			asked = nil
			c.talk(strings.Replace(statedGreeting, "mta.example", "c.example", 2) + begunMail + "C: DATA\nS: 354 *\nC: Subject: x\nC:\nC: .\nS: 250 *\nC: NOOP\nS: 250 *\n")
			if tt.asked != "invalid IP||c.example" && (len(asked) != 1 || asked[0] != tt.asked) {
				t.Errorf("asked about %q, want %q", asked, tt.asked)
			}
			r, _ := d.journal.Last()
			if r.Client.Trusted || r.Client.Addr.IsLoopback() || !r.Client.Known() && tt.asked != "invalid IP||c.example" {
				t.Errorf("recorded %+v", r.Client)
			}
			text := d.store.got("me@example.org")[0].text
			if r.Client.Known() == strings.Contains(text, "from c.example by mx") || strings.Contains(text, "127.0.0.1") {
				t.Errorf("the trace field:\n%s", text)
			}
			if r.Client.Login != "" && !strings.Contains(text, "with ESMTPA") {
				t.Errorf("the trace field:\n%s", text)
			}
		})
	}
}

func TestXCLIENTRefused(t *testing.T) {
	for _, arg := range []string{
		"", "ADDR", "ADDR=", "ADDR=300.0.2.7", "ADDR=client.example", "ADDR=fe80::1%eth0", "ADDR=IPV6:192.0.2.7", "ADDR=[192.0.2.7]",
		"PORT=70000", "PORT=x", "PROTO=LMTP", "FRIEND=yes", "ADDR=192.0.2.7 ADDR=192.0.2.8", "NAME=a+0D+0Ab", "NAME=a+2", "NAME=a+XY",
		"NAME=a+20b", "NAME=[x]", "NAME=a+40b", "LOGIN=a+00", "LOGIN=+FF", "HELO=+0A", "DESTADDR=here", "ADDR=192.0.2.7 NAME",
	} {
		t.Run(arg, func(t *testing.T) {
			var asked []string
			d := open(t, asking(&asked))
			d.dial().talk("S: 220 *\n" + trustedGreeting + "C: XCLIENT " + arg + "\nS: 501 5.5.4 *\n" + begunMail)
			if len(asked) != 1 || !strings.HasPrefix(asked[0], "127.0.0.1|") {
				t.Errorf("asked about %q", asked) // nothing of it counts
			}
		})
	}
}

// A stranger is not offered XCLIENT, and not believed.
func TestXCLIENTOfAStranger(t *testing.T) {
	d := open(t, nil)
	d.dial().talk(greeting + `
		C: XCLIENT ADDR=192.0.2.7 LOGIN=root
		S: 550 5.7.0 you may not say who your client is: your address is not a trusted one
		C: MAIL FROM:<s@client.example>
		S: 250 *
	`)
}

func TestXCLIENTWithinAMail(t *testing.T) {
	d := open(t, trust)
	d.dial().talk("S: 220 *\n" + trustedGreeting + `
		C: MAIL FROM:<s@client.example>
		S: 250 *
		C: XCLIENT ADDR=192.0.2.7
		S: 503 5.5.1 XCLIENT does not go into a mail transaction
		C: RCPT TO:<me@example.org>
		S: 250 *
		C: DATA
		S: 354 *
		C: .
		S: 250 *
		C: XCLIENT ADDR=192.0.2.7
		S: 220 mx.example.org ESMTP Service Ready
	`)
}

// The peer's own address allows XCLIENT; whom it names has no rights of the peer's.
func TestXCLIENTLosesTrust(t *testing.T) {
	d := open(t, func(d *door) { trust(d); d.cfg.Limits.UnknownRecipients = 2 })
	d.dial().talk("S: 220 *\n" + trustedGreeting + `
		C: XCLIENT ADDR=192.0.2.7 NAME=client.example
		S: 220 *
		C: EHLO client.example
		S: 250-Hello client.example
		S: 250-PIPELINING
		S: 250-8BITMIME
		S: 250-ENHANCEDSTATUSCODES
		S: 250-CHUNKING
		S: 250-SMTPUTF8
		S: 250-XCLIENT *
		S: 250-SIZE *
		S: 250 LIMITS *
		C: MAIL FROM:<root>
		S: 553 5.1.7 the sender's address needs a domain
		C: MAIL FROM:<a@b.example> RET=FULL
		S: 555 5.5.4 *
		C: MAIL FROM:<a@b.example>
		S: 250 *
		C: RCPT TO:<nobody@example.org>
		S: 550 5.1.1 *
		C: RCPT TO:<nobody2@example.org>
		S: 421 4.7.0 too many unknown recipients
		S: EOF
	`)
	// It has them if its own address is a trusted one.
	d = open(t, func(d *door) {
		d.cfg.Trusted = func(a netip.Addr) bool { return a.IsLoopback() || a.String() == "192.0.2.9" }
	})
	d.dial().talk("S: 220 *\n" + trustedGreeting + "C: XCLIENT ADDR=192.0.2.9\nS: 220 *\n" + trustedGreeting + "C: MAIL FROM:<root>\nS: 250 *\n")
}

// Commands may follow in one packet; a greeting that was stated is as good as one that was said.
func TestXCLIENTInAGroup(t *testing.T) {
	var asked []string
	d := open(t, asking(&asked))
	d.dial().talk("S: 220 *\n" + trustedGreeting + `
		C: XCLIENT ADDR=192.0.2.7 NAME=client.example HELO=stated.example PROTO=SMTP
		C: MAIL FROM:<s@client.example>
		C: RCPT TO:<me@example.org>
		C: DATA
		S: 220 mx.example.org ESMTP Service Ready
		S: 250 2.1.0 sender ok
		S: 250 2.1.5 recipient ok
		S: 354 *
		C: Subject: x
		C:
		C: .
		S: 250 2.0.0 accepted as id1
		C: MAIL FROM:<s@client.example>
		S: 250 2.1.0 sender ok
		C: QUIT
		S: 221 *
		S: EOF
	`)
	if len(asked) == 0 || asked[len(asked)-1] != "192.0.2.7|client.example|stated.example" {
		t.Errorf("asked about %q", asked)
	}
	if text := d.store.got("me@example.org")[0].text; !strings.Contains(text, "Received: from stated.example ([192.0.2.7]) by mx.example.org with SMTP id") {
		t.Errorf("stored\n%s", text)
	}
}

// At LMTP the client stands in Received.
func TestXCLIENTAtLMTP(t *testing.T) {
	open(t, lmtp).dial().talk(lmtpGreeting + "C: XCLIENT ADDR=192.0.2.7\nS: 500 5.5.2 no such command\n")
}

// With TLS or without, the session starts over where it is.
func TestXCLIENTAndTLS(t *testing.T) {
	var asked []string
	d := open(t, func(d *door) { asking(&asked)(d); d.opts.TLS = certificate(t) })
	c := d.dial()
	const offer = "C: EHLO x\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-STARTTLS\nS: 250-*\nS: 250-DSN\nS: 250-XCLIENT *\nS: 250-*\nS: 250 *\n"
	c.talk("S: 220 *\n" + offer + "C: XCLIENT ADDR=127.0.0.9\nS: 220 *\n" + offer)
	c.talk("C: STARTTLS\nS: 220 *\n")
	c = c.upgrade()
	offered := strings.Replace(offer, "S: 250-STARTTLS\n", "", 1)
	c.talk(offered + "C: XCLIENT ADDR=192.0.2.7\nS: 220 *\n" + strings.Replace(offered, "S: 250-DSN\n", "", 1) + begunMail + "C: DATA\nS: 354 *\nC: .\nS: 250 *\n")
	if text := d.store.got("me@example.org")[0].text; !strings.Contains(text, "([192.0.2.7]) by mx.example.org with ESMTPS") {
		t.Errorf("stored\n%s", text)
	}
	if asked[len(asked)-1] != "192.0.2.7||x" && asked[len(asked)-1] != "192.0.2.7|?|x" {
		t.Errorf("asked about %q", asked)
	}
}
