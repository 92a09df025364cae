package queue

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/mailstore"
)

const (
	idPrefix = "q"
	idLength = 10
	// firstLine begins each file: the envelope stands behind it, so that a queue whose database is lost is not lost.
	firstLine     = "sluice-queue 1 "
	longestLine   = 4 << 20 // of the envelope in a file
	mostAddresses = 10_000  // of one message
	longestText   = 1000    // of an address and of what a sender asks for
)

// An envelope is what stands in a file above the content.
type envelope struct {
	ID         string         `json:"id,omitempty"`
	Account    string         `json:"account,omitempty"`
	Why        string         `json:"why,omitempty"`
	Sender     string         `json:"sender"`
	EnvelopeID string         `json:"envid,omitempty"`
	Return     string         `json:"ret,omitempty"`
	UTF8       bool           `json:"utf8,omitempty"`
	EightBit   bool           `json:"eight_bit,omitempty"`
	Forwarded  bool           `json:"forwarded,omitempty"`
	Queued     time.Time      `json:"queued"`
	Recipients []envelopeRcpt `json:"recipients"`
}

type envelopeRcpt struct {
	Address  string   `json:"address"`
	Notify   []string `json:"notify,omitempty"`
	Original string   `json:"original,omitempty"`
}

// An entry is a message whose file is on disk and whose rows are not.
type entry struct {
	id        string
	envelope  envelope
	start     int64
	size      int64
	notBefore time.Time
	hold      string
}

// staged implements mailstore.Staged.
type staged struct {
	q       *Queue
	entries []entry
}

// Stage implements mailstore.Outbox.
func (q *Queue) Stage(ctx context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	for _, m := range list {
		if err := check(m); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
	}
	return q.stage(ctx, list, true)
}

// stage keeps messages; bounded: as far as the limits allow. A report is not: it takes the place of the mail it is about.
func (q *Queue) stage(ctx context.Context, list []mailstore.Outgoing, bounded bool) (_ *staged, err error) {
	s := &staged{q: q}
	defer func() {
		if err != nil {
			_ = s.drop() // the next Open removes what stays
		}
	}()
	for _, m := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := q.reserve(m, bounded); err != nil {
			return nil, err
		}
		e := entry{id: newID(), notBefore: m.NotBefore, hold: m.Hold, envelope: envelopeOf(m, q.c.Now())}
		s.entries = append(s.entries, e)
		if err := q.writeFile(&s.entries[len(s.entries)-1], m.Content, bounded); err != nil {
			return nil, fmt.Errorf("queue: %w", full(err))
		}
	}
	if err := q.disk.SyncDir(mailDir(q.c.Dir)); err != nil {
		return nil, fmt.Errorf("queue: %w", full(err))
	}
	return s, nil
}

// full says so where there is no room on the disk.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", mailstore.ErrFull, err)
	}
	return err
}

// reserve counts a message in, if it is not bounded by limits or they allow it. Its octets are counted as they come.
func (q *Queue) reserve(m mailstore.Outgoing, bounded bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !bounded:
	case q.usage.messages >= q.c.Messages:
		return fmt.Errorf("%w: %d messages wait (queue.messages)", mailstore.ErrQueueFull, q.usage.messages)
	case m.Account != "" && q.usage.accounts[m.Account] >= q.c.PerAccount:
		return fmt.Errorf("%w: %d messages of %s wait (queue.per_account)", mailstore.ErrQueueFull, q.usage.accounts[m.Account], m.Account)
	}
	q.usage.add(m.Account, 0)
	return nil
}

// A coming message counts its octets in before they are written, so that several at once cannot be too many together.
type coming struct {
	q       *Queue
	e       *entry
	content io.Reader
	bounded bool
}

func (c *coming) Read(p []byte) (int, error) {
	n, err := c.content.Read(p)
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if c.bounded && c.q.usage.octets+int64(n) > c.q.c.Octets {
		return 0, fmt.Errorf("%w: this mail and those that wait have more than %d octets (queue.octets)", mailstore.ErrQueueFull, c.q.c.Octets)
	}
	c.e.size += int64(n)
	c.q.usage.octets += int64(n)
	return n, err
}

// check refuses what no server could be told.
func check(m mailstore.Outgoing) error {
	if m.Content == nil {
		return errors.New("a mail without content")
	}
	if len(m.Recipients) == 0 || len(m.Recipients) > mostAddresses {
		return fmt.Errorf("a mail for %d recipients; from 1 to %d are possible", len(m.Recipients), mostAddresses)
	}
	for what, s := range map[string]string{"sender": m.Sender, "envelope id": m.EnvelopeID} {
		if err := checkText(s); err != nil {
			return fmt.Errorf("%s %.80q: %w", what, s, err)
		}
	}
	if !slices.Contains([]string{"", "full", "hdrs"}, m.Return) {
		return fmt.Errorf("return is %.20q, not full or hdrs", m.Return)
	}
	for _, r := range m.Recipients {
		if err := errors.Join(checkText(r.Address), checkText(r.Original)); err != nil {
			return fmt.Errorf("recipient %.80q: %w", r.Address, err)
		}
		if at := strings.LastIndexByte(r.Address, '@'); at < 1 || domainOf(r.Address) == "" {
			return fmt.Errorf("recipient %.80q has no domain", r.Address)
		}
		for _, n := range r.Notify {
			if !slices.Contains([]string{"never", "success", "failure", "delay"}, n) {
				return fmt.Errorf("recipient %.80q: notify is %.20q, not never, success, failure or delay", r.Address, n)
			}
		}
	}
	return nil
}

func checkText(s string) error {
	if len(s) > longestText {
		return fmt.Errorf("%d octets are too many", len(s))
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) {
		return errors.New("it has control characters")
	}
	return nil
}

// domainOf returns the domain of an address as [mailstore.Job] has it.
func domainOf(address string) string {
	return strings.ToLower(strings.TrimSuffix(address[strings.LastIndexByte(address, '@')+1:], "."))
}

func envelopeOf(m mailstore.Outgoing, now time.Time) envelope {
	e := envelope{
		ID: text(m.ID), Account: text(m.Account), Why: text(m.Why), Sender: m.Sender, EnvelopeID: m.EnvelopeID, Return: m.Return,
		UTF8: m.UTF8, EightBit: m.EightBit, Forwarded: m.Forwarded, Queued: now.UTC(),
	}
	for _, r := range m.Recipients {
		e.Recipients = append(e.Recipients, envelopeRcpt(r))
	}
	return e
}

// newID returns a name for a message: easy to type, without letters that look alike or make words.
func newID() string {
	const alphabet = "23456789bcdfghjkmnpqrstvwxz"
	id := make([]byte, 0, idLength)
	for b := [1]byte{}; len(id) < idLength; {
		rand.Read(b[:]) // never fails
		if int(b[0]) < 256/len(alphabet)*len(alphabet) {
			id = append(id, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return idPrefix + string(id)
}

// writeFile writes a message's file and syncs it, not its folder.
func (q *Queue) writeFile(e *entry, content io.Reader, bounded bool) error {
	line, err := json.Marshal(e.envelope)
	if err != nil {
		return err
	}
	f, err := q.disk.Create(q.path(e.id))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	n, err := fmt.Fprintf(w, "%s%s\n", firstLine, line)
	e.start = int64(n)
	if err == nil {
		_, err = io.Copy(w, &coming{q, e, content, bounded})
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// IDs implements mailstore.Staged.
func (s *staged) IDs() (ids []string) {
	for _, e := range s.entries {
		ids = append(ids, e.id)
	}
	return ids
}

// Release implements mailstore.Staged.
func (s *staged) Release(ctx context.Context) error {
	err := s.q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error { return s.insert(ctx, tx) })
	if err != nil {
		_ = s.drop() // the next Open removes what stays
		return fmt.Errorf("queue: %w", full(err))
	}
	s.enter()
	return nil
}

// Withdraw implements mailstore.Staged.
func (s *staged) Withdraw() error { return s.drop() }

// insert writes the rows.
func (s *staged) insert(ctx context.Context, tx *sql.Tx) error {
	for _, e := range s.entries {
		v := e.envelope
		since := v.Queued
		if e.notBefore.After(since) {
			since = e.notBefore
		}
		//nolint:sqlclosecheck // it ends with the transaction
		_, err := tx.StmtContext(ctx, s.q.often.insertMessage).ExecContext(ctx, e.id, v.ID, v.Account, v.Why, v.Sender, v.EnvelopeID, v.Return, number(v.UTF8),
			number(v.EightBit), number(v.Forwarded), e.start, e.size, micro(v.Queued), micro(since), text(e.hold))
		if err != nil {
			return err
		}
		for i, r := range v.Recipients {
			//nolint:sqlclosecheck // it ends with the transaction
			_, err := tx.StmtContext(ctx, s.q.often.insertRecipient).ExecContext(ctx, e.id, i, r.Address, domainOf(r.Address), strings.Join(r.Notify, ","),
				r.Original, micro(since))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// enter makes what is in the database known in memory.
func (s *staged) enter() {
	q := s.q
	q.mu.Lock()
	for _, e := range s.entries {
		m := &message{
			id: e.id, account: e.envelope.Account, start: e.start, size: e.size, queued: micro(e.envelope.Queued), held: e.hold != "",
		}
		q.alive[e.id] = m
		due := m.queued
		if e.notBefore.After(e.envelope.Queued) {
			due = micro(e.notBefore)
		}
		for _, r := range e.envelope.Recipients {
			if domain := domainOf(r.Address); m.job(domain) == nil {
				q.enlist(m, domain, due)
			}
		}
		q.stats.Queued++
	}
	q.mu.Unlock()
	signal(q.wake)
}

// drop forgets what was staged. A file that stays is removed by the next Open.
func (s *staged) drop() error {
	var errs []error
	s.q.mu.Lock()
	for _, e := range s.entries {
		s.q.usage.remove(e.envelope.Account, e.size)
	}
	s.q.mu.Unlock()
	for _, e := range s.entries {
		errs = append(errs, s.q.remove(e.id))
	}
	s.entries = nil
	return errors.Join(errs...)
}

// recover enters a file that no row names, because the database is new, and holds it: whether it was ever released, and
// who has got it already, nobody knows.
func (q *Queue) recover(ctx context.Context, id string) error {
	e, err := q.readEnvelope(id)
	if err != nil {
		q.c.Log.ErrorContext(ctx, "a file in the queue that the queue does not know, and cannot read", "file", q.path(id), "err", err)
		return nil
	}
	e.hold = "found without its entry in the queue; it may have left already"
	s := &staged{q: q, entries: []entry{e}}
	if err := q.db.Write(ctx, func(tx *sql.Tx) error { return s.insert(ctx, tx) }); err != nil {
		return err
	}
	q.usage.add(e.envelope.Account, e.size)
	s.enter()
	q.c.Log.ErrorContext(ctx, "a mail in the queue was found without its entry and is held; sluice queue release or delete it", "queued", id)
	return nil
}

func (q *Queue) readEnvelope(id string) (e entry, err error) {
	f, err := os.Open(q.path(id))
	if err != nil {
		return e, err
	}
	defer f.Close() // it was only read
	line, err := bufio.NewReader(io.LimitReader(f, longestLine)).ReadBytes('\n')
	if err != nil {
		return e, err
	}
	rest, ok := bytes.CutPrefix(line, []byte(firstLine))
	if !ok {
		return e, errors.New("it does not begin with an envelope")
	}
	e = entry{id: id, start: int64(len(line))}
	if err := json.Unmarshal(rest, &e.envelope); err != nil {
		return e, err
	}
	if len(e.envelope.Recipients) == 0 {
		return e, errors.New("it has no recipient")
	}
	for _, r := range e.envelope.Recipients {
		if domainOf(r.Address) == "" || checkText(r.Address) != nil {
			return e, fmt.Errorf("its recipient %.80q is none", r.Address)
		}
	}
	info, err := f.Stat()
	if err != nil {
		return e, err
	}
	e.size = info.Size() - e.start
	return e, nil
}
