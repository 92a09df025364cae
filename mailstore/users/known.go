package users

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"sluice/mailstore"
	"sluice/mailstore/state/database"
)

// mostKnown bounds how many names are remembered. Anybody may ask for names that there are not.
const mostKnown = 8192

// A row is what is known of a name.
type row struct {
	exists bool
	quota  int64
}

// known remembers what was asked for as long as nothing has been written to the file, by whatever process: each answer is
// as new as if it had been asked for.
type known struct {
	db *database.DB

	mu       sync.Mutex
	conn     *sql.Conn // nil: to be opened; it only reads, so that every change is another connection's
	watch    *database.Watch
	row      *sql.Stmt
	of       int64 // the version of the file that names is from
	names    map[string]row
	lacking  map[string]bool // by mechanism: whether an account has no keys for it
	lookedUp int             // in the file; for tests
}

// get returns what is known of name.
func (k *known) get(ctx context.Context, name string) (row, error) {
	if err := ctx.Err(); err != nil {
		return row{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	moment := mailstore.MomentOf(ctx)
	r, err := k.look(name, moment.HasLooked(k))
	if err != nil { // the next who asks tries another connection
		_ = k.shut()
		return row{}, k.db.Explain(err)
	}
	moment.Looked(k)
	return r, nil
}

// lacks reports whether an account that can log in has no keys for a mechanism.
func (k *known) lacks(ctx context.Context, mechanism string) (lacks bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err = k.current(ctx); err == nil {
		var ok bool
		if lacks, ok = k.lacking[mechanism]; ok {
			return lacks, nil
		}
		err = k.conn.QueryRowContext(ctx, selectLacking, "%"+mechanism+"$%").Scan(&lacks)
	}
	if err != nil {
		_ = k.shut()
		return false, k.db.Explain(err)
	}
	k.lacking[mechanism] = lacks
	return lacks, nil
}

// look is get for one who holds mu; fresh: no look at the version of the file is needed. Its questions take microseconds;
// watching a context would make them thrice as dear.
func (k *known) look(name string, fresh bool) (r row, err error) {
	ctx := context.Background()
	if k.conn == nil || !fresh {
		if err := k.current(ctx); err != nil {
			return row{}, err
		}
	}
	if len(k.names) >= mostKnown {
		clear(k.names)
	}
	if r, ok := k.names[name]; ok {
		return r, nil
	}
	k.lookedUp++
	err = k.row.QueryRowContext(ctx, name).Scan(&r.quota)
	r.exists = err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return row{}, err
	}
	k.names[name] = r // of this version or of a later one: then the next look forgets it
	return r, nil
}

// current forgets what is not of the file as it is now.
func (k *known) current(ctx context.Context) error {
	if k.conn == nil {
		if err := k.open(ctx); err != nil {
			return err
		}
	}
	version, err := k.watch.Version()
	if err != nil {
		return err
	}
	if version != k.of {
		k.of = version
		clear(k.names)
		clear(k.lacking)
	}
	return nil
}

func (k *known) open(ctx context.Context) (err error) {
	if k.conn, err = k.db.Conn(ctx); err != nil {
		return err
	}
	k.names, k.lacking = map[string]row{}, map[string]bool{} // versions count within one connection only
	if k.watch, err = database.NewWatch(ctx, k.conn); err == nil {
		k.row, err = k.conn.PrepareContext(ctx, selectQuota)
	}
	return err
}

// shut gives the connection back. The caller holds mu.
func (k *known) shut() error {
	if k.conn == nil {
		return nil
	}
	var errs []error
	if k.watch != nil {
		errs = append(errs, k.watch.Close())
	}
	if k.row != nil {
		errs = append(errs, k.row.Close())
	}
	errs = append(errs, k.conn.Close())
	k.conn, k.watch, k.row, k.names = nil, nil, nil, nil
	return errors.Join(errs...)
}

func (k *known) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shut()
}
