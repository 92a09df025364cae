package journal

// migrations make the tables. They are only ever appended to.
var migrations = []string{
	`CREATE TABLE records (
		id         TEXT   NOT NULL PRIMARY KEY,
		received   BIGINT NOT NULL,
		queue_id   TEXT   NOT NULL,
		message_id TEXT   NOT NULL,
		plan       TEXT   NOT NULL,
		record     TEXT   NOT NULL
	);
	CREATE INDEX records_received ON records (received);
	CREATE INDEX records_queue_id ON records (queue_id);
	CREATE INDEX records_message_id ON records (message_id);
	CREATE INDEX records_plan ON records (plan);
	CREATE TABLE recipients (
		id      TEXT   NOT NULL,
		place   BIGINT NOT NULL,
		address TEXT   NOT NULL,
		file    TEXT   NOT NULL,
		held    TEXT   NOT NULL,
		PRIMARY KEY (id, place)
	);
	CREATE INDEX recipients_address ON recipients (address);
	CREATE INDEX recipients_file ON recipients (file);
	CREATE INDEX recipients_held ON recipients (held);
	CREATE TABLE plans (
		version TEXT   NOT NULL PRIMARY KEY,
		text    TEXT   NOT NULL,
		used    BIGINT NOT NULL
	)`,
	// What more can be searched for; NULL in rows from before, until Fill has been there.
	`ALTER TABLE records ADD COLUMN sender TEXT;
	ALTER TABLE records ADD COLUMN sha256 TEXT;
	ALTER TABLE records ADD COLUMN redacted BIGINT NOT NULL DEFAULT 0;
	CREATE INDEX records_sender ON records (sender);
	CREATE INDEX records_sha256 ON records (sha256);
	ALTER TABLE recipients ADD COLUMN base TEXT;
	ALTER TABLE recipients ADD COLUMN account TEXT;
	CREATE INDEX recipients_base ON recipients (base);
	CREATE INDEX recipients_account ON recipients (account)`,
	// The texts that a plan was made from, each kept once; at place -1 the configuration.
	`CREATE TABLE plan_files (
		version TEXT   NOT NULL,
		place   BIGINT NOT NULL,
		path    TEXT   NOT NULL,
		sha256  TEXT   NOT NULL,
		PRIMARY KEY (version, place)
	);
	CREATE INDEX plan_files_sha256 ON plan_files (sha256);
	CREATE TABLE texts (
		sha256 TEXT NOT NULL PRIMARY KEY,
		text   TEXT NOT NULL
	)`,
	// An index in which new entries land anywhere costs a page for each, and more and more as it grows. So what has no
	// order of its own is indexed within buckets of time, about 17 minutes each: the beginnings of the ids. What is mostly
	// empty, or says again what the address says, is indexed where it is not.
	`DROP INDEX records_queue_id;
	DROP INDEX records_message_id;
	DROP INDEX records_sender;
	DROP INDEX records_sha256;
	DROP INDEX recipients_address;
	DROP INDEX recipients_held;
	DROP INDEX recipients_base;
	DROP INDEX recipients_account;
	CREATE INDEX records_queue_id ON records (substr(id, 1, 4), queue_id) WHERE queue_id <> '';
	CREATE INDEX records_message_id ON records (substr(id, 1, 4), message_id);
	CREATE INDEX records_sender ON records (substr(id, 1, 4), sender);
	CREATE INDEX records_sha256 ON records (substr(id, 1, 4), substr(sha256, 1, 16));
	CREATE INDEX records_unfilled ON records (id) WHERE sender IS NULL;
	CREATE INDEX recipients_address ON recipients (substr(id, 1, 4), address);
	CREATE INDEX recipients_held ON recipients (held) WHERE held <> '';
	CREATE INDEX recipients_base ON recipients (substr(id, 1, 4), base) WHERE base <> address;
	CREATE INDEX recipients_account ON recipients (substr(id, 1, 4), account) WHERE account <> address;
	CREATE INDEX recipients_unfilled ON recipients (id) WHERE base IS NULL`,
}

const (
	insertRecord = `INSERT INTO records (id, received, queue_id, message_id, plan, sender, sha256, record)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`
	updateRecord = `UPDATE records SET received = $2, queue_id = $3, message_id = $4, plan = $5, sender = $6, sha256 = $7,
		record = $8 WHERE id = $1`
	selectRecord = `SELECT record FROM records WHERE id = $1`

	insertRecipient = `INSERT INTO recipients (id, place, address, base, account, file, held)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	deleteRecipients = `DELETE FROM recipients WHERE id = $1`

	// The buckets that there are, each found from the one before, and a last one of NULL.
	buckets = `WITH RECURSIVE buckets (bucket) AS (
		SELECT min(substr(id, 1, 4)) FROM records
		UNION ALL
		SELECT (SELECT min(substr(id, 1, 4)) FROM records WHERE substr(id, 1, 4) > bucket) FROM buckets WHERE bucket IS NOT NULL
	) `
	inRecords    = `SELECT id FROM buckets CROSS JOIN records WHERE substr(id, 1, 4) = bucket AND `
	inRecipients = `SELECT id FROM buckets CROSS JOIN recipients WHERE substr(id, 1, 4) = bucket AND `

	// $1 is the key as it is, $2 a file's key.
	findRecords = buckets + `SELECT id FROM records WHERE id IN (
			SELECT $1
			UNION ALL ` + inRecords + `queue_id = $1 AND queue_id <> ''
			UNION ALL ` + inRecords + `message_id = $1
			UNION ALL SELECT id FROM recipients WHERE held = $1 AND held <> ''
			UNION ALL SELECT id FROM recipients WHERE file = $2 AND file <> ''
		) ORDER BY received DESC, id DESC LIMIT $3`

	// In order of received and id, from behind $3 and $4; or backwards.
	between     = `SELECT id, received, record FROM records WHERE received >= $1 AND received < $2`
	places      = `SELECT id, received FROM records WHERE received >= $1 AND received < $2`
	forwards    = ` AND (received > $3 OR received = $3 AND id > $4)`
	inOrder     = ` ORDER BY received, id LIMIT $5`
	backwards   = ` AND (received < $3 OR received = $3 AND id < $4)`
	backInOrder = ` ORDER BY received DESC, id DESC LIMIT $5`
	orUnfilled  = ` UNION ALL SELECT id FROM records WHERE sender IS NULL)`
	bySender    = ` AND id IN (` + inRecords + `sender = $6` + orUnfilled
	bySHA256    = ` AND id IN (` + inRecords + `substr(sha256, 1, 16) = substr($6, 1, 16) AND sha256 = $6` + orUnfilled
	byRecipient = ` AND id IN (` + inRecipients + `address = $6
		UNION ALL ` + inRecipients + `base = $6 AND base <> address
		UNION ALL ` + inRecipients + `account = $6 AND account <> address
		UNION ALL SELECT id FROM recipients WHERE base IS NULL)`

	selectBetween = between + forwards + inOrder

	searchAll           = selectBetween
	searchAllBack       = between + backwards + backInOrder
	searchSender        = buckets + places + bySender + forwards + inOrder
	searchSenderBack    = buckets + places + bySender + backwards + backInOrder
	searchSHA256        = buckets + places + bySHA256 + forwards + inOrder
	searchSHA256Back    = buckets + places + bySHA256 + backwards + backInOrder
	searchRecipient     = buckets + places + byRecipient + forwards + inOrder
	searchRecipientBack = buckets + places + byRecipient + backwards + backInOrder

	selectUnfilled = `SELECT id, record FROM records WHERE sender IS NULL LIMIT $1`
	fillRecord     = `UPDATE records SET sender = $2, sha256 = $3 WHERE id = $1`

	countBetween = `SELECT count(*) FROM records WHERE received >= $1 AND received < $2`

	selectOld    = `SELECT id FROM records WHERE received < $1 ORDER BY received LIMIT $2`
	selectOldest = `SELECT id FROM records ORDER BY received LIMIT $1`
	deleteRecord = `DELETE FROM records WHERE id = $1`

	selectUnredacted = `SELECT id, received, record FROM records WHERE received < $1 AND redacted = 0 ORDER BY received LIMIT $2`
	markRedacted     = `UPDATE records SET redacted = 1 WHERE id = $1`
	redactRecord     = `UPDATE records SET record = $2, sender = $3, redacted = 1 WHERE id = $1`

	countRecords = `SELECT count(*), coalesce(sum(length(record)), 0), coalesce(min(received), 0), coalesce(max(received), 0),
		coalesce(sum(redacted), 0) FROM records`
	countOld   = `SELECT count(*) FROM records WHERE received < $1`
	countPlans = `SELECT count(*) FROM plans`
	countTexts = `SELECT count(*), coalesce(sum(length(text)), 0) FROM texts`
	countDays  = `SELECT received / 86400000000, count(*), coalesce(sum(length(record)), 0) FROM records
		GROUP BY received / 86400000000 ORDER BY 1`
	upsertPlan = `INSERT INTO plans (version, text, used) VALUES ($1, $2, $3)
		ON CONFLICT (version) DO UPDATE SET text = excluded.text, used = excluded.used`
	selectPlan      = `SELECT text FROM plans WHERE version = $1`
	deletePlanFiles = `DELETE FROM plan_files WHERE version = $1`
	insertPlanFile  = `INSERT INTO plan_files (version, place, path, sha256) VALUES ($1, $2, $3, $4)`
	insertText      = `INSERT INTO texts (sha256, text) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING`
	selectPlanFiles = `SELECT f.place, f.path, t.text FROM plan_files f LEFT JOIN texts t ON t.sha256 = f.sha256
		WHERE f.version = $1 ORDER BY f.place`
	deleteOldPlanFiles = `DELETE FROM plan_files WHERE NOT EXISTS (SELECT 1 FROM plans WHERE plans.version = plan_files.version)`
	deleteOldTexts     = `DELETE FROM texts WHERE NOT EXISTS (SELECT 1 FROM plan_files WHERE plan_files.sha256 = texts.sha256)`
	deleteOldPlans     = `DELETE FROM plans WHERE used < $1
		AND NOT EXISTS (SELECT 1 FROM records WHERE records.plan = plans.version)`
)
