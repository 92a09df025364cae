package relay

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mailstore"
)

// A site is a relay in a bubble, with a network around it.
type site struct {
	relay   *Relay
	queue   *memory
	network *network
	zone    *zone
	reports []Report
	stop    func()
}

// start runs a relay with settings until the test, or its stop, ends it.
func start(t *testing.T, c Config, more func(*Options)) *site {
	t.Helper()
	s := &site{
		queue: &memory{wake: make(chan struct{}, 1)}, network: &network{servers: map[string]func(net.Conn){}},
		zone: &zone{
			mx: map[string][]*net.MX{}, addresses: map[string]Addresses{}, tlsa: map[string][]TLSA{}, txt: map[string][]string{},
			failing: map[string]bool{}, insecure: map[string]bool{},
		},
	}
	o := Options{
		Config: c, Queue: s.queue, Hostname: "we.example", Resolver: s.zone, Dial: s.network.dial, Log: quiet(),
		Secret:  func(string) (string, error) { return "secret", nil },
		Observe: func(r Report) { s.queue.mu.Lock(); s.reports = append(s.reports, r); s.queue.mu.Unlock() },
	}
	if more != nil {
		more(&o)
	}
	if wrong := o.Problems(); len(wrong) > 0 {
		t.Fatal(wrong[0])
	}
	var err error
	if s.relay, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.relay.Run(ctx)
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(s.stop)
	return s
}

func TestSmarthost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Config{Smarthost: []string{"192.0.2.1:25"}}, nil)
		server := &sink{}
		s.network.servers["192.0.2.1:25"] = server.serve
		for range 3 {
			s.queue.add(mailstore.Job{Domain: "example.org", Sender: "me@example.com", Recipients: to("you@example.org")}, letter)
		}
		synctest.Wait()
		if got := s.queue.history("m1"); got != `1 relayed 2.0.0 "250 2.0.0 taken" (without TLS)`+"\n" {
			t.Errorf("m1: %s", got)
		}
		if mails, _ := server.count(); mails != 3 {
			t.Errorf("%d mails came", mails)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.network.open != 0 {
			t.Errorf("%d connections are left", s.network.open)
		}
	})
}
