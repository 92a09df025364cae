package program

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// write replaces a file of the site at once.
func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// reload has the running server read its configuration again.
func (s *site) reload(t *testing.T) {
	t.Helper()
	p := &program{ctx: t.Context()}
	r, err := p.order(filepath.Join(s.dir, "sluice-data"), "reload")
	if err != nil || !r.OK || r.Plan == "" {
		t.Fatalf("reload: %+v, %v\n%s", r, err, s.log)
	}
}

// delivered counts the files of the inbox.
func (s *site) delivered(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/me/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

const reloadConfig = `
listen: {smtp: ["127.0.0.1:0"], lmtp: ["127.0.0.1:0"], imap: ["127.0.0.1:0"]}
data: sluice-data
limits: {recipients: %d}
pipeline:
  - rules: {rules: [{name: odd, when: subject == "%d", score: 1}]}
`

// post sends mails over one connection after another, n a connection, until stop is closed. It returns how many were
// taken; anything that is not taken is an error.
func post(address, hello, kind string, n int, stop <-chan struct{}) (taken int, err error) {
	for {
		c, err := textproto.Dial("tcp", address)
		if err != nil {
			return taken, err
		}
		if _, text, err := c.ReadResponse(220); err != nil {
			return taken, fmt.Errorf("greeted with %q: %w", text, err)
		}
		if err := exchange(c, 250, hello+" client.example"); err != nil {
			return taken, err
		}
		for range n {
			select {
			case <-stop:
				return taken, errors.Join(exchange(c, 221, "QUIT"), c.Close())
			default:
			}
			mail := fmt.Sprintf("Subject: %s %d\r\nMessage-ID: <%s.%d@client.example>\r\n\r\ntext\r\n.", kind, taken, kind, taken)
			for _, x := range []struct {
				code int
				line string
			}{{250, "MAIL FROM:<a@client.example>"}, {250, "RCPT TO:<me@example.org>"}, {354, "DATA"}, {250, mail}} {
				if err := exchange(c, x.code, x.line); err != nil {
					return taken, err
				}
			}
			taken++
		}
		if err := errors.Join(exchange(c, 221, "QUIT"), c.Close()); err != nil {
			return taken, err
		}
	}
}

func exchange(c *textproto.Conn, code int, line string) error {
	if err := c.PrintfLine("%s", line); err != nil {
		return fmt.Errorf("%.20s: %w", line, err)
	}
	if _, text, err := c.ReadResponse(code); err != nil {
		return fmt.Errorf("%.20s is answered %q: %w", line, text, err)
	}
	return nil
}

// During a hundred reloads every mail is taken and filed, whether on new connections or on old ones, and a message that
// had begun before them all ends on the plan that it began with.
func TestReloadDropsNothing(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": fmt.Sprintf(reloadConfig, 100, 0)}, "-c", "sluice.yaml")
	slow, reader := s.dialFor(t, "smtp", 5*time.Minute), s.dialFor(t, "imap", 5*time.Minute)
	begin(t, slow)
	if _, err := reader.ReadLine(); err != nil {
		t.Fatal(err)
	}
	if err := reader.PrintfLine("a LOGIN me@example.org secret"); err != nil {
		t.Fatal(err)
	}
	if line, err := reader.ReadLine(); err != nil || !strings.HasPrefix(line, "a OK") {
		t.Fatal(line, err)
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var all atomic.Int64
	for i, x := range []struct {
		door, hello string
		each        int // mails a connection
	}{{"smtp", "EHLO", 1}, {"smtp", "EHLO", 5}, {"lmtp", "LHLO", 1 << 30}} {
		clients.Go(func() { // until stop
			n, err := post(s.door[x.door], x.hello, fmt.Sprintf("%s%d", x.door, i), x.each, stop)
			if err != nil {
				t.Errorf("%s after %d mails: %v", x.door, n, err)
			}
			if n == 0 {
				t.Errorf("%s: no mail was sent", x.door)
			}
			all.Add(int64(n))
		})
	}
	reloads := 40
	if testing.Short() {
		reloads = 10
	}
	for i := range reloads {
		s.write(t, "sluice.yaml", fmt.Sprintf(reloadConfig, 100+i%2, i))
		switch i % 10 {
		case 3:
			if out := s.run(t, "", "reload", "-c", "sluice.yaml"); !strings.HasPrefix(out, "reloaded: plan ") {
				t.Error(out)
			}
		case 7:
			said := strings.Count(s.log.String(), "configuration reloaded")
			if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			// The log is long by then: counting is cheap where matching all of it is not.
			look, most := time.NewTicker(10*time.Millisecond), time.After(2*time.Minute)
			for strings.Count(s.log.String(), "configuration reloaded") <= said {
				select {
				case <-look.C:
				case <-s.exited:
					t.Fatal("the server has ended")
				case <-most:
					t.Fatal("SIGHUP does not reload")
				}
			}
			look.Stop()
		default:
			s.reload(t)
		}
	}
	close(stop)
	clients.Wait()
	say(t, slow, 250, "second half\r\n.")
	if err := reader.PrintfLine("b STATUS INBOX (MESSAGES)"); err != nil {
		t.Fatal(err)
	}
	want := int(all.Load()) + 1
	if line, err := reader.ReadLine(); err != nil || line != fmt.Sprintf("* STATUS INBOX (MESSAGES %d)", want) {
		t.Errorf("the reader is told %q, %v; want %d messages", line, err, want)
	}
	t.Logf("%d mails", want)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.exited; err != nil {
		t.Errorf("ended with %v", err)
	}
	if got := s.delivered(t); got != want {
		t.Errorf("%d mails were filed, %d accepted", got, want)
	}
	for _, line := range strings.Split(s.log.String(), "\n") {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			t.Error(line)
		}
	}
	plan := func(id string) string {
		var records []struct {
			Plan string `json:"plan"`
		}
		out := s.run(t, "", "explain", id, "--json")
		if err := json.Unmarshal([]byte(out), &records); err != nil {
			m := regexp.MustCompile(`"plan": "(\w+)"`).FindStringSubmatch(out)
			if m == nil {
				t.Fatalf("no plan in %s", out)
			}
			return m[1]
		}
		return records[0].Plan
	}
	if first, slow := plan("smtp0.0@client.example"), plan("slow@b.example"); slow == "" || first == "" {
		t.Errorf("plans %q and %q", first, slow)
	} else if last := plan(fmt.Sprintf("lmtp2.%d@client.example", lastOf(t, s, "lmtp2"))); last == slow {
		t.Error("the last message of a connection from before the reloads is decided by the first plan")
	}
}

// lastOf returns the number of the last mail of this kind.
func lastOf(t *testing.T, s *site, kind string) (last int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/me/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`(?m)^Subject: ` + kind + ` (\d+)$`).FindSubmatch(text); m != nil {
			var n int
			if _, err := fmt.Sscan(string(m[1]), &n); err == nil {
				last = max(last, n)
			}
		}
	}
	return last
}

// What is not in the configuration file but named by it, and limits, are reloaded too.
func TestReloadChanges(t *testing.T) {
	const text = `
listen: {smtp: [{address: "127.0.0.1:0", proxy: true}], lmtp: [%s]}
trusted: [127.0.0.0/8, %s]
limits: {message_size: %d}
log: {level: %s}
pipeline: []
`
	s := startSite(t, map[string]string{
		"sluice.yaml": fmt.Sprintf(text, `"127.0.0.1:0"`, "10.0.0.0/8", 1<<20, "info"),
	}, "-c", "sluice.yaml")
	mail := func(client string) (string, error) {
		c := s.dial(t, "smtp")
		if err := c.PrintfLine("PROXY TCP4 %s 192.0.2.9 4660 25", client); err != nil {
			t.Fatal(err)
		}
		return converse(c, "a@b.example", "me@example.org", bytes.Repeat([]byte("x: y\r\n"), 500))
	}
	old := s.dial(t, "lmtp")
	say(t, old, 220, "")
	if text := say(t, old, 250, "LHLO mta.example"); !strings.Contains(text, "SIZE 1048576") {
		t.Errorf("before: %s", text)
	}
	if last, err := mail("192.0.2.1"); err != nil {
		t.Error(last, err)
	}
	s.write(t, "sluice.yaml", fmt.Sprintf(text, `{address: "127.0.0.1:0", hostname: lmtp.example.org, banner: hi}`, "192.0.2.0/24", 2000, "debug"))
	s.reload(t)
	if last, err := mail("192.0.2.1"); err == nil || !strings.HasPrefix(last, "552 ") {
		t.Errorf("a mail that is too large now: %s, %v", last, err)
	}
	c := s.dial(t, "lmtp")
	if text := say(t, c, 220, ""); text != "lmtp.example.org hi" {
		t.Errorf("greeted with %q", text)
	}
	if text := say(t, c, 250, "LHLO mta.example"); !strings.Contains(text, "SIZE 2000") {
		t.Errorf("after: %s", text)
	}
	// A connection keeps to the limits that it was told of.
	if text := say(t, old, 250, "LHLO mta.example"); !strings.Contains(text, "SIZE 1048576") {
		t.Errorf("the old connection: %s", text)
	}
}

// Greetings and trace fields name the host of the socket.
func TestSocketsHaveNames(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": `
hostname: mx.example.org
listen:
  smtp: [{address: "127.0.0.1:0", hostname: in.example.org, banner: ESMTP at your service}]
  lmtp: [{address: "127.0.0.1:0", banner: LMTP}]
  imap: [{address: "127.0.0.1:0", hostname: imap.example.org}]
  pop3: [{address: "127.0.0.1:0", hostname: pop.example.org, banner: hello there}]
pipeline: []
`}, "-c", "sluice.yaml")
	for door, want := range map[string]string{
		"smtp": `^220 in\.example\.org ESMTP at your service$`,
		"lmtp": `^220 mx\.example\.org LMTP$`,
		"imap": `^\* OK \[CAPABILITY .*\] imap\.example\.org ready$`,
		"pop3": `^\+OK pop\.example\.org hello there$`,
	} {
		if line, err := s.dial(t, door).ReadLine(); err != nil || !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("%s: %q, %v", door, line, err)
		}
	}
	if last, err := converse(s.dial(t, "smtp"), "a@b.example", "me@example.org", []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(last, err)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "sluice-data/mail/example.org/me/new/*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if text, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(text), " by in.example.org with ESMTP ") {
		t.Errorf("%s, %v", text, err)
	}
}

// A client behind a load balancer is who it is, in the record too; nobody else may say such a thing.
func TestProxyDoor(t *testing.T) {
	const text = `
listen: {smtp: [{address: "127.0.0.1:0", proxy: true}]}
trusted: [%s]
pipeline: []
`
	s := startSite(t, map[string]string{"sluice.yaml": fmt.Sprintf(text, "127.0.0.1")}, "-c", "sluice.yaml")
	for i, header := range []string{
		"PROXY TCP4 192.0.2.7 192.0.2.9 4660 25\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x07\xc0\x00\x02\x09\x12\x34\x00\x19\x04\x00\x00",
	} {
		c := s.dial(t, "smtp")
		if _, err := c.W.WriteString(header); err != nil {
			t.Fatal(err)
		}
		if err := c.W.Flush(); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("proxied%d@b.example", i+1)
		if last, err := converse(c, "a@b.example", "me@example.org", []byte("Message-ID: <"+id+">\r\n\r\nx\r\n")); err != nil {
			t.Fatal(last, err)
		}
		if explained := s.explain(t, "", id); !strings.Contains(explained, "192.0.2.7") || strings.Contains(explained, "127.0.0.1") {
			t.Errorf("explained as\n%s", explained)
		}
	}
	// Whoever connects is not trusted any more, and so may not say who somebody else is.
	s.write(t, "sluice.yaml", fmt.Sprintf(text, "10.0.0.0/8"))
	s.reload(t)
	c := s.dial(t, "smtp")
	if err := c.PrintfLine("PROXY TCP4 192.0.2.7 192.0.2.9 4660 25"); err != nil {
		t.Fatal(err)
	}
	if line, err := c.ReadLine(); err == nil {
		t.Errorf("somebody who is not trusted is told %q", line)
	}
	if _, ok := s.log.wait(regexp.MustCompile(`proxied connection refused.*not in a trusted network`), s.exited); !ok {
		t.Errorf("the log says nothing:\n%s", s.log)
	}
}

// Sockets that systemd has opened are served, and are still there after the end.
func TestSystemdSockets(t *testing.T) {
	socket := func(network, address string) (net.Listener, *os.File) {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close(); _ = f.Close() })
		return l, f
	}
	path := filepath.Join(t.TempDir(), "lmtp.sock")
	one, first := socket("tcp", "127.0.0.1:0")
	_, second := socket("unix", path)
	two, third := socket("tcp", "127.0.0.1:0")
	_, spare := socket("tcp", "127.0.0.1:0")
	text := `
listen: {smtp: [{address: "systemd:smtp", banner: %s}], lmtp: ["systemd:lmtp"]}
pipeline: []
`
	s := startSiteWith(t, map[string]string{"sluice.yaml": fmt.Sprintf(text, "ESMTP")}, []*os.File{first, second, third, spare},
		"sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=4 LISTEN_FDNAMES=smtp:lmtp:smtp:spare exec sluice serve -c sluice.yaml")
	if want := one.Addr().String() + "," + two.Addr().String(); s.door["smtp"] != want || s.door["lmtp"] != "unix:"+path {
		t.Errorf("doors %v, want smtp at %s", s.door, want)
	}
	if !strings.Contains(s.log.String(), "a socket that no listener names") || !strings.Contains(s.log.String(), "name=spare") {
		t.Errorf("the log does not name the socket that is left\n%s", s.log)
	}
	for _, banner := range []string{"ESMTP", "reloaded"} {
		s.write(t, "sluice.yaml", fmt.Sprintf(text, banner))
		s.reload(t)
		for _, at := range []net.Addr{one.Addr(), two.Addr()} {
			s.door["smtp"] = at.String()
			c := s.dial(t, "smtp")
			if line, err := c.ReadLine(); err != nil || !strings.HasSuffix(line, " "+banner) {
				t.Errorf("greeted with %q, %v", line, err)
			}
			_ = c.Close()
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Errorf("lmtp says %q, %v", line, err)
	}
	_ = c.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.exited; err != nil {
		t.Errorf("ended with %v\n%s", err, s.log)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of systemd is gone: %v", err)
	}
}

// A client gets the certificate for the name it asks for; new files count after a reload.
func TestCertificatesByName(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("SLUICE_REQUIRE_PEERS") == "1" {
			t.Fatal("openssl is not here, and is required")
		}
		t.Skip("openssl is not here")
	}
	s := startSite(t, map[string]string{"sluice.yaml": `
listen: {smtp: ["127.0.0.1:0"], imaps: ["127.0.0.1:0"]}
pipeline: []
`}, "-c", "sluice.yaml")
	certify := func(host string) {
		t.Helper()
		if err := selfSigned(filepath.Join(s.dir, host+".pem"), filepath.Join(s.dir, host+".key"), host, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"mx.example.org", "mail.example.net", "*.example.com"} {
		certify(host)
	}
	s.write(t, "sluice.yaml", `
listen: {smtp: ["127.0.0.1:0"], imaps: ["127.0.0.1:0"]}
tls:
  certificate: mx.example.org.pem
  key: mx.example.org.key
  certificates:
    - {certificate: mail.example.net.pem, key: mail.example.net.key}
    - {certificate: "*.example.com.pem", key: "*.example.com.key"}
pipeline: []
`)
	before, err := net.Dial("tcp", s.door["smtp"]) // while there is a self-signed certificate
	if err != nil {
		t.Fatal(err)
	}
	old := textproto.NewConn(before)
	t.Cleanup(func() { _ = old.Close() })
	say(t, old, 220, "")
	s.reload(t)
	shown := func(name string, args ...string) *x509.Certificate {
		t.Helper()
		all := []string{"s_client", "-showcerts"}
		if name == "" {
			all = append(all, "-noservername")
		} else {
			all = append(all, "-servername", name)
		}
		out, err := exec.Command(openssl, append(all, args...)...).Output()
		block, _ := pem.Decode(out[max(bytes.Index(out, []byte("-----BEGIN")), 0):])
		if block == nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	startTLS, implicit := []string{"-starttls", "smtp", "-connect", s.door["smtp"]}, []string{"-connect", s.door["imaps"]}
	for _, args := range [][]string{startTLS, implicit} {
		for name, want := range map[string]string{
			"":                 "mx.example.org",
			"mx.example.org":   "mx.example.org",
			"mail.example.net": "mail.example.net",
			"MAIL.example.NET": "mail.example.net",
			"a.example.com":    "*.example.com",
			"other.example":    "mx.example.org",
		} {
			if got := shown(name, args...).DNSNames[0]; got != want {
				t.Errorf("%q is shown the certificate of %s, want %s", name, got, want)
			}
		}
	}
	// STARTTLS on a connection from before the reload.
	say(t, old, 250, "EHLO client.example")
	say(t, old, 220, "STARTTLS")
	late := tls.Client(before, &tls.Config{ServerName: "mail.example.net", InsecureSkipVerify: true})
	if err := late.HandshakeContext(t.Context()); err != nil || late.ConnectionState().PeerCertificates[0].DNSNames[0] != "mail.example.net" {
		t.Errorf("a connection from before the reload: %v", err)
	}
	// Renewed files count after the next reload, not before.
	serial := shown("mail.example.net", implicit...).SerialNumber
	certify("mail.example.net")
	if again := shown("mail.example.net", implicit...).SerialNumber; again.Cmp(serial) != 0 {
		t.Error("files are read without a reload")
	}
	s.reload(t)
	leaf := shown("mail.example.net", implicit...)
	if leaf.SerialNumber.Cmp(serial) == 0 {
		t.Error("the renewed certificate is not shown")
	}
	// Half of a pair breaks nothing.
	if err := os.Remove(filepath.Join(s.dir, "mail.example.net.key")); err != nil {
		t.Fatal(err)
	}
	r, err := (&program{ctx: t.Context()}).order(filepath.Join(s.dir, "sluice-data"), "reload")
	if err != nil || r.OK || !strings.Contains(r.Errors.Error(), "mail.example.net.key") {
		t.Errorf("without a key: %+v, %v", r, err)
	}
	if again := shown("mail.example.net", implicit...); !again.Equal(leaf) {
		t.Error("another certificate is shown")
	}
}
