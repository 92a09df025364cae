package content

import (
	"bytes"
	"strings"
)

// How much of the XML of a document is looked at.
const (
	relsSize = 256 << 10
	xmlSize  = 1 << 20
)

// zipDocument looks at a zip archive that is a document or a program. It reports whether it is one: then it is not listed.
func (x *inspector) zipDocument(f *finding, b *blob, entries []zipEntry, shift int64) bool {
	types, manifest, odf, android, epub := false, false, false, false, false
	for i, e := range entries {
		switch e.name {
		case "[Content_Types].xml":
			types = true
		case "META-INF/MANIFEST.MF":
			manifest = true
		case "AndroidManifest.xml":
			android = true
		case "AppxManifest.xml", "AppxMetadata/AppxBundleManifest.xml":
			f.real = "appx"
		case "mimetype":
			if p := x.unpack(f, b, entries[i], shift, 128); strings.HasPrefix(string(p), "application/vnd.oasis.opendocument") {
				odf = true
			} else if string(p) == "application/epub+zip" {
				epub = true
			}
		}
	}
	switch {
	case f.real == "appx":
	case odf:
		f.real = "odf"
		x.openDocument(f, b, entries, shift)
	case types:
		f.real = "ooxml"
		x.ooxml(f, b, entries, shift)
	case android:
		f.real = "apk"
	case manifest:
		f.real = "jar"
	case epub:
		f.real = "epub"
	default:
		return false
	}
	return true
}

// unpack returns the beginning of a file, within what may be unpacked.
func (x *inspector) unpack(f *finding, b *blob, e zipEntry, shift int64, most int) []byte {
	open := x.zipOpener(f, b, e, shift)
	if open == nil || e.encrypted {
		return nil
	}
	src, err := open()
	if err != nil {
		f.fail(e.name, err)
		return nil
	}
	p, err := x.read(nil, src, most)
	switch {
	case err == errEnough && x.unpacked <= 0:
		x.reached.add("unpacked")
		f.cut(over("unpacked", x.limits.Unpacked))
	case err != nil && err != errEnough:
		f.broken(e.name + ": " + err.Error())
	}
	return p
}

// ooxml looks at a document of Word, Excel or PowerPoint (ECMA-376).
func (x *inspector) ooxml(f *finding, b *blob, entries []zipEntry, shift int64) {
	for _, e := range entries {
		name := strings.ToLower(strings.ReplaceAll(e.name, `\`, "/"))
		folder, file := name[:strings.LastIndexByte(name, '/')+1], name[strings.LastIndexByte(name, '/')+1:]
		switch name {
		case "word/document.xml":
			f.real = "docx"
		case "xl/workbook.xml":
			f.real = "xlsx"
		case "xl/workbook.bin":
			f.real = "xlsb"
		case "ppt/presentation.xml":
			f.real = "pptx"
		}
		switch {
		case strings.HasPrefix(file, "vbaproject") && strings.HasSuffix(file, ".bin"), strings.HasPrefix(file, "vbadata"):
			f.macro = true
			if p := x.unpack(f, b, e, shift, 4<<20); sniff(p) == "cfb" {
				in := finding{real: "cfb"}
				x.cfb(&in, whole(p))
				f.take(in)
			}
		case strings.Contains(folder, "/macrosheets/"):
			f.macro = true
			f.feature("xlm")
		case strings.HasSuffix(folder, "_rels/") && strings.HasSuffix(file, ".rels"):
			relations(f, x.unpack(f, b, e, shift, relsSize))
		case strings.Contains(folder, "/embeddings/"):
			f.feature("ole_object")
			f.embed(e.name)
			if p := x.unpack(f, b, e, shift, xmlSize); sniff(p) == "cfb" {
				in := finding{real: "cfb"}
				x.cfb(&in, whole(p))
				in.damaged, in.incomplete = "", "" // its end may not be here
				f.take(in)
			} else if formats[sniff(p)].runs {
				f.runs = true
			}
		case strings.Contains(folder, "/activex/"):
			f.feature("activex")
		case strings.HasPrefix(name, "xl/externallinks/") && strings.HasSuffix(name, ".xml"):
			if bytes.Contains(x.unpack(f, b, e, shift, relsSize), []byte("ddeLink")) {
				f.feature("dde")
			}
		case folder == "word/" && strings.HasSuffix(file, ".xml"):
			if fieldCode(x.unpack(f, b, e, shift, xmlSize)) {
				f.feature("dde")
			}
		case e.encrypted:
			f.encrypted = true
		}
	}
}

// relations looks for what a document fetches from elsewhere (ECMA-376 part 2, 9.3). Links are common; templates, frames
// and objects are not.
func relations(f *finding, p []byte) {
	for _, rel := range bytes.Split(p, []byte("<"))[1:] {
		rel = bytes.ToLower(rel[:min(len(rel), 4096)])
		if !bytes.HasPrefix(bytes.TrimLeft(rel[bytes.IndexByte(rel, ':')+1:], " "), []byte("relationship ")) && !bytes.HasPrefix(rel, []byte("relationship")) {
			continue
		}
		if !bytes.Contains(rel, []byte("external")) {
			continue
		}
		switch {
		case bytes.Contains(rel, []byte("/attachedtemplate")):
			f.feature("external_template")
		case bytes.Contains(rel, []byte("/hyperlink")):
			if bytes.Contains(rel, []byte(`"mhtml:`)) || bytes.Contains(rel, []byte(`"file:`)) {
				f.feature("remote_object")
			}
		case bytes.Contains(rel, []byte("/oleobject")), bytes.Contains(rel, []byte("/frame")), bytes.Contains(rel, []byte("/subdocument")),
			bytes.Contains(rel, []byte("/externallinkpath")) && bytes.Contains(rel, []byte(`"http`)):
			f.feature("remote_object")
		}
	}
}

// fieldCode reports whether a field of a text asks another program (DDE). Its letters may be spread over many elements.
func fieldCode(p []byte) bool {
	if !bytes.Contains(p, []byte("instrText")) && !bytes.Contains(p, []byte("fldSimple")) {
		return false
	}
	var code strings.Builder
	for len(p) > 0 && code.Len() < 64<<10 {
		i := bytes.Index(p, []byte("instrText"))
		if j := bytes.Index(p, []byte("w:instr=\"")); j >= 0 && (i < 0 || j < i) {
			p = p[j+len("w:instr=\""):]
			k := bytes.IndexByte(p, '"')
			if k < 0 {
				break
			}
			code.Write(p[:k])
			code.WriteByte(' ')
			p = p[k:]
			continue
		}
		if i < 0 {
			break
		}
		p = p[i:]
		begin := bytes.IndexByte(p, '>')
		if begin < 0 {
			break
		}
		end := bytes.IndexByte(p[begin:], '<')
		if end < 0 {
			break
		}
		code.Write(p[begin+1 : begin+end])
		p = p[begin+end:]
		p = p[min(len(p), len("</w:instrText")):]
	}
	for _, word := range strings.FieldsFunc(strings.ToLower(code.String()), func(r rune) bool { return r == ' ' || r == '"' || r == '\\' }) {
		if word == "dde" || word == "ddeauto" {
			return true
		}
	}
	return strings.Contains(strings.ToLower(code.String()), "ddeauto")
}

// openDocument looks at a document of LibreOffice (ODF 1.3 part 2).
func (x *inspector) openDocument(f *finding, b *blob, entries []zipEntry, shift int64) {
	for _, e := range entries {
		switch {
		case e.folder:
		case strings.HasPrefix(e.name, "Basic/"), strings.HasPrefix(e.name, "Scripts/"):
			f.macro = true
		case strings.HasPrefix(e.name, "Object ") && strings.Count(e.name, "/") == 0:
			f.feature("ole_object")
			f.embed(e.name)
		case e.name == "META-INF/manifest.xml":
			if bytes.Contains(x.unpack(f, b, e, shift, relsSize), []byte("encryption-data")) {
				f.encrypted = true
			}
		case e.name == "content.xml" && !f.encrypted:
			p := x.unpack(f, b, e, shift, xmlSize)
			if bytes.Contains(p, []byte("script:event-listener")) {
				f.auto("event-listener")
			}
			if bytes.Contains(p, []byte("dde-source")) {
				f.feature("dde")
			}
		}
	}
}
