package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/queue"
	"sluice/mailstore/sending"
	"sluice/mailstore/users"
	"sluice/protocols/smtp"
)

// submitters are the accounts as the submission doors ask about them.
type submitters struct {
	*accounts
	*sending.Sending
}

var _ mailstore.Submitters = submitters{}

// Owns implements mailstore.Submitters.
func (s submitters) Owns(ctx context.Context, account, local, domain string) (bool, error) {
	return askAccounts(s.accounts, func(u *users.Users) (bool, error) { return u.Owns(ctx, account, local, domain) })
}

// Addresses implements mailstore.Submitters.
func (s submitters) Addresses(ctx context.Context, account string) ([]string, error) {
	return askAccounts(s.accounts, func(u *users.Users) ([]string, error) { return u.Addresses(ctx, account) })
}

// openSending opens what accounts have sent. tell may be nil.
func openSending(ctx context.Context, c *config.Config, limits func() sending.Policy, tell func(context.Context, sending.Standing) error,
	log *slog.Logger, now func() time.Time,
) (*sending.Sending, error) {
	return sending.Open(ctx, sending.Config{
		Path: sendingPath(c.Data), Limits: limits, Tell: tell, Log: log, Now: now,
	})
}

func sendingPath(data string) string { return filepath.Join(data, "sending.db") }

// sendingLimits are the limits of now.
func (s *service) sendingLimits() sending.Policy {
	if x := s.now.Load(); x != nil {
		return x.sending
	}
	return sendingPolicy(s.started)
}

// sendingPolicy is how much accounts may send by a configuration.
func sendingPolicy(c *config.Config) sending.Policy {
	p := sending.Policy{Limits: c.Submission.Limits, For: map[string]map[string]sending.Bound{}}
	for _, key := range slices.Sorted(maps.Keys(c.Submission.LimitsFor)) {
		account := normalAccounts(key)
		if p.For[account] == nil {
			p.For[account] = map[string]sending.Bound{}
		}
		maps.Copy(p.For[account], c.Submission.LimitsFor[key])
	}
	return p
}

// normalAccounts normalises what names an account, or with "@example.org" all of a domain.
func normalAccounts(s string) string {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		return "@" + normalDomain(domain)
	}
	return normalAddress(s)
}

// submission is what makes a door of smtp one for our own users.
func (s *service) submission(c *config.Config) *smtp.Submission {
	return &smtp.Submission{
		Submitters: submitters{s.house.users, s.house.sending}, Logins: s.logins, Keys: s.house.users,
		HideClient: c.Submission.HideClient, SaveSent: savesSent(c),
	}
}

// savesSent reports for whom copies of sent mail are filed; nil: for nobody.
func savesSent(c *config.Config) func(account string) bool {
	if !c.Submission.SaveSent {
		return nil
	}
	var only []string
	for _, x := range c.Submission.SaveSentFor {
		only = append(only, normalAccounts(x))
	}
	return func(account string) bool {
		_, domain, _ := strings.Cut(account, "@")
		return len(only) == 0 || slices.Contains(only, account) || slices.Contains(only, "@"+domain)
	}
}

// accountHeld does what follows from an account sending like one whose password was stolen: what it has handed in within a
// day and has not left is held with what is to come, and the postmaster is told.
func (s *service) accountHeld(ctx context.Context, x sending.Standing) error {
	n, err := s.holdWaiting(ctx, x)
	if err != nil {
		s.log.Error("mail of an account that is held was not all kept from leaving", "account", x.Account, "err", err)
	}
	return s.tellPostmaster(ctx, x, n)
}

// holdWaiting holds what waits of an account: mail that was slowed, above all. What is held already stays held for what it
// was held for.
func (s *service) holdWaiting(ctx context.Context, x sending.Standing) (n int, err error) {
	waiting := s.house.queue
	var ids []string
	err = eachQueued(ctx, waiting.Reader, queue.Filter{Account: x.Account, Why: submitted}, func(m queue.Message) error {
		if m.Held == "" && x.Since.Sub(m.Queued) < 24*time.Hour {
			ids = append(ids, m.ID)
		}
		return nil
	})
	errs := []error{err}
	for _, id := range ids {
		err := waiting.Hold(ctx, id, x.Why)
		switch {
		case err == nil:
			n++
		case !errors.Is(err, queue.ErrEnded): // it has left meanwhile
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

// tellPostmaster files a mail about an account whose mail is held with its postmaster; waiting is how many messages had not left.
func (s *service) tellPostmaster(ctx context.Context, x sending.Standing, waiting int) error {
	h := s.house
	to, err := h.users.operator(ctx, x.Account)
	if err != nil {
		return fmt.Errorf("find the postmaster: %w", err)
	}
	now := s.program.now()
	text := heldMail(x, waiting, s.started.Hostname, to[0], now)
	var items []mailstore.Item
	for _, account := range to {
		items = append(items, mailstore.Item{Account: account, ID: newID(now), Date: now, Content: bytes.NewReader(text)})
	}
	_, err = h.store.Deliver(ctx, items)
	return err
}

// heldMail is what the postmaster reads of an account whose mail is held.
func heldMail(x sending.Standing, waiting int, hostname, to string, now time.Time) []byte {
	var b bytes.Buffer
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\r\n", a...) }
	line("From: Sluice <postmaster@%s>", hostname)
	line("To: <%s>", to)
	line("Subject: mail of %s is held", config.Printable(x.Account))
	line("Date: %s", now.Format(time.RFC1123Z))
	line("Message-ID: <held.%s@%s>", newID(now), hostname)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: 8bit")
	line("")
	line("The account %s sends like one whose password was stolen:", config.Printable(x.Account))
	line("%s.", x.Why)
	line("")
	line("What it hands in is held since %s, and nothing of it leaves.", x.Since.UTC().Format(time.RFC1123))
	if waiting > 0 {
		line("So %s that it had handed in before, and that had not left.", plural(waiting, "is 1 message", fmt.Sprintf("are %d messages", waiting)))
	}
	line("What it has sent before that, the newest first:")
	line("")
	for _, id := range x.Records {
		line("    sluice explain %s", id)
	}
	line("")
	line("If that was its owner, let it all leave:")
	line("")
	line("    sluice user release %s", x.Account)
	line("")
	line("If it was not, change the password, and remove what is held:")
	line("")
	line("    sluice user block %s", x.Account)
	line("    sluice user passwd %s", x.Account)
	line("    sluice queue delete --account %s --state held", x.Account)
	line("    sluice user release %s", x.Account)
	return b.Bytes()
}

// outbox takes what our own users send.
func (s *service) outbox() mailstore.Outbox { return s.house.outbox }
