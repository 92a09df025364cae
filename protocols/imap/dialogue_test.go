package imap

import (
	"encoding/base64"
	"strings"
	"testing"
)

const capabilities = "IMAP4rev1 SASL-IR LITERAL- IDLE MOVE UIDPLUS NAMESPACE SPECIAL-USE CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS " +
	"CHILDREN UNSELECT ENABLE ESEARCH STATUS=SIZE APPENDLIMIT=52428800"

func plain(authzid, name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + name + "\x00" + password))
}

// Each dialogue runs against a site of its own with two messages in the inbox.
func TestDialogues(t *testing.T) {
	tests := []struct{ name, script string }{
		{"before login", `
			S: * OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL- STARTTLS AUTH=PLAIN] mx.test ready
			C: a CAPABILITY
			S: * CAPABILITY IMAP4rev1 SASL-IR LITERAL- STARTTLS AUTH=PLAIN
			S: a OK CAPABILITY completed
			C: a NOOP
			S: a OK NOOP completed
			C: a SELECT INBOX
			S: a BAD log in first
			C: a XYZZY
			S: a BAD unknown command
			C: nonsense
			S: nonsense BAD a command is missing
			C: +a NOOP
			S: * BAD a command begins with a tag
			C: a LOGIN me
			S: a BAD LOGIN takes a name and a password
			C: a LOGOUT
			S: * BYE logging out
			S: a OK LOGOUT completed
			X:`},
		{"a mailbox without a name is none", `
			S: * OK …
			C: a LOGIN me@localhost "open sesame"
			S: a OK …
			C: b SELECT ""
			S: b NO [NONEXISTENT] there is no such mailbox
			C: b RENAME "" other
			S: b NO [NONEXISTENT] there is no such mailbox
			C: b STATUS "" (MESSAGES)
			S: b NO [NONEXISTENT] there is no such mailbox
			C: b STATUS INBOX (MESSAGES)
			S: * STATUS INBOX (MESSAGES 2)
			S: b OK …
			C: c LOGOUT
			S: * BYE Logging out
			S: c OK LOGOUT completed
			X:`},
		{"login", `
			S: * OK …
			C: a LOGIN me@localhost "open sesame"
			S: a OK [CAPABILITY ` + capabilities + `] LOGIN completed
			C: b CAPABILITY
			S: * CAPABILITY ` + capabilities + `
			S: b OK CAPABILITY completed
			C: b LOGIN me x
			S: b BAD you are logged in
			C: b STARTTLS
			S: b BAD you are logged in
			C: c LOGOUT
			S: * BYE Logging out
			S: c OK LOGOUT completed
			X:`},
		{"mailboxes for a special use", `
			S: * OK …
			C: a LOGIN me@localhost "open sesame"
			S: a OK …
			C: a CREATE Gesendet (USE (\sent))
			S: a OK CREATE completed
			C: a CREATE Other (USE (\Sent))
			S: a NO [USEATTR] another mailbox has this special use, or there is none of this name
			C: a CREATE Other (USE (\All))
			S: a NO [USEATTR] another mailbox has this special use, or there is none of this name
			C: a CREATE Other (USE (\Trash \Junk))
			S: a NO [USEATTR] a mailbox has one special use at most
			C: a CREATE Gesendet (USE (\Trash))
			S: a NO [ALREADYEXISTS] this mailbox exists already
			C: a CREATE Other (USE \Trash)
			S: a BAD …
			C: a CREATE Other (COLOUR (\Trash))
			S: a BAD …
			C: a CREATE Other (USE ())
			S: a OK CREATE completed
			C: a CREATE Sent
			S: a OK CREATE completed
			C: a RENAME Gesendet Post/Gesendet
			S: a OK RENAME completed
			C: a LIST "" "*" RETURN (SPECIAL-USE)
			S: * LIST (\HasNoChildren) "/" INBOX
			S: * LIST (\HasNoChildren) "/" "Other"
			S: * LIST (\HasChildren) "/" "Post"
			S: * LIST (\HasNoChildren \Sent) "/" "Post/Gesendet"
			S: * LIST (\HasNoChildren) "/" "Sent"
			S: a OK LIST completed
			C: a LIST (SPECIAL-USE) "" "*"
			S: * LIST (\HasNoChildren \Sent) "/" "Post/Gesendet"
			S: a OK LIST completed
			C: c LOGOUT
			S: * BYE Logging out
			S: c OK LOGOUT completed
			X:`},
		{"login by literals", `
			S: * OK …
			C: a LOGIN {2}
			S: + go ahead
			C: me {11+}
			C: open sesame
			S: a OK …`},
		{"authenticate plain", `
			S: * OK …
			C: a AUTHENTICATE PLAIN
			S: +…
			C: *
			S: a BAD AUTHENTICATE cancelled
			C: a AUTHENTICATE PLAIN
			S: +…
			C: ` + plain("", "me", password) + `
			S: a OK [CAPABILITY ` + capabilities + `] AUTHENTICATE completed`},
		{"authenticate with initial response", `
			S: * OK …
			C: a AUTHENTICATE PLAIN ` + plain("me", "me", password) + `
			S: a OK …`},
		{"authenticate wrongly", `
			S: * OK …
			C: a AUTHENTICATE CRAM-MD5
			S: a NO the mechanisms are PLAIN
			C: a AUTHENTICATE PLAIN ????
			S: a BAD this is no response of PLAIN
			C: a AUTHENTICATE PLAIN ` + plain("you", "me", password) + `
			S: a NO [AUTHORIZATIONFAILED] nobody acts for somebody else here
			C: a LOGIN me@localhost wrong
			S: a NO [AUTHENTICATIONFAILED] wrong name or password`},
		{"three failures end the connection", `
			S: * OK …
			C: a LOGIN me wrong
			S: a NO [AUTHENTICATIONFAILED] wrong name or password
			C: b LOGIN nobody wrong
			S: b NO [AUTHENTICATIONFAILED] wrong name or password
			C: c AUTHENTICATE PLAIN ` + plain("", "me", "wrong") + `
			S: c NO [AUTHENTICATIONFAILED] wrong name or password
			S: * BYE too many failed logins
			X:`},
		{"mailboxes", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a LIST "" ""
			S: * LIST (\Noselect) "/" ""
			S: a OK LIST completed
			C: a NAMESPACE
			S: * NAMESPACE (("" "/")) NIL NIL
			S: a OK NAMESPACE completed
			C: a CREATE Lists/go/
			S: a OK CREATE completed
			C: a CREATE Lists/go
			S: a NO [ALREADYEXISTS] this mailbox exists already
			C: a CREATE B&APw-cher
			S: a OK CREATE completed
			C: a LIST "" *
			S: * LIST (\HasNoChildren) "/" INBOX
			S: * LIST (\HasNoChildren) "/" "B&APw-cher"
			S: * LIST (…\HasChildren) "/" "Lists"
			S: * LIST (\HasNoChildren) "/" "Lists/go"
			S: a OK LIST completed
			C: a LIST "" %
			S: * LIST (\HasNoChildren) "/" INBOX
			S: * LIST (\HasNoChildren) "/" "B&APw-cher"
			S: * LIST (…\HasChildren) "/" "Lists"
			S: a OK LIST completed
			C: a LIST Lists/ %
			S: * LIST (\HasNoChildren) "/" "Lists/go"
			S: a OK LIST completed
			C: a SUBSCRIBE Lists/go
			S: a OK SUBSCRIBE completed
			C: a LSUB "" Lists/*
			S: * LSUB (\HasNoChildren) "/" "Lists/go"
			S: a OK LSUB completed
			C: a LSUB "" Lis%
			S: * LSUB (\Noselect) "/" "Lists"
			S: a OK LSUB completed
			C: a LIST (SUBSCRIBED) "" Lists* RETURN (CHILDREN)
			S: * LIST (\Subscribed \HasNoChildren) "/" "Lists/go"
			S: a OK LIST completed
			C: a LIST (SUBSCRIBED RECURSIVEMATCH) "" Lis%
			S: * LIST (…) "/" "Lists" (CHILDINFO ("SUBSCRIBED"))
			S: a OK LIST completed
			C: a LIST "" inbox RETURN (STATUS (MESSAGES UNSEEN UIDNEXT SIZE))
			S: * LIST (\HasNoChildren) "/" INBOX
			S: * STATUS INBOX (MESSAGES 2 UIDNEXT 3 UNSEEN 2 SIZE …)
			S: a OK LIST completed
			C: a UNSUBSCRIBE Lists/go
			S: a OK UNSUBSCRIBE completed
			C: a RENAME Lists/go Lists/golang
			S: a OK RENAME completed
			C: a RENAME Lists/go Lists/nuts
			S: a NO [NONEXISTENT] there is no such mailbox
			C: a DELETE Lists/golang
			S: a OK DELETE completed
			C: a DELETE Lists/golang
			S: a NO [NONEXISTENT] there is no such mailbox
			C: a DELETE inbox
			S: a NO the inbox stays
			C: a CREATE ../../etc
			S: a NO [CANNOT] this is not a usable name for a mailbox
			C: a SELECT Nowhere
			S: a NO [NONEXISTENT] there is no such mailbox
			C: a STATUS INBOX (MESSAGES RECENT UIDVALIDITY)
			S: * STATUS INBOX (MESSAGES 2 UIDVALIDITY … RECENT …)
			S: a OK STATUS completed
			C: a STATUS INBOX (DELETED-STORAGE)
			S: a BAD DELETED-STORAGE is not known here
			C: a ENABLE UTF8=ACCEPT IMAP4rev2
			S: * ENABLED
			S: a OK ENABLE completed`},
		{"select and fetch", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a FETCH 1 FLAGS
			S: a BAD [CLIENTBUG] …
			C: a SELECT inbox
			S: * 2 EXISTS
			S: * … RECENT
			S: * OK [UNSEEN 1] …
			S: * OK [UIDVALIDITY …] …
			S: * OK [UIDNEXT 3] …
			S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
			S: * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] …
			S: a OK [READ-WRITE] SELECT completed
			C: a FETCH 1 (UID RFC822.SIZE INTERNALDATE ENVELOPE)
			S: * 1 FETCH (UID 1 INTERNALDATE "21-Nov-2026 … …" RFC822.SIZE 151 ENVELOPE ("Sat, 21 Nov 2026 09:30:00 +0000" "one" (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) ((NIL NIL "me" "localhost")) NIL NIL NIL "<one@example.org>"))
			S: a OK FETCH completed
			C: a FETCH 2 (BODY BODYSTRUCTURE)
			S: * 2 FETCH (BODY ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 18 1) BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 18 1 NIL NIL NIL NIL))
			S: a OK FETCH completed
			C: a FETCH 2 BODY.PEEK[HEADER.FIELDS (subject "X-None")]
			S: * 2 FETCH (BODY[HEADER.FIELDS ("subject" "X-None")] {16}
			S: Subject: two
			S: 
			S: )
			S: a OK FETCH completed
			C: a FETCH 2 (BODY.PEEK[TEXT]<4.4> BODY.PEEK[1])
			S: * 2 FETCH (BODY[TEXT]<4> {4}
			S: text BODY[1] {18}
			S: The text of two.
			S: )
			S: a OK FETCH completed
			C: a UID FETCH 2 BODY[TEXT]
			S: * 2 FETCH (UID 2 FLAGS (\Seen…) BODY[TEXT] {18}
			S: The text of two.
			S: )
			S: a OK UID FETCH completed
			C: a FETCH 3 FLAGS
			S: a BAD there are 2 messages
			C: a FETCH 3:* UID
			S: * 2 FETCH (UID 2)
			S: a OK FETCH completed
			C: a UID FETCH 99 FLAGS
			S: a OK UID FETCH completed
			C: a FETCH 0 FLAGS
			S: a BAD the arguments are not understood
			C: a FETCH 1 (BINARY[1])
			S: a BAD this item is not known here
			C: a FETCH 1 (FLAGS
			S: a BAD …
			C: a FETCH 1 "FLAGS
			S: a BAD a quoted string does not end
			C: a NOOP
			S: a OK NOOP completed`},
		{"flags, copy, move, expunge", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a SELECT INBOX
			S- a OK …
			C: a STORE 1 +FLAGS (\Flagged $Label1)
			S: * 1 FETCH (FLAGS ($Label1 \Flagged…))
			S: a OK STORE completed
			C: a UID STORE 1 -FLAGS.SILENT ($Label1)
			S: a OK UID STORE completed
			C: a UID STORE 1 FLAGS (\Seen)
			S: * 1 FETCH (UID 1 FLAGS (\Seen…))
			S: a OK UID STORE completed
			C: a STORE 1 +FLAGS (\Bogus)
			S: a BAD there is no flag \Bogus
			C: a STORE 1 +FLAGS (\Recent)
			S: * 1 FETCH (FLAGS (\Seen…))
			S: a OK STORE completed
			C: a COPY 1:2 Archive
			S: a NO [TRYCREATE] there is no such mailbox
			C: a CREATE Archive
			S: a OK CREATE completed
			C: a COPY 1:2 Archive
			S: a OK [COPYUID … 1:2 1:2] COPY completed
			C: a UID COPY 77 Archive
			S: a OK COPY completed
			C: a MOVE 1 Archive
			S: * OK [COPYUID … 1 3] COPY completed
			S: * 1 EXPUNGE
			S: a OK MOVE completed
			C: a STORE 1 +FLAGS.SILENT (\Deleted)
			S: a OK STORE completed
			C: a UID EXPUNGE 1
			S: a OK UID EXPUNGE completed
			C: a EXPUNGE
			S: * 1 EXPUNGE
			S: a OK EXPUNGE completed
			C: a SELECT Archive
			S: * OK [CLOSED] …
			S: * 3 EXISTS
			S- a OK …
			C: a STORE 1,3 +FLAGS.SILENT (\Deleted)
			S: a OK STORE completed
			C: a CLOSE
			S: a OK CLOSE completed
			C: a STATUS Archive (MESSAGES)
			S: * STATUS "Archive" (MESSAGES 1)
			S: a OK STATUS completed
			C: a SELECT Archive
			S- a OK …
			C: a STORE 1 +FLAGS.SILENT (\Deleted)
			S: a OK STORE completed
			C: a UNSELECT
			S: a OK UNSELECT completed
			C: a STATUS Archive (MESSAGES)
			S: * STATUS "Archive" (MESSAGES 1)
			S: a OK STATUS completed`},
		{"append", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a SELECT INBOX
			S- a OK …
			C: a APPEND INBOX (\Seen $x) "01-Jan-2026 10:11:12 +0100" {18}
			S: + go ahead
			C: Subject: a
			C: 
			C: text
			S: * 3 EXISTS
			S: * … RECENT
			S: a OK [APPENDUID … 3] APPEND completed
			C: a FETCH 3 (FLAGS INTERNALDATE RFC822)
			S: * 3 FETCH (FLAGS ($x \Seen…) INTERNALDATE " 1-Jan-2026 …" RFC822 {18}
			S: Subject: a
			S: 
			S: text)
			S: a OK FETCH completed
			C: a APPEND {5}
			S: + go ahead
			C: INBOX {5+}
			C: A: b
			S: * 4 EXISTS
			S: * … RECENT
			S: a OK [APPENDUID … 4] APPEND completed
			C: a APPEND Nowhere {5}
			S: a NO [TRYCREATE] there is no such mailbox
			C: a APPEND INBOX {99999999}
			S: a NO [TOOBIG] a message is at most 52428800 octets long
			C: a APPEND INBOX
			S: a BAD APPEND takes a mailbox and a message as a literal
			C: a APPEND INBOX (\Odd) {5}
			S: a BAD there is no flag \Odd
			C: a APPEND INBOX "32-Jan-2026 10:11:12 +0100" {5}
			S: a BAD "32-Jan-2026 10:11:12 +0100" is no date
			C: a APPEND INBOX ~{5}
			S: a BAD binary literals are not supported
			C: a NOOP
			S: a OK NOOP completed`},
		{"search", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a SELECT INBOX
			S- a OK …
			C: a SEARCH ALL
			S: * SEARCH 1 2
			S: a OK SEARCH completed
			C: a UID SEARCH SUBJECT TWO
			S: * SEARCH 2
			S: a OK UID SEARCH completed
			C: a SEARCH NOT FROM "ann" 
			S: * SEARCH
			S: a OK SEARCH completed
			C: a SEARCH OR BODY "text of one" (UNSEEN BODY "nothing")
			S: * SEARCH 1
			S: a OK SEARCH completed
			C: a SEARCH HEADER Message-ID two@ TEXT {3}
			S: + go ahead
			C: TEX
			S: * SEARCH 2
			S: a OK SEARCH completed
			C: a SEARCH SENTON 21-Nov-2026 SMALLER 1000 LARGER 10 UID 2:*
			S: * SEARCH 2
			S: a OK SEARCH completed
			C: a SEARCH SINCE 22-Nov-2026
			S: * SEARCH
			S: a OK SEARCH completed
			C: a SEARCH ON 21-Nov-2026 1
			S: * SEARCH 1
			S: a OK SEARCH completed
			C: a SEARCH RETURN (MIN MAX COUNT) ALL
			S: * ESEARCH (TAG "a") MIN 1 MAX 2 COUNT 2
			S: a OK SEARCH completed
			C: a UID SEARCH RETURN () UNDELETED
			S: * ESEARCH (TAG "a") UID ALL 1:2
			S: a OK UID SEARCH completed
			C: a SEARCH RETURN (SAVE) ALL
			S: a BAD SAVE is not known here
			C: a FETCH $ FLAGS
			S: a BAD $ is not known here
			C: a SEARCH CHARSET KOI8-R ALL
			S: a NO [BADCHARSET] …
			C: a SEARCH BOGUS
			S: a BAD the arguments are not understood
			C: a SEARCH SINCE tomorrow
			S: a BAD the arguments are not understood`},
		{"what the library does not know", `
			S: * OK …
			C: l LOGIN me "open sesame"
			S: l OK …
			C: a SELECT INBOX (CONDSTORE)
			S: a BAD …
			C: a ID NIL
			S: a BAD Unknown command
			C: a GETQUOTAROOT INBOX
			S: a BAD Unknown command
			C: a IDLE now
			S: a BAD IDLE takes nothing
			C: a NOOP
			S: a OK NOOP completed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{})
			s.deliver("", letter("one"), letter("two"))
			s.dial().talk(tt.script)
		})
	}
}

func TestMailboxNamesInModifiedUTF7(t *testing.T) {
	names := map[string]string{
		"INBOX": "INBOX", "&-": "&", "a&-b": "a&b", "B&APw-cher": "Bücher", "~peter/mail/&U,BTFw-/&ZeVnLIqe-": "~peter/mail/台北/日本語",
		"&2DzfVQ-": "🍕",
	}
	for encoded, want := range names {
		if got, err := decodeUTF7(encoded); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", encoded, got, err, want)
		}
	}
	for _, bad := range []string{"&", "&a", "&AGE-", "ü", "a\x00", "&U,BTFw", "&U,BTFw-&ZeVnLIqe-", "&2D0-", "&AP-", "&!!-"} {
		if got, err := decodeUTF7(bad); err == nil {
			t.Errorf("%s: accepted as %q", strings.ToValidUTF8(bad, "?"), got)
		}
	}
}
