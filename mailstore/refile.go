package mailstore

import (
	"context"
	"time"
)

// A Refiler gives messages other places and takes them back, one by one and only where they lie as they were seen: what
// somebody else has done with a message meanwhile stands.
type Refiler interface {
	// Tree lists the folders of an account, as [Account.Folders] does. ErrNoAccount.
	Tree(ctx context.Context, account string) ([]FolderInfo, error)
	// Survey says where the messages of a folder lie, by rising UID. Unlike [Folder.Messages] it changes nothing: mail
	// that nobody has looked at stays new. ErrNoFolder.
	Survey(ctx context.Context, account, folder string) ([]Spot, error)
	// Make sees to it that a folder exists and is subscribed. Durable.
	Make(ctx context.Context, account, folder string) error
	// Unmake removes a folder that is empty, and takes it off the subscriptions if so told. kept says why it was not
	// removed. One that is gone already is no error.
	Unmake(ctx context.Context, account, folder string, unsubscribe bool) (kept string, err error)
	// Refile carries out refilings in their order, durable, and says what became of each. After an error the results are
	// those of the first refilings; whoever wants to know of the others asks Again.
	Refile(ctx context.Context, account string, list []Refiling) ([]Refiled, error)
}

// A Spot is where a message lies, and with which flags.
type Spot struct {
	Folder string    `json:"folder"`
	File   string    `json:"file"`            // the unique name
	ID     string    `json:"id,omitempty"`    // of the record, from the unique name; "": it did not come through us
	Flags  []string  `json:"flags,omitempty"` // sorted, keywords too
	At     string    `json:"at,omitempty"`    // where in the folder, in the store's own words
	Path   string    `json:"path,omitempty"`  // the file, to be read only
	Size   int64     `json:"size,omitempty"`  // octets with CRLF line ends
	Date   time.Time `json:"date,omitzero"`   // when it was received
}

// A Refiling is a message that is to lie elsewhere, or with other flags, or both.
type Refiling struct {
	// From is where the message was seen. It is left alone unless it lies in this folder with these flags.
	From Spot `json:"from"`
	// To is where it shall lie. With At it comes back to exactly where it was; else the store chooses.
	To Spot `json:"to"`
	// Again says that this refiling may have been carried out before, wholly or half, by somebody who could not tell any
	// more: then it is completed, and done if there is nothing left to do.
	Again bool `json:"again,omitempty"`
}

// A Refiled is what became of a refiling.
type Refiled struct {
	Now  Spot `json:"now,omitzero"`  // where it lies now, without At if it is not done; the zero Spot: nowhere
	Left Left `json:"left,omitzero"` // why it was left alone; "": it was not
}

// A Left says why a message was left alone.
type Left string

const (
	LeftGone   Left = "gone"     // it is in no folder any more
	LeftMoved  Left = "moved"    // it lies in another folder
	LeftFlags  Left = "flags"    // it has other flags
	LeftTaken  Left = "taken"    // the folder has another file of its name
	LeftFolder Left = "folder"   // the folder it should go to is gone
	LeftKeys   Left = "keywords" // it would have too many keywords
)
