package database

import "database/sql"

// A Scanner is a row that can be read: *sql.Row, *sql.Rows.
type Scanner interface{ Scan(to ...any) error }

// All reads each row that a query has come to, and closes it: rows and err are what it has returned.
func All[T any](rows *sql.Rows, err error, scan func(Scanner) (T, error)) (all []T, _ error) {
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

// Words reads rows of one text each.
func Words(rows *sql.Rows, err error) ([]string, error) {
	return All(rows, err, func(s Scanner) (text string, err error) {
		err = s.Scan(&text)
		return text, err
	})
}
