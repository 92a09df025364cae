package program

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/aggregate"
	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/rules"
)

type dmarcCommands struct {
	Report dmarcReport `cmd:"" help:"Write or send DMARC aggregate reports, one for each domain whose policy was asked for."`
}

type dmarcReport struct {
	Out   string `required:"" xor:"out" placeholder:"DIR" help:"The folder to write to; it is made if need be."`
	Send  bool   `required:"" xor:"out" help:"Have the running server send the reports about a day to who asks for them, and say what went to whom. What was sent before is not sent again."`
	Day   string `placeholder:"YYYY-MM-DD" help:"The day to report, in UTC. Default: yesterday."`
	Since string `placeholder:"TIME" help:"Report from here on, instead of a day: YYYY-MM-DD or 2006-01-02T15:04:05Z."`
	Until string `placeholder:"TIME" help:"Report up to here. Default: now."`
	Org   string `placeholder:"NAME" help:"Who reports. Default: the configured hostname."`
	Email string `placeholder:"ADDRESS" help:"Where to ask about reports. Default: postmaster at the hostname."`
	Gzip  bool   `help:"Compress the files."`
	JSON  bool   `help:"With --send: print JSON for a program."`
}

// Run writes the reports. It only reads the journal, so it works while serve runs.
func (c *dmarcReport) Run(p *program) (err error) {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	period, err := c.period(p.now(), settings)
	if err != nil {
		return err
	}
	if c.Send {
		return c.send(p, settings, period)
	}
	set := settings.Journal
	set.Path, set.ReadOnly = journalPath(settings), true
	j, err := journal.Open(p.ctx, set)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there are no records in %s", settings.Data)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	reports := aggregate.New(period)
	unread := 0
	for r, err := range j.Between(p.ctx, period.Begin, period.End) {
		switch {
		case err == nil:
			reports.Add(r)
		case p.ctx.Err() != nil:
			return p.ctx.Err()
		default:
			unread++
			fmt.Fprintf(p.stderr, "sluice: left out: %s\n", config.Printable(err.Error()))
		}
	}
	if keep := settings.Journal.Keep; keep > 0 && period.Begin.Before(p.now().Add(-keep)) {
		fmt.Fprintf(p.stderr, "sluice: records from before %s are kept no longer: that mail is in no report\n",
			p.now().Add(-keep).UTC().Format(time.RFC3339))
	}
	if err := c.write(p, reports.Reports()); err != nil {
		return err
	}
	if unread > 0 {
		return fmt.Errorf("%d records could not be read; the reports are without them", unread)
	}
	return nil
}

func (c *dmarcReport) write(p *program, reports []aggregate.Report) error {
	if err := os.MkdirAll(c.Out, 0o750); err != nil {
		return fmt.Errorf("make the folder for reports: %w", err)
	}
	for _, r := range reports {
		name, err := r.Write(c.Out, c.Gzip)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.stdout, "%s  %d mails\n", name, r.Count); err != nil {
			return err
		}
	}
	if len(reports) == 0 {
		fmt.Fprintln(p.stderr, "sluice: nothing to report: no mail of that time was judged by a DMARC policy")
	}
	return nil
}

// reportPeriod is what reports say of who reports, and what counts as filed for junk.
func reportPeriod(c *config.Config, org, email string) aggregate.Period {
	out := aggregate.Period{Receiver: c.Hostname, Org: org, Email: email, Junk: []string{rules.DefaultConfig().JunkFolder}}
	for _, s := range c.Pipeline {
		if r, ok := s.Config.(*rules.Config); ok && !slices.Contains(out.Junk, r.JunkFolder) {
			out.Junk = append(out.Junk, r.JunkFolder)
		}
	}
	return out
}

// period works out what to report from the flags.
func (c *dmarcReport) period(now time.Time, settings *config.Config) (aggregate.Period, error) {
	out := reportPeriod(settings, cmp.Or(c.Org, settings.DMARCReports.Org, settings.Hostname),
		cmp.Or(c.Email, settings.DMARCReports.Email, "postmaster@"+settings.Hostname))
	for flag, s := range map[string]string{"--org": out.Org, "--email": out.Email} {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return out, fmt.Errorf("%s: %q is more than one line", flag, s)
		}
	}
	if !strings.Contains(strings.Trim(out.Email, "@"), "@") || strings.ContainsAny(out.Email, " <>,") {
		return out, fmt.Errorf("--email: %q is no mail address", out.Email)
	}
	const day = 24 * time.Hour
	today := now.UTC().Truncate(day)
	var err error
	switch {
	case c.Day != "" && (c.Since != "" || c.Until != ""):
		return out, errors.New("--day stands for --since and --until: write either it or them")
	case c.Since == "" && c.Until != "":
		return out, errors.New("--until needs --since")
	case c.Since != "":
		if out.Begin, err = moment("--since", c.Since); err != nil {
			return out, err
		}
		if out.End = now.UTC().Truncate(time.Second).Add(time.Second); c.Until != "" {
			if out.End, err = moment("--until", c.Until); err != nil {
				return out, err
			}
		}
	case c.Day != "":
		if out.Begin, err = time.Parse(time.DateOnly, c.Day); err != nil {
			return out, fmt.Errorf("--day: %q is no day; write for example %s", c.Day, today.Add(-day).Format(time.DateOnly))
		}
		out.End = out.Begin.Add(day)
	default:
		out.Begin, out.End = today.Add(-day), today
	}
	switch {
	case !out.Begin.Before(out.End):
		return out, fmt.Errorf("there is no time between %s and %s", out.Begin.Format(time.RFC3339), out.End.Format(time.RFC3339))
	case out.Begin.After(now):
		return out, fmt.Errorf("%s has not come yet", out.Begin.Format(time.RFC3339))
	}
	return out, nil
}

// moment reads a time of a flag, to the second.
func moment(flag, s string) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC().Truncate(time.Second), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: %q is no time; write for example 2026-11-21 or 2026-11-21T18:00:00Z", flag, s)
}
