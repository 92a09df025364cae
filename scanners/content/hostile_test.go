package content

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

// costs runs f and returns how long it took and how far the heap grew beyond what it was.
func costs(f func()) (took time.Duration, grew uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base, most := m.HeapAlloc, uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends when stop is closed
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
	}()
	began := time.Now()
	f()
	took = time.Since(began)
	close(stop)
	<-done
	return took, most - min(base, most)
}

// nestedZips is like 42.zip: archives of archives of archives, and at the bottom nothing but zeros.
func nestedZips(t testing.TB, levels int) []byte {
	p := zipped(t, zipFile{"0.dll", string(make([]byte, 4<<20))})
	for range levels {
		var files []zipFile
		for i := range 16 {
			files = append(files, zipFile{fmt.Sprintf("lib %x.zip", i), string(p)})
		}
		p = zipped(t, files...)
	}
	return p
}

// overlapping is an archive whose list names one file a thousand times.
func overlapping(t testing.TB, files int) []byte {
	p := zipped(t, zipFile{"a", string(make([]byte, 8<<20))})
	at := bytes.LastIndex(p, []byte(zipCentral))
	end := bytes.LastIndex(p, []byte(zipEnd))
	entry := slices.Clone(p[at:end])
	out := append(slices.Clone(p[:at]), bytes.Repeat(entry, files)...)
	tail := slices.Clone(p[end:])
	binary.LittleEndian.PutUint16(tail[8:], uint16(files))
	binary.LittleEndian.PutUint16(tail[10:], uint16(files))
	binary.LittleEndian.PutUint32(tail[12:], uint32(files*len(entry)))
	return append(out, tail...)
}

// longRAR has as many headers as go into its size.
func longRAR(n int) []byte {
	names := make([]string, n)
	for i := range names {
		names[i] = "x"
	}
	return rar4Archive(0, names...)
}

// roundCFB has chains and a tree that lead back to themselves.
func roundCFB() []byte {
	p := compound("", stream{name: "WordDocument", content: []byte("x")}, stream{name: "VBA", in: []stream{{name: "ThisDocument", content: vba("x")}}})
	for i := 4; i < 128; i++ {
		binary.LittleEndian.PutUint32(p[512+4*i:], uint32(i))
	}
	for at := 1024; at+128 <= 2048; at += 128 {
		binary.LittleEndian.PutUint32(p[at+68:], uint32((at-1024)/128))
		binary.LittleEndian.PutUint32(p[at+72:], 1)
		binary.LittleEndian.PutUint32(p[at+120:], 1<<31)
	}
	return p
}

func TestHostileFiles(t *testing.T) {
	deepCFB := compound("", stream{name: "WordDocument", content: []byte("x")})
	many := make([]byte, 8<<20) // a table that says that everything goes on
	copy(many, deepCFB)
	for i := 512; i+4 <= len(many); i += 4 {
		binary.LittleEndian.PutUint32(many[i:], uint32(i/4)%(8<<11))
	}
	huge7z := []byte{szHeader, szStreams, szPackInfo, 0, 0xf0, 0xff, 0xff, 0xff, 0x0f, szSizes}
	folders := append([]byte{szHeader, szStreams, szUnpackInfo, szFolder, 0xc0, 0xff, 0xff, 0}, bytes.Repeat([]byte{1, 1, 0}, 300_000)...)
	for name, tt := range map[string]struct {
		file    []byte
		damaged string
		limits  string
	}{
		"a zip of zips":         {nestedZips(t, 3), "", "archive_files depth members"},
		"a smaller zip of zips": {nestedZips(t, 2), "", "members"},
		"a zip that overlaps":   {overlapping(t, 60000), "its files overlap", "archive_files members"},
		"a zip of zeros":        {zipped(t, zipFile{"0.zip", "PK\x03\x04" + string(make([]byte, 64<<20))}), "", "file_size"},
		"a gzip of zeros":       {gzipped(t, "0.pdf", append([]byte("%PDF-"), make([]byte, 64<<20)...)), "", "file_size"},
		"many headers in rar":   {longRAR(20000), "", "archive_files members"},
		"many in 7z":            {szWrap(nil, huge7z), "its list of files: is not as it should be", ""},
		"many folders in 7z":    {szWrap(nil, folders), "its list of files: is not as it should be", ""},
		"a compound that turns": {roundCFB(), "its macros: a chain of sectors goes round or leads nowhere", ""},
		"a compound of chains":  {many, "", ""},
		"many local headers":    {bytes.Repeat([]byte("PK\x03\x04"+strings.Repeat("\x00", 22)+"\x01\x00\x00\x00a"), 100_000), "its list of files: there is none", "archive_files members"},
		"many ends":             {append([]byte("PK\x03\x04"), bytes.Repeat([]byte(zipEnd), 500_000)...), "", ""},
		"many names in pdf":     {append([]byte("%PDF-1.4"), bytes.Repeat([]byte("/#4a/"), 1_500_000)...), "its end is missing", ""},
		"many streams in pdf":   {append([]byte("%PDF-1.4"), bytes.Repeat([]byte("/ObjStm /FlateDecode stream\n\x78\x9c\x4b"), 200_000)...), "its end is missing", ""},
		"many words in rtf":     {append([]byte(`{\rtf`), bytes.Repeat([]byte(`\fldinst`), 1_000_000)...), "", ""},
		"a tar of headers":      {bytes.Repeat(tarred(t, zipFile{"a", ""})[:512], 16000), "", "archive_files members"},
		"pages":                 {bytes.Repeat([]byte("<html><div><a href=x>"), 400_000), "", "file_size html"},
	} {
		m := pipelinetest.Parse(t, attached("a.bin", "application/octet-stream", tt.file))
		s, err := newStage(config())
		if err != nil {
			t.Fatal(err)
		}
		var r pipeline.Result
		took, grew := costs(func() { r, err = s.Check(t.Context(), pipeline.View{Message: m}) })
		if err != nil {
			t.Fatal(err)
		}
		f := r.Fact.(Fact)
		a := f.Attachments[0]
		t.Logf("%s: %s, %d MiB; %.160s", name, took, grew>>20, says(a))
		if took > 60*time.Second || grew > 64<<20 {
			t.Errorf("%s: took %s and %d MiB", name, took, grew>>20)
		}
		if tt.damaged != "" && a.Damaged != tt.damaged {
			t.Errorf("%s: damaged %q, want %q", name, a.Damaged, tt.damaged)
		}
		got := strings.Join(f.Limits, " ")
		if tt.limits != "" && got != tt.limits {
			t.Errorf("%s: limits %q, want %q", name, got, tt.limits)
		}
		if tt.limits != "" && tt.limits != "members" && a.Incomplete == "" {
			t.Errorf("%s: nothing says that it is incomplete", name)
		}
	}
}

func TestHostileMail(t *testing.T) {
	big := func(piece string, size int) string { return strings.Repeat(piece, size/len(piece)) }
	page := "MIME-Version: 1.0\nFrom: a@example.com\nContent-Type: text/html\n\n"
	file := "MIME-Version: 1.0\nFrom: a@example.com\nContent-Type: text/html\nContent-Disposition: attachment; filename=a.html\n\n"
	for name, text := range map[string]string{
		"divs":                 page + big("<div>", 100<<20),
		"divs in a file":       file + big("<div>", 100<<20),
		"styles":               page + big("<style>a.b{display:none}</style>", 4<<20),
		"one style":            page + "<style>" + big(".b{color:red}", 4<<20),
		"attributes":           page + "<div " + big("a=b style=display:none ", 4<<20),
		"ends":                 page + big("<b>", 4<<10) + big("</i>", 4<<20),
		"links":                page + big("<a href=//a.b>c.de</a>", 4<<20),
		"a link":               page + "<a href=//a.b>" + big("c ", 4<<20),
		"an attribute":         page + "<a href='" + big("https://", 4<<20) + "'>x",
		"words":                "From: a@example.com\n\n" + big("p\u0430y ", 4<<20),
		"one word":             "From: a@example.com\n\n" + big("p\u0430", 4<<20),
		"at signs in the name": "From: \"" + big("a@b.", 200<<10) + "\" <a@example.com>\n\nx",
		"at signs":             "From: \"" + big("@", 200<<10) + "\" <a@example.com>\n\nx",
		"zero width":           "From: a@example.com\n\n" + big("\u200d", 4<<20),
	} {
		m := pipelinetest.Parse(t, text)
		s, err := newStage(config())
		if err != nil {
			t.Fatal(err)
		}
		var r pipeline.Result
		took, grew := costs(func() { r, err = s.Check(t.Context(), pipeline.View{Message: m}) })
		t.Logf("%s: %s, %d MiB", name, took, grew>>20)
		if err != nil || took > 60*time.Second || grew > 64<<20 {
			t.Errorf("%s: took %s and %d MiB, %v", name, took, grew>>20, err)
		}
		if f := r.Fact.(Fact); name == "divs" && !slices.Contains(f.Limits, "html") {
			t.Errorf("%s: limits %q", name, f.Limits)
		}
	}
}

// Each limit is reached, and says so.
func TestLimits(t *testing.T) {
	zip3 := zipped(t, zipFile{"a.txt", "a"}, zipFile{"b.txt", "b"}, zipFile{"c.exe", string(pe())})
	noise := make([]byte, 200<<10)
	for i, state := 0, uint32(1); i < len(noise); i++ {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	two := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment; filename=a.exe\n\nx\n" +
		"--b\nContent-Disposition: attachment; filename=b.exe\n\nx\n--b--\n"
	large := append(slices.Clone(noise), zip3...)
	copy(large, zip3[:30]) // begins as an archive, and ends as one
	bigZip := zipped(t, zipFile{"noise.bin", string(noise)}, zipFile{"c.exe", string(pe())})
	for _, tt := range []struct {
		name  string
		set   func(*Limits)
		text  string
		want  string
		found func(f Fact) bool
	}{
		{"attachments", func(l *Limits) { l.Attachments = 1 }, two, "attachments", func(f Fact) bool { return f.AttachmentCount == 2 && len(f.Attachments) == 1 }},
		{"archive_files", func(l *Limits) { l.ArchiveFiles = 2 }, attached("a.zip", "x/y", zip3), "archive_files", func(f Fact) bool {
			return f.Attachments[0].Archive.Count == 2 && f.Attachments[0].Incomplete == "more than limits.archive_files (2)"
		}},
		{"members", func(l *Limits) { l.Members = 1 }, attached("a.zip", "x/y", zip3), "members", func(f Fact) bool {
			a := f.Attachments[0].Archive
			return a.Count == 3 && len(a.Members) == 1 && a.Executable
		}},
		{"depth", func(l *Limits) { l.Depth = 1 }, attached("a.zip", "x/y", zipped(t, zipFile{"a.zip", string(zip3)})), "depth", func(f Fact) bool {
			a := f.Attachments[0]
			return a.Archive.Count == 1 && a.Archive.Depth == 2 && a.Incomplete == "a.zip: more than limits.depth (1)"
		}},
		{"unpacked", func(l *Limits) { l.Unpacked = 1 }, attached("a.zip", "x/y", zip3), "unpacked", func(f Fact) bool {
			return f.Attachments[0].Archive.Count == 3 && strings.Contains(f.Attachments[0].Incomplete, "limits.unpacked (1)")
		}},
		{"ratio", func(l *Limits) { l.Ratio = 2 }, attached("a.zip", "x/y", zipped(t, zipFile{"a.rtf", `{\rtf` + strings.Repeat(" ", 1<<20)})), "ratio", func(f Fact) bool {
			return f.Attachments[0].Incomplete == "a.rtf: more than limits.ratio (2)"
		}},
		{"file_size inside", func(l *Limits) { l.FileSize = 64 << 10 }, attached("a.zip", "x/y", zipped(t, zipFile{"a.rtf", `{\rtf` + strings.Repeat(string(noise[:3000]), 50)})), "file_size", func(f Fact) bool {
			return f.Attachments[0].Incomplete == "a.rtf: more than limits.file_size (65536)"
		}},
		{"file_size", func(l *Limits) { l.FileSize = 64 << 10 }, attached("a.zip", "x/y", bigZip), "file_size", func(f Fact) bool {
			a := f.Attachments[0]
			return a.Archive.Count == 2 && a.Archive.Executable && strings.Contains(a.Incomplete, "limits.file_size")
		}},
		{"file_size of what begins otherwise", func(l *Limits) { l.FileSize = 64 << 10 }, attached("a.zip", "x/y", large), "", func(f Fact) bool {
			return f.Attachments[0].Archive.Count == 3
		}},
		{"html", func(l *Limits) { l.HTML = 1 << 10 }, "Content-Type: text/html\n\n" + strings.Repeat("x", 2000) + "<script>", "html", func(f Fact) bool { return f.HTML.Present && !f.HTML.Script }},
		{"html in a file", func(l *Limits) { l.HTML = 1 << 10 }, attached("a.html", "text/html", []byte("<html>"+strings.Repeat("x", 2000)+"<script>")), "html", func(f Fact) bool {
			return f.Attachments[0].Incomplete == "more than limits.html (1024)" && len(f.Attachments[0].Features) == 0
		}},
		{"text", func(l *Limits) { l.Text = 1 << 10 }, "From: a\n\n" + strings.Repeat("hello ", 500), "text", func(f Fact) bool { return f.Scripts[0].Letters < 1100 }},
	} {
		c := config()
		tt.set(&c.Limits)
		f := check(t, c, tt.text, "")
		if got := strings.Join(f.Limits, " "); got != tt.want || !tt.found(f) {
			t.Errorf("%s: limits %q, want %q: %+v", tt.name, got, tt.want, f.Attachments)
		}
	}
}

// The names and lists of a fact are bounded, whatever a mail holds.
func TestSizeOfFact(t *testing.T) {
	long := strings.Repeat("\u00e4", 1000) + ".exe"
	f := file(t, config(), long, zipped(t, zipFile{long, "x"}))
	if n := len([]rune(f.Name)); n != longestName || f.Extension != "exe" || !f.Executable {
		t.Errorf("a name of %d characters, %q", n, f.Extension)
	}
	if n := len([]rune(f.Archive.Members[0].Name)); n != longestName {
		t.Errorf("a member's name of %d characters", n)
	}
}

// A file of any size is held as far as its limit.
func TestCollector(t *testing.T) {
	for _, size := range []int{0, 1, 100, 875, 876, 1000, 1001, 5000} {
		for _, piece := range []int{1, 7, 100, 3000} {
			src := make([]byte, size)
			for i := range src {
				src[i] = byte(i * 7)
			}
			c := &collector{limit: 1000}
			for rest := src; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
				if _, err := c.Write(rest[:min(piece, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			b := c.blob()
			if b.size != int64(size) || b.isWhole() != (size <= 1000) {
				t.Fatalf("%d in pieces of %d: %d, whole %v", size, piece, b.size, b.isWhole())
			}
			if !bytes.Equal(b.head, src[:len(b.head)]) || !bytes.Equal(b.tail, src[size-len(b.tail):]) {
				t.Fatalf("%d in pieces of %d: wrong octets", size, piece)
			}
			if size > 1000 && (len(b.head) != 875 || len(b.tail) != 125) {
				t.Fatalf("%d in pieces of %d: %d and %d are held", size, piece, len(b.head), len(b.tail))
			}
			if p, err := b.slice(int64(size), 1); err != errBeyond || p != nil {
				t.Fatal(err)
			}
			if size == 5000 {
				if _, err := b.slice(874, 2); err != errNotHeld {
					t.Fatal(err)
				}
			}
		}
	}
}
