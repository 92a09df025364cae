package milter

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// How long parameters may be: RFC 3461, 4.2 and 4.4. ENVID is measured as it is written, three octets for each one.
const (
	maxORCPT = 500
	maxENVID = 300
)

// parameters returns those of the MAIL or RCPT at hand, as the client wrote them. The MTA has taken them; one that makes
// no sense is passed over.
func (c *conn) parameters() []string { return c.args[min(1, len(c.args)):] }

// announced returns the size that the client says its message has (RFC 1870, 6.1); 0 where it says none.
func announced(parameters []string) int64 {
	for _, p := range parameters {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "SIZE") {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				return max(n, 0)
			}
		}
	}
	return 0
}

// asked returns what a client asks for with MAIL.
func asked(parameters []string) (a pipeline.Asked) {
	for _, p := range parameters {
		name, value, has := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "SMTPUTF8": // RFC 6531, 3.4
			a.UTF8 = a.UTF8 || !has
		case "BODY": // RFC 6152
			if value = strings.ToUpper(value); value == "7BIT" || value == "8BITMIME" {
				a.Body = value
			}
		case "RET": // RFC 3461, 4.3
			if value = strings.ToUpper(value); value == "FULL" || value == "HDRS" {
				a.Return = value
			}
		case "ENVID": // RFC 3461, 4.4
			if value != "" && len(value) <= maxENVID && !strings.ContainsFunc(value, notPrintable) {
				a.EnvelopeID = value
			}
		}
	}
	return a
}

// describe notes what a client asks for with RCPT.
func describe(r *pipeline.Recipient, parameters []string) {
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "NOTIFY": // RFC 3461, 4.1
			if value = strings.ToUpper(value); isNotify(value) {
				r.Notify = value
			}
		case "ORCPT": // RFC 3461, 4.2
			kind, address, ok := strings.Cut(value, ";")
			if !ok || kind == "" || address == "" || len(value) > maxORCPT || strings.ContainsFunc(value, notInORCPT) {
				continue
			}
			r.ORCPT, r.Original = value, originalRecipient(kind, address)
		}
	}
}

func isNotify(s string) bool {
	words := strings.Split(s, ",")
	if len(words) > 3 || len(words) > 1 && slices.Contains(words, "NEVER") {
		return false
	}
	return !slices.ContainsFunc(words, func(w string) bool {
		return !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, w)
	})
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// notInORCPT: RFC 6533, 3 has characters beyond ASCII where SMTPUTF8 is used.
func notInORCPT(r rune) bool {
	return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError
}

// originalRecipient returns the address of ORCPT, "rfc822;alice+2Bx@example.org" or "utf-8;\x{E9}@example.org". What
// names nobody we could know is the zero Address.
func originalRecipient(kind, address string) mime.Address {
	text := unXtext(address)
	switch strings.ToLower(kind) {
	case "rfc822":
	case "utf-8": // RFC 6533, 3
		text = unUnitext(text)
	default:
		return mime.Address{}
	}
	a, err := mime.ParseAddress(text)
	if err != nil {
		return mime.Address{}
	}
	return a
}

// unXtext decodes RFC 3461, 4: "+" and two hexadecimal digits stand for an octet; small ones too, as Postfix has them.
func unXtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '+' && i+2 < len(s) {
			if x, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(x))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unUnitext decodes \x{E9}, as RFC 6533, 3 has it where SMTPUTF8 is not used.
func unUnitext(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\x{`)
		b.WriteString(before)
		digits, rest, closed := strings.Cut(after, "}")
		if !found {
			return b.String()
		}
		x, err := strconv.ParseUint(digits, 16, 31)
		if !closed || err != nil || !utf8.ValidRune(rune(x)) {
			b.WriteString(`\x{`)
			s = after
			continue
		}
		b.WriteRune(rune(x))
		s = rest
	}
}
