package listen_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/protocols/listen"
)

// accepting hands over what l accepts, until l is closed.
func accepting(l *listen.Listener) <-chan *listen.Conn {
	accepted := make(chan *listen.Conn)
	go func() { // ends when the test closes the listener
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c.(*listen.Conn)
		}
	}()
	return accepted
}

// proxied returns a connection that begins with a header, as the server sees it; nil if it is closed instead.
func proxied(t *testing.T, l *listen.Listener, accepted <-chan *listen.Conn, header string) *listen.Conn {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := io.WriteString(client, header+"hello"); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { // ends when the test closes the client's end at the latest
		_, _ = client.Read(make([]byte, 1))
		close(closed)
	}()
	select {
	case c := <-accepted:
		t.Cleanup(func() { _ = c.Close() })
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Errorf("behind the header %q, %v", b, err)
		}
		return c
	case <-closed:
		return nil
	}
}

func TestProxy(t *testing.T) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	inside := netip.MustParsePrefix("10.0.0.0/8")
	trusted := func(a netip.Addr) bool { return loopback.Contains(a) || inside.Contains(a) }
	sock := "unix:" + filepath.Join(t.TempDir(), "s")
	tests := []struct {
		name, address, header string
		peer                  string // "" is none
		trusted, loopback     bool
		local, refused        bool
		nobody                bool // is trusted
	}{
		{name: "a stranger", header: "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n", peer: "192.0.2.1"},
		{name: "a trusted client", header: "PROXY TCP4 10.0.0.1 192.0.2.2 4660 25\r\n", peer: "10.0.0.1", trusted: true},
		{name: "this machine", header: "PROXY TCP4 127.0.0.1 127.0.0.1 4660 25\r\n", peer: "127.0.0.1", trusted: true, loopback: true},
		{name: "unknown is not trusted", header: "PROXY UNKNOWN\r\n"},
		{name: "the proxy itself", header: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", peer: "127.0.0.1", trusted: true, loopback: true},
		{name: "through a unix socket", address: sock, header: "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n", peer: "192.0.2.1"},
		{name: "a unix socket's own", address: sock + "2", header: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", trusted: true, loopback: true, local: true},
		{name: "no header", header: "EHLO client.example\r\n", refused: true},
		{name: "nobody trusts the proxy", header: "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n", refused: true, nobody: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := listen.Options{Trusted: trusted}
			if tt.nobody {
				o.Trusted = nil
			}
			l := open(t, listen.Config{Address: tt.address, Proxy: true}, o)
			c := proxied(t, l, accepting(l), tt.header)
			if tt.refused {
				if c != nil {
					t.Fatalf("accepted from %v", c.Peer())
				}
				return
			}
			if c == nil {
				t.Fatal("refused")
			}
			if peer := c.Peer(); peer.IsValid() != (tt.peer != "") || peer.IsValid() && peer.String() != tt.peer {
				t.Errorf("peer %v, want %q", peer, tt.peer)
			}
			if c.Trusted() != tt.trusted || c.Loopback() != tt.loopback || c.Local() != tt.local {
				t.Errorf("trusted %v, loopback %v, local %v", c.Trusted(), c.Loopback(), c.Local())
			}
			if tt.peer != "" && !strings.HasPrefix(c.RemoteAddr().String(), tt.peer+":") {
				t.Errorf("remote address %v", c.RemoteAddr())
			}
		})
	}
}

// A proxy that says nothing holds up nobody and is hung up on.
func TestProxyTimeout(t *testing.T) {
	l := open(t, listen.Config{Proxy: true}, listen.Options{
		Trusted: func(netip.Addr) bool { return true }, Limits: listen.Limits{ProxyTimeout: time.Second},
	})
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if c := proxied(t, l, accepting(l), "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n"); c == nil {
		t.Fatal("the second is refused")
	}
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the silent one reads %v, want its end", err)
	}
}

// As many proxies as there may be connections may wait to say whose they are.
func TestProxyConnections(t *testing.T) {
	l := open(t, listen.Config{Proxy: true}, listen.Options{
		Trusted: func(netip.Addr) bool { return true }, Limits: listen.Limits{Connections: 2},
	})
	go func() { _, _ = l.Accept() }() // ends when the test closes the listener
	var closed sync.WaitGroup
	gone := make(chan int, 3)
	for i := range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		closed.Go(func() { // ends when the server or, at last, the listener closes the connection
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
			gone <- i
		})
	}
	if i := <-gone; i != 2 {
		t.Errorf("connection %d was closed, want the last", i)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	closed.Wait() // a socket that closes leaves none behind
}

// The limit per address is about clients, not about the proxy that brings them all.
func TestProxyLimitPerAddress(t *testing.T) {
	l := open(t, listen.Config{Proxy: true}, listen.Options{
		Trusted: netip.MustParsePrefix("127.0.0.0/8").Contains, Limits: listen.Limits{PerAddress: 1},
	})
	accepted := accepting(l)
	for i, want := range []bool{true, false, true} {
		client := []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}[i]
		if got := proxied(t, l, accepted, "PROXY TCP4 "+client+" 192.0.2.9 4660 25\r\n") != nil; got != want {
			t.Fatalf("connection %d, of %s: accepted %v", i, client, got)
		}
	}
}

func TestRenewErrors(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{})
	for want, c := range map[string]listen.Config{
		"implicit needs a certificate": {Address: "127.0.0.1:0", TLS: listen.Implicit},
		"has no starttls":              {Address: "127.0.0.1:0", TLS: listen.StartTLS},
		"printable ASCII":              {Address: "127.0.0.1:0", Banner: "two\r\nlines"},
	} {
		if _, err := l.Renew(c, listen.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	connect(t, l) // it goes on
}

// While listeners follow one another every client is answered, and each by the listener of its time.
func TestHandOver(t *testing.T) {
	const turns, clients = 200, 4
	serve := func(l *listen.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept: %v", err)
				}
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				_, _ = fmt.Fprintf(c, "%s\n", c.(*listen.Conn).Banner())
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}
	l := open(t, listen.Config{Banner: "0"}, listen.Options{})
	var loops, work sync.WaitGroup
	loops.Go(func() { serve(l) }) // until the hand-over
	stop := make(chan struct{})
	for range clients {
		work.Go(func() { // until stop
			last := -1
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				line, err := bufio.NewReader(c).ReadString('\n')
				_ = c.Close()
				var turn int
				if _, e := fmt.Sscan(line, &turn); err != nil || e != nil || turn < last {
					t.Errorf("after %d a client is told %q, %v", last, line, err)
					return
				}
				last = turn
			}
		})
	}
	now := l
	for i := range turns {
		next, err := now.Renew(listen.Config{Address: l.Config().Address, Banner: fmt.Sprint(i + 1)}, listen.Options{})
		if err != nil {
			t.Fatal(err)
		}
		loops.Go(func() { serve(next) }) // until the next hand-over, or the end
		now.HandOver(next)
		if err := now.Close(); err != nil { // closes nothing that is not its own any more
			t.Error(err)
		}
		now = next
	}
	close(stop)
	work.Wait()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(client).ReadString('\n'); line != fmt.Sprintln(turns) {
		t.Errorf("at the end a client is told %q, %v", line, err)
	}
	if err := now.Close(); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	loops.Wait()
	<-l.Drained()
	<-now.Drained()
}

// A listener that has handed over still ends its own connections in order.
func TestHandOverKeepsConnections(t *testing.T) {
	first := open(t, listen.Config{}, listen.Options{Goodbye: "bye\r\n"})
	client, c := connect(t, first)
	second, err := first.Renew(first.Config(), listen.Options{Goodbye: "good night\r\n"})
	if err != nil {
		t.Fatal(err)
	}
	first.HandOver(second)
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	select {
	case <-first.Drained():
		t.Error("drained with a connection left")
	default:
	}
	if _, err := io.WriteString(c, "still here\r\n"); err != nil {
		t.Error(err)
	}
	later, _ := connect(t, second)
	if err := first.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(client); string(b) != "still here\r\nbye\r\n" {
		t.Errorf("the first client reads %q, %v", b, err)
	}
	<-first.Drained()
	if err := second.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(later); string(b) != "good night\r\n" {
		t.Errorf("the second client reads %q, %v", b, err)
	}
}
