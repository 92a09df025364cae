package imap

import (
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"

	goimap "github.com/emersion/go-imap/v2"

	"sluice/pipeline/mime"
)

// maxAddresses bounds the addresses of one field in an ENVELOPE.
const maxAddresses = 5000

// envelope returns what FETCH ENVELOPE shows of a message. What can not be understood is left out or shown as it is; one
// odd address costs none of the others.
func (p *part) envelope() *goimap.Envelope {
	id := ""
	if ids := messageIDs(p.field("Message-ID")); len(ids) > 0 {
		id = ids[0]
	}
	list := func(name string) []goimap.Address { return parseAddresses(p.field(name)) }
	return &goimap.Envelope{
		Date:      p.date(),
		Subject:   encodable(p.field("Subject")),
		From:      list("From"),
		Sender:    list("Sender"),
		ReplyTo:   list("Reply-To"),
		To:        list("To"),
		Cc:        list("Cc"),
		Bcc:       list("Bcc"),
		InReplyTo: messageIDs(p.field("In-Reply-To")),
		MessageID: id,
	}
}

// encodable returns a text that the library can show: ASCII, encoded words included, it leaves alone, and anything else
// it makes encoded words of, which it calls UTF-8 whatever it is. So octets of no declared charset become UTF-8 here, and
// the encoded words beside them text.
func encodable(s string) string {
	if strings.IndexFunc(s, func(c rune) bool { return c >= utf8.RuneSelf }) < 0 {
		return s
	}
	return mime.Field{Raw: []byte("X: " + s)}.Text()
}

// date returns the Date field; the zero Time if there is none that can be understood.
func (p *part) date() time.Time {
	s := p.field("Date")
	if t, err := mail.ParseDate(s); err == nil {
		return t
	}
	s = strings.Join(strings.Fields(stripComments(s)), " ")
	for _, layout := range []string{
		"Mon, 2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05 MST", "2 Jan 2006 15:04:05 MST",
		"Mon, 2 Jan 2006 15:04:05", "2 Jan 2006 15:04:05", "Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 MST 2006",
		"Mon, 2 Jan 06 15:04:05 -0700", time.RFC3339,
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// messageIDs returns the message ids of a field without their angle brackets.
func messageIDs(s string) []string {
	var out []string
	for rest := s; len(out) < maxAddresses; {
		_, after, ok := strings.Cut(rest, "<")
		if !ok {
			break
		}
		id, more, ok := strings.Cut(after, ">")
		if !ok {
			break
		}
		if id = strings.TrimSpace(id); id != "" {
			out = append(out, id)
		}
		rest = more
	}
	if s = strings.Trim(s, "<> \t"); len(out) == 0 && s != "" {
		return []string{s}
	}
	return out
}

// parseAddresses reads the addresses of a field (RFC 5322, 3.4), groups included, as ENVELOPE wants them (RFC 9051,
// 7.5.2): a group is an address without host that has its name, its members, and an address of nothing.
func parseAddresses(s string) []goimap.Address {
	var (
		out     []goimap.Address
		inGroup bool
		start   int
	)
	add := func(text string) {
		if a, ok := parseAddress(text); ok && len(out) < maxAddresses {
			out = append(out, a)
		}
	}
	quoted, depth, angle := false, 0, false
	lastEnd := strings.LastIndexByte(s, '>')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || depth > 0):
			i++
		case depth == 0 && c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == '<':
			// Within the brackets a comma and a colon belong to a route (RFC 5322, 4.4), else the bracket does not end.
			angle = i < lastEnd && strings.HasPrefix(strings.TrimLeft(s[i+1:], " \t"), "@")
		case c == '>':
			angle = false
		case angle:
		case c == ',':
			add(s[start:i])
			start = i + 1
		case c == ':' && !inGroup:
			if len(out) < maxAddresses {
				out = append(out, goimap.Address{Mailbox: nonEmpty(phrase(s[start:i]), "group")})
				inGroup = true
			}
			start = i + 1
		case c == ';':
			add(s[start:i])
			if inGroup {
				out = append(out, goimap.Address{})
				inGroup = false
			}
			start = i + 1
		}
	}
	if start < len(s) {
		add(s[start:])
	}
	if inGroup {
		out = append(out, goimap.Address{})
	}
	return out
}

// parseAddress reads one address. An address without a host would look like a group, so it gets a host that tells.
func parseAddress(s string) (goimap.Address, bool) {
	s = strings.TrimSpace(s)
	if s == "" {
		return goimap.Address{}, false
	}
	name, address := "", s
	if i := lastUnquoted(s, '<'); i >= 0 {
		name = strings.Trim(phrase(s[:i]), "<> ")
		address, _, _ = strings.Cut(s[i+1:], ">")
		if strings.HasPrefix(strings.TrimSpace(address), "@") { // a route (RFC 5322, 4.4)
			if _, after, ok := strings.Cut(address, ":"); ok {
				address = after
			}
		}
	} else if open, end := strings.Index(s, "("), strings.LastIndex(s, ")"); open >= 0 && open < end {
		name = strings.TrimSpace(s[open+1 : end]) // the old way: me@example.org (My Name)
	}
	address = strings.TrimSpace(stripComments(address))
	local, host := address, ""
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		local, host = address[:i], address[i+1:]
	}
	local, host = strings.TrimSpace(local), strings.TrimSpace(host)
	if strings.HasPrefix(local, `"`) {
		local = unquote(local)
	}
	if local == "" && host == "" && name == "" {
		return goimap.Address{}, false
	}
	return goimap.Address{Name: encodable(name), Mailbox: nonEmpty(local, "MISSING_MAILBOX"), Host: nonEmpty(host, "MISSING_DOMAIN")}, true
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func lastUnquoted(s string, c byte) int {
	at, quoted := -1, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == c && !quoted:
			at = i
		}
	}
	return at
}

// phrase returns a display name without quotes and comments. Encoded words stay.
func phrase(s string) string {
	var b strings.Builder
	s = stripComments(s)
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			quoted = !quoted
		default:
			b.WriteByte(s[i])
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
