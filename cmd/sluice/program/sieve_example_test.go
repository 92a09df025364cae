package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/rules/sieve"
)

// The site's scripts of the example have their say about mail that a user's own leaves in the inbox.
func TestExampleSieve(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sieve")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples", "sieve"))); err != nil {
		t.Fatal(err)
	}
	o := sieve.Options{Include: func(_ bool, name string) ([]byte, error) {
		return os.ReadFile(filepath.Join(dir, "global", name+".sieve"))
	}}
	if _, problems := sieve.Compile("mine.sieve", []byte(read(t, dir, "mine.sieve")), o); len(problems) > 0 {
		t.Error(problems)
	}
	run(t, dir, "sluice -c sluice.yaml check")
	run(t, dir, "echo secret | sluice -c sluice.yaml user add me@localhost --password-stdin")
	up(t, dir, "sluice", "-c", "sluice.yaml", "serve", "--listen", "smtp=127.0.0.1:0")
	own := filepath.Join(dir, "sluice-data", "users", "localhost", "me")
	if err := os.MkdirAll(filepath.Join(own, "sieve"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "sieve", "mine.sieve"), []byte(read(t, dir, "mine.sieve")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sieve/mine.sieve", filepath.Join(own, ".dovecot.sieve")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ fields, folder string }{
		{"Subject: an invoice\\nList-Id: <go.lists.example>\\n", ".Invoices"},
		{"Subject: hello\\nList-Id: The list <go.lists.example>\\n", ".Lists.go"},
		{"Subject: hello\\nX-Spam: yes\\nList-Id: The list <go.lists.example>\\n", ".Junk"},
		{"Subject: hello\\n", ""},
	} {
		mail := "From: A <a@client.example>\\nTo: me@localhost\\nDate: Sun, 1 Mar 2026 12:00:00 +0000\\nMessage-ID: <1@client.example>\\n" + tt.fields + "\\nhello\\n"
		run(t, dir, fmt.Sprintf("printf '%s' | sluice -c sluice.yaml deliver --from a@client.example me@localhost", mail))
		got := run(t, dir, "ls sluice-data/mail/localhost/me/"+tt.folder+"/new")
		if strings.Count(got, "\n") != 1 {
			t.Errorf("%s: in %q is %q", tt.fields, tt.folder, got)
		}
	}
}
