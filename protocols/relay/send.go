package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/mailstore"
)

// A mail is a message on its way to recipients at one server.
type mail struct {
	sender     string
	envelopeID string
	ret        string
	utf8       bool
	eightBit   bool
	size       int64
	content    io.ReaderAt
	recipients []mailstore.JobRecipient
}

// A fate is what became of one recipient at a server. The zero fate is a mail that is theirs.
type fate struct {
	reply reply    // of the server that has taken it
	no    *failure // why it has not
	// open says that nothing is known of the mail and the recipient: another server may be asked at once.
	open bool
	// later says that the server takes no more recipients with this mail, but others with the next.
	later bool
	told  bool // the server reports as the sender asked (RFC 3461)
}

// batch is how many octets of commands are sent before their replies are read: RFC 2920, 3.1, a server that does not read
// while it writes must not wait for us to read while we write.
const batch = 2000

// send brings a mail to a server that has taken none since, or ended the one before. It returns a fate for each recipient.
// When it returns, the session may be over. ctx ends the dialogue.
func (s *session) send(ctx context.Context, m *mail) []fate {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeouts.Mail)
	defer cancel()
	defer s.heed(ctx)()
	s.used++
	fates := make([]fate, len(m.recipients))
	from, to, no := s.addresses(m, fates)
	if no != nil {
		for i := range fates {
			fates[i] = fate{no: no}
		}
		return s.named(fates)
	}
	t := transaction{s: s, fates: fates}
	if s.dirty {
		s.dirty = false
		t.say(step{at: "RSET", rcpt: -1}, "RSET")
	}
	t.say(step{at: "MAIL", rcpt: -1}, from)
	for i, line := range to {
		if line != "" {
			t.say(step{at: "RCPT", rcpt: i}, line)
		}
	}
	t.say(step{at: "DATA", rcpt: -1}, "DATA")
	t.read()
	if t.data.code == 354 && !s.over {
		s.content(&t, m)
	} else if t.data.code == 354 {
		t.settle(unasked("DATA", "4.4.2", errHangUp), true)
	}
	return s.named(fates)
}

// named says in all failures who it was.
func (s *session) named(fates []fate) []fate {
	for _, f := range fates {
		if f.no != nil {
			f.no.server = s.server
		}
	}
	return fates
}

// A transaction is the dialogue up to the reply to DATA.
type transaction struct {
	s        *session
	fates    []fate
	waiting  []step
	mail, no bool  // MAIL was accepted; it failed as a whole
	accepted []int // recipients, in their order
	data     reply
}

// A step is a command whose reply is not read yet.
type step struct {
	at   string
	rcpt int // -1: none
}

// say sends a command now or, where the server takes several at once, soon.
func (t *transaction) say(x step, line string) {
	if t.no || x.at == "DATA" && !t.s.offer("PIPELINING") && len(t.accepted) == 0 {
		return // without PIPELINING all is known
	}
	t.s.say("%s", line)
	t.waiting = append(t.waiting, x)
	if !t.s.offer("PIPELINING") || len(t.s.out) >= batch {
		t.read()
	}
}

// read sends what is kept and reads the replies to it.
func (t *transaction) read() {
	if len(t.waiting) == 0 {
		return
	}
	if no := t.s.flush(t.waiting[0].at); no != nil {
		// It may have said why before it closed.
		r, silent := t.s.hear(t.waiting[0].at, t.s.config.Timeouts.Quit)
		if silent == nil && r.class() >= 4 {
			no = said(t.waiting[0].at, r)
			no.mail = false
		}
		t.fail(no, true)
		t.waiting = nil
		return
	}
	for _, x := range t.waiting {
		within := t.s.config.Timeouts.Command
		if x.at == "DATA" {
			within = t.s.config.Timeouts.Data
		}
		r, no := t.s.hear(x.at, within)
		if no != nil {
			t.fail(no, true)
			break
		}
		t.heard(x, r)
	}
	t.waiting = t.waiting[:0]
}

// heard takes the reply to a command.
func (t *transaction) heard(x step, r reply) {
	switch {
	case t.no && (x.at != "DATA" || r.code != 354):
	case r.code == 421:
		no := said(x.at, r)
		no.mail = false
		t.fail(no, true)
	case x.at == "RSET":
		if r.class() != 2 {
			no := said(x.at, r)
			no.mail, no.permanent = false, false
			t.s.over = true
			t.fail(no, true)
		}
	case x.at == "MAIL":
		if r.class() != 2 {
			t.fail(said("MAIL", r), false)
			return
		}
		t.mail, t.s.dirty = true, true
	case x.at == "RCPT":
		t.rcpt(x.rcpt, r)
	case x.at == "DATA" && r.code != 354:
		t.settle(said("DATA", r), false)
	default:
		t.data = r
	}
}

func (t *transaction) rcpt(i int, r reply) {
	if r.class() == 2 {
		t.accepted = append(t.accepted, i)
		return
	}
	no := said("RCPT", r)
	// RFC 5321, 4.5.3.1.10: too many recipients, whatever the first digit. A mailbox that is full says 4.2.2 or 5.2.2, and the
	// first recipient is never too many.
	status := r.status()
	full := (r.code == 452 || r.code == 552) && len(t.accepted) > 0 && (status == "" || strings.HasSuffix(status, ".5.3"))
	if full {
		no.permanent = false
	}
	t.fates[i] = fate{no: no, later: full}
}

// fail says that the mail has failed for everybody of whom nothing is known yet. open: nothing is known of the mail either.
func (t *transaction) fail(no *failure, open bool) {
	t.no = true
	for i := range t.fates {
		if t.fates[i].no == nil {
			t.fates[i] = fate{no: no, open: open}
		}
	}
	t.accepted = nil
}

// settle says what became of those who were accepted.
func (t *transaction) settle(no *failure, open bool) {
	for _, i := range t.accepted {
		t.fates[i] = fate{no: no, open: open}
	}
	t.accepted = nil
}

// content sends the message and reads what the server says to it.
func (s *session) content(t *transaction, m *mail) {
	if len(t.accepted) == 0 {
		// RFC 2920, 3.1: it wants a message for nobody. An empty one is the end of that.
		s.out = append(s.out, ".\r\n"...)
		if s.flush("DATA") == nil {
			_, _ = s.hear("DATA", s.config.Timeouts.End) // whatever it says to that
		}
		return
	}
	if no, open := s.stream(io.NewSectionReader(m.content, 0, m.size)); no != nil {
		t.settle(no, open)
		return
	}
	s.dirty = false
	told := s.offer("DSN")
	if !s.server.lmtp {
		r, no := s.hear("end of data", s.config.Timeouts.End)
		for _, i := range t.accepted {
			t.fates[i] = ended(r, no, told)
		}
		return
	}
	for _, i := range t.accepted { // RFC 2033, 4.2: each has an answer of its own
		r, no := s.hear("end of data", s.config.Timeouts.End)
		t.fates[i] = ended(r, no, told)
	}
}

// ended is the fate of a recipient once the whole message was sent. Without an answer the server may have taken it: to ask
// another one at once would make two mails of it.
func ended(r reply, no *failure, told bool) fate {
	switch {
	case no != nil:
		return fate{no: &failure{at: no.at, status: no.status, err: fmt.Errorf("%w after the whole mail was sent, which it may have taken", no.err)}}
	case r.class() == 2:
		return fate{reply: r, told: told}
	case r.class() == 3:
		return fate{no: unasked("end of data", "4.5.0", fmt.Errorf("%w: %s", errGarbage, r))}
	}
	return fate{no: said("end of data", r)}
}

// block is how much of a message is sent under one deadline.
const block = 32 << 10

// stream sends a message and its end. open: the server cannot have taken it.
func (s *session) stream(content io.Reader) (no *failure, open bool) {
	in := make([]byte, block)
	var d stuffer
	d.start()
	for done := false; !done; {
		n, err := io.ReadFull(content, in)
		out := d.add(s.out[:0], in[:n])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			done = true
			out = d.end(out)
		case err != nil:
			s.close() // without its end the server drops what it got
			return unasked("reading the message", "4.3.0", err), false
		}
		s.out = out[:0]
		within := s.limit(s.config.Timeouts.Block)
		if _, err := s.conn.Write(out); err != nil {
			s.over = true
			no := unasked("sending the message", "4.4.2", plainly(err, within))
			if r, silent := s.hear("sending the message", s.config.Timeouts.Quit); silent == nil && r.class() >= 4 {
				no = said("sending the message", r) // it has said why, and closed
				no.mail = r.code != 421
			} else if done { // the server may have got it all
				no = ended(reply{}, no, false).no
			}
			return no, !no.mail && !done
		}
	}
	return nil, false
}

// A stuffer writes a message as DATA wants it: with CRLF and no other CR or LF, and a second dot where a line begins with one.
type stuffer struct{ begins, cr bool }

func (d *stuffer) start() { d.begins = true }

func (d *stuffer) add(out, p []byte) []byte {
	for _, c := range p {
		if d.cr && c != '\n' {
			out = append(out, ' ')
			d.begins = false
		}
		d.cr = false
		switch {
		case c == '\r':
			d.cr = true
			continue
		case c == '\n':
			out = append(out, '\r')
		case c == '.' && d.begins:
			out = append(out, '.')
		}
		out = append(out, c)
		d.begins = c == '\n'
	}
	return out
}

// end ends the last line and the message.
func (d *stuffer) end(out []byte) []byte {
	if d.cr {
		out = append(out, ' ')
		d.begins = false
	}
	if !d.begins {
		out = append(out, '\r', '\n')
	}
	return append(out, '.', '\r', '\n')
}

// addresses returns MAIL, and a RCPT for each recipient that the server can be asked about; the fates of others are set.
func (s *session) addresses(m *mail, fates []fate) (from string, to []string, no *failure) {
	refuse := func(status, format string, args ...any) *failure {
		return &failure{err: fmt.Errorf(format, args...), status: status, permanent: true, mail: true}
	}
	if most := s.size(); most > 0 && m.size > most {
		return "", nil, refuse("5.3.4", "the message has %d octets, and the server takes %d", m.size, most)
	}
	utf8 := s.offer("SMTPUTF8")
	if !utf8 && m.utf8 {
		needs, err := eightBit(m, true)
		if err != nil {
			return "", nil, unasked("reading the message", "4.3.0", err)
		}
		if needs {
			return "", nil, refuse("5.6.7", "its header needs SMTPUTF8, which the server does not offer")
		}
	}
	eight := s.offer("8BITMIME")
	if !eight {
		needs, err := eightBit(m, false)
		if err != nil {
			return "", nil, unasked("reading the message", "4.3.0", err)
		}
		if needs {
			return "", nil, refuse("5.6.3", "it has octets above 127 and needs 8BITMIME, which the server does not offer")
		}
	}
	sender, status, err := spelt(m.sender, utf8)
	if err != nil {
		return "", nil, refuse(status, "its sender %w", err)
	}
	to = make([]string, len(m.recipients))
	extended := m.utf8 || !isASCII(sender)
	for i, x := range m.recipients {
		address, status, err := spelt(x.Address, utf8)
		if err == nil && address == "" {
			status, err = "5.1.3", errors.New("is empty")
		}
		if err != nil {
			fates[i] = fate{no: refuse(status, "the address %w", err)}
			continue
		}
		extended = extended || !isASCII(address)
		if to[i] = "RCPT TO:<" + address + ">"; s.offer("DSN") {
			to[i] += RecipientParameters(x.OutgoingRecipient)
		}
	}
	from = "MAIL FROM:<" + sender + ">"
	if s.offer("SIZE") {
		from += fmt.Sprintf(" SIZE=%d", m.size)
	}
	if eight && m.eightBit {
		from += " BODY=8BITMIME"
	}
	if utf8 && extended {
		from += " SMTPUTF8"
	}
	if s.offer("DSN") {
		from += MailParameters(m.ret, m.envelopeID)
	}
	return from, to, nil
}

// spelt returns an address as a server is told it. Without SMTPUTF8 only its domain can be put another way.
func spelt(address string, utf8 bool) (_, status string, err error) {
	quoted, escaped := false, false
	for _, r := range address {
		switch {
		case r < ' ' || r == 0x7f || r == '\ufffd':
			return "", "5.1.3", errors.New("has a control character")
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '<' || r == '>'):
			return "", "5.1.3", fmt.Errorf("has a %q where none may be", r)
		}
	}
	if quoted {
		return "", "5.1.3", errors.New("ends within quotes")
	}
	if utf8 || isASCII(address) {
		return address, "", nil
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 || !isASCII(address[:at]) {
		return "", "5.6.7", errors.New("needs SMTPUTF8, which the server does not offer")
	}
	domain, err := asciiDomain(address[at+1:])
	if err != nil {
		return "", "5.1.2", errors.New("has no domain that the DNS could know")
	}
	return address[:at+1] + domain, "", nil
}

// eightBit reports whether a message has an octet above 127, in its header alone or anywhere.
func eightBit(m *mail, header bool) (bool, error) {
	content := io.NewSectionReader(m.content, 0, m.size)
	p := make([]byte, block)
	lines := 0 // line ends in a row
	for {
		n, err := content.Read(p)
		for _, c := range p[:n] {
			switch {
			case c >= 0x80:
				return true, nil
			case c == '\n':
				if lines++; header && lines == 2 {
					return false, nil
				}
			case c != '\r':
				lines = 0
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
