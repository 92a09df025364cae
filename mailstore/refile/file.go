package refile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/mailstore"
)

// maxLine is how many octets a line of a run file has at most; ours have a few thousand.
const maxLine = 1 << 20

// What a line says.
const (
	whatRun       = "run"
	whatMove      = "move"
	whatMaking    = "making"
	whatBegin     = "begin"
	whatDone      = "done"
	whatLeft      = "left"
	whatEnd       = "end"
	whatUndo      = "undo"
	whatUndoBegin = "undo-begin"
	whatBack      = "back"
	whatStays     = "stays"
	whatUnmade    = "unmade"
	whatUndone    = "undone"
)

// A line is one line of a run file.
type line struct {
	What       string          `json:"what"`
	Run        *Head           `json:"run,omitempty"`
	N          int             `json:"n,omitempty"`
	To         int             `json:"to,omitempty"`
	Move       *Move           `json:"move,omitempty"`
	Spot       *mailstore.Spot `json:"spot,omitempty"`
	Left       mailstore.Left  `json:"left,omitempty"`
	Folder     string          `json:"folder,omitempty"`
	Subscribed bool            `json:"subscribed,omitempty"`
	Kept       string          `json:"kept,omitempty"`
	At         time.Time       `json:"at,omitzero"`
}

// follow puts into r what a line says. Lines that cannot follow on what was said before are an error.
func (r *Run) follow(l line) error {
	if (l.What == whatRun) != (r.Version == 0) {
		return errors.New("a run file begins with one line that says what it is about")
	}
	switch l.What {
	case whatRun:
		switch {
		case l.Run == nil || l.Run.Version < 1 || l.Run.ID == "" || l.Run.Account == "" || l.Run.Moves < 0:
			return errors.New("it does not say what run it is")
		case l.Run.Version > Version:
			return fmt.Errorf("%w: version %d, this program knows %d", ErrNewer, l.Run.Version, Version)
		}
		r.Head = *l.Run
	case whatMove:
		m := l.Move
		if m == nil || l.N != len(r.All)+1 || l.N > r.Moves || m.From.File == "" || m.From.File != m.To.File ||
			m.From.Folder == "" || m.To.Folder == "" {
			return errors.New("it is no move that could stand here")
		}
		r.All = append(r.All, Tracked{Move: *m, State: Planned})
	case whatBegin:
		return r.each(l, Begun, Planned)
	case whatUndoBegin:
		return r.each(l, Leaving, Begun, Done)
	case whatDone, whatLeft, whatBack, whatStays:
		return r.result(l)
	case whatMaking, whatUnmade:
		return r.folder(l)
	case whatEnd:
		r.Ended = true
	case whatUndo:
		r.Undo = true
	case whatUndone:
		r.Undone = r.Undo
	default:
		return fmt.Errorf("%q is nothing that a run file says", l.What)
	}
	return nil
}

func (r *Run) each(l line, is State, was ...State) error {
	if l.N < 1 || l.To < l.N || l.To > len(r.All) || is == Leaving && !r.Undo {
		return fmt.Errorf("there are no moves %d to %d to begin", l.N, l.To)
	}
	for i := l.N - 1; i < l.To; i++ {
		if !slices.Contains(was, r.All[i].State) {
			return fmt.Errorf("move %d is %s and cannot begin", i+1, r.All[i].State)
		}
		r.All[i].State = is
	}
	return nil
}

func (r *Run) result(l line) error {
	if l.N < 1 || l.N > len(r.All) {
		return fmt.Errorf("there is no move %d", l.N)
	}
	t := &r.All[l.N-1]
	states := map[string][2]State{
		whatDone: {Begun, Done}, whatLeft: {Begun, Skipped}, whatBack: {Leaving, Back}, whatStays: {Leaving, Stays},
	}
	if t.State != states[l.What][0] {
		return fmt.Errorf("move %d is %s and cannot be %s", l.N, t.State, l.What)
	}
	if l.Spot != nil && l.Spot.File != t.From.File {
		return fmt.Errorf("move %d is about another mail", l.N)
	}
	t.State, t.Left, t.Now = states[l.What][1], l.Left, mailstore.Spot{}
	if l.Spot != nil {
		t.Now = *l.Spot
	}
	return nil
}

func (r *Run) folder(l line) error {
	at := slices.IndexFunc(r.Folders, func(m *Made) bool { return m.Folder == l.Folder })
	switch {
	case l.Folder == "" || l.What == whatUnmade && at < 0:
		return fmt.Errorf("folder %q was not made", l.Folder)
	case l.What == whatUnmade:
		r.Folders[at].Gone, r.Folders[at].Kept = l.Kept == "", l.Kept
	case at < 0:
		r.Folders = append(r.Folders, &Made{Folder: l.Folder, Subscribed: l.Subscribed})
	}
	return nil
}

// read reads a run file and returns how many of its octets are good: the last line may have been broken off with the
// machine. Its errors say where.
func read(in io.Reader, name string) (r *Run, good int64, err error) {
	r = new(Run)
	lines := bufio.NewReaderSize(in, 64<<10)
	var bad error // of a line that is only good for nothing if it is the last
	for n := 1; ; n++ {
		text, err := readLine(lines)
		if err != nil && err != io.EOF {
			return nil, 0, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if len(text) == 0 {
			break
		}
		if bad != nil {
			return nil, 0, bad
		}
		var l line
		if err == io.EOF {
			bad = fmt.Errorf("%s:%d: %w: its last line is broken off", name, n, ErrDamaged)
			continue
		}
		if e := json.Unmarshal(text, &l); e != nil {
			bad = fmt.Errorf("%s:%d: %w: this is no line of JSON: %w", name, n, ErrDamaged, e)
			continue
		}
		if e := r.follow(l); e != nil {
			if errors.Is(e, ErrNewer) {
				return nil, 0, fmt.Errorf("%s:%d: %w", name, n, e)
			}
			return nil, 0, fmt.Errorf("%s:%d: %w: %w", name, n, ErrDamaged, e)
		}
		good += int64(len(text))
	}
	// Before anything is done the file is whole: it gets its name afterwards.
	if len(r.All) != r.Moves || r.Version == 0 {
		if bad == nil {
			bad = fmt.Errorf("%s: %w: it has %d moves of %d", name, ErrDamaged, len(r.All), r.Moves)
		}
		return nil, 0, bad
	}
	return r, good, nil
}

// readLine returns a line with its end; io.EOF with what is left without one.
func readLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(text)+len(part) > maxLine {
			return nil, fmt.Errorf("%w: the line is longer than %d octets", ErrDamaged, maxLine)
		}
		text = append(text, part...)
		if err != bufio.ErrBufferFull {
			return text, err
		}
	}
}

// A writer appends lines to a run file.
type writer struct {
	f      file
	now    func() time.Time
	sure   string // the folder that was last seen to exist
	failed error  // what is written after half a line would be lost, or worse
}

// put writes lines and then puts into r what they say; with durable they are on the disk before.
func (r *Run) put(durable bool, lines ...line) error {
	if r.w == nil {
		return errRead
	}
	if r.w.failed != nil {
		return r.w.failed
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	_, err := r.w.f.Write(text.Bytes())
	if err == nil && durable {
		err = r.w.f.Sync()
	}
	if err != nil {
		r.w.failed = fmt.Errorf("write the run file: %w", err)
		return r.w.failed
	}
	for _, l := range lines {
		if err := r.follow(l); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) close() error { return w.f.Close() }

// A disk is what this package does to files when it writes. Tests put one in that fails.
type disk interface {
	MakeFolder(path string) error
	Create(path string) (file, error) // to be written; it must not exist
	Append(path string) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncFolder(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
	Lock() error // ErrBusy
}

type osDisk struct{}

type osFile struct{ *os.File }

func (f osFile) Lock() error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrBusy
	}
	return err
}

func (osDisk) MakeFolder(path string) error { return os.MkdirAll(path, 0o700) }

func (osDisk) Create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Append(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A Dir is the folder that run files lie in. Now may be nil.
type Dir struct {
	Path string
	Now  func() time.Time

	disk disk // nil: the real one
}

const suffix = ".jsonl"

func (d Dir) path(id string) string { return filepath.Join(d.Path, id+suffix) }

func (d Dir) on() disk {
	if d.disk == nil {
		return osDisk{}
	}
	return d.disk
}

func (d Dir) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

// isID reports whether s can be the id of a run: it becomes part of a path.
func isID(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}

// Create writes down a new run, durable, and returns it to be applied. Version, ID, Started and Moves of head are filled
// in. Moves that can be made in one go come together.
func (d Dir) Create(head Head, moves []Move) (_ *Run, err error) {
	at := d.now()
	head.Version, head.Started, head.Moves = Version, at.UTC(), len(moves)
	head.ID = at.UTC().Format("20060102") + "-" + strings.ToLower(rand.Text()[:6])
	moves = slices.Clone(moves)
	slices.SortStableFunc(moves, func(a, b Move) int {
		return strings.Compare(a.From.Folder+"\x00"+a.To.Folder, b.From.Folder+"\x00"+b.To.Folder)
	})
	on := d.on()
	if err := on.MakeFolder(d.Path); err != nil {
		return nil, fmt.Errorf("make %s: %w", d.Path, err)
	}
	if err := d.sweep(); err != nil {
		return nil, fmt.Errorf("tidy up %s: %w", d.Path, err)
	}
	// Until it is whole it has no name that anybody looks for.
	draft, path := filepath.Join(d.Path, "."+head.ID), d.path(head.ID)
	f, err := on.Create(draft)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	r := &Run{w: &writer{f: f, now: d.now}}
	name := draft
	defer func() {
		if err != nil {
			// Nothing was done for it. What cannot be removed is swept up, or harms nobody: no move of it has begun.
			_ = on.Remove(name)
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
		}
	}()
	if err := f.Lock(); err != nil {
		return nil, err
	}
	if err := r.put(false, line{What: whatRun, Run: &head}); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(moves, 1000) {
		lines := make([]line, len(part))
		for i := range part {
			lines[i] = line{What: whatMove, N: len(r.All) + i + 1, Move: &part[i]}
		}
		if err := r.put(false, lines...); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fs.ErrExist
	}
	if err := on.Rename(draft, path); err != nil {
		return nil, err
	}
	name = path
	return r, errors.Join(on.SyncFolder(d.Path), on.SyncFolder(filepath.Dir(d.Path)))
}

// sweep removes what is left of runs that were never wholly written down.
func (d Dir) sweep() error {
	left, err := filepath.Glob(filepath.Join(d.Path, ".[0-9]*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		st, err := os.Lstat(path)
		if err != nil || d.now().Sub(st.ModTime()) < time.Hour {
			continue // another process may be writing it
		}
		if err := d.on().Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a run, to be looked at. ErrNoRun, ErrDamaged, ErrNewer.
func (d Dir) Read(id string) (*Run, error) {
	r, _, err := d.read(id)
	return r, err
}

func (d Dir) read(id string) (r *Run, good int64, err error) {
	if !isID(id) {
		return nil, 0, fmt.Errorf("run %q: %w", id, ErrNoRun)
	}
	f, err := os.Open(d.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("run %s: %w", id, ErrNoRun)
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if r, good, err = read(f, d.path(id)); err != nil {
		return nil, 0, err
	}
	if r.ID != id {
		return nil, 0, fmt.Errorf("%s: %w: it is about run %q", d.path(id), ErrDamaged, r.ID)
	}
	return r, good, nil
}

// Open opens a run to go on with it, for this process alone. ErrBusy, and what Read returns.
func (d Dir) Open(id string) (_ *Run, err error) {
	if _, err := d.Read(id); err != nil {
		return nil, err
	}
	f, err := d.on().Append(d.path(id))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := f.Lock(); err != nil {
		return nil, fmt.Errorf("run %s: %w", id, err)
	}
	r, good, err := d.read(id) // again: nobody else writes any more
	if err != nil {
		return nil, err
	}
	if err := os.Truncate(d.path(id), good); err != nil {
		return nil, err
	}
	r.w = &writer{f: f, now: d.now}
	return r, nil
}

// List reads all runs, the newest first. What cannot be read is left out and part of the error.
func (d Dir) List() (runs []*Run, err error) {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !isID(id) {
			continue
		}
		r, err := d.Read(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b *Run) int { return b.Started.Compare(a.Started) })
	return runs, errors.Join(errs...)
}

// Expire removes runs that began before a moment, and returns how many. One that a process is carrying out stays, and so
// does what cannot be read: an administrator should see it.
func (d Dir) Expire(ctx context.Context, before time.Time) (removed int, err error) {
	return d.removeAll(ctx, func(r *Run) bool { return r.Started.Before(before) })
}

// Forget removes the runs of an account, and returns how many.
func (d Dir) Forget(ctx context.Context, account string) (removed int, err error) {
	return d.removeAll(ctx, func(r *Run) bool { return r.Account == account })
}

func (d Dir) removeAll(ctx context.Context, which func(*Run) bool) (removed int, err error) {
	runs, _ := d.List() // others are no reason to keep these
	for _, r := range runs {
		if !which(r) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		gone, err := d.remove(r.ID)
		if err != nil {
			return removed, fmt.Errorf("remove run %s: %w", r.ID, err)
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

func (d Dir) remove(id string) (gone bool, err error) {
	f, err := d.on().Append(d.path(id))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Lock(); errors.Is(err, ErrBusy) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, d.on().Remove(d.path(id))
}
