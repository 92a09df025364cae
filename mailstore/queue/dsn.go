package queue

import (
	"bytes"
	"fmt"
	"mime"
	"net"
	"strings"
	"time"
	"unicode/utf8"
)

// width is how long a line for people may become.
const width = 76

// longestHeader is how much of a header a report brings back.
const longestHeader = 64 << 10

// A Report tells a sender what became of a mail: RFC 3464 in the form of RFC 6522, with RFC 6533 for addresses that are
// not ASCII.
type Report struct {
	Kind       string // "failure", "delay" or "success"
	Message    Message
	Recipients []Recipient // those it is about
	To         string
	Hostname   string
	Date       time.Time
	Until      time.Time // how long a delayed mail is tried
	ID         string    // of the report: makes its Message-ID and its boundary
	Original   []byte    // the mail, or its header; nil: it is gone
	Full       bool      // Original is the whole mail
}

// Compose returns the report as a mail, with CRLF line ends. It depends on nothing but r.
func (r Report) Compose() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) {
		fmt.Fprintf(&b, format, args...)
		b.WriteString("\r\n")
	}
	status, original, headers := "message/delivery-status", "message/rfc822", "text/rfc822-headers"
	if r.utf8() {
		status, original, headers = "message/global-delivery-status", "message/global", "message/global-headers"
	}
	boundary := "=_" + r.ID
	line("Date: %s", r.Date.Format(time.RFC1123Z))
	line("From: Mail Delivery System <MAILER-DAEMON@%s>", r.Hostname)
	line("To: <%s>", oneLine(r.To))
	line("Subject: %s", r.subject())
	line("Message-ID: <%s@%s>", r.ID, r.Hostname)
	if id := messageID(header(r.Original)); id != "" {
		line("In-Reply-To: %s", id)
		line("References: %s", id)
	}
	line("Auto-Submitted: auto-replied")
	if r.toOwner() {
		// The owner's script would hand on the report as well, to where nothing arrives: with this field it does not.
		line("X-Sieve-Redirected-From: %s", oneLine(r.To))
	}
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;")
	line("\tboundary=%q", boundary)
	what, fields := r.text(), r.fields()
	if !isASCII(r.Original) || !isASCII(what) || !isASCII(fields) {
		line("Content-Transfer-Encoding: 8bit")
	}
	line("")
	line("This is a report in the form of RFC 3464.")
	part := func(kind, description string, content []byte) {
		line("")
		line("--%s", boundary)
		line("Content-Type: %s", kind)
		line("Content-Description: %s", description)
		if !isASCII(content) {
			line("Content-Transfer-Encoding: 8bit")
		}
		line("")
		b.Write(content)
		if !bytes.HasSuffix(content, []byte("\r\n")) {
			line("")
		}
	}
	part("text/plain; charset=utf-8", "What happened", what)
	part(status, "The same for programs", fields)
	switch {
	case len(r.Original) == 0:
	case r.Full:
		part(original, "Your mail", r.Original)
	default:
		part(headers, "The header of your mail", r.Original)
	}
	line("")
	line("--%s--", boundary)
	return b.Bytes()
}

// toOwner reports whether the report is for whoever handed somebody else's mail on.
func (r Report) toOwner() bool { return r.Message.Forwarded && r.To == r.Message.Account }

// utf8 reports whether the report needs RFC 6533.
func (r Report) utf8() bool {
	if r.Message.UTF8 || !isASCII([]byte(r.To)) || !isASCII([]byte(r.Message.Sender)) || !isASCII([]byte(r.Message.EnvelopeID)) {
		return true
	}
	for _, x := range r.Recipients {
		if !isASCII([]byte(x.Address)) || !isASCII([]byte(x.Original)) {
			return true
		}
	}
	return false
}

func (r Report) subject() string {
	mail := "Your mail"
	if r.toOwner() {
		mail = "Mail that you hand on"
	}
	switch r.Kind {
	case "delay":
		return mail + " is still waiting"
	case "success":
		return mail + " has been delivered"
	}
	return mail + " could not be delivered"
}

// text is what a person reads.
func (r Report) text() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(wrapped(fmt.Sprintf(format, args...))) }
	line("This is the mail system at %s.", r.Hostname)
	line("")
	subject := ""
	if s := field(header(r.Original), "subject"); s != "" {
		subject = fmt.Sprintf(" with the subject %q", shortened(decoded(s), 200))
	}
	about := fmt.Sprintf("The mail%s that you sent on %s", subject, r.Message.Queued.Format("Mon, 2 Jan 2006 15:04 MST"))
	if r.Message.Forwarded {
		about = fmt.Sprintf("A mail%s to you, handed on to others on %s (%s)", subject,
			r.Message.Queued.Format("Mon, 2 Jan 2006 15:04 MST"), oneLine(r.Message.Why))
	}
	switch r.Kind {
	case "delay":
		line("%s is still on its way. You need not send it again: it is tried until %s.", about,
			r.Until.UTC().Format("Mon, 2 Jan 2006 15:04 MST"))
	case "success":
		line("%s has arrived as follows.", about)
	default:
		line("%s could not be delivered, and will not be tried again. What went wrong, and what you can do:", about)
	}
	for _, x := range r.Recipients {
		line("")
		line("<%s>", oneLine(x.Address))
		for _, s := range r.words(x) {
			line("    %s", s)
		}
	}
	return []byte(b.String())
}

// words says what became of one recipient.
func (r Report) words(x Recipient) (lines []string) {
	said := "The last attempt failed:"
	switch {
	case x.Host != "" && x.Answered():
		said = "The server " + oneLine(x.Host) + " said:"
	case x.Host != "":
		said = "The server " + oneLine(x.Host) + " did not take it:"
	}
	switch x.State {
	case Delivered:
		return []string{"It has been delivered."}
	case Relayed:
		return []string{"It was handed to " + oneLine(x.Host) + ", which will not report what becomes of it."}
	}
	lines = append(lines, said)
	for s := range strings.SplitSeq(x.Reply, "\n") {
		if s = oneLine(s); s != "" {
			lines = append(lines, "  "+shortened(s, 500))
		}
	}
	switch x.State {
	case Waiting:
		return append(lines, "It is tried again by itself.")
	case Expired:
		tried := "once"
		if x.Attempts != 1 {
			tried = fmt.Sprintf("%d times", x.Attempts)
		}
		tried = fmt.Sprintf("It was tried %s over %s without success.", tried, period(r.Date.Sub(r.Message.since)))
		return append(lines, tried, advice(x))
	}
	return append(lines, advice(x))
}

// period says a duration in words.
func period(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()+1)/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	if d < 2*time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}

// advice says what the sender can do about an enhanced status code (RFC 3463).
func advice(x Recipient) string {
	_, detail, _ := strings.Cut(x.Status, ".")
	switch detail {
	case "1.1", "1.0", "1.3", "1.6":
		return "There is no such mailbox there, or it has moved. Check the address, and ask for the right one another way."
	case "1.2", "1.10", "4.4", "1.9":
		return "The part behind the @ names nothing that takes mail. Check it for a typing error."
	case "2.1":
		return "The mailbox is switched off. Reach its owner another way."
	case "2.2":
		return "The mailbox is full. Reach its owner another way, or send your mail again later."
	case "2.3", "3.4":
		return "The mail is too large for that server. Send it in smaller parts, or share a link to the file."
	case "6.7":
		return "That server cannot take addresses with letters beyond ASCII. Ask for another address, or write from another one."
	case "4.6":
		return "The mail went in circles between servers. Tell your administrator."
	}
	switch class, _, _ := strings.Cut(detail, "."); {
	case class == "7":
		return "That server does not want the mail. If its words do not tell why, forward this report to your administrator."
	case class == "3" && x.Host == "": // no server was asked
		return "The mail system here has trouble. Tell your administrator."
	case class == "3" || class == "4" || x.State == Expired:
		return "The server there has trouble. Send your mail again later, or reach the recipient another way."
	}
	return "If the words above do not help, forward this report to your administrator."
}

// fields are what a program reads (RFC 3464, 2).
func (r Report) fields() []byte {
	var b strings.Builder
	field := func(name, value string) {
		if value == "" {
			return
		}
		b.WriteString(folded(name + ": " + value))
	}
	field("Reporting-MTA", "dns; "+r.Hostname)
	field("X-Sluice-Queue-ID", r.Message.ID)
	field("Original-Envelope-Id", oneLine(r.Message.EnvelopeID))
	field("Arrival-Date", r.Message.Queued.Format(time.RFC1123Z))
	for _, x := range r.Recipients {
		b.WriteString("\r\n")
		field("Original-Recipient", r.original(x))
		field("Final-Recipient", r.address(x.Address))
		action, class := r.action(x)
		field("Action", action)
		field("Status", statusOf(x, class))
		if host := hostOf(x.Host); host != "" {
			field("Remote-MTA", "dns; "+host)
		}
		if reply := r.fit(oneLine(x.Reply)); reply != "" {
			kind := "smtp; "
			if x.Host == "" || !x.Answered() {
				kind = "X-Sluice; "
			}
			field("Diagnostic-Code", kind+shortened(reply, 900))
		}
		field("Last-Attempt-Date", x.Tried.Format(time.RFC1123Z))
		if r.Kind == "delay" {
			field("Will-Retry-Until", r.Until.UTC().Format(time.RFC1123Z))
		}
	}
	return []byte(b.String())
}

// fit makes text of others fit for the fields, which have octets beyond ASCII only in the form of RFC 6533.
func (r Report) fit(s string) string {
	if r.utf8() {
		return s
	}
	return strings.Map(func(c rune) rune {
		if c >= 0x80 {
			return '?'
		}
		return c
	}, s)
}

// hostOf returns the name of a server as it was tried: "mx.example.org [192.0.2.1]:25", or its address.
func hostOf(tried string) string {
	name, _, named := strings.Cut(tried, " [")
	if host, _, err := net.SplitHostPort(name); !named && err == nil {
		name = host
		if strings.Contains(host, ":") {
			name = "[" + host + "]"
		}
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f }) || len(name) > 255 {
		return ""
	}
	return name
}

func (r Report) action(x Recipient) (action, class string) {
	switch x.State {
	case Delivered:
		return "delivered", "2"
	case Relayed:
		return "relayed", "2"
	case Waiting:
		return "delayed", "4"
	}
	return "failed", "5"
}

// address is an address with its type (RFC 6533, 3): utf-8 in a report that may have it, where it is not ASCII.
func (r Report) address(a string) string {
	if !isASCII([]byte(a)) {
		return "utf-8; " + oneLine(a)
	}
	return "rfc822; " + oneLine(a)
}

func (r Report) original(x Recipient) string {
	kind, a, ok := strings.Cut(x.Original, ";")
	if !ok {
		return ""
	}
	if !isASCII([]byte(a)) {
		kind = "utf-8"
	}
	return oneLine(kind) + "; " + oneLine(a)
}

// statusOf is the enhanced status code in the class that goes with the action: an expired mail has failed, whatever the
// last 4yz was (RFC 3464, 2.3.4).
func statusOf(x Recipient, class string) string {
	_, rest, ok := strings.Cut(x.Status, ".")
	if !ok || strings.ContainsFunc(rest, func(c rune) bool { return c != '.' && (c < '0' || c > '9') }) {
		rest = "0.0"
	}
	if x.State == Expired && rest == "0.0" {
		rest = "4.7" // delivery time expired
	}
	return class + "." + rest
}

// header returns what stands above the first empty line, without it.
func header(mail []byte) []byte {
	if bytes.HasPrefix(mail, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(mail, []byte("\r\n\r\n")); i >= 0 {
		return mail[:i+2]
	}
	return mail
}

// field returns the first field of a name, unfolded, as it stands there.
func field(header []byte, name string) string {
	value, found := "", false
	for l := range bytes.Lines(header) {
		l = bytes.TrimRight(l, "\r\n")
		if found {
			if len(l) == 0 || l[0] != ' ' && l[0] != '\t' {
				break
			}
			value += " " + strings.TrimSpace(string(l))
			continue
		}
		n, v, ok := bytes.Cut(l, []byte(":"))
		if ok && strings.EqualFold(strings.TrimSpace(string(n)), name) {
			value, found = strings.TrimSpace(string(v)), true
		}
	}
	return value
}

// decoded returns a text field as people read it (RFC 2047).
func decoded(s string) string {
	if plain, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		s = plain
	}
	return strings.ToValidUTF8(s, "?")
}

// messageID returns the Message-ID of a header if it can stand in another one.
func messageID(header []byte) string {
	id := field(header, "message-id")
	if len(id) < 5 || len(id) > 500 || id[0] != '<' || id[len(id)-1] != '>' || !isASCII([]byte(id)) ||
		strings.ContainsFunc(id[1:len(id)-1], func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' }) {
		return ""
	}
	return id
}

// oneLine makes text of others fit for a line of ours.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}

// shortened cuts a text at a letter.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + " ..."
}

// wrapped breaks a line for people at spaces, keeps how far it is indented, and ends it.
func wrapped(s string) string {
	indent := s[:len(s)-len(strings.TrimLeft(s, " "))]
	var b strings.Builder
	for len(s) > width {
		cut := strings.LastIndexByte(s[:width+1], ' ')
		if cut <= len(indent) {
			if cut = strings.IndexByte(s[width:], ' '); cut < 0 {
				break
			}
			cut += width
		}
		b.WriteString(strings.TrimRight(s[:cut], " ") + "\r\n")
		s = indent + strings.TrimLeft(s[cut:], " ")
	}
	return b.String() + s + "\r\n"
}

// folded breaks a header field at spaces so that lines stay readable, and ends it.
func folded(s string) string {
	var b strings.Builder
	for len(s) > width {
		cut := strings.LastIndexByte(s[:width], ' ')
		if cut < 20 {
			if cut = strings.IndexByte(s[width:], ' '); cut < 0 {
				break
			}
			cut += width
		}
		b.WriteString(s[:cut] + "\r\n")
		s = " " + strings.TrimLeft(s[cut:], " ")
	}
	return b.String() + s + "\r\n"
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
