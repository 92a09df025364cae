package sieve

import (
	"bytes"
	"io"

	"sluice/pipeline/mime"
)

// An Edited is a message as a script has changed it. It never changes itself.
type Edited struct {
	header []byte // the header section with the empty line, line ends as the mail has them
	body   *mime.Message
	whole  []byte // where the message was replaced: all of it
}

// Open returns a reader of the whole message.
func (e *Edited) Open() io.Reader {
	if e.whole != nil {
		return bytes.NewReader(e.whole)
	}
	return io.MultiReader(bytes.NewReader(e.header), e.body.RawBody())
}

// Size returns its size in octets.
func (e *Edited) Size() int64 {
	if e.whole != nil {
		return int64(len(e.whole))
	}
	return int64(len(e.header)) + e.body.RawBody().Size()
}
