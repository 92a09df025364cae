// Package imap serves the mail of a [mailstore.Store] to mail clients: IMAP4rev1 (RFC 3501) with IDLE, MOVE, UIDPLUS,
// NAMESPACE, SPECIAL-USE, CREATE-SPECIAL-USE, LIST-EXTENDED, LIST-STATUS, ESEARCH, UNSELECT, SASL-IR and LITERAL-.
//
// A connection is ours until somebody has logged in: greeting, STARTTLS, LOGIN and AUTHENTICATE are answered here, with
// small limits. Only then a go-imap server takes over, behind a guard. The guard reads whole commands, answers some of
// them itself (APPEND among them), and hands on the rest as single lines without literals, so that nothing a client puts
// into a literal can be taken for a command. What the library asks of the mail is answered by a session, which keeps
// the listing that the client knows and tells it exactly what has changed.
package imap
