package spamd

import (
	"fmt"
	"strings"

	"sluice/pipeline"
)

// trace is what our own server would have written above the mail, had it filed it already: SpamAssassin learns from the
// topmost Received who brought the mail, and from Return-Path the sender. Mail that comes by way of an MTA's queue has
// the MTA's Received above it.
func (s *stage) trace(v pipeline.View) string {
	sender := "Return-Path: <" + word(v.Sender.Raw) + ">\r\n"
	if v.Door != pipeline.SMTP && v.Door != pipeline.Milter || !v.Client.Known() {
		return sender
	}
	addr := v.Client.Addr.Unmap().WithZone("")
	literal := addr.String()
	if addr.Is6() {
		literal = "IPv6:" + literal // RFC 5321, 4.1.3
	}
	name := "unknown"
	if v.Client.Name != "" {
		name = word(v.Client.Name)
	}
	helo := word(v.Greeting)
	if helo == "" {
		helo = "unknown"
	}
	with := "ESMTP" // RFC 3848
	if v.Client.TLS != "" {
		with += "S"
	}
	if v.Client.Login != "" {
		with += "A"
	}
	return sender + fmt.Sprintf("Received: from %s (%s [%s])\r\n\tby %s (Sluice) with %s id %s;\r\n\t%s\r\n",
		helo, name, literal, s.hostname, with, v.ID, v.Received.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// word makes s fit for one place of a header field: whoever greets with a line end or a parenthesis writes no field of
// ours.
func word(s string) string {
	const most = 320
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || strings.ContainsRune("()<>[];", r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), most)], "?"))
}
