package content

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/pipeline/pipelinetest"
)

// check runs the stage over a mail.
func check(t testing.TB, c Config, text string, from string, rcpts ...string) Fact {
	t.Helper()
	s, err := newStage(c)
	if err != nil {
		t.Fatal(err)
	}
	v := pipeline.View{Message: pipelinetest.Parse(t, text)}
	v.Received, v.Sender = pipelinetest.Epoch, pipelinetest.Address(t, from)
	for _, r := range rcpts {
		v.Recipients = append(v.Recipients, pipeline.Recipient{Address: pipelinetest.Address(t, r)})
	}
	r, err := s.Check(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return r.Fact.(Fact)
}

func config() Config { return *Kind().Config().(*Config) }

// attached is a mail with one attachment.
func attached(name, kind string, content []byte) string {
	var b strings.Builder
	b.WriteString("From: a@example.com\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nsee the file\n--b\nContent-Type: " + kind +
		"\nContent-Disposition: attachment; filename*=utf-8''" + percent(name) + "\nContent-Transfer-Encoding: base64\n\n")
	enc := base64.StdEncoding.EncodeToString(content)
	for ; len(enc) > 76; enc = enc[76:] {
		b.WriteString(enc[:76] + "\n")
	}
	b.WriteString(enc + "\n--b--\n")
	return b.String()
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		const hex = "0123456789ABCDEF"
		b.WriteString("%" + string(hex[s[i]>>4]) + string(hex[s[i]&15]))
	}
	return b.String()
}

// file is what is found about one attachment.
func file(t testing.TB, c Config, name string, content []byte) File {
	t.Helper()
	f := check(t, c, attached(name, "application/octet-stream", content), "")
	if len(f.Attachments) != 1 {
		t.Fatalf("%d attachments", len(f.Attachments))
	}
	return f.Attachments[0]
}

// A zipFile is one to be packed.
type zipFile struct {
	name    string
	content string
}

func zipped(t testing.TB, files ...zipFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		e, err := w.Create(f.name)
		if err == nil {
			_, err = io.WriteString(e, f.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// encryptedZip is one whose files ask for a password, as the flags say.
func encryptedZip(t testing.TB, files ...zipFile) []byte {
	p := zipped(t, files...)
	for _, x := range []struct {
		sig string
		at  int
	}{{zipLocal, 6}, {zipCentral, 8}} {
		for i := 0; ; {
			j := bytes.Index(p[i:], []byte(x.sig))
			if j < 0 {
				break
			}
			p[i+j+x.at] |= 1
			i += j + 4
		}
	}
	return p
}

func gzipped(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t testing.TB, files ...zipFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rar4Archive is an archive of RAR 4 with headers as technote.txt has them; its files hold nothing that could be unpacked.
func rar4Archive(flags uint16, names ...string) []byte {
	b := []byte("Rar!\x1a\x07\x00")
	block := func(kind byte, flags uint16, body []byte, data []byte) {
		h := []byte{kind}
		h = binary.LittleEndian.AppendUint16(h, flags)
		h = binary.LittleEndian.AppendUint16(h, uint16(7+len(body)))
		h = append(h, body...)
		b = binary.LittleEndian.AppendUint16(b, uint16(crc32.ChecksumIEEE(h)))
		b = append(append(b, h...), data...)
	}
	block(rar4Main, 0, make([]byte, 6), nil)
	for _, n := range names {
		body := binary.LittleEndian.AppendUint32(nil, 5)       // packed
		body = binary.LittleEndian.AppendUint32(body, 1000)    // unpacked
		body = append(body, 2, 0, 0, 0, 0, 0, 0, 0, 0, 29, 48) // system, CRC, time, version, method
		body = binary.LittleEndian.AppendUint16(body, uint16(len(n)))
		body = append(append(body, 0, 0, 0, 0), n...)
		block(rar4File, flags|rar4HasData, body, []byte("xxxxx"))
	}
	block(rar4End, 0x4000, nil, nil)
	return b
}

func vint(n uint64) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// rar5Archive is an archive of RAR 5.
func rar5Archive(encrypted, names bool, files ...string) []byte {
	b := []byte("Rar!\x1a\x07\x01\x00")
	block := func(fields ...[]byte) {
		body := bytes.Join(fields, nil)
		h := append(vint(uint64(len(body))), body...)
		b = append(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(h)), h...)
	}
	if names {
		block(vint(rar5Encryption), vint(0), vint(0), vint(0), []byte{15}, make([]byte, 16))
	}
	block(vint(1), vint(0), vint(0))
	for _, n := range files {
		var extra []byte
		if encrypted {
			record := append(vint(rar5ExtraEncryption), make([]byte, 35)...)
			extra = append(vint(uint64(len(record))), record...)
		}
		block(vint(rar5File), vint(rar5HasExtra|rar5HasData), vint(uint64(len(extra))), vint(3), vint(0), vint(777), vint(0), vint(0), vint(0),
			vint(uint64(len(n))), []byte(n), extra)
		b = append(b, "xyz"...)
	}
	block(vint(rar5End), vint(0), vint(0))
	return b
}

// szArchiveOf is a 7z archive whose list is not packed: copied files, or with a password.
func szArchiveOf(encrypted bool, names ...string) []byte {
	id := []byte{0x01, 0x00} // copy
	if encrypted {
		id = append([]byte{0x24}, sevenZipAES...)
		id = append(id, 1, 0) // properties
	}
	h := []byte{szHeader, szStreams, szPackInfo, 0, 1, szSizes, byte(4 * len(names)), szEnd,
		szUnpackInfo, szFolder, 1, 0, 1}
	h = append(append(h, id...), szUnpackSizes, byte(4*len(names)), szEnd)
	h = append(h, szSubStreams, szNumUnpack, byte(len(names)), szSizes)
	for range len(names) - 1 {
		h = append(h, 4)
	}
	h = append(h, szEnd, szEnd, szFiles, byte(len(names)), szNames)
	list := []byte{0}
	for _, n := range names {
		for _, u := range utf16.Encode([]rune(n + "\x00")) {
			list = binary.LittleEndian.AppendUint16(list, u)
		}
	}
	h = append(h, 0x80|byte(len(list)>>8), byte(len(list)))
	h = append(append(h, list...), szEnd, szEnd)
	return szWrap(make([]byte, 4*len(names)), h)
}

// szWrap puts the header behind what is packed.
func szWrap(packed, header []byte) []byte {
	start := binary.LittleEndian.AppendUint64(nil, uint64(len(packed)))
	start = binary.LittleEndian.AppendUint64(start, uint64(len(header)))
	start = binary.LittleEndian.AppendUint32(start, crc32.ChecksumIEEE(header))
	b := append([]byte("7z\xbc\xaf\x27\x1c\x00\x04"), binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(start))...)
	return append(append(append(b, start...), packed...), header...)
}

// A stream is one of a compound file; a storage has no content but streams in it.
type stream struct {
	name    string
	content []byte
	in      []stream
}

// compound is a compound file with sectors of 512 octets. All streams are made large enough to have sectors of their own.
func compound(class string, streams ...stream) []byte {
	const sector = 512
	type item struct {
		stream
		left, right, child uint32
	}
	none := uint32(0xffffffff)
	items := []item{{stream: stream{name: "Root Entry", in: streams}, left: none, right: none, child: none}}
	for i := 0; i < len(items); i++ {
		last := none
		for _, s := range items[i].in {
			items = append(items, item{stream: s, left: none, right: last, child: none})
			last = uint32(len(items) - 1)
		}
		items[i].child = last
	}
	dirSectors := (len(items)*128 + sector - 1) / sector
	next := 1 + dirSectors // the first is the FAT
	fat := make([]uint32, sector/4)
	for i := range fat {
		fat[i] = none
	}
	fat[0] = 0xfffffffd
	for i := 1; i <= dirSectors; i++ {
		fat[i] = uint32(i + 1)
	}
	fat[dirSectors] = 0xfffffffe
	var dir, data []byte
	for i, it := range items {
		e := make([]byte, 128)
		units := utf16.Encode([]rune(it.name))
		for j, u := range units {
			binary.LittleEndian.PutUint16(e[2*j:], u)
		}
		binary.LittleEndian.PutUint16(e[64:], uint16(2*len(units)+2))
		e[66] = 2
		if len(it.in) > 0 {
			e[66] = 1
		}
		if i == 0 {
			e[66] = 5
			copy(e[80:], class)
		}
		for j, v := range []uint32{it.left, it.right, it.child} {
			binary.LittleEndian.PutUint32(e[68+4*j:], v)
		}
		binary.LittleEndian.PutUint32(e[116:], 0xfffffffe)
		if it.content != nil {
			n := max((len(it.content)+sector-1)/sector, 8)
			binary.LittleEndian.PutUint32(e[116:], uint32(next))
			binary.LittleEndian.PutUint32(e[120:], uint32(n*sector))
			for j := range n {
				fat[next+j] = uint32(next + j + 1)
			}
			fat[next+n-1] = 0xfffffffe
			next += n
			data = append(data, append(it.content, make([]byte, n*sector-len(it.content))...)...)
		}
		dir = append(dir, e...)
	}
	dir = append(dir, make([]byte, dirSectors*sector-len(dir))...)
	h := make([]byte, sector)
	copy(h, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
	binary.LittleEndian.PutUint16(h[26:], 3)
	binary.LittleEndian.PutUint16(h[28:], 0xfffe)
	binary.LittleEndian.PutUint16(h[30:], 9)
	binary.LittleEndian.PutUint16(h[32:], 6)
	binary.LittleEndian.PutUint32(h[44:], 1)
	binary.LittleEndian.PutUint32(h[48:], 1)
	binary.LittleEndian.PutUint32(h[56:], 4096)
	binary.LittleEndian.PutUint32(h[60:], 0xfffffffe)
	binary.LittleEndian.PutUint32(h[68:], 0xfffffffe)
	for i := 80; i < sector; i += 4 {
		binary.LittleEndian.PutUint32(h[i:], none)
	}
	table := make([]byte, sector)
	for i, v := range fat {
		binary.LittleEndian.PutUint32(table[4*i:], v)
	}
	return bytes.Join([][]byte{h, table, dir, data}, nil)
}

// vba is a module with a source, compressed as MS-OVBA has it: literal octets only, but for one reference back.
func vba(source string) []byte {
	source = "Attribute VB_Name = \"ThisDocument\"\r\n" + source
	var chunk []byte
	for i := 0; i < len(source); i += 8 {
		chunk = append(append(chunk, 0), source[i:min(i+8, len(source))]...)
	}
	// A real compressor writes "Attribut" as eight letters, and then a flag.
	b := binary.LittleEndian.AppendUint16([]byte("junk before the source\x01"), uint16(len(chunk)-1)|0xb000)
	return append(b, chunk...)
}

const wordXML = `<w:document xmlns:w="x"><w:body><w:p><w:r><w:t>hello</w:t></w:r></w:p></w:body></w:document>`

func docx(t testing.TB, more ...zipFile) []byte {
	return zipped(t, append([]zipFile{{"[Content_Types].xml", "<Types/>"}, {"_rels/.rels", "<Relationships/>"}, {"word/document.xml", wordXML}}, more...)...)
}

// pe is the beginning of a program for Windows.
func pe() []byte {
	p := make([]byte, 1024)
	copy(p, "MZ\x90\x00\x03")
	binary.LittleEndian.PutUint32(p[0x3c:], 0x80)
	copy(p[0x80:], "PE\x00\x00")
	return p
}

func parse(t testing.TB, raw []byte) *mime.Message {
	t.Helper()
	m, err := mime.Parse(bytes.NewReader(raw), int64(len(raw)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
