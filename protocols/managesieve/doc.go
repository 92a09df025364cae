// Package managesieve lets users manage the Sieve scripts of a [mailstore.Scripts] (RFC 5804): all commands, STARTTLS,
// SASL's PLAIN and SCRAM, UNAUTHENTICATE. It knows nothing of Sieve itself: what is wrong with a script it is told.
//
// Literals are taken with and without the plus sign; either way their octets follow at once, for the protocol has no
// answer that would invite them. Those of a literal that is not wanted are read and dropped, so that they are never taken
// for commands; where they are too many, the connection ends.
package managesieve
