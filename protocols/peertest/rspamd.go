package peertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// An Rspamd is a running rspamd that knows nothing but GTUBE and the Lua it was given: no Redis, no network, no lists.
type Rspamd struct {
	Address string // of its normal worker, which speaks HTTP
	Milter  string // of its proxy worker, which speaks milter and scans itself
	Dir     string

	t       testing.TB
	process *process
}

// StartRspamd starts an rspamd for the test. lua is its own configuration in Lua, with rspamd_config to register symbols
// in; "" is none.
func StartRspamd(t testing.TB, lua string) *Rspamd {
	t.Helper()
	Need(t, "rspamd")
	r := &Rspamd{t: t, Address: Address(t), Milter: Address(t), Dir: TempDir(t)}
	for name, text := range map[string]string{
		"tld":         "com\norg\nnet\nexample\n", // the whole list takes rspamd ten seconds to compile
		"local.lua":   lua,
		"rspamd.conf": rspamdConf,
	} {
		text = strings.NewReplacer("$DIR", r.Dir, "$NORMAL", r.Address, "$PROXY", r.Milter).Replace(text)
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		r.Stop()
		if t.Failed() {
			t.Logf("the log of rspamd:\n%s", tail(r.Log(), 60))
		}
	})
	r.Start()
	return r
}

const rspamdConf = `
lua = "$DIR/local.lua";
options {
  pidfile = "$DIR/pid";
  control_socket = "$DIR/control.sock mode=0600";
  url_tld = "$DIR/tld";
  filters = "";
  disable_monitoring = true;
  disable_hyperscan = true;
  gtube_patterns = "all";
  dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }
  hs_cache_dir = "$DIR/";
  tempdir = "$DIR/";
  maps_cache_dir = "$DIR/";
  cache_file = "$DIR/symbols.cache";
  history_file = "$DIR/history";
  stats_file = "$DIR/stats";
}
lang_detection { languages_enable = ["en"]; }
logging { type = "file"; filename = "$DIR/log"; level = "info"; }
actions { reject = 15; add_header = 6; greylist = 4; }
worker "normal" { bind_socket = "$NORMAL"; count = 1; }
worker "rspamd_proxy" {
  bind_socket = "$PROXY"; count = 1; milter = yes; timeout = 10s;
  upstream "local" { default = yes; self_scan = yes; }
}
`

// Start starts it, again if it was stopped or killed, and waits until it listens.
func (r *Rspamd) Start() {
	r.t.Helper()
	path, err := lookPath("rspamd")
	if err != nil {
		r.t.Fatal(err)
	}
	// It would change its user; as the test's own it can read its folder.
	if r.process, err = start(exec.Command(path, "-f", "-i", "-c", filepath.Join(r.Dir, "rspamd.conf"))); err != nil {
		r.t.Fatal(err)
	}
	for _, address := range []string{r.Address, r.Milter} {
		if err := eventually(func() error { return answers(address) }, r.process.done); err != nil {
			r.t.Fatalf("start rspamd: %v\n%s", err, tail(r.Log(), 60))
		}
	}
}

// Stop ends it at once, with its workers.
func (r *Rspamd) Stop() {
	if r.process != nil {
		r.process.kill(syscall.SIGKILL) // asked to end, it would wait for connections that are kept
		<-r.process.done
		r.process = nil
	}
}

// Log returns what rspamd has logged so far.
func (r *Rspamd) Log() string {
	b, err := os.ReadFile(filepath.Join(r.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
