package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/mailstore"
	"sluice/pipeline/mime"
	"sluice/protocols/imap"
	"sluice/rules/sieve"
)

// scriptEvents runs scripts after what mail clients do, in the background: one that moves a thousand mails into Junk does
// not wait for a thousand programs. What happens to the mail of one account is dealt with in its order. It is on disk before
// the client is told, so what waits when the program is killed is dealt with by the next.
type scriptEvents struct {
	s       *service
	mu      sync.Mutex
	room    *sync.Cond
	waiting int // mails
	closed  bool
	lanes   []chan waitingEvent
	log     *eventLog
	ran     sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

// eventLanes is how many accounts are dealt with at once.
const eventLanes = 4

func newScriptEvents(s *service) (*scriptEvents, error) {
	log, left, strange, err := openEventLog(osDisk{}, filepath.Join(s.started.Data, "events"), s.program.now())
	if err != nil {
		return nil, err
	}
	for _, path := range strange {
		s.log.Error("what a mail client has done cannot be read, and no script runs for it; remove the file", "file", path)
	}
	e := &scriptEvents{s: s, log: log}
	e.room = sync.NewCond(&e.mu)
	e.ctx, e.cancel = context.WithCancelCause(context.WithoutCancel(s.ctx))
	for range eventLanes {
		// An event has one mail at least: there is room for all.
		lane := make(chan waitingEvent, s.started.Sieve.IMAPWaiting+len(left))
		e.lanes = append(e.lanes, lane)
		e.ran.Go(func() {
			for x := range lane {
				e.run(x)
				e.mu.Lock()
				e.waiting -= len(x.UIDs)
				e.room.Broadcast()
				e.mu.Unlock()
			}
		})
	}
	for _, x := range left {
		e.enter(x)
	}
	return e, nil
}

// enter puts an event where it waits. mu is held, or nobody else is there yet.
func (e *scriptEvents) enter(x waitingEvent) {
	e.waiting += len(x.UIDs)
	h := fnv.New32a()
	_, _ = h.Write([]byte(x.Account))
	e.lanes[h.Sum32()%eventLanes] <- x
}

// Wants implements imap.Events.
func (e *scriptEvents) Wants(account string, cause imap.Cause, folder, from string) bool {
	now := e.s.now.Load()
	if slices.ContainsFunc(now.scripting.events, func(x scriptEvent) bool { return x.fits(cause, folder, from) }) {
		return true
	}
	name, err := annotatedScript(e.ctx, e.s.owners(now), account, folder)
	return name != "" || err != nil // what went wrong is said when the event is dealt with
}

// Happened implements imap.Events.
func (e *scriptEvents) Happened(x imap.Event) {
	path, err := e.log.keep(x)
	if err != nil {
		// The client's command has been carried out, and scripts will run for it, unless there is a crash before.
		e.s.log.Error("what a mail client has done is not kept for scripts", "account", x.Account, "folder", x.Folder, "err", cause(err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// A single event may be larger than what may wait: it goes alone.
	for e.waiting > 0 && e.waiting+len(x.UIDs) > e.s.started.Sieve.IMAPWaiting && !e.closed {
		e.room.Wait()
	}
	if e.closed {
		return // the next server finds it
	}
	e.enter(waitingEvent{x, path})
}

// close deals with what is waiting, until ctx ends.
func (e *scriptEvents) close(ctx context.Context) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	for _, lane := range e.lanes {
		close(lane)
	}
	e.room.Broadcast()
	e.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { e.cancel(errors.New("the server ends")) })
	defer stop()
	e.ran.Wait()
	e.cancel(nil)
}

// run runs the scripts for all mails of an event.
func (e *scriptEvents) run(x waitingEvent) {
	h, now := e.s.house, e.s.now.Load()
	if e.ctx.Err() != nil {
		e.s.log.Warn("scripts for what a mail client has done run when there is a server again", "account", x.Account, "folder", x.Folder, "mails", len(x.UIDs))
		return
	}
	err := func() error {
		account, err := h.store.Account(e.ctx, x.Account)
		if err != nil {
			return err
		}
		defer account.Close() // every change is durable by itself
		folder, err := account.Open(e.ctx, x.Folder)
		if err != nil {
			return err
		}
		for _, uid := range x.UIDs {
			r := &eventRun{scriptEvents: e, setup: now, event: x.Event, account: account, folder: folder, uid: uid}
			if err := r.all(); err != nil && !errors.Is(err, mailstore.ErrNoMessage) {
				// The others may go well.
				e.s.log.Error("a script for what a mail client has done is not carried out", "account", x.Account, "folder", x.Folder, "uid", uid, "err", err)
			}
			if err := context.Cause(e.ctx); err != nil {
				return err // it was broken off
			}
			if err := x.done(uid); err != nil {
				e.s.log.Warn("a crash now would have scripts run for a mail again", "account", x.Account, "folder", x.Folder, "uid", uid, "err", cause(err))
			}
		}
		return nil
	}()
	switch {
	case errors.Is(err, mailstore.ErrNoFolder), errors.Is(err, mailstore.ErrNoAccount):
		// It is gone since: there is nothing to run a script for.
	case err != nil:
		e.s.log.Error("scripts for what a mail client has done are not run before there is a server again", "account", x.Account, "folder", x.Folder, "err", err)
		return
	}
	if err := e.log.forget(x); err != nil {
		e.s.log.Error("scripts for what a mail client has done run again after the next start", "account", x.Account, "folder", x.Folder, "err", cause(err))
	}
}

// An eventRun is what scripts make of one mail that a client has done something to.
type eventRun struct {
	*scriptEvents
	setup   *setup
	event   imap.Event
	account mailstore.Account
	folder  mailstore.Folder
	uid     uint32
	flags   []string
	date    time.Time
}

// eventTime bounds what the scripts of one event may take for one mail, programs and all.
const eventTime = 2 * time.Minute

// all runs all scripts for the event, until one has taken the mail elsewhere. An error says that the mail cannot be read;
// what scripts do wrong is told to the account.
func (r *eventRun) all() error {
	ctx, cancel := context.WithTimeoutCause(r.ctx, eventTime, fmt.Errorf("it took longer than %v", eventTime))
	defer cancel()
	scripts, err := r.scripts(ctx)
	if err != nil {
		return err
	}
	for _, s := range scripts {
		if there, err := r.look(ctx); err != nil || !there {
			return err
		}
		script := s.script
		if s.Own != "" {
			if script, err = r.own(ctx, s); err != nil {
				return err
			}
			if script == nil {
				continue
			}
		}
		stays, err := r.one(ctx, script)
		if err != nil || !stays {
			return err
		}
	}
	return nil
}

// owners is what the account keeps here.
func (r *eventRun) owners() *owners { return r.s.owners(r.setup) }

// look finds the mail; false: it is gone since.
func (r *eventRun) look(ctx context.Context) (bool, error) {
	listing, err := r.folder.Messages(ctx)
	if err != nil || r.event.UIDValidity != 0 && listing.UIDValidity != r.event.UIDValidity {
		return false, err
	}
	i, ok := slices.BinarySearchFunc(listing.Messages, r.uid, func(m mailstore.Message, uid uint32) int { return int(int64(m.UID) - int64(uid)) })
	if ok {
		r.flags, r.date = slices.Clone(listing.Messages[i].Flags), listing.Messages[i].Date
	}
	return ok, nil
}

// one runs one script; stays says whether the mail is where it was.
func (r *eventRun) one(ctx context.Context, script *sieve.Script) (stays bool, err error) {
	content, err := r.folder.Content(ctx, r.uid)
	if errors.Is(err, mailstore.ErrNoMessage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer content.Close() // it was only read
	m, err := mime.Parse(content, content.Size(), r.setup.config.Limits.MIME())
	if err != nil {
		r.tell(script.Name(), 0, err.Error(), "")
		return true, nil
	}
	own, err := r.owners().Addresses(ctx, r.event.Account)
	if err != nil {
		return false, err
	}
	folders := sieve.MailboxesOf(ctx, r.owners(), r.event.Account)
	seen := &eventSeen{eventRun: r, ctx: ctx}
	o := script.Run(ctx, sieve.Input{
		Message: m, Now: r.s.program.now(), Account: r.event.Account, Own: own, Envelope: sieve.Envelope{Unknown: true},
		Environment: r.environment(), Mailboxes: folders, Seen: seen, Flags: r.flags,
		Lists: r.setup.scripting, Programs: r.setup.scripting,
	})
	if err := folders.Err(); err != nil {
		return false, err
	}
	if o.Failure != nil {
		r.tell(o.Failure.Script, o.Failure.Line, o.Failure.Text, m.MessageID())
		return true, nil
	}
	for _, n := range o.Notes {
		r.s.log.Info("a script notes", "account", r.event.Account, "script", n.Script, "line", n.Line, "text", n.Text)
	}
	stays, err = r.carryOut(ctx, o, m, folders)
	if f, ok := errors.AsType[*eventFailure](err); ok {
		r.tell(f.action.Script, f.action.Line, f.Error(), m.MessageID())
		return true, nil
	}
	if err == nil {
		seen.remember(o.Marks)
	}
	return stays, err
}

// An eventFailure says what of a script's wishes could not be carried out.
type eventFailure struct {
	action sieve.Action
	err    error
}

func (f *eventFailure) Error() string { return fmt.Sprintf("%s failed: %v", f.action.Kind, f.err) }

func (f *eventFailure) Unwrap() error { return f.err }

// tell lets the account and the operator know what went wrong.
func (r *eventRun) tell(script string, line int, text, messageID string) {
	if r.ctx.Err() != nil {
		return // it was broken off by our end, and will run again
	}
	r.owners().reports.report(r.ctx, r.event.Account, mailstore.ScriptProblem{
		Script: path.Base(script), Line: line, Text: text, MessageID: messageID,
	})
}

// environment: RFC 6785, 4.3.
func (r *eventRun) environment() map[string]string {
	return map[string]string{
		"name": "Sluice", "version": version(), "location": "MS", "phase": "post", "host": r.setup.config.Hostname,
		"imap.user": r.event.Account, "imap.email": r.event.Account, "imap.cause": strings.ToUpper(string(r.event.Cause)),
		"imap.mailbox": r.event.Folder, "imap.changedflags": strings.Join(r.event.Flags, " "),
		"vnd.dovecot.username": r.event.Account, "vnd.dovecot.mailbox-from": r.event.From, "vnd.dovecot.mailbox-to": r.event.Folder,
	}
}

// carryOut does what a script wants with a mail that lies in a folder: programs first, then copies, then what leaves. The
// mail goes from where it is only when all of that is done and the script wants it (RFC 6785, 3).
func (r *eventRun) carryOut(ctx context.Context, o sieve.Outcome, m *mime.Message, folders *sieve.Owned) (stays bool, err error) {
	flags := r.flags
	var leaving []mailstore.Outgoing
	taken, untaken := false, false // by a program that alone was to take it
	for _, a := range o.Actions {
		text := m
		if a.Message != nil {
			text = a.Message
		}
		switch a.Kind {
		case sieve.Keep:
			stays, flags = true, a.Flags
		case sieve.FileInto:
			folder := sieve.FolderOf(a, folders)
			if err := folders.Err(); err != nil {
				return true, err
			}
			if a.Content == nil && likeFolder(folder, r.event.Folder) {
				stays, flags = true, a.Flags // it is there
				continue
			}
			if err := r.file(ctx, a, folder, m); err != nil {
				return true, &eventFailure{a, err}
			}
		case sieve.Pipe:
			_, err := r.setup.scripting.Run(ctx, sieve.Program{
				Use: "pipe", Name: a.Program, Arguments: a.Arguments, Input: text.Raw(), Account: r.event.Account,
				Envelope: sieve.Envelope{To: r.event.Account},
			})
			switch {
			case err == nil:
				taken = taken || a.Sole
			case a.Try:
				untaken = untaken || a.Sole
			default:
				return true, &eventFailure{a, fmt.Errorf("the program %s: %w", a.Program, err)}
			}
		case sieve.Redirect, sieve.Notify:
			out, err := r.outgoing(a, text)
			if err != nil {
				return true, err
			}
			leaving = append(leaving, out)
		case sieve.Discard, sieve.Vacation, sieve.Reject, sieve.EReject:
			// The first is that nothing else is done; a script that asks for the others here has failed.
		}
	}
	if err := r.send(ctx, leaving); err != nil {
		return true, err
	}
	if !stays && (taken || !untaken) {
		return false, r.folder.Remove(ctx, []uint32{r.uid})
	}
	if !sameFlags(flags, r.flags) {
		// What a script changes calls no script (RFC 6785, 2.2.3).
		if _, err := r.folder.SetFlags(ctx, []uint32{r.uid}, mailstore.FlagsReplace, flags); err != nil {
			return true, err
		}
	}
	return true, nil
}

// file files a copy.
func (r *eventRun) file(ctx context.Context, a sieve.Action, name string, m *mime.Message) error {
	if err := r.make(ctx, name, a.SpecialUse); err == nil {
		if err := r.account.Subscribe(ctx, name, true); err != nil {
			return err
		}
	} else if !errors.Is(err, mailstore.ErrExists) {
		return err
	}
	to, err := r.account.Open(ctx, name)
	if err != nil {
		return err
	}
	var content io.Reader = m.Raw()
	date := r.date
	switch {
	case a.Content != nil:
		content, date = bytes.NewReader(a.Content), r.s.program.now()
	case a.Message != nil:
		content = a.Message.Raw()
	}
	_, err = to.Append(ctx, content, a.Flags, date)
	return err
}

// make makes a folder, for a special use where no folder has that.
func (r *eventRun) make(ctx context.Context, name, use string) error {
	err := mailstore.ErrUse
	if use != "" {
		err = r.account.CreateFor(ctx, name, use)
	}
	if errors.Is(err, mailstore.ErrUse) {
		return r.account.Create(ctx, name)
	}
	return err
}

// outgoing is a mail that leaves because of a script. It is the account's own doing: reports go to it (RFC 6785, 3.4).
func (r *eventRun) outgoing(a sieve.Action, m *mime.Message) (mailstore.Outgoing, error) {
	out := mailstore.Outgoing{
		Account: r.event.Account, Why: fmt.Sprintf("%s by line %d of %s", a.Kind, a.Line, path.Base(a.Script)), Sender: r.event.Account,
	}
	if a.Reply != nil {
		out.Sender, out.Content = a.Reply.From, bytes.NewReader(a.Reply.Content)
		for _, to := range a.Reply.To {
			out.Recipients = append(out.Recipients, mailstore.OutgoingRecipient{Address: to})
		}
		return out, encoded(&out, bytes.NewReader(a.Reply.Content), bytes.Index(a.Reply.Content, []byte("\r\n\r\n")))
	}
	var fields strings.Builder
	for _, f := range a.Fields {
		fields.WriteString(f[0] + ": " + f[1] + "\r\n")
	}
	out.Recipients = []mailstore.OutgoingRecipient{{Address: a.Address}}
	out.Forwarded = true
	out.Content = io.MultiReader(strings.NewReader(fields.String()), m.Raw())
	return out, encoded(&out, m.Raw(), m.Header().Len())
}

// encoded says what servers must be able to take for a mail: octets over 127 in its body (RFC 6152), or in its header or
// an address (RFC 6531).
func encoded(out *mailstore.Outgoing, mail io.Reader, header int) error {
	for _, to := range out.Recipients {
		out.UTF8 = out.UTF8 || strings.ContainsFunc(to.Address, func(c rune) bool { return c > 0x7f })
	}
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := mail.Read(buf)
		for i, b := range buf[:n] {
			if b > 0x7f {
				out.EightBit, out.UTF8 = true, out.UTF8 || at+i < header
			}
		}
		if at += n; err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the mail: %w", err)
		}
	}
}

func (r *eventRun) send(ctx context.Context, leaving []mailstore.Outgoing) error {
	if len(leaving) == 0 {
		return nil
	}
	staged, err := r.s.house.outbox.Stage(ctx, leaving)
	if err != nil {
		return fmt.Errorf("queue what a script sends: %w", err)
	}
	if err := staged.Release(ctx); err != nil {
		return fmt.Errorf("queue what a script sends: %w", err)
	}
	return nil
}

func sameFlags(a, b []string) bool {
	has := func(list []string, f string) bool {
		return slices.ContainsFunc(list, func(g string) bool { return strings.EqualFold(f, g) })
	}
	return len(a) == len(b) && !slices.ContainsFunc(a, func(f string) bool { return !has(b, f) })
}

// eventSeen is what was seen before, in the same place where delivery keeps it.
type eventSeen struct {
	*eventRun
	ctx context.Context
}

func (x *eventSeen) key(mark string) string { return "sieve/" + x.event.Account + "/" + mark }

// Before implements sieve.Seen. Where it cannot be found out the mail counts as new: it stays where it is in any case.
func (x *eventSeen) Before(key string, within time.Duration) bool {
	b, ok, err := x.s.house.state.Load(x.ctx, x.key(key))
	var at time.Time
	if err != nil || !ok || at.UnmarshalText(b) != nil {
		return false
	}
	return x.s.program.now().Sub(at) < within
}

func (x *eventSeen) remember(marks []sieve.Mark) {
	for _, m := range marks {
		if !m.Last && x.Before(m.Key, m.Within) {
			continue
		}
		text, err := x.s.program.now().MarshalText()
		if err == nil {
			err = x.s.house.state.Store(x.ctx, x.key(m.Key), text, m.Within)
		}
		if err != nil {
			x.s.log.Error("what a script has done is not remembered, and may be done again", "account", x.event.Account, "err", err)
		}
	}
}
