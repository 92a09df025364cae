package quarantine

// migrations make the table. They are only ever appended to. A row is one message for one recipient; what is about the
// message stands in each of its rows. Times are microseconds; released and releasing are 0 until then.
var migrations = []string{
	`CREATE TABLE held (
		id          TEXT   NOT NULL PRIMARY KEY,
		sha256      TEXT   NOT NULL,
		address     TEXT   NOT NULL,
		account     TEXT   NOT NULL,
		folder      TEXT   NOT NULL,
		reason      TEXT   NOT NULL,
		transact    TEXT   NOT NULL,
		message_id  TEXT   NOT NULL,
		subject     TEXT   NOT NULL,
		sender      TEXT   NOT NULL,
		size        BIGINT NOT NULL,
		received    BIGINT NOT NULL,
		held        BIGINT NOT NULL,
		releasing   BIGINT NOT NULL DEFAULT 0,
		released    BIGINT NOT NULL DEFAULT 0,
		UNIQUE (sha256, address)
	);
	CREATE INDEX held_held ON held (held)`,
}

const (
	columns = `id, sha256, address, account, folder, reason, transact, message_id, subject, sender, size, received, held,
		releasing, released`

	selectRow   = `SELECT ` + columns + ` FROM held WHERE id = $1`
	selectSame  = `SELECT ` + columns + ` FROM held WHERE sha256 = $1 AND address = $2`
	selectOld   = `SELECT ` + columns + ` FROM held WHERE held < $1 ORDER BY held, id LIMIT $2`
	selectUsed  = `SELECT count(*) FROM held WHERE sha256 = $1`
	selectFiles = `SELECT DISTINCT sha256 FROM held`
	countRows   = `SELECT count(*) FROM held WHERE released = 0`
	selectOf    = `SELECT ` + columns + ` FROM held WHERE transact = $1 ORDER BY id LIMIT $2`
	selectID    = `SELECT count(*) FROM held WHERE id = $1`
	selectRows  = `SELECT ` + columns + ` FROM held
		WHERE ($1 = '' OR address = $1) AND ($2 = '' OR account = $2) AND ($3 = '' OR sender = $3)
		AND held >= $4 AND (released = 0 OR $5 = 1)
		ORDER BY held DESC, id LIMIT $6 OFFSET $7`

	insertRow = `INSERT INTO held (` + columns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	holdAgain = `UPDATE held SET account = $2, folder = $3, reason = $4, transact = $5, received = $6, held = $7,
		releasing = 0, released = 0 WHERE id = $1`
	setReleasing = `UPDATE held SET releasing = $2 WHERE id = $1`
	setReleased  = `UPDATE held SET releasing = 0, released = $2 WHERE id = $1`
	deleteRow    = `DELETE FROM held WHERE id = $1`
)
