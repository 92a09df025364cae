package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mailstore/state/database"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

func parsed(t *testing.T, s string) pipeline.Address {
	t.Helper()
	a, err := mime.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// someMail are six records, a minute apart.
func someMail(t *testing.T) (all []*pipeline.Record) {
	for i, x := range []struct{ id, from, to, account string }{
		{"a", "eve@bad.example", "anna@example.org", "anna@example.org"},
		{"b", "bob@good.example", "Anna+Lists@Example.org", "anna@example.org"},
		{"c", "", "anna+x@example.org", ""}, // the MTA delivers it
		{"d", "eve@bad.example", "info@example.org", "anna@example.org"},
		{"e", "eve+tag@bad.example", "carl@example.net", "carl@example.net"},
		{"f", "bob@good.example", "annabel@example.org", "annabel@example.org"},
	} {
		r := record(x.id)
		r.Received, r.Sender, r.SHA256 = noon.Add(time.Duration(i)*time.Minute), parsed(t, x.from), strings.Repeat(x.id, 64)
		r.Recipients = []pipeline.RecipientRecord{{Recipient: pipeline.Recipient{Address: parsed(t, x.to), Account: x.account}}}
		all = append(all, r)
	}
	return all
}

type searched struct {
	Query

	limit int
	want  string
	more  bool
}

func searches() []searched {
	minute := func(i int) time.Time { return noon.Add(time.Duration(i) * time.Minute) }
	return []searched{
		{Query{}, 9, "a b c d e f", false},
		{Query{}, 6, "a b c d e f", false},
		{Query{}, 2, "e f", true},
		{Query{Since: minute(1), Until: minute(3)}, 9, "b c", false},
		{Query{Since: minute(9)}, 9, "", false},
		{Query{Recipient: "anna@example.org"}, 9, "a b c d", false},
		{Query{Recipient: "<ANNA@EXAMPLE.ORG>"}, 2, "c d", true},
		{Query{Recipient: "anna+lists@example.org"}, 9, "b", false},
		{Query{Recipient: "info@example.org"}, 9, "d", false},
		{Query{Recipient: "@example.org"}, 9, "a b c d f", false},
		{Query{Recipient: "@Example.NET"}, 9, "e", false},
		{Query{Recipient: "nobody@example.org"}, 9, "", false},
		{Query{Recipient: "not an @ address @"}, 9, "", false},
		{Query{Sender: "eve@bad.example"}, 9, "a d e", false},
		{Query{Sender: "eve@bad.example", Recipient: "anna@example.org"}, 9, "a d", false},
		{Query{Sender: "@bad.example", Until: minute(3)}, 9, "a", false},
		{Query{Sender: "<>"}, 9, "c", false},
		{Query{SHA256: strings.Repeat("d", 64)}, 9, "d", false},
		{Query{SHA256: strings.Repeat("d", 64), Recipient: "carl@example.net"}, 9, "", false},
	}
}

func checkSearches(t *testing.T, j *Journal) {
	t.Helper()
	for _, x := range searches() {
		found, more, err := j.Newest(t.Context(), x.Query, x.limit)
		if ids(found) != x.want || more != x.more || err != nil {
			t.Errorf("the newest %d of %+v: %q, %v, %v; want %q", x.limit, x.Query, ids(found), more, err, x.want)
		}
		var all []*pipeline.Record
		for r, err := range j.Search(t.Context(), x.Query) {
			if err != nil {
				t.Error(err)
			}
			all = append(all, r)
		}
		if got := ids(all); !strings.HasSuffix(got, x.want) || !x.more && got != x.want {
			t.Errorf("%+v: %q, want %q", x.Query, got, x.want)
		}
	}
}

func TestSearch(t *testing.T) {
	j, _ := openTest(t, Config{})
	mustRecord(t, j, false, someMail(t)...)
	mustFlush(t, j)
	checkSearches(t, j)
	for range j.Search(t.Context(), Query{}) {
		break
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := j.Newest(ended, Query{}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSearchOverPages(t *testing.T) {
	j, _ := openTest(t, Config{})
	const n = 3*pageSize + 5
	for i := range n {
		r := record(fmt.Sprintf("id%04d", i))
		r.Received = noon.Add(time.Duration(i/3) * time.Second)
		if i%2 == 0 {
			r.Sender = parsed(t, "even@a.example")
		}
		mustRecord(t, j, false, r)
	}
	mustFlush(t, j)
	found, more, err := j.Newest(t.Context(), Query{Sender: "@a.example"}, n)
	if err != nil || more || len(found) != n {
		t.Errorf("%d, %v, %v", len(found), more, err)
	}
	found, more, err = j.Newest(t.Context(), Query{Sender: "even@a.example"}, pageSize+1)
	if err != nil || !more || len(found) != pageSize+1 || found[pageSize].ID != "id0304" || found[0].ID != "id0104" {
		t.Errorf("%d, %v, %v: %s", len(found), more, err, ids(found))
	}
}

// However many places fit into memory, each record comes once and in order; one that is removed meanwhile does not.
func TestSearchInRounds(t *testing.T) {
	j, _ := openTest(t, Config{})
	const n = 2*pageSize + 6
	var want []string
	for i := range n {
		r := record(fmt.Sprintf("id%04d", (i*7)%n))
		r.Received, r.Sender = noon.Add(time.Duration(i/3)*time.Second), parsed(t, "a@a.example")
		mustRecord(t, j, false, r)
		want = append(want, fmt.Sprintf("%03d %s", i/3, r.ID))
	}
	mustFlush(t, j)
	slices.Sort(want)
	for _, places := range []int{1, 7, pageSize, pageSize + 1, n, n + 1} {
		for _, backwards := range []bool{false, true} {
			s := j.search(Query{Sender: "a@a.example"}, backwards)
			s.places = places
			var got []string
			for !s.done {
				rows, err := s.page(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range rows {
					got = append(got, fmt.Sprintf("%03d %s", (x.received-micro(noon))/1e6, x.id))
				}
			}
			if backwards {
				slices.Reverse(got)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d places, backwards %t: %d found, %v", places, backwards, len(got), got)
			}
		}
	}
	s := j.search(Query{Sender: "a@a.example"}, false)
	if rows, err := s.page(t.Context()); err != nil || len(rows) != pageSize {
		t.Fatal(len(rows), err)
	}
	if _, err := j.db.ExecContext(t.Context(), deleteRecord, s.found[0].id); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.page(t.Context()); err != nil || len(rows) != pageSize-1 || s.done {
		t.Error(len(rows), err, s.done)
	}
}

// What is looked for must not be found by reading everything.
func TestSearchUsesIndexes(t *testing.T) {
	j, _ := openTest(t, Config{})
	for name, query := range map[string]string{
		"recipients": searchRecipientBack, "records_sender": searchSenderBack, "records_sha256": searchSHA256Back,
		"records_received": searchAllBack, "records_message_id": findRecords,
	} {
		args := []any{int64(0), int64(1), int64(1), "", pageSize, "x"}
		switch query {
		case searchAllBack:
			args = args[:5]
		case findRecords:
			args = []any{"x", "x", 1}
		}
		rows, err := j.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		plan := ""
		for rows.Next() {
			var a, b, c int
			var line string
			if err := rows.Scan(&a, &b, &c, &line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		for _, few := range []string{"SCAN buckets", "SCAN CONSTANT ROW", "SCAN records USING INDEX records_unfilled",
			"SCAN recipients USING COVERING INDEX recipients_unfilled", "SCAN recipients USING INDEX recipients_unfilled"} {
			plan = strings.ReplaceAll(plan, few+"\n", "")
		}
		if strings.Contains(plan, "SCAN") || !strings.Contains(plan, name) {
			t.Errorf("%s:\n%s", name, plan)
		}
	}
}

// A journal that a program from before has written is found in all the same, before and after its rows are filled.
func TestJournalFromBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	old, err := database.Open(t.Context(), database.Config{Path: path, Name: "journal", Migrations: migrations[:1]})
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := old.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range someMail(t) {
		k := keysOf(r)
		exec(`INSERT INTO records (id, received, queue_id, message_id, plan, record) VALUES ($1, $2, $3, $4, $5, $6)`,
			r.ID, k.received, k.queueID, k.messageID, k.plan, string(mustJSON(t, r)))
		exec(`INSERT INTO recipients (id, place, address, file, held) VALUES ($1, 0, $2, '', '')`, r.ID, k.recipients[0].address)
	}
	exec(`INSERT INTO records (id, received, queue_id, message_id, plan, record) VALUES ('z', -1, '', '', '', '{"version":')`)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	_, err = Open(t.Context(), Config{Path: path, ReadOnly: true})
	if err == nil || !strings.Contains(err.Error(), "start the server once, it brings the file up to date") {
		t.Errorf("got %v", err)
	}
	j, _ := openTest(t, Config{Path: path, Keep: -1})
	if _, _, err := j.Newest(t.Context(), Query{Sender: "eve@bad.example"}, 9); err == nil ||
		err.Error() != "record z: its JSON is damaged: unexpected end of JSON input" {
		t.Errorf("got %v", err)
	}
	if _, err := j.db.ExecContext(t.Context(), `DELETE FROM records WHERE id = 'z'`); err != nil {
		t.Fatal(err)
	}
	checkSearches(t, j)
	if _, err := j.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkSearches(t, j)
	if rows, err := j.rows(t.Context(), `SELECT id, received, record FROM records WHERE sender IS NULL OR sha256 IS NULL`); err != nil || len(rows) > 0 {
		t.Errorf("%d rows are not filled: %v", len(rows), err)
	}
}
