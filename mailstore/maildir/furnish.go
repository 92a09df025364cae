package maildir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/mailstore"
)

// CheckFolder returns nil if a folder can have this name. Its error wraps mailstore.ErrName.
func CheckFolder(name string) error {
	_, err := diskName(name)
	return err
}

// furnished is the name of a file that says that an account has got its first folders. It lies beside the index.
const furnished = "furnished"

// furnish makes the folders that an account begins with, and subscribes to them, when it is opened for the first time:
// those that its owner removes later stay away. One that cannot be made keeps nobody from their mail; it is tried again
// when the account is opened next. The caller holds opening.
func (a *account) furnish(ctx context.Context) {
	s := a.box.store
	if len(s.cfg.Furnish) == 0 {
		return
	}
	note := filepath.Join(a.box.users, furnished)
	if _, err := os.Lstat(note); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	for _, name := range s.cfg.Furnish {
		err := a.Create(ctx, name)
		if err == nil || errors.Is(err, mailstore.ErrExists) {
			err = a.Subscribe(ctx, name, true)
		}
		if err != nil {
			s.log.Warn("a folder that the account begins with was not made", "account", a.box.account, "folder", name, "error", err)
			return
		}
	}
	if err := s.replaceFile(note, ""); err != nil {
		s.log.Warn("not noted that the account has its first folders", "account", a.box.account, "error", err)
	}
}
