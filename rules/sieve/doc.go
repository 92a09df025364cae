// Package sieve reads, checks and runs Sieve scripts (RFC 5228 and its extensions).
//
// [Compile] checks a script whole and reports everything that is wrong with it at once. A [Script] never changes, is
// shared by any number of goroutines, and costs nothing to run again. [Script.Run] collects what the script wants as
// values, in order, and does none of it: whoever runs a script carries all of it out, or none.
//
// Everything that a script is told of the world comes in with [Input], so the same input always gives the same outcome.
//
// Extensions are tables, one function each in a file of its own: see [extension] and the list in registry.go.
package sieve
