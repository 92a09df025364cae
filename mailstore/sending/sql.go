package sending

// migrations make the tables. They are only ever appended to. Times are microseconds.
//
// A row of sent is one message that an account has handed in; of named, a recipient of those, by a hash, and when it was
// last one; of failed, how many recipients of a message there were not. standing has accounts that are watched or stopped.
var migrations = []string{
	`CREATE TABLE sent (
		account    TEXT   NOT NULL,
		id         TEXT   NOT NULL,
		at         BIGINT NOT NULL,
		network    TEXT   NOT NULL,
		recipients BIGINT NOT NULL,
		PRIMARY KEY (account, id)
	);
	CREATE INDEX sent_at ON sent (account, at);
	CREATE TABLE named (
		account TEXT   NOT NULL,
		address TEXT   NOT NULL,
		at      BIGINT NOT NULL,
		PRIMARY KEY (account, address)
	);
	CREATE INDEX named_at ON named (account, at);
	CREATE TABLE failed (
		account TEXT   NOT NULL,
		id      TEXT   NOT NULL,
		at      BIGINT NOT NULL,
		number  BIGINT NOT NULL,
		PRIMARY KEY (account, id)
	);
	CREATE TABLE standing (
		account TEXT   NOT NULL PRIMARY KEY,
		state   TEXT   NOT NULL DEFAULT '',
		since   BIGINT NOT NULL DEFAULT 0,
		why     TEXT   NOT NULL DEFAULT '',
		records TEXT   NOT NULL DEFAULT '',
		told    BIGINT NOT NULL DEFAULT 0,
		next    BIGINT NOT NULL DEFAULT 0,
		slowed  BIGINT NOT NULL DEFAULT 0,
		slow    TEXT   NOT NULL DEFAULT ''
	)`,
}

const (
	selectStanding  = `SELECT state, since, why, records, told, next, slowed, slow FROM standing WHERE account = $1`
	selectStandings = `SELECT account FROM standing WHERE state <> '' ORDER BY account`
	upsertState     = `INSERT INTO standing (account, state, since, why, records, told) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (account) DO UPDATE SET state = excluded.state, since = excluded.since, why = excluded.why,
		records = excluded.records, told = 0`
	upsertSlow = `INSERT INTO standing (account, next, slowed, slow) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account) DO UPDATE SET next = excluded.next, slowed = excluded.slowed, slow = excluded.slow`
	updateTold     = `UPDATE standing SET told = 1 WHERE account = $1 AND since = $2`
	deleteStanding = `DELETE FROM standing WHERE account = $1`

	insertSent   = `INSERT INTO sent (account, id, at, network, recipients) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`
	upsertNamed  = `INSERT INTO named (account, address, at) VALUES ($1, $2, $3) ON CONFLICT (account, address) DO UPDATE SET at = excluded.at`
	upsertFailed = `INSERT INTO failed (account, id, at, number) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, id) DO UPDATE SET at = excluded.at, number = failed.number + excluded.number`
	deleteSent = `DELETE FROM sent WHERE account = $1 AND id = $2`

	pruneSent   = `DELETE FROM sent WHERE account = $1 AND at <= $2`
	pruneNamed  = `DELETE FROM named WHERE account = $1 AND at <= $2`
	pruneFailed = `DELETE FROM failed WHERE account = $1 AND at <= $2`

	countSent     = `SELECT count(*), coalesce(sum(recipients), 0) FROM sent WHERE account = $1 AND at > $2`
	countNamed    = `SELECT count(*) FROM named WHERE account = $1 AND at > $2`
	countFailed   = `SELECT coalesce(sum(number), 0) FROM failed WHERE account = $1 AND at > $2`
	countNetworks = `SELECT count(DISTINCT network) FROM sent WHERE account = $1 AND at > $2 AND network <> ''`
	selectRecords = `SELECT id FROM (
			SELECT id, at FROM sent WHERE account = $1 UNION ALL SELECT id, at FROM failed WHERE account = $1
		) AS both_of_them GROUP BY id ORDER BY max(at) DESC, id LIMIT $2`
)
