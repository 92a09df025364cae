// Package journal keeps the records of decisions: written in batches beside the mail's way, found by everything that
// names a mail.
package journal

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/mailstore/state/database"
	"sluice/pipeline"
)

var _ pipeline.Recorder = (*Journal)(nil)

// ErrNoRecord says that there is no record of an id.
var ErrNoRecord = errors.New("no such record")

// ErrClosed is what Record returns after Close.
var ErrClosed = errors.New("the journal is closed")

// A Config says where the records are kept, and for how long.
type Config struct {
	// Path is the file, DATA/journal.db. It is made if need be.
	Path string `yaml:"-"`
	// ReadOnly opens a journal that another process writes. Without a file the error of Open wraps fs.ErrNotExist.
	ReadOnly bool `yaml:"-"`
	// Flush is how long a record may wait to be written with others; 0 is 100 ms.
	Flush time.Duration `yaml:"flush"`
	// MaxPending is how many records may wait while the disk does not take them; then the oldest are dropped. 0 is 16384.
	MaxPending int `yaml:"max_pending"`
	// MaxPendingBytes is how many octets of memory they may take; 0 is 64 MiB.
	MaxPendingBytes int `yaml:"max_pending_bytes"`
	// Keep is how long records are kept; 0 is 90 days, less than 0, such as -1s, for ever.
	Keep time.Duration `yaml:"keep,negative"`
	// MaxSize is how many octets the records may take on disk: beyond it the oldest go before their time. Less than 0, such
	// as -1, is without bounds.
	MaxSize int64 `yaml:"max_size"`
	// Redact takes out of older records what tells about people.
	Redact Redact `yaml:"redact"`
	// Anew puts a file that is damaged aside and begins a new one, so that mail goes on.
	Anew bool `yaml:"-"`
	// PrivateRules are rules, as step/rule, that `sluice explain --user` does not name; * stands for any part of a name.
	PrivateRules []string `yaml:"private_rules" example:"[rules/fraud_*]"`
	// Log gets what nobody can be told; nil is slog.Default.
	Log *slog.Logger `yaml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
}

// DefaultConfig returns what Open takes for fields that are zero.
func DefaultConfig() Config {
	return Config{
		Flush: 100 * time.Millisecond, MaxPending: 16384, MaxPendingBytes: 64 << 20, Keep: 90 * 24 * time.Hour,
		MaxSize: 16 << 30, Redact: Redact{What: redactable()},
	}
}

const (
	batch     = 512  // records in one transaction
	mostFound = 1000 // records that Find returns
)

// A Journal is an open journal. Its methods may be called by any number of goroutines.
type Journal struct {
	c        Config
	settings database.Config
	db       *handle

	mu      sync.Mutex
	pending map[string]*entry // by id: what is not written yet
	order   []*entry          // the same, oldest first
	parts   int               // of all entries
	bytes   int               // of all parts
	waiting []chan error      // callers of Flush
	failing error             // of the last attempt to write
	dropped int               // records lost since it began to fail
	stats   Stats             // without Pending, PendingBytes and Failing
	closed  bool

	some, now chan struct{} // something is pending; it shall be written now
	stop      chan struct{}
	done      chan struct{} // closed when the writer has ended
}

// An entry is what is pending about one id: the parts are merged when they are read or written.
type entry struct {
	id     string
	parts  []part
	flying int // how many parts are being written right now
}

// A part is one record as it was handed over, encoded: nobody can change it any more, and its size is known.
type part struct {
	data []byte
	keys keys
	wait chan error // gets the outcome; nil where nobody waits
}

// keys are what a record can be found by, besides its id.
type keys struct {
	received           int64
	queueID, messageID string
	plan               string
	sender, sha256     string
	recipients         []recipientKeys
}

type recipientKeys struct{ address, base, account, file, held string }

// Open opens the journal and, unless it is opened for reading only, starts the goroutine that writes; Close ends it.
func Open(ctx context.Context, c Config) (*Journal, error) { return open(ctx, c, nil) }

func open(ctx context.Context, c Config, wrap func(driver.Connector) driver.Connector) (*Journal, error) {
	d := DefaultConfig()
	c.Flush = cmp.Or(c.Flush, d.Flush)
	c.MaxPending = cmp.Or(c.MaxPending, d.MaxPending)
	c.MaxPendingBytes = cmp.Or(c.MaxPendingBytes, d.MaxPendingBytes)
	c.Keep, c.MaxSize = cmp.Or(c.Keep, d.Keep), cmp.Or(c.MaxSize, d.MaxSize)
	if len(c.Redact.What) == 0 {
		c.Redact.What = d.Redact.What
	}
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	settings := database.Config{
		Path: c.Path, Name: "journal", Migrations: migrations, ReadOnly: c.ReadOnly, Shrinks: true, Wrap: wrap,
	}
	db, err := database.Open(ctx, settings)
	if c.Anew && errors.Is(err, database.ErrDamaged) {
		db, err = anew(ctx, settings, c, err)
	}
	if err != nil {
		return nil, err
	}
	j := &Journal{
		c: c, settings: settings, db: newHandle(db), pending: map[string]*entry{},
		some: make(chan struct{}, 1), now: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if c.ReadOnly {
		close(j.done)
		return j, nil
	}
	go j.write() // until stop is closed, in Close
	return j, nil
}

// Close writes what is pending and releases the file. Its error says how many records were lost.
func (j *Journal) Close() error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.stop)
	}
	j.mu.Unlock()
	<-j.done
	return errors.Join(j.leftOver(), j.db.Close())
}

func (j *Journal) leftOver() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.parts == 0 {
		return nil
	}
	n := j.parts
	j.pending, j.order, j.parts, j.bytes = map[string]*entry{}, nil, 0, 0
	return fmt.Errorf("%d records of decisions could not be written to %s", n, j.c.Path)
}

// Record implements pipeline.Recorder. A second record of one id is merged into the first: it adds what became of the
// recipients it names. r may be used again afterwards.
//
// While the disk takes nothing, records that nobody waits for are kept in memory up to the limits, then the oldest are
// dropped: the journal never stops mail. With durable the error of the disk is returned and the record is not kept;
// only after the error of ctx it may be written all the same.
func (j *Journal) Record(ctx context.Context, r *pipeline.Record, durable bool) error {
	if j.c.ReadOnly {
		return fmt.Errorf("journal in %s: %w", j.c.Path, database.ErrReadOnly)
	}
	if r.ID == "" {
		return errors.New("a record without an id cannot be kept")
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", r.ID, err)
	}
	p := part{data: data, keys: keysOf(r)}
	if durable {
		p.wait = make(chan error, 1)
	}
	if err := j.add(r.ID, p); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	select {
	case err := <-p.wait:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *Journal) add(id string, p part) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	e := j.pending[id]
	if e == nil {
		e = &entry{id: id}
		j.pending[id] = e
		j.order = append(j.order, e)
	}
	e.parts = append(e.parts, p)
	j.parts++
	j.bytes += len(p.data)
	j.drop()
	signal(j.some)
	if p.wait != nil || j.failing == nil && j.parts >= batch {
		signal(j.now)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled already
	}
}

// Stats say how the journal does.
type Stats struct {
	Pending, PendingBytes    int    // records in memory
	Failing                  error  // of the last attempt to write; nil: it was written
	Written, Dropped, Failed uint64 // so far: records on disk; records lost; attempts to write that failed
}

// Stats returns how the journal does.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Pending, s.PendingBytes, s.Failing = j.parts, j.bytes, j.failing
	return s
}

// drop keeps what is pending within its limits. The caller holds mu.
func (j *Journal) drop() {
	if j.parts <= j.c.MaxPending && j.bytes <= j.c.MaxPendingBytes {
		return
	}
	for _, e := range j.order {
		if j.parts <= j.c.MaxPending && j.bytes <= j.c.MaxPendingBytes {
			break
		}
		for i := e.flying; i < len(e.parts) && (j.parts > j.c.MaxPending || j.bytes > j.c.MaxPendingBytes); {
			if e.parts[i].wait != nil {
				i++ // its error will tell
				continue
			}
			j.forget(e, i, i+1)
			if j.dropped == 0 {
				j.c.Log.Error("records of decisions are being lost: the journal does not get them to disk",
					"file", j.c.Path, "pending", j.parts)
			}
			j.dropped++
			j.stats.Dropped++
		}
	}
	j.tidy()
}

// forget removes parts of an entry. The caller holds mu, and calls tidy when it is through.
func (j *Journal) forget(e *entry, from, to int) {
	for _, p := range e.parts[from:to] {
		j.parts--
		j.bytes -= len(p.data)
	}
	e.parts = slices.Delete(e.parts, from, to)
}

// tidy removes entries that have no parts left. The caller holds mu.
func (j *Journal) tidy() {
	j.order = slices.DeleteFunc(j.order, func(e *entry) bool {
		if len(e.parts) > 0 {
			return false
		}
		delete(j.pending, e.id)
		return true
	})
}

// Flush writes what is pending now and returns once it would survive a power cut.
func (j *Journal) Flush(ctx context.Context) error {
	wait := make(chan error, 1)
	j.mu.Lock()
	if j.closed || j.c.ReadOnly {
		j.mu.Unlock()
		return nil
	}
	j.waiting = append(j.waiting, wait)
	j.mu.Unlock()
	signal(j.some)
	signal(j.now)
	select {
	case err := <-wait:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the one goroutine that writes.
func (j *Journal) write() {
	defer close(j.done)
	wait := j.c.Flush
	for {
		select {
		case <-j.some:
		case <-j.stop:
			_ = j.drain(true) // it has told whoever waits, and logged what is lost
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-j.now:
		case <-timer.C:
		case <-j.stop:
		}
		timer.Stop()
		wait = j.c.Flush
		if err := j.drain(false); err != nil {
			wait = max(j.c.Flush, time.Second) // a durable record tries at once all the same
			signal(j.some)
		}
	}
}

// drain writes batches until nothing is pending or one fails.
func (j *Journal) drain(last bool) error {
	ctx := context.Background()
	if last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	j.mu.Lock()
	waiting := j.waiting
	j.waiting = nil
	j.mu.Unlock()
	var err error
	for err == nil {
		flight := j.take()
		if len(flight) == 0 {
			break
		}
		err = j.db.put(ctx, flight)
		if j.c.Anew && errors.Is(err, database.ErrDamaged) && j.beginAnew(ctx, err) {
			err = j.db.put(ctx, flight)
		}
		j.land(flight, err)
	}
	for _, w := range waiting {
		w <- err
	}
	return err
}

// take returns the next batch: the entries with their parts as they are now.
func (j *Journal) take() []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var flight []entry
	for _, e := range j.order[:min(len(j.order), batch)] {
		e.flying = len(e.parts)
		flight = append(flight, entry{id: e.id, parts: slices.Clone(e.parts)})
	}
	return flight
}

// land removes what was written, or those parts whose owners are told that it was not.
func (j *Journal) land(flight []entry, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range flight {
		e := j.pending[f.id]
		e.flying = 0
		for i := len(f.parts) - 1; i >= 0; i-- {
			wait := f.parts[i].wait
			if wait != nil {
				wait <- err
			}
			if err == nil {
				j.stats.Written++
			}
			if err == nil || wait != nil {
				j.forget(e, i, i+1)
			}
		}
	}
	j.tidy()
	switch {
	case err != nil && j.failing == nil:
		j.c.Log.Error("records of decisions wait in memory: the journal cannot be written", "err", err)
	case err == nil && j.failing != nil:
		j.c.Log.Warn("the journal is written again", "file", j.c.Path, "lost", j.dropped)
	}
	if err == nil {
		j.dropped = 0
	} else {
		j.stats.Failed++
	}
	j.failing = err
}

// put writes a batch by the statements insertRecord and insertRecipient.
func put(ctx context.Context, tx *sql.Tx, insert, recipient *sql.Stmt, flight []entry) (err error) {
	for _, e := range flight {
		data, k := e.parts[0].data, e.parts[0].keys
		if len(e.parts) > 1 {
			if data, k, err = mergeParts(nil, e.parts); err != nil {
				return fmt.Errorf("record %s: %w", e.id, err)
			}
		}
		result, err := insert.ExecContext(ctx, e.id, k.received, k.queueID, k.messageID, k.plan, k.sender, k.sha256, string(data))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 { // there is one already
			if k, err = update(ctx, tx, e); err != nil {
				return err
			}
		}
		for i, r := range k.recipients {
			if _, err := recipient.ExecContext(ctx, e.id, i, r.address, r.base, r.account, r.file, r.held); err != nil {
				return err
			}
		}
	}
	return nil
}

// update merges an entry into the record that is there.
func update(ctx context.Context, tx *sql.Tx, e entry) (keys, error) {
	var before string
	if err := tx.QueryRowContext(ctx, selectRecord, e.id).Scan(&before); err != nil {
		return keys{}, err
	}
	data, k, err := mergeParts([]byte(before), e.parts)
	if err != nil {
		// What is there cannot be read: it must not keep all others waiting.
		if data, k, err = mergeParts(nil, e.parts); err != nil {
			return keys{}, fmt.Errorf("record %s: %w", e.id, err)
		}
	}
	if _, err := tx.ExecContext(ctx, updateRecord, e.id, k.received, k.queueID, k.messageID, k.plan, k.sender, k.sha256, string(data)); err != nil {
		return keys{}, err
	}
	_, err = tx.ExecContext(ctx, deleteRecipients, e.id)
	return k, err
}

func mergeParts(before []byte, parts []part) ([]byte, keys, error) {
	r, err := join(before, parts)
	if err != nil {
		return nil, keys{}, err
	}
	data, err := json.Marshal(r)
	return data, keysOf(r), err
}

// join decodes what was stored before (nil: nothing) and merges the parts into it; nil without either.
func join(before []byte, parts []part) (*pipeline.Record, error) {
	var r *pipeline.Record
	if before != nil {
		var err error
		if r, err = decode(before); err != nil {
			return nil, err
		}
	}
	for _, p := range parts {
		later, err := decode(p.data)
		if err != nil {
			return nil, err
		}
		if r == nil {
			r = later
		} else {
			r = merge(r, later)
		}
	}
	return r, nil
}

func decode(data []byte) (*pipeline.Record, error) {
	r := new(pipeline.Record)
	err := json.Unmarshal(data, r)
	version := r.Version
	if err != nil {
		// Of a form that is not known at least its number can be.
		var head struct{ Version int }
		_ = json.Unmarshal(data, &head) // it is damaged for the same reason, perhaps
		version = head.Version
	}
	switch {
	case version > pipeline.RecordVersion:
		return nil, fmt.Errorf("written by a newer program (form %d, this one knows %d)", version, pipeline.RecordVersion)
	case err != nil:
		return nil, fmt.Errorf("its JSON is damaged: %w", err)
	}
	return r, nil
}

func keysOf(r *pipeline.Record) keys {
	k := keys{
		received: micro(r.Received), queueID: clean(r.QueueID), messageID: bare(r.MessageID), plan: clean(r.Plan),
		sender: clean(base(r.Sender)), sha256: clean(r.SHA256),
	}
	for _, x := range r.Recipients {
		k.recipients = append(k.recipients, recipientKeys{
			clean(x.Address.String()), clean(base(x.Address)), clean(x.Account), fileKey(x.File), clean(x.Held),
		})
	}
	return k
}

// base returns an address without its subaddress.
func base(a pipeline.Address) string {
	a.Tag = ""
	return a.String()
}

// clean makes s a text that every database takes.
func clean(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "") }

// bare returns a Message-ID without angle brackets.
func bare(s string) string {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		s = s[1 : len(s)-1]
	}
	return clean(s)
}

// fileKey returns what stays the same in the name of a Maildir file, whatever folder it is in and whatever flags, sizes
// and keywords are written behind.
func fileKey(name string) string {
	if name == "" {
		return ""
	}
	name = path.Base(name)
	if i := strings.IndexAny(name, ":,"); i >= 0 {
		name = name[:i]
	}
	return clean(name)
}

// Recall returns the record of an id: what is pending as well as what is written. ErrNoRecord if there is none.
func (j *Journal) Recall(ctx context.Context, id string) (*pipeline.Record, error) {
	parts := j.partsOf(id) // first: what is written meanwhile is merged twice, which changes nothing
	var before []byte
	err := j.db.QueryRowContext(ctx, selectRecord, clean(id)).Scan(&before)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil && len(parts) == 0:
		return nil, j.db.Explain(err)
	case err != nil:
		before = nil // what is in memory is there to be had, also while the disk is not
	}
	r, err := join(before, parts)
	if err != nil {
		return nil, &UnreadableError{id, err}
	}
	if r == nil {
		return nil, fmt.Errorf("%s: %w", id, ErrNoRecord)
	}
	return r, nil
}

func (j *Journal) partsOf(id string) []part {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.pending[id]; e != nil {
		return slices.Clone(e.parts)
	}
	return nil
}

// Find returns the records that a key names, oldest first: an id, a queue id, a Message-ID with or without angle
// brackets, the name or the path of a Maildir file, an id in quarantine. Of more than 1000 it returns the newest. None
// is no error. Records that cannot be read are left out, and the error has an [UnreadableError] for each; what could be
// read is returned with it.
func (j *Journal) Find(ctx context.Context, key string) ([]*pipeline.Record, error) {
	key, file := bare(key), fileKey(strings.TrimSpace(key))
	if key == "" {
		return nil, nil
	}
	ids, err := j.find(ctx, key, file)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		// A copy that no record names, of a file into several folders say: its name has the id in it.
		for _, id := range strings.FieldsFunc(file, func(r rune) bool { return !isAlphanumeric(r) }) {
			if len(id) < 12 || id == key {
				continue
			}
			if ids, err = j.find(ctx, id, ""); err != nil {
				return nil, err
			} else if len(ids) > 0 {
				break
			}
		}
	}
	var found []*pipeline.Record
	var unreadable []error
	for _, id := range ids {
		r, err := j.Recall(ctx, id)
		var one *UnreadableError
		switch {
		case errors.Is(err, ErrNoRecord): // pruned meanwhile
		case errors.As(err, &one):
			unreadable = append(unreadable, err)
		case err != nil:
			return nil, err
		default:
			found = append(found, r)
		}
	}
	slices.SortFunc(found, oldestFirst)
	return found, errors.Join(unreadable...)
}

func isAlphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// find returns ids, each once.
func (j *Journal) find(ctx context.Context, key, file string) (ids []string, err error) {
	pending := j.findPending(key, file)
	rows, err := j.db.QueryContext(ctx, findRecords, key, file, mostFound)
	if err != nil {
		return nil, j.db.Explain(err)
	}
	defer rows.Close()
	seen := map[string]bool{}
	for _, id := range pending {
		seen[id] = true
	}
	ids = pending
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, j.db.Explain(err)
		}
		if !seen[id] {
			ids = append(ids, id)
		}
	}
	return ids, j.db.Explain(rows.Err())
}

func (j *Journal) findPending(key, file string) (ids []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range slices.Backward(j.order) {
		if len(ids) < mostFound && (e.id == key || slices.ContainsFunc(e.parts, func(p part) bool { return p.keys.match(key, file) })) {
			ids = append(ids, e.id)
		}
	}
	return ids
}

func (k keys) match(key, file string) bool {
	return k.queueID == key || k.messageID == key || slices.ContainsFunc(k.recipients, func(r recipientKeys) bool {
		return r.held == key || r.file == file && file != ""
	})
}

// texts reads rows of one text each.
func texts(rows *sql.Rows, err error) (all []string, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
