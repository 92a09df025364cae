package program

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A lmtpQueue is an MTA's queue before a server of ours: each mail is offered until it is answered with 250.
type lmtpQueue struct {
	mu       sync.Mutex
	some     *sync.Cond
	answered map[string]bool
	cut      map[string]bool // sent whole, and not answered: each may be filed twice
}

func (q *lmtpQueue) wait(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.answered) < n {
		q.some.Wait()
	}
}

// send offers mails, one after the other, and returns those that are left when the server has gone.
func (q *lmtpQueue) send(address string, mails []string) (left []string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return mails
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // the test fails then
	c := textproto.NewConn(conn)
	ask := func(code int, line string) bool {
		if line != "" && c.PrintfLine("%s", line) != nil {
			return false
		}
		_, _, err := c.ReadResponse(code)
		return err == nil
	}
	if !ask(220, "") || !ask(250, "LHLO mta.example") {
		return mails
	}
	for i, id := range mails {
		if !ask(250, "MAIL FROM:<a@b.example>") || !ask(250, "RCPT TO:<me@example.org>") || !ask(354, "DATA") {
			return mails[i:]
		}
		if c.PrintfLine("From: a@b.example\r\nSubject: x\r\nMessage-ID: %s\r\n\r\nhello\r\n.", id) != nil {
			return mails[i:]
		}
		ok := ask(250, "")
		q.mu.Lock()
		if ok {
			q.answered[id] = true
		} else {
			q.cut[id] = true
		}
		q.some.Broadcast()
		q.mu.Unlock()
		if !ok {
			return mails[i:]
		}
	}
	return nil
}

// filedMail counts the mails in a Maildir folder by Message-ID.
func filedMail(t *testing.T, folder string) map[string]int {
	t.Helper()
	got := map[string]int{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(path)) == "tmp" {
			return err
		}
		text, err := os.ReadFile(path)
		if _, rest, ok := bytes.Cut(text, []byte("\nMessage-ID: ")); ok {
			id, _, _ := bytes.Cut(rest, []byte("\n"))
			got[string(bytes.TrimSpace(id))]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A server that is killed while it files mail and hands it on, again and again, loses neither: what it has answered with 250
// is in its folder, once, and has left. What it has not answered comes again, and is there twice if it was cut off
// between the filing and the answer, and at no other instant; its first attempt has left too then, or has not.
func TestKilledWhileItDelivers(t *testing.T) {
	const clients, each, kills = 3, 12, 4
	d := openDrain(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sluice.yaml": fmt.Sprintf("data: data\nhostname: mx.example.org\nlisten: {lmtp: [\"127.0.0.1:0\"]}\npipeline: [{sieve: {}}]\n"+
			"relay: {smarthost: [%q], per_destination: 2}\n", d.Addr().String()),
		"work.sieve": `require ["fileinto", "copy"]; redirect :copy "out@far.example"; fileinto "Work";`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &site{dir: dir}
	s.run(t, "secret", "-c", "sluice.yaml", "user", "add", "me@example.org", "--password-stdin")
	s.run(t, "", "-c", "sluice.yaml", "user", "sieve", "put", "me@example.org", "work", "work.sieve", "--activate")
	q := &lmtpQueue{answered: map[string]bool{}, cut: map[string]bool{}}
	q.some = sync.NewCond(&q.mu)
	var waiting [clients][]string
	for i := range waiting {
		for n := range each {
			waiting[i] = append(waiting[i], fmt.Sprintf("<%d.%d@b.example>", i, n))
		}
	}
	work := filepath.Join(dir, "data", "mail", "example.org", "me", ".Work")
	for round := range kills + 1 {
		r, err := start(dir, os.Environ(), io.Discard, "sluice", "-c", "sluice.yaml", "serve")
		if err != nil {
			t.Fatal(err)
		}
		line, ok := r.log.wait(readyLine, r.exited)
		if !ok {
			t.Fatalf("not ready:\n%s", r.log)
		}
		address := openDoor.FindStringSubmatch(line)[2]
		before := len(q.answered)
		var sending sync.WaitGroup
		for i := range waiting {
			sending.Go(func() { waiting[i] = q.send(address, waiting[i]) })
		}
		if round < kills {
			q.wait(before + 1 + 2*round)
			_ = r.cmd.Process.Kill()
			<-r.exited
			sending.Wait()
		} else {
			sending.Wait()
			q.wait(clients * each)
			arrived := make(chan struct{})
			go func() { // ends with the test, if something is lost
				d.wait(clients * each)
				close(arrived)
			}()
			select {
			case <-arrived:
			case <-time.After(2 * time.Minute): // what is missing is said below
			}
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			if err := <-r.exited; err != nil {
				t.Errorf("%v\n%s", err, r.log)
			}
		}
		for id, n := range filedMail(t, work) {
			if n > 1 && !q.cut[id] || n > kills {
				t.Errorf("round %d: %s is filed %d times", round, id, n)
			}
		}
	}
	filed, left := filedMail(t, work), d.counts()
	twice := 0
	for _, id := range slices.Sorted(maps.Keys(q.answered)) {
		if filed[id] == 0 || left[id] == 0 {
			t.Errorf("%s was answered with 250, is filed %d times and has left %d times", id, filed[id], left[id])
		}
		if filed[id] > 1 {
			twice++
		}
	}
	if len(filed) != clients*each || strings.Contains(fmt.Sprint(waiting), "@") {
		t.Errorf("of %d mails %d are filed, and waiting are %v", clients*each, len(filed), waiting)
	}
	t.Logf("of %d mails %d were cut off by %d kills; %d are filed twice, and %d have left twice", clients*each, len(q.cut), kills, twice, sum(left)-len(left))
}
