package program

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/journal"
	"sluice/mailstore/maildir"
	"sluice/mailstore/refile"
	"sluice/pipeline"
	"sluice/pipeline/mime"
)

// A sorter decides about mail that lies in a folder.
type sorter struct {
	settings *config.Config
	plan     *pipeline.Plan
	journal  *journal.Journal // nil: there is none
	account  string
	address  mime.Address
}

// decide decides about all mail of a folder. Nothing is changed.
func (c *refileCommand) decide(p *program, settings *config.Config, account, folder string) (result refileResult, moves []refile.Move, err error) {
	result = refileResult{
		Version: refileVersion, Account: account, Folder: folder,
		Moves: []refileMove{}, Refused: []refusedMail{}, Skipped: []skippedMail{},
	}
	s := &sorter{settings: settings, account: account}
	if len(c.Rules) > 0 {
		s.plan, err = planWith(p, settings, c.Step, c.Rules)
	} else {
		s.plan, _, err = plan(settings, settings.Pipeline, offlineEnv(settings.Hostname, p.now, nil))
	}
	if err != nil {
		return result, nil, err
	}
	result.Plan = s.plan.Version()
	if s.address, err = mime.ParseAddress(account); err != nil {
		return result, nil, fmt.Errorf("account %s: %w", account, err)
	}
	var there []mailstore.Spot
	err = p.withBox(settings, "refile", func(box keptMail) (err error) {
		there, err = box.Survey(p.ctx, account, folder)
		if errors.Is(err, mailstore.ErrNoFolder) {
			err = fmt.Errorf("%w; %s", err, foldersOf(p.ctx, box, account))
		}
		if errors.Is(err, mailstore.ErrNoAccount) {
			err = fmt.Errorf("%w; sluice user list shows those there are", err)
		}
		return err
	})
	if err != nil {
		return result, nil, err
	}
	records := settings.Journal
	records.Path, records.ReadOnly = journalPath(settings), true
	s.journal, err = journal.Open(p.ctx, records)
	switch {
	case err == nil:
		defer func() { err = errors.Join(err, s.journal.Close()) }()
	case !errors.Is(err, fs.ErrNotExist):
		return result, nil, err
	}
	progress := p.newProgress("mails", len(there))
	defer progress.end()
	for i, x := range there {
		progress.at(i)
		d, err := s.decide(p.ctx, x)
		if p.ctx.Err() != nil {
			return result, nil, errors.New("stopped while deciding; nothing has been done")
		}
		result.Seen++
		if d.bare {
			result.Bare++
		}
		if d.unsure {
			result.Unsure++
		}
		switch {
		case err != nil:
			result.Skipped = append(result.Skipped, skippedMail{x.File, err.Error()})
		case d.refused != nil:
			result.Refused = append(result.Refused, *d.refused)
		case d.move == nil:
		case len(moves) == c.Limit:
			result.Beyond++
		default:
			moves = append(moves, *d.move)
		}
	}
	return result, moves, nil
}

// foldersOf names the folders of an account, for a message.
func foldersOf(ctx context.Context, box mailstore.Refiler, account string) string {
	tree, err := box.Tree(ctx, account)
	if err != nil {
		return "its folders cannot be listed: " + err.Error()
	}
	var names []string
	for _, f := range tree {
		if !f.Missing {
			names = append(names, f.Name)
		}
	}
	return "there are " + strings.Join(names, ", ")
}

// A sorting is what a sorter says of a mail; none of both: it stays as it is.
type sorting struct {
	bare    bool // it has no record
	unsure  bool // its record does not tell all that the plan asks
	move    *refile.Move
	refused *refusedMail
}

// Why nothing is decided about a mail.
var (
	errMarkedDeleted = errors.New("marked deleted")
	errOddName       = errors.New("under a file name that is not UTF-8")
	errTooLarge      = errors.New("larger than limits.message_size")
	errGoneMeanwhile = errors.New("deleted or moved while it was read")
	errNoRecord      = errors.New("with a record that cannot be read")
	errNotJudged     = errors.New("about which the rules did not get to decide")
)

// decide says what the plan would do with a mail: by its record, if there is one, else from the mail alone. Errors are about
// this mail.
func (s *sorter) decide(ctx context.Context, x mailstore.Spot) (d sorting, err error) {
	switch {
	case slices.Contains(x.Flags, `\Deleted`):
		return d, errMarkedDeleted
	case !utf8.ValidString(x.At):
		return d, errOddName
	case x.Size > int64(s.settings.Limits.MessageSize):
		return d, errTooLarge
	}
	r, at, err := s.record(ctx, x)
	if err != nil {
		return d, fmt.Errorf("%w: %w", errNoRecord, err)
	}
	m, err := s.message(x.Path, r)
	if errors.Is(err, fs.ErrNotExist) {
		return d, errGoneMeanwhile
	}
	if err != nil {
		return d, err
	}
	if d.bare = r == nil; d.bare {
		r, at = s.bare(x, m), 0
	}
	again, err := s.plan.Replay(ctx, r, pipeline.Replay{Message: m})
	if err != nil {
		return d, err
	}
	if at >= len(again.Record.Recipients) || again.Record.Recipients[at].Address != r.Recipients[at].Address {
		return d, errNotJudged
	}
	d.unsure = !d.bare && len(again.Gaps) > 0
	rcpt := &again.Record.Recipients[at]
	subject := pipeline.CleanSubject(m.Subject())
	if a := rcpt.Verdict.Action; a > pipeline.Keep {
		d.refused = &refusedMail{File: x.File, By: decider(rcpt), Action: a, Subject: subject}
		return d, nil
	}
	if s.wished(r.Recipients[at].Handling, x) {
		return d, nil
	}
	move := refile.Move{From: x, To: mailstore.Spot{Folder: x.Folder, File: x.File, Flags: slices.Clone(x.Flags)}, Subject: subject, MessageID: m.MessageID()}
	var by []string
	if f, who := keptIn(rcpt); f != "" && !sameFolder(f, x.Folder) {
		if err := maildir.CheckFolder(f); err != nil {
			return d, fmt.Errorf("%s: %w", who, err)
		}
		move.To.Folder = f
		by = append(by, who)
	}
	for _, f := range rcpt.Flags {
		if !containsFold(move.To.Flags, f) {
			move.To.Flags = append(move.To.Flags, f)
			by = append(by, flaggedBy(again.Record, rcpt, f))
		}
	}
	if len(by) == 0 {
		return d, nil
	}
	slices.Sort(move.To.Flags)
	slices.Sort(by)
	move.By = strings.Join(slices.Compact(by), ", ")
	if !d.bare {
		move.Record = r.ID
	}
	d.move = &move
	return d, nil
}

// wished reports whether a copy is where its owner's script wants it: there it stays, whatever rules say now.
func (s *sorter) wished(h *pipeline.Handling, x mailstore.Spot) bool {
	if h == nil {
		return false
	}
	return !slices.ContainsFunc(h.Copies, func(c pipeline.Copy) bool { return c.Kept && c.File == x.File })
}

// keptIn is where the steps want the copy that there is without any wishes, and who says so.
func keptIn(r *pipeline.RecipientRecord) (folder, by string) {
	if r.Handling == nil {
		return r.Folder, r.FolderBy
	}
	for i, c := range r.Handling.Copies {
		switch {
		case c.Kept && i == 0:
			return c.Folder, r.FolderBy
		case c.Kept:
			return c.Folder, "the steps before sieve"
		}
	}
	return "", ""
}

func sameFolder(a, b string) bool {
	return a == b || strings.EqualFold(a, mailstore.Inbox) && strings.EqualFold(b, mailstore.Inbox)
}

func decider(r *pipeline.RecipientRecord) string {
	if r.Verdict.By == "" {
		return r.Step
	}
	return r.Step + "/" + r.Verdict.By
}

// flaggedBy says who wanted a flag.
func flaggedBy(r *pipeline.Record, x *pipeline.RecipientRecord, flag string) string {
	for _, step := range slices.Concat(r.Steps, x.Steps) {
		for _, stage := range step.Stages {
			for _, e := range stage.Effects {
				if e.Kind == pipeline.AddFlags && !e.Shadow && slices.Contains(e.Flags, flag) {
					return strings.TrimSuffix(step.Name+"/"+e.By, "/")
				}
			}
		}
	}
	return ""
}

// record returns the record of a mail and which of its recipients got this copy; nil: there is none.
func (s *sorter) record(ctx context.Context, x mailstore.Spot) (r *pipeline.Record, at int, err error) {
	if s.journal == nil || x.ID == "" {
		return nil, 0, nil
	}
	r, err = s.journal.Recall(ctx, x.ID)
	if errors.Is(err, journal.ErrNoRecord) || err == nil && r.Size == 0 {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	is := func(f func(*pipeline.RecipientRecord) bool) bool {
		at = slices.IndexFunc(r.Recipients, func(y pipeline.RecipientRecord) bool { return f(&y) })
		return at >= 0
	}
	if is(func(y *pipeline.RecipientRecord) bool { return y.File == x.File && y.Account == s.account }) ||
		is(func(y *pipeline.RecipientRecord) bool { return y.Account == s.account && y.File != "" }) {
		return r, at, nil
	}
	return nil, 0, nil
}

// message reads a mail: as it came if its record can tell, else without what a delivery puts on top.
func (s *sorter) message(path string, r *pipeline.Record) (*mime.Message, error) {
	if r != nil {
		m, err := original(path, r, s.settings.Limits.MIME())
		if err == nil || !errors.Is(err, errChanged) {
			return m, err
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read: %w", cause(err))
	}
	text = without(crlf(text), "delivered-to", pipeline.IDField)
	return mime.Parse(bytes.NewReader(text), int64(len(text)), s.settings.Limits.MIME())
}

// bare makes a record from a mail alone: its sender is in Return-Path, who brought it is unknown.
func (s *sorter) bare(x mailstore.Spot, m *mime.Message) *pipeline.Record {
	sum := sha256.Sum256([]byte(x.File))
	r := &pipeline.Record{
		Version: pipeline.RecordVersion, ID: hex.EncodeToString(sum[:8]), Received: x.Date, Door: pipeline.LMTP,
		MessageID: m.MessageID(), Subject: pipeline.CleanSubject(m.Subject()), Size: max(m.Size(), 1),
		Recipients: []pipeline.RecipientRecord{{Recipient: pipeline.Recipient{Address: s.address, Account: s.account}}},
	}
	if f, ok := m.Header().First("Return-Path"); ok {
		if from, err := mime.ParseAddress(strings.Trim(strings.TrimSpace(f.Value()), "<>")); err == nil {
			r.Sender = from
		}
	} else if authors := m.From(); len(authors) > 0 {
		r.Sender = authors[0] // as check takes it
	}
	r.Recipients[0].Disposition = pipeline.Delivered
	return r
}
