// Package mailstore is the contract between those who keep mail and those who bring and read it: accounts, folders,
// messages, changes. Doors know this package and none of its implementations.
package mailstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that callers branch on. Implementations wrap them with the thing they are about.
var (
	ErrNoAccount = errors.New("no such account")
	ErrForeign   = errors.New("not a domain of ours") // the address is somebody else's business
	ErrNoFolder  = errors.New("no such folder")
	ErrExists    = errors.New("exists already")
	ErrQuota     = errors.New("over quota")
	ErrFull      = errors.New("no room on the disk") // for anybody, for now
	ErrNoMessage = errors.New("no such message")
	ErrName      = errors.New("not a usable name")      // of a folder or an account
	ErrPassword  = errors.New("wrong name or password") // the same for an unknown name
)

// Inbox is the folder every account has. Its name is compared without regard to case.
const Inbox = "INBOX"

// Separator divides the levels of a folder's name: "Lists/go".
const Separator = "/"

// A Directory knows who there is. Parts of addresses are given as sluice/pipeline/mime normalises them: lower-cased, NFC.
type Directory interface {
	// Resolve returns the accounts that mail for local@domain goes to: the account itself, with a subaddress
	// ("user+tag") taken off where there is no account of the whole name, or what an alias names. domain "" is for
	// postmaster alone (RFC 5321, 4.5.1). Errors: ErrForeign, ErrNoAccount, ErrName; any other is temporary.
	Resolve(ctx context.Context, local, domain string) (accounts []string, err error)
	// Authenticate returns the account of a login name ("me@localhost", or "me" for the configured domain). ErrPassword
	// after the same time for an unknown name as for a wrong password; any other error is temporary.
	Authenticate(ctx context.Context, login, password string) (account string, err error)
}

// A Keyring has what SCRAM (RFC 5802) needs of accounts, so that they log in without sending a password.
type Keyring interface {
	// Mechanisms returns those that every account that can log in has keys for, strongest first: "SCRAM-SHA-256-PLUS",
	// "SCRAM-SHA-256". A client takes the first it knows, and does not try another when it is refused.
	Mechanisms(ctx context.Context) ([]string, error)
	// Keys returns the account of a login name, as [Directory] has it, and its keys for SCRAM-SHA-256 or SCRAM-SHA-1. A name that cannot
	// log in so has keys, too, the same each time, that no password fits; its account is "".
	Keys(ctx context.Context, login, mechanism string) (account string, k Keys, err error)
}

// Keys are what a password is compared with in SCRAM (RFC 5802, 3). They log nobody in, but a password can be guessed
// with them.
type Keys struct {
	Salt           []byte
	Iterations     int
	Stored, Server []byte
}

// A Store keeps the mail of accounts. An account is named "local@domain".
type Store interface {
	// Deliver files a message once for each item and returns once all of them would survive a power cut, with folders
	// that had to be made for them, and their parents. Every file is written and synced before the first appears in a
	// folder. After an error nothing is left behind.
	Deliver(ctx context.Context, items []Item) ([]Placed, error)
	// Room reports whether a message of size octets (0: unknown) fits the quota of an account: nil, ErrQuota, or
	// ErrNoAccount.
	Room(ctx context.Context, account string, size int64) error
	// Account opens the mail of an account, making its inbox if there is none yet. Accounts are shared: any number of
	// sessions may hold one. Close it after use.
	Account(ctx context.Context, account string) (Account, error)
	// Locate returns where the file with this unique name lies now, as "account", "folder" and the path; ErrNoMessage if
	// it is nowhere.
	Locate(ctx context.Context, account, file string) (folder, path string, err error)
}

// An Item is one copy of a message to be filed.
type Item struct {
	Account string
	Folder  string // "" is the inbox; one that does not exist is made and subscribed
	// Wish: Folder and Flags are what a rule or a user has written, and mail is not lost over it. It goes to the inbox where
	// Folder is not a usable name; flags that are not usable, or too many, are left out.
	Wish bool
	// Existing: a Folder that does not exist is not made; the item goes to the inbox.
	Existing bool
	// Use is a special use, such as `\Junk`, that Folder is given if it has to be made, unless it is none or a folder has it.
	Use     string
	Flags   []string  // `\Seen`, `$Junk`
	ID      string    // becomes part of the file's name: [0-9A-Za-z]
	Date    time.Time // when it was received
	Content io.Reader // the whole message, line ends CRLF or LF; read once
}

// A Placed says where an Item went.
type Placed struct {
	Folder string
	File   string // the unique name, without flags
}

// An Account is the mail of one account.
type Account interface {
	Name() string
	// Folders lists all folders, the inbox first, then by name.
	Folders(ctx context.Context) ([]FolderInfo, error)
	Create(ctx context.Context, folder string) error // and missing parents; ErrExists, ErrName
	// CreateFor is Create of a folder with a special use, such as `\Junk`; ErrUse where another folder was given it.
	CreateFor(ctx context.Context, folder, use string) error
	Delete(ctx context.Context, folder string) error // with its mail, not its children; never the inbox; ErrNoFolder
	// Rename moves a folder and its children. Of the inbox it moves the messages (RFC 9051, 6.3.6).
	Rename(ctx context.Context, from, to string) error
	Subscribe(ctx context.Context, folder string, on bool) error
	// Open returns a folder, ErrNoFolder if there is none. Folders are shared by all sessions.
	Open(ctx context.Context, folder string) (Folder, error)
	Close() error
}

// A FolderInfo describes a folder.
type FolderInfo struct {
	Name       string
	Subscribed bool
	Use        string // special use: what [UseAnnotation] says, else [UseByName]; one folder at most has each; "" is none
	Missing    bool   // it does not exist: it is only the parent of one that does, or only subscribed
	Children   bool
}

// A Folder is one folder of an account. Its methods may be called by any number of goroutines.
type Folder interface {
	Name() string
	// Status is cheap: counts as of now.
	Status(ctx context.Context) (Status, error)
	// Messages returns what is in the folder now, by rising UID; new files have been given UIDs that would survive a
	// power cut. The slice is shared and must not be changed.
	Messages(ctx context.Context) (Listing, error)
	// Content opens a message with CRLF line ends. ErrNoMessage if it is gone.
	Content(ctx context.Context, uid uint32) (Content, error)
	// Append files a message and returns its UID, durable. quota applies.
	Append(ctx context.Context, content io.Reader, flags []string, date time.Time) (uid uint32, err error)
	// SetFlags changes flags of messages and returns what they are afterwards, for those that still exist.
	SetFlags(ctx context.Context, uids []uint32, op FlagOp, flags []string) ([]Message, error)
	// Copy copies messages into another folder of the account: pairs of UIDs, for those that still exist. All or none.
	Copy(ctx context.Context, uids []uint32, to string) (Copied, error)
	// Move is Copy, then removal. A message is never in neither.
	Move(ctx context.Context, uids []uint32, to string) (Copied, error)
	// Expunge removes those of the messages (nil: all) that are marked \Deleted and returns their UIDs.
	Expunge(ctx context.Context, uids []uint32) ([]uint32, error)
	// Remove removes messages, whatever their flags (POP3). Durable.
	Remove(ctx context.Context, uids []uint32) error
	// Watch returns a channel that gets a value (never blocking the writer) whenever the folder may have changed, by us
	// or by another program working on the tree, until stop is called.
	Watch() (changed <-chan struct{}, stop func())
}

// A FlagOp is what SetFlags does.
type FlagOp uint8

const (
	FlagsAdd FlagOp = iota
	FlagsRemove
	FlagsReplace
)

// A Status counts a folder.
type Status struct {
	Messages, Unseen, Deleted int
	Recent                    int // arrived since any session last looked
	Size                      int64
	UIDNext, UIDValidity      uint32
	ModSeq                    uint64
}

// A Listing is a folder at one moment.
type Listing struct {
	UIDValidity, UIDNext uint32
	ModSeq               uint64
	Messages             []Message // by rising UID
}

// A Message is one message in a folder, without its content.
type Message struct {
	UID    uint32
	Flags  []string // sorted; `\Seen` and keywords
	Size   int64    // octets with CRLF line ends
	Date   time.Time
	ModSeq uint64
	File   string // the unique name
	Recent bool
}

// Content is an open message. Reads see CRLF line ends.
type Content interface {
	io.ReaderAt
	io.Reader
	io.Closer
	Size() int64
}

// Copied pairs the UIDs of a copy.
type Copied struct {
	UIDValidity uint32 // of the destination
	From, To    []uint32
}

// A Quarantine holds mail for an administrator, outside every folder.
type Quarantine interface {
	// Hold keeps a message, once, with a row for each recipient, and returns once it would survive a power cut, with the
	// id of each row in order. The same mail for the same recipient offered again makes no second row. After an error
	// nothing is left behind.
	Hold(ctx context.Context, m Held) (ids []string, err error)
}

// Held is a message for quarantine.
type Held struct {
	ID         string // of the transaction
	SHA256     string // of the content, in hex
	MessageID  string
	Subject    string
	Sender     string
	Received   time.Time
	Recipients []HeldRecipient
	Content    io.Reader // as received, with our trace fields above it
}

// A HeldRecipient is for whom a message is held, and why.
type HeldRecipient struct {
	Address string
	Account string // "" where the mail is not delivered by us
	Folder  string // where it would have gone
	Reason  string // "rules/forged_bank: 550 5.7.1 …"
}
