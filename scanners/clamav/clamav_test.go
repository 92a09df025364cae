package clamav

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/peertest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

const hello = "From: a@example.com\nSubject: hello\n\nhello\n"

// world is an Env with a network.
func world(t testing.TB) pipeline.Env {
	env := pipelinetest.Env(t)
	env.Dial = (&net.Dialer{}).DialContext
	env.Now = time.Now
	return env
}

// made returns a stage that asks these.
func made(t testing.TB, change func(*Config), addresses ...string) *stage {
	t.Helper()
	c := Kind().Config().(*Config)
	c.Addresses = addresses
	if change != nil {
		change(c)
	}
	s, err := newStage(*c, world(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t testing.TB, s *stage, text string) (pipeline.Result, error) {
	t.Helper()
	var v pipeline.View
	v.Message = pipelinetest.Parse(t, text)
	return s.Check(t.Context(), v)
}

// A fake is what a clamd could be, but for what it says to PING and VERSION.
type fake struct {
	listener net.Listener
	ping     string                             // instead of PONG
	version  string                             // instead of a version
	scan     func(c net.Conn, mail []byte) bool // whether it stays
	early    func(c net.Conn)                   // before anything of the mail is read

	mu    sync.Mutex
	mails []string
	open  sync.WaitGroup
}

// listen starts it, and ends it after the test.
func (f *fake) listen(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.listener = l
	f.open.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.open.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.open.Wait()
	})
	return l.Addr().String()
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	command := make([]byte, 0, 16)
	for b := make([]byte, 1); len(command) == 0 || command[len(command)-1] != '\n'; command = append(command, b[0]) {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
	switch string(command) {
	case "nPING\n":
		_, _ = io.WriteString(c, or(f.ping, "PONG\n"))
	case "nVERSION\n":
		_, _ = io.WriteString(c, or(f.version, "ClamAV 1.4.6/27812/Sat Nov 21 09:00:00 2026\n"))
	case "nINSTREAM\n":
		if f.early != nil {
			f.early(c)
			return
		}
		var mail []byte
		for {
			var n uint32
			if err := binary.Read(c, binary.BigEndian, &n); err != nil {
				return
			}
			if n == 0 {
				break
			}
			piece := make([]byte, n)
			if _, err := io.ReadFull(c, piece); err != nil {
				return
			}
			mail = append(mail, piece...)
		}
		f.mu.Lock()
		f.mails = append(f.mails, string(mail))
		f.mu.Unlock()
		if f.scan == nil {
			_, _ = io.WriteString(c, "stream: OK\n")
			return
		}
		if f.scan(c, mail) {
			_, _ = io.Copy(io.Discard, c) // until the other side goes
		}
	}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func say(text string) func(net.Conn, []byte) bool {
	return func(c net.Conn, _ []byte) bool { _, _ = io.WriteString(c, text); return false }
}

func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

// What clamd says, and what it does not say.
func TestAnswers(t *testing.T) {
	hang := func(net.Conn, []byte) bool { return true }
	for _, tt := range []struct {
		name string
		fake *fake
		want string // the fact, or the error
	}{
		{"clean", &fake{}, "clean"},
		{"found", &fake{scan: say("stream: Win.Test.EICAR_HDB-1 FOUND\n")}, "Win.Test.EICAR_HDB-1"},
		{"found, with its hash", &fake{scan: say("stream: Eicar(44d88612fea8a8f36de82e1278abb02f:68) FOUND\n")}, "Eicar"},
		{"a name with a colon", &fake{scan: say("stream: a:b:c FOUND\n")}, "a:b:c"},
		{"a name that is none", &fake{scan: say("stream:  FOUND\n")}, "(no name)"},
		{"a name with control characters", &fake{scan: say("stream: a\x1b[31m\xff FOUND\n")}, "a [31m?"},
		{"a limit of its own", &fake{scan: say("stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\n")},
			"unknown: clamd reached a limit of its own: Heuristics.Limits.Exceeded.MaxFileSize"},
		{"an error", &fake{scan: say("stream: Can't allocate memory ERROR\n")}, "error: it answers: stream: Can't allocate memory ERROR"},
		{"too large for it", &fake{early: func(c net.Conn) { _, _ = io.WriteString(c, "INSTREAM size limit exceeded. ERROR\n") }},
			"error: it answers: INSTREAM size limit exceeded. ERROR"},
		{"unknown command", &fake{scan: say("UNKNOWN COMMAND\n")}, `error: it answers "UNKNOWN COMMAND"`},
		{"OK of something else", &fake{scan: say("/etc/passwd: OK\n")}, `error: it answers "/etc/passwd: OK"`},
		{"OK with more in its line", &fake{scan: say("stream: OK OK\n")}, `error: it answers "stream: OK OK"`},
		{"OK before the mail is read", &fake{early: func(c net.Conn) { reset(c); _, _ = io.WriteString(c, "stream: OK\n") }}, "error: "},
		{"OK twice", &fake{scan: say("stream: OK\nstream: OK\n")}, "error: it answers twice: stream: OK; stream: OK"},
		{"found, then OK", &fake{scan: say("stream: a FOUND\nstream: OK\n")}, "error: it answers twice: stream: a FOUND; stream: OK"},
		{"half a line", &fake{scan: say("stream: OK")}, "error: it hung up without an answer"},
		{"nothing", &fake{scan: say("")}, "error: it hung up without an answer"},
		{"an empty line", &fake{scan: say("\n")}, `error: it answers ""`},
		{"a reset", &fake{scan: func(c net.Conn, _ []byte) bool { reset(c); return false }}, "error: read the answer: "},
		{"a reset in the middle", &fake{early: reset}, "error: "},
		{"hung up in the middle", &fake{early: func(net.Conn) {}}, "error: "},
		{"hangs", &fake{scan: hang}, "error: no answer within 300ms"},
		{"hangs while we write", &fake{early: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); time.Sleep(time.Second) }}, "error: no answer within 300ms"},
		{"OK, and stays", &fake{scan: func(c net.Conn, _ []byte) bool { _, _ = io.WriteString(c, "stream: OK\n"); return true }}, "error: no answer within 300ms"},
		{"drips", &fake{scan: func(c net.Conn, _ []byte) bool {
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					return false
				}
				time.Sleep(5 * time.Millisecond)
			}
		}}, "error: no answer within 300ms"},
		{"floods", &fake{scan: func(c net.Conn, _ []byte) bool {
			for {
				if _, err := io.WriteString(c, strings.Repeat("x", 1<<16)); err != nil {
					return false
				}
			}
		}}, "error: the answer is longer than 4096 octets"},
		{"no PONG", &fake{ping: "what?\n"}, `error: it answers PING with "what?\n"`},
		{"PONG and garbage", &fake{ping: strings.Repeat("PONG", 1000)}, `error: it answers PING with "PONGPONG`},
		{"hangs up at PING", &fake{early: func(net.Conn) {}, ping: "-"}, `error: it answers PING with "-"`},
		{"no version", &fake{version: "hm\n"}, "clean, no version: no answer to VERSION that could be understood"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", peertest.TempDir(t)) // nobody else's
			before := runtime.NumGoroutine()
			address := tt.fake.listen(t)
			s := made(t, func(c *Config) { c.Within, c.Ping = 300*time.Millisecond, time.Minute }, address)
			if strings.Contains(tt.want, "clean") || !strings.HasPrefix(tt.want, "error: no answer") {
				s.daemons[0].within = time.Minute // a slow machine is no reason
			}
			text := hello + strings.Repeat("x", 1<<20)
			r, err := check(t, s, text)
			var got string
			fact, _ := r.Fact.(Scanned)
			switch {
			case err != nil:
				got = strings.Replace(err.Error(), "ask clamd at "+address+": ", "error: ", 1)
			case r.Missing["infected"] != nil:
				got = "unknown: " + r.Missing["infected"].Error()
			case fact.Infected:
				got = fact.Signature
			case r.Missing["version"] != nil:
				got = "clean, no version: " + strings.TrimPrefix(r.Missing["version"].Error(), "ask clamd at "+address+": ")
			default:
				got = "clean"
			}
			if got != tt.want && !(strings.HasPrefix(tt.want, "error: ") && strings.HasPrefix(got, tt.want)) {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if err == nil && r.Missing == nil && (fact.Clamd != address || fact.Version == "" || fact.Scanned != v(t, text).Size()) {
				t.Errorf("%+v", fact)
			}
			_ = tt.fake.listener.Close()
			settled(t, before)
		})
	}
}

func v(t testing.TB, text string) *mime.Message { return pipelinetest.Parse(t, text) }

// settled waits until nothing is left of what go-clamd and we have started, in goroutines and in files.
func settled(t testing.TB, goroutines int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(os.TempDir(), "sluice-clamd-*"))
		if err != nil {
			t.Fatal(err)
		}
		if n := runtime.NumGoroutine(); n <= goroutines && len(left) == 0 {
			return
		} else if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, there were %d; files: %q\n%s", n, goroutines, left, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A mail that cannot be read to its end is not one that ends there.
func TestUnreadable(t *testing.T) {
	f := &fake{}
	s := made(t, nil, f.listen(t))
	text := "Subject: x\r\n\r\n" + strings.Repeat("x", 100<<10)
	m, err := mime.Parse(&broken{strings.NewReader(text), 50 << 10}, int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Check(t.Context(), pipeline.View{Message: m})
	if err == nil || !strings.Contains(err.Error(), "read the mail: disk on fire") {
		t.Errorf("%+v, %v", r, err)
	}
	// A mail that is shorter than it says.
	m, err = mime.Parse(strings.NewReader(text), int64(len(text))+1, mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = s.Check(t.Context(), pipeline.View{Message: m}); err == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

type broken struct {
	io.ReaderAt
	at int64
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.at {
		return 0, errors.New("disk on fire")
	}
	return b.ReaderAt.ReadAt(p, off)
}

// A connection of which one write fails, unnoticed by go-clamd, and which works again afterwards.
func TestLostWrite(t *testing.T) {
	f := &fake{}
	address := f.listen(t)
	for n := range 6 {
		c := Kind().Config().(*Config)
		c.Addresses, c.Within = []string{address}, 200*time.Millisecond
		env := world(t)
		dial := env.Dial
		env.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return &forgetful{Conn: conn, lose: n + 1}, err
		}
		s, err := newStage(*c, env)
		if err != nil {
			t.Fatal(err)
		}
		s.daemons[0].heard(true) // PING would be lost, too
		if r, err := check(t, s, hello+strings.Repeat("x", 1<<20)); err == nil {
			t.Errorf("write %d is lost: %+v", n+1, r.Fact)
		}
	}
}

type forgetful struct {
	net.Conn
	lose int
}

func (f *forgetful) Write(p []byte) (int, error) {
	if f.lose--; f.lose == 0 {
		return 0, errors.New("no buffer space available")
	}
	return f.Conn.Write(p)
}

// Mail begins, to clamd, with a field by which it knows mail: it looks into nothing else.
func TestWhatIsSent(t *testing.T) {
	f := &fake{}
	s := made(t, nil, f.listen(t))
	if _, err := check(t, s, "X-First: a\n\nb\n"); err != nil {
		t.Fatal(err)
	}
	if want := "Received: by sluice\r\nX-First: a\r\n\r\nb\r\n"; len(f.mails) != 1 || f.mails[0] != want {
		t.Errorf("%q, want %q", f.mails, want)
	}
}

func TestTooLarge(t *testing.T) {
	f := &fake{}
	text := hello + strings.Repeat("x", 1000)
	size := v(t, text).Size() + int64(len(prefix))
	address := f.listen(t)
	r, err := check(t, made(t, func(c *Config) { c.MaxSize = size }, address), text)
	if err != nil || r.Missing != nil {
		t.Errorf("as large as may be: %+v, %v", r, err)
	}
	r, err = check(t, made(t, func(c *Config) { c.MaxSize = size - 1 }, address), text)
	if err != nil || r.Missing["infected"] == nil || !strings.HasPrefix(r.Missing["infected"].Error(), "too large to scan: ") {
		t.Errorf("larger: %+v, %v", r, err)
	}
	if len(f.mails) != 1 {
		t.Errorf("clamd was asked %d times", len(f.mails))
	}
}

// Where one clamd gives no answer the next is asked; what is dead is not asked for a while, and the log says so once.
func TestFailover(t *testing.T) {
	good := &fake{}
	goodAt := good.listen(t)
	deadAt := peertest.Address(t)
	s := made(t, nil, deadAt, goodAt)
	var log strings.Builder
	now := time.Now()
	for _, d := range s.daemons {
		d.env.Log, d.env.Now = slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now }
	}
	for i := range 8 {
		r, err := check(t, s, hello)
		if err != nil || r.Fact.(Scanned).Clamd != goodAt {
			t.Fatalf("mail %d: %+v, %v", i, r.Fact, err)
		}
		now = now.Add(2 * time.Second)
	}
	if n := strings.Count(log.String(), "clamd does not answer"); n != 1 || !strings.Contains(log.String(), deadAt) {
		t.Errorf("the log says it %d times:\n%s", n, log.String())
	}
	_ = good.listener.Close()
	var err error
	for range 6 {
		now = now.Add(2 * time.Second)
		_, err = check(t, s, hello)
	}
	for _, want := range []string{"ask clamd at " + deadAt + ": not asked until ", "it failed too often: dial tcp " + deadAt, "ask clamd at " + goodAt + ": "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwants %q", err, want)
		}
	}
}

// A clamd that some mails upset is asked about others.
func TestMailsThatUpset(t *testing.T) {
	f := &fake{scan: func(c net.Conn, mail []byte) bool {
		if !strings.Contains(string(mail), "bomb") {
			_, _ = io.WriteString(c, "stream: OK\n")
		}
		return false
	}}
	s := made(t, nil, f.listen(t))
	for range 20 {
		if _, err := check(t, s, hello+"bomb\n"); err == nil {
			t.Fatal("a bomb was scanned")
		}
	}
	if r, err := check(t, s, hello); err != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// So many scans at once and no more, and several clamds share them.
func TestAtOnce(t *testing.T) {
	var mu sync.Mutex
	now, most := map[string]int{}, map[string]int{}
	both := make(chan struct{})
	var once sync.Once
	scan := func(c net.Conn, _ []byte) bool {
		me := c.LocalAddr().String()
		mu.Lock()
		now[me]++
		most[me] = max(most[me], now[me])
		full := len(now) == 2
		for _, n := range now {
			full = full && n == 2
		}
		if full {
			once.Do(func() { close(both) })
		}
		mu.Unlock()
		select {
		case <-both:
		case <-time.After(time.Minute):
		}
		mu.Lock()
		now[me]--
		mu.Unlock()
		_, _ = io.WriteString(c, "stream: OK\n")
		return false
	}
	a, b := &fake{scan: scan}, &fake{scan: scan}
	s := made(t, func(c *Config) { c.AtOnce = 2 }, a.listen(t), b.listen(t))
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			if _, err := check(t, s, hello); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for at, n := range most {
		if n != 2 {
			t.Errorf("%s had %d scans at once", at, n)
		}
	}
	if len(most) != 2 || len(a.mails)+len(b.mails) != 12 {
		t.Errorf("%d clamds, %d and %d mails", len(most), len(a.mails), len(b.mails))
	}
}

func TestVersionIsAskedOnceAMinute(t *testing.T) {
	f := &fake{}
	s := made(t, nil, f.listen(t))
	now := time.Now()
	s.daemons[0].env.Now = func() time.Time { return now }
	for i, want := range []string{"one", "one", "two"} {
		f.version = "ClamAV " + []string{"one", "two", "two"}[i] + "\n"
		r, err := check(t, s, hello)
		if err != nil || r.Fact.(Scanned).Version != "ClamAV "+want {
			t.Errorf("%d: %+v, %v", i, r.Fact, err)
		}
		now = now.Add(40 * time.Second)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Addresses = nil }, `addresses: there is none; write for example ["unix:/run/clamav/clamd.ctl"]`},
		{func(c *Config) { c.Addresses = []string{"/run/clamd"} }, `addresses: `},
		{func(c *Config) { c.Addresses = []string{"127.0.0.1:1", "127.0.0.1:1"} }, "addresses: 127.0.0.1:1 stands here twice"},
		{func(c *Config) { c.MaxSize, c.AtOnce = 0, -1 }, "max_size: 0 is too little\nat_once: -1 is too little"},
		{func(c *Config) { c.Within, c.Ping = 0, 0 }, "within: 0s is too little\nping: 0s is too little"},
	} {
		c := Kind().Config().(*Config)
		tt.change(c)
		if _, err := newStage(*c, world(t)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10, 10 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			f := &fake{}
			s := made(b, nil, f.listen(b))
			text := hello + strings.Repeat(strings.Repeat("x", 76)+"\n", size/77)
			m := v(b, text)
			for b.Loop() {
				if _, err := s.Check(b.Context(), pipeline.View{Message: m}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
