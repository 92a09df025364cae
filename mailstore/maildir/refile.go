package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sluice/mailstore"
	"sluice/mailstore/index"
)

var _ mailstore.Refiler = (*Store)(nil)

// Tree lists the folders of an account.
func (s *Store) Tree(ctx context.Context, name string) (list []mailstore.FolderInfo, err error) {
	err = s.with(ctx, name, func(a *account) error {
		list, err = a.Folders(ctx)
		return err
	})
	return list, err
}

// with calls f with an account that is open.
func (s *Store) with(ctx context.Context, name string, f func(a *account) error) (err error) {
	x, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	return f(x.account)
}

// Survey says where the messages of a folder lie.
func (s *Store) Survey(ctx context.Context, of, in string) (list []mailstore.Spot, err error) {
	err = s.with(ctx, of, func(a *account) error {
		opened, err := a.Open(ctx, in)
		if err != nil {
			return err
		}
		f := opened.(*folder)
		done, err := f.use(ctx)
		if err != nil {
			return err
		}
		defer done()
		list = make([]mailstore.Spot, len(f.messages))
		for i, m := range f.messages {
			list[i] = f.spot(m)
		}
		return nil
	})
	return list, err
}

// spot says where a message lies. The caller holds the folder.
func (f *folder) spot(m *message) mailstore.Spot {
	return mailstore.Spot{
		Folder: f.name, File: m.File, ID: uniqueID(m.File), Flags: m.names, At: m.sub + "/" + m.name, Path: f.path(m),
		Size: m.Size, Date: m.Date,
	}
}

// Make sees to it that a folder exists and is subscribed, also one that a process has begun to make before it died.
func (s *Store) Make(ctx context.Context, of, name string) error {
	return s.with(ctx, of, func(a *account) error {
		b := a.box
		b.shape.RLock()
		defer b.shape.RUnlock()
		if err := b.complete(name); err != nil {
			return fmt.Errorf("account %s: make folder %q: %w", b.account, folderName(name), err)
		}
		return nil
	})
}

func (b *mailbox) complete(name string) error {
	disk, err := b.target(name)
	if err != nil {
		return err
	}
	b.forget(disk) // another program may have removed it
	if _, err := b.locate(name); errors.Is(err, mailstore.ErrNoFolder) {
		existing, err := b.diskFolders()
		if err != nil {
			return err
		}
		if n := len(existing); n >= b.store.cfg.Folders {
			return fmt.Errorf("there are %d folders: at most %d are allowed", n, b.store.cfg.Folders)
		}
	}
	if _, err := b.folder(disk); err != nil {
		return err
	}
	if disk != "" {
		f, err := b.store.disk.Create(filepath.Join(b.dir, disk, "maildirfolder"))
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return b.subscribe(mustName(disk), true)
}

// Unmake removes a folder that is empty. Nothing in it can be lost: directories are removed one by one, and the file
// system removes none that holds anything.
func (s *Store) Unmake(ctx context.Context, of, name string, unsubscribe bool) (kept string, err error) {
	err = s.with(ctx, of, func(a *account) error {
		name = folderName(name)
		if kept, err = a.unmake(context.WithoutCancel(ctx), name); err == nil && kept == "" && unsubscribe {
			err = a.Subscribe(ctx, name, false)
		}
		if err != nil {
			return fmt.Errorf("account %s: remove folder %q: %w", a.box.account, name, err)
		}
		return nil
	})
	return kept, err
}

func (a *account) unmake(ctx context.Context, name string) (kept string, err error) {
	b, s := a.box, a.box.store
	if name == mailstore.Inbox {
		return "", fmt.Errorf("the inbox cannot be removed: %w", mailstore.ErrName)
	}
	b.shape.Lock()
	defer b.shape.Unlock()
	disk, err := b.locate(name)
	if errors.Is(err, mailstore.ErrNoFolder) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, disk)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		switch e.Name() {
		case "cur", "new", "tmp", "maildirfolder", idFile, idFile + newSuffix, annotationsFile + newSuffix:
		case annotationsFile:
			return "it has annotations", nil
		default:
			return "another program keeps " + e.Name() + " in it", nil
		}
	}
	b.forget(disk)
	for _, step := range []func() error{
		func() error { return s.disk.Rmdir(filepath.Join(dir, "cur")) },
		func() error { return s.disk.Rmdir(filepath.Join(dir, "new")) },
		func() error { return s.disk.Rmdir(filepath.Join(dir, "tmp")) },
		func() error { return s.disk.Remove(filepath.Join(dir, idFile)) },
		func() error { return s.disk.Remove(filepath.Join(dir, idFile+newSuffix)) },
		func() error { return s.disk.Remove(filepath.Join(dir, annotationsFile+newSuffix)) },
		func() error { return s.disk.Remove(filepath.Join(dir, "maildirfolder")) },
		func() error { return s.disk.Rmdir(dir) },
	} {
		if err := step(); err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		} else if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
			kept = "there is mail in it"
			_, err := b.folder(disk)
			return kept, err
		} else {
			_, again := b.folder(disk)
			return "", errors.Join(err, again)
		}
	}
	if err := s.sync.Sync(b.dir); err != nil {
		return "", err
	}
	a.mu.Lock()
	f := a.folders[disk]
	delete(a.folders, disk)
	a.mu.Unlock()
	if f != nil {
		f.gone.Store(true)
		f.notify()
	}
	return "", a.check(a.db.Drop(ctx, disk))
}

// Refile carries out refilings.
func (s *Store) Refile(ctx context.Context, of string, list []mailstore.Refiling) (results []mailstore.Refiled, err error) {
	for _, r := range list {
		if err := usable(r); err != nil {
			return nil, fmt.Errorf("account %s: refile %q: %w", of, r.From.File, err)
		}
	}
	err = s.with(ctx, of, func(a *account) error {
		for rest := list; len(rest) > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := 1
			for n < len(rest) && rest[n].From.Folder == rest[0].From.Folder && rest[n].To.Folder == rest[0].To.Folder {
				n++
			}
			done, err := a.refile(ctx, rest[:n])
			if err != nil {
				return fmt.Errorf("account %s: from folder %q to %q: %w", of, rest[0].From.Folder, rest[0].To.Folder, a.check(err))
			}
			results, rest = append(results, done...), rest[n:]
		}
		return a.whereabouts(ctx, list, results)
	})
	return results, err
}

// usable looks at what may come out of a file: names that could lead elsewhere are refused.
func usable(r mailstore.Refiling) error {
	for _, file := range []string{r.From.File, r.To.File} {
		if file == "" || file != r.From.File || strings.ContainsAny(file, "/:\x00") || file[0] == '.' {
			return fmt.Errorf("file %q: %w", file, mailstore.ErrName)
		}
	}
	if r.To.At == "" {
		return nil
	}
	sub, name := splitPlace(r.To.At)
	if sub != "new" && sub != "cur" || strings.ContainsAny(name, "/\x00") || len(name) > 255 ||
		parseFileName(name).unique != r.To.File {
		return fmt.Errorf("place %q: %w", r.To.At, mailstore.ErrName)
	}
	return nil
}

// A pending is a refiling under way.
type pending struct {
	mailstore.Refiling
	from, to flagSet
	result   *mailstore.Refiled
}

// refile carries out refilings from one folder to one other, or within one.
func (a *account) refile(ctx context.Context, list []mailstore.Refiling) ([]mailstore.Refiled, error) {
	b := a.box
	b.shape.RLock()
	defer b.shape.RUnlock()
	results := make([]mailstore.Refiled, len(list))
	all := make([]pending, len(list))
	for i, r := range list {
		p := pending{Refiling: r, result: &results[i]}
		var err error
		if p.from, err = parseFlags(r.From.Flags); err != nil {
			return nil, err
		}
		if p.to, err = parseFlags(r.To.Flags); err != nil {
			return nil, err
		}
		all[i] = p
	}
	src, err := a.existing(list[0].From.Folder)
	if err != nil {
		return nil, err
	}
	dst, err := a.existing(list[0].To.Folder)
	if err != nil {
		return nil, err
	}
	defer lockBoth(src, dst)()
	for _, f := range []**folder{&src, &dst} {
		if *f == nil {
			continue
		}
		if err := (*f).sync(ctx); errors.Is(err, mailstore.ErrNoFolder) {
			*f = nil
		} else if err != nil {
			return nil, err
		}
	}
	if dst == nil {
		for i := range all {
			all[i].result.Left = mailstore.LeftFolder
			if src == nil || src.byFile[all[i].From.File] == nil {
				all[i].result.Left = mailstore.LeftGone // until it is found elsewhere
			}
		}
		return results, nil
	}
	if src == dst {
		return results, dst.reflag(ctx, all)
	}
	return results, a.across(ctx, src, dst, all)
}

// existing returns a folder, nil if there is none. The caller holds shape.
func (a *account) existing(name string) (*folder, error) {
	f, err := a.folder(name)
	if errors.Is(err, mailstore.ErrNoFolder) {
		return nil, nil
	}
	return f, err
}

// lockBoth locks two folders in the one order there is; either may be nil, or both the same.
func lockBoth(x, y *folder) (unlock func()) {
	if x == nil || x == y {
		x, y = y, nil
	}
	if x == nil {
		return func() {}
	}
	if y != nil && y.order < x.order {
		x, y = y, x
	}
	x.mu.Lock()
	if y == nil {
		return x.mu.Unlock
	}
	y.mu.Lock()
	return func() {
		y.mu.Unlock()
		x.mu.Unlock()
	}
}

// starts reports whether a message with these flags can be refiled: as it was seen or, if somebody may have begun before,
// half way.
func (p *pending) starts(flags flagSet) bool {
	return flags.equal(p.from) || p.Again && flags.between(p.from, p.to)
}

// between reports whether s has all that x and y have in common, and nothing that neither has.
func (s flagSet) between(x, y flagSet) bool {
	for _, l := range flagLetters() {
		in := func(f flagSet) bool { return strings.IndexByte(f.letters, l.letter) >= 0 }
		if in(x) == in(y) && in(s) != in(x) {
			return false
		}
	}
	for _, k := range slices.Concat(s.keywords, x.keywords, y.keywords) {
		if hasKeyword(x.keywords, k) == hasKeyword(y.keywords, k) && hasKeyword(s.keywords, k) != hasKeyword(x.keywords, k) {
			return false
		}
	}
	return true
}

// letters returns the letters that the file's name shall have, and the file's place if that is to be exactly as it was.
func (p *pending) letters(f *folder, m *message, old string) (letters, sub, name string) {
	if p.To.At == "" {
		return f.withLetters(p.to, old), "", ""
	}
	sub, name = splitPlace(p.To.At)
	if sub == "new" && m.sub == "cur" && strings.HasPrefix(p.From.At, "new/") {
		sub = "cur" // somebody has looked into the folder meanwhile: it is not new any more
		if !strings.Contains(name, ":") {
			name += ":2,"
		}
	}
	return parseFileName(name).flags, sub, name
}

// across carries out refilings between two folders that are locked and up to date. src may be nil.
func (a *account) across(ctx context.Context, src, dst *folder, all []pending) error {
	var parcels []parcel
	var sent, there []pending
	for _, p := range all {
		var m *message
		if src != nil {
			m = src.byFile[p.From.File]
		}
		already := dst.byFile[p.From.File]
		switch {
		case m == nil && already == nil:
			p.result.Left = mailstore.LeftGone // until it is found elsewhere
		case m == nil && p.Again:
			there = append(there, p)
		case m == nil:
			p.result.Left = mailstore.LeftMoved
		case already != nil:
			p.result.Left = mailstore.LeftTaken
		case !p.starts(m.flags()):
			p.result.Left = mailstore.LeftFlags
		case len(p.to.keywords) > max(len(m.keywords), a.box.store.cfg.Keywords):
			p.result.Left = mailstore.LeftKeys
		default:
			n := &message{Message: m.Message}
			letters, sub, name := p.letters(dst, m, "")
			n.set(letters, p.to.keywords)
			if n.sub, n.name = sub, name; name == "" {
				n.sub, n.name = splitPlace(placeFor(n.File, n.Flags))
				if m.sub == "cur" {
					n.sub, n.name = "cur", n.File+":2,"+n.Flags
				}
			}
			with := m.flags()
			parcels = append(parcels, parcel{uid: m.UID, m: n, with: &with})
			sent = append(sent, p)
		}
	}
	if len(parcels) > 0 {
		if _, err := src.ship(ctx, dst, parcels, true); err != nil {
			return err
		}
		for i, p := range sent {
			switch {
			case parcels[i].to != "":
				p.result.Now = dst.spot(parcels[i].m)
			case src.byFile[p.From.File] != nil:
				p.result.Left = mailstore.LeftFlags // somebody was quicker
			default:
				p.result.Left = mailstore.LeftGone
			}
		}
	}
	return dst.reflag(ctx, there)
}

// reflag gives messages of one folder, locked and up to date, their flags.
func (f *folder) reflag(ctx context.Context, all []pending) error {
	change := index.Change{Folder: f.row.ID, ModSeq: f.row.ModSeq + 1}
	var failed error
	var renamed bool
	done := make([]bool, len(all))
	for i := range all {
		u, err := f.reflagFile(ctx, &all[i])
		if err != nil {
			failed = err
			break
		}
		if done[i] = all[i].result.Left == ""; u != nil {
			u.ModSeq = change.ModSeq
			change.Update = append(change.Update, *u)
			renamed = true
		}
	}
	if renamed {
		failed = errors.Join(failed, f.box().store.sync.Sync(filepath.Join(f.dir(), "cur")),
			f.box().store.sync.Sync(filepath.Join(f.dir(), "new")))
		if err := f.account.db.Apply(ctx, change); err != nil {
			f.loaded = false
			return errors.Join(failed, err)
		}
		f.commit(change, nil)
		f.ownChange()
		f.notify()
	}
	if failed != nil {
		return failed
	}
	for i, p := range all {
		if m := f.byFile[p.From.File]; done[i] && m != nil {
			p.result.Now = f.spot(m)
		}
	}
	return nil
}

// reflagFile gives a message's file the name that its flags need, and returns what the index has to know; nil if nothing
// changes.
func (f *folder) reflagFile(ctx context.Context, p *pending) (*index.Message, error) {
	for range retries {
		m := f.byFile[p.From.File]
		if m == nil {
			p.result.Left = mailstore.LeftGone
			return nil, nil
		}
		flags := m.flags()
		switch {
		case p.Again && p.to.equal(flags):
			return nil, nil
		case !p.starts(flags):
			p.result.Left = mailstore.LeftFlags
			return nil, nil
		case len(p.to.keywords) > max(len(m.keywords), f.box().store.cfg.Keywords):
			p.result.Left = mailstore.LeftKeys
			return nil, nil
		}
		letters, sub, name := p.letters(f, m, m.Flags)
		if name == "" {
			if sub, name = m.sub, m.name; letters != m.Flags {
				sub, name = "cur", m.File+":2,"+letters
			}
		}
		u := &index.Message{UID: m.UID, Flags: letters, Keywords: strings.Join(p.to.keywords, " ")}
		if sub == m.sub && name == m.name {
			if u.Flags == m.Flags && u.Keywords == m.Keywords {
				return nil, nil
			}
			return u, nil
		}
		err := f.box().store.disk.Rename(f.path(m), filepath.Join(f.dir(), sub, name))
		if err == nil {
			m.sub, m.name = sub, name
			return u, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := f.resync(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("file %q: %w: other programs keep renaming it", p.From.File, mailstore.ErrNoMessage)
}

// whereabouts says of messages that were not where they had been seen where else they are.
func (a *account) whereabouts(ctx context.Context, list []mailstore.Refiling, results []mailstore.Refiled) error {
	lost := map[string][]*mailstore.Refiled{}
	for i := range results {
		if l := results[i].Left; l != "" {
			lost[list[i].From.File] = append(lost[list[i].From.File], &results[i])
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return a.box.eachFile(ctx, func(disk, dir, name string) (done bool) {
		unique := parseFileName(name).unique
		for _, r := range lost[unique] {
			if r.Left == mailstore.LeftGone {
				r.Left = mailstore.LeftMoved
			}
			r.Now = mailstore.Spot{Folder: mustName(disk), File: unique, Path: filepath.Join(dir, name)}
		}
		return false
	})
}
