package peertest

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// A NameServer is a running nsd with zones of the test, and an unbound that asks it.
type NameServer struct {
	Address string // of unbound: what a resolver of ours is told
	NSD     string // of nsd

	t            testing.TB
	nsd, unbound *process
}

// StartNameServer starts nsd with these zones, each a name and its records in zone file form without SOA and NS, and
// unbound, which finds these zones there and knows no others.
func StartNameServer(t testing.TB, zones map[string]string) *NameServer {
	t.Helper()
	return startNameServer(t, zones, false)
}

// StartSignedNameServer is StartNameServer with zones that are signed, and an unbound that validates and trusts their keys.
func StartSignedNameServer(t testing.TB, zones map[string]string) *NameServer {
	t.Helper()
	return startNameServer(t, zones, true)
}

func startNameServer(t testing.TB, zones map[string]string, signed bool) *NameServer {
	t.Helper()
	Need(t, "nsd", "unbound")
	dir := TempDir(t)
	s := &NameServer{t: t, Address: Address(t), NSD: Address(t)}
	host, port, _ := strings.Cut(s.NSD, ":")
	var nsd, unbound, anchors, stubs strings.Builder
	fmt.Fprintf(&nsd, "server:\n  ip-address: %s@%s\n  username: \"\"\n  chroot: \"\"\n  zonesdir: %q\n  database: \"\"\n  pidfile: \"\"\n"+
		"  xfrdfile: \"\"\n  zonelistfile: %q\n  server-count: 1\n  hide-version: yes\n  logfile: %q\nremote-control:\n  control-enable: no\n",
		host, port, dir, filepath.Join(dir, "zone.list"), filepath.Join(dir, "nsd.log"))
	host, at, _ := strings.Cut(s.Address, ":")
	modules := "iterator"
	if signed {
		modules = "validator iterator"
	}
	fmt.Fprintf(&unbound, "server:\n  interface: %s\n  port: %s\n  username: \"\"\n  chroot: \"\"\n  directory: %q\n  pidfile: \"\"\n  use-syslog: no\n"+
		"  logfile: %q\n  do-not-query-localhost: no\n  module-config: %q\n  do-ip6: no\n  num-threads: 1\n  unblock-lan-zones: yes\n"+
		"  insecure-lan-zones: yes\n  local-zone: \"2.0.192.in-addr.arpa.\" nodefault\n  infra-host-ttl: 1\n  cache-max-negative-ttl: 1\n", host, at, dir, filepath.Join(dir, "unbound.log"), modules)
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		file := zone + ".zone"
		text := fmt.Sprintf("$ORIGIN %s.\n$TTL 60\n@ SOA ns.%[1]s. root.%[1]s. 1 3600 600 86400 60\n@ NS ns.%[1]s.\nns A 127.0.0.1\n%s\n", zone, zones[zone])
		if signed {
			var key string
			text, key = signZone(t, zone, text)
			fmt.Fprintf(&anchors, "  trust-anchor: %q\n", key)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&nsd, "zone:\n  name: %q\n  zonefile: %q\n", zone, file)
		fmt.Fprintf(&stubs, "stub-zone:\n  name: %q\n  stub-addr: 127.0.0.1@%s\n", zone, port)
	}
	// What is nowhere does not exist; nobody on the net is asked.
	unbound.WriteString(anchors.String() + stubs.String() + "forward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@" + port + "\n")
	for name, text := range map[string]string{"nsd.conf": nsd.String(), "unbound.conf": unbound.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for name, p := range map[string]*process{"nsd": s.nsd, "unbound": s.unbound} {
			if p != nil {
				p.kill(syscall.SIGKILL)
				<-p.done
			}
			if text, err := os.ReadFile(filepath.Join(dir, name+".log")); err == nil && t.Failed() {
				t.Logf("the log of %s:\n%s", name, tail(string(text), 20))
			}
		}
	})
	first := slices.Sorted(maps.Keys(zones))[0]
	s.nsd = s.run("nsd", s.NSD, first, "-d", "-c", filepath.Join(dir, "nsd.conf"))
	s.unbound = s.run("unbound", s.Address, first, "-d", "-d", "-c", filepath.Join(dir, "unbound.conf"))
	return s
}

// run starts one of them and waits until it answers for a zone.
func (s *NameServer) run(program, address, zone string, args ...string) *process {
	s.t.Helper()
	path, err := lookPath(program)
	if err != nil {
		s.t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := start(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	ask := new(dns.Msg).SetQuestion(zone+".", dns.TypeSOA)
	err = eventually(func() error {
		m, err := dns.Exchange(ask, address)
		if err == nil && len(m.Answer) == 0 {
			err = fmt.Errorf("answers %s", dns.RcodeToString[m.Rcode])
		}
		return err
	}, p.done)
	if err != nil {
		p.kill(syscall.SIGKILL)
		<-p.done
		s.t.Fatalf("start %s: %v\n%s", program, err, out.String())
	}
	return p
}

// Hang has unbound take questions and say nothing more.
func (s *NameServer) Hang() { s.unbound.kill(syscall.SIGSTOP) }

// Continue ends Hang.
func (s *NameServer) Continue() { s.unbound.kill(syscall.SIGCONT) }
