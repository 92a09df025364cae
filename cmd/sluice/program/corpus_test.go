package program

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/protocols/smtp"
	"sluice/rules"
	"sluice/rules/replay"
)

// corpusRules are the rules of the corpus; the condition of the one called off never holds, and is asked when it was.
func corpusRules(off string) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for _, x := range []struct{ name, when, does string }{
		{"boss", `from.address == "boss@friend.example"`, "keep: true"},
		{"bare", `helo == "localhost"`, "score: 1.5"},
		{"no_greeting_dot", `not (helo contains ".")`, "score: 0.1"},
		{"many", "ratelimit.count > 60", "score: 0.7"},
		{"program", "any(content.attachments, .executable)", "reject: 5.7.1 programs are not taken"},
		{"winner", `subject contains "winner"`, "score: 3.3"},
		{"money", `text contains "million"`, "score: 2.2"},
		{"both", `hit("winner") and hit("money")`, "score: 4"},
		{"mismatch", "content.html.link_mismatch", "score: 2.5"},
		{"list", `has("List-Id") and rcpt.local != "carl"`, "file: Lists"},
		{"carl_hates_lists", `has("List-Id") and rcpt.local == "carl"`, "discard: true"},
		{"anna_holds", `rcpt.local == "anna" and subject contains "hold"`, "quarantine: true"},
		{"later", `subject contains "later"`, "tempfail: true"},
		{"bert_never", `rcpt.local == "bert" and from.domain == "bad.example"`, "reject: 5.7.1 bert does not want this"},
		{"bert_later", `rcpt.local == "bert" and text contains "three"`, "tempfail: true"},
		{"urgent", `subject contains "urgent" and not hit("winner")`, "flag: urgent"},
		{"good", `header_from.domain == "friend.example" and not (text contains "million")`, "score: -2"},
		{"tried", `size > 0`, "shadow: true\n    reject: true"},
	} {
		when := x.when
		if x.name == off {
			when = "(" + when + ") and false"
		}
		fmt.Fprintf(&b, "  - name: %s\n    when: %q\n    %s\n", x.name, when, x.does)
	}
	return b.String() + corpusOverrides
}

const corpusOverrides = `overrides:
  - {for: carl@example.org, scores: {winner: 6}, junk: 0}
  - {for: anna@example.org, off: [money], junk: 2}
`

const corpusSieve = `require ["fileinto", "reject", "imap4flags"];
if header :contains "subject" "number 3" { fileinto "Three"; }
elsif header :contains "subject" "number 22" { discard; }
elsif header :contains "subject" "number 11" { reject "not this one"; }
elsif header :contains "subject" "number 14" { addflag "\\\\Flagged"; }
`

const corpusConfig = `
domains: [example.org]
listen: {smtp: ["127.0.0.1:0"], lmtp: ["127.0.0.1:0"], milter: ["127.0.0.1:0"]}
trusted: ["10.0.0.0/8"]
pipeline:
  - ratelimit: {by: [network], limit: 1000, refused: true}
  - content: {}
  - rules: {files: [rules.yaml], reject: 9, quarantine: 7, junk: 3}
`

// A corpusMail is one mail of the corpus.
type corpusMail struct {
	door, helo, from, id, text string
	to                         []string
}

// corpus makes mails for all doors, always the same ones.
func corpus(n int) (all []corpusMail) {
	r := rand.New(rand.NewPCG(2026, 11))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	for i := range n {
		m := corpusMail{
			door: []string{"smtp", "lmtp", "milter", "deliver"}[i%4], helo: pick("mail.client.example", "localhost", "mx.friend.example"),
			from: pick("a@bad.example", "b@friend.example", "boss@friend.example", "c@client.example", ""), id: fmt.Sprintf("corpus%d@client.example", i),
		}
		m.to = []string{"anna@example.org", "bert@example.org", "carl@example.org"}[r.IntN(3):]
		var b strings.Builder
		fmt.Fprintf(&b, "From: %s\r\nTo: all@example.org\r\nMessage-ID: <%s>\r\n", pick("x@friend.example", "y@client.example", "z@bad.example, w@bad.example"), m.id)
		fmt.Fprintf(&b, "Subject: %s number %d\r\n", pick("hello", "you are a winner", "urgent", "urgent winner", "please hold", "later", "=?utf-8?q?gr=C3=BC=C3=9Fe?="), i)
		if r.IntN(4) == 0 {
			b.WriteString("List-Id: <all.lists.example>\r\n")
		}
		body := pick("plain text\r\n", "a million for you\r\n", "one\r\n..two\r\n.\r\nthree\r\n")
		switch r.IntN(5) {
		case 0:
			fmt.Fprintf(&b, "Content-Type: text/html\r\n\r\n<p>%s <a href=\"https://evil.example/\">https://bank.example/</a>\r\n", body)
		case 1:
			fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n%s--b\r\n"+
				"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=bill.%s\r\n\r\nMZ\r\n--b--\r\n", body, pick("exe", "pdf"))
		default:
			b.WriteString("\r\n" + body)
		}
		m.text = b.String()
		all = append(all, m)
	}
	return all
}

// send takes the mail through its door and returns what the door answers, which is nobody's mistake here.
func (m corpusMail) send(t *testing.T, s *site) (answers []string) {
	t.Helper()
	if m.door == "milter" {
		return m.sendMilter(t, s)
	}
	answerTo := func(t *testing.T, c *textproto.Conn, line string) (int, string) {
		t.Helper()
		code, text := answerTo(t, c, line)
		answers = append(answers, fmt.Sprint(line, " ", code, " ", text))
		return code, text
	}
	var c *textproto.Conn
	hello := "EHLO "
	switch m.door {
	case "deliver":
		conn, err := net.Dial("unix", filepath.Join(s.dir, "sluice-data", "run", "deliver.sock"))
		if err != nil {
			t.Fatal(err)
		}
		c, hello = textproto.NewConn(conn), "LHLO "
	case "lmtp":
		c, hello = s.dial(t, m.door), "LHLO "
	default:
		c = s.dial(t, m.door)
	}
	defer c.Close()
	say(t, c, 220, "")
	say(t, c, 250, hello+m.helo)
	if m.door == "deliver" {
		say(t, c, 250, smtp.RelayCommand(netip.MustParseAddr("192.0.2.9"), m.helo))
	}
	say(t, c, 250, "MAIL FROM:<"+m.from+">")
	taken := 0
	for _, to := range m.to {
		if code, _ := answerTo(t, c, "RCPT TO:<"+to+">"); code == 250 {
			taken++
		}
	}
	if taken == 0 {
		return answers
	}
	say(t, c, 354, "DATA")
	w := c.DotWriter()
	if _, err := io.WriteString(w, m.text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	replies := 1
	if hello == "LHLO " {
		replies = taken
	}
	for range replies {
		answerTo(t, c, "")
	}
	return answers
}

// answerTo says a line, if there is one, and returns what is answered.
func answerTo(t *testing.T, c *textproto.Conn, line string) (code int, text string) {
	t.Helper()
	if line != "" {
		if err := c.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
	}
	code, text, err := c.ReadResponse(0)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return code, text
}

func (m corpusMail) sendMilter(t *testing.T, s *site) (answers []string) {
	t.Helper()
	actions := gomilter.OptAddHeader | gomilter.OptChangeHeader | gomilter.OptRemoveRcpt | gomilter.OptQuarantine | gomilter.OptChangeBody |
		gomilter.OptAddRcpt | gomilter.OptChangeFrom
	client := gomilter.NewClientWithOptions("tcp", s.door["milter"], gomilter.ClientOptions{ActionMask: actions})
	defer client.Close()
	session, err := client.Session()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	must := func(a *gomilter.Action, err error) *gomilter.Action {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, fmt.Sprintf("%c %d %s", a.Code, a.SMTPCode, a.SMTPText))
		return a
	}
	must(session.Conn("client.example", gomilter.FamilyInet, 1234, "192.0.2.8"))
	must(session.Helo(m.helo))
	must(session.Mail(m.from, nil))
	taken := 0
	for _, to := range m.to {
		if a := must(session.Rcpt(to, nil)); a.Code == gomilter.ActContinue {
			taken++
		}
	}
	if taken == 0 {
		return answers
	}
	header, body, _ := strings.Cut(m.text, "\r\n\r\n")
	for field := range strings.SplitSeq(header, "\r\n") {
		name, value, _ := strings.Cut(field, ": ")
		must(session.HeaderField(name, value))
	}
	must(session.HeaderEnd())
	for chunk := range slices.Chunk([]byte(body), 60_000) {
		must(session.BodyChunk(chunk))
	}
	changes, a, err := session.End()
	must(a, err)
	for _, x := range changes {
		answers = append(answers, fmt.Sprintf("%+v", x))
	}
	return answers
}

// Over mails through all doors: what was recorded adds up, a replay agrees with its record, with the mail and without, and
// without the decider the decision is what the engine says where that rule never holds.
func TestCorpus(t *testing.T) {
	s := startSite(t, map[string]string{"sluice.yaml": corpusConfig + "  - sieve: {before: [site.sieve]}\n", "rules.yaml": corpusRules(""), "site.sieve": corpusSieve}, "-c", "sluice.yaml")
	for _, name := range []string{"anna", "bert", "carl"} {
		s.run(t, "secret", "-c", "sluice.yaml", "user", "add", name+"@example.org", "--password-stdin")
	}
	mails := corpus(304)
	for _, m := range mails {
		m.send(t, s)
	}
	s.stop(t)

	p := &program{ctx: t.Context(), kinds: Stages(), now: time.Now, configFile: filepath.Join(s.dir, "sluice.yaml"), stdout: io.Discard, stderr: io.Discard,
		dataFolder: filepath.Join(s.dir, "sluice-data")}
	settings, err := p.settings()
	if err != nil {
		t.Fatal(err)
	}
	others := otherPlans{program: p, settings: settings, dir: s.dir, made: map[string]*pipeline.Plan{}}
	said, same, exact := map[string]int{}, 0, 0
	doors := map[pipeline.Door]int{}
	verdicts := map[string]int{}
	withMail := 0
	err = p.withPlans(settings, func(all *plans) error {
		for _, r := range recordsOf(t, all.journal) {
			doors[r.Door]++
			plan, err := all.of(t.Context(), r.Plan)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range r.Recipients {
				verdicts[x.Verdict.Action.String()]++
				addsUp(t, r, &x)
			}
			look := all.look(t.Context(), r, locate(t.Context(), settings, r))
			if look.Unknown != "" || len(look.Differences) > 0 || len(look.Gaps) > 0 {
				t.Errorf("%s at %s: %q, %v, %q", r.MessageID, r.Door, look.Unknown, look.Differences, look.Gaps)
			}
			if look.WhyNot == "" {
				withMail++
			}
			terms, err := plan.Replay(t.Context(), r, pipeline.Replay{})
			if err != nil {
				t.Fatal(err)
			}
			if d := replay.Differences(r, terms.Record); len(d) > 0 || len(terms.Gaps) > 0 {
				t.Errorf("%s at %s, without the mail: %v, %q", r.MessageID, r.Door, d, terms.Gaps)
			}
			message := mailOf(t, all, r)
			for i, x := range r.Recipients {
				told := map[string]bool{}
				for _, c := range look.Without {
					if c.Recipient != x.Address.Raw {
						continue
					}
					told[c.Of] = true
					said[c.Of]++
					if c.Same {
						same++
					}
					want, err := others.without(t, all, r, &c).Replay(t.Context(), r, pipeline.Replay{Message: message, Then: plan})
					if err != nil {
						t.Fatal(err)
					}
					if len(want.Gaps) > 0 {
						continue // what one plan asks for each recipient another asks for all
					}
					exact++
					y := &want.Record.Recipients[i]
					folder := ""
					if y.Verdict.Action <= pipeline.Keep {
						folder = replay.Folder(y)
					}
					if c.Verdict != replay.Verdict(y) || c.Folder != folder || c.Score != y.Score || c.Disposition != y.Disposition {
						t.Errorf("%s at %s for %s: without %s, where the engine that has never had it says %s into %q, %g, %s", r.MessageID, r.Door,
							c.Recipient, c, replay.Verdict(y), folder, y.Score, y.Disposition)
					}
				}
				if whole := x.Step != ""; whole != told["verdict"] {
					t.Errorf("%s at %s for %s: decided by %q, and without: %v", r.MessageID, r.Door, x.Address.Raw, x.Step, look.Without)
				}
				if x.FolderBy != "" && x.Verdict.Action <= pipeline.Keep && !told["folder"] && !told["script"] {
					t.Errorf("%s at %s for %s: filed by %q, and without: %v", r.MessageID, r.Door, x.Address.Raw, x.FolderBy, look.Without)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("doors %v, verdicts %v, %d replayed with the mail; %v without, %d compared, of which %d say the same", doors, verdicts, withMail, said, exact, same)
	if n := doors[pipeline.SMTP] + doors[pipeline.LMTP] + doors[pipeline.Milter] + doors[pipeline.Deliver]; n != len(mails) || len(doors) != 4 {
		t.Errorf("%d records of %d mails, by door %v", n, len(mails), doors)
	}
	for _, v := range []string{"pass", "keep", "discard", "quarantine", "tempfail", "reject"} {
		if verdicts[v] < 3 {
			t.Errorf("%d recipients with verdict %s: the corpus shows too little", verdicts[v], v)
		}
	}
	for of, least := range map[string]int{"verdict": 50, "folder": 30, "script": 10, "mark": 5, "score": 30, "overrides": 5, "others": 3} {
		if said[of] < least {
			t.Errorf("%d without a decider of the %s: the corpus shows too little", said[of], of)
		}
	}
	if exact < 600 || same > 0 || withMail < 100 {
		t.Errorf("%d compared without a decider, %d say the same, %d were replayed with the mail", exact, same, withMail)
	}
}

// otherPlans are plans that have never had one of those who had a say.
type otherPlans struct {
	*program
	settings *config.Config
	dir      string
	made     map[string]*pipeline.Plan
}

// without is the plan without whoever a counterfactual is about.
func (o *otherPlans) without(t *testing.T, all *plans, r *pipeline.Record, c *counterfactual) (p *pipeline.Plan) {
	t.Helper()
	x := &r.Recipients[slices.IndexFunc(r.Recipients, func(x pipeline.RecipientRecord) bool { return x.Address.Raw == c.Recipient })]
	var err error
	name := c.Decider
	switch step, rule, _ := strings.Cut(c.Decider, "/"); {
	case c.Of == "overrides":
		name = "usual"
	case step == "rules" && rule == "":
		name = "junk"
		if x.Verdict.Action != pipeline.Pass {
			name = x.Verdict.Action.String()
		}
	}
	if p = o.made[name]; p != nil {
		return p
	}
	with := func(c *config.Config, text string) (*pipeline.Plan, error) {
		file := filepath.Join(o.dir, "without.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return planWith(o.program, c, "", []string{file})
	}
	switch step, rule, _ := strings.Cut(name, "/"); {
	case name == "usual":
		p, err = with(o.settings, strings.TrimSuffix(corpusRules(""), corpusOverrides))
	case rule != "":
		p, err = with(o.settings, corpusRules(rule))
	case step == "sieve":
		p, err = all.remake(t.Context(), r.Plan, func(steps []pipeline.Step) []pipeline.Step { return steps[:len(steps)-1] })
	default:
		c := *o.settings
		c.Pipeline = slices.Clone(c.Pipeline)
		at := slices.IndexFunc(c.Pipeline, func(s pipeline.Step) bool { return s.Kind.Name == "rules" })
		settings := *c.Pipeline[at].Config.(*rules.Config)
		*map[string]*float64{"junk": &settings.Junk, "quarantine": &settings.Quarantine, "reject": &settings.Reject}[name] = 0
		c.Pipeline[at].Config = &settings
		p, err = with(&c, strings.Replace(corpusRules(""), name+": 2", name+": 0", 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	o.made[name] = p
	return p
}

// stop ends the server in peace, with everything written.
func (s *site) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-s.exited
}

func recordsOf(t *testing.T, j *journal.Journal) (all []*pipeline.Record) {
	t.Helper()
	for r, err := range j.Between(t.Context(), time.Unix(0, 0), time.Now().Add(time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func mailOf(t *testing.T, all *plans, r *pipeline.Record) (m *mime.Message) {
	t.Helper()
	m, _ = all.message(context.Background(), r, locate(t.Context(), all.settings, r)) // nil where it is gone
	return m
}

// addsUp reports where the recorded scores, after caps, are not the verdict's score.
func addsUp(t *testing.T, r *pipeline.Record, x *pipeline.RecipientRecord) {
	t.Helper()
	if x.Verdict.Action > pipeline.Keep && x.Verdict.By != "" || x.Disposition == pipeline.Refused && len(x.Steps) == 0 {
		return // what stands behind a rule's verdict does not count
	}
	sum := 0.0
	for _, s := range r.Steps {
		own := slices.IndexFunc(x.Steps, func(o pipeline.StepRecord) bool { return o.Name == s.Name })
		hits := slices.Clone(s.Hits)
		if own >= 0 {
			hits = append(hits, x.Steps[own].Hits...)
		}
		sum += pipeline.Score(hits)
	}
	if math.Abs(sum-x.Score) > 1e-9 {
		t.Errorf("%s for %s: the hits add up to %g, the score is %g", r.MessageID, x.Address.Raw, sum, x.Score)
	}
}
