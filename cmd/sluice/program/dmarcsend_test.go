package program

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
	"sluice/scanners/dmarc"
)

// A mailbag is an outbox that keeps what was released.
type mailbag struct {
	mu         sync.Mutex // of list and texts
	staged     int
	list       []mailstore.Outgoing
	texts      []string
	stage, let error
}

func (b *mailbag) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	if b.stage != nil {
		return nil, b.stage
	}
	s := &bagged{bag: b}
	for _, m := range list {
		text, err := io.ReadAll(m.Content)
		if err != nil {
			return nil, err
		}
		b.staged++
		s.list, s.texts = append(s.list, m), append(s.texts, string(text))
		s.ids = append(s.ids, fmt.Sprintf("q%d", b.staged))
	}
	return s, nil
}

type bagged struct {
	bag   *mailbag
	ids   []string
	list  []mailstore.Outgoing
	texts []string
}

func (s *bagged) IDs() []string   { return s.ids }
func (s *bagged) Withdraw() error { return nil }
func (s *bagged) Release(context.Context) error {
	if s.bag.let != nil {
		return s.bag.let
	}
	s.bag.mu.Lock()
	defer s.bag.mu.Unlock()
	s.bag.list, s.bag.texts = append(s.bag.list, s.list...), append(s.bag.texts, s.texts...)
	return nil
}

func (b *mailbag) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.list)
}

var reportedDay = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

// newReporter reports on a day of which the journal has one mail of each policy.
func newReporter(t *testing.T, policies map[string]string) (*reporter, *mailbag, *pipelinetest.Resolver) {
	t.Helper()
	dir := t.TempDir()
	now := reportedDay.Add(30 * time.Hour)
	j, err := journal.Open(t.Context(), journal.Config{Path: filepath.Join(dir, "journal.db"), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	for domain, policy := range policies {
		fact, err := json.Marshal(dmarc.Fact{Result: "fail", Disposition: "none", Domain: domain, Published: policy, PublishedAt: domain})
		if err != nil {
			t.Fatal(err)
		}
		r := &pipeline.Record{
			Version: pipeline.RecordVersion, ID: "id" + strings.ReplaceAll(domain, ".", ""), Received: reportedDay.Add(time.Hour), End: "done",
			Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.1")}, Steps: []pipeline.StepRecord{{Name: "dmarc", Kind: "dmarc", Fact: fact}},
			Recipients: []pipeline.RecipientRecord{{Disposition: pipeline.Delivered, Folder: "INBOX"}},
		}
		if err := j.Record(t.Context(), r, true); err != nil {
			t.Fatal(err)
		}
	}
	c := config.Default()
	c.Hostname, c.Users.Domain, c.DMARCReports.Send = "mx.example.org", "example.org", true
	b, dns := &mailbag{}, &pipelinetest.Resolver{TXT: map[string][]string{}, Fail: map[string]string{}}
	return &reporter{
		journal: j, outbox: b, disk: osDisk{}, dir: filepath.Join(dir, "dmarc"), now: func() time.Time { return now },
		log: slog.New(slog.DiscardHandler), config: func() *config.Config { return c }, resolver: func() pipeline.Resolver { return dns },
	}, b, dns
}

func states(out sentReports) string {
	var all []string
	for _, x := range out.Reports {
		to := x.Asked
		if x.To != "" {
			to = x.To
		}
		all = append(all, to+" "+x.State)
	}
	return strings.Join(all, ", ")
}

func TestReportsAreSent(t *testing.T) {
	r, bag, dns := newReporter(t, map[string]string{
		"a.example": "v=DMARC1; p=none; rua=mailto:r@a.example,mailto:x@reports.example!10m,mailto:y@unasked.example,mailto:z@down.example,https://a.example/r",
		"b.example": "v=DMARC1; p=none; rua=mailto:small@b.example!100,mailto:1@b.example,mailto:2@b.example,mailto:3@b.example,mailto:4@b.example,mailto:5@b.example",
		"c.example": "v=DMARC1; p=none",
	})
	dns.TXT["a.example._report._dmarc.reports.example"] = []string{"v=DMARC1"}
	dns.Fail["a.example._report._dmarc.down.example"] = "timeout"
	out, err := r.send(t.Context(), reportedDay)
	if err != nil {
		t.Fatal(err)
	}
	const want = "r@a.example sent, x@reports.example sent, y@unasked.example not wanted, z@down.example undecided, " +
		"small@b.example too large, 1@b.example sent, 2@b.example sent, 3@b.example sent, 4@b.example sent, 5@b.example too many addresses"
	if got := states(out); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if r.done != "" {
		t.Error("what is undecided is not asked again")
	}
	if len(bag.list) != 6 {
		t.Fatalf("%d mails have left", len(bag.list))
	}
	m, text := bag.list[0], bag.texts[0]
	if m.Sender != "postmaster@example.org" || m.Recipients[0].Address != "r@a.example" || m.Recipients[0].Notify[0] != "never" ||
		m.Why != "DMARC report about a.example" || m.Forwarded {
		t.Errorf("%+v", m)
	}
	checkReport(t, text)
	// Now the DNS answers, and nobody gets anything twice, also from another reporter.
	delete(dns.Fail, "a.example._report._dmarc.down.example")
	dns.TXT["a.example._report._dmarc.down.example"] = []string{"v=DMARC1; rua=mailto:w@down.example"}
	again := &reporter{
		journal: r.journal, outbox: r.outbox, disk: r.disk, dir: r.dir, now: r.now, log: r.log, config: r.config, resolver: r.resolver,
	}
	out, err = again.send(t.Context(), reportedDay)
	if got := states(out); err != nil || !strings.Contains(got, "w@down.example sent,") || strings.Count(got, " sent before") != 6 || len(bag.list) != 7 || again.done != "2026-11-21" {
		t.Errorf("%s, %v; %d mails have left; done: %q", got, err, len(bag.list), again.done)
	}
	if out, err = r.send(t.Context(), reportedDay.Add(-24*time.Hour)); err != nil || len(out.Reports) > 0 {
		t.Errorf("about another day: %+v %v", out, err)
	}
}

// checkReport reads a report as its receivers do.
func checkReport(t *testing.T, text string) {
	t.Helper()
	m := pipelinetest.Parse(t, text)
	id, _ := m.Header().First("Message-ID")
	if !strings.HasPrefix(m.Subject(), "Report Domain: a.example Submitter: mx.example.org Report-ID: <") || !strings.HasSuffix(id.Value(), "@mx.example.org>") ||
		m.From()[0].String() != "postmaster@example.org" || !m.Header().Has("Date") {
		t.Errorf("%s", text)
	}
	files := m.Attachments()
	if len(files) != 1 || files[0].Name != "mx.example.org!a.example!1795219200!1795305599.xml.gz" {
		t.Fatalf("%+v\n%s", files, text)
	}
	var packed bytes.Buffer
	m.CopyAttachments(func(int) io.Writer { return &packed })
	z, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	xml, err := io.ReadAll(z)
	if err != nil || !strings.Contains(string(xml), "<domain>a.example</domain>") || !strings.Contains(string(xml), "<source_ip>192.0.2.1</source_ip>") {
		t.Errorf("%s %v", xml, err)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > 200 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("a line %q", line)
		}
	}
}

// Whatever fails on the way, the report is in the queue or it is said that it is not, and once more sends it once.
func TestReportsFail(t *testing.T) {
	policies := map[string]string{"a.example": "v=DMARC1; p=none; rua=mailto:r@a.example"}
	for n := 1; ; n++ {
		r, bag, _ := newReporter(t, policies)
		d := &faultyDisk{n: n, err: syscall.ENOSPC}
		r.disk = d
		_, err := r.send(t.Context(), reportedDay)
		if d.fell == "" {
			if err != nil || n < 6 {
				t.Errorf("%v after %v", err, d.did)
			}
			break
		}
		if !errors.Is(err, syscall.ENOSPC) || len(bag.list) > 0 || r.done != "" {
			t.Errorf("call %d (%s): %v, %d have left", n, d.fell, err, len(bag.list))
		}
		r.disk = osDisk{}
		out, err := r.send(t.Context(), reportedDay)
		// Where only the folder could not be synced it may be written down: then nobody gets it, for twice would be worse.
		if got := states(out); err != nil || got != "r@a.example sent" && (d.fell != "sync folder" || got != "r@a.example sent before") {
			t.Errorf("call %d (%s): then %s, %v", n, d.fell, got, err)
		}
	}
	for name, bag := range map[string]*mailbag{"the queue is full": {stage: mailstore.ErrQueueFull}, "not released": {let: errors.New("the disk is gone")}} {
		r, _, _ := newReporter(t, policies)
		r.outbox = bag
		if out, err := r.send(t.Context(), reportedDay); err != nil || states(out) != "r@a.example failed" || out.Reports[0].Why == "" {
			t.Errorf("%s: %+v %v", name, out, err)
		}
		bag.stage, bag.let = nil, nil
		if out, err := r.send(t.Context(), reportedDay); err != nil || states(out) != "r@a.example sent" || len(bag.list) != 1 {
			t.Errorf("%s: then %+v %v", name, out, err)
		}
	}
	r, _, _ := newReporter(t, policies)
	if err := errors.Join(os.MkdirAll(r.dir, 0o700), os.WriteFile(r.path("2026-11-21"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out := r.answer(t.Context(), "2026-11-21\n"); !strings.HasPrefix(out.Error, "read what was sent: ") {
		t.Errorf("%+v", out)
	}
	if out := r.answer(t.Context(), "yesterday\n"); out.Error != `"yesterday\n" is no day` {
		t.Errorf("%+v", out)
	}
}

// Reports go out once a day, at a moment of the night that is always the same, and old lists go.
func TestReportsDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, bag, _ := newReporter(t, map[string]string{"a.example": "v=DMARC1; p=none; rua=mailto:r@a.example"})
		old := r.path("2026-01-01")
		if err := errors.Join(os.MkdirAll(r.dir, 0o700), os.WriteFile(old, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		midnight, began := reportedDay.Add(24*time.Hour), time.Now()
		r.now = func() time.Time { return midnight.Add(time.Since(began)) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if bag.count() > 0 {
			t.Error("a report was sent before the day's last mail can have its record")
		}
		for range 2 {
			time.Sleep(6 * time.Hour)
			synctest.Wait()
			if bag.count() != 1 {
				t.Errorf("%d reports were sent", bag.count())
			}
		}
		cancel()
		<-ended
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Error("the list of long ago is still there")
		}
		r.config().DMARCReports.Send = false
		r.done = ""
		if _, due := r.due(); due {
			t.Error("reports are due although nobody wants to send any")
		}
	})
}
