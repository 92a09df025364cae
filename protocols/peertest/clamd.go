package peertest

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EICAR is the text that virus scanners find for a test, in two pieces so that they do not find this file.
const EICAR = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-` + `STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

// EICARName is what the database of [StartClamd] calls it: clamd adds that it is nobody's official one.
const EICARName = "Sluice.Eicar.UNOFFICIAL"

// A Clamd is a running clamd whose database knows nothing but EICAR.
type Clamd struct {
	Socket  string // its unix socket
	Address string // its TCP address

	t       testing.TB
	dir     string
	process *process
}

// StartClamd starts a clamd for the test, with more lines for its configuration.
func StartClamd(t testing.TB, config ...string) *Clamd {
	t.Helper()
	Need(t, "clamd")
	dir := TempDir(t)
	c := &Clamd{t: t, dir: dir, Socket: filepath.Join(dir, "clamd.sock"), Address: Address(t)}
	host, port, _ := strings.Cut(c.Address, ":")
	for name, text := range map[string]string{
		// A signature of its own: in any file, anywhere in it.
		"db/sluice.ndb": "Sluice.Eicar:0:*:" + hex.EncodeToString([]byte(EICAR)) + "\n",
		"clamd.conf": fmt.Sprintf("Foreground yes\nDatabaseDirectory %s/db\nTemporaryDirectory %[1]s\nLocalSocket %s\nTCPSocket %s\nTCPAddr %s\n%s\n",
			dir, c.Socket, port, host, strings.Join(config, "\n")),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		c.Kill()
		if t.Failed() {
			t.Logf("the log of clamd:\n%s", tail(c.log(), 30))
		}
	})
	c.Start()
	return c
}

// Start starts it, again after Kill, and waits until it answers.
func (c *Clamd) Start() {
	c.t.Helper()
	path, err := lookPath("clamd")
	if err != nil {
		c.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close() // clamd has its own copy
	cmd := exec.Command(path, "--config-file="+filepath.Join(c.dir, "clamd.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	if c.process, err = start(cmd); err != nil {
		c.t.Fatal(err)
	}
	for _, address := range []string{c.Address, c.Socket} {
		if err := eventually(func() error { return answers(address) }, c.process.done); err != nil {
			c.t.Fatalf("start clamd: %v\n%s", err, c.log())
		}
	}
}

func (c *Clamd) log() string {
	b, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends it at once, in the middle of whatever it does.
func (c *Clamd) Kill() {
	c.process.kill(syscall.SIGKILL)
	select {
	case <-c.process.done:
	case <-time.After(Patience):
		c.t.Error("clamd: still there after SIGKILL")
	}
	_ = os.Remove(c.Socket)
}

// Stop has it hang: it takes connections and says nothing.
func (c *Clamd) Stop() { c.process.kill(syscall.SIGSTOP) }

// Continue ends Stop.
func (c *Clamd) Continue() { c.process.kill(syscall.SIGCONT) }
