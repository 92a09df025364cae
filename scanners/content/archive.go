package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// gzip reads what is packed by gzip (RFC 1952): one file, which may be a tar archive.
func (x *inspector) gzip(f *finding, b *blob, ext string, depth int) {
	l := x.list(f, depth)
	name, at, err := gzipHeader(b)
	if err != nil {
		f.fail("its header", err)
		return
	}
	if !l.more() {
		return
	}
	e := entry{name: name, size: -1, packed: b.size - at}
	if tail, err := b.slice(b.size-4, 4); err == nil {
		const mostRatio = 1032 // that deflate can reach: what is more was never its size
		if e.size = int64(binary.LittleEndian.Uint32(tail)); e.size > (e.packed+1)*mostRatio {
			e.size = -1
		}
	}
	l.add(e, func() (io.Reader, error) {
		if !b.isWhole() {
			return io.MultiReader(x.inflate.open(b.head[at:]), failing{errNotHeld}), nil
		}
		return x.inflate.open(b.head[at:]), nil
	})
	// What is left behind is more of the same file to gzip, and a hiding place to others.
	if tar := len(f.archive.Members) > 0 && f.archive.Members[0].Real == "tar"; tar && (ext == "gz" || ext == "tgz") {
		f.archive.Depth = max(f.archive.Depth-1, 1) // two names for one archive
	}
}

// failing is a reader that fails.
type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) { return 0, f.err }

// gzipHeader returns the name in the header, or a made-up one, and where the packed octets begin.
func gzipHeader(b *blob) (name string, at int64, err error) {
	const (
		hasCRC, hasExtra, hasName, hasComment = 2, 4, 8, 16
		longest                               = 4096
	)
	h := b.head[:min(len(b.head), 128<<10)]
	if len(h) < 10 {
		return "", 0, errBeyond
	}
	flags, rest := h[3], h[10:]
	if flags&hasExtra != 0 {
		if len(rest) < 2 || len(rest)-2 < int(binary.LittleEndian.Uint16(rest)) {
			return "", 0, errBeyond
		}
		rest = rest[2+binary.LittleEndian.Uint16(rest):]
	}
	texts := 0
	for _, flag := range []byte{hasName, hasComment} {
		if flags&flag == 0 {
			continue
		}
		i := bytes.IndexByte(rest[:min(len(rest), longest)], 0)
		if i < 0 {
			return "", 0, fmt.Errorf("a text in it has no end within %d octets", longest)
		}
		if flag == hasName {
			name = cleanName(rest[:i])
		}
		texts++
		rest = rest[i+1:]
	}
	if flags&hasCRC != 0 {
		rest = rest[min(2, len(rest)):]
	}
	if name == "" {
		name = "(without a name)"
	}
	return name, int64(len(h) - len(rest)), nil
}

// tarBlock is the size in which tar counts.
const tarBlock = 512

// tar reads a tar archive (POSIX.1-1988, ustar, with the long names of GNU and pax).
func (x *inspector) tar(f *finding, b *blob, depth int) {
	l := x.list(f, depth)
	long := ""
	for at := int64(0); ; {
		h, err := b.slice(at, tarBlock)
		if err != nil {
			if err != errBeyond || at < b.size {
				f.fail("its end", err)
			}
			return
		}
		if bytes.Count(h, []byte{0}) == tarBlock {
			return // its end
		}
		e, kind, err := tarHeader(h)
		if err != nil {
			f.fail("a header at octet "+strconv.FormatInt(at, 10), err)
			return
		}
		at += tarBlock
		if e.size > b.size-at {
			f.broken(clip(e.name, 80) + ": " + errBeyond.Error())
		}
		switch kind {
		case 'L', 'x': // the name of the file that follows
			const longest = 64 << 10
			p, err := b.slice(at, min(e.size, longest, b.size-at))
			if err != nil {
				f.fail("a long name", err)
			}
			if kind == 'x' {
				p = paxPath(p)
			}
			if len(p) > 0 {
				long = cleanName(p)
			}
		case 'g', 'K', 'V':
		default:
			if !l.more() {
				return
			}
			if long != "" {
				e.name, long = long, ""
			}
			e.folder = kind == '5' || strings.HasSuffix(e.name, "/")
			l.add(e, func() (io.Reader, error) {
				p, err := b.slice(at, e.size)
				if err == errNotHeld { // its beginning may be
					p, err = b.slice(at, min(e.size, headSize))
					return io.MultiReader(bytes.NewReader(p), failing{errNotHeld}), err
				}
				return bytes.NewReader(p), err
			})
		}
		if e.size > b.size-at {
			return
		}
		at += (e.size + tarBlock - 1) / tarBlock * tarBlock
	}
}

func tarHeader(h []byte) (e entry, kind byte, err error) {
	sum := int64(0)
	for i, c := range h {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	if want, ok := tarNumber(h[148:156]); !ok || want != sum {
		return e, 0, errors.New("is damaged: its checksum is wrong")
	}
	e.name = cleanName(h[:100])
	if string(h[257:263]) == "ustar\x00" {
		if prefix := cleanName(h[345:500]); prefix != "" {
			e.name = prefix + "/" + e.name
		}
	}
	size, ok := tarNumber(h[124:136])
	if !ok {
		return e, 0, errors.New("is damaged: it has no size")
	}
	e.size, e.packed = size, size
	kind = h[156]
	if kind >= '1' && kind <= '6' { // links, devices, folders
		e.size, e.packed = 0, 0
	}
	return e, kind, nil
}

// tarNumber reads a number in octal, or as GNU writes large ones.
func tarNumber(p []byte) (int64, bool) {
	if p[0]&0x80 != 0 {
		n := int64(0)
		for _, c := range p[max(len(p)-8, 1):] {
			n = n<<8 | int64(c)
		}
		return n, p[0] == 0x80 && n >= 0 && n < 1<<62
	}
	s := strings.Trim(string(p), " \x00")
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(s, 8, 63)
	return n, err == nil && n >= 0
}

// paxPath finds the path in the records of pax: "27 path=a/b\n".
func paxPath(p []byte) []byte {
	for len(p) > 0 {
		space := bytes.IndexByte(p, ' ')
		if space < 0 {
			return nil
		}
		n, err := strconv.Atoi(string(p[:min(space, 10)]))
		if err != nil || n <= space+1 || n > len(p) {
			return nil
		}
		if v, ok := bytes.CutPrefix(p[space+1:n], []byte("path=")); ok {
			return bytes.TrimSuffix(v, []byte("\n"))
		}
		p = p[n:]
	}
	return nil
}
