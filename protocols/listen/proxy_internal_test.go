package listen

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// v2 makes a header of version 2.
func v2(command, family byte, rest string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(proxySignature) + string([]byte{command, family, byte(len(b) >> 8), byte(len(b))}) + string(b)
}

const (
	ends4 = "c0000201 c0000202 1234 0019" // 192.0.2.1 to 192.0.2.2, port 4660 to 25
	ends6 = "20010db8000000000000000000000001 20010db8000000000000000000000002 1234 0019"
)

func TestReadProxyHeader(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:4660"), netip.MustParseAddrPort("[2001:db8::1]:4660")
	tests := []struct {
		name, in string
		want     proxyHeader
		err      string
	}{
		{name: "v1 IPv4", in: "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\n", want: proxyHeader{client: four}},
		{name: "v1 IPv6", in: "PROXY TCP6 2001:db8::1 2001:db8::2 4660 25\r\n", want: proxyHeader{client: six}},
		{name: "v1 IPv4 in IPv6", in: "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4660 25\r\n", want: proxyHeader{client: four}},
		{name: "v1 unknown", in: "PROXY UNKNOWN\r\n"},
		{name: "v1 unknown with more", in: "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"},
		{name: "v1 longest", in: "PROXY UNKNOWN " + strings.Repeat("x", maxProxyV1-16) + "\r\n"},
		{name: "v1 too long", in: "PROXY UNKNOWN " + strings.Repeat("x", maxProxyV1-15) + "\r\n", err: "longer than 107 octets"},
		{name: "v1 without end", in: "PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\n", err: "ended within"},
		{name: "v1 wrong family", in: "PROXY TCP4 2001:db8::1 2001:db8::2 4660 25\r\n", err: "malformed"},
		{name: "v1 zone", in: "PROXY TCP6 fe80::1%eth0 2001:db8::2 4660 25\r\n", err: "malformed"},
		{name: "v1 leading zero in an address", in: "PROXY TCP4 192.0.02.1 192.0.2.2 4660 25\r\n", err: "malformed"},
		{name: "v1 leading zero in a port", in: "PROXY TCP4 192.0.2.1 192.0.2.2 04660 25\r\n", err: "malformed"},
		{name: "v1 port too large", in: "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", err: "malformed"},
		{name: "v1 two spaces", in: "PROXY TCP4  192.0.2.1 192.0.2.2 4660 25\r\n", err: "malformed"},
		{name: "v1 too few", in: "PROXY TCP4 192.0.2.1 192.0.2.2\r\n", err: "malformed"},
		{name: "v1 unknown protocol", in: "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", err: "malformed"},
		{name: "v1 early end", in: "PROXY TCP\r\n4 192.0.2.1 192.0.2.2 4660 25\r\n", err: "malformed"},
		{name: "v2 IPv4", in: v2(0x21, 0x11, ends4), want: proxyHeader{client: four}},
		{name: "v2 IPv6", in: v2(0x21, 0x21, ends6), want: proxyHeader{client: six}},
		{name: "v2 with TLVs", in: v2(0x21, 0x11, ends4+"04 0003 aabbcc ff"), want: proxyHeader{client: four}},
		{name: "v2 local", in: v2(0x20, 0x00, ""), want: proxyHeader{own: true}},
		{name: "v2 local with addresses", in: v2(0x20, 0x11, ends4), want: proxyHeader{own: true}},
		{name: "v2 unspecified", in: v2(0x21, 0x00, "aabb")},
		{name: "v2 unix", in: v2(0x21, 0x31, strings.Repeat("00", 216))},
		{name: "v2 longest", in: v2(0x21, 0x11, ends4+strings.Repeat("00", maxProxyV2-12)), want: proxyHeader{client: four}},
		{name: "v2 too long", in: v2(0x21, 0x11, ends4+strings.Repeat("00", maxProxyV2-11)), err: "at most 4096"},
		{name: "v2 too short for its addresses", in: v2(0x21, 0x21, ends4), err: "too few"},
		{name: "v2 cut", in: v2(0x21, 0x11, ends4)[:20], err: "ended within"},
		{name: "v2 datagrams", in: v2(0x21, 0x12, ends4), err: "family and transport 0x12"},
		{name: "version 3", in: v2(0x31, 0x11, ends4), err: "version and command 0x31"},
		{name: "unknown command", in: v2(0x22, 0x11, ends4), err: "version and command 0x22"},
		{name: "no header", in: "EHLO client.example\r\n", err: "does not begin with"},
		{name: "nothing", in: "", err: "ended within"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const behind = "EHLO"
			whole := strings.NewReader(tt.in + behind)
			if tt.err == "ended within" || strings.Contains(tt.err, "ended within") {
				whole = strings.NewReader(tt.in)
			}
			for _, in := range []io.Reader{whole, iotest.OneByteReader(strings.NewReader(tt.in + behind))} {
				h, err := readProxyHeader(in)
				if tt.err != "" {
					if err == nil || !strings.Contains(err.Error(), tt.err) {
						t.Fatalf("error %v, want one with %q", err, tt.err)
					}
					return
				}
				if err != nil || h != tt.want {
					t.Fatalf("got %+v, %v; want %+v", h, err, tt.want)
				}
				if rest, _ := io.ReadAll(in); string(rest) != behind {
					t.Errorf("%q is left, want %q", rest, behind)
				}
			}
		})
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 4660 25\r\nEHLO", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::1 1 2\r\n",
		v2(0x21, 0x11, ends4), v2(0x21, 0x21, ends6+"0400"), v2(0x20, 0, ""), "EHLO x\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		h, err := readProxyHeader(r)
		taken := len(in) - r.Len()
		if taken > 16+maxProxyV2 {
			t.Errorf("%d octets were read", taken)
		}
		if err != nil {
			if h != (proxyHeader{}) {
				t.Errorf("an error with %+v", h)
			}
			return
		}
		if a := h.client.Addr(); a.IsValid() && (a.Is4In6() || a.Zone() != "") {
			t.Errorf("client %v", h.client)
		}
		if h.own && h.client.IsValid() {
			t.Errorf("the proxy's own connection has a client: %+v", h)
		}
		// What follows the header makes no difference to it.
		again, err := readProxyHeader(bytes.NewReader(in[:taken]))
		if err != nil || again != h {
			t.Errorf("alone it reads as %+v, %v; with more behind it as %+v", again, err, h)
		}
	})
}
