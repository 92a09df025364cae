package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/mailstore/state/database/databasetest"
	"sluice/pipeline"
)

var _ pipeline.State = (*State)(nil)

type clock struct{ now atomic.Pointer[time.Time] }

func newClock() *clock {
	c := new(clock)
	c.set(0)
	return c
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func (c *clock) set(after time.Duration) {
	t := noon.Add(after)
	c.now.Store(&t)
}

func (c *clock) Now() time.Time { return *c.now.Load() }

func openTest(t *testing.T, c Config) (*State, *databasetest.Faults) {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "state.db")
	}
	var faults databasetest.Faults
	s, err := open(t.Context(), c, faults.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &faults
}

func (s *State) keys(t *testing.T) int {
	t.Helper()
	var n int
	if err := s.db.QueryRow(countKeys).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func mustAdd(t *testing.T, s *State, key string, n int64, keep time.Duration, want int64) {
	t.Helper()
	if got, err := s.Add(t.Context(), key, n, keep); err != nil || got != want {
		t.Errorf("Add(%q, %d) = %d, %v; want %d", key, n, got, err, want)
	}
}

func mustStore(t *testing.T, s *State, key, value string, keep time.Duration) {
	t.Helper()
	if err := s.Store(t.Context(), key, []byte(value), keep); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, s *State, key, want string, wantOK bool) {
	t.Helper()
	got, ok, err := s.Load(t.Context(), key)
	if err != nil || string(got) != want || ok != wantOK {
		t.Errorf("Load(%q) = %q, %v, %v; want %q, %v", key, got, ok, err, want, wantOK)
	}
}

func TestValuesExpire(t *testing.T) {
	c := newClock()
	s, _ := openTest(t, Config{Now: c.Now})
	other, _ := openTest(t, Config{Path: s.c.Path, Now: c.Now}) // as another process
	for _, key := range []string{"k", "", "a\x00b", "\xff", "ключ", "' OR 1=1 --"} {
		c.set(0)
		wantValue(t, s, key, "", false)
		mustStore(t, s, key, "v\x00\xff", time.Minute)
		wantValue(t, s, key, "v\x00\xff", true)
		wantValue(t, other, key, "v\x00\xff", true)
		c.set(time.Minute - 1)
		wantValue(t, s, key, "v\x00\xff", true)
		c.set(time.Minute)
		wantValue(t, other, key, "", false)
		mustStore(t, other, key, "", time.Minute)
		wantValue(t, s, key, "", true)
		mustStore(t, s, key, "gone", 0)
		wantValue(t, s, key, "", false)
	}
}

func TestCountersExpire(t *testing.T) {
	c := newClock()
	s, _ := openTest(t, Config{Now: c.Now})
	other, _ := openTest(t, Config{Path: s.c.Path, Now: c.Now})
	mustAdd(t, s, "k", 1, time.Minute, 1)
	mustAdd(t, other, "k", 5, time.Minute, 6)
	c.set(30 * time.Second)
	mustAdd(t, s, "k", -2, time.Minute, 4) // does not keep it longer
	mustAdd(t, s, "k", 0, time.Minute, 4)
	mustAdd(t, s, "other", 7, time.Minute, 7)
	c.set(time.Minute)
	mustAdd(t, s, "k", 3, time.Minute, 3)
	mustAdd(t, s, "other", 1, time.Minute, 8)
	mustAdd(t, s, "k", 4, 0, 7)
	mustAdd(t, s, "unkept", 4, 0, 4)
	mustAdd(t, s, "unkept", 4, 0, 4)
	mustAdd(t, s, "big", math.MaxInt64, time.Minute, math.MaxInt64)
	if n, err := s.Add(t.Context(), "big", 1, time.Minute); err == nil {
		t.Errorf("an overflow gives %d", n)
	}

	mustStore(t, s, "k", "value", time.Minute)
	mustAdd(t, s, "k", 1, time.Minute, 1)
	wantValue(t, s, "k", "value", true)
	c.set(2 * time.Minute)
	mustAdd(t, s, "k", 1, time.Minute, 1)
	wantValue(t, s, "k", "", true)
}

func TestReopen(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(t.Context(), Config{Path: path, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, "v", "value", time.Hour)
	mustAdd(t, s, "n", 41, time.Hour, 41)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := openTest(t, Config{Path: path, Now: c.Now})
	wantValue(t, again, "v", "value", true)
	mustAdd(t, again, "n", 1, time.Hour, 42)
}

func TestNothingIsCountedTwiceOrNot(t *testing.T) {
	a, _ := openTest(t, Config{})
	b, _ := openTest(t, Config{Path: a.c.Path})
	var wg sync.WaitGroup
	seen := make([]atomic.Bool, 201)
	for i := range 10 {
		wg.Go(func() {
			for range 20 {
				n, err := []*State{a, b}[i%2].Add(t.Context(), "k", 1, time.Hour)
				if err != nil {
					t.Error(err)
				} else if seen[n].Swap(true) {
					t.Errorf("%d was given twice", n)
				}
			}
		})
	}
	wg.Wait()
	mustAdd(t, a, "k", 0, time.Hour, 200)
}

func TestSweep(t *testing.T) {
	c := newClock()
	s, _ := openTest(t, Config{Now: c.Now, MaxKeys: 20000})
	const n = batch + 10
	for i := range n {
		mustStore(t, s, fmt.Sprint("short", i), "v", time.Minute)
	}
	mustStore(t, s, "long", "v", time.Hour)
	mustAdd(t, s, "counter", 1, time.Hour, 1)
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{0, n + 2}, {time.Minute, 2}, {time.Hour, 0}} {
		c.set(step.after)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.keys(t); got != step.left {
			t.Errorf("after %v: %d keys, want %d", step.after, got, step.left)
		}
	}
}

func TestMaxKeys(t *testing.T) {
	c := newClock()
	s, _ := openTest(t, Config{Now: c.Now, MaxKeys: 100})
	for i := range 1500 {
		mustAdd(t, s, fmt.Sprint("k", i), 1, time.Hour+time.Duration(i%500)*time.Second, 1)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.keys(t); n != 100 {
		t.Errorf("%d keys, want 100", n)
	}
	mustAdd(t, s, "k1499", 1, time.Hour, 2) // among those that expire last
	mustAdd(t, s, "k1000", 1, time.Hour, 1) // gone
}

func TestSweepsWithoutBeingAsked(t *testing.T) {
	for name, config := range map[string]Config{
		"now and then":   {Sweep: time.Millisecond},
		"after many new": {Sweep: time.Hour, MaxKeys: 20},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			config.Now = c.Now
			s, _ := openTest(t, config)
			mustAdd(t, s, "old", 1, time.Minute, 1)
			c.set(time.Hour)
			for i := range 100 {
				mustAdd(t, s, fmt.Sprint("k", i%5), 0, time.Hour, 0)
			}
			for deadline := time.Now().Add(time.Minute); s.keys(t) != 5; {
				if time.Now().After(deadline) {
					t.Fatalf("%d keys are left", s.keys(t))
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s, _ := openTest(t, Config{MaxValue: 10})
	long := strings.Repeat("x", 1024)
	mustStore(t, s, long, "0123456789", time.Hour)
	wantValue(t, s, long, "0123456789", true)
	for want, err := range map[string]error{
		`state: value of "k": too large: 11 octets, at most 10`:                                        s.Store(t.Context(), "k", make([]byte, 11), time.Hour),
		`state: key "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: too large: 1025 octets, at most 1024`: s.Store(t.Context(), long+"x", nil, time.Hour),
	} {
		if err == nil || err.Error() != want || !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := s.Add(t.Context(), long+"x", 1, time.Hour); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestNthCallFails(t *testing.T) {
	s, faults := openTest(t, Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	for n := 1; ; n++ {
		key := fmt.Sprint("k", n)
		faults.FailAt(n)
		_, err := s.Add(t.Context(), key, 1, time.Hour)
		done := faults.Calls() < n
		if done != (err == nil) {
			t.Errorf("call %d: %v", n, err)
		}
		faults.FailAt(0)
		if done {
			return
		}
		mustAdd(t, s, key, 1, time.Hour, 1) // nothing was counted
	}
}

func TestCloseEndsTheSweeper(t *testing.T) {
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, Config{Path: filepath.Join(t.TempDir(), "state.db"), Sweep: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // ctx is for opening only
	mustAdd(t, s, "k", 1, time.Hour, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log.String())
	}
}

func BenchmarkAdd(b *testing.B) {
	s, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "state.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Add(b.Context(), fmt.Sprint("k", n.Add(1)%1000), 1, time.Hour); err != nil {
				b.Error(err)
			}
		}
	})
}
