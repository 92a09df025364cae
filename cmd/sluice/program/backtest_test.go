package program

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
)

// scoredResult is what is compared: what the JSON of backtest says.
type scoredResult struct {
	Mails, Decided, Copies, Changed int
	Labels                          map[string]int
	Old, New                        map[string]int // the four fields of confusion
	Ratios                          map[string][5]float64
	Changes                         map[string][4]int // copies, spam, ham, unknown
	Flips                           []string
	Rules                           map[string][4]int
}

// score works it out.
func (s *scorer) score() scoredResult {
	was, is := scoredRules()
	out := scoredResult{
		Labels: map[string]int{}, Old: map[string]int{}, New: map[string]int{}, Changes: map[string][4]int{}, Rules: map[string][4]int{},
		Ratios: map[string][5]float64{},
	}
	for _, r := range slices.Concat(was, is) {
		out.Rules["rules/"+r.name] = [4]int{}
	}
	cell := func(label, what string) string {
		if keptOut(what) {
			return label + "_kept_out"
		}
		return label + "_let_in"
	}
	for _, m := range s.mails {
		out.Mails++
		if m.gone { // the new rules ask what nobody looked at then
			continue
		}
		out.Decided++
		out.Copies++
		out.Labels[m.label]++
		before, whoBefore := m.decide(was)
		after, whoAfter := m.decide(is)
		if m.label != "unknown" {
			out.Old[cell(m.label, before)]++
			out.New[cell(m.label, after)]++
		}
		for side, rules := range [][]scoredRule{was, is} {
			for _, r := range rules {
				if m.refused && r.name != "bulk" || !r.holds(m) {
					continue
				}
				n := out.Rules["rules/"+r.name]
				n[side]++
				if side == 1 && m.label == "spam" {
					n[2]++
				}
				if side == 1 && m.label == "ham" {
					n[3]++
				}
				out.Rules["rules/"+r.name] = n
			}
		}
		if before == after {
			continue
		}
		out.Changed++
		key := before + " -> " + after
		n := out.Changes[key]
		n[0]++
		n[map[string]int{"spam": 1, "ham": 2, "unknown": 3}[m.label]]++
		out.Changes[key] = n
		out.Flips = append(out.Flips, fmt.Sprintf("%d %s: %s by %s, %s by %s", m.number, m.label, before, whoBefore, after, whoAfter))
	}
	slices.Sort(out.Flips)
	for side, c := range map[string]map[string]int{"old": out.Old, "new": out.New} {
		tp, fp, fn, tn := c["spam_kept_out"], c["ham_kept_out"], c["spam_let_in"], c["ham_let_in"]
		for what, x := range map[string][2]int{"precision": {tp, tp + fp}, "recall": {tp, tp + fn}, "false_positives": {fp, fp + tn}} {
			out.Ratios[side+" "+what] = scoredRatio(x[0], x[1])
		}
	}
	return out
}

// scoredRatio is a share with the ends of its interval, found by trying: those shares from which the sample is not further
// away than it is in 95 of 100 samples.
func scoredRatio(part, of int) [5]float64 {
	n, p := float64(of), float64(part)/float64(of)
	end := func(towards float64) float64 {
		in, out := p, towards
		for range 100 {
			middle := (in + out) / 2
			if (p-middle)*(p-middle)*n > 1.959963984540054*1.959963984540054*middle*(1-middle) {
				out = middle
			} else {
				in = middle
			}
		}
		return in
	}
	return [5]float64{float64(part), n, p, end(0), end(1)}
}

// said is what the program printed, in the same form.
func said(t *testing.T, text string) scoredResult {
	t.Helper()
	type ratio struct {
		Part, Of         int
		Value, Low, High float64
	}
	type side struct {
		SpamKeptOut    int   `json:"spam_kept_out"`
		HamKeptOut     int   `json:"ham_kept_out"`
		SpamLetIn      int   `json:"spam_let_in"`
		HamLetIn       int   `json:"ham_let_in"`
		Precision      ratio `json:"precision"`
		Recall         ratio `json:"recall"`
		FalsePositives ratio `json:"false_positives"`
	}
	type outcome struct{ What, By string }
	var x struct {
		Mails, Decided int
		Recorded       struct {
			Copies, Changed, Spam, Ham, Unknown int
			Changes                             []struct {
				From, To                   string
				Copies, Spam, Ham, Unknown int
			}
			Old, New side
		}
		Flipped int
		Flips   []struct {
			Label     string
			MessageID string `json:"message_id"`
			Old, New  outcome
		}
		Rules []struct {
			Rule     string
			Old, New int
			NewSpam  int `json:"new_spam"`
			NewHam   int `json:"new_ham"`
		}
		Disagree struct{ Mails int }
	}
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if x.Disagree.Mails != 0 || x.Flipped != len(x.Flips) || x.Flipped != x.Recorded.Changed {
		t.Errorf("disagree %d, %d flipped and %d listed of %d", x.Disagree.Mails, x.Flipped, len(x.Flips), x.Recorded.Changed)
	}
	out := scoredResult{
		Mails: x.Mails, Decided: x.Decided, Copies: x.Recorded.Copies, Changed: x.Recorded.Changed,
		Labels:  map[string]int{"spam": x.Recorded.Spam, "ham": x.Recorded.Ham, "unknown": x.Recorded.Unknown},
		Changes: map[string][4]int{}, Rules: map[string][4]int{}, Ratios: map[string][5]float64{},
	}
	for name, s := range map[string]side{"old": x.Recorded.Old, "new": x.Recorded.New} {
		cells := map[string]int{}
		for k, n := range map[string]int{"spam_kept_out": s.SpamKeptOut, "ham_kept_out": s.HamKeptOut, "spam_let_in": s.SpamLetIn, "ham_let_in": s.HamLetIn} {
			if n > 0 {
				cells[k] = n
			}
		}
		if name == "old" {
			out.Old = cells
		} else {
			out.New = cells
		}
		for what, r := range map[string]ratio{"precision": s.Precision, "recall": s.Recall, "false_positives": s.FalsePositives} {
			out.Ratios[name+" "+what] = [5]float64{float64(r.Part), float64(r.Of), r.Value, r.Low, r.High}
		}
	}
	for _, c := range x.Recorded.Changes {
		out.Changes[c.From+" -> "+c.To] = [4]int{c.Copies, c.Spam, c.Ham, c.Unknown}
	}
	for _, r := range x.Rules {
		out.Rules[r.Rule] = [4]int{r.Old, r.New, r.NewSpam, r.NewHam}
	}
	for _, f := range x.Flips {
		out.Flips = append(out.Flips, fmt.Sprintf("%s %s: %s by %s, %s by %s", strings.TrimSuffix(f.MessageID, "@number.test"), f.Label, f.Old.What, f.Old.By, f.New.What, f.New.By))
	}
	slices.Sort(out.Flips)
	return out
}

func TestBacktestEqualsAnIndependentScorer(t *testing.T) {
	r := rand.New(rand.NewPCG(2026, 5))
	var s scorer
	s.fill(t, r)
	x := startSite(t, map[string]string{
		"sluice.yaml": "domains: [example.org]\nlisten: {smtp: [\"127.0.0.1:0\"]}\npipeline:\n  - content: {}\n" +
			fmt.Sprintf("  - rules: {files: [old.yaml], junk: %d}\n", scoredJunk),
		"old.yaml": scoredOld, "new.yaml": scoredNew,
	}, "-c", "sluice.yaml")
	x.run(t, "secret", "user", "add", "you@example.org", "--password-stdin")
	s.send(t, x)
	s.find(t, x.dir)
	was, _ := scoredRules()
	for _, m := range s.mails {
		what, _ := m.decide(was)
		if m.refused && what != "refused" || !m.refused && what != "delivered to "+m.filed {
			t.Errorf("mail %d: the scorer says %s, and it was filed in %q", m.number, what, m.filed)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	s.use(t, r)

	got := said(t, x.run(t, "", "-c", "sluice.yaml", "backtest", "--rules", "new.yaml", "--limit", "0", "--json"))
	want := s.score()
	for what, pair := range map[string][2]any{
		"mails": {got.Mails, want.Mails}, "decided": {got.Decided, want.Decided}, "copies": {got.Copies, want.Copies}, "changed": {got.Changed, want.Changed},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v, the scorer says %v", what, pair[0], pair[1])
		}
	}
	sameMap(t, "labels", got.Labels, want.Labels)
	sameMap(t, "old", got.Old, want.Old)
	sameMap(t, "new", got.New, want.New)
	sameMap(t, "changes", got.Changes, want.Changes)
	sameMap(t, "rules", got.Rules, want.Rules)
	for _, f := range got.Flips {
		if !slices.Contains(want.Flips, f) {
			t.Errorf("flip %s: the scorer does not say so", f)
		}
	}
	for _, f := range want.Flips {
		if !slices.Contains(got.Flips, f) {
			t.Errorf("flip %s: only the scorer says so", f)
		}
	}
	for what, w := range want.Ratios {
		g := got.Ratios[what]
		for i := range w {
			if math.Abs(g[i]-w[i]) > 1e-9 {
				t.Errorf("%s: %v, the scorer says %v", what, g, w)
				break
			}
		}
	}
	if want.Changed < 50 || want.Labels["spam"] < 30 || want.Labels["ham"] < 30 || want.Mails == want.Decided || len(want.Changes) < 5 {
		t.Errorf("the corpus says too little: %+v", want)
	}
}

func sameMap[T comparable](t *testing.T, what string, got, want map[string]T) {
	t.Helper()
	if !maps.Equal(got, want) {
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				t.Errorf("%s: %s: %v, the scorer says %v", what, k, got[k], want[k])
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				t.Errorf("%s: %s: %v, the scorer knows nothing of it", what, k, got[k])
			}
		}
	}
}

// TestBacktestIsInterrupted holds a mail back while others wait to be counted behind it, and presses Ctrl-C.
func TestBacktestIsInterrupted(t *testing.T) {
	total := (underWay+1)*runtime.NumCPU() + 10
	x := startSite(t, map[string]string{
		"sluice.yaml": "domains: [example.org]\nlisten: {smtp: [\"127.0.0.1:0\"]}\npipeline:\n  - rules: {files: [old.yaml], junk: 5}\n",
		"old.yaml":    scoredOld, "new.yaml": scoredNew,
	}, "-c", "sluice.yaml")
	var s scorer
	for range total {
		s.add("ann@client.example", "me@example.org", "From: ann@client.example\nSubject: a free gift!!\n\nx\n")
	}
	s.send(t, x)
	s.find(t, x.dir)
	first := s.mails[0].path
	if err := errors.Join(os.Remove(first), syscall.Mkfifo(first, 0o600)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := &running{cmd: exec.Command("sluice", "-c", "sluice.yaml", "backtest", "--rules", "new.yaml"), log: newWatched(), exited: make(chan error, 1)}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = x.dir, &out, r.log
	if err := r.launch(); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(first, os.O_WRONLY, 0) // until it reads there
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.log.wait(regexp.MustCompile("interrupted; what is known"), r.exited); !ok {
		t.Fatalf("it goes on:\n%s", r.log)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	err = <-r.exited
	if code := r.cmd.ProcessState.ExitCode(); code != interrupted {
		t.Errorf("exit %d, %v\n%s\n%s", code, err, r.log, out.String())
	}
	match := regexp.MustCompile(`(?m)^PARTIAL: interrupted after (\d+) mails; what came later is missing$`).FindStringSubmatch(out.String())
	if match == nil {
		t.Fatalf("it does not say so:\n%s", out.String())
	}
	if n, err := strconv.Atoi(match[1]); err != nil || n < 1 || n >= total {
		t.Errorf("%s mails of %d", match[1], total)
	}
	looked := regexp.MustCompile(`(?m)^  looked at +` + match[1] + ` mails?, \d+ decided with both`)
	if !looked.MatchString(out.String()) || !strings.Contains(out.String(), "1  the mail on disk is not the one that came") {
		t.Errorf("what was known is missing:\n%s", out.String())
	}
}

// TestMailToLookAt: the bar knows how much there is in mailboxes, each counted once.
func TestMailToLookAt(t *testing.T) {
	dir := t.TempDir()
	long := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"cur/1.a:2,", "cur/2.b:2,S", "new/3.c", ".Lists/cur/4.d:2,", ".Sent/cur/5.e:2,S", "cur/6.old:2,S"} {
		path := filepath.Join(dir, "mail", "example.org", "me", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("Subject: x\n\nx\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "old") {
			if err := os.Chtimes(path, long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	settings := config.Default()
	settings.Data = dir
	where, err := newWhereabouts(t.Context(), settings, long)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := where.Close(); err != nil {
			t.Error(err)
		}
	}()
	me := mailboxName{account: "me@example.org"}
	for _, x := range []struct {
		mailboxes []mailboxName
		want      int
	}{
		{[]mailboxName{me}, 4},
		{[]mailboxName{{"me@example.org", "INBOX"}, {"me@example.org", "Lists"}}, 4},
		{[]mailboxName{{"me@example.org", "Lists"}, me, {"me@example.org", "Lists"}}, 4},
		{[]mailboxName{{"me@example.org", "Sent"}, {"me@example.org", "Sent"}}, 1},
	} {
		b := &backtest{where: where, mailboxes: x.mailboxes, times: span{since: long.AddDate(1, 0, 0), until: time.Now().Add(time.Hour)}}
		if got, err := b.expected(t.Context()); got != x.want || err != nil {
			t.Errorf("%v: %d mails, %v, want %d", x.mailboxes, got, err, x.want)
		}
	}
}

// TestBacktestOfABadJournal: what cannot be read is counted and told, and the rest is decided; a journal of a newer program
// is left alone.
func TestBacktestOfABadJournal(t *testing.T) {
	x := startSite(t, map[string]string{
		"sluice.yaml": "domains: [example.org]\nlisten: {smtp: [\"127.0.0.1:0\"]}\npipeline:\n  - rules: {files: [old.yaml], junk: 5}\n",
		"old.yaml":    scoredOld, "new.yaml": scoredNew,
	}, "-c", "sluice.yaml")
	var s scorer
	for range 4 {
		s.add("ann@client.example", "me@example.org", "From: ann@client.example\nSubject: hold this\n\nx\n")
	}
	s.send(t, x)
	db, err := sql.Open("sqlite", filepath.Join(x.dir, "sluice-data", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	change := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	backtest := func() (string, error) {
		cmd := exec.Command("sluice", "-c", "sluice.yaml", "backtest", "--rules", "new.yaml")
		cmd.Dir = x.dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	change(`UPDATE records SET record = '{"version": 99}' WHERE message_id = '0@number.test'`)
	change(`UPDATE records SET record = '{"version": 1, "rec' WHERE message_id = '1@number.test'`)
	out, err := backtest()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"looked at      2 mails, 2 decided with both", "not readable   2", "written by a newer program (form 99",
		"     2  delivered to INBOX -> quarantined  (spam 0, ham 0, unknown 2)",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	// The index of an account is damaged: its mail cannot be labelled, and the record alone decides.
	index := filepath.Join(x.dir, "sluice-data", "users", "example.org", "me", "index.db")
	if err := errors.Join(os.MkdirAll(filepath.Dir(index), 0o700), os.WriteFile(index, bytes.Repeat([]byte("no index "), 1000), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err = backtest(); err != nil || !strings.Contains(out, whyNotLooked) || !strings.Contains(out, "look at the mail of me@example.org: ") {
		t.Errorf("a damaged index: %v\n%s", err, out)
	}
	if !strings.Contains(out, "2 mails, 2 decided with both") {
		t.Errorf("the mail is there, whatever the index says:\n%s", out)
	}
	change("UPDATE migrations SET number = number + 1000")
	if out, err = backtest(); err == nil || !strings.Contains(out, "use the newer program") || strings.Contains(out, "copies") {
		t.Errorf("a journal of a newer program: %v\n%s", err, out)
	}
}
