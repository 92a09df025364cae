package imap

import (
	"slices"
	"strings"

	"sluice/mailstore"
)

// A Cause is what a client has done to mails.
type Cause string

// RFC 6785, 4.3 names them, in capitals.
const (
	CauseAppend Cause = "append"
	CauseCopy   Cause = "copy" // or moved (RFC 6851)
	CauseFlag   Cause = "flag"
)

// An Event is what one command of a client has done to mails of a folder.
type Event struct {
	Account string // whose mail it is
	Cause   Cause
	Folder  string // where the mails are now
	From    string // where they were, of CauseCopy; else ""
	// UIDs are those of the mails in Folder, and UIDValidity is that folder's.
	UIDs        []uint32
	UIDValidity uint32
	Flags       []string // that were set or removed, of CauseFlag
}

// Events hears of what clients do with mail.
type Events interface {
	// Wants reports whether somebody would hear of such an event of an account's mail. It is asked for each command, and is
	// cheap.
	Wants(account string, cause Cause, folder, from string) bool
	// Happened tells of an event that has happened, and that the client is about to be told of. It may take its time where
	// there are too many; it fails never: the client's command has been carried out.
	Happened(e Event)
}

// wants reports whether somebody would hear of an event.
func (s *session) wants(cause Cause, folder, from string) bool {
	return s.guard.cfg.Events != nil && s.guard.cfg.Events.Wants(s.account.Name(), cause, folder, from)
}

func (s *session) happened(e Event) {
	if e.Account = s.account.Name(); len(e.UIDs) > 0 {
		s.guard.cfg.Events.Happened(e)
	}
}

// copied tells of mails that are copied or moved.
func (s *session) copied(c mailstore.Copied, from, to string) {
	if s.wants(CauseCopy, to, from) {
		s.happened(Event{Cause: CauseCopy, Folder: to, From: from, UIDs: slices.Clone(c.To), UIDValidity: c.UIDValidity})
	}
}

// flagged tells of flags that have changed, with before as the flags of messages were.
func (s *session) flagged(v *view, before map[uint32][]string, now []mailstore.Message) {
	if before == nil {
		return
	}
	// Mails whose flags have changed in the same way are one event.
	type change struct {
		flags []string
		uids  []uint32
	}
	var changes []change
	at := map[string]int{}
	for _, m := range now {
		was, known := before[m.UID]
		if !known {
			continue
		}
		flags := differing(was, m.Flags)
		if len(flags) == 0 {
			continue
		}
		key := strings.Join(flags, " ")
		i, ok := at[key]
		if !ok {
			i, at[key] = len(changes), len(changes)
			changes = append(changes, change{flags: flags})
		}
		changes[i].uids = append(changes[i].uids, m.UID)
	}
	for _, c := range changes {
		s.happened(Event{Cause: CauseFlag, Folder: v.folder.Name(), UIDs: c.uids, UIDValidity: v.validity, Flags: c.flags})
	}
}

// flagsBefore are the flags of messages before a command changes them; nil where nobody wants to know.
func (s *session) flagsBefore(v *view, at []int) map[uint32][]string {
	if !s.wants(CauseFlag, v.folder.Name(), "") {
		return nil
	}
	before := make(map[uint32][]string, len(at))
	for _, i := range at {
		before[v.messages[i].UID] = slices.Clone(v.messages[i].Flags)
	}
	return before
}

// differing are the flags that are in one of two lists and not in the other.
func differing(a, b []string) (all []string) {
	has := func(list []string, f string) bool {
		return slices.ContainsFunc(list, func(g string) bool { return strings.EqualFold(f, g) })
	}
	for _, f := range a {
		if !has(b, f) {
			all = append(all, f)
		}
	}
	for _, f := range b {
		if !has(a, f) {
			all = append(all, f)
		}
	}
	slices.Sort(all)
	return all
}
