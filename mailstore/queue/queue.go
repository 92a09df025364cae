// Package queue keeps mail that is to leave: each message once as a file, a row in a database for each of its recipients,
// and in memory what is due when. It keeps trying for as long as it is told, and tells senders of ours when it gives up.
package queue

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/files"
	"sluice/mailstore/state/database"
)

var (
	_ mailstore.Outbox = (*Queue)(nil)
	_ mailstore.Queue  = (*Queue)(nil)
)

// Errors that callers branch on.
var (
	ErrNotQueued = errors.New("nothing of this id is in the queue")
	ErrEnded     = errors.New("it has left the queue")
	ErrBusy      = errors.New("it is being sent right now")
	ErrClosed    = errors.New("the queue is closed")
)

// A Config says where mail waits, how long, and how much of it.
type Config struct {
	// Dir is the folder, DATA/queue. It is made if need be; its parent must exist.
	Dir string `yaml:"-"`
	// Age is how long a mail is tried before it goes back to its sender, counted from when it was queued or last released.
	// 0 is 5 days (RFC 5321, 4.5.4.1).
	Age time.Duration `yaml:"age"`
	// Warn is after how long its sender is told that a mail is still waiting; less than 0, such as -1s, never. 0 is 4 hours.
	Warn time.Duration `yaml:"warn,negative"`
	// Backoff is how long to wait after the first, the second … attempt that has failed for now; the last stands for all
	// that follow. Each is made up to an eighth longer or shorter, so that mail queued together does not come together.
	Backoff []time.Duration `yaml:"backoff"`
	// Messages is how many may wait; beyond it no more are taken, and whoever brings them keeps them. 0 is 100,000.
	Messages int `yaml:"messages"`
	// Octets is how much they may take on disk, with the one that comes. 0 is 10 GiB.
	Octets int64 `yaml:"octets"`
	// PerAccount is how many of them one account may have. 0 is 10,000.
	PerAccount int `yaml:"per_account"`
	// Keep is how long what has left is remembered for `sluice queue list --all` and `sluice explain`; less than 0, such as
	// -1s, not at all. 0 is 7 days.
	Keep time.Duration `yaml:"keep,negative"`
	// KeepMessages is how many are remembered at most. 0 is 100,000.
	KeepMessages int `yaml:"keep_messages"`
	// ReportSize is how many octets of a mail a failure report brings back; of a larger one it brings the header. 0 is
	// 1 MiB.
	ReportSize int64 `yaml:"report_size"`
	// DoubleBounces is the address that is told of mail which has failed and has no sender to be told, such as a report.
	// Default: nobody; the log says it.
	DoubleBounces string `yaml:"double_bounces" example:"postmaster@example.org"`

	// Hostname is the name of this machine in reports.
	Hostname string `yaml:"-"`
	// Local reports whether the mail of an address comes to an account of ours: only such senders are sent reports. An error
	// is temporary. nil is nobody.
	Local func(ctx context.Context, address string) (bool, error) `yaml:"-"`
	// Sign puts signatures on a report, where there are any; nil: there are none.
	Sign func(mail []byte) []byte `yaml:"-"`
	// Log gets what nobody can be told; nil is slog.Default.
	Log *slog.Logger `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
}

// DefaultConfig returns what Open takes for fields that are zero.
func DefaultConfig() Config {
	return Config{
		Age: 5 * 24 * time.Hour, Warn: 4 * time.Hour,
		Backoff: []time.Duration{
			5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
		},
		Messages: 100_000, Octets: 10 << 30, PerAccount: 10_000, Keep: 7 * 24 * time.Hour, KeepMessages: 100_000,
		ReportSize: 1 << 20,
	}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	c.Age, c.Warn, c.Keep = cmp.Or(c.Age, d.Age), cmp.Or(c.Warn, d.Warn), cmp.Or(c.Keep, d.Keep)
	if len(c.Backoff) == 0 {
		c.Backoff = d.Backoff
	}
	c.Messages, c.Octets = cmp.Or(c.Messages, d.Messages), cmp.Or(c.Octets, d.Octets)
	c.PerAccount, c.KeepMessages = cmp.Or(c.PerAccount, d.PerAccount), cmp.Or(c.KeepMessages, d.KeepMessages)
	c.ReportSize = cmp.Or(c.ReportSize, d.ReportSize)
	c.Hostname = cmp.Or(c.Hostname, "localhost")
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// A Queue is an open queue. One process may have it open; others look with [OpenReader]. Its methods may be called by any
// number of goroutines.
//
// A message's file is on disk before its rows are, and is removed after they say that it has ended: a crash may leave
// files that no row names, which the next Open removes, never rows without files.
type Queue struct {
	*Reader
	c    Config
	disk disk

	mu       sync.Mutex
	alive    map[string]*message
	schedule schedule
	usage    usage // of alive, and of what is staged
	stats    Stats
	last     int64 // the time when Take was last asked

	wake   chan struct{}
	owing  chan struct{} // a report is owed
	ops    chan *op
	stop   chan struct{}
	often  statements
	filing sync.Mutex
	// managing is held from what an operator has written to what memory makes of it: two orders at once end in one order.
	managing sync.Mutex
	writers  sync.WaitGroup // the goroutines that Close waits for
	close    func() error
}

// A message is what is known in memory of one that is alive.
type message struct {
	id, account string
	start, size int64 // of the content in its file
	queued      int64
	held        bool
	jobs        []*job
}

func (m *message) job(domain string) *job {
	for _, j := range m.jobs {
		if j.domain == domain {
			return j
		}
	}
	return nil
}

// Usage is what is in the queue, or will be.
type usage struct {
	messages int
	octets   int64
	accounts map[string]int
}

func (u *usage) add(account string, size int64) {
	u.messages++
	u.octets += size
	if account != "" {
		u.accounts[account]++
	}
}

func (u *usage) remove(account string, size int64) {
	u.messages--
	u.octets -= size
	if account == "" {
		return
	}
	if u.accounts[account]--; u.accounts[account] <= 0 {
		delete(u.accounts, account)
	}
}

// Open opens the queue, makes it if need be, forgets what was staged and not released, and starts the goroutines that
// write and that file reports; Close ends them.
func Open(ctx context.Context, c Config) (*Queue, error) { return open(ctx, c, files.Disk{}, nil) }

func open(ctx context.Context, c Config, disk disk, wrap func(driver.Connector) driver.Connector) (*Queue, error) {
	c = c.withDefaults()
	q := &Queue{
		c: c, disk: disk, alive: map[string]*message{}, schedule: newSchedule(), usage: usage{accounts: map[string]int{}},
		wake: make(chan struct{}, 1), owing: make(chan struct{}, 1), ops: make(chan *op), stop: make(chan struct{}),
	}
	for _, dir := range []string{c.Dir, mailDir(c.Dir)} {
		if err := q.makeDir(dir); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
	}
	db, err := database.Open(ctx, database.Config{
		Path: databasePath(c.Dir), Name: "queue", Migrations: migrations, Shrinks: true, Wrap: wrap,
	})
	if err != nil {
		return nil, err
	}
	q.Reader = &Reader{dir: c.Dir, db: db}
	q.close = sync.OnceValue(func() error {
		close(q.stop)
		q.writers.Wait()
		return errors.Join(q.often.close(), db.Close())
	})
	if err := q.often.prepare(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("queue: %w", db.Explain(err)), db.Close())
	}
	if err := q.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("queue: %w", err), db.Close())
	}
	owing, err := database.Words(db.QueryContext(ctx, selectOwing)) //nolint:rowserrcheck // Words checks
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue: %w", db.Explain(err)), db.Close())
	}
	if len(owing) > 0 { // from before a crash
		signal(q.owing)
	}
	q.writers.Go(q.write)     // until stop is closed, in Close
	q.writers.Go(q.fileOwing) // the same
	return q, nil
}

func databasePath(dir string) string { return filepath.Join(dir, "queue.db") }
func mailDir(dir string) string      { return filepath.Join(dir, "mail") }

func (q *Queue) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return q.disk.SyncDir(filepath.Dir(dir))
}

// Close releases the queue. What was taken and not settled is taken again after the next Open.
func (q *Queue) Close() error { return q.close() }

// start reads what is alive, and puts files and rows in agreement.
func (q *Queue) start(ctx context.Context) error {
	now := micro(q.c.Now())
	err := q.db.Write(ctx, func(tx *sql.Tx) error { return q.bringForward(ctx, tx, now) })
	if err != nil {
		return err
	}
	if err := q.load(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(mailDir(q.c.Dir))
	if err != nil {
		return err
	}
	files := make(map[string]bool, len(entries))
	for _, e := range entries {
		files[e.Name()] = true
	}
	for id := range q.alive {
		if !files[id] {
			q.c.Log.ErrorContext(ctx, "the content of a queued mail is gone; its sender is told that it has failed", "queued", id,
				"file", q.path(id))
		}
	}
	var known int
	if err := q.db.QueryRowContext(ctx, countRows).Scan(&known); err != nil {
		return q.db.Explain(err)
	}
	for name := range files {
		if q.alive[name] != nil {
			continue
		}
		if known == 0 && len(name) == len(idPrefix)+idLength { // its entry went with the database
			err = q.recover(ctx, name)
		} else {
			err = q.remove(name) // staged, or ended, when the program did
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load reads what is alive.
func (q *Queue) load(ctx context.Context) error {
	rows, err := q.db.QueryContext(ctx, selectAlive)
	if err != nil {
		return q.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var m message
		var held string
		if err := rows.Scan(&m.id, &m.account, &m.start, &m.size, &m.queued, &held); err != nil {
			return q.db.Explain(err)
		}
		m.held = held != ""
		q.alive[m.id] = &m
		q.usage.add(m.account, m.size)
	}
	if err := rows.Err(); err != nil {
		return q.db.Explain(err)
	}
	return q.loadDue(ctx)
}

func (q *Queue) loadDue(ctx context.Context) error {
	return q.eachDue(ctx, func(id, domain string, due int64) { q.enlist(q.alive[id], domain, due) })
}

// eachDue calls f with what waits, and since when or until when.
func (q *Queue) eachDue(ctx context.Context, f func(id, domain string, due int64)) error {
	rows, err := q.db.QueryContext(ctx, selectDue)
	if err != nil {
		return q.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, domain string
		var due int64
		if err := rows.Scan(&id, &domain, &due); err != nil {
			return q.db.Explain(err)
		}
		f(id, domain, due)
	}
	return q.db.Explain(rows.Err())
}

// enlist makes a job of a message that is alive. The caller holds mu, or is alone.
func (q *Queue) enlist(m *message, domain string, due int64) {
	j := &job{m: m, domain: domain, due: due, at: -1}
	m.jobs = append(m.jobs, j)
	if !m.held {
		q.schedule.add(j)
	}
}

// remove removes a message's file; one that is gone already is no error.
func (q *Queue) remove(id string) error {
	if err := q.disk.Remove(q.path(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forget drops a message that has ended, with its file. A file that stays is removed by the next Open.
func (q *Queue) forget(id string) {
	q.mu.Lock()
	m := q.alive[id]
	if m != nil {
		delete(q.alive, id)
		q.usage.remove(m.account, m.size)
		for _, j := range m.jobs {
			q.schedule.remove(j)
		}
	}
	q.mu.Unlock()
	if err := q.remove(id); err != nil {
		q.c.Log.Warn("a file is left over in the queue", "file", q.path(id), "err", err)
	}
}

// Wake implements mailstore.Queue.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled already
	}
}

// An op is a change of the database that waits to be written with others.
type op struct {
	do   func(ctx context.Context, tx *sql.Tx) error
	done chan error
}

// together is how many changes one transaction may carry.
const together = 256

// commit has a change written, with those of others, and returns once it would survive a power cut. do may be run twice,
// the first time undone. Once begun it does not end with ctx, so that its outcome is known.
func (q *Queue) commit(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	o := &op{do: do, done: make(chan error, 1)}
	select {
	case q.ops <- o:
		return <-o.done
	case <-ctx.Done():
		return ctx.Err()
	case <-q.stop:
		return ErrClosed
	}
}

// write is the one goroutine that writes.
func (q *Queue) write() {
	ctx := context.Background() // whoever waits wants to know
	for {
		var batch []*op
		select {
		case o := <-q.ops:
			batch = append(batch, o)
		case <-q.stop:
			return
		}
	more:
		for len(batch) < together {
			select {
			case o := <-q.ops:
				batch = append(batch, o)
			default:
				break more
			}
		}
		q.writeBatch(ctx, batch)
	}
}

func (q *Queue) writeBatch(ctx context.Context, batch []*op) {
	err := q.db.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range batch {
			if err := o.do(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && len(batch) > 1 { // it may be the fault of one
		for _, o := range batch {
			q.writeBatch(ctx, []*op{o})
		}
		return
	}
	for _, o := range batch {
		o.done <- err
	}
}
