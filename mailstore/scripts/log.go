package scripts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/mailstore"
)

var _ mailstore.ScriptLog = (*Log)(nil)

// LogLimits bound what is kept of what went wrong. In a zero field the default counts.
type LogLimits struct {
	// Size is how much is kept for an account, in octets: the oldest half goes when it is more.
	Size int64 `yaml:"size"`
	// Keep is how long it is kept.
	Keep time.Duration `yaml:"keep"`
	// Mails is how many mails about scripts an account's owner gets within a day, at most one of them about the same
	// problem.
	Mails int `yaml:"mails"`
}

// DefaultLogLimits returns the defaults.
func DefaultLogLimits() LogLimits {
	return LogLimits{Size: 256 << 10, Keep: 30 * 24 * time.Hour, Mails: 10}
}

func (l LogLimits) withDefaults() LogLimits {
	d := DefaultLogLimits()
	return LogLimits{Size: cmp.Or(l.Size, d.Size), Keep: cmp.Or(l.Keep, d.Keep), Mails: cmp.Or(l.Mails, d.Mails)}
}

// A LogConfig says where the log is kept. Users must be set.
type LogConfig struct {
	// Users is as in [Config]: the log of an account is USERS/DOMAIN/NAME/sieve.log, a line of JSON for each problem.
	Users  string
	Limits LogLimits
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: slog.Default
}

// A Log is a mailstore.ScriptLog in files.
type Log struct {
	cfg  LogConfig
	disk disk
}

// OpenLog returns the log in a folder. It makes nothing.
func OpenLog(c LogConfig) (*Log, error) {
	if c.Users == "" {
		return nil, errors.New("scripts: Users must be set")
	}
	c.Limits = c.Limits.withDefaults()
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Log{cfg: c, disk: osDisk{}}, nil
}

const (
	logFile  = "sieve.log"
	tellTime = 24 * time.Hour // how long the owner is not told again

	mostText = 1000 // octets of a text; other texts are bounded by what they are
)

// An entry is a problem as the file has it.
type entry struct {
	mailstore.ScriptProblem
	Told bool `json:"told,omitempty"` // the owner knows of it
}

// same reports whether two problems are one to the owner.
func (e entry) same(p mailstore.ScriptProblem) bool {
	return e.Script == p.Script && e.Line == p.Line && e.Text == p.Text
}

// Note implements mailstore.ScriptLog. An account's owner is told no more than [LogLimits].Mails times within a day.
func (l *Log) Note(ctx context.Context, account string, p mailstore.ScriptProblem, tell func(context.Context) error) error {
	dir, err := accountFolder(l.cfg.Users, account)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, l.disk, l.cfg.Users, dir)
	if err != nil {
		return fmt.Errorf("log of %s: %w", account, explained(err))
	}
	defer unlock()
	p = bounded(p)
	if p.Time.IsZero() {
		p.Time = l.cfg.Now()
	}
	p.Time = p.Time.UTC()
	entries, size, err := l.read(dir)
	if err != nil {
		return fmt.Errorf("log of %s: %w", account, err)
	}
	e := entry{ScriptProblem: p}
	var told error
	if tell != nil && l.due(entries, p) {
		told = tell(ctx)
		e.Told = told == nil
	}
	// What cannot be written has still been told, and the other way round.
	err = l.append(dir, entries, size, e)
	if err != nil {
		err = fmt.Errorf("log of %s: %w", account, explained(err))
	}
	if told != nil {
		told = fmt.Errorf("tell %s of a problem with a script: %w", account, told)
	}
	return errors.Join(err, told)
}

// due reports whether the owner is to be told of p.
func (l *Log) due(entries []entry, p mailstore.ScriptProblem) bool {
	since := l.cfg.Now().Add(-tellTime)
	n := 0
	for _, e := range entries {
		if !e.Told || !e.Time.After(since) {
			continue
		}
		if e.same(p) {
			return false
		}
		n++
	}
	return n < l.cfg.Limits.Mails
}

func (l *Log) append(dir string, entries []entry, size int64, e entry) error {
	line, err := encode(e)
	if err != nil {
		return err
	}
	if size+int64(len(line)) > l.cfg.Limits.Size {
		return l.rewrite(dir, append(entries, e))
	}
	f, err := l.disk.Append(filepath.Join(dir, logFile))
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

func encode(e entry) ([]byte, error) {
	line, err := json.Marshal(e)
	return append(line, '\n'), err
}

// rewrite keeps the newest entries, as many as take half of the size, and of the others those that keep the owner from
// being told again.
func (l *Log) rewrite(dir string, entries []entry) error {
	room := l.cfg.Limits.Size / 2
	since := l.cfg.Now().Add(-tellTime)
	var lines [][]byte
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		line, err := encode(e)
		if err != nil {
			return err
		}
		room -= int64(len(line))
		if newest := i == len(entries)-1; room < 0 && !newest && !(e.Told && e.Time.After(since)) {
			continue
		}
		lines = append(lines, line)
	}
	var text []byte
	for i := len(lines) - 1; i >= 0; i-- {
		text = append(text, lines[i]...)
	}
	return replace(l.disk, dir, logFile, text)
}

// read returns the entries that are young enough, the oldest first, and how large the file is, or that it has to be made
// anew: a size over the limit. A line that is none, as a power cut may leave, is passed over.
func (l *Log) read(dir string) (entries []entry, size int64, err error) {
	f, err := openPlain(filepath.Join(dir, logFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, hardLimit))
	if err != nil {
		return nil, 0, err
	}
	size = int64(len(text))
	anew := size > 0 && text[size-1] != '\n' // the next entry must not continue a torn line
	oldest := l.cfg.Now().Add(-l.cfg.Limits.Keep)
	for line := range bytes.Lines(text) {
		var e entry
		switch {
		case json.Unmarshal(line, &e) != nil:
		case !e.Time.After(oldest):
			anew = true // what is too old goes
		default:
			entries = append(entries, e)
		}
	}
	if anew {
		size = max(size, l.cfg.Limits.Size)
	}
	return entries, size, nil
}

// Problems implements mailstore.ScriptLog.
func (l *Log) Problems(ctx context.Context, account string) ([]mailstore.ScriptProblem, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := accountFolder(l.cfg.Users, account)
	if err != nil {
		return nil, err
	}
	entries, _, err := l.read(dir)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", account, err)
	}
	list := make([]mailstore.ScriptProblem, len(entries))
	for i, e := range entries {
		list[i] = e.ScriptProblem
	}
	return list, nil
}

// bounded returns p with texts that are no longer than they have to be.
func bounded(p mailstore.ScriptProblem) mailstore.ScriptProblem {
	p.Script, p.Text = cut(p.Script, mostName), cut(p.Text, mostText)
	p.ID, p.MessageID = cut(p.ID, 64), cut(p.MessageID, 998)
	return p
}

func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
