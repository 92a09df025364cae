package program

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/mailstore/quarantine"
	"sluice/mailstore/queue"
	"sluice/mailstore/refile"
	"sluice/mailstore/scripts"
	"sluice/mailstore/sending"
	"sluice/mailstore/space"
	"sluice/mailstore/state"
	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/protocols/admin"
	"sluice/protocols/listen"
	"sluice/scanners/resolve"
)

type serveCommand struct {
	Listen []string `placeholder:"DOOR=ADDRESS" sep:"none" help:"Open this door (smtp, lmtp, milter, submission, submissions, imap, imaps, pop3, pop3s, managesieve or admin) at HOST:PORT or unix:PATH; may be repeated. Only the doors named open."`
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
	owned, err := lockSoon(settings.Data, func() { time.Sleep(20 * time.Millisecond) })
	if err != nil {
		return err
	}
	defer owned.Close() // gives the folder back; the kernel would, too
	return p.serve(c, settings, sockets)
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
	users      *accounts
	store      *maildir.Store
	quarantine *quarantine.Quarantine
	journal    *journal.Journal
	state      *state.State
	sending    *sending.Sending // opened by the service, whose limits it asks
	queue      *queue.Queue
	outbox     mailstore.Outbox // the queue, for whoever sends
	// renewSenders replaces the secret that senders are rewritten with when it is time.
	renewSenders func() error
	signing      atomic.Pointer[signingOutbox] // signs reports of the queue; nil: not yet
	runs         refile.Dir
	keepRuns     time.Duration // less than 0: for ever

	metrics *admin.Metrics
	space   *space.Guard
	records pipeline.Recorder // the journal, the log and the metrics
	trials  *pipeline.Trials  // what is asked about mail that has been answered

	scripts   *scripts.Store
	scriptLog *scripts.Log
}

func (p *program) serve(command *serveCommand, c *config.Config, sockets config.Listen) (err error) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // before anything is there to reload, so that it ends nothing
	defer signal.Stop(hangups)
	// Before another process is started.
	inherited, err := listen.Inherit()
	if err != nil {
		return err
	}
	s := &service{program: p, command: command, started: c, sockets: sockets}
	s.level.Set(c.Log.Level.Slog())
	s.log = p.logger(c.Log, &s.level)
	s.certificate = s.serverTLS()
	s.logins = &listen.Logins{Log: s.log, Now: p.now}
	s.counters = map[string]*listen.Counter{"smtp": {}, "lmtp": {}, "milter": {}, "submission": {}, "imap": {}, "pop3": {}, "managesieve": {}}
	if s.house, err = p.open(c, s.log, s.standardQuota); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.house.close()) }() // once more: it does nothing then
	if s.house.sending, err = openSending(p.ctx, c, s.sendingLimits, s.accountHeld, s.log, p.now); err != nil {
		return err
	}
	s.failures = countsFailures(s.house.queue, s.house.sending.Failed, s.log)
	key, err := secret(c.Data)
	if err != nil {
		return err
	}
	s.house.watch(s.counters, s.logins, func() resolve.Stats { return s.now.Load().asking.Stats() })
	s.watching = admin.New(admin.Config{
		Metrics: s.house.metrics, Checks: s.house.checks(c, &s.doors), Log: s.log, Now: p.now,
	})
	s.handover = pipeline.Handover{Key: key}
	if s.spool, err = spoolFolder(c.Data); err != nil {
		return err
	}
	signing, err := s.signs(s.house.queue)
	if err != nil {
		return err
	}
	s.house.outbox, s.house.renewSenders, s.back = signing, signing.renewSenders, signing.returns
	s.reporter = &reporter{
		journal: s.house.journal, outbox: signing, disk: osDisk{}, dir: filepath.Join(c.Data, "dmarc"), now: p.now, log: s.log,
		resolver: func() pipeline.Resolver { return s.now.Load().resolver },
		config:   func() *config.Config { return s.now.Load().config },
	}
	first, err := s.prepare(c, sockets)
	if err != nil {
		return err
	}
	s.use(first)
	if s.events, err = newScriptEvents(s); err != nil {
		return err
	}
	defer func() { // once more: it does nothing then
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		s.events.close(ended)
	}()
	s.warn(first.warnings)
	protocols := s.protocols(first)
	if err := s.doors.open(p.ctx, sockets, protocols, inherited); err != nil {
		return err
	}
	for _, name := range inherited.Left() {
		s.log.Warn("systemd has opened a socket that no listener names; listen: {DOOR: [systemd:NAME]} would", "name", name)
	}
	if err := s.openDeliver(protocols["deliver"]); err != nil {
		s.doors.closeAll()
		return err
	}
	orders, err := s.openControl()
	if err != nil {
		s.log.Warn("sluice reload can only send a signal, and will not know what became of it", "err", err)
	}
	// Not before all doors are open: where one cannot be, the account would be there and its password never shown.
	welcome, err := p.firstAccount(c, s.house)
	if err != nil {
		s.doors.closeAll()
		return err
	}
	welcome.print(p.stdout, &s.doors)
	s.doors.ready.Store(true)
	s.leaving.use(first.relay) // not before: mail for accounts here leaves by one of our own doors
	s.log.Info("ready", append([]any{"version", version(), "data", c.Data}, s.doors.addresses()...)...)
	return s.attend(hangups, orders)
}

// open opens everything that is kept in the data folder.
func (p *program) open(c *config.Config, log *slog.Logger, standardQuota func() int64) (_ *house, err error) {
	h := &house{users: &accounts{log: log}, trials: new(pipeline.Trials), metrics: admin.NewMetrics(version()), space: spaceGuard(c, log, p.now)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	people, err := p.openUsers(c, log)
	if err != nil {
		return nil, p.everythingWrong(c, err)
	}
	h.users.replace(people)
	counters := c.State
	counters.Path, counters.Log, counters.Now = filepath.Join(c.Data, "state.db"), log, p.now
	if h.state, err = state.Open(p.ctx, counters); err != nil {
		return nil, err
	}
	records := c.Journal
	records.Path, records.Log, records.Now, records.Anew = journalPath(c), log, p.now, true
	if h.journal, err = journal.Open(p.ctx, records); err != nil {
		return nil, err
	}
	h.runs, h.keepRuns = p.runs(c), keepRuns(c.Journal)
	h.records = &admin.Recorder{Next: h.journal, Log: log, Metrics: h.metrics, Now: p.now}
	if h.quarantine, err = openQuarantine(p.ctx, c, log, p.now); err != nil {
		return nil, err
	}
	if h.scripts, h.scriptLog, err = openScripts(c, h.users.exists, log, p.now); err != nil {
		return nil, err
	}
	if h.queue, err = openQueue(p.ctx, c, isOurs(h.users), log, p.now, h.signReport); err != nil {
		return nil, err
	}
	h.outbox, h.renewSenders = h.queue, func() error { return nil } // until serve puts its own before it
	h.store, err = openStore(c, h.users.exists, quota(h.users.quota, standardQuota), log, p.now)
	return h, err
}

func (p *program) openUsers(c *config.Config, log *slog.Logger) (*users.Users, error) {
	accounts := usersConfig(c)
	accounts.Log, accounts.Now = log, p.now
	// An account that an alias leads to may be made while we run.
	accounts.Loose = true
	return users.Open(p.ctx, accounts)
}

func openQuarantine(ctx context.Context, c *config.Config, log *slog.Logger, now func() time.Time) (*quarantine.Quarantine, error) {
	held := c.Quarantine.Store
	held.Dir, held.Log, held.Now = filepath.Join(c.Data, "quarantine"), log, now
	return quarantine.Open(ctx, held)
}

func openStore(c *config.Config, exists func(context.Context, string) (bool, error),
	quota func(context.Context, string) (int64, error), log *slog.Logger, now func() time.Time,
) (*maildir.Store, error) {
	return maildir.Open(maildir.Config{
		Root: filepath.Join(c.Data, "mail"), Users: filepath.Join(c.Data, "users"),
		Exists: exists, Quota: quota,
		Furnish:  c.Folders,
		Hostname: c.Hostname, Now: now, Log: log, Limits: c.Limits.Accounts,
	})
}

// quota is how much an account may keep, 0 for as much as there is room for: its own quota, else the standard one.
func quota(own func(context.Context, string) (int64, error), standard func() int64) func(context.Context, string) (int64, error) {
	return func(ctx context.Context, account string) (int64, error) {
		most, err := own(ctx, account)
		if err != nil || most > 0 {
			return most, err
		}
		if most < 0 {
			return 0, nil // as much as there is room for
		}
		return standard(), nil
	}
}

// close closes what is open, the journal last: what the others still do leaves records. Closing twice is no error.
func (h *house) close() error {
	var errs []error
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	if h.queue != nil {
		errs = append(errs, h.queue.Close())
	}
	if h.quarantine != nil {
		errs = append(errs, h.quarantine.Close())
	}
	if h.sending != nil {
		errs = append(errs, h.sending.Close())
	}
	if h.state != nil {
		errs = append(errs, h.state.Close())
	}
	if h.users != nil {
		h.users.replace(nil)
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
func (s *service) attend(hangups <-chan os.Signal, orders *listen.Listener) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	failed := s.doors.serve()
	var chores sync.WaitGroup
	chores.Go(func() { s.house.keepTidy(ctx, s.log, s.program.now) }) // until ctx ends, below
	chores.Go(func() { s.reporter.run(ctx) })                         // the same
	asked := make(chan chan<- reloaded)
	if orders != nil {
		chores.Go(func() { s.answerOrders(ctx, orders, asked) }) // until ctx ends, below
	}
	err := s.stay(hangups, asked, failed)
	s.doors.ready.Store(false)
	cancel()
	// What hangs beyond all deadlines does not hold up the end: nothing is promised that is not on disk.
	last := time.AfterFunc(deadline, func() {
		s.log.Error("stopped, with work left undone")
		os.Exit(1)
	})
	defer last.Stop()
	grace, done := context.WithTimeout(context.Background(), s.now.Load().config.Limits.Shutdown)
	defer done()
	chores.Go(s.leaving.shutdown) // bounded by the relay's grace; mail for accounts here ends with its door
	if e := s.doors.shutdown(grace); e != nil {
		s.log.Warn("mail on its way in was broken off; its senders keep it", "err", e)
	}
	s.doors.ran.Wait()
	s.events.close(grace)
	s.house.trials.Shutdown(grace)
	chores.Wait()
	if e := s.house.close(); e != nil {
		err = errors.Join(err, e)
	}
	s.log.Info("stopped")
	return err
}

// stay returns when it is time to end. Until then it reloads when told to, one reload after the other.
func (s *service) stay(hangups <-chan os.Signal, asked <-chan chan<- reloaded, failed <-chan error) error {
	for {
		select {
		case <-hangups:
			s.reload()
		case answer := <-asked:
			answer <- s.reload()
		case err := <-failed:
			s.log.Error("a door has failed", "err", err)
			return err
		case <-s.ctx.Done():
			s.log.Info("stopping")
			return nil
		}
	}
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
	pruned, err := h.journal.Prune(ctx)
	if pruned != (journal.Pruned{}) {
		log.Info("old records removed", "old", pruned.Old, "surplus", pruned.Surplus, "redacted", pruned.Redacted, "octets", pruned.Octets)
	}
	if err != nil && ctx.Err() == nil {
		log.Error("old records were not removed", "err", err)
	}
	h.tidyQueue(ctx, log)
	h.tidyRuns(ctx, log, now)
	if err := h.renewSenders(); err != nil {
		log.Error("the secret for senders of mail that is handed on was not renewed", "err", err)
	}
}

// keepRuns is how long runs of refile are kept, which name subjects: as long as records, or until those are redacted.
// Less than 0 is for ever.
func keepRuns(c journal.Config) time.Duration {
	keep := cmp.Or(c.Keep, journal.DefaultConfig().Keep)
	if after := c.Redact.After; after > 0 && (keep < 0 || after < keep) {
		keep = after
	}
	return keep
}

// tidyRuns removes what refile has written down of runs longer ago than records are kept.
func (h *house) tidyRuns(ctx context.Context, log *slog.Logger, now func() time.Time) {
	if h.keepRuns < 0 {
		return
	}
	n, err := h.runs.Expire(ctx, now().Add(-h.keepRuns))
	if n > 0 {
		log.Info("old runs of refile removed", "runs", n)
	}
	if err != nil && ctx.Err() == nil {
		log.Error("old runs of refile were not removed", "err", err)
	}
}
