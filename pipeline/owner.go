package pipeline

import (
	"context"
	"time"
)

// Owners is what recipients keep here of their own, as stages asked at delivery may look at it. Accounts are named as in
// [Recipient]. Errors are temporary.
type Owners interface {
	// Script returns the script that an account has made the active one; the zero OwnScript where it has none. have is the
	// version that the caller has the text of, or "": of that one Text is nil, and the call is cheap.
	Script(ctx context.Context, account, have string) (OwnScript, error)
	// Include returns the text of another script of an account. ok is false where there is
	// none.
	Include(ctx context.Context, account, name string) (text []byte, ok bool, err error)
	// Folders returns the folders of an account.
	Folders(ctx context.Context, account string) ([]OwnFolder, error)
	// FolderByID returns the name of the folder of an account with an identity (RFC 8474); ok is false where there is none.
	FolderByID(ctx context.Context, account, id string) (name string, ok bool, err error)
	// Annotation returns an annotation of a folder of an account (RFC 5464), of the server as the account sees it for ""; ok
	// is false where there is none, or no such folder.
	Annotation(ctx context.Context, account, folder, name string) (value string, ok bool, err error)
	// Addresses returns all addresses that lead to an account, the account's own first.
	Addresses(ctx context.Context, account string) ([]string, error)
	// Failed tells an account and the operator that a script of the account, or of the site for it, has failed.
	Failed(ctx context.Context, f ScriptFailure)
}

// An OwnScript is a script of an account.
type OwnScript struct {
	Name    string
	Text    []byte
	Version string // the same as long as the text is
}

// An OwnFolder is a folder of an account.
type OwnFolder struct {
	Name string
	Use  string // special use (RFC 6154): `\Junk`, or ""
}

// A ScriptFailure says why a script broke off.
type ScriptFailure struct {
	Account   string
	Script    string // its name, or the path of one of the site's
	Line      int
	Text      string
	ID        string // of the transaction
	MessageID string // of the mail
	Time      time.Time
}
