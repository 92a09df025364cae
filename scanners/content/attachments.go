package content

import (
	"io"
	"slices"

	"sluice/pipeline/mime"
)

// How much of what can be repeated is kept of one file.
const (
	mostEmbedded = 20
	mostAutoExec = 20
	longestWhy   = 200 // characters
)

// A finding is what the content of a file says.
type finding struct {
	real       string
	macro      bool
	encrypted  bool
	autoexec   []string
	features   []string
	embedded   []string
	incomplete string
	damaged    string
	archive    Archive
	runs       bool // there is a program among what is embedded
}

// feature notes something about the file once.
func (f *finding) feature(name string) {
	if !slices.Contains(f.features, name) {
		f.features = append(f.features, name)
	}
}

func (f *finding) auto(name string) {
	if len(f.autoexec) < mostAutoExec && !slices.Contains(f.autoexec, name) {
		f.autoexec = append(f.autoexec, name)
	}
}

func (f *finding) embed(name string) {
	if len(f.embedded) < mostEmbedded {
		f.embedded = append(f.embedded, clip(name, longestName))
	}
}

// cut says why the file was not looked into further; the first reason stays.
func (f *finding) cut(why string) {
	if f.incomplete == "" {
		f.incomplete = clip(why, longestWhy)
	}
}

// broken says what is wrong with the file; the first thing stays.
func (f *finding) broken(what string) {
	if f.damaged == "" {
		f.damaged = clip(what, longestWhy)
	}
}

// fail notes an error of reading a blob.
func (f *finding) fail(what string, err error) {
	switch err {
	case errNotHeld:
		f.cut(err.Error())
	default:
		f.broken(what + ": " + err.Error())
	}
}

// take adds what was found in a part of the document.
func (f *finding) take(in finding) {
	f.macro = f.macro || in.macro
	f.runs = f.runs || in.runs
	f.encrypted = f.encrypted || in.encrypted
	for _, a := range in.autoexec {
		f.auto(a)
	}
	for _, x := range in.features {
		f.feature(x)
	}
	for _, e := range in.embedded {
		f.embed(e)
	}
	if in.incomplete != "" {
		f.cut(in.incomplete)
	}
	if in.damaged != "" {
		f.broken(in.damaged)
	}
}

// An inspector looks into the files of one mail, within what is left of the limits.
type inspector struct {
	limits   Limits
	danger   map[string]bool
	reached  reached
	unpacked int // octets that may still be unpacked
	files    int // files in archives that may still be looked at
	listed   int // files in archives that may still be listed
	inflate  inflater
}

// attachments looks into the files of a mail.
func (s *stage) attachments(m *mime.Message, r reached) (list []File, count int) {
	all := m.Attachments()
	if len(all) == 0 {
		return nil, 0
	}
	x := &inspector{
		limits: s.limits, danger: s.danger, reached: r,
		unpacked: s.limits.Unpacked, files: s.limits.ArchiveFiles, listed: s.limits.Members,
	}
	if len(all) > s.limits.Attachments {
		r.add("attachments")
	}
	list = make([]File, min(len(all), s.limits.Attachments))
	c := &collector{head: s.buffers.take(), limit: s.limits.FileSize}
	current := -1
	finish := func() {
		if current >= 0 {
			b := c.blob()
			list[current] = x.file(all[current], b)
			if current == len(list)-1 || cap(b.head) > largestKept {
				s.buffers.put(b.head)
				c.head = nil
			} else {
				c.head = b.head[:0]
			}
			c.tail, c.size = c.tail[:0], 0
		}
		current = -1
	}
	m.CopyAttachments(func(i int) io.Writer {
		finish()
		if i >= len(list) {
			return nil
		}
		if need := min(int(min(all[i].Size, int64(c.limit))), c.limit); cap(c.head) < need {
			s.buffers.put(c.head)
			c.head = make([]byte, 0, need)
		}
		current = i
		return c
	})
	finish()
	for i := range list {
		if all[i].SHA256 == "" { // it was not offered
			list[i] = x.file(all[i], nil)
		}
	}
	return list, len(all)
}

// file makes the fact of one file. Without a blob only its name is known.
func (x *inspector) file(a mime.Attachment, b *blob) File {
	n := readName(a.Name, x.danger)
	var f finding
	if b == nil {
		f.cut("the files of the mail are too much content to be looked into")
		x.reached.add("content")
	} else {
		f = x.look(b, n.ext, 1)
	}
	return File{
		Name: clip(a.Name, longestName), Extension: n.ext, Type: clip(a.Type, longestName),
		Real: f.real, Size: int(a.Size), SHA256: a.SHA256,
		Executable:         n.dangerous || f.runs || formats[f.real].runs,
		DangerousExtension: n.dangerous, DoubleExtension: n.double, BidiName: n.bidi,
		TypeMismatch: mismatch(n.ext, a.Type, f),
		Macro:        f.macro, AutoExec: f.autoexec, Encrypted: f.encrypted, Features: sorted(f.features), Embedded: f.embedded,
		Archive: f.archive, Incomplete: f.incomplete, Damaged: f.damaged,
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// look finds out what a file is and what is in it. depth is how many archives it would be in each other if it is one.
func (x *inspector) look(b *blob, ext string, depth int) (f finding) {
	f.real = sniff(b.head)
	if f.real == "" || f.real == "text" {
		if end := sniffEnd(b); end != "" {
			f.real = end
		}
	}
	switch f.real {
	case "text":
		x.text(&f, b, ext)
	case "zip":
		x.zip(&f, b, depth)
	case "gzip":
		x.gzip(&f, b, ext, depth)
	case "tar":
		x.tar(&f, b, depth)
	case "7z":
		x.sevenZip(&f, b, depth)
	case "rar":
		x.rar(&f, b, depth)
	case "bzip2", "xz", "zstd", "lz4", "lzip", "compress", "cab", "ace", "arj", "lzh", "wim":
		f.archive.Depth = depth
		f.cut("what is in " + f.real + " is not read")
	case "iso", "udf", "vhd", "vhdx", "dmg":
		f.cut("what is in " + f.real + " is not read")
	case "cfb":
		x.cfb(&f, b)
	case "rtf":
		x.rtf(&f, b)
	case "pdf":
		x.pdf(&f, b)
	case "html", "svg", "hta":
		x.page(&f, b)
	}
	if f.incomplete != "" && !b.isWhole() {
		x.reached.add("file_size")
	}
	return f
}

// text tells texts apart by what their name says they are.
func (x *inspector) text(f *finding, b *blob, ext string) {
	switch ext {
	case "htm", "html", "shtml", "xhtml", "hta", "svg": // a piece of HTML without the words that begin a page
		x.page(f, b)
		if f.real = "html"; ext == "svg" {
			f.real = "svg"
		}
	case "ps1", "psm1":
		f.real = "powershell"
	case "eml", "mht", "mhtml":
		f.real = "eml"
	}
}

// page looks at HTML in a file.
func (x *inspector) page(f *finding, b *blob) {
	src := b.head
	if narrowed, ok := narrow(src[:min(len(src), 2*x.limits.HTML)]); ok {
		src = narrowed
	}
	if len(src) > x.limits.HTML || !b.isWhole() {
		x.reached.add("html")
		src = src[:min(len(src), x.limits.HTML)]
		f.cut(over("html", x.limits.HTML))
	}
	h := readHTML(string(src), x.limits.HTML, "", x.reached)
	for name, is := range map[string]bool{
		"script": h.Script || h.SVGScript, "event_handler": h.EventHandlers > 0, "form": h.Form, "password": h.Password,
		"refresh": h.Refresh != "", "link_mismatch": h.LinkMismatch, "data_html": h.DataHTML,
	} {
		if is {
			f.feature(name)
		}
	}
}
