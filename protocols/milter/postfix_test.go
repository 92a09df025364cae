package milter

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/protocols/peertest"
)

// behind starts a Postfix that asks the door about mail, from SMTP clients and from its own sendmail, and delivers into
// maildirs.
func (d *door) behind(t *testing.T) (p *peertest.Postfix, mail string) {
	t.Helper()
	dir := peertest.TempDir(t)
	mail = filepath.Join(dir, "mail")
	if err := os.Mkdir(mail, 0o700); err != nil {
		t.Fatal(err)
	}
	var maps []string
	for _, name := range []string{"one", "two", "three", "four", "me", "large", "cron", "bad", "late", "drop", "hold"} {
		maps = append(maps, name+"@example.org="+name+"/")
	}
	const nobody = 65534
	if err := os.Chown(mail, nobody, nobody); err != nil {
		t.Skip("only root may give folders away")
	}
	socket := filepath.Join(dir, "m.sock")
	serveOn(t, d, socket)
	return peertest.StartPostfix(t, peertest.PostfixConfig{
		Dir: dir,
		Main: map[string]string{
			"smtpd_milters":         "unix:" + socket,
			"non_smtpd_milters":     "unix:" + socket,
			"milter_default_action": "tempfail",
			"virtual_transport":     "virtual",
			"virtual_mailbox_base":  mail,
			"virtual_mailbox_maps":  "inline:{" + strings.Join(maps, ", ") + "}",
			"mailbox_size_limit":    "0",
			"virtual_mailbox_limit": "0",
			"virtual_uid_maps":      "static:65534",
			"virtual_gid_maps":      "static:65534",
		},
	}), mail
}

// delivered waits for n mails of a mailbox and returns them by the order of their names.
func delivered(t *testing.T, mail, mailbox string, n int) []string {
	t.Helper()
	var files []string
	peertest.Eventually(t, func() error {
		files, _ = filepath.Glob(filepath.Join(mail, mailbox, "new", "*"))
		if len(files) != n {
			return fmt.Errorf("%s has %d mails, not %d", mailbox, len(files), n)
		}
		return nil
	})
	slices.Sort(files)
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

func TestUnderPostfix(t *testing.T) {
	d := open(t, nil,
		says("bad", pipeline.Rcpt, reject("100% not wanted"), "bad"),
		says("late", pipeline.Content, reject("refused after DATA\n5% of it: zu groß"), "late"),
		says("drop", pipeline.Content, pipeline.Verdict{Action: pipeline.Discard}, "drop"),
		says("hold", pipeline.Content, pipeline.Verdict{Action: pipeline.Quarantine}, "hold"))
	p, mail := d.behind(t)
	send := func(data string, args ...string) (string, int) {
		return peertest.Swaks(t, append([]string{"--server", p.Address, "--from", "a@sender.example", "--data", data}, args...)...)
	}

	t.Run("delivered", func(t *testing.T) {
		data := "X-Sluice-Id: forged\nSubject:no space\nX-Sluice-Id: forged too\nX-Folded: a\n\tb\nX-Spam-Flag: YES\n\nbody\n..\n"
		if out, code := send(data, "--to", "one@example.org", "--xclient", "ADDR=192.0.2.7 NAME=client.example HELO=client.example"); code != 0 {
			t.Fatal(out)
		}
		got := delivered(t, mail, "one", 1)[0]
		if n := strings.Count(got, "X-Sluice-Id: "); n != 1 || strings.Contains(got, "forged") || strings.Contains(got, "X-Spam-Flag") {
			t.Errorf("%d fields of ours, or forged ones:\n%s", n, got)
		}
		id, received := strings.Index(got, "X-Sluice-Id: "), strings.Index(got, "Received: ")
		if id < 0 || received < id {
			t.Errorf("our field is not above Postfix's Received:\n%s", got)
		}
		// What stages see is what Postfix has: nothing was added to a value or taken away.
		for _, want := range []string{"Subject:no space\r\n", "X-Folded: a\r\n\tb\r\n"} {
			if !strings.Contains(d.last().text, want) {
				t.Errorf("stages do not see %q:\n%q", want, d.last().text)
			}
		}
		if !strings.Contains(d.last().text, "\r\n\r\nbody\r\n..\r\n") {
			t.Errorf("the body stages see:\n%q", d.last().text)
		}
		if v := d.last(); v.Client.Addr != netip.MustParseAddr("192.0.2.7") || v.Client.Name != "client.example" {
			t.Errorf("the client is %+v", v.Client)
		}
		if r, _ := d.journal.Last(); r.QueueID == "" || !strings.Contains(p.Log(), r.QueueID+": ") {
			t.Errorf("the queue id is %q", r.QueueID)
		}
	})
	t.Run("refused at RCPT", func(t *testing.T) {
		out, code := send("Subject: x\n\nbody\n", "--to", "bad@example.org")
		if code == 0 || !strings.Contains(out, "550 5.7.1 100% not wanted") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
	t.Run("one refused of three, alone; the others as they were spelt", func(t *testing.T) {
		out, code := send("Subject: x\n\nbody\n", "--to", "two@example.org,Bad@Example.Org,Drop@Example.org,three@example.org,HOLD@example.ORG")
		if code != 0 || !strings.Contains(out, "550 5.7.1 100% not wanted") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		delivered(t, mail, "two", 1)
		delivered(t, mail, "three", 1)
		for _, name := range []string{"Drop", "drop", "HOLD", "hold", "Bad", "bad"} {
			if _, err := os.Stat(filepath.Join(mail, name)); err == nil {
				t.Errorf("%s got the mail", name)
			}
		}
		if len(d.held.held) != 1 || d.held.held[0].Recipients[0].Address != "hold@example.org" {
			t.Errorf("held: %+v", d.held.held)
		}
		if queued, _ := peertest.Run(t, "postqueue", "-c", filepath.Join(p.Dir, "etc"), "-p"); !strings.Contains(queued, "empty") {
			t.Errorf("the queue of Postfix: %s", queued)
		}
	})
	t.Run("refused at the end", func(t *testing.T) {
		out, code := send("Subject: x\n\nbody\n", "--to", "late@example.org")
		if code == 0 || !strings.Contains(out, "550-5.7.1 refused after DATA\n") || !strings.Contains(out, "550 5.7.1 5% of it: zu gross\n") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
	t.Run("all discarded", func(t *testing.T) {
		if out, code := send("Subject: x\n\nbody\n", "--to", "drop@example.org"); code != 0 {
			t.Error(out)
		}
	})
	t.Run("a large message", func(t *testing.T) {
		body := strings.Repeat(strings.Repeat("x", 900)+"\n", 3000)
		file := filepath.Join(p.Dir, "large")
		if err := os.WriteFile(file, []byte("Subject: large\n\n"+body), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := send("@"+file, "--to", "large@example.org"); code != 0 {
			t.Fatal(out)
		}
		if got := delivered(t, mail, "large", 1)[0]; !strings.HasSuffix(got, "\n\n"+body) && !strings.Contains(got, body) {
			t.Errorf("%d octets arrived", len(got))
		}
		if size := d.last().Message.Size(); size < int64(len(body)) {
			t.Errorf("stages saw %d octets", size)
		}
	})
	t.Run("from no SMTP client", func(t *testing.T) {
		for _, to := range []string{"four@example.org", "bad@example.org"} {
			if out, code := p.Submit("Subject: local\n\nbody\n", "-f", "cron@example.org", to); code != 0 {
				t.Fatal(out)
			}
		}
		delivered(t, mail, "four", 1)
		// Postfix bounces the refused one to whoever submitted it, who is here. It is not kept.
		delivered(t, mail, "cron", 1)
		if strings.Contains(p.Log(), "milter configuration error") {
			t.Error("Postfix takes the refusal for a fault of ours")
		}
	})
	if log := p.Log(); strings.Contains(log, "warning: ") {
		for line := range strings.Lines(log) {
			if strings.Contains(line, "warning: ") && !strings.Contains(line, "dns") {
				t.Errorf("Postfix warns: %s", line)
			}
		}
	}
}

// A milter that is not there, or goes, makes Postfix postpone; a later message of the same connection works once it is
// back.
func TestPostfixWithoutUs(t *testing.T) {
	d := open(t, nil)
	p, _ := d.behind(t)
	if out, code := peertest.Swaks(t, "--server", p.Address, "--to", "me@example.org"); code != 0 {
		t.Fatal(out)
	}
	if err := d.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, code := peertest.Swaks(t, "--server", p.Address, "--to", "me@example.org")
	if code == 0 || !strings.Contains(out, "451 4.7.1 Service unavailable - try again later") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	back := open(t, nil)
	serveOn(t, back, filepath.Join(p.Dir, "m.sock"))
	if out, code := peertest.Swaks(t, "--server", p.Address, "--to", "me@example.org"); code != 0 {
		t.Errorf("once the milter is back: %s", out)
	}
}
