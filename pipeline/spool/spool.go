// Package spool holds a message while it arrives: in memory at first, then in a file that has no name.
package spool
