package program

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/users"
	"sluice/pipeline"
)

var _ pipeline.Owners = (*owners)(nil)

// owners shows sieve steps what accounts keep here.
type owners struct {
	*scripting
	accounts *accounts
	scripts  mailstore.Scripts
	store    mailstore.Store
	reports  scriptReporter
}

func (h *house) owners(hostname string, now func() time.Time, log *slog.Logger) *owners {
	return &owners{
		accounts: h.users, scripts: h.scripts, store: h.store,
		reports: scriptReporter{log: h.scriptLog, store: h.store, hostname: hostname, now: now, say: log},
	}
}

// Script implements pipeline.Owners.
func (o *owners) Script(ctx context.Context, account string) (pipeline.OwnScript, error) {
	name, text, version, err := o.scripts.Active(ctx, account)
	if errors.Is(err, mailstore.ErrNoScript) || errors.Is(err, mailstore.ErrNoAccount) || errors.Is(err, mailstore.ErrName) {
		return pipeline.OwnScript{}, nil
	}
	return pipeline.OwnScript{Name: name, Text: text, Version: version}, err
}

// Include implements pipeline.Owners.
func (o *owners) Include(ctx context.Context, account, name string) (text []byte, ok bool, err error) {
	text, err = o.scripts.Script(ctx, account, name)
	if errors.Is(err, mailstore.ErrNoScript) || errors.Is(err, mailstore.ErrScriptName) {
		return nil, false, nil
	}
	return text, err == nil, err
}

// Folders implements pipeline.Owners.
func (o *owners) Folders(ctx context.Context, account string) (all []pipeline.OwnFolder, err error) {
	a, err := o.store.Account(ctx, account)
	if err != nil {
		return nil, err
	}
	defer a.Close() // nothing was changed
	folders, err := a.Folders(ctx)
	for _, f := range folders {
		if !f.Missing {
			all = append(all, pipeline.OwnFolder{Name: f.Name, Use: f.Use})
		}
	}
	return all, err
}

// Addresses implements pipeline.Owners.
func (o *owners) Addresses(_ context.Context, account string) ([]string, error) {
	return askAccounts(o.accounts, func(u *users.Users) ([]string, error) { return u.Names(account), nil })
}

// Failed implements pipeline.Owners.
func (o *owners) Failed(ctx context.Context, f pipeline.ScriptFailure) {
	o.reports.report(ctx, f.Account, mailstore.ScriptProblem{
		Time: f.Time, Script: f.Script, Line: f.Line, Text: f.Text, ID: f.ID, MessageID: f.MessageID,
	})
}
