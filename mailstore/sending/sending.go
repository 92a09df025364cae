package sending

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

// A Config says where the counts are kept, and what follows from them.
type Config struct {
	// Path is the file, DATA/sending.db. It is made if need be.
	Path string
	// ReadOnly opens what is there, and changes nothing.
	ReadOnly bool
	// Limits returns the limits of now; nil: there are none.
	Limits func() Policy
	// Tell tells an administrator that mail of an account is held from now on. It is called once; after an error it is
	// called again with the next message of the account. nil: nobody is told.
	Tell func(ctx context.Context, s Standing) error
	Log  *slog.Logger     // nil: slog.Default
	Now  func() time.Time // nil: time.Now
}

// A State is what an account may do.
type State string

const (
	Free    State = ""        // send, within the limits
	Held    State = "held"    // hand mail in, and it is held
	Blocked State = "blocked" // nothing: an administrator has said so
)

// A Standing is how an account stands.
type Standing struct {
	Account string
	State   State
	Since   time.Time // of State, if it is not Free
	Why     string
	Records []string // transactions whose records show why, the newest first
	// Slowed is when its mail leaves that is slowed, in the future; the zero time if none is. Slow says why.
	Slowed time.Time
	Slow   string
	Counts []Count
}

// A Count is how much of a limit is used up.
type Count struct {
	Name  string // as configurations write it: "messages_per_hour"
	What  string // "messages in an hour"
	Used  int
	Bound Bound
	// From is whose limit it is: the account's, "@example.org" of all its domain; "" everybody's.
	From string
}

// Sending counts what accounts send. Several processes may have it open. Its methods may be called by any number of
// goroutines.
type Sending struct {
	c       Config
	db      *database.DB
	telling sync.Mutex
}

// Open opens the counts.
func Open(ctx context.Context, c Config) (*Sending, error) { return open(ctx, c, nil) }

func open(ctx context.Context, c Config, wrap func(driver.Connector) driver.Connector) (*Sending, error) {
	if c.Limits == nil {
		c.Limits = func() Policy { return Policy{} }
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	db, err := database.Open(ctx, database.Config{
		Path: c.Path, Name: "what accounts send", Migrations: migrations, ReadOnly: c.ReadOnly, Wrap: wrap,
	})
	if err != nil {
		return nil, err
	}
	return &Sending{c: c, db: db}, nil
}

// Close releases the file.
func (s *Sending) Close() error { return s.db.Close() }

// mostRecords is how many transactions a standing names.
const mostRecords = 10

// row is a standing as it is kept.
type row struct {
	state        State
	since        int64
	why, records string
	told         bool
	next, slowed int64
	slow         string
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func standing(ctx context.Context, q querier, account string) (r row, err error) {
	err = q.QueryRowContext(ctx, selectStanding, account).Scan(&r.state, &r.since, &r.why, &r.records, &r.told, &r.next, &r.slowed, &r.slow)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return r, err
}

// Blocked implements mailstore.Submitters: an administrator has said that the account sends nothing.
func (s *Sending) Blocked(ctx context.Context, account string) (why string, err error) {
	r, err := standing(ctx, s.db, account)
	if err != nil || r.state != Blocked {
		return "", s.db.Explain(err)
	}
	if r.why == "" {
		return "an administrator has blocked it", nil
	}
	return r.why, nil
}

// Reserve implements mailstore.Submitters.
func (s *Sending) Reserve(ctx context.Context, m mailstore.Sending) (pace mailstore.Pace, err error) {
	now := s.c.Now()
	limits := s.c.Limits().of(m.Account)
	var slow string
	var tell bool
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		pace, slow, tell = mailstore.Pace{}, "", false
		r, err := standing(ctx, tx, m.Account)
		if err != nil {
			return err
		}
		if r.state != Free { // a thief's mail is not worth a row each
			pace.Hold, tell = r.why, !r.told && r.state == Held
			return nil
		}
		if err := s.add(ctx, tx, m, now); err != nil {
			return err
		}
		v, err := judge(ctx, tx, m, limits, now)
		if err != nil {
			return err
		}
		if v.hold != "" {
			pace.Hold, tell = v.hold, true
			return s.holdNow(ctx, tx, m.Account, v.hold, now)
		}
		if v.slow == "" {
			return nil
		}
		next := max(r.next, now.UnixMicro()) + v.wait.Microseconds()
		next = min(next, now.Add(day).UnixMicro())
		pace.NotBefore, pace.Why = time.UnixMicro(next), v.slow
		said := r.slowed
		if now.Sub(time.UnixMicro(said)) > hour {
			slow, said = v.slow, now.UnixMicro()
		}
		_, err = tx.ExecContext(ctx, upsertSlow, m.Account, next, said, v.slow)
		return err
	})
	if err != nil {
		return mailstore.Pace{}, err
	}
	if slow != "" {
		s.c.Log.WarnContext(ctx, "an account sends much, and is slowed", "account", m.Account, "why", slow, "id", m.ID)
	}
	if tell {
		s.tell(ctx, m.Account)
	}
	return pace, nil
}

// add counts a message, and forgets those of more than a day ago.
func (s *Sending) add(ctx context.Context, tx *sql.Tx, m mailstore.Sending, now time.Time) error {
	if err := prune(ctx, tx, m.Account, now); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, insertSent, m.Account, m.ID, now.UnixMicro(), network(m.Client), len(m.Recipients)); err != nil {
		return err
	}
	named, err := tx.PrepareContext(ctx, upsertNamed)
	if err != nil {
		return err
	}
	defer func() { _ = named.Close() }() // the transaction closes it, too
	for _, a := range m.Recipients {
		sum := sha256.Sum256([]byte(strings.ToLower(a)))
		if _, err := named.ExecContext(ctx, m.Account, hex.EncodeToString(sum[:8]), now.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

func prune(ctx context.Context, tx *sql.Tx, account string, now time.Time) error {
	for _, statement := range []string{pruneSent, pruneNamed, pruneFailed} {
		if _, err := tx.ExecContext(ctx, statement, account, now.Add(-day).UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// network is where a client is, as far as one household or one company goes.
func network(a netip.Addr) string {
	a = a.Unmap()
	if !a.IsValid() {
		return ""
	}
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// counted counts what is used up of a limit.
func counted(ctx context.Context, q querier, account string, l limit, now time.Time) (n int, err error) {
	since := now.Add(-l.window).UnixMicro()
	var messages, recipients int
	switch l.name {
	case "messages_per_hour", "messages_per_day":
		err = q.QueryRowContext(ctx, countSent, account, since).Scan(&messages, &recipients)
		return messages, err
	case "recipients_per_hour", "recipients_per_day":
		err = q.QueryRowContext(ctx, countSent, account, since).Scan(&messages, &recipients)
		return recipients, err
	case "different_per_day":
		err = q.QueryRowContext(ctx, countNamed, account, since).Scan(&n)
	case "failed_per_day":
		err = q.QueryRowContext(ctx, countFailed, account, since).Scan(&n)
	case "networks_per_day":
		err = q.QueryRowContext(ctx, countNetworks, account, since).Scan(&n)
	}
	return n, err
}

// A judgement is what the limits say of an account.
type judgement struct {
	hold string
	slow string
	wait time.Duration // for the message just counted
}

// judge looks at all limits. Of those that say slow, the one counts that makes the message wait longest.
func judge(ctx context.Context, q querier, m mailstore.Sending, limits []limit, now time.Time) (j judgement, err error) {
	for _, l := range limits {
		if l.bound == (Bound{}) {
			continue
		}
		n, err := counted(ctx, q, m.Account, l, now)
		if err != nil {
			return j, err
		}
		if l.bound.Hold > 0 && n > l.bound.Hold {
			j.hold = fmt.Sprintf("%d %s, more than %d (%s.hold)", n, l.what, l.bound.Hold, l.setting())
			return j, nil
		}
		if l.bound.Slow <= 0 || n <= l.bound.Slow {
			continue
		}
		units := 1
		if strings.HasPrefix(l.name, "recipients") {
			units = len(m.Recipients)
		}
		wait := l.window / time.Duration(l.bound.Slow) * time.Duration(units)
		if j.slow == "" || wait > j.wait {
			j.wait = wait
			j.slow = fmt.Sprintf("%d %s, more than %d (%s.slow)", n, l.what, l.bound.Slow, l.setting())
		}
	}
	return j, nil
}

// holdNow writes down that mail of an account is held.
func (s *Sending) holdNow(ctx context.Context, tx *sql.Tx, account, why string, now time.Time) error {
	rows, err := tx.QueryContext(ctx, selectRecords, account, mostRecords)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, upsertState, account, Held, now.UnixMicro(), why, strings.Join(ids, " "))
	return err
}

// tell tells an administrator of an account that is held, unless that is done.
func (s *Sending) tell(ctx context.Context, account string) {
	s.telling.Lock()
	defer s.telling.Unlock()
	r, err := standing(ctx, s.db, account)
	if err == nil && (r.state != Held || r.told) {
		return
	}
	x := r.standing(account)
	if err == nil && s.c.Tell != nil {
		err = s.c.Tell(ctx, x)
	}
	if err == nil {
		err = s.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, updateTold, account, r.since)
			return err
		})
	}
	s.c.Log.WarnContext(ctx, "an account sends like one whose password was stolen: its mail is held",
		"account", account, "why", x.Why, "records", strings.Join(x.Records, " "))
	if err != nil {
		s.c.Log.ErrorContext(ctx, "the postmaster was not told of an account that is held", "account", account, "err", s.db.Explain(err))
	}
}

func (r row) standing(account string) Standing {
	x := Standing{Account: account, State: r.state, Why: r.why, Records: strings.Fields(r.records)}
	if r.state != Free {
		x.Since = time.UnixMicro(r.since)
	}
	return x
}

// Cancel implements mailstore.Submitters.
func (s *Sending) Cancel(ctx context.Context, m mailstore.Sending) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, deleteSent, m.Account, m.ID)
		return err
	})
}

// Failed implements mailstore.Submitters. Too many of them hold the account's mail at once.
func (s *Sending) Failed(ctx context.Context, m mailstore.Sending) error {
	now := s.c.Now()
	limits := s.c.Limits().of(m.Account)
	held := false
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		held = false
		r, err := standing(ctx, tx, m.Account)
		if err != nil || r.state != Free {
			return err
		}
		if err := prune(ctx, tx, m.Account, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, upsertFailed, m.Account, m.ID, now.UnixMicro(), len(m.Recipients)); err != nil {
			return err
		}
		v, err := judge(ctx, tx, m, limits, now)
		if err != nil || v.hold == "" {
			return err
		}
		held = true
		return s.holdNow(ctx, tx, m.Account, v.hold, now)
	})
	if err == nil && held {
		s.tell(ctx, m.Account)
	}
	return err
}

// Standing returns how an account stands.
func (s *Sending) Standing(ctx context.Context, account string) (Standing, error) {
	r, err := standing(ctx, s.db, account)
	if err != nil {
		return Standing{}, s.db.Explain(err)
	}
	x, now := r.standing(account), s.c.Now()
	if next := time.UnixMicro(r.next); next.After(now) {
		x.Slowed, x.Slow = next, r.slow
	}
	for _, l := range s.c.Limits().of(account) {
		n, err := counted(ctx, s.db, account, l, now)
		if err != nil {
			return Standing{}, s.db.Explain(err)
		}
		x.Counts = append(x.Counts, l.count(n))
	}
	return x, nil
}

// Stopped returns the accounts that are held or blocked, by name.
func (s *Sending) Stopped(ctx context.Context) (accounts []string, err error) {
	rows, err := s.db.QueryContext(ctx, selectStandings)
	if err != nil {
		return nil, s.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var a string
		if err := rows.Scan(&a); err != nil {
			return nil, s.db.Explain(err)
		}
		accounts = append(accounts, a)
	}
	return accounts, s.db.Explain(rows.Err())
}

// Block keeps an account from sending until Release.
func (s *Sending) Block(ctx context.Context, account, why string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, upsertState, account, Blocked, s.c.Now().UnixMicro(), why, "")
		return err
	})
}

// Release lets an account send again, and begins to count anew. Mail of it that is held is not touched.
func (s *Sending) Release(ctx context.Context, account string) error { return s.forget(ctx, account) }

// Forget forgets an account that is no more.
func (s *Sending) Forget(ctx context.Context, account string) error { return s.forget(ctx, account) }

func (s *Sending) forget(ctx context.Context, account string) error {
	later := s.c.Now().Add(100 * 365 * day).UnixMicro()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, statement := range []string{pruneSent, pruneNamed, pruneFailed} {
			if _, err := tx.ExecContext(ctx, statement, account, later); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, deleteStanding, account)
		return err
	})
}
