package relay

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mailstore"
)

// A dialogue is a file in testdata/dialogues:
//
//	# what it shows
//	set tls require       a setting
//	set rcpt a@x, b@x     recipients; default: you@example.org
//	set mail TEXT         the message, quoted as in Go
//	S: what the server sends; "S: hang" is silent from there on, "S: deaf" does not even read, "S: close" hangs up,
//	                      "S: wait TIME" waits, "S: lines N TEXT" repeats it, "S: drip TEXT" sends an octet a minute
//	C: what we must send
//	TLS                   a handshake begins
//	= what became of each recipient, an attempt a line
//
// Each connection after the first begins with a line "---".
type dialogue struct {
	set    map[string]string
	conns  [][]string
	expect string
}

func readDialogue(t *testing.T, file string) dialogue {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := dialogue{set: map[string]string{}, conns: [][]string{nil}}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "set "):
			name, value, _ := strings.Cut(line[4:], " ")
			d.set[name] = value
		case strings.HasPrefix(line, "= "):
			d.expect += line[2:] + "\n"
		case line == "---":
			d.conns = append(d.conns, nil)
		default:
			last := len(d.conns) - 1
			d.conns[last] = append(d.conns[last], line)
		}
	}
	return d
}

func TestDialogues(t *testing.T) {
	ca := newAuthority(t)
	certs := map[string]tls.Certificate{
		"good":    ca.server(t, far(), "mail.example.net"),
		"other":   ca.server(t, far(), "another.example.net"),
		"expired": ca.server(t, time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC), "mail.example.net"),
		"unknown": newAuthority(t).server(t, far(), "mail.example.net"),
	}
	files, err := filepath.Glob("testdata/dialogues/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			d := readDialogue(t, file)
			synctest.Test(t, func(t *testing.T) { d.run(t, ca, certs) })
		})
	}
}

func (d dialogue) run(t *testing.T, ca *authority, certs map[string]tls.Certificate) {
	c := Config{Smarthost: []string{"mail.example.net:25"}, TLS: Level(d.set["tls"])}
	if d.set["lmtp"] != "" {
		c = Config{Routes: map[string]Route{"example.org": {LMTP: "mail.example.net:24"}}}
	}
	if d.set["port"] != "" {
		c.Smarthost = []string{"mail.example.net:" + d.set["port"]}
	}
	if login := d.set["login"]; login != "" {
		c.Login = Login{User: "me", PasswordFile: "secret", Cleartext: login == "cleartext"}
	}
	c.ReplyLines, c.ReplyLine = 20, 200
	if d.set["mailtime"] != "" {
		var err error
		if c.Timeouts.Mail, err = time.ParseDuration(d.set["mailtime"]); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, c, func(o *Options) {
		if d.set["limit"] == "recipients" {
			o.Recipients = 2
		}
	})
	for _, w := range append([]*way{s.relay.ways.all}, s.relay.ways.routes["example.org"]) {
		if w != nil {
			w.roots = ca.pool()
		}
	}
	s.zone.addresses["mail.example.net"] = ips("192.0.2.1")
	s.zone.insecure["A mail.example.net"] = true
	at := 0
	for _, port := range []string{"24", "25", "465"} {
		s.network.servers["192.0.2.1:"+port] = func(c net.Conn) {
			s.network.mu.Lock()
			n := at
			at++
			s.network.mu.Unlock()
			if n >= len(d.conns) {
				t.Errorf("connection %d, which the dialogue does not have", n+1)
				return
			}
			if err := play(c, d.conns[n], certs[d.set["cert"]]); err != nil {
				t.Errorf("connection %d: %v", n+1, err)
			}
		}
	}
	text := "Subject: hello\r\n\r\nIt works.\r\n"
	if m := d.set["mail"]; m != "" {
		if _, err := fmt.Sscanf(m, "%q", &text); err != nil {
			t.Fatal(err)
		}
	}
	if d.set["big"] != "" {
		text += strings.Repeat("This line is one of many that say the same.\r\n", 5000)
	}
	job := mailstore.Job{
		Domain: "example.org", Sender: "me@example.com", UTF8: d.set["utf8"] != "", EightBit: d.set["eightbit"] != "",
		Return: d.set["ret"], EnvelopeID: d.set["envid"],
	}
	if sender, ok := d.set["sender"]; ok {
		job.Sender = strings.Trim(sender, "<>")
	}
	rcpts := "you@example.org"
	if d.set["rcpt"] != "" {
		rcpts = d.set["rcpt"]
	}
	job.Recipients = to(strings.Split(rcpts, ", ")...)
	if n := d.set["notify"]; n != "" {
		job.Recipients[0].Notify = strings.Split(n, ",")
	}
	job.Recipients[0].Original = d.set["orcpt"]
	s.queue.add(job, text)
	time.Sleep(14 * time.Minute) // one attempt
	if got := s.queue.history("m1"); got != d.expect {
		t.Errorf("became\n%swant\n%s", got, d.expect)
	}
	if s.network.mu.Lock(); at != len(d.conns) {
		t.Errorf("%d connections, the dialogue has %d", at, len(d.conns))
	}
	s.network.mu.Unlock()
}

// play plays the server's part on a connection and checks ours.
func play(c net.Conn, script []string, cert tls.Certificate) error {
	r := newLines(c)
	for _, line := range script {
		kind, text, _ := strings.Cut(line, " ")
		switch kind {
		case "TLS":
			secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			if err := secured.Handshake(); err != nil {
				return nil //nolint:nilerr // the client's side says what it thinks of that
			}
			c, r = secured, newLines(secured)
		case "S:":
			switch {
			case text == "hang":
				_, _ = io.Copy(io.Discard, c)
				return nil
			case text == "close":
				return nil
			case text == "deaf":
				time.Sleep(5 * time.Minute)
				return nil
			case strings.HasPrefix(text, "wait "):
				d, err := time.ParseDuration(text[5:])
				if err != nil {
					return err
				}
				time.Sleep(d)
			case strings.HasPrefix(text, "lines "):
				var n int
				var what string
				if _, err := fmt.Sscanf(text, "lines %d %s", &n, &what); err != nil {
					return err
				}
				for range n {
					if _, err := io.WriteString(c, what+"\r\n"); err != nil {
						return nil //nolint:nilerr // it has had enough
					}
				}
			case strings.HasPrefix(text, "drip "):
				for _, x := range []byte(text[5:] + "\r\n") {
					time.Sleep(time.Minute)
					if _, err := c.Write([]byte{x}); err != nil {
						return nil //nolint:nilerr // it has had enough
					}
				}
			case strings.HasPrefix(text, "raw "):
				var raw string
				if _, err := fmt.Sscanf(text[4:], "%q", &raw); err != nil {
					return err
				}
				if _, err := io.WriteString(c, raw); err != nil {
					return nil //nolint:nilerr // it has had enough
				}
			default:
				if _, err := io.WriteString(c, text+"\r\n"); err != nil {
					return fmt.Errorf("S: %s: %w", text, err)
				}
			}
		case "C:":
			if text == "..." { // the message, whatever it is
				if _, err := r.data(); err != nil {
					return fmt.Errorf("C: ...: %w", err)
				}
				continue
			}
			got, err := r.line()
			if err != nil {
				return fmt.Errorf("C: %s: %w", text, err)
			}
			if got != text {
				return fmt.Errorf("C: %s: it said %q", text, got)
			}
		default:
			return fmt.Errorf("%q: neither S:, C: nor TLS", line)
		}
	}
	return nil
}
