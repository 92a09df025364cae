package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// xclientAttributes are what XCLIENT may state, as Postfix names it (XCLIENT_README).
const xclientAttributes = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"

// A stated client is whom a trusted peer says it speaks for.
type stated struct {
	client pipeline.Client
	named  bool   // NAME was among what it said: the DNS is not asked
	helo   string // and the protocol by which that client greeted it
	esmtp  bool
}

// xclient takes a command of a trusted peer that says who its client is. As with Postfix it is the peer's own address
// that allows it, whatever was said before; the session then starts over with our greeting, and what the peer states
// replaces what it has stated before, attribute by attribute. The client it states is trusted only if its address is.
func (w *wire) xclient(arg string) {
	switch {
	case w.c.s.cfg.LMTP:
		w.wrong(500, "5.5.2", "no such command")
		return
	case !w.c.mayState():
		w.say(550, "5.7.0", "you may not say who your client is: your address is not a trusted one")
		return
	case w.c.midst():
		w.say(503, "5.5.1", "XCLIENT does not go into a mail transaction")
		return
	}
	x, err := w.c.restate(arg)
	if err != nil {
		w.say(501, "5.5.4", err.Error())
		return
	}
	w.c.state(x)
	next := newWire(w.c)
	next.r, next.errors = w.r, w.errors // commands may follow in the same packet
	w.detached.Store(true)
	w.c.goOn(next)
}

// mayState reports whether the peer may say who its client is. At LMTP that stands in Received.
func (c *conversation) mayState() bool { return c.conn.Trusted() && !c.s.cfg.LMTP }

// midst reports whether a transaction is under way.
func (c *conversation) midst() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tx != nil
}

// state makes a stated client the one of this connection, from the next greeting on.
func (c *conversation) state(x *stated) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset("XCLIENT")
	c.stated, c.greeting, c.connected, c.login = x, "", false, ""
	c.named, c.lookedUp = x.client, x.named
}

// restate returns what is known of the client after an XCLIENT command.
func (c *conversation) restate(arg string) (*stated, error) {
	x := &stated{client: pipeline.Client{Addr: c.conn.Peer(), Trusted: c.conn.Trusted()}, esmtp: true}
	if c.stated != nil {
		was := *c.stated
		x = &was
	}
	fields := strings.Fields(arg)
	if len(fields) == 0 {
		return nil, errors.New("write XCLIENT attribute=value, where attribute is one of " + xclientAttributes)
	}
	var seen []string
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		name = strings.ToUpper(name)
		if !ok || !slices.Contains(strings.Fields(xclientAttributes), name) {
			return nil, errors.New("write XCLIENT attribute=value, where attribute is one of " + xclientAttributes)
		}
		if slices.Contains(seen, name) {
			return nil, errors.New(name + " stands twice")
		}
		seen = append(seen, name)
		text, err := decodeXtext(value)
		if err != nil || text == "" || strings.ContainsFunc(text, isControl) || strings.ToValidUTF8(text, "") != text {
			return nil, errors.New(name + " has no value in xtext")
		}
		if err := x.set(name, text, c.s.trusted); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if slices.Contains(seen, "ADDR") && !slices.Contains(seen, "NAME") { // else a new address would have an old name
		x.client.Name, x.client.NameUnknown, x.named = "", "", false
	}
	return x, nil
}

// What stands for a value that is not known, for good or for now.
const (
	unavailable = "[UNAVAILABLE]"
	tempUnavail = "[TEMPUNAVAIL]"
)

func (x *stated) set(name, value string, trusted func(netip.Addr) bool) error {
	missing := strings.EqualFold(value, unavailable) || strings.EqualFold(value, tempUnavail)
	switch name {
	case "NAME":
		return x.setName(value)
	case "ADDR":
		x.client.Addr, x.client.Trusted = netip.Addr{}, false
		if missing {
			return nil
		}
		a, err := parseXclientAddr(value)
		if err != nil {
			return err
		}
		x.client.Addr, x.client.Trusted = a, trusted(a)
	case "DESTADDR":
		if _, err := parseXclientAddr(value); err != nil && !missing {
			return err
		}
	case "PORT", "DESTPORT":
		if _, err := strconv.ParseUint(value, 10, 16); err != nil && !missing {
			return errors.New("not a port")
		}
	case "PROTO":
		if !strings.EqualFold(value, "SMTP") && !strings.EqualFold(value, "ESMTP") {
			return errors.New("neither SMTP nor ESMTP")
		}
		x.esmtp = strings.EqualFold(value, "ESMTP")
	case "HELO":
		if x.helo = value; missing {
			x.helo = ""
		}
	case "LOGIN":
		if x.client.Login = value; missing {
			x.client.Login = ""
		}
	}
	return nil
}

func (x *stated) setName(value string) error {
	x.client.Name, x.client.NameUnknown, x.named = "", "", true
	switch {
	case strings.EqualFold(value, unavailable):
	case strings.EqualFold(value, tempUnavail):
		x.client.NameUnknown = "the MTA before us could not look it up for now"
	default:
		a, err := mime.ParseAddress("postmaster@" + value)
		if err != nil || strings.HasPrefix(value, "[") || strings.Contains(value, "@") {
			return errors.New("not a host's name")
		}
		x.client.Name = a.Domain
	}
	return nil
}

// parseXclientAddr reads an address as XCLIENT writes it: IPv6 ones with "IPV6:" before them.
func parseXclientAddr(value string) (netip.Addr, error) {
	v6, prefixed := cutFold(value, "IPV6:")
	a, err := netip.ParseAddr(v6)
	if err != nil || a.Zone() != "" || prefixed && a.Is4() {
		return netip.Addr{}, errors.New("not an address: write 192.0.2.1, IPV6:2001:db8::1 or " + unavailable)
	}
	return a.Unmap(), nil
}

// trusted reports whether the word of who brings the mail counts: of the client, where the peer has said that it is
// somebody else.
func (c *conversation) trusted() bool {
	if c.stated != nil {
		return c.stated.client.Trusted
	}
	return c.conn.Trusted()
}

// greeted greets in the name of a stated client whose peer has told its greeting and goes on with MAIL at once. It
// returns what go-smtp is to hear before MAIL, and whether to go on.
func (w *wire) greeted() (before string, ok bool) {
	x := w.c.stated
	if x == nil || x.helo == "" || w.c.greeting != "" {
		return "", true
	}
	verb := "HELO"
	if x.esmtp {
		verb = "EHLO"
	}
	if no := w.c.hello(verb, x.helo); no != nil {
		w.say(no.Code, no.Enhanced, no.Text)
		return "", false
	}
	w.swallow++
	return "HELO " + word(x.helo) + "\r\n", true
}
