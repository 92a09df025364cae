package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"sluice/mailstore"
)

// Locate returns where a file lies now. It reads the tree alone.
func (s *Store) Locate(ctx context.Context, account, file string) (folder, path string, err error) {
	b, err := s.mailbox(ctx, account)
	if err != nil {
		return "", "", err
	}
	unique := parseFileName(filepath.Base(file)).unique
	for range 2 { // since a file that is being moved may escape one look
		err := b.eachFile(ctx, func(disk, dir, name string) (done bool) {
			if strings.HasPrefix(name, unique) && parseFileName(name).unique == unique {
				folder, path = mustName(disk), filepath.Join(dir, name)
			}
			return path != ""
		})
		if err != nil || path != "" {
			return folder, path, err
		}
	}
	return "", "", fmt.Errorf("file %q in account %s: %w", unique, account, mailstore.ErrNoMessage)
}

// Filed returns the paths of the files of an account that were filed for a transaction: those that have its id in their
// names. It reads the tree alone.
func (s *Store) Filed(ctx context.Context, account, id string) (paths []string, err error) {
	if !isID(id) {
		return nil, nil
	}
	b, err := s.mailbox(ctx, account)
	if err != nil {
		return nil, err
	}
	err = b.eachFile(ctx, func(_, dir, name string) (done bool) {
		if _, rest, ok := strings.Cut(name, "."); ok && strings.HasPrefix(rest, id+"_") { // see unique
			paths = append(paths, filepath.Join(dir, name))
		}
		return false
	})
	return paths, err
}

// eachFile calls f with each file of the folders, until it is done.
func (b *mailbox) eachFile(ctx context.Context, f func(disk, dir, name string) (done bool)) error {
	b.shape.RLock()
	defer b.shape.RUnlock()
	folders, err := b.diskFolders()
	if err != nil {
		return err
	}
	for _, disk := range folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, sub := range []string{"new", "cur"} {
			dir := filepath.Join(b.dir, disk, sub)
			names, err := readNames(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("look into %s: %w", dir, err)
			}
			for _, name := range names {
				if f(disk, dir, name) {
					return nil
				}
			}
		}
	}
	return nil
}
