package users

import (
	"context"
	"database/sql"
	"fmt"

	"sluice/mailstore"
)

// Settings are what can be said of one account. What is nil stays as it is.
type Settings struct {
	Quota *int64 // octets; 0: the standard one, below 0: as much as there is room for
	Login *bool  // whether its owner can log in; mail for it is taken anyway
}

// Set changes the settings of an account, all or none. They count from its next command on. Errors:
// mailstore.ErrNoAccount.
func (u *Users) Set(ctx context.Context, account string, s Settings) error {
	changes := map[string]int64{}
	if s.Quota != nil {
		changes[updateQuota] = *s.Quota
	}
	if s.Login != nil {
		changes[updateLogin] = 0
		if *s.Login {
			changes[updateLogin] = 1
		}
	}
	return u.db.Write(ctx, func(tx *sql.Tx) error {
		for statement, value := range changes {
			r, err := tx.ExecContext(ctx, statement, account, value)
			if err != nil {
				return err
			}
			if n, err := r.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				return errNone(account)
			}
		}
		return nil
	})
}

// Account returns what is known of one account. Errors: mailstore.ErrNoAccount.
func (u *Users) Account(ctx context.Context, name string) (Account, error) {
	all, err := u.List(ctx)
	if err != nil {
		return Account{}, err
	}
	for _, a := range all {
		if a.Name == name {
			return a, nil
		}
	}
	return Account{}, errNone(name)
}

func errNone(account string) error {
	return fmt.Errorf("%s: %w; sluice user list shows all", account, mailstore.ErrNoAccount)
}
