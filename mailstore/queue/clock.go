package queue

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// jump is by how much the clock has to go back for us to take note.
const jump = time.Minute

// bringForward makes due what would wait longer than anything does, because the clock was ahead when that was worked out.
func (q *Queue) bringForward(ctx context.Context, tx *sql.Tx, now int64) error {
	longest := slices.Max(q.c.Backoff)
	for _, x := range []struct {
		query string
		args  []any
	}{
		{bringTried, []any{now, now + (longest + longest/8 + jump).Microseconds()}},
		{bringNew, []any{now}},
		{bringAge, []any{now}},
	} {
		if _, err := tx.ExecContext(ctx, x.query, x.args...); err != nil {
			return err
		}
	}
	return nil
}

// checkClock looks whether the clock was set back since it was last asked, and if so brings forward what waits.
func (q *Queue) checkClock(ctx context.Context, now int64) error {
	q.mu.Lock()
	last := q.last
	q.mu.Unlock()
	if now < last-jump.Microseconds() {
		q.c.Log.WarnContext(ctx, "the clock was set back; mail that would wait too long for that is due now",
			"by", time.Duration(last-now)*time.Microsecond)
		if err := q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error { return q.bringForward(ctx, tx, now) }); err != nil {
			return err
		}
		if err := q.rearrange(ctx); err != nil {
			return err
		}
	}
	q.mu.Lock()
	q.last = now
	q.mu.Unlock()
	return nil
}

// rearrange takes the times of what waits from the database.
func (q *Queue) rearrange(ctx context.Context) error {
	type place struct{ id, domain string }
	due := map[place]int64{}
	if err := q.eachDue(ctx, func(id, domain string, at int64) { due[place{id, domain}] = at }); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, m := range q.alive {
		for _, j := range m.jobs {
			at, ok := due[place{id, j.domain}]
			if !ok || j.out != nil || j.at < 0 {
				continue // held, or somebody else's: whoever gives it back has the new time
			}
			q.schedule.remove(j)
			j.due = at
			q.schedule.add(j)
		}
	}
	return nil
}
