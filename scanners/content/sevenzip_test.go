package content

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz/lzma"
)

// What 7-Zip 26.02 has made of docs/empty/, docs/nothing.txt (which is empty), docs/readme.txt, docs/Übersicht.txt,
// invoice.pdf.js and setup.exe.
const (
	// 7z a
	szByDefault = "N3q8ryccAAQc6lEY0QAAAAAAAAAiAAAAAAAAANfE6YHgAgIAE10ANBlJ7o3dQ+/SEiA7qmjKep9QAAAAAIEzB64Pz7XvEA/r6py/Nj3+1KGkSB" +
		"CbfL3Zp3/KAoMuiueonuZ8S1B1jvUaFHxSkgs1NdlujDUY/Jm7OT6yIXC7wNCoam8Gs03e9xLjftSVKTBQSR0DWSjmbhD1M2KMyhHuqdEI1B3m" +
		"6P0Rm8Sf8ZAhIx+1lmvFyAPYVv3KFxRHfPAOhWB6wCJj6eByNkE1BtIMO9xECXlzZmZeLh5hy21/Whx8fynNXB/X5SifKlLkPxAAABcGGwEJgL" +
		"YABwsBAAEjAwEBBV0AEAAADIFaCgG6+b/NAAA="
	// 7z a -ms=off -mx=1
	szNotSolid = "N3q8ryccAARXcyO95gAAAAAAAAAiAAAAAAAAALvByToBAAVoZWxsbwoAAQAFaGVsbG8KAAEAAHgA4AH1AApdACaWghp475ZilAAAAACBMweubb" +
		"73eeim9rn9AKZy71zjrZRgLhd04zby01dn8okuyR3ajX9/PiTqS1CBZ1Qr71N5XC9AsPVuiYrhAfHX3y26wZbr7bM3vjjVnYDBQ/qkyUMctEBn" +
		"ku3gbRVnXqfg9tbYukd5oyQHlaZ76JbmiETtsAstwyhnnP+TTVrX7ezJ6PNqtSL+M62kQuSjpQwaUocl/0RFY7esuCac6RVJJHb+tvK9IIOb8a" +
		"iGgIiXB5xbmUfw3oAAABcGKwEJgLsABwsBAAEjAwEBBV0AEAAADIFqCgEskSciAAA="
	// 7z a -mhc=off
	szPlainNames = "N3q8ryccAASmLPGEGwAAAAAAAABaAQAAAAAAALr5v83gAgIAE10ANBlJ7o3dQ+/SEiA7qmjKep9QAAABBAYAAQkbAAcLAQABISEBAAyCAwAIDQ" +
		"QJBgYBCgEgMDo2IDA6NoMW3IxerqpCAAAFBw4B4A8BIBkCAAARgLsAZABvAGMAcwAAAGQAbwBjAHMALwBlAG0AcAB0AHkAAABkAG8AYwBzAC8A" +
		"bgBvAHQAaABpAG4AZwAuAHQAeAB0AAAAZABvAGMAcwAvAHIAZQBhAGQAbQBlAC4AdAB4AHQAAABkAG8AYwBzAC8A3ABiAGUAcgBzAGkAYwBoAH" +
		"QALgB0AHgAdAAAAGkAbgB2AG8AaQBjAGUALgBwAGQAZgAuAGoAcwAAAHMAZQB0AHUAcAAuAGUAeABlAAAAGQAUOgEAAACBkrF63AEAAIGSsXrc" +
		"AQAAgZKxetwBAACBkrF63AEAAIGSsXrcAQAAgZKxetwBAACBkrF63AEVHgEAEIDtQRCA7UEggKSBIICkgSCApIEggKSBIICkgQAA"
	// 7z a -psecret
	szPassword = "N3q8ryccAAQU6ygm9gAAAAAAAAAiAAAAAAAAABRBAWQ6FFnMC/DQdVmpzmRoi7q0KdgbaiDKV9tAT+2U9xDOIAAAgTMHrg/QDrA8nzkQnJ+m1T" +
		"Pasi6w5KBF+/ZhexKsMw3zpUU+zWBB4yb76990rUDzWbfRtAgvOD5tM5tiaqX2GrJO6oDUSPKpPD9m3ULEQ/zd2cXSUSfIXQFh/RhhKIjwTlRw" +
		"Senlysw+iNFXIIc7IGMhbaFcp2zkEpADpLxLYxD6L0KoMvLYMpiXtj8XKa5/Abze757JIKvBhT4Em98jpuRYixHtwWaMkjwVt1v56H7q9YrlSY" +
		"4uIzVyU7ut8we47HzFWkPs2/9CoiTS6Mb8fsPAAAAXBiABCYDWAAcLAQABIwMBAQVdABAAAAyBegoBpV8qPwAA"
	// 7z a -psecret -mhe=on
	szHiddenNames = "N3q8ryccAATD3f1DAAEAAAAAAAA+AAAAAAAAAGQjsudngB3R3iRSCJcX+AmH/oDjQ1RckhjmcCf3AW7cHsc6Lrwq844PeRBqUtSOGZM8iJXdla" +
		"+Zyptq5labAa1lHC4c4CR+KCQPuPVDKcCll8r+uUrvkBdXQmyg0kGpnnnI2BIkxHhOk7T5lA+7GzLa6LgQaDlHxVLeakVeM+inXQwcFFWXPwhV" +
		"1ZvekcIUfiCy056k5zZtQQSgQoQrwT12fMUzqR/7bhMA0jp39rVoTjqozO+7zILr7pcnrX9y2nqhUTv5uufIp6L82K9QjiymIOvm1ZOPXfhpKx" +
		"wUPUb2LAdBx3gT4KsaVJv4THgw0tVyj2Re3BdKEqUutOnFpf9STQK6FwYgAQmA4AAHCwEAAiQG8QcBElMPf4Z5hRGTFZvDiWiqWPd8AiMDAQEF" +
		"XQAQAAABAAyA1oF6CgH7M4iKAAA="
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSevenZipAsItIsWritten(t *testing.T) {
	list := []Member{
		{Name: "docs/nothing.txt", Packed: -1, Depth: 1},
		{Name: "docs/readme.txt", Size: 6, Packed: -1, Depth: 1},
		{Name: "docs/Übersicht.txt", Size: 6, Packed: -1, Depth: 1},
		{Name: "invoice.pdf.js", Size: 1, Packed: -1, Depth: 1, Executable: true, DoubleExtension: true},
		{Name: "setup.exe", Size: 502, Packed: -1, Depth: 1, Executable: true},
	}
	locked := slices.Clone(list)
	for i := range locked {
		locked[i].Encrypted = locked[i].Size > 0
	}
	const inside = "7z files=5 size=515 depth=1 in:executable in:double incomplete: files in 7z are listed, and not looked into"
	for _, tt := range []struct {
		name, text, want string
		list             []Member
	}{
		{"default", szByDefault, inside, list},
		{"not solid", szNotSolid, inside, list},
		{"names not packed", szPlainNames, inside, list},
		{"password", szPassword, strings.Replace(inside, "7z", "7z encrypted", 1), locked},
		{"names encrypted", szHiddenNames, "7z encrypted features=encrypted_names incomplete: the names in it are encrypted", nil},
	} {
		f := file(t, config(), "a.7z", unbase64(t, tt.text))
		if got := says(f); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.name, got, tt.want)
		}
		byName := func(a, b Member) int { return strings.Compare(a.Name, b.Name) }
		got, want := slices.SortedFunc(slices.Values(f.Archive.Members), byName), slices.SortedFunc(slices.Values(tt.list), byName)
		if !slices.Equal(got, want) {
			t.Errorf("%s\n got %+v\nwant %+v", tt.name, got, want)
		}
	}
}

// szPackedBy is an archive whose list of files is packed so: method and settings as a header has them.
func szPackedBy(method, settings string, packed, list []byte) []byte {
	h := []byte{szEncoded, szPackInfo, 0, 1, szSizes}
	h = append(append(h, szNumber(len(packed))...), szEnd, szUnpackInfo, szFolder, 1, 0, 1)
	flags := byte(len(method))
	if settings != "" {
		flags |= 0x20
	}
	h = append(append(h, flags), method...)
	if settings != "" {
		h = append(append(h, byte(len(settings))), settings...)
	}
	h = append(append(h, szUnpackSizes), szNumber(len(list))...)
	h = binary.LittleEndian.AppendUint32(append(h, szCRC, 1), crc32.ChecksumIEEE(list))
	return szWrap(packed, append(h, szEnd, szEnd))
}

// szNumber writes a number in five octets.
func szNumber(n int) []byte { return binary.LittleEndian.AppendUint32([]byte{0xf0}, uint32(n)) }

const (
	szLZMA         = "\x03\x01\x01"
	szLZMASettings = "\x5d\x00\x00\x00\x01"
	szLZMA2        = "\x21"
)

func packLZMA(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := lzma.WriterConfig{Size: int64(len(p)), SizeInHeader: true}.NewWriter(&b)
	return packed(t, &b, w, err, p)[lzma.HeaderLen:]
}

func packLZMA2(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := lzma.NewWriter2(&b)
	return packed(t, &b, w, err, p)
}

func packed(t testing.TB, b *bytes.Buffer, w io.WriteCloser, err error, p []byte) []byte {
	t.Helper()
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSevenZipPackedNames(t *testing.T) {
	list := szArchiveOf(false, "a.exe", "b.txt")[szStart+8:]
	const listed = "7z files=2 size=8 depth=1 in:executable incomplete: files in 7z are listed, and not looked into"
	zeros := make([]byte, 900_000)
	late := append(make([]byte, 1<<20+1), list...)
	anew := append(bytes.Repeat([]byte{1, 0, 0, 0}, szMostChunks+1), 0)
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"LZMA", szPackedBy(szLZMA, szLZMASettings, packLZMA(t, list), list), listed},
		{"LZMA2", szPackedBy(szLZMA2, "\x18", packLZMA2(t, list), list), listed},
		{"copied", szPackedBy("\x00", "", list, list), listed},
		{"a dictionary of 4 GiB", szPackedBy(szLZMA, "\x5d\xff\xff\xff\xff", packLZMA(t, list), list), listed},
		{"tables of 12 bits", szPackedBy(szLZMA, "\xbc\x00\x00\x00\x01", packLZMA(t, list), list), "7z incomplete: the list of files in it is packed by LZMA with settings that nobody uses"},
		{"settings too short", szPackedBy(szLZMA, "\x5d", packLZMA(t, list), list), "7z damaged: its packed list of files: is not as it should be"},
		{"PPMd", szPackedBy("\x03\x04\x01", "\x06\x00\x00\x00\x01", list, list), "7z incomplete: the list of files in it is packed by another method than LZMA"},
		{"zeros", szPackedBy(szLZMA, szLZMASettings, packLZMA(t, zeros), zeros), "7z incomplete: more than limits.ratio (200)"},
		{"too large", szPackedBy("\x00", "", late, late), "7z incomplete: its list of files is larger than 1 MiB"},
		{"many beginnings", szPackedBy(szLZMA2, "\x18", anew, make([]byte, szMostChunks+1)), "7z incomplete: the list of files in it is packed by LZMA2 in too many pieces"},
		{"cut", szPackedBy(szLZMA, szLZMASettings, packLZMA(t, list)[:40], list), "7z damaged: its packed list of files: unexpected EOF"},
		{"another checksum", szPackedBy("\x00", "", list, append(slices.Clone(list[:len(list)-1]), 1)), "7z files=2 size=8 depth=1 in:executable damaged: its packed list of files has a wrong checksum incomplete: files in 7z are listed, and not looked into"},
		{"nothing", szPackedBy("\x00", "", nil, nil), "7z damaged: its list of files: is not as it should be"},
	} {
		began := time.Now()
		got := says(file(t, config(), "a.7z", tt.file))
		if got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.name, got, tt.want)
		}
		t.Logf("%s: %s", tt.name, time.Since(began))
	}

	c := config()
	c.Limits.Unpacked = len(list) - 1
	f := check(t, c, attached("a.7z", "application/octet-stream", szPackedBy(szLZMA, szLZMASettings, packLZMA(t, list), list)), "")
	if got := says(f.Attachments[0]); !strings.HasPrefix(got, "7z incomplete: more than limits.unpacked") || !slices.Equal(f.Limits, []string{"unpacked"}) {
		t.Errorf("%s, %v", got, f.Limits)
	}
}

// A list packed in a list that is packed is read; 7-Zip makes none, and no depth is.
func TestSevenZipPackedAgain(t *testing.T) {
	list := szArchiveOf(false, "a.exe")[szStart+4:]
	for again, want := range map[int]string{
		1: "7z files=1 size=4 depth=1 in:executable incomplete: files in 7z are listed, and not looked into",
		2: "7z files=1 size=4 depth=1 in:executable incomplete: files in 7z are listed, and not looked into",
		3: "7z incomplete: the names in it are packed again and again",
	} {
		// What is packed stands in a row, and each list says where the one in it is.
		row, p := []byte(nil), list
		for range again {
			a := szPackedBy("\x00", "", p, p)
			next := append([]byte(nil), a[szStart+len(p):]...)
			next = slices.Replace(next, 2, 3, szNumber(len(row))...)
			row, p = append(row, p...), next
		}
		if got := says(file(t, config(), "a.7z", szWrap(row, p))); got != want {
			t.Errorf("%d times\n got %s\nwant %s", again, got, want)
		}
	}
}

func FuzzSevenZipPacked(f *testing.F) {
	list := szArchiveOf(false, "a.exe", "b.txt")[szStart+8:]
	f.Add(packLZMA(f, list), "\x5d\x00\x00\x10\x00", uint16(len(list)), false)
	f.Add(packLZMA2(f, list), "\x18", uint16(len(list)), true)
	f.Add(append([]byte{1, 0, byte(len(list) - 1)}, append(slices.Clone(list), 0)...), "\x18", uint16(len(list)), true)
	f.Fuzz(func(t *testing.T, p []byte, settings string, size uint16, second bool) {
		method := szLZMA
		if second {
			method = szLZMA2
		}
		lookAt(t, szPackedBy(method, settings[:min(len(settings), 100)], p, make([]byte, size)), "a.7z")
	})
}
