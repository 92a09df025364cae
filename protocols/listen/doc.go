// Package listen owns every socket of the program. A [Listener] opens a TCP port or a unix socket and hands out
// connections that keep to limits whatever the protocol library above them does: a deadline for each read and write, a
// first read error that is final, a bound on connections in all and per address, TLS with a deadline of its own, and an
// orderly end.
package listen
