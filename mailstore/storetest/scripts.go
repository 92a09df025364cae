package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/mailstore"
)

// What the Scripts under test allow an account.
const (
	ScriptCount = 5
	ScriptSize  = 1000
	ScriptTotal = 2500
)

// Scripts runs the suite that every mailstore.Scripts passes. open returns one with the accounts above and the limits
// above, new and empty each time.
func Scripts(t *testing.T, open func(t testing.TB) mailstore.Scripts) {
	for _, test := range []struct {
		name string
		run  func(s *S)
	}{
		{"put and read", scriptsPut},
		{"activate", scriptsActivate},
		{"version", scriptsVersion},
		{"delete", scriptsDelete},
		{"rename", scriptsRename},
		{"names", scriptsNames},
		{"names that are refused", scriptsRefused},
		{"room", scriptsRoom},
		{"accounts", scriptsAccounts},
		{"many at once", scriptsAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&S{T: t, scripts: open(t), ctx: t.Context()})
		})
	}
}

// S is a test with scripts and shorthands that fail it.
type S struct {
	*testing.T
	scripts mailstore.Scripts
	ctx     context.Context
}

func (s *S) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *S) is(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("the error is %v, want %v", err, want)
	}
}

func (s *S) put(name, text string) {
	s.Helper()
	s.must(s.scripts.Put(s.ctx, Anna, name, []byte(text)))
}

// has compares all scripts of an account: "name=text", with "*" before the active one, by name.
func (s *S) has(account string, want ...string) {
	s.Helper()
	list, err := s.scripts.List(s.ctx, account)
	s.must(err)
	var got []string
	for _, x := range list {
		text, err := s.scripts.Script(s.ctx, account, x.Name)
		s.must(err)
		if x.Size != int64(len(text)) || x.Changed.IsZero() {
			s.Errorf("%q: size %d, changed %v; it has %d octets", x.Name, x.Size, x.Changed, len(text))
		}
		line := x.Name + "=" + string(text)
		if x.Active {
			line = "*" + line
		}
		got = append(got, line)
	}
	if !slices.Equal(got, want) {
		s.Errorf("there is %q, want %q", got, want)
	}
}

func scriptsPut(s *S) {
	s.has(Anna)
	s.put("work", "one\r\n")
	s.put("empty", "")
	s.put("work", "two")
	s.put("any octets", "\x00\xff\r\n\n\r")
	s.has(Anna, "any octets=\x00\xff\r\n\n\r", "empty=", "work=two")
	s.has(Ben)
	_, err := s.scripts.Script(s.ctx, Anna, "play")
	s.is(err, mailstore.ErrNoScript)
	_, err = s.scripts.Script(s.ctx, Ben, "work")
	s.is(err, mailstore.ErrNoScript)
}

func scriptsActivate(s *S) {
	_, _, _, err := s.scripts.Active(s.ctx, Anna, "")
	s.is(err, mailstore.ErrNoScript)
	s.is(s.scripts.Activate(s.ctx, Anna, "work"), mailstore.ErrNoScript)
	s.must(s.scripts.Activate(s.ctx, Anna, "")) // none is active already
	s.put("work", "one")
	s.put("play", "two")
	_, _, _, err = s.scripts.Active(s.ctx, Anna, "")
	s.is(err, mailstore.ErrNoScript)
	s.must(s.scripts.Activate(s.ctx, Anna, "work"))
	s.has(Anna, "play=two", "*work=one")
	s.is(s.scripts.Activate(s.ctx, Anna, "none"), mailstore.ErrNoScript)
	s.has(Anna, "play=two", "*work=one")
	s.must(s.scripts.Activate(s.ctx, Anna, "play"))
	s.must(s.scripts.Activate(s.ctx, Anna, "play"))
	s.put("play", "three")
	s.has(Anna, "*play=three", "work=one")
	name, text, _, err := s.scripts.Active(s.ctx, Anna, "")
	s.must(err)
	if name != "play" || string(text) != "three" {
		s.Errorf("%q with %q is active", name, text)
	}
	_, _, _, err = s.scripts.Active(s.ctx, Ben, "")
	s.is(err, mailstore.ErrNoScript)
	s.must(s.scripts.Activate(s.ctx, Anna, ""))
	s.has(Anna, "play=three", "work=one")
}

func scriptsVersion(s *S) {
	version := func() string {
		s.Helper()
		_, _, v, err := s.scripts.Active(s.ctx, Anna, "")
		s.must(err)
		if v == "" {
			s.Error("there is no version")
		}
		return v
	}
	s.put("work", "one")
	s.must(s.scripts.Activate(s.ctx, Anna, "work"))
	first := version()
	if again := version(); again != first {
		s.Errorf("the version of one text is %q, then %q", first, again)
	}
	s.put("work", "two") // of the same length, in the same moment
	if version() == first {
		s.Error("two texts have one version")
	}
}

func scriptsDelete(s *S) {
	s.is(s.scripts.Delete(s.ctx, Anna, "work"), mailstore.ErrNoScript)
	s.put("work", "one")
	s.put("play", "two")
	s.must(s.scripts.Activate(s.ctx, Anna, "work"))
	s.is(s.scripts.Delete(s.ctx, Anna, "work"), mailstore.ErrActive)
	s.must(s.scripts.Delete(s.ctx, Anna, "play"))
	s.is(s.scripts.Delete(s.ctx, Anna, "play"), mailstore.ErrNoScript)
	s.has(Anna, "*work=one")
	s.must(s.scripts.Activate(s.ctx, Anna, ""))
	s.must(s.scripts.Delete(s.ctx, Anna, "work"))
	s.has(Anna)
}

func scriptsRename(s *S) {
	s.is(s.scripts.Rename(s.ctx, Anna, "work", "play"), mailstore.ErrNoScript)
	s.put("work", "one")
	s.put("play", "two")
	s.is(s.scripts.Rename(s.ctx, Anna, "work", "play"), mailstore.ErrExists)
	s.is(s.scripts.Rename(s.ctx, Anna, "work", "work"), mailstore.ErrExists)
	s.is(s.scripts.Rename(s.ctx, Anna, "work", ""), mailstore.ErrScriptName)
	s.must(s.scripts.Activate(s.ctx, Anna, "work"))
	s.must(s.scripts.Rename(s.ctx, Anna, "work", "office"))
	s.must(s.scripts.Rename(s.ctx, Anna, "play", "work"))
	s.has(Anna, "*office=one", "work=two")
}

// scriptsNames: RFC 5804, 1.6.
func scriptsNames(s *S) {
	names := []string{
		"a", "A", " ", "büro", "日本語", "...", ".", "..", "../../x", "/etc/passwd", "a/b", "work.sieve", ".hidden", "=", "=a", "a:b",
		`back\slash "quote"`, "-rf *", "%2e", "con", "~", strings.Repeat("x", 512), strings.Repeat("𝄞", 128), strings.Repeat("x", 250),
		strings.Repeat("x", 249), "a\u0300b",
	}
	for _, name := range names {
		s.put(name, "text")
		s.must(s.scripts.Activate(s.ctx, Anna, name))
		list, err := s.scripts.List(s.ctx, Anna)
		s.must(err)
		active, text, _, err := s.scripts.Active(s.ctx, Anna, "")
		s.must(err)
		want := strings.ReplaceAll(name, "a\u0300", "à") // NFC
		if len(list) != 1 || list[0].Name != want || !list[0].Active || active != want || string(text) != "text" {
			s.Errorf("%.40q: %+v, active %.40q", name, list, active)
		}
		other := "other " + name[:min(len(name), 3)]
		if !strings.ContainsRune(other, '\ufffd') && name != "日本語" && name[0] < 0x80 {
			s.must(s.scripts.Rename(s.ctx, Anna, name, "x"+other))
			s.must(s.scripts.Rename(s.ctx, Anna, "x"+other, name))
		}
		s.must(s.scripts.Activate(s.ctx, Anna, ""))
		s.must(s.scripts.Delete(s.ctx, Anna, name))
		s.has(Anna)
	}
}

func scriptsRefused(s *S) {
	for _, name := range []string{
		"", "a\x00b", "a\nb", "\x7f", "\u0085", "\u009f", "a\u2028b", "\u2029", "\xff", "a\xc3", strings.Repeat("x", 513),
		strings.Repeat("\u0958", 171), // 513 octets, and more in NFC
	} {
		s.is(s.scripts.Put(s.ctx, Anna, name, nil), mailstore.ErrScriptName)
		_, err := s.scripts.Script(s.ctx, Anna, name)
		s.is(err, mailstore.ErrScriptName)
		s.is(s.scripts.Room(s.ctx, Anna, name, 1), mailstore.ErrScriptName)
		s.is(s.scripts.Delete(s.ctx, Anna, name), mailstore.ErrScriptName)
		s.is(s.scripts.Rename(s.ctx, Anna, name, "x"), mailstore.ErrScriptName)
		if name != "" {
			s.is(s.scripts.Activate(s.ctx, Anna, name), mailstore.ErrScriptName)
		}
	}
	s.has(Anna)
}

func scriptsRoom(s *S) {
	full := strings.Repeat("x", ScriptSize)
	s.must(s.scripts.Room(s.ctx, Anna, "a", ScriptSize))
	s.is(s.scripts.Room(s.ctx, Anna, "a", ScriptSize+1), mailstore.ErrScriptSize)
	s.is(s.scripts.Put(s.ctx, Anna, "a", []byte(full+"x")), mailstore.ErrScriptSize)
	s.put("a", full)
	s.put("b", full)
	left := int64(ScriptTotal - 2*ScriptSize)
	s.must(s.scripts.Room(s.ctx, Anna, "c", left))
	s.is(s.scripts.Room(s.ctx, Anna, "c", left+1), mailstore.ErrQuota)
	s.is(s.scripts.Put(s.ctx, Anna, "c", []byte(full[:left+1])), mailstore.ErrQuota)
	s.must(s.scripts.Room(s.ctx, Anna, "a", ScriptSize)) // in its own place
	s.put("a", full)
	s.put("a", "small")
	for i := range ScriptCount - 2 {
		s.put(fmt.Sprint(i), "x")
	}
	s.is(s.scripts.Room(s.ctx, Anna, "more", 1), mailstore.ErrTooManyScripts)
	s.is(s.scripts.Put(s.ctx, Anna, "more", nil), mailstore.ErrTooManyScripts)
	s.must(s.scripts.Room(s.ctx, Ben, "more", 1))
	s.put("a", "larger")
	s.must(s.scripts.Delete(s.ctx, Anna, "b"))
	s.put("more", "x")
}

func scriptsAccounts(s *S) {
	for _, account := range []string{Nobody, "nobody@nowhere"} {
		_, err := s.scripts.List(s.ctx, account)
		s.is(err, mailstore.ErrNoAccount)
		_, err = s.scripts.Script(s.ctx, account, "x")
		s.is(err, mailstore.ErrNoAccount)
		_, _, _, err = s.scripts.Active(s.ctx, account, "")
		s.is(err, mailstore.ErrNoAccount)
		s.is(s.scripts.Put(s.ctx, account, "x", nil), mailstore.ErrNoAccount)
		s.is(s.scripts.Room(s.ctx, account, "x", 1), mailstore.ErrNoAccount)
		s.is(s.scripts.Activate(s.ctx, account, ""), mailstore.ErrNoAccount)
		s.is(s.scripts.Delete(s.ctx, account, "x"), mailstore.ErrNoAccount)
		s.is(s.scripts.Rename(s.ctx, account, "x", "y"), mailstore.ErrNoAccount)
	}
	for _, account := range []string{"", "anna", "../../anna@example.org", "anna@..", "a/b@example.org", "anna@a/b"} {
		if err := s.scripts.Put(s.ctx, account, "x", nil); err == nil {
			s.Errorf("%q has a script", account)
		}
	}
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	s.is(s.scripts.Put(ended, Anna, "x", nil), context.Canceled)
}

// scriptsAtOnce: whoever looks sees whole scripts, one of them active, and the limits hold.
func scriptsAtOnce(s *S) {
	texts := []string{strings.Repeat("a", 400), strings.Repeat("b", 300)}
	s.put("work", texts[0])
	s.put("play", texts[1])
	s.must(s.scripts.Activate(s.ctx, Anna, "work"))
	var all, looking sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				name, text, _, err := s.scripts.Active(s.ctx, Anna, "")
				if err != nil || !slices.Contains(texts, string(text)) {
					s.Errorf("%q is active with %.10q… (%d): %v", name, text, len(text), err)
					return
				}
				if _, err := s.scripts.List(s.ctx, Anna); err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	for i := range 4 {
		all.Go(func() {
			for j := range 5 {
				err := s.scripts.Put(s.ctx, Anna, "work", []byte(texts[(i+j)%2]))
				err = errors.Join(err, s.scripts.Activate(s.ctx, Anna, []string{"work", "play"}[(i+j)%2]))
				if err != nil {
					s.Error(err)
				}
				err = s.scripts.Put(s.ctx, Anna, fmt.Sprint(i, j), []byte("x"))
				if err != nil && !errors.Is(err, mailstore.ErrTooManyScripts) {
					s.Error(err)
				}
			}
		})
	}
	all.Wait()
	close(done)
	looking.Wait()
	list, err := s.scripts.List(s.ctx, Anna)
	s.must(err)
	if len(list) != ScriptCount {
		s.Errorf("there are %d scripts, want %d", len(list), ScriptCount)
	}
}
