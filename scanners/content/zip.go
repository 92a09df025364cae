package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// A zipEntry is a file in a zip archive (APPNOTE 6.3.10, 4.3.12).
type zipEntry struct {
	entry
	method uint16
	local  int64 // where its local header is
	raw    []byte
}

const (
	zipLocal   = "PK\x03\x04"
	zipCentral = "PK\x01\x02"
	zipEnd     = "PK\x05\x06"
	zipEnd64   = "PK\x06\x06"
	zipLoc64   = "PK\x06\x07"

	zipStored, zipDeflated, zipAES = 0, 8, 99
)

// zip reads a zip archive by its central directory, or where that is damaged by its local headers.
func (x *inspector) zip(f *finding, b *blob, depth int) {
	l := x.list(f, depth)
	entries, shift, err := readCentral(l, b)
	if err != nil {
		f.fail("its list of files", err)
		if len(entries) == 0 {
			entries, shift = readLocals(l, b), 0
		}
	}
	if err == nil && overlap(entries, b.size) {
		f.broken("its files overlap")
	}
	if x.zipDocument(f, b, entries, shift) {
		f.archive = Archive{}
		return
	}
	for _, e := range entries {
		l.add(e.entry, x.zipOpener(f, b, e, shift))
	}
}

// zipOpener returns what opens a file; nil where its method is not known.
func (x *inspector) zipOpener(f *finding, b *blob, e zipEntry, shift int64) func() (io.Reader, error) {
	if e.method != zipStored && e.method != zipDeflated {
		if !e.encrypted && !e.folder {
			f.cut(e.name + ": is packed by a method that is not read")
		}
		return nil
	}
	return func() (io.Reader, error) {
		p, err := e.data(b, shift)
		if err != nil {
			return nil, err
		}
		if e.method == zipStored {
			return bytes.NewReader(p), nil
		}
		return x.inflate.open(p), nil
	}
}

// data returns the packed content of a file.
func (e *zipEntry) data(b *blob, shift int64) ([]byte, error) {
	const size = 30
	h, err := b.slice(e.local+shift, size)
	if err != nil {
		return nil, err
	}
	if string(h[:4]) != zipLocal {
		return nil, errors.New("there is no file where the list says")
	}
	name, extra := int64(binary.LittleEndian.Uint16(h[26:])), int64(binary.LittleEndian.Uint16(h[28:]))
	local, err := b.slice(e.local+shift+size, name)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(local, e.raw) {
		return nil, errors.New("it has another name in the list than where it stands")
	}
	return b.slice(e.local+shift+size+name+extra, e.packed)
}

// readCentral reads the central directory. What was read before an error stays. shift is how far everything is behind
// where the archive says, as in one that unpacks itself.
func readCentral(l *list, b *blob) (entries []zipEntry, shift int64, err error) {
	const longest = 65535 + 22 // the end with the longest comment
	p, at := b.end(longest)
	i := bytes.LastIndex(p, []byte(zipEnd))
	for i >= 0 && len(p)-i < 22 {
		i = bytes.LastIndex(p[:i], []byte(zipEnd))
	}
	if i < 0 {
		return nil, 0, errors.New("there is none")
	}
	end := p[i:]
	count, size, offset := int64(binary.LittleEndian.Uint16(end[10:])), int64(binary.LittleEndian.Uint32(end[12:])), int64(binary.LittleEndian.Uint32(end[16:]))
	stop := at + int64(i)
	if count == 0xffff || size == 0xffffffff || offset == 0xffffffff {
		if loc, err := b.slice(stop-20, 20); err == nil && string(loc[:4]) == zipLoc64 {
			if e, err := b.slice(int64(min(binary.LittleEndian.Uint64(loc[8:]), 1<<62)), 56); err == nil && string(e[:4]) == zipEnd64 {
				count = int64(min(binary.LittleEndian.Uint64(e[32:]), 1<<62))
				size = int64(min(binary.LittleEndian.Uint64(e[40:]), 1<<62))
				offset = int64(min(binary.LittleEndian.Uint64(e[48:]), 1<<62))
				stop = int64(min(binary.LittleEndian.Uint64(loc[8:]), 1<<62))
			}
		}
	}
	if size > stop {
		return nil, 0, errors.New("it is longer than the archive")
	}
	begin := offset
	if sig, err := b.slice(begin, 4); err != nil || string(sig) != zipCentral && count > 0 {
		begin = stop - size
	}
	shift = begin - offset
	n := int64(0)
	for at := begin; ; n++ {
		h, err := b.slice(at, 46)
		if n == count || err == nil && string(h[:4]) != zipCentral || err == errBeyond {
			break
		}
		if err != nil {
			return entries, shift, err
		}
		if !l.more() {
			return entries, shift, nil
		}
		e, next, err := centralEntry(b, at, h)
		if err != nil {
			return entries, shift, err
		}
		entries = append(entries, e)
		at = next
	}
	if n != count {
		return entries, shift, errors.New("it has fewer files than it says")
	}
	return entries, shift, nil
}

// centralEntry reads one entry of the central directory (4.3.12) and returns where the next is.
func centralEntry(b *blob, at int64, h []byte) (e zipEntry, next int64, err error) {
	flags := binary.LittleEndian.Uint16(h[8:])
	e.method = binary.LittleEndian.Uint16(h[10:])
	e.packed, e.size = int64(binary.LittleEndian.Uint32(h[20:])), int64(binary.LittleEndian.Uint32(h[24:]))
	name, extra, comment := int64(binary.LittleEndian.Uint16(h[28:])), int64(binary.LittleEndian.Uint16(h[30:])), int64(binary.LittleEndian.Uint16(h[32:]))
	e.local = int64(binary.LittleEndian.Uint32(h[42:]))
	rest, err := b.slice(at+46, name+extra)
	if err != nil {
		return e, 0, err
	}
	e.raw = rest[:name]
	e.describe(flags)
	e.wide(rest[name:])
	return e, at + 46 + name + extra + comment, nil
}

// describe fills in what name and flags say.
func (e *zipEntry) describe(flags uint16) {
	e.name = cleanName(e.raw)
	e.folder = strings.HasSuffix(e.name, "/") && e.size == 0
	e.encrypted = flags&1 != 0 || e.method == zipAES
}

// wide takes sizes of 64 bits from the extra field (4.5.3).
func (e *zipEntry) wide(extra []byte) {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return
		}
		if id == 1 {
			field := extra[:n]
			for _, v := range []*int64{&e.size, &e.packed, &e.local} {
				if *v == 0xffffffff && len(field) >= 8 {
					*v = int64(min(binary.LittleEndian.Uint64(field), 1<<62))
					field = field[8:]
				}
			}
		}
		extra = extra[n:]
	}
}

// readLocals finds files by their local headers (4.3.7), where there is no list of them.
func readLocals(l *list, b *blob) (entries []zipEntry) {
	p := b.head
	for at := 0; ; {
		i := bytes.Index(p[at:], []byte(zipLocal))
		if i < 0 || at+i+30 > len(p) {
			return entries
		}
		at += i
		h := p[at:]
		name, extra := int(binary.LittleEndian.Uint16(h[26:])), int(binary.LittleEndian.Uint16(h[28:]))
		if 30+name+extra > len(h) || name == 0 {
			at += 4
			continue
		}
		if !l.more() {
			return entries
		}
		e := zipEntry{method: binary.LittleEndian.Uint16(h[8:]), local: int64(at), raw: h[30 : 30+name]}
		e.packed, e.size = int64(binary.LittleEndian.Uint32(h[18:])), int64(binary.LittleEndian.Uint32(h[22:]))
		flags := binary.LittleEndian.Uint16(h[6:])
		e.describe(flags)
		e.wide(h[30+name : 30+name+extra])
		at += 30 + name + extra
		if flags&8 != 0 && e.packed == 0 { // its size stands behind it: up to the next signature
			j := bytes.Index(p[at:], []byte("PK"))
			if j < 0 {
				j = len(p) - at
			}
			e.packed, e.size = int64(j), -1
		}
		if e.packed <= int64(len(p)-at) {
			at += int(e.packed)
		} else {
			e.packed = int64(len(p) - at)
		}
		entries = append(entries, e)
	}
}

// overlap reports whether files share octets, by which a small archive pretends to hold much.
func overlap(entries []zipEntry, size int64) bool {
	type span struct{ from, to int64 }
	spans := make([]span, 0, len(entries))
	for _, e := range entries {
		if e.packed > size {
			continue // it is damaged, which is found out when it is opened
		}
		spans = append(spans, span{e.local, e.local + 30 + int64(len(e.raw)) + e.packed})
	}
	slices.SortFunc(spans, func(a, b span) int {
		switch {
		case a.from < b.from:
			return -1
		case a.from > b.from:
			return 1
		}
		return 0
	})
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return true
		}
	}
	return false
}

// decodeName converts the name of a file: UTF-8 if it is, else in the charset of old PCs.
func decodeName(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out, err := charmap.CodePage437.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return out
}
