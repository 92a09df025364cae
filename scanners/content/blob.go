package content

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// reached collects the names of limits that were reached.
type reached map[string]bool

func (r reached) add(name string) { r[name] = true }

func (r reached) names() []string { return slices.Sorted(maps.Keys(r)) }

// A blob is a file as far as it is held: all of it, or its beginning and its end.
type blob struct {
	head []byte
	tail []byte // the last octets, where head is not all
	size int64
}

var (
	errNotHeld = errors.New("what it holds lies in the midst of a file larger than limits.file_size")
	errBeyond  = errors.New("it ends too early")
)

func whole(b []byte) *blob { return &blob{head: b, size: int64(len(b))} }

// slice returns n octets from off on.
func (b *blob) slice(off, n int64) ([]byte, error) {
	switch {
	case off < 0 || n < 0 || off > b.size || n > b.size-off:
		return nil, errBeyond
	case off+n <= int64(len(b.head)):
		return b.head[off : off+n], nil
	case off >= b.size-int64(len(b.tail)):
		off -= b.size - int64(len(b.tail))
		return b.tail[off : off+n], nil
	}
	return nil, errNotHeld
}

// end returns at most the last n octets and where they begin.
func (b *blob) end(n int) (p []byte, at int64) {
	p = b.head
	if b.size > int64(len(b.head)) {
		p = b.tail
	}
	p = p[max(len(p)-n, 0):]
	return p, b.size - int64(len(p))
}

// isWhole reports whether all of it is held.
func (b *blob) isWhole() bool { return b.size == int64(len(b.head)) }

// buffers lends the memory in which files are held while they are looked at.
type buffers struct{ pool sync.Pool }

// largestKept is what is given back: larger ones are rare, and shall not stay.
const largestKept = 256 << 10

func (p *buffers) take() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 16<<10)
}

func (p *buffers) put(b []byte) {
	if cap(b) > 0 && cap(b) <= largestKept {
		b = b[:0]
		p.pool.Put(&b)
	}
}

// A collector is an io.Writer that holds a file within a limit.
type collector struct {
	head  []byte
	tail  []byte
	limit int
	size  int64
}

// Write implements io.Writer.
func (c *collector) Write(p []byte) (int, error) {
	n := len(p)
	c.size += int64(n)
	if room := c.limit - c.limit/8 - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head, p = append(c.head, p[:k]...), p[k:]
	}
	if len(p) == 0 {
		return n, nil
	}
	most := c.limit / 8
	if len(p) > most {
		p = p[len(p)-most:]
	}
	if len(c.tail)+len(p) > 2*most {
		c.tail = c.tail[:copy(c.tail, c.tail[len(c.tail)-(most-min(most, len(p))):])]
	}
	c.tail = append(c.tail, p...)
	return n, nil
}

// blob returns what was written.
func (c *collector) blob() *blob {
	tail := c.tail[max(len(c.tail)-c.limit/8, 0):]
	if c.size == int64(len(c.head)+len(tail)) {
		return whole(append(c.head, tail...))
	}
	return &blob{head: c.head, tail: tail, size: c.size}
}

// clip shortens a text to at most n characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func over(what string, limit int) string { return fmt.Sprintf("more than limits.%s (%d)", what, limit) }
