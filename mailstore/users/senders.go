package users

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"sluice/mailstore"
)

// Owns reports whether local@domain may stand as a sender in mail of an account: mail for it comes to the account, by
// itself or by an alias, or Config.Senders names it.
func (u *Users) Owns(ctx context.Context, account, local, domain string) (bool, error) {
	address := local + "@" + domain
	for _, x := range u.granted(account) {
		if rest, ok := isCatchAll(x); x == address || ok && rest == domain {
			return true, nil
		}
		if slices.Contains(forms(address), x) {
			return true, nil
		}
	}
	accounts, err := u.Resolve(ctx, local, domain)
	switch {
	case errors.Is(err, mailstore.ErrForeign), errors.Is(err, mailstore.ErrNoAccount), errors.Is(err, mailstore.ErrName):
		return false, nil
	case err != nil:
		return false, err
	}
	return slices.Contains(accounts, account), nil
}

// granted returns what Config.Senders has for an account.
func (u *Users) granted(account string) []string {
	_, domain, _ := cut(account)
	return slices.Concat(u.c.Senders[account], u.c.Senders["@"+domain])
}

// Addresses returns the addresses that an account may send under, without their subaddresses: its own, those of aliases,
// those of Config.Senders. "@example.org" is all of a domain.
func (u *Users) Addresses(ctx context.Context, account string) ([]string, error) {
	all := []string{account}
	for _, alias := range slices.SortedFunc(maps.Keys(u.c.Aliases), byDomain) {
		accounts, err := u.expandAll(ctx, u.c.Aliases[alias], map[string]bool{alias: true})
		if err != nil {
			return nil, err
		}
		if slices.Contains(accounts, account) {
			all = append(all, alias)
		}
	}
	for _, x := range slices.Sorted(slices.Values(u.granted(account))) {
		if !slices.ContainsFunc(all, func(y string) bool { return strings.EqualFold(x, y) }) {
			all = append(all, x)
		}
	}
	return all, nil
}
