package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// The schedule gives what a list would that is searched from end to end each time.
func TestScheduleAgainstAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newSchedule()
	var list []*job
	for step := range 3000 {
		switch n := random.IntN(10); {
		case n < 5:
			m := &message{id: fmt.Sprintf("q%d", step), queued: int64(step)}
			j := &job{m: m, domain: fmt.Sprintf("d%d", random.IntN(30)), due: 1 + random.Int64N(1000), at: -1}
			s.add(j)
			s.add(j) // once is enough
			list = append(list, j)
		case n < 6 && len(list) > 0:
			i := random.IntN(len(list))
			s.remove(list[i])
			s.remove(list[i])
			list = slices.Delete(list, i, i+1)
		default:
			now, most := random.Int64N(1000), random.IntN(8)
			asked := map[string]bool{}
			no := func(domain string) bool { return len(domain)%2 == 0 }
			taken, next := s.take(now, most, func(domain string) bool {
				if no(domain) && asked[domain] {
					t.Fatalf("step %d: %s is asked about twice", step, domain)
				}
				asked[domain] = true
				return !no(domain)
			})
			var want []*job
			for _, j := range list {
				if j.due <= now && !no(j.domain) {
					want = append(want, j)
				}
			}
			slices.SortStableFunc(want, func(a, b *job) int { return int(a.due - b.due) })
			if len(taken) != min(most, len(want)) {
				t.Fatalf("step %d: %d taken of %d, at most %d", step, len(taken), len(want), most)
			}
			for i, j := range taken {
				if j.due != want[i].due {
					t.Fatalf("step %d: place %d is due at %d, want %d", step, i, j.due, want[i].due)
				}
				list = slices.DeleteFunc(list, func(x *job) bool { return x == j })
			}
			later := int64(0)
			for _, j := range list {
				waits := j.due > now || len(taken) == most && !no(j.domain)
				if waits && (later == 0 || j.due < later) {
					later = j.due
				}
			}
			// A domain that was refused hides what it has for later, and one that was not asked about is not known.
			if later != 0 && next == 0 && len(asked) == 0 {
				t.Fatalf("step %d: another is due at %d, said is none", step, later)
			}
		}
	}
	for _, l := range s.lanes {
		if len(l.jobs) == 0 || l.due != l.jobs[0].due || s.byDomain[l.domain] != l || s.lanes[l.at] != l {
			t.Errorf("lane %+v", l)
		}
	}
	n := 0
	for _, l := range s.lanes {
		n += len(l.jobs)
	}
	if n != len(list) {
		t.Errorf("%d are left, want %d", n, len(list))
	}
}

// BenchmarkTake: one mail comes and goes while mail for 10,000 other domains waits for its time.
func BenchmarkTake(b *testing.B) {
	s := newSchedule()
	for i := range 10_000 {
		s.add(&job{m: &message{id: fmt.Sprintf("q%d", i)}, domain: fmt.Sprintf("d%d", i), due: 1000 + int64(i), at: -1})
	}
	m := &message{id: "q"}
	for b.Loop() {
		s.add(&job{m: m, domain: "new", due: 1, at: -1})
		if taken, next := s.take(10, 100, func(string) bool { return true }); len(taken) != 1 || next != 1000 {
			b.Fatal(len(taken), next)
		}
	}
}
