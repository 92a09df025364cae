package program

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each .socket unit of the example is a door of its configuration, and answers there.
func TestExampleSystemdSockets(t *testing.T) {
	dir := example(t, "systemd", "/var/lib/sluice", "data", "tls: {certificate: /etc/sluice/cert.pem, key: /etc/sluice/key.pem}\n", "")
	units, err := filepath.Glob(filepath.Join(dir, "*.socket"))
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{"smtp": "25", "submission": "587", "submissions": "465", "imaps": "993", "managesieve": "4190"}
	var files []*os.File
	var names []string
	at := map[string]string{}
	for _, unit := range units {
		said := map[string]string{}
		for line := range strings.Lines(read(t, dir, filepath.Base(unit))) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				said[key] = value
			}
		}
		name := said["FileDescriptorName"]
		if filepath.Base(unit) != "sluice-"+name+".socket" || said["ListenStream"] != ports[name] || said["Service"] != "sluice.service" ||
			said["WantedBy"] != "sockets.target" {
			t.Errorf("%s: %v", unit, said)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close(); _ = f.Close() })
		files, names, at[name] = append(files, f), append(names, name), l.Addr().String()
	}
	if len(at) != len(ports) {
		t.Fatalf("there are the sockets %v", names)
	}
	s := startSiteWith(t, map[string]string{"sluice.yaml": read(t, dir, "sluice.yaml")}, files, "sh", "-c",
		fmt.Sprintf("LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s exec sluice serve -c sluice.yaml", len(names), strings.Join(names, ":")))
	if log := s.log.String(); strings.Contains(log, "that no listener names") {
		t.Errorf("a socket is no door:\n%s", log)
	}
	for name, greeting := range map[string]string{
		"smtp": "220 mx.example.org", "submission": "220 mx.example.org", "submissions": "220 mx.example.org", "imaps": "* OK ",
		"managesieve": `"IMPLEMENTATION" "Sluice`,
	} {
		var c net.Conn
		var err error
		if strings.HasSuffix(name, "s") {
			c, err = tls.Dial("tcp", at[name], &tls.Config{InsecureSkipVerify: true})
		} else {
			c, err = net.Dial("tcp", at[name])
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		line := make([]byte, len(greeting))
		if n, err := c.Read(line); err != nil || string(line[:n]) != greeting {
			t.Errorf("%s greets with %q, %v", name, line[:n], err)
		}
		_ = c.Close()
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		return // nor need it be: it is no peer
	}
	out, _ := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, ".socket:") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
}
