package relay

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"sluice/mailstore"
)

// A destination is where mail goes that shares connections: a domain, or a server that the configuration names. Its fields
// are guarded by Relay.mu.
type destination struct {
	key      string
	way      *way
	jobs     []mailstore.Job // that wait
	here     bool            // it is in the ring
	listed   bool            // it is in Relay.free
	promised int             // jobs that are being taken from the queue for it
	// starved says that more of it waits in the queue than there was room for.
	starved bool

	busy  int // workers
	limit int // of them
	owed  int // mails that are answered, of which the queue does not know yet
	live  int // sessions, in use or idle
	idle  []*session
	good  int // mails in a row that some server has answered

	// After all servers have failed it is left alone.
	failures int
	until    time.Time
	why      *failure
}

// proven reports whether it has taken mail lately.
func (d *destination) proven() bool { return d.good > 0 && d.failures == 0 }

// Limits on what is taken from the queue to wait here. Each destination has its share, so that one that hangs leaves room.
const (
	mostWaiting = 2000
	shares      = 10 // mails that wait for each connection a destination may have
	mostPlaces  = 10_000
)

// promise reports whether there is room for another job of a destination, and keeps it. Where there is none it is asked for
// again when there is. mu is held.
func (r *Relay) promise(d *destination) bool {
	all := r.waiting+r.promised >= mostWaiting
	if all || len(d.jobs)+d.promised >= shares*r.o.PerDestination {
		d.starved, r.starved = true, r.starved || all
		return false
	}
	d.promised++
	r.promised++
	return true
}

// place returns the destination of a domain. mu is held.
func (r *Relay) place(domain string) *destination {
	w, key := r.ways.to(domain)
	d := r.places[key]
	if d == nil {
		if len(r.places) >= mostPlaces {
			r.forget()
		}
		d = &destination{key: key, way: w, limit: r.o.PerDestination}
		r.places[key] = d
	}
	return d
}

// unused reports whether nothing goes to a destination.
func (d *destination) unused() bool {
	return d.busy == 0 && d.owed == 0 && d.live == 0 && d.promised == 0 && len(d.jobs) == 0
}

// A rested destination may be forgotten at a time, if nothing goes there then.
type rested struct {
	until time.Time
	d     *destination
}

// free are destinations that nothing went to when they were put in, those first that may be forgotten first.
type free []rested

func (h free) Len() int           { return len(h) }
func (h free) Less(i, k int) bool { return h[i].until.Before(h[k].until) }
func (h free) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *free) Push(x any)        { *h = append(*h, x.(rested)) }

func (h *free) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = rested{}
	*h = (*h)[:last]
	return x
}

// list notes a destination that nothing goes to any more. mu is held.
func (r *Relay) list(d *destination) {
	if !d.listed && d.unused() {
		d.listed = true
		heap.Push(&r.free, rested{d.until, d})
	}
}

// forget drops destinations that nothing is known of but what the next mail would find out again. It looks at none that is
// left alone still, however many there are. mu is held.
func (r *Relay) forget() {
	now := r.o.Now()
	for len(r.free) > 0 && !now.Before(r.free[0].until) {
		d := heap.Pop(&r.free).(rested).d
		d.listed = false
		if d.unused() && !now.Before(d.until) {
			delete(r.places, d.key)
			continue
		}
		r.list(d) // with its time as it is now
	}
}

// put gives a destination a job. mu is held.
func (r *Relay) put(d *destination, job mailstore.Job, front bool) {
	if front {
		d.jobs = append([]mailstore.Job{job}, d.jobs...)
	} else {
		d.jobs = append(d.jobs, job)
	}
	r.waiting++
	if !d.here {
		d.here = true
		r.ring = append(r.ring, d)
	}
}

// A task is a job that somebody works on.
type task struct {
	d        *destination
	job      mailstore.Job
	unproven bool // it was begun as one that may hang
}

// pick returns the next job to work on, of each destination in turn, and counts it. mu is held.
func (r *Relay) pick() (t task, ok bool) {
	if r.stopped || r.busy >= r.o.Connections {
		return task{}, false
	}
	for i, d := range r.ring {
		limit := d.limit
		if d.failures > 0 && !r.o.Now().Before(d.until) {
			limit = 1 // to find out
		}
		// A way that the configuration names is trusted to work: only the DNS of others can lead to a crowd that hangs.
		t := task{d: d, unproven: d.way.kind == "direct" && !d.proven()}
		// A connection's next mail waits until the queue has kept what became of the one before: what a crash sends twice is
		// one mail of each. Those that may hang do not get all connections.
		if d.busy >= limit || d.busy+d.owed >= r.o.PerDestination || t.unproven && r.unproven >= max(1, r.o.Connections*3/4) {
			continue
		}
		t.job, d.jobs = d.jobs[0], d.jobs[1:]
		r.ring = slices.Delete(r.ring, i, i+1)
		if d.here = len(d.jobs) > 0; d.here {
			r.ring = append(r.ring, d)
		}
		r.waiting--
		r.busy++
		d.busy++
		if t.unproven {
			r.unproven++
		}
		return t, true
	}
	return task{}, false
}

// done counts a task that is over, and reports whether there is room for others that wait in the queue.
func (r *Relay) done(t task) (wanted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	t.d.busy--
	t.d.owed++
	if t.unproven {
		r.unproven--
	}
	if wanted = t.d.starved && len(t.d.jobs) <= shares*r.o.PerDestination/2 && r.waiting <= mostWaiting/2; wanted {
		t.d.starved = false
	}
	// Those that got no room because others had it all may have no task that could ask for them.
	if r.starved && r.waiting <= mostWaiting/2 {
		r.starved, wanted = false, true
	}
	return wanted
}

// settled counts a task that the queue knows of.
func (r *Relay) settled(t task) {
	r.mu.Lock()
	t.d.owed--
	r.list(t.d)
	r.mu.Unlock()
}

// keep takes a session back for the next mail, or ends it. It ends by itself after a time.
func (r *Relay) keep(d *destination, s *session) {
	r.mu.Lock()
	if s.over || s.used >= r.o.PerConnection || r.stopped {
		r.ended(d)
		r.mu.Unlock()
		if s.over {
			s.close()
			return
		}
		r.ran.Go(s.quit) // bounded by Timeouts.Quit
		return
	}
	d.idle = append(d.idle, s)
	r.idling[d] = struct{}{}
	s.expire = time.AfterFunc(r.o.Idle, func() {
		if r.take(d, s) != nil {
			r.drop(d)
			s.quit()
		}
	})
	r.mu.Unlock()
}

// take returns an idle session of a destination: want, or with nil the one used last; nil if there is none.
func (r *Relay) take(d *destination, want *session) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(d.idle) - 1; i >= 0; i-- {
		if s := d.idle[i]; want == nil || s == want {
			d.idle = append(d.idle[:i], d.idle[i+1:]...)
			r.stirred(d)
			s.expire.Stop()
			return s
		}
	}
	return nil
}

// stirred notes that a destination may have no idle session left. mu is held.
func (r *Relay) stirred(d *destination) {
	if len(d.idle) == 0 {
		delete(r.idling, d)
	}
}

// ended counts a session that has ended. mu is held.
func (r *Relay) ended(d *destination) {
	d.live--
	r.live--
	r.list(d)
}

// drop counts a session that has ended.
func (r *Relay) drop(d *destination) {
	r.mu.Lock()
	r.ended(d)
	r.mu.Unlock()
}

// open makes a session and counts it. Where there are too many an idle one ends.
func (r *Relay) open(ctx context.Context, d *destination, to *server) (*session, *failure) {
	r.mu.Lock()
	var old *session
	if r.live >= r.o.Connections {
		for other := range r.idling { // any
			old = other.idle[0]
			other.idle = other.idle[1:]
			r.stirred(other)
			old.expire.Stop()
			r.ended(other)
			break
		}
	}
	d.live++
	r.live++
	r.mu.Unlock()
	if old != nil {
		r.ran.Go(old.quit) // bounded by Timeouts.Quit
	}
	s, no := r.opener.open(ctx, to)
	if no != nil {
		r.drop(d)
	}
	return s, no
}

// works takes note that a server of a destination has answered about a mail.
func (r *Relay) works(d *destination) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.failures > 0 {
		d.failures, d.until, d.why = 0, time.Time{}, nil
	}
	// One that once had enough of our connections is asked for one more now and then.
	if d.good++; d.good%50 == 0 && d.limit < r.o.PerDestination {
		d.limit++
	}
}

// fails takes note that no server of a destination could be talked to. It reports whether the job may wait for one of the
// connections there are: then it is the number of them that is too much.
func (r *Relay) fails(d *destination, no *failure) (wait bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// There are idle ones, too, for a moment between two mails.
	if d.live > 0 && d.proven() {
		d.limit = min(d.limit, d.live)
		return true
	}
	d.good = 0
	if now := r.o.Now(); !now.Before(d.until) {
		back := r.o.BackOff
		for range min(d.failures, 20) {
			if back >= r.o.BackOffMost {
				break
			}
			back *= 2
		}
		d.failures++
		d.until = now.Add(min(back, r.o.BackOffMost))
	}
	d.why = no
	return false
}

// Anew has destinations that are left alone asked again with their next mail: whoever says so knows more than we do.
func (r *Relay) Anew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.places {
		d.until = time.Time{}
	}
}

// left returns why a destination is left alone now, nil if it is not.
func (r *Relay) left(d *destination) (*failure, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.why == nil || !r.o.Now().Before(d.until) {
		return nil, time.Time{}
	}
	return d.why, d.until
}
