package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/mailstore/storetest"
)

func TestMetadata(t *testing.T) {
	storetest.Metadata(t, func(t testing.TB) storetest.Described {
		return open(t, t.TempDir(), func(c *Config) {
			c.Annotations, c.AnnotationSize = storetest.Annotations, storetest.AnnotationSize
		})
	})
}

// Each operation of making an identity or changing annotations fails in turn: what is told afterwards is as before or as
// after, nothing is left over, and another try does it.
func TestMetadataFails(t *testing.T) {
	set := []mailstore.Annotation{{Name: "/private/comment", Value: "after"}}
	state := func(ctx context.Context, s *Store, folder string) string {
		all, err := s.Annotations(ctx, anna, folder)
		return fmt.Sprint(all, err)
	}
	for _, test := range []struct {
		name   string
		folder string
		do     func(ctx context.Context, s *Store) error
		after  string
	}{
		{"identity", "Lists", func(ctx context.Context, s *Store) error {
			id, err := s.FolderID(ctx, anna, "Lists")
			if err == nil {
				_, err = s.FolderByID(ctx, anna, id)
			}
			return err
		}, "[{/private/comment before}] <nil>"},
		{"annotate a folder", "Lists", func(ctx context.Context, s *Store) error {
			return s.Annotate(ctx, anna, "Lists", set, nil)
		}, "[{/private/comment after}] <nil>"},
		{"annotate the server", "", func(ctx context.Context, s *Store) error {
			return s.Annotate(ctx, anna, "", set, nil)
		}, "[{/private/comment after}] <nil>"},
		{"remove the last", "Lists", func(ctx context.Context, s *Store) error {
			return s.Annotate(ctx, anna, "Lists", nil, []string{"/private/comment"})
		}, "[] <nil>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				s := open(t, t.TempDir())
				check(t, s.Make(t.Context(), anna, "Lists"))
				for _, folder := range []string{"", "Lists"} {
					check(t, s.Annotate(t.Context(), anna, folder, []mailstore.Annotation{{Name: "/private/comment", Value: "before"}}, nil))
				}
				before := state(t.Context(), s, test.folder)
				d := &failing{disk: osDisk{}, n: n}
				s.setDisk(d)
				err := test.do(t.Context(), s)
				s.setDisk(osDisk{})
				got := state(t.Context(), s, test.folder)
				if d.did == "" {
					check(t, err)
					equal(t, "annotations", got, test.after)
					if n < 2 {
						t.Error("nothing failed")
					}
					return
				}
				what := fmt.Sprintf("operation %d (%s) failed", n, d.did)
				if err != nil && !errors.Is(err, errDisk) {
					t.Errorf("%s: %v", what, err)
				}
				if got != before && got != test.after || err == nil && got != test.after {
					t.Errorf("%s: %s, before %s, error %v", what, got, before, err)
				}
				for _, root := range []string{s.cfg.Root, s.cfg.Users} {
					check(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
						if strings.HasSuffix(path, newSuffix) {
							t.Errorf("%s: %s is left over", what, path)
						}
						return err
					}))
				}
				check(t, test.do(t.Context(), s))
				equal(t, what+", and another try", state(t.Context(), s, test.folder), test.after)
			}
		})
	}
}

// What a crash, other programs or a bad disk have left is no folder's identity, and no reason to lose mail or annotations.
func TestMetadataDamaged(t *testing.T) {
	s := open(t, t.TempDir())
	check(t, s.Make(t.Context(), anna, "Lists"))
	dir := filepath.Join(s.cfg.Root, "example.org", "anna", ".Lists")
	for _, text := range []string{"", "F12", "F 1\n", "\n", strings.Repeat("F", 300) + "\n", "F1\nF2\n"} {
		check(t, os.WriteFile(filepath.Join(dir, idFile), []byte(text), 0o600))
		check(t, os.WriteFile(filepath.Join(dir, idFile+newSuffix), []byte("F"), 0o600))
		id, err := s.FolderID(t.Context(), anna, "Lists")
		check(t, err)
		if len(id) != 27 {
			t.Errorf("%.20q gives the identity %q", text, id)
		}
		name, err := s.FolderByID(t.Context(), anna, id)
		check(t, err)
		equal(t, "folder", name, "Lists")
	}
	for _, text := range []string{"", "{}", `{"version":2}`, `{"version":1`, strings.Repeat("x", 1<<20)} {
		check(t, os.WriteFile(filepath.Join(dir, annotationsFile), []byte(text), 0o600))
		_, err := s.Annotations(t.Context(), anna, "Lists")
		if err == nil || !strings.Contains(err.Error(), annotationsFile) {
			t.Errorf("%.20q: %v", text, err)
		}
		if s.Annotate(t.Context(), anna, "Lists", []mailstore.Annotation{{Name: "/private/x"}}, nil) == nil {
			t.Errorf("%.20q was overwritten", text)
		}
	}
}

// A folder that was made for mail that is taken back goes again, also when somebody was told its identity; what its owner
// has written about it keeps it.
func TestUnmakeDescribed(t *testing.T) {
	s := open(t, t.TempDir())
	check(t, s.Make(t.Context(), anna, "Lists"))
	id, err := s.FolderID(t.Context(), anna, "Lists")
	check(t, err)
	check(t, s.Annotate(t.Context(), anna, "Lists", []mailstore.Annotation{{Name: "/private/comment", Value: "mine"}}, nil))
	kept, err := s.Unmake(t.Context(), anna, "Lists", true)
	check(t, err)
	equal(t, "kept", kept, "it has annotations")
	name, err := s.FolderByID(t.Context(), anna, id)
	check(t, err)
	equal(t, "folder", name, "Lists")
	check(t, s.Annotate(t.Context(), anna, "Lists", nil, []string{"/private/comment"}))
	kept, err = s.Unmake(t.Context(), anna, "Lists", true)
	check(t, err)
	equal(t, "kept", kept, "")
	if _, err := s.FolderByID(t.Context(), anna, id); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("it is still there: %v", err)
	}
}

// BenchmarkFolderByID: a script that files by identity, in an account of 50 folders that all have one.
func BenchmarkFolderByID(b *testing.B) {
	s := open(b, b.TempDir())
	var id string
	for i := range 50 {
		name := fmt.Sprintf("Lists/%02d", i)
		check(b, s.Make(b.Context(), anna, name))
		var err error
		id, err = s.FolderID(b.Context(), anna, name)
		check(b, err)
	}
	for b.Loop() {
		if _, err := s.FolderByID(b.Context(), anna, id); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnnotations: what is asked for each change that a mail client makes, where nothing is written about anything.
func BenchmarkAnnotations(b *testing.B) {
	s := open(b, b.TempDir())
	check(b, s.Make(b.Context(), anna, "Lists"))
	for b.Loop() {
		for _, of := range []string{"Lists", ""} {
			if all, err := s.Annotations(b.Context(), anna, of); err != nil || len(all) > 0 {
				b.Fatal(all, err)
			}
		}
	}
}
