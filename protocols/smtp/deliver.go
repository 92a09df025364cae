package smtp

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"sluice/pipeline"
)

// relayVerb is the command by which `sluice deliver`, before MAIL, says who brought the mail. Only a server that has
// Config.Believe knows it.
const relayVerb = "XDELIVER"

// RelayCommand returns the command that tells a server with Config.Believe who brought the mail to the program that
// delivers it; addr may be the zero Addr, and helo empty. The answer is 250 where that is believed and 550 where it is
// not: then it changes nothing.
func RelayCommand(addr netip.Addr, helo string) string {
	v := url.Values{}
	if addr.IsValid() {
		v.Set("addr", addr.String())
	}
	if helo != "" {
		v.Set("helo", helo)
	}
	return relayVerb + " " + v.Encode()
}

// parseRelay reads what RelayCommand writes behind the verb.
func parseRelay(arg string) (addr netip.Addr, helo string, err error) {
	v, err := url.ParseQuery(arg)
	if err != nil {
		return netip.Addr{}, "", err
	}
	for name, values := range v {
		switch {
		case len(values) != 1:
			return netip.Addr{}, "", errors.New(name + " twice")
		case name == "addr":
			if addr, err = netip.ParseAddr(values[0]); err != nil || addr.Zone() != "" {
				return netip.Addr{}, "", errors.New("no address")
			}
		case name == "helo":
			if helo = values[0]; strings.IndexFunc(helo, isControl) >= 0 {
				return netip.Addr{}, "", errors.New("a control character")
			}
		default:
			return netip.Addr{}, "", errors.New("unknown")
		}
	}
	return addr.Unmap(), helo, nil
}

// relay takes who brought the mail, from a program that may say so. It reports whether the command is known here.
func (w *wire) relay(arg string) bool {
	believe := w.c.s.cfg.Believe
	if believe == nil {
		return false
	}
	addr, helo, err := parseRelay(arg)
	switch {
	case err != nil:
		w.say(501, "5.5.4", "write addr=ADDRESS&helo=NAME")
	case !believe(w.conn):
		w.c.s.cfg.Log.Warn("a program that is not in deliver_users says who brought its mail; it is not believed",
			"door", w.c.s.door, "says", strings.TrimSpace(addr.String()+" "+helo))
		w.say(550, "5.7.0", "you are not believed: see deliver_users")
	case !w.c.relayed(addr, helo):
		w.say(503, "5.5.1", relayVerb+" goes before MAIL")
	default:
		w.say(250, "2.0.0", "believed")
	}
	return true
}

// relayed notes who brought the mail of this connection. It reports whether that can still count.
func (c *conversation) relayed(addr netip.Addr, helo string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tx != nil {
		return false
	}
	c.told = &hop{client: pipeline.Client{Addr: addr, Trusted: c.s.trusted(addr)}, greeting: helo}
	return true
}

// origin returns who brought a message to the program that gives it to us: as that program says, if it may; else as
// the MTAs say in Received. What was said of the greeting alone completes the latter.
func (s session) origin(m *message) hop {
	var h hop
	if s.conn.Trusted() {
		h = origin(m.parsed, s.s.trusted)
	}
	if s.told == nil {
		return h
	}
	if s.told.client.Known() {
		told := *s.told
		told.client = nameOf(s.ctx(), s.s.cfg.Resolver, told.client)
		return told
	}
	h.greeting = s.told.greeting
	return h
}

// door is how records call the door of a server with this configuration.
func (c Config) door() pipeline.Door {
	switch {
	case c.Believe != nil:
		return pipeline.Deliver
	case c.LMTP:
		return pipeline.LMTP
	case c.Submission != nil:
		return pipeline.Submission
	}
	return pipeline.SMTP
}
