package program

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/scripts"
	"sluice/protocols/managesieve"
	"sluice/rules/sieve"
)

// openScripts opens the scripts of all accounts, and the log of what goes wrong when they run.
func openScripts(c *config.Config, exists func(context.Context, string) (bool, error), log *slog.Logger, now func() time.Time,
) (*scripts.Store, *scripts.Log, error) {
	users := filepath.Join(c.Data, "users")
	store, err := scripts.Open(scripts.Config{Users: users, Exists: exists, Limits: c.Limits.Scripts, Log: log})
	if err != nil {
		return nil, nil, err
	}
	kept, err := scripts.OpenLog(scripts.LogConfig{Users: users, Limits: c.Limits.ScriptLog, Now: now, Log: log})
	return store, kept, err
}

// A scriptChecker says what is wrong with scripts before they are kept, by what the first sieve step of the configuration
// lets them use: it is the one that will run them.
type scriptChecker struct {
	kept   mailstore.Scripts
	config sieve.Config
	global map[string][]byte // scripts of the site, by the name that they are included by
	// programs are what the site lets scripts run.
	programs *sieve.Programs
}

func newScriptChecker(c *config.Config, kept mailstore.Scripts) scriptChecker {
	x := scriptChecker{kept: kept, config: sieve.DefaultConfig(), global: map[string][]byte{}}
	x.programs = (&scripting{config: c.Sieve}).Programs()
	for _, step := range c.Pipeline {
		if own, ok := step.Config.(*sieve.Config); ok {
			x.config = *own
			break
		}
	}
	for _, pattern := range x.config.Global {
		found, err := files(c)(pattern)
		if err != nil {
			continue // the plan has said so
		}
		for _, f := range found {
			x.global[strings.TrimSuffix(filepath.Base(f.Path), ".sieve")] = f.Text
		}
	}
	return x
}

// options are what scripts of an account may use, with the scripts that they may include.
func (c scriptChecker) options(ctx context.Context, account string) sieve.Options {
	o := c.config.Options()
	o.Programs = c.programs
	o.Unchecked = true // what a script includes may be put after it
	o.Include = func(global bool, name string) ([]byte, error) {
		if !global {
			return c.kept.Script(ctx, account, name)
		}
		text, ok := c.global[name]
		if !ok {
			return nil, mailstore.ErrNoScript
		}
		return text, nil
	}
	return o
}

// problems are what is wrong with a script, and what may be: errors keep it from being used.
func (c scriptChecker) problems(ctx context.Context, account, name string, text []byte) (warnings, errs []sieve.Problem) {
	_, all := sieve.Compile(name, text, c.options(ctx, account))
	for _, x := range all {
		if x.Warning {
			warnings = append(warnings, x)
		} else {
			errs = append(errs, x)
		}
	}
	return warnings, errs
}

// check is problems for ManageSieve.
func (c scriptChecker) check(ctx context.Context, account, name string, text []byte) (warnings, problems []string) {
	w, p := c.problems(ctx, account, name, text)
	return sievePlaces(name, w), sievePlaces(name, p)
}

// sievePlaces says problems to somebody who looks at the script: a line for each, "work: line 3: column 5: …". That is as
// Pigeonhole says it but for the column, and Roundcube marks a line by "NAME: line N:" alone; so what is wrong in a script
// that is included has no such beginning.
func sievePlaces(script string, all []sieve.Problem) (lines []string) {
	for _, x := range all {
		line := x.Text
		if x.Remedy != "" {
			line += "; " + x.Remedy
		}
		switch {
		case x.Script != script && x.Line > 0:
			line = fmt.Sprintf("in the included %s, line %d, column %d: %s", x.Script, x.Line, x.Column, line)
		case x.Script != script:
			line = fmt.Sprintf("in the included %s, %s", x.Script, line)
		case x.Line > 0:
			line = fmt.Sprintf("line %d: column %d: %s", x.Line, x.Column, line)
			if script != "" {
				line = script + ": " + line
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// sieveManager makes the server that users manage their scripts at.
func (s *service) sieveManager(c *config.Config) server {
	limits := c.Limits.ManageSieve
	limits.ScriptSize = c.Limits.Scripts.Size
	checker := newScriptChecker(c, s.house.scripts)
	extensions := sieve.Extensions(checker.options(s.ctx, ""))
	var notify []string
	if slices.Contains(extensions, "enotify") {
		notify = []string{"mailto"}
	}
	return managesieve.New(managesieve.Config{
		Scripts: s.house.scripts, Directory: s.house.users, Keys: s.house.users, Logins: s.logins,
		Check:          checker.check,
		Implementation: "Sluice " + version(), Sieve: extensions, Notify: notify, MaxRedirects: checker.config.Limits.Redirects,
		Hostname: c.Hostname, Log: s.log, Limits: limits,
	})
}

// A scriptReporter keeps what goes wrong when a script runs, and tells its owner by mail.
type scriptReporter struct {
	log   mailstore.ScriptLog
	store interface {
		Deliver(ctx context.Context, items []mailstore.Item) ([]mailstore.Placed, error)
	}
	hostname string
	now      func() time.Time
	say      *slog.Logger
}

// report never fails its caller: the mail that the script ran for is more important, and the log says what went wrong.
func (r scriptReporter) report(ctx context.Context, account string, p mailstore.ScriptProblem) {
	if p.Time.IsZero() {
		p.Time = r.now()
	}
	r.say.Warn("a script has failed", "account", account, "script", p.Script, "line", p.Line, "text", p.Text, "id", p.ID)
	err := r.log.Note(ctx, account, p, func(ctx context.Context) error {
		text, err := scriptNotice(account, r.hostname, p)
		if err != nil {
			return err
		}
		_, err = r.store.Deliver(ctx, []mailstore.Item{{
			Account: account, ID: rand.Text()[:12], Date: p.Time, Content: bytes.NewReader(text),
		}})
		return err
	})
	if err != nil {
		r.say.Error("the owner of a script may not learn that it has failed", "account", account, "err", err)
	}
}

// scriptNotice is the mail that tells the owner of a script that it has failed.
func scriptNotice(account, hostname string, p mailstore.ScriptProblem) ([]byte, error) {
	script := config.Printable(p.Script)
	where := ""
	if p.Line > 0 {
		where = fmt.Sprintf(" at line %d", p.Line)
	}
	domain := account[strings.LastIndexByte(account, '@')+1:]
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("From", "Mail filter <postmaster@"+domain+">")
	field("To", "<"+account+">")
	field("Subject", mime.QEncoding.Encode("utf-8", fmt.Sprintf("Your script %q has a problem%s", script, where)))
	field("Date", p.Time.Format(time.RFC1123Z))
	field("Message-ID", "<"+rand.Text()+"@"+hostname+">")
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	var text strings.Builder
	fmt.Fprintf(&text, "Your script %q could not finish its work on a mail. It stopped%s:\n\n    %s\n\n", script, where, config.Printable(p.Text))
	text.WriteString("The mail is in your inbox, as if there were no script.")
	if p.MessageID != "" {
		fmt.Fprintf(&text, " It is %s.", config.Printable(p.MessageID))
	}
	text.WriteString(" You are told at most once a day of the same problem, and it\nlasts until the script is changed.")
	if p.ID != "" {
		fmt.Fprintf(&text, " Those who run this server find out more about it under %s.", config.Printable(p.ID))
	}
	text.WriteString("\n")
	q := quotedprintable.NewWriter(&b)
	_, err := q.Write([]byte(strings.ReplaceAll(text.String(), "\n", "\r\n")))
	return b.Bytes(), errors.Join(err, q.Close())
}

// unrun returns a warning where users may keep scripts that no step runs.
func unrun(c *config.Config) (warnings []string) {
	if len(c.Listen.ManageSieve) == 0 {
		return nil
	}
	for _, step := range c.Pipeline {
		if _, ok := step.Config.(*sieve.Config); ok {
			return nil
		}
	}
	return []string{"users may keep scripts at managesieve, and no step runs them: add `- sieve: {}` to the pipeline"}
}
