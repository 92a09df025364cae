package queue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

// A Reader looks into a queue, also into one that another process has open.
type Reader struct {
	dir string
	db  *database.DB
}

// OpenReader opens a queue for looking. Where there is none the error wraps fs.ErrNotExist.
func OpenReader(ctx context.Context, dir string) (*Reader, error) {
	db, err := database.Open(ctx, database.Config{Path: databasePath(dir), Name: "queue", Migrations: migrations, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &Reader{dir: dir, db: db}, nil
}

// Close releases the file.
func (r *Reader) Close() error { return r.db.Close() }

// A Message is one message, waiting or gone.
type Message struct {
	ID          string
	Transaction string // the id of its record
	Account     string
	Why         string
	Sender      string
	EnvelopeID  string
	Return      string
	UTF8        bool
	EightBit    bool
	Forwarded   bool
	Size        int64 // octets of the content
	Queued      time.Time
	Held        string    // why it is held; "" it is not
	Ended       time.Time // when it left the queue; zero: it is here
	Recipients  []Recipient

	start int64 // where in its file the content begins
	since time.Time
}

// GivenUp returns when a message is given up that has not left by then, where it is tried for so long.
func (m Message) GivenUp(age time.Duration) time.Time { return m.since.Add(age) }

// States of a recipient.
const (
	Waiting   = "waiting"
	Delivered = "delivered"
	Relayed   = "relayed" // to a server that reports nothing
	Passed    = "passed"  // to a server that reports by itself
	Failed    = "failed"
	Expired   = "expired"
	Deleted   = "deleted"
	Held      = "held" // of a message: its recipients wait
)

// States returns the words that a [Filter] knows.
func States() []string {
	return []string{Waiting, Held, Delivered, Relayed, Passed, Failed, Expired, Deleted}
}

// A Recipient is one recipient of a message.
type Recipient struct {
	Number int
	mailstore.OutgoingRecipient
	Domain   string
	State    string
	Due      time.Time // the next attempt, while it waits
	Attempts int
	Tried    time.Time // the last attempt
	Host     string    // that answered last
	Reply    string
	Status   string
	How      string
	Delayed  time.Time // when its sender was told that it is late
	owed     string    // "failure", "delay", "success": a report that is not filed yet
}

// Owed returns which report about the recipient is not on its way yet: "failure", "delay", "success" or "".
func (r Recipient) Owed() string { return r.owed }

// Answered reports whether Reply is a server's, not what we say of one that has not answered.
func (r Recipient) Answered() bool {
	code, _, _ := strings.Cut(r.Reply, " ")
	return len(code) >= 3 && code[0] >= '2' && code[0] <= '5' && code[1] >= '0' && code[1] <= '9' && code[2] >= '0' && code[2] <= '9' &&
		(len(code) == 3 || code[3] == '-' || code[3] == '\n')
}

// A Filter says which messages to list. The zero Filter lists all that are in the queue.
type Filter struct {
	Account     string
	Sender      string
	Why         string // what Why begins with
	Domain      string // of a recipient, or the whole address
	State       string // of the message or a recipient: one of States
	Transaction string
	All         bool // also what has left
	Limit       int  // 0 is 1000
	After       *Message
}

// List returns messages, the oldest first.
func (r *Reader) List(ctx context.Context, f Filter) ([]Message, error) {
	var queued int64
	id := ""
	if f.After != nil {
		queued, id = micro(f.After.Queued), f.After.ID
	}
	why := ""
	if f.Why != "" {
		why = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(f.Why) + "%"
	}
	all := 0
	if f.All {
		all = 1
	}
	list, err := scanMessages(r.db.QueryContext(ctx, selectList, f.Account, f.Sender, why, f.Domain, f.State, f.Transaction, all,
		queued, id, cmp.Or(f.Limit, 1000)))
	if err != nil {
		return nil, r.db.Explain(err)
	}
	for i := range list {
		if list[i].Recipients, err = r.recipients(ctx, list[i].ID); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Show returns a message. Errors: ErrNotQueued.
func (r *Reader) Show(ctx context.Context, id string) (Message, error) {
	id = strings.ToLower(strings.TrimSpace(id))
	m, err := scanMessage(r.db.QueryRowContext(ctx, selectMessage, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Message{}, fmt.Errorf("%q: %w; sluice queue list shows what is", id, ErrNotQueued)
	}
	if err != nil {
		return Message{}, r.db.Explain(err)
	}
	m.Recipients, err = r.recipients(ctx, id)
	return m, err
}

func (r *Reader) recipients(ctx context.Context, id string) ([]Recipient, error) {
	all, err := scanRecipients(r.db.QueryContext(ctx, selectRecipients, id))
	return all, r.db.Explain(err)
}

func scanMessage(s database.Scanner) (m Message, err error) {
	var utf8, eightBit, forwarded, queued, since, ended int64
	err = s.Scan(&m.ID, &m.Transaction, &m.Account, &m.Why, &m.Sender, &m.EnvelopeID, &m.Return, &utf8, &eightBit, &forwarded,
		&m.start, &m.Size, &queued, &since, &m.Held, &ended)
	m.UTF8, m.EightBit, m.Forwarded = utf8 != 0, eightBit != 0, forwarded != 0
	m.Queued, m.since, m.Ended = fromMicro(queued), fromMicro(since), fromMicro(ended)
	return m, err
}

func scanMessages(rows *sql.Rows, err error) ([]Message, error) {
	return database.All(rows, err, scanMessage)
}

func scanRecipients(rows *sql.Rows, err error) ([]Recipient, error) {
	return database.All(rows, err, scanRecipient)
}

func scanRecipient(s database.Scanner) (r Recipient, err error) {
	var message, notify string
	var due, tried, delayed int64
	err = s.Scan(&message, &r.Number, &r.Address, &r.Domain, &notify, &r.Original, &r.State, &due, &r.Attempts, &tried,
		&r.Host, &r.Reply, &r.Status, &r.How, &delayed, &r.owed)
	if notify != "" {
		r.Notify = strings.Split(notify, ",")
	}
	r.Due, r.Tried, r.Delayed = fromMicro(due), fromMicro(tried), fromMicro(delayed)
	return r, err
}

// wants reports whether a sender wants to hear of something: "success", "failure" or "delay" (RFC 3461, 4.1).
func wants(notify []string, what string) bool {
	if len(notify) == 0 {
		return what != "success"
	}
	return slices.Contains(notify, what)
}

// text makes s a text that every database takes.
func text(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "") }

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
