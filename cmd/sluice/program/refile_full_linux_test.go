package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRefileDiskFull lets the disk fill up at different moments of a run: it says so, nothing is lost, and with room again the
// run can be completed and undone.
func TestRefileDiskFull(t *testing.T) {
	dir := smallDisk(t, 16<<20)
	run(t, dir, "echo secret | sluice user add me@example.org --password-stdin")
	for name, text := range map[string]string{"sluice.yaml": refileConfig, "sort.yaml": refileRules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := putMail(t, dir, 300)
	const command = "sluice refile -c sluice.yaml --rules sort.yaml --mailbox me@example.org"
	run(t, dir, command) // the index is there from now on
	filler := filepath.Join(dir, "filler")
	begun, broken := 0, 0
	for _, room := range []int64{8 << 10, 64 << 10, 80 << 10, 96 << 10, 128 << 10, 192 << 10, 256 << 10} {
		fillBut(t, filler, room)
		out, err := shell(dir, os.Environ(), command+" --apply")
		if e := os.Remove(filler); e != nil {
			t.Fatal(e)
		}
		if err != nil && !strings.Contains(out, "no space left on device") && !strings.Contains(out, "disk is full") {
			t.Errorf("with %d octets of room: %s", room, out)
		}
		if n := len(mailFiles(t, dir)); n != len(before) {
			t.Fatalf("with %d octets of room %d mails of %d are left", room, n, len(before))
		}
		list, err2 := exec.Command("sh", "-c", "cd "+dir+" && sluice refile list -c sluice.yaml").Output()
		if err2 != nil {
			t.Fatal(err2)
		}
		line, _, _ := strings.Cut(string(list), "\n")
		id, _, _ := strings.Cut(line, " ")
		if id == "" || strings.Contains(line, "undone") {
			if err == nil {
				t.Errorf("with %d octets of room there is no run, and no error", room)
			}
			if d := differences(before, mailFiles(t, dir)); len(d) > 0 {
				t.Errorf("with %d octets of room there is no run, and something was moved: %q", room, d)
			}
			continue
		}
		begun++
		if err != nil {
			broken++
			if !strings.Contains(out, "to go on: sluice refile --resume "+id) {
				t.Errorf("with %d octets of room nobody is told how to go on: %s", room, out)
			}
			if said := run(t, dir, "sluice refile --resume "+id+" -c sluice.yaml"); !strings.Contains(said, "120 moved or flagged") {
				t.Errorf("completed: %s", said)
			}
		}
		run(t, dir, "sluice undo "+id+" -c sluice.yaml")
		if d := differences(before, mailFiles(t, dir)); len(d) > 0 {
			t.Errorf("with %d octets of room: not as it was: %q", room, d)
		}
	}
	t.Logf("%d runs had begun, %d were broken off", begun, broken)
	if broken == 0 {
		t.Error("no run was broken off")
	}
}

// fillBut leaves this many octets of a file system.
func fillBut(t *testing.T, filler string, room int64) {
	t.Helper()
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(filler), &st); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-room); err != nil {
		t.Fatal(err)
	}
}
