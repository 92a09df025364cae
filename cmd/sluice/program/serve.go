package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/mailstore/quarantine"
	"sluice/mailstore/space"
	"sluice/mailstore/state"
	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/protocols/admin"
	"sluice/scanners/resolve"
)

type serveCommand struct {
	Listen []string `placeholder:"DOOR=ADDRESS" sep:"none" help:"Open this door (smtp, lmtp, milter, imap, imaps, pop3, pop3s or admin) at HOST:PORT or unix:PATH; may be repeated. Only the doors named open."`
}

func (c *serveCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	sockets, err := c.sockets(settings)
	if err != nil {
		return err
	}
	if err := makeFolder(settings.Data); err != nil {
		return err
	}
	owned, err := lock(settings.Data)
	if err != nil {
		return err
	}
	defer owned.Close() // gives the folder back; the kernel would, too
	return p.serve(settings, sockets)
}

// sockets returns what to listen at: the flags, else the configuration, else the loopback doors.
func (c *serveCommand) sockets(settings *config.Config) (config.Listen, error) {
	var flags config.Listen
	var errs []error
	for _, s := range c.Listen {
		errs = append(errs, flags.ParseListen(s))
	}
	switch {
	case len(c.Listen) > 0:
		return flags, errors.Join(errs...)
	case settings.HasListen():
		named := settings.Listen
		for _, door := range config.Doors() {
			for i, s := range *named.Door(door) {
				if path, ok := s.Unix(); ok {
					(*named.Door(door))[i].Address = "unix:" + settings.Path(path)
				}
			}
		}
		return named, nil
	}
	return config.DefaultListen(), nil
}

// A house is everything behind the doors.
type house struct {
	users      *users.Users
	store      *maildir.Store
	quarantine *quarantine.Quarantine
	journal    *journal.Journal
	state      *state.State

	metrics *admin.Metrics
	space   *space.Guard
	records pipeline.Recorder // the journal, the log and the metrics
}

func (p *program) serve(c *config.Config, sockets config.Listen) (err error) {
	log := p.logger(c.Log)
	h, err := p.open(c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }() // once more: it does nothing then
	key, err := secret(c.Data)
	if err != nil {
		return err
	}
	certificate, err := p.certificate(c)
	if err != nil {
		return err
	}
	asking, err := resolve.New(c.Resolver, p.now, nil)
	if err != nil {
		return err
	}
	resolver := h.metrics.Resolver(asking)
	plan, err := plan(c, c.Pipeline, pipeline.Env{
		Log: log, Now: p.now, Resolver: resolver, Dial: new(net.Dialer).DialContext, State: h.state, Journal: h.records,
	})
	if err != nil {
		return err
	}
	c.Listen.Admin = sockets.Admin // the flags win
	for _, w := range warnings(c, plan) {
		log.Warn(w)
	}
	if err := h.users.CheckAliases(p.ctx); err != nil {
		for _, e := range leaves(err) {
			log.Warn(e.Error())
		}
	}
	if err := h.journal.Plan(p.ctx, plan.Version(), plan.Text()); err != nil {
		return fmt.Errorf("keep the plan: %w", err)
	}
	first, err := p.firstAccount(c, h)
	if err != nil {
		return err
	}
	spool, err := spoolFolder(c.Data)
	if err != nil {
		return err
	}
	doors := p.doors(c, h, log, plan, pipeline.Handover{Key: key}, resolver, spool)
	if err := doors.open(p.ctx, sockets, certificate); err != nil {
		return err
	}
	first.print(p.stdout, doors)
	doors.ready.Store(true)
	log.Info("ready", append([]any{"version", version(), "data", c.Data}, doors.addresses()...)...)
	return p.attend(c, log, h, doors)
}

// open opens everything that is kept in the data folder.
func (p *program) open(c *config.Config, log *slog.Logger) (_ *house, err error) {
	h := &house{metrics: admin.NewMetrics(version()), space: spaceGuard(c, log, p.now)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	accounts := usersConfig(c)
	accounts.Log, accounts.Now = log, p.now
	// An account that an alias leads to may be made while we run.
	accounts.Loose = true
	if h.users, err = users.Open(p.ctx, accounts); err != nil {
		return nil, err
	}
	counters := c.State
	counters.Path, counters.Log, counters.Now = filepath.Join(c.Data, "state.db"), log, p.now
	if h.state, err = state.Open(p.ctx, counters); err != nil {
		return nil, err
	}
	records := c.Journal
	records.Path, records.Log, records.Now = journalPath(c), log, p.now
	if h.journal, err = journal.Open(p.ctx, records); err != nil {
		return nil, err
	}
	h.records = &admin.Recorder{Next: h.journal, Log: log, Metrics: h.metrics, Now: p.now}
	if h.quarantine, err = openQuarantine(p.ctx, c, log, p.now); err != nil {
		return nil, err
	}
	h.store, err = openStore(c, h.users, log, p.now)
	return h, err
}

func openQuarantine(ctx context.Context, c *config.Config, log *slog.Logger, now func() time.Time) (*quarantine.Quarantine, error) {
	held := c.Quarantine.Store
	held.Dir, held.Log, held.Now = filepath.Join(c.Data, "quarantine"), log, now
	return quarantine.Open(ctx, held)
}

func openStore(c *config.Config, u *users.Users, log *slog.Logger, now func() time.Time) (*maildir.Store, error) {
	return maildir.Open(maildir.Config{
		Root: filepath.Join(c.Data, "mail"), Users: filepath.Join(c.Data, "users"),
		Exists: u.Exists,
		Quota: func(ctx context.Context, account string) (int64, error) {
			own, err := u.Quota(ctx, account)
			if err != nil || own > 0 {
				return own, err
			}
			return int64(c.Limits.Quota), nil
		},
		Hostname: c.Hostname, Now: now, Log: log, Limits: c.Limits.Accounts,
	})
}

// close closes what is open, the journal last: what the others still do leaves records. Closing twice is no error.
func (h *house) close() error {
	var errs []error
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	if h.quarantine != nil {
		errs = append(errs, h.quarantine.Close())
	}
	if h.state != nil {
		errs = append(errs, h.state.Close())
	}
	if h.users != nil {
		errs = append(errs, h.users.Close())
	}
	if h.journal != nil {
		errs = append(errs, h.journal.Close())
	}
	*h = house{}
	return errors.Join(errs...)
}

// recall finds the record of a mail handed over; none is no error.
func (h *house) recall(ctx context.Context, id string) (*pipeline.Record, error) {
	r, err := h.journal.Recall(ctx, id)
	if errors.Is(err, journal.ErrNoRecord) {
		return nil, nil
	}
	return r, err
}

// attend serves until the program is told to stop or a door fails, and then ends it in order.
func (p *program) attend(c *config.Config, log *slog.Logger, h *house, d *doors) error {
	ctx, cancel := context.WithCancel(p.ctx)
	failed := d.serve()
	var chores sync.WaitGroup
	chores.Go(func() { h.keepTidy(ctx, log, p.now) }) // until ctx ends, below
	var err error
	select {
	case err = <-failed:
		log.Error("a door has failed", "err", err)
	case <-p.ctx.Done():
		log.Info("stopping")
	}
	d.ready.Store(false)
	cancel()
	// What hangs beyond all deadlines does not hold up the end: nothing is promised that is not on disk.
	last := time.AfterFunc(deadline, func() {
		log.Error("stopped, with work left undone")
		os.Exit(1)
	})
	defer last.Stop()
	grace, done := context.WithTimeout(context.Background(), c.Limits.Shutdown)
	defer done()
	if e := d.shutdown(grace); e != nil {
		log.Warn("mail on its way in was broken off; its senders keep it", "err", e)
	}
	d.ran.Wait()
	chores.Wait()
	if e := h.close(); e != nil {
		err = errors.Join(err, e)
	}
	log.Info("stopped")
	return err
}

// deadline is when the process ends after it was told to, come what may.
const deadline = 9500 * time.Millisecond

// keepTidy removes what has been kept long enough, now and every hour, until ctx ends.
func (h *house) keepTidy(ctx context.Context, log *slog.Logger, now func() time.Time) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		h.tidy(ctx, log, now)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *house) tidy(ctx context.Context, log *slog.Logger, now func() time.Time) {
	expired, err := h.quarantine.Expire(ctx)
	for _, row := range expired {
		log.Info("expired in quarantine", "held", row.ID, "id", row.Transaction, "recipient", row.Address)
		note := "expired in quarantine on " + now().UTC().Format(time.RFC1123)
		if err := noteHeld(ctx, h.journal, row, func(x *pipeline.RecipientRecord) { x.Note = note }); err != nil {
			log.Warn("the record does not say that a mail has expired", "held", row.ID, "err", err)
		}
	}
	if err != nil && ctx.Err() == nil {
		log.Error("old mail in quarantine was not removed", "err", err)
	}
	n, err := h.journal.Prune(ctx)
	if n > 0 {
		log.Info("old records removed", "records", n)
	}
	if err != nil && ctx.Err() == nil {
		log.Error("old records were not removed", "err", err)
	}
}
