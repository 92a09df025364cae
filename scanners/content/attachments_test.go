package content

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// says puts what was found about a file into a line.
func says(f File) string {
	var b []string
	add := func(is bool, word string) {
		if is {
			b = append(b, word)
		}
	}
	b = append(b, f.Real)
	add(f.Executable, "executable")
	add(f.DangerousExtension, "dangerous")
	add(f.DoubleExtension, "double")
	add(f.TypeMismatch, "mismatch")
	add(f.BidiName, "bidi")
	add(f.Macro, "macro")
	add(f.Encrypted, "encrypted")
	add(len(f.AutoExec) > 0, "auto="+strings.Join(f.AutoExec, ","))
	add(len(f.Features) > 0, "features="+strings.Join(f.Features, ","))
	add(len(f.Embedded) > 0, "embedded="+strings.Join(f.Embedded, ","))
	a := f.Archive
	if a.Count > 0 {
		b = append(b, fmt.Sprintf("files=%d size=%d depth=%d", a.Count, a.Size, a.Depth))
	}
	add(a.Executable, "in:executable")
	add(a.DoubleExtension, "in:double")
	add(a.Macro, "in:macro")
	add(f.Damaged != "", "damaged: "+f.Damaged)
	add(f.Incomplete != "", "incomplete: "+f.Incomplete)
	return strings.Join(b, " ")
}

func TestFiles(t *testing.T) {
	const fib = "\xec\xa5\xc1\x00\x00\x00\x00\x00\x00\x00\x00\x01" // encrypted
	autoOpen := vba("Private Sub Document_Open()\r\n  Shell \"calc\"\r\nEnd Sub\r\nSub Document_Opener()\r\nEnd Sub\r\n")
	macros := stream{name: "Macros", in: []stream{{name: "VBA", in: []stream{{name: "dir", content: []byte("x")}, {name: "_VBA_PROJECT", content: []byte("x")}, {name: "ThisDocument", content: autoOpen}}}}}
	pack := make([]byte, 6)
	pack = append(pack, "invoice.exe\x00C:\\invoice.exe\x00"...)
	filePass := append([]byte{0x09, 0x08, 2, 0, 0, 6}, 0x2f, 0, 2, 0, 0, 0)
	xlm := append([]byte{0x09, 0x08, 2, 0, 0, 6}, 0x85, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0)
	autoName := append([]byte{0x18, 0, 15, 0, 0x20, 0}, append(make([]byte, 12), 1)...)
	var objects bytes.Buffer
	z := zlib.NewWriter(&objects)
	fmt.Fprint(z, "1 0 2 30 << /S /JavaScript /JS (app.alert(1)) >> << /F (x) /S /Launch >>")
	z.Close()
	iso := append(make([]byte, 0x8000), "\x01CD001\x01\x00 and so on"...)
	vhd := append(make([]byte, 2048), append([]byte("conectix"), make([]byte, 504)...)...)
	for _, tt := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"setup.exe", pe(), "pe executable dangerous"},
		{"invoice.pdf.exe", pe(), "pe executable dangerous double"},
		{"invoice.pdf                .exe", pe(), "pe executable dangerous double"},
		{"invoice.pdf.exe. .", pe(), "pe executable dangerous double"},
		{"invoice.pdf", pe(), "pe executable mismatch"},
		{"photo_\u202egpj.exe", pe(), "pe executable dangerous bidi"},
		{"photo_\u202egpj.scr", []byte("\x00\x01\x02\x03"), " executable dangerous bidi"},
		{"tool", []byte("\x7fELF\x02\x01\x01"), "elf executable"},
		{"tool", []byte("\xcf\xfa\xed\xfe\x07\x00\x00\x01"), "macho executable"},
		{"a.class", []byte("\xca\xfe\xba\xbe\x00\x00\x00\x41"), "class executable"},
		{"a.sh", []byte("#!/bin/sh\necho hi\n"), "shell executable"},
		{"notes.txt", []byte("MZ is how programs begin, and this text.\n"), "text"},
		{"a.txt.bat", []byte("@echo off\r\ndir\r\n"), "batch executable dangerous double"},
		{"a.lnk", []byte("L\x00\x00\x00\x01\x14\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00F...."), "lnk executable dangerous"},
		{"a.js", []byte("var x = new ActiveXObject('WScript.Shell');\n"), "text executable dangerous"},
		{"a.vbs", []byte("MsgBox 1\n"), "text executable dangerous"},
		{"a.hta", []byte("<html><head><HTA:APPLICATION ID=x></head></html>"), "hta executable dangerous"},
		{"a.wsf", []byte("<job><script language=JScript>1</script></job>"), "wsf executable dangerous"},
		{"a.url", []byte("[InternetShortcut]\r\nURL=file://x/y\r\n"), "url executable dangerous"},
		{"a.chm", []byte("ITSF\x03\x00\x00\x00"), "chm executable dangerous"},
		{"a.one", []byte("\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3"), "onenote executable dangerous"},
		{"a.iso", iso, "iso executable dangerous incomplete: what is in iso is not read"},
		{"a.dat", vhd, "vhd executable incomplete: what is in vhd is not read"},
		{"a.txt", []byte("\xff\xfe@\x00e\x00c\x00h\x00o\x00 \x00o\x00f\x00f\x00"), "batch executable"},
		{"a.png", []byte("\x89PNG\r\n\x1a\n...."), "png"},
		{"a.jpg", []byte("\x89PNG\r\n\x1a\n...."), "png"},
		{"a.zip", []byte("\x89PNG\r\n\x1a\n...."), "png mismatch"},
		{"a.bin", []byte{1, 2, 3, 0}, ""},
		{"empty.txt", nil, ""},
		{"a.pdf.html", []byte("<!doctype html><script>1</script><form action=https://x.example/><input type=password></form>"), "html double features=form,password,script"},
		{"a.svg", []byte("<svg xmlns='x' onload='y()'><script>1</script></svg>"), "svg features=event_handler,script"},
		{"page.html", []byte("<b>hello</b>"), "html"},

		{"a.pdf", []byte("%PDF-1.4\n1 0 obj <</Type /Catalog>>\n%%EOF\n"), "pdf"},
		{"a.pdf", []byte("%PDF-1.4\n<< /Type /Action /S /#4aavaScript >> /OpenAction 3 0 R /EmbeddedFile /Encrypt 5 0 R\n%%EOF"), "pdf encrypted features=embedded_file,javascript,open_action"},
		{"a.pdf", []byte("%PDF-1.4\n<< /JSONX /Launcher /AAAA >>\n%%EOF"), "pdf"},
		{"a.pdf", []byte("%PDF-1.5\n7 0 obj << /Type /ObjStm /N 2 /Filter /FlateDecode >>\nstream\r\n" + objects.String() + "\nendstream\nendobj\n%%EOF"), "pdf features=javascript,launch"},
		{"a.pdf", []byte("%PDF-1.4\n1 0 obj"), "pdf damaged: its end is missing"},

		{"a.doc", compound("", stream{name: "WordDocument", content: []byte("\xec\xa5\xc1\x00")}), "doc"},
		{"a.doc", compound("", stream{name: "WordDocument", content: []byte("\xec\xa5\xc1\x00")}, macros), "doc macro auto=document_open"},
		{"a.doc", compound("", stream{name: "WordDocument", content: []byte(fib)}), "doc encrypted"},
		{"a.xls", compound("", stream{name: "Workbook", content: filePass}), "xls encrypted"},
		{"a.xls", compound("", stream{name: "Workbook", content: append(xlm, autoName...)}), "xls macro auto=auto_open features=xlm"},
		{"a.ppt", compound("", stream{name: "PowerPoint Document", content: []byte("x")}, stream{name: oleObject, content: pack}), "ppt executable features=ole_object embedded=invoice.exe"},
		{"a.docx", compound("", stream{name: "EncryptionInfo", content: []byte("x")}, stream{name: "EncryptedPackage", content: []byte("x")}), "encrypted_office encrypted"},
		{"a.doc", compound("", stream{name: "WordDocument", content: []byte("x")}, stream{name: "ObjectPool", in: []stream{{name: "_1", in: []stream{{name: "Equation Native", content: []byte("x")}}}}}), "doc features=ole_object embedded=Equation Native"},
		{"a.msi", compound(classMSI, stream{name: "x", content: []byte("x")}), "msi executable dangerous"},
		{"a.msg", compound("", stream{name: "__properties_version1.0", content: []byte("x")}), "msg"},
		{"a.doc", compound("", stream{name: "WordDocument", content: []byte("x")})[:700], "cfb damaged: its directory: it ends too early"},

		{"a.docx", docx(t), "docx"},
		{"a.pdf", docx(t), "docx mismatch"},
		{"a.docm", docx(t, zipFile{"word/vbaProject.bin", string(compound("", stream{name: "VBA", in: []stream{{name: "ThisDocument", content: autoOpen}}}))}), "docx macro auto=document_open"},
		{"a.docx", docx(t, zipFile{"word/_rels/settings.xml.rels", `<Relationships><Relationship Id="r" Type="http://x/attachedTemplate" Target="http://evil.example/t.dotm" TargetMode="External"/></Relationships>`}), "docx features=external_template"},
		{"a.docx", docx(t, zipFile{"word/_rels/document.xml.rels", `<r:Relationship Type="http://x/hyperlink" Target="http://a.example/" TargetMode="External"/>`}), "docx"},
		{"a.docx", docx(t, zipFile{"word/_rels/document.xml.rels", `<Relationship Type="http://x/oleObject" Target="http://a.example/" TargetMode="External"/>`}), "docx features=remote_object"},
		{"a.docx", docx(t, zipFile{"word/footer1.xml", `<w:instrText>DDE</w:instrText></w:r><w:r><w:instrText xml:space="preserve">AUTO c:\\x</w:instrText>`}), "docx features=dde"},
		{"a.docx", docx(t, zipFile{"word/embeddings/o.bin", string(compound("", stream{name: oleObject, content: pack}))}), "docx executable features=ole_object embedded=word/embeddings/o.bin,invoice.exe"},
		{"a.xlsm", zipped(t, zipFile{"[Content_Types].xml", "x"}, zipFile{"xl/workbook.xml", "x"}, zipFile{"xl/macrosheets/sheet1.xml", "x"}), "xlsx macro features=xlm"},
		{"a.odt", zipped(t, zipFile{"mimetype", "application/vnd.oasis.opendocument.text"}, zipFile{"Basic/Standard/Module1.xml", "x"}), "odf macro"},
		{"a.odt", zipped(t, zipFile{"mimetype", "application/vnd.oasis.opendocument.text"}, zipFile{"META-INF/manifest.xml", "<manifest:encryption-data/>"}), "odf encrypted"},
		{"a.jar", zipped(t, zipFile{"META-INF/MANIFEST.MF", "x"}, zipFile{"A.class", "x"}), "jar executable dangerous"},
		{"a.rtf", []byte(`{\rtf1 {\object\objemb\objupdate{\*\objdata 0105}} {\field{\*\fldinst DDEAUTO c:\\x}}}`), "rtf features=dde,ole_object,remote_object"},
		{"a.doc", []byte(`{\rtf1 {\*\template http://evil.example/x}}`), "rtf features=external_template"},

		{"a.zip", zipped(t, zipFile{"readme.txt", "hello"}, zipFile{"docs/", ""}, zipFile{"docs/a.pdf.exe", string(pe())}), "zip files=2 size=1029 depth=1 in:executable in:double"},
		{"a.zip", zipped(t, zipFile{"renamed.txt", string(pe())}), "zip files=1 size=1024 depth=1 in:executable"},
		{"a.docx", zipped(t, zipFile{"readme.txt", "hello"}), "zip mismatch files=1 size=5 depth=1"},
		{"a.zip", encryptedZip(t, zipFile{"invoice.js", "xxxx"}), "zip encrypted files=1 size=4 depth=1 in:executable"},
		{"a.zip", zipped(t, zipFile{"a.docm", string(docx(t, zipFile{"word/vbaProject.bin", "x"}))}), "zip files=1 size=633 depth=1 in:macro"},
		{"a.zip", zipped(t, zipFile{"in.zip", string(zipped(t, zipFile{"x.exe", string(pe())}))}), "zip files=2 size=1178 depth=2 in:executable"},
		{"a.zip", zipped(t, zipFile{"readme.txt", "hello"})[:40], "zip files=1 size=0 depth=1 damaged: its list of files: there is none"},
		{"a.bz2", []byte("BZh91AY&SY........"), "bzip2 incomplete: what is in bzip2 is not read"},
		{"a.xz", []byte("\xfd7zXZ\x00...."), "xz incomplete: what is in xz is not read"},
		{"a.txt.gz", gzipped(t, "a.txt", []byte("hello")), "gzip files=1 size=5 depth=1"},
		{"a.gz", gzipped(t, "setup.exe", pe()), "gzip files=1 size=1024 depth=1 in:executable"},
		{"a.gz", gzipped(t, "a.txt", bytes.Repeat([]byte("a"), 9000))[:30], "gzip files=1 size=0 depth=1 damaged: a.txt: unpack: unexpected EOF"},
		{"a.tar", tarred(t, zipFile{"a/readme", "hello"}, zipFile{"a/x.scr", "x"}), "tar files=2 size=6 depth=1 in:executable"},
		{"a.tgz", gzipped(t, "a.tar", tarred(t, zipFile{"a/readme", "hello"}, zipFile{strings.Repeat("long/", 40) + "x.exe", "x"})), "gzip files=3 size=3078 depth=1 in:executable"},
		{"a.tar", tarred(t, zipFile{"readme", "hello"})[:514], "tar files=1 size=5 depth=1 damaged: readme: it ends too early"},
		{"a.rar", rar4Archive(0, "a.exe", "b.txt"), "rar files=2 size=2000 depth=1 in:executable incomplete: files in rar are listed, and not looked into"},
		{"a.rar", rar4Archive(rar4Password, "b.txt"), "rar encrypted files=1 size=1000 depth=1 incomplete: files in rar are listed, and not looked into"},
		{"a.rar", rar5Archive(false, false, "b.pdf.scr", "c.txt"), "rar files=2 size=1554 depth=1 in:executable in:double incomplete: files in rar are listed, and not looked into"},
		{"a.rar", rar5Archive(true, false, "b.pdf"), "rar encrypted files=1 size=777 depth=1 incomplete: files in rar are listed, and not looked into"},
		{"a.rar", rar5Archive(false, true), "rar encrypted features=encrypted_names incomplete: the names in it are encrypted"},
		{"a.rar", rar5Archive(false, false, "b.txt")[:30], "rar damaged: its headers: it ends too early"},
		{"a.7z", szArchiveOf(false, "a.exe", "b.txt"), "7z files=2 size=8 depth=1 in:executable incomplete: files in 7z are listed, and not looked into"},
		{"a.7z", szArchiveOf(true, "a.txt"), "7z encrypted files=1 size=4 depth=1 incomplete: files in 7z are listed, and not looked into"},
		{"a.7z", szWrap(nil, []byte{szEncoded, szPackInfo, 0, 1, szSizes, 4, szEnd, szUnpackInfo, szFolder, 1, 0, 1, 0x24, 6, 0xf1, 7, 1, 1, 0, szUnpackSizes, 4, szEnd, szEnd}), "7z encrypted features=encrypted_names incomplete: the names in it are encrypted"},
		{"a.7z", szWrap(nil, []byte{szEncoded, szPackInfo, 0, 1, szSizes, 4, szEnd, szUnpackInfo, szFolder, 1, 0, 1, 0x23, 3, 1, 1, 1, 0, szUnpackSizes, 4, szEnd, szEnd}), "7z damaged: its packed list of files: is not as it should be"},
		{"a.7z", szArchiveOf(false, "a.exe")[:40], "7z damaged: its list of files: it ends too early"},
	} {
		if got := says(file(t, config(), tt.name, tt.content)); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// What is listed, and how files in files are called.
func TestMembers(t *testing.T) {
	f := file(t, config(), "a.zip", zipped(t, zipFile{"in.zip", string(zipped(t, zipFile{"r\u00e9sum\u00e9.exe", string(pe())}))}, zipFile{"b.txt", "hello"}))
	want := []Member{
		{Name: "in.zip", Real: "zip", Size: 188, Packed: 133, Depth: 1},
		{Name: "in.zip/r\u00e9sum\u00e9.exe", Real: "pe", Size: 1024, Packed: 42, Depth: 2, Executable: true},
		{Name: "b.txt", Real: "text", Size: 5, Packed: 11, Depth: 1},
	}
	for i := range f.Archive.Members { // how well it is packed is the library's business
		if m := &f.Archive.Members[i]; i < len(want) && m.Packed > 0 && m.Size > 0 {
			want[i].Packed = m.Packed
			if m.Real == "zip" {
				want[i].Size = m.Size
			}
		}
	}
	if !slices.Equal(f.Archive.Members, want) {
		t.Errorf("%+v\nwant %+v", f.Archive.Members, want)
	}
}

// A list and what it lists are two truths, of which readers take either.
func TestTwoListsInAZip(t *testing.T) {
	p := zipped(t, zipFile{"harmless.txt", "x"})
	i := bytes.Index(p, []byte("harmless.txt"))
	copy(p[i:], "dangerous.ex")
	if f := file(t, config(), "a.zip", p); !strings.Contains(f.Damaged, "another name") {
		t.Errorf("%+v", f)
	}
	p = zipped(t, zipFile{"a.txt", "x"}, zipFile{"b.txt", "y"})
	end := bytes.LastIndex(p, []byte(zipEnd))
	binary.LittleEndian.PutUint16(p[end+10:], 5)
	if f := file(t, config(), "a.zip", p); f.Damaged != "its list of files: it has fewer files than it says" || f.Archive.Count != 2 {
		t.Errorf("%+v", f)
	}
	// One that unpacks itself has a program before it.
	if f := file(t, config(), "a.exe", append(pe(), zipped(t, zipFile{"b.txt", "y"})...)); f.Real != "pe" || !f.Executable {
		t.Errorf("%+v", f)
	}
}

func TestTypeMismatch(t *testing.T) {
	for _, tt := range []struct {
		name, kind string
		content    []byte
		want       bool
	}{
		{"a.pdf", "application/pdf", []byte("%PDF-1.4 %%EOF"), false},
		{"a", "application/pdf", pe(), true},
		{"a.jpg", "image/jpeg", []byte("<html><script>1</script></html>"), true},
		{"a.txt", "text/plain", []byte("hello"), false},
		{"a.csv", "application/vnd.ms-excel", []byte("a,b\n"), true},
		{"a.csv", "text/csv", []byte("a,b\n"), false},
		{"a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", docx(t), false},
		{"a.docx", "application/msword", docx(t), false},
		{"a.eml", "message/rfc822", []byte("From: a\n\nx"), false},
		{"a.html", "text/html", []byte("<html>"), false},
		{"a.unknown", "application/x-unknown", []byte("\x89PNG\r\n\x1a\n"), false},
		{"a.xls", "application/vnd.ms-excel", []byte("<html><table>"), true},
	} {
		f := check(t, config(), attached(tt.name, tt.kind, tt.content), "").Attachments[0]
		if f.TypeMismatch != tt.want {
			t.Errorf("%s as %s, which is %s: %v", tt.name, tt.kind, f.Real, f.TypeMismatch)
		}
	}
}

// Files in uuencode and in what Outlook sends are looked into like others.
func TestFilesInsideText(t *testing.T) {
	f := check(t, config(), "From: a@example.com\n\nsee\n\nbegin 644 x.exe\n$35J0````\n`\nend\n", "")
	if f.AttachmentCount != 1 || f.Attachments[0].Name != "x.exe" || f.Attachments[0].Size != 4 || !f.Attachments[0].Executable {
		t.Errorf("%+v", f.Attachments)
	}
}

func TestConfiguredExtensions(t *testing.T) {
	c := config()
	c.Extensions = []string{".DAT", "x y"}
	if _, err := newStage(c); err == nil || err.Error() != `extensions: "x y" is none: write for example exe` {
		t.Error(err)
	}
	c.Extensions = []string{".DAT"}
	if f := file(t, c, "a.pdf.dat", []byte{0}); !f.DangerousExtension || !f.DoubleExtension || !f.Executable {
		t.Errorf("%+v", f)
	}
	if f := file(t, c, "a.js", []byte("var x")); f.Executable {
		t.Errorf("%+v", f)
	}
}
