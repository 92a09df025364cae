package maildir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/mailstore"
)

var _ mailstore.Metadata = (*Store)(nil)

// What is known of a folder besides its mail lies in its directory, so that it goes where that goes.
const (
	idFile          = "sluice-mailboxid"
	annotationsFile = "sluice-annotations"
)

// serverAnnotations are those of the server as the account sees it. They lie beside the index.
const serverAnnotations = "annotations"

// FolderID returns the identity of a folder.
func (s *Store) FolderID(ctx context.Context, of, name string) (id string, err error) {
	b, err := s.mailbox(ctx, of)
	if err != nil {
		return "", err
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	disk, err := b.directory(name)
	if err == nil {
		id, err = b.id(disk)
	}
	if err != nil {
		return "", fmt.Errorf("account %s: identity of folder %q: %w", of, name, err)
	}
	return id, nil
}

// directory is locate for one who asks about a folder: the inbox is made where it is not there yet. The caller holds shape.
func (b *mailbox) directory(name string) (disk string, err error) {
	if name == "" {
		return "", mailstore.ErrNoFolder
	}
	if folderName(name) == mailstore.Inbox {
		_, err := b.folder("")
		return "", err
	}
	return b.locate(name)
}

// id returns the identity of a folder, and makes one where it has none. The caller holds shape.
func (b *mailbox) id(disk string) (string, error) {
	if id, err := b.readID(disk); id != "" || err != nil {
		return id, err
	}
	b.making.Lock() // this process alone makes them
	defer b.making.Unlock()
	id, err := b.readID(disk)
	if id != "" || err != nil {
		return id, err
	}
	id = "F" + rand.Text()
	return id, gone(b.store.replaceFile(filepath.Join(b.dir, disk, idFile), id+"\n"))
}

// gone says of an error of a folder that another program has removed meanwhile that there is none.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", mailstore.ErrNoFolder, err)
	}
	return err
}

// readID reads the identity of a folder; "" is none. What is damaged is none.
func (b *mailbox) readID(disk string) (string, error) {
	data, err := readSmall(filepath.Join(b.dir, disk, idFile), 256)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLarge) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	id, whole := strings.CutSuffix(string(data), "\n")
	if !whole || !isObjectID(id) {
		return "", nil
	}
	return id, nil
}

// isObjectID: RFC 8474, 4.
func isObjectID(id string) bool {
	return id != "" && len(id) <= 255 && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '_' || r == '-')
	})
}

var errLarge = errors.New("the file is too large")

// readSmall reads a file of at most so many octets: others may write to the tree.
func readSmall(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s: %w", name, errLarge)
	}
	return data, err
}

// FolderByID returns the name of the folder with an identity. It reads those that have been made: nobody can know others.
func (s *Store) FolderByID(ctx context.Context, of, id string) (string, error) {
	b, err := s.mailbox(ctx, of)
	if err != nil {
		return "", err
	}
	wrap := func(err error) error {
		return fmt.Errorf("account %s: folder with the identity %.260q: %w", of, id, err)
	}
	if !isObjectID(id) {
		return "", wrap(mailstore.ErrNoFolder)
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	folders, err := b.diskFolders()
	if err != nil {
		return "", wrap(err)
	}
	for _, disk := range folders {
		if err := ctx.Err(); err != nil {
			return "", wrap(err)
		}
		switch have, err := b.readID(disk); {
		case err != nil:
			return "", wrap(err)
		case have == id:
			return mustName(disk), nil
		}
	}
	return "", wrap(mailstore.ErrNoFolder)
}

// Describe returns all folders there are.
func (s *Store) Describe(ctx context.Context, of string) (list []mailstore.FolderDescription, err error) {
	err = s.with(ctx, of, func(a *account) error {
		infos, err := a.Folders(ctx)
		if err != nil {
			return err
		}
		for _, info := range infos {
			if info.Missing {
				continue
			}
			d, err := a.describe(ctx, info)
			if errors.Is(err, mailstore.ErrNoFolder) {
				continue // gone meanwhile
			}
			if err != nil {
				return err
			}
			list = append(list, d)
		}
		return nil
	})
	return list, err
}

func (a *account) describe(ctx context.Context, info mailstore.FolderInfo) (d mailstore.FolderDescription, err error) {
	d.FolderInfo = info
	f, err := a.Open(ctx, info.Name)
	if err != nil {
		return d, err
	}
	status, err := f.Status(ctx)
	if err != nil {
		return d, err
	}
	d.Messages, d.Unseen, d.Size = status.Messages, status.Unseen, status.Size
	d.ID, err = a.box.store.FolderID(ctx, a.box.account, info.Name)
	return d, err
}

// Annotations returns those of a folder, or of the server.
func (s *Store) Annotations(ctx context.Context, of, in string) (mailstore.Annotations, error) {
	b, err := s.mailbox(ctx, of)
	if err != nil {
		return nil, err
	}
	b.shape.RLock()
	defer b.shape.RUnlock()
	path, err := b.annotations(in)
	var all mailstore.Annotations
	if err == nil {
		all, err = s.readAnnotations(path)
	}
	if err != nil {
		return nil, fmt.Errorf("account %s: annotations of %s: %w", of, annotated(in), err)
	}
	return all, nil
}

func annotated(folder string) string {
	if folder == "" {
		return "the server"
	}
	return fmt.Sprintf("folder %q", folder)
}

// annotations is the file with those of a folder, or of the server. The caller holds shape.
func (b *mailbox) annotations(of string) (path string, err error) {
	if of == "" {
		return filepath.Join(b.users, serverAnnotations), nil
	}
	disk, err := b.directory(of)
	return filepath.Join(b.dir, disk, annotationsFile), err
}

// An annotationsText is what a file of annotations holds.
type annotationsText struct {
	Version     int                   `json:"version"`
	Annotations mailstore.Annotations `json:"annotations"`
}

// readAnnotations reads a file of annotations; one that is not there has none.
func (s *Store) readAnnotations(path string) (mailstore.Annotations, error) {
	// JSON takes six octets for one at most, and a name and its quotes some more.
	data, err := readSmall(path, 6*s.cfg.AnnotationSize+100*s.cfg.Annotations+1000)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var text annotationsText
	err = json.Unmarshal(data, &text)
	if err == nil && text.Version != 1 {
		err = fmt.Errorf("its version is %d, and not 1", text.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("the file %s is damaged (remove it, and there are none): %w", path, err)
	}
	return text.Annotations, nil
}

// Annotate sets and removes annotations.
func (s *Store) Annotate(ctx context.Context, of, in string, set []mailstore.Annotation, remove []string) error {
	b, err := s.mailbox(ctx, of)
	if err != nil {
		return err
	}
	if err := b.annotate(ctx, in, set, remove); err != nil {
		return fmt.Errorf("account %s: annotate %s: %w", of, annotated(in), err)
	}
	return nil
}

func (b *mailbox) annotate(ctx context.Context, folder string, set []mailstore.Annotation, remove []string) error {
	s := b.store
	b.shape.RLock()
	defer b.shape.RUnlock()
	path, err := b.annotations(folder)
	if err != nil {
		return err
	}
	b.making.Lock()
	defer b.making.Unlock()
	before, err := s.readAnnotations(path)
	if err != nil {
		return err
	}
	after, err := changed(before, set, remove)
	if err != nil {
		return err
	}
	if slices.Equal(before, after) {
		return nil
	}
	if err := b.checkUse(ctx, folder, after); err != nil {
		return err
	}
	// Who is over a limit that was made smaller may still remove some.
	if len(after) > s.cfg.Annotations && len(after) >= len(before) {
		return fmt.Errorf("%w: at most %d are allowed", mailstore.ErrTooManyAnnotations, s.cfg.Annotations)
	}
	if n := octets(after); n > s.cfg.AnnotationSize && n >= octets(before) {
		return fmt.Errorf("%w: %d octets with all names: at most %d are allowed", mailstore.ErrAnnotationSize, n, s.cfg.AnnotationSize)
	}
	if len(after) == 0 {
		if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return s.sync.Sync(filepath.Dir(path))
	}
	if folder == "" {
		if err := s.makeAll(b.users); err != nil {
			return err
		}
	}
	return gone(s.writeAnnotations(path, after))
}

func (s *Store) writeAnnotations(path string, all mailstore.Annotations) error {
	text, err := json.Marshal(annotationsText{Version: 1, Annotations: all})
	if err != nil {
		return err
	}
	return s.replaceFile(path, string(text)+"\n")
}

// changed returns annotations with some set and others removed, by name.
func changed(before mailstore.Annotations, set []mailstore.Annotation, remove []string) (mailstore.Annotations, error) {
	after := slices.Clone(before)
	drop := func(name string) {
		after = slices.DeleteFunc(after, func(x mailstore.Annotation) bool { return x.Name == name })
	}
	for _, name := range remove {
		name, err := mailstore.AnnotationName(name)
		if err != nil {
			return nil, err
		}
		drop(name)
	}
	for _, x := range set {
		name, err := mailstore.AnnotationName(x.Name)
		if err != nil {
			return nil, err
		}
		if err := mailstore.AnnotationValue(x.Value); err != nil {
			return nil, err
		}
		if name == mailstore.UseAnnotation && x.Value != "" {
			if x.Value, err = mailstore.SpecialUse(x.Value); err != nil {
				return nil, err
			}
		}
		drop(name)
		after = append(after, mailstore.Annotation{Name: name, Value: x.Value})
	}
	slices.SortFunc(after, func(x, y mailstore.Annotation) int { return strings.Compare(x.Name, y.Name) })
	return after, nil
}

// octets is what annotations take, with their names.
func octets(all mailstore.Annotations) (n int) {
	for _, x := range all {
		n += len(x.Name) + len(x.Value)
	}
	return n
}
