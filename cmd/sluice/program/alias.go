package program

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/users"
	"sluice/pipeline/mime"
)

type aliasCommands struct {
	List  aliasList  `cmd:"" help:"List the aliases and the accounts that they lead to."`
	Check aliasCheck `cmd:"" help:"Say who gets mail for an address; without one, which aliases lead nowhere or in a circle."`
}

type aliasList struct{}

func (aliasList) Run(p *program) error {
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		routes, err := u.Routes(p.ctx)
		if err != nil {
			return err
		}
		for _, r := range routes {
			to := strings.Join(r.Accounts, ", ")
			if to == "" {
				to = "nobody (" + strings.Join(r.Targets, ", ") + ")"
			}
			if _, err := fmt.Fprintf(p.stdout, "%s: %s\n", config.Printable(r.Alias), config.Printable(to)); err != nil {
				return err
			}
		}
		return nil
	})
}

type aliasCheck struct {
	Address string `arg:"" optional:"" help:"The address; without it all aliases are checked."`
}

func (c *aliasCheck) Run(p *program) error {
	if c.Address == "" {
		return p.withUsers(func(_ *users.Users, settings *config.Config) error {
			if wrong := aliasProblems(p.ctx, settings); len(wrong) > 0 {
				return wrong
			}
			n := len(settings.Users.Aliases)
			_, err := fmt.Fprintf(p.stdout, "%d %s, all lead to accounts\n", n, plural(n, "alias", "aliases"))
			return err
		})
	}
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		a, err := mime.ParseAddress(c.Address)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Address, err)
		}
		accounts, err := u.Resolve(p.ctx, a.Mailbox(), a.Domain)
		if err != nil {
			return err
		}
		if len(accounts) == 0 {
			return fmt.Errorf("%s: %w", c.Address, mailstore.ErrNoAccount)
		}
		for _, account := range accounts {
			if _, err := fmt.Fprintln(p.stdout, account); err != nil {
				return err
			}
		}
		return nil
	})
}

// aliasProblems returns what is wrong with the aliases, each with its place: those that lead in a circle, and, where
// there are accounts yet, those that lead nowhere. Nothing is made or changed.
func aliasProblems(ctx context.Context, c *config.Config) config.Problems {
	settings := usersConfig(c)
	settings.Loose, settings.ReadOnly = true, true
	err := users.Check(settings)
	if err == nil {
		err = dangling(ctx, settings)
	}
	var all config.Problems
	if err == nil {
		return nil
	}
	for _, e := range leaves(err) {
		var about *users.AliasError
		if errors.As(e, &about) {
			all = append(all, c.AliasProblem(about.Alias, about.Err.Error()))
			continue
		}
		if setting, ok := errors.AsType[*users.SettingError](e); ok {
			all = append(all, c.Where(setting.Setting, setting.Err.Error()))
			continue
		}
		all = append(all, config.Problem{File: c.File(), Text: e.Error()})
	}
	return all.Sorted()
}

// dangling finds aliases that lead to no account. Before the first account is made none could; and where the accounts
// cannot be read, that is nothing about the configuration.
func dangling(ctx context.Context, c users.Config) error {
	u, err := users.Open(ctx, c)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	all, err := u.List(ctx)
	if err == nil && len(all) > 0 {
		err = u.CheckAliases(ctx)
	}
	return errors.Join(err, u.Close())
}
