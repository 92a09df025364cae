package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/index"
)

// An account is the open mail of one account, shared by its sessions.
type account struct {
	box      *mailbox
	db       *index.DB
	sessions int         // guarded by box.opening
	damaged  atomic.Bool // the index has to be made anew
	file     fs.FileInfo // of the index

	mu      sync.Mutex
	folders map[string]*folder // by name on disk
	marks   marks
	opened  uint64 // folders so far
}

// A session is one user's hold on an account.
type session struct {
	*account
	once sync.Once
}

// Account opens the mail of an account.
func (s *Store) Account(ctx context.Context, name string) (mailstore.Account, error) {
	x, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	x.furnish(ctx)
	return x, nil
}

// hold is Account for one who is no user that comes in: it leaves the first folders to whoever does.
func (s *Store) hold(ctx context.Context, name string) (*session, error) {
	b, err := s.mailbox(ctx, name)
	if err != nil {
		return nil, err
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.shape.RLock()
	_, err = b.folder("")
	b.shape.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("open account %s: %w", name, err)
	}
	b.mu.Lock()
	a := b.opened
	b.mu.Unlock()
	if a != nil && (a.damaged.Load() || !b.isIndex(a.file)) {
		if err := b.shut(); err != nil {
			s.log.Warn("damaged index did not close", "account", name, "error", err)
		}
		b.marked, a = false, nil
	}
	if a == nil {
		if a, err = b.open(ctx); err != nil {
			return nil, fmt.Errorf("open account %s: %w", name, err)
		}
	}
	a.sessions++
	s.mu.Lock()
	s.idle = slices.DeleteFunc(s.idle, func(x *mailbox) bool { return x == b })
	s.mu.Unlock()
	return &session{account: a}, nil
}

// Close ends the session's hold. Accounts that nobody holds stay open for a while.
func (x *session) Close() error {
	var err error
	x.once.Do(func() { err = x.release() })
	return err
}

func (a *account) release() error {
	b, s := a.box, a.box.store
	b.opening.Lock()
	a.sessions--
	b.mu.Lock()
	current := b.opened == a
	b.mu.Unlock()
	if a.sessions > 0 || !current {
		b.opening.Unlock()
		return nil
	}
	var oldest *mailbox
	s.mu.Lock()
	s.idle = append(s.idle, b)
	if len(s.idle) > s.cfg.IdleAccounts {
		oldest = s.idle[0]
		s.idle = slices.Delete(s.idle, 0, 1)
	}
	s.mu.Unlock()
	b.opening.Unlock()
	if oldest == nil {
		return nil
	}
	oldest.opening.Lock()
	defer oldest.opening.Unlock()
	oldest.mu.Lock()
	unused := oldest.opened != nil && oldest.opened.sessions == 0
	oldest.mu.Unlock()
	if !unused {
		return nil
	}
	return oldest.shut()
}

// shut closes the index of an open account. The caller holds opening.
func (b *mailbox) shut() error {
	b.mu.Lock()
	a := b.opened
	b.opened = nil
	b.mu.Unlock()
	if a == nil {
		return nil
	}
	a.mu.Lock()
	b.validity = a.marks.validity
	a.mu.Unlock()
	return a.db.Close()
}

// open opens the index. The caller holds opening.
func (b *mailbox) open(ctx context.Context) (*account, error) {
	s := b.store
	if err := s.makeAll(b.users); err != nil {
		return nil, err
	}
	db, err := b.openIndex(ctx)
	if err != nil {
		return nil, err
	}
	a := &account{box: b, db: db, folders: map[string]*folder{}}
	if a.file, err = os.Stat(b.index()); err == nil {
		err = a.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	b.mu.Lock()
	b.opened = a
	b.mu.Unlock()
	b.marked = true
	return a, nil
}

// index is where the index lies.
func (b *mailbox) index() string { return filepath.Join(b.users, "index.db") }

// isIndex reports whether the index is still the file that it was: what is written to one that has been removed, with
// its account say, is lost.
func (b *mailbox) isIndex(was fs.FileInfo) bool {
	is, err := os.Stat(b.index())
	return err == nil && os.SameFile(was, is)
}

// openIndex opens the index, or puts a damaged one aside and begins a new one.
func (b *mailbox) openIndex(ctx context.Context) (*index.DB, error) {
	path := b.index()
	db, err := index.Open(ctx, path)
	if err == nil && !b.marked {
		if err = db.Check(ctx); err != nil {
			_ = db.Close()
		}
	}
	if !errors.Is(err, index.ErrCorrupt) {
		return db, err
	}
	b.store.log.Error("the index of an account is damaged; it is made anew, clients will fetch their mail again",
		"account", b.account, "error", err, "kept", path+".damaged")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, path+".damaged"+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("put a damaged index aside: %w", err)
		}
	}
	return index.Open(ctx, path)
}

// start brings index and tree together when the account is opened.
func (a *account) start(ctx context.Context) error {
	b := a.box
	generation, validity, err := a.db.Marks(ctx)
	if err != nil {
		return err
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	kept, known, err := b.readMarks()
	if err != nil {
		return err
	}
	a.marks = marks{validity: max(validity, kept.validity, b.validity), generation: max(generation, kept.generation)}
	if b.marked {
		return nil
	}
	b.sweep()
	if !known {
		if err := a.takeAll(ctx); err != nil {
			return err
		}
	}
	if generation > 0 && generation < kept.generation {
		b.store.log.Error("the index of an account is older than its mail; clients will fetch their mail again",
			"account", b.account)
		if err := a.revalidate(ctx); err != nil {
			return err
		}
	}
	// The index first: a tree that is ahead of its index means that the index is not the one that belongs to it.
	a.marks.generation++
	if err := a.db.SetMarks(ctx, a.marks.generation, a.marks.validity); err != nil {
		return err
	}
	return b.writeMarks(a.marks)
}

// revalidate gives all folders new UIDVALIDITYs.
func (a *account) revalidate(ctx context.Context) error {
	folders, err := a.db.Folders(ctx)
	if err != nil {
		return err
	}
	for _, f := range folders {
		v, err := a.newValidity()
		if err != nil {
			return err
		}
		if err := a.db.SetValidity(ctx, f.ID, v); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what crashes left behind: old files in tmp (36 hours, as the Maildir specification says), a list of
// subscriptions on its way in, and folders on their way out.
func (b *mailbox) sweep() {
	if entries, err := os.ReadDir(b.dir); err == nil {
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), trashPrefix) {
				_ = os.RemoveAll(filepath.Join(b.dir, e.Name()))
			}
		}
	}
	b.making.Lock()
	_ = os.Remove(filepath.Join(b.dir, subscriptionsFile+newSuffix))
	b.making.Unlock()
	folders, err := b.diskFolders()
	if err != nil {
		return
	}
	for _, folder := range folders {
		tmp := filepath.Join(b.dir, folder, "tmp")
		names, err := readNames(tmp)
		if err != nil {
			continue
		}
		for _, name := range names {
			path := filepath.Join(tmp, name)
			st, err := os.Lstat(path)
			// A file under way may carry an old date; its name does not.
			if err == nil && st.Mode().IsRegular() && isOld(st.ModTime()) && isOld(nameTime(name)) {
				_ = os.Remove(path)
			}
		}
	}
}

func isOld(t time.Time) bool { return time.Since(t) > 36*time.Hour }

// nameTime returns the time that a unique name begins with; names without one are old.
func nameTime(name string) time.Time {
	seconds, _, _ := strings.Cut(name, ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// trashPrefix begins the names of folders that are being deleted; nobody takes them for folders.
const trashPrefix = "..sluice-"

func (a *account) Name() string { return a.box.account }

// check passes an error on, and notes when the index turned out to be damaged.
func (a *account) check(err error) error {
	if errors.Is(err, index.ErrCorrupt) {
		a.damaged.Store(true)
	}
	return err
}

// newValidity returns a UIDVALIDITY larger than any that was given in this account before.
func (a *account) newValidity() (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.marks
	if m.validity == math.MaxUint32 {
		return 0, errors.New("there are no UIDVALIDITYs left") // another program gave the largest there is
	}
	m.validity = max(m.validity+1, uint32(min(max(a.box.store.cfg.Now().Unix(), 1), math.MaxUint32)))
	if err := a.box.writeMarks(m); err != nil {
		return 0, err
	}
	a.marks = m
	return m.validity, nil
}

// arrived makes a folder look for a new file, and tells those who watch it.
func (a *account) arrived(disk string, cur bool) {
	a.mu.Lock()
	f := a.folders[disk]
	a.mu.Unlock()
	if f != nil {
		if cur {
			f.arrivedCur.Store(true)
		} else {
			f.arrivedNew.Store(true)
		}
		f.notify()
	}
}

// Folders lists all folders.
func (a *account) Folders(ctx context.Context) ([]mailstore.FolderInfo, error) {
	b := a.box
	b.shape.RLock()
	defer b.shape.RUnlock()
	disks, err := b.diskFolders()
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", b.account, err)
	}
	subscribed, err := b.subscriptions()
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", b.account, err)
	}
	uses, err := b.uses(ctx, disks)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", b.account, err)
	}
	infos := map[string]*mailstore.FolderInfo{}
	note := func(name string) *mailstore.FolderInfo {
		info := infos[name]
		if info == nil {
			info = &mailstore.FolderInfo{Name: name, Missing: true}
			infos[name] = info
		}
		return info
	}
	for _, disk := range disks {
		note(mustName(disk)).Missing = false
	}
	for _, name := range subscribed {
		note(name).Subscribed = true
	}
	for _, disk := range disks {
		for name := mustName(disk); ; {
			i := strings.LastIndex(name, mailstore.Separator)
			if i < 0 {
				break
			}
			name = name[:i]
			note(name).Children = true
		}
	}
	list := make([]mailstore.FolderInfo, 0, len(infos))
	for _, info := range infos {
		info.Use = uses[info.Name]
		list = append(list, *info)
	}
	slices.SortFunc(list, func(x, y mailstore.FolderInfo) int {
		if (x.Name == mailstore.Inbox) != (y.Name == mailstore.Inbox) {
			if x.Name == mailstore.Inbox {
				return -1
			}
			return 1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return list, nil
}

// Subscribe adds a folder to the list of subscriptions, or takes it off. It need not exist.
func (a *account) Subscribe(ctx context.Context, name string, on bool) error {
	b := a.box
	if on {
		if _, err := diskName(name); err != nil {
			return fmt.Errorf("account %s: %w", b.account, err)
		}
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	if err := b.subscribe(name, on); err != nil {
		return fmt.Errorf("account %s: %w", b.account, err)
	}
	return nil
}

// Create makes a folder and its missing parents.
func (a *account) Create(ctx context.Context, name string) error { return a.create(ctx, name, "") }

// CreateFor makes a folder with a special use.
func (a *account) CreateFor(ctx context.Context, name, use string) error {
	known, err := mailstore.SpecialUse(use)
	if err != nil {
		return fmt.Errorf("account %s: create: %w", a.box.account, err)
	}
	return a.create(ctx, name, known)
}

func (a *account) create(ctx context.Context, name, use string) error {
	b := a.box
	b.shape.RLock()
	defer b.shape.RUnlock()
	if err := b.create(ctx, name, use); err != nil {
		return fmt.Errorf("account %s: create: %w", b.account, err)
	}
	return nil
}

func (b *mailbox) create(ctx context.Context, name, use string) error {
	name = folderName(name)
	disk, err := diskName(name)
	if err != nil {
		return err
	}
	if disk == "" {
		return fmt.Errorf("folder %q: %w", name, mailstore.ErrExists)
	}
	b.making.Lock()
	defer b.making.Unlock()
	if _, err := b.locate(name); err == nil {
		return fmt.Errorf("folder %q: %w", name, mailstore.ErrExists)
	}
	if err := b.mayHave(ctx, disk, use); err != nil {
		return err
	}
	b.forget(disk)
	if err := b.makeParents(name); err != nil {
		return err
	}
	_, err = b.makeFolder(disk, use)
	return err
}

// makeParents makes the missing parents of a folder that is about to be made. The caller holds making.
func (b *mailbox) makeParents(name string) error {
	existing, err := b.diskFolders()
	if err != nil {
		return err
	}
	levels := strings.Split(name, mailstore.Separator)
	if len(existing)+len(levels) > b.store.cfg.Folders {
		return fmt.Errorf("folder %q: there are %d folders: at most %d are allowed", name, len(existing), b.store.cfg.Folders)
	}
	for i := 1; i < len(levels); i++ {
		parent := strings.Join(levels[:i], mailstore.Separator)
		if parent == mailstore.Inbox {
			continue
		}
		if _, err := b.locate(parent); err == nil {
			continue
		}
		disk, err := diskName(parent)
		if err != nil {
			return err
		}
		b.forget(disk)
		if _, err := b.makeFolder(disk, ""); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a folder with its mail, not its children.
func (a *account) Delete(ctx context.Context, name string) error {
	if err := a.delete(context.WithoutCancel(ctx), folderName(name)); err != nil {
		return fmt.Errorf("account %s: delete: %w", a.box.account, err)
	}
	return nil
}

func (a *account) delete(ctx context.Context, name string) error {
	b, s := a.box, a.box.store
	if name == mailstore.Inbox {
		return fmt.Errorf("the inbox cannot be deleted: %w", mailstore.ErrName)
	}
	b.shape.Lock()
	defer b.shape.Unlock()
	disk, err := b.locate(name)
	if err != nil {
		return err
	}
	trash := filepath.Join(b.dir, trashPrefix+s.unique(""))
	if err := s.disk.Rename(filepath.Join(b.dir, disk), trash); err != nil {
		return err
	}
	b.forget(disk)
	a.mu.Lock()
	f := a.folders[disk]
	delete(a.folders, disk)
	a.mu.Unlock()
	if f != nil {
		f.gone.Store(true)
		f.notify()
	}
	b.mu.Lock()
	b.usage = usage{}
	b.mu.Unlock()
	if err := s.sync.Sync(b.dir); err != nil {
		return err
	}
	if err := a.check(a.db.Drop(ctx, disk)); err != nil {
		return err
	}
	if err := os.RemoveAll(trash); err != nil {
		s.log.Warn("a deleted folder is not wholly removed; that is tried again later", "path", trash, "error", err)
	}
	return nil
}

// Rename moves a folder and its children; of the inbox it moves the messages.
func (a *account) Rename(ctx context.Context, from, to string) error {
	if from == "" {
		return fmt.Errorf("account %s: rename: folder %q: %w", a.box.account, from, mailstore.ErrNoFolder)
	}
	from, to = folderName(from), folderName(to)
	var err error
	if from == mailstore.Inbox {
		err = a.renameInbox(ctx, to)
	} else {
		err = a.rename(context.WithoutCancel(ctx), from, to)
	}
	if err != nil {
		return fmt.Errorf("account %s: rename: %w", a.box.account, err)
	}
	return nil
}

// renameInbox: RFC 9051, 6.3.6: the messages move, the inbox stays, and so do its children.
func (a *account) renameInbox(ctx context.Context, to string) error {
	a.box.shape.RLock()
	err := a.box.create(ctx, to, "")
	a.box.shape.RUnlock()
	if err != nil {
		return err
	}
	inbox, err := a.Open(ctx, mailstore.Inbox)
	if err != nil {
		return err
	}
	list, err := inbox.Messages(ctx)
	if err != nil {
		return err
	}
	uids := make([]uint32, len(list.Messages))
	for i, m := range list.Messages {
		uids[i] = m.UID
	}
	_, err = inbox.Move(ctx, uids, to)
	return err
}

func (a *account) rename(ctx context.Context, from, to string) error {
	b, s := a.box, a.box.store
	target, err := diskName(to)
	if err != nil {
		return err
	}
	if strings.HasPrefix(to, from+mailstore.Separator) {
		return fmt.Errorf("%q is within %q: %w", to, from, mailstore.ErrName)
	}
	b.shape.Lock()
	defer b.shape.Unlock()
	if target == "" {
		return fmt.Errorf("folder %q: %w", to, mailstore.ErrExists)
	}
	all, err := b.diskFolders()
	if err != nil {
		return err
	}
	source, err := b.locate(from)
	if errors.Is(err, mailstore.ErrNoFolder) {
		// It may be only the parent of folders that exist.
		source, err = diskName(from)
	}
	if err != nil {
		return err
	}
	var list []index.Renaming
	for _, disk := range all {
		rest, ok := strings.CutPrefix(disk, source)
		if !ok || disk == "" || rest != "" && rest[0] != '.' {
			continue
		}
		r := index.Renaming{From: disk, To: target + rest}
		if len(r.To) > 240 {
			return fmt.Errorf("folder %q: %w: it is too long", mustName(r.To), mailstore.ErrName)
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return fmt.Errorf("folder %q: %w", from, mailstore.ErrNoFolder)
	}
	for _, r := range list {
		if slices.Contains(all, r.To) {
			return fmt.Errorf("folder %q: %w", mustName(r.To), mailstore.ErrExists)
		}
	}
	if _, err := b.locate(to); err == nil {
		return fmt.Errorf("folder %q: %w", to, mailstore.ErrExists)
	}
	b.making.Lock()
	defer b.making.Unlock()
	if err := b.makeParents(to); err != nil {
		return err
	}
	for i, r := range list {
		if err := s.disk.Rename(filepath.Join(b.dir, r.From), filepath.Join(b.dir, r.To)); err != nil {
			for _, r := range slices.Backward(list[:i]) {
				err = errors.Join(err, s.disk.Rename(filepath.Join(b.dir, r.To), filepath.Join(b.dir, r.From)))
			}
			return err
		}
	}
	a.mu.Lock()
	for _, r := range list {
		b.forget(r.From)
		if f := a.folders[r.From]; f != nil {
			delete(a.folders, r.From)
			f.disk, f.name, f.loaded = r.To, mustName(r.To), false
			a.folders[r.To] = f
			f.notify()
		}
	}
	a.mu.Unlock()
	b.mu.Lock()
	b.usage = usage{}
	b.mu.Unlock()
	if err := s.sync.Sync(b.dir); err != nil {
		return err
	}
	return a.check(a.db.Rename(ctx, list, a.newValidity))
}

// Open returns a folder.
func (a *account) Open(ctx context.Context, name string) (mailstore.Folder, error) {
	a.box.shape.RLock()
	defer a.box.shape.RUnlock()
	f, err := a.folder(name)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", a.box.account, err)
	}
	return f, nil
}

// folder returns the shared view of a folder that exists. The caller holds shape.
func (a *account) folder(name string) (*folder, error) {
	if name == "" { // stands for the inbox where mail is delivered, not where a client names a folder
		return nil, fmt.Errorf("folder %q: %w", name, mailstore.ErrNoFolder)
	}
	disk, err := a.box.locate(name)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.folders[disk]
	if f == nil || f.gone.Load() {
		a.opened++
		f = &folder{account: a, order: a.opened, disk: disk, name: mustName(disk)}
		a.folders[disk] = f
	}
	return f, nil
}
