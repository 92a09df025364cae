package queue

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func TestDeletedWhileItIsRetried(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net"))
	m, err := r.find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	busy, write := make(chan struct{}), make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		if err := r.commit(t.Context(), func(context.Context, *sql.Tx) error { close(busy); <-write; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-busy
	others.Go(func() {
		if err := r.Delete(t.Context(), id, ""); err != nil {
			t.Error(err)
		}
	})
	for going := false; !going; {
		r.Queue.mu.Lock()
		going = m.jobs[0].going
		r.Queue.mu.Unlock()
		runtime.Gosched()
	}
	r.goesNow(m, micro(r.c.Now())) // as Retry does once that is written
	if jobs := r.take(); len(jobs) > 0 {
		t.Errorf("it is deleted, and leaves: %+v", jobs)
	}
	close(write)
	others.Wait()
	if m := r.show(id); m.Ended.IsZero() || m.Recipients[0].State != Deleted {
		t.Errorf("%+v", m)
	}
}

// What is deleted for some leaves for the others.
func TestDeleteForSome(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@one.example", "B@Two.example", "c@two.example", "d@three.example"))
	for _, to := range []string{"one.example", "b@two.example", "nobody.example"} {
		if err := r.Delete(t.Context(), id, to); err != nil {
			t.Error(err)
		}
	}
	list, err := r.List(t.Context(), Filter{Domain: "b@two.example"})
	if err != nil || len(list) != 1 {
		t.Errorf("by an address in another case: %v, %v", list, err)
	}
	var left []string
	jobs := r.take()
	for _, j := range jobs {
		for _, x := range j.Recipients {
			left = append(left, x.Address)
		}
	}
	slices.Sort(left)
	if !slices.Equal(left, []string{"c@two.example", "d@three.example"}) {
		t.Errorf("left are %v", left)
	}
	if err := r.Delete(t.Context(), id, "two.example"); !errors.Is(err, ErrBusy) {
		t.Errorf("what is being sent: %v", err)
	}
	for _, j := range jobs {
		r.settle(j, later(j.Recipients[0].Number))
	}
	for _, to := range []string{"c@two.example", "three.example"} {
		if err := r.Delete(t.Context(), id, to); err != nil {
			t.Error(err)
		}
	}
	if m := r.show(id); m.Ended.IsZero() || r.Stats().Deleted != 4 || len(r.files()) != 0 {
		t.Errorf("all are deleted: %+v, %+v", m, r.Stats())
	}
}

// What leaves while an operator asks for something about it is not said to be held, or to be tried again.
func TestEndedMeanwhile(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net"))
	r.mu.Lock()
	m := r.alive[id]
	r.mu.Unlock()
	r.settle(r.one(), done(0))
	r.Queue.mu.Lock()
	r.alive[id] = m // as it was when the order was read
	r.Queue.mu.Unlock()
	for what, err := range map[string]error{
		"hold": r.Hold(t.Context(), id, "x"), "retry": r.Retry(t.Context(), id), "release": r.Release(t.Context(), id),
	} {
		if !errors.Is(err, ErrEnded) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Orders about one mail that are given at once leave memory and database agreed.
func TestOrdersAtOnce(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net"))
	for range 20 {
		var group sync.WaitGroup
		for _, order := range []func() error{
			func() error { return r.Hold(t.Context(), id, "x") }, func() error { return r.Release(t.Context(), id) },
		} {
			group.Go(func() {
				if err := order(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		r.Queue.mu.Lock()
		held := r.alive[id].held
		r.Queue.mu.Unlock()
		if written := r.show(id).Held != ""; held != written {
			t.Fatalf("held is %t in memory and %t in the database", held, written)
		}
	}
}
