package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sluice/mailstore/index"
)

// marksFile lies in the Maildir, apart from the index, so that the loss of one is noticed by means of the other.
const marksFile = "sluice-uidvalidity"

// marks are what must not be lost with the index.
type marks struct {
	validity   uint32 // the largest UIDVALIDITY ever given in this account
	generation uint64 // rises with every start; an index that is behind is an old copy
}

// readMarks reads the marks file; known is false if there is none.
func (b *mailbox) readMarks() (m marks, known bool, err error) {
	data, err := os.ReadFile(filepath.Join(b.dir, marksFile))
	if errors.Is(err, fs.ErrNotExist) {
		return marks{}, false, nil
	}
	if err != nil {
		return marks{}, false, err
	}
	if n, err := fmt.Sscanf(string(data), "1 %d %d\n", &m.validity, &m.generation); n != 2 || err != nil {
		b.store.log.Error("the file with the last UIDVALIDITY is damaged; it is written anew",
			"account", b.account, "content", fmt.Sprintf("%.40q", data))
		return marks{}, true, nil //nolint:nilerr // what is damaged is written anew
	}
	return m, true, nil
}

// writeMarks writes the marks file, durable.
func (b *mailbox) writeMarks(m marks) error {
	text := fmt.Sprintf("1 %d %d\n", m.validity, m.generation)
	if err := b.store.replaceFile(filepath.Join(b.dir, marksFile), text); err != nil {
		return fmt.Errorf("write %s: %w", marksFile, err)
	}
	return nil
}

// A uidList is what Dovecot's dovecot-uidlist says of a folder.
type uidList struct {
	validity, next uint32
	entries        []uidEntry // by rising UID
}

type uidEntry struct {
	uid    uint32
	unique string
	wire   int64 // size with CRLF line ends, -1 if it isn't said
}

// parseUIDList reads a dovecot-uidlist of version 3 ("3 V275 N12 Gguid", lines "5 W1394 :unique:2,S") or 1 ("1 275 12",
// lines "5 unique"). Lines that make no sense are skipped; without a usable header it is an error.
func parseUIDList(text string) (uidList, error) {
	header, text, _ := strings.Cut(text, "\n")
	fields := strings.Fields(header)
	var l uidList
	if len(fields) < 1 {
		return l, errors.New("no header")
	}
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0
		}
		return uint32(n)
	}
	third := fields[0] == "3"
	switch {
	case third:
		for _, f := range fields[1:] {
			switch f[0] {
			case 'V':
				l.validity = number(f[1:])
			case 'N':
				l.next = number(f[1:])
			}
		}
	case fields[0] == "1" && len(fields) >= 3:
		l.validity, l.next = number(fields[1]), number(fields[2])
	default:
		return l, fmt.Errorf("version %q is not known", fields[0])
	}
	if l.validity == 0 {
		return l, errors.New("no UIDVALIDITY in its header")
	}
	var last uint32
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		id, rest, ok := strings.Cut(line, " ")
		e := uidEntry{uid: number(id), wire: -1}
		if third {
			var ext string
			if strings.HasPrefix(rest, ":") {
				rest = rest[1:]
			} else if ext, rest, ok = strings.Cut(rest, " :"); ok {
				for f := range strings.FieldsSeq(ext) {
					if n, err := strconv.ParseInt(f[1:], 10, 64); err == nil && f[0] == 'W' && n >= 0 {
						e.wire = n
					}
				}
			}
		}
		e.unique = parseFileName(rest).unique
		// UIDs rise; a line that does not is damage.
		if !ok || e.uid <= last || e.unique == "" {
			continue
		}
		last = e.uid
		l.entries = append(l.entries, e)
	}
	l.next = max(l.next, last+1, 1)
	return l, nil
}

// parseKeywords reads a dovecot-keywords file: lines "0 $Junk"; 0 is the letter a.
func parseKeywords(text string) (names [26]string) {
	for line := range strings.Lines(text) {
		n, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		i, err := strconv.Atoi(n)
		if ok && err == nil && i >= 0 && i < len(names) && isKeyword(name) {
			names[i] = name
		}
	}
	return names
}

// takeAll takes over the UIDs of all folders that Dovecot has left its list in. It is done once, before the account has
// been opened for the first time: later those lists are out of date.
func (a *account) takeAll(ctx context.Context) error {
	a.mu.Lock()
	a.marks.validity = max(a.marks.validity, a.box.dovecotValidity())
	a.mu.Unlock()
	folders, err := a.box.diskFolders()
	if err != nil {
		return err
	}
	for _, disk := range folders {
		if _, ok, err := a.db.Folder(ctx, disk); ok || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		list, ok, err := a.box.uidList(disk)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if _, err := a.take(ctx, disk, list); err != nil {
			return err
		}
	}
	return nil
}

// dovecotValidity reads the last UIDVALIDITY that Dovecot gave in this account, which may be that of a deleted folder;
// 0 if it left none. It keeps it in hexadecimal.
func (b *mailbox) dovecotValidity() uint32 {
	data, err := os.ReadFile(filepath.Join(b.dir, "dovecot-uidvalidity"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 16, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// uidList reads the list that Dovecot left in a folder; ok is false if there is none to use.
func (b *mailbox) uidList(disk string) (l uidList, ok bool, err error) {
	path := filepath.Join(b.dir, disk, "dovecot-uidlist")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	if l, err = parseUIDList(string(data)); err != nil {
		b.store.log.Error("a list of UIDs that Dovecot left cannot be used; clients will fetch this folder again",
			"account", b.account, "path", path, "error", err)
		return l, false, nil
	}
	return l, true, nil
}

// take adds a folder to the index with the UIDs of Dovecot's list.
func (a *account) take(ctx context.Context, disk string, l uidList) (index.Folder, error) {
	b := a.box
	type place struct {
		sub, name string
		fileName
	}
	there := map[string]place{}
	for _, sub := range []string{"new", "cur"} {
		names, err := readNames(filepath.Join(b.dir, disk, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return index.Folder{}, err
		}
		for _, name := range names {
			fn := parseFileName(name)
			there[fn.unique] = place{sub, name, fn}
		}
	}
	letters := b.keywordLetters(disk)
	var messages []index.Message
	for _, e := range l.entries {
		p, ok := there[e.unique]
		if !ok {
			continue
		}
		delete(there, e.unique)
		m, ok, err := b.inspect(disk, p.sub, p.name, e.wire)
		if err != nil {
			return index.Folder{}, err
		}
		if !ok {
			continue
		}
		m.UID, m.ModSeq = e.uid, 1
		m.Flags = p.flags
		m.Keywords = strings.Join(lettersToKeywords(p.flags, letters), " ")
		messages = append(messages, m)
	}
	slices.SortFunc(messages, func(x, y index.Message) int { return int(int64(x.UID) - int64(y.UID)) })
	f, err := a.db.AddFolder(ctx, index.Folder{Name: disk, Validity: l.validity, Next: l.next, ModSeq: 1}, messages)
	if err != nil {
		return index.Folder{}, a.check(err)
	}
	a.mu.Lock()
	a.marks.validity = max(a.marks.validity, l.validity)
	a.mu.Unlock()
	return f, nil
}

// keywordLetters reads which letters in file names stand for which keywords.
func (b *mailbox) keywordLetters(disk string) [26]string {
	data, err := os.ReadFile(filepath.Join(b.dir, disk, "dovecot-keywords"))
	if err != nil {
		return [26]string{}
	}
	return parseKeywords(string(data))
}

func lettersToKeywords(letters string, names [26]string) []string {
	var list []string
	for _, c := range []byte(letters) {
		if c >= 'a' && c <= 'z' && names[c-'a'] != "" {
			list = addKeyword(list, names[c-'a'])
		}
	}
	return list
}
