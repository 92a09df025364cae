package program

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkDelivery is a mail by LMTP from its first command to its last reply, with all that the program does for it: what
// the script of its recipient adds is the difference between the two. Allocations and processor time are of the whole
// process, the client's few among them.
func BenchmarkDelivery(b *testing.B) {
	b.Run("no script", func(b *testing.B) { benchmarkDelivery(b, "") })
	b.Run("fifty rules", func(b *testing.B) { benchmarkDelivery(b, fiftyRules()) })
}

// fiftyRules are rules about the header, of which none holds.
func fiftyRules() string {
	var b strings.Builder
	b.WriteString(`require ["fileinto", "mailbox", "regex", "variables", "imap4flags"];` + "\n")
	for i := range 50 {
		test := []string{
			`header :contains "subject" "nomatch%d"`, `address :is :domain "from" "nomatch%d.example"`,
			`header :matches "list-id" "*<nomatch%d.*>"`, `header :regex "subject" "^(re|fw): nomatch%d[0-9]+$"`,
			`allof(size :over %dM, exists "x-nomatch")`,
		}[i%5]
		fmt.Fprintf(&b, "if "+test+" { fileinto :create \"F%d\"; stop; }\n", i+20, i)
	}
	return b.String() + "keep;\n"
}

func benchmarkDelivery(b *testing.B, script string) {
	const account = "me@example.org"
	data := filepath.Join(b.TempDir(), "data")
	command := func(stdin string, args ...string) {
		b.Helper()
		var said bytes.Buffer
		p := &program{ctx: b.Context(), stdin: strings.NewReader(stdin), stdout: &said, stderr: &said, kinds: Stages(), now: time.Now}
		if code := p.run(append(args, "--data", data)); code != 0 {
			b.Fatalf("%v: %d, %s", args, code, &said)
		}
	}
	command("secret", "user", "add", account, "--password-stdin")
	if script != "" {
		command(script, "user", "sieve", "put", account, "main", "-")
		command("", "user", "sieve", "activate", account, "main")
	}
	put := time.Now()

	ctx, stop := context.WithCancel(b.Context())
	log, ended := newWatched(), make(chan error, 1)
	go func() { // until ctx ends
		p := &program{ctx: ctx, stdin: strings.NewReader(""), stdout: io.Discard, stderr: log, kinds: Stages(), now: time.Now}
		if code := p.run([]string{"serve", "--data", data, "--listen", "lmtp=127.0.0.1:0"}); code != 0 {
			b.Errorf("serve: %d, %s", code, log)
		}
		close(ended)
	}()
	defer func() { stop(); <-ended }()
	line, ok := log.wait(readyLine, ended)
	if !ok {
		b.Fatalf("not ready: %s", log)
	}
	conn, err := net.Dial("tcp", openDoor.FindStringSubmatch(line)[2])
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	c := lmtpClient{b: b, conn: conn, in: bufio.NewReader(conn)}
	c.expect("220")
	c.say("LHLO bench.example\r\n", "250")
	mail, number := deliveredMail()
	deliver := func() {
		for i := len(number) - 1; i >= 0; i-- { // each is another mail
			if number[i]++; number[i] <= '9' {
				break
			}
			number[i] = '0'
		}
		c.say("MAIL FROM:<list-bounces@lists.example>\r\n", "250")
		c.say("RCPT TO:<"+account+">\r\n", "250")
		c.say("DATA\r\n", "354")
		if _, err := conn.Write(mail); err != nil {
			b.Fatal(err)
		}
		c.expect("250")
	}
	for time.Since(put) < 4*time.Second { // a script that was put just now is read each time
		deliver()
	}
	before := processorTime(b)
	b.ReportAllocs()
	for b.Loop() {
		deliver()
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// deliveredMail is a mail of six kilobytes, with the end of DATA, and the digits that tell it from others.
func deliveredMail() (mail, number []byte) {
	const digits = "00000000"
	mail = []byte("From: =?utf-8?q?J=C3=BCrgen?= <juergen@lists.example>\r\nTo: discuss@lists.example\r\nSubject: Re: [discuss] next week\r\n" +
		"List-Id: Discussions <discuss.lists.example>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <" + digits + "@lists.example>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" +
		strings.Repeat("This is a line of text as people write them to lists, again and again.\r\n", 80) + ".\r\n")
	at := bytes.Index(mail, []byte(digits))
	return mail, mail[at : at+len(digits)]
}

// An lmtpClient is a client that costs little itself.
type lmtpClient struct {
	b    *testing.B
	conn net.Conn
	in   *bufio.Reader
}

func (c *lmtpClient) say(command, code string) {
	if _, err := io.WriteString(c.conn, command); err != nil {
		c.b.Fatal(err)
	}
	c.expect(code)
}

// expect reads one reply.
func (c *lmtpClient) expect(code string) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil || len(line) < 4 || string(line[:3]) != code {
			c.b.Fatalf("%q, %v; want %s", line, err, code)
		}
		if line[3] == ' ' {
			return
		}
	}
}

// processorTime is what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
