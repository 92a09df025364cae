package imap

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// heard notes the events that are wanted.
type heard struct {
	mu     sync.Mutex
	wanted string
	all    []string
}

func (h *heard) Wants(_ string, cause Cause, folder, from string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.wanted, string(cause))
}

func (h *heard) Happened(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.UIDValidity == 0 {
		h.all = append(h.all, "no UIDVALIDITY")
	}
	h.all = append(h.all, strings.TrimSpace(fmt.Sprintf("%s %s %s>%s %v %s", e.Account, e.Cause, e.From, e.Folder, e.UIDs, strings.Join(e.Flags, " "))))
}

func (h *heard) want(t *testing.T, events ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.all, events) {
		t.Errorf("heard of\n%s\nwant\n%s", strings.Join(h.all, "\n"), strings.Join(events, "\n"))
	}
	h.all = nil
}

// RFC 6785, 2.2: what clients do with mail is told once it is done, and nothing else is.
func TestEvents(t *testing.T) {
	h := &heard{wanted: "append copy flag"}
	s := start(t, options{events: h})
	for range 3 {
		s.deliver("", letter("one"))
	}
	p := s.login()
	p.do("CREATE Junk")
	p.do("SELECT INBOX")
	p.do("COPY 1:2 Junk")
	h.want(t, "me@localhost copy INBOX>Junk [1 2]")
	p.do(`STORE 1:3 +FLAGS (\Flagged $x)`)
	h.want(t, `me@localhost flag >INBOX [1 2 3] $x \Flagged`)
	p.do(`STORE 1:3 +FLAGS.SILENT (\Flagged)`)
	h.want(t)
	p.do(`STORE 1 -FLAGS ($x)`)
	p.do(`STORE 1:3 FLAGS (\Flagged)`)
	h.want(t, `me@localhost flag >INBOX [1] $x`, `me@localhost flag >INBOX [2 3] $x`)
	p.do("FETCH 1 BODY[]")
	h.want(t, `me@localhost flag >INBOX [1] \Seen`)
	p.do("FETCH 1 BODY.PEEK[]")
	p.do("UID MOVE 2 Junk")
	h.want(t, "me@localhost copy INBOX>Junk [3]")
	p.do("APPEND Junk {5+}\r\na: b\n")
	h.want(t, "me@localhost append >Junk [4]")
	p.do("UID COPY 99 Junk")
	p.do("EXAMINE INBOX")
	p.do("FETCH 2 BODY[]")
	h.want(t)
	h.mu.Lock()
	h.wanted = ""
	h.mu.Unlock()
	p.do("COPY 1 Junk")
	p.do("APPEND Junk {5+}\r\na: b\n")
	h.want(t)
}

// do sends a command and waits for its OK.
func (p *peer) do(command string) {
	p.t.Helper()
	p.send("e " + command + "\r\n")
	for {
		switch line := p.line(); {
		case strings.HasPrefix(line, "e OK"):
			return
		case strings.HasPrefix(line, "e "):
			p.t.Errorf("%s: %s", command, line)
			return
		}
	}
}
