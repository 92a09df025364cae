package resolve

import (
	"container/list"
	"time"
)

// A cache keeps answers until they expire, and of too many those asked for last. The zero cache keeps nothing.
type cache struct {
	most, size int // octets
	entries    map[question]*list.Element
	recent     list.List // of *entry, the one asked for last in front
}

type entry struct {
	question question
	answer   answer
	expires  time.Time
}

func (e *entry) size() int { return e.answer.size + len(e.question.name) + entryOverhead }

func (c *cache) get(q question, now time.Time) (answer, bool) {
	el, ok := c.entries[q]
	if !ok {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.expires) {
		c.remove(el)
		return answer{}, false
	}
	c.recent.MoveToFront(el)
	return e.answer, true
}

func (c *cache) put(q question, a answer, now time.Time) {
	if el, ok := c.entries[q]; ok {
		c.remove(el)
	}
	e := &entry{question: q, answer: a, expires: now.Add(a.ttl)}
	if a.ttl <= 0 || e.size() > c.most {
		return
	}
	if c.entries == nil {
		c.entries = map[question]*list.Element{}
	}
	c.entries[q] = c.recent.PushFront(e)
	for c.size += e.size(); c.size > c.most; {
		c.remove(c.recent.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.question)
	c.size -= e.size()
}
