package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/sluice/program/config"
)

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	write("sluice.yaml", "", 0o600)
	c, err := config.Load(filepath.Join(dir, "sluice.yaml"), Stages())
	if err != nil {
		t.Fatal(err)
	}
	write("ours", " hush \n\n", 0o600)
	write("group", "hush", 0o640)
	write("open", "hush", 0o644)
	write("blank", " \n", 0o600)
	write("large", strings.Repeat("x", largestSecret+1), 0o600)
	write("closed", "hush", 0)
	for _, tt := range []struct {
		name, want string // DIR/ is the folder
	}{
		{"ours", "hush"},
		{"group", "hush"},
		{"open", "hush; DIR/open holds a secret, and everybody on this machine can read it; say chmod o= DIR/open"},
		{filepath.Join(dir, "ours"), "hush"},
		{"none", "there is no file DIR/none"},
		{"*", "there is no file DIR/*"},
		{"ours/more", "read DIR/ours/more: not a directory"},
		{"blank", "DIR/blank is empty"},
		{"large", "DIR/large has more than 65536 octets, so it is no secret"},
		{"closed", "read DIR/closed: permission denied"},
		{".", "read DIR: is a directory"},
	} {
		if tt.name == "closed" && os.Geteuid() == 0 {
			continue // nothing is closed to root
		}
		s := secrets{config: c}
		var got string
		for range 2 { // who asks twice is warned once
			text, err := s.read(tt.name)
			if got = text; err != nil {
				got = err.Error()
			}
		}
		for _, w := range s.warnings {
			got = fmt.Sprintf("%s; %s", got, w)
		}
		if got = strings.ReplaceAll(got, dir, "DIR"); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
