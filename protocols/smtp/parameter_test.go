package smtp_test

import (
	"strings"
	"testing"

	"sluice/pipeline"
)

func TestParametersOfMAIL(t *testing.T) {
	for _, tt := range []struct{ params, stranger, trusted string }{
		{"", "250 *", "250 *"},
		{" SIZE=1000 BODY=8BITMIME", "250 *", "250 *"},
		{" size=0 body=7bit", "250 *", "250 *"},
		{" SIZE=52428801", "552 5.3.4 a message has at most 52428800 octets", "552 *"},
		{" SIZE", "501 5.5.4 write SIZE=VALUE", "501 *"},
		{" SIZE=", "501 5.5.4 SIZE has no value", "501 *"},
		{" SIZE=many", "501 5.5.4 SIZE is no number", "501 *"},
		{" SIZE=1 SIZE=2", "501 5.5.4 SIZE stands twice", "501 *"},
		{" BODY=BINARYMIME", "555 5.6.1 BINARYMIME is not offered here", "555 *"},
		{" BODY=9BIT", "501 5.5.4 *", "501 *"},
		{" SMTPUTF8", "250 *", "250 *"},
		{" SMTPUTF8=yes", "501 5.5.4 SMTPUTF8 takes no value", "501 *"},
		{" REQUIRETLS", "555 5.7.30 REQUIRETLS is not offered here", "555 5.7.30 *"},
		{" AUTH=<>", "250 *", "250 *"},
		{" AUTH=+ZZ", "501 5.5.4 *", "501 *"},
		{" RET=HDRS ENVID=QQ314159+2B", "555 5.5.4 the parameter RET of MAIL is not offered here", "250 *"},
		{" RET=BODY", "555 *", "501 5.5.4 RET is FULL or HDRS"},
		{" ENVID=a+0Ab", "555 *", "501 5.5.4 *"},
		{" ENVID=" + strings.Repeat("x", 101), "555 *", "501 5.5.4 *"},
		{" BY=100;R", "555 5.5.4 *", "555 5.5.4 *"},
	} {
		t.Run(tt.params, func(t *testing.T) {
			begin := "C: MAIL FROM:<s@client.example>" + tt.params + "\nS: "
			open(t, nil).dial().talk(greeting + begin + tt.stranger + "\n")
			open(t, trust).dial().talk(greeting + begin + tt.trusted + "\n")
		})
	}
}

func TestParametersOfRCPT(t *testing.T) {
	for _, tt := range []struct{ params, reply, original string }{
		{" NOTIFY=NEVER", "250 *", ""},
		{" notify=success,failure,delay", "250 *", ""},
		{" NOTIFY=NEVER,SUCCESS", "501 5.5.4 *", ""},
		{" NOTIFY=SUCCESS,SUCCESS", "501 5.5.4 *", ""},
		{" NOTIFY=", "501 5.5.4 *", ""},
		{" NOTIFY", "501 5.5.4 *", ""},
		{" NOTIFY=MAYBE", "501 5.5.4 *", ""},
		{" ORCPT=rfc822;Bob+2Bx@Example.org", "250 *", "bob+x@example.org"},
		{" ORCPT=x400;C+3Dus", "250 *", ""},
		{" ORCPT=utf-8;b\\x{FC}cher@example.org", "250 *", "bücher@example.org"},
		{" ORCPT=utf-8;b\\x{110000}@example.org", "501 5.5.4 *", ""},
		{" ORCPT=utf-8;b\\x@example.org", "501 5.5.4 *", ""},
		{" ORCPT=utf-8;bücher@example.org", "553 5.6.7 that address needs SMTPUTF8", ""},
		{" ORCPT=rfc822;b+FCcher@example.org", "501 5.5.4 *", ""},
		{" ORCPT=rfc822;a+0D+0Ab@example.org", "501 5.5.4 *", ""},
		{" ORCPT=bob@example.org", "501 5.5.4 write ORCPT=type;address", ""},
		{" ORCPT=rfc822;", "501 5.5.4 *", ""},
		{" ORCPT=rfc822;" + strings.Repeat("x", 500), "501 5.5.4 *", ""},
		{" FRIEND=1", "555 5.5.4 the parameter FRIEND of RCPT is not offered here", ""},
	} {
		t.Run(tt.params, func(t *testing.T) {
			d := open(t, trust)
			c := d.dial()
			c.talk(greeting + "C: MAIL FROM:<s@client.example>\nS: 250 *\nC: RCPT TO:<me@example.org>" + tt.params + "\nS: " + tt.reply + "\n")
			if tt.reply != "250 *" {
				return
			}
			c.talk("C: DATA\nS: 354 *\nC: .\nS: 250 *\n")
			r, _ := d.journal.Last()
			x := r.Recipients[0]
			_, orcpt, _ := strings.Cut(tt.params, " ORCPT=")
			_, notify, _ := strings.Cut(strings.ToUpper(tt.params), " NOTIFY=")
			if x.Original.String() != tt.original || x.ORCPT != orcpt || x.Notify != notify {
				t.Errorf("recorded %+v", x.Recipient)
			}
		})
	}
}

// What the sender asked for is in the record, for whoever hands the mail on.
func TestAskedIsRecorded(t *testing.T) {
	for name, change := range map[string]func(*door){"SMTP": trust, "LMTP": lmtp} {
		t.Run(name, func(t *testing.T) {
			d := open(t, change)
			hello := greeting
			if name == "LMTP" {
				hello = lmtpGreeting
			}
			d.dial().talk(hello + `
				C: MAIL FROM:<ü@client.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb
				S: 250 *
				C: RCPT TO:<me@example.org> NOTIFY=SUCCESS,DELAY
				S: 250 *
				C: DATA
				S: 354 *
				C: .
				S: 250 *
				C: MAIL FROM:<s@client.example>
				S: 250 *
			`)
			r, _ := d.journal.Last()
			if want := (pipeline.Asked{UTF8: true, Body: "8BITMIME", Return: "HDRS", EnvelopeID: "a+2Bb"}); r.Asked != want {
				t.Errorf("recorded %+v, want %+v", r.Asked, want)
			}
			if r.Recipients[0].Notify != "SUCCESS,DELAY" {
				t.Errorf("recorded %+v", r.Recipients[0].Recipient)
			}
		})
	}
}

// RFC 6531: addresses beyond ASCII, in any form of theirs, lead to the account; the trace says how they came.
func TestAddressesBeyondASCII(t *testing.T) {
	for _, tt := range []struct{ name, rcpt, with, delivered string }{
		{"composed", "<ümlaut@example.org>", "UTF8SMTP", "ümlaut@example.org"},
		{"decomposed", "<u\u0308mlaut@example.org>", "UTF8SMTP", "ümlaut@example.org"},
		{"in capitals", "<ÜMLAUT@EXAMPLE.ORG>", "UTF8SMTP", "ümlaut@example.org"},
		{"LMTP", "<u\u0308mlaut@example.org>", "UTF8LMTP", "ümlaut@example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hello, change := greeting, func(*door) {}
			if tt.name == "LMTP" {
				hello, change = lmtpGreeting, lmtp
			}
			d := open(t, change)
			c := d.dial()
			c.talk(hello + "C: MAIL FROM:<sender@client.example>\nS: 250 *\nC: RCPT TO:" + tt.rcpt + "\nS: 553 5.6.7 that address needs SMTPUTF8\nC: RSET\nS: 250 *\n" +
				"C: MAIL FROM:<Grüße@bücher.example>\nS: 553 5.6.7 *\n" +
				"C: MAIL FROM:<Grüße@bücher.example> SMTPUTF8\nS: 250 *\nC: RCPT TO:" + tt.rcpt + "\nS: 250 *\n" +
				"C: DATA\nS: 354 *\nC: Subject: häm\nC:\nC: ü\nC: .\nS: 250 *\n")
			text := d.store.got("me@example.org")[0].text
			for _, want := range []string{
				"Return-Path: <Grüße@bücher.example>\r\n", "Delivered-To: " + tt.delivered + "\r\n", " with " + tt.with + " id", "Subject: häm\r\n\r\nü\r\n",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		})
	}
}
