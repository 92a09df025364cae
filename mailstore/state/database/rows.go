package database

import "database/sql"

// A Scanner is a row that can be read: *sql.Row, *sql.Rows.
type Scanner interface{ Scan(to ...any) error }

// All returns what reads each row of a query, and closes it: All(scan)(db.QueryContext(…)).
func All[T any](scan func(Scanner) (T, error)) func(*sql.Rows, error) ([]T, error) {
	return func(rows *sql.Rows, err error) (all []T, _ error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			x, err := scan(rows)
			if err != nil {
				return nil, err
			}
			all = append(all, x)
		}
		return all, rows.Err()
	}
}

// Word reads a row of one text.
func Word(s Scanner) (text string, err error) {
	err = s.Scan(&text)
	return text, err
}
