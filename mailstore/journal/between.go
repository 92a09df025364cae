package journal

import (
	"context"
	"iter"
	"time"

	"sluice/pipeline"
)

// Between yields the records of transactions that began at from or later and before to, oldest first. It holds few of
// them in memory and lets others write meanwhile; records that come while it goes on may or may not be among them, and
// those that still wait to be written are not: see [Journal.Flush]. A record that cannot be read is an
// [UnreadableError], after which it goes on; after any other error it ends.
func (j *Journal) Between(ctx context.Context, from, to time.Time) iter.Seq2[*pipeline.Record, error] {
	return func(yield func(*pipeline.Record, error) bool) {
		at := place{received: micro(from) - 1}
		for {
			rows, err := j.page(ctx, micro(from), micro(to), at)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range rows {
				if !yield(row.read()) {
					return
				}
			}
			if len(rows) < pageSize {
				return
			}
			at = rows[len(rows)-1].place
		}
	}
}

const pageSize = 100

// A place is where a record stands in the order of time.
type place struct {
	received int64
	id       string
}

type rowBetween struct {
	place
	record string
}

func (j *Journal) page(ctx context.Context, from, to int64, after place) ([]rowBetween, error) {
	return j.rows(ctx, selectBetween, from, to, after.received, after.id, pageSize)
}
