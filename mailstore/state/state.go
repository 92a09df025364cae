// Package state keeps counters and small values with an expiry, in one file that several processes share.
package state

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/mailstore/state/database"
)

// ErrTooLarge says that a key or a value is larger than Config allows.
var ErrTooLarge = errors.New("too large")

// A Config says where state is kept, and how much of it.
type Config struct {
	// Path is the file, DATA/state.db. It is made if need be.
	Path string `yaml:"-"`
	// MaxKeys is how many keys are kept; beyond it those go first that would expire first. 0 is 1,000,000.
	MaxKeys int `yaml:"max_keys"`
	// MaxValue is how many octets a value may have; 0 is 65536. A key may have 1024.
	MaxValue int `yaml:"max_value"`
	// Sweep is how often expired keys are removed; 0 is one minute.
	Sweep time.Duration `yaml:"sweep"`
	// Log gets what nobody can be told; nil is slog.Default.
	Log *slog.Logger `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
}

// DefaultConfig returns what Open takes for fields that are zero.
func DefaultConfig() Config {
	return Config{MaxKeys: 1_000_000, MaxValue: 64 << 10, Sweep: time.Minute}
}

const (
	longestKey = 1024
	batch      = 1000 // keys that one transaction of a sweep removes
)

// A State is an open file of keys. It implements pipeline.State. What it was told counts at once for every process; a
// power cut may take the last seconds. Its methods may be called by any number of goroutines.
type State struct {
	c       Config
	db      *database.DB
	sweeps  sync.Mutex    // two at once would both remove what is too many
	written atomic.Int64  // calls since the last sweep
	crowded chan struct{} // a sweep is due
	cancel  context.CancelFunc
	done    chan struct{}
}

// Open opens the file and starts the goroutine that removes what has expired; Close ends it.
func Open(ctx context.Context, c Config) (*State, error) { return open(ctx, c, nil) }

func open(ctx context.Context, c Config, wrap func(driver.Connector) driver.Connector) (*State, error) {
	d := DefaultConfig()
	c.MaxKeys = cmp.Or(c.MaxKeys, d.MaxKeys)
	c.MaxValue = cmp.Or(c.MaxValue, d.MaxValue)
	c.Sweep = cmp.Or(c.Sweep, d.Sweep)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	db, err := database.Open(ctx, database.Config{Path: c.Path, Name: "state", Migrations: migrations, Lazy: true, Wrap: wrap})
	if err != nil {
		return nil, err
	}
	s := &State{c: c, db: db, crowded: make(chan struct{}, 1), done: make(chan struct{})}
	sweeping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	go s.sweep(sweeping) // until cancel, in Close
	return s, nil
}

// Close releases the file.
func (s *State) Close() error {
	s.cancel()
	<-s.done
	return s.db.Close()
}

// Load implements pipeline.State.
func (s *State) Load(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = s.db.QueryRowContext(ctx, selectValue, []byte(key), s.c.Now().UnixMicro()).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return value, err == nil, s.db.Explain(err)
}

// Store implements pipeline.State. To keep a value for no time removes it.
func (s *State) Store(ctx context.Context, key string, value []byte, keep time.Duration) error {
	if err := s.check(key, value); err != nil {
		return err
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, storeValue, []byte(key), value, s.c.Now().Add(keep).UnixMicro())
		return err
	})
	s.wrote()
	return err
}

// Add implements pipeline.State. Storing a value under the key of a counter sets it to 0.
func (s *State) Add(ctx context.Context, key string, n int64, keep time.Duration) (sum int64, err error) {
	if err := s.check(key, nil); err != nil {
		return 0, err
	}
	now := s.c.Now()
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, addCounter, []byte(key), n, now.Add(keep).UnixMicro(), now.UnixMicro()).Scan(&sum)
	})
	s.wrote()
	return sum, err
}

func (s *State) check(key string, value []byte) error {
	if len(key) > longestKey {
		return fmt.Errorf("state: key %.40q…: %w: %d octets, at most %d", key, ErrTooLarge, len(key), longestKey)
	}
	if len(value) > s.c.MaxValue {
		return fmt.Errorf("state: value of %.40q: %w: %d octets, at most %d", key, ErrTooLarge, len(value), s.c.MaxValue)
	}
	return nil
}

// wrote asks for a sweep when there may be a tenth too many keys.
func (s *State) wrote() {
	if s.written.Add(1) > int64(s.c.MaxKeys/10) {
		select {
		case s.crowded <- struct{}{}:
		default: // it is asked for already
		}
	}
}

func (s *State) sweep(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(s.c.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.crowded:
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.c.Log.WarnContext(ctx, "expired state not removed", "err", err)
		}
	}
}

// Sweep removes what has expired, and of what is left beyond Config.MaxKeys what would expire first. It happens now and
// then without being asked for.
func (s *State) Sweep(ctx context.Context) error {
	s.sweeps.Lock()
	defer s.sweeps.Unlock()
	s.written.Store(0)
	if err := s.remove(ctx, batch, func(tx *sql.Tx) (sql.Result, error) {
		return tx.ExecContext(ctx, deleteExpired, s.c.Now().UnixMicro(), batch)
	}); err != nil {
		return err
	}
	var keys int
	if err := s.db.QueryRowContext(ctx, countKeys).Scan(&keys); err != nil {
		return s.db.Explain(err)
	}
	for over := keys - s.c.MaxKeys; over > 0; over -= batch {
		if err := s.remove(ctx, 0, func(tx *sql.Tx) (sql.Result, error) {
			return tx.ExecContext(ctx, deleteNext, min(over, batch))
		}); err != nil {
			return err
		}
	}
	return nil
}

// remove runs a statement in transactions of its own, so that others get in between, as long as it removes full rows.
// full 0: once.
func (s *State) remove(ctx context.Context, full int64, statement func(tx *sql.Tx) (sql.Result, error)) error {
	for {
		var n int64
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			r, err := statement(tx)
			if err != nil {
				return err
			}
			n, err = r.RowsAffected()
			return err
		})
		if err != nil || full == 0 || n < full {
			return err
		}
	}
}
