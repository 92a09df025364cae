package program

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
)

type journalCommands struct {
	Stats  journalStats  `cmd:"" help:"Say what the journal holds, and what it takes on disk."`
	Prune  journalPrune  `cmd:"" help:"Remove now what is older or more than the configuration keeps. serve does it every hour."`
	Export journalExport `cmd:"" help:"Write records as lines of JSON."`
}

// journalVersion is the version of what journal stats --json, prune --json and export print.
const journalVersion = 1

// withJournalFile opens the journal that is there, to be read or to be changed.
func (p *program) withJournalFile(readOnly bool, f func(*config.Config, *journal.Journal) error) (err error) {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	c := settings.Journal
	c.Path, c.ReadOnly, c.Now, c.Log = journalPath(settings), readOnly, p.now, slog.New(slog.DiscardHandler)
	if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no journal in %s yet", settings.Data)
	}
	j, err := journal.Open(p.ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return f(settings, j)
}

type journalStats struct {
	JSON bool `help:"Print JSON."`
}

func (c *journalStats) Run(p *program) error {
	return p.withJournalFile(true, func(settings *config.Config, j *journal.Journal) error {
		s, err := j.Summary(p.ctx)
		if err != nil {
			return err
		}
		var unreadable []string
		if err := unreadableIn(p, j, &unreadable); err != nil {
			return err
		}
		if c.JSON {
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			return e.Encode(struct {
				Version    int      `json:"version"`
				File       string   `json:"file"`
				Unreadable []string `json:"unreadable"`
				journal.Summary
			}{journalVersion, journalPath(settings), append([]string{}, unreadable...), s})
		}
		t := text{w: p.stdout}
		t.line(0, "%s", journalPath(settings))
		t.line(1, "%-10s %d, %s as JSON", "records", s.Records, roughly(s.RecordOctets))
		if s.Records > 0 {
			const layout = "2006-01-02 15:04"
			t.line(1, "%-10s from %s to %s", "received", s.Oldest.In(p.now().Location()).Format(layout), s.Newest.In(p.now().Location()).Format(layout))
		}
		t.line(1, "%-10s %s, and %s free for what comes", "on disk", roughly(s.Used), roughly(s.Free))
		t.line(1, "%-10s %d, made from %d texts, %s", "plans", s.Plans, s.Texts, roughly(s.TextOctets))
		t.line(1, "%-10s %s", "kept", keptFor(settings.Journal))
		if s.Redacted > 0 || settings.Journal.Redact.After > 0 {
			t.line(1, "%-10s %d", "redacted", s.Redacted)
		}
		if n := len(unreadable); n > 0 {
			t.line(1, "%-10s %d %s cannot be read, damaged or of a newer program: %s", "unreadable", n, plural(n, "record", "records"),
				strings.Join(unreadable[:min(n, 5)], ", "))
		}
		if len(s.Days) > 0 {
			t.line(1, "by day (UTC)")
		}
		for _, d := range s.Days {
			t.line(2, "%s  %8d records  %10s", d.Day, d.Records, roughly(d.Octets))
		}
		return t.err
	})
}

// unreadableIn lists the ids of records that cannot be read.
func unreadableIn(p *program, j *journal.Journal, ids *[]string) error {
	for _, err := range j.Search(p.ctx, journal.Query{}) {
		var bad *journal.UnreadableError
		switch {
		case errors.As(err, &bad):
			*ids = append(*ids, bad.ID)
		case err != nil:
			return err
		}
	}
	return nil
}

// keptFor says how long records are kept, and how many octets of them.
func keptFor(c journal.Config) string {
	s := "for ever"
	if c.Keep >= 0 {
		s = "for " + config.FormatDuration(c.Keep)
	}
	if c.MaxSize >= 0 {
		s += ", up to " + roughly(c.MaxSize)
	}
	if c.Redact.After > 0 {
		var what []string
		for _, w := range c.Redact.What {
			what = append(what, string(w))
		}
		s += fmt.Sprintf("; after %s without %s", config.FormatDuration(c.Redact.After), strings.Join(what, ", "))
	}
	return s
}

// roughly writes a number of octets for people, who care for its first two digits.
func roughly(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d octets", n)
}

type journalPrune struct {
	JSON    bool `help:"Print JSON."`
	DryRun  bool `help:"Only say what would be removed."`
	Compact bool `help:"Write the file anew as well, so that it is as small as can be. Nobody else can write meanwhile."`
}

func (c *journalPrune) Run(p *program) error {
	return p.withJournalFile(c.DryRun, func(_ *config.Config, j *journal.Journal) error {
		prune := j.Prune
		if c.DryRun {
			prune = j.WouldPrune
		}
		pruned, err := prune(p.ctx)
		if err != nil {
			return err
		}
		if c.Compact && !c.DryRun {
			before, err := j.Summary(p.ctx)
			if err != nil {
				return err
			}
			if err := j.Compact(p.ctx); err != nil {
				return err
			}
			pruned.Octets += before.Free
		}
		if c.JSON {
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			return e.Encode(struct {
				Version int  `json:"version"`
				DryRun  bool `json:"dry_run"`
				journal.Pruned
			}{journalVersion, c.DryRun, pruned})
		}
		t := text{w: p.stdout}
		if c.DryRun {
			t.line(0, "would remove %d records for their age and about %d for the size of all, and redact %d", pruned.Old, pruned.Surplus, pruned.Redacted)
		} else {
			t.line(0, "removed %d records for their age and %d for the size of all, redacted %d; the file is %s smaller",
				pruned.Old, pruned.Surplus, pruned.Redacted, roughly(pruned.Octets))
		}
		return t.err
	})
}

type journalExport struct {
	Since  string `placeholder:"TIME" help:"Records of mail that came then or later: 7d, 2h, 2026-11-20, '2026-11-20 14:05'."`
	Until  string `placeholder:"TIME" help:"Records of mail that came before."`
	To     string `placeholder:"ADDRESS" help:"Of mail for this recipient, or @DOMAIN."`
	From   string `placeholder:"ADDRESS" help:"Of mail from this sender, @DOMAIN, or '<>'."`
	Output string `short:"o" placeholder:"FILE" help:"Write to this file, which must not exist. Default: standard output."`
}

// An exported is one line of an export.
type exported struct {
	Version int              `json:"version"`
	Record  *pipeline.Record `json:"record"`
}

func (c *journalExport) Run(p *program) error {
	between, err := newSpan(c.Since, c.Until, p.now())
	if err != nil {
		return err
	}
	return p.withJournalFile(true, func(_ *config.Config, j *journal.Journal) (err error) {
		out := p.stdout
		if c.Output != "" {
			f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("write %s: %w", c.Output, cause(err))
			}
			defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
			out = f
		}
		written, bad, err := c.write(p, j, between, out)
		if err != nil {
			return fmt.Errorf("after %d records: %w", written, err)
		}
		if len(bad) > 0 {
			n := len(bad)
			return fmt.Errorf("%d records written; %d %s cannot be read, damaged or of a newer program, and %s left out: %s", written, n,
				plural(n, "record", "records"), plural(n, "is", "are"), strings.Join(bad[:min(n, 5)], ", "))
		}
		return nil
	})
}

func (c *journalExport) write(p *program, j *journal.Journal, s span, out io.Writer) (written int, bad []string, err error) {
	w := bufio.NewWriterSize(out, 64<<10)
	lines := json.NewEncoder(w)
	q := journal.Query{Since: s.since, Until: s.until, Recipient: c.To, Sender: c.From}
	for r, err := range j.Search(p.ctx, q) {
		var unreadable *journal.UnreadableError
		switch {
		case errors.As(err, &unreadable):
			bad = append(bad, unreadable.ID)
			continue
		case err != nil:
			return written, bad, errors.Join(err, w.Flush())
		}
		if err := lines.Encode(exported{journalVersion, r}); err != nil {
			return written, bad, fmt.Errorf("write: %w", cause(err))
		}
		written++
	}
	return written, bad, w.Flush()
}
