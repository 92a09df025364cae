package journal

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"
)

// A Plan is what records of one plan version were decided by, so that they can be explained and decided again later.
type Plan struct {
	Version string
	Text    string // for people
	// Files are the texts that it was made from, as they were then. The first is the configuration.
	Files []PlanFile
}

// A PlanFile is one of them.
type PlanFile struct {
	Path string
	Text string
	Lost bool // it was too large to be kept, or is no text
}

// mostText is how many octets of one file are kept.
const mostText = 8 << 20

// KeepPlan keeps a plan, in place of an earlier one of the version. Each text is kept once, however many plans have it.
func (j *Journal) KeepPlan(ctx context.Context, p Plan) error {
	return j.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, upsertPlan, p.Version, clean(p.Text), micro(j.c.Now())); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, deletePlanFiles, p.Version); err != nil {
			return err
		}
		for i, f := range p.Files {
			sum := sha256.Sum256([]byte(f.Text))
			name := hex.EncodeToString(sum[:])
			if _, err := tx.ExecContext(ctx, insertPlanFile, p.Version, i-1, clean(f.Path), name); err != nil {
				return err
			}
			if len(f.Text) > mostText || !utf8.ValidString(f.Text) || strings.ContainsRune(f.Text, 0) {
				continue
			}
			if _, err := tx.ExecContext(ctx, insertText, name, f.Text); err != nil {
				return err
			}
		}
		return nil
	})
}

// KeptPlan returns the plan of a version; ok is false where there is none.
func (j *Journal) KeptPlan(ctx context.Context, version string) (p Plan, ok bool, err error) {
	p.Version = version
	err = j.db.QueryRowContext(ctx, selectPlan, version).Scan(&p.Text)
	if errors.Is(err, sql.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, j.db.Explain(err)
	}
	rows, err := j.db.QueryContext(ctx, selectPlanFiles, version)
	if err != nil {
		return p, false, j.db.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var f PlanFile
		var place int
		var text sql.NullString
		if err := rows.Scan(&place, &f.Path, &text); err != nil {
			return p, false, j.db.Explain(err)
		}
		f.Text, f.Lost = text.String, !text.Valid
		p.Files = append(p.Files, f)
	}
	return p, true, j.db.Explain(rows.Err())
}
