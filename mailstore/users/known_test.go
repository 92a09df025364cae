package users

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sluice/mailstore"
)

// What was asked before is answered from memory, until anybody writes: ourselves or another process.
func TestKnownUntilSomebodyWrites(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	other := mustOpen(t, Config{Path: u.c.Path, Hash: cheap})
	exists := func(name string, want bool) {
		t.Helper()
		if got, err := u.Exists(t.Context(), name); got != want || err != nil {
			t.Fatalf("%s exists: %v, %v; want %v", name, got, err, want)
		}
	}
	lookedUp := func(want int) {
		t.Helper()
		if u.known.lookedUp != want {
			t.Fatalf("looked up %d times, want %d", u.known.lookedUp, want)
		}
	}
	for range 3 {
		exists("me@x", true)
		exists("you@x", false)
		if _, err := u.Quota(t.Context(), "me@x"); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Quota(t.Context(), "you@x"); !errors.Is(err, mailstore.ErrNoAccount) {
			t.Fatal(err)
		}
	}
	lookedUp(2)
	if err := other.Add(t.Context(), "you@x", "p"); err != nil {
		t.Fatal(err)
	}
	exists("you@x", true)
	if err := u.Delete(t.Context(), "me@x"); err != nil {
		t.Fatal(err)
	}
	exists("me@x", false)
	exists("you@x", true)
	lookedUp(5)
}

// Within one moment the file is looked at once.
func TestKnownAtOneMoment(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	ctx := mailstore.AtOneMoment(t.Context())
	for _, step := range []struct {
		ctx  context.Context
		want bool
	}{{ctx, true}, {ctx, true}, {t.Context(), false}, {ctx, false}} {
		if ok, err := u.Exists(step.ctx, "me@x"); ok != step.want || err != nil {
			t.Errorf("exists: %v, %v; want %v", ok, err, step.want)
		}
		if step.want {
			_ = u.Delete(t.Context(), "me@x") // the second time there is none
		}
	}
}

func TestKnownIsBounded(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	for i := range mostKnown + 10 {
		if _, err := u.Exists(t.Context(), fmt.Sprintf("nobody%d@x", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(u.known.names); n > mostKnown {
		t.Errorf("%d names are remembered, at most %d should be", n, mostKnown)
	}
}

func TestKnownAfterAnError(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	if ok, err := u.Exists(t.Context(), "me@x"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := u.known.conn.Close(); err != nil { // behind its back
		t.Fatal(err)
	}
	if _, err := u.Exists(t.Context(), "me@x"); err == nil {
		t.Error("a connection that is gone answers")
	}
	if ok, err := u.Exists(t.Context(), "me@x"); !ok || err != nil {
		t.Errorf("with another connection: %v, %v", ok, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.Exists(ended, "me@x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

func TestKnownByMany(t *testing.T) {
	u := openTest(t, Config{}, "me@x")
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			name := fmt.Sprintf("n%d@x", i)
			for range 10 {
				if err := u.Add(t.Context(), name, "p"); err != nil {
					t.Error(err)
				}
				if ok, err := u.Exists(t.Context(), name); !ok || err != nil {
					t.Errorf("%s was added: %v, %v", name, ok, err)
				}
				if err := u.Delete(t.Context(), name); err != nil {
					t.Error(err)
				}
				if ok, err := u.Exists(t.Context(), name); ok || err != nil {
					t.Errorf("%s was deleted: %v, %v", name, ok, err)
				}
			}
		})
	}
	group.Wait()
}
