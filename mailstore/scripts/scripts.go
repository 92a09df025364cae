// Package scripts keeps the Sieve scripts of accounts in files, as those who know Pigeonhole expect them:
//
//	USERS/DOMAIN/NAME/sieve/work.sieve
//	USERS/DOMAIN/NAME/.dovecot.sieve -> sieve/work.sieve
//
// The link names the active script. Whatever happens, also a power cut, a script is the one before or the one after, and
// the link leads to a whole one. Programs on the same machine may change scripts at the same time: those of ours wait for
// each other, others should replace files by renaming, as we do.
//
// A name that cannot be that of a file (it is too long, has a slash, or begins with a dot or an equals sign) is kept in
// sieve/=HASH.name beside sieve/=HASH.sieve.
package scripts

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/mailstore"
)

var _ mailstore.Scripts = (*Store)(nil)

// Limits bound what an account may keep. In a zero field the default counts.
type Limits struct {
	// Count is how many scripts an account may have.
	Count int `yaml:"count"`
	// Size is how large one script may be, in octets.
	Size int64 `yaml:"size"`
	// Total is how large all scripts of an account may be together, in octets.
	Total int64 `yaml:"total"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits { return Limits{Count: 50, Size: 1 << 20, Total: 10 << 20} }

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{Count: cmp.Or(l.Count, d.Count), Size: cmp.Or(l.Size, d.Size), Total: cmp.Or(l.Total, d.Total)}
}

// A Config says where scripts are kept. Users and Exists must be set.
type Config struct {
	// Users is the folder with what belongs to accounts besides mail: USERS/DOMAIN/NAME.
	Users string
	// Exists reports whether there is an account. An error is temporary.
	Exists func(ctx context.Context, account string) (bool, error)
	Limits Limits
	Log    *slog.Logger // nil: slog.Default
}

// A Store is a mailstore.Scripts in files.
type Store struct {
	cfg   Config
	disk  disk
	known known
	now   func() time.Time
}

// Open returns the store in a folder. It makes nothing: an account has nothing there until something is put.
func Open(c Config) (*Store, error) {
	if c.Users == "" || c.Exists == nil {
		return nil, errors.New("scripts: Users and Exists must be set")
	}
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Store{cfg: c, disk: osDisk{}, now: time.Now}, nil
}

const (
	folder    = "sieve"          // of the scripts
	link      = ".dovecot.sieve" // to the active one
	extension = ".sieve"
	lockFile  = ".sieve.lock"
	temporary = ".tmp-" // begins the name of what is not finished
)

// A shelf is where one account's scripts are.
type shelf struct {
	*Store
	dir string // USERS/DOMAIN/NAME
}

func (s *Store) shelf(ctx context.Context, account string) (shelf, error) {
	dir, err := accountFolder(s.cfg.Users, account)
	if err != nil {
		return shelf{}, err
	}
	there, err := s.cfg.Exists(ctx, account)
	if err != nil {
		return shelf{}, fmt.Errorf("scripts of %s: %w", account, err)
	}
	if !there {
		return shelf{}, fmt.Errorf("%s: %w", account, mailstore.ErrNoAccount)
	}
	return shelf{Store: s, dir: dir}, nil
}

// accountFolder returns the folder of an account. What could lead out of the tree is no account.
func accountFolder(users, account string) (string, error) {
	i := strings.LastIndexByte(account, '@')
	if i < 0 {
		return "", fmt.Errorf("account %q: %w: it has no domain", account, mailstore.ErrName)
	}
	for _, part := range []string{account[:i], account[i+1:]} {
		if part == "" || len(part) > 255 || part[0] == '.' || strings.ContainsAny(part, "/\x00") {
			return "", fmt.Errorf("account %q: %w", account, mailstore.ErrName)
		}
	}
	return filepath.Join(users, account[i+1:], account[:i]), nil
}

func (s shelf) scripts() string                        { return filepath.Join(s.dir, folder) }
func (s shelf) path(file string) string                { return filepath.Join(s.dir, folder, file) }
func (s shelf) link() string                           { return filepath.Join(s.dir, link) }
func (s shelf) lock(c context.Context) (func(), error) { return lock(c, s.disk, s.cfg.Users, s.dir) }

// List implements mailstore.Scripts. Files whose names are no script's are not listed.
func (s *Store) List(ctx context.Context, account string) ([]mailstore.ScriptInfo, error) {
	x, err := s.shelf(ctx, account)
	if err != nil {
		return nil, err
	}
	return x.list()
}

func (s shelf) list() ([]mailstore.ScriptInfo, error) {
	entries, err := os.ReadDir(s.scripts())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list scripts: %w", err)
	}
	active, err := s.active()
	if err != nil && !errors.Is(err, mailstore.ErrNoScript) {
		return nil, err
	}
	var list []mailstore.ScriptInfo
	for _, e := range entries {
		name, ok := s.nameOf(e.Name())
		if !ok {
			continue
		}
		info, err := os.Stat(s.path(e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile, or a link that leads nowhere
			continue
		case err != nil:
			return nil, fmt.Errorf("list scripts: %w", err)
		case !info.Mode().IsRegular():
			continue
		}
		list = append(list, mailstore.ScriptInfo{
			Name: name, Active: e.Name() == active, Size: info.Size(), Changed: info.ModTime(),
		})
	}
	slices.SortFunc(list, func(a, b mailstore.ScriptInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Script implements mailstore.Scripts.
func (s *Store) Script(ctx context.Context, account, name string) ([]byte, error) {
	x, err := s.shelf(ctx, account)
	if err != nil {
		return nil, err
	}
	name, err = CheckName(name)
	if err != nil {
		return nil, err
	}
	text, err := x.read(fileName(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noScript(name)
	}
	return text, err
}

func noScript(name string) error { return fmt.Errorf("%q: %w", name, mailstore.ErrNoScript) }

// hardLimit bounds what is read of a file that somebody else has put there, over the limit of what can be put.
const hardLimit = 64 << 20

func (s shelf) read(file string) ([]byte, error) {
	f, err := openPlain(s.path(file))
	if err != nil {
		return nil, fmt.Errorf("read a script: %w", err)
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, hardLimit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read a script: %w", err)
	case len(text) > hardLimit:
		return nil, fmt.Errorf("read %s: it has more than %d octets: %w", f.Name(), hardLimit, mailstore.ErrScriptSize)
	}
	return text, nil
}

// readUnless is read where the text is not that of the version have.
func (s shelf) readUnless(file, have string) (text []byte, version string, err error) {
	path := s.path(file)
	if have != "" && s.known.unchanged(path, have) {
		return nil, have, nil
	}
	f, err := openPlain(path)
	if err != nil {
		return nil, "", fmt.Errorf("read a script: %w", err)
	}
	defer f.Close()
	before, sure := identityIn(f)
	if text, err = readAll(f); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(text)
	version = hex.EncodeToString(sum[:])
	if after, ok := identityIn(f); ok && sure && before == after {
		s.known.keep(path, textOf{after, version}, s.now())
	}
	if version == have {
		text = nil
	}
	return text, version, nil
}

// openPlain opens a file for reading. A pipe would make the caller wait.
func openPlain(path string) (*os.File, error) {
	return plainFile(os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0))
}

// plainFile is a file that was opened, unless it is something else.
func plainFile(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("it is no file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Active implements mailstore.Scripts. Where the link leads to a script that somebody has removed, none is active, and the
// log says so.
func (s *Store) Active(ctx context.Context, account, have string) (name string, text []byte, version string, err error) {
	x, err := s.shelf(ctx, account)
	if err != nil {
		return "", nil, "", err
	}
	// Between the link and the file somebody may give the script another name: then the link leads elsewhere by now.
	var file string
	for range 10 {
		file, err = x.active()
		if err != nil {
			return "", nil, "", err
		}
		text, version, err = x.readUnless(file, have)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("the active script is gone", "account", account, "link", x.link(), "to", file)
		return "", nil, "", fmt.Errorf("%s leads to %s, which is gone: %w", x.link(), file, mailstore.ErrNoScript)
	}
	if err != nil {
		return "", nil, "", err
	}
	name, ok := x.nameOf(file)
	if !ok {
		name = strings.TrimSuffix(file, extension)
	}
	return name, text, version, nil
}

// active returns the file that the link leads to; ErrNoScript if there is no link.
func (s shelf) active() (file string, err error) {
	to, err := os.Readlink(s.link())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", mailstore.ErrNoScript
	case errors.Is(err, syscall.EINVAL):
		return "", fmt.Errorf("%s is no link to a script: move it away, and `sluice user import-sieve` takes it over", s.link())
	case err != nil:
		return "", fmt.Errorf("find the active script: %w", err)
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(s.dir, to)
	}
	if to = filepath.Clean(to); filepath.Dir(to) != filepath.Clean(s.scripts()) || !strings.HasSuffix(to, extension) {
		return "", fmt.Errorf("%s leads to %s, which is no script of this account: remove it", s.link(), to)
	}
	return filepath.Base(to), nil
}

// Room implements mailstore.Scripts.
func (s *Store) Room(ctx context.Context, account, name string, size int64) error {
	x, err := s.shelf(ctx, account)
	if err != nil {
		return err
	}
	name, err = CheckName(name)
	if err != nil {
		return err
	}
	return x.room(name, size)
}

func (s shelf) room(name string, size int64) error {
	l := s.cfg.Limits
	if size > l.Size {
		return fmt.Errorf("%q has %d octets, at most %d are allowed: %w", name, size, l.Size, mailstore.ErrScriptSize)
	}
	list, err := s.list()
	if err != nil {
		return err
	}
	var total int64
	others := 0
	for _, x := range list {
		if x.Name != name {
			total += x.Size
			others++
		}
	}
	switch {
	case others == len(list) && others >= l.Count:
		return fmt.Errorf("there are %d scripts, at most %d are allowed: %w", others, l.Count, mailstore.ErrTooManyScripts)
	case size > l.Total-total:
		return fmt.Errorf("the other scripts have %d octets, all together may have %d: %w", total, l.Total, mailstore.ErrQuota)
	}
	return nil
}

// Put implements mailstore.Scripts.
func (s *Store) Put(ctx context.Context, account, name string, text []byte) error {
	return s.change(ctx, account, func(x shelf) error {
		name, err := CheckName(name)
		if err != nil {
			return err
		}
		if err := x.room(name, int64(len(text))); err != nil {
			return err
		}
		if err := makeFolders(x.disk, x.dir, x.scripts()); err != nil {
			return err
		}
		if err := x.tidy(); err != nil {
			return err
		}
		if err := x.putName(name); err != nil {
			return err
		}
		return x.write(fileName(name), text)
	})
}

// change runs f while no other change to the account's scripts is under way, in any process.
func (s *Store) change(ctx context.Context, account string, f func(shelf) error) error {
	x, err := s.shelf(ctx, account)
	if err != nil {
		return err
	}
	unlock, err := x.lock(ctx)
	if err != nil {
		return fmt.Errorf("scripts of %s: %w", account, explained(err))
	}
	defer unlock()
	return explained(f(x))
}

// tidy removes what a power cut has left unfinished: nobody else is writing now.
func (s shelf) tidy() error {
	entries, err := os.ReadDir(s.scripts())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			if err := s.disk.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// putName keeps a name that is no file's. It comes before the script: without one it means nothing.
func (s shelf) putName(name string) error {
	file := fileName(name)
	if isPlain(name) {
		return nil
	}
	side := strings.TrimSuffix(file, extension) + nameExtension
	if have, err := os.ReadFile(s.path(side)); err == nil && string(have) == name {
		return nil
	}
	return s.write(side, []byte(name))
}

// write makes a file durable under its name, in place of one that is there.
func (s shelf) write(file string, text []byte) error {
	return replace(s.disk, s.scripts(), file, text)
}

// Activate implements mailstore.Scripts.
func (s *Store) Activate(ctx context.Context, account, name string) error {
	return s.change(ctx, account, func(x shelf) error {
		now, err := x.active()
		if err != nil && !errors.Is(err, mailstore.ErrNoScript) {
			return err
		}
		if name == "" {
			if now == "" {
				return nil
			}
			if err := x.disk.Remove(x.link()); err != nil {
				return err
			}
			return x.disk.SyncDir(x.dir)
		}
		name, err := CheckName(name)
		if err != nil {
			return err
		}
		file := fileName(name)
		if !x.has(file) {
			return noScript(name)
		}
		return x.point(file)
	})
}

func (s shelf) has(file string) bool {
	info, err := os.Stat(s.path(file))
	return err == nil && info.Mode().IsRegular()
}

// point lets the link lead to a file.
func (s shelf) point(file string) error {
	next := filepath.Join(s.dir, temporary+"active")
	if err := s.disk.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a power cut may have left it
	}
	if err := s.disk.Symlink(filepath.Join(folder, file), next); err != nil {
		return err
	}
	if err := s.disk.Rename(next, s.link()); err != nil {
		return errors.Join(err, ignoreMissing(s.disk.Remove(next)))
	}
	return s.disk.SyncDir(s.dir)
}

// Delete implements mailstore.Scripts.
func (s *Store) Delete(ctx context.Context, account, name string) error {
	return s.change(ctx, account, func(x shelf) error {
		name, err := CheckName(name)
		if err != nil {
			return err
		}
		file := fileName(name)
		if !x.has(file) {
			return noScript(name)
		}
		active, err := x.active()
		switch {
		case err == nil && active == file:
			return fmt.Errorf("%q: %w", name, mailstore.ErrActive)
		case err != nil && !errors.Is(err, mailstore.ErrNoScript):
			return err
		}
		return x.remove(name)
	})
}

// remove removes a script, and then its name.
func (s shelf) remove(name string) error {
	file := fileName(name)
	if err := s.disk.Remove(s.path(file)); err != nil {
		return err
	}
	if !isPlain(name) {
		if err := s.disk.Remove(s.path(strings.TrimSuffix(file, extension) + nameExtension)); err != nil {
			return err
		}
	}
	return s.disk.SyncDir(s.scripts())
}

// Rename implements mailstore.Scripts. For a moment the script has both names.
func (s *Store) Rename(ctx context.Context, account, from, to string) error {
	return s.change(ctx, account, func(x shelf) error {
		from, err := CheckName(from)
		if err != nil {
			return err
		}
		to, err := CheckName(to)
		if err != nil {
			return err
		}
		if !x.has(fileName(from)) {
			return noScript(from)
		}
		if x.has(fileName(to)) { // also its own name: RFC 5804, 2.11.1
			return fmt.Errorf("%q: %w", to, mailstore.ErrExists)
		}
		active, err := x.active()
		if err != nil && !errors.Is(err, mailstore.ErrNoScript) {
			return err
		}
		if err := x.putName(to); err != nil {
			return err
		}
		if err := x.disk.Link(x.path(fileName(from)), x.path(fileName(to))); err != nil {
			return err
		}
		if err := x.disk.SyncDir(x.scripts()); err != nil {
			return errors.Join(err, ignoreMissing(x.disk.Remove(x.path(fileName(to)))))
		}
		if active == fileName(from) {
			if err := x.point(fileName(to)); err != nil {
				// The link may lead to either by now, so both stay.
				return err
			}
		}
		return x.remove(from)
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// explained says in the terms of the contract what an error of the disk means.
func explained(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", mailstore.ErrFull, err)
	}
	return err
}

// replace writes a file so that it is there whole or not at all, also after a power cut.
func replace(d disk, dir, name string, text []byte) (err error) {
	next := filepath.Join(dir, temporary+name)
	if len(temporary+name) > longest {
		next = filepath.Join(dir, temporary+"new")
	}
	f, err := d.Create(next)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(d.Remove(next)))
		}
	}()
	_, err = bytes.NewReader(text).WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = d.Rename(next, filepath.Join(dir, name)); err != nil {
		return err
	}
	return d.SyncDir(dir)
}
