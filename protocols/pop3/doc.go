// Package pop3 serves the inboxes of a [mailstore.Store] over POP3: RFC 1939 with CAPA and RESP-CODES (RFC 2449), STLS
// (RFC 2595), AUTH (RFC 5034), TOP, UIDL and PIPELINING.
//
// A session sees the inbox as it was at login. One session at a time holds an account (RFC 1939, 4: the maildrop is
// locked; IMAP goes on beside it). What DELE marks is removed by QUIT and by nothing else.
package pop3
