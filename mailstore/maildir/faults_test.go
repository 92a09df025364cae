package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore"
)

// Each operation of a change to the folders fails in turn: what is listed is as before or as after the change, the files
// beside the mail (subscriptions, the last UIDVALIDITY) are whole, nothing is left over, and the change can be made again.
func TestFolderChangesFail(t *testing.T) {
	for _, test := range []struct {
		name  string
		do    func(ctx context.Context, a mailstore.Account) error
		after string
	}{
		{"subscribe", func(ctx context.Context, a mailstore.Account) error { return a.Subscribe(ctx, "old", true) }, "INBOX+ old+"},
		{"unsubscribe", func(ctx context.Context, a mailstore.Account) error { return a.Subscribe(ctx, "INBOX", false) }, "INBOX old"},
		{"create", func(ctx context.Context, a mailstore.Account) error { return a.Create(ctx, "new") }, "INBOX+ new old"},
		{"create for a use", func(ctx context.Context, a mailstore.Account) error { return a.CreateFor(ctx, "new", `\Junk`) }, `INBOX+ new\Junk old`},
		{"rename", func(ctx context.Context, a mailstore.Account) error { return a.Rename(ctx, "old", "new") }, "INBOX+ new"},
		{"delete", func(ctx context.Context, a mailstore.Account) error { return a.Delete(ctx, "old") }, "INBOX+"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := 1; ; n++ {
				s := open(t, t.TempDir())
				a, err := s.Account(t.Context(), anna)
				check(t, err)
				check(t, a.Create(t.Context(), "old"))
				check(t, a.Subscribe(t.Context(), "old", false))
				check(t, a.Subscribe(t.Context(), "INBOX", true))
				deliver(t, s, "old", hello)
				folders := func() string {
					list, err := a.Folders(t.Context())
					check(t, err)
					var names []string
					for _, f := range list {
						name := f.Name + f.Use
						if f.Subscribed {
							name += "+"
						}
						names = append(names, name)
					}
					return strings.Join(names, " ")
				}
				before := folders()
				d := &failing{disk: osDisk{}, n: n}
				s.setDisk(d)
				err = test.do(t.Context(), a)
				s.setDisk(osDisk{})
				if d.did == "" {
					check(t, err)
					equal(t, "folders", folders(), test.after)
					if n < 2 {
						t.Error("nothing failed")
					}
					check(t, a.Close())
					return
				}
				what := fmt.Sprintf("operation %d (%s) failed", n, d.did)
				got := folders()
				if got != before && got != test.after {
					t.Errorf("%s: folders %q, before %q", what, got, before)
				}
				check(t, filepath.WalkDir(s.cfg.Root, func(path string, _ fs.DirEntry, err error) error {
					if strings.HasSuffix(path, ".sluice-new") {
						t.Errorf("%s: %s is left over", what, path)
					}
					return err
				}))
				if err == nil && got != test.after {
					t.Errorf("%s, and nobody was told: %q", what, got)
				}
				if err != nil && !errors.Is(err, errDisk) {
					t.Errorf("%s: %v", what, err)
				}
				if got != test.after {
					check(t, test.do(t.Context(), a))
					equal(t, what+", and another try: folders", folders(), test.after)
				}
				check(t, a.Close())
			}
		})
	}
}
