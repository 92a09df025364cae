package program

import (
	"context"
	"errors"
	"slices"
	"strings"

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
	metadata mailstore.Metadata
	reports  scriptReporter
}

// owners shows what accounts keep here to the steps and scripts of a setup.
func (s *service) owners(x *setup) *owners {
	h := s.house
	return &owners{
		scripting: x.scripting, accounts: h.users, scripts: h.scripts, store: h.store, metadata: h.store,
		reports: scriptReporter{log: h.scriptLog, store: h.store, hostname: x.config.Hostname, now: s.program.now, say: s.log},
	}
}

// Script implements pipeline.Owners.
func (o *owners) Script(ctx context.Context, account, have string) (pipeline.OwnScript, error) {
	name, text, version, err := o.scripts.Active(ctx, account, have)
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

// FolderByID implements pipeline.Owners.
func (o *owners) FolderByID(ctx context.Context, account, id string) (name string, ok bool, err error) {
	name, err = o.metadata.FolderByID(ctx, account, id)
	if errors.Is(err, mailstore.ErrNoFolder) {
		return "", false, nil
	}
	return name, err == nil, err
}

// Annotation implements pipeline.Owners.
func (o *owners) Annotation(ctx context.Context, account, folder, name string) (value string, ok bool, err error) {
	all, err := o.metadata.Annotations(ctx, account, folder)
	if errors.Is(err, mailstore.ErrNoFolder) || errors.Is(err, mailstore.ErrName) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	value, ok = all.Value(name)
	switch {
	case ok:
	case folder == "":
		value, ok = o.annotations[strings.ToLower(name)]
	case strings.EqualFold(name, mailstore.UseAnnotation):
		value, err = o.use(ctx, account, folder) // by its name
		ok = value != ""
	}
	return value, ok, err
}

// use is the special use of a folder.
func (o *owners) use(ctx context.Context, account, folder string) (string, error) {
	all, err := o.Folders(ctx, account)
	if i := slices.IndexFunc(all, func(f pipeline.OwnFolder) bool { return f.Name == folder }); err == nil && i >= 0 {
		return all[i].Use, nil
	}
	return "", err
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
