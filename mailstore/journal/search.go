package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// An UnreadableError is about one record that is there and cannot be read: its JSON is damaged, or a newer program has
// written it. All others can be.
type UnreadableError struct {
	ID  string
	Err error
}

func (e *UnreadableError) Error() string { return fmt.Sprintf("record %s: %v", e.ID, e.Err) }

func (e *UnreadableError) Unwrap() error { return e.Err }

// A Query says which records are looked for. A zero field asks for nothing.
type Query struct {
	// Since and Until bound when the mail came: at Since or later, before Until.
	Since, Until time.Time
	// Recipient is an address that the sender named, an account that it led to, or "@example.org" for all of a domain. An
	// address is also found with a subaddress.
	Recipient string
	// Sender is the sender's address, "@example.org" for all of a domain, or "<>" for the null sender.
	Sender string
	// SHA256 is that of the message as received, in hex.
	SHA256 string
}

// Match reports whether a record is one of those looked for.
func (q Query) Match(r *pipeline.Record) bool {
	switch {
	case !q.Since.IsZero() && r.Received.Before(q.Since), !q.Until.IsZero() && !r.Received.Before(q.Until):
		return false
	case q.SHA256 != "" && r.SHA256 != q.SHA256:
		return false
	case q.Sender != "" && !matches(q.Sender, r.Sender, ""):
		return false
	}
	return q.Recipient == "" || slices.ContainsFunc(r.Recipients, q.MatchRecipient)
}

// MatchRecipient reports whether a recipient is the one looked for, or whether none is.
func (q Query) MatchRecipient(x pipeline.RecipientRecord) bool {
	return q.Recipient == "" || matches(q.Recipient, x.Address, x.Account)
}

func matches(want string, a pipeline.Address, account string) bool {
	want = normal(want)
	if domain, ok := strings.CutPrefix(want, "@"); ok {
		return a.Domain == domain
	}
	if want == "<>" {
		return a.IsZero()
	}
	if want == account {
		return true
	}
	whole := a.String()
	if want == whole {
		return whole != ""
	}
	return whole != "" && want == base(a)
}

// normal returns an address as records keep it. What is none comes back as it is, and finds nothing.
func normal(s string) string {
	if s == "<>" {
		return s
	}
	s = strings.Trim(s, "<>")
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		if a, err := mime.ParseAddress("x@" + domain); err == nil {
			return "@" + a.Domain
		}
		return s
	}
	if a, err := mime.ParseAddress(s); err == nil {
		return a.String()
	}
	return s
}

// Search yields the records that a query looks for, oldest first, as [Journal.Between] does.
func (j *Journal) Search(ctx context.Context, q Query) iter.Seq2[*pipeline.Record, error] {
	return func(yield func(*pipeline.Record, error) bool) {
		s := j.search(q, false)
		for {
			rows, err := s.page(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range rows {
				if r, err := row.read(); (err != nil || q.Match(r)) && !yield(r, err) {
					return
				}
			}
			if s.done {
				return
			}
		}
	}
}

// Newest returns the newest records that a query looks for, at most limit of them, oldest first, and whether there are
// more. Records that cannot be read are left out, and the error has an [UnreadableError] for each; what could be read is
// returned with it.
func (j *Journal) Newest(ctx context.Context, q Query, limit int) (found []*pipeline.Record, more bool, err error) {
	s := j.search(q, true)
	var unreadable []error
	for {
		rows, err := s.page(ctx)
		if err != nil {
			return nil, false, err
		}
		for _, row := range rows {
			r, err := row.read()
			switch {
			case err != nil:
				unreadable = append(unreadable, err)
			case q.Match(r) && len(found) == limit:
				more = true
			case q.Match(r):
				found = append(found, r)
			}
		}
		if s.done || more {
			slices.Reverse(found)
			return found, more, errors.Join(unreadable...)
		}
	}
}

func (r rowBetween) read() (*pipeline.Record, error) {
	record, err := decode([]byte(r.record))
	if err != nil {
		return nil, &UnreadableError{r.id, err}
	}
	return record, nil
}

// A search is where a query has come to.
type search struct {
	journal   *Journal
	statement string // finds records, or only the places of those that an index finds
	places    int    // the latter, and so many at once; 0: records
	args      []any
	at        place   // of the last one found
	found     []place // that are still to be read
	last      bool    // there are no places behind those
	done      bool    // there is nothing more
}

// placesSize is how many places are held in memory at once. An index has no order of time, so each round looks through all
// that it finds.
const placesSize = 50_000

func (j *Journal) search(q Query, newestFirst bool) *search {
	s := &search{journal: j, at: place{received: math.MinInt64}}
	if newestFirst {
		s.at.received = math.MaxInt64
	}
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !q.Since.IsZero() {
		from = micro(q.Since)
	}
	if !q.Until.IsZero() {
		to = micro(q.Until)
	}
	args := []any{from, to, nil, nil, nil}
	statement := [2]string{searchAll, searchAllBack}
	isAddress := func(s string) bool { return s != "" && s != "<>" && !strings.HasPrefix(s, "@") }
	switch {
	case q.SHA256 != "":
		statement = [2]string{searchSHA256, searchSHA256Back}
		args = append(args, q.SHA256)
	case isAddress(q.Recipient):
		statement = [2]string{searchRecipient, searchRecipientBack}
		args = append(args, normal(q.Recipient))
	case isAddress(q.Sender):
		statement = [2]string{searchSender, searchSenderBack}
		a, err := mime.ParseAddress(normal(q.Sender))
		args = append(args, base(a)) // of what is none: no record has that
		if err != nil {
			args[len(args)-1] = q.Sender
		}
	}
	s.args, s.statement = args, statement[0]
	if newestFirst {
		s.statement = statement[1]
	}
	if len(args) > 5 {
		s.places = placesSize
	}
	return s
}

// page returns the next records that may be looked for: the database narrows by one field of the query, and Match does
// the rest. It may be empty and not the last.
func (s *search) page(ctx context.Context) (rows []rowBetween, err error) {
	if s.places == 0 {
		s.args[2], s.args[3], s.args[4] = s.at.received, s.at.id, pageSize
		if rows, err = s.journal.rows(ctx, s.statement, s.args...); err != nil {
			return nil, err
		}
		if s.done = len(rows) < pageSize; !s.done {
			s.at = rows[len(rows)-1].place
		}
		return rows, nil
	}
	if len(s.found) == 0 {
		s.args[2], s.args[3], s.args[4] = s.at.received, s.at.id, s.places
		if s.found, err = s.journal.places(ctx, s.statement, s.args...); err != nil {
			return nil, err
		}
		if s.last = len(s.found) < s.places; !s.last {
			s.at = s.found[len(s.found)-1]
		}
	}
	n := min(len(s.found), pageSize)
	for _, x := range s.found[:n] {
		row := rowBetween{place: x}
		switch err := s.journal.db.QueryRowContext(ctx, selectRecord, x.id).Scan(&row.record); {
		case errors.Is(err, sql.ErrNoRows): // removed meanwhile, for its age
		case err != nil:
			return nil, s.journal.db.Explain(err)
		default:
			rows = append(rows, row)
		}
	}
	s.found = s.found[n:]
	s.done = s.last && len(s.found) == 0
	return rows, nil
}

func (j *Journal) places(ctx context.Context, query string, args ...any) (all []place, err error) {
	rows, err := j.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, j.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var x place
		if err := rows.Scan(&x.id, &x.received); err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, j.db.Explain(rows.Err())
}

func (j *Journal) rows(ctx context.Context, query string, args ...any) ([]rowBetween, error) {
	all, err := betweenRows(j.db.QueryContext(ctx, query, args...))
	return all, j.db.Explain(err)
}

func betweenRows(rows *sql.Rows, err error) (all []rowBetween, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r rowBetween
		if err := rows.Scan(&r.id, &r.received, &r.record); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}
