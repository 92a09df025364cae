package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluice/mailstore/state/database"
)

// A Pruned says what Prune has removed, or would.
type Pruned struct {
	Old      int   `json:"old"`      // records, for their age
	Surplus  int   `json:"surplus"`  // records, for the size of all
	Redacted int   `json:"redacted"` // records that tell less since
	Octets   int64 `json:"octets"`   // that the file has given back
}

const (
	shrinkStep = 4 << 20 // octets given back at once: others wait for it
	slack      = 8 << 20 // octets that stay free for what comes
)

// Prune removes records received longer ago than Config.Keep, then the oldest ones while all of them take more than
// Config.MaxSize, and texts of plans that no record needs any more. It redacts those that have the age for it, and gives back
// what the file does not need. What a program from before has left unsearchable it fills in. It works in small transactions,
// so that others get in between.
func (j *Journal) Prune(ctx context.Context) (p Pruned, err error) {
	if j.c.ReadOnly {
		return p, fmt.Errorf("journal in %s: %w", j.c.Path, database.ErrReadOnly)
	}
	if before, ok := j.old(); ok {
		if p.Old, err = j.all(ctx, selectOld, before); err != nil {
			return p, err
		}
	}
	for {
		used, _, err := j.db.Size(ctx)
		if err != nil || j.c.MaxSize < 0 || used <= j.c.MaxSize {
			if err != nil {
				return p, err
			}
			break
		}
		n, err := j.remove(ctx, selectOldest, batch/4)
		p.Surplus += n
		if err != nil {
			return p, err
		}
		if n == 0 {
			break // it is not the records
		}
	}
	if err := j.fill(ctx); err != nil {
		return p, err
	}
	if p.Redacted, err = j.redact(ctx); err != nil {
		return p, err
	}
	if before, ok := j.old(); ok {
		if err := j.forgetPlans(ctx, before); err != nil {
			return p, err
		}
	}
	p.Octets, err = j.shrink(ctx)
	return p, err
}

// old is the time before which records are too old; ok is false where none is.
func (j *Journal) old() (before int64, ok bool) {
	return micro(j.c.Now().Add(-j.c.Keep)), j.c.Keep >= 0
}

// WouldPrune says what Prune would do now, by size about. The file gives nothing back before it is done.
func (j *Journal) WouldPrune(ctx context.Context) (p Pruned, err error) {
	if before, ok := j.old(); ok {
		if err := j.db.QueryRowContext(ctx, countOld, before).Scan(&p.Old); err != nil {
			return p, j.db.Explain(err)
		}
	}
	s, err := j.Summary(ctx)
	if err != nil {
		return p, err
	}
	left := s.Records - p.Old
	if s.Records > 0 && j.c.MaxSize >= 0 {
		each := s.Used / int64(s.Records)
		if over := each*int64(left) - j.c.MaxSize; over > 0 && each > 0 {
			p.Surplus = min(int(over/each)+1, left)
		}
	}
	if before, ok := j.ripe(); ok {
		var ripe int
		if err := j.db.QueryRowContext(ctx, countOld, before).Scan(&ripe); err != nil {
			return p, j.db.Explain(err)
		}
		p.Redacted = max(ripe-s.Redacted-p.Old-p.Surplus, 0)
	}
	return p, nil
}

// all removes what a statement selects with its argument, and returns how many records that were.
func (j *Journal) all(ctx context.Context, statement string, arg int64) (removed int, err error) {
	for {
		n, err := j.remove(ctx, statement, arg, batch)
		removed += n
		if err != nil || n < batch {
			return removed, err
		}
	}
}

func (j *Journal) remove(ctx context.Context, statement string, args ...any) (n int, err error) {
	err = j.db.Write(ctx, func(tx *sql.Tx) error {
		ids, err := texts(tx.QueryContext(ctx, statement, args...))
		if err != nil {
			return err
		}
		for _, id := range ids {
			for _, statement := range []string{deleteRecipients, deleteRecord} {
				if _, err := tx.ExecContext(ctx, statement, id); err != nil {
					return err
				}
			}
		}
		n = len(ids)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (j *Journal) forgetPlans(ctx context.Context, before int64) error {
	return j.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, deleteOldPlans, before); err != nil {
			return err
		}
		for _, statement := range []string{deleteOldPlanFiles, deleteOldTexts} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// shrink gives back what the file does not need, but for some slack.
func (j *Journal) shrink(ctx context.Context) (octets int64, err error) {
	for {
		used, free, err := j.db.Size(ctx)
		if err != nil || free <= slack+used/8 {
			return octets, err
		}
		if err := j.db.Shrink(ctx, min(free-slack, shrinkStep)); err != nil {
			return octets, err
		}
		_, left, err := j.db.Size(ctx)
		if err != nil || left >= free {
			return octets, err // one that was made before it could shrink: see Compact
		}
		octets += free - left
	}
}

// Compact writes the file anew, without what is free in it. Records wait in memory meanwhile, and mail that needs one on disk
// at once, to be discarded or held, is postponed if it takes long.
func (j *Journal) Compact(ctx context.Context) error { return j.db.Compact(ctx) }

// A Summary says what is in the journal.
type Summary struct {
	Records      int       `json:"records"`
	RecordOctets int64     `json:"record_octets"`
	Redacted     int       `json:"redacted"`
	Oldest       time.Time `json:"oldest,omitzero"`
	Newest       time.Time `json:"newest,omitzero"`
	Plans        int       `json:"plans"`
	Texts        int       `json:"texts"`
	TextOctets   int64     `json:"text_octets"`
	Used         int64     `json:"used"` // octets of the file that hold something
	Free         int64     `json:"free"` // and that are free for what comes
	Days         []Day     `json:"days"`
}

// A Day says how many records a day has, in UTC.
type Day struct {
	Day     string `json:"day"` // "2026-11-22"
	Records int    `json:"records"`
	Octets  int64  `json:"octets"`
}

// Summary counts what is in the journal. Records that still wait to be written are not among them.
func (j *Journal) Summary(ctx context.Context) (s Summary, err error) {
	var oldest, newest int64
	for _, x := range []struct {
		statement string
		to        []any
	}{
		{countRecords, []any{&s.Records, &s.RecordOctets, &oldest, &newest, &s.Redacted}},
		{countPlans, []any{&s.Plans}},
		{countTexts, []any{&s.Texts, &s.TextOctets}},
	} {
		if err := j.db.QueryRowContext(ctx, x.statement).Scan(x.to...); err != nil {
			return s, j.db.Explain(err)
		}
	}
	if s.Records > 0 {
		s.Oldest, s.Newest = time.UnixMicro(oldest).UTC(), time.UnixMicro(newest).UTC()
	}
	if s.Used, s.Free, err = j.db.Size(ctx); err != nil {
		return s, err
	}
	s.Days = []Day{}
	rows, err := j.db.QueryContext(ctx, countDays)
	if err != nil {
		return s, j.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var day int64
		var d Day
		if err := rows.Scan(&day, &d.Records, &d.Octets); err != nil {
			return s, j.db.Explain(err)
		}
		d.Day = time.Unix(day*86400, 0).UTC().Format(time.DateOnly)
		s.Days = append(s.Days, d)
	}
	return s, j.db.Explain(rows.Err())
}

// anew puts a damaged file aside, with all that belongs to it, and opens a new one: what is damaged can be looked at later,
// and mail goes on.
func anew(ctx context.Context, settings database.Config, c Config, damage error) (*database.DB, error) {
	aside := c.Path + ".damaged-" + c.Now().UTC().Format("20060102T150405.000")
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(c.Path+part, aside+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(damage, fmt.Errorf("put it aside: %w", err))
		}
	}
	db, err := database.Open(ctx, settings)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	c.Log.Error("the journal is damaged: it was put aside, and a new one is begun; decisions from before cannot be explained",
		"file", c.Path, "aside", filepath.Base(aside), "err", damage)
	return db, nil
}

// beginAnew is anew while the journal is in use.
func (j *Journal) beginAnew(ctx context.Context, damage error) bool {
	db, err := anew(ctx, j.settings, j.c, damage)
	if err != nil {
		return false // the next attempt tries again
	}
	_ = j.db.replace(db) // the one before was damaged; what it held lies aside
	return true
}
