package queue

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

// Stats say what is in the queue, and what became of what was.
type Stats struct {
	Messages int // in the queue, with what is staged
	Held     int
	Octets   int64
	Oldest   time.Time // when the oldest of them was queued; zero: there is none

	// Since Open.
	Queued                                                          uint64 // messages
	Delivered, Relayed, Passed, Postponed, Failed, Expired, Deleted uint64 // recipients; Postponed counts attempts
	Reports                                                         uint64 // filed
}

func (s *Stats) count(r result) {
	switch r.state {
	case Delivered:
		s.Delivered++
	case Relayed:
		s.Relayed++
	case Passed:
		s.Passed++
	case Failed:
		s.Failed++
	case Expired:
		s.Expired++
	case Waiting:
		if r.Outcome == mailstore.Postponed {
			s.Postponed++
		}
	}
}

// Stats returns how the queue does.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Messages, s.Octets = q.usage.messages, q.usage.octets
	var oldest int64
	for _, m := range q.alive {
		if m.held {
			s.Held++
		}
		if oldest == 0 || m.queued < oldest {
			oldest = m.queued
		}
	}
	s.Oldest = fromMicro(oldest)
	return s
}

// find returns a message that is alive. The caller holds mu. Errors: ErrNotQueued, ErrEnded.
func (q *Queue) find(ctx context.Context, id string) (*message, error) {
	id = strings.ToLower(strings.TrimSpace(id))
	q.mu.Lock()
	m := q.alive[id]
	q.mu.Unlock()
	if m != nil {
		return m, nil
	}
	if _, err := q.Show(ctx, id); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%q: %w", id, ErrEnded)
}

// Retry makes a message due now, and releases it if it is held. Its age goes on. Errors: ErrNotQueued, ErrEnded.
func (q *Queue) Retry(ctx context.Context, id string) error {
	return q.let(ctx, id, false)
}

// Release lets a message leave that is held; its age begins anew, now. Errors: ErrNotQueued, ErrEnded.
func (q *Queue) Release(ctx context.Context, id string) error {
	return q.let(ctx, id, true)
}

func (q *Queue) let(ctx context.Context, id string, anew bool) error {
	m, err := q.find(ctx, id)
	if err != nil {
		return err
	}
	q.managing.Lock()
	defer q.managing.Unlock()
	now := micro(q.c.Now())
	err = q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		query, to := setHeld, any("")
		if anew {
			query, to = setReleased, now
		}
		if err := alive(tx.ExecContext(ctx, query, m.id, to)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, setDue, m.id, now)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.id, err)
	}
	q.goesNow(m, now)
	return nil
}

// alive returns ErrEnded where a change has found no message that it could be made to: it has left a moment ago.
func alive(done sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	if err == nil && n == 0 {
		err = ErrEnded
	}
	return err
}

// goesNow makes due what waits of a message, unless somebody deletes it meanwhile.
func (q *Queue) goesNow(m *message, now int64) {
	q.mu.Lock()
	m.held = false
	for _, j := range m.jobs {
		if j.out != nil {
			if j.due != 0 {
				j.due = now // of its other recipients
			}
			continue
		}
		q.schedule.remove(j)
		j.due = now
		if q.alive[m.id] == m && !j.going {
			q.schedule.add(j)
		}
	}
	q.mu.Unlock()
	signal(q.wake)
}

// Hold keeps a message from leaving until it is released. What is being sent of it right now may still arrive. Errors:
// ErrNotQueued, ErrEnded.
func (q *Queue) Hold(ctx context.Context, id, why string) error {
	m, err := q.find(ctx, id)
	if err != nil {
		return err
	}
	q.managing.Lock()
	defer q.managing.Unlock()
	err = q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return alive(tx.ExecContext(ctx, setHeld, m.id, text(why)))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.id, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	m.held = true
	for _, j := range m.jobs {
		q.schedule.remove(j)
	}
	return nil
}

// Delete removes for good what waits of a message for a domain or an address; "" is all of it. Nobody is told. Errors:
// ErrNotQueued, ErrEnded, ErrBusy.
func (q *Queue) Delete(ctx context.Context, id, to string) error {
	m, err := q.find(ctx, id)
	if err != nil {
		return err
	}
	q.managing.Lock()
	defer q.managing.Unlock()
	to = strings.ToLower(to)
	var of []*job
	q.mu.Lock()
	for _, j := range m.jobs {
		if to == "" || j.domain == to || j.domain == domainOf(to) {
			of = append(of, j)
		}
	}
	if slices.ContainsFunc(of, func(j *job) bool { return j.out != nil }) {
		q.mu.Unlock()
		return fmt.Errorf("%s: %w; hold it, and delete it then", m.id, ErrBusy)
	}
	for _, j := range of { // so that nobody takes it now
		j.going = true
		q.schedule.remove(j)
	}
	q.mu.Unlock()
	now := micro(q.c.Now())
	var n, ended int64
	err = q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, setDeleted, m.id, now, to)
		if err != nil {
			return err
		}
		if n, err = done.RowsAffected(); err != nil {
			return err
		}
		if done, err = tx.ExecContext(ctx, setEnded, m.id, now); err != nil {
			return err
		}
		ended, err = done.RowsAffected()
		return err
	})
	q.mu.Lock()
	for _, j := range of {
		// What is left of a domain's recipients goes on; whoever takes it sees if that is nobody.
		if j.going = false; (err != nil || strings.Contains(to, "@")) && !m.held {
			q.schedule.add(j)
		}
	}
	if err == nil && !strings.Contains(to, "@") {
		m.jobs = slices.DeleteFunc(m.jobs, func(j *job) bool { return slices.Contains(of, j) })
	}
	if err == nil {
		q.stats.Deleted += uint64(n)
	}
	q.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", m.id, err)
	case ended > 0: // else others wait, or a report is owed, and ends it
		q.forget(m.id)
	}
	return nil
}

// pruned is how many messages one transaction of Prune forgets.
const pruned = 500

// Prune forgets what has left the queue longer ago than Config.Keep, and what is more than Config.KeepMessages, the oldest
// first. It returns how many messages that were.
func (q *Queue) Prune(ctx context.Context) (n int, err error) {
	keep := max(q.c.Keep, 0)
	before := micro(q.c.Now().Add(-keep))
	for _, x := range []struct {
		query string
		first any
	}{{pruneOld, before}, {pruneSurplus, q.c.KeepMessages}} {
		for {
			var ids []string
			err := q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
				var err error
				//nolint:rowserrcheck // Words checks
				if ids, err = database.Words(tx.QueryContext(ctx, x.query, x.first, pruned)); err != nil {
					return err
				}
				for _, id := range ids {
					for _, statement := range []string{deleteRecipient, deleteMessage} {
						if _, err := tx.ExecContext(ctx, statement, id); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				return n, fmt.Errorf("queue: forget what has left: %w", err)
			}
			n += len(ids)
			if len(ids) < pruned {
				break
			}
		}
	}
	return n, nil
}

// Now returns the time by the queue's clock.
func (q *Queue) Now() time.Time { return q.c.Now() }
