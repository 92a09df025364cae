package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore/queue"
	"sluice/mailstore/users"
)

// queueOrderName is how an order about mail that is to leave begins.
const queueOrderName = "queue"

// A queueOrder has the running server do something with mail that is to leave.
type queueOrder struct {
	Version int      `json:"version"`
	Do      string   `json:"do"` // retry, hold, release, delete
	Why     string   `json:"why,omitempty"`
	To      string   `json:"to,omitempty"` // of delete: only what is for this domain or address
	IDs     []string `json:"ids"`
}

// A queueAnswer is what came of it, for each of the mails.
type queueAnswer struct {
	Version int          `json:"version"`
	Results []queuedDone `json:"results"`
	Error   string       `json:"error,omitempty"` // of the order as a whole
}

type queuedDone struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"`
}

// answerQueue does what an order says. anew has servers asked again that are left alone.
func answerQueue(ctx context.Context, q *queue.Queue, anew func(), text string) (a queueAnswer) {
	a.Version = queueVersion
	var o queueOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		a.Error = fmt.Sprintf("the order is no JSON: %v", err)
		return a
	}
	if o.Version != queueVersion {
		a.Error = "the running server is of another version: restart it"
		return a
	}
	do := map[string]func(context.Context, string) error{
		"retry": q.Retry, "release": q.Release,
		"delete": func(ctx context.Context, id string) error { return q.Delete(ctx, id, o.To) },
		"hold":   func(ctx context.Context, id string) error { return q.Hold(ctx, id, o.Why) },
	}[o.Do]
	if do == nil {
		a.Error = fmt.Sprintf("there is no order %q about mail that is to leave", o.Do)
		return a
	}
	if o.Do == "retry" || o.Do == "release" { // now is now, also where a server could not be talked to a minute ago
		anew()
	}
	for _, id := range o.IDs {
		x := queuedDone{ID: strings.ToLower(strings.TrimSpace(id))}
		if err := do(ctx, id); err != nil {
			x.Error = err.Error()
		}
		a.Results = append(a.Results, x)
	}
	return a
}

// selectedMail says which mail an action is about.
type selectedMail struct {
	chosenMail
	All  bool     `help:"All mail in the queue."`
	JSON bool     `help:"Print JSON."`
	IDs  []string `arg:"" optional:"" name:"id" help:"What list calls it."`
}

func (c *selectedMail) check() error {
	filtered := c.chosenMail != chosenMail{}
	switch {
	case len(c.IDs) == 0 && !filtered && !c.All:
		return errors.New("which mail? Name its id as sluice queue list shows it, choose with --account, --from, --to, --why or --state, or say --all")
	case len(c.IDs) > 0 && (filtered || c.All), filtered && c.All:
		return errors.New("mail is named by its id, chosen by --account, --from, --to, --why and --state, or it is --all: one of these")
	}
	return nil
}

// do has an action done with the mail that was selected, by the running server or, where there is none, here.
func (c *selectedMail) do(p *program, action, why, done string) error {
	if err := c.check(); err != nil {
		return err
	}
	f, err := c.filter()
	if err != nil {
		return err
	}
	settings, err := p.settings()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	ids := c.IDs
	if len(ids) == 0 {
		err := withQueue(p.ctx, settings, func(r *queue.Reader) error {
			return eachQueued(p.ctx, r, f, func(m queue.Message) error {
				ids = append(ids, m.ID)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	a := queueAnswer{Version: queueVersion, Results: []queuedDone{}}
	for part := range slices.Chunk(ids, 1000) {
		x, err := p.orderQueue(settings, queueOrder{Version: queueVersion, Do: action, Why: why, To: f.Domain, IDs: part})
		if err != nil {
			return err
		}
		a.Results = append(a.Results, x.Results...)
	}
	failed := slices.ContainsFunc(a.Results, func(x queuedDone) bool { return x.Error != "" })
	if c.JSON {
		if err := printJSON(p, a); err != nil {
			return err
		}
		if failed {
			return errSilent
		}
		return nil
	}
	var errs []error
	for _, x := range a.Results {
		if x.Error != "" {
			errs = append(errs, errors.New(x.Error))
			continue
		}
		fmt.Fprintf(p.stdout, "%s %s\n", config.Printable(x.ID), done)
	}
	if len(ids) == 0 {
		fmt.Fprintln(p.stdout, "no such mail is in the queue")
	}
	return errors.Join(errs...)
}

// orderQueue has the running server carry out an order, or does so itself where none runs.
func (p *program) orderQueue(c *config.Config, o queueOrder) (a queueAnswer, err error) {
	order, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	conn, err := new(net.Dialer).DialContext(p.ctx, "unix", controlSocket(c.Data))
	if err != nil {
		return p.orderQueueHere(c, string(order), err)
	}
	defer conn.Close()
	defer context.AfterFunc(p.ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return a, fmt.Errorf("ask the running server: %w", err)
	}
	_, err = io.WriteString(conn, queueOrderName+" "+string(order)+"\n")
	if err == nil {
		err = json.NewDecoder(conn).Decode(&a)
	}
	switch {
	case p.ctx.Err() != nil:
		return a, errors.New("interrupted before the running server answered; it may still do what it was told")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fmt.Errorf("the running server has not answered for %s; it may hang", orderTime)
	case hungUp(err):
		return a, errors.New("the running server ended before it answered")
	case err != nil:
		return a, fmt.Errorf("hear the running server: %w", err)
	case a.Error != "":
		return a, errors.New(a.Error)
	case a.Version != queueVersion:
		return a, errors.New("the running server is of another version: restart it")
	}
	return a, nil
}

// orderQueueHere carries out an order as the owner of the data folder, which nobody else may be meanwhile.
func (p *program) orderQueueHere(c *config.Config, order string, why error) (a queueAnswer, err error) {
	if errors.Is(why, fs.ErrPermission) {
		return a, fmt.Errorf("the server of the data folder %s is another user's; become that user", c.Data)
	}
	if _, err := os.Stat(filepath.Join(queueFolder(c.Data), "queue.db")); errors.Is(err, fs.ErrNotExist) {
		return a, errors.New("nothing was ever queued")
	}
	owned, err := lock(c.Data, "queue")
	if err != nil {
		return a, fmt.Errorf("the running server cannot be asked: %w", why)
	}
	defer owned.Close() // gives the folder back
	accounts := usersConfig(c)
	accounts.Loose = true
	u, err := users.Open(p.ctx, accounts)
	if err != nil {
		return a, err
	}
	defer u.Close() // it was only asked
	q, err := openQueue(p.ctx, c, isOurs(u), slog.New(slog.DiscardHandler), p.now, nil)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if a = answerQueue(p.ctx, q, func() {}, order); a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

type queueRetry struct{ selectedMail }

func (c *queueRetry) Run(p *program) error { return c.do(p, "retry", "", "will be tried now") }

type queueHold struct {
	selectedMail
	Reason string `default:"held by an operator" help:"What to show others who look."`
}

func (c *queueHold) Run(p *program) error { return c.do(p, "hold", c.Reason, "held") }

type queueRelease struct{ selectedMail }

func (c *queueRelease) Run(p *program) error { return c.do(p, "release", "", "released") }

type queueDelete struct{ selectedMail }

func (c *queueDelete) Run(p *program) error { return c.do(p, "delete", "", "deleted") }
