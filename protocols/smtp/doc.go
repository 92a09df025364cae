// Package smtp receives mail by SMTP (RFC 5321) and LMTP (RFC 2033), has a [pipeline.Plan] decide about it, and answers
// for it once it is on disk.
//
// The dialogue is go-smtp's. Between it and the socket stands a wire that hands it one checked command at a time and
// knows where a message begins and ends; between it and the pipeline stands a conversation, which lives as long as the
// connection. At SMTP the pipeline follows the dialogue; at LMTP it runs once the message is there, because only then is
// it known who brought the mail to the MTA in front of us.
package smtp
