package space

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
)

// disks are file systems by folder, and a clock.
type disks struct {
	free  map[string]Free
	now   time.Time
	asked int
	log   bytes.Buffer
}

func (d *disks) guard(octets, inodes int64, folders ...string) *Guard {
	d.now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return New(Config{
		Folders: folders, Octets: octets, Inodes: inodes,
		Log: slog.New(slog.NewTextHandler(&d.log, nil)), Now: func() time.Time { return d.now },
		Stat: func(folder string) (Free, error) {
			d.asked++
			f, ok := d.free[folder]
			if !ok {
				return Free{}, fs.ErrNotExist
			}
			return f, nil
		},
	})
}

// lines returns the messages logged since the last call.
func (d *disks) lines() (out []string) {
	for line := range strings.Lines(d.log.String()) {
		_, level, _ := strings.Cut(line, "level=")
		level, _, _ = strings.Cut(level, " ")
		out = append(out, level)
	}
	d.log.Reset()
	return out
}

func TestAlarmRingsOnce(t *testing.T) {
	d := &disks{free: map[string]Free{"data": {1000, 50, 99}}}
	g := d.guard(100, 10, "data", "not there")
	for _, tt := range []struct {
		octets, inodes int64
		full           bool
		lines          string
	}{
		{1000, 50, false, ""},
		{100, 10, false, ""},
		{99, 50, true, "ERROR"},
		{50, 50, true, ""},
		{0, 50, true, ""},
		{109, 50, true, ""}, // it takes a tenth more
		{110, 50, false, "WARN"},
		{100, 50, false, ""},
		{1000, 9, true, "ERROR"},
		{1000, 10, true, ""},
		{1000, 11, false, "WARN"},
	} {
		d.now = d.now.Add(time.Second)
		d.free["data"] = Free{tt.octets, tt.inodes, 99}
		for range 3 {
			err := g.Room(0)
			if errors.Is(err, mailstore.ErrFull) != tt.full || (err != nil) != tt.full {
				t.Errorf("%d octets, %d inodes: %v", tt.octets, tt.inodes, err)
			}
		}
		if f, low, known := g.Now(); f.Octets != tt.octets || low != tt.full || !known {
			t.Errorf("now %+v, low %v, known %v; want %+v", f, low, known, tt)
		}
		if got := strings.Join(d.lines(), " "); got != tt.lines {
			t.Errorf("%d octets, %d inodes: logged %q, want %q", tt.octets, tt.inodes, got, tt.lines)
		}
	}
}

func TestAskedOnceASecond(t *testing.T) {
	d := &disks{free: map[string]Free{"data": {1000, 50, 99}}}
	g := d.guard(100, 10, "data")
	for range 20 {
		_ = g.Room(1)
		d.now = d.now.Add(100 * time.Millisecond)
	}
	if d.asked != 2 {
		t.Errorf("asked %d times in two seconds", d.asked)
	}
}

func TestRoomForOneMessage(t *testing.T) {
	d := &disks{free: map[string]Free{"data": {1000, 0, 0}}} // this one counts no inodes
	g := d.guard(100, 10, "data")
	if err := g.Room(901); !errors.Is(err, mailstore.ErrFull) {
		t.Errorf("901 octets would leave 99: %v", err)
	}
	if err := g.Room(900); err != nil {
		t.Errorf("900 octets of 1000: %v", err)
	}
	if err := g.Room(1); !errors.Is(err, mailstore.ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if err := g.Room(0); err != nil {
		t.Errorf("a message of unknown size: %v", err)
	}
	d.now = d.now.Add(time.Second) // nothing of it was written
	if err := g.Room(1); err != nil {
		t.Error(err)
	}
	if l := d.lines(); l != nil {
		t.Errorf("a message that is too large for now rings no alarm: %v", l)
	}
}

func TestFullestCounts(t *testing.T) {
	d := &disks{free: map[string]Free{"data": {1000, 50, 99}, "data/mail": {10, 60, 99}}}
	g := d.guard(100, 10, "data", "data/mail")
	if err := g.Room(0); err == nil || !strings.HasPrefix(err.Error(), "10 octets and 50 inodes free") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(d.log.String(), "folder=data/mail ") {
		t.Errorf("the alarm does not say where: %s", &d.log)
	}
}

func TestUnknownIsRoom(t *testing.T) {
	d := &disks{}
	if err := d.guard(100, 10, "data").Room(1 << 40); err != nil {
		t.Error(err)
	}
	if err := (&disks{free: map[string]Free{"data": {}}}).guard(0, 0, "data").Room(1 << 40); err != nil {
		t.Errorf("without limits: %v", err)
	}
}

func TestSystem(t *testing.T) {
	f, err := stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if f.Octets <= 0 || f.Inodes < 0 || f.Files < f.Inodes {
		t.Errorf("got %+v", f)
	}
	if _, err := stat(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a folder that is not there: %v", err)
	}
}
