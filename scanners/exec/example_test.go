package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/protocols/peertest"
)

// The programs of examples/exec, asked by a server.
func TestExample(t *testing.T) {
	peertest.Need(t, "python3")
	example, err := filepath.Abs("../../examples/exec")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(read(t, filepath.Join(example, "sluice.yaml")), "/usr/local/lib/sluice", example)
	s := peertest.StartSluice(t, peertest.SluiceConfig{
		YAML:     text,
		Files:    map[string]string{"rules.yaml": read(t, filepath.Join(example, "rules.yaml"))},
		Accounts: []string{"me@example.org"},
	})
	n := 0
	send := func(from, mail string) string {
		t.Helper()
		n++
		id := fmt.Sprintf("%d@example.com", n)
		if reply := peertest.Send(t, s.SMTP, from, "me@example.org", "Message-ID: <"+id+">\n"+mail); !strings.HasPrefix(reply, "250 ") {
			t.Fatal(reply)
		}
		return s.Explain(id)
	}
	mail := filepath.Join(s.Dir, "mail.eml")
	if err := os.WriteFile(mail, []byte("Subject: a prize\n\nhello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := s.Run("check", "--to", "me@example.org", mail); !strings.Contains(said, "nothing is run where a configuration is checked") {
		t.Errorf("check says:\n%s", said)
	}
	for _, tt := range []struct {
		from, mail, folder string
		want               []string
	}{
		{"a@example.com", "Subject: hello\nReceived: a\nReceived: b\n\nhello\n", "", []string{"score: 0", "spam: false", "received: 2"}},
		{"a@example.com", "Subject: WINNER\nContent-Type: text/html\n\n<p>the prize is free</p>\n", "Junk", []string{"score: 6", "rules/advertisement", "received: 0"}},
		{"", "Subject: hello\nList-Unsubscribe: <mailto:a@example.com>\n\nhello\n", "Lists", []string{"bulk", "bounce"}},
		{"a@example.com", "Subject: a picture\nContent-Type: image/png\n\nPNG\n", "", []string{"no text", "it says: there is no text"}},
	} {
		before := len(s.Files("me@example.org", tt.folder))
		said := send(tt.from, tt.mail)
		for _, want := range tt.want {
			if !strings.Contains(said, want) {
				t.Errorf("explain wants %q:\n%s", want, said)
			}
		}
		s.Mails("me@example.org", tt.folder, before+1)
	}
}

// A program that fails is skipped or postpones, as the configuration says, and the record names it and its cause.
func TestThroughServe(t *testing.T) {
	s := peertest.StartSluice(t, peertest.SluiceConfig{
		YAML: `pipeline:
  - exec: {name: fails, command: [/bin/sh, -c, "echo 'no model' >&2; exit 3"], facts: {score: number}}
  - exec: {name: hangs, command: [/bin/sh, -c, "sleep 1000"], facts: {score: number}, send: none, timeout: 100ms}
  - exec: {name: early, command: [/bin/sh, -c, "grep -q '\"from\":\"bad@example.com\"' && echo '{\"fact\":{\"bad\":true}}' || echo '{\"fact\":{\"bad\":false}}'"], facts: {bad: bool}, send: none}
  - exec: {name: must, command: [/bin/sh, -c, "grep -q away && exit 1; echo '{\"fact\":{\"ok\":true}}'"], facts: {ok: bool}, on_error: postpone, reads: [early]}
  - rules:
      rules:
        - {name: bad, when: early.bad, reject: 5.7.1 not from you}
`,
		Accounts: []string{"me@example.org"},
	})
	for _, tt := range []struct {
		from, subject, code string
		want                []string
	}{
		{"a@example.com", "hello", "250 ", []string{"run /bin/sh: exit status 3: no model", "no answer within 100ms", "ok: true", "bad: false"}},
		{"bad@example.com", "hello", "550 5.7.1 not from you", []string{"bad: true"}},
		{"a@example.com", "away", "451 4.7.1 ", []string{"must", "run /bin/sh: exit status 1"}},
	} {
		id := tt.from + "." + tt.subject
		reply := peertest.Send(t, s.SMTP, tt.from, "me@example.org", "Message-ID: <"+id+">\nSubject: "+tt.subject+"\n\nhello\n")
		if !strings.Contains(reply, tt.code) {
			t.Errorf("%s, want %s", reply, tt.code)
		}
		if tt.code[0] == '5' {
			continue // refused at RCPT: it has no Message-ID
		}
		said := s.Explain(id)
		for _, want := range tt.want {
			if !strings.Contains(said, want) {
				t.Errorf("explain wants %q:\n%s", want, said)
			}
		}
	}
}
