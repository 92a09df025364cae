package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// A Keyworded is a message that has keywords, or had some when it was delivered: its name says so with ",K=".
type Keyworded struct {
	Folder   string // its name on disk
	File     string // the unique name
	Keywords []string
}

// ReadKeywords returns the messages in the index in file path that have or had keywords, beside the process that owns
// it: it changes nothing. An index that does not exist has none.
func ReadKeywords(ctx context.Context, path string) (list []Keyworded, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=rw&_pragma=busy_timeout(10000)&_pragma=query_only(1)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, damage(err))
	}
	switch {
	case version >= len(migrations):
		return nil, fmt.Errorf("open index %s: %w: it has tables of version %d, this program knows %d",
			path, ErrNewer, version, len(migrations)-1)
	case version == 0:
		return nil, nil // it is being made
	}
	rows, err := db.QueryContext(ctx, `SELECT folders.name, messages.file, messages.keywords
		FROM messages JOIN folders ON folders.id = messages.folder WHERE messages.keywords <> '' OR messages.file LIKE '%,K=%'`)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", path, damage(err))
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var k Keyworded
		var words string
		if err := rows.Scan(&k.Folder, &k.File, &words); err != nil {
			return nil, fmt.Errorf("read index %s: %w", path, damage(err))
		}
		k.Keywords = strings.Fields(words)
		list = append(list, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read index %s: %w", path, damage(err))
	}
	return list, nil
}
