package milter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/protocols/listen"
)

// waiting is a step that says when it is asked, and then waits until it is let go or its context ends.
func waiting() (step pipeline.Step, asked, release chan struct{}) {
	asked, release = make(chan struct{}, 1), make(chan struct{})
	return pipelinetest.Step("wait", pipelinetest.Stage{
		Looks: pipeline.Reads{Input: pipeline.InputBody, Waits: true},
		Says: func(ctx context.Context, _ pipeline.View) (pipeline.Result, error) {
			asked <- struct{}{}
			select {
			case <-release:
				return pipeline.Result{}, nil
			case <-ctx.Done():
				return pipeline.Result{}, ctx.Err()
			}
		},
	}), asked, release
}

func TestShutdown(t *testing.T) {
	t.Run("idle connections end at once", func(t *testing.T) {
		d := open(t, nil)
		fresh, idle := d.dial(), d.dial()
		idle.talk(postfix + message + "S: i 0 *\nS: a\nC: A\nC: M <>\nS: c\n")
		if err := d.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-d.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		idle.talk("S: EOF\n")
		fresh.talk("S: EOF\n")
		if _, err := net.Dial("unix", d.path); err == nil {
			t.Error("somebody still listens")
		}
	})
	t.Run("a message on its way is answered", func(t *testing.T) {
		step, asked, release := waiting()
		d := open(t, nil, step)
		deciding, sending := d.dial(), d.dial()
		deciding.talk(postfix + message)
		sending.talk(postfix + "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: T\nS: c\n")
		<-asked
		done := make(chan error)
		go func() { done <- d.server.Shutdown(context.Background()) }()
		<-d.served // it listens no more
		close(release)
		deciding.talk("S: i 0 *\nS: a\nS: EOF\n")
		sending.talk("C: L Subject| hello\nS: c\nC: N\nS: c\nC: E\nS: i 0 *\nS: a\nS: EOF\n")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("what takes too long is postponed", func(t *testing.T) {
		step, asked, _ := waiting()
		d := open(t, nil, step)
		m := d.dial()
		m.talk(postfix + message)
		<-asked
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		m.talk("S: y 451 4.3.2 shutting down, please try again later\nS: EOF\n")
		if r, _ := d.journal.Last(); r.End != "refused" {
			t.Errorf("the record ends %q", r.End)
		}
	})
	t.Run("nothing is served afterwards", func(t *testing.T) {
		d := open(t, nil)
		if err := d.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "m"))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.server.Serve(l); err != nil {
			t.Error(err)
		}
	})
}

// The program hands the door listeners of its own, which ignore deadlines that others set and end connections in their
// own way.
func TestOnListenersOfOurs(t *testing.T) {
	serve := func(t *testing.T, c func(*Config), steps ...pipeline.Step) (*door, *listen.Listener) {
		d := open(t, c, steps...)
		d.path = filepath.Join(t.TempDir(), "own")
		l, err := listen.Open(t.Context(), listen.Config{Address: "unix:" + d.path}, listen.Options{})
		if err != nil {
			t.Fatal(err)
		}
		go func() { d.served <- d.server.Serve(l) }()
		return d, l
	}
	t.Run("a message", func(t *testing.T) {
		d, _ := serve(t, nil)
		d.dial().talk(postfix + message + "S: i 0 *\nS: a\nC: Q\nS: EOF\n")
	})
	t.Run("an idle MTA", func(t *testing.T) {
		d, _ := serve(t, func(c *Config) { c.Limits.Idle = 20 * time.Millisecond })
		d.dial().talk("S: EOF\n")
	})
	t.Run("half a packet", func(t *testing.T) {
		d, _ := serve(t, func(c *Config) { c.Limits.Packet = time.Second })
		m := d.dial()
		if _, err := io.WriteString(m, "\x00\x00\x00\x09O"); err != nil {
			t.Fatal(err)
		}
		m.talk("S: EOF\n")
	})
	t.Run("the listener shuts down", func(t *testing.T) {
		step, asked, release := waiting()
		d, l := serve(t, nil, step)
		idle, busy := d.dial(), d.dial()
		idle.talk(postfix)
		busy.talk(postfix + message)
		<-asked
		done := make(chan error)
		go func() { done <- l.Shutdown(context.Background()) }()
		idle.talk("S: EOF\n")
		close(release)
		busy.talk("S: i 0 *\nS: a\nS: EOF\n")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// go-milter's own client, as other programs written in Go use it.
func TestGoMilterClient(t *testing.T) {
	d := open(t, nil, says("rules", pipeline.Rcpt, reject("no"), "bad"))
	// Its default options fail against version 2 only; what we need allowed has to be said.
	client := gomilter.NewClientWithOptions("unix", d.path, gomilter.ClientOptions{ActionMask: actions})
	defer client.Close()
	s, err := client.Session()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check := func(want gomilter.ActionCode, act *gomilter.Action, err error) {
		t.Helper()
		if err != nil || act.Code != want {
			t.Fatalf("%+v, %v; want %q", act, err, byte(want))
		}
	}
	act, err := s.Conn("mail.example", gomilter.FamilyInet, 1234, "192.0.2.7")
	check(gomilter.ActContinue, act, err)
	act, err = s.Helo("mail.example")
	check(gomilter.ActContinue, act, err)
	act, err = s.Mail("a@sender.example", []string{"SIZE=10"})
	check(gomilter.ActContinue, act, err)
	act, err = s.Rcpt("bad@example.org", nil)
	check(gomilter.ActReplyCode, act, err)
	if act.SMTPCode != 550 || act.SMTPText != "5.7.1 no" {
		t.Errorf("refused with %d %q", act.SMTPCode, act.SMTPText)
	}
	act, err = s.Rcpt("me@example.org", nil)
	check(gomilter.ActContinue, act, err)
	act, err = s.HeaderField("Subject", "hello")
	check(gomilter.ActContinue, act, err)
	act, err = s.HeaderEnd()
	check(gomilter.ActContinue, act, err)
	act, err = s.BodyChunk([]byte(strings.Repeat("a line of text\r\n", 4000)))
	check(gomilter.ActContinue, act, err)
	mods, act, err := s.End()
	check(gomilter.ActAccept, act, err)
	if len(mods) != 1 || mods[0].HeaderName != pipeline.IDField {
		t.Errorf("changes: %+v", mods)
	}
	if v := d.last(); v.Message.Size() < 64000 || v.Client.Name != "mail.example" {
		t.Errorf("stages saw %d octets from %+v", v.Message.Size(), v.Client)
	}
}

// The signature that goes out is one that our LMTP takes, and for this message only.
func TestHandoverIsGenuine(t *testing.T) {
	d := open(t, nil)
	m := d.dial()
	m.talk(postfix + message)
	value := strings.TrimPrefix(m.hear(), "i 0 X-Sluice-Id| ")
	sent := pipelinetest.Parse(t, "Received: from here\nSubject: hello\n\ntext\n")
	if id, ok := testKey.Verify(value, sent); !ok || id != "t1" {
		t.Errorf("%q is not recognised (%q)", value, id)
	}
	if _, ok := testKey.Verify(value, pipelinetest.Parse(t, "Subject: hello\n\nanother text\n")); ok {
		t.Errorf("%q is taken for another message", value)
	}
}

func TestLargeMessagesAreSpooledWhole(t *testing.T) {
	dir := t.TempDir()
	d := open(t, func(c *Config) { c.SpoolDir = dir })
	m := d.dial()
	m.talk(postfix + "C: M <>\nS: c\nC: R <me@example.org>\nS: c\nC: T\nS: c\nC: N\nS: c\n")
	chunk := strings.Repeat("0123456789abcde\n", 4095) // under 64 KiB, as MTAs send it
	for range 64 {
		m.raw('B', chunk)
		m.talk("S: c\n")
	}
	m.talk("C: E\nS: i 0 *\nS: a\n")
	if got, want := d.last().text, "\r\n"+strings.Repeat(chunk, 64); got != want {
		t.Errorf("stages saw %d octets, want %d", len(got), len(want))
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the spool: %v, %v", left, err)
	}
}

// Nothing an MTA, or somebody who has found the socket, can send stops the server or makes it accept what was not begun.
func FuzzPackets(f *testing.F) {
	seed := func(packets ...string) {
		var b []byte
		for _, p := range packets {
			b = append(b, 0, 0, byte(len(p)>>8), byte(len(p)))
			b = append(b, p...)
		}
		f.Add(b)
	}
	const hello = "O\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"
	seed(hello, "Cmail.example\x004\x04\xd2192.0.2.7\x00", "Hmail.example\x00", "A", "M<a@b>\x00", "R<c@d>\x00", "T",
		"LSubject\x00 x\x00", "N", "Btext", "E", "A", "Q")
	seed(hello, "DC\x00", "DCj\x00\x00", "Cx\x00U", "M\x00", "R\x00", "K", "U", "E")
	seed(hello, "M<>\x00", "R<c@d>\x00", "L\x00\x00", "E", "E", "A", "A")
	plan, err := pipeline.NewPlan(nil, pipeline.Env{}, pipeline.Options{})
	if err != nil {
		f.Fatal(err)
	}
	s := New(Config{Plan: func() *pipeline.Plan { return plan }, Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		c := newConn(s, there)
		done := make(chan struct{})
		go func() { c.serve(); close(done) }()
		go func() { // ends when the connection does
			_, _ = here.Write(b)
			_ = here.Close()
		}()
		_, _ = io.Copy(io.Discard, here)
		<-done
	})
}
