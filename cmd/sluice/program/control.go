package program

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/protocols/listen"
)

// controlSocket is where the running server takes orders: a line a connection, answered with a line of JSON. Only its
// own user can open it.
func controlSocket(data string) string { return filepath.Join(data, "run", "control.sock") }

// runFolder makes the folder for our own sockets. Its mode stays what it is if it is there.
func runFolder(data string) error {
	if err := os.MkdirAll(filepath.Join(data, "run"), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Join(data, "run"), cause(err))
	}
	return nil
}

// answerOrders takes orders at the control socket until ctx ends.
func (s *service) answerOrders(ctx context.Context, l *listen.Listener, asked chan<- chan<- reloaded) {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("the control socket has failed", "err", err)
			}
			return
		}
		clients.Go(func() { // ends with the answer, with ctx, or after the read timeout
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			s.control(ctx, c, asked)
		})
	}
}

// openControl opens the control socket. Without it the server does its work, and signals reach it.
func (s *service) openControl() (*listen.Listener, error) {
	if err := runFolder(s.started.Data); err != nil {
		return nil, err
	}
	// What is there was left over: the data folder is ours.
	path := controlSocket(s.started.Data)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %w", path, cause(err))
	}
	return listen.Open(s.ctx, listen.Config{Address: "unix:" + path, Mode: 0o600}, listen.Options{
		Limits: listen.Limits{Connections: 16, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}, Log: s.log,
	})
}

// orderSize bounds what an order may take: the largest names a batch of mails.
const orderSize = 4 << 20

// control answers one order.
func (s *service) control(ctx context.Context, c net.Conn, asked chan<- chan<- reloaded) {
	order, err := bufio.NewReader(io.LimitReader(c, orderSize)).ReadString('\n')
	if err != nil {
		return // whoever it was has gone
	}
	if order, ok := strings.CutPrefix(order, boxOrderName+" "); ok {
		if err := json.NewEncoder(c).Encode(answerBox(s.ctx, s.house.store, order)); err != nil {
			s.log.Debug("nobody waits for the answer to an order", "err", err)
		}
		return
	}
	if order, ok := strings.CutPrefix(order, queueOrderName+" "); ok {
		if err := json.NewEncoder(c).Encode(answerQueue(s.ctx, s.house.queue, s.leaving.anew, order)); err != nil {
			s.log.Debug("nobody waits for the answer to an order", "err", err)
		}
		return
	}
	if order, ok := strings.CutPrefix(order, dmarcOrderName+" "); ok {
		if err := json.NewEncoder(c).Encode(s.reporter.answer(ctx, order)); err != nil {
			s.log.Debug("nobody waits for the answer to an order", "err", err)
		}
		return
	}
	result := reloaded{Version: reloadVersion, Errors: config.Problems{{File: "sluice", Text: "there is no order " + strconv.Quote(order)}}}
	if order == "reload\n" {
		answer := make(chan reloaded, 1) // nobody waits for one that nobody takes
		select {
		case asked <- answer:
		case <-ctx.Done():
			return
		}
		select {
		case result = <-answer:
		case <-ctx.Done():
			return
		}
	}
	if err := json.NewEncoder(c).Encode(result); err != nil {
		s.log.Debug("nobody waits for the answer to an order", "err", err)
	}
}

type reloadCommand struct {
	JSON bool `help:"Print JSON."`
}

func (c *reloadCommand) Run(p *program) error {
	data, err := p.dataOf()
	if err != nil {
		return err
	}
	result, err := p.order(data, "reload")
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(result); err != nil {
			return err
		}
	} else {
		for _, x := range result.Errors {
			fmt.Fprintln(p.stderr, x)
		}
		for _, w := range result.Warnings {
			fmt.Fprintf(p.stderr, "warning: %s\n", w)
		}
	}
	switch {
	case !result.OK && c.JSON:
		return errSilent
	case !result.OK:
		return errors.New("the configuration is broken; the running server goes on with the one from before")
	case !c.JSON:
		fmt.Fprintf(p.stdout, "reloaded: plan %s\n", result.Plan)
	}
	return nil
}

// dataOf returns the data folder, also where something else is wrong with the configuration: the server says what.
func (p *program) dataOf() (string, error) {
	if p.dataFolder != "" {
		return filepath.Abs(p.dataFolder)
	}
	c, wrong, err := p.read()
	switch {
	case err != nil:
		return "", err
	case c == nil: // then nobody knows where it is
		return "", wrong
	}
	return c.Data, nil
}

// orderTime is how long the running server may take: it reads the configuration, and runs the tests in it.
const orderTime = 2 * time.Minute

// order has the server of a data folder do something, and returns what became of it.
func (p *program) order(data, order string) (result reloaded, err error) {
	err = p.ask(data, order, &result)
	return result, err
}

// ask has the server of a data folder do something, and decodes its answer.
func (p *program) ask(data, order string, result any) error {
	conn, err := new(net.Dialer).DialContext(p.ctx, "unix", controlSocket(data))
	if err != nil {
		return p.signal(data, err)
	}
	defer conn.Close()
	defer context.AfterFunc(p.ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return fmt.Errorf("ask the running server: %w", err)
	}
	_, err = io.WriteString(conn, order+"\n")
	if err == nil {
		err = json.NewDecoder(conn).Decode(result)
	}
	switch {
	case p.ctx.Err() != nil:
		return errors.New("interrupted before the running server answered; it may still do what it was told")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the running server has not answered for %s; it may hang", orderTime)
	case hungUp(err):
		return errors.New("the running server ended before it answered")
	case err != nil:
		return fmt.Errorf("hear the running server: %w", err)
	}
	return nil
}

// hungUp says whether err means that the server at the other end of a connection is no more, whichever step noticed it.
func hungUp(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE},
		func(gone error) bool { return errors.Is(err, gone) })
}

// signal says why a server cannot be asked. One that is there is sent a signal.
func (p *program) signal(data string, why error) error {
	nobody := fmt.Errorf("no sluice serve uses the data folder %s", data)
	if errors.Is(why, fs.ErrPermission) {
		return fmt.Errorf("the server of the data folder %s is another user's; become that user", data)
	}
	f, err := os.Open(filepath.Join(data, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nobody
	}
	if err != nil {
		return fmt.Errorf("find the server of the data folder %s: %w", data, cause(err))
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return nobody
	}
	owner := ownerOf(f)
	switch {
	case owner.pid == 0:
		return fmt.Errorf("the server of the data folder %s cannot be asked: %w", data, why)
	case owner.command != serving: // the signal would end it
		return fmt.Errorf("no sluice serve uses the data folder %s, but sluice %s (pid %d) does", data, owner.command, owner.pid)
	}
	if err := syscall.Kill(owner.pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("send SIGHUP to the server (pid %d): %w", owner.pid, err)
	}
	return fmt.Errorf("the server (pid %d) cannot be asked and was sent SIGHUP; its log says what became of it", owner.pid)
}
