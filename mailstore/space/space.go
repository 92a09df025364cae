// Package space watches how much room the disk has left, so that mail is put off before the disk is full: what runs out
// of room half-way helps nobody, and the indexes and records need some to stay usable.
package space

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"sluice/mailstore"
)

// A Config says what is watched, and how much of it is kept free.
type Config struct {
	Folders []string // on each of their file systems; those that do not exist are left out
	Octets  int64    // to be kept free; 0: as few as there are
	Inodes  int64    // the same; a file system that does not count them has enough
	Log     *slog.Logger
	Now     func() time.Time
	// Stat says how much is free; nil asks the system.
	Stat func(folder string) (Free, error)
}

// Free is what a file system has left for us.
type Free struct {
	Octets int64
	Inodes int64
	Files  int64 // inodes in all; 0: it does not count them
}

// A Guard says whether there is room. It asks the system at most once a second, and says one line when room gets short
// and one when there is enough again. Its methods may be called by any number of goroutines.
type Guard struct {
	c Config

	mu    sync.Mutex
	asked time.Time
	least Free
	let   int64 // octets of messages let in since
	known bool
	low   bool
}

// New returns a guard.
func New(c Config) *Guard {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Stat == nil {
		c.Stat = stat
	}
	return &Guard{c: c}
}

// Room returns nil if there is room for a message of size octets (0: unknown), else an error that wraps
// mailstore.ErrFull. What was let in since the system was asked counts as written. Where the system does not say how much is free, there is room: writing will tell.
func (g *Guard) Room(size int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look()
	if !g.known || !g.low && (g.c.Octets <= 0 || g.least.Octets-g.c.Octets-g.let >= size) {
		g.let += size
		return nil
	}
	return fmt.Errorf("%d octets and %d inodes free: %w", g.least.Octets, g.least.Inodes, mailstore.ErrFull)
}

// Now returns the least that is free on any of the file systems, and whether that is too little; known is false where
// the system does not say.
func (g *Guard) Now() (f Free, low, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look()
	return g.least, g.low, g.known
}

// look asks the system, if that was not done just now. The caller holds mu.
func (g *Guard) look() {
	now := g.c.Now()
	if since := now.Sub(g.asked); !g.asked.IsZero() && since >= 0 && since < time.Second {
		return
	}
	g.asked = now
	g.known, g.let = false, 0
	where := ""
	for _, folder := range g.c.Folders {
		f, err := g.c.Stat(folder)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				g.c.Log.Debug("room on the disk is not known", "folder", folder, "err", err)
			}
			continue
		}
		if f.Files <= 0 {
			f.Inodes = 1<<63 - 1
		}
		if !g.known {
			g.least, g.known, where = f, true, folder
			continue
		}
		if f.Octets < g.least.Octets || f.Inodes < g.least.Inodes {
			where = folder
		}
		g.least.Octets, g.least.Inodes = min(g.least.Octets, f.Octets), min(g.least.Inodes, f.Inodes)
	}
	if !g.known {
		return // the last that was known stands
	}
	switch short := g.short(); {
	case short && !g.low:
		g.c.Log.Error("the disk is nearly full: mail is put off until there is room again",
			"folder", where, "octets", g.least.Octets, "inodes", g.least.Inodes, "keep_octets", g.c.Octets, "keep_inodes", g.c.Inodes)
		g.low = true
	case !short && g.low:
		g.c.Log.Warn("there is room on the disk again: mail is taken", "octets", g.least.Octets, "inodes", g.least.Inodes)
		g.low = false
	}
}

// short reports whether there is too little. To be enough again it takes a tenth more, so that the alarm does not ring
// with every mail.
func (g *Guard) short() bool {
	octets, inodes := g.c.Octets, g.c.Inodes
	if g.low {
		octets, inodes = octets+octets/10, inodes+inodes/10
	}
	return g.c.Octets > 0 && g.least.Octets < octets || g.c.Inodes > 0 && g.least.Inodes < inodes
}

// Store returns s with its readers' uploads bounded: Append fails with mailstore.ErrFull before anything is written.
// What is delivered has been asked about before (Room), and is filed while there is any room.
func (g *Guard) Store(s mailstore.Store) mailstore.Store { return guarded{s, g} }

type guarded struct {
	mailstore.Store
	g *Guard
}

func (s guarded) Account(ctx context.Context, name string) (mailstore.Account, error) {
	a, err := s.Store.Account(ctx, name)
	if err != nil {
		return nil, err
	}
	return account{a, s.g}, nil
}

type account struct {
	mailstore.Account
	g *Guard
}

func (a account) Open(ctx context.Context, name string) (mailstore.Folder, error) {
	f, err := a.Account.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return folder{f, a.g}, nil
}

type folder struct {
	mailstore.Folder
	g *Guard
}

func (f folder) Append(ctx context.Context, content io.Reader, flags []string, date time.Time) (uint32, error) {
	if err := f.g.Room(0); err != nil {
		return 0, fmt.Errorf("append to %s: %w", f.Name(), err)
	}
	return f.Folder.Append(ctx, content, flags, date)
}
