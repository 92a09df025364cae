package content

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"unicode/utf16"
)

// What the octets of a 7z header mean (7zFormat.txt).
const (
	szEnd, szHeader, szArchive, szStreams, szFiles = 0, 1, 2, 4, 5

	szPackInfo, szUnpackInfo, szSubStreams, szSizes, szCRC = 6, 7, 8, 9, 10
	szFolder, szUnpackSizes, szNumUnpack                   = 11, 12, 13
	szEmptyStream, szEmptyFile, szNames, szEncoded         = 14, 15, 17, 23

	szStart = 32 // octets before everything that is found by its place
)

// sevenZipAES is the method that asks for a password.
const sevenZipAES = "\x06\xf1\x07\x01"

var errSevenZip = errors.New("is not as it should be")

// sevenZip lists a 7z archive by its header.
func (x *inspector) sevenZip(f *finding, b *blob, depth int) {
	l := x.list(f, depth)
	h, err := b.slice(0, szStart)
	if err != nil {
		f.fail("its header", err)
		return
	}
	if crc32.ChecksumIEEE(h[12:32]) != binary.LittleEndian.Uint32(h[8:]) {
		f.broken("its header has a wrong checksum")
	}
	offset, size := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:])
	if size == 0 {
		return // an empty archive
	}
	if offset > 1<<62 || size > 1<<62 {
		f.broken("its header: " + errBeyond.Error())
		return
	}
	if size > szLargest {
		f.cut(szTooLarge)
		return
	}
	p, err := b.slice(szStart+int64(offset), int64(size))
	if err != nil {
		f.fail("its list of files", err)
		return
	}
	if crc32.ChecksumIEEE(p) != binary.LittleEndian.Uint32(h[28:]) {
		f.broken("its list of files has a wrong checksum")
	}
	z := &szReader{p: p}
	id := z.byte()
	for again := 0; id == szEncoded && again < szMostPacked; again++ {
		z.streams()
		if z.bad {
			break
		}
		if p = x.szUnpack(f, b, z); p == nil {
			return
		}
		z = &szReader{p: p}
		id = z.byte()
	}
	switch {
	case id == szHeader:
		z.header(l)
		f.encrypted = f.encrypted || z.aes
		if f.archive.Count > 0 {
			f.cut("files in 7z are listed, and not looked into")
		}
	case id == szEncoded && !z.bad:
		f.cut("the names in it are packed again and again")
	default:
		z.bad = true
	}
	if z.bad {
		f.fail("its list of files", errSevenZip)
	}
}

// szReader reads a header. Beyond the end there are zeros, and bad is set.
type szReader struct {
	p    []byte
	bad  bool
	aes  bool
	pack szPacking
	unit []uint64 // sizes of the unpacked folders
	sums szSums   // which of the folders have checksums
	subs []uint64 // sizes of the files in them, where the header has them
}

func (z *szReader) fail() { z.p, z.bad = nil, true }

func (z *szReader) byte() byte {
	if len(z.p) == 0 {
		z.fail()
		return 0
	}
	c := z.p[0]
	z.p = z.p[1:]
	return c
}

func (z *szReader) take(n uint64) []byte {
	if n > uint64(len(z.p)) {
		z.fail()
		return nil
	}
	p := z.p[:n]
	z.p = z.p[n:]
	return p
}

// number reads a number of one to nine octets.
func (z *szReader) number() uint64 {
	first, mask, n := z.byte(), byte(0x80), uint64(0)
	for i := range 8 {
		if first&mask == 0 {
			return n | uint64(first&(mask-1))<<(8*i)
		}
		n |= uint64(z.byte()) << (8 * i)
		mask >>= 1
	}
	return n
}

// count reads how many things follow: each takes at least so many bits.
func (z *szReader) count() int {
	n := z.number()
	if n > uint64(len(z.p))*8 {
		z.fail()
		return 0
	}
	return int(n)
}

func (z *szReader) header(l *list) {
	for !z.bad {
		switch z.byte() {
		case szEnd:
			return
		case szArchive:
			for !z.bad && z.byte() != szEnd {
				z.take(z.number())
			}
		case szStreams:
			z.streams()
		case szFiles:
			z.files(l)
		default:
			z.fail()
		}
	}
}

// streams reads what is packed how.
func (z *szReader) streams() {
	folders := 0
	for !z.bad {
		switch z.byte() {
		case szEnd:
			return
		case szPackInfo:
			z.pack.at = z.number()
			n := z.count()
			z.pack.streams = n
			for id := z.byte(); id != szEnd && !z.bad; id = z.byte() {
				switch id {
				case szSizes:
					for i := 0; i < n && !z.bad; i++ {
						z.pack.size = z.number()
					}
				case szCRC:
					z.digests(n)
				default:
					z.fail()
				}
			}
		case szUnpackInfo:
			folders = z.unpackInfo()
		case szSubStreams:
			z.subStreams(folders)
		default:
			z.fail()
		}
	}
}

func (z *szReader) unpackInfo() (folders int) {
	if z.byte() != szFolder {
		z.fail()
	}
	folders = z.count()
	if z.byte() != 0 { // the list is elsewhere
		z.fail()
	}
	z.pack.folders = folders
	var outs []int
	for i := 0; i < folders && !z.bad; i++ {
		outs = append(outs, z.folder())
	}
	if z.byte() != szUnpackSizes {
		z.fail()
	}
	for _, n := range outs {
		last := uint64(0)
		for range n {
			last = z.number()
		}
		z.unit = append(z.unit, last)
	}
	if id := z.byte(); id == szCRC {
		z.sums = z.digests(folders)
		id = z.byte()
		if id != szEnd {
			z.fail()
		}
	} else if id != szEnd {
		z.fail()
	}
	return folders
}

// folder reads one chain of methods and returns how many outputs it has.
func (z *szReader) folder() (outs int) {
	const most = 32 // as 7-Zip has it
	coders := z.count()
	if coders == 0 || coders > most {
		z.fail()
	}
	ins := 0
	for i := 0; i < coders && !z.bad; i++ {
		flags := z.byte()
		id := z.take(uint64(flags & 15))
		if string(id) == sevenZipAES {
			z.aes = true
		}
		in, out := 1, 1
		if flags&0x10 != 0 {
			in, out = z.count(), z.count()
		}
		var settings []byte
		if flags&0x20 != 0 {
			settings = z.take(z.number())
		}
		z.pack.coders++
		z.pack.method, z.pack.settings = id, settings
		if in > most || out > most {
			z.fail()
			return 0
		}
		ins, outs = ins+in, outs+out
	}
	for i := 0; i < outs-1 && !z.bad; i++ {
		z.number()
		z.number()
	}
	if packed := ins - (outs - 1); packed > 1 {
		for i := 0; i < packed && !z.bad; i++ {
			z.number()
		}
	}
	return outs
}

// szSums says which things have checksums.
type szSums struct {
	all   bool
	some  []byte // a bit for each
	first []byte // the first of them
}

func (s szSums) has(i int) bool { return s.all || szBit(s.some, i) }

func (z *szReader) digests(n int) (s szSums) {
	defined := n
	if s.all = z.byte() != 0; !s.all {
		s.some = z.take(uint64((n + 7) / 8))
		defined = 0
		for _, c := range s.some {
			defined += bits.OnesCount8(c)
		}
	}
	if p := z.take(uint64(defined) * 4); len(p) > 0 {
		s.first = p[:4]
	}
	return s
}

// szBit returns the bit of the i-th of some things.
func szBit(p []byte, i int) bool { return i/8 < len(p) && p[i/8]&(0x80>>(i%8)) != 0 }

// subStreams reads the sizes of files.
func (z *szReader) subStreams(folders int) {
	streams := make([]int, folders)
	for i := range streams {
		streams[i] = 1
	}
	id := z.byte()
	if id == szNumUnpack {
		for i := range streams {
			streams[i] = int(min(z.number(), 1<<20))
		}
		id = z.byte()
	}
	for i, n := range streams {
		if n == 0 || i >= len(z.unit) {
			continue
		}
		left := z.unit[i]
		for j := 0; j < n-1 && id == szSizes && !z.bad; j++ {
			size := z.number()
			z.subs = append(z.subs, size)
			left -= min(size, left)
		}
		if id == szSizes || n == 1 {
			z.subs = append(z.subs, left)
		}
	}
	if id == szSizes {
		id = z.byte()
	}
	if id == szCRC { // of those that have none yet
		open := 0
		for i, n := range streams {
			if n != 1 || !z.sums.has(i) {
				open += n
			}
		}
		z.digests(open)
		id = z.byte()
	}
	if id != szEnd {
		z.fail()
	}
}

// files reads the names.
func (z *szReader) files(l *list) {
	n := z.count()
	var names, empty, files []byte
	for !z.bad {
		id := z.byte()
		if id == szEnd {
			break
		}
		p := z.take(z.number())
		switch id {
		case szEmptyStream:
			empty = p
		case szEmptyFile:
			files = p
		case szNames:
			if len(p) == 0 || p[0] != 0 { // they are elsewhere
				z.fail()
				return
			}
			names = p[1:]
		}
	}
	sizes, without := z.subs, 0
	for i := 0; i < n && len(names) >= 2; i++ {
		var name string
		if name, names = szName(names); !l.more() {
			return
		}
		e := entry{name: name, size: -1, packed: -1, encrypted: z.aes}
		switch {
		case szBit(empty, i): // a folder, or a file without content
			e.size, e.encrypted, e.folder = 0, false, !szBit(files, without)
			without++
		case len(sizes) > 0:
			e.size, sizes = int64(min(sizes[0], 1<<62)), sizes[1:]
		}
		l.add(e, nil)
	}
}

// szName takes the next name, in UTF-16 up to a NUL.
func szName(p []byte) (name string, rest []byte) {
	var units []uint16
	for len(p) >= 2 {
		u := binary.LittleEndian.Uint16(p)
		p = p[2:]
		if u == 0 {
			break
		}
		if len(units) < 4*longestName {
			units = append(units, u)
		}
	}
	return string(utf16.Decode(units)), p
}
