package sieve

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"sync"

	"sluice/pipeline"
)

// A cache keeps the scripts of accounts compiled, those used last.
type cache struct {
	most int

	mu        sync.Mutex
	order     *list.List // of *compiled, the one used last at the front
	byAccount map[string]*list.Element
}

// A compiled is one account's script as it was read.
type compiled struct {
	account, name, version string

	script   *Script
	failed   *Failure
	includes map[string][]byte // personal scripts that it includes, and nil for one that was not there
}

func newCache(most int) *cache {
	return &cache{most: max(most, 1), order: list.New(), byAccount: map[string]*list.Element{}}
}

// find returns the script that an account had when it was last asked for; the zero compiled if it had none.
func (c *cache) find(account string) *compiled {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byAccount[account]
	if e == nil {
		return &compiled{}
	}
	c.order.MoveToFront(e)
	x, _ := e.Value.(*compiled) // nothing else is in the list
	return x
}

func (c *cache) keep(x *compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byAccount[x.account]; e != nil {
		c.order.Remove(e)
	}
	c.byAccount[x.account] = c.order.PushFront(x)
	for c.order.Len() > c.most {
		e := c.order.Back()
		old, _ := c.order.Remove(e).(*compiled)
		delete(c.byAccount, old.account)
	}
}

// compiled returns an account's own script, or why it cannot be run; without a name where it has none. An error is temporary.
// Where it may take no time, only what is compiled already is to be had.
func (s *stage) compiled(ctx context.Context, account string, prompt bool) (*compiled, error) {
	had := s.cache.find(account)
	own, err := s.script(ctx, account, had.version)
	if err != nil || own.Name == "" {
		return &compiled{}, err
	}
	if own.Name == had.name && own.Version == had.version {
		same, err := s.unchanged(ctx, account, had)
		if err != nil || same {
			return had, err
		}
	}
	if prompt {
		return nil, errWaits
	}
	if own.Version == had.version { // without the text
		if own, err = s.script(ctx, account, ""); err != nil || own.Name == "" {
			return &compiled{}, err
		}
	}
	x := &compiled{account: account, name: own.Name, version: own.Version, includes: map[string][]byte{}}
	var unread error
	script, problems := Compile(shown(own.Name), own.Text, s.options(func(name string) ([]byte, error) {
		text, ok, err := s.env.Owners.Include(ctx, account, name)
		switch {
		case err != nil:
			unread = err
			return nil, err
		case !ok:
			x.includes[name] = nil
			return nil, errNoScript
		}
		x.includes[name] = text
		return text, nil
	}))
	if unread != nil {
		return nil, fmt.Errorf("read what the script of %s includes: %w", account, unread)
	}
	if x.script = script; script == nil {
		x.failed = refusal(shown(own.Name), problems)
	}
	s.cache.keep(x)
	return x, nil
}

// script looks up an account's own script. Of the version have its text is left out.
func (s *stage) script(ctx context.Context, account, have string) (pipeline.OwnScript, error) {
	own, err := s.env.Owners.Script(ctx, account, have)
	if err != nil {
		return own, fmt.Errorf("read the script of %s: %w", account, err)
	}
	return own, nil
}

// unchanged reports whether what a script includes is as it was.
func (s *stage) unchanged(ctx context.Context, account string, x *compiled) (bool, error) {
	for name, was := range x.includes {
		text, ok, err := s.env.Owners.Include(ctx, account, name)
		if err != nil {
			return false, fmt.Errorf("read what the script of %s includes: %w", account, err)
		}
		if ok != (was != nil) || !bytes.Equal(text, was) {
			return false, nil
		}
	}
	return true, nil
}

// refusal is the first thing that is wrong with a script.
func refusal(script string, problems []Problem) *Failure {
	for _, p := range problems {
		if !p.Warning {
			text := p.Text
			if p.Remedy != "" {
				text += "; " + p.Remedy
			}
			return &Failure{Script: p.Script, Line: p.Line, Text: text}
		}
	}
	return &Failure{Script: script, Text: "the script cannot be read"}
}
