package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/mailstore/users"
)

// keptMail is what commands do with the mail of a data folder.
type keptMail interface {
	mailstore.Refiler
	// As in mailstore.Metadata.
	Describe(ctx context.Context, account string) ([]mailstore.FolderDescription, error)
	Annotations(ctx context.Context, account, folder string) (mailstore.Annotations, error)
	Annotate(ctx context.Context, account, folder string, set []mailstore.Annotation, remove []string) error
}

// withBox calls f with the mail of the data folder. One process owns that: a running serve is asked to do what f wants, at
// its control socket, so that its sessions see everything; without one this process, which runs
// a command, owns the folder meanwhile.
func (p *program) withBox(c *config.Config, command string, f func(box keptMail) error) (err error) {
	owned, err := lock(c.Data, command)
	if err != nil {
		conn, dialed := new(net.Dialer).DialContext(p.ctx, "unix", controlSocket(c.Data))
		if errors.Is(dialed, fs.ErrPermission) {
			return fmt.Errorf("the server of the data folder %s is another user's; become that user", c.Data)
		}
		if dialed != nil {
			return err // whoever owns it takes no orders
		}
		_ = conn.Close() // it is there
		return f(askingBox{controlSocket(c.Data)})
	}
	defer owned.Close() // gives the folder back
	accounts := usersConfig(c)
	accounts.Loose = true
	u, err := users.Open(p.ctx, accounts)
	if err != nil {
		return err
	}
	defer u.Close() // it was only asked
	store, err := openStore(c, u.Exists, nil, slog.New(slog.DiscardHandler), p.now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return f(store)
}

// boxOrderName begins an order about mail at the control socket; JSON follows.
const boxOrderName = "mail"

// boxVersion is the version of orders about mail, and of the answers.
const boxVersion = 1

// A boxOrder is what the running server shall do with somebody's mail.
type boxOrder struct {
	Version     int                  `json:"version"`
	Do          string               `json:"do"`
	Account     string               `json:"account"`
	Folder      string               `json:"folder,omitempty"`
	Unsubscribe bool                 `json:"unsubscribe,omitempty"`
	List        []mailstore.Refiling `json:"list,omitempty"`

	Set    []mailstore.Annotation `json:"set,omitempty"`
	Remove []string               `json:"remove,omitempty"`
}

// A boxAnswer is what came of it.
type boxAnswer struct {
	Version int                    `json:"version"`
	Tree    []mailstore.FolderInfo `json:"tree,omitempty"`
	Spots   []mailstore.Spot       `json:"spots,omitempty"`
	Kept    string                 `json:"kept,omitempty"`
	Results []mailstore.Refiled    `json:"results,omitempty"`

	Described   []mailstore.FolderDescription `json:"described,omitempty"`
	Annotations mailstore.Annotations         `json:"annotations,omitempty"`

	Error string `json:"error,omitempty"`
	Is    string `json:"is,omitempty"` // which error of the contract it is
}

// contractErrors are those that callers branch on, by name.
func contractErrors() map[string]error {
	return map[string]error{
		"no account": mailstore.ErrNoAccount, "no folder": mailstore.ErrNoFolder, "name": mailstore.ErrName,
		"annotation": mailstore.ErrAnnotation, "annotations": mailstore.ErrTooManyAnnotations, "annotation size": mailstore.ErrAnnotationSize,
		"full": mailstore.ErrFull, "no message": mailstore.ErrNoMessage, "no space": syscall.ENOSPC,
	}
}

// answerBox does what an order says.
func answerBox(ctx context.Context, box keptMail, text string) (a boxAnswer) {
	a.Version = boxVersion
	var o boxOrder
	err := json.Unmarshal([]byte(text), &o)
	switch {
	case err != nil:
		err = fmt.Errorf("the order is no JSON: %w", err)
	case o.Version != boxVersion:
		err = fmt.Errorf("the running server is of another version: restart it")
	case o.Do == "tree":
		a.Tree, err = box.Tree(ctx, o.Account)
	case o.Do == "survey":
		a.Spots, err = box.Survey(ctx, o.Account, o.Folder)
	case o.Do == "make":
		err = box.Make(ctx, o.Account, o.Folder)
	case o.Do == "unmake":
		a.Kept, err = box.Unmake(ctx, o.Account, o.Folder, o.Unsubscribe)
	case o.Do == "refile":
		a.Results, err = box.Refile(ctx, o.Account, o.List)
	case o.Do == "describe":
		a.Described, err = box.Describe(ctx, o.Account)
	case o.Do == "annotations":
		a.Annotations, err = box.Annotations(ctx, o.Account, o.Folder)
	case o.Do == "annotate":
		err = box.Annotate(ctx, o.Account, o.Folder, o.Set, o.Remove)
	default:
		err = fmt.Errorf("there is no order %q about mail", o.Do)
	}
	if err != nil {
		a.Error = err.Error()
		for name, is := range contractErrors() {
			if errors.Is(err, is) {
				a.Is = name
			}
		}
	}
	return a
}

// An askingBox has the running server do everything.
type askingBox struct{ socket string }

// askedError is what the running server says went wrong.
type askedError struct {
	text string
	is   error
}

func (e *askedError) Error() string { return e.text }
func (e *askedError) Unwrap() error { return e.is }

func (b askingBox) ask(ctx context.Context, o boxOrder) (a boxAnswer, err error) {
	o.Version = boxVersion
	text, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	text = append(append([]byte(boxOrderName+" "), text...), '\n')
	if len(text) > orderSize {
		return a, fmt.Errorf("an order to the running server has %d octets: at most %d are allowed", len(text), orderSize)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", b.socket)
	if err != nil {
		return a, fmt.Errorf("the running server has ended: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return a, fmt.Errorf("ask the running server: %w", err)
	}
	_, err = conn.Write(text)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&a)
	}
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fmt.Errorf("the running server has not answered for %s; it may hang", orderTime)
	case hungUp(err):
		return a, errors.New("the running server ended before it answered")
	case err != nil:
		return a, fmt.Errorf("hear the running server: %w", err)
	case a.Version != boxVersion:
		return a, errors.New("the running server is of another version: restart it")
	case a.Error != "":
		return a, &askedError{a.Error, contractErrors()[a.Is]}
	}
	return a, nil
}

// Tree implements mailstore.Refiler.
func (b askingBox) Tree(ctx context.Context, account string) ([]mailstore.FolderInfo, error) {
	a, err := b.ask(ctx, boxOrder{Do: "tree", Account: account})
	return a.Tree, err
}

// Survey implements mailstore.Refiler.
func (b askingBox) Survey(ctx context.Context, account, folder string) ([]mailstore.Spot, error) {
	a, err := b.ask(ctx, boxOrder{Do: "survey", Account: account, Folder: folder})
	return a.Spots, err
}

// Make implements mailstore.Refiler.
func (b askingBox) Make(ctx context.Context, account, folder string) error {
	_, err := b.ask(ctx, boxOrder{Do: "make", Account: account, Folder: folder})
	return err
}

// Unmake implements mailstore.Refiler.
func (b askingBox) Unmake(ctx context.Context, account, folder string, unsubscribe bool) (kept string, err error) {
	a, err := b.ask(ctx, boxOrder{Do: "unmake", Account: account, Folder: folder, Unsubscribe: unsubscribe})
	return a.Kept, err
}

// Refile implements mailstore.Refiler.
func (b askingBox) Refile(ctx context.Context, account string, list []mailstore.Refiling) ([]mailstore.Refiled, error) {
	a, err := b.ask(ctx, boxOrder{Do: "refile", Account: account, List: list})
	return a.Results, err
}

// Describe implements mailstore.Metadata.
func (b askingBox) Describe(ctx context.Context, account string) ([]mailstore.FolderDescription, error) {
	a, err := b.ask(ctx, boxOrder{Do: "describe", Account: account})
	return a.Described, err
}

// Annotations implements mailstore.Metadata.
func (b askingBox) Annotations(ctx context.Context, account, folder string) (mailstore.Annotations, error) {
	a, err := b.ask(ctx, boxOrder{Do: "annotations", Account: account, Folder: folder})
	return a.Annotations, err
}

// Annotate implements mailstore.Metadata.
func (b askingBox) Annotate(ctx context.Context, account, folder string, set []mailstore.Annotation, remove []string) error {
	_, err := b.ask(ctx, boxOrder{Do: "annotate", Account: account, Folder: folder, Set: set, Remove: remove})
	return err
}
