package program

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sluice/mailstore"
)

// A failureQueue is a queue whose failures for good are counted against the accounts that sent the mail: who writes to
// many that there are not has bought a list.
type failureQueue struct {
	mailstore.Queue
	count func(ctx context.Context, s mailstore.Sending) error
	log   *slog.Logger

	mu  sync.Mutex
	out map[string]mailstore.Job // of accounts, by message and domain
}

func countsFailures(q mailstore.Queue, count func(context.Context, mailstore.Sending) error, log *slog.Logger) *failureQueue {
	return &failureQueue{Queue: q, count: count, log: log, out: map[string]mailstore.Job{}}
}

// submitted is why mail of our own users is in the queue.
const submitted = "submission"

// Take implements mailstore.Queue.
func (q *failureQueue) Take(ctx context.Context, n int, admit func(domain string) bool) (jobs []mailstore.Job, next time.Time, err error) {
	jobs, next, err = q.Queue.Take(ctx, n, admit)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range jobs {
		if j.Why == submitted && j.Account != "" {
			q.out[j.Message+"\x00"+j.Domain] = j
		}
	}
	return jobs, next, err
}

// Settle implements mailstore.Queue.
func (q *failureQueue) Settle(ctx context.Context, attempts []mailstore.Attempt) error {
	if err := q.Queue.Settle(ctx, attempts); err != nil {
		return err
	}
	for _, a := range attempts {
		key := a.Message + "\x00" + a.Domain
		q.mu.Lock()
		j, ok := q.out[key]
		delete(q.out, key)
		q.mu.Unlock()
		if !ok {
			continue
		}
		failed := mailstore.Sending{Account: j.Account, ID: j.ID}
		for _, r := range j.Recipients {
			for _, x := range a.Results {
				if x.Recipient == r.Number && x.Outcome == mailstore.Failed {
					failed.Recipients = append(failed.Recipients, r.Address)
				}
			}
		}
		if len(failed.Recipients) == 0 {
			continue
		}
		if err := q.count(ctx, failed); err != nil && ctx.Err() == nil {
			q.log.Error("failed recipients are not counted", "account", j.Account, "id", j.ID, "err", err)
		}
	}
	return nil
}
