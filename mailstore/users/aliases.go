package users

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Aliases are addresses that lead to accounts or to other aliases: each to one or a list. "@example.org" gets what
// nobody else in example.org does.
type Aliases map[string][]string

// UnmarshalYAML reads a mapping of addresses, each with one target or a list.
func (a *Aliases) UnmarshalYAML(unmarshal func(any) error) error {
	var all map[string]targets
	err := unmarshal(&all)
	*a = Aliases{}
	for from, to := range all {
		(*a)[from] = to
	}
	return err
}

type targets []string

// UnmarshalYAML reads one target or a list.
func (t *targets) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if unmarshal(&one) == nil {
		*t = targets{one}
		return nil
	}
	var many []string
	err := unmarshal(&many)
	*t = many
	return err
}

// An AliasError says what is wrong with one alias.
type AliasError struct {
	Alias string
	Err   error
}

func (e *AliasError) Error() string { return "aliases: " + e.Err.Error() }

// Unwrap returns Err.
func (e *AliasError) Unwrap() error { return e.Err }

// Check says what is wrong with a configuration whatever accounts there are. Its error wraps an AliasError for each alias
// that is wrong or leads back to itself.
func Check(c Config) error {
	u := &Users{c: c, ours: map[string]bool{}}
	u.c.Hash = u.c.Hash.withDefaults()
	return u.checkConfig()
}

// isCatchAll reports whether an alias gets the mail of a domain that nobody else does, and returns that domain.
func isCatchAll(alias string) (domain string, ok bool) { return strings.CutPrefix(alias, "@") }

// checkAlias checks what leads somewhere: an address, or the rest of a domain.
func checkAlias(alias string) error {
	domain, ok := isCatchAll(alias)
	if !ok {
		return checkAddress(alias)
	}
	if err := checkDomain(domain); err != nil {
		return badName(alias, err.Error())
	}
	return nil
}

// catchAll returns the accounts that get mail for a domain's unknown users; none is no error. What the targets lead to
// is looked for as usual, but not here again: a catch-all does not make an address good that an alias names.
func (u *Users) catchAll(ctx context.Context, domain string) ([]string, error) {
	return u.expandAll(ctx, u.c.Aliases["@"+domain], map[string]bool{})
}

// expandAll returns the accounts that several addresses lead to, each once.
func (u *Users) expandAll(ctx context.Context, targets []string, seen map[string]bool) ([]string, error) {
	var all []string
	for _, target := range targets {
		accounts, err := u.expand(ctx, target, seen)
		if err != nil {
			return nil, err
		}
		for _, a := range accounts {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

// CheckAliases returns what Open, unless it is told to be Loose, refuses: an error that wraps an AliasError for every
// alias that leads to nobody, and names a postmaster who is nobody.
func (u *Users) CheckAliases(ctx context.Context) error {
	var errs []error
	for _, alias := range slices.Sorted(maps.Keys(u.c.Aliases)) {
		for _, target := range u.c.Aliases[alias] {
			if _, ok := u.alias(target); ok {
				continue
			}
			account, err := u.account(ctx, target)
			if err != nil {
				return err
			}
			if account == "" {
				errs = append(errs, &AliasError{alias, fmt.Errorf(
					"%s leads to %s, which is neither an account nor an alias; add it with: sluice user add %[2]s", alias, target)})
			}
		}
	}
	if p := u.c.Postmaster; p != "" {
		if accounts, err := u.expand(ctx, p, map[string]bool{}); err != nil {
			return err
		} else if len(accounts) == 0 {
			errs = append(errs, fmt.Errorf("postmaster: %s is neither an account nor an alias; add it with: sluice user add %[1]s", p))
		}
	}
	return errors.Join(errs...)
}

// A Route says where an alias leads.
type Route struct {
	Alias    string
	Targets  []string // as configured
	Accounts []string // that get the mail in the end
}

// Routes returns where every alias leads, by domain and name.
func (u *Users) Routes(ctx context.Context) ([]Route, error) {
	var all []Route
	for _, alias := range slices.SortedFunc(maps.Keys(u.c.Aliases), byDomain) {
		accounts, err := u.expandAll(ctx, u.c.Aliases[alias], map[string]bool{alias: true})
		if err != nil {
			return nil, err
		}
		all = append(all, Route{alias, u.c.Aliases[alias], accounts})
	}
	return all, nil
}

func byDomain(a, b string) int {
	aLocal, aDomain, _ := cut(a)
	bLocal, bDomain, _ := cut(b)
	if n := strings.Compare(aDomain, bDomain); n != 0 {
		return n
	}
	return strings.Compare(aLocal, bLocal)
}
