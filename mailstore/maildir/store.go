// Package maildir keeps mail in Maildir++ trees, as mutt, Postfix and Dovecot know them, so that those may work on the
// same tree at the same time. Content and system flags live in the tree; UIDs, modification sequences and keywords live
// in an index beside it.
//
// The mail of user@domain lies in ROOT/domain/user: cur, new and tmp are the inbox, ".Lists.go" is the folder Lists/go.
// Files have LF line ends and are read with CRLF. A unique name is SECONDS.ID_N.HOST,S=SIZE,W=SIZE: ID is that of the
// transaction's record, S the size on disk, W the size with CRLF line ends. Keywords that a message was delivered with
// follow as ",K=".
//
// Keywords live in the index. Those that Dovecot's dovecot-keywords file has a letter for are kept in the file's name
// as well, so that both see the other's changes. Files that arrive lie in new until a session lists the folder; then
// they are moved to cur, as Dovecot does.
package maildir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/mailstore"
)

// A Config says where mail is kept, and who there is. Root, Users and Exists must be set.
type Config struct {
	// Root is the folder with the mail: ROOT/DOMAIN/NAME is a Maildir.
	Root string
	// Users is the folder with what else belongs to accounts: USERS/DOMAIN/NAME/index.db.
	Users string
	// Exists reports whether there is an account. An error is temporary.
	Exists func(ctx context.Context, account string) (bool, error)
	// Quota returns how many octets the mail of an account may take; 0, and a nil func, mean no limit.
	Quota func(ctx context.Context, account string) (int64, error)
	// Furnish names folders that are made and subscribed when an account is opened for the first time.
	Furnish []string
	// Hostname becomes part of file names; empty: the machine's.
	Hostname string
	// Now is the clock for file names, dates and UIDVALIDITY; nil: time.Now. What concerns the ages of files always uses
	// the clock of the machine.
	Now func() time.Time
	// NewID makes the ids in names of files that no transaction brought; nil: random ones.
	NewID func() string
	// Ticks returns a channel that says when to look for changes by other programs, and a func that ends it; nil: once
	// a second. It is used while somebody watches a folder.
	Ticks func() (<-chan time.Time, func())
	// Log gets what an administrator should know; nil: nothing.
	Log *slog.Logger
	Limits
}

// Limits bound what an account can hold besides its quota.
type Limits struct {
	// Folders is how many folders an account may have.
	Folders int `yaml:"folders"`
	// Keywords is how many keywords a message may have.
	Keywords int `yaml:"keywords"`
	// IdleAccounts is how many accounts that nobody uses are kept open, so that the next session starts quickly.
	IdleAccounts int `yaml:"idle_accounts"`
	// Annotations is how many annotations a folder may have, and the server as one account sees it.
	Annotations int `yaml:"annotations"`
	// AnnotationSize is how many octets the annotations of one folder may take together, with their names.
	AnnotationSize int `yaml:"annotation_size"`
}

// DefaultLimits returns the limits that stand where a configuration says nothing.
func DefaultLimits() Limits {
	return Limits{Folders: 5000, Keywords: 100, IdleAccounts: 64, Annotations: 100, AnnotationSize: 64 << 10}
}

// A Store is a mailstore.Store on Maildir++. One process owns a store; other programs may work on the mail, not on the
// index.
type Store struct {
	cfg  Config
	log  *slog.Logger
	host string
	disk disk
	sync dirSyncer
	seq  atomic.Uint64 // the N in unique names

	buffers sync.Pool // of *[]byte

	mu        sync.Mutex
	mailboxes map[string]*mailbox // by account; they stay
	idle      []*mailbox          // open accounts that nobody uses, the longest unused first
	closed    bool
}

// A mailbox is what a Store remembers of an account's tree, whether somebody has opened it or not.
type mailbox struct {
	store   *Store
	account string
	dir     string // ROOT/domain/local
	users   string // USERS/domain/local

	// shape is held for writing while folders are removed or get other names, and for reading by whatever relies on
	// where they lie. It comes before every other lock.
	shape sync.RWMutex

	making sync.Mutex // one goroutine at a time makes folders and writes the list of subscriptions

	mu     sync.Mutex
	ready  map[string]bool // folders by name on disk that exist for sure, with their parents
	usage  usage
	opened *account // shared by all sessions; nil if there is none

	opening  sync.Mutex // one goroutine at a time opens or closes the account; before mu and Store.mu
	marked   bool       // this process has opened the index before; guarded by opening
	validity uint32     // no smaller UIDVALIDITY is given, even if all is removed; guarded by opening
}

// Open opens the store, making Root and Users if there are none yet.
func Open(cfg Config) (*Store, error) {
	if cfg.Root == "" || cfg.Users == "" || cfg.Exists == nil {
		return nil, errors.New("maildir: Root, Users and Exists must be set")
	}
	d := DefaultLimits()
	if cfg.Folders == 0 {
		cfg.Folders = d.Folders
	}
	if cfg.Keywords == 0 {
		cfg.Keywords = d.Keywords
	}
	if cfg.IdleAccounts == 0 {
		cfg.IdleAccounts = d.IdleAccounts
	}
	if cfg.Annotations == 0 {
		cfg.Annotations = d.Annotations
	}
	if cfg.AnnotationSize == 0 {
		cfg.AnnotationSize = d.AnnotationSize
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = func() string { return rand.Text()[:12] }
	}
	if cfg.Ticks == nil {
		cfg.Ticks = func() (<-chan time.Time, func()) {
			t := time.NewTicker(time.Second)
			return t.C, t.Stop
		}
	}
	if cfg.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name of this machine: %w", err)
		}
		cfg.Hostname = name
	}
	s := &Store{
		cfg:       cfg,
		log:       cfg.Log,
		host:      hostPart(cfg.Hostname),
		mailboxes: map[string]*mailbox{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.buffers.New = func() any {
		b := make([]byte, bufferSize)
		return &b
	}
	// A name must not be given again within its second by a process that is started anew: n goes on where the clock is.
	s.seq.Store(uint64(cfg.Now().Nanosecond() / 1000))
	s.setDisk(osDisk{})
	for _, dir := range []string{cfg.Root, cfg.Users} {
		if err := s.makeAll(dir); err != nil {
			return nil, fmt.Errorf("open mail store: %w", err)
		}
	}
	return s, nil
}

func (s *Store) setDisk(d disk) {
	s.disk = d
	s.sync = dirSyncer{disk: d, dirs: map[string]*dirState{}}
}

// Close closes the indexes of all accounts. Sessions that are still open get errors.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	boxes := make([]*mailbox, 0, len(s.mailboxes))
	for _, b := range s.mailboxes {
		boxes = append(boxes, b)
	}
	s.idle = nil
	s.mu.Unlock()
	var errs []error
	for _, b := range boxes {
		b.opening.Lock()
		errs = append(errs, b.shut())
		b.opening.Unlock()
	}
	return errors.Join(errs...)
}

// mailbox returns the mailbox of an account that exists.
func (s *Store) mailbox(ctx context.Context, account string) (*mailbox, error) {
	local, domain, err := splitAccount(account)
	if err != nil {
		return nil, err
	}
	ok, err := s.cfg.Exists(ctx, account)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look up account %s: %w", account, err)
	case !ok:
		s.deleted(account)
		return nil, fmt.Errorf("account %s: %w", account, mailstore.ErrNoAccount)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("mail store is closed")
	}
	b := s.mailboxes[account]
	if b == nil {
		b = &mailbox{
			store:   s,
			account: account,
			dir:     filepath.Join(s.cfg.Root, domain, local),
			users:   filepath.Join(s.cfg.Users, domain, local),
			ready:   map[string]bool{},
		}
		s.mailboxes[account] = b
	}
	return b, nil
}

// deleted forgets what is known of an account that there is not. Its mail may be removed at any moment, and its name may
// come back as somebody else's.
func (s *Store) deleted(account string) {
	s.mu.Lock()
	b := s.mailboxes[account]
	s.mu.Unlock()
	if b == nil {
		return
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.forget("")
	b.mu.Lock()
	b.usage = usage{}
	b.mu.Unlock()
	b.marked = false
	if err := b.shut(); err != nil {
		s.log.Warn("the index of a deleted account did not close", "account", account, "error", err)
	}
}

// unique begins a unique name; sizes are added once they are known.
func (s *Store) unique(id string) string {
	if !isID(id) {
		id = s.cfg.NewID()
	}
	var b strings.Builder
	b.WriteString(strconv.FormatInt(s.cfg.Now().Unix(), 10))
	b.WriteByte('.')
	b.WriteString(id)
	b.WriteByte('_')
	b.WriteString(strconv.FormatUint(s.seq.Add(1), 10))
	b.WriteByte('.')
	b.WriteString(s.host)
	return b.String()
}

// makeAll makes a folder and its parents, and returns once what it made would survive a power cut.
func (s *Store) makeAll(dir string) error {
	err := s.disk.Mkdir(dir)
	switch {
	case errors.Is(err, fs.ErrExist):
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		if err := s.makeAll(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := s.disk.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case err != nil:
		return err
	}
	return s.sync.Sync(filepath.Dir(dir))
}

// A made says what folder found it had to do.
type made uint8

const (
	wasThere made = iota
	wasMade
)

// folder sees to it that a folder exists for sure: it, its cur, new and tmp, and all parents, would survive a power cut.
// The caller holds shape.
func (b *mailbox) folder(disk string) (made, error) {
	b.mu.Lock()
	ok := b.ready[disk]
	b.mu.Unlock()
	if ok {
		return wasThere, nil
	}
	b.making.Lock()
	defer b.making.Unlock()
	return b.makeFolder(disk, "")
}

// makeFolder is folder for one who holds making. What exists already may have been made by a process that died before
// it synced, so everything is synced once. A folder that is made has this special use.
func (b *mailbox) makeFolder(disk, use string) (made, error) {
	s := b.store
	b.mu.Lock()
	known := b.ready[disk]
	root := b.ready[""]
	b.mu.Unlock()
	if known {
		return wasThere, nil
	}
	if disk != "" && !root {
		if _, err := b.makeFolder("", ""); err != nil {
			return wasThere, err
		}
	}
	dir := filepath.Join(b.dir, disk)
	result := wasThere
	if disk == "" {
		if err := s.makeAll(dir); err != nil {
			return wasThere, fmt.Errorf("make inbox: %w", err)
		}
	} else {
		err := s.disk.Mkdir(dir)
		switch {
		case err == nil:
			result = wasMade
			if err := s.begin(dir, use); err != nil {
				return wasThere, fmt.Errorf("make folder: %w", err)
			}
		case !errors.Is(err, fs.ErrExist):
			return wasThere, fmt.Errorf("make folder: %w", err)
		}
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := s.disk.Mkdir(filepath.Join(dir, sub)); err != nil && !errors.Is(err, fs.ErrExist) {
			return wasThere, fmt.Errorf("make folder: %w", err)
		}
	}
	dirs := []string{dir, b.dir}
	if disk == "" {
		dirs = []string{dir, filepath.Dir(dir), s.cfg.Root}
	}
	for _, d := range dirs {
		if err := s.sync.Sync(d); err != nil {
			return wasThere, fmt.Errorf("make folder: %w", err)
		}
	}
	b.mu.Lock()
	b.ready[disk] = true
	b.mu.Unlock()
	return result, nil
}

// forget makes the next use of a folder look again whether it exists.
func (b *mailbox) forget(disk string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if disk == "" {
		clear(b.ready)
		return
	}
	delete(b.ready, disk)
}

// locate finds the directory of a folder that exists: under the name that we would give it, else under one that another
// program gave it.
func (b *mailbox) locate(name string) (disk string, err error) {
	disk, err = diskName(name)
	if err != nil {
		// Names that we refuse to make may still be there.
		if raw, ok := b.rawName(name); ok {
			return raw, nil
		}
		return "", err
	}
	if st, err := os.Stat(filepath.Join(b.dir, disk)); err == nil && st.IsDir() {
		return disk, nil
	}
	if raw, ok := b.rawName(name); ok {
		return raw, nil
	}
	return "", fmt.Errorf("folder %q: %w", folderName(name), mailstore.ErrNoFolder)
}

func (b *mailbox) rawName(name string) (string, bool) {
	raw := "." + strings.ReplaceAll(folderName(name), mailstore.Separator, ".")
	if back, ok := apiName(raw); !ok || back != folderName(name) {
		return "", false
	}
	st, err := os.Stat(filepath.Join(b.dir, raw))
	return raw, err == nil && st.IsDir()
}

// diskFolders lists the directories of all folders, the inbox first.
func (b *mailbox) diskFolders() ([]string, error) {
	entries, err := os.ReadDir(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list folders: %w", err)
	}
	list := []string{""}
	for _, e := range entries {
		if _, ok := apiName(e.Name()); !ok {
			continue
		}
		if e.IsDir() {
			list = append(list, e.Name())
		} else if e.Type()&fs.ModeSymlink != 0 {
			if st, err := os.Stat(filepath.Join(b.dir, e.Name())); err == nil && st.IsDir() {
				list = append(list, e.Name())
			}
		}
	}
	return list, nil
}

// mustName is apiName for directories that have one.
func mustName(disk string) string {
	if name, ok := apiName(disk); ok {
		return name
	}
	return mailstore.Inbox
}

// readNames lists a directory, in no order.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}
