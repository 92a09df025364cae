package smtp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// parameters are what stands behind the address in MAIL or RCPT. Those of delivery status notifications (RFC 3461) are
// read and kept for whoever hands the mail on.
type parameters struct {
	size     int64 // of MAIL; 0: not said
	asked    pipeline.Asked
	orcpt    string // of RCPT
	original pipeline.Address
	notify   string
}

// How long parameters may be: RFC 3461, 4.2 and 4.4.
const (
	maxORCPT = 500
	maxENVID = 100
)

// parameters reads the parameters of MAIL or RCPT. A reply refuses the command.
func (w *wire) parameters(verb, text string) (p parameters, no *pipeline.Reply) {
	var seen []string
	for _, f := range strings.Fields(text) {
		name, value, has := strings.Cut(f, "=")
		name = strings.ToUpper(name)
		if slices.Contains(seen, name) {
			return p, malformed(name + " stands twice")
		}
		seen = append(seen, name)
		if has && value == "" {
			return p, malformed(name + " has no value")
		}
		if !has && value == "" && name != "SMTPUTF8" && name != "REQUIRETLS" && known(verb, name) {
			return p, malformed("write " + name + "=VALUE")
		}
		switch verb {
		case "MAIL":
			no = w.mailParameter(&p, name, value)
		default:
			no = w.rcptParameter(&p, name, value)
		}
		if no != nil {
			return p, no
		}
	}
	return p, nil
}

func known(verb, name string) bool {
	if verb == "MAIL" {
		return slices.Contains([]string{"SIZE", "BODY", "RET", "ENVID", "AUTH"}, name)
	}
	return name == "NOTIFY" || name == "ORCPT"
}

func malformed(text string) *pipeline.Reply {
	return &pipeline.Reply{Code: 501, Enhanced: "5.5.4", Text: text}
}

// unknown: RFC 5321, 4.1.1.11.
func unknown(verb, name string) *pipeline.Reply {
	return &pipeline.Reply{Code: 555, Enhanced: "5.5.4", Text: "the parameter " + name + " of " + verb + " is not offered here"}
}

func (w *wire) mailParameter(p *parameters, name, value string) *pipeline.Reply {
	dsn := w.c.offersDSN()
	switch {
	case name == "SIZE": // RFC 1870
		if strings.Trim(value, "0123456789") != "" {
			return malformed("SIZE is no number")
		}
		size, err := strconv.ParseInt(value, 10, 64)
		if most := w.c.s.cfg.Limits.MessageSize; err != nil || size > most {
			return &pipeline.Reply{Code: 552, Enhanced: "5.3.4", Text: fmt.Sprintf("a message has at most %d octets", most)}
		}
		p.size = size
	case name == "BODY": // RFC 6152
		switch p.asked.Body = strings.ToUpper(value); p.asked.Body {
		case "7BIT", "8BITMIME":
		case "BINARYMIME":
			return &pipeline.Reply{Code: 555, Enhanced: "5.6.1", Text: "BINARYMIME is not offered here"}
		default:
			return malformed("BODY is 7BIT or 8BITMIME")
		}
	case name == "SMTPUTF8": // RFC 6531, 3.4
		if value != "" {
			return malformed("SMTPUTF8 takes no value")
		}
		p.asked.UTF8 = true
	case name == "REQUIRETLS":
		// RFC 8689: whoever takes it promises that the mail goes on by authenticated TLS only.
		return &pipeline.Reply{Code: 555, Enhanced: "5.7.30", Text: "REQUIRETLS is not offered here"}
	case name == "RET" && dsn:
		if p.asked.Return = strings.ToUpper(value); p.asked.Return != "FULL" && p.asked.Return != "HDRS" {
			return malformed("RET is FULL or HDRS")
		}
	case name == "ENVID" && dsn:
		if text, err := decodeXtext(value); err != nil || len(text) > maxENVID || !printable(text) {
			return malformed(fmt.Sprintf("ENVID is xtext of at most %d printable characters", maxENVID))
		}
		p.asked.EnvelopeID = value
	case name == "AUTH": // RFC 4954, 5: whom our peer has authenticated; it says nothing to us
		if _, err := decodeXtext(value); err != nil {
			return malformed("AUTH is no xtext")
		}
	default:
		return unknown("MAIL", name)
	}
	return nil
}

func (w *wire) rcptParameter(p *parameters, name, value string) *pipeline.Reply {
	switch {
	case !w.c.offersDSN():
		return unknown("RCPT", name)
	case name == "NOTIFY":
		p.notify = strings.ToUpper(value)
		var seen []string
		for word := range strings.SplitSeq(p.notify, ",") {
			if !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, word) || slices.Contains(seen, word) {
				return malformed("NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
			}
			seen = append(seen, word)
		}
		if slices.Contains(seen, "NEVER") && len(seen) > 1 {
			return malformed("NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
		}
	case name == "ORCPT":
		kind, address, ok := strings.Cut(value, ";")
		if !ok || !isAtom(kind) || address == "" || len(value) > maxORCPT {
			return malformed("write ORCPT=type;address")
		}
		text, err := decodeORCPT(kind, address)
		switch {
		case err != nil || !ascii(text) && !strings.EqualFold(kind, "utf-8") || strings.ContainsFunc(text, isControl):
			return malformed("the address of ORCPT is no xtext")
		case !ascii(value) && !w.c.utf8:
			return &pipeline.Reply{Code: 553, Enhanced: "5.6.7", Text: "that address needs SMTPUTF8"}
		}
		p.orcpt = value
		if strings.EqualFold(kind, "rfc822") || strings.EqualFold(kind, "utf-8") {
			if a, err := mime.ParseAddress(text); err == nil { // else it names nobody we could know
				p.original = a
			}
		}
	default:
		return unknown("RCPT", name)
	}
	return nil
}

// offersDSN reports whether the client may use the parameters of RFC 3461. We make no notifications, so an MTA of
// strangers does better to tell its user itself that the mail went where there are none (RFC 3461, 5.2.2). An MTA of
// ours says whom the mail was for before it expanded an alias, and what it asks for is kept for whoever hands it on.
// At a submission door it goes into our own queue, which makes them.
func (c *conversation) offersDSN() bool {
	return c.s.cfg.LMTP || c.s.cfg.Submission != nil || c.trusted()
}

// isAtom: RFC 3461, 4.2, addr-type.
func isAtom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\".[]`, r)
	})
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

var errXtext = errors.New("no xtext")

// decodeXtext: RFC 3461, 4. "+" begins two hexadecimal digits; small ones are taken too, as Postfix does.
func decodeXtext(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c == '=' || c == 0x7f:
			return "", errXtext
		case c != '+':
			b.WriteByte(c)
		case i+2 >= len(s):
			return "", errXtext
		default:
			x, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errXtext
			}
			b.Write(x)
			i += 2
		}
	}
	return b.String(), nil
}

// decodeORCPT returns the address of ORCPT as text. RFC 6533, 3: of type utf-8 it has \x{20AC} for some characters, and
// where SMTPUTF8 is used the others as they are.
func decodeORCPT(kind, address string) (string, error) {
	if !strings.EqualFold(kind, "utf-8") {
		return decodeXtext(address)
	}
	var b strings.Builder
	for rest := address; rest != ""; {
		before, after, found := strings.Cut(rest, `\x{`)
		text, err := decodeXtext(before)
		if err != nil || strings.Contains(before, `\`) {
			return "", errXtext
		}
		b.WriteString(text)
		if !found {
			break
		}
		digits, next, ok := strings.Cut(after, "}")
		x, err := strconv.ParseUint(digits, 16, 32)
		if !ok || err != nil || x > utf8.MaxRune || !utf8.ValidRune(rune(x)) {
			return "", errXtext
		}
		b.WriteRune(rune(x))
		rest = next
	}
	return b.String(), nil
}
