package program

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sluice/mailstore"
	"sluice/mailstore/maildir"
)

// What is said at the control socket, and by whoever is there, leads to a clear error and to nothing else.
func TestBox(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": refileConfig}, "-c", "sluice.yaml")
	putMail(t, s.dir, 3)
	box := askingBox{controlSocket(filepath.Join(s.dir, "sluice-data"))}
	if spots, err := box.Survey(t.Context(), "me@example.org", "INBOX"); err != nil || len(spots) != 3 {
		t.Errorf("survey: %v, %v", spots, err)
	}
	if _, err := box.Survey(t.Context(), "me@example.org", "none"); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := box.Tree(t.Context(), "none@example.org"); !errors.Is(err, mailstore.ErrNoAccount) {
		t.Errorf("no account: %v", err)
	}
	if err := box.Make(t.Context(), "me@example.org", "a.b"); !errors.Is(err, mailstore.ErrName) {
		t.Errorf("no name for a folder: %v", err)
	}
	if _, err := box.Refile(t.Context(), "me@example.org", []mailstore.Refiling{{
		From: mailstore.Spot{Folder: "INBOX", File: "../../x"}, To: mailstore.Spot{Folder: "INBOX", File: "../../x"},
	}}); !errors.Is(err, mailstore.ErrName) {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
	if _, err := box.ask(t.Context(), boxOrder{Do: "dance"}); err == nil || err.Error() != `there is no order "dance" about mail` {
		t.Errorf("no order: %v", err)
	}
	large := []mailstore.Refiling{{From: mailstore.Spot{File: strings.Repeat("x", orderSize)}}}
	if _, err := box.Refile(t.Context(), "me@example.org", large); err == nil || !strings.Contains(err.Error(), "at most 4194304 are allowed") {
		t.Errorf("a large order: %v", err)
	}
	for order, want := range map[string]string{
		"mail {\n":             "the order is no JSON",
		"mail {}\n":            "is of another version",
		"mail {\"version\":2}": "", // no whole line
	} {
		if got := tell(t, box.socket, order); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q", order, got)
		}
	}

	// Somebody else is at the socket.
	for answer, want := range map[string]string{
		"":                        "the running server ended before it answered",
		`{"version":1,`:           "the running server ended before it answered",
		"rubbish":                 "hear the running server",
		`{"version":9}`:           "the running server is of another version: restart it",
		`{"version":1,"error":7}`: "hear the running server",
	} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // until the listener is closed
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}
		}()
		if _, err := (askingBox{socket}).Tree(t.Context(), "me@example.org"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %q: %v", answer, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := (askingBox{socket}).Tree(t.Context(), "me@example.org"); err == nil || !strings.Contains(err.Error(), "the running server has ended") {
			t.Errorf("nobody there: %v", err)
		}
	}

	// One that is gone while the order is being written: the order is larger than what a socket holds.
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // until the one connection below is closed
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}()
	long := []mailstore.Refiling{{From: mailstore.Spot{File: strings.Repeat("x", 2<<20)}}}
	if _, err := (askingBox{socket}).Refile(t.Context(), "me@example.org", long); err == nil || err.Error() != "the running server ended before it answered" {
		t.Errorf("gone in the middle of an order: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := box.Tree(ctx, "me@example.org"); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// tell writes an order and returns what is answered.
func tell(t *testing.T, socket, order string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, order); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzBoxOrder gives whatever there is to the part of the server that knows of mail: it answers, and never with a file that
// lies elsewhere.
func FuzzBoxOrder(f *testing.F) {
	f.Add(`{"version":1,"do":"survey","account":"me@example.org","folder":"INBOX"}`)
	f.Add(`{"version":1,"do":"refile","account":"a@b","list":[{"from":{"folder":"INBOX","file":"x"},"to":{"folder":"INBOX","file":"x","at":"cur/x:2,S"}}]}`)
	f.Add(`{"version":1,"do":"unmake","account":"../x@b","folder":".."}`)
	f.Add(`{"version":1,"do":"describe","account":"me@example.org"}`)
	f.Add(`{"version":1,"do":"annotate","account":"me@example.org","folder":"INBOX","set":[{"name":"/private/x","value":"y"}],"remove":["/shared/z"]}`)
	f.Add(`{"version":1,"do":"annotations","account":"me@example.org","folder":"../INBOX"}`)
	root := f.TempDir()
	store, err := maildir.Open(maildir.Config{
		Root: filepath.Join(root, "mail"), Users: filepath.Join(root, "users"),
		Exists: func(_ context.Context, name string) (bool, error) { return name == "me@example.org", nil },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	f.Fuzz(func(t *testing.T, text string) {
		a := answerBox(t.Context(), store, text)
		for _, x := range a.Spots {
			if !strings.HasPrefix(x.Path, root) || strings.Contains(x.Path, "..") {
				t.Fatalf("%+v", x)
			}
		}
	})
}
