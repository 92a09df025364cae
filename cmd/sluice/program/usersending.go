package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/queue"
	"sluice/mailstore/sending"
	"sluice/mailstore/users"
)

type userBlock struct {
	account
	Reason string `placeholder:"TEXT" help:"Why, for the log and for user show."`
}

func (c *userBlock) Run(p *program) error {
	return p.withSending(c.account, func(s *sending.Sending, name string, _ *config.Config) error {
		return s.Block(p.ctx, name, c.Reason)
	})
}

type userRelease struct {
	account
	KeepHeld bool `help:"Mail that was held or slowed stays so: sluice queue list --account shows it."`
}

func (c *userRelease) Run(p *program) error {
	return p.withSending(c.account, func(s *sending.Sending, name string, settings *config.Config) error {
		before, err := s.Standing(p.ctx, name)
		if err != nil {
			return err
		}
		if err := s.Release(p.ctx, name); err != nil {
			return err
		}
		switch before.State {
		case sending.Free:
			fmt.Fprintf(p.stdout, "%s was not stopped; what it has sent counts from now on anew\n", name)
		default:
			fmt.Fprintf(p.stdout, "%s may send again\n", name)
		}
		if c.KeepHeld {
			return nil
		}
		held, slowed, err := p.releaseHeld(settings, name, before.Why)
		if held > 0 {
			fmt.Fprintf(p.stdout, "%d %s held for that, and may leave\n", held, plural(held, "message was", "messages were"))
		}
		if slowed > 0 {
			fmt.Fprintf(p.stdout, "%d %s slowed, and may leave\n", slowed, plural(slowed, "message was", "messages were"))
		}
		return err
	})
}

// releaseHeld lets leave what is held or slowed because of what its account has sent: not what steps for outgoing mail
// hold, and not what waits because nobody has taken it.
func (p *program) releaseHeld(c *config.Config, account, why string) (held, slowed int, err error) {
	var stopped, late []string
	err = withQueue(p.ctx, c, func(r *queue.Reader) error {
		return eachQueued(p.ctx, r, queue.Filter{Account: account, Why: submitted}, func(m queue.Message) error {
			untried := func(x queue.Recipient) bool { return x.Attempts == 0 && x.Due.After(p.now()) }
			switch {
			case m.Held != "" && (m.Held == why || strings.Contains(m.Held, "(submission.limits")):
				stopped = append(stopped, m.ID)
			case m.Held == "" && slices.ContainsFunc(m.Recipients, untried):
				late = append(late, m.ID)
			}
			return nil
		})
	})
	if err != nil {
		return 0, 0, err
	}
	held, err = p.orderEach(c, "release", stopped)
	slowed, e := p.orderEach(c, "retry", late)
	return held, slowed, errors.Join(err, e)
}

// orderEach has something done with mail that is to leave, and returns with how many that went well.
func (p *program) orderEach(c *config.Config, do string, ids []string) (n int, _ error) {
	var errs []error
	for part := range slices.Chunk(ids, 1000) {
		a, err := p.orderQueue(c, queueOrder{Version: queueVersion, Do: do, IDs: part})
		if err != nil {
			return n, errors.Join(append(errs, err)...)
		}
		for _, x := range a.Results {
			if x.Error != "" {
				errs = append(errs, errors.New(x.Error))
				continue
			}
			n++
		}
	}
	return n, errors.Join(errs...)
}

// withSending opens what accounts have sent for a command about one account, which there must be.
func (p *program) withSending(a account, f func(s *sending.Sending, name string, c *config.Config) error) error {
	return p.withUsers(func(u *users.Users, settings *config.Config) (err error) {
		name, err := a.normal()
		if err != nil {
			return err
		}
		if _, err := u.Account(p.ctx, name); err != nil {
			return err
		}
		s, err := openSending(p.ctx, settings, func() sending.Policy { return sendingPolicy(settings) }, nil, nil, p.now)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return f(s, name, settings)
	})
}

// forgetSending forgets what an account that is no more has sent.
func (p *program) forgetSending(settings *config.Config, name string) error {
	s, err := p.readSending(settings, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.Forget(p.ctx, name), s.Close())
}

// readSending opens what accounts have sent, if anything was ever sent: fs.ErrNotExist else.
func (p *program) readSending(c *config.Config, readOnly bool) (*sending.Sending, error) {
	config := sending.Config{
		Path: sendingPath(c.Data), ReadOnly: true, Now: p.now, Limits: func() sending.Policy { return sendingPolicy(c) },
	}
	s, err := sending.Open(p.ctx, config)
	if err != nil || readOnly {
		return s, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	config.ReadOnly = false
	return sending.Open(p.ctx, config)
}

// sends prints how an account stands with the submission doors: what it may use as a sender, and how much it has sent.
// guessed says that the limits are those by default, as no configuration was read: the server may have others.
func (t *text) sends(ctx context.Context, u *users.Users, s *sending.Sending, name string, guessed bool) error {
	all, err := u.Addresses(ctx, name)
	if err != nil {
		return err
	}
	t.line(0, "sends as %s", strings.Join(all, ", "))
	if s == nil {
		return nil
	}
	x, err := s.Standing(ctx, name)
	if err != nil {
		return err
	}
	state := "free"
	if x.State != sending.Free {
		state = fmt.Sprintf("%s since %s", x.State, x.Since.UTC().Format(time.RFC3339))
		if x.Why != "" {
			state += ": " + x.Why
		}
	}
	t.line(0, "sending  %s", state)
	if !x.Slowed.IsZero() {
		t.line(0, "slowed   the last of its mail leaves at %s: %s", x.Slowed.UTC().Format(time.RFC3339), x.Slow)
	}
	for _, id := range x.Records {
		t.line(0, "why      sluice explain %s", id)
	}
	byDefault := ""
	if guessed {
		byDefault = "by default "
	}
	for _, c := range x.Counts {
		switch {
		case c.From != "":
			t.line(0, "sent     %d %s (%s, as limits_for says of %s)", c.Used, c.What, c.Bound, c.From)
		case c.Used > 0:
			t.line(0, "sent     %d %s (%s%s)", c.Used, c.What, byDefault, c.Bound)
		}
	}
	return nil
}
