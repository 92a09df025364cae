package content

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math"
	"strings"
)

// How much of a file in an archive is unpacked to see what it is.
const headSize = 4 << 10

// An entry is a file in an archive as the archive describes it.
type entry struct {
	name      string
	size      int64 // -1: the archive does not say
	packed    int64 // -1: not known
	folder    bool
	encrypted bool
}

// An inflater is a decompressor that is used again.
type inflater struct{ r io.ReadCloser }

// open returns a reader of what deflated octets stand for.
func (i *inflater) open(p []byte) io.Reader {
	src := bytes.NewReader(p)
	if i.r == nil {
		i.r = flate.NewReader(src)
		return i.r
	}
	if err := i.r.(flate.Resetter).Reset(src, nil); err != nil {
		i.r = flate.NewReader(src)
	}
	return i.r
}

// A list is one archive while it is read.
type list struct {
	x     *inspector
	f     *finding
	depth int
}

// list begins an archive.
func (x *inspector) list(f *finding, depth int) *list {
	f.archive.Depth = depth
	return &list{x: x, f: f, depth: depth}
}

// more reports whether another file may be looked at.
func (l *list) more() bool {
	if l.x.files > 0 {
		l.x.files--
		return true
	}
	l.x.reached.add("archive_files")
	l.f.cut(over("archive_files", l.x.limits.ArchiveFiles))
	return false
}

// add notes one file. With open, which returns its content unpacked, that is looked at too.
func (l *list) add(e entry, open func() (io.Reader, error)) {
	if e.folder {
		return
	}
	a := &l.f.archive
	a.Count++
	a.grow(int(max(e.size, 0)))
	n := readName(e.name, l.x.danger)
	m := Member{
		Name: clip(e.name, longestName), Size: int(e.size), Packed: int(e.packed), Depth: l.depth, Encrypted: e.encrypted,
		Executable: n.dangerous, DoubleExtension: n.double,
	}
	if e.encrypted {
		l.f.encrypted = true
	}
	at := l.place(m)
	if !e.encrypted && open != nil {
		in := l.content(e, n.ext, open)
		m.Real, m.Macro = in.real, in.macro
		m.Executable = m.Executable || in.runs || formats[in.real].runs
		m.Encrypted = in.encrypted
		l.inner(e, in)
	}
	a.Executable = a.Executable || m.Executable
	a.DoubleExtension = a.DoubleExtension || m.DoubleExtension
	a.Macro = a.Macro || m.Macro
	if at >= 0 {
		a.Members[at] = m
	}
}

// grow adds to what is inside: archives may state anything.
func (a *Archive) grow(n int) {
	if a.Size += n; a.Size < 0 {
		a.Size = math.MaxInt
	}
}

// place makes room in the list and returns where; -1: there is none.
func (l *list) place(m Member) int {
	a := &l.f.archive
	if l.x.listed == 0 {
		l.x.reached.add("members")
		return -1
	}
	l.x.listed--
	a.Members = append(a.Members, m)
	return len(a.Members) - 1
}

// inner takes over what was found in a file that is itself an archive or a document.
func (l *list) inner(e entry, in finding) {
	a := &l.f.archive
	a.Executable = a.Executable || in.archive.Executable
	a.DoubleExtension = a.DoubleExtension || in.archive.DoubleExtension
	a.Macro = a.Macro || in.archive.Macro
	a.Depth = max(a.Depth, in.archive.Depth)
	a.Count += in.archive.Count
	a.grow(in.archive.Size)
	for _, m := range in.archive.Members { // they have their places already
		m.Name = clip(e.name+"/"+m.Name, longestName)
		a.Members = append(a.Members, m)
	}
	l.f.encrypted = l.f.encrypted || in.encrypted
	for _, x := range in.features {
		l.f.feature(x)
	}
	for _, x := range in.autoexec {
		l.f.auto(x)
	}
	if in.incomplete != "" {
		l.f.cut(e.name + ": " + in.incomplete)
	}
	if in.damaged != "" {
		l.f.broken(e.name + ": " + in.damaged)
	}
}

// content unpacks a file as far as is needed and allowed, and looks at it.
func (l *list) content(e entry, ext string, open func() (io.Reader, error)) (f finding) {
	x := l.x
	if x.unpacked <= 0 {
		x.reached.add("unpacked")
		f.cut(over("unpacked", x.limits.Unpacked))
		return f
	}
	src, err := open()
	if err != nil {
		f.fail("unpack", err)
		return f
	}
	head, err := x.read(make([]byte, 0, headSize), src, headSize)
	if err == errEnough {
		err = nil
	}
	f.real = sniff(head)
	if x.unpacked > 0 && len(head) == headSize && !looksInto(f.real, ext) {
		return f
	}
	if len(head) < headSize || err != nil { // that is all of it
		if err != nil {
			f.broken("unpack: " + err.Error())
		}
		if looksInto(f.real, ext) {
			return l.nested(whole(head), ext, f)
		}
		return f
	}
	if isArchive(f.real) && l.depth >= x.limits.Depth {
		return l.nested(whole(head), ext, f)
	}
	most := x.limits.FileSize
	if e.packed >= 0 && e.packed < int64(most)/int64(x.limits.Ratio) {
		most = min(most, int(e.packed)*x.limits.Ratio+headSize)
	}
	body, err := x.read(head, src, most)
	switch {
	case err == errEnough && x.unpacked <= 0:
		x.reached.add("unpacked")
		f.cut(over("unpacked", x.limits.Unpacked))
	case err == errEnough && most < x.limits.FileSize:
		x.reached.add("ratio")
		f.cut(over("ratio", x.limits.Ratio))
	case err == errEnough:
		x.reached.add("file_size")
		f.cut(over("file_size", x.limits.FileSize))
	case err != nil:
		f.broken("unpack: " + err.Error())
	}
	return l.nested(whole(body), ext, f)
}

// nested looks into a file of which f is known already.
func (l *list) nested(b *blob, ext string, f finding) finding {
	x := l.x
	if isArchive(f.real) && l.depth >= x.limits.Depth {
		x.reached.add("depth")
		f.cut(over("depth", x.limits.Depth))
		f.archive.Depth = l.depth + 1
		return f
	}
	in := x.look(b, ext, l.depth+1)
	if f.incomplete != "" { // that it is damaged then may only be because its end is not here
		in.damaged, in.incomplete = "", f.incomplete
	}
	if f.damaged != "" {
		in.damaged = f.damaged
	}
	return in
}

var errEnough = errors.New("there is more")

// read appends to dst what src has, up to most octets in all and to what may still be unpacked; errEnough: there is more.
func (x *inspector) read(dst []byte, src io.Reader, most int) ([]byte, error) {
	for {
		room := min(most-len(dst), x.unpacked, 32<<10)
		if room <= 0 {
			return dst, errEnough
		}
		if cap(dst)-len(dst) < room {
			grown := make([]byte, len(dst), min(max(2*cap(dst), len(dst)+room), most))
			copy(grown, dst)
			dst = grown
		}
		n, err := src.Read(dst[len(dst) : len(dst)+room])
		dst = dst[:len(dst)+n]
		x.unpacked -= n
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// isArchive reports whether a format holds files.
func isArchive(is string) bool { return formats[is].family == familyArchive }

// looksInto reports whether more of a file has to be seen than its beginning.
func looksInto(is, ext string) bool {
	switch is {
	case "cfb", "rtf", "pdf", "html", "svg", "hta":
		return true
	case "text":
		return pageExtensions[ext]
	case "":
		return ext == "iso" || ext == "img"
	}
	return isArchive(is)
}

// cleanName makes a name in an archive fit to be shown; it is not used to make files.
func cleanName(raw []byte) string {
	s := string(raw)
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return decodeName(s)
}
