package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluice/mailstore"
)

// trustUsage is how long a count of an account's mail is added to without a look at the tree. A refusal always looks.
const trustUsage = 10 * time.Second

// A usage is how much the mail of an account takes on disk. It is corrected by what we do ourselves; what other programs
// do is noticed by the times of the directories.
type usage struct {
	total   int64
	counted time.Time // zero: never
	dirs    map[string]dirUsage
}

type dirUsage struct {
	modified time.Time
	octets   int64
}

func (u *usage) add(n int64) {
	if !u.counted.IsZero() {
		u.total += n
	}
}

// Room reports whether a message fits the quota of an account.
func (s *Store) Room(ctx context.Context, account string, size int64) error {
	b, err := s.mailbox(ctx, account)
	if err != nil {
		return err
	}
	return b.room(ctx, size)
}

func (b *mailbox) room(ctx context.Context, size int64) error {
	s := b.store
	if s.cfg.Quota == nil {
		return nil
	}
	quota, err := s.cfg.Quota(ctx, b.account)
	if err != nil {
		return fmt.Errorf("quota of account %s: %w", b.account, err)
	}
	if quota <= 0 {
		return nil
	}
	fits := func(used int64) bool { return used < quota && size <= quota-used }
	b.mu.Lock()
	used, counted := b.usage.total, b.usage.counted
	b.mu.Unlock()
	if age := time.Since(counted); !counted.IsZero() && age >= 0 && age < trustUsage && fits(used) {
		return nil
	}
	if used, err = b.count(); err != nil {
		return fmt.Errorf("quota of account %s: %w", b.account, err)
	}
	if !fits(used) {
		return fmt.Errorf("account %s: %w: %d of %d octets are used", b.account, mailstore.ErrQuota, used, quota)
	}
	return nil
}

// count counts the mail of the account, reading only directories that have changed.
func (b *mailbox) count() (int64, error) {
	now := time.Now()
	folders, err := b.diskFolders()
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	before := b.usage.dirs
	b.mu.Unlock()
	dirs := make(map[string]dirUsage, 2*len(folders))
	var total int64
	for _, folder := range folders {
		for _, sub := range []string{"new", "cur"} {
			dir := filepath.Join(b.dir, folder, sub)
			st, err := os.Stat(dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return 0, err
			}
			u, ok := before[dir]
			// A directory that changed a moment ago may have changed again within the same tick.
			if !ok || !u.modified.Equal(st.ModTime()) || now.Sub(st.ModTime()) < settled {
				u.modified = st.ModTime()
				if u.octets, err = countDir(dir); err != nil {
					return 0, err
				}
			}
			dirs[dir] = u
			total += u.octets
		}
	}
	b.mu.Lock()
	b.usage = usage{total: total, counted: now, dirs: dirs}
	b.mu.Unlock()
	return total, nil
}

func countDir(dir string) (int64, error) {
	names, err := readNames(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var total int64
	for _, name := range names {
		if name[0] == '.' {
			continue
		}
		disk, _ := uniqueSizes(parseFileName(name).unique)
		if disk < 0 {
			if st, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				disk = st.Size()
			}
		}
		total += max(disk, 0)
	}
	return total, nil
}
