package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"sluice/mailstore"
)

// uses returns the special uses of folders, by their names on disk, by their names: what is written of each, and what
// its name says where no folder was given that use. The caller holds shape.
func (b *mailbox) uses(ctx context.Context, disks []string) (map[string]string, error) {
	uses := make(map[string]string, len(disks))
	written, given := map[string]bool{}, map[string]bool{} // of which folders something is; which uses
	for _, disk := range disks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		use, ok, err := b.use(disk)
		if err != nil {
			// Nobody is kept from their mail by what is written about a folder.
			b.store.log.Warn("the special use of a folder is not known", "account", b.account, "folder", mustName(disk), "error", err)
		}
		if use != "" && !given[use] {
			uses[mustName(disk)], given[use] = use, true
		}
		written[disk] = ok
	}
	for _, disk := range disks {
		name := mustName(disk)
		if use := mailstore.UseByName(name); use != "" && !written[disk] && !given[use] {
			uses[name] = use
		}
	}
	return uses, nil
}

// use is what is written of the special use of a folder. The caller holds shape.
func (b *mailbox) use(disk string) (use string, ok bool, err error) {
	all, err := b.store.readAnnotations(filepath.Join(b.dir, disk, annotationsFile))
	if err != nil {
		return "", false, err
	}
	value, ok := all.Value(mailstore.UseAnnotation)
	if !ok || value == "" {
		return "", ok, nil
	}
	use, err = mailstore.SpecialUse(value)
	return use, err == nil, err
}

// checkUse returns nil where a folder may have the special use that is among its annotations. The caller holds shape and
// making.
func (b *mailbox) checkUse(ctx context.Context, folder string, all mailstore.Annotations) error {
	use, ok := all.Value(mailstore.UseAnnotation)
	if !ok {
		return nil
	}
	if folder == "" {
		return fmt.Errorf("%w: the server has none", mailstore.ErrUse)
	}
	disk, err := b.directory(folder)
	if err != nil {
		return err
	}
	return b.mayHave(ctx, disk, use)
}

// mayHave returns nil where no other folder has been given a use. One that has it by its name alone loses it. The caller
// holds shape and making.
func (b *mailbox) mayHave(ctx context.Context, disk, use string) error {
	if use == "" {
		return nil
	}
	disks, err := b.diskFolders()
	if err != nil {
		return err
	}
	for _, other := range disks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if other == disk {
			continue
		}
		has, _, err := b.use(other)
		if err == nil && has == use {
			return fmt.Errorf("%w: %s is the use of the folder %q", mailstore.ErrUse, use, mustName(other))
		}
	}
	return nil
}

// folderFor is folder; one that has to be made is given a special use, unless there is none of this name or a folder has
// it.
func (b *mailbox) folderFor(ctx context.Context, disk, use string) (made, error) {
	b.mu.Lock()
	there := b.ready[disk]
	b.mu.Unlock()
	use, err := mailstore.SpecialUse(use)
	if err != nil || there {
		return b.folder(disk)
	}
	b.making.Lock()
	defer b.making.Unlock()
	disks, err := b.diskFolders()
	if err != nil {
		return wasThere, err
	}
	uses, err := b.uses(ctx, disks)
	if err != nil {
		return wasThere, err
	}
	for _, has := range uses {
		if has == use {
			use = ""
		}
	}
	return b.makeFolder(disk, use)
}

// begin writes what says that a new directory is a folder, and its special use. After an error the directory is gone
// again, as far as that can be: what is there later is taken for a folder that was given none.
func (s *Store) begin(dir, use string) error {
	mark := filepath.Join(dir, "maildirfolder")
	f, err := s.disk.Create(mark)
	if err == nil {
		err = f.Close()
	}
	if err == nil && use != "" {
		err = s.writeAnnotations(filepath.Join(dir, annotationsFile), mailstore.Annotations{{Name: mailstore.UseAnnotation, Value: use}})
	}
	if err == nil {
		return nil
	}
	for _, made := range []string{filepath.Join(dir, annotationsFile), mark} {
		if left := s.disk.Remove(made); left != nil && !errors.Is(left, fs.ErrNotExist) {
			err = errors.Join(err, left)
		}
	}
	return errors.Join(err, s.disk.Rmdir(dir))
}
