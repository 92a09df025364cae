package program

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/cmd/sluice/program/config"
	"sluice/pipeline"
	"sluice/protocols/admin"
	"sluice/protocols/imap"
	"sluice/protocols/listen"
	"sluice/protocols/milter"
	"sluice/protocols/pop3"
	"sluice/protocols/smtp"
)

// A server answers the clients of a door.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// A door is a protocol at some sockets.
type door struct {
	name    string // as `listen:` calls it
	server  server
	options listen.Options
	tls     listen.Mode // where a socket does not say
	refuse  bool        // it has the sockets with `refuse: true`, and no others
	last    bool        // it ends after the others

	listeners []*listen.Listener
}

type doors struct {
	all []*door
	ran sync.WaitGroup // one for each listener that is served

	ready atomic.Bool // they are open, and nobody has said that they shall close
}

// doors makes the servers. They listen nowhere yet.
func (p *program) doors(c *config.Config, h *house, log *slog.Logger, plan *pipeline.Plan, key pipeline.Handover, resolver pipeline.Resolver, spool string) *doors {
	current := func() *pipeline.Plan { return plan }
	trusted := func(a netip.Addr) bool { return c.Trusts(a) }
	logins := &listen.Logins{Log: log, Now: p.now}
	store := h.space.Store(h.metrics.Store(h.store))
	mail := func(lmtp, refuse bool, limits smtp.Limits) server {
		return smtp.New(smtp.Config{
			LMTP: lmtp, Refuse: refuse, Hostname: c.Hostname, Plan: current,
			Directory: h.users, Store: store, Quarantine: h.quarantine, Recall: h.recall, Handover: key, Space: h.space.Room,
			Resolver: resolver, Trusted: trusted, Limits: limits, SpoolDir: spool, MIME: c.Limits.MIME(), Now: p.now, Log: log,
		})
	}
	asking := milter.New(milter.Config{
		Plan: current, Quarantine: h.quarantine, Recall: h.recall, Handover: key, Hostname: c.Hostname, Trusted: trusted,
		Log: log, Now: p.now, Limits: c.Limits.Milter, SpoolDir: spool, Space: h.space.Room,
	})
	readers := imap.New(imap.Config{
		Store: store, Directory: h.users, Logins: logins, Hostname: c.Hostname, Log: log, Limits: c.Limits.IMAP,
	})
	poppers := pop3.New(pop3.Config{
		Store: store, Directory: h.users, Logins: logins, Hostname: c.Hostname, Log: log, Limits: c.Limits.POP3,
	})
	// Each protocol counts by itself: many readers do not keep mail from coming in.
	options := func(busy, goodbye string, startTLS bool) listen.Options {
		return listen.Options{
			Limits: c.Limits.Sockets, Trusted: trusted, HasStartTLS: startTLS, Busy: busy, Goodbye: goodbye,
			Counter: &listen.Counter{}, Log: log,
		}
	}
	forSMTP, forLMTP := options(smtp.Busy, smtp.Goodbye, true), options(smtp.Busy, smtp.Goodbye, true)
	forMilter := options("", "", false)
	forIMAP, forPOP3 := options(imap.Busy, imap.Goodbye, true), options(pop3.Busy, pop3.Goodbye, true)
	d := &doors{}
	h.watch(map[string]*listen.Counter{
		"smtp": forSMTP.Counter, "lmtp": forLMTP.Counter, "milter": forMilter.Counter,
		"imap": forIMAP.Counter, "pop3": forPOP3.Counter,
	}, logins)
	watching := admin.New(admin.Config{Metrics: h.metrics, Checks: h.checks(c, d), Log: log, Now: p.now})
	d.all = []*door{
		{name: "smtp", server: mail(false, false, c.Limits.SMTP), options: forSMTP},
		{name: "lmtp", server: mail(true, false, c.Limits.LMTP), options: forLMTP},
		{name: "lmtp", server: mail(true, true, c.Limits.LMTP), options: forLMTP, refuse: true},
		{name: "milter", server: asking, options: forMilter, tls: listen.NoTLS},
		{name: "imap", server: readers, options: forIMAP},
		{name: "imaps", server: readers, options: forIMAP, tls: listen.Implicit},
		{name: "pop3", server: poppers, options: forPOP3},
		{name: "pop3s", server: poppers, options: forPOP3, tls: listen.Implicit},
		{name: "admin", server: watching, options: options("", "", false), tls: listen.NoTLS, last: true},
	}
	return d
}

// open opens all sockets, or none: after an error those that were open are closed.
func (d *doors) open(ctx context.Context, sockets config.Listen, certificate *tls.Config) (err error) {
	defer func() {
		if err != nil {
			d.closeAll()
		}
	}()
	n := 0
	for _, x := range d.all {
		x.options.TLS = certificate
		for _, s := range *sockets.Door(x.name) {
			if s.Refuse != x.refuse {
				continue
			}
			if s.TLS == "" {
				s.TLS = x.tls
			}
			l, err := listen.Open(ctx, s.Config, x.options)
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			x.listeners = append(x.listeners, l)
			n++
		}
	}
	if n == 0 {
		return errors.New("no door to open: `listen` names none")
	}
	return nil
}

func (d *doors) closeAll() {
	for _, x := range d.all {
		for _, l := range x.listeners {
			_ = l.Close() // nobody was served
		}
	}
}

// serve serves every listener, each in a goroutine that ends with shutdown, and returns a channel that gets the error
// of one that ends before.
func (d *doors) serve() (failed <-chan error) {
	errs := make(chan error, 1)
	for _, x := range d.all {
		for _, l := range x.listeners {
			d.ran.Go(func() {
				if err := x.server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
					select {
					case errs <- fmt.Errorf("%s at %s: %w", x.name, address(l), err):
					default: // one reason to end is enough
					}
				}
			})
		}
	}
	return errs
}

// shutdown ends all servers at once: idle clients now, mail on its way in when it has arrived or ctx has ended.
// Who watches can see that until the others have ended.
func (d *doors) shutdown(ctx context.Context) error {
	return errors.Join(d.end(ctx, false), d.end(ctx, true))
}

func (d *doors) end(ctx context.Context, last bool) error {
	var servers []server
	for _, x := range d.all {
		if x.last == last && len(x.listeners) > 0 && (len(servers) == 0 || servers[len(servers)-1] != x.server) {
			servers = append(servers, x.server)
		}
	}
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
		for _, l := range x.listeners {
			if x.name == name {
				addresses = append(addresses, address(l))
			}
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
