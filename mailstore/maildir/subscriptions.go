package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/mailstore"
)

// subscriptionsFile lies in the Maildir.
const subscriptionsFile = "subscriptions"

// newSuffix ends the name of a file that is to take the place of another.
const newSuffix = ".sluice-new"

// subscriptionsHeader begins a list of subscriptions as Dovecot writes it since 2.2: levels separated by tabs.
const subscriptionsHeader = "V\t2\n\n"

// subscriptions reads the list of subscribed folders. The caller holds making or does not mind an older list.
func (b *mailbox) subscriptions() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(b.dir, subscriptionsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	text, second := strings.CutPrefix(string(data), subscriptionsHeader)
	var list []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		var levels []string
		if second {
			for l := range strings.SplitSeq(line, "\t") {
				levels = append(levels, unescapeTab(l))
			}
		} else {
			levels = strings.FieldsFunc(line, func(r rune) bool { return r == '.' || r == '/' })
		}
		for i, l := range levels {
			if s, err := decodeUTF7(l); err == nil {
				levels[i] = s
			}
		}
		if name := folderName(strings.Join(levels, mailstore.Separator)); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

// Dovecot escapes within fields that tabs separate.
func unescapeTab(s string) string {
	return strings.NewReplacer("\x01"+"1", "\x01", "\x01t", "\t", "\x01n", "\n", "\x01r", "\r", "\x010", "\x00").Replace(s)
}

// subscribe adds a folder to the list of subscriptions or takes it off, durable.
func (b *mailbox) subscribe(name string, on bool) error {
	b.making.Lock()
	defer b.making.Unlock()
	name = folderName(name)
	list, err := b.subscriptions()
	if err != nil {
		return err
	}
	if slices.Contains(list, name) == on {
		return nil
	}
	if on {
		if len(list) >= 2*b.store.cfg.Folders {
			return fmt.Errorf("subscribe to %q: there are %d subscriptions", name, len(list))
		}
		list = append(list, name)
	} else {
		list = slices.DeleteFunc(list, func(x string) bool { return x == name })
	}
	file := filepath.Join(b.dir, subscriptionsFile)
	if len(list) == 0 {
		// None is what an account begins with.
		if err := b.store.disk.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unsubscribe from %q: %w", name, err)
		}
		return b.store.sync.Sync(b.dir)
	}
	var text strings.Builder
	text.WriteString(subscriptionsHeader)
	for _, name := range list {
		for i, l := range strings.Split(name, mailstore.Separator) {
			if i > 0 {
				text.WriteByte('\t')
			}
			text.WriteString(encodeUTF7(l))
		}
		text.WriteByte('\n')
	}
	if err := b.store.replaceFile(file, text.String()); err != nil {
		return fmt.Errorf("subscribe to %q: %w", name, err)
	}
	return nil
}

// replaceFile puts a file in place of another, or of none. Readers see the old or the new one, also after a power cut.
func (s *Store) replaceFile(name, text string) error {
	tmp := name + newSuffix
	if err := s.disk.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.disk.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.disk.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, s.disk.Remove(tmp))
	}
	return s.sync.Sync(filepath.Dir(name))
}
