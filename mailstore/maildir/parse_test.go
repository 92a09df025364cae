package maildir

import (
	"bytes"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"sluice/mailstore"
)

func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	check(t, err)
	return db
}

func TestUTF7(t *testing.T) {
	for _, test := range []struct{ name, disk string }{
		{"plain", "plain"},
		{"a&b", "a&-b"},
		{"~peter/mail/日本語/台北", "~peter/mail/&ZeVnLIqe-/&U,BTFw-"}, // RFC 3501, 5.1.3
		{"Entwürfe", "Entw&APw-rfe"},
		{"ü&ü", "&APw-&-&APw-"},
		{"😀", "&2D3eAA-"},
	} {
		equal(t, test.name, encodeUTF7(test.name), test.disk)
		got, err := decodeUTF7(test.disk)
		check(t, err)
		equal(t, test.disk, got, test.name)
	}
	for _, bad := range []string{"&", "&AP", "&AP-", "&!!!-", "ü", "a\x00", "&2D0-", "&APx-"} {
		if s, err := decodeUTF7(bad); err == nil && encodeUTF7(s) == bad {
			t.Errorf("%q is %q", bad, s)
		}
	}
}

func FuzzUTF7(f *testing.F) {
	f.Add("Entwürfe & 😀")
	f.Add("&APw-")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := decodeUTF7(s); err == nil {
			_ = d
		}
		if strings.ToValidUTF8(s, "?") != s || strings.ContainsAny(s, "\x00\uFFFD") {
			return
		}
		got, err := decodeUTF7(encodeUTF7(s))
		if err != nil || got != s {
			t.Errorf("%q became %q, %v", s, got, err)
		}
	})
}

// FuzzFolderNames: a name that is taken leads to one directory below the Maildir, and back to itself.
func FuzzFolderNames(f *testing.F) {
	for _, s := range []string{"INBOX", "inbox/x", "a/b", "../x", "Entwürfe", "a.b", "&AOQ-", "~x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		disk, err := diskName(name)
		if err != nil {
			if !errors.Is(err, mailstore.ErrName) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if disk == "" {
			return
		}
		if disk[0] != '.' || strings.Contains(disk, "..") || strings.ContainsAny(disk, "/\x00") || len(disk) > 240 {
			t.Errorf("%q lies in %q", name, disk)
		}
		back, ok := apiName(disk)
		if !ok || back != folderName(name) {
			t.Errorf("%q lies in %q, which is %q, %v", name, disk, back, ok)
		}
	})
}

func FuzzUIDList(f *testing.F) {
	f.Add("3 V1 N5 Gx\n1 :a\n2 W3 S2 :b:2,S\n")
	f.Add("1 7 9\n3 x\n")
	f.Add("3 V1\n1  :\n2 W :x\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseUIDList(text)
		if err != nil {
			return
		}
		last := uint32(0)
		for _, e := range l.entries {
			if e.uid <= last || e.uid >= l.next && l.next != 1 || e.unique == "" {
				t.Errorf("%+v", l)
			}
			last = e.uid
		}
		if l.validity == 0 {
			t.Error("UIDVALIDITY is 0")
		}
	})
}

// FuzzLineEnds: what is written and read again has the line ends of the wire, the sizes are right, however the reader
// cuts it up; and what had them before is unchanged. No CR is left that could become half of a line end.
func FuzzLineEnds(f *testing.F) {
	for _, s := range []string{"", "a\r\nb\n", "\r", "\r\n", "\n\r\n\r", "a\r\r\nb", "\r\r\r\n\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = 2 + abs(size)%64
		var disk bytes.Buffer
		n, wire, err := copyLF(&disk, iotest.HalfReader(bytes.NewReader(in)), make([]byte, size))
		check(t, err)
		if n != int64(disk.Len()) {
			t.Fatalf("%q: %d octets were written, %d reported", in, disk.Len(), n)
		}
		out := appendCRLF(nil, disk.Bytes(), false)
		if int64(len(out)) != wire {
			t.Fatalf("%q: is %q on the wire, %d reported", in, out, wire)
		}
		if w, err := wireSize(iotest.OneByteReader(&disk)); err != nil || w != wire {
			t.Fatalf("%q: wireSize says %d, %v", in, w, err)
		}
		want := slices.Clone(in) // of several CRs only the last is one
		for i := range max(len(want)-1, 0) {
			if want[i] == '\r' && want[i+1] == '\r' {
				want[i] = ' '
			}
		}
		want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
		if want = bytes.ReplaceAll(want, []byte("\n"), []byte("\r\n")); !bytes.Equal(out, want) {
			t.Fatalf("%q became %q; want %q", in, out, want)
		}
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

func FuzzFileName(f *testing.F) {
	f.Add("1.x.h,S=1,W=2,K=$Junk+a%20:2,FS,u")
	f.Fuzz(func(t *testing.T, name string) {
		fn := parseFileName(name)
		if strings.Contains(fn.unique, ":") {
			t.Errorf("%q: %+v", name, fn)
		}
		for _, k := range uniqueKeywords(fn.unique) {
			if !isKeyword(k) {
				t.Errorf("%q: keyword %q", name, k)
			}
		}
		uniqueSizes(fn.unique)
		uniqueID(fn.unique)
	})
}

func TestKeywordField(t *testing.T) {
	all := []string{"$Junk", "a,b", "c+d:e/f", "x_y"}
	field, left := keywordField(all, 200)
	equal(t, "left", len(left), 0)
	equal(t, "keywords", uniqueKeywords("1.x.h,S=1,W=1"+field), all)
	field, left = keywordField(all, 12)
	equal(t, "field", field, ",K=$Junk")
	equal(t, "left", left, all[1:])
}
