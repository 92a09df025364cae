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
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/pipeline"
)

type explainCommand struct {
	JSON bool   `help:"Print JSON."`
	Key  string `arg:"" help:"A transaction's id, an MTA's queue id, a Message-ID, the name or path of a mail's file, or an id in quarantine."`
}

// explainVersion is the version of what explain --json prints.
const explainVersion = 1

type explanation struct {
	Record *pipeline.Record `json:"record"`
	Files  []found          `json:"files"`
}

func (c *explainCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	records, err := await(p.ctx, settings, c.Key)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return fmt.Errorf("no record of %s in %s", c.Key, settings.Data)
	}
	var all []explanation
	for _, r := range records {
		all = append(all, explanation{r, locate(p.ctx, settings, r)})
	}
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Version int           `json:"version"`
			Records []explanation `json:"records"`
		}{explainVersion, all})
	}
	t := text{w: p.stdout}
	for i, x := range all {
		if i > 0 {
			t.line(0, "")
		}
		t.record(x.Record, x.Files)
	}
	return t.err
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
func find(ctx context.Context, c *config.Config, key string) (_ []*pipeline.Record, err error) {
	settings := c.Journal
	settings.Path, settings.ReadOnly = journalPath(c), true
	j, err := journal.Open(ctx, settings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return j.Find(ctx, key)
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
