package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
	"sluice/pipeline/mime"
	"sluice/protocols/imap"
	"sluice/rules/sieve"
)

// steps notes what is done to mail, and fails at one of them.
type steps struct {
	done []string
	fail int // the how manieth fails; 0: none does
}

var errStep = errors.New("the disk is full")

func (s *steps) step(format string, args ...any) error {
	s.done = append(s.done, fmt.Sprintf(format, args...))
	if len(s.done) == s.fail {
		return errStep
	}
	return nil
}

type stepAccount struct {
	mailstore.Account
	*steps
}

func (a stepAccount) Create(_ context.Context, name string) error { return a.step("create %s", name) }
func (a stepAccount) CreateFor(_ context.Context, name, use string) error {
	if err := a.step("create %s for %s", name, use); err != nil || use != `\Sent` {
		return err
	}
	return mailstore.ErrUse // a folder has it since
}
func (a stepAccount) Subscribe(_ context.Context, name string, _ bool) error {
	return a.step("subscribe %s", name)
}
func (a stepAccount) Open(_ context.Context, name string) (mailstore.Folder, error) {
	return stepFolder{steps: a.steps, name: name}, a.step("open %s", name)
}

type stepFolder struct {
	mailstore.Folder
	*steps
	name string
}

func (f stepFolder) Append(_ context.Context, r io.Reader, flags []string, _ time.Time) (uint32, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	return 1, f.step("append %s %d %v", f.name, len(text), flags)
}
func (f stepFolder) Remove(_ context.Context, uids []uint32) error { return f.step("remove %v", uids) }
func (f stepFolder) SetFlags(_ context.Context, uids []uint32, _ mailstore.FlagOp, flags []string) ([]mailstore.Message, error) {
	return nil, f.step("flags %v %v", uids, flags)
}

type stepOutbox struct{ *steps }

func (o stepOutbox) Stage(_ context.Context, list []mailstore.Outgoing) (mailstore.Staged, error) {
	for _, x := range list {
		if _, err := io.Copy(io.Discard, x.Content); err != nil {
			return nil, err
		}
	}
	return o, o.step("stage %d to %s, eight %v, utf8 %v", len(list), list[0].Recipients[0].Address, list[0].EightBit, list[0].UTF8)
}
func (o stepOutbox) IDs() []string                 { return nil }
func (o stepOutbox) Release(context.Context) error { return o.step("release") }
func (o stepOutbox) Withdraw() error               { return o.step("withdraw") }

// Whatever of a script's wishes fails, the mail that a client has filed is still where it was.
func TestScriptEventFails(t *testing.T) {
	const text = "From: a@example.net\r\nSubject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	m, err := mime.Parse(strings.NewReader(text), int64(len(text)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	script, problems := sieve.Compile("x.sieve", []byte(`require ["fileinto", "imap4flags", "special-use"];
fileinto :specialuse "\\Junk" "One"; fileinto :flags "$x" :specialuse "\\Sent" "Two"; redirect "you@example.org";`), sieve.Options{})
	if script == nil {
		t.Fatal(problems)
	}
	run := func(fail int) (*steps, bool, error) {
		s := &steps{fail: fail}
		r := &eventRun{
			scriptEvents: &scriptEvents{s: &service{
				program: &program{now: time.Now}, house: &house{outbox: stepOutbox{s}}, log: slog.New(slog.DiscardHandler),
			}},
			setup: &setup{config: config.Default(), scripting: &scripting{}}, account: stepAccount{steps: s}, folder: stepFolder{steps: s, name: "Junk"},
			event: imap.Event{Account: "me@localhost", Cause: imap.CauseCopy, Folder: "Junk"}, uid: 7, flags: []string{`\Seen`},
		}
		o := script.Run(t.Context(), sieve.Input{Message: m, Account: "me@localhost", Envelope: sieve.Envelope{Unknown: true}, Flags: r.flags})
		stays, err := r.carryOut(t.Context(), o, m, sieve.MailboxesOf(t.Context(), nil, ""))
		return s, stays, err
	}
	all, stays, err := run(0)
	want := []string{
		`create One for \Junk`, "subscribe One", "open One", fmt.Sprintf(`append One %d [\Seen]`, len(text)),
		`create Two for \Sent`, "create Two", "subscribe Two", "open Two", fmt.Sprintf("append Two %d [$x]", len(text)),
		"stage 1 to you@example.org, eight true, utf8 false", "release", "remove [7]",
	}
	if err != nil || stays || !slices.Equal(all.done, want) {
		t.Fatalf("%v %v\n%s", stays, err, strings.Join(all.done, "\n"))
	}
	for fail := 1; fail < len(want); fail++ {
		s, stays, err := run(fail)
		if !errors.Is(err, errStep) || !stays || len(s.done) != fail {
			t.Errorf("at %q: stays %v, %v, then %q", want[fail-1], stays, err, s.done[min(fail, len(s.done)):])
		}
	}
	if _, _, err := run(len(want)); !errors.Is(err, errStep) {
		t.Errorf("the mail cannot be removed: %v", err)
	}
}
