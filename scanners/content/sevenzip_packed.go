package content

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	szLargest    = 1 << 20 // octets of a list of files, packed or not
	szTooLarge   = "its list of files is larger than 1 MiB"
	szMostPacked = 2 // times that a list may be packed; 7-Zip packs it once

	// szMostChunks bounds how often LZMA2 begins anew, which costs far more than the few octets that ask for it. What fits
	// into szLargest needs 16 of them.
	szMostChunks = 64
)

// szPacking says how a list of files is itself packed.
type szPacking struct {
	streams, folders, coders int
	at, size                 uint64 // behind szStart
	method, settings         []byte // of the last coder
}

// szUnpack returns the list of files that the streams in z describe. nil: f says why not.
func (x *inspector) szUnpack(f *finding, b *blob, z *szReader) []byte {
	const names = "the list of files in it"
	k := z.pack
	if z.aes {
		f.encrypted = true
		f.feature("encrypted_names")
		f.cut("the names in it are encrypted")
		return nil
	}
	if k.streams != 1 || k.folders != 1 || k.coders != 1 || len(z.unit) != 1 {
		f.cut(names + " is packed in several steps")
		return nil
	}
	size := z.unit[0]
	switch {
	case size > szLargest || k.size > szLargest:
		f.cut(szTooLarge)
		return nil
	case size == 0 || k.at > 1<<62:
		f.fail("its list of files", errSevenZip)
		return nil
	case size > k.size*uint64(x.limits.Ratio)+headSize:
		x.reached.add("ratio")
		f.cut(over("ratio", x.limits.Ratio))
		return nil
	case size > uint64(x.unpacked):
		x.reached.add("unpacked")
		f.cut(over("unpacked", x.limits.Unpacked))
		return nil
	}
	packed, err := b.slice(szStart+int64(k.at), int64(k.size))
	if err != nil {
		f.fail("its packed list of files", err)
		return nil
	}
	src, why, err := k.open(packed, size)
	if why != "" {
		f.cut(names + " is packed by " + why)
		return nil
	}
	var p []byte
	if err == nil {
		p, err = x.read(nil, src, int(size))
	}
	if len(p) < int(size) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		f.broken("its packed list of files: " + err.Error())
		return nil
	}
	if sum := z.sums.first; sum != nil && crc32.ChecksumIEEE(p) != binary.LittleEndian.Uint32(sum) {
		f.broken("its packed list of files has a wrong checksum")
	}
	return p
}

// open returns a reader of size octets that the packed ones stand for; why is what they are packed by that we cannot read.
// Memory is bounded by size, whatever dictionary is asked for: nothing can be repeated from before the beginning.
func (k szPacking) open(packed []byte, size uint64) (src io.Reader, why string, err error) {
	dictionary := max(int(size), lzma.MinDictCap)
	switch string(k.method) {
	case "\x00":
		return bytes.NewReader(packed), "", nil
	case "\x03\x01\x01":
		if len(k.settings) != 5 {
			return nil, "", errSevenZip
		}
		// The tables grow by powers of two with lc and lp; no packer exceeds what LZMA2 allows.
		if lc, lp := int(k.settings[0])%9, int(k.settings[0])/9%5; lc+lp > 4 {
			return nil, "LZMA with settings that nobody uses", nil
		}
		// The header of an .lzma file, which the library wants.
		h := binary.LittleEndian.AppendUint32([]byte{k.settings[0]}, uint32(dictionary))
		h = binary.LittleEndian.AppendUint64(h, size)
		src, err = lzma.ReaderConfig{DictCap: dictionary}.NewReader(bytes.NewReader(append(h, packed...)))
		return src, "", err
	case "\x21":
		if n := szChunks(packed); n > szMostChunks {
			return nil, "LZMA2 in too many pieces", nil
		}
		src, err = lzma.Reader2Config{DictCap: dictionary}.NewReader2(bytes.NewReader(packed))
		return src, "", err
	}
	return nil, "another method than LZMA", nil
}

// szChunks counts the pieces that LZMA2 has its stream in, up to one more than szMostChunks.
func szChunks(p []byte) (n int) {
	for n <= szMostChunks && len(p) >= 3 && p[0] != 0 {
		length := 3 + int(binary.BigEndian.Uint16(p[1:])) + 1 // as it is
		if p[0] >= 0x80 {
			if len(p) < 5 {
				break
			}
			length = 5 + int(binary.BigEndian.Uint16(p[3:])) + 1
			if p[0] >= 0xc0 { // with new settings
				length++
			}
		}
		n++
		p = p[min(length, len(p)):]
	}
	return n
}
