package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/mailstore/state/database"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// The oldest go while all take too much, and the file shrinks.
func TestPruneBySize(t *testing.T) {
	j, _ := openTest(t, Config{MaxSize: 4 << 20, Keep: -1})
	for i := range 700 {
		r := &pipeline.Record{ID: fmt.Sprintf("r%04d", i), Received: noon.Add(time.Duration(i) * time.Minute), Note: strings.Repeat("x", 30_000)}
		mustRecord(t, j, false, r)
		if i%200 == 0 {
			mustFlush(t, j)
		}
	}
	mustFlush(t, j)
	before, err := j.Summary(t.Context())
	if err != nil || before.Records != 700 || before.Used < 18<<20 {
		t.Fatalf("%+v, %v", before, err)
	}
	would, err := j.WouldPrune(t.Context())
	if err != nil || would.Old != 0 || would.Surplus < 520 || would.Surplus > 650 {
		t.Errorf("would prune %+v, %v", would, err)
	}
	p, err := j.Prune(t.Context())
	if err != nil || p.Surplus < 450 || p.Octets < 5<<20 {
		t.Errorf("%+v, %v", p, err)
	}
	after, err := j.Summary(t.Context())
	if err != nil || after.Used > 4<<20 || after.Records != 700-p.Surplus || after.Used+after.Free > before.Used/2 {
		t.Errorf("%+v, %v", after, err)
	}
	if got, err := j.Find(t.Context(), "r0699"); err != nil || len(got) != 1 {
		t.Errorf("the newest is gone: %v, %v", got, err)
	}
	if got, err := j.Find(t.Context(), "r0000"); err != nil || len(got) != 0 {
		t.Errorf("the oldest is there: %v, %v", got, err)
	}
	if again, err := j.Prune(t.Context()); err != nil || again.Surplus != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	if err := j.Compact(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSummary(t *testing.T) {
	j, _ := openTest(t, Config{})
	if s, err := j.Summary(t.Context()); err != nil || s.Records != 0 || len(s.Days) != 0 || !s.Oldest.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	for i, at := range []time.Time{noon, noon.Add(time.Hour), noon.Add(24 * time.Hour)} {
		r := record(fmt.Sprint("r", i))
		r.Received = at
		mustRecord(t, j, true, r)
	}
	s, err := j.Summary(t.Context())
	if err != nil || s.Records != 3 || !s.Oldest.Equal(noon) || !s.Newest.Equal(noon.Add(24*time.Hour)) || len(s.Days) != 2 || s.Days[0].Records != 2 ||
		s.Days[0].Day != noon.UTC().Format(time.DateOnly) || s.RecordOctets == 0 || s.Used == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// What tells about people is taken out of old records, and they can be found no more by it.
func TestRedact(t *testing.T) {
	now := noon
	address := func(s string) pipeline.Address {
		a, err := mime.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	handling := func() *pipeline.Handling {
		return &pipeline.Handling{
			Copies: []pipeline.Copy{{By: "line 3 of work.sieve", Folder: "Lists"}},
			Leaving: []pipeline.Leaving{{Kind: pipeline.Redirect, Sender: "anna@example.com", To: []string{"anna@example.net"}, Subject: "love",
				Fields: []pipeline.Edit{{Name: "X-From", Value: "anna"}}}},
			Runs:   []pipeline.Run{{Program: "print", Args: []string{"anna"}, Ended: "exit status 1: anna"}},
			Failed: "work.sieve, line 14: anna@", Notes: []string{"anna had a reply"}, Trace: []string{"love"},
		}
	}
	r := &pipeline.Record{
		ID: "a", Received: noon, Subject: "love letter", MessageID: "x@example.com", Sender: address("anna+tag@example.com"), Greeting: "annas-laptop",
		Client: pipeline.Client{Addr: netip.MustParseAddr("192.0.2.77"), Name: "annas.example.com", Login: "anna@example.com"},
		Asked:  pipeline.Asked{EnvelopeID: "anna"},
		Steps: []pipeline.StepRecord{{
			Name: "spf", Fact: json.RawMessage(`{"domain":"annas.example"}`),
			Hits: []pipeline.Hit{{Name: "h", Evidence: []pipeline.Evidence{{Where: "subject", What: "love"}}}},
		}},
		Recipients: []pipeline.RecipientRecord{
			{Recipient: pipeline.Recipient{Address: address("bert@example.org"), Account: "bert@example.org", ORCPT: "rfc822;bert@example.org"}, Held: "h1", File: "f1",
				Removed:  []pipeline.Removed{{Behind: 3, Field: []byte("Delivered-To: anna@example.org\r\n")}},
				Handling: handling(), Steps: []pipeline.StepRecord{{Name: "sieve", Stages: []pipeline.StageRecord{{Handling: handling(), Note: "anna"}}}}},
			{Recipient: pipeline.Recipient{Address: address("anna@example.org"), Account: "other@example.org"}},
			{Recipient: pipeline.Recipient{Address: address("postmaster@example.org")}},
		},
	}
	young := record("young")
	young.Received = noon.Add(8 * 24 * time.Hour)
	j, _ := openTest(t, Config{Redact: Redact{After: 7 * 24 * time.Hour}, Now: func() time.Time { return now }})
	mustRecord(t, j, true, r)
	mustRecord(t, j, true, young)
	now = noon.Add(6 * 24 * time.Hour)
	if p, err := j.Prune(t.Context()); err != nil || p.Redacted != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	now = noon.Add(9 * 24 * time.Hour)
	if p, err := j.WouldPrune(t.Context()); err != nil || p.Redacted != 1 {
		t.Errorf("would prune %+v, %v", p, err)
	}
	if p, err := j.Prune(t.Context()); err != nil || p.Redacted != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	got, err := j.Recall(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"anna", "removed", "bert", "love", "192.0.2.77", "other"} {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("%q is still in %s", s, text)
		}
	}
	for _, s := range []string{
		`"local":"redacted1"`, `"raw":"redacted1@example.com"`, `"raw":"redacted1@example.org"`, `"raw":"redacted2@example.org"`, "postmaster@example.org",
		`"192.0.2.0"`, `"h1"`, `"f1"`, "x@example.com", `"unknown":"taken out of the record"`, `"what":["subject","addresses","client","evidence","facts"]`,
	} {
		if !bytes.Contains(text, []byte(s)) {
			t.Errorf("%q is not in %s", s, text)
		}
	}
	if found, _, err := j.Newest(t.Context(), Query{Recipient: "bert@example.org"}, 10); err != nil || len(found) != 0 {
		t.Errorf("found by the address: %v, %v", found, err)
	}
	if found, err := j.Find(t.Context(), "f1"); err != nil || len(found) != 1 {
		t.Errorf("not found by its file: %v, %v", found, err)
	}
	if y, err := j.Recall(t.Context(), "young"); err != nil || y.Redacted != nil {
		t.Errorf("%+v, %v", y, err)
	}
	if p, err := j.Prune(t.Context()); err != nil || p.Redacted != 0 {
		t.Errorf("redacted twice: %+v, %v", p, err)
	}
	var word Redactable
	if err := word.UnmarshalText([]byte("subjects")); err == nil || err.Error() != `"subjects" cannot be taken out; there is subject, addresses, client, evidence, facts` {
		t.Errorf("got %v", err)
	}
}

// A journal that is damaged stops no mail: it is put aside, when the server starts and while it runs.
func TestDamagedIsPutAside(t *testing.T) {
	damages := map[string]func(t *testing.T, path string){
		"no database": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"garbage pages": func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 100; i < len(data); i++ {
				data[i] = byte(i * 7)
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			j, err := Open(t.Context(), Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			mustRecord(t, j, true, record("old"))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"-wal", "-shm"} {
				_ = os.Remove(path + part)
			}
			damage(t, path)
			damaged, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), Config{Path: path}); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("a command gets %v", err)
			}
			var log bytes.Buffer
			j, _ = openTest(t, Config{Path: path, Anew: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
			mustRecord(t, j, true, record("new"))
			if !strings.Contains(log.String(), "the journal is damaged: it was put aside, and a new one is begun") {
				t.Errorf("logged %s", log.String())
			}
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("%v, %v", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("what was put aside is not what was there: %v", err)
			}
		})
	}
}

// The file is damaged under a server that runs: what waits to be written goes into the new one.
func TestDamagedWhileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	var log bytes.Buffer
	j, _ := openTest(t, Config{Path: path, Anew: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	mustRecord(t, j, true, record("old"))
	if _, err := j.db.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())-100), 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// Pages that are in memory still serve: connections that are new see the damage.
	j.db.now.Load().SetMaxIdleConns(0)
	mustRecord(t, j, true, record("new"))
	if got, err := j.Recall(t.Context(), "new"); err != nil || got.ID != "new" {
		t.Errorf("%v, %v", got, err)
	}
	if !strings.Contains(log.String(), "put aside") {
		t.Errorf("logged %s", log.String())
	}
	if s := j.Stats(); s.Failing != nil || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

// A journal of the time before files could shrink is brought up to date, and one of a later time is left alone.
func TestOtherVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	old, err := database.Open(t.Context(), database.Config{Path: path, Name: "journal", Migrations: migrations[:1]})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(record("old"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.ExecContext(t.Context(), `INSERT INTO records VALUES ('old', $1, '', '', 'p', $2)`, micro(noon), string(data)); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Path: path, ReadOnly: true}); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("its format is number 1, this program reads %d: start the server once", len(migrations))) {
		t.Errorf("got %v", err)
	}
	j, _ := openTest(t, Config{Path: path})
	if r, err := j.Recall(t.Context(), "old"); err != nil || r.ID != "old" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := j.db.ExecContext(t.Context(), `INSERT INTO migrations VALUES ($1)`, len(migrations)+1); err != nil {
		t.Fatal(err)
	}
	// Also a server that may begin anew does not: nothing is damaged.
	if _, err := Open(t.Context(), Config{Path: path, Anew: true}); err == nil || !strings.Contains(err.Error(), "use the newer program") {
		t.Errorf("got %v", err)
	}
}
