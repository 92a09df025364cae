package listen_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/protocols/listen"
)

func TestConfigYAML(t *testing.T) {
	tests := []struct {
		name, text string
		want       []listen.Config
		err        string
	}{
		{name: "an address alone", text: `["127.0.0.1:25", "unix:/run/x.sock"]`,
			want: []listen.Config{{Address: "127.0.0.1:25"}, {Address: "unix:/run/x.sock"}}},
		{name: "a mapping", text: `[{address: ":993", tls: implicit}]`,
			want: []listen.Config{{Address: ":993", TLS: listen.Implicit}}},
		{name: "mode and owner", text: `[{address: "unix:/x", mode: 0600, owner: root, group: postfix}]`,
			want: []listen.Config{{Address: "unix:/x", Mode: 0o600, Owner: "root", Group: "postfix"}}},
		{name: "no such tls", text: `[{address: ":993", tls: always}]`, err: "none of none, starttls, implicit"},
		{name: "unknown key", text: `[{address: ":993", adress: x}]`, err: "adress"},
		{name: "no port", text: `[localhost]`, err: `"localhost" names no port; write "localhost:PORT" or "unix:localhost"`},
		{name: "no address", text: `[{tls: none}]`, err: "needs an address"},
		{name: "no path", text: `["unix:"]`, err: "unix: needs a path"},
		{name: "mode without a file", text: `[{address: ":25", mode: 0600}]`, err: "are for unix sockets"},
		{name: "path too long", text: `["unix:/` + strings.Repeat("x", 107) + `"]`, err: "at most 107 octets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []listen.Config
			err := yaml.UnmarshalWithOptions([]byte(tt.text), &got, yaml.Strict())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// open opens a listener that is closed with the test.
func open(t *testing.T, c listen.Config, o listen.Options) *listen.Listener {
	t.Helper()
	if c.Address == "" {
		c.Address = "127.0.0.1:0"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l, err := listen.Open(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// connect returns both ends of a new connection.
func connect(t *testing.T, l *listen.Listener) (client net.Conn, server *listen.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return client, c.(*listen.Conn)
}

func TestOpenErrors(t *testing.T) {
	taken := open(t, listen.Config{}, listen.Options{})
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	alive := filepath.Join(folder, "alive")
	open(t, listen.Config{Address: "unix:" + alive}, listen.Options{})
	tests := []struct {
		name string
		c    listen.Config
		want string
	}{
		{"port in use", listen.Config{Address: taken.Addr().String()}, "in use by another program; stop that one or use another port"},
		{"no such address", listen.Config{Address: "192.0.2.1:0"}, "no such address"},
		{"no folder", listen.Config{Address: "unix:" + folder + "/no/sock"}, "there is no folder " + folder + "/no; make it first"},
		{"no socket", listen.Config{Address: "unix:" + file}, "is no socket; remove it or use another path"},
		{"somebody answers", listen.Config{Address: "unix:" + alive}, "another program answers on this socket"},
		{"no such user", listen.Config{Address: "unix:" + folder + "/a", Owner: "nobody-of-that-name"}, `no user "nobody-of-that-name"`},
		{"no such group", listen.Config{Address: "unix:" + folder + "/b", Group: "no-such-group"}, `no group "no-such-group"`},
		{"no certificate", listen.Config{Address: ":0", TLS: listen.Implicit}, "needs a certificate"},
		{"no starttls", listen.Config{Address: ":0", TLS: listen.StartTLS}, "has no starttls"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := listen.Open(t.Context(), tt.c, listen.Options{})
			if err == nil {
				_ = l.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep me" {
		t.Errorf("the file that is no socket: %q, %v", b, err)
	}
	for _, gone := range []string{"/a", "/b"} {
		if _, err := os.Lstat(folder + gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", gone, err)
		}
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as after kill -9
	_ = old.Close()
	l := open(t, listen.Config{Address: "unix:" + path, Mode: 0o600}, listen.Options{})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	_, c := connect(t, l)
	if !c.Local() || !c.Trusted() || !c.Loopback() || c.Peer().IsValid() {
		t.Errorf("local %v, trusted %v, loopback %v, peer %v", c.Local(), c.Trusted(), c.Loopback(), c.Peer())
	}
	_ = l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestDefaultSocketMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	open(t, listen.Config{Address: "unix:" + path}, listen.Options{})
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info, err)
	}
}

func TestFirstReadErrorIsFinal(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{Limits: listen.Limits{ReadTimeout: 20 * time.Millisecond}})
	client, c := connect(t, l)
	// The library's wish for more time is ignored.
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	_, err := c.Read(b)
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("error %v, want a timeout", err)
	}
	if _, err := io.WriteString(client, "MAIL FROM:<>\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, again := c.Read(b); n != 0 || again != err {
		t.Errorf("after a timeout Read returned %d, %v", n, again)
	}
}

func TestReadUntil(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{})
	client, c := connect(t, l)
	c.ReadUntil(time.Now().Add(50 * time.Millisecond))
	go func() { // ends when the client's end is closed: one octet a time forever
		for {
			if _, err := client.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestWriteTimeout(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{Limits: listen.Limits{WriteTimeout: 50 * time.Millisecond}})
	_, c := connect(t, l) // the client never reads
	b := make([]byte, 1<<20)
	for range 100 {
		if _, err := c.Write(b); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("error %v, want a timeout", err)
			}
			return
		}
	}
	t.Error("100 MiB were written to a client that does not read")
}

func TestLimitLine(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{})
	client, c := connect(t, l)
	c.LimitLine(8)
	send := func(s string) {
		t.Helper()
		if _, err := io.WriteString(client, s); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 100)
	send("123456\r\n")
	if n, err := c.Read(b); err != nil || n != 8 {
		t.Fatalf("a line of the limit: %d, %v", n, err)
	}
	c.LimitLine(0)
	send(strings.Repeat("x", 50))
	if n, err := io.ReadFull(c, b[:50]); err != nil || n != 50 {
		t.Fatalf("no limit: %d, %v", n, err)
	}
	c.LimitLine(8)
	send("a\n12345678\n")
	if _, err := c.Read(b); !errors.Is(err, listen.ErrLineTooLong) {
		t.Errorf("a longer line: %v", err)
	}
	if _, err := c.Read(b); !errors.Is(err, listen.ErrLineTooLong) {
		t.Errorf("and after it: %v", err)
	}
}

// at is a connection that says it comes from elsewhere.
type at struct {
	net.Conn
	addr string
}

func (c at) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)) }

func TestPeer(t *testing.T) {
	tests := []struct {
		addr, want        string
		trusted, loopback bool
	}{
		{"192.0.2.1:99", "192.0.2.1", false, false},
		{"[::ffff:192.0.2.1]:99", "192.0.2.1", false, false},
		{"[2001:db8::1]:99", "2001:db8::1", false, false},
		{"10.1.2.3:99", "10.1.2.3", true, false},
		{"127.0.0.1:99", "127.0.0.1", false, true},
		{"[::1]:99", "::1", false, true},
	}
	for _, tt := range tests {
		near, _ := net.Pipe()
		c := listen.Wrap(at{near, tt.addr}, listen.Options{Trusted: netip.MustParsePrefix("10.0.0.0/8").Contains})
		if c.Peer().String() != tt.want || c.Trusted() != tt.trusted || c.Loopback() != tt.loopback || c.Local() {
			t.Errorf("%s: peer %v, trusted %v, loopback %v, local %v", tt.addr, c.Peer(), c.Trusted(), c.Loopback(), c.Local())
		}
		_ = c.Close()
	}
}

func TestConnectionLimit(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{
		Limits: listen.Limits{Connections: 2, PerAddress: 1}, // loopback has none per address
		Busy:   "421 4.7.0 too many\r\n",
	})
	_, first := connect(t, l)
	connect(t, l)
	third, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	accepted := make(chan net.Conn, 1)
	go func() { // ends with the connection that is accepted below
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	if b, err := io.ReadAll(third); err != nil || string(b) != "421 4.7.0 too many\r\n" {
		t.Errorf("the third was told %q, %v", b, err)
	}
	_ = first.Close()
	_ = first.Close() // counts once
	fourth, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer fourth.Close()
	_ = (<-accepted).Close()
}

func TestConnectionLimitPerAddress(t *testing.T) {
	// Addresses other than loopback cannot be dialled from here, so the listener is told that these come from there.
	tests := []struct {
		name, a, b string
		trusted    bool
		both       bool
	}{
		{name: "the same address", a: "192.0.2.1:1", b: "192.0.2.1:2"},
		{name: "the same /64", a: "[2001:db8::1]:1", b: "[2001:db8::2]:2"},
		{name: "another address", a: "192.0.2.1:1", b: "192.0.2.2:2", both: true},
		{name: "another /64", a: "[2001:db8:0:1::1]:1", b: "[2001:db8:0:2::1]:2", both: true},
		{name: "trusted", a: "192.0.2.1:1", b: "192.0.2.1:2", trusted: true, both: true},
		{name: "loopback", a: "127.0.0.1:1", b: "127.0.0.1:2", both: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := open(t, listen.Config{}, listen.Options{
				Limits:  listen.Limits{PerAddress: 1},
				Trusted: func(netip.Addr) bool { return tt.trusted },
			})
			fake := &fakeListener{Listener: l.Listener, addrs: []string{tt.a, tt.b}}
			l.Listener = fake
			connect(t, l)
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if tt.both {
				if _, err := l.Accept(); err != nil {
					t.Fatal(err)
				}
				return
			}
			go l.Accept() // ends when the test closes the listener
			if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
				t.Errorf("the second read %q, %v; want it closed", b, err)
			}
		})
	}
}

type fakeListener struct {
	net.Listener
	addrs []string
}

func (l *fakeListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	addr := l.addrs[0]
	l.addrs = l.addrs[1:]
	return at{c, addr}, nil
}

func TestShutdown(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{Goodbye: "421 4.3.2 bye\r\n"})
	idle, _ := connect(t, l)
	busy, b := connect(t, l)
	if !b.SetBusy(true) {
		t.Fatal("not to begin anything")
	}
	done := make(chan error, 1)
	go func() { done <- l.Shutdown(t.Context()) }() // ends with the busy connection

	if got, err := io.ReadAll(idle); err != nil || string(got) != "421 4.3.2 bye\r\n" {
		t.Errorf("the idle connection read %q, %v", got, err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a new connection was accepted")
	}
	if _, err := io.WriteString(busy, "end of data"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 11)); err != nil {
		t.Errorf("the busy connection cannot read on: %v", err)
	}
	if _, err := io.WriteString(b, "250 ok\r\n"); err != nil {
		t.Errorf("the busy connection cannot answer: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v before the busy connection was idle", err)
	default:
	}
	if !b.SetBusy(true) {
		t.Error("it may not go on")
	}
	if b.SetBusy(false) || b.SetBusy(true) {
		t.Error("it may begin something new")
	}
	if got, err := io.ReadAll(busy); err != nil || string(got) != "250 ok\r\n421 4.3.2 bye\r\n" {
		t.Errorf("the busy connection read %q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Whoever has read a goodbye may rely on it that nothing new begins on any other connection.
func TestShutdownTellsAllAtOnce(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{Goodbye: "421 4.3.2 bye\r\n"})
	first, _ := connect(t, l)
	others := make([]*listen.Conn, 200)
	for i := range others {
		_, others[i] = connect(t, l)
	}
	done := make(chan error, 1)
	go func() { done <- l.Shutdown(t.Context()) }() // ends when all have been told
	if _, err := first.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for i, c := range others {
		if c.SetBusy(true) {
			t.Fatalf("connection %d may begin something new", i)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	l := open(t, listen.Config{}, listen.Options{Goodbye: "* BYE\r\n"})
	client, waiting := connect(t, l)
	other, stuck := connect(t, l)
	waiting.SetBusy(true)
	stuck.SetBusy(true)
	over := make(chan error, 1)
	go func() { // ends when Shutdown interrupts the read
		_, err := waiting.Read(make([]byte, 1))
		if err == listen.ErrShutdown {
			_, err = io.WriteString(waiting, "421 in my own words\r\n")
		}
		_ = waiting.Close()
		over <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-over; err != nil {
		t.Errorf("the waiting connection: %v", err)
	}
	if b, err := io.ReadAll(client); err != nil || string(b) != "421 in my own words\r\n" {
		t.Errorf("it read %q, %v", b, err)
	}
	if cause := context.Cause(stuck.Context()); cause != listen.ErrShutdown {
		t.Errorf("the stuck connection's context: %v", cause)
	}
	if b, err := io.ReadAll(other); err != nil || string(b) != "* BYE\r\n" {
		t.Errorf("the stuck one read %q, %v", b, err)
	}
	if _, err := io.WriteString(stuck, "250 too late\r\n"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stuck one could write after its goodbye: %v", err)
	}
}

// certificate makes a certificate for localhost.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestImplicitTLS(t *testing.T) {
	l := open(t, listen.Config{TLS: listen.Implicit}, listen.Options{TLS: certificate(t), Goodbye: "BYE\r\n"})
	raw, c := connect(t, l)
	client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	go func() { // ends after the greeting
		_, _ = io.WriteString(c, "220 hello\r\n")
	}()
	line, err := bufio.NewReader(client).ReadString('\n')
	if err != nil || line != "220 hello\r\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if v := c.TLSVersion(); v != "TLSv1.3" {
		t.Errorf("version %q", v)
	}
	if err := l.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(client); err != nil || string(b) != "BYE\r\n" {
		t.Errorf("goodbye over TLS: %q, %v", b, err)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	l := open(t, listen.Config{TLS: listen.Implicit}, listen.Options{
		TLS: certificate(t), Limits: listen.Limits{HandshakeTimeout: 30 * time.Millisecond},
	})
	client, c := connect(t, l)
	go func() { // a handshake that gets on, but never ends; ends when the client's end is closed
		for {
			if _, err := client.Write([]byte{22}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read something")
	}
	if c.TLSVersion() != "" {
		t.Error("TLS is said to be on")
	}
}

func TestStartTLS(t *testing.T) {
	l := open(t, listen.Config{TLS: listen.StartTLS}, listen.Options{TLS: certificate(t), HasStartTLS: true})
	raw, c := connect(t, l)
	if !c.CanStartTLS() {
		t.Fatal("no TLS")
	}
	begun := make(chan error, 1)
	go func() { begun <- c.StartTLS(0) }() // ends with the handshake
	client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(client, "EHLO"); err != nil {
		t.Fatal(err)
	}
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "EHLO" {
		t.Errorf("read %q, %v", b, err)
	}
	if c.CanStartTLS() || c.StartTLS(0) == nil {
		t.Error("TLS can begin twice")
	}
}

func TestStartTLSRefusesPlaintext(t *testing.T) {
	l := open(t, listen.Config{TLS: listen.StartTLS}, listen.Options{TLS: certificate(t), HasStartTLS: true})
	client, c := connect(t, l)
	if _, err := io.WriteString(client, "MAIL FROM:<injected@example.org>\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(10); !errors.Is(err, listen.ErrPlaintext) {
		t.Errorf("error %v", err)
	}
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, listen.ErrPlaintext) {
		t.Errorf("afterwards Read returned %d, %v", n, err)
	}
}

func TestUnixSocketHasNoStartTLSByDefault(t *testing.T) {
	l := open(t, listen.Config{Address: "unix:" + filepath.Join(t.TempDir(), "s")}, listen.Options{TLS: certificate(t), HasStartTLS: true})
	if _, c := connect(t, l); c.CanStartTLS() {
		t.Error("STARTTLS on a unix socket")
	}
}

func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := listen.Wrap(near, listen.Options{})
		go func() { _, _ = io.WriteString(far, "12345"); _, _ = io.ReadFull(far, make([]byte, 3)) }()
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = io.WriteString(c, "123")
		synctest.Wait()
		if c.BytesRead() != 5 || c.BytesWritten() != 3 {
			t.Errorf("read %d, written %d", c.BytesRead(), c.BytesWritten())
		}
		_ = c.Close()
		_ = far.Close()
	})
}
