package queue

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/files"
)

// A rig is a queue with a clock and a log that a test sets and reads.
type rig struct {
	*testing.T
	*Queue
	c    Config
	disk disk
	wrap func(driver.Connector) driver.Connector

	mu  sync.Mutex
	now time.Time
	log bytes.Buffer
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{T: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), disk: files.Disk{}}
	r.c = Config{
		Dir: filepath.Join(t.TempDir(), "queue"), Hostname: "mx.example.org", Log: slog.New(slog.NewTextHandler(r, nil)),
		Now: func() time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.now
		},
		Local: func(_ context.Context, a string) (bool, error) { return strings.HasSuffix(a, "@example.org"), nil },
	}
	for _, f := range change {
		f(&r.c)
	}
	r.open()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Write takes a line of the log.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) open() {
	r.Helper()
	q, err := open(r.Context(), r.c, r.disk, r.wrap)
	if err != nil {
		r.Fatal(err)
	}
	r.Queue = q
}

// reopen is a crash and a new start: nothing is said to the queue of before but that its file is closed.
func (r *rig) reopen() {
	r.Helper()
	if err := r.Close(); err != nil {
		r.Fatal(err)
	}
	r.open()
}

const mail = "From: me@example.org\r\nTo: you@example.net\r\nSubject: Caf=C3=A9\r\nMessage-ID: <1@example.org>\r\n\r\nHello\r\n"

func outgoing(to ...string) mailstore.Outgoing {
	m := mailstore.Outgoing{
		ID: "t1", Account: "me@example.org", Why: "submission", Sender: "me@example.org", Content: strings.NewReader(mail),
	}
	for _, a := range to {
		m.Recipients = append(m.Recipients, mailstore.OutgoingRecipient{Address: a})
	}
	return m
}

// queue stages and releases a message.
func (r *rig) queue(m mailstore.Outgoing) (id string) {
	r.Helper()
	s, err := r.Stage(r.Context(), []mailstore.Outgoing{m})
	if err != nil {
		r.Fatal(err)
	}
	if err := s.Release(r.Context()); err != nil {
		r.Fatal(err)
	}
	return s.IDs()[0]
}

func all(string) bool { return true }

func (r *rig) take() []mailstore.Job {
	r.Helper()
	jobs, _, err := r.Take(r.Context(), 100, all)
	if err != nil {
		r.Fatal(err)
	}
	return jobs
}

// one takes the one job there is.
func (r *rig) one() mailstore.Job {
	r.Helper()
	jobs := r.take()
	if len(jobs) != 1 {
		r.Fatalf("%d jobs, want 1: %+v", len(jobs), jobs)
	}
	return jobs[0]
}

func (r *rig) settle(j mailstore.Job, results ...mailstore.AttemptResult) {
	r.Helper()
	if err := r.Settle(r.Context(), []mailstore.Attempt{{Message: j.Message, Domain: j.Domain, Results: results}}); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) show(id string) Message {
	r.Helper()
	m, err := r.Show(r.Context(), id)
	if err != nil {
		r.Fatal(err)
	}
	return m
}

func (r *rig) content(id string) string {
	r.Helper()
	c, err := r.Content(r.Context(), id)
	if err != nil {
		r.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

func (r *rig) files() (names []string) {
	r.Helper()
	entries, err := os.ReadDir(mailDir(r.c.Dir))
	if err != nil {
		r.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func refused(n int) mailstore.AttemptResult {
	return mailstore.AttemptResult{
		Recipient: n, Outcome: mailstore.Failed, Host: "mx.example.net [192.0.2.1]:25", Reply: "550 5.1.1 no such user", Status: "5.1.1",
	}
}

func later(n int) mailstore.AttemptResult {
	return mailstore.AttemptResult{
		Recipient: n, Outcome: mailstore.Postponed, Host: "mx.example.net [192.0.2.1]:25", Reply: "450 4.2.0 greylisted", Status: "4.2.0",
	}
}

func done(n int) mailstore.AttemptResult {
	return mailstore.AttemptResult{
		Recipient: n, Outcome: mailstore.Relayed, Host: "mx.example.net [192.0.2.1]:25", Reply: "250 2.0.0 ok", Status: "2.0.0", How: "TLS 1.3",
	}
}

func TestMailLeaves(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@Example.NET", "b@example.net.", "c@example.com"))
	jobs := r.take()
	if len(jobs) != 2 {
		t.Fatalf("%d jobs, want one a domain: %+v", len(jobs), jobs)
	}
	slices.SortFunc(jobs, func(a, b mailstore.Job) int { return strings.Compare(b.Domain, a.Domain) })
	net, com := jobs[0], jobs[1]
	if net.Domain != "example.net" || len(net.Recipients) != 2 || net.Recipients[0].Address != "a@Example.NET" || net.Sender != "me@example.org" ||
		net.Size != int64(len(mail)) || net.Message != id || net.ID != "t1" {
		t.Errorf("job %+v", net)
	}
	if got := r.content(id); got != mail {
		t.Errorf("content %q", got)
	}
	if again := r.take(); len(again) != 0 {
		t.Errorf("what is out was given again: %+v", again)
	}
	r.settle(net, done(0), done(1))
	if m := r.show(id); !m.Ended.IsZero() || m.Recipients[0].State != Relayed || m.Recipients[0].How != "TLS 1.3" || m.Recipients[2].State != Waiting {
		t.Errorf("one domain of two has got it: %+v", m)
	}
	r.settle(com, done(2))
	if m := r.show(id); m.Ended.IsZero() || m.Recipients[2].Reply != "250 2.0.0 ok" || m.Recipients[2].Attempts != 1 {
		t.Errorf("everybody has got it: %+v", m)
	}
	if left := r.files(); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
	if s := r.Stats(); s.Messages != 0 || s.Octets != 0 || s.Relayed != 3 || len(r.usage.accounts) != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestStagedIsNobodys(t *testing.T) {
	r := newRig(t)
	s, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@example.net"), outgoing("b@example.net")})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.IDs()) != 2 || len(r.files()) != 2 || len(r.take()) != 0 {
		t.Errorf("ids %v, files %v", s.IDs(), r.files())
	}
	if err := s.Withdraw(); err != nil || len(r.files()) != 0 || r.Stats().Messages != 0 {
		t.Errorf("withdrawn: %v, files %v, %+v", err, r.files(), r.Stats())
	}
	r.queue(outgoing("kept@example.net"))
	if _, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("c@example.net")}); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if j := r.one(); j.Recipients[0].Address != "kept@example.net" || len(r.files()) != 1 {
		t.Errorf("after a start: %+v, files %v", j, r.files())
	}
}

func TestTakenIsGivenBackByACrash(t *testing.T) {
	r := newRig(t)
	r.queue(outgoing("a@example.net"))
	first := r.one()
	r.reopen()
	if again := r.one(); again.Message != first.Message {
		t.Errorf("got %+v", again)
	}
}

func TestAdmit(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.queue(outgoing(fmt.Sprintf("%d@busy.example", i)))
		r.pass(time.Second)
		r.queue(outgoing(fmt.Sprintf("%d@free.example", i)))
		r.pass(time.Second)
	}
	asked := map[string]int{}
	jobs, next, err := r.Take(t.Context(), 10, func(domain string) bool {
		asked[domain]++
		return domain == "free.example"
	})
	if err != nil || len(jobs) != 3 || !next.IsZero() || asked["busy.example"] != 1 {
		t.Errorf("%d jobs, next %v, asked %v, %v", len(jobs), next, asked, err)
	}
	for i, j := range jobs {
		if want := fmt.Sprintf("%d@free.example", i); j.Recipients[0].Address != want {
			t.Errorf("place %d has %s, want the longest due first", i, j.Recipients[0].Address)
		}
	}
	jobs, next, err = r.Take(t.Context(), 2, all)
	if err != nil || len(jobs) != 2 || next.IsZero() || next.After(r.c.Now()) {
		t.Errorf("%d jobs, next %v: another one is due; %v", len(jobs), next, err)
	}
}

func TestBackoff(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Warn = -1 })
	r.queue(outgoing("a@example.net"))
	start := r.c.Now()
	var waits []time.Duration
	for r.c.Now().Before(start.Add(r.Queue.c.Age)) {
		r.settle(r.one(), later(0))
		if jobs, next, err := r.Take(t.Context(), 1, all); err != nil || len(jobs) != 0 || !next.After(r.c.Now()) {
			t.Fatalf("%d jobs, next %v, %v", len(jobs), next, err)
		} else {
			waits = append(waits, next.Sub(r.c.Now()))
			r.pass(next.Sub(r.c.Now()))
		}
	}
	curve := DefaultConfig().Backoff
	for i, w := range waits[:len(waits)-1] {
		want := curve[min(i, len(curve)-1)]
		if w < want-want/8 || w > want+want/8 {
			t.Errorf("wait %d is %v, want about %v", i, w, want)
		}
	}
	if n := len(waits); n < 30 || n > 50 {
		t.Errorf("%d attempts in 5 days", n)
	}
	j := r.one() // a last one, at its end
	if !r.c.Now().Equal(start.Add(r.Queue.c.Age)) {
		t.Errorf("the last attempt is at %v", r.c.Now().Sub(start))
	}
	r.settle(j, later(0))
	m := r.show(j.Message)
	if m.Recipients[0].State != Expired || m.Recipients[0].Attempts != len(waits)+1 {
		t.Errorf("after its age: %+v", m.Recipients[0])
	}
}

func TestEachRecipientItsOwn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Local = nil })
	id := r.queue(outgoing("a@example.net", "b@example.net", "c@example.net", "d@example.net"))
	soon := later(1)
	soon.Next = r.c.Now().Add(time.Minute)
	r.settle(r.one(), done(0), soon, later(2)) // nothing is said of d
	if j := r.one(); len(j.Recipients) != 1 || j.Recipients[0].Address != "d@example.net" || j.Recipients[0].Attempts != 0 {
		t.Errorf("untried: %+v", j.Recipients)
	} else {
		r.settle(j, done(3))
	}
	r.pass(time.Minute)
	if j := r.one(); len(j.Recipients) != 1 || j.Recipients[0].Address != "b@example.net" || j.Recipients[0].Attempts != 1 {
		t.Errorf("its own time: %+v", j.Recipients)
	} else {
		r.settle(j, done(1))
	}
	r.pass(time.Hour)
	r.settle(r.one(), done(2))
	if m := r.show(id); m.Ended.IsZero() {
		t.Errorf("not over: %+v", m)
	}
}

func TestSettleWhatIsNotOut(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net"))
	a := mailstore.Attempt{Message: id, Domain: "example.net", Results: []mailstore.AttemptResult{done(0)}}
	if err := r.Settle(t.Context(), []mailstore.Attempt{a}); err == nil {
		t.Error("settled before it was taken")
	}
	r.take()
	if err := r.Settle(t.Context(), []mailstore.Attempt{a, a}); err == nil {
		t.Error("settled twice")
	}
	if err := r.Settle(t.Context(), []mailstore.Attempt{a}); err != nil {
		t.Error(err)
	}
	if err := r.Settle(t.Context(), []mailstore.Attempt{a}); err == nil {
		t.Error("settled again")
	}
}

func TestWake(t *testing.T) {
	r := newRig(t)
	woken := func() bool {
		select {
		case <-r.Wake():
			return true
		default:
			return false
		}
	}
	woken()
	m := outgoing("a@example.net")
	m.NotBefore = r.c.Now().Add(time.Hour)
	id := r.queue(m)
	if !woken() {
		t.Error("nobody was woken for new mail")
	}
	if jobs, next, err := r.Take(t.Context(), 1, all); err != nil || len(jobs) != 0 || !next.Equal(m.NotBefore) {
		t.Errorf("%v, next %v, %v", jobs, next, err)
	}
	if err := r.Retry(t.Context(), id); err != nil || !woken() {
		t.Errorf("nobody was woken for a retry: %v", err)
	}
	r.one()
}

func TestHoldAndRelease(t *testing.T) {
	r := newRig(t)
	m := outgoing("a@example.net")
	m.Hold = "the account sends too much"
	id := r.queue(m)
	if len(r.take()) != 0 || r.show(id).Held != m.Hold || r.Stats().Held != 1 {
		t.Errorf("held mail leaves: %+v", r.show(id))
	}
	r.reopen()
	if len(r.take()) != 0 {
		t.Error("held mail leaves after a start")
	}
	r.pass(6 * 24 * time.Hour)
	if err := r.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.settle(r.one(), later(0))
	if x := r.show(id); x.Recipients[0].State != Waiting {
		t.Errorf("the time it was held makes it old: %+v", x.Recipients[0])
	}
	if err := r.Hold(t.Context(), strings.ToUpper(id), "an operator"); err != nil {
		t.Fatal(err)
	}
	r.pass(time.Hour)
	if len(r.take()) != 0 {
		t.Error("it leaves although it is held")
	}
	if err := r.Retry(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	j := r.one()
	if err := r.Hold(t.Context(), id, "while it is out"); err != nil {
		t.Fatal(err)
	}
	r.settle(j, later(0))
	r.pass(time.Hour)
	if len(r.take()) != 0 {
		t.Error("what came back is not held")
	}
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net", "b@example.com"))
	j := r.take()
	if err := r.Delete(t.Context(), id, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is out: %v", err)
	}
	r.settle(j[0], later(j[0].Recipients[0].Number))
	r.settle(j[1], done(j[1].Recipients[0].Number))
	if err := r.Delete(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	r.pass(time.Hour)
	m := r.show(id)
	if m.Ended.IsZero() || len(r.take()) != 0 || len(r.files()) != 0 || r.Stats().Messages != 0 || r.Stats().Deleted != 1 {
		t.Errorf("deleted: %+v, files %v, %+v", m, r.files(), r.Stats())
	}
	remove := func(ctx context.Context, id string) error { return r.Delete(ctx, id, "") }
	for name, f := range map[string]func(context.Context, string) error{"delete": remove, "retry": r.Retry, "release": r.Release} {
		if err := f(t.Context(), id); !errors.Is(err, ErrEnded) {
			t.Errorf("%s of what has left: %v", name, err)
		}
		if err := f(t.Context(), "q234"); !errors.Is(err, ErrNotQueued) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
}

func TestUnusable(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(*mailstore.Outgoing){
		"no recipient":     func(m *mailstore.Outgoing) { m.Recipients = nil },
		"no content":       func(m *mailstore.Outgoing) { m.Content = nil },
		"no domain":        func(m *mailstore.Outgoing) { m.Recipients[0].Address = "postmaster" },
		"empty domain":     func(m *mailstore.Outgoing) { m.Recipients[0].Address = "me@." },
		"two commands":     func(m *mailstore.Outgoing) { m.Recipients[0].Address = "a@b>\r\nDATA\r\n" },
		"sender":           func(m *mailstore.Outgoing) { m.Sender = "a@b\r\nRSET" },
		"a long address":   func(m *mailstore.Outgoing) { m.Recipients[0].Address = strings.Repeat("a", 1000) + "@b.c" },
		"broken UTF-8":     func(m *mailstore.Outgoing) { m.Sender = "a\xff@b.c" },
		"notify":           func(m *mailstore.Outgoing) { m.Recipients[0].Notify = []string{"sometimes"} },
		"return":           func(m *mailstore.Outgoing) { m.Return = "half" },
		"envelope id":      func(m *mailstore.Outgoing) { m.EnvelopeID = "a\nb" },
		"original address": func(m *mailstore.Outgoing) { m.Recipients[0].Original = "rfc822;a\nb" },
	} {
		m := outgoing("a@example.net")
		change(&m)
		if _, err := r.Stage(t.Context(), []mailstore.Outgoing{m}); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if len(r.files()) != 0 {
		t.Errorf("files %v", r.files())
	}
}

func TestPrune(t *testing.T) {
	r := newRig(t, func(c *Config) { c.KeepMessages = 2 })
	var ids []string
	for range 4 {
		ids = append(ids, r.queue(outgoing("a@example.net")))
		r.settle(r.one(), done(0))
		r.pass(time.Hour)
	}
	waiting := r.queue(outgoing("a@example.net"))
	if n, err := r.Prune(t.Context()); err != nil || n != 2 {
		t.Errorf("%d forgotten, %v", n, err)
	}
	list, err := r.List(t.Context(), Filter{All: true})
	if err != nil || len(list) != 3 || list[0].ID != ids[2] || list[2].ID != waiting {
		t.Errorf("left is %+v, %v", list, err)
	}
	r.pass(8 * 24 * time.Hour)
	if n, err := r.Prune(t.Context()); err != nil || n != 2 {
		t.Errorf("%d forgotten, %v", n, err)
	}
	if _, err := r.Show(t.Context(), waiting); err != nil {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	a := r.queue(outgoing("x@example.net"))
	m := outgoing("y@example.com")
	m.Account, m.Sender, m.Why, m.ID, m.Hold = "you@example.org", "", "vacation", "t2", "wait"
	r.pass(time.Second)
	b := r.queue(m)
	r.pass(time.Second)
	c := r.queue(outgoing("z@example.net"))
	for _, j := range r.take() {
		if j.Message == c {
			r.settle(j, done(0))
		}
	}
	for name, tt := range map[string]struct {
		f    Filter
		want []string
	}{
		"what is here":  {Filter{}, []string{a, b}},
		"all":           {Filter{All: true}, []string{a, b, c}},
		"account":       {Filter{Account: "you@example.org"}, []string{b}},
		"domain":        {Filter{Domain: "example.net", All: true}, []string{a, c}},
		"address":       {Filter{Domain: "x@example.net", All: true}, []string{a}},
		"why":           {Filter{Why: "vac"}, []string{b}},
		"no pattern":    {Filter{Why: "v%c"}, nil},
		"waiting":       {Filter{State: Waiting, All: true}, []string{a}},
		"held":          {Filter{State: Held}, []string{b}},
		"relayed":       {Filter{State: Relayed, All: true}, []string{c}},
		"transaction":   {Filter{Transaction: "t1", All: true}, []string{a, c}},
		"a page":        {Filter{All: true, Limit: 2}, []string{a, b}},
		"the next page": {Filter{All: true, Limit: 2, After: &Message{ID: b, Queued: r.show(b).Queued}}, []string{c}},
	} {
		list, err := r.List(t.Context(), tt.f)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	look, err := OpenReader(t.Context(), r.c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	if list, err := look.List(t.Context(), Filter{}); err != nil || len(list) != 2 || len(list[0].Recipients) != 1 {
		t.Errorf("another process sees %+v, %v", list, err)
	}
}
