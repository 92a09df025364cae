package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/mailstore/queue"
	"sluice/pipeline"
)

type explainCommand struct {
	JSON  bool   `help:"Print JSON; sluice reference --record-schema describes it."`
	Color string `enum:"auto,always,never" default:"auto" help:"Colours: auto (on a terminal, unless NO_COLOR is set), always or never."`
	Full  bool   `help:"Show long values whole."`
	User  string `placeholder:"ACCOUNT" help:"Show only what the owner of this mailbox may see."`
	To    string `group:"find" placeholder:"ADDRESS" help:"Mail for this recipient or account, or @DOMAIN."`
	From  string `group:"find" placeholder:"ADDRESS" help:"Mail of this sender, of @DOMAIN, or <> for the null sender."`
	Since string `group:"find" placeholder:"TIME" help:"Mail from then on: how long ago (2h, 7d), or \"2026-11-20 14:05\"."`
	Until string `group:"find" placeholder:"TIME" help:"Mail before then."`
	At    string `group:"find" placeholder:"TIME" help:"Mail of the quarter of an hour before and after."`
	Limit int    `group:"find" default:"20" help:"How many of what is found are listed: the newest."`
	Mail  string `group:"find" placeholder:"FILE" help:"The mail itself; - reads it from standard input."`
	Key   string `arg:"" optional:"" help:"A transaction's id, an MTA's queue id, a Message-ID, the name or path of a mail's file, or an id in quarantine; - is the mail itself on standard input."`
}

// explainVersion is the version of what explain --json prints.
const explainVersion = 1

type explanation struct {
	Record *pipeline.Record `json:"record"`
	Files  []found          `json:"files"`
	Sent   []queued         `json:"sent,omitempty"`  // mail that left because of it, or is to leave
	Again  *insight         `json:"again,omitempty"` // what came of deciding again

	leaving []queue.Message // Sent
}

// explanations is what explain --json prints.
type explanations struct {
	Version int           `json:"version"`
	Records []explanation `json:"records"`
	More    bool          `json:"more,omitempty"` // there are older ones than --limit lets through
}

func (c *explainCommand) Run(p *program) error {
	if c.Key == "-" { // no mail is called so
		c.Mail, c.Key = c.Key, ""
	}
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	records, more, err := c.find(p, settings)
	var unreadable *journal.UnreadableError
	if err != nil && !errors.As(err, &unreadable) {
		return err
	}
	if err != nil && len(records) > 0 {
		for _, e := range parts(err) {
			fmt.Fprintf(p.stderr, "sluice: left out: %s\n", config.Printable(e.Error()))
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if c.User != "" {
		records = ownersView(records, c.User, settings.Journal.PrivateRules)
	}
	if len(records) == 0 {
		return fmt.Errorf("no record of %s in %s", c.sought(), settings.Data)
	}
	return c.print(p, settings, records, more)
}

// searched reports whether the command looks for what was, instead of a mail that it names.
func (c *explainCommand) searched() bool {
	return c.To != "" || c.From != "" || c.Since != "" || c.Until != "" || c.At != ""
}

// Validate is asked when the command line is read.
func (c *explainCommand) Validate() error {
	ways := 0
	for _, given := range []bool{c.Key != "", c.Mail != "", c.searched()} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return errors.New("which mail? Name its id, queue id, Message-ID or file, or look for it with --to, --from, --since, --at or --mail")
	case ways > 1:
		return errors.New("a mail is named by its id or file, given with --mail, or looked for with --to, --from, --since, --until and --at: one of these")
	case c.At != "" && (c.Since != "" || c.Until != ""):
		return errors.New("--at says when it was by itself: leave out --since and --until")
	case c.Limit < 1:
		return fmt.Errorf("--limit %d: at least 1", c.Limit)
	}
	return nil
}

// sought says what was looked for.
func (c *explainCommand) sought() string {
	var all []string
	for _, x := range []struct{ name, value string }{
		{"", c.Key}, {"the mail in", c.Mail}, {"mail to", c.To}, {"from", c.From}, {"since", c.Since}, {"until", c.Until}, {"around", c.At},
		{"for", c.User},
	} {
		if x.value != "" {
			all = append(all, strings.TrimSpace(x.name+" "+x.value))
		}
	}
	return strings.Join(all, " ")
}

func (c *explainCommand) find(p *program, settings *config.Config) (records []*pipeline.Record, more bool, err error) {
	switch {
	case c.Mail != "":
		records, err = p.findMail(settings, c.Mail)
		return records, false, err
	case !c.searched():
		records, err = await(p.ctx, settings, c.Key)
		return records, false, err
	}
	q, err := c.query(p.now())
	if err != nil {
		return nil, false, err
	}
	err = withRecords(p.ctx, settings, func(j *journal.Journal) error {
		records, more, err = j.Newest(p.ctx, q, c.Limit)
		return err
	})
	return records, more, err
}

// around is how far from --at a mail may have come.
const around = 15 * time.Minute

func (c *explainCommand) query(now time.Time) (q journal.Query, err error) {
	q.Recipient, q.Sender = c.To, c.From
	s, err := newSpan(c.Since, c.Until, now)
	if err != nil {
		return q, err
	}
	q.Since, q.Until = s.since, s.until
	if c.At != "" {
		at, err := pastMoment("--at", c.At, now)
		if err != nil {
			return q, err
		}
		q.Since, q.Until = at.Add(-around), at.Add(around)
	}
	return q, nil
}

func (c *explainCommand) print(p *program, settings *config.Config, records []*pipeline.Record, more bool) error {
	if c.searched() && len(records) > 1 && !c.JSON {
		t := newText(p, c.Color)
		if more {
			t.styled(0, faint, "there are older ones: --limit shows more")
		}
		for _, r := range records {
			t.oneLine(r, c.To)
		}
		return t.err
	}
	all := explanations{Version: explainVersion, Records: []explanation{}, More: more}
	err := p.explained(settings, records, c.User, func(x explanation) { all.Records = append(all.Records, x) })
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	t := newText(p, c.Color)
	t.full = c.Full
	for i, x := range all.Records {
		if i > 0 {
			t.line(0, "")
		}
		t.more = x.Again
		t.record(x.Record, x.Files)
		t.sent(x.leaving, p.now())
	}
	return t.err
}

// explained works out what there is to say about records. The owner of a mailbox is told in which folder their mail
// lies, and nothing of what other rules would have done.
func (p *program) explained(settings *config.Config, records []*pipeline.Record, owner string, yield func(explanation)) error {
	return withRecords(p.ctx, settings, func(j *journal.Journal) error {
		all := &plans{program: p, settings: settings, journal: j}
		// Where the configuration is broken just now, or has become another, the plan of then is made from what was kept.
		if current, outgoing, _, err := plansOf(settings, offlineEnv(settings.Hostname, p.now, nil)); err == nil {
			all.current, all.outgoing = current, outgoing
		}
		refiled := sortedByRuns(settings)
		for _, r := range records {
			x := explanation{Record: r, Files: locate(p.ctx, settings, r)}
			if err := x.findSent(p.ctx, settings, owner); err != nil {
				return err
			}
			if owner == "" {
				refiled.note(x.Files)
				again := all.look(p.ctx, r, x.Files)
				x.Again = &again
			} else {
				x.Files = ownersFiles(x.Files)
			}
			yield(x)
		}
		return p.ctx.Err()
	})
}

// oneLine prints when a mail came, its id, from whom and to whom, and what became of it.
func (t *text) oneLine(r *pipeline.Record, to string) {
	q := journal.Query{Recipient: to}
	var who, became []string
	for i := range r.Recipients {
		x := &r.Recipients[i]
		if !q.MatchRecipient(*x) {
			continue
		}
		who = append(who, x.Address.Raw)
		what := outcome(x, false)
		switch {
		case x.Step != "":
			what += ", by " + deciderOf(x)
		case x.FolderBy != "" && x.Disposition == pipeline.Delivered:
			what += ", by " + x.FolderBy
		}
		if len(became) == 0 || became[len(became)-1] != what {
			became = append(became, what)
		}
	}
	t.line(0, "%s  %s  <%s> to %s: %s  %q", t.local(r.Received).Format(time.DateTime), r.ID, r.Sender.Raw, strings.Join(who, ", "),
		strings.Join(became, "; "), r.Subject)
}

// recordDelay is how long after the reply a record may take to be readable by other processes.
const recordDelay = 500 * time.Millisecond

// await is find; of a mail that has just come in the record may be on its way.
func await(ctx context.Context, c *config.Config, key string) ([]*pipeline.Record, error) {
	until := time.Now().Add(recordDelay)
	for {
		records, err := find(ctx, c, key)
		if err != nil || len(records) > 0 || time.Now().After(until) {
			return records, err
		}
		select {
		case <-time.After(recordDelay / 10):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find returns the records that a key names, oldest first. Where no journal was ever written there are none.
func find(ctx context.Context, c *config.Config, key string) (records []*pipeline.Record, err error) {
	err = withRecords(ctx, c, func(j *journal.Journal) error {
		records, err = j.Find(ctx, key)
		return err
	})
	return records, err
}

// withRecords opens the journal for reading. Where none was ever written f is not called.
func withRecords(ctx context.Context, c *config.Config, f func(*journal.Journal) error) (err error) {
	settings := c.Journal
	settings.Path, settings.ReadOnly = journalPath(c), true
	j, err := journal.Open(ctx, settings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if e := j.Close(); e != nil { // not joined otherwise: what is wrong with records is told apart
			err = errors.Join(err, e)
		}
	}()
	return f(j)
}

// locate looks for the files that a record names: readers move mail about.
func locate(ctx context.Context, c *config.Config, r *pipeline.Record) []found {
	files := []found{}
	var store *maildir.Store
	for _, x := range r.Recipients {
		if x.File == "" {
			continue
		}
		f := found{Recipient: x.Address.Raw, Account: x.Account, File: x.File}
		if r.Redacted.Took("addresses") {
			f.Gone = whyRedacted
			files = append(files, f)
			continue
		}
		if store == nil {
			var err error
			if store, err = lookingStore(c); err != nil {
				f.Gone = err.Error()
				files = append(files, f)
				continue
			}
			defer store.Close() // it was only looked at: there is nothing that could be lost
		}
		folder, path, err := store.Locate(ctx, x.Account, x.File)
		switch {
		case errors.Is(err, mailstore.ErrNoMessage), errors.Is(err, mailstore.ErrNoAccount):
			f.Gone = "it is in no folder any more"
		case err != nil:
			f.Gone = err.Error()
		default:
			f.Folder, f.Path = folder, path
		}
		files = append(files, f)
	}
	return files
}

// lookingStore opens the mail to look where files are, beside the process that owns it.
func lookingStore(c *config.Config) (*maildir.Store, error) {
	root := filepath.Join(c.Data, "mail")
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("look into %s: %w", root, cause(err))
	}
	return maildir.Open(maildir.Config{
		Root: root, Users: filepath.Join(c.Data, "users"),
		Exists: func(context.Context, string) (bool, error) { return true, nil }, // also of accounts that are gone
		Log:    slog.New(slog.DiscardHandler),
	})
}

func journalPath(c *config.Config) string { return filepath.Join(c.Data, "journal.db") }
