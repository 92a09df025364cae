package journal

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"sluice/mailstore/state/database"
)

// A handle is the database behind a journal. Another one can take its place while it is in use: what has begun ends on the
// one it began on.
type handle struct{ now atomic.Pointer[opened] }

// An opened is a database, with the statements that every batch needs once they were read: reading them costs as much as
// writing ten records. They are for the one goroutine that writes batches.
type opened struct {
	*database.DB
	insert, recipient *sql.Stmt
}

func newHandle(db *database.DB) *handle {
	h := &handle{}
	h.now.Store(&opened{DB: db})
	return h
}

// replace has what begins from now on use another database, and closes the one before.
func (h *handle) replace(db *database.DB) error { return h.now.Swap(&opened{DB: db}).Close() }

// put writes a batch.
func (h *handle) put(ctx context.Context, flight []entry) error {
	o := h.now.Load()
	if err := o.prepare(ctx); err != nil {
		return o.Explain(err)
	}
	return o.Write(ctx, func(tx *sql.Tx) error {
		insert := tx.StmtContext(ctx, o.insert)
		defer insert.Close()
		recipient := tx.StmtContext(ctx, o.recipient)
		defer recipient.Close()
		return put(ctx, tx, insert, recipient, flight)
	})
}

func (o *opened) prepare(ctx context.Context) (err error) {
	if o.insert == nil {
		if o.insert, err = o.PrepareContext(ctx, insertRecord); err != nil {
			return err
		}
	}
	if o.recipient == nil {
		o.recipient, err = o.PrepareContext(ctx, insertRecipient)
	}
	return err
}

// Close closes the statements with their database.
func (o *opened) Close() error {
	var errs []error
	for _, s := range []*sql.Stmt{o.insert, o.recipient} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, o.DB.Close())...)
}

func (h *handle) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return h.now.Load().QueryContext(ctx, query, args...)
}

func (h *handle) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return h.now.Load().QueryRowContext(ctx, query, args...)
}

func (h *handle) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return h.now.Load().ExecContext(ctx, query, args...)
}

func (h *handle) Write(ctx context.Context, f func(tx *sql.Tx) error) error {
	return h.now.Load().Write(ctx, f)
}

func (h *handle) Size(ctx context.Context) (used, free int64, err error) {
	return h.now.Load().Size(ctx)
}

func (h *handle) Shrink(ctx context.Context, octets int64) error {
	return h.now.Load().Shrink(ctx, octets)
}

func (h *handle) Compact(ctx context.Context) error { return h.now.Load().Compact(ctx) }

func (h *handle) Explain(err error) error { return h.now.Load().Explain(err) }

func (h *handle) Close() error { return h.now.Load().Close() }
