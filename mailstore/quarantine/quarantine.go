// Package quarantine holds mail for an administrator, outside every folder: each message once as a file, and a row in a
// database for each of its recipients.
package quarantine

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/files"
	"sluice/mailstore/state/database"
)

var _ mailstore.Quarantine = (*Quarantine)(nil)

// Errors that callers branch on.
var (
	ErrNotHeld  = errors.New("nothing of this id is held")
	ErrReleased = errors.New("released already")
	ErrBusy     = errors.New("being released by another program")
)

// A Config says where mail is held, and for how long.
type Config struct {
	// Dir is the folder, DATA/quarantine. It is made if need be; its parent must exist.
	Dir string `yaml:"-"`
	// Keep is how long mail is held; 0 is 30 days, less than 0, such as -1s, for ever.
	Keep time.Duration `yaml:"keep,negative"`
	// Log gets what nobody can be told; nil is slog.Default.
	Log *slog.Logger `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
}

const (
	orphanAge  = time.Hour        // files that belong to nobody for so long are left over from a crash
	claimAge   = 10 * time.Minute // a release that has not ended after so long has crashed
	batch      = 200              // rows that one transaction expires
	mostListed = 1000             // rows that List returns unless told
)

// A Quarantine is an open store. Several processes may have it open. Its methods may be called by any number of
// goroutines.
//
// A file is put in place, and taken away, only within a transaction that writes: no other process does either
// meanwhile, so a row's file is always there. A crash may leave files without rows, never rows without files.
type Quarantine struct {
	c    Config
	db   *database.DB
	disk disk
}

// A Row is one message held for one recipient.
type Row struct {
	ID          string // eight letters and digits
	SHA256      string
	Transaction string // the id of its record
	MessageID   string
	Subject     string
	Sender      string
	Size        int64 // octets of the content
	Received    time.Time
	Held        time.Time // when it came here
	Released    time.Time // zero while it is held

	mailstore.HeldRecipient

	releasing time.Time // when somebody began to release it; zero: nobody
}

// Open opens the store, makes it if need be, and removes files that a crash has left over.
func Open(ctx context.Context, c Config) (*Quarantine, error) { return open(ctx, c, files.Disk{}, nil) }

func open(ctx context.Context, c Config, disk disk, wrap func(driver.Connector) driver.Connector) (*Quarantine, error) {
	c.Keep = cmp.Or(c.Keep, 30*24*time.Hour)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	q := &Quarantine{c: c, disk: disk}
	for _, dir := range []string{c.Dir, q.tmpDir(), q.mailDir()} {
		if err := q.makeDir(dir); err != nil {
			return nil, fmt.Errorf("quarantine: %w", err)
		}
	}
	db, err := database.Open(ctx, database.Config{
		Path: filepath.Join(c.Dir, "quarantine.db"), Name: "quarantine", Migrations: migrations, Wrap: wrap,
	})
	if err != nil {
		return nil, err
	}
	q.db = db
	if err := q.clean(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("quarantine: remove what a crash has left: %w", err), db.Close())
	}
	return q, nil
}

func (q *Quarantine) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return q.disk.SyncDir(filepath.Dir(dir))
}

// Close releases the store.
func (q *Quarantine) Close() error { return q.db.Close() }

func (q *Quarantine) tmpDir() string            { return filepath.Join(q.c.Dir, "tmp") }
func (q *Quarantine) mailDir() string           { return filepath.Join(q.c.Dir, "mail") }
func (q *Quarantine) content(sum string) string { return filepath.Join(q.mailDir(), sum) }

// clean removes files that no row names and that are too old to belong to a Hold under way.
func (q *Quarantine) clean(ctx context.Context) error {
	before := q.c.Now().Add(-orphanAge)
	left, err := q.olderThan(q.tmpDir(), before)
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := q.remove(filepath.Join(q.tmpDir(), name)); err != nil {
			return err
		}
	}
	files, err := q.olderThan(q.mailDir(), before)
	if err != nil {
		return err
	}
	used, err := q.used(ctx)
	if err != nil {
		return err
	}
	for _, sum := range files {
		if used[sum] {
			continue
		}
		if err := q.removeUnused(ctx, sum); err != nil {
			return err
		}
	}
	return nil
}

func (q *Quarantine) olderThan(dir string, before time.Time) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() && info.ModTime().Before(before) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (q *Quarantine) used(ctx context.Context) (map[string]bool, error) {
	rows, err := q.db.QueryContext(ctx, selectFiles)
	if err != nil {
		return nil, q.db.Explain(err)
	}
	defer rows.Close()
	used := map[string]bool{}
	for rows.Next() {
		var sum string
		if err := rows.Scan(&sum); err != nil {
			return nil, q.db.Explain(err)
		}
		used[sum] = true
	}
	return used, q.db.Explain(rows.Err())
}

// removeUnused removes a message's file unless a row names it.
func (q *Quarantine) removeUnused(ctx context.Context, sum string) error {
	return q.db.Write(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, selectUsed, sum).Scan(&n); err != nil || n > 0 {
			return err
		}
		return q.remove(q.content(sum))
	})
}

// remove removes a file; one that is gone already is no error.
func (q *Quarantine) remove(path string) error {
	if err := q.disk.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Hold implements mailstore.Quarantine. Mail is the same if its SHA256 is: the content may differ in trace fields, the
// first one is kept. Without a SHA256 that of the content is taken. Mail that was released and comes again is held
// again, under the id it had.
func (q *Quarantine) Hold(ctx context.Context, m mailstore.Held) (ids []string, err error) {
	if len(m.Recipients) == 0 {
		return nil, errors.New("hold: for no recipient")
	}
	if m.SHA256 = strings.ToLower(m.SHA256); m.SHA256 != "" {
		if sum, err := hex.DecodeString(m.SHA256); err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("hold: %q is no SHA-256", m.SHA256)
		}
		if ids, err := q.holds(ctx, m); err != nil || ids != nil {
			return ids, err
		}
	}
	if m.Content == nil {
		return nil, errors.New("hold: without content")
	}
	tmp := filepath.Join(q.tmpDir(), "hold-"+rand.Text())
	sum, size, err := q.write(tmp, m.Content)
	placed := false
	if err == nil {
		m.SHA256 = cmp.Or(m.SHA256, sum)
		err = q.db.Write(ctx, func(tx *sql.Tx) error {
			if ids, err = q.insert(ctx, tx, m, size); err != nil {
				return err
			}
			placed = true
			return q.place(tmp, q.content(m.SHA256)) // last: little can fail after it
		})
	}
	if err == nil {
		return ids, nil
	}
	// Whatever has happened to ctx, nothing is left behind. A file that cannot be removed now is removed by the next Open.
	ctx = context.WithoutCancel(ctx)
	left := q.remove(tmp)
	if placed {
		left = errors.Join(left, q.removeUnused(ctx, m.SHA256))
	}
	if left != nil {
		q.c.Log.WarnContext(ctx, "a file is left over in quarantine", "dir", q.c.Dir, "err", left)
	}
	return nil, fmt.Errorf("hold: %w", err)
}

// holds returns the ids of m's rows if all of them are there, else nil.
func (q *Quarantine) holds(ctx context.Context, m mailstore.Held) (ids []string, err error) {
	for _, r := range m.Recipients {
		row, err := scanRow(q.db.QueryRowContext(ctx, selectSame, m.SHA256, text(r.Address)))
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, q.db.Explain(err)
		}
		if !row.Released.IsZero() {
			return nil, nil
		}
		ids = append(ids, row.ID)
	}
	if _, gone := os.Stat(q.content(m.SHA256)); gone != nil {
		return nil, nil //nolint:nilerr // somebody has taken it away: it is written anew
	}
	return ids, nil
}

// write writes a new file and returns its SHA-256 and size once it is on disk.
func (q *Quarantine) write(path string, content io.Reader) (sum string, size int64, err error) {
	f, err := q.disk.Create(path)
	if err != nil {
		return "", 0, err
	}
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, hash), content)
	if err == nil {
		err = f.Sync()
	}
	return hex.EncodeToString(hash.Sum(nil)), size, errors.Join(err, f.Close())
}

// place moves a message's file to where its rows say it is, unless it is there already. The caller is in a transaction
// that writes.
func (q *Quarantine) place(tmp, path string) error {
	_, err := os.Stat(path)
	switch {
	case err == nil:
		if err := q.remove(tmp); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := q.disk.Rename(tmp, path); err != nil {
			return err
		}
	default:
		return err
	}
	return q.disk.SyncDir(q.mailDir()) // also for a file that is there: who put it may have crashed before
}

func (q *Quarantine) insert(ctx context.Context, tx *sql.Tx, m mailstore.Held, size int64) (ids []string, err error) {
	now := micro(q.c.Now())
	for _, r := range m.Recipients {
		row, err := scanRow(tx.QueryRowContext(ctx, selectSame, m.SHA256, text(r.Address)))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			if row.ID, err = newID(ctx, tx); err != nil {
				return nil, err
			}
			_, err = tx.ExecContext(ctx, insertRow, row.ID, m.SHA256, text(r.Address), text(r.Account), text(r.Folder), text(r.Reason),
				text(m.ID), text(m.MessageID), text(m.Subject), text(m.Sender), size, micro(m.Received), now, 0, 0)
		case err == nil && !row.Released.IsZero():
			_, err = tx.ExecContext(ctx, holdAgain, row.ID, text(r.Account), text(r.Folder), text(r.Reason), text(m.ID), micro(m.Received), now)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, row.ID)
	}
	return ids, nil
}

// newID returns an id that no row has: easy to type, without letters that look alike or make words.
func newID(ctx context.Context, tx *sql.Tx) (string, error) {
	const alphabet = "23456789bcdfghjkmnpqrstvwxz"
	for {
		var id [8]byte
		for i := range id {
			for b := [1]byte{255}; ; {
				rand.Read(b[:]) // never fails
				if int(b[0]) < 256/len(alphabet)*len(alphabet) {
					id[i] = alphabet[int(b[0])%len(alphabet)]
					break
				}
			}
		}
		var n int
		if err := tx.QueryRowContext(ctx, selectID, string(id[:])).Scan(&n); err != nil || n == 0 {
			return string(id[:]), err
		}
	}
}

// text makes s a text that every database takes.
func text(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "") }

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

func scanRow(s database.Scanner) (Row, error) {
	var r Row
	var received, held, releasing, released int64
	err := s.Scan(&r.ID, &r.SHA256, &r.Address, &r.Account, &r.Folder, &r.Reason, &r.Transaction, &r.MessageID, &r.Subject, &r.Sender,
		&r.Size, &received, &held, &releasing, &released)
	r.Received, r.Held = fromMicro(received), fromMicro(held)
	r.releasing, r.Released = fromMicro(releasing), fromMicro(released)
	return r, err
}

func scanRows(rows *sql.Rows, err error) ([]Row, error) { return database.All(rows, err, scanRow) }

// A Filter says which rows to list. The zero Filter lists all that is held.
type Filter struct {
	Address  string    // of the recipient
	Account  string    // of the recipient
	Sender   string    //
	Since    time.Time // held then or later
	Released bool      // also what was released
	Limit    int       // 0 is 1000
	Offset   int       // rows to leave out first
}

// List returns what is held, the newest first.
func (q *Quarantine) List(ctx context.Context, f Filter) ([]Row, error) {
	released := 0
	if f.Released {
		released = 1
	}
	rows, err := scanRows(q.db.QueryContext(ctx, selectRows, f.Address, f.Account, f.Sender, micro(f.Since), released,
		cmp.Or(f.Limit, mostListed), f.Offset))
	return rows, q.db.Explain(err)
}

// Count returns how many rows wait for somebody: those that are not released.
func (q *Quarantine) Count(ctx context.Context) (n int, err error) {
	err = q.db.QueryRowContext(ctx, countRows).Scan(&n)
	return n, q.db.Explain(err)
}

// Show returns a row. Errors: ErrNotHeld.
func (q *Quarantine) Show(ctx context.Context, id string) (Row, error) {
	return q.show(ctx, q.db, id)
}

// Of returns the rows of a transaction, one for each recipient that its message is held for.
func (q *Quarantine) Of(ctx context.Context, transaction string) ([]Row, error) {
	rows, err := scanRows(q.db.QueryContext(ctx, selectOf, strings.ToLower(strings.TrimSpace(transaction)), mostListed))
	return rows, q.db.Explain(err)
}

func (q *Quarantine) show(ctx context.Context, from querier, id string) (Row, error) {
	id = strings.ToLower(strings.TrimSpace(id))
	r, err := scanRow(from.QueryRowContext(ctx, selectRow, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, fmt.Errorf("%q: %w; sluice quarantine list shows what is", id, ErrNotHeld)
	}
	return r, q.db.Explain(err)
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open returns a row with the message, as it was given to Hold. Errors: ErrNotHeld. Close the content after use.
func (q *Quarantine) Open(ctx context.Context, id string) (Row, io.ReadSeekCloser, error) {
	r, err := q.Show(ctx, id)
	if err != nil {
		return Row{}, nil, err
	}
	f, err := os.Open(q.content(r.SHA256))
	if err != nil {
		return Row{}, nil, fmt.Errorf("%s: its content cannot be read: %w", r.ID, err)
	}
	return r, f, nil
}

// Delete removes a row for good, and the message with its last row. Errors: ErrNotHeld.
func (q *Quarantine) Delete(ctx context.Context, id string) error {
	var r Row
	err := q.db.Write(ctx, func(tx *sql.Tx) (err error) {
		if r, err = q.show(ctx, tx, id); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, deleteRow, r.ID)
		return err
	})
	if err != nil {
		return err
	}
	if err := q.removeUnused(ctx, r.SHA256); err != nil {
		return fmt.Errorf("%s is deleted, its file is not yet: %w", r.ID, err)
	}
	return nil
}

// Expire removes what came here longer ago than Config.Keep, released or not, and returns it for the records. After an
// error what is returned is removed all the same.
func (q *Quarantine) Expire(ctx context.Context) (expired []Row, err error) {
	if q.c.Keep < 0 {
		return nil, nil
	}
	before := micro(q.c.Now().Add(-q.c.Keep))
	for {
		rows, err := q.expire(ctx, before)
		expired = append(expired, rows...)
		if err != nil || len(rows) < batch {
			return expired, err
		}
	}
}

func (q *Quarantine) expire(ctx context.Context, before int64) (rows []Row, err error) {
	err = q.db.Write(ctx, func(tx *sql.Tx) (err error) {
		if rows, err = scanRows(tx.QueryContext(ctx, selectOld, before, batch)); err != nil {
			return err
		}
		for _, r := range rows {
			if _, err := tx.ExecContext(ctx, deleteRow, r.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var sums []string
	for _, r := range rows {
		if !slices.Contains(sums, r.SHA256) {
			sums = append(sums, r.SHA256)
		}
	}
	for _, sum := range sums {
		if err := q.removeUnused(ctx, sum); err != nil {
			return rows, fmt.Errorf("expired, its file is not removed yet: %w", err)
		}
	}
	return rows, nil
}

// Release hands a held message to deliver and then marks its row as released; the row stays until it expires. deliver
// must return only when the mail is safe where it goes. After an error of deliver the message is held as before. A crash,
// or a failing disk, between delivery and mark leaves it held: releasing it again delivers it twice. It is never lost.
//
// Errors: ErrNotHeld, ErrReleased, ErrBusy, and what deliver says.
func (q *Quarantine) Release(ctx context.Context, id string, deliver func(ctx context.Context, r Row, content io.Reader) error) error {
	r, err := q.claim(ctx, id)
	if err != nil {
		return err
	}
	settled := context.WithoutCancel(ctx) // the row must not stay claimed, nor the mail be delivered twice
	if err := q.handOver(ctx, r, deliver); err != nil {
		return errors.Join(fmt.Errorf("release %s: %w", r.ID, err), q.set(settled, setReleasing, r.ID, time.Time{}))
	}
	if err := q.set(settled, setReleased, r.ID, q.c.Now()); err != nil {
		return fmt.Errorf("%s is delivered but still marked as held, do not release it again: %w", r.ID, err)
	}
	return nil
}

// claim keeps other processes from releasing a row.
func (q *Quarantine) claim(ctx context.Context, id string) (r Row, err error) {
	now := q.c.Now()
	err = q.db.Write(ctx, func(tx *sql.Tx) (err error) {
		if r, err = q.show(ctx, tx, id); err != nil {
			return err
		}
		if !r.Released.IsZero() {
			return fmt.Errorf("%s: %w, on %s", r.ID, ErrReleased, r.Released.Format(time.RFC1123))
		}
		if r.releasing.After(now.Add(-claimAge)) {
			return fmt.Errorf("%s: %w; if that has crashed, try again in %v", r.ID, ErrBusy, claimAge)
		}
		_, err = tx.ExecContext(ctx, setReleasing, r.ID, micro(now))
		return err
	})
	return r, err
}

func (q *Quarantine) handOver(ctx context.Context, r Row, deliver func(context.Context, Row, io.Reader) error) error {
	f, err := os.Open(q.content(r.SHA256))
	if err != nil {
		return fmt.Errorf("its content cannot be read: %w", err)
	}
	defer f.Close()
	return deliver(ctx, r, f)
}

func (q *Quarantine) set(ctx context.Context, statement, id string, at time.Time) error {
	return q.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, id, micro(at))
		return err
	})
}
