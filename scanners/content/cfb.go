package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
)

// Limits of compound files. What real documents have is far below.
const (
	cfbEntries    = 4096    // streams and storages that are looked at
	cfbStreamSize = 1 << 20 // octets of one stream that are looked at
	cfbChain      = 1 << 16 // sectors of one chain
)

// Numbers of sectors that are none (MS-CFB 2.1).
const cfbLast = 0xfffffffa

// A cfbFile is a compound file (MS-CFB): what Word, Excel and Outlook wrote before they wrote zip, and still write inside.
type cfbFile struct {
	b          *blob
	sector     int64
	fat        []uint32
	miniFAT    []uint32
	mini       []byte // the stream in which small streams are
	miniCutoff uint32
	entries    []cfbEntry
	err        error // that kept us from reading all of it
}

// A cfbEntry is a stream or a storage.
type cfbEntry struct {
	name    string
	kind    byte // 1 storage, 2 stream, 5 root
	start   uint32
	size    uint64
	class   []byte
	storage string // the one it is in
	left    uint32
	right   uint32
	child   uint32
}

var errChain = errors.New("a chain of sectors goes round or leads nowhere")

// openCFB reads the directory.
func openCFB(b *blob) (*cfbFile, error) {
	h, err := b.slice(0, 512)
	if err != nil {
		return nil, err
	}
	shift := binary.LittleEndian.Uint16(h[30:])
	if shift != 9 && shift != 12 || binary.LittleEndian.Uint16(h[32:]) != 6 {
		return nil, errors.New("has sectors of an odd size")
	}
	c := &cfbFile{b: b, sector: 1 << shift, miniCutoff: binary.LittleEndian.Uint32(h[56:])}
	if err := c.readFAT(h); err != nil {
		return nil, err
	}
	dir, err := c.chain(binary.LittleEndian.Uint32(h[48:]), cfbEntries*128)
	if err != nil && len(dir) == 0 {
		return nil, err
	}
	c.err = err
	for ; len(dir) >= 128; dir = dir[128:] {
		c.entries = append(c.entries, readCFBEntry(dir[:128]))
	}
	if len(c.entries) == 0 {
		return nil, errBeyond
	}
	c.place(c.entries[0].child, "")
	mini, err := c.chain(binary.LittleEndian.Uint32(h[60:]), 1<<20)
	if err != nil && c.err == nil {
		c.err = err
	}
	for ; len(mini) >= 4; mini = mini[4:] {
		c.miniFAT = append(c.miniFAT, binary.LittleEndian.Uint32(mini))
	}
	if root := c.entries[0]; root.kind == 5 && root.start < cfbLast {
		if c.mini, err = c.chain(root.start, int64(min(root.size, 4<<20))); err != nil && c.err == nil {
			c.err = err
		}
	}
	return c, nil
}

// readFAT reads the table of sectors, by the list in the header and those that follow it.
func (c *cfbFile) readFAT(h []byte) error {
	sectors := (c.b.size + c.sector - 1) / c.sector // more than there are is not needed
	table := h[76:512]
	next := binary.LittleEndian.Uint32(h[68:])
	for range cfbChain {
		for ; len(table) >= 4 && int64(len(c.fat)) < sectors; table = table[4:] {
			s := binary.LittleEndian.Uint32(table)
			if s >= cfbLast {
				continue
			}
			p, err := c.b.slice((int64(s)+1)*c.sector, c.sector)
			if err != nil {
				return err
			}
			for ; len(p) >= 4; p = p[4:] {
				c.fat = append(c.fat, binary.LittleEndian.Uint32(p))
			}
		}
		if next >= cfbLast || int64(len(c.fat)) >= sectors {
			return nil
		}
		p, err := c.b.slice((int64(next)+1)*c.sector, c.sector)
		if err != nil {
			return err
		}
		table, next = p[:len(p)-4], binary.LittleEndian.Uint32(p[len(p)-4:])
	}
	return errChain
}

// chain reads a chain of sectors, at most so many octets of it. What was read before an error is returned with it.
func (c *cfbFile) chain(s uint32, most int64) (out []byte, err error) {
	for n := 0; s < cfbLast && int64(len(out)) < most; n++ {
		if n > len(c.fat) || n > cfbChain {
			return out, errChain
		}
		p, err := c.b.slice((int64(s)+1)*c.sector, c.sector)
		if err == errBeyond { // the last sector need not be whole
			p, err = c.b.slice((int64(s)+1)*c.sector, max(c.b.size-(int64(s)+1)*c.sector, -1))
		}
		if err != nil {
			return out, err
		}
		out = append(out, p...)
		if int64(s) >= int64(len(c.fat)) {
			return out, errChain
		}
		s = c.fat[s]
	}
	return out[:min(int64(len(out)), most)], nil
}

// stream reads at most so many octets of a stream.
func (c *cfbFile) stream(e cfbEntry, most int64) ([]byte, error) {
	most = min(most, int64(min(e.size, 1<<62)))
	if e.size >= uint64(c.miniCutoff) || e.kind == 5 {
		return c.chain(e.start, most)
	}
	const small = 64
	var out []byte
	for s, n := e.start, 0; s < cfbLast && int64(len(out)) < most; n++ {
		at := int64(s) * small
		if n > len(c.miniFAT) || at+small > int64(len(c.mini)) || int64(s) >= int64(len(c.miniFAT)) {
			return out, errChain
		}
		out = append(out, c.mini[at:at+small]...)
		s = c.miniFAT[s]
	}
	return out[:min(int64(len(out)), most)], nil
}

func readCFBEntry(p []byte) (e cfbEntry) {
	n := min(int(binary.LittleEndian.Uint16(p[64:])), 64)
	var units []uint16
	for i := 0; i+1 < n; i += 2 {
		if u := binary.LittleEndian.Uint16(p[i:]); u != 0 {
			units = append(units, u)
		}
	}
	e.name, e.kind = string(utf16.Decode(units)), p[66]
	e.left, e.right, e.child = binary.LittleEndian.Uint32(p[68:]), binary.LittleEndian.Uint32(p[72:]), binary.LittleEndian.Uint32(p[76:])
	e.class = p[80:96]
	e.start, e.size = binary.LittleEndian.Uint32(p[116:]), uint64(binary.LittleEndian.Uint32(p[120:]))
	return e
}

// place works out in which storage each stream is. An entry that two point to is in the first: the tree may go round.
func (c *cfbFile) place(child uint32, storage string) {
	type place struct {
		entry   uint32
		storage string
	}
	seen := make([]bool, len(c.entries))
	for todo := []place{{child, storage}}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if int64(p.entry) >= int64(len(c.entries)) || seen[p.entry] {
			continue
		}
		seen[p.entry] = true
		e := &c.entries[p.entry]
		e.storage = p.storage
		todo = append(todo, place{e.left, p.storage}, place{e.right, p.storage})
		if e.kind == 1 {
			todo = append(todo, place{e.child, e.name})
		}
	}
}

// Classes of root storages.
const (
	classMSI  = "\x84\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"
	classMSP  = "\x86\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"
	classMSG  = "\x0b\x0d\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"
	oleObject = "\x01Ole10Native"
)

// cfb looks at a compound file: what it is, macros, passwords, what is embedded.
func (x *inspector) cfb(f *finding, b *blob) {
	c, err := openCFB(b)
	if err != nil {
		f.fail("its directory", err)
		return
	}
	if c.err != nil {
		f.fail("its streams", c.err)
	}
	switch class := string(c.entries[0].class); class {
	case classMSI, classMSP:
		f.real = "msi"
	case classMSG:
		f.real = "msg"
	}
	if len(c.entries) == cfbEntries {
		f.cut("more than 4096 streams")
	}
	for _, e := range c.entries[1:] {
		if e.kind != 1 && e.kind != 2 {
			continue
		}
		x.cfbEntry(f, c, e)
	}
}

func (x *inspector) cfbEntry(f *finding, c *cfbFile, e cfbEntry) {
	name, inner := strings.ToLower(e.name), e.storage != ""
	office := func(is string) {
		if f.real == "cfb" && !inner {
			f.real = is
		}
	}
	switch name {
	case "worddocument":
		office("doc")
		if p, err := c.stream(e, 16); err == nil && len(p) >= 12 && binary.LittleEndian.Uint16(p[10:])&0x100 != 0 { // MS-DOC 2.5.2: fEncrypted
			f.encrypted = true
		}
	case "workbook", "book":
		office("xls")
		if p, err := c.stream(e, 64<<10); err == nil {
			biff(f, p)
		}
	case "powerpoint document":
		office("ppt")
	case "encryptedsummary", "encryptedpackage": // MS-OFFCRYPTO 2.3.4.4 and 2.3.5.1
		office("encrypted_office")
		f.encrypted = true
	case "__properties_version1.0":
		office("msg")
	case "vba", "_vba_project_cur", "_vba_project", "macros":
		if e.kind == 2 || name != "macros" {
			f.macro = true
		}
	case "objectpool":
		f.feature("ole_object")
	case "equation native":
		f.feature("ole_object")
		f.embed("Equation Native")
	}
	switch {
	case e.kind != 2:
	case e.name == oleObject:
		f.feature("ole_object")
		p, err := c.stream(e, 4096)
		if err != nil {
			f.fail("an embedded object", err)
		}
		x.packaged(f, p)
	case strings.EqualFold(e.storage, "VBA") && name != "dir" && name != "_vba_project":
		p, err := c.stream(e, cfbStreamSize)
		if err != nil {
			f.fail("its macros", err)
		}
		autoMacros(f, vbaSource(p))
	}
}

// biff goes through the first records of a workbook (MS-XLS 2.3).
func biff(f *finding, p []byte) {
	for len(p) >= 4 {
		kind, n := binary.LittleEndian.Uint16(p), int(binary.LittleEndian.Uint16(p[2:]))
		p = p[4:]
		if n > len(p) {
			return
		}
		switch kind {
		case 0x2f: // FilePass
			f.encrypted = true
			return
		case 0x85: // BoundSheet8: a sheet of macros, as Excel 4 had them
			if n >= 6 && p[5] == 1 {
				f.macro = true
				f.feature("xlm")
			}
		case 0x18: // Lbl: a name that is run when the workbook is opened
			if n >= 15 && binary.LittleEndian.Uint16(p)&0x20 != 0 && p[14] <= 2 {
				f.auto("auto_open")
			}
		}
		p = p[n:]
	}
}

// packaged reads the beginning of a file that was put into a document: its label and its path.
func (x *inspector) packaged(f *finding, p []byte) {
	if len(p) < 6 {
		return
	}
	for _, name := range bytes.SplitN(p[6:], []byte{0}, 3)[:1] {
		if len(name) == 0 || len(name) == len(p)-6 {
			continue
		}
		label := decodeName(string(name))
		f.embed(label)
		if readName(label, x.danger).dangerous {
			f.runs = true
		}
	}
}

// vbaSource finds the source in a stream of a VBA project and decompresses it (MS-OVBA 2.4.1), at most 1 MiB of it. The
// source begins with the word Attribute; where it begins is said in another stream, but this is quicker.
func vbaSource(p []byte) []byte {
	const most = 1 << 20
	i := bytes.Index(p, []byte("\x00Attribut\x00e "))
	if i < 3 || p[i-3] != 1 {
		return nil
	}
	p = p[i-2:]
	var out []byte
	for len(p) >= 2 && len(out) < most {
		header := binary.LittleEndian.Uint16(p)
		n := min(int(header&0xfff)+3, len(p))
		if header&0x7000 != 0x3000 {
			return out
		}
		chunk := p[2:max(n, 2)]
		p = p[n:]
		if header&0x8000 == 0 {
			out = append(out, chunk...)
			continue
		}
		out = vbaChunk(out, chunk)
	}
	return out
}

func vbaChunk(out, p []byte) []byte {
	const size = 4096
	begin := len(out)
	for len(p) > 0 && len(out)-begin < size {
		flags := p[0]
		p = p[1:]
		for bit := 0; bit < 8 && len(p) > 0; bit++ {
			if flags>>bit&1 == 0 {
				out = append(out, p[0])
				p = p[1:]
				continue
			}
			if len(p) < 2 || len(out) == begin {
				return out
			}
			token := int(binary.LittleEndian.Uint16(p))
			p = p[2:]
			lengthBits := 12
			for done := len(out) - begin; lengthBits > 4 && 1<<(16-lengthBits) < done; lengthBits-- {
			}
			length, offset := token&(1<<lengthBits-1)+3, token>>lengthBits+1
			if offset > len(out)-begin {
				return out
			}
			for ; length > 0 && len(out)-begin < size; length-- {
				out = append(out, out[len(out)-offset])
			}
		}
	}
	return out
}

// autoNames are macros that run by themselves.
var autoNames = []string{
	"auto_close", "auto_exec", "auto_exit", "auto_new", "auto_open", "autoclose", "autoexec", "autoexit", "autonew", "autoopen",
	"document_beforeclose", "document_close", "document_new", "document_open", "documentopen", "slideshowbegin", "workbook_activate",
	"workbook_beforeclose", "workbook_open", "onslideshowpagechange", "inkpicture1_painted",
}

// autoMacros looks for them in a source.
func autoMacros(f *finding, src []byte) {
	if len(src) == 0 {
		return
	}
	src = bytes.ToLower(src)
	for _, name := range autoNames {
		for at := 0; ; {
			i := bytes.Index(src[at:], []byte(name))
			if i < 0 {
				break
			}
			at += i + len(name)
			before := bytes.TrimRight(src[:at-len(name)], " \t")
			after := bytes.TrimLeft(src[at:], " \t")
			if (bytes.HasSuffix(before, []byte("sub")) || bytes.HasSuffix(before, []byte("function"))) && bytes.HasPrefix(after, []byte("(")) {
				f.auto(name)
				break
			}
		}
	}
}
