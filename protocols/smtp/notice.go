package smtp

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	stdmime "mime"
	"strings"
	"time"

	"sluice/pipeline"
)

// notice is what the owner of an account finds in the inbox when a script of theirs has refused a mail and nobody could be
// told so any more: whoever brought it had our word already, or others were to get it. Its sender may be forged, and hears
// nothing.
func (f *filing) notice(d *pipeline.Decision) io.Reader {
	var b bytes.Buffer
	from := "MAILER-DAEMON@" + f.s.cfg.Hostname
	b.Write(field("Return-Path", "<>"))
	b.Write(field("Delivered-To", f.deliveredTo(d.Recipient)))
	b.Write(field(pipeline.IDField, f.id))
	b.Write(field("From", "Mail Delivery System <"+from+">"))
	b.Write(field("To", "<"+f.deliveredTo(d.Recipient)+">"))
	subject := plain(f.stored.Subject())
	b.Write(field("Subject", stdmime.QEncoding.Encode("utf-8", "Refused by your script: "+cmp.Or(subject, "(no subject)"))))
	b.Write(field("Date", f.received.Format(time.RFC1123Z)))
	b.Write(field("Message-ID", "<"+f.id+".refused@"+f.s.cfg.Hostname+">"))
	b.Write(field("Auto-Submitted", "auto-generated")) // RFC 3834, 5
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	say("A Sieve script of yours refuses this mail:")
	say("")
	say("  From:    %s", plain(cmp.Or(f.tx.from.Raw, "<> (a report)")))
	say("  Subject: %s", subject)
	say("  Date:    %s", f.received.Format(time.RFC1123Z))
	say("  Script:  %s", plain(cmp.Or(d.Verdict.By, d.Step)))
	say("  Reason:  %s", plain(cmp.Or(d.Verdict.Reply.UTF8, d.Verdict.Reply.Text)))
	say("")
	say("Its sender could not be told: the mail had been taken for you by then, and a reply")
	say("might go to somebody who never wrote to you. It is not lost: it is held in quarantine")
	say("as %s. Ask whoever runs this mail server if you want it.", f.id)
	return &b
}

// plain makes s fit for one line of text for people.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if isControl(r) || r == '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:len(strings.ToValidUTF8(s[:min(len(s), 400)], ""))]
}
