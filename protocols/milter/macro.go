package milter

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/pipeline"
)

// macros are what an MTA gave with each stage, as it came: names and values, each with a NUL behind. Every stage replaces
// only its own, and few are ever looked at.
type macros map[gomilter.Code]string

func (m macros) set(stage gomilter.Code, data []byte) { m[stage] = string(data) }

// of returns the value of a macro (without braces) at the first of the stages that has one.
func (m macros) of(name string, stages ...gomilter.Code) string {
	for _, s := range stages {
		for rest := m[s]; rest != ""; {
			var key, value string
			key, rest, _ = strings.Cut(rest, "\x00")
			value, rest, _ = strings.Cut(rest, "\x00")
			if value != "" && strings.Trim(key, "{}") == name {
				return value
			}
		}
	}
	return ""
}

// only drops the values of all other stages: they were about a message that has ended.
func (m macros) only(stages ...gomilter.Code) {
	for stage := range m {
		if !slices.Contains(stages, stage) {
			delete(m, stage)
		}
	}
}

// A peer is the client as a connect event names it.
type peer struct {
	host string
	addr netip.Addr
}

// parsePeer reads "host NUL family [port address NUL]".
func parsePeer(data []byte) (peer, error) {
	host, rest, ok := bytes.Cut(data, []byte{0})
	if !ok || len(rest) == 0 {
		return peer{}, errors.New("a short connect packet")
	}
	p := peer{host: string(host)}
	family, rest := gomilter.ProtoFamily(rest[0]), rest[1:]
	if family != gomilter.FamilyInet && family != gomilter.FamilyInet6 {
		return p, nil
	}
	if len(rest) < 2 {
		return peer{}, errors.New("a connect packet without a port")
	}
	addr, _, _ := bytes.Cut(rest[2:], []byte{0}) // after the port
	p.addr = parseAddr(string(addr))
	return p, nil
}

// parseAddr reads an address as MTAs write them; RFC 5321, 4.1.3 has "IPv6:" before those of IPv6.
func parseAddr(s string) netip.Addr {
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		s = s[5:]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// identify returns who the MTA says is connected.
func (c *conn) identify() pipeline.Client {
	addr := c.peer.addr
	if !addr.IsValid() {
		addr = parseAddr(c.macros.of("client_addr", gomilter.CodeConn))
	}
	cl := pipeline.Client{Addr: addr, Name: c.peer.host}
	switch {
	case !addr.IsValid():
		return pipeline.Client{}
	case cl.Name == "unknown" || strings.HasPrefix(cl.Name, "["):
		cl.Name = ""
	}
	// Sendmail gives the name also if it doesn't lead back to the address; Postfix never does.
	if resolved := c.macros.of("client_resolve", gomilter.CodeConn); resolved != "" && resolved != "OK" {
		cl.Name = ""
	}
	cl.Trusted = c.server.cfg.Trusted(addr)
	return cl
}
