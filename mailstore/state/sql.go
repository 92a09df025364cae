package state

// migrations make the table. They are only ever appended to. A key holds a value or a counter. Keys may be any octets.
// Times are microseconds.
var migrations = []string{
	`CREATE TABLE state (
		key     BYTEA  NOT NULL PRIMARY KEY,
		value   BYTEA,
		counter BIGINT NOT NULL DEFAULT 0,
		expires BIGINT NOT NULL
	);
	CREATE INDEX state_expires ON state (expires)`,
}

const (
	selectValue = `SELECT value FROM state WHERE key = $1 AND expires > $2`
	storeValue  = `INSERT INTO state (key, value, expires) VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, counter = 0, expires = excluded.expires`
	// $2 is what to add, $3 when a new counter expires, $4 now. One that has expired is new.
	addCounter = `INSERT INTO state (key, counter, expires) VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE SET
			value = CASE WHEN state.expires <= $4 THEN NULL ELSE state.value END,
			counter = CASE WHEN state.expires <= $4 THEN excluded.counter ELSE state.counter + excluded.counter END,
			expires = CASE WHEN state.expires <= $4 THEN excluded.expires ELSE state.expires END
		RETURNING counter`
	countKeys     = `SELECT count(*) FROM state`
	deleteExpired = `DELETE FROM state WHERE key IN (SELECT key FROM state WHERE expires <= $1 ORDER BY expires LIMIT $2)`
	deleteNext    = `DELETE FROM state WHERE key IN (SELECT key FROM state ORDER BY expires, key LIMIT $1)`
)
