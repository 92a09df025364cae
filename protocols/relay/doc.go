// Package relay brings mail to where it goes: to a smarthost, to the servers that the DNS names for a domain, or to an LMTP
// server, each by a client of ours. It works on a [mailstore.Queue] and tells it what became of every recipient.
//
// # Who has the mail
//
// Until a server has answered the end of the data the mail is ours; from its 2yz on it is theirs. A connection that ends in
// between says neither: the mail is postponed, and may be sent twice. So may mail whose 2yz the queue has not kept when the
// program ends: at most one for each connection that a destination may have, as no more is sent there until that is kept.
//
// # What is never sent
//
// A CR or LF that is not half of a CRLF (RFC 5321, 2.3.8): an LF that stands alone becomes CRLF, a CR that stands alone a
// space, as the smtp door does it. The only end of data that is sent is ours.
package relay
