package peertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// An Opendkim is a running opendkim that verifies, and asks no DNS: it has its public keys from a file.
type Opendkim struct {
	Address string // "127.0.0.1:23456", of its milter
	Socket  string // where it listens instead, if Unix was asked for
	Dir     string

	t       testing.TB
	process *process
}

// OpendkimConfig says what is special about an opendkim.
type OpendkimConfig struct {
	// Keys are public keys by name: "s1._domainkey.example.com": "v=DKIM1; k=rsa; p=…".
	Keys map[string]string
	// Unix has it listen on a unix socket.
	Unix bool
	// Text is added to its configuration as it is.
	Text string
}

// StartOpendkim starts an opendkim for the test.
func StartOpendkim(t testing.TB, c OpendkimConfig) *Opendkim {
	t.Helper()
	Need(t, "opendkim")
	o := &Opendkim{t: t, Dir: TempDir(t)}
	var listen string
	if c.Unix {
		o.Socket = filepath.Join(o.Dir, "sock")
		listen = "local:" + o.Socket
	} else {
		o.Address = Address(t)
		listen = "inet:" + Port(o.Address) + "@127.0.0.1"
	}
	var keys strings.Builder
	for name, record := range c.Keys {
		keys.WriteString(name + " " + record + "\n")
	}
	text := "Mode v\nSyslog no\nBackground no\nAuthservID mx.example.org\nSocket " + listen + "\nInternalHosts csl:192.0.2.254\n" +
		"On-Default accept\nTestPublicKeys " + filepath.Join(o.Dir, "keys") + "\n" + c.Text
	for name, text := range map[string]string{"opendkim.conf": text, "keys": keys.String()} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		o.Stop()
		if t.Failed() {
			t.Logf("what opendkim said:\n%s", o.Log())
		}
	})
	o.Start()
	return o
}

// Start starts it, again if it was stopped, and waits until it listens.
func (o *Opendkim) Start() {
	o.t.Helper()
	path, err := lookPath("opendkim")
	if err != nil {
		o.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer log.Close() // the program has its own copy
	cmd := exec.Command(path, "-f", "-x", filepath.Join(o.Dir, "opendkim.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	if o.process, err = start(cmd); err != nil {
		o.t.Fatal(err)
	}
	address := o.Address
	if o.Socket != "" {
		address = o.Socket
	}
	if err := eventually(func() error { return answers(address) }, o.process.done); err != nil {
		o.t.Fatalf("start opendkim: %v\n%s", err, o.Log())
	}
}

// Signal sends it a signal: SIGSTOP makes it hang, SIGCONT go on.
func (o *Opendkim) Signal(sig syscall.Signal) { o.process.kill(sig) }

// Stop ends it at once.
func (o *Opendkim) Stop() {
	if o.process != nil {
		o.process.kill(syscall.SIGKILL)
		<-o.process.done
		o.process = nil
	}
}

// Log returns what it has said so far.
func (o *Opendkim) Log() string {
	b, err := os.ReadFile(filepath.Join(o.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
