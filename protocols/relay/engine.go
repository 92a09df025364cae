package relay

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"sluice/mailstore"
)

// Run works on the queue until ctx ends. Then it begins no more mail, gives what is being sent Options.Grace, gives the
// rest back to the queue, and returns when nothing of it is left.
func (r *Relay) Run(ctx context.Context) {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	for ctx.Err() == nil {
		next := r.fill(ctx)
		r.start(hard)
		r.rest(ctx, next)
	}
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	grace := time.AfterFunc(r.o.Grace, cut)
	defer grace.Stop()
	r.end(hard)
	r.ran.Wait()
}

// rest waits until there may be something to do: at next, or the queue or a worker says so.
func (r *Relay) rest(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(max(0, next.Sub(r.o.Now())))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-r.o.Queue.Wake():
	case <-r.kick:
	}
}

// atOnce is how many jobs are taken from the queue together: few enough that the first do not wait long for the last.
const atOnce = 100

// again is how long to wait with a queue that fails.
const again = 5 * time.Second

// fill takes jobs from the queue as long as there is room for them, and returns when there may be more. The zero time
// leaves that to whoever wakes us.
func (r *Relay) fill(ctx context.Context) (next time.Time) {
	for {
		places := map[string]*destination{} // whose domain it is may take a while to find out
		jobs, next, err := r.o.Queue.Take(ctx, atOnce, func(domain string) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			d := places[domain]
			if d == nil {
				d = r.place(domain)
				places[domain] = d
			}
			return r.promise(d)
		})
		r.mu.Lock()
		for _, job := range jobs { // with an error, too, there may be some
			r.put(places[job.Domain], job, false)
		}
		r.promised = 0
		for _, d := range places {
			d.promised = 0
			r.list(d)
		}
		r.mu.Unlock()
		if err != nil {
			if ctx.Err() == nil {
				r.o.Log.Error("the queue gives no mail", "err", err)
			}
			return r.o.Now().Add(again)
		}
		if len(jobs) < atOnce {
			return next
		}
	}
}

// start begins all tasks that there are connections for.
func (r *Relay) start(ctx context.Context) {
	for {
		r.mu.Lock()
		t, ok := r.pick()
		r.mu.Unlock()
		if !ok {
			return
		}
		r.ran.Go(func() { // ends with the task, whose time is bounded
			settle := r.attempt(ctx, t.d, t.job)
			r.next(ctx, t)
			settle()
			r.settled(t)
			r.start(ctx)
		})
	}
}

// next gives the connection of a task whose mail is answered to another.
func (r *Relay) next(ctx context.Context, t task) {
	if r.done(t) {
		r.nudge()
	}
	r.start(ctx)
}

// nudge makes Run look at the queue again.
func (r *Relay) nudge() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// end gives back to the queue what nobody has begun, and ends connections that nobody uses.
func (r *Relay) end(ctx context.Context) {
	r.mu.Lock()
	var waiting []mailstore.Attempt
	for _, d := range r.places {
		for _, job := range d.jobs {
			waiting = append(waiting, mailstore.Attempt{Message: job.Message, Domain: job.Domain})
		}
		for _, s := range d.idle {
			if s.expire.Stop() {
				r.ran.Go(s.quit) // bounded by Timeouts.Quit
			}
		}
		d.jobs, d.idle, d.here = nil, nil, false
		r.stirred(d)
	}
	r.ring, r.waiting = nil, 0
	r.mu.Unlock()
	if len(waiting) > 0 {
		r.settle(ctx, waiting)
	}
}

// settle tells the queue what became of jobs, again and again until it has kept that: a mail that somebody has taken must
// not be sent once more. When ctx ends it gives up.
func (r *Relay) settle(ctx context.Context, attempts []mailstore.Attempt) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := r.o.Queue.Settle(context.WithoutCancel(ctx), attempts)
		if err == nil {
			return
		}
		r.o.Log.Error("the queue does not keep what became of mail; until it does, no more goes there than may be sent twice",
			"message", attempts[0].Message, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			r.o.Log.Error("what became of mail was not kept; what was taken will be sent twice", "message", attempts[0].Message)
			return
		}
	}
}

// attempt works on a job. What it returns tells the queue what became of it, and returns when that is kept.
func (r *Relay) attempt(ctx context.Context, d *destination, job mailstore.Job) (settle func()) {
	began := time.Now()
	x := &delivery{r: r, d: d, job: job, left: job.Recipients}
	if why, until := r.left(d); why != nil {
		x.rest(why)
		for i := range x.results { // the reply is for its sender as well
			x.results[i].How = "not tried: its servers, none of which could be talked to, are left alone until " + until.UTC().Format(time.RFC3339)
		}
	} else if x.deliver(ctx) && r.putBack(d, job) {
		return func() {}
	}
	return func() {
		r.settle(ctx, []mailstore.Attempt{{Message: job.Message, Domain: job.Domain, Results: x.results}})
		r.tell(x, time.Since(began))
	}
}

// tell logs what became of a job, and reports it to whoever counts.
func (r *Relay) tell(x *delivery, took time.Duration) {
	report := Report{Destination: x.d.way.kind, Took: took}
	if x.session != nil {
		report.TLS, report.Verified = x.session.version(), x.session.proof
	}
	byNumber := map[int]mailstore.JobRecipient{}
	for _, y := range x.job.Recipients {
		byNumber[y.Number] = y
	}
	for _, y := range x.results {
		report.Outcomes = append(report.Outcomes, y.Outcome)
		level := slog.LevelInfo
		if y.Outcome == mailstore.Failed {
			level = slog.LevelWarn
		}
		r.o.Log.Log(context.Background(), level, "mail "+y.Outcome.String(), "message", x.job.Message, "id", x.job.ID,
			"from", x.job.Sender, "to", byNumber[y.Recipient].Address, "host", y.Host, "reply", oneLine(y.Reply), "status", y.Status,
			"how", y.How, "attempt", byNumber[y.Recipient].Attempts+1, "took", took.Round(time.Millisecond))
	}
	if r.o.Observe != nil {
		r.o.Observe(report)
	}
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " / ") }

// putBack makes a job wait once more, unless we are to end: then it goes back to the queue.
func (r *Relay) putBack(d *destination, job mailstore.Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.put(d, job, true)
	return true
}
