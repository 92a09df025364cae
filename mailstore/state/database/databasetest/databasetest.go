// Package databasetest lets calls to a database fail, for tests of what holds afterwards.
package databasetest

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
)

// ErrFault is what calls fail with.
var ErrFault = errors.New("the disk said no")

// Faults makes calls to a database fail: statements, BEGIN and COMMIT. Use its Wrap as database.Config.Wrap. The zero Faults lets everything through.
type Faults struct {
	mu    sync.Mutex
	calls int
	done  int // commits that succeeded
	at    int // the call to fail; 0: none
	all   bool
	block chan struct{}
}

// FailAt makes the n-th call from now on fail, once; 0 none.
func (f *Faults) FailAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at, f.all = 0, n, false
}

// FailAll makes every call fail, or none any more.
func (f *Faults) FailAll(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at, f.all = 0, 0, on
}

// Hold makes every call wait until the returned function is called.
func (f *Faults) Hold() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	block := make(chan struct{})
	f.block = block
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.block = nil
		close(block)
	})
}

// Calls returns how many calls there have been since FailAt or FailAll.
func (f *Faults) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Commits returns how many transactions have been committed, in all.
func (f *Faults) Commits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

func (f *Faults) call() error {
	f.mu.Lock()
	block := f.block
	f.mu.Unlock()
	if block != nil {
		<-block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.all || f.calls == f.at {
		return ErrFault
	}
	return nil
}

// Wrap returns c with faults.
func (f *Faults) Wrap(c driver.Connector) driver.Connector { return connector{c, f} }

type connector struct {
	driver.Connector
	f *Faults
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	x, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{x.(full), c.f}, nil
}

// full is what the driver offers and database/sql makes use of.
type full interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

type conn struct {
	full
	f *Faults
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.f.call(); err != nil {
		return nil, err
	}
	return c.full.ExecContext(ctx, query, args)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.f.call(); err != nil {
		return nil, err
	}
	return c.full.QueryContext(ctx, query, args)
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.f.call(); err != nil {
		return nil, err
	}
	t, err := c.full.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return tx{t, c.f}, nil
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.full.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{s.(fullStmt), c.f}, nil
}

type fullStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type stmt struct {
	fullStmt
	f *Faults
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.f.call(); err != nil {
		return nil, err
	}
	return s.fullStmt.ExecContext(ctx, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.f.call(); err != nil {
		return nil, err
	}
	return s.fullStmt.QueryContext(ctx, args)
}

type tx struct {
	driver.Tx
	f *Faults
}

// Commit that fails has undone the transaction, as the real one's does.
func (t tx) Commit() error {
	if err := t.f.call(); err != nil {
		return errors.Join(err, t.Tx.Rollback())
	}
	err := t.Tx.Commit()
	if err == nil {
		t.f.mu.Lock()
		defer t.f.mu.Unlock()
		t.f.done++
	}
	return err
}
