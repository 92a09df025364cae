package queue

import (
	"container/heap"

	"sluice/mailstore"
)

// A job is one message for one domain, in memory.
type job struct {
	m      *message
	domain string
	due    int64          // the earliest of its recipients; of those that are not out while it is out, 0 none
	out    *mailstore.Job // while somebody works on it
	since  int64          // of its message, as it was taken
	told   map[int]int64  // recipients whose sender has been told of a delay, and when
	at     int            // its place in its lane; -1: in none
}

// A lane holds the jobs of one domain that wait, the earliest first.
type lane struct {
	domain string
	jobs   jobs
	at     int
}

type jobs []*job

func (h jobs) Len() int { return len(h) }

func (h jobs) Less(i, k int) bool {
	a, b := h[i], h[k]
	if a.due != b.due {
		return a.due < b.due
	}
	if a.m.queued != b.m.queued {
		return a.m.queued < b.m.queued
	}
	return a.m.id < b.m.id
}

func (h jobs) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].at, h[k].at = i, k
}

func (h *jobs) Push(x any) {
	j := x.(*job)
	j.at = len(*h)
	*h = append(*h, j)
}

func (h *jobs) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	j.at = -1
	return j
}

type lanes []*lane

func (h lanes) Len() int           { return len(h) }
func (h lanes) Less(i, k int) bool { return h[i].jobs[0].due < h[k].jobs[0].due }

func (h lanes) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].at, h[k].at = i, k
}

func (h *lanes) Push(x any) {
	l := x.(*lane)
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *lanes) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.at = -1
	return l
}

// A schedule knows which jobs wait, and which of them is due first. None of its lanes is empty.
type schedule struct {
	byDomain map[string]*lane
	lanes    lanes
}

func newSchedule() schedule { return schedule{byDomain: map[string]*lane{}} }

// add puts a job in, unless it is in.
func (s *schedule) add(j *job) {
	if j.at >= 0 {
		return
	}
	l := s.byDomain[j.domain]
	if l == nil {
		l = &lane{domain: j.domain}
		s.byDomain[j.domain] = l
		heap.Push(&l.jobs, j)
		heap.Push(&s.lanes, l)
		return
	}
	heap.Push(&l.jobs, j)
	heap.Fix(&s.lanes, l.at)
}

// remove takes a job out, if it is in.
func (s *schedule) remove(j *job) {
	if j.at < 0 {
		return
	}
	l := s.byDomain[j.domain]
	heap.Remove(&l.jobs, j.at)
	s.settle(l)
}

// settle puts a lane that has changed where it belongs now.
func (s *schedule) settle(l *lane) {
	if len(l.jobs) == 0 {
		heap.Remove(&s.lanes, l.at)
		delete(s.byDomain, l.domain)
		return
	}
	heap.Fix(&s.lanes, l.at)
}

// take takes out at most n jobs that are due, and says when the next one will be: 0 if none waits for its time.
func (s *schedule) take(now int64, n int, admit func(domain string) bool) (taken []*job, next int64) {
	var busy []*lane
	for len(s.lanes) > 0 && s.lanes[0].jobs[0].due <= now && len(taken) < n {
		l := s.lanes[0]
		if !admit(l.domain) {
			heap.Pop(&s.lanes)
			busy = append(busy, l)
			continue
		}
		taken = append(taken, heap.Pop(&l.jobs).(*job))
		s.settle(l)
	}
	if len(s.lanes) > 0 {
		next = s.lanes[0].jobs[0].due
	}
	for _, l := range busy {
		heap.Push(&s.lanes, l)
	}
	return taken, next
}
