package breaker

import (
	"errors"
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := New(Config{Failures: 3, Pause: 10 * time.Second}, func() time.Time { return now })
	dead := errors.New("connection refused")
	open := func(want bool) {
		t.Helper()
		err := b.Allow()
		var e *OpenError
		if errors.As(err, &e) != want {
			t.Fatalf("Allow says %v, want open %t", err, want)
		}
		if want && !errors.Is(err, dead) {
			t.Errorf("%v does not say why", err)
		}
	}
	for range 3 {
		open(false)
		b.Done(dead)
	}
	open(true)
	now = now.Add(9 * time.Second)
	open(true)
	now = now.Add(time.Second)
	open(false) // one to see
	open(true)  // the others wait for it
	b.Done(dead)
	now = now.Add(19 * time.Second)
	open(true) // the pause has doubled
	now = now.Add(time.Second)
	open(false)
	b.Cancelled() // which says nothing
	open(false)
	b.Done(nil)
	for range 2 {
		open(false)
		b.Done(dead)
	}
	open(false) // counts anew
	b.Done(nil)
	open(false)
	for range 20 {
		b.Done(dead)
	}
	for range 10 {
		now = now.Add(time.Hour)
		open(false)
		b.Done(dead)
	}
	now = now.Add(100 * time.Second) // ten times the pause is the most
	open(false)
}

func TestDefaults(t *testing.T) {
	b := New(Config{}, time.Now)
	if b.config != DefaultConfig() {
		t.Errorf("the zero Config is %+v", b.config)
	}
}
