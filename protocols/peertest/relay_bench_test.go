package peertest

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/protocols/relay"
)

// drain is a server that takes all mail and keeps none.
func drain(l net.Listener, taken *atomic.Int64, enough int64, done chan<- struct{}) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // until we close it
			defer c.Close()
			in, out := bufio.NewReader(c), bufio.NewWriter(c)
			say := func(s string) {
				_, _ = out.WriteString(s + "\r\n")
				if in.Buffered() == 0 {
					_ = out.Flush()
				}
			}
			say("220 drain")
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				switch verb, _, _ := strings.Cut(line, " "); strings.TrimSpace(verb) {
				case "EHLO":
					say("250-drain\r\n250-8BITMIME\r\n250 PIPELINING")
				case "DATA":
					say("354 go")
					_ = out.Flush()
					for line != ".\r\n" {
						if line, err = in.ReadString('\n'); err != nil {
							return
						}
					}
					say("250 2.0.0 taken")
					if taken.Add(1) == enough {
						close(done)
					}
				default:
					say("250 2.0.0 ok")
				}
			}
		}()
	}
}

// BenchmarkDrain sends 10,000 mails that wait in the queue to a server that takes them all. What became of each is on disk
// before its connection takes another.
func BenchmarkDrain(b *testing.B) {
	const mails = 10_000
	text := "From: me@example.com\r\nTo: you@example.org\r\nSubject: hello\r\n\r\n" + strings.Repeat("This is a line of a mail.\r\n", 100)
	for b.Loop() {
		b.StopTimer()
		ctx := context.Background()
		q, err := queue.Open(ctx, queue.Config{Dir: filepath.Join(b.TempDir(), "queue"), Log: slog.New(slog.DiscardHandler), Now: time.Now, Hostname: "we.example"})
		if err != nil {
			b.Fatal(err)
		}
		for range mails / 500 {
			var list []mailstore.Outgoing
			for range 500 {
				list = append(list, mailstore.Outgoing{
					Account: "me@example.com", Why: "submission", Sender: "me@example.com", Content: strings.NewReader(text),
					Recipients: []mailstore.OutgoingRecipient{{Address: "you@example.org"}},
				})
			}
			staged, err := q.Stage(ctx, list)
			if err == nil {
				err = staged.Release(ctx)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		var taken atomic.Int64
		done := make(chan struct{})
		go drain(l, &taken, mails, done) // until l is closed
		r, err := relay.New(relay.Options{
			Config: relay.Config{Smarthost: []string{l.Addr().String()}}, Queue: q, Hostname: "we.example", Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		b.StartTimer()
		go func() { // until stop
			defer close(ended)
			r.Run(running)
		}()
		<-done
		stop()
		<-ended // all is settled
		b.StopTimer()
		if n := q.Stats().Messages; n != 0 {
			b.Errorf("%d mails are left", n)
		}
		_ = l.Close()
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*mails)/b.Elapsed().Seconds(), "mails/s")
}
