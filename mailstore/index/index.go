// Package index keeps what a Maildir cannot: the UIDs of messages, their modification sequences and keywords, and which
// UIDs have vanished. There is one SQLite file per account. It is a cache of the tree plus the UIDs; a lost one is made
// anew with larger UIDVALIDITYs.
//
// One process at a time may write an index. Every change is one transaction that survives a power cut once its call has
// returned.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// Errors that callers branch on.
var (
	ErrCorrupt = errors.New("index is damaged") // it has to be made anew
	ErrNewer   = errors.New("index was written by a newer version")
)

// keepVanished is how many vanished UIDs of a folder are remembered at least.
const keepVanished = 20_000

// A DB is the open index of one account. Its methods may be called by any number of goroutines.
type DB struct {
	db   *sql.DB
	path string
}

// A Folder is what the index knows of a folder. Its name is the one on disk.
type Folder struct {
	ID       int64
	Name     string
	Validity uint32
	Next     uint32 // the next UID
	ModSeq   uint64 // the highest one given
}

// A Message is what the index knows of a message.
type Message struct {
	UID      uint32
	File     string // unique name, without flags
	Flags    string // letters, as they stood in the file's name
	Keywords string // sorted, separated by spaces
	Size     int64  // with CRLF line ends
	Disk     int64  // as it lies on disk
	Date     time.Time
	ModSeq   uint64
}

// A Change is one change of a folder.
type Change struct {
	Folder int64
	Next   uint32    // the next UID after the change; 0 leaves it as it is
	ModSeq uint64    // the highest one after the change, and that of all that is removed; 0 leaves it as it is
	Add    []Message //
	Update []Message // Flags, Keywords and ModSeq, by UID
	Remove []uint32  // vanished
	Forget []uint32  // UIDs that nobody has seen, of additions that came to nothing
}

// Open opens the index in file path and brings its tables up to date, making both if there are none yet. The folder it
// lies in must exist. It returns [ErrCorrupt] for a file that is no index, [ErrNewer] for one it does not understand.
func Open(ctx context.Context, path string) (*DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	// SQLite would make a file that everybody may read; what lies beside it takes its mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		err = f.Close()
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	d := &DB{db: db, path: path}
	if err := d.migrate(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	return d, nil
}

// Close closes the index.
func (d *DB) Close() error { return d.db.Close() }

// Check looks for damage, ErrCorrupt. It reads the whole index.
func (d *DB) Check(ctx context.Context) error {
	var said string
	if err := d.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&said); err != nil {
		return fmt.Errorf("check index %s: %w", d.path, damage(err))
	}
	if said != "ok" {
		return fmt.Errorf("check index %s: %w: %s", d.path, ErrCorrupt, said)
	}
	return nil
}

// damage marks errors of SQLite that mean a damaged file, and says of those that do not say so that the disk is full.
func damage(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case 11, 26: // SQLITE_CORRUPT, SQLITE_NOTADB
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if e.Code() == 4874 { // SQLITE_IOERR_SHMSIZE: what processes share beside the file
		return fmt.Errorf("the disk is full: %w", err)
	}
	return err
}

// migrations are run in order, each once; their number is kept in the file.
var migrations = [...]string{
	1: `
CREATE TABLE account (
	id         INTEGER PRIMARY KEY CHECK (id = 1),
	generation INTEGER NOT NULL,
	validity   INTEGER NOT NULL
);
INSERT INTO account VALUES (1, 0, 0);
CREATE TABLE folders (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	name     TEXT NOT NULL UNIQUE,
	validity INTEGER NOT NULL,
	next     INTEGER NOT NULL,
	modseq   INTEGER NOT NULL,
	pruned   INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
	folder   INTEGER NOT NULL,
	uid      INTEGER NOT NULL,
	file     TEXT NOT NULL,
	flags    TEXT NOT NULL,
	keywords TEXT NOT NULL,
	size     INTEGER NOT NULL,
	disk     INTEGER NOT NULL,
	date     INTEGER NOT NULL,
	modseq   INTEGER NOT NULL,
	PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE TABLE vanished (
	folder INTEGER NOT NULL,
	uid    INTEGER NOT NULL,
	modseq INTEGER NOT NULL,
	PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE TABLE retired (
	name     TEXT PRIMARY KEY,
	validity INTEGER NOT NULL
);`,
}

func (d *DB) migrate(ctx context.Context) error {
	return d.do(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		if version >= len(migrations) {
			return fmt.Errorf("%w: it has tables of version %d, this program knows %d", ErrNewer, version, len(migrations)-1)
		}
		for v := version + 1; v < len(migrations); v++ {
			if _, err := tx.ExecContext(ctx, migrations[v]); err != nil {
				return fmt.Errorf("migration %d: %w", v, err)
			}
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", v)); err != nil {
				return fmt.Errorf("migration %d: %w", v, err)
			}
		}
		return nil
	})
}

// do runs f in a transaction.
func (d *DB) do(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return damage(err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return damage(err)
	}
	return damage(tx.Commit())
}

// Marks returns the generation of the index, 0 for a new one, and the largest UIDVALIDITY it knows to have been given.
func (d *DB) Marks(ctx context.Context) (generation uint64, validity uint32, err error) {
	var g int64
	err = d.db.QueryRowContext(ctx, `SELECT generation,
		max(validity, coalesce((SELECT max(validity) FROM folders), 0), coalesce((SELECT max(validity) FROM retired), 0))
		FROM account WHERE id = 1`).Scan(&g, &validity)
	if err != nil {
		return 0, 0, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	return uint64(g), validity, nil
}

// SetMarks writes what Marks returns.
func (d *DB) SetMarks(ctx context.Context, generation uint64, validity uint32) error {
	err := d.do(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE account SET generation = $1, validity = $2 WHERE id = 1",
			int64(generation), int64(validity))
		return err
	})
	if err != nil {
		return fmt.Errorf("write index %s: %w", d.path, err)
	}
	return nil
}

// Folders returns all folders.
func (d *DB) Folders(ctx context.Context) ([]Folder, error) {
	rows, err := d.db.QueryContext(ctx, "SELECT id, name, validity, next, modseq FROM folders ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	defer func() { _ = rows.Close() }()
	var list []Folder
	for rows.Next() {
		var f Folder
		if err := rows.Scan(&f.ID, &f.Name, &f.Validity, &f.Next, &f.ModSeq); err != nil {
			return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
		}
		list = append(list, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	return list, nil
}

// Folder returns the folder of a name; ok is false if there is none.
func (d *DB) Folder(ctx context.Context, name string) (f Folder, ok bool, err error) {
	err = d.db.QueryRowContext(ctx, "SELECT id, name, validity, next, modseq FROM folders WHERE name = $1", name).
		Scan(&f.ID, &f.Name, &f.Validity, &f.Next, &f.ModSeq)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Folder{}, false, nil
	case err != nil:
		return Folder{}, false, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	return f, true, nil
}

// AddFolder adds a folder with what is in it, and returns it with its ID. It replaces nothing: a name that is there
// already is an error.
func (d *DB) AddFolder(ctx context.Context, f Folder, messages []Message) (Folder, error) {
	err := d.do(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "INSERT INTO folders (name, validity, next, modseq) VALUES ($1, $2, $3, $4)",
			f.Name, int64(f.Validity), int64(f.Next), int64(f.ModSeq))
		if err != nil {
			return err
		}
		if f.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		return add(ctx, tx, f.ID, messages)
	})
	if err != nil {
		return Folder{}, fmt.Errorf("add folder %s to index %s: %w", f.Name, d.path, err)
	}
	return f, nil
}

// SetValidity gives a folder a new UIDVALIDITY.
func (d *DB) SetValidity(ctx context.Context, folder int64, validity uint32) error {
	err := d.do(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE folders SET validity = $1 WHERE id = $2", int64(validity), folder)
		return err
	})
	if err != nil {
		return fmt.Errorf("write index %s: %w", d.path, err)
	}
	return nil
}

// A Renaming is a folder that gets another name.
type Renaming struct{ From, To string }

// Rename gives folders other names, all or none. What it knew under a new name is retired. next is called for a new
// UIDVALIDITY where a folder that was called so before has had a larger one than the renamed folder brings.
func (d *DB) Rename(ctx context.Context, list []Renaming, next func() (uint32, error)) error {
	err := d.do(ctx, func(tx *sql.Tx) error {
		for _, r := range list {
			if err := drop(ctx, tx, r.To); err != nil {
				return err
			}
			var id, had, old int64
			err := tx.QueryRowContext(ctx, "SELECT id, validity FROM folders WHERE name = $1", r.From).Scan(&id, &had)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			err = tx.QueryRowContext(ctx, "SELECT coalesce(max(validity), 0) FROM retired WHERE name = $1", r.To).Scan(&old)
			if err != nil {
				return err
			}
			if err := retire(ctx, tx, r.From, had); err != nil {
				return err
			}
			if old >= had {
				v, err := next()
				if err != nil {
					return err
				}
				had = int64(v)
			}
			if _, err := tx.ExecContext(ctx, "UPDATE folders SET name = $1, validity = $2 WHERE id = $3", r.To, had, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rename folders in index %s: %w", d.path, err)
	}
	return nil
}

// Drop forgets a folder. Its UIDVALIDITY is remembered: see [DB.Marks].
func (d *DB) Drop(ctx context.Context, name string) error {
	if err := d.do(ctx, func(tx *sql.Tx) error { return drop(ctx, tx, name) }); err != nil {
		return fmt.Errorf("drop folder %s from index %s: %w", name, d.path, err)
	}
	return nil
}

func drop(ctx context.Context, tx *sql.Tx, name string) error {
	var id, validity int64
	err := tx.QueryRowContext(ctx, "SELECT id, validity FROM folders WHERE name = $1", name).Scan(&id, &validity)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, q := range []string{
		"DELETE FROM messages WHERE folder = $1", "DELETE FROM vanished WHERE folder = $1", "DELETE FROM folders WHERE id = $1",
	} {
		if _, err := tx.ExecContext(ctx, q, id); err != nil {
			return err
		}
	}
	return retire(ctx, tx, name, validity)
}

func retire(ctx context.Context, tx *sql.Tx, name string, validity int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO retired (name, validity) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET validity = max(retired.validity, excluded.validity)`, name, validity)
	return err
}

// Messages returns all messages of a folder by rising UID.
func (d *DB) Messages(ctx context.Context, folder int64) ([]Message, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT uid, file, flags, keywords, size, disk, date, modseq
		FROM messages WHERE folder = $1 ORDER BY uid`, folder)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	defer func() { _ = rows.Close() }()
	var list []Message
	for rows.Next() {
		var m Message
		var date int64
		if err := rows.Scan(&m.UID, &m.File, &m.Flags, &m.Keywords, &m.Size, &m.Disk, &date, &m.ModSeq); err != nil {
			return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
		}
		m.Date = time.Unix(0, date)
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	return list, nil
}

// Apply makes changes, all or none.
func (d *DB) Apply(ctx context.Context, changes ...Change) error {
	// A caller that goes away in the middle must not leave the tree changed and the index not.
	ctx = context.WithoutCancel(ctx)
	err := d.do(ctx, func(tx *sql.Tx) error {
		for _, c := range changes {
			if err := apply(ctx, tx, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write index %s: %w", d.path, err)
	}
	return nil
}

func apply(ctx context.Context, tx *sql.Tx, c Change) error {
	if c.Next != 0 || c.ModSeq != 0 {
		_, err := tx.ExecContext(ctx, "UPDATE folders SET next = max(next, $1), modseq = max(modseq, $2) WHERE id = $3",
			int64(c.Next), int64(c.ModSeq), c.Folder)
		if err != nil {
			return err
		}
	}
	if err := add(ctx, tx, c.Folder, c.Add); err != nil {
		return err
	}
	if len(c.Update) > 0 {
		stmt, err := tx.PrepareContext(ctx,
			"UPDATE messages SET flags = $1, keywords = $2, modseq = $3 WHERE folder = $4 AND uid = $5")
		if err != nil {
			return err
		}
		defer func() { _ = stmt.Close() }()
		for _, m := range c.Update {
			if _, err := stmt.ExecContext(ctx, m.Flags, m.Keywords, int64(m.ModSeq), c.Folder, int64(m.UID)); err != nil {
				return err
			}
		}
	}
	if err := each(ctx, tx, "DELETE FROM messages WHERE folder = $1 AND uid = $2", c.Folder, c.Forget); err != nil {
		return err
	}
	if len(c.Remove) == 0 {
		return nil
	}
	if err := each(ctx, tx, "DELETE FROM messages WHERE folder = $1 AND uid = $2", c.Folder, c.Remove); err != nil {
		return err
	}
	stmt, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO vanished (folder, uid, modseq) VALUES ($1, $2, $3)")
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	for _, uid := range c.Remove {
		if _, err := stmt.ExecContext(ctx, c.Folder, int64(uid), int64(c.ModSeq)); err != nil {
			return err
		}
	}
	return prune(ctx, tx, c.Folder)
}

func add(ctx context.Context, tx *sql.Tx, folder int64, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	// Many rows a statement: taking over a large folder is mostly the cost of calls.
	const most, columns = 50, 9
	one := "(?" + strings.Repeat(", ?", columns-1) + ")"
	const head = "INSERT INTO messages (folder, uid, file, flags, keywords, size, disk, date, modseq) VALUES "
	full := head + one + strings.Repeat(", "+one, most-1)
	for len(messages) > 0 {
		n := min(most, len(messages))
		args := make([]any, 0, n*columns)
		for _, m := range messages[:n] {
			args = append(args, folder, int64(m.UID), m.File, m.Flags, m.Keywords, m.Size, m.Disk, m.Date.UnixNano(), int64(m.ModSeq))
		}
		q := full
		if n < most {
			q = head + one + strings.Repeat(", "+one, n-1)
		}
		if _, err := tx.ExecContext(ctx, q, args...); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func each(ctx context.Context, tx *sql.Tx, query string, folder int64, uids []uint32) error {
	if len(uids) == 0 {
		return nil
	}
	stmt, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	for _, uid := range uids {
		if _, err := stmt.ExecContext(ctx, folder, int64(uid)); err != nil {
			return err
		}
	}
	return nil
}

// prune forgets the oldest vanished UIDs once there are twice as many as are kept.
func prune(ctx context.Context, tx *sql.Tx, folder int64) error {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM vanished WHERE folder = $1", folder).Scan(&n); err != nil {
		return err
	}
	if n < 2*keepVanished {
		return nil
	}
	var upto int64
	err := tx.QueryRowContext(ctx, "SELECT modseq FROM vanished WHERE folder = $1 ORDER BY modseq DESC LIMIT 1 OFFSET $2",
		folder, keepVanished).Scan(&upto)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM vanished WHERE folder = $1 AND modseq <= $2", folder, upto); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE folders SET pruned = max(pruned, $1) WHERE id = $2", upto, folder)
	return err
}

// Vanished returns the UIDs that vanished from a folder after modification sequence since, rising. all is false if some
// that old have been forgotten; the UIDs below Next that are not in the folder are then the answer.
func (d *DB) Vanished(ctx context.Context, folder int64, since uint64) (uids []uint32, all bool, err error) {
	var pruned int64
	if err := d.db.QueryRowContext(ctx, "SELECT pruned FROM folders WHERE id = $1", folder).Scan(&pruned); err != nil {
		return nil, false, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	rows, err := d.db.QueryContext(ctx, "SELECT uid FROM vanished WHERE folder = $1 AND modseq > $2 ORDER BY uid",
		folder, int64(since))
	if err != nil {
		return nil, false, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var uid uint32
		if err := rows.Scan(&uid); err != nil {
			return nil, false, fmt.Errorf("read index %s: %w", d.path, damage(err))
		}
		uids = append(uids, uid)
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("read index %s: %w", d.path, damage(err))
	}
	return uids, uint64(pruned) <= since, nil
}
