package program

import (
	"fmt"
	"strings"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/users"
)

// inMailbox completes what --mailbox says: where it names a folder alone, and there is only one account, it is that one's.
func (p *program) inMailbox(s string) (whole string, err error) {
	name, _, _ := strings.Cut(s, "/")
	if s == "" || strings.Contains(name, "@") {
		return s, nil
	}
	err = p.withUsers(func(u *users.Users, _ *config.Config) error {
		all, err := u.List(p.ctx)
		if err != nil {
			return err
		}
		switch len(all) {
		case 0:
			return fmt.Errorf("--mailbox %s: there is no account yet", s)
		case 1:
			whole = all[0].Name + "/" + s
			return nil
		}
		return fmt.Errorf("--mailbox %s does not say whose, and there are %d accounts: write NAME@DOMAIN/%[1]s, as %[3]s/%[1]s", s, len(all), all[0].Name)
	})
	return whole, err
}
