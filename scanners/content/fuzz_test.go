package content

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/pipeline/lookalike"
	"sluice/pipeline/mime"
)

// lookAt looks at a file as the stage does, within small limits, and checks what must hold of any file at all.
func lookAt(t *testing.T, raw []byte, name string) {
	t.Helper()
	l := defaults()
	l.ArchiveFiles, l.Members, l.Unpacked, l.FileSize, l.HTML = 50, 10, 1<<20, 64<<10, 64<<10
	x := &inspector{limits: l, danger: map[string]bool{"exe": true}, reached: reached{}, unpacked: l.Unpacked, files: l.ArchiveFiles, listed: l.Members}
	c := &collector{limit: l.FileSize}
	if _, err := c.Write(raw); err != nil {
		t.Fatal(err)
	}
	f := x.file(mime.Attachment{Name: name, Type: "application/octet-stream", Size: int64(len(raw))}, c.blob())
	if x.unpacked < 0 || x.unpacked > l.Unpacked || len(f.Archive.Members) > l.Members || f.Archive.Count > l.ArchiveFiles || f.Archive.Depth > l.Depth+1 {
		t.Fatalf("over its limits: %d left to unpack, %+v", x.unpacked, f)
	}
	for _, m := range f.Archive.Members {
		if utf8.RuneCountInString(m.Name) > longestName || m.Size < -1 || m.Packed < -1 || m.Depth < 1 {
			t.Fatalf("%+v", m)
		}
	}
	if len(f.Embedded) > mostEmbedded || len(f.AutoExec) > mostAutoExec || utf8.RuneCountInString(f.Incomplete) > longestWhy || utf8.RuneCountInString(f.Damaged) > longestWhy {
		t.Fatalf("%+v", f)
	}
	if _, ok := formats[f.Real]; !ok && f.Real != "" {
		t.Fatalf("a format nobody knows: %q", f.Real)
	}
	if _, err := json.Marshal(f); err != nil {
		t.Fatal(err)
	}
	valid(t, f.Incomplete, f.Damaged)
	for _, e := range f.Embedded {
		valid(t, e)
	}
	for _, m := range f.Archive.Members {
		valid(t, m.Name)
	}
}

func valid(t *testing.T, list ...string) {
	t.Helper()
	for _, s := range list {
		if !utf8.ValidString(s) {
			t.Fatalf("not UTF-8: %q", s)
		}
	}
}

func FuzzZip(f *testing.F) {
	f.Add(zipped(f, zipFile{"a.exe", "MZ"}, zipFile{"b.zip", string(zipped(f, zipFile{"c", "d"}))}))
	f.Add(encryptedZip(f, zipFile{"a.exe", "MZ"}))
	f.Add(docx(f, zipFile{"word/vbaProject.bin", string(compound("", stream{name: "VBA", in: []stream{{name: "A", content: vba("Sub AutoOpen()")}}}))}))
	f.Add(docx(f, zipFile{"word/_rels/a.rels", `<Relationship TargetMode="External" Type="/attachedTemplate"/>`}, zipFile{"word/a.xml", "<w:instrText>DDE</w:instrText>"}))
	f.Add(zipped(f, zipFile{"mimetype", "application/vnd.oasis.opendocument.text"}, zipFile{"META-INF/manifest.xml", "encryption-data"}))
	f.Add(overlapping(f, 3)[:200])
	f.Fuzz(func(t *testing.T, p []byte) {
		lookAt(t, append([]byte(zipLocal), p...), "a.zip")
		lookAt(t, p, "a.zip")
	})
}

func FuzzGzip(f *testing.F) {
	f.Add(gzipped(f, "a", tarred(f, zipFile{"b.exe", "x"})))
	f.Add([]byte("\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x00\x02\x00ab"))
	f.Fuzz(func(t *testing.T, p []byte) { lookAt(t, p, "a.tgz") })
}

func FuzzTar(f *testing.F) {
	f.Add(tarred(f, zipFile{"a/b.exe", "x"}, zipFile{strings.Repeat("long/", 50) + "f", "y"}, zipFile{"c.zip", string(zipped(f, zipFile{"d", "e"}))}))
	f.Fuzz(func(t *testing.T, p []byte) {
		var found finding
		x := &inspector{limits: defaults(), reached: reached{}, unpacked: 1 << 20, files: 50, listed: 10}
		x.tar(&found, whole(p), 1)
		if found.archive.Count > 50 {
			t.Fatalf("%+v", found)
		}
	})
}

func FuzzSevenZip(f *testing.F) {
	f.Add(szArchiveOf(false, "a.exe", "b.txt")[32:], true)
	f.Add(szArchiveOf(true, "a.exe")[32:], true)
	f.Add(szArchiveOf(true, "a.exe"), false)
	f.Fuzz(func(t *testing.T, p []byte, wrap bool) {
		if wrap { // the checksums would keep the fuzzer out
			p = szWrap(nil, p)
		}
		lookAt(t, p, "a.7z")
	})
}

func FuzzRAR(f *testing.F) {
	f.Add(rar4Archive(rar4Unicode, "a.exe", "b\x00\x04\x55\x01\x02\x03"))
	f.Add(rar5Archive(true, false, "a.exe"))
	f.Add(rar5Archive(false, true))
	f.Fuzz(func(t *testing.T, p []byte) {
		lookAt(t, p, "a.rar")
		if e, err := rar4Entry(p, rar4Unicode|rar4Large); err == nil {
			valid(t, e.name)
		}
		if len(p) > 3 {
			if e, err := rar5Entry(p[:len(p)/2], p[len(p)/2:]); err == nil {
				valid(t, e.name)
			}
		}
	})
}

func FuzzCFB(f *testing.F) {
	f.Add(compound(classMSI, stream{name: "VBA", in: []stream{{name: "A", content: vba("Sub AutoOpen()")}}}))
	f.Add(compound("", stream{name: "Workbook", content: []byte("\x09\x08\x02\x00\x00\x06\x85\x00\x06\x00\x00\x00\x00\x00\x00\x01")}, stream{name: oleObject, content: []byte("123456a.exe\x00b")}))
	f.Add(roundCFB())
	f.Fuzz(func(t *testing.T, p []byte) { lookAt(t, p, "a.doc") })
}

func FuzzVBA(f *testing.F) {
	f.Add(vba("Private Sub Document_Open()\r\nEnd Sub"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if out := vbaSource(p); len(out) > 1<<20+4096 {
			t.Fatalf("%d octets", len(out))
		}
		var found finding
		autoMacros(&found, p)
		biff(&found, p)
	})
}

func FuzzPDF(f *testing.F) {
	f.Add([]byte("%PDF-1.5\n7 0 obj << /Type /ObjStm /Filter /FlateDecode >> stream\r\n" + "\x78\x9c\x4b\x4c\x04\x02" + "endstream /J#53 /Encrypt %%EOF"))
	f.Add([]byte(`{\rtf1 {\object\objupdate{\*\objdata 01}}{\field{\*\fldinst DDE}}}`))
	f.Fuzz(func(t *testing.T, p []byte) { lookAt(t, p, "a.pdf") })
}

func FuzzHTML(f *testing.F) {
	f.Add(`<style>.a{display:none}</style><p class=a>x<a href="https://a.example@b.example">c.com</a><table><tr><td bgcolor=#fff><font color=white>y`)
	f.Add(`<svg onload=x><script>y</script></svg><img src=//t.example width=1><form action=//e.example><base href=x><meta http-equiv=refresh content="0;url=y">`)
	f.Add("<A href=http:\xd5>0.BoX")
	f.Fuzz(func(t *testing.T, s string) {
		h := readHTML(s, 64<<10, "a.example", reached{})
		valid(t, h.HiddenSample, h.Base, h.Refresh)
		if utf8.RuneCountInString(h.HiddenSample) > sampleSize || len(h.Mismatches) > mostMismatches || len(h.FormActions) > mostActions {
			t.Fatalf("%+v", h)
		}
		for _, m := range h.Mismatches {
			valid(t, m.Shown, m.Goes)
		}
		valid(t, h.FormActions...)
	})
}

func FuzzNames(f *testing.F) {
	f.Add("p\u0430ypal.com", "The Boss <boss@corp.example>", "invoice.pdf\u202e.exe")
	f.Fuzz(func(t *testing.T, domain, name, file string) {
		own, _ := lookalike.NewDomain("paypal.com")
		var s Sender
		s.lookalike([]ownDomain{{Domain: own}}, domain, "From")
		if a := lookalike.AddressIn(name); a != "" && !strings.Contains(a, "@") {
			t.Fatal(a)
		}
		lookalike.Name(name)
		readName(file, map[string]bool{"exe": true})
		var y tally
		y.read(name)
		sniff([]byte(file))
	})
}
