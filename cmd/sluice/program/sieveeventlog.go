package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/protocols/imap"
)

// An eventLog keeps on disk what mail clients have done and scripts have not dealt with yet: each event in a file of its
// own, whose first line is the event, and each line after it the UID of a mail that is dealt with.
type eventLog struct {
	disk  disk
	dir   string
	begun int64 // when this server began: names are in the order in which things happened, over restarts too
	n     atomic.Int64
}

// eventsVersion is that of the files.
const eventsVersion = 1

// A waitingEvent is an event, and where it is kept; "": nowhere, and a crash loses it.
type waitingEvent struct {
	imap.Event
	path string
}

type eventFile struct {
	Version int        `json:"version"`
	Event   imap.Event `json:"event"`
}

// openEventLog opens the log in a folder, which is made if need be, and returns what the last server has left there. The
// caller owns the data folder. strange names files that nobody can read; they stay where they are.
func openEventLog(d disk, dir string, now time.Time) (l *eventLog, left []waitingEvent, strange []string, err error) {
	l = &eventLog{disk: d, dir: dir, begun: now.UnixNano()}
	fail := func(err error) (*eventLog, []waitingEvent, []string, error) {
		return nil, nil, nil, fmt.Errorf("open %s: %w", dir, cause(err))
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := d.SyncFolder(filepath.Dir(dir)); err != nil {
			return fail(err)
		}
	} else if !errors.Is(err, os.ErrExist) {
		return fail(err)
	}
	files, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return fail(err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if strings.HasPrefix(f.Name(), ".new-") { // its client was told nothing
			if err := d.Remove(path); err != nil {
				return fail(err)
			}
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fail(err)
		}
		x, ok := readEvent(text)
		if !ok {
			strange = append(strange, path)
			continue
		}
		left = append(left, waitingEvent{x, path})
	}
	return l, left, strange, nil
}

// readEvent reads an event without the mails that are dealt with.
func readEvent(text []byte) (imap.Event, bool) {
	first, rest, whole := bytes.Cut(text, []byte("\n"))
	var f eventFile
	if !whole || json.Unmarshal(first, &f) != nil || f.Version != eventsVersion || f.Event.Account == "" {
		return imap.Event{}, false
	}
	for line := range bytes.Lines(rest) {
		if uid, err := strconv.ParseUint(string(bytes.TrimSuffix(line, []byte("\n"))), 10, 32); err == nil && line[len(line)-1] == '\n' {
			f.Event.UIDs = slices.DeleteFunc(f.Event.UIDs, func(x uint32) bool { return x == uint32(uid) })
		}
	}
	return f.Event, true
}

// keep returns once an event would survive a power cut.
func (l *eventLog) keep(x imap.Event) (path string, err error) {
	text, err := json.Marshal(eventFile{eventsVersion, x})
	if err != nil {
		return "", err
	}
	f, err := l.disk.CreateTemp(l.dir, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	path = filepath.Join(l.dir, fmt.Sprintf("%019d-%09d.json", l.begun, l.n.Add(1)))
	if err == nil {
		err = l.disk.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, l.disk.Remove(f.Name()))
	}
	if err := l.disk.SyncFolder(l.dir); err != nil {
		return "", errors.Join(err, l.disk.Remove(path))
	}
	return path, nil
}

// done notes that a mail of an event is dealt with. It is not synced: after a kill it is known, and after a power cut scripts
// may run for the mail once more.
func (x waitingEvent) done(uid uint32) error {
	if x.path == "" {
		return nil
	}
	f, err := os.OpenFile(x.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatUint(uint64(uid), 10) + "\n")
	return errors.Join(err, f.Close())
}

// forget removes an event that is dealt with.
func (l *eventLog) forget(x waitingEvent) error {
	if x.path == "" {
		return nil
	}
	return l.disk.Remove(x.path)
}
