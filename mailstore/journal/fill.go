package journal

import (
	"context"
	"database/sql"
)

// fill writes what can be searched for into rows that a program from before has left without. It works in small
// transactions, so that others get in between; until it has ended, such rows are found by reading all of them.
func (j *Journal) fill(ctx context.Context) error {
	for {
		n := 0
		err := j.db.Write(ctx, func(tx *sql.Tx) error {
			rows, err := unfilled(tx.QueryContext(ctx, selectUnfilled, batch))
			if err != nil {
				return err
			}
			n = len(rows)
			for _, row := range rows {
				var k keys
				if r, err := decode([]byte(row.record)); err == nil {
					k = keysOf(r)
				} // else there is nothing in it to search for
				if _, err := tx.ExecContext(ctx, fillRecord, row.id, k.sender, k.sha256); err != nil {
					return err
				}
				if err := putRecipients(ctx, tx, row.id, k.recipients); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n < batch {
			return err
		}
	}
}

// putRecipients writes the recipients of a record in place of those that are there. Of none it leaves what is there.
func putRecipients(ctx context.Context, tx *sql.Tx, id string, all []recipientKeys) error {
	if len(all) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, deleteRecipients, id); err != nil {
		return err
	}
	for i, r := range all {
		if _, err := tx.ExecContext(ctx, insertRecipient, id, i, r.address, r.base, r.account, r.file, r.held); err != nil {
			return err
		}
	}
	return nil
}

func unfilled(rows *sql.Rows, err error) (all []rowBetween, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r rowBetween
		if err := rows.Scan(&r.id, &r.record); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}
