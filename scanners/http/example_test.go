package http

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/protocols/peertest"
)

// The service of examples/http, asked by a server: there, away, and there again.
func TestExample(t *testing.T) {
	peertest.Need(t, "python3")
	example, err := filepath.Abs("../../examples/http")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	address := peertest.Address(t)
	s := peertest.StartSluice(t, peertest.SluiceConfig{
		YAML:     strings.NewReplacer("127.0.0.1:8025", address, "#token_file", "token_file").Replace(read("sluice.yaml")),
		Files:    map[string]string{"rules.yaml": read("rules.yaml"), "shop.token": "s3cret\n"},
		Accounts: []string{"me@example.org"},
	})
	service := func(token string) (stop func()) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("python3", filepath.Join(example, "service.py"), address, file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := false
		stop = func() {
			if !ended {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			ended = true
		}
		t.Cleanup(stop)
		peertest.Eventually(t, func() error {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			return c.Close()
		})
		return stop
	}
	n := 0
	ask := func(from string, want ...string) {
		t.Helper()
		n++
		id := fmt.Sprintf("%d@example.com", n)
		reply := peertest.Send(t, s.SMTP, from, "me@example.org", "Message-ID: <"+id+">\nSubject: a prize\n\nhello\n")
		if !strings.HasPrefix(reply, "250 ") {
			t.Fatal(reply)
		}
		said := s.Explain(id)
		for _, w := range want {
			if !strings.Contains(said, w) {
				t.Errorf("explain wants %q:\n%s", w, said)
			}
		}
	}
	stop := service("s3cret")
	ask("ann@example.com", "customer: true", "orders: 12", "delivered to INBOX")
	ask("eve@example.com", "customer: false", "orders: 0", "delivered to Junk")
	ask("", "customer: false", "it says: the null sender buys nothing")
	stop()
	ask("ann@example.com", "ask the service at "+address+": ", "connection refused")
	stop = service("s3cret")
	ask("ann@example.com", "customer: true")
	stop()
	stop = service("another")
	ask("ann@example.com", "it answers 401 Unauthorized: ")
	stop()
	for range 5 {
		ask("ann@example.com")
	}
	ask("ann@example.com", "ask the service at "+address+": not asked until ", "it failed too often: ")
}
