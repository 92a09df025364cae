package smtp

import (
	"net/netip"
	"strings"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A hop is what a Received field says about who brought the mail to the host that wrote it.
type hop struct {
	client   pipeline.Client
	greeting string
}

// identify begins the pipeline's session for a message that came by LMTP, and returns the message as it is to be looked
// at. Only a trusted peer is believed: our own hand-over field first, then what its MTAs wrote into Received.
func (s session) identify(m *message) (*pipeline.Session, *mime.Message, error) {
	plan := s.s.cfg.Plan()
	if r := s.handedOver(m); r != nil {
		scanned, err := s.without(m, func(name string) bool { return strings.EqualFold(name, pipeline.IDField) })
		if err != nil {
			return nil, nil, err
		}
		p := plan.Resume(s.s.door, r)
		p.SetAsked(s.tx.wants)
		return p, scanned, nil
	}
	scanned, err := s.without(m, pipeline.Ours)
	if err != nil {
		return nil, nil, err
	}
	h := s.origin(m)
	p := plan.NewSession(s.s.door, h.client)
	if h.client.Known() || h.greeting != "" {
		p.Connect(s.ctx())
		p.Helo(s.ctx(), h.greeting)
	}
	p.Mail(s.ctx(), s.tx.from)
	p.SetAsked(s.tx.wants)
	if top, ok := m.parsed.Header().First("Received"); ok && s.conn.Trusted() {
		p.SetQueueID(queueID(top.Value()))
	}
	return p, scanned, nil
}

// queueID returns what a Received field says in its "id" clause: the name of the mail in the queue of the host that
// wrote it. "" if it says nothing that looks like one.
func queueID(value string) string {
	var plain strings.Builder // without comments, in which anything may stand
	depth := 0
	for _, r := range value {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case depth == 0:
			plain.WriteRune(r)
		}
	}
	text, _, _ := strings.Cut(plain.String(), ";")
	f := strings.Fields(text)
	for i := range max(len(f)-1, 0) {
		if strings.EqualFold(f[i], "id") && len(f[i+1]) <= 64 && strings.Trim(f[i+1], idCharacters) == "" {
			return f[i+1]
		}
	}
	return ""
}

const idCharacters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"

// handedOver returns the record of another of our doors about this very message; nil if there is none, or it is gone.
func (s session) handedOver(m *message) *pipeline.Record {
	if !s.conn.Trusted() || s.s.cfg.Recall == nil {
		return nil
	}
	for f := range m.parsed.Header().All(pipeline.IDField) {
		id, ok := s.s.cfg.Handover.Verify(f.Value(), m.parsed)
		if !ok {
			continue
		}
		r, err := s.s.cfg.Recall(s.ctx(), id)
		if err != nil || r == nil {
			s.s.cfg.Log.Warn("the record of a mail handed over is gone; it is scanned again", "id", id, "error", err)
			continue
		}
		return r
	}
	return nil
}

// origin returns who brought a message to the outermost of our hosts. The topmost Received field is by the MTA that
// gives us the mail; as long as what such a field names is a trusted host, the field below is by that one.
func origin(m *mime.Message, trusted func(netip.Addr) bool) (outermost hop) {
	for f := range m.Header().All("Received") {
		h, ok := parseReceived(f.Value())
		if !ok {
			return outermost
		}
		h.client.Trusted = trusted(h.client.Addr)
		if outermost = h; !h.client.Trusted || h.client.Login != "" {
			return outermost
		}
	}
	return outermost
}

// parseReceived reads a Received field, unfolded, in Postfix's form:
//
//	from HELO (NAME [ADDRESS]) (using TLSv1.3 with …) (Authenticated sender: NAME) by HOST …
//
// ok is false for any other, and where Postfix does not know the address. A NAME that Postfix could not verify is
// "unknown" and left empty.
func parseReceived(value string) (h hop, ok bool) {
	rest, ok := cutFold(strings.TrimLeft(value, " \t"), "from")
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return hop{}, false
	}
	rest = strings.TrimLeft(rest, " \t")
	// Postfix lets no space and no parenthesis into the greeting.
	i := strings.IndexAny(rest, " \t()")
	if i <= 0 || rest[i] == '(' || rest[i] == ')' {
		return hop{}, false
	}
	h.greeting, rest = rest[:i], rest[i:]
	comment, rest, ok := cutComment(rest)
	if !ok {
		return hop{}, false
	}
	if h.client.Addr, h.client.Name, ok = parseTCPInfo(comment); !ok {
		return hop{}, false
	}
	for {
		comment, next, ok := cutComment(rest)
		if !ok {
			break
		}
		rest = next
		if s, ok := cutFold(comment, "using "); ok {
			version, _, _ := strings.Cut(s, " ")
			if strings.HasPrefix(version, "TLSv") && len(version) <= len("TLSv1.3") {
				h.client.TLS = version
			}
		}
		if s, ok := cutFold(comment, "authenticated sender: "); ok {
			h.client.Login = pipeline.CleanText(s)
		}
	}
	rest = strings.TrimLeft(rest, " \t")
	if rest, ok = cutFold(rest, "by "); !ok {
		return hop{}, false
	}
	if h.client.Login == "" && authenticated(rest) {
		h.client.Login = "(authenticated)" // smtpd_sasl_authenticated_header = no keeps the name back
	}
	return h, true
}

// authenticated reports whether the protocol of a "with" clause is one of a client that has logged in (RFC 3848).
func authenticated(rest string) bool {
	f := strings.Fields(rest)
	for i := range len(f) - 1 {
		if !strings.EqualFold(f[i], "with") {
			continue
		}
		switch strings.ToUpper(strings.TrimSuffix(f[i+1], ";")) {
		case "ESMTPA", "ESMTPSA", "UTF8SMTPA", "UTF8SMTPSA":
			return true
		}
		return false
	}
	return false
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// cutComment takes a comment off the beginning of s (RFC 5322, 3.2.2). It may hold others.
func cutComment(s string) (comment, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	if s == "" || s[0] != '(' {
		return "", s, false
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return strings.TrimSpace(s[1:i]), s[i+1:], true
			}
		}
	}
	return "", s, false
}

// parseTCPInfo reads "NAME [ADDRESS]" or "[ADDRESS]".
func parseTCPInfo(s string) (addr netip.Addr, name string, ok bool) {
	s, forged := strings.CutSuffix(s, " (may be forged)") // Sendmail
	if forged {
		s = strings.TrimSpace(s)
	}
	s, ok = strings.CutSuffix(s, "]")
	i := strings.LastIndexByte(s, '[')
	if !ok || i < 0 {
		return netip.Addr{}, "", false
	}
	literal := s[i+1:]
	if v6, ok := cutFold(literal, "IPv6:"); ok {
		literal = v6
	}
	addr, err := netip.ParseAddr(literal)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, "", false
	}
	name = strings.TrimSpace(s[:i])
	if strings.ContainsAny(name, " \t()[]") {
		return netip.Addr{}, "", false
	}
	if forged || strings.EqualFold(name, "unknown") {
		name = ""
	}
	return addr.Unmap(), strings.ToLower(strings.TrimSuffix(name, ".")), true
}
