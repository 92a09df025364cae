package milter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// hold puts the mail of those for whom it is to be held into quarantine, and returns the id by index of the recipient.
func (c *conn) hold(
	ctx context.Context, msg *mime.Message, mark []pipeline.Edit, decisions []pipeline.Decision, s pipeline.Settlement,
) (map[int]string, error) {
	h := mailstore.Held{
		ID:        c.tx.id,
		SHA256:    c.tx.spool.SHA256(),
		MessageID: msg.MessageID(),
		Subject:   msg.Subject(),
		Sender:    c.tx.sender.String(),
		Received:  c.tx.received,
	}
	var index []int
	for i, d := range decisions {
		if s.Dispositions[i] != pipeline.Held {
			continue
		}
		index = append(index, i)
		h.Recipients = append(h.Recipients, mailstore.HeldRecipient{
			Address: d.Recipient.Address.String(),
			Account: d.Recipient.Account,
			Folder:  d.Folder,
			Reason:  reason(d),
		})
	}
	if len(index) == 0 {
		return nil, nil
	}
	if c.server.cfg.Quarantine == nil {
		return nil, errors.New("there is no quarantine")
	}
	h.Content = io.MultiReader(strings.NewReader(c.trace(mark)), &mender{r: bufio.NewReader(withoutOurs(msg))})
	ids, err := c.server.cfg.Quarantine.Hold(ctx, h)
	if err != nil {
		return nil, err
	}
	if len(ids) != len(index) {
		return nil, fmt.Errorf("%d rows for %d recipients", len(ids), len(index))
	}
	held := map[int]string{}
	for n, i := range index {
		held[i] = ids[n]
	}
	return held, nil
}

// reason says who decided that a mail is held, as "rules/forged_bank: 550 5.7.1 …".
func reason(d pipeline.Decision) string {
	by := d.Step
	if d.Verdict.By != "" {
		by += "/" + d.Verdict.By
	}
	why := d.Verdict.Reason
	if d.Verdict.Action.Refuses() {
		why = d.Verdict.Reply.String()
	}
	switch {
	case by == "":
		return why
	case why == "":
		return by
	}
	return by + ": " + why
}

// trace returns the fields that stand above a mail we hold: the MTA has not shown us its own Received (RFC 5321, 4.4),
// so here is one that says the same.
func (c *conn) trace(mark []pipeline.Edit) string {
	var b strings.Builder
	helo := traceWord(c.helo)
	if helo == "" {
		helo = "unknown"
	}
	name := traceWord(c.client.Name)
	if name == "" {
		name = "unknown"
	}
	addr := "unknown"
	if c.client.Addr.IsValid() {
		addr = c.client.Addr.String()
		if c.client.Addr.Is6() {
			addr = "IPv6:" + addr
		}
	}
	fmt.Fprintf(&b, "Received: from %s (%s [%s])\r\n\tby %s (Sluice milter) with ESMTP id %s;\r\n\t%s\r\n",
		helo, name, addr, traceWord(c.server.cfg.Hostname), c.tx.id, c.tx.received.Format(time.RFC1123Z))
	for _, e := range mark {
		if !e.Delete {
			fmt.Fprintf(&b, "%s: %s\r\n", e.Name, oneLine(e.Value))
		}
	}
	return b.String()
}

// traceWord makes a client's word fit for a Received field: what ends a comment or a clause goes.
func traceWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune("()\\\";<>", r) {
			return -1
		}
		return r
	}, s[:min(len(s), 255)])
}

// withoutOurs reads a message as it came, without the fields that only we write.
func withoutOurs(msg *mime.Message) io.Reader {
	var head bytes.Buffer
	for _, f := range msg.Header().Fields() {
		if !pipeline.Ours(f.Name) {
			head.Write(f.Raw)
			head.WriteString("\r\n")
		}
	}
	head.WriteString("\r\n")
	return io.MultiReader(&head, msg.RawBody())
}

// oneLine makes sure that a value stays one: what it says may come from the mail.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, s)
}

// A mender reads a message so that it can be sent by SMTP again: an LF that stands alone is a line end, a CR that stands
// alone a space, as the SMTP door mends it. An MTA that has let one through may pass it on to a server that takes it for
// the end of the message, and what follows for another mail. Our mark skips line ends and spaces: it stays genuine.
type mender struct {
	r  *bufio.Reader
	cr bool // the last octet was the CR of a line end
}

func (m *mender) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c, err := m.r.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil // the error comes again
			}
			return 0, err
		}
		switch {
		case c == '\n' && !m.cr:
			c, m.cr = '\r', true
			_ = m.r.UnreadByte() // it was just read
		case c == '\r':
			next, _ := m.r.Peek(1)
			if m.cr = len(next) == 1 && next[0] == '\n'; !m.cr {
				c = ' '
			}
		default:
			m.cr = false
		}
		p[n] = c
		n++
	}
	return n, nil
}
