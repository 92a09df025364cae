package maildir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore"
)

func useOf(t *testing.T, s *Store, folder string) string {
	t.Helper()
	list, err := s.Tree(t.Context(), anna)
	check(t, err)
	for _, f := range list {
		if f.Name == folder {
			return f.Use
		}
	}
	return "no folder"
}

// Each operation of a delivery fails in turn that has to make a folder for a special use: a folder that is there has the
// use, and after another try it is there.
func TestUseOfMailFails(t *testing.T) {
	for n := 1; ; n++ {
		s := open(t, t.TempDir())
		deliver(t, s, "", hello)
		try := func() error {
			_, err := s.Deliver(t.Context(), []mailstore.Item{{Account: anna, Folder: "Spam", Use: `\Junk`, ID: "x", Content: strings.NewReader(hello)}})
			return err
		}
		d := &failing{disk: osDisk{}, n: n}
		s.setDisk(d)
		err := try()
		s.setDisk(osDisk{})
		if d.did == "" {
			check(t, err)
			equal(t, "use", useOf(t, s, "Spam"), `\Junk`)
			if n < 10 {
				t.Errorf("only %d operations", n)
			}
			return
		}
		what := fmt.Sprintf("operation %d (%s) failed", n, d.did)
		if got := useOf(t, s, "Spam"); got != `\Junk` && got != "no folder" || err == nil && got != `\Junk` {
			t.Errorf("%s: use %q, error %v", what, got, err)
		}
		if err != nil && !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", what, err)
		}
		check(t, try())
		equal(t, what+", and another try: use", useOf(t, s, "Spam"), `\Junk`)
	}
}

// What cannot be read of a folder keeps nobody from the list of folders; what another program has written twice, or that
// means nothing here, counts once or not at all.
func TestUsesDamaged(t *testing.T) {
	s := open(t, t.TempDir())
	write := func(folder, text string) {
		t.Helper()
		check(t, s.Make(t.Context(), anna, folder))
		check(t, os.WriteFile(filepath.Join(s.cfg.Root, "example.org", "anna", "."+folder, annotationsFile), []byte(text), 0o600))
	}
	use := func(use string) string {
		return fmt.Sprintf(`{"version":1,"annotations":[{"name":"/private/specialuse","value":%q}]}`, use)
	}
	write("Junk", "{")
	equal(t, "use where the file is damaged", useOf(t, s, "Junk"), `\Junk`)
	write("Spam", use(`\Junk`))
	equal(t, "use", useOf(t, s, "Spam"), `\Junk`)
	write("Twice", use(`\Junk`))
	equal(t, "use of the second", useOf(t, s, "Twice"), "")
	write("Sent", use(`\Foo`))
	equal(t, "use that there is none of", useOf(t, s, "Sent"), `\Sent`)
}

// BenchmarkFolders: the list of folders of an account that has 100, with what is written about each.
func BenchmarkFolders(b *testing.B) {
	s := open(b, b.TempDir())
	for i := range 100 {
		check(b, s.Make(b.Context(), anna, fmt.Sprintf("Lists/%02d", i)))
	}
	for b.Loop() {
		if _, err := s.Tree(b.Context(), anna); err != nil {
			b.Fatal(err)
		}
	}
}
