package maildir

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"sluice/mailstore"
)

const childVar = "SLUICE_TEST_MAILDIR_CHILD"

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	if data := os.Getenv(childVar); data != "" {
		deliverForever(data)
	}
	os.Exit(m.Run())
}

// deliverForever delivers and lists until it is killed, and says what it has promised: "filed FILE", "seen VALIDITY/UID
// FILE".
func deliverForever(data string) {
	fail := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s, err := Open(Config{Root: data + "/mail", Users: data + "/users", Exists: exists})
	if err != nil {
		fail(err)
	}
	ctx := context.Background()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	for i := range 4 {
		go func() { // ends with the process
			for {
				var flags []string
				if i == 0 {
					flags = []string{`\Seen`, "$Label1"}
				}
				placed, err := s.Deliver(ctx, []mailstore.Item{{Account: anna, Flags: flags, ID: "kill", Content: strings.NewReader(hello)}})
				if err != nil {
					fail(err)
				}
				say("filed %s", placed[0].File)
			}
		}()
	}
	a, err := s.Account(ctx, anna)
	if err != nil {
		fail(err)
	}
	f, err := a.Open(ctx, mailstore.Inbox)
	if err != nil {
		fail(err)
	}
	for n := 0; ; n++ {
		l, err := f.Messages(ctx)
		if err != nil {
			fail(err)
		}
		for _, m := range l.Messages {
			if m.Recent || n == 0 {
				say("seen %d/%d %s", l.UIDValidity, m.UID, m.File)
			}
		}
		if last := len(l.Messages) - 1; last >= 0 {
			if _, err := f.SetFlags(ctx, []uint32{l.Messages[last].UID}, mailstore.FlagsAdd, []string{"x"}); err != nil {
				fail(err)
			}
		}
	}
}

// TestKill kills a process that delivers and lists, several times: everything it has promised is there afterwards, and
// every UID names what it named.
func TestKill(t *testing.T) {
	data := t.TempDir()
	filed, seen := map[string]bool{}, map[string]string{}
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"="+data)
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		news := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			verb, rest, _ := strings.Cut(lines.Text(), " ")
			switch verb {
			case "filed":
				filed[rest] = true
				news++
			case "seen":
				key, file, _ := strings.Cut(rest, " ")
				if was, ok := seen[key]; ok && was != file {
					t.Errorf("round %d: %s was %s and is %s", round, key, was, file)
				}
				seen[key] = file
			default:
				t.Errorf("round %d: %s", round, lines.Text())
			}
			if news == 20+7*round {
				check(t, cmd.Process.Kill())
				news++
			}
		}
		_ = cmd.Wait() // it was killed
	}
	s := open(t, data)
	f := openFolder(t, s, "INBOX")
	there := map[string]bool{}
	l := list(t, f)
	for _, m := range l.Messages {
		there[m.File] = true
		key := fmt.Sprintf("%d/%d", l.UIDValidity, m.UID)
		if was, ok := seen[key]; ok && was != m.File {
			t.Errorf("%s was %s and is %s", key, was, m.File)
		}
		delete(seen, key)
	}
	for file := range filed {
		if !there[file] {
			t.Errorf("%s is lost", file)
		}
	}
	for key, file := range seen {
		t.Errorf("UID %s of %s is not there any more", key, file)
	}
	if len(filed) < 100 {
		t.Errorf("only %d were filed", len(filed))
	}
}
