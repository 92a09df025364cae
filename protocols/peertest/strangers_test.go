package peertest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
)

// Every scanner that asks the DNS, with real name servers, by SMTP and through Postfix.
func TestStrangers(t *testing.T) {
	ns := StartNameServer(t, map[string]string{
		"zen.lists.example":    "2.0.0.127 A 127.0.0.2\n7.2.0.192 A 127.0.0.4\n7.2.0.192 A 127.0.0.11\n",
		"all.lists.example":    "* A 127.0.0.2\n2.0.0.127 A 127.0.0.2\n1.0.0.127 A 127.0.0.2\n",
		"uri.lists.example":    "test A 127.0.0.2\nbad.example A 127.0.0.12\n",
		"2.0.192.in-addr.arpa": "7 PTR host7.client.example.\n8 PTR mx.good.example.\n",
		"client.example":       "host7 A 192.0.2.99\n",
		"good.example":         "@ TXT \"v=spf1 a:mx.good.example -all\"\nmx A 192.0.2.8\n@ MX 10 mx\n",
		"strict.example":       "@ TXT \"v=spf1 include:more.strict.example -all\"\nmore TXT \"v=spf1 ip4:203.0.113.0/24\"\n@ MX 10 mx\n",
	})
	s := StartSluice(t, SluiceConfig{
		Dir: TempDir(t),
		YAML: fmt.Sprintf(`domains: [example.org]
trusted: [127.0.0.0/8]
resolver: {servers: [%q], timeout: 3s, attempts: 1}
pipeline:
  - spf: {}
  - dnsbl: {lists: {zen: {zone: zen.lists.example, answers: {xbl: [127.0.0.4], pbl: [127.0.0.10/31]}}, everybody: {zone: all.lists.example}}}
  - rdns: {}
  - helo: {}
  - greylist: {}
  - ratelimit: {limit: 3, per: 7d, by: [sender]}
  - links: {lists: {uri: {zone: uri.lists.example, answers: {phishing: ["&8"]}}}}
  - replies: {}
  - rules: {files: [rules.yaml], junk: 5}
`, ns.Address),
		Files: map[string]string{"rules.yaml": `rules:
  - {name: later, when: 'greylist.new and from.local == "grey"', tempfail: 4.7.1 try again}
  - {name: flood, when: ratelimit.exceeded, tempfail: 4.7.1 too much}
  - {name: forged, when: 'spf.result == "fail" and rdns.result == "fail"', score: 1}
  - {name: everybody, when: dnsbl.everybody.listed, reject: 5.7.1 listed by a list that lists everybody}
  - {name: phishing, when: '"phishing" in uribl.uri.names', file: Phishing}
  - {name: listed, when: '"xbl" in dnsbl.zen.names', score: 1}
  - {name: papers, when: 'rdns.confirmed and greeting.matches and spf.result == "pass"', score: -1}
`},
		Accounts: []string{"me@example.org"},
	})
	p := StartPostfix(t, PostfixConfig{Main: map[string]string{
		"smtpd_milters":         "unix:" + s.MilterSocket,
		"milter_default_action": "tempfail",
		"virtual_transport":     "lmtp:unix:" + s.LMTPSocket,
	}})
	doors := map[string]string{"smtp": s.SMTP, "milter": p.Address}
	send := func(door, client, helo, from, id, body string) (string, int) {
		name := "[UNAVAILABLE]"
		return Swaks(t, "--server", doors[door], "--xclient", "ADDR="+client+" NAME="+name, "--helo", helo, "--from", from, "--to", "me@example.org",
			"--data", fmt.Sprintf("Subject: hello\nMessage-ID: <%s>\nFrom: %s\nTo: me@example.org\n\n%s\n", id, from, body))
	}
	facts := func(id string) map[string]map[string]any {
		t.Helper()
		rs := s.records(id)
		if len(rs) == 0 {
			t.Fatalf("no record of %s", id)
		}
		out := map[string]map[string]any{}
		r := rs[0]
		steps := r.Steps
		for _, x := range r.Recipients {
			steps = append(steps, x.Steps...)
		}
		for _, step := range steps {
			if step.Fact == nil {
				continue
			}
			var f map[string]any
			if err := json.Unmarshal(step.Fact, &f); err != nil {
				t.Fatal(err)
			}
			if step.Missing != nil {
				f["missing"] = step.Missing
			}
			out[step.Name] = f
		}
		return out
	}
	hits := func(id string) string {
		var names []string
		for _, r := range s.records(id) {
			var all []pipeline.StepRecord
			all = append(all, r.Steps...)
			for _, x := range r.Recipients {
				all = append(all, x.Steps...)
			}
			for _, step := range all {
				for _, h := range step.Hits {
					names = append(names, h.Name)
				}
			}
		}
		return strings.Join(names, " ")
	}
	for i, door := range []string{"smtp", "milter"} {
		t.Run(door, func(t *testing.T) {
			id, arrived := "papers@"+door, 1+4*i
			if out, code := send(door, "192.0.2.8", "mx.good.example", "a"+door+"@good.example", id, "nothing"); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, out)
			}
			s.Mails("me@example.org", "", arrived) // the other door has sent four
			f := facts(id)
			if f["spf"]["result"] != "pass" || f["rdns"]["name"] != "mx.good.example" || f["greeting"]["matches"] != true || f["uribl"]["uri"] == nil {
				t.Errorf("%v", f)
			}
			if got := hits(id); got != "papers" {
				t.Errorf("rules that hold: %s", got)
			}
			if why := fmt.Sprint(f["dnsbl"]["missing"]); !strings.Contains(why, "switched off: it lists everybody") {
				t.Errorf("a list that lists everybody: %s", why)
			}
			id = "forged@" + door
			if out, code := send(door, "192.0.2.7", "host7.client.example", "a"+door+"@strict.example", id, "see http://www.bad.example/x"); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, out)
			}
			s.Mails("me@example.org", "Phishing", 1+i)
			if got := hits(id); got != "listed forged phishing" && got != "forged phishing listed" {
				t.Errorf("rules that hold: %s", got)
			}
			if out, code := send(door, "192.0.2.7", "x", "grey@"+door+".example", "grey@"+door, "x"); code == 0 || !strings.Contains(out, "4.7.1 try again") {
				t.Errorf("exit code %d:\n%s", code, out)
			}
			for n := range 4 {
				out, code := send(door, "192.0.2.8", "x", "much@"+door+".example", fmt.Sprintf("much%d@%s", n, door), "x")
				if (code == 0) != (n < 3) || n == 3 && !strings.Contains(out, "4.7.1 too much") {
					t.Errorf("the %d.: exit code %d:\n%s", n+1, code, out)
				}
			}
		})
	}
	if n := strings.Count(s.Log(), "a DNS list is of no use"); n != 1 {
		t.Errorf("%d alarms about the list that lists everybody, want one", n)
	}

	// The name servers go silent: mail goes on, and the record says what is not known.
	ns.Hang()
	defer ns.Continue()
	if out, code := send("smtp", "192.0.2.77", "new.client.example", "a@silent.example", "silent@smtp", "x"); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	text := s.Explain("silent@smtp")
	for _, want := range []string{"spf", "rdns", "dnsbl"} {
		if !strings.Contains(text, want) {
			t.Errorf("explain does not name %s:\n%s", want, text)
		}
	}
	for _, step := range s.records("silent@smtp")[0].Steps {
		if step.Name == "spf" || step.Name == "rdns" || step.Name == "dnsbl" {
			if step.Unknown == "" || step.Fact != nil {
				t.Errorf("%s: fact %s, unknown %q", step.Name, step.Fact, step.Unknown)
			}
		}
	}
}
