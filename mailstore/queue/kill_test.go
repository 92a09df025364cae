package queue

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sluice/mailstore"
)

const childVar = "SLUICE_TEST_QUEUE_CHILD"

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		queueForever(dir)
	}
	os.Exit(m.Run())
}

// queueForever queues mail, and says what it has promised, until it is killed: "queued ID".
func queueForever(dir string) {
	ctx := context.Background()
	q, err := Open(ctx, Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := range 4 {
		go func() { // ends with the process
			for {
				s, err := q.Stage(ctx, []mailstore.Outgoing{outgoing("a@example.net", "b@example.com")})
				if err == nil && i == 0 {
					fmt.Println("staged", s.IDs()[0]) // and never released
					continue
				}
				if err == nil {
					err = s.Release(ctx)
				}
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("queued", s.IDs()[0])
			}
		}()
	}
	select {}
}

// What a killed process has promised is there, whole, and what it has only staged is not.
func TestKill(t *testing.T) {
	r := newRig(t)
	queued, staged := map[string]bool{}, map[string]bool{}
	for round := range 4 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"="+r.c.Dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		news := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch verb, id, _ := strings.Cut(lines.Text(), " "); verb {
			case "queued":
				queued[id] = true
				news++
			case "staged":
				staged[id] = true
			default:
				t.Errorf("round %d: %s", round, lines.Text())
			}
			if news == 10+7*round {
				_ = cmd.Process.Kill()
				news++
			}
		}
		_ = cmd.Wait() // it was killed
		r.open()
		if strings.Contains(r.logged(), "gone") {
			t.Fatalf("round %d: log %s", round, r.logged())
		}
	}
	there := map[string]bool{}
	for _, name := range r.files() {
		there[name] = true
	}
	list, err := r.List(t.Context(), Filter{Limit: 1 << 20})
	if err != nil || len(list) != len(there) {
		t.Errorf("%d mails, %d files, %v", len(list), len(there), err)
	}
	for id := range queued {
		if !there[id] {
			t.Errorf("%s was promised and is gone", id)
			continue
		}
		if got := r.content(id); got != mail {
			t.Errorf("%s reads %q", id, got)
		}
	}
	for id := range staged {
		if there[id] {
			t.Errorf("%s was never released and is there", id)
		}
	}
	if len(queued) < 40 || len(staged) == 0 {
		t.Errorf("only %d queued, %d staged", len(queued), len(staged))
	}
}
