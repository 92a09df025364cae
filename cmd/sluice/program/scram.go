package program

import (
	"slices"

	"sluice/mailstore/users"
)

// tendKeys removes the keys of mechanisms that are not configured any more, and says which wait for accounts to get theirs.
func (s *service) tendKeys() {
	all, err := askAccounts(s.house.users, func(u *users.Users) ([]users.Account, error) {
		if err := u.DropKeys(s.ctx); err != nil {
			return nil, err
		}
		return u.List(s.ctx)
	})
	if err != nil {
		s.log.Warn("keys of scram that are no longer wanted are still stored", "error", err)
		return
	}
	for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		if !s.now.Load().config.Users.SCRAM.Wants(m) {
			continue
		}
		if n := len(slices.DeleteFunc(slices.Clone(all), func(a users.Account) bool { return !lacks(a, m) })); n > 0 {
			s.log.Info("a mechanism is not offered until all accounts have its keys", "mechanism", m, "lacking", n,
				"see", "sluice user list --lacking "+m)
		}
	}
}

// lacks reports whether an account keeps a mechanism from being offered.
func lacks(a users.Account, mechanism string) bool {
	return !a.NoLogin && !slices.ContainsFunc(a.SCRAM, func(m users.Mechanism) bool { return m.Name == mechanism })
}
