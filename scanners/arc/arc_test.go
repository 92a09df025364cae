package arc

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestConform(t *testing.T) { pipelinetest.Conform(t, Kind(), nil) }

// list changes a mail as mailing lists do.
func list(text string) string {
	return strings.Replace(text, "\r\n\r\nhello\r\n", "\r\n\r\nhello\r\n-- \r\na list\r\n", 1)
}

func TestChain(t *testing.T) {
	one := hop{domain: "one.example", results: "mx.one.example; spf=pass smtp.mailfrom=a@example.com; dkim=pass header.d=example.com; dmarc=pass header.from=example.com"}
	two := hop{domain: "two.example", results: "mx.two.example; spf=fail; dkim=fail; dmarc=fail; arc=pass"}
	text := seal(t, list(seal(t, mail, one)), two)
	fact, missing, err := check(t, newStage(t, 50), text)
	if err != nil || missing != nil {
		t.Fatal(missing, err)
	}
	key := record(t, ed())
	want := Fact{
		Result: "pass", Instances: 2, OldestPass: 2, Sealers: []string{"two.example", "one.example"},
		Sets: []Set{
			{1, "one.example", "as", "none", "one.example", "pass", "fail", "the body is not the one that was signed", key},
			{2, "two.example", "as", "pass", "two.example", "pass", "pass", "", key},
		},
		First: AuthResults{Instance: 1, Authserv: "mx.one.example", SPF: "pass", DKIM: "pass", DMARC: "pass", MailFrom: "a@example.com",
			HeaderFrom: "example.com", Signers: []string{"example.com"}, Text: "i=1; " + one.results},
		Last: AuthResults{Instance: 2, Authserv: "mx.two.example", SPF: "fail", DKIM: "fail", DMARC: "fail", ARC: "pass", Text: "i=2; " + two.results},
	}
	if !reflect.DeepEqual(fact, want) {
		t.Errorf("%+v\nwant %+v", fact, want)
	}
}

func TestJudged(t *testing.T) {
	a, b, c := hop{domain: "a.example", results: "a; spf=pass"}, hop{domain: "b.example", results: "b; spf=pass"}, hop{domain: "c.example", results: "c; spf=pass"}
	three := seal(t, seal(t, seal(t, mail, a), b), c)
	now := pipelinetest.Epoch.Unix()
	with := func(h hop, f func(*hop)) hop { f(&h); return h }
	for _, tt := range []struct {
		name, text string
		fail       []string // names that do not answer
		result     string
		why        string
		oldest     int
		missing    string
		err        string
	}{
		{name: "nobody's", text: mail, result: "none", oldest: -1},
		{name: "unchanged", text: three, result: "pass"},
		{name: "the sets in another order", text: shuffled(three), result: "pass"},
		{name: "changed after the first", text: seal(t, seal(t, list(seal(t, mail, a)), b), c), result: "pass", oldest: 2},
		{name: "changed after the second", text: seal(t, list(seal(t, seal(t, mail, a), b)), c), result: "pass", oldest: 3},
		{name: "changed after the last", text: list(three), result: "fail", why: "the message signature i=3: the body is not the one that was signed", oldest: -1},
		{name: "a set changed", text: strings.Replace(three, "i=1; a; spf=pass", "i=1; a; spf=fail", 1), result: "fail",
			why: "the seal i=3: the header is not the one that was signed, or the key is another one", oldest: -1},
		{name: "a set taken out", text: strings.Replace(three, "ARC-Seal: i=2", "X: i=2", 1), result: "fail", why: "there is no ARC-Seal with i=2", oldest: -1},
		{name: "a field twice", text: "ARC-Seal: i=2\r\n" + three, result: "fail", why: "there are two ARC-Seal with i=2", oldest: -1},
		{name: "found broken", text: seal(t, seal(t, mail, a), with(b, func(h *hop) { h.cv = "fail" })), result: "fail",
			why: "b.example found the chain broken (i=2)", oldest: -1},
		{name: "the first says pass", text: seal(t, mail, with(a, func(h *hop) { h.cv = "pass" })), result: "fail",
			why: "the seal i=1 says cv=pass and not cv=none", oldest: -1},
		{name: "a later one says none", text: seal(t, seal(t, mail, a), with(b, func(h *hop) { h.cv = "none" })), result: "fail",
			why: "the seal i=2 says cv=none and not cv=pass", oldest: -1},
		{name: "part of the body", text: seal(t, mail, with(a, func(h *hop) { h.ams, h.length = "l=3; ", 3 })), result: "fail",
			why: "the message signature i=1: 3 of 7 octets of the body are signed", oldest: -1},
		{name: "expired", text: seal(t, mail, with(a, func(h *hop) { h.ams = fmt.Sprintf("x=%d; ", now-1) })), result: "fail",
			why: "the message signature i=1: it has expired", oldest: -1},
		{name: "expires soon", text: seal(t, mail, with(a, func(h *hop) { h.ams = fmt.Sprintf("x=%d; ", now+1) })), result: "pass"},
		{name: "no i=", text: "ARC-Seal: a=b\r\n" + mail, result: "fail", why: `ARC-Seal has no valid i=: ""`, oldest: -1},
		{name: "i= is no number", text: "ARC-Seal: i=+1\r\n" + mail, result: "fail", why: `ARC-Seal has no valid i=: "+1"`, oldest: -1},
		{name: "a large i=", text: "ARC-Seal: i=4294967297\r\n" + mail, result: "fail", why: "ARC-Seal has i=4294967297: there are more than 50 sets", oldest: -1},

		{name: "the last signer's key", text: three, fail: []string{"ams._domainkey.c.example"},
			err: "the chain is undecided: the message signature i=3: look up the key: lookup ams._domainkey.c.example: timeout"},
		{name: "a sealer's key", text: three, fail: []string{"as._domainkey.a.example"},
			err: "the chain is undecided: the seal i=1: look up the key: lookup as._domainkey.a.example: timeout"},
		{name: "a sealer's key of a broken chain", text: list(three), fail: []string{"as._domainkey.a.example"}, result: "fail",
			why: "the message signature i=3: the body is not the one that was signed", oldest: -1},
		{name: "an early signer's key", text: three, fail: []string{"ams._domainkey.b.example"}, result: "pass",
			missing: "the message signature i=2: look up the key: lookup ams._domainkey.b.example: timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fact, missing, err := check(t, newStage(t, 50, tt.fail...), tt.text)
			said, unknown := "", ""
			if err != nil {
				said = err.Error()
			}
			if e := missing["oldest_pass"]; e != nil {
				unknown = e.Error()
			}
			if said != tt.err || unknown != tt.missing {
				t.Fatalf("%v, missing %v; want %q, %q", err, missing, tt.err, tt.missing)
			}
			if fact.Result != tt.result || fact.Why != tt.why || unknown == "" && fact.OldestPass != tt.oldest {
				t.Errorf("%s, %q, %d; want %s, %q, %d", fact.Result, fact.Why, fact.OldestPass, tt.result, tt.why, tt.oldest)
			}
		})
	}
}

// shuffled has the fields of the header in another order, which only i= tells.
func shuffled(text string) string {
	header, rest, _ := strings.Cut(text, "\r\nFrom:")
	lines := strings.Split(header, "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "\r\n") + "\r\nFrom:" + rest
}

func TestLimit(t *testing.T) {
	text := mail
	for i := range 51 {
		text = seal(t, text, hop{domain: fmt.Sprintf("d%d.example", i), results: "x; spf=pass"})
		for _, tt := range []struct {
			sets int
			why  string
		}{{2, "there are more than 2 sets"}, {50, "there are more than 50 sets"}} {
			if i < tt.sets-1 || i > tt.sets {
				continue
			}
			want := ""
			if i == tt.sets {
				want = tt.why
			}
			fact, _, err := check(t, newStage(t, tt.sets), text)
			if err != nil || fact.Why != want || (fact.Result == "pass") != (want == "") {
				t.Errorf("%d sets where %d may be: %s %q %v", i+1, tt.sets, fact.Result, fact.Why, err)
			}
		}
	}
	if _, err := Kind().New(&Config{Sets: 50}, pipelinetest.Env(t)); err == nil || err.Error() != "key_timeout: 0s is no time to wait" {
		t.Error(err)
	}
	for _, n := range []int{0, 51} {
		if _, err := Kind().New(&Config{Sets: n, KeyTimeout: time.Second}, pipelinetest.Env(t)); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("sets: %d: ", n)) {
			t.Error(err)
		}
	}
}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		text string
		want AuthResults
	}{
		{"i=3; mx.example.org 1; none", AuthResults{Authserv: "mx.example.org"}},
		{"i=3; mx; spf=pass; spf=fail; dkim=fail header.d=a.example; dkim=PASS (1024 bit; \\) key) header.i=@B.Example header.s=x; dkim=pass header.d=c.example",
			AuthResults{Authserv: "mx", SPF: "pass", DKIM: "pass", Signers: []string{"b.example", "c.example"}}},
		{"i=3; mx;\tspf = softfail\r\n (a (nested; dkim=pass) comment) reason=\"dkim=pass; dmarc=pass\" smtp.mailfrom = \"a b\"@example.com; DMARC/1=none header.from=example.com",
			AuthResults{Authserv: "mx", SPF: "softfail", DMARC: "none", MailFrom: "a b", HeaderFrom: "example.com"}},
		{`i=3; "m;x" ; spf; =; dkim=; ;;dmarc=pass policy.x="unclosed; spf=pass`, AuthResults{Authserv: "m;x", DMARC: "pass"}},
		{"i=3; mx; spf=pass (unclosed; dkim=pass", AuthResults{Authserv: "mx", SPF: "pass"}},
		{"i=3", AuthResults{}},
	} {
		m := parse(t, "ARC-Authentication-Results: "+tt.text+"\r\n\r\n")
		f, _ := m.Header().First("ARC-Authentication-Results")
		got := readResults(3, f)
		tt.want.Instance, tt.want.Text = 3, f.Value()
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\n%+v\nwant %+v", tt.text, got, tt.want)
		}
	}
}

// What is not read is bounded, and so is what is kept.
func TestHostile(t *testing.T) {
	var whole strings.Builder
	for i := 1; i <= 50; i++ {
		fmt.Fprintf(&whole, "ARC-Authentication-Results: i=%d; %s\r\n", i, strings.Repeat("dkim=pass header.d=x.example; ", 50))
		fmt.Fprintf(&whole, "ARC-Message-Signature: i=%d; a=rsa-sha256; d=a%d.example; s=s; h=%s; bh=%s; b=AAAA\r\n", i, i, strings.Repeat("from:", 100), someHash)
		fmt.Fprintf(&whole, "ARC-Seal: i=%d; a=rsa-sha256; cv=%s; d=a%d.example; s=s; b=AAAA\r\n", i, map[bool]string{true: "none", false: "pass"}[i == 1], i)
	}
	for name, text := range map[string]string{
		"50 broken sets": whole.String() + mail,
		"many fields":    strings.Repeat("ARC-Seal: i=1\r\n", 900) + mail,
		"nested":         "ARC-Authentication-Results: i=1; " + strings.Repeat("(", 100_000) + "\r\n" + mail,
		"quotes":         "ARC-Authentication-Results: i=1; " + strings.Repeat(`"`, 100_001) + "\r\n" + mail,
		"a large body":   whole.String() + mail + strings.Repeat("a \r\n", 1<<20),
	} {
		began := time.Now()
		fact, _, err := check(t, newStage(t, 50), text)
		if err != nil || fact.Result != "fail" || len(fact.First.Text) > 1000 || len(fact.First.Signers) > 20 {
			t.Errorf("%s: %+v %v", name, fact, err)
		}
		// Far above what any machine needs: only something that is not linear gets there.
		if took := time.Since(began); took > 60*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}

const someHash = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="

func TestSkippedByDefault(t *testing.T) {
	env, journal := pipelinetest.Env(t), &pipelinetest.Journal{}
	env.Journal = journal
	env.Resolver = everywhere{fail: map[string]bool{"as._domainkey.a.example": true}, record: record(t, ed())}
	p := pipelinetest.Plan(t, env, pipeline.Step{Kind: Kind(), Config: Kind().Config()})
	text := seal(t, mail, hop{domain: "a.example", results: "a; spf=pass"})
	ran := pipelinetest.Run(t, p, pipeline.SMTP, journal, pipelinetest.Mail{From: "a@example.com", Text: text})
	step := ran.Record.Steps[0]
	if ran.Decisions[0].Verdict.Action != pipeline.Pass || !strings.HasPrefix(step.Unknown, "the chain is undecided: the seal i=1") {
		t.Errorf("%+v, unknown: %q", ran.Decisions[0].Verdict, step.Unknown)
	}
}
