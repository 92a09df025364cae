package sieve

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/pipeline"
)

var _ Mailboxes = (*Owned)(nil)

// Owned are the folders of an account, looked up when a script asks. What cannot be found out is an error that whoever runs
// the script asks for afterwards.
type Owned struct {
	asked   context.Context
	owners  pipeline.Owners // nil: nothing is there but INBOX
	account string
	atOnce  bool // nothing may be waited for

	err     error // the first
	folders []pipeline.OwnFolder
	looked  bool
}

// MailboxesOf are the folders of an account.
func MailboxesOf(ctx context.Context, owners pipeline.Owners, account string) *Owned {
	return &Owned{asked: ctx, owners: owners, account: account}
}

// Err is what could not be found out. The outcome of a script counts only where that is nil.
func (o *Owned) Err() error { return o.err }

func (o *Owned) unknown(what string, err error) {
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("%s of %s: %w", what, o.account, err)
	}
}

// nobody: there is no account to ask about, or it may not be asked now.
func (o *Owned) nobody() bool { return o.owners == nil || o.account == "" || o.waits() }

// waits reports whether a script would have to wait now, and may not: its run counts for nothing then.
func (o *Owned) waits() bool {
	if o.atOnce && o.err == nil {
		o.err = errWaits
	}
	return o.atOnce
}

func (o *Owned) find(is func(pipeline.OwnFolder) bool) (string, bool) {
	if !o.looked && !o.nobody() {
		var err error
		o.looked = true
		o.folders, err = o.owners.Folders(o.asked, o.account)
		o.unknown("list the folders", err)
	}
	if i := slices.IndexFunc(o.folders, is); i >= 0 {
		return o.folders[i].Name, true
	}
	return "", false
}

// Exists reports whether a folder is there.
func (o *Owned) Exists(name string) bool {
	if strings.EqualFold(name, "INBOX") {
		return true
	}
	_, ok := o.find(func(f pipeline.OwnFolder) bool { return f.Name == name })
	return ok
}

// ByID returns the folder with an identity.
func (o *Owned) ByID(id string) (string, bool) {
	if o.nobody() {
		return "", false
	}
	name, ok, err := o.owners.FolderByID(o.asked, o.account, id)
	o.unknown("find a folder", err)
	return name, ok
}

// BySpecialUse returns the folder with a use.
func (o *Owned) BySpecialUse(use string) (string, bool) {
	return o.find(func(f pipeline.OwnFolder) bool { return f.Use != "" && strings.EqualFold(f.Use, use) })
}

// Metadata returns an annotation of a folder, or of the server.
func (o *Owned) Metadata(folder, annotation string) (string, bool) {
	if o.nobody() {
		return "", false
	}
	value, ok, err := o.owners.Annotation(o.asked, o.account, folder, annotation)
	o.unknown("look up an annotation", err)
	return value, ok
}

// FolderOf returns the folder that an action names: by its identity (RFC 9042), by its use (RFC 8579), else by its name.
func FolderOf(a Action, m Mailboxes) string {
	if a.MailboxID != "" {
		if name, ok := m.ByID(a.MailboxID); ok {
			return name
		}
	}
	if a.SpecialUse != "" {
		if name, ok := m.BySpecialUse(a.SpecialUse); ok {
			return name
		}
	}
	return a.Folder
}
