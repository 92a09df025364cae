package users

// migrations make the tables. They are only ever appended to. Accounts are numbered in the order of their making: the
// first one is the postmaster unless another is named.
var migrations = []string{
	`CREATE TABLE accounts (
		name     TEXT   NOT NULL PRIMARY KEY,
		domain   TEXT   NOT NULL,
		number   BIGINT NOT NULL,
		password TEXT   NOT NULL,
		quota    BIGINT NOT NULL DEFAULT 0,
		created  BIGINT NOT NULL
	);
	CREATE INDEX accounts_domain ON accounts (domain);
	CREATE INDEX accounts_number ON accounts (number)`,
	`ALTER TABLE accounts ADD COLUMN login BIGINT NOT NULL DEFAULT 1`,
	`ALTER TABLE accounts ADD COLUMN scram TEXT NOT NULL DEFAULT '';
	CREATE TABLE secrets (
		name   TEXT PRIMARY KEY,
		secret TEXT NOT NULL
	)`,
}

const (
	selectDomain   = `SELECT name FROM accounts WHERE domain = $1 LIMIT 1`
	selectFirst    = `SELECT name FROM accounts ORDER BY number, name LIMIT 1`
	selectPassword = `SELECT password, scram FROM accounts WHERE name = $1 AND login <> 0`
	selectQuota    = `SELECT quota FROM accounts WHERE name = $1`
	selectAccounts = `SELECT name, quota, login, scram, created FROM accounts ORDER BY domain, name`
	updateQuota    = `UPDATE accounts SET quota = $2 WHERE name = $1`
	updateLogin    = `UPDATE accounts SET login = $2 WHERE name = $1`
	insertAccount  = `INSERT INTO accounts (name, domain, number, password, created, scram)
		VALUES ($1, $2, (SELECT coalesce(max(number), 0) + 1 FROM accounts), $3, $4, $5)`
	updatePassword = `UPDATE accounts SET password = $2, scram = $3 WHERE name = $1`
	rehashPassword = `UPDATE accounts SET password = $2, scram = $4 WHERE name = $1 AND password = $3`
	// Is there an account that can log in and lacks keys of a mechanism?
	selectLacking = `SELECT EXISTS (SELECT 1 FROM accounts WHERE login <> 0 AND scram NOT LIKE $1)`
	selectKeys    = `SELECT scram FROM accounts WHERE name = $1`
	updateKeys    = `UPDATE accounts SET scram = $2 WHERE name = $1`
	insertSecret  = `INSERT INTO secrets (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING` //nolint:gosec // it is none
	selectSecret  = `SELECT secret FROM secrets WHERE name = $1`
	deleteAccount = `DELETE FROM accounts WHERE name = $1`
)
