package sending

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/state/database/databasetest"
)

const me = "me@example.org"

// A site is counts under test, with a clock that stands still.
type site struct {
	*Sending
	t      *testing.T
	path   string
	now    time.Time
	limits Limits
	others map[string]map[string]Bound
	told   []Standing
	fails  error // of telling
	log    strings.Builder
	n      int
}

func newSite(t *testing.T, limits Limits) *site {
	s := &site{t: t, path: filepath.Join(t.TempDir(), "sending.db"), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), limits: limits}
	s.open(nil)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *site) open(wrap func(driver.Connector) driver.Connector) {
	s.t.Helper()
	var err error
	s.Sending, err = open(s.t.Context(), Config{
		Path: s.path, Limits: func() Policy { return Policy{s.limits, s.others} }, Now: func() time.Time { return s.now },
		Tell: func(_ context.Context, x Standing) error {
			if s.fails == nil {
				s.told = append(s.told, x)
			}
			return s.fails
		},
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	}, wrap)
	if err != nil {
		s.t.Fatal(err)
	}
}

// send hands in a message to n recipients that nobody has written to.
func (s *site) send(n int) mailstore.Pace {
	s.t.Helper()
	s.n++
	m := mailstore.Sending{Account: me, ID: fmt.Sprintf("id%d", s.n), Client: netip.MustParseAddr("192.0.2.1")}
	for i := range n {
		m.Recipients = append(m.Recipients, fmt.Sprintf("r%d.%d@elsewhere.example", s.n, i))
	}
	return s.reserve(m)
}

func (s *site) reserve(m mailstore.Sending) mailstore.Pace {
	s.t.Helper()
	p, err := s.Reserve(s.t.Context(), m)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *site) standing() Standing {
	s.t.Helper()
	x, err := s.Standing(s.t.Context(), me)
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// Each limit is reached, first that which slows and then that which holds.
func TestLimits(t *testing.T) {
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i), 0, 1}) }
	same := []string{"a@elsewhere.example"}
	tests := []struct {
		name   string
		limits Limits
		send   func(s *site, i int) mailstore.Pace // the ith counts for one
		window time.Duration
	}{
		{"messages_per_hour", Limits{MessagesPerHour: Bound{2, 4}}, func(s *site, _ int) mailstore.Pace { return s.send(1) }, time.Hour},
		{"messages_per_day", Limits{MessagesPerDay: Bound{2, 4}}, func(s *site, _ int) mailstore.Pace { return s.send(1) }, 24 * time.Hour},
		{"recipients_per_hour", Limits{RecipientsPerHour: Bound{2, 4}}, func(s *site, _ int) mailstore.Pace { return s.send(1) }, time.Hour},
		{"recipients_per_day", Limits{RecipientsPerDay: Bound{2, 4}}, func(s *site, _ int) mailstore.Pace { return s.send(1) }, 24 * time.Hour},
		{"different_per_day", Limits{DifferentPerDay: Bound{2, 4}}, func(s *site, i int) mailstore.Pace {
			s.reserve(mailstore.Sending{Account: me, ID: fmt.Sprintf("same%d", i), Recipients: []string{fmt.Sprintf("R%d.0@elsewhere.example", s.n)}})
			return s.send(1)
		}, 24 * time.Hour},
		{"networks_per_day", Limits{NetworksPerDay: Bound{2, 4}}, func(s *site, i int) mailstore.Pace {
			s.reserve(mailstore.Sending{Account: me, ID: fmt.Sprintf("a%d", i), Client: addr(max(i-1, 0)), Recipients: same})
			return s.reserve(mailstore.Sending{Account: me, ID: fmt.Sprintf("b%d", i), Client: addr(i), Recipients: same})
		}, 24 * time.Hour},
		{"failed_per_day", Limits{FailedPerDay: Bound{2, 4}}, func(s *site, i int) mailstore.Pace {
			if err := s.Failed(t.Context(), mailstore.Sending{Account: me, ID: fmt.Sprintf("f%d", i), Recipients: same}); err != nil {
				t.Error(err)
			}
			return s.send(1)
		}, 24 * time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "different_per_day" {
				tt.limits.DifferentPerDay = Bound{3, 5} // the first has two
			}
			s := newSite(t, tt.limits)
			first := 0
			for ; ; first++ {
				p := tt.send(s, first)
				if !p.NotBefore.IsZero() {
					if !strings.Contains(p.Why, "submission.limits."+tt.name+".slow") || p.Hold != "" {
						t.Errorf("pace %+v", p)
					}
					break
				}
				if first > 5 {
					t.Fatal("it is never slowed")
				}
			}
			if first != 2 {
				t.Errorf("slowed after %d", first)
			}
			if p := tt.send(s, 3); p.Hold != "" {
				t.Errorf("held too early: %s", p.Hold)
			}
			p := tt.send(s, 4)
			if !strings.Contains(p.Hold, "submission.limits."+tt.name+".hold") {
				t.Fatalf("pace %+v", p)
			}
			if len(s.told) != 1 || s.told[0].Account != me || len(s.told[0].Records) == 0 || s.standing().State != Held {
				t.Errorf("told %+v", s.told)
			}
			// Time alone does not help, and nobody is told again.
			s.now = s.now.Add(tt.window + time.Second)
			if p := s.send(1); p.Hold == "" || len(s.told) != 1 {
				t.Errorf("pace %+v, told %d", p, len(s.told))
			}
			if err := s.Release(t.Context(), me); err != nil {
				t.Fatal(err)
			}
			if p := tt.send(s, 10); p != (mailstore.Pace{}) || s.standing().State != Free {
				t.Errorf("after its release: %+v", p)
			}
		})
	}
}

// Mail that is slowed leaves as fast as the limit allows, and no faster.
func TestSlowed(t *testing.T) {
	s := newSite(t, Limits{RecipientsPerHour: Bound{Slow: 60}})
	if p := s.send(60); p != (mailstore.Pace{}) {
		t.Fatalf("pace %+v", p)
	}
	var got []time.Duration
	for range 3 {
		got = append(got, s.send(10).NotBefore.Sub(s.now))
	}
	if want := []time.Duration{10 * time.Minute, 20 * time.Minute, 30 * time.Minute}; !slices.Equal(got, want) {
		t.Errorf("leaves after %v, want %v", got, want)
	}
	if x := s.standing(); x.State != Free || x.Slowed.Sub(s.now) != 30*time.Minute || !strings.HasPrefix(x.Slow, "90 recipients in an hour, more than 60") {
		t.Errorf("standing %+v", x)
	}
	if n := strings.Count(s.log.String(), "is slowed"); n != 1 {
		t.Errorf("said %d times", n)
	}
	s.now = s.now.Add(61 * time.Minute)
	if p := s.send(60); p != (mailstore.Pace{}) {
		t.Errorf("an hour later: %+v", p)
	}
}

// What is said of the account counts before what is said of its domain, limit by limit.
func TestLimitsOfSome(t *testing.T) {
	s := newSite(t, Limits{MessagesPerHour: Bound{1, 2}, MessagesPerDay: Bound{0, 3}, RecipientsPerDay: Bound{0, 50}})
	s.others = map[string]map[string]Bound{
		"@example.org":     {"messages_per_hour": {0, 4}, "messages_per_day": {}},
		me:                 {"messages_per_hour": {0, 6}},
		"you@example.org":  {"messages_per_hour": {0, 0}},
		"@elsewhere.other": {"messages_per_hour": {0, 0}},
	}
	for _, tt := range []struct {
		account, hold string
		slowed        bool
		taken         int
	}{
		{me, "7 messages in an hour, more than 6 (submission.limits_for." + me + ".messages_per_hour.hold)", false, 6},
		{"they@example.org", "5 messages in an hour, more than 4 (submission.limits_for.@example.org.messages_per_hour.hold)", false, 4},
		{"you@example.org", "100 recipients in a day, more than 50 (submission.limits.recipients_per_day.hold)", false, 7},
		{"x@example.net", "3 messages in an hour, more than 2 (submission.limits.messages_per_hour.hold)", true, 2},
	} {
		for n := 0; ; n++ {
			m := mailstore.Sending{Account: tt.account, ID: fmt.Sprint(tt.account, n), Recipients: make([]string, 1)}
			if n == 7 {
				m.Recipients = make([]string, 93)
			}
			p := s.reserve(m)
			if p.Hold != "" {
				if p.Hold != tt.hold || n != tt.taken {
					t.Errorf("%s: held after %d: %s", tt.account, n, p.Hold)
				}
				break
			}
			if slowed := !p.NotBefore.IsZero(); slowed && !tt.slowed || n > 7 {
				t.Errorf("%s: mail %d: %+v", tt.account, n, p)
				break
			}
		}
	}
	x := s.standing()
	if c := x.Counts[0]; c.Bound != (Bound{0, 6}) || c.From != me || c.Used != 7 {
		t.Errorf("%+v", c)
	}
	if c := x.Counts[1]; c.Bound != (Bound{}) || c.From != "@example.org" {
		t.Errorf("%+v", c)
	}
	if c := x.Counts[3]; c.Bound != (Bound{0, 50}) || c.From != "" || c.Bound.String() != "never slowed, held over 50" {
		t.Errorf("%+v", c)
	}
}

func TestNoLimits(t *testing.T) {
	s := newSite(t, Limits{})
	for range 50 {
		if p := s.send(10); p != (mailstore.Pace{}) {
			t.Fatalf("pace %+v", p)
		}
	}
}

// What was counted survives a restart; the day before yesterday does not.
func TestRestart(t *testing.T) {
	s := newSite(t, Limits{MessagesPerDay: Bound{2, 3}, RecipientsPerDay: Bound{100, 200}})
	s.send(5)
	s.send(5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.open(nil)
	if p := s.send(1); p.NotBefore.IsZero() {
		t.Error("it was forgotten")
	}
	s.now = s.now.Add(25 * time.Hour)
	if p := s.send(1); p != (mailstore.Pace{}) {
		t.Errorf("pace %+v", p)
	}
	var rows int
	if err := s.db.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM sent) + (SELECT count(*) FROM named)").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows are kept (%v)", rows, err)
	}
	for _, c := range s.standing().Counts {
		if c.Name == "recipients_per_day" && (c.Used != 1 || c.Bound.Hold != 200) {
			t.Errorf("count %+v", c)
		}
	}
}

func TestCancelled(t *testing.T) {
	s := newSite(t, Limits{MessagesPerHour: Bound{1, 2}})
	for i := range 5 {
		s.send(3)
		if err := s.Cancel(t.Context(), mailstore.Sending{Account: me, ID: fmt.Sprintf("id%d", i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	if p := s.send(1); p != (mailstore.Pace{}) {
		t.Errorf("pace %+v", p)
	}
}

func TestBlock(t *testing.T) {
	s := newSite(t, Limits{MessagesPerHour: Bound{0, 1}})
	why, err := s.Blocked(t.Context(), me)
	if err != nil || why != "" {
		t.Fatalf("%q, %v", why, err)
	}
	if err := s.Block(t.Context(), me, ""); err != nil {
		t.Fatal(err)
	}
	if why, _ = s.Blocked(t.Context(), me); why != "an administrator has blocked it" {
		t.Errorf("%q", why)
	}
	if err := s.Block(t.Context(), me, "on holiday"); err != nil {
		t.Fatal(err)
	}
	if why, _ = s.Blocked(t.Context(), me); why != "on holiday" {
		t.Errorf("%q", why)
	}
	if p := s.send(1); p.Hold != "on holiday" || len(s.told) > 0 {
		t.Errorf("a message on its way in: %+v", p)
	}
	if all, err := s.Stopped(t.Context()); err != nil || !slices.Equal(all, []string{me}) {
		t.Errorf("%v, %v", all, err)
	}
	if err := s.Release(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	if why, _ = s.Blocked(t.Context(), me); why != "" {
		t.Errorf("%q", why)
	}
}

// Who could not be told is told with the next message.
func TestTellingFails(t *testing.T) {
	s := newSite(t, Limits{MessagesPerHour: Bound{0, 1}})
	s.fails = errors.New("no postmaster")
	s.send(1)
	s.send(1)
	if x := s.standing(); x.State != Held || !strings.Contains(s.log.String(), "no postmaster") {
		t.Errorf("standing %+v, log %s", x, s.log.String())
	}
	s.fails = nil
	s.send(1)
	s.send(1)
	if len(s.told) != 1 || s.told[0].Why == "" || strings.Join(s.told[0].Records, " ") != "id1 id2" {
		t.Errorf("told %+v", s.told)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := newSite(t, Limits{MessagesPerHour: Bound{0, 20}})
	var wait sync.WaitGroup
	var mu sync.Mutex
	held := 0
	for i := range 40 {
		wait.Go(func() {
			p, err := s.Reserve(t.Context(), mailstore.Sending{Account: me, ID: fmt.Sprintf("m%d", i), Recipients: []string{"a@b.example"}})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if p.Hold != "" {
				held++
			}
		})
	}
	wait.Wait()
	if held != 20 || len(s.told) != 1 {
		t.Errorf("%d held, told %d times", held, len(s.told))
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.9": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48",
	} {
		if got := network(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if got := network(netip.Addr{}); got != "" {
		t.Errorf("%q", got)
	}
}

func TestCheck(t *testing.T) {
	if wrong := DefaultLimits().Check(); len(wrong) > 0 {
		t.Errorf("defaults: %v", wrong)
	}
	wrong := Limits{MessagesPerHour: Bound{-1, 1}, MessagesPerDay: Bound{1, -1}, FailedPerDay: Bound{5, 4}, NetworksPerDay: Bound{5, 0}}.Check()
	if len(wrong) != 3 || wrong["messages_per_hour.slow"] == nil || wrong["messages_per_day.hold"] == nil || wrong["failed_per_day.hold"] == nil {
		t.Errorf("%v", wrong)
	}
}

// The n-th call to the database fails: the message is not counted, or it is and nobody was told, and the next is.
func TestNthCallFails(t *testing.T) {
	for n := 1; ; n++ {
		s := newSite(t, Limits{MessagesPerHour: Bound{1, 2}})
		s.send(1)
		s.send(1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var faults databasetest.Faults
		s.open(faults.Wrap)
		faults.FailAt(n)
		p, err := s.Reserve(t.Context(), mailstore.Sending{Account: me, ID: "last", Recipients: []string{"a@b.example"}})
		failed := faults.Calls() >= n
		faults.FailAt(0)
		x := s.standing()
		switch {
		case err != nil && (!errors.Is(err, databasetest.ErrFault) || x.State != Free || x.Counts[0].Used != 2 || p != (mailstore.Pace{})):
			t.Errorf("call %d: %v, %+v, standing %+v", n, err, p, x)
		case err == nil && (p.Hold == "" || x.State != Held):
			t.Errorf("call %d: %+v, standing %+v", n, p, x)
		}
		p, err = s.Reserve(t.Context(), mailstore.Sending{Account: me, ID: "more", Recipients: []string{"a@b.example"}})
		if err != nil || p.Hold == "" || len(s.told) == 0 {
			t.Errorf("call %d, and again: %v, %+v, told %d", n, err, p, len(s.told))
		}
		_ = s.Close()
		if !failed {
			if n < 5 {
				t.Error("nothing failed")
			}
			return
		}
	}
}
