package queue

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/mailstore"
	"sluice/mailstore/files"
	"sluice/mailstore/state/database"
	"sluice/mailstore/state/database/databasetest"
)

// A faultyDisk fails its n-th call.
type faultyDisk struct {
	mu    sync.Mutex
	calls int
	at    int
	err   error
}

func (d *faultyDisk) failAt(n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.at, d.err = 0, n, err
}

func (d *faultyDisk) call() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls++; d.calls == d.at {
		return d.err
	}
	return nil
}

func (d *faultyDisk) Create(path string) (files.File, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	f, err := files.Disk{}.Create(path)
	return faultyFile{f, d}, err
}

func (d *faultyDisk) Remove(path string) error {
	if err := d.call(); err != nil {
		return err
	}
	return files.Disk{}.Remove(path)
}

func (d *faultyDisk) SyncDir(path string) error {
	if err := d.call(); err != nil {
		return err
	}
	return files.Disk{}.SyncDir(path)
}

type faultyFile struct {
	files.File
	d *faultyDisk
}

func (f faultyFile) Write(p []byte) (int, error) {
	if err := f.d.call(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // what there was room for
		return n, err
	}
	return f.File.Write(p)
}

func (f faultyFile) Sync() error {
	if err := f.d.call(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f faultyFile) Close() error { return errors.Join(f.d.call(), f.File.Close()) }

// However often the disk fails, a mail is taken or refused, and never half of it.
func TestStageOnAFailingDisk(t *testing.T) {
	r := newRig(t)
	d := &faultyDisk{}
	r.Queue.disk = d
	for n := 1; ; n++ {
		fault := []error{syscall.EIO, syscall.ENOSPC}[n%2]
		d.failAt(n, fault)
		s, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@example.net"), outgoing("b@example.net")})
		if err == nil {
			if n < 8 {
				t.Errorf("call %d did not count", n)
			}
			d.failAt(0, nil)
			if err := s.Withdraw(); err != nil {
				t.Error(err)
			}
			break
		}
		if !errors.Is(err, fault) || errors.Is(err, mailstore.ErrFull) != errors.Is(fault, syscall.ENOSPC) {
			t.Errorf("call %d: %v", n, err)
		}
		if left := r.files(); len(left) != 0 {
			t.Errorf("call %d leaves %v", n, left)
		}
		if u := r.Stats(); u.Messages != 0 || u.Octets != 0 {
			t.Errorf("call %d is counted: %+v", n, u)
		}
	}
	d.failAt(1, syscall.EIO)
	if _, err := r.Stage(t.Context(), []mailstore.Outgoing{{Sender: "a@b.c", Content: failing{}, Recipients: outgoing("x@y.z").Recipients}}); err == nil {
		t.Error("content that cannot be read was taken")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the spool is gone") }

// A file that cannot be removed stays until the next start.
func TestWhatCannotBeRemoved(t *testing.T) {
	r := newRig(t)
	d := &faultyDisk{}
	r.Queue.disk = d
	r.queue(outgoing("a@example.net"))
	j := r.one()
	d.failAt(1, syscall.EIO)
	r.settle(j, done(0))
	if len(r.files()) != 1 || !strings.Contains(r.logged(), "left over") {
		t.Errorf("files %v, log %s", r.files(), r.logged())
	}
	r.reopen()
	if len(r.files()) != 0 {
		t.Errorf("files %v", r.files())
	}
}

// Whichever call to the database fails, a release has happened whole or not at all, and so has what a relay says.
func TestFailingDatabase(t *testing.T) {
	faults := &databasetest.Faults{}
	r := newRig(t)
	r.wrap = faults.Wrap
	r.reopen()
	for n := 1; ; n++ {
		s, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@example.net", "b@example.com"), outgoing("c@example.net")})
		if err != nil {
			t.Fatal(err)
		}
		faults.FailAt(n)
		err = s.Release(t.Context())
		faults.FailAt(0)
		if err == nil {
			if n < 5 {
				t.Errorf("call %d did not count", n)
			}
			break
		}
		if list, e := r.List(t.Context(), Filter{All: true}); e != nil || len(list) != 0 || len(r.files()) != 0 || len(r.take()) != 0 || r.Stats().Messages != 0 {
			t.Fatalf("call %d: %v, and yet there is %+v, files %v, %v", n, err, list, r.files(), e)
		}
	}
	jobs := r.take()
	if len(jobs) != 3 {
		t.Fatalf("%d jobs", len(jobs))
	}
	var attempts []mailstore.Attempt
	for _, j := range jobs {
		attempts = append(attempts, mailstore.Attempt{Message: j.Message, Domain: j.Domain, Results: []mailstore.AttemptResult{done(j.Recipients[0].Number)}})
	}
	for n := 1; ; n++ {
		faults.FailAt(n)
		err := r.Settle(t.Context(), attempts)
		faults.FailAt(0)
		if err == nil {
			if n < 5 {
				t.Errorf("call %d did not count", n)
			}
			break
		}
		list, e := r.List(t.Context(), Filter{State: Relayed, All: true})
		if e != nil || len(list) != 0 || len(r.files()) != 2 || len(r.take()) != 0 {
			t.Fatalf("call %d: %v, and yet there is %+v, files %v, %v", n, err, list, r.files(), e)
		}
	}
	if list, err := r.List(t.Context(), Filter{State: Relayed, All: true}); err != nil || len(list) != 2 || len(r.files()) != 0 {
		t.Errorf("settled: %+v, files %v, %v", list, r.files(), err)
	}
}

// While Take cannot read, jobs stay where they are.
func TestTakeFromAFailingDatabase(t *testing.T) {
	faults := &databasetest.Faults{}
	r := newRig(t)
	r.wrap = faults.Wrap
	r.reopen()
	r.queue(outgoing("a@example.net"))
	r.queue(outgoing("b@example.net"))
	for n := 1; n <= 4; n++ {
		faults.FailAt(n)
		jobs, _, err := r.Take(t.Context(), 10, all)
		faults.FailAt(0)
		if !errors.Is(err, databasetest.ErrFault) {
			t.Fatalf("call %d: %v", n, err)
		}
		for _, j := range jobs {
			r.settle(j) // untried
		}
	}
	if jobs := r.take(); len(jobs) != 2 {
		t.Errorf("%d jobs are left", len(jobs))
	}
}

// A change that fails does not take those along that are written with it.
func TestOneOfManyFails(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	var first, rest sync.WaitGroup
	first.Go(func() { _ = r.commit(t.Context(), func(context.Context, *sql.Tx) error { <-release; return nil }) })
	var mu sync.Mutex
	failed := 0
	for i := range 20 {
		rest.Go(func() {
			s, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@example.net")})
			if err != nil {
				t.Error(err)
				return
			}
			if i == 7 {
				s.(*staged).entries[0].id = "" // as long as it is not unique …
				s.(*staged).entries = append(s.(*staged).entries, s.(*staged).entries[0])
			}
			if err := s.Release(t.Context()); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
			}
		})
	}
	close(release)
	first.Wait()
	rest.Wait()
	if jobs := r.take(); failed != 1 || len(jobs) != 19 {
		t.Errorf("%d failed, %d are there", failed, len(jobs))
	}
}

func TestDamagedDatabase(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net", "b@example.com"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	path := databasePath(r.c.Dir)
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), r.c)
	if !errors.Is(err, database.ErrDamaged) || !strings.Contains(err.Error(), "move it away to begin anew") {
		t.Errorf("got %v", err)
	}
	if len(r.files()) != 1 {
		t.Fatalf("the mail went with it: %v", r.files())
	}
	// The operator does as told: the mail is there, held, for nobody knows who has got it.
	if err := os.Rename(path, path+".damaged"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mailDir(r.c.Dir), "q2222222222"), []byte("no envelope"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	m := r.show(id)
	if m.Held == "" || len(m.Recipients) != 2 || m.Sender != "me@example.org" || m.Why != "submission" || len(r.take()) != 0 {
		t.Errorf("found again: %+v", m)
	}
	if log := r.logged(); !strings.Contains(log, "queued="+id) || !strings.Contains(log, "cannot read") {
		t.Errorf("the log says %s", log)
	}
	if err := r.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if jobs := r.take(); len(jobs) != 2 || r.content(id) != mail {
		t.Errorf("released: %+v", jobs)
	}
}

func TestContentIsGone(t *testing.T) {
	r := newRig(t)
	id := r.queue(outgoing("a@example.net"))
	other := r.queue(outgoing("b@example.net"))
	if err := os.Remove(r.path(id)); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if !strings.Contains(r.logged(), "the content of a queued mail is gone") || !strings.Contains(r.logged(), id) {
		t.Errorf("the log says %s", r.logged())
	}
	if _, err := r.Content(t.Context(), id); !errors.Is(err, mailstore.ErrNoMessage) {
		t.Errorf("got %v", err)
	}
	if r.content(other) != mail {
		t.Error("the other is gone, too")
	}
	for _, j := range r.take() {
		if j.Message == id {
			r.settle(j, mailstore.AttemptResult{Outcome: mailstore.Failed, Reply: "the message is gone from the queue", Status: "5.3.0"})
		}
	}
	report := r.report()
	if got := r.content(report.Message); !strings.Contains(got, "the message is gone") || strings.Contains(got, "message/rfc822") {
		t.Errorf("its sender reads %s", got)
	}
}

func TestClosed(t *testing.T) {
	r := newRig(t)
	s, err := r.Stage(t.Context(), []mailstore.Outgoing{outgoing("a@example.net")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	r.open()
}

// Many at once: everything is given once, and everything leaves.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	const mails = 60
	var work sync.WaitGroup
	work.Go(func() {
		for i := range mails {
			r.queue(outgoing("a@example.net", "b@example.com"))
			if i%10 == 0 {
				r.Stats()
			}
		}
	})
	var mu sync.Mutex
	given, left := map[string]int{}, 2*mails
	for range 4 {
		work.Go(func() {
			for {
				jobs, _, err := r.Take(t.Context(), 3, all)
				if err != nil {
					t.Error(err)
					return
				}
				for _, j := range jobs {
					c, err := r.Content(t.Context(), j.Message)
					if err != nil {
						t.Error(err)
						return
					}
					if text, err := io.ReadAll(c); err != nil || string(text) != mail {
						t.Errorf("%q, %v", text, err)
					}
					_ = c.Close()
					r.settle(j, done(j.Recipients[0].Number))
				}
				mu.Lock()
				for _, j := range jobs {
					given[j.Message+" "+j.Domain]++
					left--
				}
				over := left <= 0
				mu.Unlock()
				if over {
					signal(r.wake) // for the others
					return
				}
				if len(jobs) == 0 {
					select {
					case <-r.Wake():
					case <-time.After(10 * time.Millisecond): // somebody else was woken
					}
				}
			}
		})
	}
	work.Wait()
	for key, n := range given {
		if n != 1 {
			t.Errorf("%s was given %d times", key, n)
		}
	}
	if s := r.Stats(); len(given) != 2*mails || s.Messages != 0 || len(r.files()) != 0 {
		t.Errorf("%d given, %+v", len(given), s)
	}
}
