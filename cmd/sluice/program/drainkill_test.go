package program

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sluice/mailstore/queue"
)

// counts returns how often each mail was read to its end.
func (d *drain) counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.seen)
}

// waitSeen waits until so many mails were read, those that came twice counted twice.
func (d *drain) waitSeen(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for sum(d.seen) < n {
		d.some.Wait()
	}
}

func sum(counts map[string]int) (n int) {
	for _, x := range counts {
		n += x
	}
	return n
}

// forbid says that a mail must not come any more.
func (d *drain) forbid(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.over[id]; !known {
		d.over[id] = d.seen[id]
	}
}

// forbidden returns the mails that have come all the same.
func (d *drain) forbidden() (wrong []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.over {
		if d.seen[id] != n {
			wrong = append(wrong, id)
		}
	}
	return wrong
}

// markedMail returns the mails that the queue of a program which does not run has marked on disk as taken.
func markedMail(t *testing.T, dir string) map[string]bool {
	t.Helper()
	r, err := queue.OpenReader(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	marked := map[string]bool{}
	err = eachQueued(t.Context(), r, queue.Filter{State: queue.Relayed, All: true}, func(m queue.Message) error {
		marked[m.Transaction] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return marked
}

// A server that is killed while it sends, again and again, loses no mail, and sends none twice but those that the other
// side took and that were not marked on disk yet: at most one for each connection.
func TestKilledWhileItSends(t *testing.T) {
	const mails, connections, kills = 400, 4, 6
	d := openDrain(t)
	dir := t.TempDir()
	conf := fmt.Sprintf("data: data\nhostname: mx.example.org\nlisten: {smtp: [\"127.0.0.1:0\"]}\npipeline: []\n"+
		"relay: {smarthost: [%q], per_destination: %d}\n", d.Addr().String(), connections)
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	folder := queueFolder(filepath.Join(dir, "data"))
	q, err := queue.Open(t.Context(), queue.Config{Dir: folder, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fillQueue(t, q, mails, 7)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	twice := 0
	for round := range kills + 1 {
		before := d.counts()
		r, err := start(dir, os.Environ(), io.Discard, "sluice", "-c", "sluice.yaml", "serve")
		if err != nil {
			t.Fatal(err)
		}
		if round < kills {
			d.waitSeen(sum(before) + 1 + 9*round)
			_ = r.cmd.Process.Kill()
			<-r.exited
		} else {
			d.wait(mails)
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			if err := <-r.exited; err != nil {
				t.Errorf("%v\n%s", err, r.log)
			}
		}
		after, again := d.counts(), 0
		for id, n := range after {
			again += max(0, n-max(1, before[id]))
		}
		if twice += again; again > connections { // those that the kill before has cut
			t.Errorf("round %d: %d mails were sent again, on %d connections", round, again, connections)
		}
		for id := range markedMail(t, folder) {
			if after[id] == 0 {
				t.Errorf("round %d: %s is marked as taken, and never was", round, id)
			}
			d.forbid(id)
		}
	}
	if got, marked := d.counts(), markedMail(t, folder); len(got) != mails || len(marked) != mails {
		t.Errorf("of %d mails %d have arrived and %d are marked", mails, len(got), len(marked))
	}
	if wrong := d.forbidden(); len(wrong) > 0 {
		t.Errorf("sent again although they were marked as taken: %v", wrong)
	}
	t.Logf("%d of %d mails were sent twice by %d kills", twice, mails, kills)
}
