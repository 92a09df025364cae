package content

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"unicode/utf8"
)

// Families of formats: a PNG called photo.jpg surprises nobody, a program called photo.jpg should.
const (
	familyProgram = "program"
	familyOffice  = "office"
	familyPDF     = "pdf"
	familyArchive = "archive"
	familyImage   = "image"
	familyMedia   = "media"
	familyPage    = "page"
	familyText    = "text"
	familyMessage = "message"
	familyDisk    = "disk"
)

// A format is a kind of file that is known by its content.
type format struct {
	family string
	runs   bool // opening it runs it, or lets something in it be run
}

// formats are what sniff, and those who look closer, can find.
var formats = map[string]format{
	"pe": {familyProgram, true}, "dos": {familyProgram, true}, "elf": {familyProgram, true}, "macho": {familyProgram, true},
	"class": {familyProgram, true}, "dex": {familyProgram, true}, "wasm": {familyProgram, true}, "lnk": {familyProgram, true},
	"chm": {familyProgram, true}, "msi": {familyProgram, true}, "shell": {familyProgram, true}, "batch": {familyProgram, true},
	"hta": {familyProgram, true}, "wsf": {familyProgram, true}, "url": {familyProgram, true}, "jar": {familyProgram, true},
	"apk": {familyProgram, true}, "appx": {familyProgram, true}, "onenote": {familyOffice, true}, "encoded_script": {familyProgram, true},
	"powershell": {familyProgram, true},
	"iso":        {familyDisk, true}, "vhd": {familyDisk, true}, "vhdx": {familyDisk, true}, "udf": {familyDisk, true}, "dmg": {familyDisk, true},
	"doc": {familyOffice, false}, "xls": {familyOffice, false}, "ppt": {familyOffice, false}, "docx": {familyOffice, false},
	"xlsx": {familyOffice, false}, "xlsb": {familyOffice, false}, "pptx": {familyOffice, false}, "ooxml": {familyOffice, false},
	"odf": {familyOffice, false}, "rtf": {familyOffice, false}, "cfb": {familyOffice, false}, "encrypted_office": {familyOffice, false},
	"pdf": {familyPDF, false}, "msg": {familyMessage, false}, "eml": {familyMessage, false}, "epub": {familyArchive, false},
	"zip": {familyArchive, false}, "7z": {familyArchive, false}, "rar": {familyArchive, false}, "gzip": {familyArchive, false},
	"bzip2": {familyArchive, false}, "xz": {familyArchive, false}, "zstd": {familyArchive, false}, "lz4": {familyArchive, false},
	"tar": {familyArchive, false}, "cab": {familyArchive, false}, "ace": {familyArchive, false}, "arj": {familyArchive, false},
	"lzh": {familyArchive, false}, "wim": {familyArchive, false}, "compress": {familyArchive, false}, "lzip": {familyArchive, false},
	"png": {familyImage, false}, "jpeg": {familyImage, false}, "gif": {familyImage, false}, "bmp": {familyImage, false},
	"webp": {familyImage, false}, "tiff": {familyImage, false}, "ico": {familyImage, false}, "heif": {familyImage, false},
	"mp3": {familyMedia, false}, "wav": {familyMedia, false}, "avi": {familyMedia, false}, "mp4": {familyMedia, false},
	"ogg": {familyMedia, false}, "flac": {familyMedia, false}, "matroska": {familyMedia, false}, "swf": {familyMedia, true},
	"html": {familyPage, false}, "svg": {familyPage, false}, "xml": {familyText, false}, "text": {familyText, false},
	"calendar": {familyText, false}, "vcard": {familyText, false}, "postscript": {familyText, false},
}

// A signature is what a format begins with, from an offset on.
type signature struct {
	at     int
	magic  string
	format string
}

var signatures = []signature{
	{0, "MZ", "dos"}, {0, "\x7fELF", "elf"}, {0, "\xfe\xed\xfa\xce", "macho"}, {0, "\xfe\xed\xfa\xcf", "macho"},
	{0, "\xce\xfa\xed\xfe", "macho"}, {0, "\xcf\xfa\xed\xfe", "macho"}, {0, "\xca\xfe\xba\xbe", "class"}, {0, "dex\n0", "dex"},
	{0, "\x00asm", "wasm"}, {0, "L\x00\x00\x00\x01\x14\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00F", "lnk"},
	{0, "ITSF", "chm"}, {0, "\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", "onenote"},
	{0, "#@~^", "encoded_script"}, {0, "#!", "shell"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "cfb"}, {0, "{\\rt", "rtf"},
	{0, "PK\x03\x04", "zip"}, {0, "PK\x05\x06", "zip"}, {0, "PK\x07\x08PK\x03\x04", "zip"}, {0, "7z\xbc\xaf\x27\x1c", "7z"},
	{0, "Rar!\x1a\x07\x00", "rar"}, {0, "Rar!\x1a\x07\x01\x00", "rar"}, {0, "\x1f\x8b\x08", "gzip"}, {0, "BZh", "bzip2"},
	{0, "\xfd7zXZ\x00", "xz"}, {0, "\x28\xb5\x2f\xfd", "zstd"}, {0, "\x04\x22\x4d\x18", "lz4"}, {0, "MSCF\x00\x00\x00\x00", "cab"},
	{0, "\x1f\x9d", "compress"}, {0, "LZIP", "lzip"}, {7, "**ACE**", "ace"}, {0, "\x60\xea", "arj"}, {2, "-lh", "lzh"},
	{0, "MSWIM\x00\x00\x00", "wim"}, {257, "ustar", "tar"},
	{0x8001, "CD001", "iso"}, {0x8001, "BEA01", "udf"}, {0, "conectix", "vhd"}, {0, "vhdxfile", "vhdx"},
	{0, "\x89PNG\r\n\x1a\n", "png"}, {0, "\xff\xd8\xff", "jpeg"}, {0, "GIF8", "gif"}, {0, "BM", "bmp"}, {0, "II*\x00", "tiff"},
	{0, "MM\x00*", "tiff"}, {0, "\x00\x00\x01\x00", "ico"}, {0, "ID3", "mp3"}, {0, "\xff\xfb", "mp3"}, {0, "OggS", "ogg"},
	{0, "fLaC", "flac"}, {0, "\x1a\x45\xdf\xa3", "matroska"}, {0, "FWS", "swf"}, {0, "CWS", "swf"}, {0, "ZWS", "swf"},
	{0, "%!PS", "postscript"},
}

// sniff says what a file is by its beginning; "" where that is not known. Those that are known by their end are for the
// caller (see [sniffEnd]).
func sniff(head []byte) string {
	for i := range signatures {
		s := &signatures[i]
		if len(head) < s.at+len(s.magic) || string(head[s.at:s.at+len(s.magic)]) != s.magic {
			continue
		}
		if f, ok := confirm(s.format, head); ok {
			return f
		}
	}
	if len(head) > 12 && string(head[:4]) == "RIFF" {
		switch string(head[8:12]) {
		case "WAVE":
			return "wav"
		case "AVI ":
			return "avi"
		case "WEBP":
			return "webp"
		}
	}
	if len(head) > 12 && string(head[4:8]) == "ftyp" {
		if brand := string(head[8:12]); strings.HasPrefix(brand, "hei") || strings.HasPrefix(brand, "mif") || strings.HasPrefix(brand, "avi") {
			return "heif"
		}
		return "mp4"
	}
	// ISO 32000-1, annex H, 3.4.1: readers look for it in the first 1024 octets.
	if bytes.Contains(head[:min(len(head), 1024)], []byte("%PDF-")) {
		return "pdf"
	}
	return sniffText(head)
}

// confirm looks closer where a few octets say little.
func confirm(f string, head []byte) (string, bool) {
	switch f {
	case "dos":
		if len(head) < 64 {
			return f, len(head) > 2 && !printable(head)
		}
		if at := int64(binary.LittleEndian.Uint32(head[0x3c:])); at+4 <= int64(len(head)) && string(head[at:at+4]) == "PE\x00\x00" {
			return "pe", true
		}
		return f, !printable(head)
	case "class": // a Mach-O for several processors begins so too, with their number
		if len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) < 40 {
			return "macho", true
		}
	case "bmp":
		return f, len(head) >= 14 && binary.LittleEndian.Uint32(head[6:]) == 0
	case "shell":
		line, _, _ := bytes.Cut(head, []byte("\n"))
		return f, bytes.ContainsRune(line, '/')
	case "bzip2":
		return f, len(head) > 10 && head[3] >= '1' && head[3] <= '9' && string(head[4:7]) == "1AY"
	case "lzh":
		return f, len(head) > 7 && head[6] == '-'
	case "arj":
		return f, len(head) > 10 && head[10] == 2
	case "ico":
		return f, len(head) > 6 && head[4] > 0 && head[4] < 64 && head[5] == 0
	case "swf":
		return f, len(head) > 8 && head[3] < 64
	}
	return f, true
}

// sniffEnd says what a file is by its end.
func sniffEnd(b *blob) string {
	if p, err := b.slice(b.size-512, 8); err == nil {
		switch {
		case string(p) == "conectix":
			return "vhd"
		case string(p[:4]) == "koly":
			return "dmg"
		}
	}
	return ""
}

// lookText is how much of a text is looked at to find out what it is.
const lookText = 2048

// sniffText says what a text is, "" for what is none.
func sniffText(head []byte) string {
	head = head[:min(len(head), lookText)]
	if b, ok := narrow(head); ok {
		head = b
	} else if !printable(head) {
		return ""
	}
	if len(head) == 0 {
		return ""
	}
	s := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(string(head), "\ufeff")))
	switch {
	case strings.HasPrefix(s, "@echo off") || strings.HasPrefix(s, "@echo  off"):
		return "batch"
	case strings.Contains(s, "<hta:application"):
		return "hta"
	case strings.HasPrefix(s, "[internetshortcut]") || strings.HasPrefix(s, "[{000214a0-"):
		return "url"
	case strings.HasPrefix(s, "begin:vcalendar"):
		return "calendar"
	case strings.HasPrefix(s, "begin:vcard"):
		return "vcard"
	case strings.HasPrefix(s, "<job") || strings.HasPrefix(s, "<package>") || strings.HasPrefix(s, "<?xml") && strings.Contains(s, "<job"):
		return "wsf"
	case strings.Contains(s, "<svg") && (strings.HasPrefix(s, "<svg") || strings.HasPrefix(s, "<?xml") || strings.HasPrefix(s, "<!")):
		return "svg"
	case strings.Contains(s, "<!doctype html") || strings.Contains(s, "<html") || strings.HasPrefix(s, "<script") || strings.HasPrefix(s, "<body") || strings.HasPrefix(s, "<head"):
		return "html"
	case strings.HasPrefix(s, "<?xml"):
		return "xml"
	}
	return "text"
}

// narrow turns UTF-16 with a byte order mark into the ASCII that is in it.
func narrow(p []byte) ([]byte, bool) {
	if len(p) < 2 {
		return nil, false
	}
	odd := 0
	switch {
	case p[0] == 0xff && p[1] == 0xfe:
	case p[0] == 0xfe && p[1] == 0xff:
		odd = 1
	default:
		return nil, false
	}
	var out []byte
	for i := 2; i+1 < len(p); i += 2 {
		if c := p[i+odd]; p[i+1-odd] == 0 && c != 0 {
			out = append(out, c)
		} else {
			out = append(out, '?')
		}
	}
	return out, true
}

// printable reports whether octets look like text in any charset that has ASCII in it.
func printable(p []byte) bool {
	control, high := 0, 0
	for _, c := range p {
		switch {
		case c == 0:
			return false
		case c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1b, c == 0x7f:
			control++
		case c >= utf8.RuneSelf:
			high++
		}
	}
	if control > len(p)/50 {
		return false
	}
	return high == 0 || utf8.Valid(p[:max(len(p)-utf8.UTFMax, 0)]) || high*10 < len(p)*4
}

// familyOfExtension says of which family a name claims to be.
var familyOfExtension = sync.OnceValue(func() map[string]string {
	return byFamily(map[string]string{
		familyProgram: "exe dll com scr cpl sys ocx pif msi msp lnk chm hta bat cmd ps1 vbs vbe js jse wsf wsh sh jar class apk elf",
		familyOffice:  "doc docx docm dot dotx dotm xls xlsx xlsm xlsb xlt xltx xltm xlam ppt pptx pptm pps ppsx ppsm pot potx potm rtf odt ods odp odg ott ots one vsd vsdx pub",
		familyPDF:     "pdf",
		familyArchive: "zip 7z rar gz tgz bz2 tbz xz txz zst tar cab ace arj lzh lha wim z lz",
		familyImage:   "png jpg jpeg jpe gif bmp webp tif tiff ico heic heif",
		familyMedia:   "mp3 wav avi mp4 m4a m4v mov ogg oga ogv flac mkv webm swf wma wmv mpg mpeg",
		familyPage:    "html htm xhtml shtml svg mht mhtml",
		familyText:    "txt csv log xml ics vcf md json asc ps eps",
		familyMessage: "eml msg",
		familyDisk:    "iso img vhd vhdx udf dmg",
	})
})

// familyOfType says of which family a claimed type is.
var familyOfType = sync.OnceValue(func() map[string]string {
	return byFamily(map[string]string{
		familyProgram: "application/x-msdownload application/x-dosexec application/x-executable application/java-archive application/x-sh application/x-msdos-program",
		familyOffice:  "application/msword application/vnd.ms-excel application/vnd.ms-powerpoint application/rtf text/rtf application/onenote",
		familyPDF:     "application/pdf application/x-pdf",
		familyArchive: "application/zip application/x-zip-compressed application/x-zip application/gzip application/x-gzip application/x-rar-compressed application/vnd.rar application/x-7z-compressed application/x-tar application/x-compressed application/x-bzip2",
		familyImage:   "image/png image/jpeg image/jpg image/pjpeg image/gif image/bmp image/webp image/tiff image/heic",
		familyMedia:   "audio/mpeg audio/mp3 audio/wav audio/x-wav audio/mp4 audio/ogg video/mp4 video/mpeg video/quicktime video/x-msvideo",
		familyPage:    "text/html application/xhtml+xml image/svg+xml",
		familyText:    "text/csv text/calendar text/vcard text/x-vcard application/json",
		familyMessage: "message/rfc822 application/vnd.ms-outlook",
	})
})

func byFamily(lists map[string]string) map[string]string {
	out := map[string]string{}
	for family, list := range lists {
		for _, x := range strings.Fields(list) {
			out[x] = family
		}
	}
	return out
}

// mismatch reports whether a file is of another family than its name or type says. Where either is unknown, it is not.
func mismatch(ext, declared string, f finding) bool {
	is, ok := formats[f.real]
	if !ok {
		return false
	}
	claimed := familyOfType()[declared]
	if claimed == "" && (strings.HasPrefix(declared, "application/vnd.openxmlformats") || strings.HasPrefix(declared, "application/vnd.oasis.opendocument")) {
		claimed = familyOffice
	}
	return differs(familyOfExtension()[ext], is.family, f) || differs(claimed, is.family, f)
}

func differs(claimed, is string, f finding) bool {
	switch {
	case claimed == "" || claimed == is:
		return false
	case is == familyText: // scripts, pages and mails are texts
		return claimed != familyProgram && claimed != familyPage && claimed != familyMessage && f.real != "xml"
	case is == familyPage && claimed == familyText, is == familyMessage && claimed == familyText:
		return false
	case f.real == "zip" && claimed == familyOffice: // where its list of files is not seen, nothing says that it is none
		return f.archive.Count > 0
	case f.real == "jar" && claimed == familyArchive, f.real == "odf" && claimed == familyArchive:
		return true
	case is == familyProgram && claimed == familyText: // a script sent as text is what it says
		return f.real != "shell" && f.real != "batch"
	case is == familyMessage && claimed == familyOffice:
		return f.real != "msg"
	}
	return true
}
