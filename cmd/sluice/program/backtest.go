package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/lookalike"
	"sluice/pipeline/mime"
	"sluice/rules/replay"
)

type backtestCommand struct {
	Rules   []string `required:"" placeholder:"FILE" sep:"none" help:"The rule file to try, in place of those that are configured; may be repeated."`
	Against []string `default:"current" placeholder:"current|FILE" sep:"none" help:"What to compare it with: the configured rules, or another file; may be repeated."`
	Step    string   `help:"The rules step whose rules are replaced, outgoing/NAME for one of those for outgoing mail. Default: the only one."`
	Since   string   `default:"30d" help:"Try it on mail that came since: 30d, 2026-11-01, …"`
	Until   string   `help:"Try it on mail that came before. Default: now."`
	Mailbox []string `placeholder:"USER@DOMAIN[/FOLDER]" sep:"none" help:"Only mail that lies in this mailbox now, also without a record; may be repeated. Default: all recorded mail."`
	Limit   int      `default:"20" help:"How many of the mails to list that would come out otherwise; 0: all."`
	JSON    bool     `help:"Print JSON."`
}

// backtestVersion is the version of what backtest --json prints.
const backtestVersion = 1

// interrupted is what backtest ends with after Ctrl-C, when it has printed what it knew by then.
const interrupted = 130

// A backtestResult is what backtest prints.
type backtestResult struct {
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Files   []string  `json:"files"`   // tried
	Against []string  `json:"against"` // "current" or files
	// Partial: it was interrupted, and mail is missing that came later.
	Partial bool `json:"partial"`
	// Unreadable are records that cannot be read, and mail that cannot be looked at.
	Unreadable int      `json:"unreadable"`
	Notes      []string `json:"notes"`
	replay.Report
	Seconds float64 `json:"seconds"`
}

func (c *backtestCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if c.Limit < 0 {
		return fmt.Errorf("--limit %d: write how many mails to list, or 0 for all", c.Limit)
	}
	times, err := newSpan(c.Since, c.Until, p.now())
	if err != nil {
		return err
	}
	if times.until.IsZero() {
		times.until = p.now()
	}
	for i, s := range c.Mailbox {
		if c.Mailbox[i], err = p.inMailbox(s); err != nil {
			return err
		}
	}
	mailboxes, err := parseMailboxes(c.Mailbox)
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	was, is, err := c.sides(p, settings)
	if err != nil {
		return err
	}
	var result *backtestResult
	err = p.withPlans(settings, func(all *plans) error {
		b := &backtest{plans: all, outgoing: isOutgoing(settings, c.Step), was: was, is: is, times: times, mailboxes: mailboxes, tally: replay.NewTally(is, c.Limit)}
		result, err = b.run(p)
		return err
	})
	if err != nil {
		return err
	}
	result.Files, result.Against = c.Rules, c.Against
	if err := c.print(p, result); err != nil {
		return err
	}
	if result.Partial {
		return &exit{interrupted, errSilent}
	}
	return nil
}

// sides makes both plans. What is wrong with either is said at once.
func (c *backtestCommand) sides(p *program, settings *config.Config) (was, is replay.Side, err error) {
	look := whereabouts{junk: junkFolders(settings)}
	was.Junk, is.Junk = look.isJunk, look.isJunk
	var wrong [2]error
	is.Plan, wrong[0] = planWith(p, settings, c.Step, c.Rules)
	if slices.Equal(c.Against, []string{"current"}) {
		var out *pipeline.Plan
		was.Plan, out, _, wrong[1] = plansOf(settings, offlineEnv(settings.Hostname, p.now, nil))
		if isOutgoing(settings, c.Step) {
			was.Plan = out
		}
	} else {
		was.Plan, wrong[1] = planWith(p, settings, c.Step, c.Against)
	}
	var all config.Problems
	for _, err := range wrong {
		var problems config.Problems
		switch {
		case errors.As(err, &problems):
			all = append(all, problems...)
		case err != nil:
			return was, is, err
		}
	}
	if len(all) > 0 {
		return was, is, slices.Compact(all)
	}
	return was, is, nil
}

// A mailboxName is an account, and a folder of it; "" is all of them.
type mailboxName struct{ account, folder string }

func parseMailboxes(names []string) (all []mailboxName, _ error) {
	for _, s := range names {
		name, folder, _ := strings.Cut(s, "/")
		a, err := mime.ParseAddress(name)
		if err == nil && a.Domain == "" {
			err = errors.New("it has no domain")
		}
		if err != nil {
			return nil, fmt.Errorf("--mailbox %s: %w; write for example me@example.org or me@example.org/INBOX", s, err)
		}
		all = append(all, mailboxName{a.Mailbox() + "@" + a.Domain, folder})
	}
	return all, nil
}

// A backtest goes through recorded mail once.
type backtest struct {
	plans     *plans
	outgoing  bool // it is about mail that leaves
	was, is   replay.Side
	times     span
	mailboxes []mailboxName
	tally     *replay.Tally

	where      *whereabouts
	unreadable int
	notes      []string
}

// underWay is how many mails a worker is ahead of the one that is counted.
const underWay = 8

// A backtestJob is one case on its way: it is numbered in the order of the journal, and counted in that order.
type backtestJob struct {
	n     int
	c     *replay.Case
	paths []string // where copies of the mail may lie
	done  chan *replay.Compared
	err   error
}

func (b *backtest) run(p *program) (*backtestResult, error) {
	began := time.Now()
	settings := b.plans.settings
	// Ctrl-C ends the search for more; what is under way comes to its end.
	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	var err error
	if b.where, err = newWhereabouts(ctx, settings, b.times.since); err != nil {
		return nil, err
	}
	defer b.where.Close() // it was only looked at: there is nothing that could be lost
	if err := b.checkMailboxes(); err != nil {
		return nil, err
	}
	total, err := b.expected(ctx)
	if err != nil {
		return nil, err
	}
	bar := p.newProgress("mails", total)
	defer bar.end()
	defer context.AfterFunc(p.ctx, func() {
		fmt.Fprintln(p.stderr, "\nsluice: interrupted; what is known by now follows")
	})()

	workers := max(1, runtime.NumCPU())
	todo := make(chan *backtestJob, workers)
	// What is under way is bounded, however long one mail takes: it waits here to be counted in order.
	inOrder := make(chan *backtestJob, underWay*workers)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() { // until todo is closed
			for job := range todo {
				var done *replay.Compared
				done, job.err = b.decide(context.WithoutCancel(ctx), job)
				job.done <- done
			}
		})
	}
	var produced error
	given := 0
	group.Go(func() { // until there is no more mail, or ctx ends
		defer close(inOrder)
		defer close(todo)
		produced = b.produce(ctx, func(c *replay.Case, paths []string) bool {
			job := &backtestJob{n: given, c: c, paths: paths, done: make(chan *replay.Compared, 1)}
			given++
			select {
			case inOrder <- job:
			case <-ctx.Done():
				return false
			}
			todo <- job // the workers go on until it is closed
			return true
		})
	})
	var failed error
	n := 0 // counted
	for job := range inOrder {
		done := <-job.done
		switch {
		case failed != nil:
		case job.err != nil:
			failed = job.err
			stop()
		default:
			b.tally.Add(done)
			n++
			bar.at(n)
		}
	}
	group.Wait()
	bar.end()
	if failed != nil {
		return nil, failed
	}
	partial := p.ctx.Err() != nil
	if produced != nil && !partial {
		return nil, produced
	}
	result := &backtestResult{
		Version: backtestVersion, Since: b.times.since.Truncate(time.Second), Until: b.times.until.Truncate(time.Second),
		Partial: partial, Unreadable: b.unreadable, Notes: append([]string{}, b.notes...), Report: b.tally.Report(),
		Seconds: time.Since(began).Seconds(),
	}
	return result, nil
}

// expected is how many mails there are to look at: records, or what lies in the mailboxes.
func (b *backtest) expected(ctx context.Context) (total int, err error) {
	if len(b.mailboxes) == 0 {
		return b.plans.journal.Count(ctx, b.times.since, b.times.until)
	}
	for _, m := range b.eachMailbox() {
		lying, _ := b.lying(ctx, m) // what cannot be looked at is noted when its turn comes
		for _, s := range lying {
			if _, ok := b.inTime(s); ok {
				total++
			}
		}
	}
	return total, ctx.Err()
}

// eachMailbox is each of the mailboxes once.
func (b *backtest) eachMailbox() (all []mailboxName) {
	for _, m := range b.mailboxes {
		if whole := (mailboxName{account: m.account}); !slices.Contains(all, m) && (m == whole || !slices.Contains(b.mailboxes, whole)) {
			all = append(all, m)
		}
	}
	return all
}

// mostNotes is how many of the things that could not be read are told one by one.
const mostNotes = 10

func (b *backtest) note(err error) {
	b.unreadable++
	if s := err.Error(); len(b.notes) < mostNotes && !slices.Contains(b.notes, s) {
		b.notes = append(b.notes, s)
	}
}

// checkMailboxes finds each of them.
func (b *backtest) checkMailboxes() error {
	for _, m := range b.mailboxes {
		if b.where.store == nil {
			return fmt.Errorf("--mailbox %s: there is no mail in %s", m.account, b.plans.settings.Data)
		}
		a := b.where.account(m.account)
		switch {
		case len(a.folders) == 0 && a.err != nil:
			return a.err
		case len(a.folders) == 0:
			return fmt.Errorf("--mailbox %s: there is no mailbox of this name in %s", m.account, b.plans.settings.Data)
		case m.folder != "" && !containsFold(a.folders, m.folder):
			remedy := ""
			if near := lookalike.Nearest(m.folder, a.folders); near != "" {
				remedy = fmt.Sprintf("; did you mean %s/%s?", m.account, near)
			}
			return fmt.Errorf("--mailbox %s/%s: there is no such folder%s", m.account, m.folder, remedy)
		}
	}
	return nil
}

// produce hands over a case for each mail until there is none left or it is told to stop.
func (b *backtest) produce(ctx context.Context, yield func(*replay.Case, []string) bool) error {
	for r, err := range b.plans.journal.Between(ctx, b.times.since, b.times.until) {
		var unreadable *journal.UnreadableError
		switch {
		case errors.As(err, &unreadable):
			b.note(err)
			continue
		case err != nil:
			return err
		}
		if (r.Door == pipeline.Submission) != b.outgoing {
			continue // other steps decide about it
		}
		c, paths := b.recorded(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err() // the mail could not be looked at for that
		}
		if len(c.Copies) == 0 {
			continue
		}
		if !yield(c, paths) {
			return ctx.Err()
		}
	}
	for _, m := range b.eachMailbox() {
		if err := b.unrecorded(ctx, m, yield); err != nil {
			return err
		}
	}
	return nil
}

// recorded makes a case of a record: of those recipients whose mail is asked about.
func (b *backtest) recorded(ctx context.Context, r *pipeline.Record) (*replay.Case, []string) {
	c := &replay.Case{Record: r}
	var paths []string
	for i := range r.Recipients {
		x := &r.Recipients[i]
		l, now, err := b.where.look(r, x)
		if err != nil {
			b.note(err)
		}
		if now.Name != "" {
			paths = append(paths, now.Path())
		}
		if x.Disposition == pipeline.Repeated || !b.wanted(x.Account, now.Folder) {
			continue
		}
		c.Copies = append(c.Copies, replay.Copy{At: i, Label: replay.Label(l.Label), Why: l.Why})
	}
	if len(c.Copies) > 0 {
		// Without it nothing is known of what was said about a mail that is gone, which the case says itself.
		c.Then, _ = b.plans.of(ctx, r.Plan)
	}
	return c, paths
}

// wanted reports whether mail of an account that lies in a folder now, "" for nowhere, is asked about.
func (b *backtest) wanted(account, folder string) bool {
	return len(b.mailboxes) == 0 || slices.ContainsFunc(b.mailboxes, func(m mailboxName) bool {
		return m.account == account && (m.folder == "" || strings.EqualFold(m.folder, folder))
	})
}

// decide reads the mail of a case and decides on both sides. It is called by several goroutines.
func (b *backtest) decide(ctx context.Context, job *backtestJob) (*replay.Compared, error) {
	c := job.c
	if c.Bare {
		b.fetchBare(job)
	} else {
		b.fetch(ctx, job)
	}
	return replay.Compare(ctx, b.was, b.is, c, job.n%2 == 1)
}

// fetch reads the mail of a record, or says why it cannot be had.
func (b *backtest) fetch(ctx context.Context, job *backtestJob) {
	c := job.c
	if c.Record.Size == 0 {
		c.Gone = "no message came"
		return
	}
	files := make([]found, len(job.paths))
	for i, path := range job.paths {
		files[i] = found{Path: path}
	}
	m, err := b.plans.message(ctx, c.Record, files)
	switch {
	case err == nil:
		c.Message = m
	case errors.Is(err, errChanged):
		c.Gone = "the mail on disk is not the one that came"
	case len(files) == 0 && !slices.ContainsFunc(c.Record.Recipients, func(x pipeline.RecipientRecord) bool { return x.File != "" || x.Held != "" }):
		c.Gone = "it was not kept: nobody got it here"
	case len(files) == 0 && c.Record.Redacted.Took("addresses"):
		c.Gone = whyRedacted
	case len(files) == 0:
		c.Gone = "it lies nowhere any more"
	default:
		c.Gone = "it cannot be read"
	}
	if c.Message == nil && c.Then == nil {
		c.Gone = cmp.Or(c.Gone, "gone") + ", and the plan that decided cannot be made again"
	}
}
