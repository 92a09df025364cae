package relay

import (
	"fmt"
	"testing"
	"time"

	"sluice/mailstore"
)

// A clock is what a test says it is.
type clock struct{ now time.Time }

func crowd(t testing.TB, c *clock) *Relay {
	t.Helper()
	r, err := New(Options{Config: Config{Direct: true}, Log: quiet(), Now: func() time.Time { return c.now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// failing makes a destination that nothing could be brought to, until then.
func failing(r *Relay, domain string, until time.Time) *destination {
	d := r.place(domain)
	d.busy++
	d.failures, d.until, d.why = 1, until, never("5.0.0", "x")
	d.busy--
	d.owed++
	r.settled(task{d: d})
	return d
}

// Destinations that nothing goes to are forgotten when there are too many, as soon as they are no longer left alone, and no
// others.
func TestForget(t *testing.T) {
	c := &clock{time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	r := crowd(t, c)
	for i := range mostPlaces {
		failing(r, fmt.Sprintf("d%d.example", i), c.now.Add(time.Minute+time.Duration(i)*time.Millisecond))
	}
	used := r.place("used.example") // one too many, and none may go
	if len(r.places) != mostPlaces+1 {
		t.Fatalf("%d places", len(r.places))
	}
	used.busy++
	idle := failing(r, "idle.example", c.now)
	idle.live, r.live = 1, 1
	again := failing(r, "d0.example", c.now.Add(time.Hour)) // it has failed again since
	c.now = c.now.Add(2 * time.Minute)
	r.list(r.place("new.example"))
	for domain, there := range map[string]bool{
		"used.example": true, "idle.example": true, "d0.example": true, "new.example": true, "d1.example": false, "d9999.example": false,
	} {
		if r.places[domain] != nil != there {
			t.Errorf("%s: known is %t", domain, !there)
		}
	}
	if r.places["d0.example"] != again {
		t.Error("what was known of one that is left alone is lost")
	}
	// What could not be forgotten then can be later.
	r.drop(idle)
	used.busy--
	used.owed++
	r.settled(task{d: used})
	c.now = c.now.Add(2 * time.Hour)
	r.forget()
	if len(r.places) != 0 || len(r.free) != 0 {
		t.Errorf("%d places, %d of them free", len(r.places), len(r.free))
	}
}

// A destination that gets no room because others have it all is asked for again when they are done, although none of its own
// mail is under way.
func TestCrowdedOut(t *testing.T) {
	c := &clock{time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	r := crowd(t, c)
	for i := range mostWaiting {
		r.put(r.place(fmt.Sprintf("d%d.example", i%10)), mailstore.Job{}, false)
	}
	if r.promise(r.place("late.example")) {
		t.Fatal("there is room")
	}
	for n := 1; ; n++ {
		task, ok := r.pick()
		if !ok {
			t.Fatalf("after %d mails nobody has asked for more", n-1)
		}
		if r.done(task) {
			if n != mostWaiting/2 {
				t.Errorf("after %d mails more are asked for", n)
			}
			break
		}
		r.settled(task)
	}
	late := r.place("late.example")
	if !r.promise(late) {
		t.Error("there is no room still")
	}
	// What is promised is not forgotten meanwhile.
	r.list(late)
	c.now = c.now.Add(time.Hour)
	r.forget()
	if r.places["late.example"] != late {
		t.Error("it is forgotten before its mail has come")
	}
}

// BenchmarkPlace: mail for another domain comes while 10,000 are left alone.
func BenchmarkPlace(b *testing.B) {
	c := &clock{time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	r := crowd(b, c)
	for i := range mostPlaces {
		failing(r, fmt.Sprintf("d%d.example", i), c.now.Add(time.Hour))
	}
	n := 0
	for b.Loop() {
		n++
		failing(r, fmt.Sprintf("new%d.example", n), c.now.Add(-time.Second))
	}
}
