package users

import (
	"maps"
	"slices"
)

// Names returns the addresses that mean an account and nobody else: its own, and the aliases that lead to it alone,
// directly or by way of another one. Those with a whole domain are left out.
func (u *Users) Names(account string) []string {
	all := []string{account}
	leading := u.leading()
	for i := 0; i < len(all); i++ {
		for _, alias := range leading[all[i]] {
			if !slices.Contains(all, alias) {
				all = append(all, alias)
			}
		}
	}
	return all
}

// leadingAlone returns the aliases that lead to one address, by that address.
func leadingAlone(aliases map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, alias := range slices.Sorted(maps.Keys(aliases)) {
		if _, all := isCatchAll(alias); !all && len(aliases[alias]) == 1 {
			to := aliases[alias][0]
			out[to] = append(out[to], alias)
		}
	}
	return out
}
