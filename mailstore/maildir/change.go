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
	"syscall"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/index"
)

// Append files a message.
func (f *folder) Append(ctx context.Context, r io.Reader, flags []string, date time.Time) (uint32, error) {
	uid, err := f.append(ctx, r, flags, date)
	if err != nil {
		return 0, fmt.Errorf("append to folder %q of account %s: %w", f.Name(), f.box().account, f.account.check(err))
	}
	return uid, nil
}

func (f *folder) append(ctx context.Context, r io.Reader, flags []string, date time.Time) (uid uint32, err error) {
	b, s := f.box(), f.box().store
	d := draft{box: b, date: s.date(date), unique: s.unique("")}
	if d.flags, err = parseFlags(flags); err != nil {
		return 0, err
	}
	if err := s.countKeywords(d.flags); err != nil {
		return 0, err
	}
	if f.gone.Load() {
		return 0, mailstore.ErrNoFolder
	}
	if err := b.room(ctx, 1); err != nil {
		return 0, err
	}
	// The content may come slowly, from a client: nothing is locked while it does. It waits in the inbox's tmp, which
	// cannot be renamed away.
	tmp := filepath.Join(b.dir, "tmp", d.unique)
	file, err := s.disk.Create(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		b.forget("")
		b.shape.RLock()
		_, err = b.folder("")
		b.shape.RUnlock()
		if err == nil {
			file, err = s.disk.Create(tmp)
		}
	}
	if err != nil {
		return 0, err
	}
	d.tmp = tmp
	defer func() {
		if err != nil {
			d.undo()
		}
	}()
	err = s.fill(&d, file, readerOf(ctx, r))
	if err == nil {
		err = s.disk.SetTime(tmp, d.date)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	if err := b.room(ctx, d.disk); err != nil {
		return 0, err
	}

	b.shape.RLock()
	defer b.shape.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.sync(ctx); err != nil {
		return 0, err
	}
	d.folder = f.disk
	m := &message{Message: index.Message{File: d.unique, Size: d.wire, Disk: d.disk, Date: d.date}}
	m.set(f.withLetters(d.flags, ""), d.flags.keywords)
	m.sub, m.name = splitPlace(placeFor(m.File, m.Flags))
	change := f.adding([]*message{m})
	// The index first, so that no keyword is lost; a row without a file is found and taken off.
	if err := f.account.db.Apply(ctx, change); err != nil {
		return 0, err
	}
	name := f.path(m)
	err = s.disk.Rename(d.tmp, name)
	if err == nil {
		d.tmp, d.name = "", name
		err = s.sync.Sync(filepath.Dir(name))
	}
	if err != nil {
		f.unadd(change)
		return 0, err
	}
	f.commit(change, []*message{m})
	f.ownChange()
	f.notify()
	b.mu.Lock()
	b.usage.add(d.disk)
	b.mu.Unlock()
	return m.UID, nil
}

// readerOf reads from r until ctx ends.
func readerOf(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func splitPlace(place string) (sub, name string) {
	sub, name, _ = strings.Cut(place, "/")
	return sub, name
}

// withLetters returns the letters that a file's name needs for flags: those of system flags, those of keywords that
// Dovecot has a letter for, and of old whatever we do not understand.
func (f *folder) withLetters(flags flagSet, old string) string {
	letters := flags.letters
	for _, c := range []byte(old) {
		known := strings.IndexByte("DFPRST", c) >= 0 || c >= 'a' && c <= 'z' && f.letters[c-'a'] != ""
		if !known {
			letters += string(c)
		}
	}
	for i, k := range f.letters {
		if k != "" && hasKeyword(flags.keywords, k) {
			letters += string(rune('a' + i))
		}
	}
	return sortLetters(letters)
}

// adding gives messages UIDs and returns the change that enters them.
func (f *folder) adding(list []*message) index.Change {
	c := index.Change{Folder: f.row.ID, ModSeq: f.row.ModSeq + 1, Next: f.row.Next + uint32(len(list))}
	for i, m := range list {
		m.UID, m.ModSeq = f.row.Next+uint32(i), c.ModSeq
		c.Add = append(c.Add, m.Message)
	}
	return c
}

// unadd takes back what adding entered. The UIDs are not used again.
func (f *folder) unadd(c index.Change) {
	back := index.Change{Folder: c.Folder, Next: c.Next, ModSeq: c.ModSeq}
	for _, m := range c.Add {
		back.Forget = append(back.Forget, m.UID)
	}
	f.row.Next, f.row.ModSeq = c.Next, c.ModSeq
	f.changed()
	if err := f.account.db.Apply(context.Background(), back); err != nil {
		// Rows without files are found when the folder is loaded again.
		f.loaded = false
		f.box().store.log.Error("the index keeps messages that came to nothing", "account", f.box().account, "error", err)
	}
}

// SetFlags changes flags.
func (f *folder) SetFlags(ctx context.Context, uids []uint32, op mailstore.FlagOp, flags []string) ([]mailstore.Message, error) {
	with, err := parseFlags(flags)
	if err != nil {
		return nil, fmt.Errorf("set flags: %w", err)
	}
	done, err := f.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	change := index.Change{Folder: f.row.ID}
	var failed error
	for _, uid := range uids {
		u, err := f.flagFile(ctx, uid, op, with)
		if err != nil {
			failed = err
			break
		}
		if u != nil {
			change.Update = append(change.Update, *u)
		}
	}
	if len(change.Update) > 0 {
		change.ModSeq = f.row.ModSeq + 1
		for i := range change.Update {
			change.Update[i].ModSeq = change.ModSeq
		}
		if err := f.account.db.Apply(ctx, change); err != nil {
			f.loaded = false
			return nil, f.wrap(errors.Join(failed, err))
		}
		f.commit(change, nil)
		f.ownChange()
		f.notify()
	}
	if failed != nil {
		return nil, f.wrap(failed)
	}
	list := make([]mailstore.Message, 0, len(uids))
	for _, uid := range uids {
		if m := f.find(uid); m != nil {
			list = append(list, m.public())
		}
	}
	return list, nil
}

// flagFile gives a message's file the name that its new flags need, and returns what the index has to know; nil if
// nothing changes.
func (f *folder) flagFile(ctx context.Context, uid uint32, op mailstore.FlagOp, with flagSet) (*index.Message, error) {
	for range retries {
		m := f.find(uid)
		if m == nil {
			return nil, nil
		}
		want := m.flags().change(op, with)
		if want.equal(m.flags()) {
			return nil, nil
		}
		if len(want.keywords) > len(m.keywords) {
			if err := f.box().store.countKeywords(want); err != nil {
				return nil, err
			}
		}
		u := &index.Message{UID: uid, Flags: f.withLetters(want, m.Flags), Keywords: strings.Join(want.keywords, " ")}
		if u.Flags == m.Flags {
			return u, nil
		}
		name := m.File + ":2," + u.Flags
		err := f.box().store.disk.Rename(f.path(m), filepath.Join(f.dir(), "cur", name))
		if err == nil {
			m.sub, m.name = "cur", name
			return u, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := f.resync(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("message %d: %w: other programs keep renaming it", uid, mailstore.ErrNoMessage)
}

// Expunge removes messages that are marked \Deleted.
func (f *folder) Expunge(ctx context.Context, uids []uint32) ([]uint32, error) {
	done, err := f.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if uids == nil {
		for _, m := range f.messages {
			uids = append(uids, m.UID)
		}
	}
	return f.remove(ctx, uids, func(m *message) bool { return strings.IndexByte(m.Flags, 'T') >= 0 })
}

// Remove removes messages.
func (f *folder) Remove(ctx context.Context, uids []uint32) error {
	done, err := f.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = f.remove(ctx, uids, func(*message) bool { return true })
	return err
}

// remove removes those messages that are wanted, durable, and returns their UIDs, rising.
func (f *folder) remove(ctx context.Context, uids []uint32, wanted func(*message) bool) ([]uint32, error) {
	s := f.box().store
	uids = slices.Clone(uids)
	slices.Sort(uids)
	uids = slices.Compact(uids)
	change := index.Change{Folder: f.row.ID}
	dirs := map[string]bool{}
	var failed error
	var freed int64
	for _, uid := range uids {
		dir, size, err := f.removeFile(ctx, uid, wanted)
		if err != nil {
			failed = err
			break
		}
		if dir != "" {
			dirs[dir] = true
			freed += size
			change.Remove = append(change.Remove, uid)
		}
	}
	for dir := range dirs {
		failed = errors.Join(failed, s.sync.Sync(dir))
	}
	if len(change.Remove) > 0 {
		change.ModSeq = f.row.ModSeq + 1
		if err := f.account.db.Apply(ctx, change); err != nil {
			f.loaded = false
			return nil, f.wrap(errors.Join(failed, err))
		}
		f.commit(change, nil)
		f.ownChange()
		f.notify()
		f.box().mu.Lock()
		f.box().usage.add(-freed)
		f.box().mu.Unlock()
	}
	if failed != nil {
		return change.Remove, f.wrap(failed)
	}
	return change.Remove, nil
}

// removeFile removes the file of one message and returns the directory it was in, "" if there is nothing to remove.
func (f *folder) removeFile(ctx context.Context, uid uint32, wanted func(*message) bool) (dir string, size int64, err error) {
	for range retries {
		m := f.find(uid)
		if m == nil || !wanted(m) {
			return "", 0, nil
		}
		path := f.path(m)
		err := f.box().store.disk.Remove(path)
		if err == nil {
			return filepath.Dir(path), m.Disk, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", 0, err
		}
		if err := f.resync(ctx); err != nil {
			return "", 0, err
		}
	}
	return "", 0, fmt.Errorf("message %d: %w: other programs keep renaming it", uid, mailstore.ErrNoMessage)
}

// Copy copies messages into another folder. The copies are hard links where the file system can do that; they do not
// count against the quota until the next delivery, so that mail can always be copied into the trash.
func (f *folder) Copy(ctx context.Context, uids []uint32, to string) (mailstore.Copied, error) {
	return f.transfer(ctx, uids, to, false)
}

// Move moves messages into another folder. They keep their unique names.
func (f *folder) Move(ctx context.Context, uids []uint32, to string) (mailstore.Copied, error) {
	return f.transfer(ctx, uids, to, true)
}

// A parcel is one message on its way from a folder to another.
type parcel struct {
	uid  uint32 // in the folder it comes from
	m    *message
	from string // where it was taken from; "" before that
	to   string // where it lies now
	// with, if set, is the only flags it is taken with: with others it is left where it is.
	with *flagSet
}

func (f *folder) transfer(ctx context.Context, uids []uint32, to string, move bool) (mailstore.Copied, error) {
	b := f.box()
	b.shape.RLock()
	defer b.shape.RUnlock()
	if f.gone.Load() {
		return mailstore.Copied{}, f.wrap(mailstore.ErrNoFolder)
	}
	dst, err := f.account.folder(to)
	if err != nil {
		return mailstore.Copied{}, fmt.Errorf("account %s: %w", b.account, err)
	}
	first, second := f, dst
	if second.order < first.order {
		first, second = second, first
	}
	first.mu.Lock()
	defer first.mu.Unlock()
	if first != second {
		second.mu.Lock()
		defer second.mu.Unlock()
	}
	if err := f.sync(ctx); err != nil {
		return mailstore.Copied{}, f.wrap(err)
	}
	if err := dst.sync(ctx); err != nil {
		return mailstore.Copied{}, dst.wrap(err)
	}
	c, err := f.send(ctx, dst, uids, move)
	if err != nil {
		return mailstore.Copied{}, f.wrap(fmt.Errorf("to folder %q: %w", dst.name, err))
	}
	return c, nil
}

// send is transfer with both folders locked and up to date.
func (f *folder) send(ctx context.Context, dst *folder, uids []uint32, move bool) (mailstore.Copied, error) {
	s := f.box().store
	uids = slices.Clone(uids)
	slices.Sort(uids)
	var parcels []parcel
	for _, uid := range slices.Compact(uids) {
		m := f.find(uid)
		if m == nil {
			continue
		}
		n := &message{Message: m.Message}
		if n.File = m.File; !move || dst.byFile[m.File] != nil {
			n.File = fmt.Sprintf("%s,S=%d,W=%d", s.unique(uniqueID(m.File)), m.Disk, m.Size)
		}
		n.set(dst.withLetters(m.flags(), ""), m.keywords)
		n.sub, n.name = splitPlace(placeFor(n.File, n.Flags))
		if m.sub == "cur" && move {
			// What a session has seen does not become recent again.
			n.sub, n.name = "cur", n.File+":2,"+n.Flags
		}
		parcels = append(parcels, parcel{uid: uid, m: n})
	}
	return f.ship(ctx, dst, parcels, move)
}

// ship brings parcels into another folder, all or none. Those of which the file was gone, or had other flags than it
// should, come to nothing; the others have their UIDs in m afterwards.
func (f *folder) ship(ctx context.Context, dst *folder, parcels []parcel, move bool) (mailstore.Copied, error) {
	s := f.box().store
	copied := mailstore.Copied{UIDValidity: dst.row.Validity}
	if len(parcels) == 0 {
		return copied, nil
	}
	list := make([]*message, len(parcels))
	for i, p := range parcels {
		list[i] = p.m
	}
	add := dst.adding(list)
	// The index first: a row without a file is found and taken off, and nobody has seen its UID.
	if err := f.account.db.Apply(ctx, add); err != nil {
		return copied, err
	}
	var failed error
	for i := range parcels {
		if failed = ctx.Err(); failed == nil {
			failed = f.sendFile(ctx, dst, &parcels[i], move)
		}
		if failed != nil {
			break
		}
	}
	// Those of which the file was gone come to nothing.
	arrived := slices.DeleteFunc(slices.Clone(parcels), func(p parcel) bool { return p.to == "" })
	if failed == nil {
		failed = syncDirs(&s.sync, arrived, func(p parcel) string { return p.to })
	}
	if failed == nil && move {
		failed = syncDirs(&s.sync, arrived, func(p parcel) string { return p.from })
	}
	if failed != nil {
		for _, p := range arrived {
			var err error
			if move {
				err = s.disk.Rename(p.to, p.from)
			} else {
				err = s.disk.Remove(p.to)
			}
			if err != nil {
				failed = errors.Join(failed, err)
			}
		}
		dst.unadd(add)
		f.fresh.at, f.cur.at = time.Time{}, time.Time{}
		dst.fresh.at, dst.cur.at = time.Time{}, time.Time{}
		return copied, failed
	}

	var lost []uint32
	there := make([]*message, 0, len(arrived))
	var octets int64
	for _, p := range parcels {
		if p.to == "" {
			lost = append(lost, p.m.UID)
			continue
		}
		there = append(there, p.m)
		octets += p.m.Disk
		copied.From = append(copied.From, p.uid)
		copied.To = append(copied.To, p.m.UID)
	}
	dst.commit(index.Change{Next: add.Next, ModSeq: add.ModSeq}, there)
	var rest []index.Change
	if len(lost) > 0 {
		rest = append(rest, index.Change{Folder: dst.row.ID, Forget: lost})
	}
	var removal index.Change
	if move && len(copied.From) > 0 {
		// After a copy into the same folder its modification sequence has risen already.
		removal = index.Change{Folder: f.row.ID, ModSeq: f.row.ModSeq + 1, Remove: copied.From}
		rest = append(rest, removal)
	}
	if len(rest) > 0 {
		if err := f.account.db.Apply(ctx, rest...); err != nil {
			f.loaded, dst.loaded = false, false
			return copied, err
		}
	}
	if move && len(copied.From) > 0 {
		f.commit(removal, nil)
		f.ownChange()
		f.notify()
	} else {
		f.box().mu.Lock()
		f.box().usage.add(octets)
		f.box().mu.Unlock()
	}
	dst.ownChange()
	dst.notify()
	return copied, nil
}

// sendFile links or moves the file of a parcel. p.to stays empty if the message is gone.
func (f *folder) sendFile(ctx context.Context, dst *folder, p *parcel, move bool) error {
	s := f.box().store
	for range retries {
		m := f.find(p.uid)
		if m == nil || p.with != nil && !m.flags().equal(*p.with) {
			return nil
		}
		from, to := f.path(m), dst.path(p.m)
		var err error
		if move {
			err = s.disk.Rename(from, to)
		} else {
			err = s.disk.Link(from, to)
		}
		if !move && mayNotLink(err) || move && errors.Is(err, syscall.EXDEV) {
			if err = s.copyFile(from, filepath.Join(dst.dir(), "tmp", p.m.File), to, p.m.Date); err == nil && move {
				err = s.disk.Remove(from)
			}
		}
		if err == nil {
			p.from, p.to = from, to
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if f == dst {
			// Looking again would find what is just being filed.
			return err
		}
		if err := f.resync(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("message %d: %w: other programs keep renaming it", p.uid, mailstore.ErrNoMessage)
}

// mayNotLink reports whether a copy has to be made because the file system, or a limit of it, allows no link.
func mayNotLink(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EMLINK, syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// copyFile copies a file by way of tmp.
func (s *Store) copyFile(from, tmp, to string, date time.Time) error {
	in, err := openRegular(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := s.disk.Create(tmp)
	if err != nil {
		return err
	}
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, *buf)
	if err == nil {
		err = s.disk.SetTime(tmp, date)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = s.disk.Rename(tmp, to)
	}
	if err != nil {
		return errors.Join(err, s.disk.Remove(tmp))
	}
	return nil
}

// syncDirs syncs the directories of paths, each once.
func syncDirs(s *dirSyncer, list []parcel, path func(parcel) string) error {
	done := map[string]bool{}
	for _, p := range list {
		dir := filepath.Dir(path(p))
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := s.Sync(dir); err != nil {
			return err
		}
	}
	return nil
}
