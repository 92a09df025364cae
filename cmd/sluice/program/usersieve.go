package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/scripts"
	"sluice/mailstore/users"
	"sluice/rules/sieve"
)

type userSieve struct {
	List     userSieveList     `cmd:"" help:"List the scripts of an account, and which is active."`
	Show     userSieveShow     `cmd:"" help:"Print a script."`
	Put      userSievePut      `cmd:"" help:"Keep a file as a script, if it has no errors."`
	Activate userSieveActivate `cmd:"" help:"Make a script the active one, or none."`
	Delete   userSieveDelete   `cmd:"" help:"Remove a script that is not active."`
}

type script struct {
	Script string `arg:"" placeholder:"SCRIPT" help:"The name of the script, as list shows it."`
}

// withScripts opens the scripts of an account for a command. The server may be running: changes wait for each other.
func (p *program) withScripts(a account, f func(s scriptShelf, name string) error) error {
	return p.withUsers(func(u *users.Users, settings *config.Config) error {
		name, err := a.normal()
		if err != nil {
			return err
		}
		s, _, err := openScripts(settings, u.Exists, slog.New(slog.DiscardHandler), p.now)
		if err != nil {
			return err
		}
		return f(scriptShelf{s, newScriptChecker(settings, s)}, name)
	})
}

// A scriptShelf is where scripts are kept, with what checks them.
type scriptShelf struct {
	*scripts.Store
	checker scriptChecker
}

type userSieveList struct {
	account
	JSON bool `help:"Print JSON."`
}

// scriptsVersion is the version of what user sieve list --json and user log --json print.
const scriptsVersion = 1

func (c *userSieveList) Run(p *program) error {
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		list, err := s.List(p.ctx, name)
		if err != nil {
			return err
		}
		if c.JSON {
			type row struct {
				Name    string    `json:"name"`
				Active  bool      `json:"active"`
				Size    int64     `json:"size"`
				Changed time.Time `json:"changed"`
			}
			rows := []row{}
			for _, x := range list {
				rows = append(rows, row{x.Name, x.Active, x.Size, x.Changed.UTC()})
			}
			return printJSON(p, struct {
				Version int    `json:"version"`
				Account string `json:"account"`
				Scripts []row  `json:"scripts"`
			}{scriptsVersion, name, rows})
		}
		t := text{w: p.stdout}
		for _, x := range list {
			active := "      "
			if x.Active {
				active = "active"
			}
			t.line(0, "%s  %s  %7d octets  %s", active, x.Changed.UTC().Format(time.DateTime), x.Size, x.Name)
		}
		return t.err
	})
}

type userSieveShow struct {
	account
	script
}

func (c *userSieveShow) Run(p *program) error {
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		text, err := s.Script(p.ctx, name, c.Script)
		if err != nil {
			return err
		}
		_, err = p.stdout.Write(text)
		return err
	})
}

type userSievePut struct {
	account
	script
	File     string `arg:"" help:"The file; - is standard input."`
	Activate bool   `help:"Make it the active one, too."`
}

func (c *userSievePut) Run(p *program) error {
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		file := c.File
		var text []byte
		var err error
		if file == "-" {
			file = "standard input"
			text, err = io.ReadAll(io.LimitReader(p.stdin, mostFile))
		} else {
			text, err = readWhole(file)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if !p.passes(s, name, file, text) {
			return fmt.Errorf("%s has errors; nothing was changed", file)
		}
		if err := s.Put(p.ctx, name, c.Script, text); err != nil {
			return err
		}
		if c.Activate {
			return s.Activate(p.ctx, name, c.Script)
		}
		return nil
	})
}

// passes prints what is wrong with a script in a file, and reports whether it can be used.
func (p *program) passes(s scriptShelf, account, file string, text []byte) bool {
	warnings, errs := s.checker.problems(p.ctx, account, file, text)
	for _, x := range errs {
		fmt.Fprintln(p.stderr, sieveProblem(x))
	}
	for _, x := range warnings {
		fmt.Fprintf(p.stderr, "warning: %s\n", sieveProblem(x))
	}
	return len(errs) == 0
}

// sieveProblem is a problem of a script as those of a configuration are shown.
func sieveProblem(x sieve.Problem) config.Problem {
	return config.Problem{File: x.Script, Line: x.Line, Column: x.Column, Text: x.Text, Remedy: x.Remedy, Source: x.Source}
}

type userSieveActivate struct {
	account
	Script string `arg:"" optional:"" placeholder:"SCRIPT" help:"The name of the script, as list shows it."`
	None   bool   `help:"None is active any more."`
}

func (c *userSieveActivate) Run(p *program) error {
	if c.None != (c.Script == "") {
		return errors.New("name a script, or give --none")
	}
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		if c.None {
			return s.Activate(p.ctx, name, "")
		}
		text, err := s.Script(p.ctx, name, c.Script)
		if err != nil {
			return err
		}
		if !p.passes(s, name, config.Printable(c.Script), text) {
			return fmt.Errorf("%s has errors; nothing was changed", config.Printable(c.Script))
		}
		return s.Activate(p.ctx, name, c.Script)
	})
}

type userSieveDelete struct {
	account
	script
}

func (c *userSieveDelete) Run(p *program) error {
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		err := s.Delete(p.ctx, name, c.Script)
		if errors.Is(err, mailstore.ErrActive) {
			return fmt.Errorf("%w; sluice user sieve activate %s --none makes it an ordinary one", err, name)
		}
		return err
	})
}

type userLog struct {
	account
	JSON bool `help:"Print JSON."`
}

func (c *userLog) Run(p *program) error {
	return p.withUsers(func(u *users.Users, settings *config.Config) error {
		name, err := c.account.normal()
		if err != nil {
			return err
		}
		if there, err := u.Exists(p.ctx, name); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("%s: %w; sluice user list shows all", name, mailstore.ErrNoAccount)
		}
		_, log, err := openScripts(settings, u.Exists, slog.New(slog.DiscardHandler), p.now)
		if err != nil {
			return err
		}
		list, err := log.Problems(p.ctx, name)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p, struct {
				Version  int                       `json:"version"`
				Account  string                    `json:"account"`
				Problems []mailstore.ScriptProblem `json:"problems"`
			}{scriptsVersion, name, slices.Concat([]mailstore.ScriptProblem{}, list)})
		}
		t := text{w: p.stdout}
		for _, x := range list {
			place := x.Script
			if x.Line > 0 {
				place += fmt.Sprintf(":%d", x.Line)
			}
			if x.Column > 0 {
				place += fmt.Sprintf(":%d", x.Column)
			}
			t.line(0, "%s  %s: %s", x.Time.UTC().Format(time.DateTime), place, x.Text)
			if x.MessageID != "" {
				t.line(1, "mail %s", x.MessageID)
			}
			if x.ID != "" {
				t.line(1, "why  sluice explain %s", x.ID)
			}
		}
		return t.err
	})
}

type userImportSieve struct {
	account
	From    string `arg:"" placeholder:"FROM" help:"The home folder of a user of Dovecot's Pigeonhole, a folder of .sieve files, or one of them."`
	Replace bool   `help:"Where a script of the same name is here, or another one is active, the one from there wins."`
}

func (c *userImportSieve) Run(p *program) error {
	return p.withScripts(c.account, func(s scriptShelf, name string) error {
		theirs, err := scripts.Take(c.From)
		if err != nil {
			return err
		}
		i := importing{program: p, store: s, account: name, replace: c.Replace}
		if _, err := s.List(p.ctx, name); err != nil {
			return err
		}
		// All of them first: what they include is another of them.
		what := make([]string, len(theirs.Scripts))
		for n, x := range theirs.Scripts {
			if what[n], err = i.take(x); err != nil {
				i.failed = true
				fmt.Fprintf(p.stderr, "%s: %s\n", x.Path, config.Printable(err.Error()))
			}
		}
		for n, x := range theirs.Scripts {
			if what[n] != "" {
				i.check(x, what[n])
			}
		}
		for _, note := range theirs.Notes {
			fmt.Fprintf(p.stderr, "note: %s\n", config.Printable(note))
		}
		if err := i.activate(theirs.Active); err != nil {
			i.failed = true
			fmt.Fprintln(p.stderr, config.Printable(err.Error()))
		}
		if i.failed {
			return errSilent
		}
		return nil
	})
}

// importing is one run of import-sieve.
type importing struct {
	*program
	store   scriptShelf
	account string
	replace bool

	good   []string // scripts that are here and have no errors
	failed bool
}

// take keeps a script, also one with errors: its owner may mend it. One of the same name with another text stays as it is.
// It returns what was done.
func (i *importing) take(x scripts.ForeignScript) (what string, err error) {
	if x.Err != nil {
		return "", x.Err
	}
	have, err := i.store.Script(i.ctx, i.account, x.Name)
	switch {
	case err == nil && bytes.Equal(have, x.Text):
		return "is here already", nil
	case err == nil && !i.replace:
		return "", fmt.Errorf("another script %q is here; --replace puts this one in its place", x.Name)
	case err == nil:
		what = "replaced"
	case errors.Is(err, mailstore.ErrNoScript):
		what = "taken over"
	default:
		return "", err
	}
	return what, i.store.Put(i.ctx, i.account, x.Name, x.Text)
}

// check says of a script that is here what was done with it, and what is wrong with it.
func (i *importing) check(x scripts.ForeignScript, what string) {
	if i.passes(i.store, i.account, x.Path, x.Text) {
		i.good = append(i.good, x.Name)
	} else {
		what += ", has errors"
		i.failed = true
	}
	fmt.Fprintf(i.stdout, "%s: %s\n", config.Printable(x.Name), what)
}

// activate makes the script active that was so there, unless it has errors or its owner has chosen another one here.
func (i *importing) activate(name string) error {
	if name == "" {
		return nil
	}
	if !slices.Contains(i.good, name) {
		return fmt.Errorf("%q was active there and is not here: it has errors, or was not taken over", name)
	}
	active, _, _, err := i.store.Active(i.ctx, i.account, "")
	switch {
	case err == nil && active == name:
		return nil
	case err == nil && !i.replace:
		return fmt.Errorf("%q was active there; here %q is and stays so, unless you give --replace", name, active)
	case err != nil && !errors.Is(err, mailstore.ErrNoScript):
		return err
	}
	if err := i.store.Activate(i.ctx, i.account, name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(i.stdout, "%s: active\n", config.Printable(name))
	return err
}
