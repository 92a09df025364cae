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
}

const (
	selectDomain   = `SELECT name FROM accounts WHERE domain = $1 LIMIT 1`
	selectFirst    = `SELECT name FROM accounts ORDER BY number, name LIMIT 1`
	selectPassword = `SELECT password FROM accounts WHERE name = $1 AND login <> 0`
	selectQuota    = `SELECT quota FROM accounts WHERE name = $1`
	selectAccounts = `SELECT name, quota, login, created FROM accounts ORDER BY domain, name`
	updateQuota    = `UPDATE accounts SET quota = $2 WHERE name = $1`
	updateLogin    = `UPDATE accounts SET login = $2 WHERE name = $1`
	insertAccount  = `INSERT INTO accounts (name, domain, number, password, created)
		VALUES ($1, $2, (SELECT coalesce(max(number), 0) + 1 FROM accounts), $3, $4)`
	updatePassword = `UPDATE accounts SET password = $2 WHERE name = $1`
	rehashPassword = `UPDATE accounts SET password = $2 WHERE name = $1 AND password = $3`
	deleteAccount  = `DELETE FROM accounts WHERE name = $1`
)
