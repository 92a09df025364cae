// Package smtp receives mail by SMTP (RFC 5321) and LMTP (RFC 2033), has a [pipeline.Plan] decide about it, and answers
// for it once it is on disk.
//
// The dialogue is go-smtp's. Between it and the socket stands a wire that hands it one checked command at a time and
// knows where a message begins and ends; between it and the pipeline stands a conversation, which lives as long as the
// connection. At SMTP the pipeline follows the dialogue; at LMTP it runs once the message is there, because only then is
// it known who brought the mail to the MTA in front of us.
//
// With [Config.Submission] it is the door of our own users (RFC 6409): they log in (RFC 4954), send under their own
// addresses, and what they send is made complete and goes into the outbox. There all of DSN is offered, for the queue makes
// the notifications.
//
// At the other doors trusted peers are offered XCLIENT, and DSN to say whom a mail was for and what its sender asked for
// (RFC 3461). That is in the record, for whoever hands the mail on. We make no notifications about it: a sender who asked
// for one of success (NOTIFY=SUCCESS) by way of an MTA of ours, or of an MTA that gives us its mail by LMTP, gets none;
// strangers are not offered DSN, so that their own MTA tells them. REQUIRETLS is neither offered nor taken (RFC 8689).
package smtp
