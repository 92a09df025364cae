package scripts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
)

type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func openLogIn(t testing.TB, users string, limits LogLimits) (*Log, *clock) {
	t.Helper()
	c := &clock{time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	l, err := OpenLog(LogConfig{Users: users, Limits: limits, Now: c.now})
	check(t, err)
	return l, c
}

func texts(t testing.TB, l *Log) (all []string) {
	t.Helper()
	list, err := l.Problems(t.Context(), anna)
	check(t, err)
	for _, x := range list {
		all = append(all, x.Text)
	}
	return all
}

func problem(line int, text string) mailstore.ScriptProblem {
	return mailstore.ScriptProblem{Script: "work", Line: line, Text: text}
}

// TestTold: the owner is told once a day of the same thing, and again where telling has failed.
func TestTold(t *testing.T) {
	l, now := openLogIn(t, t.TempDir(), LogLimits{Mails: 3})
	told := 0
	note := func(p mailstore.ScriptProblem) {
		t.Helper()
		check(t, l.Note(t.Context(), anna, p, func(context.Context) error { told++; return nil }))
	}
	expect := func(n int) {
		t.Helper()
		if told != n {
			t.Errorf("told %d times, want %d", told, n)
		}
	}
	note(problem(1, "a"))
	note(problem(1, "a"))
	expect(1)
	note(problem(2, "a"))
	note(problem(1, "b"))
	expect(3)
	note(problem(1, "c")) // one too many that day
	expect(3)
	now.Time = now.Add(24*time.Hour - time.Second)
	note(problem(1, "a"))
	expect(3)
	now.Time = now.Add(time.Second)
	note(problem(1, "a"))
	expect(4)
	failed := l.Note(t.Context(), anna, problem(1, "d"), func(context.Context) error { return errDisk })
	if !errors.Is(failed, errDisk) {
		t.Errorf("the error is %v", failed)
	}
	note(problem(1, "d"))
	expect(5)
	check(t, l.Note(t.Context(), anna, problem(1, "e"), nil))
	note(problem(1, "e"))
	expect(6)
	if got := texts(t, l); len(got) != 11 {
		t.Errorf("the log has %q", got)
	}
	// What another process begins with.
	again, _ := openLogIn(t, l.cfg.Users, LogLimits{Mails: 3})
	again.cfg.Now = l.cfg.Now
	check(t, again.Note(t.Context(), anna, problem(1, "d"), func(context.Context) error { t.Error("told again"); return nil }))
}

func TestLogIsBounded(t *testing.T) {
	l, now := openLogIn(t, t.TempDir(), LogLimits{Size: 4000, Keep: time.Hour})
	file := filepath.Join(l.cfg.Users, "example.org", "anna", logFile)
	first := problem(0, "told at first")
	check(t, l.Note(t.Context(), anna, first, func(context.Context) error { return nil }))
	for i := range 200 {
		check(t, l.Note(t.Context(), anna, problem(i, strings.Repeat("ü", 2000)), nil))
		info, err := os.Stat(file)
		check(t, err)
		if info.Size() > 4000 {
			t.Fatalf("after %d: %d octets", i, info.Size())
		}
	}
	check(t, l.Note(t.Context(), anna, problem(0, "last"), nil))
	got := texts(t, l)
	if n := len(got); n < 2 || got[n-1] != "last" || got[0] != "told at first" || len(got[1]) != mostText {
		t.Errorf("the log has %d entries, the first %.40q, the last %.40q", n, got[0], got[n-1])
	}
	check(t, l.Note(t.Context(), anna, first, func(context.Context) error { t.Error("told again"); return nil }))
	now.Time = now.Add(time.Hour + time.Minute)
	if got := texts(t, l); len(got) != 0 {
		t.Errorf("after its time the log has %q", got)
	}
	check(t, l.Note(t.Context(), anna, problem(0, "new"), nil))
	if text, err := os.ReadFile(file); err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("what is too old is kept: %.100q, %v", text, err)
	}
}

// TestLogAfterAPowerCut: a torn line is no entry, and does not take the next one with it.
func TestLogAfterAPowerCut(t *testing.T) {
	l, _ := openLogIn(t, t.TempDir(), LogLimits{})
	check(t, l.Note(t.Context(), anna, problem(1, "one"), nil))
	file := filepath.Join(l.cfg.Users, "example.org", "anna", logFile)
	text, err := os.ReadFile(file)
	check(t, err)
	for n := range len(text) + 1 {
		check(t, os.WriteFile(file, append(slices.Clone(text), text[:n]...), 0o600))
		check(t, l.Note(t.Context(), anna, problem(2, "two"), nil))
		got := texts(t, l)
		want := []string{"one", "two"}
		if n >= len(text)-1 {
			want = []string{"one", "one", "two"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("torn at %d: %q", n, got)
		}
	}
}

// Each operation of a note fails in turn: what was kept before is kept still, and telling is not forgotten.
func TestNotesFail(t *testing.T) {
	for _, size := range []int64{100 << 10, 300} { // appended, and made anew
		for n := 1; ; n++ {
			l, _ := openLogIn(t, t.TempDir(), LogLimits{Size: size})
			check(t, l.Note(t.Context(), anna, problem(1, "one"), nil))
			check(t, l.Note(t.Context(), anna, problem(1, "two"), nil))
			d := &failing{disk: osDisk{}, n: n}
			l.disk = d
			told := false
			err := l.Note(t.Context(), anna, problem(1, "three"), func(context.Context) error { told = true; return nil })
			l.disk = osDisk{}
			if d.did == "" {
				check(t, err)
				if n < 3 {
					t.Error("nothing failed")
				}
				break
			}
			if !errors.Is(err, errDisk) || !told {
				t.Errorf("operation %d (%s) failed: %v, told: %t", n, d.did, err, told)
			}
			got := texts(t, l)
			if len(got) < 1 || !slices.Contains(got, "two") && size > 1000 {
				t.Errorf("operation %d (%s) failed: the log has %q", n, d.did, got)
			}
			check(t, l.Note(t.Context(), anna, problem(1, "four"), nil))
			if got := texts(t, l); got[len(got)-1] != "four" {
				t.Errorf("after operation %d (%s) had failed the log has %q", n, d.did, got)
			}
		}
	}
}

func TestManyNotesAtOnce(t *testing.T) {
	users := t.TempDir()
	var all sync.WaitGroup
	var mu sync.Mutex
	told := 0
	for i := range 4 {
		l, _ := openLogIn(t, users, LogLimits{}) // as several processes have it
		all.Go(func() {
			for j := range 5 {
				err := l.Note(t.Context(), anna, problem(1, fmt.Sprint("same ", j%2)), func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					told++
					return nil
				})
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	l, _ := openLogIn(t, users, LogLimits{})
	if got := texts(t, l); len(got) != 20 || told != 2 {
		t.Errorf("%d entries, told %d times; want 20 and 2", len(got), told)
	}
}

func TestLogOfNobody(t *testing.T) {
	l, _ := openLogIn(t, t.TempDir(), LogLimits{})
	if got := texts(t, l); len(got) != 0 {
		t.Errorf("a log that is not there has %q", got)
	}
	if err := l.Note(t.Context(), "../../anna@example.org", problem(1, "x"), nil); !errors.Is(err, mailstore.ErrName) {
		t.Errorf("the error is %v", err)
	}
}
