package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/index"
	"sluice/mailstore/storetest"
)

// looked shows what another process sees of Anna's mail.
func looked(t testing.TB, data string, since time.Time) (seen, folders []string) {
	t.Helper()
	s := open(t, data)
	folders, err := s.Look(t.Context(), storetest.Anna, since, func(x Seen) error {
		if _, err := os.Stat(x.Path()); err != nil {
			t.Error(err)
		}
		seen = append(seen, fmt.Sprintf("%s %s %v", x.Folder, x.ID, x.Flags))
		return nil
	})
	check(t, err)
	slices.Sort(seen)
	return seen, folders
}

func TestLook(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	put := func(id, folder string, flags ...string) string {
		t.Helper()
		placed, err := s.Deliver(t.Context(), []mailstore.Item{{
			Account: storetest.Anna, Folder: folder, ID: id, Flags: flags, Content: strings.NewReader("Subject: x\n\nx\n"),
		}})
		check(t, err)
		return placed[0].File
	}
	put("aaa", "", `\Seen`)
	put("bbb", "", "$Junk")
	put("ccc", "Lists/go")
	put("ddd", "", "later")
	seen, folders := looked(t, data, time.Time{})
	equal(t, "before a client came", seen, []string{`INBOX aaa [\Seen]`, "INBOX bbb [$Junk]", "INBOX ddd [later]", "Lists/go ccc []"})
	equal(t, "folders", folders, []string{"INBOX", "Lists/go"})

	// A client sets flags and keywords, takes them off, moves and copies.
	f := openFolder(t, s, "INBOX")
	uid := func(id string) []uint32 {
		for _, m := range list(t, f).Messages {
			if uniqueID(m.File) == id {
				return []uint32{m.UID}
			}
		}
		t.Fatalf("no %s", id)
		return nil
	}
	_, err := f.SetFlags(t.Context(), uid("aaa"), mailstore.FlagsAdd, []string{`\Answered`, "$NotJunk"})
	check(t, err)
	_, err = f.SetFlags(t.Context(), uid("bbb"), mailstore.FlagsRemove, []string{"$Junk"})
	check(t, err)
	check(t, f.account.Create(t.Context(), "Junk"))
	_, err = f.Move(t.Context(), uid("ddd"), "Junk")
	check(t, err)
	_, err = f.Copy(t.Context(), uid("aaa"), "Junk")
	check(t, err)
	seen, folders = looked(t, data, time.Time{})
	equal(t, "after", seen, []string{
		`INBOX aaa [$NotJunk \Answered \Seen]`, "INBOX bbb []", `Junk aaa [$NotJunk \Answered \Seen]`, "Junk ddd [later]", "Lists/go ccc []",
	})
	equal(t, "folders", folders, []string{"INBOX", "Junk", "Lists/go"})

	// Another program works on the tree, with letters of its own for keywords.
	box := filepath.Join(data, "mail", "example.org", "anna")
	check(t, os.WriteFile(filepath.Join(box, "dovecot-keywords"), []byte("0 $Forwarded\n1 $Junk\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(box, "cur", "1000000000.P1.other:2,RSb"), []byte("Subject: x\n\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(box, "cur", ".hidden"), nil, 0o600))
	seen, _ = looked(t, data, time.Time{})
	equal(t, "of another program", seen[0], `INBOX  [$Junk \Answered \Seen]`)
	seen, folders = looked(t, data, time.Unix(1000000001, 0))
	equal(t, "without the old one", len(seen), 5)
	equal(t, "folders", len(folders), 3)
}

func TestLookOfNothing(t *testing.T) {
	s := open(t, t.TempDir())
	visit := func(Seen) error { return errors.New("there is nothing") }
	folders, err := s.Look(t.Context(), storetest.Anna, time.Time{}, visit)
	equal(t, "folders", folders, []string(nil))
	check(t, err)
	_, err = s.Look(t.Context(), "nobody@example.org", time.Time{}, visit)
	equal(t, "no account", errors.Is(err, mailstore.ErrNoAccount), true)
}

func TestLookEnds(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	deliver(t, s, "", "Subject: x\n\nx\n")
	enough := errors.New("enough")
	_, err := s.Look(t.Context(), storetest.Anna, time.Time{}, func(Seen) error { return enough })
	equal(t, "the error of visit", errors.Is(err, enough), true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Look(ctx, storetest.Anna, time.Time{}, func(Seen) error { return nil })
	equal(t, "cancelled", errors.Is(err, context.Canceled), true)

	users := filepath.Join(data, "users", "example.org", "anna")
	check(t, os.MkdirAll(users, 0o700))
	check(t, os.WriteFile(filepath.Join(users, "index.db"), []byte(strings.Repeat("no index ", 1000)), 0o600))
	seen := 0
	folders, err := open(t, data).Look(t.Context(), storetest.Anna, time.Time{}, func(Seen) error { seen++; return nil })
	equal(t, "a damaged index", errors.Is(err, index.ErrCorrupt), true)
	equal(t, "what is seen without the index", fmt.Sprint(seen, folders), "1 [INBOX]")
}
