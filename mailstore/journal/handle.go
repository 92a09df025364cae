package journal

import (
	"context"
	"database/sql"
	"sync/atomic"

	"sluice/mailstore/state/database"
)

// A handle is the database behind a journal. Another one can take its place while it is in use: what has begun ends on the
// one it began on.
type handle struct{ now atomic.Pointer[database.DB] }

func newHandle(db *database.DB) *handle {
	h := &handle{}
	h.now.Store(db)
	return h
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
