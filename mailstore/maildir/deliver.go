package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/mailstore"
)

// A draft is a file on its way into a folder.
type draft struct {
	box    *mailbox
	folder string // name on disk
	flags  flagSet
	date   time.Time

	unique string
	disk   int64
	wire   int64
	tmp    string // path in tmp; "" if there is no such file now
	name   string // path in new or cur; "" if it is not there
}

// dir is the directory of the draft's folder. The caller holds the mailbox's shape.
func (d *draft) dir() string { return filepath.Join(d.box.dir, d.folder) }

// Deliver files a message once for each item.
func (s *Store) Deliver(ctx context.Context, items []mailstore.Item) (placed []mailstore.Placed, err error) {
	if len(items) == 0 {
		return nil, nil
	}
	drafts, err := s.drafts(ctx, items)
	if err != nil {
		return nil, fmt.Errorf("deliver: %w", err)
	}
	unlock := holdShapes(drafts)
	defer unlock()
	defer func() {
		if err != nil {
			for i := range drafts {
				drafts[i].undo()
			}
		}
	}()

	err = each(len(drafts), func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.write(ctx, &drafts[i], items[i])
	})
	if err != nil {
		return nil, fmt.Errorf("deliver: %w", err)
	}
	for i := range drafts {
		if err := drafts[i].file(); err != nil {
			return nil, fmt.Errorf("deliver: %w", err)
		}
	}
	dirs := make([]string, 0, len(drafts))
	for i := range drafts {
		if d := filepath.Dir(drafts[i].name); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	if err := each(len(dirs), func(i int) error { return s.sync.Sync(dirs[i]) }); err != nil {
		return nil, fmt.Errorf("deliver: %w", err)
	}

	placed = make([]mailstore.Placed, len(drafts))
	for i := range drafts {
		d := &drafts[i]
		d.box.arrived(d)
		placed[i] = mailstore.Placed{Folder: mustName(d.folder), File: d.unique}
	}
	return placed, nil
}

// drafts looks up where items go, before anything is written.
func (s *Store) drafts(ctx context.Context, items []mailstore.Item) ([]draft, error) {
	drafts := make([]draft, len(items))
	for i, item := range items {
		d := &drafts[i]
		for j := range i {
			if items[j].Account == item.Account {
				d.box = drafts[j].box
				break
			}
		}
		var err error
		if d.box == nil {
			if d.box, err = s.mailbox(ctx, item.Account); err != nil {
				return nil, err
			}
		}
		if d.folder, err = d.box.wanted(item); err != nil {
			return nil, fmt.Errorf("account %s: %w", item.Account, err)
		}
		if item.Wish {
			item.Flags = s.usable(item.Flags)
		}
		if d.flags, err = parseFlags(item.Flags); err != nil {
			return nil, fmt.Errorf("account %s: %w", item.Account, err)
		}
		if err := s.countKeywords(d.flags); err != nil {
			return nil, fmt.Errorf("account %s: %w", item.Account, err)
		}
		d.date = s.date(item.Date)
		d.unique = s.unique(item.ID)
	}
	return drafts, nil
}

// wanted returns the directory that an item goes to.
func (b *mailbox) wanted(item mailstore.Item) (disk string, err error) {
	if item.Existing && item.Folder != "" {
		_, err := b.locate(item.Folder)
		if errors.Is(err, mailstore.ErrNoFolder) || item.Wish && errors.Is(err, mailstore.ErrName) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
	disk, err = b.target(item.Folder)
	if item.Wish && errors.Is(err, mailstore.ErrName) {
		return "", nil
	}
	return disk, err
}

// usable returns those of flags that a message can have.
func (s *Store) usable(flags []string) []string {
	keywords := 0
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool {
		if strings.HasPrefix(f, `\`) {
			return false
		}
		keywords++
		return !isKeyword(f) || keywords > s.cfg.Keywords
	})
}

// target returns the directory that mail for a folder goes to: the one there is, even if another program has written its
// name otherwise than we do, else the one to be made.
func (b *mailbox) target(name string) (string, error) {
	disk, err := diskName(name)
	if err != nil || disk == "" {
		return disk, err
	}
	b.mu.Lock()
	ready := b.ready[disk]
	b.mu.Unlock()
	if !ready {
		if other, err := b.locate(name); err == nil {
			return other, nil
		}
	}
	return disk, nil
}

func (s *Store) countKeywords(f flagSet) error {
	if len(f.keywords) > s.cfg.Keywords {
		return fmt.Errorf("%d keywords on one message: at most %d are allowed", len(f.keywords), s.cfg.Keywords)
	}
	return nil
}

// date brings a date into the range that file systems and the index can hold; zero is now.
func (s *Store) date(t time.Time) time.Time {
	switch {
	case t.IsZero():
		t = s.cfg.Now()
	case t.Year() < 1970:
		return time.Unix(0, 0)
	case t.Year() > 2200:
		return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t.Round(0) // without the reading of the monotonic clock
}

// holdShapes keeps the folders of all drafts where they are until unlock is called. Locks are taken in one order, so
// that two deliveries and a renaming between them cannot wait for each other.
func holdShapes(drafts []draft) (unlock func()) {
	if len(drafts) == 1 {
		b := drafts[0].box
		b.shape.RLock()
		return b.shape.RUnlock
	}
	boxes := make([]*mailbox, len(drafts))
	for i := range drafts {
		boxes[i] = drafts[i].box
	}
	slices.SortFunc(boxes, func(a, b *mailbox) int { return strings.Compare(a.account, b.account) })
	boxes = slices.Compact(boxes)
	for _, b := range boxes {
		b.shape.RLock()
	}
	return func() {
		for _, b := range boxes {
			b.shape.RUnlock()
		}
	}
}

// write writes a draft to tmp, synced.
func (s *Store) write(ctx context.Context, d *draft, item mailstore.Item) error {
	made, err := d.box.folderFor(ctx, d.folder, item.Use)
	if err != nil {
		return err
	}
	if made == wasMade {
		if err := d.box.subscribe(mustName(d.folder), true); err != nil {
			return err
		}
	}
	tmp := filepath.Join(d.dir(), "tmp", d.unique)
	f, err := s.disk.Create(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has removed the folder behind our back.
		d.box.forget("")
		if made, err = d.box.folderFor(ctx, d.folder, item.Use); err != nil {
			return err
		}
		if made == wasMade {
			if err := d.box.subscribe(mustName(d.folder), true); err != nil {
				return err
			}
		}
		f, err = s.disk.Create(tmp)
	}
	if err != nil {
		return err
	}
	d.tmp = tmp
	if err := s.fill(d, f, item.Content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := s.disk.SetTime(tmp, d.date); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// fill writes the content of a draft and completes its unique name.
func (s *Store) fill(d *draft, f file, content io.Reader) (err error) {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	if d.disk, d.wire, err = copyLF(f, content, *buf); err != nil {
		return err
	}
	d.unique = fmt.Sprintf("%s,S=%d,W=%d", d.unique, d.disk, d.wire)
	return nil
}

// file moves a draft into its folder: to new, or to cur if flags are set.
func (d *draft) file() error {
	field, left := keywordField(d.flags.keywords, 200-len(d.unique))
	if len(left) > 0 {
		d.box.store.log.Warn("keywords of a delivered message find no room in its file's name",
			"account", d.box.account, "file", d.unique, "keywords", left)
	}
	d.unique += field
	name := filepath.Join(d.dir(), placeFor(d.unique, d.flags.letters))
	err := d.box.store.disk.Rename(d.tmp, name)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has removed new or cur behind our back.
		d.box.forget(d.folder)
		if _, err := d.box.folder(d.folder); err != nil {
			return err
		}
		err = d.box.store.disk.Rename(d.tmp, name)
	}
	if err != nil {
		return err
	}
	d.tmp, d.name = "", name
	return nil
}

// placeFor returns where a file belongs within its folder.
func placeFor(unique, letters string) string {
	if letters == "" {
		return "new/" + unique
	}
	return "cur/" + unique + ":2," + letters
}

// undo removes a draft, wherever it is.
func (d *draft) undo() {
	s := d.box.store
	if d.tmp != "" {
		if err := s.disk.Remove(d.tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("a file is left in tmp", "path", d.tmp, "error", err)
		}
	}
	if d.name == "" {
		return
	}
	err := s.disk.Remove(d.name)
	if errors.Is(err, fs.ErrNotExist) {
		// A session has seen it and moved it to cur, or set flags.
		cur := filepath.Join(d.dir(), "cur")
		names, lerr := readNames(cur)
		err = lerr
		for _, name := range names {
			if parseFileName(name).unique == d.unique {
				err = s.disk.Remove(filepath.Join(cur, name))
			}
		}
	}
	if err != nil {
		s.log.Error("a message that was not accepted is left in a folder", "path", d.name, "error", err)
	}
}

// each calls f for 0 to n-1, a few at a time, and returns the first error in that order.
func each(n int, f func(i int) error) error {
	const most = 8
	if n == 1 {
		return f(0)
	}
	errs := make([]error, n)
	var group sync.WaitGroup
	slots := make(chan struct{}, most)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// arrived notes that a message was filed.
func (b *mailbox) arrived(d *draft) {
	b.mu.Lock()
	b.usage.add(d.disk)
	a := b.opened
	b.mu.Unlock()
	if a != nil {
		a.arrived(d.folder, d.flags.letters != "")
	}
}
