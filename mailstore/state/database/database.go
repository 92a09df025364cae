// Package database opens the small SQL databases of the mail store: one file each, embedded SQLite behind database/sql,
// shared by several processes. Callers keep their SQL to what SQLite and PostgreSQL both run, with parameters $1, $2 …
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors that callers branch on. What Open, Write and Explain return wraps them.
var (
	ErrDamaged  = errors.New("the file is damaged")
	ErrLocked   = errors.New("locked by another program")
	ErrNewer    = errors.New("written by a newer program")
	ErrReadOnly = errors.New("opened for reading only")
)

// A Config says what to open.
type Config struct {
	// Path is the file. Its folder must exist. A file that does not exist is made, with mode 0600.
	Path string
	// Name is what messages call the database: "accounts".
	Name string
	// Migrations make the tables, each from what the one before left. The first is number 1. They are only ever
	// appended to.
	Migrations []string
	// ReadOnly opens what is there, changes nothing and makes nothing. Without a file the error wraps fs.ErrNotExist.
	ReadOnly bool
	// Lazy leaves it to the system when a commit reaches the disk: a power cut may take the last ones, in order, and
	// damages nothing. Without it a commit that has returned survives.
	Lazy bool
	// Shrinks lets the file shrink once rows are removed: see [DB.Shrink]. It counts for a file that is new.
	Shrinks bool
	// Busy is how long to wait for another process that is writing. 0 is 5 s.
	Busy time.Duration
	// Wrap, if not nil, stands between database/sql and the driver: tests let calls fail there.
	Wrap func(driver.Connector) driver.Connector
}

// A DB is an open database. Its methods may be called by any number of goroutines.
type DB struct {
	*sql.DB
	c Config
	// One transaction of this process writes at a time: waiting here is fair and cheap, SQLite's own waiting polls.
	writer chan struct{}
}

// Open opens the database, makes it if need be and brings its tables up to date. An error names the database and the
// file, and says what to do where something can be done.
func Open(ctx context.Context, c Config) (*DB, error) {
	if c.Busy == 0 {
		c.Busy = 5 * time.Second
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", c.Name, c.Path, err)
	}
	c.Path = path
	if err := prepare(c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	var connector driver.Connector = dialer{dsn(c)}
	if c.Wrap != nil {
		connector = c.Wrap(connector)
	}
	db := &DB{DB: sql.OpenDB(connector), c: c, writer: make(chan struct{}, 1)}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	if err := db.start(ctx); err != nil {
		var known explained
		if err = db.Explain(err); !errors.As(err, &known) {
			err = explained{fmt.Errorf("%s in %s: %w", c.Name, c.Path, err)}
		}
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// prepare makes an empty file. An existing one is not opened here: closing it would drop the locks that other handles
// of this process hold on it.
func prepare(c Config) error {
	if c.ReadOnly {
		_, err := os.Stat(c.Path)
		return err
	}
	f, err := os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(c.Path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func dsn(c Config) string {
	q := url.Values{
		"mode":          {"rw"}, // prepare has made it
		"_busy_timeout": {fmt.Sprint(c.Busy.Milliseconds())},
		"_txlock":       {"immediate"}, // a transaction that begins by reading could not become a writer safely
		"_dqs":          {"0"},
		"_synchronous":  {"FULL"},
	}
	if c.Lazy {
		q.Set("_synchronous", "NORMAL")
	}
	if c.ReadOnly {
		q.Set("_query_only", "1")
	}
	u := url.URL{Scheme: "file", Path: c.Path, RawQuery: q.Encode()}
	return u.String()
}

// A dialer opens connections to one database without the global registry of drivers.
type dialer struct{ dsn string }

func (d dialer) Connect(context.Context) (driver.Conn, error) { return (&sqlite.Driver{}).Open(d.dsn) }
func (d dialer) Driver() driver.Driver                        { return &sqlite.Driver{} }

// start checks what is there and migrates it.
func (db *DB) start(ctx context.Context) error {
	have, err := db.version(ctx, db)
	if err != nil {
		return err
	}
	know := len(db.c.Migrations)
	if have > know {
		return fmt.Errorf("%w (its format is number %d, this program knows up to %d): use the newer program", ErrNewer, have, know)
	}
	if db.c.ReadOnly {
		if have < know {
			return fmt.Errorf("its format is number %d, this program reads %d: start the server once, it brings the file up to date",
				have, know)
		}
		return nil
	}
	if err := db.logAhead(ctx, have == 0); err != nil {
		return err
	}
	if have == know {
		return nil
	}
	return db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, createMigrations); err != nil {
			return err
		}
		have, err := db.version(ctx, tx) // again: another process may have been faster
		if err != nil {
			return err
		}
		for n := have + 1; n <= know; n++ {
			if _, err := tx.ExecContext(ctx, db.c.Migrations[n-1]); err != nil {
				return fmt.Errorf("migration %d: %w", n, err)
			}
			if _, err := tx.ExecContext(ctx, insertMigration, n); err != nil {
				return fmt.Errorf("migration %d: %w", n, err)
			}
		}
		return nil
	})
}

// logAhead turns on the write-ahead log, which stays on. While two processes do it to a new file, SQLite refuses one of
// them without waiting.
func (db *DB) logAhead(ctx context.Context, empty bool) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // back into the pool
	for end := time.Now().Add(db.c.Busy); ; {
		var err error
		if db.c.Shrinks && empty {
			// Incremental; before there is anything in the file, and not again: SQLite takes it for a change, which waits
			// for whoever writes.
			_, err = conn.ExecContext(ctx, "PRAGMA auto_vacuum = 2")
		}
		var mode string
		if err == nil {
			err = conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		}
		if err == nil && mode != "wal" {
			return fmt.Errorf("the file system offers no write-ahead log (journal mode %s): keep the data on a local disk", mode)
		}
		if !isBusy(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

const (
	createMigrations = `CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY)`
	insertMigration  = `INSERT INTO migrations (number) VALUES ($1)`
	selectMigration  = `SELECT coalesce(max(number), 0) FROM migrations`
	findMigrations   = `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'migrations'`
)

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (db *DB) version(ctx context.Context, q querier) (n int, err error) {
	if err := q.QueryRowContext(ctx, findMigrations).Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	err = q.QueryRowContext(ctx, selectMigration).Scan(&n)
	return n, err
}

// Write runs f in a transaction that no other writer, of any process, runs beside: what f reads stays true until it has
// written. An error of f undoes everything. The error of the database is explained.
func (db *DB) Write(ctx context.Context, f func(tx *sql.Tx) error) error {
	if db.c.ReadOnly {
		return fmt.Errorf("%s in %s: %w", db.c.Name, db.c.Path, ErrReadOnly)
	}
	select {
	case db.writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.writer }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return db.Explain(err)
	}
	if err := f(tx); err != nil {
		return errors.Join(db.Explain(err), ignoreDone(tx.Rollback()))
	}
	return db.Explain(tx.Commit())
}

// ignoreDone: a transaction whose context ended has been rolled back already; one whose rollback fails is closed with
// its connection, which undoes it too.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) || isCode(err, sqlite3.SQLITE_ERROR) {
		return nil
	}
	return err
}

// Explain says which database an error of it is about, and for the common ones in plain words what is the matter and
// what helps. Other errors, and those explained already, come back as they are.
func (db *DB) Explain(err error) error {
	var known explained
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	where := fmt.Sprintf("%s in %s", db.c.Name, db.c.Path)
	switch {
	case isCode(err, sqlite3.SQLITE_NOTADB), isCode(err, sqlite3.SQLITE_CORRUPT):
		err = fmt.Errorf("%s: %w (%w): stop the server and put the file back from a backup, or move it away to begin anew",
			where, ErrDamaged, err)
	case isBusy(err):
		err = fmt.Errorf("%s: %w for more than %v (%w): find what else has it open, then try again", where, ErrLocked, db.c.Busy, err)
	case isCode(err, sqlite3.SQLITE_FULL), isShort(err):
		err = fmt.Errorf("%s: the disk is full (%w)", where, err)
	case isCode(err, sqlite3.SQLITE_READONLY), isCode(err, sqlite3.SQLITE_CANTOPEN), isCode(err, sqlite3.SQLITE_PERM):
		err = fmt.Errorf("%s: not writable for this user (%w): run as the user who owns the data", where, err)
	case errors.Is(err, ErrNewer), isAnyCode(err):
		err = fmt.Errorf("%s: %w", where, err)
	default:
		return err
	}
	return explained{err}
}

type explained struct{ error }

func (e explained) Unwrap() error { return e.error }

func isBusy(err error) bool {
	return isCode(err, sqlite3.SQLITE_BUSY) || isCode(err, sqlite3.SQLITE_LOCKED)
}

// isShort reports whether there was no room for what processes share beside the file.
func isShort(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE
}

func isAnyCode(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e)
}

func isCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == code // the rest is detail
}

// IsDuplicate reports whether err says that a row with this key is there already.
func IsDuplicate(err error) bool { return isCode(err, sqlite3.SQLITE_CONSTRAINT) }
