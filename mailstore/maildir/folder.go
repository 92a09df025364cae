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
	"sync"
	"sync/atomic"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/index"
)

// settled is how old the time of a directory has to be when it is read, so that what happens to it later is certain to
// give it another time: some file systems count in two seconds.
const settled = 2 * time.Second

// A folder is the one view of a folder that all sessions share. Methods of mailstore.Folder take the locks; others are
// called with shape held for reading and mu held.
type folder struct {
	account *account
	order   uint64      // of two folders, the one with the smaller is locked first
	gone    atomic.Bool // deleted

	// A delivery has put a file into new or cur: they are to be read whatever their times say.
	arrivedNew, arrivedCur atomic.Bool

	// Guarded by the mailbox's shape.
	disk, name string

	mu       sync.Mutex
	loaded   bool
	row      index.Folder
	messages []*message // by rising UID
	byFile   map[string]*message
	fresh    look // at new
	cur      look // at cur
	round    uint64
	letters  [26]string         // keywords that have a letter in file names
	listing  *mailstore.Listing // nil: to be made anew
	status   *mailstore.Status  // nil: to be made anew

	watching sync.Mutex
	watchers map[chan struct{}]struct{}
	stop     chan struct{} // ends the goroutine that looks for changes by others; nil: there is none
}

// A look is when a directory was last read.
type look struct {
	modified time.Time // what it said then, or after our own latest change
	at       time.Time // when reading began; zero: never
	took     time.Duration
}

// stale reports whether a directory that says modified now has to be read again.
func (l look) stale(modified time.Time) bool {
	if l.at.IsZero() || !l.modified.Equal(modified) {
		return true
	}
	// Something may have changed within the tick of the last reading. For large folders that is looked into with some
	// delay, so that a session that changes flags does not read the folder for each of them.
	return l.at.Sub(modified) < settled && (l.took < time.Millisecond || time.Since(l.at) >= 10*l.took)
}

// A message is one message of a folder.
type message struct {
	index.Message
	sub      string // "new" or "cur"
	name     string // of the file
	keywords []string
	recent   bool
	names    []string // flags as IMAP names them; shared with listings
	seen     uint64   // the round in which it was last found on disk
}

func (m *message) flags() flagSet { return flagSet{letters: system(m.Flags), keywords: m.keywords} }

func (m *message) set(letters string, keywords []string) {
	m.Flags, m.keywords, m.Keywords = letters, keywords, strings.Join(keywords, " ")
	m.names = m.flags().names()
}

func (m *message) public() mailstore.Message {
	return mailstore.Message{
		UID: m.UID, Flags: m.names, Size: m.Size, Date: m.Date, ModSeq: m.ModSeq, File: m.File,
		Recent: m.recent || m.sub == "new",
	}
}

func (f *folder) box() *mailbox { return f.account.box }
func (f *folder) dir() string   { return filepath.Join(f.box().dir, f.disk) }

func (f *folder) path(m *message) string { return filepath.Join(f.dir(), m.sub, m.name) }

// Name returns the folder's name, which changes when it is renamed.
func (f *folder) Name() string {
	f.box().shape.RLock()
	defer f.box().shape.RUnlock()
	return f.name
}

// use locks the folder and brings it up to date.
func (f *folder) use(ctx context.Context) (done func(), err error) {
	f.box().shape.RLock()
	f.mu.Lock()
	done = func() {
		f.mu.Unlock()
		f.box().shape.RUnlock()
	}
	if err := f.sync(ctx); err != nil {
		done()
		return nil, f.wrap(err)
	}
	return done, nil
}

func (f *folder) wrap(err error) error {
	return fmt.Errorf("account %s: folder %q: %w", f.box().account, f.name, f.account.check(err))
}

func (f *folder) find(uid uint32) *message {
	i, ok := slices.BinarySearchFunc(f.messages, uid, func(m *message, uid uint32) int {
		return int(int64(m.UID) - int64(uid))
	})
	if !ok {
		return nil
	}
	return f.messages[i]
}

// changed forgets what was made from the messages as they were.
func (f *folder) changed() { f.listing, f.status = nil, nil }

// load reads the index, or enters the folder there.
func (f *folder) load(ctx context.Context) error {
	a := f.account
	row, ok, err := a.db.Folder(ctx, f.disk)
	if err != nil {
		return err
	}
	if !ok {
		if row, err = f.enter(ctx); err != nil {
			return err
		}
	}
	rows, err := a.db.Messages(ctx, row.ID)
	if err != nil {
		return err
	}
	f.row = row
	f.messages = make([]*message, 0, len(rows))
	f.byFile = make(map[string]*message, len(rows))
	block := make([]message, len(rows))
	for i, r := range rows {
		m := &block[i]
		m.Message = r
		m.set(r.Flags, strings.Fields(r.Keywords))
		f.messages = append(f.messages, m)
		f.byFile[r.File] = m
	}
	f.fresh, f.cur = look{}, look{}
	f.loaded = true
	f.changed()
	return nil
}

// enter adds a folder that the index does not know. A list that Dovecot left is used if it is not older than what this
// account has seen: then the folder has just been brought here.
func (f *folder) enter(ctx context.Context) (index.Folder, error) {
	a := f.account
	list, ok, err := f.box().uidList(f.disk)
	if err != nil {
		return index.Folder{}, err
	}
	a.mu.Lock()
	floor := a.marks.validity
	a.mu.Unlock()
	if ok && list.validity > floor {
		row, err := a.take(ctx, f.disk, list)
		if err != nil {
			return row, err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		return row, a.box.writeMarks(a.marks)
	}
	validity, err := a.newValidity()
	if err != nil {
		return index.Folder{}, err
	}
	return a.db.AddFolder(ctx, index.Folder{Name: f.disk, Validity: validity, Next: 1, ModSeq: 1}, nil)
}

// sync brings the view up to date with the tree. New files have UIDs afterwards that would survive a power cut.
func (f *folder) sync(ctx context.Context) error {
	if f.gone.Load() {
		return mailstore.ErrNoFolder
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	fresh, cur, err := f.times()
	if errors.Is(err, fs.ErrNotExist) {
		if fresh, cur, err = f.repair(); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if !f.loaded {
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	readFresh, readCur := f.fresh.stale(fresh), f.cur.stale(cur)
	if f.arrivedNew.Swap(false) {
		f.fresh.at, readFresh = time.Time{}, true // also for the next time, should this reading fail
	}
	if f.arrivedCur.Swap(false) {
		f.cur.at, readCur = time.Time{}, true
	}
	if !readFresh && !readCur {
		return nil
	}
	return f.scan(ctx, readFresh, readCur, fresh, cur)
}

// resync is sync without trust in the times of directories.
func (f *folder) resync(ctx context.Context) error {
	f.fresh.at, f.cur.at = time.Time{}, time.Time{}
	return f.sync(ctx)
}

// times returns when new and cur were last changed.
func (f *folder) times() (fresh, cur time.Time, err error) {
	st, err := os.Stat(filepath.Join(f.dir(), "new"))
	if err != nil {
		return fresh, cur, err
	}
	fresh = st.ModTime()
	if st, err = os.Stat(filepath.Join(f.dir(), "cur")); err != nil {
		return fresh, cur, err
	}
	return fresh, st.ModTime(), nil
}

// repair makes new and cur of a folder that has lost them; a folder that has lost itself is gone.
func (f *folder) repair() (fresh, cur time.Time, err error) {
	b := f.box()
	if _, err := os.Stat(f.dir()); errors.Is(err, fs.ErrNotExist) && f.disk != "" {
		b.forget(f.disk)
		f.account.mu.Lock()
		if f.account.folders[f.disk] == f {
			delete(f.account.folders, f.disk)
		}
		f.account.mu.Unlock()
		f.gone.Store(true)
		return fresh, cur, mailstore.ErrNoFolder
	}
	b.forget(f.disk)
	if _, err := b.folder(f.disk); err != nil {
		return fresh, cur, err
	}
	return f.times()
}

// A place is where a file was found.
type place struct {
	sub, name string
	fileName
}

// scan reads directories and puts what has changed into index and view.
func (f *folder) scan(ctx context.Context, readFresh, readCur bool, fresh, cur time.Time) error {
	f.round++
	moved := map[*message]place{}
	unknown := map[string]place{}
	read := func(l *look, sub string) error {
		begin := time.Now()
		names, err := readNames(filepath.Join(f.dir(), sub))
		if err != nil {
			return err
		}
		for _, name := range names {
			if name[0] == '.' {
				continue
			}
			p := place{sub, name, parseFileName(name)}
			m := f.byFile[p.unique]
			switch {
			case m == nil:
				unknown[p.unique] = p
			case m.sub != sub || m.name != name:
				m.seen = f.round
				moved[m] = p
			default:
				m.seen = f.round
				delete(moved, m)
			}
		}
		l.at, l.took = begin, time.Since(begin)
		return nil
	}
	// First new, then cur: a file that another program moves from new to cur meanwhile is seen at least once.
	looks := [2]look{f.fresh, f.cur}
	if readFresh {
		if err := read(&looks[0], "new"); err != nil {
			return err
		}
	}
	if readCur {
		if err := read(&looks[1], "cur"); err != nil {
			return err
		}
	}
	missing := func(m *message) bool {
		unread := m.sub == "new" && !readFresh || m.sub == "cur" && !readCur
		return m.seen != f.round && !unread
	}
	if slices.ContainsFunc(f.messages, missing) {
		// A file that gets another name while its directory is read may not appear in it. What two readings miss is gone.
		readFresh, readCur = true, true
		if err := errors.Join(read(&looks[0], "new"), read(&looks[1], "cur")); err != nil {
			return err
		}
	}

	letters := f.letters
	if readCur {
		letters = f.box().keywordLetters(f.disk)
	}
	change := index.Change{Folder: f.row.ID, ModSeq: f.row.ModSeq + 1}
	for m, p := range moved {
		m.sub, m.name = p.sub, p.name
		if m.Flags == p.flags {
			continue
		}
		change.Update = append(change.Update, index.Message{
			UID: m.UID, Flags: p.flags, Keywords: strings.Join(followLetters(m, p.flags, letters), " "), ModSeq: change.ModSeq,
		})
	}
	for _, m := range f.messages {
		if missing(m) {
			change.Remove = append(change.Remove, m.UID)
		}
	}
	added, err := f.number(ctx, unknown, letters, change.ModSeq)
	if err != nil {
		return err
	}
	for _, m := range added {
		change.Add = append(change.Add, m.Message)
		change.Next = m.UID + 1
	}
	looks[0].modified, looks[1].modified = fresh, cur
	if len(change.Add)+len(change.Update)+len(change.Remove) > 0 {
		if err := f.account.db.Apply(ctx, change); err != nil {
			f.fresh.at, f.cur.at = time.Time{}, time.Time{}
			return err
		}
		f.commit(change, added)
		f.notify()
	}
	f.fresh, f.cur, f.letters = looks[0], looks[1], letters
	return nil
}

// followLetters returns the keywords of m after another program has changed the letters in its file's name.
func followLetters(m *message, letters string, names [26]string) []string {
	keywords := m.keywords
	for i, k := range names {
		if k == "" {
			continue
		}
		was, is := strings.IndexByte(m.Flags, 'a'+byte(i)) >= 0, strings.IndexByte(letters, 'a'+byte(i)) >= 0
		switch {
		case is && !was:
			keywords = addKeyword(keywords, k)
		case was && !is:
			keywords = removeKeyword(keywords, k)
		}
	}
	return keywords
}

// number gives UIDs to files, in the order of their dates.
func (f *folder) number(ctx context.Context, unknown map[string]place, letters [26]string, modseq uint64) ([]*message, error) {
	added := make([]*message, 0, len(unknown))
	for unique, p := range unknown {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		row, ok, err := f.box().inspect(f.disk, p.sub, p.name, -1)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		m := &message{Message: row, sub: p.sub, name: p.name, seen: f.round}
		keywords := uniqueKeywords(unique)
		for _, k := range lettersToKeywords(p.flags, letters) {
			keywords = addKeyword(keywords, k)
		}
		slices.Sort(keywords)
		m.set(p.flags, keywords)
		m.ModSeq = modseq
		added = append(added, m)
	}
	slices.SortFunc(added, func(x, y *message) int {
		if c := x.Date.Compare(y.Date); c != 0 {
			return c
		}
		return strings.Compare(x.File, y.File)
	})
	if uint64(f.row.Next)+uint64(len(added)) >= 1<<32-1 {
		return nil, fmt.Errorf("there are no UIDs left")
	}
	for i, m := range added {
		m.UID = f.row.Next + uint32(i)
	}
	return added, nil
}

// inspect finds out what the index keeps of a file; ok is false if it is no message, or gone. wire is its size with CRLF
// line ends, if that is known.
func (b *mailbox) inspect(disk, sub, name string, wire int64) (m index.Message, ok bool, err error) {
	path := filepath.Join(b.dir, disk, sub, name)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if !st.Mode().IsRegular() {
		return m, false, nil
	}
	m.File = parseFileName(name).unique
	m.Disk, m.Date = st.Size(), st.ModTime()
	saysDisk, saysWire := uniqueSizes(m.File)
	switch {
	case saysWire >= m.Disk && saysDisk == m.Disk:
		m.Size = saysWire
	case wire >= m.Disk:
		m.Size = wire
	default:
		f, err := openRegular(path)
		if errors.Is(err, fs.ErrNotExist) {
			return m, false, nil
		}
		if err != nil {
			return m, false, err
		}
		m.Size, err = wireSize(f)
		_ = f.Close()
		if err != nil {
			return m, false, err
		}
	}
	return m, true, nil
}

// commit puts a change that the index has into the view.
func (f *folder) commit(c index.Change, added []*message) {
	f.row.ModSeq = max(f.row.ModSeq, c.ModSeq)
	f.row.Next = max(f.row.Next, c.Next)
	for _, u := range c.Update {
		if m := f.find(u.UID); m != nil {
			m.set(u.Flags, strings.Fields(u.Keywords))
			m.ModSeq = u.ModSeq
		}
	}
	if len(c.Remove) > 0 {
		gone := make(map[uint32]bool, len(c.Remove))
		for _, uid := range c.Remove {
			gone[uid] = true
		}
		f.messages = slices.DeleteFunc(f.messages, func(m *message) bool {
			if gone[m.UID] {
				delete(f.byFile, m.File)
			}
			return gone[m.UID]
		})
	}
	for _, m := range added {
		f.messages = append(f.messages, m)
		f.byFile[m.File] = m
	}
	f.changed()
}

// Status counts the folder.
func (f *folder) Status(ctx context.Context) (mailstore.Status, error) {
	done, err := f.use(ctx)
	if err != nil {
		return mailstore.Status{}, err
	}
	defer done()
	if f.status == nil {
		s := mailstore.Status{
			Messages: len(f.messages), UIDNext: f.row.Next, UIDValidity: f.row.Validity, ModSeq: f.row.ModSeq,
		}
		for _, m := range f.messages {
			if strings.IndexByte(m.Flags, 'S') < 0 {
				s.Unseen++
			}
			if strings.IndexByte(m.Flags, 'T') >= 0 {
				s.Deleted++
			}
			if m.sub == "new" {
				s.Recent++
			}
			s.Size += m.Size
		}
		f.status = &s
	}
	return *f.status, nil
}

// Messages lists the folder. Files in new are moved to cur: from now on they are not recent any more, except in this
// listing.
func (f *folder) Messages(ctx context.Context) (mailstore.Listing, error) {
	done, err := f.use(ctx)
	if err != nil {
		return mailstore.Listing{}, err
	}
	defer done()
	recent := f.settle()
	if f.listing == nil {
		l := mailstore.Listing{
			UIDValidity: f.row.Validity, UIDNext: f.row.Next, ModSeq: f.row.ModSeq,
			Messages: make([]mailstore.Message, len(f.messages)),
		}
		for i, m := range f.messages {
			l.Messages[i] = m.public()
		}
		f.listing = &l
	}
	list := *f.listing
	if recent {
		for _, m := range f.messages {
			m.recent = false
		}
		f.changed()
	}
	return list, nil
}

// settle moves files from new to cur and reports whether there were any.
func (f *folder) settle() bool {
	recent, own := false, false
	for _, m := range f.messages {
		if m.sub != "new" {
			continue
		}
		recent = true
		name := m.File + ":2," + m.Flags
		// What cannot be moved stays where it is, in a tree that cannot be written for example.
		if err := f.box().store.disk.Rename(f.path(m), filepath.Join(f.dir(), "cur", name)); err == nil {
			m.sub, m.name, m.recent = "cur", name, true
			own = true
		}
	}
	if recent {
		f.changed()
	}
	if own {
		f.ownChange()
	}
	return recent
}

// ownChange notes that we have changed the directories ourselves, so that this alone does not make us read them again at
// once. What others did at the same time is found a little later: see look.stale.
func (f *folder) ownChange() {
	if fresh, cur, err := f.times(); err == nil {
		f.fresh.modified, f.cur.modified = fresh, cur
	}
}

// Watch tells of changes.
func (f *folder) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	fresh, cur := f.lookedAt() // before the lock: those who notify hold others already
	f.watching.Lock()
	defer f.watching.Unlock()
	if f.watchers == nil {
		f.watchers = map[chan struct{}]struct{}{}
	}
	f.watchers[c] = struct{}{}
	if f.stop == nil {
		f.stop = make(chan struct{})
		ticks, end := f.box().store.cfg.Ticks()
		go f.poll(f.stop, ticks, end, fresh, cur) // ends when the last watcher stops
	}
	var once sync.Once
	return c, func() {
		once.Do(func() {
			f.watching.Lock()
			defer f.watching.Unlock()
			delete(f.watchers, c)
			if len(f.watchers) == 0 {
				close(f.stop)
				f.stop = nil
			}
		})
	}
}

// lookedAt returns the times of new and cur as far as the view goes.
func (f *folder) lookedAt() (fresh, cur time.Time) {
	f.box().shape.RLock()
	defer f.box().shape.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loaded {
		return f.fresh.modified, f.cur.modified
	}
	fresh, cur, err := f.times()
	if err != nil {
		return time.Time{}, time.Time{}
	}
	return fresh, cur
}

// poll looks for changes by other programs until stop is closed.
func (f *folder) poll(stop <-chan struct{}, ticks <-chan time.Time, end func(), fresh, cur time.Time) {
	defer end()
	for {
		select {
		case <-stop:
			return
		case <-ticks:
		}
		if f.differs(&fresh, &cur) {
			f.notify()
		}
	}
}

// differs reports whether the directories are not as the view knows them, or as they were when it was last asked.
func (f *folder) differs(fresh, cur *time.Time) bool {
	f.box().shape.RLock()
	defer f.box().shape.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	nowFresh, nowCur, err := f.times()
	if err != nil {
		return true
	}
	if f.loaded {
		return f.fresh.stale(nowFresh) || f.cur.stale(nowCur)
	}
	differs := !nowFresh.Equal(*fresh) || !nowCur.Equal(*cur)
	*fresh, *cur = nowFresh, nowCur
	return differs
}

// notify tells all watchers that something may have changed.
func (f *folder) notify() {
	f.watching.Lock()
	defer f.watching.Unlock()
	for c := range f.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
