package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/protocols/peertest"
)

const root = "../../.."

// Every command of the README works as it stands there, in that order; only the ports are others.
func TestReadme(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
			t.Fatal("curl is not here, and is required")
		}
		t.Skip("curl is not here")
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "examples"), os.DirFS(filepath.Join(root, "examples"))); err != nil {
		t.Fatal(err)
	}
	// What the output of some of them shows, by how they begin.
	shows := map[string]string{
		"curl -sS -u 'me@localhost":                                   "It works.",
		"sluice user list":                                            "you@localhost",
		"sluice explain hello@example.org":                            "outcome    delivered to INBOX",
		"sluice check -c examples/first/sluice.yaml --to":             "would be   quarantined",
		"sluice check -c examples/first/sluice.yaml --from":           "would be   refused: 550 5.7.1 this did not come from the bank",
		"sluice check -c examples/shadow/sluice.yaml":                 "rules/prize_by_surprise       (shadow: recorded only)",
		"sluice shadow report":                                        "rules/prize_by_surprise (rule)",
		"sluice check -c examples/phishing/sluice.yaml":               "http://198.51.100.7/confirm (host 198.51.100.7",
		"sluice check -c examples/overrides/sluice.yaml --effective":  "for anna@example.org   0 and not 7",
		"sluice check -c examples/overrides/sluice.yaml examples":     "score 3 reaches junk: 3 (for example.org, ",
		"sluice -c examples/standalone/sluice.yaml reference --rules": "dnsbl.zen.listed",
		"sluice reference dnsbl":                                      "#lists: {zen: {zone: zen.spamhaus.org}}",
		"sluice user show":                                            "quota    1GiB",
		"sluice user sieve list":                                      "active",
		"sluice explain invoice@":                                     "line 3 of work.sieve filed it in Archive",
		"sluice user folders":                                         "INBOX",
		"sluice user metadata list":                                   "/private/comment  what is to be paid",
		"sluice user import-sieve":                                    "sorted: active",
		"sluice alias check":                                          "me@localhost",
		"sluice explain sent@localhost":                               "logged in as you@localhost",
		"sluice check -c examples/submission/sluice.yaml --outgoing":  "would be   quarantined",
		"sluice check -c examples/leaving/sluice.yaml":                "examples/leaving/sluice.yaml is right",
		"sluice user show you@localhost":                              "sends as you@localhost",
		"sluice dkim keygen":                                          "Put this into the DNS of example.org:",
		"sluice dkim show":                                            "signs",
		"sluice queue list --all":                                     "deleted at",
		"sluice queue list":                                           "<friend@example.net>  waits, ",
		"sluice queue show":                                           "held: they asked us to wait",
		"sluice quarantine list":                                      "Claim your prize!!!",
		"sluice quarantine show":                                      "You only have to click.",
		"sluice quarantine release":                                   "delivered to me@localhost",
		"sluice backtest --rules examples/rules/people.yaml":          "examples/rules/people.yaml against the configured rules",
		"sluice explain $ID":                                          "released from quarantine",
		"sluice refile show":                                          `INBOX -> Known +$Label1  "hello"  (rules/known)`,
		"sluice sieve check":                                          "examples/sieve/mine.sieve is right",
		"sluice sieve test":                                           "would be kept in the inbox",
		"sluice undo":                                                 "1 put back; the folder Known is removed",
	}
	var server *running
	stop := func() {
		if server != nil {
			_ = server.cmd.Process.Signal(os.Interrupt)
			<-server.exited
		}
	}
	defer func() { stop() }()
	others := strings.NewReplacer("go run ./cmd/sluice", "sluice")
	env, password := os.Environ(), ""
	ran := 0
	for _, command := range shellLines(read(t, root, "README.md")) {
		ran++
		command = strings.ReplaceAll(others.Replace(command), "PASSWORD", password)
		if args, ok := strings.CutPrefix(command, "sluice serve"); ok {
			stop()
			out := filepath.Join(dir, fmt.Sprintf("out%d", ran))
			server, others = serveReadme(t, dir, out, strings.Fields(args))
			if shown := regexp.MustCompile(`(?m)^  password  (\S+)$`).FindStringSubmatch(read(t, dir, filepath.Base(out))); shown != nil {
				password = shown[1]
			}
			continue
		}
		out, err := shell(dir, env, command)
		for end := time.Now().Add(peertest.Patience); err != nil && strings.Contains(command, "explain") && time.Now().Before(end); {
			out, err = shell(dir, env, command) // records are written soon, not at once
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		if name, _, ok := strings.Cut(command, "=$("); ok {
			out, err = shell(dir, env, command+"; echo $"+name)
			if err != nil {
				t.Error(err)
			}
			env = append(env, name+"="+strings.TrimSpace(out))
		}
		for begins, want := range shows {
			if strings.HasPrefix(command, begins) {
				delete(shows, begins)
				if !strings.Contains(out, want) {
					t.Errorf("%s: %q is not in\n%s", command, want, out)
				}
			}
		}
	}
	if len(shows) > 0 {
		t.Errorf("the README no longer has %v", shows)
	}
}

// The README names every kind of step, with what becomes of mail without its answer, and every example.
func TestReadmeIsComplete(t *testing.T) {
	text := read(t, root, "README.md")
	for _, k := range Stages() {
		row := regexp.MustCompile("(?m)^\\| `" + k.Name + "` \\| .* \\| " + k.OnError.String() + " \\| .*\\|$")
		if !row.MatchString(text) {
			t.Errorf("the table of steps has no row of %s, or another on_error than %s", k.Name, k.OnError)
		}
	}
	examples, err := os.ReadDir(filepath.Join(root, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		if e.IsDir() && !strings.Contains(text, "(examples/"+e.Name()+")") {
			t.Errorf("there is no link to examples/%s", e.Name())
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^):#]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(root, link[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
}

// shellLines returns the commands of a text's sh blocks.
func shellLines(text string) (lines []string) {
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	return lines
}

func shell(dir string, env []string, command string) (string, error) {
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serveReadme starts the default doors on free ports and returns what to write instead of the README's commands and
// ports.
func serveReadme(t *testing.T, dir, outFile string, args []string) (*running, *strings.Replacer) {
	t.Helper()
	ports := map[string]string{"smtp": "2525", "lmtp": "2424", "milter": "8891", "submission": "1587", "submissions": "1465", "imap": "1143", "imaps": "1993", "pop3": "1110", "pop3s": "1995", "managesieve": "4190"}
	args = append([]string{"serve"}, args...)
	for door := range ports {
		args = append(args, "--listen", door+"=127.0.0.1:0")
	}
	out, err := os.Create(outFile)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r, err := start(dir, os.Environ(), out, "sluice", args...)
	if err != nil {
		t.Fatal(err)
	}
	line, ok := r.log.wait(readyLine, r.exited)
	if !ok {
		t.Fatalf("not ready:\n%s", r.log)
	}
	pairs := []string{"go run ./cmd/sluice", "sluice"}
	for _, d := range openDoor.FindAllStringSubmatch(line, -1) {
		pairs = append(pairs, "127.0.0.1:"+ports[d[1]], d[2])
	}
	return r, strings.NewReplacer(pairs...)
}
