package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"sluice/pipeline"
)

// A handOn is a mail for one recipient on its way to another server, with what its sender asked for.
type handOn struct {
	host   string // who we say we are
	server string
	from   string // as it was written
	to     pipeline.Recipient
	asked  pipeline.Asked
	mail   []byte // with CRLF
}

// send hands the mail to the server by SMTP and returns once the server has taken it. What the sender asked for is
// passed on where the server knows it; lost is what of it is not. A mail that would not be the same without an extension
// that the server lacks is not sent.
func (h *handOn) send(ctx context.Context) (lost []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // nothing else ends a hanging dialogue
	defer stop()
	c := textproto.NewConn(conn)
	defer c.Close() // all is said by then
	if err := heard(c, 220, "its greeting"); err != nil {
		return nil, err
	}
	offers, err := hello(c, h.host)
	if err != nil {
		return nil, err
	}
	mail, rcpt, lost, err := h.commands(offers)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		code int
		line string
	}{{250, mail}, {25, rcpt}, {354, "DATA"}} {
		if err := ask(c, x.code, x.line); err != nil {
			return nil, err
		}
	}
	body := c.DotWriter()
	if _, err := body.Write(h.mail); err != nil {
		return nil, err // without its end the server drops what it got
	}
	if err := body.Close(); err != nil {
		return nil, err
	}
	if err := heard(c, 250, "the mail"); err != nil {
		return nil, err
	}
	_ = ask(c, 221, "QUIT") // the mail is theirs; how the goodbye goes changes nothing
	return lost, nil
}

// hello greets a server and returns the extensions it offers, in capitals, without what stands behind them.
func hello(c *textproto.Conn, host string) (offers map[string]bool, err error) {
	if err := c.PrintfLine("EHLO %s", host); err != nil {
		return nil, err
	}
	_, text, err := c.ReadResponse(250)
	var no *textproto.Error
	if errors.As(err, &no) && no.Code/100 == 5 { // RFC 5321, 3.2: an old one
		return nil, ask(c, 250, "HELO "+host)
	}
	if err != nil {
		return nil, fmt.Errorf("EHLO: %w", err)
	}
	offers = map[string]bool{}
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		offers[strings.ToUpper(word)] = true
	}
	return offers, nil
}

// ask sends a command; an answer that is not code, or does not begin with it, is an error that names the command.
func ask(c *textproto.Conn, code int, line string) error {
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q has a control character", line)
	}
	if err := c.PrintfLine("%s", line); err != nil {
		return err
	}
	return heard(c, code, line)
}

// heard reads the answer to what. It shows another one as the server has written it.
func heard(c *textproto.Conn, code int, what string) error {
	_, _, err := c.ReadResponse(code)
	var no *textproto.Error
	switch {
	case errors.As(err, &no):
		return fmt.Errorf("%s: %d %s", what, no.Code, no.Msg)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// commands returns MAIL and RCPT for a server with these extensions.
func (h *handOn) commands(offers map[string]bool) (mail, rcpt string, lost []string, err error) {
	from, to := h.from, h.to.Address.Raw
	utf8 := offers["SMTPUTF8"] && (h.asked.UTF8 || !isASCII(from+to))
	if !offers["SMTPUTF8"] {
		from, to = inASCII(from), inASCII(to)
		header, _, _ := bytes.Cut(h.mail, []byte("\r\n\r\n"))
		switch {
		case !isASCII(from), !isASCII(to):
			return "", "", nil, errors.New("its addresses need SMTPUTF8, which that server does not offer")
		case h.asked.UTF8 && !isASCII(string(header)):
			return "", "", nil, errors.New("its header needs SMTPUTF8, which that server does not offer")
		}
	}
	body := h.asked.Body
	if !isASCII(string(h.mail)) {
		body = "8BITMIME"
	}
	if body == "8BITMIME" && !offers["8BITMIME"] {
		if !isASCII(string(h.mail)) {
			return "", "", nil, errors.New("it has octets above 127 and needs 8BITMIME, which that server does not offer")
		}
		body = ""
	}
	mail = "MAIL FROM:<" + from + ">"
	if offers["SIZE"] {
		mail += fmt.Sprintf(" SIZE=%d", len(h.mail))
	}
	if body != "" && offers["8BITMIME"] {
		mail += " BODY=" + body
	}
	if utf8 {
		mail += " SMTPUTF8"
	}
	ofMail := append(given("RET", h.asked.Return), given("ENVID", h.asked.EnvelopeID)...)
	orcpt := h.to.ORCPT
	if !utf8 {
		orcpt = inXtext(orcpt)
	}
	ofRcpt := append(given("NOTIFY", h.to.Notify), given("ORCPT", orcpt)...)
	rcpt = "RCPT TO:<" + to + ">"
	if !offers["DSN"] {
		return mail, rcpt, append(ofMail, ofRcpt...), nil
	}
	return strings.Join(append([]string{mail}, ofMail...), " "), strings.Join(append([]string{rcpt}, ofRcpt...), " "), nil, nil
}

// inASCII returns an address with its domain in A-labels, if that is all it takes to write it in ASCII.
func inASCII(address string) string {
	at := strings.LastIndexByte(address, '@')
	if isASCII(address) || !isASCII(address[:at+1]) {
		return address
	}
	domain, err := idna.Lookup.ToASCII(address[at+1:])
	if err != nil {
		return address
	}
	return address[:at+1] + domain
}

// inXtext returns a value of ORCPT as servers without SMTPUTF8 take it (RFC 6533, 3).
func inXtext(orcpt string) string {
	var b strings.Builder
	for _, r := range orcpt {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return b.String()
}
