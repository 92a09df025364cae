package spamd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/breaker"
	"sluice/scanners/peer"
)

func TestConform(t *testing.T) {
	pipelinetest.Conform(t, Kind(), func(c any) { c.(*Config).Address = "127.0.0.1:783" })
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Address = "" }, "address: is missing; write unix:PATH or HOST:PORT"},
		{func(c *Config) { c.Address = "localhost" }, `address: "localhost" is none; write unix:PATH or HOST:PORT`},
		{func(c *Config) { c.MaxSize = 0 }, "max_size and max_reply are at least 1"},
		{func(c *Config) { c.User = "a\r\nb" }, `user: "a\r\nb" is no name of a user`},
		{func(c *Config) { c.AtOnce = 0 }, "at_once: is less than 1: nothing would ever be asked"},
	} {
		c := Kind().Config().(*Config)
		c.Address = "127.0.0.1:783"
		tt.change(c)
		if _, err := newStage(*c, pipelinetest.Env(t)); err == nil || err.Error() != tt.want {
			t.Errorf("%v\nwant %s", err, tt.want)
		}
	}
}

func TestParseReply(t *testing.T) {
	const ok = "SPAMD/1.1 0 EX_OK\r\n"
	for _, tt := range []struct {
		name, text string
		want       Fact
		wrong      string
	}{
		{"spam", ok + "Content-length: 7\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA, B_1\n", Fact{true, true, 7.5, 5, []string{"A", "B_1"}}, ""},
		{"no spam", ok + "Content-length: 0\r\nSpam: False ; -1.2 / 5.0\r\n\r\n", Fact{true, false, -1.2, 5, nil}, ""},
		{"an old one", ok + "Spam: Yes ; 5 / 5\r\ncontent-length:4\r\n\r\nnone", Fact{true, true, 5, 5, nil}, ""},
		{"no longer", ok + "Content-length: 5\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA,B", Fact{}, "the reply announces 5 octets and has 3"},
		{"longer", ok + "Content-length: 1\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA,B", Fact{}, "the reply announces 1 octets and has 3"},
		{"no length", ok + "Spam: True ; 7.5 / 5.0\r\n\r\nA,B", Fact{}, "the reply has no Content-length: nothing says whether it is whole"},
		{"a bad length", ok + "Content-length: -3\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA,B", Fact{}, `the reply has a Content-length of "-3"`},
		{"no score", ok + "Content-length: 3\r\n\r\nA,B", Fact{}, "the reply has no score"},
		{"a bad score", ok + "Content-length: 0\r\nSpam: True ; NaN / 5.0\r\n\r\n", Fact{}, `the reply has "True ; NaN / 5.0" where its score belongs`},
		{"neither", ok + "Content-length: 0\r\nSpam: Perhaps ; 1 / 5.0\r\n\r\n", Fact{}, `the reply has "Perhaps ; 1 / 5.0" where its score belongs`},
		{"cut off", ok + "Content-length: 0\r\nSpam: Tr", Fact{}, "the reply ends in its header"},
		{"busy", "SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n", Fact{}, "it answers 75 EX_TEMPFAIL"},
		{"a question it does not take", "SPAMD/1.0 76 Bad header line: (Content-Length mismatch)\r\n", Fact{}, "it answers 76 Bad header line: (Content-Length mismatch)"},
		{"somebody else", "HTTP/1.1 400 Bad Request\r\n\r\n", Fact{}, `"HTTP/1.1 400 Bad Request" is no reply of spamd`},
		{"more rules than anybody has", ok + "Content-length: 3000\r\nSpam: True ; 7.5 / 5.0\r\n\r\n" + strings.Repeat("ab,", 1000), Fact{}, ""},
		{"too many rules", ok + "Content-length: 3003\r\nSpam: True ; 7.5 / 5.0\r\n\r\n" + strings.Repeat("ab,", 1001), Fact{}, "the reply has more than 1000 rules"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parseReply([]byte(tt.text))
			why := ""
			if err != nil {
				why = err.Error()
			}
			if why != tt.wrong {
				t.Fatalf("%s, want %q", why, tt.wrong)
			}
			if err == nil && tt.want.Scanned && !reflect.DeepEqual(f, tt.want) {
				t.Errorf("%+v, want %+v", f, tt.want)
			}
		})
	}
}

// Which replies say that spamd is not well, and which only that it does not like the question.
func TestAnswered(t *testing.T) {
	for code, well := range map[int]bool{64: true, 65: true, 67: true, 69: false, 70: false, 75: false, 76: false, 79: true} {
		_, err := parseReply(fmt.Appendf(nil, "SPAMD/1.1 %d X\r\n\r\n", code))
		var answered *peer.Answered
		if errors.As(err, &answered) != well {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// A fake answers connections with a function, in memory; each is one question.
func fake(t *testing.T, answer func(net.Conn)) (*stage, *atomic.Int32) {
	t.Helper()
	dialled := new(atomic.Int32)
	env := pipelinetest.Env(t)
	env.Now = time.Now
	env.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		if answer == nil {
			return nil, fmt.Errorf("dial %s %s: connection refused", network, address)
		}
		ours, theirs := net.Pipe()
		go func() { defer theirs.Close(); answer(theirs) }() // ends when either side hangs up
		return ours, nil
	}
	c := Kind().Config().(*Config)
	c.Address, c.Breaker = "127.0.0.1:783", breaker.Config{Failures: 2, Pause: time.Minute}
	c.MaxReply = 200
	s, err := newStage(*c, env)
	if err != nil {
		t.Fatal(err)
	}
	return s, dialled
}

// read takes a question as spamd does, and returns its fields and the mail.
func read(conn net.Conn) (textproto.MIMEHeader, string) {
	r := bufio.NewReader(conn)
	if line, _ := r.ReadString('\n'); line != "SYMBOLS SPAMC/1.5\r\n" {
		return nil, "not " + line
	}
	h, _ := textproto.NewReader(r).ReadMIMEHeader()
	n, _ := strconv.Atoi(h.Get("Content-length"))
	mail := make([]byte, n)
	_, _ = io.ReadFull(r, mail)
	return h, string(mail)
}

const good = "SPAMD/1.1 0 EX_OK\r\nContent-length: 1\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA"

// What becomes of each way in which spamd can fail: never an answer that it did not give.
func TestFailures(t *testing.T) {
	drip := func(conn net.Conn) {
		read(conn)
		for i := range len(good) {
			time.Sleep(5 * time.Second)
			if _, err := conn.Write([]byte{good[i]}); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"refuses to connect", nil, "dial tcp 127.0.0.1:783: connection refused"},
		{"hangs", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "context deadline exceeded"},
		{"does not read", func(c net.Conn) { time.Sleep(time.Hour) }, "context deadline exceeded"},
		{"drips", drip, "context deadline exceeded"},
		{"hangs up at once", func(net.Conn) {}, "send the mail: io: read/write on closed pipe"},
		{"hangs up instead of answering", func(c net.Conn) { read(c) }, "it hung up without a reply"},
		{"hangs up within its answer", func(c net.Conn) { read(c); _, _ = io.WriteString(c, good[:len(good)-1]) }, "the reply announces 1 octets and has 0"},
		{"sends garbage", func(c net.Conn) { read(c); _, _ = io.WriteString(c, "\x00\xff\x01") }, `"\x00?\x01" is no reply of spamd`},
		{"never ends", func(c net.Conn) { read(c); _, _ = io.WriteString(c, good+strings.Repeat("a", 200)) }, "the reply has more than 200 octets"},
		{"is too busy", func(c net.Conn) { read(c); _, _ = io.WriteString(c, "SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n") }, "it answers 75 EX_TEMPFAIL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dialled := fake(t, tt.answer)
				ask := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					r, err := s.Check(ctx, view(t, ham))
					if err == nil {
						t.Fatalf("answered: %+v", r)
					}
					if !reflect.DeepEqual(r, pipeline.Result{}) {
						t.Errorf("an error and an answer: %+v", r)
					}
					return err
				}
				if err := ask(); err.Error() != "ask spamd at 127.0.0.1:783: "+tt.want {
					t.Errorf("%v, want %s", err, tt.want)
				}
				_ = ask()
				var open *breaker.OpenError
				if err := ask(); !errors.As(err, &open) || dialled.Load() != 2 {
					t.Errorf("asked %d times: %v", dialled.Load(), err)
				}
				time.Sleep(time.Hour) // what hangs has ended
			})
		})
	}
}

func TestQuestion(t *testing.T) {
	var fields textproto.MIMEHeader
	var mail string
	s, _ := fake(t, func(c net.Conn) { fields, mail = read(c); _, _ = io.WriteString(c, good) })
	s.config.User = "someone"
	v := view(t, ham)
	v.Greeting = "x)\r\nX-Forged: (yes"
	r, err := s.Check(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Fact.(Fact); !reflect.DeepEqual(f, Fact{true, true, 7.5, 5, []string{"A"}}) {
		t.Errorf("%+v", f)
	}
	want := "Return-Path: <a@example.com>\r\n" +
		"Received: from x___X-Forged:__yes (mail.example.com [192.0.2.1])\r\n\tby mx.example.org (Sluice) with ESMTP id t1;\r\n" +
		"\tSun, 01 Mar 2026 12:00:00 +0000\r\n" + strings.ReplaceAll(ham, "\n", "\r\n")
	if mail != want || fields.Get("User") != "someone" {
		t.Errorf("for %s:\n%s\nwant\n%s", fields.Get("User"), mail, want)
	}
	// Of mail that comes out of an MTA's queue the MTA has written where it is from.
	v.Door = pipeline.LMTP
	if got := s.trace(v); got != "Return-Path: <a@example.com>\r\n" {
		t.Errorf("at LMTP: %s", got)
	}
}

// A reply that comes before the mail was read says what is wrong.
func TestEarlyReply(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "SPAMD/1.1 64 EX_USAGE\r\n\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	c := Kind().Config().(*Config)
	c.Address = l.Addr().String()
	s, err := newStage(*c, network(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Check(t.Context(), view(t, ham+strings.Repeat("x\n", 150_000)))
	if err == nil || !strings.HasSuffix(err.Error(), ": it answers 64 EX_USAGE") {
		t.Error(err)
	}
}

// A mail over the limit is no failure, so on_error does not hold it back for ever: what spamd would say is unknown.
func TestTooLarge(t *testing.T) {
	s, dialled := fake(t, nil)
	s.config.MaxSize = 100
	r, err := s.Check(t.Context(), view(t, ham+strings.Repeat("x", 100)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Fact]().NumField() {
		name := reflect.TypeFor[Fact]().Field(i).Tag.Get("json")
		if why := r.Missing[name]; name != "scanned" && (why == nil || !strings.Contains(why.Error(), "octets, and max_size is 100")) {
			t.Errorf("%s: %v", name, why)
		}
	}
	if r.Fact.(Fact).Scanned || dialled.Load() != 0 {
		t.Errorf("%+v, asked %d times", r.Fact, dialled.Load())
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		fact, err := parseReply(text)
		if err == nil && (!fact.Scanned || len(fact.Rules) > 1000 || fact.Score-fact.Score != 0) {
			t.Errorf("%+v", fact)
		}
	})
}
