package sieve

import "strings"

// A call is a checked command or test.
type call struct {
	form  *form
	unit  *unit
	line  int
	at    span
	given []given
	args  []value // as form.args; one that was left out is empty
	tests []*call
	block []*call
	// otherwise is the elsif or else behind an if.
	otherwise *call
	match     *matching
	// always is what a test comes to whenever it is asked, where that is known: that of ihave.
	always answer
	// extra is what the check of the form has worked out for its run.
	extra any
}

type answer uint8

const (
	open answer = iota
	no
	yes
)

// A given is a tag that a call has.
type given struct {
	tag   *tag
	value value
}

// A value is an argument.
type value struct {
	is     shape // nothing: it was left out
	at     span
	number int64
	texts  []pattern
}

// A pattern is a string of the script, in pieces where it has variables (RFC 5229, 3).
type pattern struct {
	fixed  string // all of it, where it has no variables
	lower  string // the same in lower case: that of a name
	pieces []piece
	at     span
}

// A piece is a fixed text, a variable or a match value.
type piece struct {
	fixed string
	name  string // of a variable, in lower case, with its namespace
	match int    // which match value, where name is ""; -1: it is fixed
}

func (p pattern) constant() bool { return p.pieces == nil }

// has reports whether the call has a tag.
func (n *call) has(tag string) bool { return n.tag(tag) != nil }

// tag returns the value of a tag, nil where the call has no such tag.
func (n *call) tag(name string) *value {
	for i := range n.given {
		if n.given[i].tag.name == name {
			return &n.given[i].value
		}
	}
	return nil
}

// arg returns a positional argument by its name, nil where it was left out.
func (n *call) arg(name string) *value {
	for i, a := range n.form.args {
		if a.name == name && n.args[i].is != nothing {
			return &n.args[i]
		}
	}
	return nil
}

// source is the call as it stands in the script, on one line.
func (n *call) source() string {
	const most = 200
	s := n.unit.text[n.at.from:min(n.at.to, n.at.from+10*most)]
	return clipTo(strings.Join(strings.Fields(s), " "), most)
}
