package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/pipeline"
	"sluice/pipeline/mime"
	"sluice/protocols/listen"
)

var update = flag.Bool("update", false, "write the golden files")

func address(t *testing.T, s string) pipeline.Address {
	t.Helper()
	a, err := mime.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// record is of a mail with two recipients: one gets it, for the other a rule wants it held.
func record(t *testing.T) *pipeline.Record {
	policy := pipeline.Postpone
	return &pipeline.Record{
		ID: "0abc", Door: pipeline.SMTP, Via: pipeline.SMTP, Began: noon, QueueID: "4XYZ", MessageID: "1@b.example", Size: 1234,
		Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1"), Login: "me@example.org"}, Greeting: "client.example",
		Sender: address(t, "a@b.example"), End: "done", Reply: pipeline.Reply{Code: 250, Enhanced: "2.0.0", Text: "accepted"},
		Steps: []pipeline.StepRecord{
			{Name: "dnsbl", Stages: []pipeline.StageRecord{{Phase: pipeline.Connect, State: "error", OnError: &policy}}},
			{Name: "spf", Stages: []pipeline.StageRecord{{Phase: pipeline.Mail, State: "not asked", Why: "client logged in"}}},
			{Name: "uribl", Missing: map[string]string{"dead": "no answer in time"}, Stages: []pipeline.StageRecord{{Phase: pipeline.Content, State: "answered"}}},
			{Name: "rules",
				Stages:    []pipeline.StageRecord{{Phase: pipeline.Content, State: "answered"}},
				Hits:      []pipeline.Hit{{Name: "prize"}, {Name: "tried", Shadow: true}},
				Undecided: []pipeline.Undecided{{Name: "listed"}},
			},
		},
		Recipients: []pipeline.RecipientRecord{
			{Recipient: pipeline.Recipient{Address: address(t, "me@example.org")}, Disposition: pipeline.Delivered},
			{
				Recipient: pipeline.Recipient{Address: address(t, "you@example.org")}, Disposition: pipeline.Held, Step: "rules",
				Verdict: pipeline.Verdict{Action: pipeline.Quarantine, By: "prize"},
				Steps:   []pipeline.StepRecord{{Name: "rules", Stages: []pipeline.StageRecord{{Phase: pipeline.Rcpt, State: "not needed"}}}},
			},
		},
		Timings: []pipeline.Timing{{Step: "rules", Phase: pipeline.Content, Took: time.Millisecond}},
	}
}

// journal fails as it is told.
type journal struct {
	err     error
	records int
}

func (j *journal) Record(context.Context, *pipeline.Record, bool) error {
	j.records++
	return j.err
}

func recorder(next pipeline.Recorder) (*Recorder, *bytes.Buffer) {
	var log bytes.Buffer
	handler := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return &Recorder{Next: next, Log: slog.New(handler), Now: func() time.Time { return noon.Add(1500 * time.Millisecond) }}, &log
}

func TestOneLine(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*pipeline.Record)
		want   string
	}{
		{"everything", func(*pipeline.Record) {},
			`level=INFO msg=mail id=0abc door=smtp client=192.0.2.1 helo=client.example from=a@b.example ` +
				`recipients=me@example.org,you@example.org size=1234 end=done became="delivered=1,quarantined=1" ` +
				`reply="250 2.0.0 accepted" decider=rules/prize took=1.5s queue_id=4XYZ message_id=1@b.example login=me@example.org`},
		{"nothing", func(r *pipeline.Record) {
			*r = pipeline.Record{Via: pipeline.Milter, End: "aborted", Note: "connection closed"}
		},
			`level=INFO msg=mail id="" door=milter client=unknown helo="" from=<> recipients="" size=0 end=aborted became="" ` +
				`reply="" decider="" took=0s note="connection closed"`},
		{"a mail that came back", func(r *pipeline.Record) {
			*r = pipeline.Record{ID: "0abc", Door: pipeline.Milter, Via: pipeline.LMTP, End: "done", Recipients: []pipeline.RecipientRecord{
				{Recipient: r.Recipients[0].Recipient, Disposition: pipeline.Postponed, Note: "no space left", Reply: pipeline.Reply{Code: 451, Enhanced: "4.3.0", Text: "later"}},
				{Recipient: r.Recipients[1].Recipient, Disposition: pipeline.Postponed, Note: "no space left", Reply: pipeline.Reply{Code: 452, Enhanced: "4.2.2", Text: "full"}},
			}}
		}, `level=INFO msg=mail id=0abc door=lmtp client=unknown helo="" from=<> recipients=me@example.org,you@example.org size=0 end=done ` +
			`became="postponed=2" reply="451 4.3.0 later; 452 4.2.2 full" decider="" took=0s note="no space left"`},
		{"line ends", func(r *pipeline.Record) {
			*r = pipeline.Record{Via: pipeline.SMTP, Greeting: "x\nlevel=ERROR", MessageID: "\r\n\x1b[31m"}
		}, `level=INFO msg=mail id="" door=smtp client=unknown helo="x\nlevel=ERROR" from=<> recipients="" size=0 end="" became="" ` +
			`reply="" decider="" took=0s message_id="\r\n\x1b[31m"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec, log := recorder(&journal{})
			r := record(t)
			tt.change(r)
			if err := rec.Record(t.Context(), r, false); err != nil {
				t.Fatal(err)
			}
			if got := log.String(); got != tt.want+"\n" {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestManyRecipientsAreCounted(t *testing.T) {
	rec, log := recorder(&journal{})
	r := record(t)
	r.Recipients = slices.Repeat(r.Recipients[:1], 100)
	if err := rec.Record(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "me@example.org,") != 10 || !strings.Contains(got, ",90 more") || !strings.Contains(got, `"delivered=100"`) {
		t.Errorf("got %s", got)
	}
}

// A record that was to survive and does not is none: the door hands over another.
func TestRecordThatIsNotKept(t *testing.T) {
	full := errors.New("disk full")
	rec, log := recorder(&journal{err: full})
	rec.Metrics = NewMetrics("test")
	if err := rec.Record(t.Context(), record(t), true); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("said %s", log)
	}
	if err := rec.Record(t.Context(), record(t), false); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
	if got := scrape(t, serve(t, Config{Metrics: rec.Metrics})); !strings.Contains(got, "\n"+`sluice_transactions_total{door="smtp",end="done"} 1`+"\n") {
		t.Errorf("got %s", got)
	}
}

// serve opens the door and returns where.
func serve(t *testing.T, c Config) (url string) {
	t.Helper()
	l, err := listen.Open(t.Context(), listen.Config{Address: "127.0.0.1:0"}, listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := New(c)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func ask(t *testing.T, method, url string) (code int, body string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(text)
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	code, text := ask(t, "GET", url+"/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	return text
}

func TestDialogue(t *testing.T) {
	now := noon
	var wrong error
	asked := 0
	url := serve(t, Config{
		Metrics: NewMetrics("1.2"), Now: func() time.Time { return now },
		Checks: []Check{
			{"doors", func(context.Context) error { asked++; return nil }},
			{"disk", func(context.Context) error { return wrong }},
		},
	})
	full := errors.New("no room")
	for _, tt := range []struct {
		method, path string
		wrong        error
		later        time.Duration
		code         int
		body         string
	}{
		{"GET", "/healthz", nil, 0, 200, "ok\n"},
		{"HEAD", "/healthz", nil, 0, 200, ""},
		{"GET", "/readyz", nil, 0, 200, "doors: ok\ndisk: ok\n"},
		{"GET", "/readyz", full, 0, 200, "doors: ok\ndisk: ok\n"}, // it was asked just now
		{"GET", "/readyz", full, time.Second, 503, "doors: ok\ndisk: no room\n"},
		{"GET", "/healthz", full, 0, 200, "ok\n"},
		{"GET", "/readyz", nil, time.Second, 200, "doors: ok\ndisk: ok\n"},
		{"POST", "/readyz", nil, 0, 405, "Method Not Allowed\n"},
		{"DELETE", "/metrics", nil, 0, 405, "Method Not Allowed\n"},
		{"GET", "/", nil, 0, 200, "/healthz  the program runs\n/readyz   it takes mail\n/metrics  for Prometheus\n"},
		{"GET", "/debug/pprof/", nil, 0, 404, "404 page not found\n"},
	} {
		wrong, now = tt.wrong, now.Add(tt.later)
		if code, body := ask(t, tt.method, url+tt.path); code != tt.code || body != tt.body {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, code, body, tt.code, tt.body)
		}
	}
	if asked != 3 {
		t.Errorf("the checks ran %d times", asked)
	}
}

// The names are what dashboards are built on: they change by intent only. Values that do not depend on time are golden, too.
func TestMetrics(t *testing.T) {
	m := NewMetrics("1.2")
	rec, _ := recorder(&journal{})
	rec.Metrics = m
	for range 2 {
		if err := rec.Record(t.Context(), record(t), false); err != nil {
			t.Fatal(err)
		}
	}
	store := m.Store(&fakeStore{})
	for range 2 {
		items := []mailstore.Item{{Content: strings.NewReader("1234")}, {Content: io.MultiReader(strings.NewReader("123"))}}
		if _, err := store.Deliver(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{mailstore.ErrQuota, errors.New("disk")} {
		if _, got := m.Store(&fakeStore{err: err}).Deliver(t.Context(), nil); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	r := m.Resolver(fakeDNS{})
	for _, name := range []string{"found", "notfound", "broken"} {
		_, _ = r.LookupTXT(t.Context(), name)
	}
	m.Watch(Sources{
		Connections: map[string]*listen.Counter{"smtp": {}},
		Logins:      &listen.Logins{},
		Journal:     func() Journal { return Journal{1, 2, 3, 4, 5} },
		Held:        func(context.Context) (int, error) { return 6, nil },
		Resolver:    func() Answers { return Answers{9, 10, 11, 12, 13, 14} },
		Space:       func() (octets, inodes int64, low, known bool) { return 7, 8, true, true },
		Trials: func() pipeline.TrialStats {
			return pipeline.TrialStats{Running: 15, Waiting: 16, Octets: 17, Finished: 18, Unfinished: 19, NotRun: 20}
		},
	})
	var lines []string
	for line := range strings.Lines(scrape(t, serve(t, Config{Metrics: m}))) {
		name := strings.TrimPrefix(line, "# HELP ")
		timed := strings.Contains(line, "_seconds_bucket") || strings.Contains(line, "_seconds_sum")
		if strings.HasPrefix(name, "sluice_") && !timed {
			lines = append(lines, line)
		}
	}
	golden(t, "metrics.txt", strings.Join(lines, ""))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update writes it); got\n%s", file, got)
	}
}

type fakeStore struct {
	mailstore.Store
	err error
}

func (s *fakeStore) Deliver(_ context.Context, items []mailstore.Item) ([]mailstore.Placed, error) {
	for _, x := range items {
		if _, err := io.Copy(io.Discard, x.Content); err != nil {
			return nil, err
		}
	}
	return make([]mailstore.Placed, len(items)), s.err
}

type fakeDNS struct{ Resolver }

func (fakeDNS) LookupTXT(_ context.Context, name string) ([]string, error) {
	if name == "found" {
		return []string{"v=spf1 -all"}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: name == "notfound", IsTemporary: name == "broken"}
}

// A scanner whose rules have ever new names does not fill the memory of those who watch.
func TestNamesAreBounded(t *testing.T) {
	m := NewMetrics("1.2")
	rec, _ := recorder(&journal{})
	rec.Metrics = m
	r := record(t)
	for i := range 3 * mostNames {
		r.Steps[3].Hits = []pipeline.Hit{{Name: fmt.Sprintf("rule %d \xff", i)}}
		if err := rec.Record(t.Context(), r, false); err != nil {
			t.Fatal(err)
		}
	}
	got := scrape(t, serve(t, Config{Metrics: m}))
	if n := strings.Count(got, "\nsluice_rule_hits_total{"); n != mostNames { // "listed" is one of the names
		t.Errorf("%d rules", n)
	}
	if want := fmt.Sprintf(`sluice_rule_hits_total{rule="other",shadow="false",step="rules"} %d`, 2*mostNames+1); !strings.Contains(got, want) {
		t.Errorf("no %s", want)
	}
}

func TestJSON(t *testing.T) {
	var log bytes.Buffer
	rec := &Recorder{Next: &journal{}, Log: slog.New(slog.NewJSONHandler(&log, nil)), Now: func() time.Time { return noon.Add(time.Second) }}
	if err := rec.Record(t.Context(), record(t), false); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(log.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"level": "INFO", "msg": "mail", "id": "0abc", "door": "smtp", "client": "192.0.2.1", "size": 1234.0,
		"decider": "rules/prize", "took": 1e9, "queue_id": "4XYZ", "recipients": "me@example.org,you@example.org",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %v, want %v", k, got[k], v)
		}
	}
}

// What shadow stages say is counted when it has been said, and makes no second line of a mail.
func TestShadowsAreCountedOnce(t *testing.T) {
	m := NewMetrics("1.2")
	rec, log := recorder(&journal{})
	rec.Metrics = m
	first := record(t)
	first.Steps = append(first.Steps, pipeline.StepRecord{Name: "tried", Shadow: true, Stages: []pipeline.StageRecord{{Phase: pipeline.Content, State: "not finished", Shadow: true}}})
	completion := &pipeline.Record{ID: first.ID, Completes: true, Steps: []pipeline.StepRecord{
		{Name: "tried", Shadow: true, Hits: []pipeline.Hit{{Name: "hit", Shadow: true}}, Stages: []pipeline.StageRecord{{Phase: pipeline.Content, State: "answered", Shadow: true}}},
	}, Timings: []pipeline.Timing{{Step: "tried", Phase: pipeline.Content, Took: time.Millisecond, Shadow: true}}}
	for _, x := range []*pipeline.Record{first, completion} {
		if err := rec.Record(t.Context(), x, false); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "msg=mail"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log)
	}
	all := scrape(t, serve(t, Config{Metrics: m}))
	for want, there := range map[string]bool{
		`sluice_transactions_total{door="smtp",end="done"} 1`:             true,
		`sluice_stage_asked_total{phase="content",step="tried"} 1`:        true,
		`sluice_rule_hits_total{rule="hit",shadow="true",step="tried"} 1`: true,
		`sluice_stage_seconds_count{phase="content",step="tried"} 1`:      true,
		`state="not finished"`: false,
	} {
		if strings.Contains(all, want) != there {
			t.Errorf("%s is there: %t", want, !there)
		}
	}
}
