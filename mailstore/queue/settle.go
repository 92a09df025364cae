package queue

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"sluice/mailstore"
)

// A result is what is written about one recipient.
type result struct {
	mailstore.AttemptResult
	state    string
	due      int64
	attempts int
	delayed  int64
	owed     string
}

// A settled job is one attempt and what follows from it.
type settled struct {
	j       *job
	id      string
	results []result
	due     int64 // the job's next; 0: it is done
	ended   bool  // its message is
}

// Settle implements mailstore.Queue. An attempt whose job is not out is an error, and none of them counts.
func (q *Queue) Settle(ctx context.Context, attempts []mailstore.Attempt) error {
	now := micro(q.c.Now())
	work := make([]*settled, 0, len(attempts))
	q.mu.Lock()
	for _, a := range attempts {
		m := q.alive[a.Message]
		var j *job
		if m != nil {
			j = m.job(a.Domain)
		}
		if j == nil || j.out == nil || slices.ContainsFunc(work, func(s *settled) bool { return s.j == j }) {
			q.mu.Unlock()
			return fmt.Errorf("queue: settle %s for %s: nobody has taken it", a.Message, a.Domain)
		}
		work = append(work, q.settled(j, a, now))
	}
	q.mu.Unlock()
	err := q.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, s := range work {
			if err := s.write(ctx, tx, &q.often, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: settle: %w", err)
	}
	q.apply(work)
	return nil
}

// settled works out what follows from an attempt. The caller holds mu.
func (q *Queue) settled(j *job, a mailstore.Attempt, now int64) *settled {
	s := &settled{j: j, id: a.Message, due: j.due}
	for _, r := range j.out.Recipients {
		x := result{state: Waiting, attempts: r.Attempts, delayed: j.told[r.Number]}
		x.Recipient = r.Number
		if i := slices.IndexFunc(a.Results, func(y mailstore.AttemptResult) bool { return y.Recipient == r.Number }); i >= 0 {
			x.AttemptResult = a.Results[i]
		}
		q.judge(&x, j, r, now)
		s.results = append(s.results, x)
		if x.state == Waiting && (s.due == 0 || x.due < s.due) {
			s.due = x.due
		}
	}
	return s
}

// judge fills in what becomes of a recipient. The caller holds mu.
func (q *Queue) judge(x *result, j *job, r mailstore.JobRecipient, now int64) {
	age := time.Duration(now-j.since) * time.Microsecond
	old := age >= q.c.Age
	switch x.Outcome {
	case mailstore.Delivered:
		x.state = Delivered
	case mailstore.Relayed:
		x.state = Relayed
	case mailstore.Passed:
		x.state = Passed
	case mailstore.Failed:
		x.state = Failed
	case mailstore.Postponed:
		if old {
			x.state = Expired
		}
	case mailstore.Untried:
		x.due = now
		if !x.Next.IsZero() {
			x.due = micro(x.Next)
		}
		return
	}
	x.attempts++
	tell := func(what string) {
		if what == "failure" && j.out.Forwarded && j.out.Account != "" {
			x.owed = what // whatever the sender wants: the owner has nothing else of this mail
			return
		}
		if j.out.Sender == "" {
			if what == "failure" && q.c.DoubleBounces != "" && j.out.Why != whyDouble {
				x.owed = what
			}
			return
		}
		if wants(r.Notify, what) {
			x.owed = what
		}
	}
	switch x.state {
	case Delivered, Relayed:
		tell("success")
	case Failed, Expired:
		tell("failure")
	case Waiting:
		next := time.UnixMicro(now).Add(q.wait(j.m.id, x.attempts))
		if !x.Next.IsZero() {
			next = x.Next
		}
		if last := time.UnixMicro(j.since).Add(q.c.Age); next.After(last) {
			next = last // one last time
		}
		x.due = micro(next)
		if q.c.Warn > 0 && age >= q.c.Warn && x.delayed == 0 && j.out.Sender != "" {
			x.delayed = now
			tell("delay")
		}
	}
}

// wait returns how long to wait after so many attempts. It is the same whenever it is asked.
func (q *Queue) wait(id string, attempts int) time.Duration {
	d := q.c.Backoff[min(attempts, len(q.c.Backoff))-1]
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint32([]byte(id), uint32(attempts))) // never fails
	eighth := int64(d / 8)
	if eighth == 0 {
		return d
	}
	return d + time.Duration(int64(h.Sum64()>>2)%(2*eighth+1)-eighth) // its two highest bits are 0
}

// write writes what became of a job.
func (s *settled) write(ctx context.Context, tx *sql.Tx, often *statements, now int64) error {
	over := false
	for _, r := range s.results {
		var err error
		if r.Outcome == mailstore.Untried {
			_, err = tx.ExecContext(ctx, setUntried, s.id, r.Recipient, r.due)
		} else {
			//nolint:sqlclosecheck // it ends with the transaction
			_, err = tx.StmtContext(ctx, often.result).ExecContext(ctx, s.id, r.Recipient, r.state, r.due, r.attempts, now, text(r.Host), text(bounded(r.Reply)),
				text(r.Status), text(r.How), r.delayed, r.owed)
			over = over || r.state != Waiting
		}
		if err != nil {
			return err
		}
	}
	s.ended = false // do may run twice
	if !over {
		return nil
	}
	//nolint:sqlclosecheck // it ends with the transaction
	done, err := tx.StmtContext(ctx, often.ended).ExecContext(ctx, s.id, now)
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	s.ended = n > 0
	return err
}

// bounded keeps a reply that somebody else wrote within bounds.
func bounded(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// apply makes in memory what was written.
func (q *Queue) apply(work []*settled) {
	owed, again := false, false
	q.mu.Lock()
	for _, s := range work {
		for _, r := range s.results {
			q.stats.count(r)
			owed = owed || r.owed != ""
			if r.state != Waiting && r.owed == "" && (r.state == Failed || r.state == Expired) {
				q.sayDropped(s, r)
			}
		}
		s.j.out, s.j.told = nil, nil
		if s.due == 0 {
			s.j.m.jobs = slices.DeleteFunc(s.j.m.jobs, func(j *job) bool { return j == s.j })
			continue
		}
		s.j.due = s.due
		if !s.j.m.held {
			q.schedule.add(s.j)
			again = true
		}
	}
	q.mu.Unlock()
	for _, s := range work {
		if s.ended {
			q.forget(s.id)
		}
	}
	if owed {
		signal(q.owing)
	}
	if again {
		signal(q.wake)
	}
}

// sayDropped logs a failure that nobody is told of. The caller holds mu.
func (q *Queue) sayDropped(s *settled, r result) {
	job := s.j.out
	why := "its sender does not want to know"
	if job.Sender == "" {
		why = "it has no sender"
	}
	to := ""
	for _, x := range job.Recipients {
		if x.Number == r.Recipient {
			to = x.Address
		}
	}
	q.c.Log.Warn("mail has failed and nobody is told: "+why, "queued", s.id, "id", job.ID, "why", job.Why, "to", to,
		"state", r.state, "reply", bounded(r.Reply))
}
