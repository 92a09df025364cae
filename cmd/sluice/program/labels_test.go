package program

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/maildir"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestLabel(t *testing.T) {
	w := &whereabouts{junk: []string{"Junk", "Filter/Rubbish"}}
	for _, tt := range []struct {
		filed string // where, and flags it was delivered with
		now   string // where, and flags
		want  string
	}{
		{"", "INBOX", "unknown: unread where it was filed"},
		{"INBOX", `INBOX \Seen`, "unknown: read and left where it was filed"},
		{"inbox", `INBOX \Seen`, "unknown: read and left where it was filed"},
		{"", `INBOX \Seen \Answered`, "ham: replied to"},
		{"", `INBOX \Flagged`, "ham: flagged"},
		{`INBOX \Flagged \Seen`, `INBOX \Flagged \Seen`, "unknown: unread where it was filed"}, // a rule did
		{"", "INBOX $Forwarded", "unknown: unread where it was filed"},                         // to a spam desk, perhaps
		{"", "INBOX $Junk", "spam: marked $Junk"},
		{"", "INBOX $junk", "spam: marked $Junk"},
		{"", "INBOX Junk", "spam: marked $Junk"},
		{"INBOX $Junk", "INBOX $Junk", "unknown: unread where it was filed"}, // a rule did
		{"", "INBOX $NotJunk", "ham: marked $NotJunk"},
		{"", "INBOX NonJunk", "ham: marked $NotJunk"},
		{"", "INBOX $Junk $NotJunk", "unknown: marked both $Junk and $NotJunk"},
		{"", "Junk", "spam: moved into Junk"},
		{"", `Junk \Seen \Answered \Flagged`, "spam: moved into Junk"},
		{"", "junk", "spam: moved into Junk"},
		{"", "Spam", "spam: moved into Junk"},
		{"Lists", "Mail/Junk E-mail", "spam: moved into Junk"},
		{"", "Filter/Rubbish", "spam: moved into Junk"},
		{"Junk", "Junk", "unknown: filed into Junk by us, unread"},
		{"Filter/Rubbish", "Filter/Rubbish", "unknown: filed into Junk by us, unread"},
		{"Junk", "Spam", "unknown: filed into Junk by us, unread"},
		{"Junk", `Junk \Seen`, "spam: read in Junk and left there"},
		{"Junk", `Junk \Seen \Answered`, "ham: replied to"},
		{"Junk", "Junk $NotJunk", "ham: marked $NotJunk"},
		{"Junk", "INBOX", "ham: moved out of Junk"},
		{"Junk", `Trash \Seen`, "unknown: moved from Junk to Trash"},
		{"Junk", "Deleted Items", "unknown: moved from Junk to Trash"},
		{"Junk", "Trash $Junk", "spam: marked $Junk"},
		{"", "Trash", "unknown: moved to Trash unread"},
		{"", `Trash \Seen`, "unknown: moved to Trash after it was read"},
		{"", `Trash \Seen \Answered`, "ham: replied to"},
		{"Trash", "Trash", "unknown: unread where it was filed"},
		{"Trash", "INBOX", "ham: moved to a folder"},
		{"", "Work", "ham: moved to a folder"},
		{"", "Archive", "ham: moved to a folder"},
		{"Lists", "Work", "ham: moved to a folder"},
		{"Lists/Old", "Lists/New", "unknown: the folder it was filed in is gone, perhaps renamed"},
	} {
		parse := func(s string) (string, []string) {
			for i := range s {
				if s[i] == ' ' && (strings.ContainsAny(s[i+1:i+2], `\$`) || slices.Contains([]string{"Junk", "NonJunk"}, s[i+1:])) {
					return s[:i], strings.Fields(s[i:])
				}
			}
			return s, nil
		}
		x := &pipeline.RecipientRecord{}
		x.Folder, x.Flags = parse(tt.filed)
		var now maildir.Seen
		now.Folder, now.Flags = parse(tt.now)
		got := w.judge(x, now, []string{"INBOX", "Junk", "Lists", "Lists/New", "Filter/Rubbish", "Trash", "Spam", now.Folder})
		if s := fmt.Sprintf("%s: %s", got.Label, got.Why); s != tt.want {
			t.Errorf("filed in %q, now %q: %s; want %s", tt.filed, tt.now, s, tt.want)
		}
	}
}

// labelled is a store with mail of two accounts, and the records of it.
type labelled struct {
	settings *config.Config
	store    *maildir.Store
	records  []*pipeline.Record
}

func newLabelled(t *testing.T) *labelled {
	t.Helper()
	l := &labelled{settings: &config.Config{Data: t.TempDir()}}
	if err := os.Mkdir(filepath.Join(l.settings.Data, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := lookingStore(l.settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	l.store = store
	return l
}

// deliver files a mail for accounts and returns its record.
func (l *labelled) deliver(t *testing.T, id, folder string, accounts ...string) *pipeline.Record {
	t.Helper()
	r := &pipeline.Record{ID: id, Received: time.Now()}
	for _, account := range accounts {
		placed, err := l.store.Deliver(t.Context(), []mailstore.Item{{
			Account: account, Folder: folder, ID: id, Content: strings.NewReader("Subject: " + id + "\n\nx\n"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		address, err := mime.ParseAddress(account)
		if err != nil {
			t.Fatal(err)
		}
		r.Recipients = append(r.Recipients, pipeline.RecipientRecord{
			Recipient:   pipeline.Recipient{Address: address, Account: account},
			Disposition: pipeline.Delivered, Folder: folder, File: placed[0].File,
		})
	}
	l.records = append(l.records, r)
	return r
}

// user does something to the mail of a record as its owner's mail client would.
func (l *labelled) user(t *testing.T, account, from, id string, do func(f mailstore.Folder, uids []uint32) error) {
	t.Helper()
	a, err := l.store.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_ = a.Create(t.Context(), "Junk") // it may be there
	f, err := a.Open(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := f.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages.Messages {
		if strings.Contains(m.File, "."+id+"_") {
			if err := do(f, []uint32{m.UID}); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s is not in %s", id, from)
}

func TestLabelsOfRealMail(t *testing.T) {
	const me, you = "me@x.example", "you@x.example"
	l := newLabelled(t)
	for _, id := range []string{"untouched", "moved", "copied", "halfcopied", "keyword", "gone", "answered"} {
		l.deliver(t, id, "", me)
	}
	l.deliver(t, "both", "", me, you)
	l.deliver(t, "twice", "", me, me)
	l.user(t, me, "INBOX", "moved", func(f mailstore.Folder, uids []uint32) error {
		_, err := f.Move(t.Context(), uids, "Junk")
		return err
	})
	for _, id := range []string{"copied", "halfcopied"} {
		l.user(t, me, "INBOX", id, func(f mailstore.Folder, uids []uint32) error {
			if _, err := f.Copy(t.Context(), uids, "Junk"); err != nil {
				return err
			}
			if id == "copied" {
				return f.Remove(t.Context(), uids)
			}
			_, err := f.SetFlags(t.Context(), uids, mailstore.FlagsAdd, []string{`\Deleted`, `\Seen`})
			return err
		})
	}
	flag := func(flag string) func(f mailstore.Folder, uids []uint32) error {
		return func(f mailstore.Folder, uids []uint32) error {
			_, err := f.SetFlags(t.Context(), uids, mailstore.FlagsAdd, []string{flag})
			return err
		}
	}
	l.user(t, me, "INBOX", "keyword", flag("$NotJunk"))
	l.user(t, me, "INBOX", "answered", flag(`\Answered`))
	l.user(t, you, "INBOX", "both", flag("$Junk"))
	l.user(t, me, "INBOX", "gone", func(f mailstore.Folder, uids []uint32) error { return f.Remove(t.Context(), uids) })
	l.user(t, me, "INBOX", "twice", func(f mailstore.Folder, uids []uint32) error {
		_, err := f.Move(t.Context(), uids, "Junk")
		return err
	})
	refused := l.deliver(t, "refused", "", me)
	refused.Recipients[0].Disposition, refused.Recipients[0].File = pipeline.Refused, ""

	want := strings.Join([]string{
		"untouched unknown: unread where it was filed",
		"moved spam: moved into Junk",
		"copied spam: moved into Junk",
		"halfcopied spam: moved into Junk",
		"keyword ham: marked $NotJunk",
		"gone unknown: deleted, or moved out of the account",
		"answered ham: replied to",
		"both unknown: unread where it was filed",
		"both spam: marked $Junk",
		"twice",
		"twice",
		"refused unknown: not filed here",
	}, "\n")
	for _, most := range []int{mostLookedAt, 1} {
		w, err := newWhereabouts(t.Context(), l.settings, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w.most = most
		var got []string
		twice := map[string]bool{}
		for _, r := range l.records {
			for i := range r.Recipients {
				x, path, err := w.label(r, &r.Recipients[i])
				if err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(path); (err == nil) == (x.Why == whyGone || x.Why == whyNotFiled) {
					t.Errorf("%s: %v but the path is %q", r.ID, x, path)
				}
				if r.ID == "twice" { // each has a file of its own, whichever was moved
					twice[x.Why] = true
					got = append(got, "twice")
					continue
				}
				got = append(got, fmt.Sprintf("%s %s: %s", r.ID, x.Label, x.Why))
			}
		}
		if s := strings.Join(got, "\n"); s != want {
			t.Errorf("with room for %d:\n%s\nwant\n%s", most, s, want)
		}
		if !twice[whyUnread] || !twice[whyMovedToJunk] {
			t.Errorf("one mail twice in an account: %v", twice)
		}
		if most == 1 && len(w.accounts) != 1 {
			t.Errorf("%d accounts are remembered", len(w.accounts))
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLabelsWithoutMail(t *testing.T) {
	w, err := newWhereabouts(t.Context(), &config.Config{Data: t.TempDir()}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	r := &pipeline.Record{ID: "a", Recipients: []pipeline.RecipientRecord{{
		Recipient: pipeline.Recipient{Account: "me@x.example"}, Disposition: pipeline.Delivered, File: "1.a_1.mx,S=1,W=1",
	}}}
	redacted := *r
	redacted.Redacted = &pipeline.Redaction{What: []string{"addresses"}}
	if got, _, err := w.label(&redacted, &r.Recipients[0]); err != nil || got != (label{labelUnknown, whyRedacted}) {
		t.Errorf("of a redacted record: %v, %v", got, err)
	}
	if got, _, err := w.label(r, &r.Recipients[0]); err != nil || got != (label{labelUnknown, whyGone}) {
		t.Errorf("%v, %v", got, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
