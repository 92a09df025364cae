package storetest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
)

// A Waiting is both sides of a queue.
type Waiting interface {
	mailstore.Outbox
	mailstore.Queue
}

// A QueueSetup makes an empty queue for a test and what the test needs besides.
type QueueSetup struct {
	Queue Waiting
	// Pass moves the queue's clock on.
	Pass func(time.Duration)
	// Restart is a crash and a new start.
	Restart func() Waiting
}

// Queue tests what every queue promises. setup is called once for each test.
func Queue(t *testing.T, setup func(t *testing.T) QueueSetup) {
	for name, test := range map[string]func(*testing.T, QueueSetup){
		"released mail is given": queueGives, "all or none": queueAllOrNone, "a crash": queueCrash, "not before": queueNotBefore,
		"held": queueHeld, "each recipient": queueEach, "settled once": queueSettledOnce, "wake": queueWakes,
	} {
		t.Run(name, func(t *testing.T) { test(t, setup(t)) })
	}
}

const leaving = "Subject: leaving\r\n\r\n.A line\r\n"

func leavingTo(addresses ...string) mailstore.Outgoing {
	m := mailstore.Outgoing{ID: "t", Why: "test", Sender: "me@example.org", Content: strings.NewReader(leaving), EnvelopeID: "x y", Return: "hdrs"}
	for _, a := range addresses {
		m.Recipients = append(m.Recipients, mailstore.OutgoingRecipient{Address: a, Notify: []string{"never"}, Original: "rfc822;" + a})
	}
	return m
}

func send(t *testing.T, q Waiting, list ...mailstore.Outgoing) []string {
	t.Helper()
	s, err := q.Stage(t.Context(), list)
	if err == nil {
		err = s.Release(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.IDs()
}

func takeAll(t *testing.T, q Waiting) []mailstore.Job {
	t.Helper()
	jobs, _, err := q.Take(t.Context(), 1000, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(jobs, func(a, b mailstore.Job) int { return strings.Compare(a.Message+a.Domain, b.Message+b.Domain) })
	return jobs
}

// end settles a job with one outcome for everybody.
func end(t *testing.T, q Waiting, j mailstore.Job, outcome mailstore.AttemptOutcome) {
	t.Helper()
	a := mailstore.Attempt{Message: j.Message, Domain: j.Domain}
	for _, r := range j.Recipients {
		a.Results = append(a.Results, mailstore.AttemptResult{Recipient: r.Number, Outcome: outcome, Reply: "250 ok"})
	}
	if err := q.Settle(t.Context(), []mailstore.Attempt{a}); err != nil {
		t.Fatal(err)
	}
}

func queueGives(t *testing.T, s QueueSetup) {
	staged, err := s.Queue.Stage(t.Context(), []mailstore.Outgoing{leavingTo("a@example.net", "b@Example.Net", "c@example.com")})
	if err != nil {
		t.Fatal(err)
	}
	if jobs := takeAll(t, s.Queue); len(jobs) != 0 {
		t.Errorf("given before it was released: %+v", jobs)
	}
	if err := staged.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	jobs := takeAll(t, s.Queue)
	if len(jobs) != 2 || jobs[0].Domain != "example.com" || jobs[1].Domain != "example.net" || len(jobs[1].Recipients) != 2 {
		t.Fatalf("given %+v", jobs)
	}
	j := jobs[1]
	if j.Message != staged.IDs()[0] || j.Sender != "me@example.org" || j.EnvelopeID != "x y" || j.Return != "hdrs" || j.Size != int64(len(leaving)) ||
		j.Recipients[1].Address != "b@Example.Net" || j.Recipients[1].Original != "rfc822;b@Example.Net" || !slices.Equal(j.Recipients[1].Notify, []string{"never"}) {
		t.Errorf("given %+v", j)
	}
	c, err := s.Queue.Content(t.Context(), j.Message)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil || string(text) != leaving || c.Size() != int64(len(leaving)) {
		t.Errorf("content %q, %d octets, %v", text, c.Size(), err)
	}
	part := make([]byte, 7)
	if _, err := c.ReadAt(part, 9); err != nil || string(part) != "leaving" {
		t.Errorf("a part of it %q, %v", part, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if again := takeAll(t, s.Queue); len(again) != 0 {
		t.Errorf("given twice: %+v", again)
	}
	for _, j := range jobs {
		end(t, s.Queue, j, mailstore.Delivered)
	}
	s.Pass(24 * time.Hour)
	if again := takeAll(t, s.Queue); len(again) != 0 {
		t.Errorf("given after it was delivered: %+v", again)
	}
}

func queueAllOrNone(t *testing.T, s QueueSetup) {
	broken := leavingTo("b@example.net")
	broken.Content = io.MultiReader(strings.NewReader("Subject: x\r\n"), unreadable{})
	if _, err := s.Queue.Stage(t.Context(), []mailstore.Outgoing{leavingTo("a@example.net"), broken}); err == nil {
		t.Error("content that cannot be read was staged")
	}
	staged, err := s.Queue.Stage(t.Context(), []mailstore.Outgoing{leavingTo("c@example.net"), leavingTo("d@example.net")})
	if err != nil || len(staged.IDs()) != 2 {
		t.Fatal(err)
	}
	if err := staged.Withdraw(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Queue.Stage(ctx, []mailstore.Outgoing{leavingTo("e@example.net")}); err == nil {
		t.Error("staged for somebody who has gone")
	}
	if jobs := takeAll(t, s.Queue); len(jobs) != 0 {
		t.Errorf("given %+v", jobs)
	}
}

type unreadable struct{}

func (unreadable) Read([]byte) (int, error) { return 0, fmt.Errorf("cannot be read") }

func queueCrash(t *testing.T, s QueueSetup) {
	ids := send(t, s.Queue, leavingTo("a@example.net", "b@example.com"), leavingTo("c@example.net"))
	if _, err := s.Queue.Stage(t.Context(), []mailstore.Outgoing{leavingTo("d@example.net")}); err != nil {
		t.Fatal(err)
	}
	jobs := takeAll(t, s.Queue)
	for _, j := range jobs {
		if j.Message == ids[0] && j.Domain == "example.net" {
			end(t, s.Queue, j, mailstore.Relayed)
		}
	}
	s.Queue = s.Restart()
	after := takeAll(t, s.Queue)
	if len(after) != 2 || len(jobs) != 3 {
		t.Fatalf("given %+v after the start, before %+v", after, jobs)
	}
	for _, j := range after {
		if j.Message == ids[0] && j.Domain == "example.net" || !slices.Contains(ids, j.Message) {
			t.Errorf("given %+v", j)
		}
	}
}

func queueNotBefore(t *testing.T, s QueueSetup) {
	m := leavingTo("a@example.net")
	send(t, s.Queue, leavingTo("now@example.net"))
	now := takeAll(t, s.Queue)
	m.NotBefore = now[0].Queued.Add(time.Hour)
	send(t, s.Queue, m)
	jobs, next, err := s.Queue.Take(t.Context(), 1, func(string) bool { return true })
	if err != nil || len(jobs) != 0 || !next.Equal(m.NotBefore) {
		t.Errorf("%+v, next at %v, %v", jobs, next, err)
	}
	s.Pass(time.Hour)
	if jobs := takeAll(t, s.Queue); len(jobs) != 1 {
		t.Errorf("an hour later %+v", jobs)
	}
}

func queueHeld(t *testing.T, s QueueSetup) {
	m := leavingTo("a@example.net")
	m.Hold = "somebody is to look at it"
	send(t, s.Queue, m)
	s.Pass(24 * time.Hour)
	if jobs := takeAll(t, s.Queue); len(jobs) != 0 {
		t.Errorf("given %+v", jobs)
	}
	s.Queue = s.Restart()
	if jobs := takeAll(t, s.Queue); len(jobs) != 0 {
		t.Errorf("after a start %+v", jobs)
	}
}

func queueEach(t *testing.T, s QueueSetup) {
	send(t, s.Queue, leavingTo("a@example.net", "b@example.net", "c@example.net"))
	j := takeAll(t, s.Queue)[0]
	err := s.Queue.Settle(t.Context(), []mailstore.Attempt{{Message: j.Message, Domain: j.Domain, Results: []mailstore.AttemptResult{
		{Recipient: j.Recipients[0].Number, Outcome: mailstore.Failed, Reply: "550 no"},
		{Recipient: j.Recipients[1].Number, Outcome: mailstore.Postponed, Reply: "450 later", Next: j.Queued.Add(time.Minute)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	now := takeAll(t, s.Queue)
	if len(now) != 1 || len(now[0].Recipients) != 1 || now[0].Recipients[0].Address != "c@example.net" || now[0].Recipients[0].Attempts != 0 {
		t.Fatalf("untried: %+v", now)
	}
	end(t, s.Queue, now[0], mailstore.Passed)
	s.Pass(time.Minute)
	now = takeAll(t, s.Queue)
	if len(now) != 1 || len(now[0].Recipients) != 1 || now[0].Recipients[0].Address != "b@example.net" || now[0].Recipients[0].Attempts != 1 {
		t.Fatalf("postponed: %+v", now)
	}
}

func queueSettledOnce(t *testing.T, s QueueSetup) {
	send(t, s.Queue, leavingTo("a@example.net"))
	j := takeAll(t, s.Queue)[0]
	end(t, s.Queue, j, mailstore.Delivered)
	if err := s.Queue.Settle(t.Context(), []mailstore.Attempt{{Message: j.Message, Domain: j.Domain}}); err == nil {
		t.Error("settled although nobody has it")
	}
}

func queueWakes(t *testing.T, s QueueSetup) {
	select {
	case <-s.Queue.Wake():
	default:
	}
	send(t, s.Queue, leavingTo("a@example.net"))
	select {
	case <-s.Queue.Wake():
	case <-time.After(10 * time.Second):
		t.Error("nobody is told of new mail")
	}
	j := takeAll(t, s.Queue)[0]
	end(t, s.Queue, j, mailstore.Postponed)
	select {
	case <-s.Queue.Wake():
	case <-time.After(10 * time.Second):
		t.Error("nobody is told of mail that is to be tried again")
	}
}
