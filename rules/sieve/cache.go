package sieve

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"sync"

	"sluice/pipeline"
)

// A cache keeps scripts of accounts compiled, those used last.
type cache struct {
	most int

	mu     sync.Mutex
	order  *list.List // of *compiled, the one used last at the front
	byName map[cacheKey]*list.Element
}

type cacheKey struct{ account, name string }

// A compiled is one script as it was read.
type compiled struct {
	key      cacheKey
	version  string
	script   *Script
	failed   *Failure
	includes map[string][]byte // personal scripts that it includes, and nil for one that was not there
}

func newCache(most int) *cache {
	return &cache{most: max(most, 1), order: list.New(), byName: map[cacheKey]*list.Element{}}
}

func (c *cache) find(k cacheKey, version string) *compiled {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byName[k]
	if e == nil {
		return nil
	}
	x, _ := e.Value.(*compiled) // nothing else is in the list
	if x.version != version {
		return nil
	}
	c.order.MoveToFront(e)
	return x
}

func (c *cache) keep(x *compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byName[x.key]; e != nil {
		c.order.Remove(e)
	}
	c.byName[x.key] = c.order.PushFront(x)
	for c.order.Len() > c.most {
		e := c.order.Back()
		old, _ := c.order.Remove(e).(*compiled)
		delete(c.byName, old.key)
	}
}

// compiled returns an account's own script, or why it cannot be run. An error is temporary. Where it may take no time, only what
// is compiled already is to be had.
func (s *stage) compiled(ctx context.Context, account string, own pipeline.OwnScript, prompt bool) (*Script, *Failure, error) {
	k := cacheKey{account, own.Name}
	if x := s.cache.find(k, own.Version); x != nil {
		same, err := s.unchanged(ctx, account, x)
		if err != nil {
			return nil, nil, err
		}
		if same {
			return x.script, x.failed, nil
		}
	}
	if prompt {
		return nil, nil, errWaits
	}
	x := &compiled{key: k, version: own.Version, includes: map[string][]byte{}}
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
		return nil, nil, fmt.Errorf("read what the script of %s includes: %w", account, unread)
	}
	if x.script = script; script == nil {
		x.failed = refusal(shown(own.Name), problems)
	}
	s.cache.keep(x)
	return x.script, x.failed, nil
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
