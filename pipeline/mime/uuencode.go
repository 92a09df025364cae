package mime

import (
	"bufio"
	"io"
	"strings"
)

// What a line is to a uuScanner.
type uuLine int

const (
	uuText    uuLine = iota // none of a file's
	uuBegin                 // it may begin a file: the next line says
	uuData                  // data, of full length
	uuShort                 // data whose end was cut off on the way: spaces stand for zeros
	uuEnd                   // the end of a file
	uuDamaged               // the file before ends without an end; the line is text
)

// A uuScanner finds uuencoded files among lines of text.
type uuScanner struct {
	name    string // of the file we are in, or that may begin
	inside  bool
	pending bool // the line before may begin a file
}

// line says what the next line is, without its line end.
func (u *uuScanner) line(s string) uuLine {
	if u.inside {
		if s == "end" || s == "end " {
			u.inside = false
			return uuEnd
		}
		switch expected := uuLength(s); {
		case s == "" || expected == 0:
			return uuData
		case len(s)-1 >= expected && len(s)-1 <= expected+1 && isUU(s): // some writers add a checksum
			return uuData
		case len(s)-1 < expected && expected > 0 && isUU(s):
			return uuShort
		}
		u.inside = false
		return uuDamaged
	}
	if u.pending {
		u.pending = false
		if n := uuLength(s); s != "" && n >= 0 && isUU(s) && (len(s)-1 == n || len(s)-1 == n+1) {
			u.inside = true
			return uuData
		}
	}
	name, ok := uuName(s)
	if !ok {
		return uuText
	}
	u.name, u.pending = name, true
	return uuBegin
}

// uuName reads the line that begins a file.
func uuName(s string) (name string, ok bool) {
	s, ok = strings.CutPrefix(s, "begin ")
	mode, name, space := strings.Cut(strings.TrimLeft(s, " "), " ")
	if !ok || !space || len(mode) < 3 || len(mode) > 4 || strings.Trim(mode, "01234567") != "" {
		return "", false
	}
	name = strings.TrimSpace(name)
	return strings.Trim(name, `"`), name != ""
}

// uuLength returns how many characters follow the first of a line, which says how many octets they are; -1 if none.
func uuLength(s string) int {
	if s == "" || s[0] < ' ' || s[0] > '`' {
		return -1
	}
	return (int(s[0]-' ')&63 + 2) / 3 * 4
}

func isUU(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '`' {
			return false
		}
	}
	return true
}

// uuDecode appends the octets of a line of data.
func uuDecode(dst []byte, s string) []byte {
	n := 0
	if s != "" {
		n = int(s[0]-' ') & 63
		s = s[1:]
	}
	at := func(i int) byte {
		if i < len(s) {
			return (s[i] - ' ') & 63
		}
		return 0
	}
	for i := 0; n > 0; i, n = i+4, n-3 {
		a, b, c, d := at(i), at(i+1), at(i+2), at(i+3)
		group := [3]byte{a<<2 | b>>4, b<<4 | c>>2, c<<6 | d}
		dst = append(dst, group[:min(n, 3)]...)
	}
	return dst
}

// A uuFile is a file found in text.
type uuFile struct {
	name   string
	whole  bool // its end was there
	yEnc   bool // it is in yEnc: only its name is known
	number int  // of the files before it
}

// uuFiles reads text and calls data for each piece of a uuencoded file in it, and done at the end of each file. It
// notices yEnc too.
func uuFiles(r io.Reader, data func(p []byte), done func(uuFile)) error {
	const longest = 4 << 10 // lines of uuencoded files have 61 octets; what is longer is read in pieces and is none
	in := bufio.NewReaderSize(r, longest)
	u := uuScanner{}
	var buf []byte
	n := 0
	finish := func(whole bool) {
		done(uuFile{name: u.name, whole: whole, number: n})
		n++
	}
	for {
		raw, err := in.ReadSlice('\n')
		line := strings.TrimRight(string(raw), "\r\n")
		if len(raw) > 0 {
			switch u.line(line) {
			case uuData, uuShort:
				buf = uuDecode(buf[:0], line)
				data(buf)
			case uuEnd:
				finish(true)
			case uuDamaged:
				finish(false)
			case uuText, uuBegin:
				if name, ok := yEncName(line); ok {
					done(uuFile{name: name, yEnc: true, whole: true, number: n})
				}
			}
		}
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			if u.inside {
				finish(false)
			}
			return nil
		default:
			return err
		}
	}
}

// yEncName reads a line as =ybegin line=128 size=123456 name=mybinary.dat.
func yEncName(s string) (name string, ok bool) {
	if !strings.HasPrefix(s, "=ybegin ") || !strings.Contains(s, " size=") {
		return "", false
	}
	_, name, ok = strings.Cut(s, " name=")
	return strings.TrimSpace(name), ok
}

// withoutUU takes uuencoded files out of a text. Of a file that is not as it should be only lines go that are surely
// none of a text, as nothing may hide behind a line that begins a file.
func withoutUU(s string) string {
	if !strings.Contains(s, "begin ") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	u := uuScanner{}
	held := ""
	for line := range strings.Lines(s) {
		kind := u.line(strings.TrimRight(line, "\r\n"))
		if kind == uuText || kind == uuBegin {
			b.WriteString(held)
		}
		held = ""
		switch kind {
		case uuBegin:
			held = line
		case uuText, uuShort, uuDamaged:
			b.WriteString(line)
		case uuData, uuEnd:
		}
	}
	b.WriteString(held)
	return b.String()
}

// uuReader returns the first uuencoded file in r, which must be read from its beginning each time open is called; if
// there is none, what r has as it stands. whole reports whether the file's end was there, once all has been read.
func uuReader(open func() io.Reader) (r io.Reader, whole func() bool) {
	found := false
	stop := io.ErrUnexpectedEOF
	// A first pass looks whether there is a file at all.
	err := uuFiles(&stopReader{r: open(), stop: &found, err: stop}, func([]byte) { found = true }, func(f uuFile) { found = found || !f.yEnc })
	if !found || err != nil && err != stop {
		return open(), func() bool { return false }
	}
	u := &uuStream{in: bufio.NewReader(open())}
	return u, func() bool { return u.whole }
}

// A stopReader fails once stop is set.
type stopReader struct {
	r    io.Reader
	stop *bool
	err  error
}

func (s *stopReader) Read(p []byte) (int, error) {
	if *s.stop {
		return 0, s.err
	}
	return s.r.Read(p)
}

// A uuStream reads the first file in a text.
type uuStream struct {
	in    *bufio.Reader
	u     uuScanner
	buf   []byte
	over  bool
	whole bool
}

func (s *uuStream) Read(p []byte) (int, error) {
	for len(s.buf) == 0 {
		if s.over {
			return 0, io.EOF
		}
		raw, err := s.in.ReadSlice('\n')
		line := strings.TrimRight(string(raw), "\r\n")
		if len(raw) > 0 {
			switch s.u.line(line) {
			case uuData, uuShort:
				s.buf = uuDecode(s.buf[:0], line)
			case uuEnd:
				s.over, s.whole = true, true
			case uuDamaged:
				s.over = true
			case uuText, uuBegin:
			}
		}
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			s.over = true
		default:
			return 0, err
		}
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}
