package program

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/protocols/imap"
	"sluice/rules/sieve"
)

// What a program of the site's may do, and how it is ended.
func TestSievePrograms(t *testing.T) {
	sh := func(text string, use ...string) config.SieveProgram {
		return config.SieveProgram{Command: []string{"/bin/sh", "-c", text, "sh"}, Use: use, Timeout: 10 * time.Second, Output: 150, Dir: t.TempDir()}
	}
	hangs := sh("sleep 60 & sleep 60", "execute")
	hangs.Timeout = 50 * time.Millisecond
	x := &scripting{hostname: "mx.example.org", slots: make(chan struct{}, 1), config: config.Sieve{Programs: map[string]config.SieveProgram{
		"env":   sh(`cat; echo "$1 $2 $SENDER $RECIPIENT $ORIG_RECIPIENT $USER $HOST $SECRET"; echo ${SENDER-unset}`, "filter"),
		"fails": sh("echo out; echo why >&2; exit 7", "pipe"),
		"large": sh("head -c 1000 /dev/zero", "filter"),
		"deaf":  sh("exit 0", "pipe"),
		"hangs": hangs,
	}}}
	t.Setenv("SECRET", "ours")
	run := func(ctx context.Context, use, name, input string) (string, error) {
		out, err := x.Run(ctx, sieve.Program{
			Use: use, Name: name, Arguments: []string{"a b", "$(id)"}, Input: strings.NewReader(input), Account: "me@localhost",
			Envelope: sieve.Envelope{From: "you@example.org", To: "me+x@localhost", OriginalTo: "all@localhost"},
		})
		return string(out), err
	}
	if out, err := run(t.Context(), "filter", "env", "mail\n"); err != nil || out != "mail\na b $(id) you@example.org me+x@localhost all@localhost me@localhost mx.example.org \nyou@example.org\n" {
		t.Errorf("%q %v", out, err)
	}
	if out, err := x.Run(t.Context(), sieve.Program{Use: "filter", Name: "env"}); err != nil || !strings.HasSuffix(string(out), "\nunset\n") {
		t.Errorf("the null sender: %q %v", out, err)
	}
	if _, err := run(t.Context(), "pipe", "deaf", strings.Repeat("x", 1<<20)); err != nil {
		t.Errorf("a program need not read: %v", err)
	}
	for _, tt := range []struct{ use, name, want string }{
		{"pipe", "fails", "exit status 7: why"},
		{"filter", "large", "the answer is longer than 150 octets"},
		{"execute", "hangs", "it took longer than 50ms"},
		{"execute", "env", "there is no such program for execute"},
		{"pipe", "none", "there is no such program for pipe"},
	} {
		if _, err := run(t.Context(), tt.use, tt.name, ""); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	x.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, "pipe", "deaf", ""); err == nil || !strings.Contains(err.Error(), "1 programs of scripts are running") {
		t.Errorf("one at a time: %v", err)
	}
}

func TestScriptLists(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	read := func(text string) (scriptList, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readScriptList(file)
	}
	l, err := read("# family\nMum@example.net # hers\n\n  dad@example.net\r\nmum@EXAMPLE.net\n")
	x := &scripting{lists: map[string]scriptList{"family": l}}
	members, ok := x.Members("family")
	if err != nil || !ok || strings.Join(members, " ") != "Mum@example.net dad@example.net" {
		t.Errorf("%q %v", members, err)
	}
	if !x.Has("family", "MUM@example.net") || x.Has("family", "# family") || x.Has("none", "mum@example.net") || x.Known("none") || !x.Known("family") {
		t.Error("who is on the list?")
	}
	if _, err := read(strings.Repeat("x", listedLine+1)); err == nil || !strings.Contains(err.Error(), "more than 1000 octets") {
		t.Error(err)
	}
	var many strings.Builder
	for i := range mostListed + 1 {
		many.WriteString(strings.Repeat("a", i%7) + string(rune('a'+i%26)) + time.Duration(i).String() + "\n")
	}
	if _, err := read(many.String()); err == nil || !strings.Contains(err.Error(), "more than 100000 values") {
		t.Error(err)
	}
}

func TestScriptEventFits(t *testing.T) {
	for _, tt := range []struct {
		folder, from, causes string
		cause                imap.Cause
		in, was              string
		want                 bool
	}{
		{"Junk", "*", "append copy", imap.CauseCopy, "Junk", "INBOX", true},
		{"Junk", "*", "append copy", imap.CauseAppend, "Junk", "", true},
		{"Junk", "*", "append copy", imap.CauseFlag, "Junk", "", false},
		{"Junk", "INBOX", "copy", imap.CauseCopy, "Junk", "Trash", false},
		{"inbox", "Junk", "copy", imap.CauseCopy, "INBOX", "Junk", true},
		{"INBOX", "Junk", "append", imap.CauseAppend, "inbox", "", true},
		{"Lists/*", "*", "copy", imap.CauseCopy, "Lists/go", "INBOX", true},
		{"Lists/*", "*", "copy", imap.CauseCopy, "Lists", "INBOX", false},
		{"*/x*y/z", "*", "copy", imap.CauseCopy, "a/x1/2y/z", "INBOX", true},
		{"a*a", "*", "copy", imap.CauseCopy, "a", "INBOX", false},
		{"*", "*", "flag", imap.CauseFlag, "anything", "", true},
		{"Junk", "*", "copy", imap.CauseCopy, "junk", "INBOX", false},
	} {
		e := scriptEvent{SieveEvent: config.SieveEvent{Folder: tt.folder, From: tt.from, Causes: strings.Fields(tt.causes)}}
		if got := e.fits(tt.cause, tt.in, tt.was); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
