package peertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Programs whose SCRAM others wrote log in by it: mbsync with Cyrus SASL, mutt with GNU SASL.
func TestSCRAM(t *testing.T) {
	Need(t, "mbsync", "mutt", "script")
	s := StartSluice(t, SluiceConfig{
		YAML:     "domains: [example.org]\nscram: {mechanisms: [SCRAM-SHA-256, SCRAM-SHA-1]}\npipeline: []\n",
		Accounts: []string{"me@example.org"},
	})
	r := reader{s, TempDir(t)}
	if os.Geteuid() == 0 {
		if err := os.Chown(r.home, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	tls := "SSLType" // until 1.5
	var major, minor int
	if _, err := fmt.Sscanf(r.must("mbsync", "--version"), "isync %d.%d", &major, &minor); err == nil && (major > 1 || minor >= 5) {
		tls = "TLSType"
	}
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		if plugins, _ := filepath.Glob("/usr/lib/*/sasl2/libscram.so"); len(plugins) == 0 {
			t.Log("Cyrus SASL has no SCRAM here")
			break
		}
		near := filepath.Join(r.home, mechanism)
		if err := os.Mkdir(near, 0o700); err != nil {
			t.Fatal(err)
		}
		config := r.write("mbsyncrc", "IMAPAccount a\nHost 127.0.0.1\nPort $IMAP\nUser me@example.org\nPass \"$PASSWORD\"\n"+tls+" None\nAuthMechs "+mechanism+
			"\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath "+near+"/\nInbox "+near+"/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nCreate Near\n")
		r.own()
		if out := r.must("mbsync", "-D", "-c", config, "c"); !strings.Contains(out, "AUTHENTICATE "+mechanism) {
			t.Errorf("mbsync did something else than %s:\n%s", mechanism, out)
		}
	}
	for _, mechanism := range []string{"scram-sha-256", "scram-sha-1"} {
		config := r.write("muttrc", `set folder="imap://127.0.0.1:$IMAP/" spoolfile="=INBOX" imap_authenticators="`+mechanism+`"
set imap_user="me@example.org" imap_pass="$PASSWORD" ssl_starttls=no ssl_force_tls=no quit=yes sleep_time=0 header_cache="" tmpdir="$HOME"
`)
		r.own()
		out, code := r.mailer("script", "-q", "-e", "-c", "mutt -d 2 -F "+config+" -e 'push <quit>'", "/dev/null")
		debug, _ := os.ReadFile(filepath.Join(r.home, ".muttdebug0"))
		if code != 0 || !strings.Contains(string(debug), "AUTHENTICATE "+strings.ToUpper(mechanism)) || !strings.Contains(string(debug), "AUTHENTICATE completed") {
			t.Errorf("mutt, %s: exit code %d:\n%s\n%s", mechanism, code, out, debug)
		}
	}
}
