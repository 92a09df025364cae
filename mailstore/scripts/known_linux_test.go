package scripts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/mailstore"
)

// A text that the caller has is not read again until the file is another, whoever has changed it and however. Elsewhere files are read each time.
func TestKnownUntilTheFileChanges(t *testing.T) {
	users := t.TempDir()
	s := openIn(t, users)
	s.now = func() time.Time { return time.Now().Add(time.Hour) } // all that has changed has long done so
	check(t, s.Put(t.Context(), anna, "work", []byte("keep;")))
	check(t, s.Activate(t.Context(), anna, "work"))
	home := filepath.Join(users, "example.org", "anna")
	file := filepath.Join(home, folder, "work.sieve")
	have := ""
	active := func(step, wantName, wantText string) {
		t.Helper()
		name, text, version, err := s.Active(t.Context(), anna, have)
		if err != nil || name != wantName || string(text) != wantText || version == "" {
			t.Fatalf("%s: %q, %q, %q, %v; want %q, %q", step, name, text, version, err, wantName, wantText)
		}
		have = version
		for range 3 {
			before := s.known.looked
			name, text, version, err = s.Active(t.Context(), anna, have)
			if err != nil || name != wantName || text != nil || version != have {
				t.Fatalf("%s: again: %q, %q, %q, %v", step, name, text, version, err)
			}
			if s.known.looked != before+1 {
				t.Fatalf("%s: it was read although it is known", step)
			}
		}
	}
	active("put", "work", "keep;")
	later(t, users)
	check(t, s.Put(t.Context(), anna, "work", []byte("stop;")))
	active("put again", "work", "stop;")
	for _, text := range []string{"keep;", "stop;"} { // as long as the one before, within the same file
		later(t, users)
		info, err := os.Stat(file)
		check(t, err)
		check(t, os.WriteFile(file, []byte(text), 0o600))
		check(t, os.Chtimes(file, info.ModTime(), info.ModTime())) // as those do who keep times
		active("written into, with the time of before", "work", text)
	}
	check(t, os.WriteFile(file+".new", []byte("keep;"), 0o600))
	check(t, os.Rename(file+".new", file))
	active("replaced, as editors do", "work", "keep;")

	check(t, s.Put(t.Context(), anna, "play", []byte("stop;")))
	check(t, s.Activate(t.Context(), anna, "play"))
	active("another one is active", "play", "stop;")
	check(t, s.Activate(t.Context(), anna, ""))
	if _, _, _, err := s.Active(t.Context(), anna, have); !errors.Is(err, mailstore.ErrNoScript) {
		t.Errorf("none is active: %v", err)
	}
	check(t, s.Activate(t.Context(), anna, "work"))
	check(t, os.Remove(file))
	if _, _, _, err := s.Active(t.Context(), anna, have); !errors.Is(err, mailstore.ErrNoScript) {
		t.Errorf("the file is gone: %v", err)
	}
}

// later returns once the clock of the file system has gone on.
func later(t *testing.T, dir string) {
	t.Helper()
	at := func() identity {
		path := filepath.Join(dir, "clock")
		check(t, os.WriteFile(path, nil, 0o600))
		id, err := identify(path)
		check(t, err)
		return id
	}
	first := at()
	for end := time.Now().Add(10 * time.Second); at().changed().Equal(first.changed()); {
		if time.Now().After(end) {
			t.Fatal("the clock of the file system stands still")
		}
	}
}

// What has changed just now may change again and look the same: it is read until that is sure.
func TestKnownOnlyOnceSettled(t *testing.T) {
	s := openIn(t, t.TempDir())
	check(t, s.Put(t.Context(), anna, "work", []byte("keep;")))
	check(t, s.Activate(t.Context(), anna, "work"))
	now := time.Now()
	for _, tt := range []struct {
		after time.Duration
		known int
	}{{0, 0}, {settled - time.Second, 0}, {-time.Hour, 0}, {settled + time.Second, 1}} {
		s.now = func() time.Time { return now.Add(tt.after) }
		_, _, have, err := s.Active(t.Context(), anna, "")
		check(t, err)
		if _, text, _, err := s.Active(t.Context(), anna, have); err != nil || text != nil {
			t.Errorf("after %v: %q, %v", tt.after, text, err)
		}
		if s.known.looked != tt.known {
			t.Errorf("after %v: not read %d times, want %d", tt.after, s.known.looked, tt.known)
		}
	}
}

func TestKnownIsBounded(t *testing.T) {
	var k known
	for i := range mostKnown + 10 {
		k.keep(fmt.Sprint(i), textOf{version: "v"}, time.Now())
	}
	if n := len(k.texts); n == 0 || n > mostKnown {
		t.Errorf("%d files are remembered, at most %d should be", n, mostKnown)
	}
}
