package index

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"sluice/mailstore/state/database/databasetest"
)

// connector makes connections to an open index's file with the driver that it has.
type connector struct {
	driver driver.Driver
	dsn    string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

// The n-th call to the database fails, in each change: the index is as it was, and the change can be made again.
func TestNthCallFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(ctx context.Context, d *DB, f Folder) error
	}{
		{"AddFolder", func(ctx context.Context, d *DB, _ Folder) error {
			_, err := d.AddFolder(ctx, Folder{Name: ".new", Validity: 7, Next: 3, ModSeq: 1}, []Message{message(1, 1), message(2, 1)})
			return err
		}},
		{"Apply", func(ctx context.Context, d *DB, f Folder) error {
			return d.Apply(ctx, Change{
				Folder: f.ID, ModSeq: 5, Next: 9, Add: []Message{message(8, 5)}, Remove: []uint32{1},
				Update: []Message{{UID: 2, Flags: "S", Keywords: "k", ModSeq: 5}},
			})
		}},
		{"Rename", func(ctx context.Context, d *DB, _ Folder) error {
			next := func() (uint32, error) { return 99, nil }
			return d.Rename(ctx, []Renaming{{From: ".a", To: ".b"}}, next)
		}},
		{"SetMarks", func(ctx context.Context, d *DB, _ Folder) error { return d.SetMarks(ctx, 5, 6) }},
		{"Drop", func(ctx context.Context, d *DB, _ Folder) error { return d.Drop(ctx, ".a") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dump := func(d *DB) string {
				generation, validity, err := d.Marks(t.Context())
				check(t, err)
				out := fmt.Sprintln(generation, validity)
				for _, name := range []string{".a", ".b", ".new"} {
					f, ok, err := d.Folder(t.Context(), name)
					check(t, err)
					if !ok {
						continue
					}
					list, err := d.Messages(t.Context(), f.ID)
					check(t, err)
					out += fmt.Sprintf("%+v %+v\n", f, list)
				}
				return out
			}
			var want string // after the change
			for n := 1; ; n++ {
				path := filepath.Join(t.TempDir(), "index.db")
				plain := open(t, path)
				f, err := plain.AddFolder(t.Context(), Folder{Name: ".a", Validity: 1, Next: 3, ModSeq: 1}, []Message{message(1, 1), message(2, 1)})
				check(t, err)
				if want == "" {
					other := open(t, filepath.Join(t.TempDir(), "index.db"))
					f, err := other.AddFolder(t.Context(), Folder{Name: ".a", Validity: 1, Next: 3, ModSeq: 1}, []Message{message(1, 1), message(2, 1)})
					check(t, err)
					check(t, tt.change(t.Context(), other, f))
					want = "after: " + dump(other)
				}
				before := dump(plain)
				check(t, plain.Close())

				var faults databasetest.Faults
				d := &DB{path: path, db: sql.OpenDB(faults.Wrap(connector{plain.db.Driver(), "file:" + path + "?_txlock=immediate"}))}
				d.db.SetMaxOpenConns(1)
				faults.FailAt(n)
				err = tt.change(t.Context(), d, f)
				failed := faults.Calls() >= n
				faults.FailAt(0)
				if failed {
					if !errors.Is(err, databasetest.ErrFault) {
						t.Errorf("call %d fails: %v", n, err)
					}
					if errors.Is(err, ErrCorrupt) {
						t.Errorf("call %d fails, and passes for damage", n)
					}
					equal(t, fmt.Sprintf("index after call %d failed", n), dump(d), before)
					err = tt.change(t.Context(), d, f)
				}
				check(t, err)
				equal(t, fmt.Sprintf("index in the end, call %d", n), "after: "+dump(d), want)
				check(t, d.db.Close())
				if !failed {
					if n < 3 {
						t.Error("nothing failed")
					}
					return
				}
			}
		})
	}
}
