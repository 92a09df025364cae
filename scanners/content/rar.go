package content

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

// rar lists a RAR archive by its headers. Nothing is unpacked: its methods are not read.
func (x *inspector) rar(f *finding, b *blob, depth int) {
	l := x.list(f, depth)
	var err error
	if len(b.head) > 7 && b.head[6] == 1 {
		err = rar5(l, b)
	} else {
		err = rar4(l, b)
	}
	if err != nil {
		f.fail("its headers", err)
	}
	if f.archive.Count > 0 {
		f.cut("files in rar are listed, and not looked into")
	}
}

// RAR before version 5 (technote.txt of RAR 4).
const (
	rar4Main, rar4File, rar4End = 0x73, 0x74, 0x7b

	rar4Encrypted = 0x80   // of the main header: the other headers are
	rar4Password  = 0x04   // of a file
	rar4Large     = 0x100  // of a file: sizes have 64 bits
	rar4Unicode   = 0x200  // of a file
	rar4HasData   = 0x8000 // of a block: something follows it
)

func rar4(l *list, b *blob) error {
	for at := int64(7); ; {
		h, err := b.slice(at, 7)
		if err == errBeyond && at == b.size {
			return nil // old ones have no end
		}
		if err != nil {
			return err
		}
		kind, flags, size := h[2], binary.LittleEndian.Uint16(h[3:]), int64(binary.LittleEndian.Uint16(h[5:]))
		if size < 7 {
			return fmt.Errorf("the one at octet %d has a wrong size", at)
		}
		h, err = b.slice(at, size)
		if err != nil {
			return err
		}
		if want := binary.LittleEndian.Uint16(h); kind == rar4File && uint16(crc32.ChecksumIEEE(h[2:])) != want {
			return fmt.Errorf("the one at octet %d has a wrong checksum", at)
		}
		data := int64(0)
		if (flags&rar4HasData != 0 || kind == rar4File) && size >= 11 {
			data = int64(binary.LittleEndian.Uint32(h[7:]))
		}
		switch kind {
		case rar4Main:
			if flags&rar4Encrypted != 0 {
				l.f.encrypted = true
				l.f.feature("encrypted_names")
				l.f.cut("the names in it are encrypted")
				return nil
			}
		case rar4End:
			return nil
		case rar4File:
			if !l.more() {
				return nil
			}
			e, err := rar4Entry(h, flags)
			if err != nil {
				return err
			}
			data = e.packed
			l.add(e, nil)
		}
		if data > b.size-at-size {
			return errBeyond
		}
		at += size + data
	}
}

func rar4Entry(h []byte, flags uint16) (e entry, err error) {
	if len(h) < 32 {
		return e, errBeyond
	}
	e.packed, e.size = int64(binary.LittleEndian.Uint32(h[7:])), int64(binary.LittleEndian.Uint32(h[11:]))
	n, name := int(binary.LittleEndian.Uint16(h[26:])), h[32:]
	if flags&rar4Large != 0 {
		if len(name) < 8 {
			return e, errBeyond
		}
		e.packed |= int64(binary.LittleEndian.Uint32(name)&0x3fffffff) << 32
		e.size |= int64(binary.LittleEndian.Uint32(name[4:])&0x3fffffff) << 32
		name = name[8:]
	}
	if n > len(name) {
		return e, errBeyond
	}
	e.name = cleanName(name[:n]) // the first of two forms is in the charset of the system
	if flags&rar4Unicode != 0 {
		e.name = rar4Name(name[:n])
	}
	e.folder = flags&0xe0 == 0xe0
	e.encrypted = flags&rar4Password != 0
	return e, nil
}

// rar4Name reads a name in its Unicode form: differences to its plain one.
func rar4Name(raw []byte) string {
	i := 0
	for i < len(raw) && raw[i] != 0 {
		i++
	}
	if i+1 >= len(raw) {
		return decodeName(string(raw[:i]))
	}
	plain, p := raw[:i], raw[i+1:]
	high, p := uint16(p[0])<<8, p[1:]
	var out []uint16
	flags, bits := byte(0), 0
	next := func() (c byte, ok bool) {
		if len(p) == 0 {
			return 0, false
		}
		c, p = p[0], p[1:]
		return c, true
	}
	for len(p) > 0 && len(out) < 1024 {
		if bits == 0 {
			flags, _ = next()
			bits = 8
		}
		mode := flags >> 6
		flags, bits = flags<<2, bits-2
		c, ok := next()
		if !ok {
			break
		}
		switch mode {
		case 0:
			out = append(out, uint16(c))
		case 1:
			out = append(out, high|uint16(c))
		case 2:
			d, _ := next()
			out = append(out, uint16(d)<<8|uint16(c))
		case 3:
			add := byte(0)
			if c&0x80 != 0 {
				add, _ = next()
			}
			for n := int(c&0x7f) + 2; n > 0 && len(out) < len(plain); n-- {
				u := uint16(plain[len(out)])
				if c&0x80 != 0 {
					u = high | uint16(byte(u)+add)
				}
				out = append(out, u)
			}
		}
	}
	return strings.TrimRight(string(utf16.Decode(out)), "\x00")
}

// RAR from version 5 on.
const (
	rar5File, rar5Encryption, rar5End = 2, 4, 5

	rar5HasExtra, rar5HasData       = 1, 2
	rar5Folder, rar5HasTime         = 1, 2
	rar5HasCRC                      = 4
	rar5ExtraEncryption             = 1
	rar5LongestHeader         int64 = 2 << 20
)

func rar5(l *list, b *blob) error {
	for at := int64(8); ; {
		h, err := b.slice(at, min(7, max(b.size-at, 0)))
		if err != nil {
			return err
		}
		if len(h) < 7 {
			return errBeyond
		}
		length := vints{p: h[4:]}
		size := int64(length.next())
		begin := at + 4 + int64(len(h)-4-len(length.p))
		if length.bad || size == 0 || size > rar5LongestHeader {
			return fmt.Errorf("the one at octet %d has a wrong size", at)
		}
		checked, err := b.slice(at+4, begin-at-4+size)
		if err != nil {
			return err
		}
		if crc32.ChecksumIEEE(checked) != binary.LittleEndian.Uint32(h) {
			return fmt.Errorf("the one at octet %d has a wrong checksum", at)
		}
		v := vints{p: checked[begin-at-4:]}
		kind, flags := v.next(), v.next()
		extra, data := uint64(0), uint64(0)
		if flags&rar5HasExtra != 0 {
			extra = v.next()
		}
		if flags&rar5HasData != 0 {
			data = v.next()
		}
		if v.bad || extra > uint64(len(v.p)) {
			return errBeyond
		}
		switch kind {
		case rar5Encryption:
			l.f.encrypted = true
			l.f.feature("encrypted_names")
			l.f.cut("the names in it are encrypted")
			return nil
		case rar5End:
			return nil
		case rar5File:
			if !l.more() {
				return nil
			}
			e, err := rar5Entry(v.p[:len(v.p)-int(extra)], v.p[len(v.p)-int(extra):])
			if err != nil {
				return err
			}
			e.packed = int64(min(data, 1<<62))
			l.add(e, nil)
		}
		if data > uint64(b.size) {
			return errBeyond
		}
		at = begin + size + int64(data)
	}
}

func rar5Entry(p, extra []byte) (e entry, err error) {
	v := vints{p: p}
	flags := v.next()
	e.size = int64(min(v.next(), 1<<62))
	v.next() // attributes
	if flags&rar5HasTime != 0 {
		v.skip(4)
	}
	if flags&rar5HasCRC != 0 {
		v.skip(4)
	}
	v.next() // compression
	v.next() // system
	n := v.next()
	if v.bad || n > uint64(len(v.p)) {
		return e, errors.New("that of a file ends too early")
	}
	e.name, e.folder = cleanName(v.p[:n]), flags&rar5Folder != 0
	for v := (vints{p: extra}); len(v.p) > 0 && !v.bad; {
		size := v.next()
		if size > uint64(len(v.p)) {
			break
		}
		record := vints{p: v.p[:size]}
		if record.next() == rar5ExtraEncryption {
			e.encrypted = true
		}
		v.p = v.p[size:]
	}
	return e, nil
}

// vints reads numbers of seven bits an octet, lowest first. Beyond the end they are 0, and bad is set.
type vints struct {
	p   []byte
	bad bool
}

func (v *vints) next() (n uint64) {
	for i := 0; i < len(v.p) && i < 10; i++ {
		n |= uint64(v.p[i]&0x7f) << (7 * i)
		if v.p[i]&0x80 == 0 {
			v.p = v.p[i+1:]
			return n
		}
	}
	v.p, v.bad = nil, true
	return 0
}

func (v *vints) skip(n int) {
	if n > len(v.p) {
		v.p, v.bad = nil, true
		return
	}
	v.p = v.p[n:]
}
