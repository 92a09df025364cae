package imap

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
)

// A session answers what the library asks on behalf of a client that has logged in.
type session struct {
	guard   *guard
	ctx     context.Context
	account mailstore.Account

	// mu is held while the view is in use: the library may still be idling when the connection ends.
	mu      sync.Mutex
	idles   sync.WaitGroup
	view    *view // nil: no mailbox is selected
	command string
	called  bool
	closed  bool
}

var (
	_ imapserver.SessionNamespace = (*session)(nil)
	_ imapserver.SessionMove      = (*session)(nil)
)

func newSession(g *guard, account mailstore.Account) *session {
	return &session{guard: g, ctx: g.ctx, account: account}
}

// begin says which command the library is about to work on.
func (s *session) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.command, s.called = name, false
}

// asked reports whether the library came to us for the command, which then was well formed.
func (s *session) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.called
}

// enter locks the session for one request of the library. The function that it returns makes an answer of *err and
// unlocks. A panic becomes NO [SERVERBUG]; it is for what nobody has thought of.
func (s *session) enter(err *error) (leave func()) {
	s.mu.Lock()
	s.called = true
	return func() {
		defer s.mu.Unlock()
		if v := recover(); v != nil {
			s.guard.log.Error("panic in an imap command", "command", s.command, "panic", v, "stack", string(debug.Stack()))
			*err = &goimap.Error{Type: goimap.StatusResponseTypeNo, Code: goimap.ResponseCodeServerBug, Text: "internal error"}
			return
		}
		*err = s.answer(*err)
	}
}

// answer turns an error into what the client is told.
func (s *session) answer(err error) error {
	no := func(code goimap.ResponseCode, text string) error {
		return &goimap.Error{Type: goimap.StatusResponseTypeNo, Code: code, Text: text}
	}
	var told *goimap.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return told
	case errors.Is(err, mailstore.ErrNoFolder):
		switch s.command {
		case "COPY", "UID COPY", "MOVE", "UID MOVE", "APPEND":
			return no(goimap.ResponseCodeTryCreate, "there is no such mailbox")
		}
		return no(goimap.ResponseCodeNonExistent, "there is no such mailbox")
	case errors.Is(err, mailstore.ErrExists):
		return no(goimap.ResponseCodeAlreadyExists, "this mailbox exists already")
	case errors.Is(err, mailstore.ErrUse):
		return no(codeUseAttr, "another mailbox has this special use, or there is none of this name")
	case errors.Is(err, mailstore.ErrName):
		return no(goimap.ResponseCodeCannot, "this is not a usable name for a mailbox")
	case errors.Is(err, mailstore.ErrQuota):
		return no(goimap.ResponseCodeOverQuota, "over quota")
	case errors.Is(err, mailstore.ErrFull): // for all accounts; whoever says so has told the operator
		return no(goimap.ResponseCodeUnavailable, "the server has no room, try again later")
	case errors.Is(err, mailstore.ErrNoMessage):
		return no("EXPUNGEISSUED", "some of the messages are gone")
	}
	if s.ctx.Err() == nil {
		s.guard.log.Error("imap command failed", "command", s.command, "error", err)
	}
	return no(goimap.ResponseCodeUnavailable, "this failed, try again later")
}

func badRequest(format string, args ...any) error {
	return &goimap.Error{Type: goimap.StatusResponseTypeBad, Text: fmt.Sprintf(format, args...)}
}

func refuse(format string, args ...any) error {
	return &goimap.Error{Type: goimap.StatusResponseTypeNo, Text: fmt.Sprintf(format, args...)}
}

// Close ends the session once nothing of it runs any more.
func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.idles.Wait()
	return nil
}

// Login is never asked for: who comes to the library has logged in.
func (s *session) Login(string, string) error { return imapserver.ErrAuthFailed }

// Select opens a mailbox.
func (s *session) Select(name string, o *goimap.SelectOptions) (data *goimap.SelectData, err error) {
	defer s.enter(&err)()
	folder, err := s.account.Open(s.ctx, name)
	if err != nil {
		return nil, err
	}
	listing, err := folder.Messages(s.ctx)
	if err != nil {
		return nil, err
	}
	v := newView(folder, listing, o.ReadOnly)
	system := []goimap.Flag{goimap.FlagAnswered, goimap.FlagFlagged, goimap.FlagDeleted, goimap.FlagSeen, goimap.FlagDraft}
	data = &goimap.SelectData{
		Flags:             append(system, v.keywords()...),
		NumMessages:       uint32(len(v.messages)),
		NumRecent:         v.recent(),
		FirstUnseenSeqNum: v.firstUnseen(),
		UIDNext:           goimap.UID(listing.UIDNext),
		UIDValidity:       listing.UIDValidity,
	}
	if !o.ReadOnly {
		data.PermanentFlags = append(slices.Clone(data.Flags), goimap.FlagWildcard)
	}
	s.view = v
	return data, nil
}

// Unselect forgets the mailbox.
func (s *session) Unselect() (err error) {
	defer s.enter(&err)()
	s.view = nil
	return nil
}

// codeUseAttr: RFC 6154, 6.
const codeUseAttr goimap.ResponseCode = "USEATTR"

// Create makes a mailbox, for a special use if so told (RFC 6154, 3). A separator at the end says that there will be others
// below (RFC 9051, 6.3.4).
func (s *session) Create(name string, o *goimap.CreateOptions) (err error) {
	defer s.enter(&err)()
	name = strings.TrimSuffix(name, mailstore.Separator)
	switch len(o.SpecialUse) {
	case 0:
		return s.account.Create(s.ctx, name)
	case 1:
		return s.account.CreateFor(s.ctx, name, string(o.SpecialUse[0]))
	}
	return &goimap.Error{Type: goimap.StatusResponseTypeNo, Code: codeUseAttr, Text: "a mailbox has one special use at most"}
}

// Delete deletes a mailbox with its mail.
func (s *session) Delete(name string) (err error) {
	defer s.enter(&err)()
	if strings.EqualFold(name, mailstore.Inbox) {
		return refuse("the inbox stays")
	}
	if err := s.account.Delete(s.ctx, name); err != nil {
		return err
	}
	if s.view != nil && s.view.folder.Name() == name {
		s.view = nil // else the next poll would end the connection
	}
	return nil
}

// Rename renames a mailbox; of the inbox it moves the mail.
func (s *session) Rename(from, to string, _ *goimap.RenameOptions) (err error) {
	defer s.enter(&err)()
	return s.account.Rename(s.ctx, from, strings.TrimSuffix(to, mailstore.Separator))
}

// Subscribe subscribes to a mailbox, which need not exist (RFC 9051, 6.3.7).
func (s *session) Subscribe(name string) (err error) {
	defer s.enter(&err)()
	return s.account.Subscribe(s.ctx, name, true)
}

// Unsubscribe ends a subscription.
func (s *session) Unsubscribe(name string) (err error) {
	defer s.enter(&err)()
	return s.account.Subscribe(s.ctx, name, false)
}

// Status counts a mailbox.
func (s *session) Status(name string, o *goimap.StatusOptions) (data *goimap.StatusData, err error) {
	defer s.enter(&err)()
	return s.status(name, o)
}

func (s *session) status(name string, o *goimap.StatusOptions) (*goimap.StatusData, error) {
	if o.DeletedStorage {
		return nil, badRequest("DELETED-STORAGE is not known here")
	}
	folder, err := s.account.Open(s.ctx, name)
	if err != nil {
		return nil, err
	}
	st, err := folder.Status(s.ctx)
	if err != nil {
		return nil, err
	}
	limit := uint32(min(s.guard.cfg.Limits.MessageSize, 1<<32-1))
	return &goimap.StatusData{
		Mailbox:     name,
		NumMessages: number(st.Messages),
		NumUnseen:   number(st.Unseen),
		NumDeleted:  number(st.Deleted),
		NumRecent:   number(st.Recent),
		UIDNext:     goimap.UID(st.UIDNext),
		UIDValidity: st.UIDValidity,
		Size:        &st.Size,
		AppendLimit: &limit,
	}, nil
}

func number(n int) *uint32 {
	u := uint32(n)
	return &u
}

// Namespace tells where a user's mailboxes are: all in one.
func (s *session) Namespace() (*goimap.NamespaceData, error) {
	return &goimap.NamespaceData{Personal: []goimap.NamespaceDescriptor{{Delim: '/'}}}, nil
}

// Append is never asked for: the guard does it.
func (s *session) Append(string, goimap.LiteralReader, *goimap.AppendOptions) (*goimap.AppendData, error) {
	return nil, badRequest("APPEND is not done here")
}

// Poll tells what has changed.
func (s *session) Poll(_ *imapserver.UpdateWriter, allowExpunge bool) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.poll(allowExpunge)
}

// poll writes the updates itself, in one piece. An error ends the connection.
func (s *session) poll(allowExpunge bool) error {
	if s.view == nil {
		return nil
	}
	listing, err := s.view.folder.Messages(s.ctx)
	if errors.Is(err, mailstore.ErrNoFolder) || err == nil && listing.UIDValidity != s.view.validity {
		_ = s.guard.write("* BYE the selected mailbox has been deleted or replaced\r\n")
		return errors.New("the selected mailbox is gone")
	}
	if err != nil {
		if s.ctx.Err() == nil {
			s.guard.log.Error("cannot list a mailbox", "error", err)
		}
		return nil // the next poll will tell
	}
	if updates := s.view.update(listing, allowExpunge); updates != "" {
		return s.guard.write(updates)
	}
	return nil
}

// Idle tells what changes until stop is closed. What has changed before it began comes first.
func (s *session) Idle(_ *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.idles.Add(1)
	defer s.idles.Done()
	v := s.view
	s.mu.Unlock()
	var changed <-chan struct{} // stays nil without a mailbox
	if v != nil {
		c, end := v.folder.Watch()
		defer end()
		changed = c
	}
	for {
		if s.guard.deleted() {
			_ = s.guard.write("* BYE this account has been deleted\r\n")
			_ = s.guard.conn.Close()
			return errors.New("the account is gone")
		}
		s.mu.Lock()
		err := s.poll(true)
		s.mu.Unlock()
		if err != nil {
			_ = s.guard.conn.Close() // DONE may never come
			return err
		}
		select {
		case <-changed:
		case <-stop:
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

// selected returns the view for a command that changes the mailbox.
func (s *session) writable() (*view, error) {
	if s.view == nil {
		return nil, badRequest("no mailbox is selected")
	}
	if s.view.readOnly {
		return nil, refuse("the mailbox is selected read-only")
	}
	return s.view, nil
}

// Expunge removes what is marked \Deleted: uids or nil for all. The client hears of it by the poll that follows. CLOSE
// of a mailbox that is selected read-only removes nothing (RFC 9051, 6.4.1).
func (s *session) Expunge(_ *imapserver.ExpungeWriter, uids *goimap.UIDSet) (err error) {
	defer s.enter(&err)()
	if s.command == "CLOSE" && (s.view == nil || s.view.readOnly) {
		return nil
	}
	v, err := s.writable()
	if err != nil {
		return err
	}
	known := v.uids() // the client decides about what it knows
	if uids != nil {
		set, err := v.resolve(*uids)
		if err != nil {
			return err
		}
		known = v.uidsAt(set)
	}
	if len(known) == 0 {
		return nil
	}
	_, err = v.folder.Expunge(s.ctx, known)
	return err
}

// Store changes flags.
func (s *session) Store(_ *imapserver.FetchWriter, set goimap.NumSet, f *goimap.StoreFlags, _ *goimap.StoreOptions) (err error) {
	defer s.enter(&err)()
	v, err := s.writable()
	if err != nil {
		return err
	}
	at, err := v.resolve(set)
	if err != nil {
		return err
	}
	flags, err := storable(f.Flags)
	if err != nil {
		return err
	}
	op := mailstore.FlagsReplace
	switch f.Op {
	case goimap.StoreFlagsSet:
	case goimap.StoreFlagsAdd:
		op = mailstore.FlagsAdd
	case goimap.StoreFlagsDel:
		op = mailstore.FlagsRemove
	}
	if len(at) == 0 {
		return nil
	}
	before := s.flagsBefore(v, at)
	now, err := v.folder.SetFlags(s.ctx, v.uidsAt(at), op, flags)
	if err != nil {
		return err
	}
	s.flagged(v, before, now)
	updates := v.stored(now, op, flags, f.Silent, strings.HasPrefix(s.command, "UID"))
	if len(now) < len(at) {
		if err := s.guard.write(updates); err != nil {
			return err
		}
		return mailstore.ErrNoMessage
	}
	return s.guard.write(updates)
}

// storable returns the flags that a client may set.
func storable(flags []goimap.Flag) ([]string, error) {
	var out []string
	for _, f := range flags {
		switch {
		case f == `\Recent`: // only the server sets it
		case !strings.HasPrefix(string(f), `\`):
			if !isAtom(string(f)) || len(f) > 200 {
				return nil, badRequest("%q is no flag", string(f))
			}
			out = append(out, string(f))
		case isSystem(f):
			out = append(out, string(f))
		default:
			return nil, badRequest("there is no flag %s", f)
		}
	}
	return out, nil
}

func isSystem(f goimap.Flag) bool {
	switch f {
	case goimap.FlagSeen, goimap.FlagAnswered, goimap.FlagFlagged, goimap.FlagDeleted, goimap.FlagDraft:
		return true
	default:
		return false
	}
}

// isAtom reports whether s is an atom (RFC 9051, 9).
func isAtom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`(){%*"\]`, c)
	})
}

// Copy copies messages.
func (s *session) Copy(set goimap.NumSet, to string) (data *goimap.CopyData, err error) {
	defer s.enter(&err)()
	if s.view == nil {
		return nil, badRequest("no mailbox is selected")
	}
	at, err := s.view.resolve(set)
	if err != nil || len(at) == 0 {
		return nil, err
	}
	copied, err := s.view.folder.Copy(s.ctx, s.view.uidsAt(at), to)
	if err != nil {
		return nil, err
	}
	s.copied(copied, s.view.folder.Name(), to)
	return copyData(copied), nil
}

// Move moves messages. The client hears of their removal by the poll that follows.
func (s *session) Move(w *imapserver.MoveWriter, set goimap.NumSet, to string) (err error) {
	defer s.enter(&err)()
	v, err := s.writable()
	if err != nil {
		return err
	}
	at, err := v.resolve(set)
	if err != nil || len(at) == 0 {
		return err
	}
	moved, err := v.folder.Move(s.ctx, v.uidsAt(at), to)
	if err != nil {
		return err
	}
	s.copied(moved, v.folder.Name(), to)
	if data := copyData(moved); data != nil {
		return w.WriteCopyData(data)
	}
	return nil
}

// copyData says which message became which (RFC 4315, 3); nil where the library could not: it orders both sets by UID.
func copyData(c mailstore.Copied) *goimap.CopyData {
	if len(c.From) == 0 || len(c.From) != len(c.To) || !slices.IsSorted(c.From) || !slices.IsSorted(c.To) {
		return nil
	}
	data := &goimap.CopyData{UIDValidity: c.UIDValidity}
	for i := range c.From {
		data.SourceUIDs.AddNum(goimap.UID(c.From[i]))
		data.DestUIDs.AddNum(goimap.UID(c.To[i]))
	}
	return data
}
