// Package refile sorts mail that has long been filed, and takes that back. A run is a list of moves with a file of its
// own, RUN.jsonl, that says what is to be done before it is done, and what became of it. So a run that was broken off,
// however it was, can be completed or undone; and what somebody else has done with a mail since it was seen stands.
//
// A run file has a line of JSON for everything that happens:
//
//	{"what":"run", …}                       whose mail, by which rules
//	{"what":"move","n":1,"move":{…}}        what is to be done, numbered from 1; all of them stand before anything is done
//	{"what":"making","folder":"Lists", …}   a folder is about to be made
//	{"what":"begin","n":1,"to":64}          moves 1 to 64 are about to be made: from here on they may have been
//	{"what":"done","n":1,"spot":{…}}        where the mail lies now
//	{"what":"left","n":2,"left":"flags"}    it was left alone, and why
//	{"what":"end"}                          nothing is left to do
//	{"what":"undo"} "undo-begin" "back" "stays" "unmaking" "unmade" "kept" "undone"
//
// Lines that announce something are on the disk before it is done; of the others the last may be lost with the machine.
package refile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/mailstore"
)

// Version is the version of the run files that this package writes.
const Version = 1

// Errors that callers branch on.
var (
	ErrNoRun   = errors.New("no such run")
	ErrBusy    = errors.New("the run is being carried out by another process")
	ErrDamaged = errors.New("the run file is damaged")
	ErrNewer   = errors.New("the run file was written by a newer version")
	ErrUndone  = errors.New("the run was undone, or that has begun")
	ErrStopped = errors.New("stopped before the end")
)

// A Head says what a run is.
type Head struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	Account string    `json:"account"`
	Folder  string    `json:"folder"`          // whose mail was looked at
	Rules   []string  `json:"rules,omitempty"` // the rule files that decided, instead of the configured ones
	Plan    string    `json:"plan,omitempty"`  // the version of the plan that decided
	Seen    int       `json:"seen"`            // how many mails were looked at
	Moves   int       `json:"moves"`           // how many of them are to be moved
}

// A Move is a mail that is to lie elsewhere, or have other flags, and why.
type Move struct {
	From      mailstore.Spot `json:"from"`
	To        mailstore.Spot `json:"to"`
	By        string         `json:"by"`               // "rules/newsletters"
	Record    string         `json:"record,omitempty"` // the id of the mail's record, if it has one
	MessageID string         `json:"message_id,omitempty"`
	Subject   string         `json:"subject,omitempty"`
}

// A State says how far a move has come.
type State string

const (
	Planned State = "planned"
	Begun   State = "begun"   // it may have been made
	Done    State = "done"    //
	Skipped State = "left"    // left alone, see Left
	Leaving State = "leaving" // it may have been taken back
	Back    State = "back"    // taken back
	Stays   State = "stays"   // not taken back, see Left
)

// A Tracked is a move and what became of it.
type Tracked struct {
	Move
	State State          `json:"state"`
	Left  mailstore.Left `json:"left,omitempty"`
	Now   mailstore.Spot `json:"now,omitzero"` // where the mail was put, or found when it was left alone
}

// A Made is a folder that a run has made.
type Made struct {
	Folder     string `json:"folder"`
	Subscribed bool   `json:"subscribed"`     // it was, before there was such a folder
	Gone       bool   `json:"gone,omitempty"` // it was removed again
	Kept       string `json:"kept,omitempty"` // why it was not
}

// A Run is a run as its file tells it. Its methods are not for several goroutines at once.
type Run struct {
	Head
	All     []Tracked
	Folders []*Made
	Ended   bool // every move was made or left alone
	Undo    bool // it is being undone
	Undone  bool

	w *writer // nil: opened to be read
}

// errRead: the run was opened to be looked at.
var errRead = errors.New("it was opened to be read")

// batch is how many moves are announced and made at a time: each batch costs a few waits for the disk.
const batch = 64

// Counts says how many moves are in which state.
func (r *Run) Counts() map[State]int {
	counts := map[State]int{}
	for _, t := range r.All {
		counts[t.State]++
	}
	return counts
}

// Status says in words how far a run has come.
func (r *Run) Status() string {
	switch {
	case r.Undone:
		return "undone"
	case r.Undo:
		return "being undone"
	case r.Ended:
		return "done"
	}
	return "broken off"
}

// Apply makes all moves that were not made or left alone before, and tells of each when it is. It may be called again after
// an error. When ctx ends it stops between two moves with ErrStopped.
func (r *Run) Apply(ctx context.Context, box mailstore.Refiler, tell func(n int, t Tracked)) error {
	if r.Undo || r.Undone {
		return fmt.Errorf("run %s: %w", r.ID, ErrUndone)
	}
	if r.Ended {
		return nil
	}
	for first := 0; first < len(r.All); {
		last := r.stretch(first, func(t *Tracked) bool { return t.State == Planned || t.State == Begun })
		if last == first {
			first++
			continue
		}
		if err := stopped(ctx, r.ID); err != nil {
			return err
		}
		if err := r.applyBatch(context.WithoutCancel(ctx), box, first, last, tell); err != nil {
			return fmt.Errorf("run %s: %w", r.ID, err)
		}
		first = last
	}
	if err := r.put(true, line{What: whatEnd}); err != nil {
		return fmt.Errorf("run %s: %w", r.ID, err)
	}
	return nil
}

func stopped(ctx context.Context, id string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", id, ErrStopped)
	}
	return nil
}

// stretch returns where a run of moves ends that begins at first, can be made in one go and is wanted: first if that one is
// not.
func (r *Run) stretch(first int, wanted func(t *Tracked) bool) (last int) {
	last = first
	for last < len(r.All) && last-first < batch {
		t := &r.All[last]
		if !wanted(t) || t.State != r.All[first].State || t.From.Folder != r.All[first].From.Folder ||
			t.To.Folder != r.All[first].To.Folder {
			break
		}
		last++
	}
	return last
}

func (r *Run) applyBatch(ctx context.Context, box mailstore.Refiler, first, last int, tell func(int, Tracked)) error {
	if r.w == nil {
		return errRead
	}
	part := r.All[first:last]
	again := part[0].State == Begun
	if err := r.makeFolder(ctx, box, part[0].To.Folder); err != nil {
		return err
	}
	if !again {
		if err := r.put(true, line{What: whatBegin, N: first + 1, To: last}); err != nil {
			return err
		}
	}
	list := make([]mailstore.Refiling, len(part))
	for i, t := range part {
		list[i] = mailstore.Refiling{From: t.From, To: t.To, Again: again}
	}
	results, err := box.Refile(ctx, r.Account, list)
	if e := r.settle(first, results, whatDone, whatLeft, tell); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// settle writes down what became of moves.
func (r *Run) settle(first int, results []mailstore.Refiled, done, left string, tell func(int, Tracked)) error {
	if len(results) == 0 {
		return nil
	}
	lines := make([]line, len(results))
	for i, x := range results {
		l := line{What: done, N: first + i + 1}
		if x.Left != "" {
			l.What, l.Left = left, x.Left
		}
		if now := x.Now; now.File != "" {
			now.ID, now.Path, now.Date, now.Size = "", "", time.Time{}, 0 // they follow from the rest
			l.Spot = &now
		}
		lines[i] = l
	}
	if err := r.put(false, lines...); err != nil {
		return err
	}
	for i := range results {
		if tell != nil {
			tell(first+i+1, r.All[first+i])
		}
	}
	return nil
}

// makeFolder makes a folder that does not exist. One that somebody else has made is not ours to remove.
func (r *Run) makeFolder(ctx context.Context, box mailstore.Refiler, name string) error {
	if r.w.sure == name {
		return nil
	}
	ours := slices.ContainsFunc(r.Folders, func(m *Made) bool { return m.Folder == name })
	if !ours {
		tree, err := box.Tree(ctx, r.Account)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(tree, func(f mailstore.FolderInfo) bool { return f.Name == name })
		if at >= 0 && !tree[at].Missing {
			r.w.sure = name
			return nil
		}
		l := line{What: whatMaking, Folder: name, Subscribed: at >= 0 && tree[at].Subscribed}
		if err := r.put(true, l); err != nil {
			return err
		}
	}
	if err := box.Make(ctx, r.Account, name); err != nil {
		return err
	}
	r.w.sure = name
	return nil
}

// Revert puts back what the run has moved, as far as nobody has touched it since, and removes the folders that it has made
// and nobody uses. It may be called again after an error. When ctx ends it stops between two moves with ErrStopped.
func (r *Run) Revert(ctx context.Context, box mailstore.Refiler, tell func(n int, t Tracked)) error {
	if r.Undone {
		return nil
	}
	if r.w == nil {
		return errRead
	}
	if !r.Undo {
		if err := r.put(true, line{What: whatUndo, At: r.w.now()}); err != nil {
			return fmt.Errorf("undo run %s: %w", r.ID, err)
		}
	}
	for first := 0; first < len(r.All); {
		last := r.stretch(first, func(t *Tracked) bool { return t.State == Begun || t.State == Done || t.State == Leaving })
		if last == first {
			first++
			continue
		}
		if err := stopped(ctx, r.ID); err != nil {
			return err
		}
		if err := r.revertBatch(context.WithoutCancel(ctx), box, first, last, tell); err != nil {
			return fmt.Errorf("undo run %s: %w", r.ID, err)
		}
		first = last
	}
	if err := r.unmake(context.WithoutCancel(ctx), box); err != nil {
		return fmt.Errorf("undo run %s: %w", r.ID, err)
	}
	if err := r.put(true, line{What: whatUndone}); err != nil {
		return fmt.Errorf("undo run %s: %w", r.ID, err)
	}
	return nil
}

func (r *Run) revertBatch(ctx context.Context, box mailstore.Refiler, first, last int, tell func(int, Tracked)) error {
	part := r.All[first:last]
	// Of these nobody can tell any more how far they have come.
	again := part[0].State != Done
	if part[0].State != Leaving {
		if err := r.put(true, line{What: whatUndoBegin, N: first + 1, To: last}); err != nil {
			return err
		}
	}
	list := make([]mailstore.Refiling, len(part))
	for i, t := range part {
		from := t.To
		if t.Now.File != "" {
			from = t.Now
		}
		list[i] = mailstore.Refiling{From: from, To: t.From, Again: again}
	}
	results, err := box.Refile(ctx, r.Account, list)
	if e := r.settle(first, results, whatBack, whatStays, tell); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// unmake removes folders, the deepest first.
func (r *Run) unmake(ctx context.Context, box mailstore.Refiler) error {
	folders := slices.Clone(r.Folders)
	slices.SortFunc(folders, func(a, b *Made) int { return -cmp.Compare(a.Folder, b.Folder) })
	for _, m := range folders {
		if m.Gone || m.Kept != "" {
			continue
		}
		kept, err := box.Unmake(ctx, r.Account, m.Folder, !m.Subscribed)
		if err != nil {
			return err
		}
		if err := r.put(false, line{What: whatUnmade, Folder: m.Folder, Kept: kept}); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the run back to others.
func (r *Run) Close() error {
	if r.w == nil {
		return nil
	}
	return r.w.close()
}
