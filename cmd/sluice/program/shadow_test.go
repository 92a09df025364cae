package program

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shadowSteps do all that a shadow step can do wrong: they hang for longer than the test may take, crash and fail, and the
// last wants to refuse everything.
const shadowSteps = `  - moody: {name: hanging, does: hang, shadow: true, timeout: 1h, on_error: refuse}
  - moody: {name: crashing, does: panic, shadow: true, on_error: refuse}
  - moody: {name: failing, does: fail, shadow: true, on_error: postpone}
  - rules: {name: strict, shadow: true, rules: [{name: shadow_all, when: true, reject: true, file: Shadow, flag: shadow, header: {X-Shadow: "yes"}}]}
`

// What differs between two runs of one program, whatever it is told.
var fleeting = regexp.MustCompile(`\b[0-9a-z]{18,20}\b|[A-Z][a-z]{2}, [ 0-9]?[0-9] [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [-+][0-9]{4}|X-Sluice-Id: \S+ \S+|X-Sluice-Id HeaderValue:\S+ \S+`)

func steady(s string) string { return fleeting.ReplaceAllString(s, "…") }

// filed is every file of the delivered and of the held mail, by folder.
func filed(t *testing.T, s *site) (all []string) {
	t.Helper()
	for _, dir := range []string{"mail", "quarantine"} {
		root := filepath.Join(s.dir, "sluice-data", dir)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.Contains(filepath.Dir(path), "/new") && !strings.Contains(filepath.Dir(path), "/cur") && !strings.HasSuffix(path, ".eml") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			folder, err := filepath.Rel(root, filepath.Dir(path))
			_, flags, _ := strings.Cut(filepath.Base(path), ":2,")
			all = append(all, steady(dir+" "+folder+" "+flags+"\n"+string(text)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

// Through every door answers and delivered octets are the same with shadow steps and shadow rules as without, and nobody
// waits for a shadow step that hangs: it would take hours. What was not finished when the program ends its records say.
func TestShadowAtAllDoors(t *testing.T) {
	without := strings.Replace(corpusRules(""), "  - name: tried\n    when: \"size > 0\"\n    shadow: true\n    reject: true\n", "", 1)
	if without == corpusRules("") {
		t.Fatal("the corpus has no shadow rule any more")
	}
	limits := "limits: {shadow: {time: 1h}, shutdown: 1s}\n"
	mails := corpus(80)
	var answers, delivered [2][]string
	for i, c := range []struct{ config, rules string }{
		{corpusConfig, without},
		{strings.Replace(corpusConfig, "pipeline:\n", "pipeline:\n"+shadowSteps, 1), corpusRules("")},
	} {
		s := startSiteWith(t, map[string]string{"sluice.yaml": limits + c.config, "rules.yaml": c.rules}, nil, "own", "serve", "-c", "sluice.yaml")
		for _, name := range []string{"anna", "bert", "carl"} {
			s.run(t, "secret", "--data", "sluice-data", "user", "add", name+"@example.org", "--password-stdin")
		}
		for _, m := range mails {
			for _, a := range m.send(t, s) {
				answers[i] = append(answers[i], m.id+" "+steady(a))
			}
		}
		s.stop(t)
		delivered[i] = filed(t, s)
		if i == 0 {
			continue
		}
		said := s.run(t, "", "--data", "sluice-data", "explain", mails[0].id)
		for _, want := range []string{
			"hanging .*no answer within|hanging .*the program was stopped.*shadow", "strict/shadow_all .*shadow", "rules/tried .*shadow", "crashing .*bad mood.*shadow",
		} {
			if !regexp.MustCompile(want).MatchString(said) {
				t.Errorf("explain does not say %s:\n%s", want, said)
			}
		}
		last := s.run(t, "", "--data", "sluice-data", "explain", mails[len(mails)-1].id)
		if !strings.Contains(last, "not finished: the program was stopped") {
			t.Errorf("explain does not say what was not finished:\n%s", last)
		}
	}
	for i, x := range [][2][]string{answers, delivered} {
		if len(x[0]) < len(mails)/2 {
			t.Errorf("%d of %v: the test looks at too little", len(x[0]), i)
		}
		if !slices.Equal(x[0], x[1]) {
			for n := range max(len(x[0]), len(x[1])) {
				if n >= len(x[0]) || n >= len(x[1]) || x[0][n] != x[1][n] {
					t.Fatalf("%d and %d; the first that differs:\n%s\nwith shadows\n%s", len(x[0]), len(x[1]), at(x[0], n), at(x[1], n))
				}
			}
		}
	}
	for _, x := range slices.Concat(answers[1], delivered[1]) {
		if strings.Contains(strings.ToLower(x), "shadow") || strings.Contains(x, "tried") {
			t.Errorf("a shadow is to be seen: %s", x)
		}
	}
	t.Logf("%d answers and %d files are the same", len(answers[0]), len(delivered[0]))
}

func at(all []string, n int) string {
	if n < len(all) {
		return all[n]
	}
	return "nothing"
}

// The mail stays readable for shadow steps after the door has answered and thrown it away: from memory and from the spool, with
// fields taken out and without.
func TestShadowReadsTheMail(t *testing.T) {
	s := startSiteWith(t, map[string]string{"sluice.yaml": `
listen: {smtp: ["127.0.0.1:0"], lmtp: ["127.0.0.1:0"], milter: ["127.0.0.1:0"]}
domains: [example.org]
pipeline:
  - moody: {name: pause, does: hang, shadow: true, timeout: 300ms}
  - rules: {rules: [{name: million, when: 'known(pause) or text contains "the last million"', shadow: true, score: 1}], shadow: true}
`}, nil, "own", "serve", "-c", "sluice.yaml")
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3<<20/72)
	var ids []string
	for _, door := range []string{"smtp", "lmtp", "milter"} {
		for i, text := range []string{"", "X-Spam-Flag: YES\r\n", "X-Large: yes\r\n"} {
			id := fmt.Sprintf("%s%d@client.example", door, i)
			body := "the last million\r\n"
			if i > 0 {
				body += large
			}
			corpusMail{door: door, helo: "client.example", from: "a@b.example", to: []string{"me@example.org"},
				text: fmt.Sprintf("From: a@b.example\r\nMessage-ID: <%s>\r\n%sSubject: x\r\n\r\n%s", id, text, body)}.send(t, s)
			ids = append(ids, id)
		}
	}
	s.stop(t) // waits for them
	for _, id := range ids {
		said := s.run(t, "", "--data", "sluice-data", "explain", id)
		if !regexp.MustCompile(`rules/million +\+?1 .*shadow`).MatchString(said) {
			t.Errorf("the rule does not hold:\n%s", said)
		}
	}
}
