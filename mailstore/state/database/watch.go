package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// It differs after another connection has committed. (SQLite; elsewhere: a row that a trigger counts in.)
const selectVersion = `PRAGMA data_version`

// A Watch tells on one connection whether others have written. It asks the driver itself: database/sql would double what
// that costs, and it is asked for each mail. One goroutine at a time may use it, and the connection.
type Watch struct {
	conn *sql.Conn
	stmt driver.Stmt
}

// NewWatch returns a Watch on a connection. The caller closes it before the connection.
func NewWatch(ctx context.Context, conn *sql.Conn) (*Watch, error) {
	w := &Watch{conn: conn}
	return w, conn.Raw(func(c any) (err error) {
		w.stmt, err = c.(driver.ConnPrepareContext).PrepareContext(ctx, selectVersion)
		return err
	})
}

// Version returns a number that differs from before if another connection has committed meanwhile. Numbers of one Watch
// only may be compared.
func (w *Watch) Version() (n int64, err error) {
	err = w.conn.Raw(func(any) (err error) {
		rows, err := w.stmt.(driver.StmtQueryContext).QueryContext(context.Background(), nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		row := make([]driver.Value, 1)
		if err := rows.Next(row); err != nil {
			return err
		}
		var ok bool
		if n, ok = row[0].(int64); !ok {
			return fmt.Errorf("%s says %v", selectVersion, row[0])
		}
		return nil
	})
	return n, err
}

// Close ends the Watch.
func (w *Watch) Close() error {
	if w.stmt == nil {
		return nil
	}
	return w.conn.Raw(func(any) error { return w.stmt.Close() })
}
