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
	going  bool           // it is being deleted
	since  int64          // of its message, as it was taken
	told   map[int]int64  // recipients whose sender has been told of a delay, and when
	at     int            // its place in its lane; -1: in none
}

// A lane holds the jobs of one domain that wait, the earliest first.
type lane struct {
	domain string
	jobs   jobs
	due    int64 // of its first job, as the heap of lanes knows it
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
func (h lanes) Less(i, k int) bool { return h[i].due < h[k].due }

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
		l.due = j.due
		heap.Push(&s.lanes, l)
		return
	}
	heap.Push(&l.jobs, j)
	s.settle(l)
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
	l.due = l.jobs[0].due
	heap.Fix(&s.lanes, l.at)
}

// A spot is a lane in the heap of lanes, and when its first job is due.
type spot struct {
	due int64
	at  int
}

type spots []spot

func (h spots) Len() int           { return len(h) }
func (h spots) Less(i, k int) bool { return h[i].due < h[k].due }
func (h spots) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *spots) Push(x any)        { *h = append(*h, x.(spot)) }

func (h *spots) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// take takes out at most n jobs that are due, those first that have been longest, and says when another one will be: 0 if
// none waits for its time.
//
// It walks down the heap of lanes instead of taking lanes out: where thousands of them have to wait, because all go one
// way that is busy, that is done again with every few mails. While it walks, lanes stay where they are.
func (s *schedule) take(now int64, n int, admit func(domain string) bool) (taken []*job, next int64) {
	walk := &spots{}
	look := func(at int) {
		if at < len(s.lanes) {
			heap.Push(walk, spot{s.lanes[at].due, at})
		}
	}
	look(0)
	given := map[*lane]bool{}
	for walk.Len() > 0 {
		first := (*walk)[0]
		if first.due > now || len(taken) == n {
			next = first.due
			break
		}
		heap.Pop(walk)
		l := s.lanes[first.at]
		if !given[l] { // its first time: what is below it comes into view
			look(2*first.at + 1)
			look(2*first.at + 2)
		}
		if !admit(l.domain) {
			continue
		}
		given[l] = true
		taken = append(taken, heap.Pop(&l.jobs).(*job))
		if len(l.jobs) > 0 {
			heap.Push(walk, spot{l.jobs[0].due, first.at})
		}
	}
	for l := range given {
		s.settle(l)
	}
	return taken, next
}
