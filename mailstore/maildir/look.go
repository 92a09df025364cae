package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"sluice/mailstore/index"
)

// A Seen is a message as its file lies in the tree now.
type Seen struct {
	Folder string
	File   string // the unique name
	ID     string // of the record, from the unique name; "" for a file that did not come through us
	Flags  []string
	Dir    string // where the file lies, and what it is called there
	Name   string
}

// Path is that of the file.
func (s Seen) Path() string { return filepath.Join(s.Dir, s.Name) }

// Look looks at the mail of an account, beside the process that owns it and without changing anything: it calls visit
// for every message whose file is named for since or later, and returns all folders there are. Other programs may go on
// meanwhile: a file that is moved while its folder is read may be visited twice or not at all.
//
// Keywords are those of the index, or what the file's name says where the index does not know it yet. Where the index cannot
// be read the error says so, and all messages are visited nevertheless. An account without mail has no folders. An error of
// visit ends it.
func (s *Store) Look(ctx context.Context, account string, since time.Time, visit func(Seen) error) (folders []string, err error) {
	b, err := s.mailbox(ctx, account)
	if err != nil {
		return nil, err
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	disks, err := b.diskFolders()
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", account, err)
	}
	indexed, blind := index.ReadKeywords(ctx, b.index())
	if blind != nil {
		blind = fmt.Errorf("account %s: %w", account, blind)
	}
	keywords := map[[2]string][]string{}
	for _, k := range indexed {
		keywords[[2]string{k.Folder, k.File}] = k.Keywords
	}
	for _, disk := range disks {
		folders = append(folders, mustName(disk))
	}
	for _, disk := range disks {
		l := folderLook{disk: disk, folder: mustName(disk), letters: b.keywordLetters(disk), keywords: keywords}
		for _, sub := range []string{"new", "cur"} {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			dir := filepath.Join(b.dir, disk, sub)
			names, err := readNames(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("account %s, folder %s: %w", account, l.folder, err)
			}
			for _, name := range names {
				if name[0] == '.' || nameTime(name).Before(since) {
					continue
				}
				if err := visit(l.seen(dir, name)); err != nil {
					return nil, err
				}
			}
		}
	}
	return folders, blind
}

// A folderLook is what is needed to tell what the name of a file in a folder says.
type folderLook struct {
	disk, folder string
	letters      [26]string
	keywords     map[[2]string][]string // of the index, by folder on disk and unique name
}

func (l *folderLook) seen(dir, name string) Seen {
	p := parseFileName(name)
	words, known := l.keywords[[2]string{l.disk, p.unique}]
	if !known {
		words = uniqueKeywords(p.unique)
	}
	for _, k := range lettersToKeywords(p.flags, l.letters) {
		words = addKeyword(words, k)
	}
	flags := flagSet{letters: system(p.flags), keywords: words}
	return Seen{Folder: l.folder, File: p.unique, ID: uniqueID(p.unique), Flags: slices.Clip(flags.names()), Dir: dir, Name: name}
}
