package program

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/sending"
	"sluice/mailstore/users"
	"sluice/pipeline"
	"sluice/protocols/admin"
	"sluice/protocols/listen"
	"sluice/protocols/pop3"
	"sluice/protocols/relay"
	"sluice/protocols/smtp"
	"sluice/scanners/resolve"
)

// A service is one run of serve: what stays from its beginning to its end, and the setup of now.
type service struct {
	*program
	command  *serveCommand
	started  *config.Config // as the program began
	sockets  config.Listen  // as the program began
	level    slog.LevelVar
	log      *slog.Logger
	house    *house
	handover pipeline.Handover
	failures *failureQueue // the queue, for whoever sends from it
	spool    string
	doors    doors
	reporter *reporter // of DMARC
	back     smtp.Back // finds out to whom reports about mail go that was handed on
	leaving  sender    // brings mail from the queue to where it goes

	// What all protocols of one kind share, whatever their setup.
	certificate *tls.Config
	logins      *listen.Logins
	inboxes     pop3.Locks
	watching    *admin.Server
	events      *scriptEvents
	counters    map[string]*listen.Counter

	now atomic.Pointer[setup]
}

// A setup is one reading of the configuration and what follows from it. It does not change: a reload makes another, and
// connections and messages end on theirs.
type setup struct {
	config       *config.Config
	certificates certificates
	asking       *resolve.Resolver
	resolver     admin.Resolver  // asking, counted
	users        *users.Users    // nil in the first: the house has opened them
	believed     map[uint32]bool // users who may tell deliver's door of somebody else
	plan         *pipeline.Plan
	outgoing     *pipeline.Plan // of mail of our own users
	sending      sending.Policy // how much they may send
	keys         signingKeys    // of our domains
	scripting    *scripting     // what scripts may use
	relay        *relay.Relay   // it begins when the doors are open, or a reload has succeeded
	warnings     config.Problems
}

// plan returns what new connections and messages are decided by.
func (s *service) plan() *pipeline.Plan { return s.now.Load().plan }

// outgoing returns what mail of our own users is decided by.
func (s *service) outgoing() *pipeline.Plan { return s.now.Load().outgoing }

func (s *service) trusted(a netip.Addr) bool { return s.now.Load().config.Trusts(a) }

func (s *service) standardQuota() int64 {
	if x := s.now.Load(); x != nil {
		return int64(x.config.Limits.Quota)
	}
	return int64(s.started.Limits.Quota)
}

// serverTLS is the same from beginning to end, so that clients can resume their TLS sessions after a reload.
func (s *service) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Of now, also for a STARTTLS on a connection from before a reload.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.now.Load().certificates.choose(hello)
		},
	}
}

// prepare makes all of a setup that can fail. Nothing that runs is touched.
func (s *service) prepare(c *config.Config, sockets config.Listen) (made *setup, err error) {
	made = &setup{config: c, sending: sendingPolicy(c)}
	c.Listen.Admin = sockets.Admin // the flags win
	var certificateErr, usersErr, aliasErr error
	before := s.now.Load()
	if before != nil {
		// A reload is told about everything at once; the first start says these one by one.
		var people *users.Users
		if people, usersErr = s.openUsers(c, s.log); usersErr == nil {
			defer func() {
				if err != nil {
					err = errors.Join(err, people.Close())
				}
			}()
			aliasErr = people.CheckAliases(s.ctx)
			made.users = people
		}
	} else {
		_, aliasErr = askAccounts(s.house.users, func(u *users.Users) (none struct{}, _ error) {
			return none, u.CheckAliases(s.ctx)
		})
	}
	made.certificates, certificateErr = s.certificates(c)
	if before != nil && reflect.DeepEqual(before.config.Resolver, c.Resolver) {
		made.asking, made.resolver = before.asking, before.resolver // with all that it remembers
	} else {
		asking, err := resolve.New(c.Resolver, s.program.now, nil)
		if err != nil {
			return nil, err
		}
		made.asking, made.resolver = asking, s.house.metrics.Resolver(asking)
	}
	var planErr, believeErr, keysErr error
	made.keys, keysErr = readKeys(c)
	made.believed, believeErr = deliverUsers(c)
	_, groupErr := deliverGroup(c)
	env := pipeline.Env{
		Log: s.log, Now: s.program.now, Hostname: c.Hostname, Version: version(), Resolver: made.resolver, Dial: new(net.Dialer).DialContext,
		State: s.house.state, Journal: s.house.records, Trials: s.house.trials,
	}
	made.scripting, _ = readScripting(c) // plansOf says what is wrong with it
	env.Owners = s.owners(made)
	made.plan, made.outgoing, made.warnings, planErr = plansOf(c, env)
	relayErr := s.prepareRelay(made)
	if err := errors.Join(planErr, certificateErr, usersErr, believeErr, groupErr, keysErr, relayErr); err != nil {
		return nil, s.everythingWrong(c, err)
	}
	if err := s.keepPlans(c, made); err != nil {
		return nil, err
	}
	made.warnings = append(made.warnings, signingWarnings(c, made.keys)...)
	if aliasErr != nil {
		for _, e := range leaves(aliasErr) {
			made.warnings = append(made.warnings, config.Problem{Text: e.Error()})
		}
	}
	return made, nil
}

// keepPlans keeps both plans in the journal. Where they are the same, the one of the pipeline is kept.
func (s *service) keepPlans(c *config.Config, made *setup) error {
	err := s.house.journal.KeepPlan(s.ctx, keptOutgoing(c, made.outgoing))
	if err == nil {
		err = s.house.journal.KeepPlan(s.ctx, keptPlan(c, made.plan))
	}
	if err != nil {
		return fmt.Errorf("keep the plan: %w", err)
	}
	return nil
}

// use makes a setup the one of now.
func (s *service) use(x *setup) {
	s.now.Store(x)
	s.level.Set(x.config.Log.Level.Slog())
	if x.users != nil {
		s.house.users.replace(x.users)
	}
	s.tendKeys()
}

// reloaded is what became of a reload.
type reloaded struct {
	Version  int             `json:"version"`
	OK       bool            `json:"ok"` // else everything is as it was before
	Plan     string          `json:"plan,omitempty"`
	Errors   config.Problems `json:"errors,omitempty"`
	Warnings config.Problems `json:"warnings,omitempty"`
}

// reloadVersion is the version of what a reload answers.
const reloadVersion = 2

// reload reads the configuration and everything it names again. What is wrong with it leaves everything as it was.
func (s *service) reload() reloaded {
	made, err := s.renew()
	if err != nil {
		problems := config.AsProblems(s.started.File(), err)
		s.log.Error("the configuration is broken; the one from before goes on", "err", inOneLine(problems))
		return reloaded{Version: reloadVersion, Errors: problems}
	}
	s.warn(made.warnings)
	s.log.Info("configuration reloaded", "plan", made.plan.Version())
	return reloaded{Version: reloadVersion, OK: true, Plan: made.plan.Version(), Warnings: made.warnings}
}

func (s *service) renew() (*setup, error) {
	c, err := s.settings()
	if err != nil {
		return nil, err
	}
	sockets, err := s.command.sockets(c)
	if err != nil {
		return nil, err
	}
	later := s.needsRestart(c, sockets)
	c.Data = s.started.Data
	made, err := s.prepare(c, sockets)
	if err != nil {
		return nil, err
	}
	for _, name := range later {
		made.warnings = append(made.warnings, config.Problem{Text: name + " has changed; that needs a restart"})
	}
	turn, err := s.doors.renew(sockets, s.protocols(made))
	if err != nil {
		return nil, errors.Join(err, made.users.Close())
	}
	s.use(made)
	turn()
	s.leaving.use(made.relay)
	return made, nil
}

// needsRestart names the settings that differ from those the program began with and cannot change while it runs.
func (s *service) needsRestart(c *config.Config, sockets config.Listen) (names []string) {
	for _, x := range []struct {
		name     string
		was, now any
	}{
		{"data", s.started.Data, c.Data},
		{"folders", s.started.Folders, c.Folders},
		{"deliver_group", s.started.DeliverGroup, c.DeliverGroup},
		{"limits.disk_free", s.started.Limits.DiskFree, c.Limits.DiskFree},
		{"limits.disk_inodes", s.started.Limits.DiskInodes, c.Limits.DiskInodes},
		{"limits.scripts", s.started.Limits.Scripts, c.Limits.Scripts},
		{"limits.script_log", s.started.Limits.ScriptLog, c.Limits.ScriptLog},
		{"limits.accounts", s.started.Limits.Accounts, c.Limits.Accounts},
		{"quarantine.keep", s.started.Quarantine.Store, c.Quarantine.Store},
		{"journal", s.started.Journal, c.Journal},
		{"queue", s.started.Queue, c.Queue},
		{"sieve.imap_waiting", s.started.Sieve.IMAPWaiting, c.Sieve.IMAPWaiting},
		{"state", s.started.State, c.State},
		{"log.format", s.started.Log.Format, c.Log.Format},
	} {
		if !reflect.DeepEqual(x.was, x.now) {
			names = append(names, x.name)
		}
	}
	for _, door := range config.Doors() {
		if !slices.Equal(places(*s.sockets.Door(door)), places(*sockets.Door(door))) {
			names = append(names, "listen."+door+" (where it listens)")
		}
	}
	return names
}

// places returns what is fixed about sockets: where they are and whose.
func places(all []config.Socket) (fixed []string) {
	for _, x := range all {
		fixed = append(fixed, fmt.Sprintf("%s %o %s %s", x.Address, x.Mode, x.Owner, x.Group))
	}
	slices.Sort(fixed)
	return fixed
}

// warn says warnings in the log, each in one line.
func (s *service) warn(all config.Problems) {
	for _, x := range all {
		s.log.Warn(x.Short())
	}
}

// inOneLine returns problems for a log: places, texts and remedies.
func inOneLine(all config.Problems) string {
	var lines []string
	for _, x := range all {
		lines = append(lines, x.Short())
	}
	return strings.Join(lines, " | ")
}
