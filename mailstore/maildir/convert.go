package maildir

import (
	"bytes"
	"io"
)

const bufferSize = 128 << 10

// copyLF copies a message from src to dst with LF line ends and returns its size as written, and as it will be read with
// CRLF line ends. A CR that stands alone is kept; before another it becomes a space: of CR CR LF a CRLF would be left in
// the file, which readers take for a line end that is not ours to undo.
func copyLF(dst io.Writer, src io.Reader, buf []byte) (disk, wire int64, err error) {
	held := 0        // a CR at the start of buf that waits for what follows it
	wroteCR := false // the last octet written was a CR
	for {
		n, rerr := held, error(nil)
		for n < len(buf) && rerr == nil {
			var k int
			k, rerr = src.Read(buf[n:])
			n += k
		}
		if rerr != nil && rerr != io.EOF {
			return disk, wire, rerr
		}
		loneCR(buf[:n])
		p := dropCR(buf[:n])
		held = 0
		if rerr == nil && len(p) > 0 && p[len(p)-1] == '\r' {
			p, held = p[:len(p)-1], 1
		}
		if len(p) > 0 {
			wire += int64(len(p) + bareLF(p, wroteCR))
			wroteCR = p[len(p)-1] == '\r'
			if _, err := dst.Write(p); err != nil {
				return disk, wire, err
			}
			disk += int64(len(p))
		}
		if rerr == io.EOF {
			return disk, wire, nil
		}
		if held > 0 {
			buf[0] = '\r'
		}
	}
}

// loneCR makes a space of each CR of p that stands before another.
func loneCR(p []byte) {
	for {
		i := bytes.Index(p, []byte("\r\r"))
		if i < 0 {
			return
		}
		p[i] = ' '
		p = p[i+1:]
	}
}

// dropCR takes the CR of each CRLF out of p, in place.
func dropCR(p []byte) []byte {
	r := bytes.Index(p, []byte("\r\n"))
	if r < 0 {
		return p
	}
	w := r
	for {
		// p[r] is the CR of a CRLF.
		r++
		next := bytes.Index(p[r:], []byte("\r\n"))
		if next < 0 {
			w += copy(p[w:], p[r:])
			return p[:w]
		}
		w += copy(p[w:], p[r:r+next])
		r += next
	}
}

// bareLF counts the LFs of p that do not follow a CR: the CRs that appendCRLF adds.
func bareLF(p []byte, afterCR bool) int {
	n := bytes.Count(p, []byte{'\n'})
	if bytes.IndexByte(p, '\r') >= 0 {
		n -= bytes.Count(p, []byte("\r\n"))
	}
	if afterCR && len(p) > 0 && p[0] == '\n' {
		n--
	}
	return n
}

// appendCRLF appends p with CRLF for each bare LF.
func appendCRLF(dst, p []byte, afterCR bool) []byte {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return append(dst, p...)
		}
		dst = append(dst, p[:i]...)
		if i > 0 {
			afterCR = p[i-1] == '\r'
		}
		if !afterCR {
			dst = append(dst, '\r')
		}
		dst = append(dst, '\n')
		afterCR = false
		p = p[i+1:]
	}
	return dst
}

// wireSize returns the size of what r reads with CRLF line ends.
func wireSize(r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10)
	var size int64
	afterCR := false
	for {
		n, err := r.Read(buf)
		if n > 0 {
			size += int64(n + bareLF(buf[:n], afterCR))
			afterCR = buf[n-1] == '\r' //nolint:gosec // n > 0
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
