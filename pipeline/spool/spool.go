// Package spool holds a message while it arrives: in memory at first, then in a file that has no name.
package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sync"
)

// What Options stand for where they are zero.
const (
	DefaultMemory = 1 << 20
	DefaultMax    = 64 << 20
)

// ErrTooLarge says that a message has more octets than Options.Max.
var ErrTooLarge = errors.New("message too large")

// blockSize is the unit of memory: most mail fits into one, and no block is ever copied to make room.
const blockSize = 16 << 10

// Options bound a Spool. The zero Options are the defaults.
type Options struct {
	Memory int64  // octets kept in memory before a file is used, rounded up to 16 KiB; 0 is 1 MiB, less than 0 is none
	Max    int64  // octets of the whole message; 0 is 64 MiB, less than 0 is no limit
	Dir    string // where the file is made; "" is the system's folder for temporary files
	Pool   *Pool  // where memory comes from and goes back to; nil: every message has its own

	open func(dir string) (file, error) // nil is openUnnamed; tests put failing files here
}

// A Pool hands the memory of messages that have been closed to those that come. Its zero value is empty and ready.
type Pool struct{ blocks sync.Pool }

func (p *Pool) take() []byte {
	if p != nil {
		if b, ok := p.blocks.Get().(*[blockSize]byte); ok {
			return b[:0]
		}
	}
	return make([]byte, 0, blockSize)
}

func (p *Pool) put(block []byte) {
	if p != nil {
		p.blocks.Put((*[blockSize]byte)(block[:blockSize]))
	}
}

// A file is what a Spool needs of an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// A Spool is a message that arrives through Write and is read through ReadAt. It belongs to one writer until the last
// Write; then ReadAt, Size and SHA256 may be called by any number of goroutines, also while Close is called. The octets
// exist once: readers share them.
//
// Close must be called; it frees the memory and the file, which has no name from the start and so does not outlive the
// process either.
type Spool struct {
	opts Options

	mu      sync.RWMutex // held for reading by ReadAt, so that Close does not pull a file from under a reader
	blocks  [][]byte     // octets from stored on, each block full but the last
	file    file         // the first stored octets; nil while everything is in memory
	stored  int64
	size    int64
	digest  hash.Hash
	err     error // why nothing can be written any more
	closed  bool
	holds   int    // who still reads after Close
	scratch []byte // a block that went into the file, to use again
}

// New returns an empty Spool. No file is made before it is needed.
func New(o Options) *Spool {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Max == 0 {
		o.Max = DefaultMax
	}
	if o.open == nil {
		o.open = openUnnamed
	}
	return &Spool{opts: o, digest: sha256.New()}
}

// openUnnamed makes a file that only its descriptor leads to.
func openUnnamed(dir string) (file, error) {
	f, err := os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Receive reads a whole message from r. If it has more than Options.Max octets (ErrTooLarge), or cannot be kept because
// a file cannot be made or written, the rest of r is read and thrown away, so that the protocol that r is part of stays
// in step. An error of r is returned as it is, joined to the other if there are two. With an error there is no Spool to
// close.
func Receive(r io.Reader, o Options) (*Spool, error) {
	s := New(o)
	err := s.receive(r)
	if err == nil {
		return s, nil
	}
	s.Close()
	return nil, err
}

func (s *Spool) receive(r io.Reader) error {
	for idle := 0; ; {
		n, err := r.Read(s.room())
		if idle++; n > 0 {
			idle = 0
		}
		if idle > 100 && err == nil {
			return io.ErrNoProgress
		}
		if werr := s.wrote(n); werr != nil {
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err != nil && err != io.EOF {
				return errors.Join(werr, err)
			}
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Write adds p to the message. It takes all of p or fails, and after a failure every further Write fails with the same
// error: ErrTooLarge, or what went wrong with the file. A message that failed cannot be read.
func (s *Spool) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if len(p) > 0 && s.opts.Max >= 0 && s.size+int64(len(p)) > s.opts.Max {
		return 0, s.fail(ErrTooLarge)
	}
	written := 0
	for written < len(p) {
		n := copy(s.room(), p[written:])
		if err := s.wrote(n); err != nil {
			return 0, err
		}
		written += n
	}
	return written, nil
}

// room returns where the next octets go: never nothing.
func (s *Spool) room() []byte {
	if n := len(s.blocks); n > 0 {
		if last := s.blocks[n-1]; len(last) < cap(last) {
			return last[len(last):cap(last)]
		}
	}
	block := s.scratch
	if block == nil {
		block = s.opts.Pool.take()
	}
	s.scratch = nil
	s.blocks = append(s.blocks, block)
	return block[:blockSize]
}

// wrote says that n octets have been put into room.
func (s *Spool) wrote(n int) error {
	if s.err != nil {
		return s.err
	}
	if s.closed {
		return s.fail(os.ErrClosed)
	}
	last := &s.blocks[len(s.blocks)-1]
	added := (*last)[len(*last) : len(*last)+n]
	*last = (*last)[:len(*last)+n]
	s.size += int64(n)
	if s.opts.Max >= 0 && s.size > s.opts.Max {
		return s.fail(ErrTooLarge)
	}
	s.digest.Write(added)
	if s.size <= s.opts.Memory || len(*last) < blockSize {
		return nil
	}
	return s.store()
}

// store moves the blocks, all of which are full, into the file.
func (s *Spool) store() error {
	if s.file == nil {
		f, err := s.opts.open(s.opts.Dir)
		if err != nil {
			return s.fail(fmt.Errorf("make a file for the message: %w", err))
		}
		s.file = f
	}
	for _, b := range s.blocks {
		if _, err := s.file.WriteAt(b, s.stored); err != nil {
			return s.fail(fmt.Errorf("keep the message: %w", err))
		}
		s.stored += int64(len(b))
	}
	s.scratch = s.blocks[0][:0]
	for _, b := range s.blocks[1:] {
		s.opts.Pool.put(b)
	}
	s.blocks = slices.Delete(s.blocks, 0, len(s.blocks))
	return nil
}

// fail ends the message and frees what it held.
func (s *Spool) fail(err error) error {
	s.err = err
	_ = s.free() // the message is lost already
	return err
}

// ReadAt reads octets of the message, as [io.ReaderAt] promises. After Close it fails with os.ErrClosed, after a failed
// Write with that error.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.err != nil:
		return 0, s.err
	case s.closed && s.holds == 0:
		return 0, os.ErrClosed
	case off < 0:
		return 0, fmt.Errorf("read the message at %d: negative offset", off)
	}
	n := 0
	if off < s.stored && len(p) > 0 {
		part := p[:min(int64(len(p)), s.stored-off)]
		m, err := s.file.ReadAt(part, off)
		if n += m; m < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("read the message: %w", err)
		}
	}
	for n < len(p) {
		at := off + int64(n) - s.stored
		i := at / blockSize
		if i >= int64(len(s.blocks)) || at%blockSize >= int64(len(s.blocks[i])) {
			return n, io.EOF
		}
		n += copy(p[n:], s.blocks[i][at%blockSize:])
	}
	return n, nil
}

// Reader returns a reader of the whole message as it is now; each has a position of its own.
func (s *Spool) Reader() *io.SectionReader { return io.NewSectionReader(s, 0, s.Size()) }

// Size returns the number of octets.
func (s *Spool) Size() int64 { return s.size }

// SHA256 returns the hash of the octets in hex; it was computed as they went by.
func (s *Spool) SHA256() string { return hex.EncodeToString(s.digest.Sum(nil)) }

// Close frees memory and file. It waits for calls of ReadAt under way; later ones fail. Size and SHA256 stay. Closing
// twice does nothing. While somebody holds the message it frees nothing: the last one to release it does.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.holds > 0 {
		return nil
	}
	return s.free()
}

// Hold keeps the message readable beyond Close until release is called; calling that twice does nothing. After Close it
// holds nothing, unless somebody else still does.
func (s *Spool) Hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.holds == 0 {
		return func() {}
	}
	s.holds++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holds--; s.holds == 0 && s.closed {
			_ = s.free() // it was only read
		}
	})
}

func (s *Spool) free() error {
	for _, b := range s.blocks {
		s.opts.Pool.put(b)
	}
	if s.scratch != nil {
		s.opts.Pool.put(s.scratch)
	}
	s.blocks, s.scratch, s.stored = nil, nil, 0
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
