package program

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestExampleSubmission(t *testing.T) {
	need(t, "curl")
	const free = `"127.0.0.1:0"`
	dir := example(t, "submission", "/var/lib/sluice", "data", `":25"`, free, `":587"`, free, `":465"`, free, `":993"`, free,
		"tls: {certificate: /etc/sluice/cert.pem, key: /etc/sluice/key.pem}\n", "", "limit: 20, per: 1m", "limit: 4, per: 1h")
	for _, account := range []string{"me", "you", "scanner"} {
		run(t, dir, "echo secret | sluice -c sluice.yaml user add "+account+"@example.org --password-stdin")
	}
	run(t, dir, "sluice -c sluice.yaml check")
	at := up(t, dir, "sluice", "-c", "sluice.yaml", "serve")
	send := func(login, from, author string) error {
		mail := fmt.Sprintf("From: %s\\r\\nSubject: hello\\r\\n\\r\\ntext\\r\\n", author)
		_, err := shell(dir, os.Environ(), fmt.Sprintf("printf '%s' | curl -sSk -u %s:secret smtps://%s --mail-from %s --mail-rcpt you@example.org -T -",
			mail, login, at["submissions"], from))
		return err
	}
	for _, tt := range []struct {
		login, from, author string
		ok                  bool
	}{
		{"me", "info@example.org", "all@example.org", true},
		{"me", "me@shop.example", "office@example.com", true},
		{"you", "you@example.org", "office@example.com", false},
		{"you", "me@example.org", "you@example.org", false},
		{"you", "info+x@example.org", "you@example.org", true},
		{"scanner", "scanner@example.org", "scanner@example.org", true},
		{"me", "me@example.org", "me@example.org", true},
		{"me", "me@example.org", "me@example.org", true},
		{"me", "me@example.org", "me@example.org", false}, // the fifth in an hour
	} {
		if err := send(tt.login, tt.from, tt.author); (err == nil) != tt.ok {
			t.Errorf("%s as %s: %v", tt.login, tt.from, err)
		}
	}
	for account, want := range map[string]bool{"scanner": true, "me": false} {
		out, err := shell(dir, os.Environ(), fmt.Sprintf("curl -sSk -u %s:secret 'imaps://%s/Sent;MAILINDEX=1'", account, at["imaps"]))
		if got := err == nil && strings.Contains(out, "Subject: hello"); got != want {
			t.Errorf("%s has a copy: %v\n%s", account, got, out)
		}
	}
	if out := run(t, dir, "sluice -c sluice.yaml check --outgoing me@example.org prize.eml"); !strings.Contains(out, "would be   quarantined") {
		t.Errorf("%s", out)
	}
}
