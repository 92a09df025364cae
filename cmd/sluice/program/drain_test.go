package program

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/protocols/relay"
)

// A drain is a server that takes all mail and remembers what it has answered with 250, by Message-ID.
type drain struct {
	net.Listener
	mu    sync.Mutex
	given map[string]int // 250 was written
	seen  map[string]int // the end of the data was read
	over  map[string]int // how often those were read that must not come any more
	some  *sync.Cond
}

func openDrain(t testing.TB) *drain {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &drain{Listener: l, given: map[string]int{}, seen: map[string]int{}, over: map[string]int{}}
	d.some = sync.NewCond(&d.mu)
	var clients sync.WaitGroup
	clients.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			clients.Go(func() { // ends with the client
				defer c.Close()
				d.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		clients.Wait()
	})
	return d
}

func (d *drain) serve(c net.Conn) {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	say := func(s string) bool {
		_, _ = w.WriteString(s + "\r\n")
		if r.Buffered() > 0 && !strings.HasPrefix(s, "354") { // it has sent more already
			return true
		}
		return w.Flush() == nil
	}
	for ok := say("220 drain"); ok; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch verb {
		case "EHLO":
			ok = say("250-drain\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
		case "DATA":
			if !say("354 go on") {
				return
			}
			id, err := readDrained(r)
			if err != nil {
				return
			}
			d.note(d.seen, id)
			if ok = say("250 2.0.0 taken"); ok {
				d.note(d.given, id)
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			ok = say("250 2.0.0 ok")
		}
	}
}

func (d *drain) note(in map[string]int, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in[id]++
	d.some.Broadcast()
}

// readDrained reads a mail to its end and returns its Message-ID.
func readDrained(r *bufio.Reader) (id string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == ".\r\n" {
			return id, nil
		}
		if rest, ok := strings.CutPrefix(line, "Message-ID: "); ok && id == "" {
			id = strings.TrimSpace(rest)
		}
	}
}

// wait waits until so many mails have been given a 250.
func (d *drain) wait(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.given) < n {
		d.some.Wait()
	}
}

// fillQueue queues mails, each with a Message-ID of its own.
func fillQueue(t testing.TB, q *queue.Queue, n int, domains int) {
	t.Helper()
	body := strings.Repeat("This is a line of a mail of the usual size, which is two kilobytes.\r\n", 28)
	for first := 0; first < n; first += 100 {
		var list []mailstore.Outgoing
		for i := first; i < min(n, first+100); i++ {
			list = append(list, mailstore.Outgoing{
				ID: fmt.Sprintf("<%d@example.org>", i), Account: "me@example.org", Why: "submission", Sender: "me@example.org",
				Recipients: []mailstore.OutgoingRecipient{{Address: fmt.Sprintf("you@d%d.example", i%domains)}},
				Content:    strings.NewReader(fmt.Sprintf("From: me@example.org\r\nMessage-ID: <%d@example.org>\r\n\r\n%s", i, body)),
			})
		}
		s, err := q.Stage(t.Context(), list)
		if err == nil {
			err = s.Release(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkDrain measures how fast mail leaves: from a durable queue, by SMTP to a server on this machine that keeps
// nothing, each result durable.
func BenchmarkDrain(b *testing.B) {
	for _, domains := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("domains=%d", domains), func(b *testing.B) { benchmarkDrain(b, domains) })
	}
}

func benchmarkDrain(b *testing.B, domains int) {
	const mails = 10_000
	var took time.Duration
	for b.Loop() {
		b.StopTimer()
		log := slog.New(slog.DiscardHandler)
		d := openDrain(b)
		q, err := queue.Open(b.Context(), queue.Config{Dir: filepath.Join(b.TempDir(), "queue"), Log: log, PerAccount: mails})
		if err != nil {
			b.Fatal(err)
		}
		fillQueue(b, q, mails, domains)
		r, err := relay.New(relay.Options{
			Config: relay.Config{Smarthost: []string{d.Addr().String()}}, Queue: q, Hostname: "mx.example.org", Log: log,
			IsLocal: func(string) bool { return false },
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		var ran sync.WaitGroup
		b.StartTimer()
		began := time.Now()
		ran.Go(func() { r.Run(ctx) })
		d.wait(mails)
		stop()
		ran.Wait() // with the last results on disk
		took += time.Since(began)
		b.StopTimer()
		if s := q.Stats(); s.Messages != 0 || s.Relayed != mails {
			b.Fatalf("left in the queue: %+v", s)
		}
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
		_ = d.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(mails*b.N)/took.Seconds(), "mails/s")
}
