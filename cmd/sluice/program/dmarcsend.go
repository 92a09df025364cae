package program

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cmd/sluice/program/aggregate"
	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/scanners/dmarc"
)

// A reporter sends DMARC aggregate reports about days, and writes down what it has sent so that nobody gets one twice.
type reporter struct {
	journal  *journal.Journal
	outbox   mailstore.Outbox
	resolver func() pipeline.Resolver
	config   func() *config.Config
	disk     disk
	dir      string // DATA/dmarc: a file for each day
	now      func() time.Time
	log      *slog.Logger

	mu   sync.Mutex // one day at a time
	done string     // the last day of which nothing is left to be sent
}

// What became of a report to an address.
const (
	reportSent     = "sent"
	reportBefore   = "sent before"
	reportTooLarge = "too large"
	reportUnwanted = "not wanted" // by who is at the address, which is not the domain's
	reportOpen     = "undecided"  // the DNS has not answered whether it is wanted there
	reportOver     = "too many addresses"
	reportFailed   = "failed"
)

// A sentReport is what became of a report to one address.
type sentReport struct {
	Domain string    `json:"domain"`
	Report string    `json:"report"`       // its id, the same whenever it is made
	Asked  string    `json:"asked"`        // the address that the domain names
	To     string    `json:"to,omitempty"` // where it went: whoever is there may have named another of theirs
	Mails  int       `json:"mails"`
	Octets int       `json:"octets,omitempty"`
	State  string    `json:"state"`
	Why    string    `json:"why,omitempty"`
	Queued string    `json:"queued,omitempty"` // its id in the queue
	At     time.Time `json:"at,omitzero"`
}

// sentReports is what a run has done; of its file only what was sent.
type sentReports struct {
	Version int          `json:"version"`
	Day     string       `json:"day"`
	Reports []sentReport `json:"reports"`
	Unread  int          `json:"unread,omitempty"` // records that could not be read, and are in no report
	Error   string       `json:"error,omitempty"`
}

const (
	sentReportsVersion = 1
	keepSentReports    = 100 * 24 * time.Hour
	// reportsEvery is how often it is looked whether a report is due, and so for how long what was undecided stays so.
	reportsEvery = 30 * time.Minute
)

// run sends the reports about each day once it is over, at a time of night that is this host's own, for as long as the
// configuration says so, until ctx ends.
func (r *reporter) run(ctx context.Context) {
	tick := time.NewTicker(reportsEvery)
	defer tick.Stop()
	for {
		if day, due := r.due(); due {
			r.daily(ctx, day)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// due returns the day that is to be reported, and whether now is the time: between half an hour and six hours after its
// end, each host at another moment (RFC 7489, 7.2).
func (r *reporter) due() (day time.Time, ok bool) {
	c := r.config()
	if !c.DMARCReports.Send {
		return day, false
	}
	const whole = 24 * time.Hour
	today := r.now().UTC().Truncate(whole)
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Hostname)) // a hash takes everything
	wait := 30*time.Minute + time.Duration(h.Sum64()%uint64(330))*time.Minute
	day = today.Add(-whole)
	return day, r.now().Sub(today) >= wait && r.last() != day.Format(time.DateOnly)
}

func (r *reporter) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

func (r *reporter) daily(ctx context.Context, day time.Time) {
	sent, err := r.send(ctx, day)
	counts := map[string]int{}
	for _, x := range sent.Reports {
		counts[x.State]++
		if x.State == reportFailed || x.State == reportTooLarge {
			r.log.Warn("a DMARC report was not sent", "domain", x.Domain, "address", x.Asked, "why", cmp.Or(x.Why, x.State))
		}
	}
	if counts[reportSent] > 0 {
		r.log.Info("DMARC reports sent", "day", sent.Day, "reports", counts[reportSent])
	}
	if err != nil && ctx.Err() == nil {
		r.log.Error("DMARC reports were not sent; that is tried again", "day", sent.Day, "err", err)
	}
	r.tidy()
}

// send sends the reports about a day that were not sent before.
func (r *reporter) send(ctx context.Context, day time.Time) (out sentReports, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out = sentReports{Version: sentReportsVersion, Day: day.Format(time.DateOnly), Reports: []sentReport{}}
	before, err := r.read(out.Day)
	if err != nil {
		return out, err
	}
	c := r.config()
	period := reportPeriod(c, cmp.Or(c.DMARCReports.Org, c.Hostname), cmp.Or(c.DMARCReports.Email, "postmaster@"+c.Users.Domain))
	period.Begin, period.End = day, day.Add(24*time.Hour)
	if err := r.journal.Flush(ctx); err != nil {
		return out, err
	}
	collected := aggregate.New(period)
	for record, err := range r.journal.Between(ctx, period.Begin, period.End) {
		var unreadable *journal.UnreadableError
		switch {
		case err == nil:
			collected.Add(record)
		case errors.As(err, &unreadable):
			out.Unread++
		default:
			return out, err
		}
	}
	for _, report := range collected.Reports() {
		for n, d := range report.To {
			x := sentReport{Domain: report.Domain, Report: report.ID(), Asked: d.Address, Mails: report.Count}
			if n >= c.DMARCReports.Addresses {
				x.State = reportOver
				out.Reports = append(out.Reports, x)
				continue
			}
			all, err := r.sendTo(ctx, report, d, x, &before, period.Email)
			if err != nil {
				return out, err
			}
			out.Reports = append(out.Reports, all...)
		}
	}
	open := func(x sentReport) bool { return x.State == reportOpen || x.State == reportFailed }
	if !slices.ContainsFunc(out.Reports, open) {
		r.done = out.Day
	}
	return out, nil
}

// sendTo sends a report to one address that its domain names, and returns x for each address that it comes to.
func (r *reporter) sendTo(ctx context.Context, report aggregate.Report, d dmarc.Destination, x sentReport, before *sentReports, from string) ([]sentReport, error) {
	if was := before.of(x); was != nil {
		x = *was
		x.State = reportBefore
		return []sentReport{x}, nil
	}
	wanted, err := dmarc.Wanted(ctx, r.resolver(), report.Domain, d)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		x.State, x.Why = reportOpen, err.Error()
		return []sentReport{x}, nil //nolint:nilerr // it is in the answer, and asked again later
	case len(wanted) == 0:
		_, host, _ := cutLast(d.Address, "@")
		x.State, x.Why = reportUnwanted, fmt.Sprintf("%s._report._dmarc.%s does not say that it is", report.Domain, host)
		return []sentReport{x}, nil
	}
	var all []sentReport
	for _, to := range wanted {
		x := x
		if err := r.queue(ctx, report, to, &x, before, from); err != nil {
			return all, err
		}
		all = append(all, x)
	}
	return all, nil
}

// of returns what was sent of a report to an address that a domain names, nil for nothing.
func (s *sentReports) of(x sentReport) *sentReport {
	i := slices.IndexFunc(s.Reports, func(y sentReport) bool { return y.Report == x.Report && strings.EqualFold(y.Asked, x.Asked) })
	if i < 0 {
		return nil
	}
	return &s.Reports[i]
}

// queue puts a report into the queue. That it was sent is written down before it may leave: after a power cut in between
// nobody gets it, for one that comes twice counts all mail twice.
func (r *reporter) queue(ctx context.Context, report aggregate.Report, to dmarc.Destination, x *sentReport, before *sentReports, from string) error {
	mail, _, err := report.Mail(to.Address, r.now())
	if err != nil {
		return err
	}
	x.To, x.Octets = to.Address, len(mail)
	most := int64(r.config().DMARCReports.Size)
	if to.Most > 0 {
		most = min(most, to.Most)
	}
	if int64(len(mail)) > most {
		x.State, x.Why = reportTooLarge, fmt.Sprintf("%d octets; at most %d are wanted", len(mail), most)
		return nil
	}
	staged, err := r.outbox.Stage(ctx, []mailstore.Outgoing{{
		Why: "DMARC report about " + report.Domain, Sender: from, Content: bytes.NewReader(mail),
		Recipients: []mailstore.OutgoingRecipient{{Address: to.Address, Notify: []string{"never"}}},
	}})
	if err != nil {
		x.State, x.Why = reportFailed, err.Error()
		return nil //nolint:nilerr // it is in the answer, and the next address has its own
	}
	if ids := staged.IDs(); len(ids) > 0 {
		x.Queued = ids[0]
	}
	x.State, x.At = reportSent, r.now().UTC().Truncate(time.Second)
	before.Reports = append(before.Reports, *x)
	if err := r.write(before); err != nil {
		return errors.Join(err, staged.Withdraw())
	}
	if err := staged.Release(ctx); err != nil {
		before.Reports = before.Reports[:len(before.Reports)-1]
		x.State, x.Why, x.Queued = reportFailed, err.Error(), ""
		return r.write(before)
	}
	return nil
}

func (r *reporter) path(day string) string { return filepath.Join(r.dir, "sent-"+day+".json") }

// read returns what was sent about a day.
func (r *reporter) read(day string) (s sentReports, err error) {
	s = sentReports{Version: sentReportsVersion, Day: day}
	text, err := os.ReadFile(r.path(day))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read what was sent: %s: %w", r.path(day), cause(err))
	}
	return s, nil
}

func (r *reporter) write(s *sentReports) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write down what was sent: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("write down what was sent: %w", err)
	}
	return writeFileTo(r.disk, r.path(s.Day), append(text, '\n'), 0o600)
}

// tidy removes what was written down about days long ago.
func (r *reporter) tidy() {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return // there is none
	}
	for _, e := range entries {
		day, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), ".json"), "sent-")
		at, err := time.Parse(time.DateOnly, day)
		if !ok || err != nil || r.now().Sub(at) < keepSentReports {
			continue
		}
		if err := os.Remove(filepath.Join(r.dir, e.Name())); err != nil {
			r.log.Warn("an old list of DMARC reports was not removed", "err", err)
		}
	}
}

// dmarcOrderName is how the order begins to send the reports about a day, which follows.
const dmarcOrderName = "dmarc-report"

// answerReports does what an order says.
func (r *reporter) answer(ctx context.Context, order string) sentReports {
	day, err := time.Parse(time.DateOnly, strings.TrimSuffix(order, "\n"))
	if err != nil {
		return sentReports{Version: sentReportsVersion, Error: fmt.Sprintf("%q is no day", order)}
	}
	out, err := r.send(ctx, day)
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// send has the running server send the reports about a day.
func (c *dmarcReport) send(p *program, settings *config.Config, period aggregate.Period) error {
	switch {
	case c.Since != "" || c.Until != "":
		return errors.New("--send goes with --day: a report is about one day, or mail would be counted twice")
	case c.Org != "" || c.Email != "" || c.Gzip:
		return errors.New("--send says of us what the configuration does: set dmarc_reports: {org: …, email: …}")
	case period.End.After(p.now()):
		return fmt.Errorf("%s is not over yet, in UTC", period.Begin.Format(time.DateOnly))
	}
	if keep := settings.Journal.Keep; keep > 0 && period.Begin.Before(p.now().Add(-keep)) || p.now().Sub(period.Begin) > keepSentReports/2 {
		return fmt.Errorf("%s is too long ago: neither all of its records are kept nor what was sent about it", period.Begin.Format(time.DateOnly))
	}
	var out sentReports
	if err := p.ask(settings.Data, dmarcOrderName+" "+period.Begin.Format(time.DateOnly), &out); err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(out); err != nil {
			return err
		}
	} else if err := printReports(p, out); err != nil {
		return err
	}
	switch {
	case out.Error != "":
		return errors.New(out.Error)
	case out.Unread > 0:
		return fmt.Errorf("%d records could not be read; the reports are without them", out.Unread)
	}
	return nil
}

func printReports(p *program, out sentReports) error {
	for _, x := range out.Reports {
		what := x.State
		switch x.State {
		case reportSent:
			what = fmt.Sprintf("%d octets, queued as %s", x.Octets, x.Queued)
		case reportBefore:
			what = "sent on " + x.At.Format(time.RFC3339)
		}
		if x.Why != "" {
			what += ": " + x.Why
		}
		line := fmt.Sprintf("%s  %d mails  to %s  %s", x.Domain, x.Mails, cmp.Or(x.To, x.Asked), what)
		if _, err := fmt.Fprintln(p.stdout, config.Printable(line)); err != nil {
			return err
		}
	}
	if len(out.Reports) == 0 && out.Error == "" {
		fmt.Fprintln(p.stderr, "sluice: nothing to report: no mail of that day was judged by a DMARC policy that asks for reports")
	}
	return nil
}
