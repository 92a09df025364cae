package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250\n", "250-a\r\n550 b\r\n", "999 x\r\n", "220-\x00\xff\r\n220 5.1.1 x\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(p), 64), 5)
		if err != nil {
			return
		}
		text := r.String()
		if r.code < 200 || r.code > 599 || len(r.lines) > 5 || strings.Count(text, "\n") != len(r.lines)-1 {
			t.Errorf("%q: %+v", p, r)
		}
		for _, c := range strings.ReplaceAll(text, "\n", "") {
			if c < ' ' || c == 0x7f || c == 0x1b {
				t.Errorf("%q: %q has a control character", p, text)
			}
		}
		if s := r.status(); s != "" && int(s[0]-'0') != r.class() {
			t.Errorf("%q: status %s of %d", p, s, r.code)
		}
	})
}

// Whatever a message is, it ends where it ends, has no CR or LF alone, and is itself again when the dots are taken away.
func FuzzStuffer(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.\r\nb\r\n", "\n.\n", "\r.\r", "a\r\n.", "\r\n.\r\r\n", "a\r"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, text string, cut int) {
		var d stuffer
		d.start()
		cut = max(0, min(cut, len(text)))
		out := d.end(d.add(d.add(nil, []byte(text[:cut])), []byte(text[cut:])))
		s := "\r\n" + string(out)
		if i := strings.Index(s, "\r\n.\r\n"); i != len(s)-5 {
			t.Fatalf("%q ends at %d of %d: %q", text, i, len(s)-5, out)
		}
		if rest := strings.ReplaceAll(s, "\r\n", ""); strings.ContainsAny(rest, "\r\n") {
			t.Fatalf("%q: a CR or LF alone in %q", text, out)
		}
		var want strings.Builder // as the door mends it
		for i := range len(text) {
			switch {
			case text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n':
			case text[i] == '\r':
				want.WriteByte(' ')
			case text[i] == '\n':
				want.WriteString("\r\n")
			default:
				want.WriteByte(text[i])
			}
		}
		whole := want.String()
		if whole != "" && !strings.HasSuffix(whole, "\r\n") {
			whole += "\r\n"
		}
		got := strings.TrimPrefix(strings.ReplaceAll(s[:len(s)-3], "\r\n.", "\r\n"), "\r\n")
		if got != whole {
			t.Fatalf("%q became %q, want %q", text, got, whole)
		}
	})
}

// A broken connection breaks at its n-th write.
type broken struct {
	net.Conn
	mu    sync.Mutex
	after int
}

func (c *broken) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after--; c.after < 0 {
		_ = c.Conn.Close()
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(p)
}

// Wherever the first connection breaks, the mail comes in the end, and is counted as sent when it was.
func TestWriteFails(t *testing.T) {
	for n := range 8 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}}, func(o *Options) {
					dial := o.Dial
					o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						c, err := dial(ctx, network, address)
						if first && err == nil {
							first = false
							return &broken{Conn: c, after: n}, nil
						}
						return c, err
					}
				})
				server := &sink{}
				s.network.servers["192.0.2.1:25"] = server.serve
				s.fill(1, "example.org")
				time.Sleep(time.Hour)
				synctest.Wait()
				history := s.queue.history("example.org 1")
				mails, _ := server.count()
				if mails != 1 || strings.Count(history, "relayed") != 1 || n < 3 && strings.Count(history, "postponed") != 1 {
					t.Errorf("%d mails came; it says %s", mails, history)
				}
			})
		})
	}
}

// A connection that does not come about in time is one that fails.
func TestConnectHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}}, func(o *Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		if got := s.send("you@example.org"); got != `1 postponed 4.4.1 "connect: no answer within 30s"` {
			t.Errorf("became %s", got)
		}
	})
}
