package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore/state/database/databasetest"
)

var tables = []string{`CREATE TABLE things (name TEXT NOT NULL PRIMARY KEY)`}

func openTest(t *testing.T, c Config) *DB {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "things.db")
	}
	if c.Migrations == nil {
		c.Migrations = tables
	}
	c.Name = "things"
	db, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func put(ctx context.Context, db *DB, name string) error {
	return db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO things (name) VALUES ($1)`, name)
		return err
	})
}

func mustPut(t *testing.T, db *DB, name string) {
	t.Helper()
	if err := put(t.Context(), db, name); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.QueryRow(`SELECT count(*) FROM things`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory.db", "a%20b.db", "a#b.db", "bücher.db", "a:b.db"} {
		path := filepath.Join(t.TempDir(), name)
		mustPut(t, openTest(t, Config{Path: path}), "x")
		info, err := os.Stat(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
		if n := count(t, openTest(t, Config{Path: path})); n != 1 {
			t.Errorf("%s: %d rows", name, n)
		}
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "things.db")
	mustPut(t, openTest(t, Config{Path: path}), "x")
	two := append(tables, `ALTER TABLE things ADD COLUMN size BIGINT NOT NULL DEFAULT 7; CREATE INDEX things_size ON things (size)`)

	_, err := Open(t.Context(), Config{Path: path, Name: "things", Migrations: append(two, "nonsense")})
	if want := "things in " + path + ": migration 3: SQL logic error: near \"nonsense\": syntax error (1)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	old := openTest(t, Config{Path: path}) // nothing of it has stayed
	_, err = Open(t.Context(), Config{Path: path, Name: "things", Migrations: two, ReadOnly: true})
	want := "its format is number 1, this program reads 2: start the server once, it brings the file up to date"
	if err == nil || err.Error() != "things in "+path+": "+want {
		t.Errorf("got %v, want %s", err, want)
	}
	db := openTest(t, Config{Path: path, Migrations: two})
	var size int
	if err := db.QueryRow(`SELECT size FROM things`).Scan(&size); err != nil || size != 7 {
		t.Errorf("%d, %v", size, err)
	}
	mustPut(t, old, "y") // a process of the older program goes on

	_, err = Open(t.Context(), Config{Path: path, Name: "things", Migrations: tables})
	want = "things in " + path + ": written by a newer program (its format is number 2, this program knows up to 1): use the newer program"
	if !errors.Is(err, ErrNewer) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestManyOpenANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "things.db")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			db, err := Open(t.Context(), Config{Path: path, Name: "things", Migrations: tables})
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			for j := range 5 {
				if err := put(t.Context(), db, fmt.Sprint(i, " ", j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, openTest(t, Config{Path: path})); n != 40 {
		t.Errorf("%d rows, want 40", n)
	}
}

func TestDamaged(t *testing.T) {
	const remedy = ": stop the server and put the file back from a backup, or move it away to begin anew"
	path := filepath.Join(t.TempDir(), "things.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Path: path, Name: "things", Migrations: tables})
	want := "things in " + path + ": the file is damaged (file is not a database (26))" + remedy
	if !errors.Is(err, ErrDamaged) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	// Pages in the middle are lost.
	path = filepath.Join(t.TempDir(), "things.db")
	db := openTest(t, Config{Path: path})
	for i := range 200 {
		mustPut(t, db, strings.Repeat(fmt.Sprint(i), 100))
	}
	if _, err := db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path) // closes a handle of this process: nobody else has a lock now
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ {
		b[i] = 0xa5
	}
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Config{Path: broken, Name: "things", Migrations: tables})
	if !errors.Is(err, ErrDamaged) || !strings.HasSuffix(err.Error(), remedy) {
		t.Errorf("got %v", err)
	}
}

func TestLocked(t *testing.T) {
	a := openTest(t, Config{})
	b := openTest(t, Config{Path: a.c.Path, Busy: 20 * time.Millisecond})
	err := a.Write(t.Context(), func(*sql.Tx) error {
		return put(t.Context(), b, "x")
	})
	want := "things in " + a.c.Path + ": locked by another program for more than 20ms (database is locked (5) (SQLITE_BUSY)): find what else has it open, then try again"
	if !errors.Is(err, ErrLocked) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	mustPut(t, b, "x")
	if err := a.Write(t.Context(), func(*sql.Tx) error {
		if n := count(t, b); n != 1 { // readers do not wait
			t.Errorf("%d rows", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "things.db")
	_, err := Open(t.Context(), Config{Path: path, Name: "things", Migrations: tables, ReadOnly: true})
	if want := "things: stat " + path + ": no such file or directory"; !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	db := openTest(t, Config{Path: path})
	reader := openTest(t, Config{Path: path, ReadOnly: true})
	mustPut(t, db, "x")
	if n := count(t, reader); n != 1 {
		t.Errorf("%d rows", n)
	}
	if err := put(t.Context(), reader, "y"); !errors.Is(err, ErrReadOnly) || err.Error() != "things in "+path+": opened for reading only" {
		t.Errorf("got %v", err)
	}
	if _, err := reader.Exec(`DELETE FROM things`); err == nil {
		t.Error("a handle for reading has written")
	}
}

func TestWriteUndoes(t *testing.T) {
	var faults databasetest.Faults
	db := openTest(t, Config{Wrap: faults.Wrap})
	mine := errors.New("mine")
	if err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (name) VALUES ('x')`)
		return errors.Join(err, mine)
	}); !errors.Is(err, mine) || err.Error() != "mine" {
		t.Errorf("got %v", err)
	}
	for n := 1; ; n++ {
		if got := count(t, db); got != 0 {
			t.Fatalf("after call %d failed: %d rows", n-1, got)
		}
		faults.FailAt(n)
		if err := put(t.Context(), db, "x"); err == nil {
			break
		} else if !errors.Is(err, databasetest.ErrFault) {
			t.Errorf("call %d: %v", n, err)
		}
	}
	faults.FailAt(0)
	err := put(t.Context(), db, "x")
	if !IsDuplicate(err) {
		t.Errorf("got %v", err)
	}
}

func TestWriteWaits(t *testing.T) {
	db := openTest(t, Config{})
	if err := db.Write(t.Context(), func(*sql.Tx) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := put(ctx, db, "x"); !errors.Is(err, context.Canceled) {
			t.Errorf("a writer whose context has ended: %v", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	mustPut(t, db, "x")
}

func TestWhenCommitsReachTheDisk(t *testing.T) {
	for lazy, want := range map[bool]int{false: 2, true: 1} { // FULL, NORMAL
		db := openTest(t, Config{Lazy: lazy})
		var held []*sql.Conn
		for range 4 { // every connection, not only the first
			c, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
			var sync int
			var mode string
			if err := c.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&sync); err != nil {
				t.Fatal(err)
			}
			if err := c.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode); err != nil {
				t.Fatal(err)
			}
			if sync != want || mode != "wal" {
				t.Errorf("lazy %v: synchronous %d, want %d; journal mode %s", lazy, sync, want, mode)
			}
		}
		for _, c := range held {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
