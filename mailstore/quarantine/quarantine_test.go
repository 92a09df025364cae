package quarantine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/files"
	"sluice/mailstore/state/database/databasetest"
)

var errDisk = errors.New("the disk is on fire")

// faultyDisk fails the n-th of its calls, from 1.
type faultyDisk struct {
	files.Disk
	mu    sync.Mutex
	calls int
	at    int
}

func (d *faultyDisk) call() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.calls == d.at {
		return errDisk
	}
	return nil
}

func (d *faultyDisk) failAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.at = 0, n
}

func (d *faultyDisk) Create(path string) (files.File, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	f, err := d.Disk.Create(path)
	return &faultyFile{f, d}, err
}

func (d *faultyDisk) Rename(from, to string) error {
	return cmpErr(d.call(), func() error { return d.Disk.Rename(from, to) })
}
func (d *faultyDisk) Remove(path string) error {
	return cmpErr(d.call(), func() error { return d.Disk.Remove(path) })
}
func (d *faultyDisk) SyncDir(path string) error {
	return cmpErr(d.call(), func() error { return d.Disk.SyncDir(path) })
}

type faultyFile struct {
	files.File
	d *faultyDisk
}

// Write that fails has written half.
func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.d.call(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}
func (f *faultyFile) Sync() error { return cmpErr(f.d.call(), f.File.Sync) }
func (f *faultyFile) Close() error {
	err := f.d.call()
	return errors.Join(err, f.File.Close())
}

func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

type fixture struct {
	*Quarantine
	now    time.Time
	disk   *faultyDisk
	faults databasetest.Faults
}

func openTest(t *testing.T, dir string) *fixture {
	t.Helper()
	f := &fixture{now: noon, disk: new(faultyDisk)}
	c := Config{Dir: dir, Now: func() time.Time { return f.now }, Log: slog.New(slog.DiscardHandler)}
	if dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "quarantine")
	}
	q, err := open(t.Context(), c, f.disk, f.faults.Wrap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	f.Quarantine = q
	return f
}

const mail = "Received: by us\r\nSubject: x\nFrom: a@b\r\n\r\nbody\rwith\nodd\r\nends\x00"

func sum(s string) string {
	b := sha256.Sum256([]byte(s))
	return hex.EncodeToString(b[:])
}

// held is the mail s for these recipients. Its SHA256 is not that of the content, which has our trace fields above.
func held(s string, to ...string) mailstore.Held {
	m := mailstore.Held{
		ID: "tx1", SHA256: sum(s), MessageID: "x@y", Subject: "a subject", Sender: "from@a.example", Received: noon.Add(-time.Minute),
		Content: strings.NewReader("X-Trace: us\r\n" + s),
	}
	for _, a := range to {
		m.Recipients = append(m.Recipients, mailstore.HeldRecipient{Address: a, Account: a, Folder: "INBOX", Reason: "rules/r: 550 5.7.1 no"})
	}
	return m
}

func mustHold(t *testing.T, f *fixture, m mailstore.Held) []string {
	t.Helper()
	ids, err := f.Hold(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// files lists what lies in the store, apart from the database.
func (f *fixture) files(t *testing.T) (names []string) {
	t.Helper()
	for _, dir := range []string{"tmp", "mail"} {
		entries, err := os.ReadDir(filepath.Join(f.c.Dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

func (f *fixture) wantFiles(t *testing.T, want ...string) {
	t.Helper()
	if got := f.files(t); !slices.Equal(got, want) {
		t.Errorf("files: %q, want %q", got, want)
	}
}

func (f *fixture) list(t *testing.T, filter Filter) string {
	t.Helper()
	rows, err := f.List(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range rows {
		all = append(all, r.Address)
	}
	return strings.Join(all, " ")
}

func TestHold(t *testing.T) {
	f := openTest(t, "")
	ids := mustHold(t, f, held(mail, "me@x", "you@x"))
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Fatalf("ids %q", ids)
	}
	for i, id := range ids {
		if len(id) != 8 || strings.Trim(id, "23456789bcdfghjkmnpqrstvwxz") != "" {
			t.Errorf("id %q is hard to type", id)
		}
		r, content, err := f.Open(t.Context(), " "+strings.ToUpper(id)+"\n")
		if err != nil {
			t.Fatal(err)
		}
		defer content.Close()
		b, err := io.ReadAll(content)
		if err != nil || string(b) != "X-Trace: us\r\n"+mail {
			t.Errorf("content %q, %v", b, err)
		}
		want := Row{
			ID: id, SHA256: sum(mail), Transaction: "tx1", MessageID: "x@y", Subject: "a subject", Sender: "from@a.example",
			Size: int64(len("X-Trace: us\r\n" + mail)), Received: noon.Add(-time.Minute), Held: noon,
			HeldRecipient: held(mail, "me@x", "you@x").Recipients[i],
		}
		if r != want {
			t.Errorf("got  %+v\nwant %+v", r, want)
		}
	}
	f.wantFiles(t, "mail/"+sum(mail))

	again := mustHold(t, f, held(mail, "you@x", "they@x", "me@x"))
	if again[0] != ids[1] || again[2] != ids[0] {
		t.Errorf("the same mail has new rows: %q, before %q", again, ids)
	}
	m := held(mail, "me@x", "you@x")
	m.Content = iotest.ErrReader(errDisk) // not needed a second time
	m.SHA256 = strings.ToUpper(m.SHA256)
	if third := mustHold(t, f, m); !slices.Equal(third, ids) {
		t.Errorf("got %q, want %q", third, ids)
	}
	if got := mustHold(t, f, held("other", "me@x", "me@x")); got[0] != got[1] || slices.Contains(ids, got[0]) {
		t.Errorf("one recipient twice: %q", got)
	}
	m = held("third", "me@x")
	m.SHA256 = ""
	if r, err := f.Show(t.Context(), mustHold(t, f, m)[0]); err != nil || r.SHA256 != sum("X-Trace: us\r\nthird") {
		t.Errorf("%+v, %v", r, err)
	}
	f.wantFiles(t, sorted("mail/"+sum(mail), "mail/"+sum("other"), "mail/"+sum("X-Trace: us\r\nthird"))...)
	info, err := os.Stat(f.content(sum(mail)))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}

func TestHoldRefuses(t *testing.T) {
	f := openTest(t, "")
	for _, tt := range []struct {
		change func(m *mailstore.Held)
		want   string
	}{
		{func(m *mailstore.Held) { m.Recipients = nil }, "hold: for no recipient"},
		{func(m *mailstore.Held) { m.Content = nil }, "hold: without content"},
		{func(m *mailstore.Held) { m.SHA256 = "../../etc/passwd" }, `hold: "../../etc/passwd" is no SHA-256`},
		{func(m *mailstore.Held) { m.SHA256 = "abcd" }, `hold: "abcd" is no SHA-256`},
		{func(m *mailstore.Held) { m.Content = iotest.ErrReader(errDisk) }, "hold: the disk is on fire"},
		{func(m *mailstore.Held) { m.SHA256, m.Content = "", iotest.ErrReader(errDisk) }, "hold: the disk is on fire"},
	} {
		m := held(mail, "me@x")
		tt.change(&m)
		if ids, err := f.Hold(t.Context(), m); err == nil || err.Error() != tt.want || ids != nil {
			t.Errorf("got %v, %v; want %s", ids, err, tt.want)
		}
	}
	f.wantFiles(t)
	odd := held(mail, "m\xffe\x00@x")
	odd.Subject, odd.Sender = "\xff\x00", "\x00"
	mustHold(t, f, odd)
	if got := f.list(t, Filter{}); got != "m\ufffde@x" {
		t.Errorf("listed %q", got)
	}
}

func TestNthWriteFails(t *testing.T) {
	for _, known := range []bool{false, true} { // whether the file is there for another recipient
		for _, what := range []string{"disk", "database"} {
			t.Run(fmt.Sprint(what, " known=", known), func(t *testing.T) {
				for n := 1; ; n++ {
					f := openTest(t, "")
					var files []string
					if known {
						mustHold(t, f, held(mail, "you@x"))
						files = f.files(t)
					}
					before := f.list(t, Filter{})
					var calls func() int
					if what == "disk" {
						f.disk.failAt(n)
						calls = func() int { return f.disk.calls }
					} else {
						f.faults.FailAt(n)
						calls = f.faults.Calls
					}
					ids, err := f.Hold(t.Context(), held(mail, "me@x", "you@x"))
					if calls() < n {
						if err != nil {
							t.Fatal(err)
						}
						t.Logf("%d calls", n-1)
						return
					}
					f.disk.failAt(0)
					f.faults.FailAt(0)
					if !errors.Is(err, errDisk) && !errors.Is(err, databasetest.ErrFault) || ids != nil {
						t.Errorf("call %d: %v, %v", n, ids, err)
					}
					if got := f.list(t, Filter{}); got != before {
						t.Errorf("call %d left rows: %q, before %q", n, got, before)
					}
					f.wantFiles(t, files...)
					ids = mustHold(t, f, held(mail, "me@x", "you@x"))
					for _, id := range ids {
						_, content, err := f.Open(t.Context(), id)
						if err != nil {
							t.Fatal(err)
						}
						if b, err := io.ReadAll(content); err != nil || string(b) != "X-Trace: us\r\n"+mail {
							t.Errorf("%q, %v", b, err)
						}
						content.Close()
					}
				}
			})
		}
	}
}

func TestHoldCancelled(t *testing.T) {
	f := openTest(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	m := held(mail, "me@x")
	m.Content = io.MultiReader(m.Content, readerFunc(func([]byte) (int, error) {
		cancel() // while the content is being written
		return 0, io.EOF
	}))
	if _, err := f.Hold(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.wantFiles(t)
	if got := f.list(t, Filter{}); got != "" {
		t.Errorf("rows of %q", got)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestList(t *testing.T) {
	f := openTest(t, "")
	for i, to := range []string{"a@x", "b@x", "c@x"} {
		f.now = noon.Add(time.Duration(i) * time.Hour)
		m := held(to, to)
		m.Sender = fmt.Sprintf("from%d@y", i%2)
		ids := mustHold(t, f, m)
		if to == "b@x" {
			if err := f.Release(t.Context(), ids[0], func(context.Context, Row, io.Reader) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "c@x a@x"},
		{Filter{Released: true}, "c@x b@x a@x"},
		{Filter{Address: "a@x"}, "a@x"},
		{Filter{Account: "c@x"}, "c@x"},
		{Filter{Sender: "from0@y"}, "c@x a@x"},
		{Filter{Sender: "from1@y"}, ""},
		{Filter{Sender: "from1@y", Released: true}, "b@x"},
		{Filter{Since: noon.Add(time.Minute), Released: true}, "c@x b@x"},
		{Filter{Limit: 1, Released: true}, "c@x"},
		{Filter{Limit: 2, Offset: 1, Released: true}, "b@x a@x"},
		{Filter{Address: "' OR 1=1 --"}, ""},
	} {
		if got := f.list(t, tt.f); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
}

func TestDelete(t *testing.T) {
	f := openTest(t, "")
	ids := mustHold(t, f, held(mail, "me@x", "you@x"))
	if err := f.Delete(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	f.wantFiles(t, "mail/"+sum(mail))
	want := `"` + ids[0] + `": nothing of this id is held; sluice quarantine list shows what is`
	for name, err := range map[string]error{
		"Delete":  f.Delete(t.Context(), ids[0]),
		"Show":    second(f.Show(t.Context(), ids[0])),
		"Open":    third(f.Open(t.Context(), ids[0])),
		"Release": f.Release(t.Context(), ids[0], nil),
	} {
		if err == nil || err.Error() != want || !errors.Is(err, ErrNotHeld) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	f.disk.failAt(1)
	if err, want := f.Delete(t.Context(), ids[1]), ids[1]+" is deleted, its file is not yet: the disk is on fire"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	f.wantFiles(t, "mail/"+sum(mail))
	mustHold(t, f, held(mail, "me@x")) // takes the file over
	f.wantFiles(t, "mail/"+sum(mail))
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

func TestExpire(t *testing.T) {
	f := openTest(t, "")
	mustHold(t, f, held("old", "me@x"))
	mustHold(t, f, held("both", "me@x"))
	f.now = noon.Add(24 * time.Hour)
	mustHold(t, f, held("both", "you@x"))
	for i := range batch + 1 {
		mustHold(t, f, held("many", fmt.Sprintf("u%d@x", i)))
	}
	for _, step := range []struct {
		after   time.Duration
		expired int
		files   []string
	}{
		{30 * 24 * time.Hour, 0, sorted("mail/"+sum("old"), "mail/"+sum("both"), "mail/"+sum("many"))},
		{30*24*time.Hour + time.Second, 2, sorted("mail/"+sum("both"), "mail/"+sum("many"))},
		{31*24*time.Hour + time.Second, batch + 2, nil},
	} {
		f.now = noon.Add(step.after)
		rows, err := f.Expire(t.Context())
		if err != nil || len(rows) != step.expired {
			t.Errorf("after %v: %d expired, %v; want %d", step.after, len(rows), err, step.expired)
		}
		for _, r := range rows {
			if r.ID == "" || r.Address == "" || r.Transaction != "tx1" {
				t.Errorf("%+v", r)
			}
		}
		f.wantFiles(t, step.files...)
	}
	f.c.Keep = -1
	mustHold(t, f, held("old", "me@x"))
	f.now = f.now.Add(1e6 * time.Hour)
	if rows, err := f.Expire(t.Context()); len(rows) != 0 || err != nil {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestExpireFails(t *testing.T) {
	f := openTest(t, "")
	mustHold(t, f, held(mail, "me@x", "you@x"))
	f.now = noon.Add(31 * 24 * time.Hour)
	for n := 1; ; n++ {
		f.faults.FailAt(n)
		rows, err := f.Expire(t.Context())
		done := f.faults.Calls() < n
		f.faults.FailAt(0)
		if err != nil && len(rows) == 0 {
			if got := f.list(t, Filter{}); got == "" {
				t.Fatalf("call %d: expired without a word: %v", n, err)
			}
			continue
		}
		if len(rows) != 2 {
			t.Errorf("call %d: %d rows, %v", n, len(rows), err)
		}
		if err == nil && done {
			return
		}
		mustHold(t, f, held(mail, "me@x", "you@x"))
		f.now = f.now.Add(31 * 24 * time.Hour)
	}
}

func TestRelease(t *testing.T) {
	f := openTest(t, "")
	other := openTest(t, f.c.Dir)
	ids := mustHold(t, f, held(mail, "me@x", "you@x"))
	id := ids[0]

	// A delivery that fails leaves it held.
	err := f.Release(t.Context(), id, func(context.Context, Row, io.Reader) error { return errDisk })
	if want := "release " + id + ": the disk is on fire"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := f.list(t, Filter{}); len(strings.Fields(got)) != 2 {
		t.Errorf("held: %s", got)
	}

	var delivered bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	err = f.Release(ctx, id, func(ctx context.Context, r Row, content io.Reader) error {
		if err := other.Release(ctx, id, nil); !errors.Is(err, ErrBusy) ||
			err.Error() != id+": being released by another program; if that has crashed, try again in 10m0s" {
			t.Errorf("a second release meanwhile: %v", err)
		}
		cancel() // what is delivered is marked all the same
		if r.Address != "me@x" || r.ID != id {
			t.Errorf("%+v", r)
		}
		_, err := io.Copy(&delivered, content)
		return err
	})
	if err != nil || delivered.String() != "X-Trace: us\r\n"+mail {
		t.Errorf("%v, %q", err, delivered.String())
	}
	if got := f.list(t, Filter{}); got != "you@x" {
		t.Errorf("held: %s", got)
	}
	err = f.Release(t.Context(), id, nil)
	if want := id + ": released already, on Wed, 04 Mar 2026 12:00:00 UTC"; err == nil || err.Error() != want || !errors.Is(err, ErrReleased) {
		t.Errorf("got %v, want %s", err, want)
	}

	// The same mail once more is held once more.
	f.now = noon.Add(time.Hour)
	if again := mustHold(t, f, held(mail, "me@x")); again[0] != id {
		t.Errorf("got %q, want %q", again, id)
	}
	if r, err := f.Show(t.Context(), id); err != nil || !r.Released.IsZero() || !r.Held.Equal(f.now) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReleaseInTheMidstOfWhichAProgramCrashed(t *testing.T) {
	f := openTest(t, "")
	id := mustHold(t, f, held(mail, "me@x"))[0]
	if _, err := f.claim(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]error{claimAge - time.Second: ErrBusy, claimAge: nil} {
		g := openTest(t, f.c.Dir)
		g.now = noon.Add(after)
		err := g.Release(t.Context(), id, func(_ context.Context, _ Row, content io.Reader) error {
			_, err := io.Copy(io.Discard, content)
			return cmpErr(err, func() error { return errDisk })
		})
		if want == nil {
			want = errDisk
		}
		if !errors.Is(err, want) {
			t.Errorf("after %v: %v, want %v", after, err, want)
		}
		if err == nil || errors.Is(err, errDisk) {
			if _, err := f.db.Exec(setReleasing, id, micro(noon)); err != nil { // as it was
				t.Fatal(err)
			}
		}
	}
}

func TestReleaseFails(t *testing.T) {
	for n := 1; ; n++ {
		f := openTest(t, "")
		id := mustHold(t, f, held(mail, "me@x"))[0]
		delivered := 0
		deliver := func(context.Context, Row, io.Reader) error { delivered++; return nil }
		f.faults.FailAt(n)
		err := f.Release(t.Context(), id, deliver)
		if f.faults.Calls() < n {
			if err != nil || delivered != 1 {
				t.Errorf("%v, delivered %d times", err, delivered)
			}
			return
		}
		f.faults.FailAt(0)
		if !errors.Is(err, databasetest.ErrFault) {
			t.Errorf("call %d: %v", n, err)
		}
		if want := id + " is delivered but still marked as held, do not release it again: the disk said no"; delivered == 1 && err.Error() != want {
			t.Errorf("call %d: got %v, want %s", n, err, want)
		}
		if got := f.list(t, Filter{}); got != "me@x" {
			t.Errorf("call %d: no longer held", n)
		}
	}
}

func TestContentGone(t *testing.T) {
	f := openTest(t, "")
	id := mustHold(t, f, held(mail, "me@x"))[0]
	if err := os.Remove(f.content(sum(mail))); err != nil {
		t.Fatal(err)
	}
	want := id + ": its content cannot be read: open " + f.content(sum(mail)) + ": no such file or directory"
	if err := third(f.Open(t.Context(), id)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := f.Release(t.Context(), id, nil); err == nil || err.Error() != "release "+want {
		t.Errorf("got %v, want release %s", err, want)
	}
	if again := mustHold(t, f, held(mail, "me@x")); again[0] != id {
		t.Errorf("got %q", again)
	}
	f.wantFiles(t, "mail/"+sum(mail))
}

func TestOpenRemovesWhatACrashHasLeft(t *testing.T) {
	f := openTest(t, "")
	mustHold(t, f, held(mail, "me@x"))
	for name, age := range map[string]time.Duration{
		"tmp/hold-old": 2 * time.Hour, "tmp/hold-new": time.Minute,
		"mail/" + sum("old"): 2 * time.Hour, "mail/" + sum("new"): time.Minute, "mail/" + sum(mail): 3 * time.Hour,
	} {
		path := filepath.Join(f.c.Dir, name)
		if name != "mail/"+sum(mail) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, noon.Add(-age), noon.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	again := openTest(t, f.c.Dir)
	again.wantFiles(t, append([]string{"tmp/hold-new"}, sorted("mail/"+sum("new"), "mail/"+sum(mail))...)...)
}

func TestManyAtOnce(t *testing.T) {
	f := openTest(t, "")
	handles := []*fixture{f, openTest(t, f.c.Dir)} // as two processes
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			q := handles[i%2]
			for j := range 6 {
				m := held(fmt.Sprint("mail", j%2), fmt.Sprintf("u%d@x", j%3))
				ids, err := q.Hold(t.Context(), m)
				if err != nil {
					t.Error(err)
					return
				}
				// Others delete it, too; whoever sees the row sees the content.
				if i%4 == 0 {
					if err := q.Delete(t.Context(), ids[0]); err != nil && !errors.Is(err, ErrNotHeld) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	rows, err := f.List(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range rows {
		_, content, err := f.Open(t.Context(), r.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		content.Close()
		if name := "mail/" + r.SHA256; !slices.Contains(want, name) {
			want = append(want, name)
		}
	}
	f.wantFiles(t, sorted(want...)...)
}

func TestMissingParent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing", "quarantine")
	_, err := Open(t.Context(), Config{Dir: dir})
	if want := "quarantine: mkdir " + dir + ": no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
