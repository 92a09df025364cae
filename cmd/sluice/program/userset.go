package program

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/users"
)

type userSet struct {
	account
	Settings []string `arg:"" placeholder:"KEY=VALUE" help:"quota=SIZE, quota=none (as much as there is room for) or quota=default (limits.quota); login=yes or login=no (mail is kept, nobody can log in)."`
}

func (c *userSet) Run(p *program) error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	return p.withUsers(func(u *users.Users, _ *config.Config) error {
		name, err := c.account.normal()
		if err != nil {
			return err
		}
		return u.Set(p.ctx, name, s)
	})
}

// settings reads KEY=VALUE, each key once.
func (c *userSet) settings() (s users.Settings, err error) {
	var seen []string
	for _, x := range c.Settings {
		key, value, ok := strings.Cut(x, "=")
		if !ok {
			return s, fmt.Errorf("%s: write KEY=VALUE, for example quota=1GiB", x)
		}
		if slices.Contains(seen, key) {
			return s, fmt.Errorf("%s is there twice", key)
		}
		seen = append(seen, key)
		switch key {
		case "quota":
			quota, err := parseQuota(value)
			if err != nil {
				return s, err
			}
			s.Quota = &quota
		case "login":
			on := value == "yes"
			if !on && value != "no" {
				return s, fmt.Errorf("login=%s: write login=yes or login=no", value)
			}
			s.Login = &on
		default:
			return s, fmt.Errorf("there is no setting %q; there are quota and login", key)
		}
	}
	return s, nil
}

func parseQuota(value string) (int64, error) {
	switch value {
	case "default":
		return 0, nil
	case "none":
		return -1, nil
	}
	var size config.Size
	if err := size.UnmarshalText([]byte(value)); err != nil || size == 0 {
		return 0, fmt.Errorf("quota=%s: write for example quota=1GiB, quota=none or quota=default", value)
	}
	return int64(size), nil
}

type userShow struct{ account }

func (c *userShow) Run(p *program) error {
	return p.withUsers(func(u *users.Users, settings *config.Config) error {
		name, err := c.account.normal()
		if err != nil {
			return err
		}
		a, err := u.Account(p.ctx, name)
		if err != nil {
			return err
		}
		quota := "none"
		switch {
		case a.Quota > 0:
			quota = octets(a.Quota)
		case a.Quota == 0 && settings.Limits.Quota > 0:
			quota = octets(int64(settings.Limits.Quota)) + " (limits.quota)"
		}
		login := "yes"
		if a.NoLogin {
			login = "no"
		}
		t := text{w: p.stdout}
		t.line(0, "account  %s", a.Name)
		t.line(0, "quota    %s", quota)
		t.line(0, "login    %s", login)
		for _, m := range a.SCRAM {
			t.line(0, "keys     %s, %d iterations", m.Name, m.Iterations)
		}
		t.line(0, "made     %s", a.Created.UTC().Format(time.RFC3339))
		s, err := p.readSending(settings, true)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s = nil
		case err != nil:
			return err
		default:
			defer func() { _ = s.Close() }() // it was only read
		}
		return errors.Join(t.sends(p.ctx, u, s, name, p.configFile == ""), t.err)
	})
}

// octets writes a size as configurations do.
func octets(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%d%s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprint(n)
}
