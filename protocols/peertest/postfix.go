package peertest

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PostfixConfig says what is special about a Postfix. The zero value is one that takes mail from everywhere for
// example.org and has nowhere to deliver it.
type PostfixConfig struct {
	// Main are parameters of main.cf; they replace those that Postfix writes itself. $DIR is the folder of this Postfix,
	// $QUEUE its queue directory.
	Main map[string]string
	// MainText is added at the end of main.cf as it is, after the same replacements.
	MainText string
	// MasterText is added at the end of master.cf as it is, after the same replacements.
	MasterText string
	// Transport is added to the transport map: "alice@example.org lmtp:inet:127.0.0.1:24".
	Transport []string
	// Chroot runs those services in the queue directory that Debian runs there.
	Chroot bool
	// Dir is the folder to use, from TempDir; "" makes one.
	Dir string
}

// A Postfix is a running Postfix.
type Postfix struct {
	Address string // of its SMTP server
	Dir     string
	Queue   string // its queue directory

	t       testing.TB
	process *process
}

// StartPostfix starts a Postfix for the test. It needs root, as Postfix does.
func StartPostfix(t testing.TB, c PostfixConfig) *Postfix {
	t.Helper()
	Need(t, "postfix", "postmap")
	if os.Geteuid() != 0 {
		lack(t, "postfix: needs root")
	}
	dir := c.Dir
	if dir == "" {
		dir = TempDir(t)
	}
	p := &Postfix{t: t, Address: Address(t), Dir: dir, Queue: filepath.Join(dir, "queue")}
	p.write(c)
	t.Cleanup(p.stop)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// Log returns what Postfix has logged so far.
func (p *Postfix) Log() string {
	b, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *Postfix) logPath() string { return filepath.Join(p.Dir, "log") }

// WaitLog waits until the log says text.
func (p *Postfix) WaitLog(text string) {
	p.t.Helper()
	Eventually(p.t, func() error {
		if !strings.Contains(p.Log(), text) {
			return fmt.Errorf("the log of Postfix does not say %q", text)
		}
		return nil
	})
}

// Flush makes Postfix try now what waits in its queue.
func (p *Postfix) Flush() {
	p.t.Helper()
	p.command("postqueue", "-c", p.config(), "-f")
}

// Submit hands Postfix a message as a local program does, through sendmail, and returns what that said and its exit
// code.
func (p *Postfix) Submit(message string, args ...string) (output string, code int) {
	p.t.Helper()
	return run(p.t, message, "sendmail", append([]string{"-C", p.config()}, args...)...)
}

func (p *Postfix) config() string { return filepath.Join(p.Dir, "etc") }

func (p *Postfix) command(program string, args ...string) string {
	p.t.Helper()
	out, code := Run(p.t, program, args...)
	if code != 0 {
		p.t.Fatalf("%s %s: %s", program, strings.Join(args, " "), out)
	}
	return out
}

func (p *Postfix) write(c PostfixConfig) {
	p.t.Helper()
	data := filepath.Join(p.Dir, "data")
	for _, dir := range []string{p.config(), p.Queue, data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		p.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	if err := os.Chown(data, uid, gid); err != nil {
		p.t.Fatal(err)
	}

	main := map[string]string{
		"compatibility_level":                "3.6",
		"queue_directory":                    p.Queue,
		"data_directory":                     data,
		"maillog_file":                       p.logPath(),
		"maillog_file_prefixes":              p.Dir,
		"myhostname":                         "mx.example.org",
		"mydestination":                      "",
		"mynetworks":                         "127.0.0.0/8",
		"inet_interfaces":                    "127.0.0.1",
		"inet_protocols":                     "ipv4",
		"alias_maps":                         "",
		"alias_database":                     "",
		"local_recipient_maps":               "",
		"virtual_mailbox_domains":            "example.org",
		"smtpd_authorized_xclient_hosts":     "127.0.0.0/8",
		"smtpd_peername_lookup":              "no",
		"smtpd_client_connection_rate_limit": "0",
		"smtpd_recipient_restrictions":       "",
		"smtpd_relay_restrictions":           "permit_mynetworks, reject_unauth_destination",
		"smtpd_tls_security_level":           "none",
		"smtp_tls_security_level":            "none",
		"smtp_dns_support_level":             "disabled",
		"biff":                               "no",
		"minimal_backoff_time":               "1s",
		"maximal_backoff_time":               "2s",
		"queue_run_delay":                    "1s",
		"default_transport":                  "discard:nothing is sent to the world from a test",
		"relay_transport":                    "discard:nothing is sent to the world from a test",
		"maximal_queue_lifetime":             "1h",
		"bounce_queue_lifetime":              "1h",
	}
	if len(c.Transport) > 0 {
		main["transport_maps"] = "texthash:" + filepath.Join(p.config(), "transport")
		p.file("transport", strings.Join(c.Transport, "\n")+"\n")
	}
	maps.Copy(main, c.Main)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&text, "%s = %s\n", key, p.expand(main[key]))
	}
	p.file("main.cf", text.String()+p.expand(c.MainText))

	y := "n"
	if c.Chroot {
		y = "y"
	}
	p.file("master.cf", strings.ReplaceAll(fmt.Sprintf(`127.0.0.1:%s inet n - Y - - smtpd
pickup    unix  n       -       Y       60      1       pickup
cleanup   unix  n       -       Y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       Y       1000?   1       tlsmgr
rewrite   unix  -       -       Y       -       -       trivial-rewrite
bounce    unix  -       -       Y       -       0       bounce
defer     unix  -       -       Y       -       0       bounce
trace     unix  -       -       Y       -       0       bounce
verify    unix  -       -       Y       -       1       verify
flush     unix  n       -       Y       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       Y       -       -       smtp
relay     unix  -       -       Y       -       -       smtp
showq     unix  n       -       Y       -       -       showq
error     unix  -       -       Y       -       -       error
retry     unix  -       -       Y       -       -       error
discard   unix  -       -       Y       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       Y       -       -       lmtp
anvil     unix  -       -       Y       -       1       anvil
scache    unix  -       -       Y       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
`, Port(p.Address)), " Y ", " "+y+" ")+p.expand(c.MasterText))
}

func (p *Postfix) expand(s string) string {
	return strings.NewReplacer("$DIR", p.Dir, "$QUEUE", p.Queue).Replace(s)
}

func (p *Postfix) file(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.config(), name), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// start makes the queue and runs Postfix's master in the foreground, where its process id is known. Once it returns, this
// Postfix listens.
func (p *Postfix) start() error {
	p.t.Helper()
	p.command("postfix", "-c", p.config(), "check")                                              // makes the folders of the queue
	daemons := strings.Fields(p.command("postconf", "-c", p.config(), "-h", "daemon_directory")) // after any warnings
	cmd := exec.Command(filepath.Join(daemons[len(daemons)-1], "master"), "-d", "-c", p.config())
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+p.config(), "MAIL_LOGTAG=postfix")
	var err error
	if p.process, err = start(cmd); err != nil {
		return err
	}
	// Who answers may be somebody else, on whose port this one cannot listen: Postfix ends then, and has no log.
	if err := eventually(func() error {
		if err := answers(p.Address); err != nil {
			return err
		}
		if !strings.Contains(p.Log(), "daemon started") {
			return fmt.Errorf("%s answers, and the log does not say that it was started: %s", p.Address, p.Log())
		}
		return nil
	}, p.process.done); err != nil {
		return fmt.Errorf("start postfix: %w", err)
	}
	return nil
}

func (p *Postfix) stop() {
	if p.process != nil {
		if err := p.process.stop(10 * time.Second); err != nil {
			p.t.Errorf("postfix: %v", err)
		}
	}
	p.sweep()
	if p.t.Failed() {
		p.t.Logf("the log of Postfix:\n%s", tail(p.Log(), 150))
	}
}

// sweep ends what Postfix may have left: master puts its children into its own process group, which is ours to end; a
// child that was just being started might have missed it.
func (p *Postfix) sweep() {
	if p.process != nil {
		_ = syscall.Kill(-p.process.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// tail returns the last n lines.
func tail(s string, n int) string {
	var lines []string
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		lines = append(lines, sc.Text())
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
