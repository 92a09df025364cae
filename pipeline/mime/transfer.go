package mime

import (
	"bytes"
	"encoding/base64"

	"golang.org/x/text/transform"
)

// A base64Decoder decodes base64 as mail clients do: what is not of the alphabet is skipped, padding ends a group and
// not the content, a missing end is made up for. Behind padding a line counts only if all of it is base64: mailing lists
// add their text there as it stands.
type base64Decoder struct {
	acc    uint32
	n      int  // sextets in acc
	bad    int  // octets that have no place in base64 (RFC 2045, 6.8)
	words  bool // the last octets were white space in the midst of a line
	padded bool // padding was seen
	fresh  bool // what follows has to be looked at first, up to the end of the line
	skip   bool // the rest of the line does not count
	slow   bool // the line is not plain base64, so it is read octet by octet
}

func (d *base64Decoder) Reset() { *d = base64Decoder{} }

const notBase64, spaceInBase64, padding = 0xff, 0xfe, 0xfd

// sextet returns the value of an octet of the alphabet, or what else it is.
func sextet(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c - 'A'
	case 'a' <= c && c <= 'z':
		return c - 'a' + 26
	case '0' <= c && c <= '9':
		return c - '0' + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	case c == '=':
		return padding
	case c == '\r' || c == '\n' || c == ' ' || c == '\t':
		return spaceInBase64
	}
	return notBase64
}

// Transform implements [transform.Transformer].
func (d *base64Decoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for ; nSrc < len(src); nSrc++ {
		if len(dst)-nDst < 3 {
			return nDst, nSrc, transform.ErrShortDst
		}
		if d.n == 0 && !d.slow && !d.fresh && !d.skip && !d.words {
			read, written := decodeLine(dst[nDst:], src[nSrc:])
			d.slow = read == 0
			nDst += written
			if nSrc += read; nSrc == len(src) {
				break
			}
			if len(dst)-nDst < 3 {
				return nDst, nSrc, transform.ErrShortDst
			}
		}
		c := src[nSrc]
		v := sextet(c)
		if c == '\n' {
			d.slow = false
		}
		if d.padded && c == '\n' {
			d.fresh, d.skip = true, false
		}
		if d.fresh && v != spaceInBase64 && v != padding {
			line, ok := lineOf(src[nSrc:], atEOF)
			if !ok {
				return nDst, nSrc, transform.ErrShortSrc
			}
			d.fresh, d.skip = false, !isBase64(line)
		}
		if d.skip {
			d.bad++
			continue
		}
		switch v {
		case spaceInBase64:
			d.words = c == ' ' || c == '\t'
		case notBase64:
			d.bad++
		case padding:
			nDst += d.flush(dst[nDst:])
			if !d.padded { // each line is looked at once
				d.padded, d.fresh = true, true
			}
		default:
			if d.words && d.n != 0 { // a line that begins with white space is common
				d.bad++
			}
			d.words = false
			d.acc = d.acc<<6 | uint32(v)
			if d.n++; d.n == 4 {
				dst[nDst], dst[nDst+1], dst[nDst+2] = byte(d.acc>>16), byte(d.acc>>8), byte(d.acc)
				nDst += 3
				d.acc, d.n = 0, 0
			}
		}
	}
	if atEOF {
		if len(dst)-nDst < 3 {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += d.flush(dst[nDst:])
	}
	return nDst, nSrc, nil
}

// decodeLine decodes whole groups up to the end of the line, if there is nothing else; most lines are so.
func decodeLine(dst, src []byte) (read, written int) {
	line := src
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = bytes.TrimSuffix(line[:i], []byte("\r"))
	}
	line = line[:min(len(line), len(dst)/3*4)]
	line = line[:len(line)/4*4]
	n, err := base64.StdEncoding.Decode(dst, line)
	if err != nil || n != len(line)/4*3 { // padding is looked at with care
		return 0, 0
	}
	return len(line), n
}

// lineOf returns the line at the beginning of p, or as much of it as counts; ok is false if more has to be read first.
func lineOf(p []byte, atEOF bool) (line []byte, ok bool) {
	const longest = 1000
	if i := bytes.IndexByte(p[:min(len(p), longest)], '\n'); i >= 0 {
		return p[:i], true
	}
	return p[:min(len(p), longest)], atEOF || len(p) >= longest
}

// isBase64 reports whether a line is made of base64, without white space but at its end.
func isBase64(line []byte) bool {
	for _, c := range bytes.TrimRight(line, " \t\r") {
		if v := sextet(c); v == notBase64 || v == spaceInBase64 {
			return false
		}
	}
	return true
}

// flush writes what a group that ends early stands for.
func (d *base64Decoder) flush(dst []byte) (n int) {
	switch d.n {
	case 1:
		d.bad++
	case 2:
		dst[0] = byte(d.acc >> 4)
		n = 1
	case 3:
		dst[0], dst[1] = byte(d.acc>>10), byte(d.acc>>2)
		n = 2
	}
	d.acc, d.n = 0, 0
	return n
}

// A quotedDecoder decodes quoted-printable (RFC 2045, 6.7). What is wrong stays as it is.
type quotedDecoder struct {
	bad int
}

func (d *quotedDecoder) Reset() { *d = quotedDecoder{} }

// lookAhead is how much white space before a line end is looked at. It has to fit into the buffer of a
// transform.Reader several times.
const lookAhead = 256

// Transform implements [transform.Transformer].
func (d *quotedDecoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		rest := src[nSrc:]
		switch c := rest[0]; c {
		case '=', ' ', '\t':
			run := 0 // white space, after the "="
			from := rest
			if c == '=' {
				from = rest[1:]
			}
			for run < len(from) && run < lookAhead && (from[run] == ' ' || from[run] == '\t') {
				run++
			}
			if len(from)-run < 2 && !atEOF {
				return nDst, nSrc, transform.ErrShortSrc
			}
			end := from[run:]
			ends := len(end) == 0 || end[0] == '\n' || bytes.HasPrefix(end, []byte("\r\n"))
			switch {
			case c == '=' && ends: // a soft line break
				nSrc += 1 + run + min(len(end), bytes.IndexByte(end, '\n')+1)
			case c == '=':
				if len(dst) == nDst {
					return nDst, nSrc, transform.ErrShortDst
				}
				if len(from) >= 2 && isHex(from[0]) && isHex(from[1]) {
					dst[nDst] = hexValue(from[0])<<4 | hexValue(from[1])
					nSrc += 3
				} else {
					dst[nDst] = '='
					d.bad++
					nSrc++
				}
				nDst++
			case ends && run < lookAhead: // RFC 2045, 6.7, rule 3: added on the way
				nSrc += run
			default:
				if len(dst)-nDst < run {
					return nDst, nSrc, transform.ErrShortDst
				}
				nDst += copy(dst[nDst:], rest[:run])
				nSrc += run
			}
		default:
			n := bytes.IndexAny(rest, "= \t")
			if n < 0 {
				n = len(rest)
			}
			if n = copy(dst[nDst:], rest[:n]); n == 0 {
				return nDst, nSrc, transform.ErrShortDst
			}
			nDst += n
			nSrc += n
		}
	}
	return nDst, nSrc, nil
}
