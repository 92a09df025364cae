package scripts

import (
	"sync"
	"time"
)

// mostKnown bounds how many files are remembered.
const mostKnown = 8192

// settled is how old the last change of a file must be before it is remembered: one that comes after it within a tick of
// the file system's clock, two seconds at most, would look the same.
const settled = 3 * time.Second

// A textOf is which text a file has, as long as the file is the same.
type textOf struct {
	file    identity
	version string
}

// known remembers which text files have, by path, so that one that has not changed need not be read.
type known struct {
	mu     sync.Mutex
	texts  map[string]textOf
	looked int // how often that sufficed; for tests
}

func (k *known) of(path string) textOf {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.texts[path]
}

// unchanged reports whether a file has the text of a version still.
func (k *known) unchanged(path, version string) bool {
	was := k.of(path)
	if was.version != version {
		return false
	}
	now, err := identify(path)
	if err != nil || now != was.file {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looked++
	return true
}

// keep remembers what was read of a file, which was the same before and after.
func (k *known) keep(path string, t textOf, now time.Time) {
	if now.Sub(t.file.changed()) < settled { // in the future, too
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.texts == nil || len(k.texts) >= mostKnown {
		k.texts = map[string]textOf{}
	}
	k.texts[path] = t
}
