package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/cmd/sluice/program/config"
	"sluice/protocols/imap"
	"sluice/protocols/listen"
	"sluice/protocols/managesieve"
	"sluice/protocols/milter"
	"sluice/protocols/pop3"
	"sluice/protocols/smtp"
)

// A server answers the clients of a door.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// A protocol is a server with the settings of one setup, and what its listeners need.
type protocol struct {
	server  server
	options listen.Options
	tls     listen.Mode // where a socket does not say
	last    bool        // it ends after the others
}

// A door is a protocol at one socket.
type door struct {
	name     string // as `listen:` calls it
	socket   config.Socket
	server   server
	last     bool // it ends after the others
	listener *listen.Listener
}

// doors are all sockets that are open. open, renew, serve and shutdown are called by one goroutine.
type doors struct {
	all   []*door
	ready atomic.Bool // they are open, and nobody has said that they shall close

	mu    sync.Mutex
	past  []*door        // handed over by a reload, with connections that have not ended
	ended chan struct{}  // closed by shutdown
	ran   sync.WaitGroup // one for each listener that is served, and for each of past
	errs  chan error     // of a listener that has failed
}

// refusing names the protocol of the lmtp sockets with `refuse: true`.
const refusing = "lmtp refuse"

// protocols makes servers with the settings of a setup. They listen nowhere yet.
func (s *service) protocols(x *setup) map[string]protocol {
	c, h := x.config, s.house
	store := h.space.Store(h.metrics.Store(h.store))
	mail := func(lmtp, refuse bool, limits smtp.Limits, believe func(*listen.Conn) bool) server {
		return smtp.New(smtp.Config{
			Believe: believe, State: h.state,
			LMTP: lmtp, Refuse: refuse, Hostname: c.Hostname, Plan: s.plan,
			Directory: h.users, Store: store, Quarantine: h.quarantine, Recall: h.recall, Handover: s.handover,
			Outbox: h.outbox, Results: authResults, Back: s.back,
			Space: h.space.Room, Resolver: x.resolver, Trusted: s.trusted, Limits: limits, SpoolDir: s.spool,
			MIME: c.Limits.MIME(), Now: s.program.now, Log: s.log, Run: x.scripting.pipe,
		})
	}
	senders := smtp.New(smtp.Config{
		Submission: s.submission(c), Hostname: c.Hostname, Plan: s.outgoing, Directory: h.users, Store: store,
		Quarantine: h.quarantine, Outbox: s.outbox(), Space: h.space.Room, Resolver: x.resolver, Trusted: s.trusted,
		Limits: c.Limits.Submission, SpoolDir: s.spool, MIME: c.Limits.MIME(), Now: s.program.now, Log: s.log,
	})
	asking := milter.New(milter.Config{
		Plan: s.plan, Quarantine: h.quarantine, Recall: h.recall, Handover: s.handover, Hostname: c.Hostname, Trusted: s.trusted,
		Log: s.log, Now: s.program.now, Limits: c.Limits.Milter, SpoolDir: s.spool, Space: h.space.Room,
	})
	readers := imap.New(imap.Config{
		Store: store, Directory: h.users, Keys: h.users, Logins: s.logins, Hostname: c.Hostname, Log: s.log, Limits: c.Limits.IMAP,
		Events: s.events,
	})
	poppers := pop3.New(pop3.Config{
		Store: store, Directory: h.users, Keys: h.users, Logins: s.logins, Hostname: c.Hostname, Log: s.log, Limits: c.Limits.POP3,
		Locks: &s.inboxes,
	})
	sorters := s.sieveManager(c)
	// Each protocol counts by itself: many readers do not keep mail from coming in.
	options := func(name, busy, goodbye string, startTLS bool) listen.Options {
		return listen.Options{
			Limits: c.Limits.Sockets, Trusted: s.trusted, TLS: s.certificate, HasStartTLS: startTLS, Busy: busy, Goodbye: goodbye,
			Counter: s.counters[name], Log: s.log,
		}
	}
	forLMTP := options("lmtp", smtp.Busy, smtp.Goodbye, true)
	forSenders := options("submission", smtp.Busy, smtp.Goodbye, true)
	forIMAP, forPOP3 := options("imap", imap.Busy, imap.Goodbye, true), options("pop3", pop3.Busy, pop3.Goodbye, true)
	return map[string]protocol{
		"smtp": {server: mail(false, false, c.Limits.SMTP, nil), options: options("smtp", smtp.Busy, smtp.Goodbye, true)},
		"lmtp": {server: mail(true, false, c.Limits.LMTP, nil), options: forLMTP},
		"deliver": {
			server:  mail(true, false, c.Limits.LMTP, s.believes),
			options: options("deliver", smtp.Busy, smtp.Goodbye, false), tls: listen.NoTLS,
		},
		refusing:      {server: mail(true, true, c.Limits.LMTP, nil), options: forLMTP},
		"milter":      {server: asking, options: options("milter", "", "", false), tls: listen.NoTLS},
		"submission":  {server: senders, options: forSenders},
		"submissions": {server: senders, options: forSenders, tls: listen.Implicit},
		"imap":        {server: readers, options: forIMAP},
		"imaps":       {server: readers, options: forIMAP, tls: listen.Implicit},
		"pop3":        {server: poppers, options: forPOP3},
		"pop3s":       {server: poppers, options: forPOP3, tls: listen.Implicit},
		"managesieve": {server: sorters, options: options("managesieve", managesieve.Busy, managesieve.Goodbye, true)},
		"admin":       {server: s.watching, options: options("admin", "", "", false), tls: listen.NoTLS, last: true},
	}
}

// settle returns the protocol of a socket and what its listener is told.
func settle(name string, s config.Socket, protocols map[string]protocol) (protocol, listen.Config) {
	x := protocols[name]
	if s.Refuse {
		x = protocols[refusing]
	}
	s.TLS = cmp.Or(s.TLS, x.tls)
	return x, s.Config
}

// open opens all sockets, or none: after an error those that were open are closed.
func (d *doors) open(ctx context.Context, sockets config.Listen, protocols map[string]protocol, inherited *listen.Inherited) (err error) {
	defer func() {
		if err != nil {
			d.closeAll()
		}
	}()
	for _, name := range config.Doors() {
		for _, s := range *sockets.Door(name) {
			x, c := settle(name, s, protocols)
			x.options.Inherited = inherited
			system, _ := s.Systemd()
			for range max(inherited.Count(system), 1) { // systemd may have opened several under one name
				l, err := listen.Open(ctx, c, x.options)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				d.all = append(d.all, &door{name: name, socket: s, server: x.server, last: x.last, listener: l})
			}
		}
	}
	if len(d.all) == 0 {
		return errors.New("no door to open: `listen` names none")
	}
	return nil
}

func (d *doors) closeAll() {
	for _, x := range d.all {
		_ = x.listener.Close() // nobody was served
	}
}

// serve serves every listener, each in a goroutine that ends with shutdown or when renew has replaced it, and returns a
// channel that gets the error of one that ends before.
func (d *doors) serve() (failed <-chan error) {
	d.errs, d.ended = make(chan error, 1), make(chan struct{})
	for _, x := range d.all {
		d.run(x)
	}
	return d.errs
}

func (d *doors) run(x *door) {
	d.ran.Go(func() {
		if err := x.server.Serve(x.listener); err != nil && !errors.Is(err, net.ErrClosed) {
			select {
			case d.errs <- fmt.Errorf("%s at %s: %w", x.name, address(x.listener), err):
			default: // one reason to end is enough
			}
		}
	})
}

// renew returns what gives every socket to the protocols of another setup, with what its entry in sockets says now.
// Connections stay with the server that has accepted them. Where a socket is no longer named it goes on as it was named
// before. After an error nothing has changed.
func (d *doors) renew(sockets config.Listen, protocols map[string]protocol) (turn func(), err error) {
	next := make([]*door, len(d.all))
	seen := map[string]int{}
	for i, x := range d.all {
		s := x.socket
		key := x.name + " " + s.Address
		var named []config.Socket
		if all := sockets.Door(x.name); all != nil { // deliver's is ours, no configuration names it
			for _, y := range *all {
				if y.Address == s.Address {
					named = append(named, y)
				}
			}
		}
		if len(named) > 0 {
			s = named[min(seen[key], len(named)-1)] // port 0 may be there twice, and so may a name of systemd's
		}
		seen[key]++
		p, c := settle(x.name, s, protocols)
		l, err := x.listener.Renew(c, p.options)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.name, err)
		}
		next[i] = &door{name: x.name, socket: s, server: p.server, last: p.last, listener: l}
	}
	return func() {
		before := d.all
		d.all = next
		for i, x := range before {
			before[i].listener.HandOver(next[i].listener)
			d.run(next[i])
			d.retire(x)
		}
	}, nil
}

// retire keeps a door that accepts no more until its last connection has ended.
func (d *doors) retire(x *door) {
	d.mu.Lock()
	d.past = append(d.past, x)
	d.mu.Unlock()
	d.ran.Go(func() {
		select {
		case <-d.ended:
			return
		case <-x.listener.Drained():
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.past = slices.DeleteFunc(d.past, func(y *door) bool { return y == x })
	})
}

// shutdown ends all servers at once: idle clients now, mail on its way in when it has arrived or ctx has ended.
func (d *doors) shutdown(ctx context.Context) error {
	close(d.ended)
	// Who watches can see that until the others have ended.
	return errors.Join(d.end(ctx, false), d.end(ctx, true))
}

func (d *doors) end(ctx context.Context, last bool) error {
	d.mu.Lock()
	var servers []server
	for _, x := range slices.Concat(d.all, d.past) {
		if x.last == last && !slices.Contains(servers, x.server) {
			servers = append(servers, x.server)
		}
	}
	d.mu.Unlock()
	errs := make([]error, len(servers))
	var wait sync.WaitGroup
	for i, s := range servers {
		wait.Go(func() { errs[i] = s.Shutdown(ctx) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// addresses returns the open doors as attributes of a log line: smtp=127.0.0.1:2525.
func (d *doors) addresses() (attributes []any) {
	for _, name := range config.Doors() {
		if at := d.at(name); len(at) > 0 {
			attributes = append(attributes, name, strings.Join(at, ","))
		}
	}
	return attributes
}

// at returns where a door is open.
func (d *doors) at(name string) (addresses []string) {
	for _, x := range d.all {
		if x.name == name {
			addresses = append(addresses, address(x.listener))
		}
	}
	return addresses
}

// address returns where a listener really is: the system chooses for port 0.
func address(l *listen.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
