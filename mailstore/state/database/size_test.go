package database

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestShrink(t *testing.T) {
	for name, shrinks := range map[string]bool{"a file that shrinks": true, "a file that does not": false} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			db := openTest(t, Config{
				Path: filepath.Join(t.TempDir(), "x.db"), Shrinks: shrinks, Migrations: []string{"CREATE TABLE large (text TEXT NOT NULL)"},
			})
			err := db.Write(ctx, func(tx *sql.Tx) error {
				for range 64 {
					if _, err := tx.ExecContext(ctx, "INSERT INTO large VALUES ($1)", strings.Repeat("x", 16<<10)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			full, _, err := db.Size(ctx)
			if err != nil || full < 1<<20 {
				t.Fatalf("%d octets, %v", full, err)
			}
			if _, err := db.ExecContext(ctx, "DELETE FROM large"); err != nil {
				t.Fatal(err)
			}
			used, free, err := db.Size(ctx)
			if err != nil || used > full/8 || free < full/2 {
				t.Fatalf("%d used, %d free, %v", used, free, err)
			}
			if err := db.Shrink(ctx, 64<<10); err != nil {
				t.Fatal(err)
			}
			_, some, err := db.Size(ctx)
			if gone := free - some; err != nil || shrinks != (gone >= 64<<10) || gone > 128<<10 {
				t.Errorf("%d octets given back, %v", gone, err)
			}
			if err := db.Compact(ctx); err != nil {
				t.Fatal(err)
			}
			if _, left, err := db.Size(ctx); err != nil || left != 0 {
				t.Errorf("%d octets free after all, %v", left, err)
			}
		})
	}
}

// A connection that is opened while another one writes reads at once.
func TestReadersOfAFileThatShrinks(t *testing.T) {
	ctx := t.Context()
	db := openTest(t, Config{Shrinks: true, Busy: 20 * time.Millisecond})
	if err := db.Write(ctx, func(*sql.Tx) error {
		for range 3 {
			fresh, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer fresh.Close() // the next one is another
			var n int
			if err := fresh.QueryRowContext(ctx, "SELECT count(*) FROM things").Scan(&n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
