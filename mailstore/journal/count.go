package journal

import (
	"context"
	"time"
)

// Count returns how many records [Journal.Between] would yield now.
func (j *Journal) Count(ctx context.Context, from, to time.Time) (n int, err error) {
	err = j.db.QueryRowContext(ctx, countBetween, micro(from), micro(to)).Scan(&n)
	return n, j.db.Explain(err)
}
