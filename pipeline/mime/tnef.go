package mime

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// Attributes and properties of TNEF that matter here (MS-OXTNEF 2.1.3, MS-OXPROPS).
const (
	tnefSignature = 0x223e9f78

	tnefAttachment = 0x00069002 // attAttachRendData: begins a file
	tnefData       = 0x0006800f // attAttachData: its content
	tnefTitle      = 0x00018010 // attAttachTitle: its short name
	tnefProperties = 0x00069005 // attAttachment: its properties
	tnefCodepage   = 0x00069007 // attOemCodepage

	mapiFilename     = 0x3704
	mapiLongFilename = 0x3707
	mapiMIMETag      = 0x370e
	mapiData         = 0x3701
)

// A tnefReader lists the files in Outlook's envelope, usually called winmail.dat.
type tnefReader struct {
	in       *bufio.Reader
	most     int // files
	codepage string
	files    []Attachment
	short    string // name of the file we are in
	long     string
	found    bool // its content has been

	to     func(i int) io.Writer // where content goes that is not to be hashed
	before int                   // files of the message before these
}

// sink returns one for the file we are in.
func (t *tnefReader) sink() *sink { return newSink(t.to, t.before+len(t.files)-1) }

var (
	errNotTNEF   = errors.New("it is not TNEF")
	errManyFiles = errors.New("too many files")
)

// read reads all of it. What was found before an error stays.
func (t *tnefReader) read() error {
	var head [6]byte // signature and a key
	if _, err := io.ReadFull(t.in, head[:]); err != nil || binary.LittleEndian.Uint32(head[:]) != tnefSignature {
		return errNotTNEF
	}
	for {
		var attr [9]byte // level, id, length
		switch _, err := io.ReadFull(t.in, attr[:]); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("attribute: %w", err)
		}
		level, id, length := attr[0], binary.LittleEndian.Uint32(attr[1:]), int64(binary.LittleEndian.Uint32(attr[5:]))
		if level != 1 && level != 2 {
			return fmt.Errorf("attribute of level %d", level)
		}
		if err := t.attribute(id, length); err != nil {
			return err
		}
		if _, err := t.in.Discard(2); err != nil { // the checksum
			return fmt.Errorf("attribute %#x: %w", id, err)
		}
	}
}

func (t *tnefReader) attribute(id uint32, length int64) error {
	const mostProperties = 2 << 20 // octets of properties that are looked at; a file's content may be among them
	switch id {
	case tnefAttachment:
		if len(t.files) == t.most {
			return errManyFiles
		}
		t.files = append(t.files, Attachment{Type: "application/octet-stream"})
		t.short, t.long, t.found = "", "", false
		return t.skip(length)
	case tnefData:
		if len(t.files) == 0 || t.found { // of two contents the first counts
			return t.skip(length)
		}
		s := t.sink()
		_, err := io.CopyN(s, t.in, length)
		f := &t.files[len(t.files)-1]
		f.Size, f.SHA256, t.found = s.n, s.sum(), true
		if err != nil {
			return fmt.Errorf("data of %q: %w", f.Name, io.ErrUnexpectedEOF)
		}
		return nil
	case tnefTitle, tnefProperties, tnefCodepage:
		raw, err := io.ReadAll(io.LimitReader(t.in, min(length, mostProperties)))
		if err == nil {
			err = t.skip(length - int64(len(raw)))
		}
		if len(t.files) > 0 && id != tnefCodepage {
			f := &t.files[len(t.files)-1]
			if id == tnefTitle {
				t.short = t.text(raw)
			} else {
				t.properties(raw, f)
			}
			if f.Name = t.long; t.long == "" {
				f.Name = t.short
			}
		}
		if id == tnefCodepage && len(raw) >= 4 {
			t.codepage = fmt.Sprintf("cp%d", binary.LittleEndian.Uint32(raw))
		}
		return err
	}
	return t.skip(length)
}

func (t *tnefReader) skip(n int64) error {
	if _, err := io.CopyN(io.Discard, t.in, n); err != nil {
		return fmt.Errorf("attribute: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

// text converts a string of 8-bit characters, which ends at the first NUL.
func (t *tnefReader) text(raw []byte) string {
	s, _, _ := strings.Cut(string(raw), "\x00")
	return toUTF8(t.codepage, []byte(s)).text
}

func (t *tnefReader) utf16(raw []byte) string {
	units := make([]uint16, 0, len(raw)/2)
	for ; len(raw) >= 2 && binary.LittleEndian.Uint16(raw) != 0; raw = raw[2:] {
		units = append(units, binary.LittleEndian.Uint16(raw))
	}
	return string(utf16.Decode(units))
}

// properties reads a list of MAPI properties (MS-OXTNEF 2.1.3.4) as far as it is understood.
func (t *tnefReader) properties(raw []byte, f *Attachment) {
	p := props{raw: raw}
	for n := p.uint32(); n > 0 && !p.over; n-- {
		kind, id := p.uint16(), p.uint16()
		if id >= 0x8000 { // a named property
			p.next(16)
			if p.uint32() == 0 {
				p.next(4)
			} else {
				p.next(padded(p.uint32()))
			}
		}
		values := uint32(1)
		switch kind {
		case 0x0d, 0x1e, 0x1f, 0x102: // strings and the like always have a count
			values = p.uint32()
		default:
			if kind&0x1000 != 0 {
				values = p.uint32()
			}
		}
		for ; values > 0 && !p.over; values-- {
			value, ok := p.value(kind &^ 0x1000)
			if !ok {
				return
			}
			if id == mapiData && !t.found {
				if kind == 0x0d { // an object has the name of its interface before it
					value = value[min(len(value), 16):]
				}
				s := t.sink()
				if _, err := s.Write(value); err != nil {
					return
				}
				f.Size, f.SHA256, t.found = s.n, s.sum(), true
				continue
			}
			var text string
			switch kind {
			case 0x1e:
				text = t.text(value)
			case 0x1f:
				text = t.utf16(value)
			}
			switch {
			case text == "":
			case id == mapiLongFilename:
				t.long = text
			case id == mapiFilename && t.short == "":
				t.short = text
			case id == mapiMIMETag:
				f.Type = strings.ToLower(text)
			}
		}
	}
}

// props reads the octets of MAPI properties. Beyond the end there are zeros, and over is set.
type props struct {
	raw  []byte
	over bool
}

func (p *props) next(n uint32) []byte {
	if uint64(n) > uint64(len(p.raw)) {
		p.raw, p.over = nil, true
		return nil
	}
	b := p.raw[:n]
	p.raw = p.raw[n:]
	return b
}

func (p *props) uint16() uint16 {
	if b := p.next(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (p *props) uint32() uint32 {
	if b := p.next(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func padded(n uint32) uint32 {
	if n > 1<<30 {
		return n
	}
	return (n + 3) &^ 3
}

// value reads one value of a type.
func (p *props) value(kind uint16) (v []byte, ok bool) {
	switch kind {
	case 0x02, 0x03, 0x04, 0x0a, 0x0b:
		return p.next(4), !p.over
	case 0x05, 0x06, 0x07, 0x14, 0x40:
		return p.next(8), !p.over
	case 0x48:
		return p.next(16), !p.over
	case 0x0d, 0x1e, 0x1f, 0x102:
		n := p.uint32()
		v = p.next(padded(n))
		return v[:min(int(n), len(v))], !p.over
	}
	return nil, false
}
