package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
	"sluice/pipeline/mime"
)

// Search finds messages.
func (s *session) Search(kind imapserver.NumKind, criteria *goimap.SearchCriteria, o *goimap.SearchOptions) (data *goimap.SearchData, err error) {
	defer s.enter(&err)()
	if s.view == nil {
		return nil, badRequest("no mailbox is selected")
	}
	if o.ReturnSave {
		return nil, badRequest("SAVE is not known here")
	}
	q, err := s.view.query(criteria)
	if err != nil {
		return nil, err
	}
	var seqs goimap.SeqSet
	var uids goimap.UIDSet
	data = &goimap.SearchData{}
	for i := range s.view.messages {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		c := &candidate{session: s, index: i, message: &s.view.messages[i]}
		ok := q.holds(c)
		c.close()
		if c.err != nil {
			return nil, c.err
		}
		if !ok || c.gone {
			continue
		}
		n := uint32(i + 1)
		seqs.AddNum(n)
		if kind == imapserver.NumKindUID {
			n = c.message.UID
			uids.AddNum(goimap.UID(n))
		}
		if data.Count++; data.Count == 1 {
			data.Min = n
		}
		data.Max = n
	}
	data.All = seqs
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	return data, nil
}

// A query is a search key.
type query interface{ holds(c *candidate) bool }

type (
	all  []query
	not  struct{ query }
	some [2]query
	test func(c *candidate) bool
)

func (q all) holds(c *candidate) bool {
	return !slices.ContainsFunc(q, func(q query) bool { return !q.holds(c) })
}
func (q not) holds(c *candidate) bool  { return !q.query.holds(c) }
func (q some) holds(c *candidate) bool { return q[0].holds(c) || q[1].holds(c) }
func (q test) holds(c *candidate) bool { return q(c) }

// query makes a query of criteria. Cheap keys come first, so that most messages need not be opened.
func (v *view) query(k *goimap.SearchCriteria) (query, error) {
	var cheap, dear all
	add := func(q test) { cheap = append(cheap, q) }
	members := func(set goimap.NumSet) error {
		at, err := v.resolve(set)
		if err != nil {
			return err
		}
		add(func(c *candidate) bool { _, ok := slices.BinarySearch(at, c.index); return ok })
		return nil
	}
	for _, set := range k.SeqNum {
		if err := members(set); err != nil {
			return nil, err
		}
	}
	for _, set := range k.UID {
		if err := members(set); err != nil {
			return nil, err
		}
	}
	for _, f := range k.Flag {
		add(func(c *candidate) bool { return c.flagged(string(f)) })
	}
	for _, f := range k.NotFlag {
		add(func(c *candidate) bool { return !c.flagged(string(f)) })
	}
	if k.Larger > 0 {
		add(func(c *candidate) bool { return c.message.Size > k.Larger })
	}
	if k.Smaller > 0 {
		add(func(c *candidate) bool { return c.message.Size < k.Smaller })
	}
	if !k.Since.IsZero() {
		add(func(c *candidate) bool { return !day(c.message.Date).Before(day(k.Since)) })
	}
	if !k.Before.IsZero() {
		add(func(c *candidate) bool { return day(c.message.Date).Before(day(k.Before)) })
	}
	if k.ModSeq != nil {
		return nil, badRequest("MODSEQ is not known here")
	}
	if !k.SentSince.IsZero() {
		dear = append(dear, test(func(c *candidate) bool {
			d := c.header().date()
			return !d.IsZero() && !day(d).Before(day(k.SentSince))
		}))
	}
	if !k.SentBefore.IsZero() {
		dear = append(dear, test(func(c *candidate) bool {
			d := c.header().date()
			return !d.IsZero() && day(d).Before(day(k.SentBefore))
		}))
	}
	for _, h := range k.Header {
		dear = append(dear, test(func(c *candidate) bool { return c.headerHas(h.Key, h.Value) }))
	}
	for _, n := range k.Not {
		q, err := v.query(&n)
		if err != nil {
			return nil, err
		}
		dear = append(dear, not{q})
	}
	for _, o := range k.Or {
		a, err := v.query(&o[0])
		if err != nil {
			return nil, err
		}
		b, err := v.query(&o[1])
		if err != nil {
			return nil, err
		}
		dear = append(dear, some{a, b})
	}
	for _, text := range k.Body {
		dear = append(dear, test(func(c *candidate) bool { return c.bodyHas(text) }))
	}
	for _, text := range k.Text {
		dear = append(dear, test(func(c *candidate) bool { return c.headerHas("", text) || c.bodyHas(text) }))
	}
	return append(cheap, dear...), nil
}

// day is what searches compare: the date as written, without time and zone (RFC 9051, 6.4.4).
func day(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}

// A candidate is a message that is looked at in a search. It is opened when a key needs it.
type candidate struct {
	session *session
	index   int
	message *mailstore.Message

	content mailstore.Content
	head    *part
	parsed  *mime.Message
	failed  bool // parsed could not be had
	gone    bool
	err     error
}

func (c *candidate) close() {
	if c.content != nil {
		_ = c.content.Close()
	}
}

func (c *candidate) flagged(flag string) bool {
	if strings.EqualFold(flag, `\Recent`) {
		return c.message.Recent
	}
	return hasFlag(c.message.Flags, flag)
}

// open opens the message, and reports whether it could.
func (c *candidate) open() bool {
	if c.content != nil || c.gone || c.err != nil {
		return c.content != nil
	}
	content, err := c.session.view.folder.Content(c.session.ctx, c.message.UID)
	switch {
	case err == nil:
		c.content = content
	case errors.Is(err, mailstore.ErrNoMessage):
		c.gone = true
	default:
		c.err = err
	}
	return err == nil
}

func (c *candidate) header() *part {
	if c.head != nil {
		return c.head
	}
	c.head = &part{}
	if c.open() {
		head, err := parseHeader(c.content, c.content.Size())
		if err != nil {
			c.err = fmt.Errorf("read message %d: %w", c.message.UID, err)
			return c.head
		}
		c.head = head
	}
	return c.head
}

func (c *candidate) parse() *mime.Message {
	if c.parsed == nil && !c.failed && c.open() {
		m, err := mime.Parse(c.content, c.content.Size(), mime.Limits{})
		c.parsed, c.failed = m, err != nil
	}
	return c.parsed
}

// headerHas reports whether a field of a name ("": any) contains text, as written or decoded. Empty text is in every
// field.
func (c *candidate) headerHas(name, text string) bool {
	wanted := fold(text)
	for raw := range fields(c.header().raw) {
		n, v, ok := splitField(raw)
		if !ok || name != "" && !isNamed(n, name) {
			continue
		}
		field, value := string(n), unfold(v)
		decoded := mime.Field{Name: field, Raw: bytes.TrimRight(raw, "\r\n")}.Text()
		if name == "" {
			value, decoded = field+": "+value, field+": "+decoded
		}
		if strings.Contains(fold(value), wanted) || strings.Contains(fold(decoded), wanted) {
			return true
		}
	}
	return false
}

// bodyHas reports whether the body contains text, as it came or decoded.
func (c *candidate) bodyHas(text string) bool {
	if !c.open() {
		return false
	}
	found, err := contains(io.NewSectionReader(c.content, c.header().body.from, c.content.Size()-c.header().body.from), text)
	if err != nil {
		c.err = fmt.Errorf("read message %d: %w", c.message.UID, err)
		return false
	}
	if found {
		return true
	}
	m := c.parse()
	return m != nil && (strings.Contains(m.LowerText(), fold(text)) || strings.Contains(fold(m.HTML()), fold(text)))
}

func fold(s string) string { return strings.ToLower(s) }

// contains looks for text in r, ASCII letters in any case, in one pass and little memory.
func contains(r io.Reader, text string) (bool, error) {
	needle := lowerASCII([]byte(text))
	if len(needle) == 0 {
		return true, nil
	}
	buf := make([]byte, 0, 64<<10+len(needle))
	for {
		n, err := r.Read(buf[len(buf):min(cap(buf), len(buf)+64<<10)])
		lowerASCII(buf[len(buf) : len(buf)+n])
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf, needle) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if keep := len(needle) - 1; len(buf) > keep {
			buf = buf[:copy(buf, buf[len(buf)-keep:])]
		}
	}
}

func lowerASCII(b []byte) []byte {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}
