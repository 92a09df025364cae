package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"
	"syscall"

	"sluice/mailstore"
)

// block is how much of a large message is converted at a time. Messages up to this size are converted as a whole.
const block = 64 << 10

// Content opens a message.
func (f *folder) Content(ctx context.Context, uid uint32) (mailstore.Content, error) {
	again := false
	for range retries {
		path, disk, wire, err := f.lookUp(ctx, uid, again)
		if err != nil {
			return nil, err
		}
		// Nothing is locked while the file is read.
		file, err := openRegular(path)
		if errors.Is(err, fs.ErrNotExist) {
			again = true // it has been given another name, or removed
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", uid, err)
		}
		c, err := newContent(file, disk, wire)
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("message %d: %w", uid, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("message %d: %w: other programs keep renaming it", uid, mailstore.ErrNoMessage)
}

// lookUp returns where a message lies, and its sizes. It looks at the tree only if it does not know the message, or
// again says that what it knew was wrong.
func (f *folder) lookUp(ctx context.Context, uid uint32, again bool) (path string, disk, wire int64, err error) {
	f.box().shape.RLock()
	defer f.box().shape.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone.Load():
		err = mailstore.ErrNoFolder
	case again:
		err = f.resync(ctx)
	case !f.loaded || f.find(uid) == nil:
		err = f.sync(ctx)
	default:
		err = ctx.Err()
	}
	if err != nil {
		return "", 0, 0, f.wrap(err)
	}
	m := f.find(uid)
	if m == nil {
		return "", 0, 0, f.wrap(fmt.Errorf("message %d: %w", uid, mailstore.ErrNoMessage))
	}
	return f.path(m), m.Disk, m.Size, nil
}

// retries is how often a file is looked for under another name.
const retries = 5

// openRegular opens a file that is no link, pipe or directory.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// A content is an open message.
type content struct {
	io.ReaderAt
	io.Closer
	size int64

	mu  sync.Mutex
	pos int64 // of Read
}

func (c *content) Size() int64 { return c.size }

func (c *content) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.ReadAt(p, c.pos)
	c.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

// newContent makes a file that the index knows to have so many octets readable with CRLF line ends. It takes the file
// over unless it fails.
func newContent(f *os.File, disk, wire int64) (*content, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() <= block {
		p := make([]byte, st.Size())
		n, err := io.ReadFull(f, p)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
		_ = f.Close()
		p = p[:n]
		if bare := bareLF(p, false); bare > 0 {
			p = appendCRLF(make([]byte, 0, n+bare), p, false)
		}
		return &content{ReaderAt: bytesAt(p), Closer: noCloser{}, size: int64(len(p))}, nil
	}
	if st.Size() != disk {
		// It is not what it was when the index saw it.
		disk = st.Size()
		if wire, err = wireSize(io.NewSectionReader(f, 0, disk)); err != nil {
			return nil, err
		}
	}
	if disk == wire {
		return &content{ReaderAt: io.NewSectionReader(f, 0, disk), Closer: f, size: wire}, nil
	}
	w := &wireFile{f: f, disk: disk, size: wire, marks: []mark{{}}, loaded: -1}
	return &content{ReaderAt: w, Closer: f, size: wire}, nil
}

// bytesAt reads from memory.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// A wireFile reads a large file with LF line ends as if it had CRLF. It learns where the blocks of the file begin as far
// as it has been read, and keeps the last one converted.
type wireFile struct {
	f    *os.File
	disk int64
	size int64

	mu     sync.Mutex
	marks  []mark // where each block begins, as far as is known
	loaded int    // which block data holds
	data   []byte // with CRLF
	raw    []byte
}

type mark struct {
	wire    int64
	afterCR bool
}

func (w *wireFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for n < len(p) {
		if off >= w.size {
			return n, io.EOF
		}
		if err := w.seek(off); err != nil {
			return n, err
		}
		k := copy(p[n:min(len(p), n+int(min(w.size-off, int64(len(p)))))], w.data[off-w.marks[w.loaded].wire:])
		n += k
		off += int64(k)
	}
	return n, nil
}

// seek loads the block that holds the octet at off.
func (w *wireFile) seek(off int64) error {
	if w.loaded >= 0 {
		if start := w.marks[w.loaded].wire; off >= start && off < start+int64(len(w.data)) {
			return nil
		}
	}
	i := sort.Search(len(w.marks), func(i int) bool { return w.marks[i].wire > off }) - 1
	for {
		if err := w.load(i); err != nil {
			return err
		}
		if off < w.marks[i].wire+int64(len(w.data)) {
			return nil
		}
		i++
	}
}

func (w *wireFile) load(i int) error {
	start := int64(i) * block
	if start >= w.disk {
		return io.ErrUnexpectedEOF // its size was not what it said
	}
	if w.raw == nil {
		w.raw = make([]byte, block)
		w.data = make([]byte, 0, block+block/32)
	}
	raw := w.raw[:min(block, w.disk-start)]
	w.loaded = -1
	if _, err := w.f.ReadAt(raw, start); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	w.data = appendCRLF(w.data[:0], raw, w.marks[i].afterCR)
	w.loaded = i
	if i+1 == len(w.marks) {
		w.marks = append(w.marks, mark{w.marks[i].wire + int64(len(w.data)), raw[len(raw)-1] == '\r'})
	}
	return nil
}
