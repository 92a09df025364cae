package program

import (
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func TestCommandsOfAHandOn(t *testing.T) {
	const plain, bits, names = "Subject: x\r\n\r\ntext\r\n", "Subject: x\r\n\r\nt\xc3\xa4xt\r\n", "Subject: \xc3\xa4\r\n\r\ntext\r\n"
	all := pipeline.Asked{UTF8: true, Body: "8BITMIME", Return: "HDRS", EnvelopeID: "e+2B1"}
	tests := []struct {
		name, from, to, orcpt, notify, mail string
		asked                               pipeline.Asked
		offers, says, lost, fails           string
	}{
		{name: "nothing asked, nothing offered", mail: plain, says: "MAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>"},
		{name: "nothing asked, all offered", mail: plain, offers: "SIZE DSN SMTPUTF8 8BITMIME", says: "MAIL FROM:<a@b.example> SIZE=20\nRCPT TO:<c@d.example>"},
		{
			name: "all asked and offered", mail: names, from: "jörg@b.example", to: "grüße@d.example", orcpt: "utf-8;gr\xc3\xbc@d.example", notify: "SUCCESS,FAILURE",
			asked: all, offers: "DSN SMTPUTF8 8BITMIME",
			says: "MAIL FROM:<jörg@b.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B1\nRCPT TO:<grüße@d.example> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;gr\xc3\xbc@d.example",
		},
		{
			name: "without DSN", mail: plain, orcpt: "rfc822;x@d.example", notify: "NEVER", asked: all, offers: "SMTPUTF8 8BITMIME",
			says: "MAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8\nRCPT TO:<c@d.example>", lost: "RET=HDRS ENVID=e+2B1 NOTIFY=NEVER ORCPT=rfc822;x@d.example",
		},
		{
			name: "without SMTPUTF8 that nothing needs", mail: plain, orcpt: "utf-8;gr\xc3\xbc@d.example", asked: all, offers: "DSN",
			says: "MAIL FROM:<a@b.example> RET=HDRS ENVID=e+2B1\nRCPT TO:<c@d.example> ORCPT=utf-8;gr\\x{FC}@d.example",
		},
		{name: "a domain has two forms", mail: plain, from: "a@bücher.example", to: "c@bücher.example", says: "MAIL FROM:<a@xn--bcher-kva.example>\nRCPT TO:<c@xn--bcher-kva.example>"},
		{name: "a sender that needs SMTPUTF8", mail: plain, from: "jörg@b.example", offers: "DSN 8BITMIME", fails: "its addresses need SMTPUTF8, which that server does not offer"},
		{name: "a recipient that needs SMTPUTF8", mail: plain, to: "grüße@d.example", fails: "its addresses need SMTPUTF8, which that server does not offer"},
		{name: "a header that needs SMTPUTF8", mail: names, asked: all, offers: "8BITMIME", fails: "its header needs SMTPUTF8, which that server does not offer"},
		{name: "octets above 127", mail: bits, offers: "8BITMIME", says: "MAIL FROM:<a@b.example> BODY=8BITMIME\nRCPT TO:<c@d.example>"},
		{name: "octets above 127 to an old server", mail: bits, fails: "it has octets above 127 and needs 8BITMIME, which that server does not offer"},
		{name: "7BIT", mail: plain, asked: pipeline.Asked{Body: "7BIT"}, offers: "8BITMIME", says: "MAIL FROM:<a@b.example> BODY=7BIT\nRCPT TO:<c@d.example>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &handOn{from: "a@b.example", asked: tt.asked, mail: []byte(tt.mail), to: pipeline.Recipient{ORCPT: tt.orcpt, Notify: tt.notify, Address: mime.Address{Raw: "c@d.example"}}}
			if tt.from != "" {
				h.from = tt.from
			}
			if tt.to != "" {
				h.to.Address.Raw = tt.to
			}
			offers := map[string]bool{}
			for _, x := range strings.Fields(tt.offers) {
				offers[x] = true
			}
			mail, rcpt, lost, err := h.commands(offers)
			says, fails := strings.Trim(mail+"\n"+rcpt, "\n"), ""
			if err != nil {
				fails = err.Error()
			}
			if says != tt.says || strings.Join(lost, " ") != tt.lost || fails != tt.fails {
				t.Errorf("says\n%s\nwant\n%s\nlost %q, want %q\nfails %q, want %q", says, tt.says, lost, tt.lost, fails, tt.fails)
			}
		})
	}
}

// scripted answers one client after the other, each as one of the dialogues says: what it is to hear, and what it then
// answers. What came instead goes to wrong.
func scripted(t *testing.T, dialogues ...[][2]string) (address string, wrong func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() { // until the last dialogue has ended or the listener is closed, below
		var all []string
		defer func() { ended <- strings.Join(all, "\n") }()
		for _, d := range dialogues {
			conn, err := l.Accept()
			if err != nil {
				all = append(all, err.Error())
				return
			}
			c := textproto.NewConn(conn)
			for _, x := range d {
				heard := ""
				switch x[0] {
				case "":
				case "(mail)":
					_, err = c.ReadDotBytes()
					heard = x[0]
				default:
					heard, err = c.ReadLine()
				}
				if heard != x[0] || err != nil {
					all = append(all, heard+" instead of "+x[0])
				}
				_ = c.PrintfLine("%s", x[1]) // a client that has gone says nothing next
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String(), func() string { _ = l.Close(); return <-ended }
}

// A server gets what the sender of a held mail asked for; what cannot be said to it is not sent, and stays held.
func TestReleaseWithParameters(t *testing.T) {
	end := [][2]string{{"DATA", "354 go"}, {"(mail)", "250 2.0.0 queued"}, {"QUIT", "221 bye"}}
	address, wrong := scripted(t,
		[][2]string{{"", "220 old"}, {"EHLO here.example.org", "250-old\r\n250-DSN\r\n250 8BITMIME"}},
		append([][2]string{
			{"", "220 mta"}, {"EHLO here.example.org", "250-mta\r\n250-dsn\r\n250-8BITMIME\r\n250 SMTPUTF8"},
			{"MAIL FROM:<jörg@b.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B1", "250 ok"},
			{"RCPT TO:<info@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Info@example.net", "251 will forward"},
		}, end...),
		[][2]string{
			{"", "220-mta\r\n220 more"}, {"EHLO here.example.org", "250 mta"}, {"MAIL FROM:<a@b.example>", "250 ok"},
			{"RCPT TO:<info@example.net>", "450 4.2.0 busy"},
		},
		append([][2]string{
			{"", "220 ancient"}, {"EHLO here.example.org", "502 what?"}, {"HELO here.example.org", "250 ancient"},
			{"MAIL FROM:<a@b.example>", "250 ok"}, {"RCPT TO:<info@example.net>", "250 ok"},
		}, end...),
	)
	const base = "hostname: here.example.org\nlisten: {smtp: [\"127.0.0.1:0\"]}\npipeline:\n  - rules: {rules: [{name: hold, when: has(\"Hold\"), quarantine: true}]}\n"
	s := startSite(t, map[string]string{"sluice.yaml": base + "aliases: {info@example.net: [me@example.org]}\n"}, "-c", "sluice.yaml")
	// Without the alias the address is nobody's here, as at a site whose MTA delivers.
	if err := os.WriteFile(filepath.Join(s.dir, "relay.yaml"), []byte(base+"quarantine: {release_to: \"smtp:"+address+"\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hold := func(mail, rcpt, text string) (id string) {
		t.Helper()
		c := s.dial(t, "smtp")
		for _, x := range []struct {
			code int
			line string
		}{{250, "EHLO client.example"}, {250, mail}, {250, rcpt}, {354, "DATA"}, {250, "Hold: yes\r\n" + text + "\r\n."}} {
			if x.code == 250 && x.line == "EHLO client.example" {
				if _, _, err := c.ReadResponse(220); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.PrintfLine("%s", x.line); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.ReadResponse(x.code); err != nil {
				t.Fatalf("%s: %v", x.line, err)
			}
		}
		return strings.Fields(s.run(t, "", "quarantine", "list", "-c", "sluice.yaml"))[0]
	}
	release := func(id string) string {
		t.Helper()
		out, code := s.tried(t, "", "quarantine", "release", "-c", "relay.yaml", id)
		if held := s.run(t, "", "quarantine", "list", "-c", "sluice.yaml"); strings.Contains(held, id) != (code != 0) {
			t.Errorf("%s: exit code %d, held:\n%s", out, code, held)
		}
		return out
	}
	id := hold("MAIL FROM:<jörg@b.example> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=e+2B1",
		"RCPT TO:<info@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Info@example.net", "Message-ID: <one@b.example>\r\n\r\none")
	if out := release(id); out != "sluice: release "+id+": hand it to "+address+": its addresses need SMTPUTF8, which that server does not offer\n" {
		t.Errorf("says %q", out)
	}
	if out := release(id); out != id+" released: handed to "+address+"\n" {
		t.Errorf("says %q", out)
	}
	id = hold("MAIL FROM:<a@b.example> RET=FULL", "RCPT TO:<info@example.net> NOTIFY=FAILURE", "Message-ID: <two@b.example>\r\n\r\ntwo")
	if out := release(id); out != "sluice: release "+id+": hand it to "+address+": RCPT TO:<info@example.net>: 450 4.2.0 busy\n" {
		t.Errorf("says %q", out)
	}
	lost := "handed to " + address + ", which does not offer DSN: not passed on is RET=FULL NOTIFY=FAILURE"
	if out := release(id); out != id+" released: "+lost+"\n" {
		t.Errorf("says %q", out)
	}
	s.explain(t, lost, "-c", "sluice.yaml", id)
	if why := wrong(); why != "" {
		t.Error(why)
	}
}
