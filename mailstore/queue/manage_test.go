package queue

import (
	"context"
	"database/sql"
	"runtime"
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
		if err := r.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
	for going := false; !going; {
		r.Queue.mu.Lock()
		going = m.going
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
