package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/space"
	"sluice/protocols/admin"
	"sluice/protocols/listen"
	"sluice/scanners/resolve"
)

// spaceGuard watches the file systems that mail is written to: parts of the data folder may be mounted.
func spaceGuard(c *config.Config, log *slog.Logger, now func() time.Time) *space.Guard {
	folders := []string{c.Data}
	for _, part := range []string{"mail", "users", "quarantine", "queue", "spool"} {
		folders = append(folders, filepath.Join(c.Data, part))
	}
	return space.New(space.Config{
		Folders: folders, Octets: int64(c.Limits.DiskFree), Inodes: int64(c.Limits.DiskInodes), Log: log, Now: now,
	})
}

// watch lets the metrics ask what counts itself.
func (h *house) watch(connections map[string]*listen.Counter, logins *listen.Logins, resolver func() resolve.Stats) {
	records, held, room, trials := h.journal, h.quarantine, h.space, h.trials
	h.metrics.Watch(admin.Sources{
		Connections: connections,
		Logins:      logins,
		Journal: func() admin.Journal {
			s := records.Stats()
			return admin.Journal{
				Pending: s.Pending, PendingBytes: s.PendingBytes, Written: s.Written, Dropped: s.Dropped, Failed: s.Failed,
			}
		},
		Held:     held.Count,
		Queue:    h.countQueue(),
		Trials:   trials.Stats,
		Resolver: func() admin.Answers { return admin.Answers(resolver()) },
		Space: func() (octets, inodes int64, low, known bool) {
			free, low, known := room.Now()
			return free.Octets, free.Inodes, low, known
		},
	})
}

// checks say whether mail is taken.
func (h *house) checks(c *config.Config, d *doors) []admin.Check {
	records, room := h.journal, h.space
	return []admin.Check{
		{Name: "doors", Run: func(context.Context) error {
			if !d.ready.Load() {
				return errors.New("not open")
			}
			return nil
		}},
		{Name: "disk", Run: func(context.Context) error { return room.Room(0) }},
		{Name: "store", Run: func(context.Context) error { return probe(filepath.Join(c.Data, "mail")) }},
		{Name: "quarantine", Run: func(context.Context) error { return probe(filepath.Join(c.Data, "quarantine")) }},
		{Name: "journal", Run: func(context.Context) error {
			if s := records.Stats(); s.Failing != nil {
				return fmt.Errorf("cannot be written, %d records wait in memory: %w", s.Pending, s.Failing)
			}
			return nil
		}},
	}
}

// exposed returns warnings about sockets that let strangers watch.
func exposed(sockets []config.Socket) (warnings []string) {
	for _, s := range sockets {
		if _, unix := s.Unix(); unix || isLoopback(s.Address) {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("admin at %s asks nobody for a password, and is not on loopback: "+
			"whoever reaches it sees what mail comes in", s.Address))
	}
	return warnings
}

// isLoopback reports whether HOST:PORT can be reached from this machine only, as far as that can be seen.
func isLoopback(address string) bool {
	host := strings.Trim(address[:max(strings.LastIndexByte(address, ':'), 0)], "[]")
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
