package peertest

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// roundcubeHome is where Debian keeps Roundcube; what it serves is a folder of it.
const roundcubeHome = "/var/lib/roundcube"

// A Roundcube is Debian's webmail under PHP's own server, with a configuration, a database and logs of its own.
type Roundcube struct {
	URL string
	Dir string

	t       testing.TB
	process *process
}

// StartRoundcube starts a Roundcube whose users read their mail at s and manage their scripts there, over STARTTLS.
func StartRoundcube(t testing.TB, s *Sluice) *Roundcube {
	t.Helper()
	Need(t, "php")
	if _, err := os.Stat(roundcubeHome + "/public_html/index.php"); err != nil {
		lack(t, "roundcube: not installed")
	}
	address := Address(t)
	r := &Roundcube{t: t, URL: "http://" + address, Dir: TempDir(t)}
	for _, dir := range []string{"config", "temp", "logs"} {
		if err := os.Mkdir(filepath.Join(r.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`<?php
$config = [];
$config['db_dsnw'] = 'sqlite:///%[1]s/roundcube.db?mode=0600';
$config['imap_host'] = '%[2]s';
$config['smtp_host'] = '%[3]s';
$config['des_key'] = 'twenty-four octets it is';
$config['plugins'] = ['managesieve'];
$config['temp_dir'] = '%[1]s/temp';
$config['log_dir'] = '%[1]s/logs';
$config['skin'] = 'elastic';
$config['language'] = 'en_US';
$config['enable_installer'] = false;
$config['managesieve_host'] = 'tls://%[4]s';
$config['managesieve_conn_options'] = ['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]];
$config['managesieve_default'] = '';
$config['managesieve_debug'] = true;
$config['managesieve_raw_editor'] = true;
`, r.Dir, s.IMAP, s.SMTP, s.ManageSieve)
	if err := os.WriteFile(filepath.Join(r.Dir, "config", "config.inc.php"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"defaults.inc.php", "mimetypes.php"} {
		if err := os.Symlink(filepath.Join(roundcubeHome, "config", name), filepath.Join(r.Dir, "config", name)); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(r.Dir, "logs", "php"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // PHP has its own copy
	cmd := exec.Command("php", "-S", address, "-t", roundcubeHome+"/public_html")
	cmd.Env = append(os.Environ(), "ROUNDCUBE_CONFIG_DIR="+filepath.Join(r.Dir, "config"))
	cmd.Stdout, cmd.Stderr = log, log
	if r.process, err = start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.process.stop(5 * time.Second)
		if t.Failed() {
			t.Logf("the logs of Roundcube:\n%s", r.logs())
		}
	})
	if err := eventually(func() error { return answers(address) }, r.process.done); err != nil {
		t.Fatalf("start php: %v\n%s", err, r.logs())
	}
	return r
}

func (r *Roundcube) logs() string {
	files, _ := filepath.Glob(filepath.Join(r.Dir, "logs", "*"))
	var all strings.Builder
	for _, f := range files {
		text, _ := os.ReadFile(f)
		fmt.Fprintf(&all, "%s:\n%s\n", filepath.Base(f), tail(string(text), 60))
	}
	return all.String()
}

// A RoundcubeUser is somebody who has logged in, as a browser without scripts sees it.
type RoundcubeUser struct {
	r      *Roundcube
	client *http.Client
	token  string
}

var (
	loginToken   = regexp.MustCompile(`name="_token" value="([^"]+)"`)
	requestToken = regexp.MustCompile(`"request_token":"([^"]+)"`)
	marked       = regexp.MustCompile(`\{"line":"(\d+)","msg":"((?:[^"\\]|\\.)*)"\}`)
	shown        = regexp.MustCompile(`display_message\(("(?:[^"\\]|\\.)*"),"(\w+)"`)
)

// Login logs in.
func (r *Roundcube) Login(account, password string) *RoundcubeUser {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	u := &RoundcubeUser{r: r, client: &http.Client{Jar: jar, Timeout: Patience}}
	r.t.Cleanup(u.client.CloseIdleConnections)
	u.token = u.find(loginToken, u.Get("_task=login"))
	page := u.Post("_task=login", url.Values{
		"_task": {"login"}, "_action": {"login"}, "_timezone": {"UTC"}, "_url": {""}, "_user": {account}, "_pass": {password},
	})
	u.token = u.find(requestToken, page)
	return u
}

func (u *RoundcubeUser) find(what *regexp.Regexp, page string) string {
	u.r.t.Helper()
	m := what.FindStringSubmatch(page)
	if m == nil {
		u.r.t.Fatalf("there is no %s in:\n%.3000s", what, page)
	}
	return html.UnescapeString(m[1])
}

// Get reads a page.
func (u *RoundcubeUser) Get(query string) string {
	u.r.t.Helper()
	return u.read(u.client.Get(u.r.URL + "/?" + query))
}

// Post sends a form, with the token that says that it is of this user.
func (u *RoundcubeUser) Post(query string, form url.Values) string {
	u.r.t.Helper()
	form.Set("_token", u.token)
	return u.read(u.client.PostForm(u.r.URL+"/?"+query, form))
}

func (u *RoundcubeUser) read(answer *http.Response, err error) string {
	u.r.t.Helper()
	if err != nil {
		u.r.t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		u.r.t.Fatalf("%s: %s, %v\n%.3000s", answer.Request.URL, answer.Status, err, page)
	}
	for _, m := range shown.FindAllStringSubmatch(string(page), -1) {
		if m[2] == "error" || m[2] == "warning" {
			u.r.t.Errorf("%s: it shows %s", answer.Request.URL, m[1])
		}
	}
	return string(page)
}

// Filter has the managesieve plug-in make a filter: mail whose field contains text goes to folder.
func (u *RoundcubeUser) Filter(name, field, text, folder string) {
	u.r.t.Helper()
	u.token = u.find(requestToken, u.Get("_task=settings&_action=plugin.managesieve"))
	page := u.Post("_task=settings&_action=plugin.managesieve-save", url.Values{
		"_framed": {"1"}, "_name": {name}, "_fid": {""}, "_enabled": {"1"}, "_join": {"allof"},
		"_header[0]": {field}, "_custom_header[0]": {""}, "_custom_var[0]": {""}, "_rule_op[0]": {"contains"},
		"_rule_target[0][]": {text}, "_rule_mod[0]": {""}, "_rule_mod_type[0]": {""}, "_rule_comp[0]": {""},
		"_action_type[0]": {"fileinto"}, "_action_mailbox[0]": {folder},
	})
	if !strings.Contains(page, `"confirmation"`) {
		u.r.t.Fatalf("the filter was not kept:\n%.5000s", page)
	}
}

// Raw saves a script with the plug-in's editor for scripts, and returns what that marks as wrong, by line.
func (u *RoundcubeUser) Raw(script, text string) map[string]string {
	u.r.t.Helper()
	answer, err := u.client.PostForm(u.r.URL+"/?_task=settings&_action=plugin.managesieve-saveraw", url.Values{
		"_framed": {"1"}, "_seteditraw": {"1"}, "_set": {script}, "rawsetcontent": {text}, "_token": {u.token},
	})
	if err != nil {
		u.r.t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		u.r.t.Fatal(err)
	}
	marks := map[string]string{}
	for _, m := range marked.FindAllSubmatch(page, -1) {
		marks[string(m[1])] = string(m[2])
	}
	return marks
}
