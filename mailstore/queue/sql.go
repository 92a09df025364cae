package queue

import (
	"context"
	"database/sql"
	"errors"

	"sluice/mailstore/state/database"
)

// migrations make the tables. They are only ever appended to. Times are microseconds, 0 is none.
//
// A message is alive, and its file there, while ended is 0: until no recipient waits and no report is owed. since is when
// its age began: when it was queued, may leave, or was last released.
var migrations = []string{
	`CREATE TABLE message (
		id        TEXT   NOT NULL PRIMARY KEY,
		transact  TEXT   NOT NULL,
		account   TEXT   NOT NULL,
		why       TEXT   NOT NULL,
		sender    TEXT   NOT NULL,
		envid     TEXT   NOT NULL,
		ret       TEXT   NOT NULL,
		utf8      BIGINT NOT NULL,
		eightbit  BIGINT NOT NULL,
		forwarded BIGINT NOT NULL,
		start     BIGINT NOT NULL,
		size      BIGINT NOT NULL,
		queued    BIGINT NOT NULL,
		since     BIGINT NOT NULL,
		held      TEXT   NOT NULL,
		ended     BIGINT NOT NULL
	);
	CREATE INDEX message_transact ON message (transact);
	CREATE INDEX message_ended ON message (ended, queued);
	CREATE TABLE recipient (
		message   TEXT   NOT NULL,
		number    BIGINT NOT NULL,
		address   TEXT   NOT NULL,
		domain    TEXT   NOT NULL,
		notify    TEXT   NOT NULL,
		original  TEXT   NOT NULL,
		state     TEXT   NOT NULL,
		due       BIGINT NOT NULL,
		attempts  BIGINT NOT NULL,
		tried     BIGINT NOT NULL,
		host      TEXT   NOT NULL,
		reply     TEXT   NOT NULL,
		status    TEXT   NOT NULL,
		how       TEXT   NOT NULL,
		delayed   BIGINT NOT NULL,
		owed      TEXT   NOT NULL,
		PRIMARY KEY (message, number)
	);
	CREATE INDEX recipient_owed ON recipient (message) WHERE owed <> ''`,
}

const (
	messageColumns = `id, transact, account, why, sender, envid, ret, utf8, eightbit, forwarded, start, size, queued, since,
		held, ended`
	recipientColumns = `message, number, address, domain, notify, original, state, due, attempts, tried, host, reply, status,
		how, delayed, owed`

	insertMessage = `INSERT INTO message (` + messageColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0)`
	insertRecipient = `INSERT INTO recipient (` + recipientColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $7, 0, 0, '', '', '', '', 0, '')`

	selectAlive = `SELECT id, account, start, size, queued, held FROM message WHERE ended = 0`
	selectDue   = `SELECT r.message, r.domain, min(r.due) FROM recipient r JOIN message m ON m.id = r.message
		WHERE m.ended = 0 AND r.state = 'waiting' GROUP BY r.message, r.domain`
	selectMessage    = `SELECT ` + messageColumns + ` FROM message WHERE id = $1`
	selectRecipients = `SELECT ` + recipientColumns + ` FROM recipient WHERE message = $1 ORDER BY number`
	selectWaiting    = `SELECT ` + recipientColumns + ` FROM recipient
		WHERE message = $1 AND domain = $2 AND state = 'waiting' ORDER BY number`
	selectOwing = `SELECT DISTINCT message FROM recipient WHERE owed <> ''`
	countRows   = `SELECT count(*) FROM message`

	// A message that matches is listed with all its recipients.
	selectList = `SELECT ` + messageColumns + ` FROM message m
		WHERE ($1 = '' OR account = $1) AND ($2 = '' OR sender = $2) AND ($3 = '' OR why LIKE $3 ESCAPE '\')
		AND ($4 = '' OR EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND (r.domain = $4 OR lower(r.address) = $4)))
		AND ($5 = '' OR $5 = 'held' AND ended = 0 AND held <> ''
			OR $5 = 'waiting' AND ended = 0 AND held = ''
			OR EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state = $5 AND $5 <> 'waiting'))
		AND ($6 = '' OR transact = $6) AND ($7 = 1 OR ended = 0)
		AND (queued > $8 OR queued = $8 AND id > $9)
		ORDER BY queued, id LIMIT $10`

	setResult = `UPDATE recipient SET state = $3, due = $4, attempts = $5, tried = $6, host = $7, reply = $8, status = $9,
		how = $10, delayed = $11, owed = $12 WHERE message = $1 AND number = $2 AND state = 'waiting'`
	setUntried = `UPDATE recipient SET due = $3 WHERE message = $1 AND number = $2 AND state = 'waiting'`
	setEnded   = `UPDATE message SET ended = $2 WHERE id = $1 AND ended = 0
		AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = $1 AND (state = 'waiting' OR owed <> ''))`
	setHeld     = `UPDATE message SET held = $2 WHERE id = $1 AND ended = 0`
	setReleased = `UPDATE message SET held = '', since = $2 WHERE id = $1 AND ended = 0`
	setDue      = `UPDATE recipient SET due = $2 WHERE message = $1 AND state = 'waiting'`
	setDeleted  = `UPDATE recipient SET state = 'deleted', tried = $2, owed = '' WHERE message = $1 AND state = 'waiting'
		AND ($3 = '' OR domain = $3 OR lower(address) = $3)`
	// Where the clock was ahead: what has been tried waits no longer than it would now, what has not is due, and its age begins
	// now. What was told when to leave keeps that.
	bringTried = `UPDATE recipient SET due = $1 WHERE state = 'waiting' AND attempts > 0 AND due > $2`
	bringNew   = `UPDATE recipient SET due = $1 WHERE state = 'waiting' AND attempts = 0 AND due > $1
		AND message IN (SELECT id FROM message WHERE ended = 0 AND queued > $1 AND since = queued)`
	bringAge = `UPDATE message SET since = $1 WHERE ended = 0 AND since > $1
		AND (since = queued OR EXISTS (SELECT 1 FROM recipient WHERE message = id AND attempts > 0))`
	clearOwed = `UPDATE recipient SET owed = '' WHERE message = $1 AND number = $2 AND owed = $3`

	pruneOld        = `SELECT id FROM message WHERE ended > 0 AND ended < $1 ORDER BY ended LIMIT $2`
	pruneSurplus    = `SELECT id FROM message WHERE ended > 0 ORDER BY ended DESC LIMIT $2 OFFSET $1`
	deleteMessage   = `DELETE FROM message WHERE id = $1`
	deleteRecipient = `DELETE FROM recipient WHERE message = $1`
)

// Statements are those that every mail on its way needs, read once.
type statements struct{ message, waiting, result, ended, insertMessage, insertRecipient *sql.Stmt }

func (s *statements) prepare(ctx context.Context, db *database.DB) error {
	var errs []error
	for to, text := range s.texts() {
		made, err := db.PrepareContext(ctx, text) //nolint:sqlclosecheck // close does
		*to, errs = made, append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

func (s *statements) texts() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&s.message: selectMessage, &s.waiting: selectWaiting, &s.result: setResult, &s.ended: setEnded,
		&s.insertMessage: insertMessage, &s.insertRecipient: insertRecipient,
	}
}

func (s *statements) close() error {
	var errs []error
	for x := range s.texts() {
		if *x != nil {
			errs = append(errs, (*x).Close())
		}
	}
	return errors.Join(errs...)
}
