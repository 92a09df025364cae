package smtp

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A handedIn message is what a client has handed in, made complete: RFC 6409, 8.
type handedIn struct {
	m       *message
	section []byte // the header section, without what only servers write and without Bcc, with what was missing
	blind   []byte // the fields that name blind recipients
	scanned *mime.Message
}

// servers reports whether a header field is one that a mail program has no business with: what the last server writes, and
// what is believed because we have written it.
func servers(name string) bool {
	return pipeline.Ours(name) || slices.Contains([]string{"return-path", "delivered-to", "authentication-results"}, strings.ToLower(name))
}

// isBlind reports whether a field is for the sender's eyes only (RFC 5322, 3.6.3).
func isBlind(name string) bool {
	return strings.EqualFold(name, "Bcc") || strings.EqualFold(name, "Resent-Bcc")
}

// complete makes a message complete. Fields that are missing go below those that are there, so that what was signed
// stays signed.
func (s session) complete(m *message) (*handedIn, error) {
	section := make([]byte, m.parsed.Header().Len())
	if _, err := io.ReadFull(m.parsed.Raw(), section); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	o := &handedIn{m: m}
	o.blind = strip(section, func(name string, _ int) bool { return !isBlind(name) })
	o.section = strip(section, func(name string, _ int) bool { return servers(name) || isBlind(name) })
	if len(o.section) > 0 && o.section[len(o.section)-1] != '\n' {
		o.section = append(o.section, "\r\n"...)
	}
	h := m.parsed.Header()
	if !h.Has("Date") {
		o.section = append(o.section, field("Date", s.s.cfg.Now().Format(time.RFC1123Z))...)
	}
	if id, _ := h.First("Message-ID"); id.Value() == "" {
		o.section = strip(o.section, func(name string, _ int) bool { return name == "message-id" })
		o.section = append(o.section, field("Message-ID", "<"+s.session.ID()+"@"+s.hostname()+">")...)
	}
	old := int64(m.parsed.Header().Len())
	j := joined{head: o.section, tail: m.Spool, skip: old}
	var err error
	if o.scanned, err = mime.Parse(j, m.Size()-old+int64(len(o.section)), s.s.cfg.MIME); err != nil {
		return nil, fmt.Errorf("read the message with what it lacked: %w", err)
	}
	return o, nil
}

// hostname is how this door calls itself.
func (c *conversation) hostname() string { return cmp.Or(c.conn.Hostname(), c.s.cfg.Hostname) }

// body is the message from the end of its header section on.
func (o *handedIn) body() io.Reader {
	old := int64(o.m.parsed.Header().Len())
	return io.NewSectionReader(o.m.Spool, old, o.m.Size()-old)
}

// head is the header section that leaves: our trace, what steps add, and the message's own without what they delete. What
// rules have found is nobody else's business: it is in the record.
func (f *filing) head(o *handedIn, d *pipeline.Decision) []byte {
	var b bytes.Buffer
	b.Write(f.submitted())
	for _, e := range d.Edits {
		if !e.Delete {
			b.Write(added(e))
		}
	}
	b.Write(strip(o.section, unwanted{}.deleted(d.Edits).has))
	return b.Bytes()
}

// kept is the copy that the sender keeps: as the message left, with its blind recipients.
func (f *filing) kept(o *handedIn) io.Reader {
	return io.MultiReader(bytes.NewReader(f.submitted()), bytes.NewReader(o.section), bytes.NewReader(o.blind), o.body())
}

// submitted is our Received field. RFC 5321, 4.4, wants the client named in it, but the client is somebody's home: unless
// that is wanted it says only that they have logged in (RFC 3848: "ESMTPSA"). The id leads to the record, which has it all.
func (f *filing) submitted() []byte {
	var b strings.Builder
	if !f.s.cfg.Submission.HideClient {
		b.WriteString("from " + word(f.greeting))
		if peer := f.client().Addr; peer.IsValid() {
			literal := peer.String()
			if peer.Is6() {
				literal = "IPv6:" + literal
			}
			b.WriteString(" ([" + literal + "])")
		}
		fmt.Fprintf(&b, " (authenticated as %s) ", word(f.login))
	}
	fmt.Fprintf(&b, "by %s with %s id %s; %s", word(f.hostname()), f.protocol(), f.id, f.received.Format(time.RFC1123Z))
	return field("Received", b.String())
}
