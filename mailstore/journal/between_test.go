package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

func TestBetween(t *testing.T) {
	j, _ := openTest(t, Config{Flush: time.Hour})
	other, _ := openTest(t, Config{Path: j.c.Path, ReadOnly: true})
	const n = 2*pageSize + 50
	for i := range n {
		// Three at each second, and none in order.
		k := i * 7 % n
		mustRecord(t, j, false, &pipeline.Record{ID: fmt.Sprintf("id%04d", k), Received: noon.Add(time.Duration(k/3) * time.Second)})
	}
	mustFlush(t, j)
	between := func(ctx context.Context, from, to time.Duration) (all []string, err error) {
		for r, e := range other.Between(ctx, noon.Add(from*time.Second), noon.Add(to*time.Second)) {
			if e != nil {
				err = errors.Join(err, e)
				continue
			}
			all = append(all, r.ID)
		}
		return all, err
	}
	for _, tt := range []struct{ from, to, first, count int }{
		{0, n, 0, n},
		{0, 1, 0, 3},
		{1, 2, 3, 3},
		{-5, 0, 0, 0},
		{2, 2, 0, 0},
		{10, 80, 30, 210},
	} {
		got, err := between(t.Context(), time.Duration(tt.from), time.Duration(tt.to))
		var want []string
		for i := range tt.count {
			want = append(want, fmt.Sprintf("id%04d", tt.first+i))
		}
		if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%d to %d: %d records, %v", tt.from, tt.to, len(got), err)
		}
	}

	for range other.Between(t.Context(), noon, noon.Add(time.Hour)) {
		break // whoever has seen enough may go
	}

	// One that cannot be read is told of, and the others are there.
	if _, err := j.db.ExecContext(t.Context(), `UPDATE records SET record = '{' WHERE id = 'id0004'`); err != nil {
		t.Fatal(err)
	}
	got, err := between(t.Context(), 0, 3)
	if strings.Join(got, " ") != "id0000 id0001 id0002 id0003 id0005 id0006 id0007 id0008" || err == nil || !strings.HasPrefix(err.Error(), "record id0004: ") {
		t.Errorf("%v, %v", got, err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := between(ended, 0, n); len(got) > 0 || err == nil {
		t.Errorf("%v, %v", got, err)
	}
}
