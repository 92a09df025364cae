package queue

import (
	"errors"
	"io"
	"strings"
	"testing"

	"sluice/mailstore"
)

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		text   string
	}{
		"messages":       {func(c *Config) { c.Messages = 2 }, "2 messages wait (queue.messages)"},
		"octets":         {func(c *Config) { c.Octets = 2 * int64(len(mail)) }, "this mail and those that wait have more than 202 octets (queue.octets)"},
		"octets with it": {func(c *Config) { c.Octets = 3*int64(len(mail)) - 1 }, "have more than 302 octets (queue.octets)"},
		"per account":    {func(c *Config) { c.PerAccount = 2 }, "2 messages of me@example.org wait (queue.per_account)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.change)
			r.queue(outgoing("a@example.net"))
			r.queue(outgoing("b@example.net"))
			_, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("c@example.net")})
			if !errors.Is(err, mailstore.ErrQueueFull) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if name == "per account" {
				m := outgoing("c@example.net")
				m.Account = "you@example.org"
				r.queue(m)
			}
			for _, j := range r.take() {
				r.settle(j, done(0))
			}
			r.queue(outgoing("d@example.net"))
		})
	}
	r := newRig(t, func(c *Config) { c.Messages = 3 })
	if _, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@b.c"), outgoing("a@b.c"), outgoing("a@b.c"), outgoing("a@b.c")}); !errors.Is(err, mailstore.ErrQueueFull) {
		t.Errorf("four at once: %v", err)
	}
	if len(r.files()) != 0 || r.Stats().Messages != 0 {
		t.Errorf("some of them stay: %v, %+v", r.files(), r.Stats())
	}
}

func TestOctetsOfSeveralAtOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Octets = 3 << 20 })
	// The second comes while the first is half there.
	large := func(meanwhile func()) io.Reader {
		half := strings.Repeat("x", 1<<20)
		return io.MultiReader(strings.NewReader(half), readerFunc(func([]byte) (int, error) { meanwhile(); return 0, io.EOF }), strings.NewReader(half))
	}
	first, second := outgoing("a@example.net"), outgoing("b@example.net")
	second.Content = large(func() {})
	first.Content = large(func() {
		if _, err := r.Stage(t.Context(), []mailstore.Outgoing{second}); err != nil {
			t.Errorf("together they fill it: %v", err)
		}
	})
	if _, err := r.Stage(t.Context(), []mailstore.Outgoing{first}); !errors.Is(err, mailstore.ErrQueueFull) {
		t.Errorf("more than fits: %v", err)
	}
	if s := r.Stats(); s.Messages != 1 || s.Octets != 2<<20 || len(r.files()) != 1 {
		t.Errorf("what did not fit is still counted, or there: %+v, files %v", s, r.files())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReportsAreNotBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Messages, c.Octets = 1, int64(len(mail)) })
	r.queue(outgoing("a@example.net"))
	r.settle(r.one(), refused(0))
	if _, err := r.fileReports(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := r.one(); j.Why != whyReport {
		t.Errorf("a full queue reports no failure: %+v", j)
	}
}
