package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// Redact says what is taken out of older records.
type Redact struct {
	// After is how old a record is then; 0 is never.
	After time.Duration `yaml:"after"`
	// What is taken out: subject, addresses (what stands before their @), client (its name, its login and the end of its
	// address), evidence (what rules have seen), facts (what steps have found).
	What []Redactable `yaml:"what"`
}

// A Redactable names something in a record that tells about people.
type Redactable string

const (
	redactSubject   Redactable = "subject"
	redactAddresses Redactable = "addresses"
	redactClient    Redactable = "client"
	redactEvidence  Redactable = "evidence"
	redactFacts     Redactable = "facts"
)

func redactable() []Redactable {
	return []Redactable{redactSubject, redactAddresses, redactClient, redactEvidence, redactFacts}
}

// UnmarshalText reads one of the words.
func (r *Redactable) UnmarshalText(text []byte) error {
	if !slices.Contains(redactable(), Redactable(text)) {
		var words []string
		for _, w := range redactable() {
			words = append(words, string(w))
		}
		return fmt.Errorf("%q cannot be taken out; there is %s", text, strings.Join(words, ", "))
	}
	*r = Redactable(text)
	return nil
}

// ripe is the time before which records are to be redacted; ok is false where none is.
func (j *Journal) ripe() (before int64, ok bool) {
	return micro(j.c.Now().Add(-j.c.Redact.After)), j.c.Redact.After > 0
}

// redact takes out of records that have the age what is to be taken out. One that cannot be read is left as it is.
func (j *Journal) redact(ctx context.Context) (redacted int, err error) {
	before, ok := j.ripe()
	for ok {
		n := 0
		err := j.db.Write(ctx, func(tx *sql.Tx) error {
			rows, err := betweenRows(tx.QueryContext(ctx, selectUnredacted, before, batch))
			if err != nil {
				return err
			}
			n = len(rows)
			for _, row := range rows {
				r, err := row.read()
				if err != nil {
					if _, err := tx.ExecContext(ctx, markRedacted, row.id); err != nil {
						return err
					}
					continue
				}
				redact(r, j.c.Redact.What, j.c.Now())
				data, err := json.Marshal(r)
				if err != nil {
					return fmt.Errorf("record %s: %w", row.id, err)
				}
				k := keysOf(r)
				if _, err := tx.ExecContext(ctx, redactRecord, row.id, string(data), k.sender); err != nil {
					return err
				}
				if err := putRecipients(ctx, tx, row.id, k.recipients); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return redacted, err
		}
		if redacted += n; n < batch {
			break
		}
	}
	return redacted, nil
}

// redact takes out of a record what is named, and has it say so.
func redact(r *pipeline.Record, what []Redactable, now time.Time) {
	r.Redacted = &pipeline.Redaction{At: now.UTC()}
	for i := range r.Recipients {
		r.Recipients[i].Removed = nil // anything may stand in there
	}
	for _, w := range what {
		r.Redacted.What = append(r.Redacted.What, string(w))
		switch w {
		case redactSubject:
			r.Subject = ""
			eachHandling(r, func(h *pipeline.Handling) {
				for i := range h.Leaving {
					h.Leaving[i].Subject = ""
				}
			})
		case redactAddresses:
			redactAddress(r)
			eachHandling(r, redactHandling)
		case redactClient:
			r.Client.Name, r.Client.Addr = "", network(r.Client.Addr)
			if r.Client.NameUnknown == "" {
				r.Client.NameUnknown = "taken out of the record"
			}
			if r.Client.Login != "" {
				r.Client.Login = "redacted"
			}
			r.Greeting = ""
		case redactEvidence, redactFacts:
			if w == redactEvidence {
				eachHandling(r, func(h *pipeline.Handling) { h.Notes, h.Trace = nil, nil })
			}
			eachStep(r, func(s *pipeline.StepRecord) {
				if w == redactEvidence {
					for i := range s.Hits {
						s.Hits[i].Evidence = nil
					}
				} else if len(s.Fact) > 0 {
					s.Fact, s.Missing, s.Unknown = nil, nil, "taken out of the record"
				}
			})
		}
	}
}

func eachStep(r *pipeline.Record, f func(*pipeline.StepRecord)) {
	for i := range r.Steps {
		f(&r.Steps[i])
	}
	for n := range r.Recipients {
		for i := range r.Recipients[n].Steps {
			f(&r.Recipients[n].Steps[i])
		}
	}
}

// redactAddress takes the local parts out: the same one gets the same number within the record, and no other record tells
// whose it was. postmaster stays: for him other rules count.
func redactAddress(r *pipeline.Record) {
	numbers := map[string]int{}
	stand := func(a *pipeline.Address) {
		if a.IsZero() || a.Local == "postmaster" {
			return
		}
		if numbers[a.Local] == 0 {
			numbers[a.Local] = len(numbers) + 1
		}
		local := fmt.Sprintf("redacted%d", numbers[a.Local])
		raw := local
		if a.Domain != "" {
			raw += "@" + a.Domain
		}
		*a = mime.Address{Raw: raw, Local: local, Domain: a.Domain}
	}
	stand(&r.Sender)
	r.Asked.EnvelopeID = ""
	for i := range r.Recipients {
		x := &r.Recipients[i]
		same := x.Account == x.Address.String()
		stand(&x.Address)
		stand(&x.Original)
		x.ORCPT = ""
		switch {
		case same:
			x.Account = x.Address.String()
		case x.Account != "":
			x.Account = "redacted"
		}
	}
}

// network is an address without its end: a /24, or of IPv6 a /48.
func network(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return a
	}
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}
