package queue

import (
	"testing"
	"time"
)

// A clock that was ahead when mail came or was tried, and is set back, keeps no mail for as long as it was ahead, with a new
// start and without one. What is to leave later is left alone, and so is what is held.
func TestClockIsSetBack(t *testing.T) {
	const ahead = 100 * 24 * time.Hour
	for _, restart := range []bool{false, true} {
		r := newRig(t, func(c *Config) { c.Warn = -1 })
		planned := outgoing("planned@example.net")
		planned.NotBefore = r.c.Now().Add(ahead - time.Hour)
		plan := r.queue(planned)
		r.pass(ahead)
		tried := r.queue(outgoing("tried@example.org"))
		for _, j := range r.take() {
			r.settle(j, later(0)) // the planned one too: its time had come
		}
		held := r.queue(outgoing("held@example.com"))
		if err := r.Hold(t.Context(), held, "x"); err != nil {
			t.Fatal(err)
		}
		fresh := r.queue(outgoing("fresh@example.com"))
		far := outgoing("far@example.com")
		far.NotBefore = r.c.Now().Add(time.Hour)
		distant := r.queue(far)
		r.pass(-ahead)
		if restart {
			r.reopen()
		}
		got := map[string]bool{}
		for _, j := range r.take() {
			got[j.Message] = true
			if j.Message == tried {
				r.settle(j, later(0)) // and its age goes on from now
			}
		}
		if !got[plan] || !got[tried] || !got[fresh] || got[held] || got[distant] {
			t.Errorf("restart %t: planned %t, tried %t, fresh %t, held %t, distant %t are due", restart, got[plan], got[tried], got[fresh],
				got[held], got[distant])
		}
		if m := r.show(tried); m.since.After(r.c.Now()) || m.Recipients[0].Due.After(r.c.Now().Add(time.Hour)) {
			t.Errorf("restart %t: the age of what was tried begins at %v, it is due at %v", restart, m.since, m.Recipients[0].Due)
		}
		if err := r.Release(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		if j := r.one(); j.Message != held {
			t.Errorf("restart %t: %s is due once it is released", restart, j.Message)
		}
	}
}

// A clock that goes back a little, or on, changes nothing.
func TestClockGoesOn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Backoff = []time.Duration{time.Hour} })
	id := r.queue(outgoing("a@example.net"))
	r.settle(r.one(), later(0))
	due := r.show(id).Recipients[0].Due
	for _, by := range []time.Duration{-50 * time.Second, 30 * time.Minute, -50 * time.Second} {
		r.pass(by)
		if jobs := r.take(); len(jobs) != 0 {
			t.Fatalf("after %v it is due", by)
		}
	}
	if at := r.show(id).Recipients[0].Due; !at.Equal(due) {
		t.Errorf("it was due at %v and is at %v", due, at)
	}
	r.pass(time.Hour)
	if j := r.one(); j.Message != id {
		t.Errorf("%s is due", j.Message)
	}
}
