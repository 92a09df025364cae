package program

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/refile"
	"sluice/pipeline"
)

type refileCommands struct {
	Sort refileCommand `cmd:"" default:"withargs" help:"Say what rules would do with mail that lies in a mailbox; --apply does it."`
	List refileList    `cmd:"" help:"List the runs, the newest first."`
	Show refileShow    `cmd:"" help:"Say what a run has done."`
	Undo undoCommand   `cmd:"" help:"Put back what a run has moved."`
}

type refileCommand struct {
	Rules   []string `placeholder:"FILE" sep:"none" help:"Decide with these rule files in place of the configured ones; may be repeated."`
	Step    string   `help:"The rules step whose files --rules replaces. Default: the only one."`
	Mailbox string   `placeholder:"NAME@DOMAIN[/FOLDER]" help:"Whose mail. Default folder: INBOX. FOLDER alone will do where there is one account."`
	Plan    bool     `xor:"do" help:"Only say what would be done. This is the default."`
	Apply   bool     `xor:"do" help:"Do it."`
	Resume  string   `xor:"do" placeholder:"RUN" help:"Complete a run that was broken off."`
	Limit   int      `default:"100000" help:"Move at most so many mails; the others the next time."`
	JSON    bool     `help:"Print JSON."`
}

// refileVersion is the version of what refile and undo print with --json.
const refileVersion = 1

// A refileResult is what refile says.
type refileResult struct {
	Version int          `json:"version"`
	Run     string       `json:"run,omitempty"` // "": nothing was done
	Account string       `json:"account"`
	Folder  string       `json:"folder"`
	Plan    string       `json:"plan"` // the version of the plan that decided
	Seen    int          `json:"seen"` // mails looked at
	Bare    int          `json:"without_record"`
	Unsure  int          `json:"incomplete_record"` // their records do not tell all that the rules ask
	Moves   []refileMove `json:"moves"`
	// Refused are mails that the rules would not have let in. They are left alone.
	Refused []refusedMail `json:"refused"`
	Skipped []skippedMail `json:"skipped"`
	// Beyond is how many more would be moved without --limit.
	Beyond int    `json:"beyond_limit"`
	Error  string `json:"error,omitempty"` // why the run is not complete
}

// A refileMove is one mail that is to be moved or flagged, or was.
type refileMove struct {
	File      string         `json:"file"`
	From      string         `json:"from"` // folder
	To        string         `json:"to"`
	Flags     []string       `json:"flags,omitempty"` // to be set
	By        string         `json:"by"`
	Record    string         `json:"record,omitempty"`
	MessageID string         `json:"message_id,omitempty"`
	Subject   string         `json:"subject,omitempty"`
	State     refile.State   `json:"state"`
	Left      mailstore.Left `json:"left,omitempty"`
	Now       string         `json:"now,omitempty"` // the folder where it was found
}

// A refusedMail is one that the rules would not have let in.
type refusedMail struct {
	File    string          `json:"file"`
	By      string          `json:"by"`
	Action  pipeline.Action `json:"action"`
	Subject string          `json:"subject,omitempty"`
}

// A skippedMail is one that nothing could be decided about.
type skippedMail struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

func (c *refileCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	if c.Resume != "" {
		if c.Mailbox != "" || len(c.Rules) > 0 {
			return errors.New("--resume completes a run as it was planned: leave out --mailbox and --rules")
		}
		return p.goOn(settings, c.Resume, c.JSON)
	}
	whole, err := p.inMailbox(c.Mailbox)
	if err != nil {
		return err
	}
	account, folder, err := mailboxOf(whole)
	if err != nil {
		return err
	}
	if c.Limit < 1 {
		return fmt.Errorf("--limit %d: there is nothing less than one mail to move", c.Limit)
	}
	result, moves, err := c.decide(p, settings, account, folder)
	if err != nil {
		return err
	}
	if c.Apply && len(moves) > 0 {
		return c.apply(p, settings, result, moves)
	}
	for _, m := range moves {
		result.Moves = append(result.Moves, asMove(refile.Tracked{Move: m, State: refile.Planned}))
	}
	if c.JSON {
		return printJSON(p, result)
	}
	return c.print(p, result)
}

// mailboxOf reads "me@localhost/Lists/go".
func mailboxOf(s string) (who, folder string, err error) {
	if s == "" {
		return "", "", errors.New("say whose mail with --mailbox NAME@DOMAIN, or NAME@DOMAIN/FOLDER")
	}
	name, folder, _ := strings.Cut(s, "/")
	if who, err = (account{Name: name}).normal(); err != nil {
		return "", "", fmt.Errorf("--mailbox %w", err)
	}
	return who, cmp.Or(folder, mailstore.Inbox), nil
}

func printJSON(p *program, x any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	return e.Encode(x)
}

// apply carries out moves as a new run.
func (c *refileCommand) apply(p *program, settings *config.Config, result refileResult, moves []refile.Move) error {
	files := make([]string, len(c.Rules))
	for i, f := range c.Rules {
		var err error
		if files[i], err = filepath.Abs(f); err != nil {
			return fmt.Errorf("find %s: %w", f, err)
		}
	}
	return p.withBox(settings, "refile", func(box keptMail) error {
		run, err := p.runs(settings).Create(refile.Head{
			Account: result.Account, Folder: result.Folder, Rules: files, Plan: result.Plan, Seen: result.Seen,
		}, moves)
		if err != nil {
			return err
		}
		defer run.Close() // what counts is synced
		result.Run = run.ID
		if !c.JSON {
			t := text{w: p.stdout}
			t.line(0, "run %s", run.ID)
			if t.err != nil {
				return t.err
			}
		}
		err = p.carryOut(run, c.JSON, func(tell func(int, refile.Tracked)) error { return run.Apply(p.ctx, box, tell) })
		if c.JSON {
			for _, x := range run.All {
				result.Moves = append(result.Moves, asMove(x))
			}
			if err != nil {
				result.Error = err.Error()
			}
			return errors.Join(err, printJSON(p, result))
		}
		if err != nil {
			return err
		}
		t := text{w: p.stdout}
		c.remarks(&t, result)
		t.line(0, "%s; to take it back: sluice undo %s", applied(run), run.ID)
		return t.err
	})
}

// carryOut applies or reverts a run, telling of each mail, and says how to go on if that is broken off.
func (p *program) carryOut(run *refile.Run, quiet bool, do func(tell func(int, refile.Tracked)) error) error {
	t := text{w: p.stdout}
	progress := p.newProgress("mails", len(run.All))
	err := do(func(n int, x refile.Tracked) {
		if quiet {
			progress.at(n)
			return
		}
		t.line(0, "%s", describe(x))
	})
	progress.end()
	if err == nil {
		return t.err
	}
	on := "to go on: sluice refile --resume " + run.ID + "; to take back what was done: sluice undo " + run.ID
	if run.Undo {
		on = "to go on: sluice undo " + run.ID
	}
	return fmt.Errorf("%w\n%s", err, on)
}

// print says what would be done.
func (c *refileCommand) print(p *program, r refileResult) error {
	t := text{w: p.stdout}
	for _, m := range r.Moves {
		t.line(0, "%s", m)
	}
	c.remarks(&t, r)
	n := len(r.Moves)
	t.line(0, "%s, %s: of %d %s %d would be moved or flagged", r.Account, r.Folder, r.Seen, plural(r.Seen, "mail", "mails"), n)
	if n > 0 {
		t.line(0, "nothing has been done; the same with --apply does it")
	}
	return t.err
}

// remarks says what is left alone whatever happens.
func (c *refileCommand) remarks(t *text, r refileResult) {
	for _, x := range r.Refused {
		t.line(0, "left alone: %s (%s would have said %s)", quoted(x.Subject), x.By, x.Action)
	}
	why := map[string]int{}
	for _, x := range r.Skipped {
		why[x.Why]++
	}
	for _, w := range slices.Sorted(maps.Keys(why)) {
		t.line(0, "left alone: %d %s", why[w], w)
	}
	if r.Bare > 0 {
		t.line(0, "%d of %d have no record: what steps before the rules would have found about them is unknown", r.Bare, r.Seen)
	}
	if r.Unsure > 0 {
		t.line(0, "the records of %d do not tell all that is asked now: that is unknown", r.Unsure)
	}
	if r.Beyond > 0 {
		t.line(0, "%d more are beyond --limit %d", r.Beyond, c.Limit)
	}
}

// asMove is what is said of a move.
func asMove(x refile.Tracked) refileMove {
	m := refileMove{
		File: x.From.File, From: x.From.Folder, To: x.To.Folder, By: x.By, Record: x.Record, MessageID: x.MessageID,
		Subject: x.Subject, State: x.State, Left: x.Left,
	}
	for _, f := range x.To.Flags {
		if !slices.Contains(x.From.Flags, f) {
			m.Flags = append(m.Flags, f)
		}
	}
	if x.Left != "" {
		m.Now = x.Now.Folder
	}
	return m
}

// String is "INBOX -> Lists +$Label1  "subject"  (rules/newsletters)".
func (m refileMove) String() string {
	return fmt.Sprintf("%s  %s  (%s)", m.where(), quoted(m.Subject), m.By)
}

func (m refileMove) where() string {
	s := m.From
	if m.To != m.From {
		s += " -> " + m.To
	}
	for _, f := range m.Flags {
		s += " +" + f
	}
	return s
}

// describe says what became of a move.
func describe(x refile.Tracked) string {
	m := asMove(x)
	switch x.State {
	case refile.Skipped:
		return fmt.Sprintf("left alone: %s, %s", m, leftWhy(x))
	case refile.Back:
		m.From, m.To, m.Flags = m.To, m.From, nil
		return fmt.Sprintf("back: %s", m)
	case refile.Stays:
		return fmt.Sprintf("stays: %s, %s", m, leftWhy(x))
	}
	return m.String()
}

// leftWhy says why a mail was left alone.
func leftWhy(x refile.Tracked) string {
	switch x.Left {
	case mailstore.LeftGone:
		return "it was deleted meanwhile"
	case mailstore.LeftMoved:
		return "it was moved to " + x.Now.Folder + " meanwhile"
	case mailstore.LeftFlags:
		return "its flags were changed meanwhile"
	case mailstore.LeftTaken:
		return "there is another file of its name"
	case mailstore.LeftFolder:
		return "the folder is gone"
	case mailstore.LeftKeys:
		return "it would have more keywords than limits.accounts.keywords allows"
	}
	return string(x.Left)
}

// applied says how many mails a run has moved.
func applied(r *refile.Run) string {
	n := r.Counts()
	s := fmt.Sprintf("%d moved or flagged", n[refile.Done])
	if k := n[refile.Skipped]; k > 0 {
		s += fmt.Sprintf(", %d left alone", k)
	}
	if k := n[refile.Planned] + n[refile.Begun]; k > 0 {
		s += fmt.Sprintf(", %d not yet", k)
	}
	return s
}

// reverted says how many mails were put back.
func reverted(r *refile.Run) string {
	n := r.Counts()
	s := fmt.Sprintf("%d put back", n[refile.Back])
	if k := n[refile.Stays]; k > 0 {
		s += fmt.Sprintf(", %d left where they are", k)
	}
	if k := n[refile.Leaving] + n[refile.Done] + n[refile.Begun]; k > 0 {
		s += fmt.Sprintf(", %d not yet", k)
	}
	for _, f := range r.Folders {
		switch {
		case f.Kept != "":
			s += fmt.Sprintf("; the folder %s stays: %s", f.Folder, f.Kept)
		case f.Gone:
			s += fmt.Sprintf("; the folder %s is removed", f.Folder)
		}
	}
	return s
}

// runs are the runs of a data folder.
func (p *program) runs(c *config.Config) refile.Dir {
	return refile.Dir{Path: filepath.Join(c.Data, "refile"), Now: p.now}
}

// goOn completes a run that was broken off.
func (p *program) goOn(settings *config.Config, id string, asJSON bool) error {
	return p.withRun(settings, id, func(run *refile.Run, box mailstore.Refiler) error {
		if run.Undone {
			return fmt.Errorf("run %s has been undone: nothing of it is left to resume", run.ID)
		}
		if run.Undo {
			return fmt.Errorf("run %s is %s: sluice undo %[1]s goes on with that", run.ID, run.Status())
		}
		if run.Ended && !asJSON {
			t := text{w: p.stdout}
			t.line(0, "run %s was complete: %s", run.ID, applied(run))
			return t.err
		}
		err := p.carryOut(run, asJSON, func(tell func(int, refile.Tracked)) error { return run.Apply(p.ctx, box, tell) })
		if asJSON {
			return errors.Join(err, printJSON(p, shown(run, err)))
		}
		if err != nil {
			return err
		}
		t := text{w: p.stdout}
		t.line(0, "%s; to take it back: sluice undo %s", applied(run), run.ID)
		return t.err
	})
}

// withRun opens a run to go on with it.
func (p *program) withRun(settings *config.Config, id string, f func(*refile.Run, mailstore.Refiler) error) error {
	return p.withBox(settings, "refile", func(box keptMail) error {
		run, err := p.runs(settings).Open(id)
		switch {
		case errors.Is(err, refile.ErrNoRun):
			return fmt.Errorf("%w; sluice refile list shows those there are", err)
		case errors.Is(err, refile.ErrDamaged):
			return fmt.Errorf("%w\nnothing was changed; mend or remove that file", err)
		case err != nil:
			return err
		}
		defer run.Close() // what counts is synced
		return f(run, box)
	})
}

type undoCommand struct {
	JSON bool   `help:"Print JSON."`
	ID   string `arg:"" name:"run" help:"What refile called the run."`
}

func (c *undoCommand) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	return p.withRun(settings, c.ID, func(run *refile.Run, box mailstore.Refiler) error {
		was := run.Undone
		err := p.carryOut(run, c.JSON, func(tell func(int, refile.Tracked)) error { return run.Revert(p.ctx, box, tell) })
		if c.JSON {
			return errors.Join(err, printJSON(p, shown(run, err)))
		}
		if err != nil {
			return err
		}
		t := text{w: p.stdout}
		already := ""
		if was {
			already = "was undone before: "
		}
		t.line(0, "%s%s", already, reverted(run))
		return t.err
	})
}

// A shownRun is what refile show, undo and --resume print with --json.
type shownRun struct {
	Version int            `json:"version"`
	Run     string         `json:"run"`
	Started time.Time      `json:"started"`
	Account string         `json:"account"`
	Folder  string         `json:"folder"`
	Rules   []string       `json:"rules"`
	Plan    string         `json:"plan"`
	Status  string         `json:"status"`
	Seen    int            `json:"seen"`
	Moves   []refileMove   `json:"moves"`
	Folders []*refile.Made `json:"folders"`
	Error   string         `json:"error,omitempty"`
}

func shown(r *refile.Run, err error) shownRun {
	x := shownRun{
		Version: refileVersion, Run: r.ID, Started: r.Started, Account: r.Account, Folder: r.Folder,
		Rules: append([]string{}, r.Rules...), Plan: r.Plan, Status: r.Status(), Seen: r.Seen,
		Moves: []refileMove{}, Folders: append([]*refile.Made{}, r.Folders...),
	}
	for _, m := range r.All {
		x.Moves = append(x.Moves, asMove(m))
	}
	if err != nil {
		x.Error = err.Error()
	}
	return x
}

type refileList struct {
	JSON bool `help:"Print JSON."`
}

func (c *refileList) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	runs, bad := p.runs(settings).List()
	if c.JSON {
		all := []shownRun{}
		for _, r := range runs {
			x := shown(r, nil)
			x.Moves = nil
			all = append(all, x)
		}
		return errors.Join(bad, printJSON(p, struct {
			Version int        `json:"version"`
			Runs    []shownRun `json:"runs"`
		}{refileVersion, all}))
	}
	t := text{w: p.stdout}
	for _, r := range runs {
		t.line(0, "%s  %s  %s, %s  %s", r.ID, r.Started.UTC().Format(time.DateTime), r.Account, r.Folder, status(r))
	}
	return errors.Join(bad, t.err)
}

func status(r *refile.Run) string {
	if r.Undo {
		return fmt.Sprintf("%s: %s", r.Status(), reverted(r))
	}
	return fmt.Sprintf("%s: %s", r.Status(), applied(r))
}

type refileShow struct {
	JSON bool   `help:"Print JSON."`
	ID   string `arg:"" name:"run" help:"What list calls it."`
}

func (c *refileShow) Run(p *program) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	r, err := p.runs(settings).Read(c.ID)
	if errors.Is(err, refile.ErrNoRun) {
		return fmt.Errorf("%w; sluice refile list shows those there are", err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p, shown(r, nil))
	}
	t := text{w: p.stdout}
	t.line(0, "%-10s %s", "run", r.ID)
	t.line(0, "%-10s %s", "started", r.Started.UTC().Format(time.RFC3339))
	t.line(0, "%-10s %s, %s", "mailbox", r.Account, r.Folder)
	for _, f := range r.Rules {
		t.line(0, "%-10s %s", "rules", f)
	}
	t.line(0, "%-10s %s", "status", status(r))
	for _, x := range r.All {
		switch x.State {
		case refile.Planned, refile.Begun:
			t.line(1, "not yet: %s", asMove(x))
		default:
			t.line(1, "%s", describe(x))
		}
	}
	return t.err
}
