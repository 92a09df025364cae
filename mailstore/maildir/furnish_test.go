package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore"
)

// folders lists what an account has: "Junk" exists, "Junk+" is subscribed, too.
func folders(t *testing.T, s *Store, name string) string {
	t.Helper()
	a, err := s.Account(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	list, err := a.Folders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range list {
		x := f.Name
		if f.Subscribed {
			x += "+"
		}
		if f.Use != "" {
			x += f.Use
		}
		all = append(all, x)
	}
	return strings.Join(all, " ")
}

func TestFirstFolders(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(Config{
			Root: filepath.Join(dir, "mail"), Users: filepath.Join(dir, "users"), Hostname: "h",
			Exists:  func(context.Context, string) (bool, error) { return true, nil },
			Furnish: []string{"Drafts", "Junk", "Lists/go"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open()
	// Mail alone furnishes nothing, and a folder that it has made is left as it is.
	_, err := s.Deliver(t.Context(), []mailstore.Item{{Account: "me@x", Folder: "Junk", Content: strings.NewReader("Subject: x\n\ny\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mail/x/me/.Drafts")); err == nil {
		t.Error("a delivery has made folders")
	}
	const want = `INBOX Drafts+\Drafts Junk+\Junk Lists Lists/go+`
	if got := folders(t, s, "me@x"); got != want {
		t.Errorf("after the first login: %s", got)
	}

	// What its owner removes stays away, also in the next process.
	a, err := s.Account(t.Context(), "me@x")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(a.Delete(t.Context(), "Drafts"), a.Subscribe(t.Context(), "Drafts", false), a.Close())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := folders(t, s, "me@x"); strings.Contains(got, "Drafts") {
			t.Errorf("it came back: %s", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
	}
	if got := folders(t, s, "you@x"); got != want {
		t.Errorf("somebody else: %s", got)
	}
}

// Who cannot get folders gets in, and gets them later.
func TestFirstFoldersThatFail(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{
		Root: filepath.Join(dir, "mail"), Users: filepath.Join(dir, "users"), Hostname: "h",
		Exists:  func(context.Context, string) (bool, error) { return true, nil },
		Furnish: []string{"Drafts", "Sent"},
		Limits:  Limits{Folders: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := folders(t, s, "me@x"); got != `INBOX Drafts+\Drafts` {
		t.Errorf("with room for two: %s", got)
	}
	s.cfg.Folders = 3
	if got := folders(t, s, "me@x"); got != `INBOX Drafts+\Drafts Sent+\Sent` {
		t.Errorf("with room: %s", got)
	}
}
