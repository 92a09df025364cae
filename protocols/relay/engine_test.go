package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mailstore"
)

// fill queues n mails to a domain.
func (s *site) fill(n int, domain string) {
	for i := range n {
		s.queue.add(mailstore.Job{Message: fmt.Sprintf("%s %d", domain, i+1), Domain: domain, Sender: "me@example.com", Recipients: to("you@" + domain)}, letter)
	}
}

// Connections are used again, each for so many mails, and there are no more of them than allowed.
func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 3, PerConnection: 10}, nil)
		server := &sink{}
		s.network.servers["192.0.2.1:25"] = server.serve
		s.fill(90, "example.org")
		time.Sleep(time.Second)
		if mails, conns := server.count(); mails != 90 || conns < 9 || conns > 12 {
			t.Errorf("%d mails over %d connections", mails, conns)
		}
		synctest.Wait()
		if s.network.most > 6 { // some may still say goodbye
			t.Errorf("%d connections at once", s.network.most)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s.network.open != 0 {
			t.Errorf("%d connections are kept", s.network.open)
		}
	})
}

// A server that has closed a connection meanwhile costs another connection, and no attempt.
func TestIdleConnectionIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, Idle: time.Hour}, nil)
		server := &sink{}
		s.network.servers["192.0.2.1:25"] = func(c net.Conn) {
			time.AfterFunc(time.Minute, func() { c.Close() })
			server.serve(c)
		}
		for i := range 3 {
			s.fill(i+1, fmt.Sprintf("%d.example", i))
			time.Sleep(2 * time.Minute)
		}
		for i := range 3 {
			if got := s.queue.history(fmt.Sprintf("%d.example 1", i)); !strings.HasPrefix(got, "1 relayed") {
				t.Errorf("mail %d: %s", i+1, got)
			}
		}
	})
}

// One destination that hangs, and many that do, leave room for those that work.
func TestHangsDoNotHoldOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Direct: true, Connections: 20, PerDestination: 5}, nil)
		good := &sink{}
		s.network.servers["192.0.2.1:25"] = good.serve
		s.network.servers["192.0.2.2:25"] = func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
		s.zone.addresses["works.example"], s.zone.addresses["hangs.example"] = ips("192.0.2.1"), ips("192.0.2.2")
		for i := range 40 {
			name := fmt.Sprintf("hangs%d.example", i)
			s.zone.addresses[name] = ips("192.0.2.2")
		}
		s.fill(1, "works.example")
		time.Sleep(time.Second) // it is known to work
		s.fill(100, "hangs.example")
		for i := range 40 {
			s.fill(10, fmt.Sprintf("hangs%d.example", i))
		}
		time.Sleep(time.Second)
		s.fill(100, "works.example")
		time.Sleep(time.Second)
		if mails, _ := good.count(); mails != 101 {
			t.Errorf("%d of 101 mails came beside destinations that hang", mails)
		}
	})
}

// A destination whose servers are all down is left alone as a whole, for longer each time; its mail is told why, and one
// mail finds out when it is back. It takes days and loses nothing.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 5}, nil)
		s.fill(60, "example.org")
		time.Sleep(time.Minute)
		if n := len(s.network.calls()); n > 5 {
			t.Errorf("%d connections were tried to a server that is down", n)
		}
		if got := s.queue.history("example.org 60"); !strings.HasPrefix(got, `1 postponed 4.4.1 "connect: connection refused" (not tried: its servers, none of which could be talked to, are left alone until 2000-01-01T00:01:00Z)`) {
			t.Errorf("the last mail: %s", got)
		}
		time.Sleep(3 * 24 * time.Hour)
		calls := len(s.network.calls())
		if calls > 3*24*4+10 || calls < 3*24*4-10 { // every 15 minutes, as the queue has it due
			t.Errorf("%d tries in three days", calls)
		}
		server := &sink{}
		s.network.mu.Lock()
		s.network.servers["192.0.2.1:25"] = server.serve
		s.network.mu.Unlock()
		time.Sleep(31 * time.Minute)
		if mails, _ := server.count(); mails != 60 {
			t.Errorf("%d of 60 mails came when it was back", mails)
		}
		if got := s.queue.history("example.org 1"); strings.Count(got, "\n") < 200 {
			t.Errorf("%d attempts are told of", strings.Count(got, "\n"))
		}
	})
}

// Who has mended a server and wants its mail tried now does not wait until it would be asked by itself.
func TestAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, BackOff: time.Hour, BackOffMost: time.Hour}, nil)
		s.fill(1, "example.org")
		time.Sleep(16 * time.Minute) // it was due again, and nobody was asked
		if n := len(s.network.calls()); n != 1 {
			t.Fatalf("%d connections were tried", n)
		}
		server := &sink{}
		s.network.mu.Lock()
		s.network.servers["192.0.2.1:25"] = server.serve
		s.network.mu.Unlock()
		s.relay.Anew()
		time.Sleep(15 * time.Minute)
		if mails, _ := server.count(); mails != 1 {
			t.Errorf("%d mails came", mails)
		}
	})
}

// A server that takes fewer connections than we would like gets fewer, and nobody's mail waits for that.
func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 10, PerConnection: 1000}, nil)
		server := &sink{}
		var mu sync.Mutex
		open := 0
		s.network.servers["192.0.2.1:25"] = func(c net.Conn) {
			mu.Lock()
			open++
			full := open > 3
			mu.Unlock()
			defer func() {
				mu.Lock()
				open--
				mu.Unlock()
			}()
			if full {
				_, _ = io.WriteString(c, "421 4.7.0 too many connections\r\n")
				return
			}
			server.serve(c)
		}
		s.fill(1, "example.org")
		time.Sleep(time.Second)
		s.fill(300, "example.com")
		time.Sleep(time.Minute)
		if mails, _ := server.count(); mails != 301 {
			t.Errorf("%d of 301 mails came", mails)
		}
		for i := range 300 {
			if got := s.queue.history(fmt.Sprintf("example.com %d", i+1)); strings.Count(got, "\n") != 1 {
				t.Fatalf("mail %d: %s", i+1, got)
			}
		}
	})
}

// A mail that is refused or put off by itself holds up no other.
func TestMailIsNotTheDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 1}, nil)
		n := 0
		server := &sink{answer: func(verb, _ string) string {
			if verb == "MAIL" {
				if n++; n%2 == 0 {
					return "451 4.7.1 greylisted"
				}
			}
			return ""
		}}
		s.network.servers["192.0.2.1:25"] = server.serve
		s.fill(10, "example.org")
		time.Sleep(time.Second)
		if mails, _ := server.count(); mails != 5 {
			t.Errorf("%d mails came", mails)
		}
	})
}

// When it is told to end, what is being sent is finished, and the rest goes back as if nobody had tried.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 2}, nil)
		server := &sink{answer: func(verb, _ string) string {
			if verb == "END" {
				time.Sleep(2 * time.Second)
			}
			return ""
		}}
		s.network.servers["192.0.2.1:25"] = server.serve
		s.fill(10, "example.org")
		time.Sleep(time.Second)
		began := time.Now()
		s.stop()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v to end", took)
		}
		synctest.Wait()
		delivered, untried := 0, 0
		for _, e := range s.queue.entries {
			switch {
			case e.out:
				t.Errorf("%s was not given back", e.job.Message)
			case len(e.results) > 0:
				delivered++
			default:
				untried++
			}
		}
		if mails, _ := server.count(); delivered != mails || delivered < 1 || untried < 6 {
			t.Errorf("%d delivered, %d came, %d untried", delivered, mails, untried)
		}
		if s.network.open != 0 {
			t.Errorf("%d connections are left", s.network.open)
		}
	})
}

// What hangs when the time to end is over is given back; what may have been taken is told as that.
func TestStopHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Direct: true}, nil)
		for ip, verb := range map[string]string{"192.0.2.1": "MAIL", "192.0.2.2": "END"} {
			s.network.servers[ip+":25"] = (&sink{answer: func(v, _ string) string { return map[string]string{verb: "hang"}[v] }}).serve
		}
		s.zone.addresses["mail.example"], s.zone.addresses["end.example"] = ips("192.0.2.1"), ips("192.0.2.2")
		s.fill(1, "mail.example")
		s.fill(1, "end.example")
		time.Sleep(time.Second)
		began := time.Now()
		s.stop()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %v to end", took)
		}
		if got := s.queue.history("mail.example 1"); got != "" {
			t.Errorf("before the data: %s", got)
		}
		if got := s.queue.history("end.example 1"); !strings.Contains(got, "which it may have taken") {
			t.Errorf("after the data: %s", got)
		}
	})
}

// While the queue does not keep what became of mail, none is sent again, and no more than may be sent twice.
func TestSettleFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}, PerDestination: 3}, nil)
		server := &sink{}
		s.network.servers["192.0.2.1:25"] = server.serve
		s.queue.broken = errors.New("disk full")
		s.fill(40, "example.org")
		time.Sleep(10 * time.Minute)
		if mails, _ := server.count(); mails != 3 {
			t.Errorf("%d mails were sent while nothing could be kept", mails)
		}
		s.queue.mu.Lock()
		s.queue.broken = nil
		s.queue.mu.Unlock()
		time.Sleep(time.Minute)
		if mails, _ := server.count(); mails != 40 {
			t.Errorf("%d mails were sent in all", mails)
		}
	})
}

// A queue that fails for a while is asked again.
type moody struct {
	*memory
	fails int
}

func (m *moody) Take(ctx context.Context, n int, admit func(string) bool) ([]mailstore.Job, time.Time, error) {
	if m.fails > 0 {
		m.fails--
		return nil, time.Time{}, errors.New("disk")
	}
	return m.memory.Take(ctx, n, admit)
}

func TestTakeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}}, func(o *Options) {
			o.Queue = &moody{o.Queue.(*memory), 3}
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		server := &sink{}
		s.network.servers["192.0.2.1:25"] = server.serve
		s.fill(1, "example.org")
		time.Sleep(time.Minute)
		if mails, _ := server.count(); mails != 1 {
			t.Errorf("%d mails came", mails)
		}
		s.stop()
		for _, want := range []string{`level=ERROR msg="the queue gives no mail" err=disk`,
			`level=INFO msg="mail relayed" message="example.org 1" id="" from=me@example.com to=you@example.org host=192.0.2.1:25 reply="250 2.0.0 taken" status=2.0.0 how="without TLS" attempt=1 took=0s`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, log.String())
			}
		}
	})
}

// A message whose file is gone has failed; mail of ours stays here.
type here struct {
	mu    sync.Mutex
	texts []string
}

func (h *here) Deliver(_ context.Context, job mailstore.Job, content mailstore.Content) (list []mailstore.AttemptResult) {
	text, _ := io.ReadAll(content)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.texts = append(h.texts, string(text))
	for _, x := range job.Recipients {
		list = append(list, mailstore.AttemptResult{Recipient: x.Number, Outcome: mailstore.Delivered, Status: "2.0.0", Reply: "filed"})
	}
	return list
}

func TestLocalAndGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := &here{}
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}}, func(o *Options) {
			o.Local, o.IsLocal = local, func(domain string) bool { return domain == "ours.example" }
		})
		s.fill(1, "ours.example")
		s.queue.add(mailstore.Job{Message: "gone", Domain: "example.org", Recipients: to("you@example.org")}, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(local.texts, []string{letter}) {
			t.Errorf("here came %q", local.texts)
		}
		if got := s.queue.history("gone"); got != `1 failed 5.3.0 "the message is gone from the queue"`+"\n" {
			t.Errorf("gone: %s", got)
		}
		if len(s.network.calls()) > 0 {
			t.Errorf("somebody was called: %v", s.network.calls())
		}
		want := []Report{{Destination: "local", Outcomes: []mailstore.AttemptOutcome{mailstore.Delivered}}, {Destination: "smarthost", Outcomes: []mailstore.AttemptOutcome{mailstore.Failed}}}
		if got := fmt.Sprint(s.reports); got != fmt.Sprint(want) && got != fmt.Sprint([]Report{want[1], want[0]}) {
			t.Errorf("reports: %s", got)
		}
	})
}
