package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// A proxyHeader is what a proxy says about a connection before anything else (the PROXY protocol of HAProxy, versions
// 1 and 2).
type proxyHeader struct {
	// own: the proxy connects for itself, to see whether we are alive (LOCAL).
	own bool
	// client is who connects, zero if the proxy does not know or the client came by no IP (UNKNOWN, AF_UNSPEC, AF_UNIX).
	client netip.AddrPort
}

const (
	maxProxyV1 = 107 // proxy-protocol.txt, 2.1: the longest line, its end included
	// maxProxyV2 bounds what follows the fixed part of version 2, addresses and TLVs. Those that are known, with a
	// certificate's name and a unique id, stay well below.
	maxProxyV2 = 4096
)

var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errNoProxyHeader = errors.New("the peer does not begin with a PROXY header")

// readProxyHeader reads a header and not one octet more: what follows is the client's.
func readProxyHeader(r io.Reader) (proxyHeader, error) {
	// Both versions have at least as many octets as version 2's fixed part, but for "PROXY UNKNOWN\r\n", which has one
	// less.
	var fixed [16]byte
	if _, err := io.ReadFull(r, fixed[:len(proxySignature)]); err != nil {
		return proxyHeader{}, brokenProxy(err)
	}
	switch begin := fixed[:len(proxySignature)]; {
	case bytes.Equal(begin, proxySignature):
		if _, err := io.ReadFull(r, fixed[len(proxySignature):]); err != nil {
			return proxyHeader{}, brokenProxy(err)
		}
		return readProxyV2(r, fixed)
	case bytes.HasPrefix(begin, []byte("PROXY ")):
		return readProxyV1(r, begin)
	}
	return proxyHeader{}, errNoProxyHeader
}

func brokenProxy(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection ended within the PROXY header")
	}
	return fmt.Errorf("read the PROXY header: %w", err)
}

func readProxyV1(r io.Reader, begin []byte) (proxyHeader, error) {
	line := make([]byte, len(begin), maxProxyV1)
	copy(line, begin)
	if bytes.ContainsAny(line, "\r\n") {
		return proxyHeader{}, errors.New("malformed PROXY header")
	}
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxProxyV1 {
			return proxyHeader{}, fmt.Errorf("the PROXY header is longer than %d octets", maxProxyV1)
		}
		// One octet at a time, for nothing behind the line end may be taken.
		line = line[:len(line)+1]
		if _, err := io.ReadFull(r, line[len(line)-1:]); err != nil {
			return proxyHeader{}, brokenProxy(err)
		}
	}
	return parseProxyV1(string(line[:len(line)-2]))
}

// parseProxyV1 reads "PROXY TCP4 SOURCE DESTINATION PORT PORT".
func parseProxyV1(line string) (proxyHeader, error) {
	malformed := fmt.Errorf("malformed PROXY header %q", line)
	if line == "PROXY UNKNOWN" || strings.HasPrefix(line, "PROXY UNKNOWN ") {
		return proxyHeader{}, nil
	}
	f := strings.Split(line, " ")
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return proxyHeader{}, malformed
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		a, err := netip.ParseAddr(f[2+i])
		port, ok := proxyPort(f[4+i])
		if err != nil || !ok || a.Zone() != "" || a.Is4() != (f[1] == "TCP4") {
			return proxyHeader{}, malformed
		}
		ends[i] = netip.AddrPortFrom(a.Unmap(), port)
	}
	return proxyHeader{client: ends[0]}, nil
}

// proxyPort reads a port in its one spelling: digits, no leading zero.
func proxyPort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && strconv.FormatUint(n, 10) == s
}

func readProxyV2(r io.Reader, fixed [16]byte) (proxyHeader, error) {
	version, command, family := fixed[12]>>4, fixed[12]&0xf, fixed[13]
	length := int(binary.BigEndian.Uint16(fixed[14:]))
	switch {
	case version != 2 || command > 1:
		return proxyHeader{}, fmt.Errorf("PROXY header of version and command %#x", fixed[12])
	case length > maxProxyV2:
		return proxyHeader{}, fmt.Errorf("the PROXY header has %d octets, at most %d are read", length, maxProxyV2)
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return proxyHeader{}, brokenProxy(err)
	}
	if command == 0 {
		return proxyHeader{own: true}, nil
	}
	var size int // of one address
	switch family {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	case 0x00, 0x31, 0x32: // unspecified, unix stream and datagram
		return proxyHeader{}, nil
	default:
		return proxyHeader{}, fmt.Errorf("PROXY header of family and transport %#x", family)
	}
	if length < 2*size+4 {
		return proxyHeader{}, fmt.Errorf("the PROXY header has %d octets, too few for its addresses", length)
	}
	// Behind the addresses stand TLVs. They are not looked at.
	a, _ := netip.AddrFromSlice(rest[:size])
	return proxyHeader{client: netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(rest[2*size:]))}, nil
}
