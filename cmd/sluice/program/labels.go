package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/maildir"
	"sluice/pipeline"
	"sluice/rules"
)

// A label says what a user made of a delivered mail, as far as that can be seen from where its file lies now and from
// its flags. What we did ourselves is no label: a mail that we filed into Junk and nobody has touched is unknown.
type label struct {
	Label labelName `json:"label"`
	Why   string    `json:"why"` // one of a few sentences, so that they can be counted
}

type labelName string

const (
	labelSpam    labelName = "spam"
	labelHam     labelName = "ham"
	labelUnknown labelName = "unknown"
)

// Why a label is what it is.
const (
	whyMarkedJunk    = "marked $Junk"
	whyMovedToJunk   = "moved into Junk"
	whyReadInJunk    = "read in Junk and left there"
	whyMarkedNotJunk = "marked $NotJunk"
	whyOutOfJunk     = "moved out of Junk"
	whyMoved         = "moved to a folder"
	whyAnswered      = "replied to"
	whyFlagged       = "flagged"

	whyNotFiled     = "not filed here"
	whyNotLooked    = "its owner's mail cannot be looked at"
	whyRedacted     = "the record was redacted, and no longer says whose it is"
	whyGone         = "deleted, or moved out of the account"
	whyBothMarks    = "marked both $Junk and $NotJunk"
	whyUnreadInJunk = "filed into Junk by us, unread"
	whyTrashUnread  = "moved to Trash unread"
	whyTrashRead    = "moved to Trash after it was read"
	whyTrashJunk    = "moved from Junk to Trash"
	whyFolderGone   = "the folder it was filed in is gone, perhaps renamed"
	whyUnread       = "unread where it was filed"
	whyRead         = "read and left where it was filed"
)

// A whereabouts finds out what users did with delivered mail. It reads the trees of accounts beside the process that owns
// them, each once as long as they find room together, and is used by one goroutine.
type whereabouts struct {
	ctx   context.Context
	store *maildir.Store
	since time.Time // mail older than that is not asked about
	runs  sortedMails
	junk  []string // folders for junk, besides those with common names
	most  int      // mails of accounts that are not being asked about are forgotten beyond that

	accounts map[string]*lookedAt
	order    []string // the keys of accounts, the longest unused first
	mails    int      // in accounts
}

// mostLookedAt bounds what whereabouts remember: some 250 octets a mail. One account is remembered whatever it holds.
const mostLookedAt = 500_000

// A lookedAt is what was seen of one account.
type lookedAt struct {
	folders []string
	mails   map[string][]maildir.Seen // by the id of the record
	count   int
	err     error // why it could not be seen
}

// newWhereabouts looks at mail of records received at since or later. Without a folder with mail no mail lies anywhere.
func newWhereabouts(ctx context.Context, c *config.Config, since time.Time) (*whereabouts, error) {
	w := &whereabouts{ctx: ctx, since: since, runs: sortedByRuns(c), junk: junkFolders(c), most: mostLookedAt, accounts: map[string]*lookedAt{}}
	if _, err := os.Stat(filepath.Join(c.Data, "mail")); errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	var err error
	w.store, err = lookingStore(c)
	return w, err
}

func (w *whereabouts) Close() error {
	if w.store == nil {
		return nil
	}
	return w.store.Close()
}

// junkFolders names the folders that the configuration files junk into.
func junkFolders(c *config.Config) []string {
	all := []string{rules.DefaultConfig().JunkFolder}
	for _, s := range c.Pipeline {
		if r, ok := s.Config.(*rules.Config); ok && r.JunkFolder != "" && !slices.Contains(all, r.JunkFolder) {
			all = append(all, r.JunkFolder)
		}
	}
	return all
}

// label says what the owner of a recipient's copy has done with it, and where its file lies now: "" if it is not there.
// An error is about the account, whose mail cannot be looked at.
func (w *whereabouts) label(r *pipeline.Record, x *pipeline.RecipientRecord) (_ label, path string, _ error) {
	l, now, err := w.look(r, x)
	if now.Name != "" {
		path = now.Path()
	}
	return l, path, err
}

// look is label with all that is known of the file; it is zero where there is none.
func (w *whereabouts) look(r *pipeline.Record, x *pipeline.RecipientRecord) (l label, now maildir.Seen, _ error) {
	if x.Disposition != pipeline.Delivered || x.File == "" || x.Account == "" {
		return label{labelUnknown, whyNotFiled}, now, nil
	}
	if r.Redacted.Took("addresses") {
		return label{labelUnknown, whyRedacted}, now, nil
	}
	if w.store == nil {
		return label{labelUnknown, whyGone}, now, nil
	}
	a := w.account(x.Account)
	now, ok := a.find(r, x)
	switch {
	case a.err != nil:
		return label{labelUnknown, whyNotLooked}, now, a.err
	case !ok:
		return label{labelUnknown, whyGone}, now, nil
	}
	was, unsorted := w.runs.unsort(*x, now)
	return w.judge(&was, unsorted, a.folders), now, nil
}

// judge is label for a file that was found.
func (w *whereabouts) judge(x *pipeline.RecipientRecord, now maildir.Seen, folders []string) label {
	spam := func(why string) label { return label{labelSpam, why} }
	ham := func(why string) label { return label{labelHam, why} }
	unknown := func(why string) label { return label{labelUnknown, why} }
	filed := folder(x.Folder)
	// Flags that the mail was delivered with are ours.
	has := func(names ...string) bool {
		for _, n := range names {
			if containsFold(now.Flags, n) && !containsFold(x.Flags, n) {
				return true
			}
		}
		return false
	}
	moved := !strings.EqualFold(now.Folder, filed)
	// What Thunderbird calls Junk and NonJunk are $Junk and $NotJunk.
	junk, notJunk := has("$Junk", "Junk"), has("$NotJunk", "NotJunk", "NonJunk")
	switch {
	case junk && notJunk:
		return unknown(whyBothMarks)
	case junk:
		return spam(whyMarkedJunk)
	case w.isJunk(now.Folder) && !w.isJunk(filed):
		return spam(whyMovedToJunk)
	case notJunk:
		return ham(whyMarkedNotJunk)
	case has(`\Answered`):
		return ham(whyAnswered)
	case has(`\Flagged`):
		return ham(whyFlagged)
	case isTrash(now.Folder) && w.isJunk(filed):
		return unknown(whyTrashJunk)
	case isTrash(now.Folder) && !isTrash(filed) && !has(`\Seen`):
		return unknown(whyTrashUnread)
	case isTrash(now.Folder) && !isTrash(filed):
		return unknown(whyTrashRead)
	case w.isJunk(now.Folder) && has(`\Seen`):
		return spam(whyReadInJunk)
	case w.isJunk(now.Folder):
		return unknown(whyUnreadInJunk)
	case w.isJunk(filed):
		return ham(whyOutOfJunk)
	case moved && !containsFold(folders, filed):
		return unknown(whyFolderGone)
	case moved:
		return ham(whyMoved)
	case has(`\Seen`):
		return unknown(whyRead)
	}
	return unknown(whyUnread)
}

// isJunk reports whether a folder is one for junk: one that the configuration files into, or that mail clients make.
func (w *whereabouts) isJunk(name string) bool {
	return containsFold(w.junk, name) ||
		containsFold([]string{"Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"}, path.Base(name))
}

func isTrash(name string) bool {
	return containsFold([]string{"Trash", "Bin", "Deleted Items", "Deleted Messages"}, path.Base(name))
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
}

// account looks at the mail of an account, or remembers what it saw.
func (w *whereabouts) account(name string) *lookedAt {
	if a := w.accounts[name]; a != nil {
		w.order = append(slices.DeleteFunc(w.order, func(x string) bool { return x == name }), name)
		return a
	}
	a := &lookedAt{mails: map[string][]maildir.Seen{}, count: 10} // one without mail takes some room, too
	// A file is named when it is filed, which is after the record began; the clock may have been set back a little.
	folders, err := w.store.Look(w.ctx, name, w.since.Add(-time.Hour), func(s maildir.Seen) error {
		if s.ID != "" {
			a.mails[s.ID] = append(a.mails[s.ID], s)
			a.count++
		}
		return nil
	})
	if a.folders = folders; err != nil {
		a.err = fmt.Errorf("look at the mail of %s: %w", name, err)
	}
	w.accounts[name], w.order, w.mails = a, append(w.order, name), w.mails+a.count
	for w.mails > w.most && len(w.order) > 1 {
		w.mails -= w.accounts[w.order[0]].count
		delete(w.accounts, w.order[0])
		w.order = w.order[1:]
	}
	return a
}

// find returns the file of a recipient's copy: that of the name it was filed under, else a copy of it that its owner made
// before removing that, as clients do that know no MOVE.
func (a *lookedAt) find(r *pipeline.Record, x *pipeline.RecipientRecord) (maildir.Seen, bool) {
	all := a.mails[r.ID]
	own := slices.IndexFunc(all, func(m maildir.Seen) bool { return m.File == x.File })
	if own >= 0 && !containsFold(all[own].Flags, `\Deleted`) {
		return all[own], true
	}
	for _, m := range all {
		// The file of another recipient of the same account is its own.
		if !slices.ContainsFunc(r.Recipients, func(o pipeline.RecipientRecord) bool { return o.File == m.File }) {
			return m, true
		}
	}
	if own >= 0 {
		return all[own], true
	}
	return maildir.Seen{}, false
}
