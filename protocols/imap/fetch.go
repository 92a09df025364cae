package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
)

// Fetch answers with what the client wants of messages.
func (s *session) Fetch(w *imapserver.FetchWriter, set goimap.NumSet, o *goimap.FetchOptions) (err error) {
	defer s.enter(&err)()
	if s.view == nil {
		return badRequest("no mailbox is selected")
	}
	if len(o.BinarySection) > 0 || len(o.BinarySectionSize) > 0 || o.ModSeq {
		return badRequest("this item is not known here")
	}
	at, err := s.view.resolve(set)
	if err != nil {
		return err
	}
	sees := false
	for _, b := range o.BodySection {
		sees = sees || !b.Peek
		if b.Partial != nil && b.Partial.Offset > math.MaxUint32 {
			return badRequest("no message has %d octets", b.Partial.Offset)
		}
	}
	gone := false
	for _, i := range at {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		err := s.fetch(w, i, o, sees)
		if errors.Is(err, mailstore.ErrNoMessage) {
			gone = true // the others are still there
			continue
		}
		if err != nil {
			return err
		}
	}
	if gone {
		return mailstore.ErrNoMessage
	}
	return nil
}

// fetch answers for one message. Everything that can fail comes before the first octet is written.
func (s *session) fetch(w *imapserver.FetchWriter, i int, o *goimap.FetchOptions, sees bool) error {
	m := &s.view.messages[i]
	var (
		content mailstore.Content
		root    *part
		bodies  []*io.SectionReader
	)
	if o.Envelope || o.BodyStructure != nil || len(o.BodySection) > 0 {
		c, err := s.view.folder.Content(s.ctx, m.UID)
		if err != nil {
			return err
		}
		defer c.Close()
		content = c
		if needsStructure(o) {
			root, err = parseStructure(c, c.Size(), s.guard.cfg.Limits)
		} else {
			root, err = parseHeader(c, c.Size())
		}
		if err != nil {
			return fmt.Errorf("read message %d: %w", m.UID, err)
		}
		for _, b := range o.BodySection {
			r, err := section(content, root, b)
			if err != nil {
				return fmt.Errorf("read message %d: %w", m.UID, err)
			}
			bodies = append(bodies, r)
		}
	}
	flags := o.Flags
	if sees && !s.view.readOnly && !hasFlag(m.Flags, `\Seen`) {
		before := s.flagsBefore(s.view, []int{i})
		now, err := s.view.folder.SetFlags(s.ctx, []uint32{m.UID}, mailstore.FlagsAdd, []string{`\Seen`})
		if err != nil {
			return err
		}
		s.flagged(s.view, before, now)
		if len(now) == 1 {
			m.Flags, flags = now[0].Flags, true
			s.view.seen = mailstore.Listing{}
		}
	}
	var structure goimap.BodyStructure
	if o.BodyStructure != nil {
		structure = root.bodyStructure()
	}

	r := w.CreateMessage(uint32(i + 1))
	// A panic or an error in the middle of an answer leaves the connection of no use. The library holds a lock until the
	// answer is closed.
	whole := false
	defer func() {
		if !whole {
			_ = s.guard.conn.Close()
			_ = r.Close()
		}
	}()
	if o.UID {
		r.WriteUID(goimap.UID(m.UID))
	}
	if flags {
		r.WriteFlags(flagsOf(*m))
	}
	if o.InternalDate {
		r.WriteInternalDate(m.Date)
	}
	if o.RFC822Size {
		r.WriteRFC822Size(m.Size)
	}
	if o.Envelope {
		r.WriteEnvelope(root.envelope())
	}
	if structure != nil {
		r.WriteBodyStructure(structure)
	}
	for k, b := range o.BodySection {
		lw := r.WriteBodySection(b, bodies[k].Size())
		if _, err := io.Copy(lw, bodies[k]); err != nil {
			return fmt.Errorf("send message %d: %w", m.UID, err)
		}
		if err := lw.Close(); err != nil {
			return fmt.Errorf("send message %d: %w", m.UID, err)
		}
	}
	if err := r.Close(); err != nil {
		return err
	}
	whole = true
	return nil
}

func hasFlag(flags []string, flag string) bool {
	for _, f := range flags {
		if strings.EqualFold(f, flag) {
			return true
		}
	}
	return false
}

// needsStructure reports whether the parts of the message matter.
func needsStructure(o *goimap.FetchOptions) bool {
	if o.BodyStructure != nil {
		return true
	}
	for _, b := range o.BodySection {
		if len(b.Part) > 0 {
			return true
		}
	}
	return false
}

// section returns the octets of a section; of one that there is not, none.
func section(content mailstore.Content, root *part, b *goimap.FetchItemBodySection) (*io.SectionReader, error) {
	var r *io.SectionReader
	of := func(s span) { r = io.NewSectionReader(content, s.from, s.len()) }
	p := root.find(b.Part)
	whole := len(b.Part) == 0
	if p != nil && !whole && (b.Specifier == goimap.PartSpecifierHeader || b.Specifier == goimap.PartSpecifierText) {
		p = p.message // of other parts there is only MIME
	}
	switch {
	case p == nil:
		of(span{})
	case b.Specifier == goimap.PartSpecifierHeader && (len(b.HeaderFields) > 0 || len(b.HeaderFieldsNot) > 0):
		of(p.header)
		picked, err := pick(r, b.HeaderFields, b.HeaderFieldsNot)
		if err != nil {
			return nil, err
		}
		r = io.NewSectionReader(bytes.NewReader(picked), 0, int64(len(picked)))
	case b.Specifier == goimap.PartSpecifierHeader:
		of(p.header)
	case b.Specifier == goimap.PartSpecifierMIME:
		if of(p.header); whole {
			of(span{})
		}
	case b.Specifier == goimap.PartSpecifierText || !whole:
		of(p.body)
	default:
		of(span{0, content.Size()})
	}
	if b.Partial == nil {
		return r, nil
	}
	from := min(b.Partial.Offset, r.Size())
	n := min(b.Partial.Size, r.Size()-from)
	return io.NewSectionReader(r, from, n), nil
}

// pick returns the fields of a header section with, or without, certain names, and an empty line.
func pick(header *io.SectionReader, names, not []string) ([]byte, error) {
	raw := make([]byte, min(header.Size(), 16*maxHeader))
	if _, err := io.ReadFull(header, raw); err != nil {
		return nil, err
	}
	has := func(list []string, name []byte) bool {
		return slices.ContainsFunc(list, func(n string) bool { return isNamed(name, n) })
	}
	var out []byte
	for raw := range fields(raw) {
		name, _, ok := splitField(raw)
		if len(names) > 0 && ok && has(names, name) || len(names) == 0 && !(ok && has(not, name)) {
			out = append(out, raw...)
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...), nil
}
