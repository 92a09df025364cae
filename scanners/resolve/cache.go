package resolve

import (
	"container/list"
	"time"
)

// A cache keeps answers until they expire, and of too many those asked for last. The zero cache keeps nothing.
type cache struct {
	most, size int           // octets
	stale      time.Duration // how long entries stay after their time
	entries    map[question]*list.Element
	recent     list.List // of *entry, the one asked for last in front
}

type entry struct {
	question question
	answer   answer
	expires  time.Time
	died     time.Time // when its time was over, where it has served since
}

// until is when an entry is of no use even to those who take old ones.
func (e *entry) until(stale time.Duration) time.Time {
	if e.died.IsZero() {
		return e.expires.Add(stale)
	}
	return e.died.Add(stale)
}

func (e *entry) size() int { return e.answer.size + len(e.question.name) + entryOverhead }

func (c *cache) get(q question, now time.Time) (answer, bool) {
	el, ok := c.entries[q]
	if !ok {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.expires) {
		if !now.Before(e.until(c.stale)) {
			c.remove(el)
		}
		return answer{}, false
	}
	c.recent.MoveToFront(el)
	return e.answer, true
}

// past returns an answer whose time is over, but not for long.
func (c *cache) past(q question, now time.Time) (answer, bool) {
	el, ok := c.entries[q]
	if !ok {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if e.answer.failure != nil || !now.Before(e.until(c.stale)) {
		return answer{}, false
	}
	return e.answer, true
}

// serve lets an answer whose time is over serve for its ttl, without making it younger.
func (c *cache) serve(q question, a answer, now time.Time) {
	if el, ok := c.entries[q]; ok {
		e := el.Value.(*entry)
		if e.died.IsZero() {
			e.died = e.expires
		}
		e.answer, e.expires = a, now.Add(a.ttl)
	}
}

func (c *cache) drop(q question) {
	if el, ok := c.entries[q]; ok {
		c.remove(el)
	}
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
