package content

import (
	"bytes"
	"compress/zlib"
	"io"
)

// pdfNames are what is looked for in a PDF, and what it is called in the fact (ISO 32000-1, 7.6, 12.6 and 7.11).
var pdfNames = map[string]string{
	"JavaScript": "javascript", "JS": "javascript", "OpenAction": "open_action", "AA": "open_action", "Launch": "launch",
	"EmbeddedFile": "embedded_file", "EmbeddedFiles": "embedded_file", "Encrypt": "encrypted", "SubmitForm": "submit_form",
	"XFA": "xfa", "RichMedia": "rich_media", "GoToR": "remote_object", "GoToE": "embedded_file", "ImportData": "submit_form",
	"ObjStm": "objects",
}

// pdf looks for names that say what a PDF does. Objects that are packed together are unpacked first, within the limits.
func (x *inspector) pdf(f *finding, b *blob) {
	p := b.head
	if !b.isWhole() {
		f.cut(over("file_size", x.limits.FileSize))
	}
	packed := pdfScan(f, p)
	pdfScan(f, b.tail)
	if packed {
		x.pdfObjects(f, p)
	}
	if !bytes.Contains(p[max(len(p)-2048, 0):], []byte("%%EOF")) && b.isWhole() {
		f.broken("its end is missing")
	}
}

// pdfScan goes through octets and notes the names among them. packed: there are objects in streams.
func pdfScan(f *finding, p []byte) (packed bool) {
	var buf [32]byte
	for {
		i := bytes.IndexByte(p, '/')
		if i < 0 {
			return packed
		}
		p = p[i+1:]
		name, n := pdfName(p, buf[:0])
		p = p[n:]
		if len(name) < 2 || len(name) > 13 {
			continue
		}
		switch what := pdfNames[string(name)]; what {
		case "":
		case "objects":
			packed = true
		case "encrypted":
			f.encrypted = true
		default:
			f.feature(what)
		}
	}
}

// pdfName reads a name, in which characters may be written as #4a (7.3.5), and how many octets it takes.
func pdfName(p, buf []byte) (name []byte, n int) {
	for n < len(p) && len(buf) < cap(buf) {
		c := p[n]
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("()<>[]{}/%"), c) >= 0 {
			break
		}
		if c == '#' && n+2 < len(p) {
			if hi, lo := hexDigit(p[n+1]), hexDigit(p[n+2]); hi >= 0 && lo >= 0 {
				buf = append(buf, byte(hi<<4|lo))
				n += 3
				continue
			}
		}
		buf = append(buf, c)
		n++
	}
	return buf, n
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// pdfObjects unpacks streams of objects (7.5.7), and looks at what they hold.
func (x *inspector) pdfObjects(f *finding, p []byte) {
	const (
		mostStreams = 200
		dictSize    = 512 // octets before the stream in which it must say what it is
		most        = 256 << 10
	)
	for n := 0; ; {
		i := bytes.Index(p, []byte("stream"))
		if i < 0 {
			return
		}
		dict := p[max(i-dictSize, 0):i]
		dict = dict[bytes.LastIndex(dict, []byte("endobj"))+1:]
		p = p[i+len("stream"):]
		if !bytes.Contains(dict, []byte("ObjStm")) || bytes.HasSuffix(dict, []byte("end")) {
			continue
		}
		if n++; n > mostStreams {
			f.cut("more than 200 streams of objects")
			return
		}
		body := bytes.TrimPrefix(bytes.TrimPrefix(p, []byte("\r")), []byte("\n"))
		src, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil {
			if !bytes.Contains(dict, []byte("FlateDecode")) {
				pdfScan(f, body[:min(len(body), most)])
			} else if !f.encrypted {
				f.cut("a stream of objects cannot be unpacked")
			}
			continue
		}
		out, err := x.read(nil, src, most)
		pdfScan(f, out)
		if err == errEnough && x.unpacked <= 0 {
			x.reached.add("unpacked")
			f.cut(over("unpacked", x.limits.Unpacked))
			return
		}
		if err == errEnough {
			f.cut("a stream of objects has more than 256 KiB")
		} else if err != nil && err != io.ErrUnexpectedEOF && !f.encrypted {
			f.cut("a stream of objects cannot be unpacked")
		}
	}
}

// rtf looks for objects in RTF. Control words may be spread by what readers ignore; what is known to run is not.
func (x *inspector) rtf(f *finding, b *blob) {
	if !b.isWhole() {
		f.cut(over("file_size", x.limits.FileSize))
	}
	const mostFields = 10_000
	p, fields := b.head, 0
	for {
		i := bytes.IndexByte(p, '\\')
		if i < 0 {
			return
		}
		p = p[i+1:]
		n := 0
		for n < len(p) && n < 32 && 'a' <= p[n]|0x20 && p[n]|0x20 <= 'z' {
			n++
		}
		switch word := string(p[:n]); word {
		case "objdata", "objocx", "objemb":
			f.feature("ole_object")
		case "objupdate", "objautlink", "objlink":
			f.feature("remote_object")
		case "template":
			if fields++; fields > mostFields {
				f.cut("more than 10000 fields")
			} else if t := bytes.ToLower(p[n:min(len(p), n+200)]); bytes.Contains(t, []byte("http")) || bytes.Contains(t, []byte(`\\\\`)) {
				f.feature("external_template")
			}
		case "fldinst": // {\fldinst DDEAUTO …}
			if fields++; fields > mostFields {
				f.cut("more than 10000 fields")
			} else if bytes.Contains(bytes.ToUpper(p[n:min(len(p), n+128)]), []byte("DDE")) {
				f.feature("dde")
			}
		case "password", "passwordhash":
			f.feature("password")
		}
		p = p[n:]
	}
}
