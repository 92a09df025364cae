package scripts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A Foreign is what another program keeps for a user, in the layout that Pigeonhole and those who write about it use: a
// folder of scripts, "sieve" or "scripts", and beside or in it a link to the active one, ".dovecot.sieve" or another
// link that ends in ".sieve".
type Foreign struct {
	Scripts []ForeignScript // by name
	// Active is the name of the active script, "" if none is.
	Active string
	// Notes are what the owner should know: a link that leads nowhere, a script that has got another name.
	Notes []string
}

// A ForeignScript is one script.
type ForeignScript struct {
	Name string
	Path string
	Text []byte
	Err  error // why it cannot be taken over
}

// original is what Pigeonhole calls the script of a user who has one file and no folder.
const original = "dovecot.orig"

// Take reads what is in a user's home folder, in the folder of scripts itself, or in one file. It changes nothing. What
// is compiled (.svbin) or a log is not looked at, and neither are folders. Nothing is read that a link leads to elsewhere:
// whoever runs this may read more than the user, who could have made the link and would find the file among the scripts.
func Take(from string) (f Foreign, err error) {
	info, err := os.Stat(from)
	switch {
	case err != nil && isLink(from):
		return Foreign{}, fmt.Errorf("%s leads to a file that is not there", from)
	case err != nil:
		return Foreign{}, err
	case !info.IsDir() && filepath.Base(from) == link:
		from = filepath.Dir(from)
	case !info.IsDir():
		f.add(strings.TrimSuffix(filepath.Base(from), extension), from, filepath.Dir(from))
		return f, nil
	}
	folder, beside := from, filepath.Dir(filepath.Clean(from))
	for _, name := range []string{"sieve", "scripts"} {
		if info, err := os.Stat(filepath.Join(from, name)); err == nil && info.IsDir() {
			folder, beside = filepath.Join(from, name), from
			break
		}
	}
	if folder == from && exists(filepath.Join(from, link)) {
		beside = from
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return Foreign{}, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok || name == "" || name[0] == '.' || e.IsDir() || leads(folder, e) {
			continue
		}
		f.add(name, filepath.Join(folder, e.Name()), from)
	}
	if err := f.findActive(folder, beside); err != nil {
		return Foreign{}, err
	}
	slices.SortStableFunc(f.Scripts, func(a, b ForeignScript) int { return strings.Compare(a.Name, b.Name) })
	if len(f.Scripts) == 0 && len(f.Notes) == 0 {
		return f, fmt.Errorf("there are no scripts in %s: name a home folder, the folder of the scripts, or a script", from)
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// leads reports whether an entry of the folder is a link to a script in it: a pointer to the active one, no script.
func leads(folder string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return false
	}
	to, ok := target(filepath.Join(folder, e.Name()))
	return ok && within(folder, to)
}

// target returns where a path leads in the end; ok is false if that is not there.
func target(path string) (to string, ok bool) {
	to, err := followed(path)
	return to, err == nil
}

func within(folder, path string) bool {
	folder, err := followed(folder)
	return err == nil && filepath.Dir(path) == folder
}

func (f *Foreign) add(name, path, top string) *ForeignScript {
	s := ForeignScript{Name: name, Path: path}
	if checked, err := CheckName(name); err != nil {
		s.Err = err
	} else {
		s.Name = checked
		s.Text, s.Err = readForeign(path, top)
	}
	f.Scripts = append(f.Scripts, s)
	return &f.Scripts[len(f.Scripts)-1]
}

// readForeign reads a file that is in the folder top or below, also once its links are followed.
func readForeign(path, top string) ([]byte, error) {
	in, err := openBelow(path, top)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, hardLimit+1))
	if err == nil && len(text) > hardLimit {
		err = fmt.Errorf("it has more than %d octets", hardLimit)
	}
	return text, err
}

func openBelow(path, top string) (*os.File, error) {
	to, err := followed(path)
	if err != nil {
		return nil, err
	}
	if top, err = followed(top); err != nil {
		return nil, err
	}
	name, err := filepath.Rel(top, to)
	if err != nil || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("it leads to %s, outside of %s, and is not read; if that is the script, name it or its folder", to, top)
	}
	root, err := os.OpenRoot(top) // holds also where somebody turns a link meanwhile
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return plainFile(root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0))
}

// followed is where a path leads in the end.
func followed(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// findActive finds what leads to the active script.
func (f *Foreign) findActive(folder, beside string) error {
	pointer := filepath.Join(beside, link)
	if !exists(pointer) {
		pointers, err := pointers(folder, beside)
		if err != nil {
			return err
		}
		if len(pointers) > 1 {
			f.Notes = append(f.Notes, fmt.Sprintf("which script is active cannot be told: %s all lead to one", strings.Join(pointers, ", ")))
		}
		if len(pointers) != 1 {
			return nil
		}
		pointer = pointers[0]
	}
	to, ok := target(pointer)
	if !ok {
		said, err := os.Readlink(pointer)
		if err != nil {
			return fmt.Errorf("find the active script: %w", err)
		}
		f.Notes = append(f.Notes, fmt.Sprintf("%s leads to %s, which cannot be read: no script was active", pointer, said))
		return nil
	}
	if isLink(pointer) && within(folder, to) && strings.HasSuffix(to, extension) {
		f.Active = strings.TrimSuffix(filepath.Base(to), extension)
		if name, err := CheckName(f.Active); err == nil {
			f.Active = name
		}
		return nil
	}
	// A script outside of the folder, or the only one there is.
	name := original
	if isLink(pointer) {
		name = strings.TrimSuffix(filepath.Base(to), extension)
	}
	if slices.ContainsFunc(f.Scripts, func(s ForeignScript) bool { return s.Name == name }) {
		name = original
	}
	s := f.add(name, pointer, beside)
	f.Active = s.Name
	if s.Err == nil {
		f.Notes = append(f.Notes, fmt.Sprintf("the active script %s is called %s here", to, s.Name))
	}
	return nil
}

// pointers are the links that lead to scripts in the folder, other than Pigeonhole's own.
func pointers(folder, beside string) (found []string, err error) {
	for _, dir := range []string{folder, beside} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) && dir != folder {
			continue // another's home
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink == 0 || !strings.HasSuffix(e.Name(), extension) {
				continue
			}
			if to, ok := target(filepath.Join(dir, e.Name())); ok && within(folder, to) {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	return found, nil
}
