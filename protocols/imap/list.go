package imap

import (
	"slices"
	"strings"

	goimap "github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"sluice/mailstore"
)

// maxPatterns bounds the work of one LIST: patterns are matched with every mailbox.
const maxPatterns = 2048

// List lists mailboxes (RFC 9051, 6.3.9; RFC 5258; LSUB of RFC 3501, 6.3.9).
func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, o *goimap.ListOptions) (err error) {
	defer s.enter(&err)()
	if len(patterns) == 0 || len(patterns) == 1 && patterns[0] == "" {
		// An empty pattern asks for the separator.
		return w.WriteList(&goimap.ListData{Attrs: []goimap.MailboxAttr{goimap.MailboxAttrNoSelect}, Delim: '/'})
	}
	folders, err := s.account.Folders(s.ctx)
	if err != nil {
		return err
	}
	size := 0
	for i, p := range patterns {
		patterns[i] = ref + p
		size += len(patterns[i])
	}
	if size > maxPatterns {
		return badRequest("the patterns are too long; at most %d octets together", maxPatterns)
	}
	for _, data := range list(folders, patterns, o, s.command == "LSUB") {
		if o.ReturnStatus != nil && !slices.Contains(data.Attrs, goimap.MailboxAttrNonExistent) {
			if data.Status, err = s.status(data.Mailbox, o.ReturnStatus); err != nil {
				data.Status = nil // gone meanwhile: RFC 5819, 2
			}
		}
		if err := w.WriteList(&data); err != nil {
			return err
		}
	}
	return nil
}

// list returns what of folders a LIST or LSUB is answered with.
func list(folders []mailstore.FolderInfo, patterns []string, o *goimap.ListOptions, lsub bool) []goimap.ListData {
	matches := func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
	}
	below := func(name string, which func(mailstore.FolderInfo) bool) bool {
		return slices.ContainsFunc(folders, func(f mailstore.FolderInfo) bool {
			return strings.HasPrefix(f.Name, name+mailstore.Separator) && which(f)
		})
	}
	subscribed := func(f mailstore.FolderInfo) bool { return f.Subscribed }
	exists := func(f mailstore.FolderInfo) bool { return !f.Missing }
	var out []goimap.ListData
	for _, f := range folders {
		if !matches(f.Name) {
			continue
		}
		data := goimap.ListData{Delim: '/', Mailbox: f.Name}
		switch {
		case o.SelectSubscribed:
			if o.SelectRecursiveMatch && below(f.Name, subscribed) {
				data.ChildInfo = &goimap.ListDataChildInfo{Subscribed: true}
			}
			if lsub && !f.Subscribed && below(f.Name, subscribed) && !matchesBelow(folders, f.Name, patterns) {
				// RFC 3501, 6.3.9: with %, a parent that is not subscribed stands for children that are.
				out = append(out, goimap.ListData{Attrs: []goimap.MailboxAttr{goimap.MailboxAttrNoSelect}, Delim: '/', Mailbox: f.Name})
				continue
			}
			if !f.Subscribed && data.ChildInfo == nil {
				continue
			}
		case f.Missing && !below(f.Name, exists):
			continue // it is only subscribed
		}
		if o.SelectSpecialUse && f.Use == "" {
			continue
		}
		if f.Missing {
			if !lsub {
				data.Attrs = append(data.Attrs, goimap.MailboxAttrNonExistent)
			}
			data.Attrs = append(data.Attrs, goimap.MailboxAttrNoSelect)
		}
		if f.Subscribed && (o.SelectSubscribed || o.ReturnSubscribed) && !lsub {
			data.Attrs = append(data.Attrs, goimap.MailboxAttrSubscribed)
		}
		if below(f.Name, exists) {
			data.Attrs = append(data.Attrs, goimap.MailboxAttrHasChildren)
		} else {
			data.Attrs = append(data.Attrs, goimap.MailboxAttrHasNoChildren)
		}
		if f.Use != "" && !lsub {
			data.Attrs = append(data.Attrs, goimap.MailboxAttr(f.Use))
		}
		out = append(out, data)
	}
	return out
}

// matchesBelow reports whether a subscribed child of a folder is listed itself.
func matchesBelow(folders []mailstore.FolderInfo, name string, patterns []string) bool {
	return slices.ContainsFunc(folders, func(f mailstore.FolderInfo) bool {
		return f.Subscribed && strings.HasPrefix(f.Name, name+mailstore.Separator) &&
			slices.ContainsFunc(patterns, func(p string) bool { return match(p, f.Name) })
	})
}

// match reports whether a name matches a pattern: * is anything, % anything but the separator. The inbox has any case. It
// takes time in proportion to the product of the lengths, whatever the pattern.
func match(pattern, name string) bool {
	if first, _, _ := strings.Cut(name, mailstore.Separator); first == mailstore.Inbox {
		if p, rest, ok := strings.Cut(pattern, mailstore.Separator); strings.EqualFold(p, mailstore.Inbox) {
			if pattern = mailstore.Inbox; ok {
				pattern += mailstore.Separator + rest
			}
		}
	}
	// reach[i]: what has been read of the pattern can match the first i octets of name.
	reach := make([]bool, len(name)+1)
	reach[0] = true
	for k := 0; k < len(pattern); k++ {
		c := pattern[k]
		if c == '*' || c == '%' {
			for i := 1; i <= len(name); i++ {
				reach[i] = reach[i] || reach[i-1] && (c == '*' || name[i-1] != mailstore.Separator[0])
			}
			continue
		}
		for i := len(name); i > 0; i-- {
			reach[i] = reach[i-1] && name[i-1] == c
		}
		reach[0] = false
	}
	return reach[len(name)]
}
