package database

import (
	"context"
	"database/sql"
	"fmt"
)

// Size returns how many octets of the file hold something, and how many more are free for what comes.
func (db *DB) Size(ctx context.Context) (used, free int64, err error) {
	var page, pages, unused int64
	for _, x := range []struct {
		pragma string
		to     *int64
	}{{"page_size", &page}, {"page_count", &pages}, {"freelist_count", &unused}} {
		if err := db.QueryRowContext(ctx, "PRAGMA "+x.pragma).Scan(x.to); err != nil {
			return 0, 0, db.Explain(err)
		}
	}
	return (pages - unused) * page, unused * page, nil
}

// Shrink gives up to so many octets that are free back to the file system. It takes about as long as writing them would,
// and others wait meanwhile: call it again for more. A file that was made without [Config.Shrinks] stays as large as it is;
// what is free in it is used again.
func (db *DB) Shrink(ctx context.Context, octets int64) error {
	return db.Write(ctx, func(tx *sql.Tx) error {
		var page int64
		if err := tx.QueryRowContext(ctx, "PRAGMA page_size").Scan(&page); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", max(octets/page, 1)))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() { // each row is a page less
		}
		return rows.Err()
	})
}

// Compact writes the whole file anew, without what is free in it. Nobody else can write meanwhile, and there has to be
// room for another copy of it.
func (db *DB) Compact(ctx context.Context) error {
	select {
	case db.writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.writer }()
	_, err := db.ExecContext(ctx, "VACUUM")
	return db.Explain(err)
}
