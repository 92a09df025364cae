package program

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"mime"
	"net/mail"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A scorer works out what a backtest should say in a way of its own: it knows the mails as they were sent and what was done
// with each, reads them with net/mail, has its rules as functions and follows them one by one. It shares no code with what
// it tests.
type scorer struct {
	mails []*scoredMail
}

type scoredMail struct {
	number   int
	from, to string // envelope
	text     string // with CRLF
	header   mail.Header
	subject  string

	refused bool   // before DATA
	filed   string // where it was found; "" if it was refused
	path    string
	does    string // what its owner does
	label   string
	gone    bool
}

// A scoredRule is a rule as a function.
type scoredRule struct {
	name  string
	holds func(m *scoredMail) bool
	score float64
	final string // "refused", "keep", "quarantined"
	file  string
}

const (
	scoredOld = `rules:
  - {name: bulk, when: 'from.local startsWith "bulk"', reject: true}
  - {name: friend, when: 'from.domain == "friend.example"', keep: true}
  - {name: list, when: 'has("List-Id") or has("List-Post")', file: Lists}
  - {name: free, when: 'subject contains "free" or subject contains "FREE"', score: 3}
  - {name: loud, when: 'subject matches "[!]{2}"', score: 3.5}
  - {name: large, when: size > 9000, score: 2}
  - {name: html, when: 'header("Content-Type") startsWith "text/html"', score: 2.25}
`
	scoredNew = `rules:
  - {name: bulk, when: 'from.local startsWith "bulk"', reject: true}
  - {name: friend, when: 'from.domain == "friend.example" and rcpt.local == "me"', keep: true}
  - {name: list, when: 'has("List-Id")', file: Lists}
  - {name: free, when: 'subject contains "free" or subject contains "FREE"', score: 4}
  - {name: loud, when: 'subject matches "[!]{2}"', score: 3}
  - {name: html, when: 'header("Content-Type") startsWith "text/html"', score: 3}
  - {name: reply, when: 'subject startsWith "Re:"', score: -2.5}
  - {name: tiny, when: size < 700, file: Short}
  - {name: held, when: 'subject contains "hold this"', quarantine: true}
`
)

func scoredRules() (was, is []scoredRule) {
	has := func(m *scoredMail, name string) bool {
		return len(m.header[textproto.CanonicalMIMEHeaderKey(name)]) > 0
	}
	bulk := scoredRule{name: "bulk", final: "refused", holds: func(m *scoredMail) bool { return strings.HasPrefix(m.from, "bulk") }}
	friendly := func(m *scoredMail) bool { return strings.HasSuffix(m.from, "@friend.example") }
	free := func(m *scoredMail) bool {
		return strings.Contains(m.subject, "free") || strings.Contains(m.subject, "FREE")
	}
	loud := func(m *scoredMail) bool { return strings.Contains(m.subject, "!!") }
	html := func(m *scoredMail) bool { return strings.HasPrefix(m.header.Get("Content-Type"), "text/html") }
	was = []scoredRule{
		bulk,
		{name: "friend", final: "keep", holds: friendly},
		{name: "list", file: "Lists", holds: func(m *scoredMail) bool { return has(m, "List-Id") || has(m, "List-Post") }},
		{name: "free", score: 3, holds: free},
		{name: "loud", score: 3.5, holds: loud},
		{name: "large", score: 2, holds: func(m *scoredMail) bool { return len(m.text) > 9000 }},
		{name: "html", score: 2.25, holds: html},
	}
	is = []scoredRule{
		bulk,
		{name: "friend", final: "keep", holds: func(m *scoredMail) bool { return friendly(m) && strings.HasPrefix(m.to, "me@") }},
		{name: "list", file: "Lists", holds: func(m *scoredMail) bool { return has(m, "List-Id") }},
		{name: "free", score: 4, holds: free},
		{name: "loud", score: 3, holds: loud},
		{name: "html", score: 3, holds: html},
		{name: "reply", score: -2.5, holds: func(m *scoredMail) bool { return strings.HasPrefix(m.subject, "Re:") }},
		{name: "tiny", file: "Short", holds: func(m *scoredMail) bool { return len(m.text) < 700 }},
		{name: "held", final: "quarantined", holds: func(m *scoredMail) bool { return strings.Contains(m.subject, "hold this") }},
	}
	return was, is
}

// scoredJunk is the threshold of both sides.
const scoredJunk = 5

// decide follows rules and says what becomes of a mail and who says so.
func (m *scoredMail) decide(rules []scoredRule) (what, by string) {
	what, by = "delivered to INBOX", "nobody objected"
	score, kept := 0.0, false
	for _, r := range rules {
		if m.refused && r.final != "refused" || !r.holds(m) {
			continue // without a message only the envelope can be looked at
		}
		if score += r.score; r.file != "" {
			what, by = "delivered to "+r.file, "rules/"+r.name
		}
		switch {
		case r.final == "keep":
			if kept = true; what == "delivered to INBOX" {
				by = "rules/" + r.name
			}
		case r.final != "" && !kept:
			return r.final, "rules/" + r.name
		}
	}
	if score >= scoredJunk && !kept {
		return "delivered to Junk", "rules"
	}
	return what, by
}

func keptOut(what string) bool {
	return what == "delivered to Junk" || !strings.HasPrefix(what, "delivered ")
}

// traces are what an MTA puts there when it files a mail: no mail on its way has them, and ours takes them off.
var traces = regexp.MustCompile(`(?mi)^(return-path|delivered-to):.*\n([ \t].*\n)*`)

var ownMessageID = regexp.MustCompile(`(?mi)^message-id:`)

// add takes a mail into the corpus: one that net/mail can read and that is fit for the wire.
func (s *scorer) add(from, to, text string) {
	n := len(s.mails)
	text = strings.ReplaceAll(text, "\r\n", "\n")
	head, body, _ := strings.Cut(text, "\n\n")
	text = fmt.Sprintf("Message-ID: <%d@number.test>\n%s\n%s", n, ownMessageID.ReplaceAllString(traces.ReplaceAllString(head+"\n", ""), "X-Old-Message-ID:"), body)
	if strings.ContainsAny(text, "\r\x00") || strings.Contains(text, "\n.\n") {
		return
	}
	text = strings.TrimRight(text, "\n") + "\n"
	m := &scoredMail{number: n, from: from, to: to, text: strings.ReplaceAll(text, "\n", "\r\n")}
	parsed, err := mail.ReadMessage(strings.NewReader(m.text))
	if err != nil {
		return
	}
	m.header = parsed.Header
	decoder := mime.WordDecoder{CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil }}
	if m.subject, err = decoder.DecodeHeader(m.header.Get("Subject")); err != nil {
		return
	}
	s.mails = append(s.mails, m)
}

// fill makes the corpus: generated mail, and real mail where there is some.
func (s *scorer) fill(t *testing.T, r *rand.Rand) {
	t.Helper()
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	from := func() string {
		return pick("bulk7@ads.example", "ann@friend.example", "bob@client.example", "carl@client.example", "shop@shop.example", "news@lists.example")
	}
	to := func() string { return pick("me@example.org", "you@example.org") }
	for range 260 {
		var b strings.Builder
		fmt.Fprintf(&b, "From: x@client.example\nSubject: %s%s%s\n", pick("", "Re: ", "Fwd: "), pick("lunch", "a free gift", "FREE money", "hold this", "=?utf-8?q?gr=C3=BC=C3=9Fe?="), pick("", "!!", "!!!", "!"))
		b.WriteString(pick("", "", "List-Id: <a.lists.example>\n", "List-Post: <mailto:a@lists.example>\n"))
		b.WriteString(pick("", "Content-Type: text/html; charset=utf-8\n"))
		b.WriteString("\n" + strings.Repeat("A line of some text, such as people write to each other.\n", r.IntN(250)))
		s.add(from(), to(), b.String())
	}
	dir := os.Getenv("SLUICE_TESTDATA")
	if dir == "" {
		t.Log("without the corpus of real mail: SLUICE_TESTDATA is not set")
		return
	}
	genuine := 0
	eachOfCorpus(t, filepath.Join(dir, "corpus", "train.tar.gz"), func(_ string, text []byte) bool {
		if len(text) < 60_000 {
			before := len(s.mails)
			s.add(from(), to(), string(text))
			genuine += len(s.mails) - before
		}
		return genuine < 200
	})
	if genuine < 100 {
		t.Fatalf("only %d real mails", genuine)
	}
}

// eachOfCorpus reads the mails of a tar file until f has enough.
func eachOfCorpus(t testing.TB, path string, f func(name string, text []byte) bool) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(unzipped)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if !f(h.Name, text) {
			return
		}
	}
}

// send takes all mail through the SMTP door.
func (s *scorer) send(t *testing.T, x *site) {
	t.Helper()
	c := x.dial(t, "smtp")
	say(t, c, 220, "")
	say(t, c, 250, "EHLO client.example")
	for _, m := range s.mails {
		say(t, c, 250, "MAIL FROM:<"+m.from+">")
		if code, _ := answerTo(t, c, "RCPT TO:<"+m.to+">"); code != 250 {
			m.refused = true
			say(t, c, 250, "RSET")
			continue
		}
		say(t, c, 354, "DATA")
		w := c.DotWriter()
		if _, err := io.WriteString(w, m.text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		say(t, c, 250, "")
	}
	s.recorded(t, x)
}

// recorded waits until the records of all mail can be read.
func (s *scorer) recorded(t *testing.T, x *site) {
	t.Helper()
	for _, m := range slices.Backward(s.mails) {
		if m.refused {
			continue
		}
		for {
			cmd := exec.Command("sluice", "-c", "sluice.yaml", "explain", fmt.Sprintf("%d@number.test", m.number))
			cmd.Dir = x.dir
			if cmd.Run() == nil {
				return
			}
			if err := t.Context().Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

var testNumber = regexp.MustCompile(`(?m)^Message-ID: <(\d+)@number.test>$`)

// find looks where each mail was filed.
func (s *scorer) find(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "sluice-data", "mail", "example.org"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), ",S=") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(string(testNumber.FindSubmatch(text)[1]), &n); err != nil {
			return err
		}
		folder := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if s.mails[n].path, s.mails[n].filed = path, strings.TrimPrefix(folder, "."); folder[0] != '.' {
			s.mails[n].filed = "INBOX"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// use lets the owners of the mail work on it, as a mail client on the same tree would.
func (s *scorer) use(t *testing.T, r *rand.Rand) {
	t.Helper()
	for _, m := range s.mails {
		if m.filed == "" {
			m.label, m.does = "unknown", "nothing"
			continue
		}
		does := []string{"nothing", "nothing", "read", "junk", "junk", "inbox", "work", "reply", "flag", "trash", "delete"}
		m.does = does[r.IntN(len(does))]
		folder, flags := m.filed, ""
		inJunk := m.filed == "Junk"
		m.label = "unknown"
		switch m.does {
		case "read":
			if flags = "S"; inJunk {
				m.label = "spam"
			}
		case "junk":
			if folder = "Junk"; !inJunk {
				m.label = "spam"
			}
		case "inbox", "work":
			if folder = map[string]string{"inbox": "INBOX", "work": "Work"}[m.does]; folder != m.filed {
				m.label = "ham"
			}
		case "reply", "flag":
			flags, m.label = map[string]string{"reply": "RS", "flag": "F"}[m.does], "ham"
		case "trash":
			folder, flags = "Trash", "S"
		case "delete":
			if err := os.Remove(m.path); err != nil {
				t.Fatal(err)
			}
			m.gone = true
			continue
		}
		box := filepath.Join(filepath.Dir(filepath.Dir(m.path)))
		if m.filed != "INBOX" {
			box = filepath.Dir(box)
		}
		if folder != "INBOX" {
			box = filepath.Join(box, "."+folder)
		}
		if err := os.MkdirAll(filepath.Join(box, "cur"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(m.path, filepath.Join(box, "cur", filepath.Base(m.path)+":2,"+flags)); err != nil {
			t.Fatal(err)
		}
	}
}
